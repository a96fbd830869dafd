/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/*
 * After a failure: abort from any thread, one verdict for all that live, a working group of the survivors; groups made by several threads at once.
 * Ranks are threads on common mappings with random delays at every test point.
 */
#include "bootstrap/life.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/world_test.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define N 4

static struct comm *world_of(struct world *w) {
    return &w->coll.comm[WORLD_SLOT];
}

/* A working group of n: sums are right, many times. */
static int sums_are_right(struct world *w, struct comm *c, int rounds) {
    double x[40], want = 0;
    for (int m = 0; m < c->n; m++)
        want += c->rank[m] + 1;
    for (int i = 0; i < rounds; i++) {
        for (int k = 0; k < 40; k++)
            x[k] = (w->who.rank + 1) * (i + 1);
        NEED(w, coll_allreduce(c, x, x, 40, SYP_FLOAT64, SYP_SUM, 0) == SYP_OK);
        for (int k = 0; k < 40; k++)
            NEED(w, x[k] == want * (i + 1));
    }
    return 0;
}

/* ----------------------------------------------------------------------------------------------- agreement */

static uint64_t flags_of[N];

static int agree_often(struct world *w, void *arg) {
    int rounds = *(int *)arg;
    for (int i = 0; i < rounds; i++) {
        uint64_t want = UINT64_MAX, mine = flags_of[w->who.rank] * (uint64_t)(i + 1) | 1;
        for (int r = 0; r < N; r++)
            want &= flags_of[r] * (uint64_t)(i + 1) | 1;
        NEED(w, comm_agree(world_of(w), &mine, 0) == SYP_OK);
        NEED(w, mine == want);
        NEED(w, comm_failed(world_of(w), NULL, 0) == 0);
        if (i % 16 == 0) NEED(w, coll_barrier(world_of(w), 0) == SYP_OK); /* agreements and operations mix */
    }
    return 0;
}

static void all_members_get_the_and_of_all_flags(void) {
    uint64_t seed = check_seed();
    int rounds = (int)check_count(300, 20000);
    for (int r = 0; r < N; r++)
        flags_of[r] = check_random(&seed) | check_random(&seed);
    delays_on(seed, 6);
    CHECK_EQ(worlds_as_threads(N, NULL, agree_often, &rounds), 0);
    delays_off();
}

/* Two die at random moments of a series of agreements.  Whatever an agreement says, it says the same to all that return from it. */
#define ROUNDS 40
struct deaths {
    int dies_at[N]; /* round, -1 = lives */
    struct {
        atom32 n;
        atom64 flags, gone;
    } said[ROUNDS];
};

static int same_for_all(struct world *w, struct deaths *d, int round, uint64_t flags) {
    int ranks[N], n = comm_failed(world_of(w), ranks, N);
    uint64_t gone = 1u << N;
    for (int i = 0; i < n; i++)
        gone |= 1u << ranks[i];
    uint64_t first = 0;
    if (!atomic_compare_exchange_strong(&d->said[round].flags, &first, flags)) NEED(w, first == flags);
    first = 0;
    if (!atomic_compare_exchange_strong(&d->said[round].gone, &first, gone)) NEED(w, first == gone);
    return 0;
}

static int agree_and_die(struct world *w, void *arg) {
    struct deaths *d = arg;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t flags = 0xff00 | 1u << w->who.rank;
        if (i == d->dies_at[w->who.rank]) {
            world_vanish(w);
            return 0;
        }
        NEED(w, comm_agree(world_of(w), &flags, 0) == SYP_OK);
        if (same_for_all(w, d, i, flags)) return 1;
    }
    struct comm *left = NULL;
    NEED(w, comm_shrink(world_of(w), 0, 0, &left) == SYP_OK);
    NEED(w, left->n == N - comm_failed(world_of(w), NULL, 0));
    if (sums_are_right(w, left, 20)) return 1;
    world_vanish(w); /* nobody meets for the finalize of a broken world */
    return 0;
}

static void deaths_do_not_split_the_verdict(void) {
    uint64_t seed = check_seed();
    for (int i = 0; i < (int)check_count(20, 400); i++) {
        struct deaths d = {.dies_at = {-1, -1, -1, -1}};
        int first = (int)(check_random(&seed) % N), second = (int)(check_random(&seed) % N);
        d.dies_at[first] = (int)(check_random(&seed) % ROUNDS);
        d.dies_at[second] = (int)(check_random(&seed) % ROUNDS);
        delays_on(check_random(&seed), 4);
        CHECK_EQ(worlds_as_threads(N, NULL, agree_and_die, &d), 0);
        delays_off();
    }
}

