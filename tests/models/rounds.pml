/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data in rounds: does every member get the right bytes, from buffers that nobody else touches any more, whoever fails?  Operations of any
 * kind and number of rounds follow each other; a member whose bit of STAGED is set passes its data through the two halves of its staging
 * area, the others' buffers are read and stored into where they lie.
 *
 *   inside, first input, stamp; stamps of all, look for a break     request_number, rounds_begin, request_post_moves, request_check
 *   input of round k + 1, share, look, stamp                        SHARE of rounds_step (collectives/rounds.c); its look before the share
 *                                                                   only finds earlier what those around it find
 *   PUSH: read slice `me` of all, store it into all                 collectives/allreduce.c; of one half, so in place
 *   PULL: the same, into our own; then read the others' slices      its fetch; FETCHED of rounds_step
 *   EACH: read what all have                                        its one_shot, allgather.c, alltoall.c, reduce_scatter.c
 *   FROM(root), TO(root): read the root's; the root reads all       broadcast.c; gather.c, one_shot to a root
 *   stamps of whom_to_await, look, take                             SHARED of rounds_step
 *   halves: they take turns over all operations                     comm.halves
 *   gone and not there; given up; late                              wait_look, wait_aborted, finished_ours (collectives/wait.c)
 *   given_up[me], then the caller reuses what it sent;              comm_break;
 *   nobody inside: it reuses what it receives into                  comm_buffers_safe (collectives/recover.c)
 *
 * Memory is sequentially consistent here; giveup.pml has the fences.  TROUBLE 0: none.  1: a member gives up wherever it waits.
 * 2: a member dies anywhere.  3: another thread of a member aborts the group at any time (comm_abort).
 * Asserted: what is read is the input of this round; a result that is returned is right; nobody stores into a buffer after its owner was
 * told that it is safe; nobody fails without trouble, or finishes an operation later than one that somebody failed in.  All end.
 * MUTANT 1: one half.  2: nobody waits behind the last round.  3: the stamp before the input of round k + 1.  4: behind a share only those
 * are awaited who read.  5: no look before a share, there and at the check.  6: none behind it, before the stamp and behind the wait.
 * 7: who gives up tells nobody.  8: deaths are not looked at.  9: buffers are safe at once.  10: every operation begins with the same half.
 * 11: of PULL, no stamp is awaited behind the fetch.
 * ENOUGH 1: without the looks before the stamp; 2: without those behind the wait.
 */
#ifndef N
#define N 2
#endif
#ifndef OPERATIONS
#define OPERATIONS 2
#endif
#ifndef ROUNDS
#define ROUNDS 3 /* at most */
#endif
#ifndef STAGED
#define STAGED 3
#endif
#ifndef TROUBLE
#define TROUBLE 0
#endif
#ifndef ENOUGH
#define ENOUGH 0
#endif
#ifndef MUTANT
#define MUTANT 0
#endif

/* kinds */
#define PUSH 0
#define PULL 1
#define EACH 2
#define FROM(root) (3 + (root))
#define TO(root) (3 + N + (root))
#define KINDS (3 + 2 * N)
byte kind[OPERATIONS + 1];
byte rounds[OPERATIONS + 1]; /* 0: refused at the check, with the first input staged */
#define ROOT ((kind[o] - 3) % N)
#define IS_FROM (kind[o] >= FROM(0) && kind[o] < TO(0))
#define IS_TO (kind[o] >= TO(0))

/* Slice of a round's data, in a half or in the buffer. */
#define IS_STAGED(m) ((STAGED >> (m)) & 1)
#define PLACE(m, k) (IS_STAGED(m) * (((k) + halves) & (MUTANT != 1)) + (1 - IS_STAGED(m)) * (k))
#if ROUNDS == 1
#define PLACES 2
#else
#define PLACES ROUNDS
#endif
#define CELL(m, k, slice) cell[((m) * PLACES + PLACE(m, k)) * N + (slice)]
byte cell[N * PLACES * N];
#define INPUT(k) (o * 16 + (k) * 2)
#define RESULT(k) (INPUT(k) + 1)
#define REUSED 255

byte stamp[N];
bool inside[N];
byte given_up[N];   /* in this operation; 0 = not */
byte failed_in[N];
bool gone[N];
bool safe[N];
byte current[N];
byte troubled = N;  /* the one that is */

