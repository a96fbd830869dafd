/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/*
 * Collectives with ranks as threads on common mappings, and as processes: results, mixtures of buffers, mismatches, groups, and random programs
 * over overlapping groups with delays at every publish.
 */
#include "collectives/reduce.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"
#include "tests/support/world_test.h"

#include <stdlib.h>
#include <unistd.h>

static int to_rank_1[2]; /* a pipe */

static struct comm *world_comm(struct world *w) {
    return &w->coll.comm[0];
}

/* ------------------------------------------------------------------------------------------ one all-reduce */

static float input(int rank, size_t i, uint64_t salt) {
    uint64_t x = (uint64_t)(i + 1) * 0x9e3779b97f4a7c15u ^ salt ^ (uint64_t)(rank + 1) * 0xc2b2ae3d27d4eb4fu;
    x ^= x >> 29;
    return (float)(int32_t)(x & 0xffffff) * 0.001f - 4000.0f;
}

/* The promise: the sum in member order, rounded after every addition. */
static float expected_sum(const struct comm *c, size_t i, uint64_t salt) {
    float s = input(c->member[0].rank, i, salt);
    for (int m = 1; m < c->n; m++)
        s += input(c->member[m].rank, i, salt);
    return s;
}

/* where: bit 0 = send in the pool, bit 1 = recv in the pool, 4 = in place (by bit 0) */
static int one_allreduce(struct world *w, struct comm *c, size_t count, int where, uint64_t salt) {
    size_t bytes = count * sizeof(float), guard = 64;
    int in_place = where & 4;
    char *sbuf = where & 1 ? world_alloc(w, bytes + 2 * guard) : malloc(bytes + 2 * guard);
    char *rbuf = in_place ? sbuf : where & 2 ? world_alloc(w, bytes + 2 * guard) : malloc(bytes + 2 * guard);
    NEED(w, sbuf && rbuf);
    memset(rbuf, 0x5a, bytes + 2 * guard);
    size_t shift = guard + (salt & 3) * 4;
    float *send = (float *)(sbuf + shift), *recv = (float *)(rbuf + shift);
    for (size_t i = 0; i < count; i++)
        send[i] = input(w->who.rank, i, salt);
    NEED(w, coll_allreduce(c, send, recv, count, SYP_FLOAT32, SYP_SUM, 0) == SYP_OK);
    for (size_t i = 0; i < count; i++) {
        float want = expected_sum(c, i, salt);
        if (memcmp(&recv[i], &want, sizeof want) != 0) {
            fprintf(stderr, "rank %d: element %zu of %zu is %a, expected %a (where %d)\n", w->who.rank, i, count, (double)recv[i],
                    (double)want, where);
            return 1;
        }
    }
    for (size_t i = 0; i < guard; i++)
        NEED(w, (i >= shift || rbuf[i] == 0x5a) && (shift + bytes + i >= bytes + 2 * guard || rbuf[shift + bytes + i] == 0x5a));
    if (!in_place) {
        for (size_t i = 0; i < count; i++)
            NEED(w, send[i] == input(w->who.rank, i, salt)); /* the input is not touched */
    }
    if (where & 1)
        world_free(w, sbuf);
    else
        free(sbuf);
    if (!in_place) {
        if (where & 2)
            world_free(w, rbuf);
        else
            free(rbuf);
    }
    return 0;
}

static const size_t counts[] = {0, 1, 7, 31, 32, 33, 63, 64, 65, 1000, 4097, 70001, 262144, 262145, 600001};
#define N_COUNTS (sizeof counts / sizeof counts[0])

/* Every size; the placement of each rank's buffers from a common random stream, so that all mixtures come up. */
static int allreduce_sizes(struct world *w, void *arg) {
    uint64_t seed = *(uint64_t *)arg;
    for (int round = 0; round < 3; round++)
        for (size_t k = 0; k < N_COUNTS; k++) {
            int where = 0;
            for (int r = 0; r < w->peers.n; r++) {
                uint64_t x = check_random(&seed);
                if (r == w->who.rank) where = (int)(x >> 20 & 7);
            }
            if (round == 0) where = 5; /* all in place in the pool */
            if (one_allreduce(w, world_comm(w), counts[k], where, seed)) return 1;
        }
    return 0;
}