/* One calls agree, the others shrink. */
static int mixed_calls(struct world *w, void *arg) {
    (void)arg;
    uint64_t flags = 1;
    struct comm *out = NULL;
    int rc = w->who.rank == 1 ? comm_agree(world_of(w), &flags, 0) : comm_shrink(world_of(w), 0, 0, &out);
    NEED(w, rc == SYP_EMISMATCH && !out);
    NEED(w, comm_shrink(world_of(w), 0, 0, &out) == SYP_OK); /* the group of agreements is still in step */
    if (sums_are_right(w, out, 5)) return 1;
    world_vanish(w);
    return 0;
}

static void different_calls_are_a_mismatch_on_all(void) {
    CHECK_EQ(worlds_as_threads(N, NULL, mixed_calls, NULL), 0);
}

/* ------------------------------------------------------------------------------------------- late members */

/* A thread that wants it is held at one test point until it is let go. */
static _Thread_local const char *hold_at;
static atom32 held, go_on;

static void hold(const char *point) {
    if (!hold_at || strcmp(point, hold_at)) return;
    hold_at = NULL;
    add_relaxed(&held, 1);
    for (uint64_t end = os->now() + 20 * NS_PER_S; !load_acquire(&go_on) && os->now() < end;)
        os->sleep(NS_PER_MS);
}

static void hold_on(void) {
    store_relaxed(&held, 0);
    store_relaxed(&go_on, 0);
    test_point_hook = hold;
}

static void wait_held(void) {
    while (!load_acquire(&held))
        os->sleep(NS_PER_MS);
}

/* Rank 3 is stopped before its vote is there.  The others give it up and agree on more, so that the records of the first agreement are used again. */
static int left_behind(struct world *w, void *arg) {
    struct comm *c = world_of(w), *out = NULL;
    uint64_t flags = 7;
    (void)arg;
    if (w->who.rank == 3) {
        hold_at = "agree.post";
        NEED(w, comm_shrink(c, 1, 300 * (int64_t)NS_PER_MS, &out) == SYP_EABORTED && !out);
        NEED(w, comm_shrink(c, 1, 300 * (int64_t)NS_PER_MS, &out) == SYP_EABORTED && !out);
    } else {
        wait_held();
        NEED(w, comm_shrink(c, 1, 300 * (int64_t)NS_PER_MS, &out) == SYP_OK && out->n == 3);
        NEED(w, comm_agree(c, &flags, 0) == SYP_OK && comm_agree(c, &flags, 0) == SYP_OK && flags == 7);
        NEED(w, coll_barrier(out, 0) == SYP_OK);
        store_release(&go_on, 1);
        if (sums_are_right(w, out, 5)) return 1;
    }
    world_vanish(w);
    return 0;
}

static void who_was_left_behind_decides_nothing(void) {
    hold_on();
    CHECK_EQ(worlds_as_threads(N, NULL, left_behind, NULL), 0);
    delays_off();
}

/* Rank 3 has voted and is slow to see the verdict.  Meanwhile another leaves the group and makes new ones: not in the slot whose records rank 3 needs. */
static int slow_reader(struct world *w, void *arg) {
    static const int all[N] = {0, 1, 2, 3};
    int me = w->who.rank;
    struct comm *c = NULL, *alone = NULL, *next = NULL, *out = NULL;
    uint64_t flags = 1;
    (void)arg;
    NEED(w, comm_create(world_of(w), all, N, &c) == SYP_OK);
    for (int r = 0; r < N; r++) {
        struct comm *single = NULL;
        NEED(w, comm_create(world_of(w), &r, 1, &single) == SYP_OK);
        if (r == me) alone = single;
    }
    if (me == 3) hold_at = "agree.posted";
    NEED(w, comm_shrink(c, 0, 0, &out) == SYP_OK && out->n == N);
    if (me != 3) {
        wait_held();
        static const int zero[1] = {0};
        NEED(w, comm_destroy(c) == SYP_OK);
        NEED(w, comm_create(alone, zero, 1, &next) == SYP_OK);
        NEED(w, next != c); /* handles are slots */
        NEED(w, comm_agree(next, &flags, 0) == SYP_OK);
        if (add_relaxed(&held, 1) == N - 1) store_release(&go_on, 1); /* rank 3 was the first, this is the last */
    }
    if (sums_are_right(w, out, 5)) return 1;
    if (me == 3) NEED(w, comm_destroy(c) == SYP_OK);
    NEED(w, coll_barrier(world_of(w), 0) == SYP_OK);
    return 0;
}

