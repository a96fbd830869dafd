/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a wake-up lost?  N members advance their stamps and wait for each other's, on a processor with store buffers (TSO, as x86): a store
 * reaches the memory some time later, in order.  There are no time slices here, so a lost wake-up is a member asleep for ever: an invalid
 * end state.
 *
 *   store(STAMP), fence_light, look for sleepers, wake     comm_publish (collectives/post.h)
 *   store(ASLEEP), fence_heavy, look, futex                wait_sleep (collectives/wait.c)
 *   fence_light, fence_heavy                               collectives/fence.h.  FENCES 0: membarrier, which drains one member after the
 *                                                          other, in no common instant; 1: it is refused, so both are plain fences
 *   compare-and-queue in one step, behind a fence          the kernel's futex_wait
 *   a fence, then who is queued                            the kernel's futex_wake
 *
 * An operation has two phases and its stamps are those of mail[operation & 1]; one sleeps on a member's mail of that number.
 * MUTANT 1: the sleeper drains its own stores only (FENCES 1: the publisher drains nothing).  2: the sleeper looks before it announces, and
 * the kernel does not compare.  3: it does not announce.  4: the publisher looks for sleepers before its store.  5: the sleeper names the
 * other mail.
 */
#ifndef N
#define N 2
#endif
#ifndef ROUNDS
#define ROUNDS 4 /* phases */
#endif
#ifndef FENCES
#define FENCES 0
#endif
#ifndef MUTANT
#define MUTANT 0
#endif
#define STAMP 0
#define ASLEEP 1
#define WHICH(round) ((((round) - 1) / 2) & 1)
#define ON(member, which) ((member) * 2 + (which) + 2) /* asleep_on */

byte stamp[N * 2];      /* memory: of mail[which] of member m at m * 2 + which */
byte asleep[N];         /* memory: ON(..), 0 = awake */
bool queued[N];         /* in the kernel's queue ... */
byte queued_on[N];      /* ... of that word */
chan buffer0 = [4] of { byte, byte, byte };
chan buffer1 = [4] of { byte, byte, byte };
#if N == 3
chan buffer2 = [4] of { byte, byte, byte };
#define OTHERS_DRAINED empty(buffer0); empty(buffer1); empty(buffer2)
#else
#define OTHERS_DRAINED empty(buffer0); empty(buffer1)
#endif

/* One entry reaches the memory. */
proctype memory(byte me; chan b) {
    byte what, where, v;
end:
    do
    :: atomic { b?what,where,v;
                if
                :: what == STAMP -> stamp[where] = v
                :: else -> asleep[me] = v
                fi; what = 0; where = 0; v = 0 }
    od
}

inline look_for_sleepers() {
    wake = false;
    other = 0;
    do
    :: other < N -> wake = wake || (asleep[other] == ON(me, WHICH(round))); other++
    :: else -> other = 0; break
    od
}

proctype member(byte me; chan b) {
    byte round = 1, other, seen, word;
    bool wake;
    do
    :: round <= ROUNDS ->
        /* publish */
        if
        :: MUTANT == 4 -> look_for_sleepers()
        :: else
        fi;
        b!STAMP,(me * 2 + WHICH(round)),round;
        if
        :: FENCES && MUTANT != 1 -> empty(b)
        :: else
        fi;
        if
        :: MUTANT != 4 -> look_for_sleepers()
        :: else
        fi;
        if
        :: wake ->
            empty(b);
            d_step { other = 0;
                     do
                     :: other < N -> queued[other] = queued[other] && queued_on[other] != ON(me, WHICH(round)); other++
                     :: else -> break
                     od;
                     wake = false }
        :: else
        fi;
        /* wait for everybody */
        other = 0;
        do
        :: other == N -> break
        :: other < N && (other == me || stamp[other * 2 + WHICH(round)] >= round) -> other++
        :: other < N && other != me && stamp[other * 2 + WHICH(round)] < round ->
            word = other * 2 + WHICH(round);
            if
            :: MUTANT == 2 -> seen = stamp[word]
            :: else
            fi;
            if
            :: MUTANT != 3 ->
                b!ASLEEP,0,ON(other, (MUTANT == 5 -> 1 - WHICH(round) : WHICH(round)));
                empty(b);
                if
                :: !FENCES && MUTANT != 1 -> OTHERS_DRAINED
                :: else
                fi
            :: else
            fi;
            if
            :: MUTANT != 2 -> seen = stamp[word]
            :: else
            fi;
            if
            :: seen >= round
            :: else ->
                empty(b); /* entering the kernel's queue is an atomic operation */
                atomic {
                    if
                    :: stamp[word] == seen || MUTANT == 2 -> queued[me] = true; queued_on[me] = word + 2
                    :: else
                    fi
                }
                !queued[me];
            fi;
            b!ASLEEP,0,0;
            seen = 0; word = 0
        od;
        other = 0;
        round++
    :: else -> break
    od
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