static int bcast_sizes(struct world *w, void *arg) {
    uint64_t seed = *(uint64_t *)arg;
    struct comm *c = world_comm(w);
    for (int k = 0; k < 40; k++) {
        size_t len = k < 10 ? (size_t)k * 27 : check_random(&seed) % 3000000;
        uint64_t x = check_random(&seed);
        int root = (int)(x % (uint64_t)c->n), in_pool = (int)(x >> (20 + c->me) & 1);
        uint8_t *buf = in_pool ? world_alloc(w, len + 1) : malloc(len + 1);
        for (size_t i = 0; i < len; i++)
            buf[i] = (uint8_t)(c->me == root ? i * 31 + (size_t)k : 0xee);
        buf[len] = 0x77;
        NEED(w, coll_broadcast(c, buf, len, root, 0) == SYP_OK);
        for (size_t i = 0; i < len; i++)
            NEED(w, buf[i] == (uint8_t)(i * 31 + (size_t)k));
        NEED(w, buf[len] == 0x77);
        if (in_pool)
            world_free(w, buf);
        else
            free(buf);
    }
    return 0;
}

static void sizes(void) {
    uint64_t seed = check_seed();
    for (int n = 1; n <= (int)check_count(4, 8); n++) {
        CHECK_EQ(worlds_as_threads(n, NULL, allreduce_sizes, &seed), 0);
        CHECK_EQ(worlds_as_threads(n, NULL, bcast_sizes, &seed), 0);
    }
}

static void sizes_in_processes(void) {
    uint64_t seed = check_seed();
    struct world_setup no_meta = {.no_meta = 1}; /* meta_size 0 is a full configuration */
    for (int n = 2; n <= (int)check_count(4, 8); n++) {
        CHECK_EQ(worlds_as_processes(n, n == 3 ? &no_meta : NULL, allreduce_sizes, &seed), 0);
        CHECK_EQ(worlds_as_processes(n, NULL, bcast_sizes, &seed), 0);
    }
}

/* --------------------------------------------------------------------------------------- types, operations */

static int types(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w);
    int r = c->me, n = c->n;
    for (int big = 0; big < 2; big++) {
        size_t count = big ? 5000 : 5;
        int64_t *a = world_alloc(w, count * 8);
        int32_t *b = malloc(count * 4);
        double *d = world_alloc(w, count * 8);
        for (size_t i = 0; i < count; i++) {
            a[i] = (int64_t)i * (r + 1);
            b[i] = (int32_t)i - 1000 * r;
            d[i] = (double)(r * 10) - (double)i;
        }
        NEED(w, coll_allreduce(c, a, a, count, SYP_INT64, SYP_SUM, 0) == SYP_OK);
        NEED(w, coll_allreduce(c, b, b, count, SYP_INT32, SYP_MIN, 0) == SYP_OK);
        NEED(w, coll_allreduce(c, d, d, count, SYP_FLOAT64, SYP_MAX, 0) == SYP_OK);
        for (size_t i = 0; i < count; i++) {
            NEED(w, a[i] == (int64_t)i * n * (n + 1) / 2);
            NEED(w, b[i] == (int32_t)i - 1000 * (n - 1));
            NEED(w, d[i] == (double)((n - 1) * 10) - (double)i);
        }
        world_free(w, a);
        world_free(w, d);
        free(b);
    }
    return 0;
}

static void types_and_operations(void) {
    CHECK_EQ(worlds_as_threads(3, NULL, types, NULL), 0);
}

/* ----------------------------------------------------------------------------------------------- refusals */