static void a_slot_is_not_reused_while_a_verdict_is_read(void) {
    hold_on();
    CHECK_EQ(worlds_as_threads(N, NULL, slow_reader, NULL), 0);
    delays_off();
}

/* One that was given up destroys the group, and has others in its slot.  Those who gave it up go on. */
static int own_way(struct world *w, void *arg) {
    static const int all[N] = {0, 1, 2, 3};
    const int me = w->who.rank;
    struct comm *c = NULL, *alone = NULL, *out = NULL;
    uint64_t flags = 3;
    (void)arg;
    NEED(w, comm_create(world_of(w), all, N, &c) == SYP_OK);
    for (int r = 0; r < N; r++) {
        struct comm *single = NULL;
        NEED(w, comm_create(world_of(w), &r, 1, &single) == SYP_OK);
        if (r == me) alone = single;
    }
    if (me == 3) {
        static const int zero[1] = {0};
        while (load_acquire(&held) < N - 1) /* all of them have left it, or the slot is not free yet */
            os->sleep(NS_PER_MS);
        NEED(w, comm_agree(c, &flags, 0) == SYP_EABORTED);
        NEED(w, comm_destroy(c) == SYP_OK);
        NEED(w, comm_create(alone, zero, 1, &out) == SYP_OK && out == c);
        for (int i = 0; i < 4; i++)
            NEED(w, comm_agree(out, &flags, 0) == SYP_OK);
        store_release(&go_on, 1);
    } else {
        NEED(w, comm_shrink(c, 1, 50 * (int64_t)NS_PER_MS, &out) == SYP_OK && out->n == 3);
        atomic_fetch_add_explicit(&held, 1, memory_order_release);
        while (!load_acquire(&go_on))
            os->sleep(NS_PER_MS);
        for (int i = 0; i < 4; i++)
            NEED(w, comm_agree(c, &flags, 0) == SYP_OK && flags == 3 && comm_failed(c, NULL, 0) == 1);
    }
    NEED(w, coll_barrier(world_of(w), 0) == SYP_OK);
    return 0;
}

static void who_was_given_up_does_not_disturb_the_others(void) {
    hold_on();
    CHECK_EQ(worlds_as_threads(N, NULL, own_way, NULL), 0);
    delays_off();
}

/* The leader is stopped when all votes are there. */
static int stopped_leader(struct world *w, void *arg) {
    struct comm *c = world_of(w), *out = NULL;
    (void)arg;
    if (w->who.rank == 0) {
        hold_at = "agree.promise";
        NEED(w, comm_shrink(c, 1, 300 * (int64_t)NS_PER_MS, &out) == SYP_OK && out->n == N);
    } else {
        NEED(w, comm_shrink(c, 1, 300 * (int64_t)NS_PER_MS, &out) == SYP_OK && out->n == N);
        store_release(&go_on, 1);
    }
    if (sums_are_right(w, out, 5)) return 1;
    world_vanish(w);
    return 0;
}

static void a_stopped_leader_does_not_stop_those_who_give_up(void) {
    hold_on();
    CHECK_EQ(worlds_as_threads(N, NULL, stopped_leader, NULL), 0);
    delays_off();
}

/* A try that timed out is part of an agreement all the same; the next call of that member is another one. */
static int another_call_next(struct world *w, void *arg) {
    struct comm *c = world_of(w), *out = NULL;
    uint64_t flags = 5;
    (void)arg;
    if (w->who.rank == 1) {
        NEED(w, comm_shrink(c, 0, 20 * (int64_t)NS_PER_MS, &out) == SYP_EBUSY);
        store_release(&go_on, 1);
        wait_held();
        NEED(w, comm_agree(c, &flags, 0) == SYP_EMISMATCH && flags == 5);
    } else {
        while (!load_acquire(&go_on))
            os->sleep(NS_PER_MS);
        NEED(w, comm_shrink(c, 0, 0, &out) == SYP_OK && out->n == N);
        store_release(&held, 1);
    }
    NEED(w, comm_agree(c, &flags, 0) == SYP_OK && flags == 5); /* in step again */
    world_vanish(w);
    return 0;
}