/* whose stamps */
#define NOBODY 0
#define THE_ROOT 1
#define EVERYBODY 2
#define MUTUAL (kind[o] <= EACH)
#define SOURCES ((MUTUAL || (IS_TO && me == ROOT)) * EVERYBODY + (IS_FROM && me != ROOT) * THE_ROOT)
#define READERS ((MUTUAL || (IS_FROM && me == ROOT)) * EVERYBODY + (IS_TO && me != ROOT) * THE_ROOT)
#define NO_RESULT_STORED (kind[o] >= EACH) /* by others, or read by others */
#define IS_LAST (k + 1 == rounds[o])

#define MATTERS(m) ((m) != me && (whom == EVERYBODY || (whom == THE_ROOT && (m) == ROOT)))

#define OUT(m) (given_up[m] != 0 && given_up[m] <= o)
#define DIED(m) (gone[m] && MATTERS(m) && stamp[m] < phase && MUTANT != 8)
#if N == 2
#define ABORTED (OUT(0) || OUT(1))
#define SOME_GONE (DIED(0) || DIED(1))
#define STRAGGLER(m) (inside[1 - (m)] && !gone[1 - (m)])
#else
#define ABORTED (OUT(0) || OUT(1) || OUT(2))
#define SOME_GONE (DIED(0) || DIED(1) || DIED(2))
#define STRAGGLER(m) ((inside[((m) + 1) % 3] && !gone[((m) + 1) % 3]) || (inside[((m) + 2) % 3] && !gone[((m) + 2) % 3]))
#endif
#define LATE (TROUBLE == 1 && troubled == me && m < N && MATTERS(m) && stamp[m] < phase)
#define LOOK \
    if \
    :: ABORTED -> goto fail \
    :: else \
    fi
#if TROUBLE == 2
#define MAY_DIE \
    if \
    :: troubled == me -> goto dead \
    :: true \
    fi
#else
#define MAY_DIE skip
#endif

/* Our input of round j: what the others read of it. */
inline fill(j) {
    if
    :: MUTUAL ->
        m = 0;
        do
        :: m == me -> m++
        :: m < N && m != me -> MAY_DIE; atomic { CELL(me, j, m) = INPUT(j); m++ }
        :: m == N -> m = 0; break
        od
    :: (IS_FROM && me == ROOT) || (IS_TO && me != ROOT) -> MAY_DIE; CELL(me, j, 0) = INPUT(j)
    :: else
    fi
}

inline wait_for() {
    m = 0;
    do
    :: m < N && (!MATTERS(m) || stamp[m] >= phase) -> m++
    :: m < N && MATTERS(m) && stamp[m] < phase && (ABORTED || SOME_GONE || LATE) -> goto fail
    :: m == N -> m = 0; break
    od
}

inline take_in(owner, slice) {
    assert(CELL(owner, k, slice) == INPUT(k) || CELL(owner, k, slice) == REUSED);
    bad = bad || CELL(owner, k, slice) == REUSED
}

inline read_all(slice) {
    do
    :: m == me -> m++
    :: m < N && m != me -> MAY_DIE; atomic { take_in(m, slice); m++ }
    :: m == N -> m = 0; break
    od
}

inline share() {
    m = 0;
    if
    :: MUTUAL -> read_all(me)
    :: IS_FROM && me != ROOT -> MAY_DIE; atomic { take_in(ROOT, 0) }
    :: IS_TO && me == ROOT -> read_all(0)
    :: else
    fi;
    if
    :: kind[o] == PUSH ->
        do
        :: m == me -> m++
        :: m < N && m != me -> MAY_DIE; atomic { assert(!safe[m] || IS_STAGED(m)); CELL(m, k, me) = (bad -> REUSED : RESULT(k)); m++ }
        :: m == N -> m = 0; break
        od
    :: kind[o] == PULL -> MAY_DIE; CELL(me, k, me) = (bad -> REUSED : RESULT(k))
    :: else
    fi
}

inline fetch() {
    do
    :: m == me -> m++
    :: m < N && m != me ->
        MAY_DIE;
        atomic {
            assert(CELL(m, k, m) == RESULT(k) || CELL(m, k, m) == REUSED);
            bad = bad || CELL(m, k, m) == REUSED;
            m++
        }
    :: m == N -> m = 0; break
    od
}

/* Looks, and publishes. */
inline publish_share() {
    if
    :: ABORTED && MUTANT != 6 && ENOUGH != 1 -> goto fail
    :: else
    fi;
    MAY_DIE;
    if
    :: MUTANT != 3 -> atomic { phase++; stamp[me] = phase }
    :: else
    fi
}