static int mismatches(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w);
    float x[64] = {0};
    int r = c->me;
    NEED(w, coll_allreduce(c, x, x, r == 1 ? 33 : 32, SYP_FLOAT32, SYP_SUM, 0) == SYP_EMISMATCH);
    NEED(w, strstr(syp_error_text(), "rank 1: allreduce sum float32 x 33"));
    NEED(w, strstr(syp_error_text(), "ranks 0, 2: allreduce sum float32 x 32") && err_record()->peer == 1);
    NEED(w, coll_allreduce(c, x, x, 16, r == 2 ? SYP_INT32 : SYP_FLOAT32, SYP_SUM, 0) == SYP_EMISMATCH);
    NEED(w, coll_allreduce(c, x, x, 16, SYP_FLOAT32, r == 0 ? SYP_MAX : SYP_SUM, 0) == SYP_EMISMATCH);
    NEED(w, coll_broadcast(c, x, 16, r == 0 ? 1 : 2, 0) == SYP_EMISMATCH);
    NEED(w, (r == 0 ? coll_barrier(c, 0) : coll_broadcast(c, x, 16, 0, 0)) == SYP_EMISMATCH);
    NEED(w, strstr(syp_error_text(), "rank 0: barrier"));
    /* refused at one side: the others learn that it was */
    int rc = coll_allreduce(c, x, r == 1 ? x + 1 : x, 16, SYP_FLOAT32, SYP_SUM, 0);
    NEED(w, rc == (r == 1 ? SYP_EINVAL : SYP_EMISMATCH));
    NEED(w, r == 1 ? strstr(syp_error_text(), "overlap") : strstr(syp_error_text(), "refused argument"));
    rc = coll_allreduce(c, r == 2 ? NULL : x, x, 16, SYP_FLOAT32, SYP_SUM, 0);
    NEED(w, rc == (r == 2 ? SYP_EINVAL : SYP_EMISMATCH));
    NEED(w, coll_broadcast(c, x, 16, 3, 0) == SYP_EINVAL);
    NEED(w, coll_allreduce(c, x, x, 16, 99, SYP_SUM, 0) == SYP_EINVAL);
    NEED(w, coll_allreduce(c, x, x, 16, SYP_FLOAT32, 99, 0) == SYP_EINVAL);
    NEED(w, coll_allreduce(c, x, x, SIZE_MAX / 2, SYP_FLOAT32, SYP_SUM, 0) == SYP_EINVAL);
    /* options that are no options */
    NEED(w, coll_barrier(c, r == 1 ? -1 : 0) == (r == 1 ? SYP_EINVAL : SYP_EMISMATCH));
    NEED(w, coll_barrier(c, 0) == SYP_OK); /* the group is as good as before */
    return one_allreduce(w, c, 5000, 5, 1);
}

static void refused_calls(void) {
    CHECK_EQ(worlds_as_threads(3, NULL, mismatches, NULL), 0);
    CHECK_EQ(worlds_as_processes(3, NULL, mismatches, NULL), 0);
}

static int late(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w);
    if (c->me == 2) {
        os->sleep(600 * NS_PER_MS);
        NEED(w, coll_barrier(c, 0) == SYP_EABORTED); /* it is told that the others gave up */
        NEED(w, strstr(syp_error_text(), "too late"));
        return 0;
    }
    uint64_t begin = os->now();
    NEED(w, coll_barrier(c, 200 * (int64_t)NS_PER_MS) == SYP_ETIMEOUT);
    NEED(w, os->now() - begin >= 100 * NS_PER_MS);
    NEED(w, strstr(syp_error_text(), "rank 2 (pid") && err_record()->peer == 2 && err_record()->sequence == 1);
    NEED(w, coll_barrier(c, 0) == SYP_ETIMEOUT); /* broken: fails at once */
    NEED(w, strstr(syp_error_text(), "is broken"));
    return 0;
}

static int late_then_leave(struct world *w, void *arg) {
    int failed = late(w, arg);
    world_vanish(w); /* no orderly leave from a broken world */
    return failed;
}

static void timeout_names_the_late(void) {
    CHECK_EQ(worlds_as_threads(3, NULL, late_then_leave, NULL), 0);
}