static void the_verdict_of_another_call_is_a_mismatch(void) {
    hold_on();
    CHECK_EQ(worlds_as_threads(N, NULL, another_call_next, NULL), 0);
    delays_off();
}

/* Between two tries of a shrink the member used the slot that it had offered. */
static int slot_used_between(struct world *w, void *arg) {
    static const int zero[1] = {0};
    struct comm *c = world_of(w), *alone = NULL, *out = NULL;
    (void)arg;
    for (int r = 0; r < N; r++) {
        struct comm *single = NULL;
        NEED(w, comm_create(c, &r, 1, &single) == SYP_OK);
        if (r == w->who.rank) alone = single;
    }
    if (w->who.rank == 1) {
        NEED(w, comm_shrink(c, 0, 20 * (int64_t)NS_PER_MS, &out) == SYP_EBUSY);
        store_release(&go_on, 1);
        wait_held();
        uint64_t before = 0;
        for (int i = 0; i < 5; i++) {
            struct comm *used = NULL;
            NEED(w, comm_create(alone, zero, 1, &used) == SYP_OK);
            NEED(w, coll_barrier(used, 0) == SYP_OK && used->phase > before);
            before = used->phase;
            NEED(w, comm_destroy(used) == SYP_OK);
        }
        NEED(w, comm_shrink(c, 0, 0, &out) == SYP_EBUSY && !out);
    } else {
        while (!load_acquire(&go_on))
            os->sleep(NS_PER_MS);
        NEED(w, comm_shrink(c, 0, 0, &out) == SYP_OK && out->n == N);
        store_release(&held, 1);
    }
    NEED(w, comm_shrink(c, 0, 0, &out) == SYP_OK && out->n == N); /* all shrink again */
    if (sums_are_right(w, out, 5)) return 1;
    world_vanish(w);
    return 0;
}

static void phases_of_a_slot_never_go_back(void) {
    hold_on();
    CHECK_EQ(worlds_as_threads(N, NULL, slot_used_between, NULL), 0);
    delays_off();
}

/* -------------------------------------------------------------------------------------------- shrink, abort */

static int rank_leaves(struct world *w, void *arg) {
    int victim = *(int *)arg;
    struct comm *left = NULL;
    if (sums_are_right(w, world_of(w), 10)) return 1;
    if (w->who.rank == victim) {
        world_vanish(w);
        return 0;
    }
    int rc = SYP_OK;
    while (rc == SYP_OK)
        rc = coll_barrier(world_of(w), 0);
    NEED(w, rc == SYP_EPEER);
    NEED(w, err_record()->peer == victim);
    NEED(w, comm_buffers_safe(world_of(w)) == SYP_OK || err_record()->code == SYP_EBUSY);
    NEED(w, comm_shrink(world_of(w), 0, 0, &left) == SYP_OK);
    NEED(w, left->n == N - 1 && left->rank[left->me] == w->who.rank);
    int gone[2];
    NEED(w, comm_failed(world_of(w), gone, 2) == 1 && gone[0] == victim);
    if (sums_are_right(w, left, 200)) return 1;
    NEED(w, coll_barrier(world_of(w), 0) == SYP_EPEER); /* the old one stays broken, at once */
    NEED(w, coll_barrier(left, 0) == SYP_OK);           /* before anybody goes */
    world_vanish(w);
    return 0;
}

static void survivors_go_on_in_a_group_of_their_own(void) {
    delays_on(check_seed(), 8);
    for (int victim = 0; victim < N; victim++)
        CHECK_EQ(worlds_as_threads(N, NULL, rank_leaves, &victim), 0);
    delays_off();
}

static void *abort_soon(void *arg) {
    os->sleep(5 * NS_PER_MS);
    return comm_abort(arg) == SYP_OK ? NULL : arg;
}

