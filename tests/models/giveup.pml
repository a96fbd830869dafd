/* SPDX-License-Identifier: Apache-2.0 */
/*
 * May a caller reuse its buffers when its operation failed?  An all-reduce over the members' own buffers, in two phases, on a processor
 * with store buffers (TSO, as x86): each reads what all send and stores into what all receive into.  A member that waits may give up at
 * any time, or die.  Its caller then overwrites what it sent, and, once it was told that it is safe, what it received into.
 *
 *   store(INSIDE), store(STAMP); stamps of all; look      comm_begin, comm_publish, request_check (collectives/request.c, post.h)
 *   read, store(DATA), look, store(STAMP); stamps; look   SHARE and SHARED of rounds_step (collectives/rounds.c): its look before a
 *                                                         share only finds earlier what the one before it or behind it finds
 *   look: fence_light, given_up                           wait_aborted, finished_ours (collectives/wait.c)
 *   store(ABORT), fence_heavy                             announce_break (collectives/comm.c)
 *   nobody inside, by the memory                          straggler (collectives/recover.c)
 *   fence_light, fence_heavy                              collectives/fence.h, as in wake.pml
 *
 * Asserted: no store reaches a buffer after its owner was told that it is safe; whoever returns without an error has read, and got, nothing
 * that comes of an overwritten buffer.  All end.
 * MUTANT 1: who gives up drains its own stores only (FENCES 1: who looks drains nothing).  2: no look behind the check.  3: no look behind
 * the share, before the stamp and behind the wait.  4: the buffers are safe at once.  5: who gives up drains nothing.  6: it looks who is
 * inside before it tells that it gave up.  ENOUGH 1: without the look before the stamp; 2: without the one behind the wait.
 */
#ifndef N
#define N 2
#endif
#ifndef OPERATIONS
#define OPERATIONS 1
#endif
#ifndef FENCES
#define FENCES 0
#endif
#ifndef DEATH
#define DEATH 0
#endif
#ifndef ENOUGH
#define ENOUGH 0
#endif
#ifndef MUTANT
#define MUTANT 0
#endif

mtype = { INSIDE, STAMP, DATA, ABORT, REUSE };
byte stamp[N];
bool inside[N];
byte given_up[N];   /* in this operation; 0 = not */
bool reused[N];     /* what it sent */
bool spoilt[N];     /* what it received comes of such */
bool safe[N];
bool gone[N];
chan buffer0 = [6] of { mtype, byte, byte };
chan buffer1 = [6] of { mtype, byte, byte };
#if N == 3
chan buffer2 = [6] of { mtype, byte, byte };
#define ALL_DRAINED empty(buffer0); empty(buffer1); empty(buffer2)
#define ABORTED (OUT(0) || OUT(1) || OUT(2))
#define STRAGGLER(m) ((inside[((m) + 1) % 3] && !gone[((m) + 1) % 3]) || (inside[((m) + 2) % 3] && !gone[((m) + 2) % 3]))
#else
#define ALL_DRAINED empty(buffer0); empty(buffer1)
#define ABORTED (OUT(0) || OUT(1))
#define STRAGGLER(m) (inside[1 - (m)] && !gone[1 - (m)])
#endif
#define OUT(m) (given_up[m] != 0 && given_up[m] <= o)

proctype memory(byte me; chan b) {
    mtype what;
    byte at, v;
end:
    do
    :: atomic { b?what,at,v;
                if
                :: what == INSIDE -> inside[me] = v
                :: what == STAMP -> stamp[me] = v
                :: what == DATA -> assert(!safe[at]); spoilt[at] = spoilt[at] || v
                :: what == ABORT -> given_up[me] = v
                :: what == REUSE -> reused[me] = true
                fi; what = 0; at = 0; v = 0 }
    od
}

#if DEATH
#define MAY_DIE \
    if \
    :: me == 0 -> goto dead \
    :: true \
    fi
#else
#define MAY_DIE skip
#endif
#define LATE (stamp[m] < phase && (DEATH == 0 || gone[m]))

inline wait_for_all() {
    do
    :: m < N && (m == me || stamp[m] >= phase) -> m++
    :: m < N && m != me && stamp[m] < phase && (ABORTED || LATE) -> goto fail
    :: m == N -> m = 0; break
    od
}

inline fence_light() {
    if
    :: FENCES && MUTANT != 1 -> empty(b)
    :: else
    fi
}

inline look() {
    fence_light();
    if
    :: ABORTED -> goto fail
    :: else
    fi
}

proctype member(byte me; chan b) {
    byte o = 1, m, phase;
    bool bad;
    do
    :: o <= OPERATIONS ->
        b!INSIDE,0,true;
        phase++;
        b!STAMP,0,phase;
        fence_light();
        wait_for_all();
        if
        :: MUTANT != 2 -> look()
        :: else
        fi;
        do
        :: m < N -> bad = bad || (m != me && reused[m]); m++
        :: else -> m = 0; break
        od;
        do
        :: m == me -> m++
        :: m < N && m != me -> MAY_DIE; b!DATA,m,bad; m++
        :: m == N -> m = 0; break
        od;
        MAY_DIE;
        if
        :: MUTANT != 3 && ENOUGH != 1 -> look()
        :: else
        fi;
        phase++;
        b!STAMP,0,phase;
        fence_light();
        wait_for_all();
        if
        :: MUTANT != 3 && ENOUGH != 2 -> look()
        :: else
        fi;
        assert(!bad && !spoilt[me]);
        b!INSIDE,0,false;
        o++
    :: else -> goto out
    od;
fail:
    if
    :: MUTANT == 6 -> !STRAGGLER(me)
    :: else
    fi;
    b!ABORT,0,o;
    if
    :: MUTANT != 5 -> empty(b)
    :: else
    fi;
    if
    :: !FENCES && MUTANT != 1 && MUTANT != 5 -> ALL_DRAINED
    :: else
    fi;
    b!INSIDE,0,false;
    b!REUSE,0,0;
    (!STRAGGLER(me) || MUTANT == 4 || MUTANT == 6);
    safe[me] = true;
    goto out;
dead:
    empty(b);
    gone[me] = true;
out:
    skip
}

init {
    atomic {
        run memory(0, buffer0); run memory(1, buffer1);
        run member(0, buffer0); run member(1, buffer1);
#if N == 3
        run memory(2, buffer2); run member(2, buffer2);
#endif
    }
}