/* A rank held up in the middle of its reduction resumes after the others gave up and used their buffers: it must not report success. */
static int slow_reduction;
static void hold_up(const char *point) {
    if (!slow_reduction || strcmp(point, "reduce.block") != 0) return;
    slow_reduction = 0;
    os->sleep(700 * NS_PER_MS);
}

static int straggler(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w);
    size_t count = 200000;
    float *x = world_alloc(w, count * sizeof *x);
    for (size_t i = 0; i < count; i++)
        x[i] = 1;
    slow_reduction = c->me == 1;
    test_point_hook = hold_up;
    int rc = coll_allreduce(c, x, x, count, SYP_FLOAT32, SYP_SUM, c->me == 1 ? 0 : 200 * (int64_t)NS_PER_MS);
    NEED(w, rc == (c->me == 1 ? SYP_EABORTED : SYP_ETIMEOUT));
    for (size_t i = 0; i < count; i++)
        x[i] = -1; /* ours again, as far as we know */
    if (c->me == 0) {
        NEED(w, comm_buffers_safe(c) == SYP_EBUSY && err_record()->peer == 1); /* the other one is still inside and may store */
        os->sleep(900 * NS_PER_MS);                                            /* alive while it finds out */
        NEED(w, comm_buffers_safe(c) == SYP_OK);
    }
    world_vanish(w);
    return 0;
}

static void a_straggler_reports_no_success(void) {
    CHECK_EQ(worlds_as_processes(2, NULL, straggler, NULL), 0);
}

/* ------------------------------------------------------------------------------------------------- groups */

static int groups(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w), *odd, *pair, *again;
    int me = c->me, n = c->n;
    int list[8], n_odd = 0;
    for (int r = 1; r < n; r += 2)
        list[n_odd++] = r;
    NEED(w, comm_create(c, list, n_odd, &odd) == SYP_OK);
    NEED(w, (odd != NULL) == (me % 2 == 1));
    if (odd && one_allreduce(w, odd, 3000, 0, 5)) return 1;
    int reversed[2] = {n - 1, 0};
    NEED(w, comm_create(c, reversed, 2, &pair) == SYP_OK);
    if (pair) {
        NEED(w, pair->me == (me == 0 ? 1 : 0) && pair->n == 2);
        if (one_allreduce(w, pair, 3000, 5, 6)) return 1;
    }
    /* create and destroy again and again: slots are reused with a later clock */
    for (int i = 0; i < 200; i++) {
        int two[2] = {i % n, (i + 1) % n};
        NEED(w, comm_create(c, two, 2, &again) == SYP_OK);
        if (again) {
            if (one_allreduce(w, again, 40, 0, (uint64_t)i)) return 1;
            NEED(w, comm_destroy(again) == SYP_OK);
        }
    }
    int wrong[2] = {0, 0};
    NEED(w, comm_create(c, wrong, 2, &again) == SYP_EINVAL && !again);
    int other[2] = {0, me == 0 ? 1 : 2};
    NEED(w, comm_create(c, other, 2, &again) == SYP_EMISMATCH && !again);
    if (odd) NEED(w, comm_destroy(odd) == SYP_OK);
    if (pair) NEED(w, comm_destroy(pair) == SYP_OK);
    return one_allreduce(w, c, 100, 0, 9);
}

