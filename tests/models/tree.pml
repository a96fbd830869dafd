/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Meeting by a tree: may a member believe the words of leaders?  N members in parts of PART; operations follow each other, whose calls agree or not; a second
 * phase, if there is one, is awaited by all.  One member may die at any time, in whose place the others look at the stamps themselves.
 *
 *   call, then stamp                                      post_address, comm_publish_to (collectives/post.h)
 *   stamps of the part, calls; up_differs, then up        own_part_at (collectives/tree.c)
 *   up of every leader; or the stamps of its part         parts_at, tree_over
 *   up_differs and calls of the leaders, or of the part   parts_agree
 *   stamps of all, because somebody is gone               tree_look; then all mails: compare_mails (collectives/request.c)
 *
 * Asserted: who passes a phase knows that all have reached it; a call that is read is of this operation; the verdict is right, so it is the same for all.  All that
 * live end, but in an operation that a dead member has not reached.
 * MUTANT 1: one mail and mark, not two.  2: up before the flag.  3: a leader does not compare.  4: it does not await the
 * last of its part.  5: nobody looks for itself when a leader is gone.  6: up of the later phase makes the first one's flag be forgotten.
 */
#ifndef N
#define N 4
#endif
#define PART 2
#ifndef OPERATIONS
#define OPERATIONS 2
#endif
#ifndef CROWDED
#define CROWDED 1 /* parts are looked at by all */
#endif
#ifndef DEATH
#define DEATH 0
#endif
#ifndef MUTANT
#define MUTANT 0
#endif
#define LEADER(m) ((m) - (m) % PART)
#define W (s & 1 & (MUTANT != 1))
#define AT(m) ((m) * 2 + W)

byte stamp[N * 2];
byte call[N * 2];       /* s, or s + 100: another one */
byte up[N * 2];
byte up_differs[N * 2];
byte reached[N];        /* the truth */
byte odd = N;           /* the member that asks for something else ... */
byte odd_in;            /* ... in this operation */
bool gone[N];

#if DEATH
#define MAY_DIE if :: victim == me && DEATH -> goto dead :: true fi
#define SOME_GONE (gone[victim])
#else
#define MAY_DIE skip
#define SOME_GONE false
#endif
byte victim = N;
bool later; /* operations have a second phase */

inline publish() {
    phase++;
    atomic { stamp[AT(me)] = phase; reached[me] = phase }
}

/* Leader: its part has come. */
inline lead() {
    m = me + 1;
    do
    :: m < me + PART - (MUTANT == 4) ->
        if
        :: stamp[AT(m)] >= phase -> m++
#if DEATH
        :: SOME_GONE && stamp[AT(victim)] < phase -> goto out /* SYP_EPEER */
#endif
        fi
    :: else -> break
    od;
    if
    :: MUTANT == 2 -> up[AT(me)] = phase
    :: else
    fi;
    atomic {
        m = me;
        do
        :: m < me + PART && first && MUTANT != 3 ->
            if
            :: call[AT(m)] != call[AT(me)] -> up_differs[AT(me)] = phase
            :: else
            fi;
            m++
        :: else -> m = 0; break
        od
    }
    if
    :: MUTANT == 6 && !first -> up_differs[AT(me)] = 0
    :: else
    fi;
    MAY_DIE;
    up[AT(me)] = phase
}

proctype member(byte me) {
    byte s = 1, m, k, phase;
    bool first, differs, told;
    do
    :: s <= OPERATIONS ->
        atomic { call[AT(me)] = s + (odd == me && odd_in == s -> 100 : 0); first = true }
again:
        MAY_DIE;
        publish();
        if
        :: me == LEADER(me) -> lead()
        :: else
        fi;
        m = 0;
        do
        :: m < N ->
            if
            :: up[AT(m)] >= phase -> told = true
            :: stamp[AT(m)] >= phase && stamp[AT(m + 1)] >= phase && (CROWDED || (SOME_GONE && MUTANT != 5)) -> skip
#if DEATH
            :: SOME_GONE && stamp[AT(victim)] < phase -> goto out /* SYP_EPEER */
#endif
            fi;
            atomic {
                if
                :: first ->
                    k = m;
                    do
                    :: k < m + (told -> 1 : PART) ->
                        assert(call[AT(k)] == s || call[AT(k)] == s + 100);
                        differs = differs || call[AT(k)] != call[AT(me)];
                        k++
                    :: else -> k = 0; break
                    od;
                    differs = differs || (told && up_differs[AT(m)] == phase)
                :: else
                fi;
                told = false;
                m = m + PART
            }
        :: else -> break
        od;
        atomic {
            m = 0;
            do
            :: m < N -> assert(reached[m] >= phase); m++
            :: else -> break
            od;
            m = 0;
            assert(!first || differs == (odd != N && odd_in == s));
            differs = false
        }
        if
        :: first && later -> first = false; goto again
        :: else
        fi;
        s++
    :: else -> goto out
    od;
dead:
    gone[me] = true;
out:
    skip
}

byte i;
init {
    atomic {
        select(i : 0 .. N);
        odd = i;
        select(i : 1 .. OPERATIONS);
        odd_in = i;
#if DEATH
        select(i : 0 .. N - 1);
        victim = i;
#endif
        if
        :: later = true
        :: MUTANT != 6 && !DEATH -> later = false
        fi;
        i = 0;
        do
        :: i < N -> run member(i); i++
        :: else -> break
        od
    }
}