/* Rank 0 never comes to the barrier that the others are in; another thread of rank 1 ends it. */
static int aborted(struct world *w, void *arg) {
    struct comm *c = world_of(w);
    pthread_t t;
    c->sequence = *(uint64_t *)arg; /* as if so many operations had been */
    void *failed = NULL;
    if (w->who.rank == 0) {
        int rc = SYP_OK;
        while (load_acquire((atom64 *)&c->member[1].slot->abort_group) != c->id + 1) /* pairs with announce_break */
            os->sleep(NS_PER_MS);
        os->sleep(5 * NS_PER_MS);
        rc = coll_barrier(c, 0);
        NEED(w, rc == SYP_EABORTED && err_record()->peer == 1);
    } else {
        if (w->who.rank == 1) pthread_create(&t, NULL, abort_soon, c);
        uint64_t start = os->now();
        NEED(w, coll_barrier(c, 0) == SYP_EABORTED);
        NEED(w, os->now() - start < 5 * NS_PER_S); /* long before the deadline */
        NEED(w, err_record()->peer == 1);
        if (w->who.rank == 1) pthread_join(t, &failed);
        NEED(w, !failed);
    }
    NEED(w, strstr(syp_error_text(), "abort") != NULL);
    NEED(w, comm_abort(c) == SYP_OK); /* of a broken group: nothing */
    NEED(w, coll_barrier(c, 0) == SYP_EABORTED);
    world_vanish(w);
    return 0;
}

static void abort_ends_an_operation_from_any_thread(void) {
    static const uint64_t first[] = {0, UINT32_MAX / 2, UINT32_MAX - 100u, UINT32_MAX, UINT64_C(1) << 40};
    delays_on(check_seed(), 8);
    for (int i = 0; i < (int)check_count(5, 100); i++)
        CHECK_EQ(worlds_as_threads(N, NULL, aborted, (void *)(uintptr_t)&first[i % 5]), 0);
    delays_off();
}

static void *ask_meanwhile(void *arg) {
    struct comm *c = arg;
    os->sleep(20 * NS_PER_MS);
    int answers = comm_buffers_safe(c) == SYP_EBUSY && comm_failed(c, NULL, 0) == SYP_EBUSY;
    store_release(&go_on, 1);
    return answers ? NULL : arg;
}

/* What another thread's running operation may yet break is not safe. */
static int asked_meanwhile(struct world *w, void *arg) {
    struct comm *c = world_of(w);
    pthread_t t;
    void *failed = NULL;
    (void)arg;
    if (w->who.rank == 0) {
        while (!load_acquire(&go_on))
            os->sleep(NS_PER_MS);
        NEED(w, coll_barrier(c, 0) == SYP_OK);
        return 0;
    }
    if (w->who.rank == 1) pthread_create(&t, NULL, ask_meanwhile, c);
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    if (w->who.rank == 1) pthread_join(t, &failed);
    NEED(w, !failed && comm_buffers_safe(c) == SYP_OK && comm_failed(c, NULL, 0) == 0);
    return 0;
}

static void a_running_operation_s_buffers_are_not_safe(void) {
    hold_on();
    CHECK_EQ(worlds_as_threads(N, NULL, asked_meanwhile, NULL), 0);
    delays_off();
}

/* A thread that ends by itself: the kernel flags the word though the process lives. */
static int keeper_lost(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_of(w);
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    if (w->who.rank == 2) keeper_vanish(&w->keeper);
    int rc = SYP_OK;
    while (rc == SYP_OK)
        rc = coll_barrier(c, 0);
    NEED(w, rc == SYP_EPEER && err_record()->peer == 2);
    if (w->who.rank == 2) NEED(w, strstr(syp_error_text(), "keeper") != NULL);
    world_vanish(w);
    return 0;
}

static void a_lost_keeper_is_told_to_its_own_rank_too(void) {
    CHECK_EQ(worlds_as_threads(N, NULL, keeper_lost, NULL), 0);
}

/* ---------------------------------------------------------------------------------------- groups by threads */

struct maker {
    struct world *w;
    struct comm *parent;
    int rounds, failed;
};

static int make_groups(struct maker *m) {
    static const int all[N] = {3, 1, 0, 2};
    for (int i = 0; i < m->rounds; i++) {
        struct comm *c = NULL;
        NEED(m->w, comm_create(m->parent, all, N, &c) == SYP_OK);
        if (sums_are_right(m->w, c, 2)) return 1;
        NEED(m->w, comm_destroy(c) == SYP_OK);
    }
    return 0;
}

static void *maker_thread(void *arg) {
    struct maker *m = arg;
    m->failed = make_groups(m);
    return NULL;
}