/* A group that is destroyed unused, and the next one in its slot: whoever still uses the first is told. */
static int stale_group(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w), *before = NULL, *first = NULL, *second = NULL;
    int all[3] = {0, 1, 2}, with_one[2] = {0, 1}, with_two[2] = {0, 2}, slot = 0;
    int32_t value = 1;
    /* one before them leaves the slot's clock far ahead of all others */
    NEED(w, comm_create(c, all, 3, &before) == SYP_OK);
    for (int i = 0; i < 100; i++)
        NEED(w, coll_barrier(before, 0) == SYP_OK);
    NEED(w, comm_destroy(before) == SYP_OK && coll_barrier(c, 0) == SYP_OK);
    NEED(w, comm_create(c, with_one, 2, &first) == SYP_OK);
    if (first) slot = first->slot;
    if (c->me == 0) NEED(w, comm_destroy(first) == SYP_OK);
    NEED(w, comm_create(c, with_two, 2, &second) == SYP_OK);
    if (c->me == 0) NEED(w, second->slot == slot);
    if (second) NEED(w, coll_allreduce(second, &value, &value, 1, SYP_INT32, SYP_SUM, 0) == SYP_OK && value == 2);
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    if (c->me == 1) {
        int rc = coll_allreduce(first, &value, &value, 1, SYP_INT32, SYP_SUM, 100 * (int64_t)NS_PER_MS);
        NEED(w, rc == SYP_EPEER && value == 1);
        NEED(w, strstr(syp_error_text(), "rank 0 has destroyed this group"));
        NEED(w, comm_destroy(first) == SYP_OK);
    }
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    if (second) NEED(w, comm_destroy(second) == SYP_OK);
    return 0;
}

static void a_destroyed_group_is_named(void) {
    CHECK_EQ(worlds_as_threads(3, NULL, stale_group, NULL), 0);
    CHECK_EQ(worlds_as_processes(3, NULL, stale_group, NULL), 0);
}

/* Rank 1 is still inside the last operation of a group that rank 0 has left and destroyed: rank 0's next group must not use its posts. */
static int reader_left_behind(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w), *parent = NULL, *g = NULL, *next = NULL;
    int of_parent[2] = {0, 2}, of_g[2] = {1, 0}, both[2] = {0, 1}, slot = 0;
    int32_t value = c->me == 1 ? 10 : 1;
    NEED(w, comm_create(c, of_parent, 2, &parent) == SYP_OK && comm_create(c, of_g, 2, &g) == SYP_OK);
    slow_reduction = c->me == 1;
    test_point_hook = hold_up;
    if (g) {
        slot = g->slot;
        NEED(w, coll_allreduce(g, &value, &value, 1, SYP_INT32, SYP_SUM, 0) == SYP_OK && value == 11);
        NEED(w, comm_destroy(g) == SYP_OK);
    }
    if (parent) {
        value = 1000;
        NEED(w, comm_create(parent, both, 2, &next) == SYP_OK);
        NEED(w, coll_allreduce(next, &value, &value, 1, SYP_INT32, SYP_SUM, 0) == SYP_OK && value == 2000);
        if (c->me == 0) NEED(w, next->slot != slot);
        NEED(w, comm_destroy(next) == SYP_OK && comm_destroy(parent) == SYP_OK);
    }
    return 0;
}

static void a_group_that_is_still_read_is_not_reused(void) {
    CHECK_EQ(worlds_as_processes(3, NULL, reader_left_behind, NULL), 0);
}

/* A rank whose control data is damaged: the others say whose, and use none of it. */
static struct comm *damaged;
static int damage;
static void spoil_mail(const char *point) {
    if (!damaged || strcmp(point, "publish") != 0) return;
    struct mail *mail = comm_mail(damaged);
    struct mail_buffers *at = (struct mail_buffers *)(void *)mail->data;
    if (damage < 2) mail->call.token ^= 1; /* it is of another operation, which the rest of the mail must confirm */
    if (damage == 0) mail->sequence += 2;
    if (damage == 1) mail->comm_id += 256;
    if (damage == 2) at->send = 1ull << 63;
    if (damage == 3) at->recv = damaged->coll->peers->region->len - 64;
    damaged = NULL;
}