/* Waits, and looks. */
inline await() {
    wait_for();
    if
    :: ABORTED && MUTANT != 6 && ENOUGH != 2 -> goto fail
    :: else
    fi
}

inline results(j) {
    m = 0;
    do
    :: m == me -> m++
    :: m < N && m != me -> atomic { assert(CELL(me, j, m) == RESULT(j)); m++ }
    :: m == N -> m = 0; break
    od
}

proctype member(byte me) {
    byte o = 1, k, m, phase, whom, halves;
    bool bad;
    do
    :: o <= OPERATIONS ->
        if
        :: given_up[me] -> goto fail /* unusable */
        :: else
        fi;
        inside[me] = true;
        k = 0;
        do
        :: k < (IS_STAGED(me) -> 1 : rounds[o]) -> fill(k); k++
        :: else -> k = 0; break
        od;
        MAY_DIE;
        atomic { phase++; current[me] = o; stamp[me] = phase }
        whom = EVERYBODY;
        wait_for();
        if
        :: ABORTED && MUTANT != 5 -> goto fail
        :: else
        fi;
        do
        :: k < rounds[o] ->
            if
            :: MUTANT == 3 -> phase++; stamp[me] = phase
            :: else
            fi;
            if
            :: IS_STAGED(me) && k + 1 < rounds[o] && kind[o] != PULL -> fill(k + 1)
            :: else
            fi;
            share();
            publish_share();
            if /* whom_to_await */
            :: kind[o] == PULL -> whom = EVERYBODY
            :: IS_LAST && kind[o] != PULL && ((IS_STAGED(me) && NO_RESULT_STORED) || (MUTANT == 2 && kind[o] != PUSH)) -> whom = NOBODY
            :: else ->
                if
                :: IS_LAST || READERS > SOURCES || MUTANT == 4 -> whom = READERS
                :: else -> whom = SOURCES
                fi
            fi;
            await();
            if
            :: kind[o] == PULL ->
                if
                :: IS_STAGED(me) && k + 1 < rounds[o] -> fill(k + 1)
                :: else
                fi;
                fetch();
                publish_share();
                if
                :: MUTANT == 11 -> whom = NOBODY
                :: else
                fi;
                await()
            :: else
            fi;
            assert(!bad);
            if
            :: IS_STAGED(me) && kind[o] == PUSH -> results(k)
            :: else
            fi;
            k++
        :: else -> break
        od;
        if
        :: !IS_STAGED(me) && kind[o] == PUSH ->
            k = 0;
            do
            :: k < rounds[o] -> results(k); k++
            :: else -> break
            od
        :: else
        fi;
        k = 0;
        d_step {
            do
            :: m < N -> assert(failed_in[m] == 0 || failed_in[m] >= o); m++
            :: else -> m = 0; break
            od;
            inside[me] = false;
            halves = (MUTANT == 10 -> 0 : (halves + rounds[o]) & 1);
            o++
        }
    :: else -> goto out
    od;
fail:
    atomic {
        assert(troubled != N);
        failed_in[me] = o;
        inside[me] = false;
        given_up[me] = (MUTANT == 7 -> 0 : o)
    }
    if
    :: IS_STAGED(me) || o > OPERATIONS -> goto out
    :: else
    fi;
    k = 0;
    d_step {
        do
        :: k < PLACES * N -> cell[me * PLACES * N + k] = REUSED; k++
        :: else -> k = 0; break
        od
    }
    (!STRAGGLER(me) || MUTANT == 9);
    safe[me] = true;
    goto out;
dead:
    gone[me] = true;
out:
    skip
}

#if TROUBLE == 3
proctype other_thread() {
    atomic {
        if
        :: given_up[troubled] == 0 -> given_up[troubled] = current[troubled]
        :: else
        fi
    }
}
#endif

byte i = 1;
init {
    byte choice;
    atomic {
        do
        :: i <= OPERATIONS ->
            select(choice : 0 .. KINDS - 1);
            kind[i] = choice;
            if
            :: kind[i] == EACH -> select(choice : 0 .. ROUNDS)
            :: else -> select(choice : 1 .. ROUNDS)
            fi;
            rounds[i] = choice;
            i++
        :: else -> i = 0; break
        od;
        if
        :: TROUBLE != 0 -> select(choice : 0 .. N - 1); troubled = choice
        :: else
        fi;
        do
        :: i < N -> run member(i); i++
        :: else -> i = 0; break
        od
#if TROUBLE == 3
        ; run other_thread()
#endif
    }
}