static int groups_by_threads(struct world *w, void *arg) {
    static const int all[N] = {0, 1, 2, 3};
    struct comm *second = NULL;
    NEED(w, comm_create(world_of(w), all, N, &second) == SYP_OK);
    struct maker one = {w, world_of(w), *(int *)arg, 1}, two = {w, second, *(int *)arg, 1};
    struct maker *here = w->who.rank % 2 ? &one : &two, *there = w->who.rank % 2 ? &two : &one;
    pthread_t t;
    pthread_create(&t, NULL, maker_thread, there);
    maker_thread(here);
    pthread_join(t, NULL);
    return one.failed || two.failed;
}

static void two_threads_make_groups_of_two_parents(void) {
    int rounds = (int)check_count(30, 1000);
    delays_on(check_seed(), 8);
    CHECK_EQ(worlds_as_threads(N, NULL, groups_by_threads, &rounds), 0);
    delays_off();
}

static void *make_of_world(void *arg) {
    static const int both[2] = {0, 1};
    struct comm *c = NULL;
    return comm_create(world_of(arg), both, 2, &c) == SYP_OK ? NULL : arg;
}

/* Rank 0 makes two groups at the same time, rank 1 one after the other, the other one first. */
static int crossed(struct world *w, void *arg) {
    static const int both[2] = {0, 1};
    struct comm *second = NULL, *c = NULL;
    void *failed = NULL;
    pthread_t t;
    (void)arg;
    NEED(w, comm_create(world_of(w), both, 2, &second) == SYP_OK);
    if (w->who.rank == 0) {
        pthread_create(&t, NULL, make_of_world, w);
        os->sleep(20 * NS_PER_MS);
    }
    NEED(w, comm_create(second, both, 2, &c) == SYP_OK);
    if (w->who.rank == 0)
        pthread_join(t, &failed);
    else
        failed = make_of_world(w);
    NEED(w, !failed);
    return 0;
}

static void who_waits_for_members_keeps_nobody_from_making_another_group(void) {
    struct world_setup setup = {.timeout_ns = 5 * (int64_t)NS_PER_S};
    CHECK_EQ(worlds_as_threads(2, &setup, crossed, NULL), 0);
}

/* On rank 1 another thread makes a group and does not come to an end. */
static int never_its_turn(struct world *w, void *arg) {
    static const int all[N] = {0, 1, 2, 3};
    struct comm *second = NULL, *c = NULL;
    uint64_t slots[COMM_SLOTS / 64], clock;
    (void)arg;
    NEED(w, comm_create(world_of(w), all, N, &second) == SYP_OK);
    if (w->who.rank == 1) NEED(w, slots_offer(second, slots, &clock));
    NEED(w, comm_create(world_of(w), all, N, &c) == SYP_EBUSY && !c);
    NEED(w, err_record()->peer == 1);
    if (w->who.rank == 1) slots_done(second);
    NEED(w, comm_create(world_of(w), all, N, &c) == SYP_OK); /* nothing is broken */
    return sums_are_right(w, c, 5);
}

static void making_a_group_ends_at_the_deadline(void) {
    struct world_setup setup = {.timeout_ns = 500 * (int64_t)NS_PER_MS};
    CHECK_EQ(worlds_as_threads(N, &setup, never_its_turn, NULL), 0);
}

int main(void) {
    return check_main("recover", (struct check_test[]){{"flags", all_members_get_the_and_of_all_flags},
                                                       {"deaths", deaths_do_not_split_the_verdict},
                                                       {"mixed calls", different_calls_are_a_mismatch_on_all},
                                                       {"left behind", who_was_left_behind_decides_nothing},
                                                       {"own way", who_was_given_up_does_not_disturb_the_others},
                                                       {"slow reader", a_slot_is_not_reused_while_a_verdict_is_read},
                                                       {"stopped leader", a_stopped_leader_does_not_stop_those_who_give_up},
                                                       {"another call", the_verdict_of_another_call_is_a_mismatch},
                                                       {"used slot", phases_of_a_slot_never_go_back},
                                                       {"survivors", survivors_go_on_in_a_group_of_their_own},
                                                       {"abort", abort_ends_an_operation_from_any_thread},
                                                       {"running", a_running_operation_s_buffers_are_not_safe},
                                                       {"keeper", a_lost_keeper_is_told_to_its_own_rank_too},
                                                       {"turn", making_a_group_ends_at_the_deadline},
                                                       {"crossed", who_waits_for_members_keeps_nobody_from_making_another_group},
                                                       {"threads", two_threads_make_groups_of_two_parents},
                                                       {0}});
}