static int damaged_mail(struct world *w, void *arg) {
    static const char *const said[] = {"published sequence 3", "rank 1 has destroyed this group", "published send offset 9223372036854775808",
                                       "published receive offset"};
    struct comm *c = world_comm(w);
    size_t count = 20000;
    float *x = world_alloc(w, count * sizeof *x), *y = world_alloc(w, count * sizeof *x);
    NEED(w, x && y);
    memset(x, 0, count * sizeof *x);
    memset(y, 0x5a, count * sizeof *x);
    damage = *(int *)arg;
    damaged = c->me == 1 ? c : NULL;
    test_point_hook = spoil_mail;
    int rc = coll_allreduce(c, x, y, count, SYP_FLOAT32, SYP_SUM, 5 * (int64_t)NS_PER_S);
    NEED(w, rc == SYP_EPEER || (rc == SYP_EABORTED && c->me == 1));
    /* the damaged rank may see it itself, and give up first */
    if (c->me != 1) NEED(w, err_record()->peer == 1 && (strstr(syp_error_text(), said[damage]) || strstr(syp_error_text(), "gave the group up")));
    for (size_t i = 0; i < count / 2; i++) /* rank 0's slice, of both */
        NEED(w, ((uint32_t *)(void *)y)[i] == 0x5a5a5a5a);
    os->sleep(100 * NS_PER_MS); /* alive until all have seen it */
    world_vanish(w);
    return 0;
}

static void a_damaged_mail_is_named(void) {
    for (int what = 0; what < 4; what++)
        CHECK_EQ(worlds_as_processes(2, NULL, damaged_mail, &what), 0);
}

static void groups_of_ranks(void) {
    CHECK_EQ(worlds_as_threads(4, NULL, groups, NULL), 0);
    CHECK_EQ(worlds_as_processes(4, NULL, groups, NULL), 0);
}

static int many_groups(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w), *g[COMM_SLOTS];
    int all[2] = {0, 1}, made = 0;
    while (made < COMM_SLOTS && comm_create(c, all, 2, &g[made]) == SYP_OK)
        made++;
    NEED(w, made == COMM_SLOTS - 1); /* the world has the first */
    NEED(w, err_record()->code == SYP_ENOMEM);
    for (int i = 0; i < made; i++)
        if (one_allreduce(w, g[i], 50, 0, (uint64_t)i)) return 1;
    for (int i = 0; i < made; i++)
        NEED(w, comm_destroy(g[i]) == SYP_OK);
    return 0;
}

static void as_many_groups_as_there_are(void) {
    CHECK_EQ(worlds_as_threads(2, NULL, many_groups, NULL), 0);
}

/* A second thread of a rank that enters a group while the first is inside is told so, and nothing happens to the first. */
static int second_thread(int which, int n, void *arg) {
    struct world *w = arg;
    (void)n;
    if (which == 0) return coll_barrier(world_comm(w), 0) != SYP_OK;
    while (load_acquire(&world_comm(w)->busy) == 0)
        os->yield();
    float x = 0;
    int wrong = coll_barrier(world_comm(w), 0) != SYP_EBUSY || !strstr(syp_error_text(), "another thread of this rank") ||
                coll_allreduce(world_comm(w), &x, &x, 1, SYP_FLOAT32, SYP_SUM, 0) != SYP_EBUSY;
    char told = 1;
    return wrong || write(to_rank_1[1], &told, 1) != 1;
}

static int two_threads(struct world *w, void *arg) {
    (void)arg;
    char told;
    if (w->who.rank == 0) return ranks_as_threads(2, second_thread, w);
    NEED(w, read(to_rank_1[0], &told, 1) == 1); /* rank 0 stays inside until its second thread is done */
    NEED(w, coll_barrier(world_comm(w), 0) == SYP_OK);
    return 0;
}

static void two_threads_in_one_group(void) {
    CHECK_EQ(pipe(to_rank_1), 0);
    CHECK_EQ(worlds_as_threads(2, NULL, two_threads, NULL), 0);
    close(to_rank_1[0]);
    close(to_rank_1[1]);
}

/* ---------------------------------------------------------------------------------------- random programs */

struct program {
    uint64_t seed;
    int steps;
};

