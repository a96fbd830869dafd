/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Do all who decide, decide the same?  Agreement over shared memory by ballots: any member may lead at any time (its view of who is dead or
 * late may be wrong), and may die between any two steps; what it wrote stays readable.
 *
 *   promised, look, accepted, look, decided     propose (collectives/agree.c)
 *   look: the highest promise, and the verdict of the highest accepted ballot     look_around
 *   decided of anybody                          adopt
 *   ballot = attempt * N + me                   no two members use one
 *
 * Each member would decide its own number; two verdicts in turn and the reading of a torn one are not modelled.
 * Asserted: no two different verdicts are ever decided.  MUTANT 1: after its promise a leader does not look again for accepted
 * verdicts.  2: it decides without the last look.  3: it takes its own verdict although another one was accepted.
 */
#ifndef N
#define N 2
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2
#endif
#ifndef MUTANT
#define MUTANT 0
#endif

byte promised[N];
byte accepted[N];   /* ballot, 0 = none */
byte verdict[N];    /* of that ballot */
byte decided;       /* the first decided verdict, 0 = none */

/* One read at a time, in member order: others move between them. */
#define LOOK \
    highest = 0; best = 0; found = 0; m = 0; \
    do \
    :: m < N -> \
        if \
        :: promised[m] > highest -> highest = promised[m] \
        :: else \
        fi; \
        atomic { \
            if \
            :: accepted[m] > best -> best = accepted[m]; found = verdict[m] \
            :: else \
            fi; \
            m++ \
        } \
    :: else -> m = 0; break \
    od

proctype member(byte me) {
    byte attempt = 1, ballot, highest, best, found, m, choice;
again:
    do
    :: break /* it dies, or adopts what others decide: from here on it only reads */
    :: attempt <= ATTEMPTS ->
        LOOK;
        if
        :: highest / N >= attempt -> attempt = highest / N + 1
        :: else
        fi;
        if
        :: attempt > ATTEMPTS -> break
        :: else
        fi;
        choice = found;
        ballot = attempt * N + me;
        promised[me] = ballot;
        LOOK;
        attempt++;
        if
        :: highest > ballot -> goto again
        :: else
        fi;
        if
        :: MUTANT != 1 -> choice = found
        :: else
        fi;
        if
        :: choice == 0 || MUTANT == 3 -> choice = me + 1
        :: else
        fi;
        atomic { accepted[me] = ballot; verdict[me] = choice }
        if
        :: MUTANT != 2 ->
            LOOK;
            if
            :: highest > ballot -> goto again
            :: else
            fi
        :: else
        fi;
        atomic {
            assert(decided == 0 || decided == choice);
            decided = choice
        }
    od
}

byte i;
init {
    atomic {
        do
        :: i < N -> run member(i); i++
        :: else -> break
        od
    }
}
