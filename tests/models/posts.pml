/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Do two posts per member suffice?  Each member writes its post of operation s into post[s & 1], advances its phase, waits until all
 * phases have come, and reads all posts; it does not wait until the others have read (collectives/board.h says why that is enough).
 *
 *   writing / sequence / payload, then phase      request_post, comm_publish (collectives/request.c, comm.c)
 *   phase[m] >= s of every member                 request_all_at
 *   reading                                       compare_posts, request_payload
 *
 * Asserted: nobody writes a post that somebody reads, nobody reads one that is written, and what is read belongs to operation s.
 * MUTANT 1: one post only.  2: the phase advances before the post is complete.  3: a member does not wait for the last one.
 */
#ifndef N
#define N 3
#endif
#define OPERATIONS 4
#ifndef MUTANT
#define MUTANT 0
#endif
#if MUTANT == 1
#define AT(m, s) post[(m) * 2]
#else
#define AT(m, s) post[(m) * 2 + ((s) & 1)]
#endif
#if MUTANT == 3
#define LAST (N - 1)
#else
#define LAST N
#endif

typedef record {
    byte sequence;
    byte payload;
    bool writing;
    byte readers
}
record post[N * 2];
byte phase[N];

proctype member(byte me) {
    byte s = 1, m;
    do
    :: s <= OPERATIONS ->
        atomic { assert(AT(me, s).readers == 0); AT(me, s).writing = true }
        AT(me, s).sequence = s;
        if
        :: MUTANT == 2 -> phase[me] = s
        :: else
        fi;
        atomic { AT(me, s).payload = s; AT(me, s).writing = false }
        phase[me] = s;
        m = 0;
        do
        :: m < LAST -> phase[m] >= s; m++
        :: else -> break
        od;
        m = 0;
        do
        :: m < N ->
            atomic { assert(!AT(m, s).writing); AT(m, s).readers = AT(m, s).readers + 1 }
            assert(AT(m, s).sequence == s);
            atomic { assert(AT(m, s).payload == s); AT(m, s).readers = AT(m, s).readers - 1; m++ }
        :: else -> break
        od;
        m = 0;
        s++
    :: else -> break
    od
}

byte m;
init {
    atomic {
        m = 0;
        do
        :: m < N -> run member(m); m++
        :: else -> break
        od
    }
}
