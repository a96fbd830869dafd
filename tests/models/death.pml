/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does every survivor return when a member dies, leaves its place for good, or is stopped, at any moment of a sequence of barriers?
 * A wait ends when the awaited phase has come, a member that has not reached the target is gone, or a member gave the group up; one
 * member has a deadline.  A survivor that waits for ever is an invalid end state.
 *
 *   phase[m] >= s                       wait_reached (collectives/request.h); a phase is the stamp of a mail
 *   gone[m] && phase[m] < s             wait_look -> give_up_gone (collectives/wait.c): all members are looked at, not the awaited one
 *   given_up[m] <= s                    wait_aborted, finished_ours -> give_up_aborted
 *   given_up[me] = s                    comm_break (collectives/comm.c)
 *
 * Asserted: nobody finishes operation s + 1 when a member failed in s; after a death all survivors fail in the same one; who arrives after
 * somebody gave up does not finish; nobody fails as long as nobody died or was stopped.
 * DEATH 1: the victim dies; 0: it stops, goes on later, and only member 0 has a deadline.
 * MUTANT 1: who gives up tells nobody (and only the awaited member's life is looked at).  2: a death is not looked at.
 * 3: who arrives late believes the phases and reports success.  4: a member that gave up in a later operation ends this one, too.
 */
#ifndef N
#define N 3
#endif
#define VICTIM (N - 1)
#define OPERATIONS 3
#ifndef DEATH
#define DEATH 1
#endif
#ifndef MUTANT
#define MUTANT 0
#endif

byte phase[N];
bool gone[N];
byte given_up[N];   /* in this operation; 0 = not */
byte failed_in[N];  /* 0 = not */
bool troubled;      /* the victim died or was stopped */
bool stopped;
byte returned;

/* The victim may die between any two of its steps; stopped, it stands still until it is let go. */
#define STEP \
    if \
    :: me == VICTIM && DEATH == 1 && !troubled -> troubled = true; gone[me] = true; goto dead \
    :: me == VICTIM && DEATH == 0 && !troubled -> troubled = true; stopped = true; !stopped \
    :: true \
    fi

#define LATE(m) (phase[m] < s && m != me)
#define OUT(m) (given_up[m] != 0 && m != me && (given_up[m] <= s || MUTANT == 4))
#define SAME (DEATH == 1) /* all fail in one operation */
#if N == 3
#define SOME_GONE ((gone[0] && LATE(0)) || (gone[1] && LATE(1)) || (gone[2] && LATE(2)))
#define ABORTED (OUT(0) || OUT(1) || OUT(2))
#else
#define SOME_GONE ((gone[0] && LATE(0)) || (gone[1] && LATE(1)) || (gone[2] && LATE(2)) || (gone[3] && LATE(3)))
#define ABORTED (OUT(0) || OUT(1) || OUT(2) || OUT(3))
#endif
#define GONE (MUTANT == 1 && gone[m] && LATE(m) || MUTANT != 1 && MUTANT != 2 && SOME_GONE)
#define DEADLINE (DEATH == 0 && me == 0 && stopped)

proctype member(byte me) {
    byte s = 1, m;
    bool late;
    do
    :: s <= OPERATIONS ->
        STEP;
        atomic { phase[me] = s; late = ABORTED }
        STEP;
        m = 0;
        do
        :: m == N -> break
        :: m < N && (m == me || phase[m] >= s) -> m++; STEP
        :: m < N && m != me && phase[m] < s && (GONE || ABORTED || DEADLINE) -> STEP; goto fail
        od;
        if
        :: ABORTED && MUTANT != 3 -> goto fail /* request_check: we may be the one who is too late */
        :: else
        fi;
        assert(!late);
        m = 0;
        do
        :: m < N -> assert(failed_in[m] == 0 || failed_in[m] >= s + SAME); m++
        :: else -> break
        od;
        s++
    :: else -> goto out
    od;
fail:
    atomic {
        assert(troubled);
        failed_in[me] = s;
        given_up[me] = (MUTANT == 1 -> 0 : s);
        m = 0;
        do
        :: m < N -> assert(failed_in[m] == 0 || failed_in[m] == s || !SAME); m++
        :: else -> break
        od
    }
out:
    returned++;
dead:
    skip
}

/* Lets the stopped victim go once the others have returned. */
proctype release() {
end:
    atomic { stopped && returned == N - 1; stopped = false }
}

byte i;
init {
    atomic {
        do
        :: i < N -> run member(i); i++
        :: else -> break
        od;
        run release()
    }
}
