/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Do two mails per member suffice?  Each member writes its mail of operation s into mail[s & 1], the stamp last, waits until the stamps of
 * all have come, and reads all mails; it does not wait until the others have read (collectives/board.h says why that is enough).  Some
 * operations have another phase, whose end a member awaits of all, of the root, or not at all: so one may be an operation ahead of another.
 *
 *   call, data, then stamp                  post_address, comm_publish (collectives/post.h)
 *   stamp >= phase of every member          request_all_at (collectives/request.c), all_agree (quick.c)
 *   reading, word by word                   compare_mails, request_mail; all_agree, unpack
 *   stamp of the same mail                  comm_publish behind a share (collectives/rounds.c)
 *   stamp >= phase of some, or none         request_these_at
 *
 * Stores become visible in the order in which they are made (TSO, or a release store behind them); how late they do makes no difference
 * here, since nobody looks for what is missing but the waits.  Asserted: what is read belongs to operation s, all of it.  All end.
 * MUTANT 1: one mail only.  2: the stamp before the data.  3: a member does not wait for the last one.  4: it waits for == phase.
 */
#ifndef N
#define N 3
#endif
#ifndef OPERATIONS
#define OPERATIONS 4
#endif
#ifndef MUTANT
#define MUTANT 0
#endif
#define AT(m, s) mail[(m) * 2 + ((s) & 1 & (MUTANT != 1))]
#define LAST (N - (MUTANT == 3))
#define REACHED(m) (AT(m, s).stamp == phase || (AT(m, s).stamp > phase && MUTANT != 4))

mtype = { MEET, FROM_ROOT, TO_ROOT, ALL }; /* what there is behind the mail: nothing; a phase that the root, the others, all wait for */
mtype kind[OPERATIONS + 1];

typedef letter {
    byte stamp;
    byte call;
    byte data
}
letter mail[N * 2];

proctype member(byte me) {
    byte s = 1, m, phase;
    do
    :: s <= OPERATIONS ->
        phase++;
        AT(me, s).call = s;
        if
        :: MUTANT == 2 -> AT(me, s).stamp = phase
        :: else
        fi;
        AT(me, s).data = s;
        AT(me, s).stamp = phase;
        m = 0;
        do
        :: m < LAST && m == me -> m++
        :: m < LAST && m != me && REACHED(m) -> m++
        :: m == LAST -> break
        od;
        m = 0;
        do
        :: m < N ->
            assert(AT(m, s).call == s);
            atomic { assert(AT(m, s).data == s); m++ }
        :: else -> m = 0; break
        od;
        if
        :: kind[s] == MEET
        :: else ->
            phase++;
            AT(me, s).stamp = phase;
            if
            :: kind[s] == ALL || (kind[s] == FROM_ROOT && me == 0) ->
                do
                :: m < N && m == me -> m++
                :: m < N && m != me && REACHED(m) -> m++
                :: m == N -> m = 0; break
                od
            :: kind[s] == TO_ROOT && me != 0 -> REACHED(0)
            :: else
            fi
        fi;
        s++
    :: else -> break
    od
}

byte i = 1;
init {
    atomic {
        do
        :: i == OPERATIONS -> kind[i] = MEET; i++ /* nothing comes after it */
        :: i < OPERATIONS ->
            if
            :: kind[i] = MEET
            :: kind[i] = FROM_ROOT
            :: kind[i] = TO_ROOT
            :: kind[i] = ALL
            fi;
            i++
        :: i > OPERATIONS -> i = 0; break
        od;
        do
        :: i < N -> run member(i); i++
        :: else -> break
        od
    }
}