/* All ranks walk one random list of (group, operation); each takes part where it is a member. */
static int random_program(struct world *w, void *arg) {
    const struct program *p = arg;
    uint64_t seed = p->seed;
    struct comm *g[5] = {world_comm(w)};
    int n = w->peers.n;
    for (int k = 1; k < 5; k++) {
        int list[MAX_WORLD], m = 0;
        for (int r = 0; r < n; r++)
            if (check_random(&seed) >> 20 & 1) list[m++] = r;
        if (m == 0) list[m++] = k % n;
        NEED(w, comm_create(g[0], list, m, &g[k]) == SYP_OK);
    }
    for (int i = 0; i < p->steps; i++) {
        uint64_t x = check_random(&seed);
        struct comm *c = g[x % 5];
        size_t count = (x >> 8 & 7) == 0 ? x >> 12 & 0xfffff : x >> 12 & 0x3ff;
        if (count > 300000) count = 300000;
        int what = (int)(x >> 40 & 3), where = (int)(x >> (44 + 3 * (w->who.rank % 6)) & 7);
        if (!c) continue;
        if (what == 0) {
            NEED(w, coll_barrier(c, 0) == SYP_OK);
        } else if (what == 1) {
            uint32_t *buf = where & 1 ? world_alloc(w, count * 4 + 4) : malloc(count * 4 + 4);
            int root = (int)((x >> 50) % (uint64_t)c->n);
            for (size_t k = 0; k < count; k++)
                buf[k] = c->me == root ? (uint32_t)(k ^ x) : 0;
            NEED(w, coll_broadcast(c, buf, count * 4, root, 0) == SYP_OK);
            for (size_t k = 0; k < count; k++)
                NEED(w, buf[k] == (uint32_t)(k ^ x));
            if (where & 1)
                world_free(w, buf);
            else
                free(buf);
        } else if (one_allreduce(w, c, count, where, x)) {
            return 1;
        }
    }
    return 0;
}

static void random_programs(void) {
    struct program p = {check_seed(), (int)check_count(60, 4000)};
    for (int n = 2; n <= 8; n += (int)check_count(3, 1)) {
        delays_on(p.seed, 3);
        CHECK_EQ(worlds_as_threads(n, NULL, random_program, &p), 0);
        CHECK_EQ(worlds_as_processes(n, NULL, random_program, &p), 0);
        delays_off();
        p.steps *= 4;
        CHECK_EQ(worlds_as_processes(n, NULL, random_program, &p), 0);
        p.steps /= 4;
        check_random(&p.seed);
    }
}

/* ----------------------------------------------------------------------- the checker must be able to fail */

/* A planted race: one rank writes what another reads, without waiting for it. */
static int race(struct world *w, void *arg) {
    struct comm *c = world_comm(w);
    int *racy = arg;
    for (int i = 0; i < 200; i++) {
        NEED(w, coll_barrier(c, 0) == SYP_OK);
        os->sleep(200 * NS_PER_US); /* nobody is seen in the next barrier already, which would order the two */
        if (c->me == i % 2) *racy += 1;
        if (c->me != i % 2 && *racy > 1000) return 1;
    }
    return 0;
}

int main(int argc, char **argv) {
    int shared = 0;
    if (argc > 1 && strcmp(argv[1], "--planted-race") == 0) return worlds_as_threads(2, NULL, race, &shared);
    return check_main("collectives", (struct check_test[]){{"sizes", sizes},
                                                           {"sizes_in_processes", sizes_in_processes},
                                                           {"types_and_operations", types_and_operations},
                                                           {"refused_calls", refused_calls},
                                                           {"timeout_names_the_late", timeout_names_the_late},
                                                           {"a_straggler_reports_no_success", a_straggler_reports_no_success},
                                                           {"groups_of_ranks", groups_of_ranks},
                                                           {"a_destroyed_group_is_named", a_destroyed_group_is_named},
                                                           {"a_group_that_is_still_read_is_not_reused", a_group_that_is_still_read_is_not_reused},
                                                           {"a_damaged_mail_is_named", a_damaged_mail_is_named},
                                                           {"as_many_groups_as_there_are", as_many_groups_as_there_are},
                                                           {"two_threads_in_one_group", two_threads_in_one_group},
                                                           {"random_programs", random_programs},
                                                           {0}});
}
