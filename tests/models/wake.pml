/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a wake-up lost?  N members advance their phases and wait for each other's, on a processor with store buffers (TSO, as x86): a store
 * reaches the memory some time later, in order; a sequentially consistent one drains the buffer before the member goes on.
 * There are no time slices here, so a lost wake-up is a member asleep for ever: an invalid end state.
 *
 *   put(PHASE) + FENCE, look for sleepers, wake     comm_publish (collectives/comm.c)
 *   put(ASLEEP) + drain, seen = phase, futex        wait_sleep (collectives/wait.c)
 *   compare-and-queue in one step                   the kernel's futex_wait: looks at the memory, and orders what came before
 *
 * MUTANT 1: the publisher's store is a plain one.  2: the sleeper enters the kernel without looking: neither itself nor by the futex's
 * comparison.  3: the sleeper does not announce.  Each must be found.
 */
#ifndef N
#define N 2
#endif
#ifndef ROUNDS
#define ROUNDS 3
#endif
#ifndef MUTANT
#define MUTANT 0
#endif
#define PHASE 0
#define ASLEEP 1

byte phase[N];          /* memory */
byte asleep[N];         /* memory: member + 1 */
bool queued[N];         /* in the kernel's queue ... */
byte queued_on[N];      /* ... of this member's phase */
chan buffer0 = [3] of { byte, byte };
chan buffer1 = [3] of { byte, byte };
#if N == 3
chan buffer2 = [3] of { byte, byte };
#endif

inline drained(c) { empty(c) }

/* One entry reaches the memory. */
proctype memory(byte me; chan b) {
    byte what, v;
end:
    do
    :: atomic { b?what,v;
                if
                :: what == PHASE -> phase[me] = v
                :: else -> asleep[me] = v
                fi; what = 0; v = 0 }
    od
}

proctype member(byte me; chan b) {
    byte round = 1, other, seen;
    bool wake;
    do
    :: round <= ROUNDS ->
        /* publish */
        b!PHASE,round;
        if
        :: MUTANT != 1 -> drained(b)
        :: else
        fi;
        wake = false;
        other = 0;
        do
        :: other < N -> wake = wake || (asleep[other] == me + 1); other++
        :: else -> break
        od;
        if
        :: wake -> d_step { other = 0;
                            do
                            :: other < N -> queued[other] = queued[other] && queued_on[other] != me; other++
                            :: else -> break
                            od }
        :: else
        fi;
        /* wait for everybody */
        other = 0;
        do
        :: other == N -> break
        :: other < N && (other == me || phase[other] >= round) -> other++
        :: other < N && other != me && phase[other] < round ->
            if
            :: MUTANT != 3 -> b!ASLEEP,(other + 1); drained(b)
            :: else
            fi;
            seen = phase[other];
            if
            :: seen >= round && MUTANT != 2
            :: else ->
                drained(b); /* entering the kernel's queue is an atomic operation */
                atomic {
                    if
                    :: phase[other] == seen || MUTANT == 2 -> queued[me] = true; queued_on[me] = other
                    :: else
                    fi
                }
                !queued[me];
            fi;
            b!ASLEEP,0;
            seen = 0
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
