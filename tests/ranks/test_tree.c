/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/*
 * Groups of more than 16 members, which meet by a tree: exact results, blocking or not; who asks for something else is named; a leader, the root or a plain
 * member that dies, stops or aborts is everybody's error after the same operation.
 */
#include "bootstrap/cache_group.h"
#include "collectives/tree.h"
#include "pool/base/status.h"
#include "pool/stats.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"
#include "tests/support/strike.h"
#include "tests/support/world_test.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct world_setup small = {.local_mem_size = 4 << 20, .meta_size = 1 << 20};

/* A value whose sum depends on the order. */
static float value(int member, size_t k, int turn) {
    return 1.0f / (float)(1 + (size_t)member * 7 + k % 97 + (size_t)turn);
}

static int one_sum(struct world *w, struct comm *c, float *x, size_t count, int turn) {
    for (size_t k = 0; k < count; k++)
        x[k] = value(c->me, k, turn);
    struct call call = {.kind = OP_ALLREDUCE, .send = x, .recv = x, .count = count, .dtype = SYP_FLOAT32, .op = SYP_SUM};
    NEED(w, coll_somehow(c, &call) == SYP_OK);
    for (size_t k = 0; k < count; k++) {
        float sum = value(0, k, turn);
        for (int m = 1; m < c->n; m++)
            sum += value(m, k, turn);
        NEED(w, memcmp(&x[k], &sum, sizeof sum) == 0);
    }
    return 0;
}

static int one_broadcast(struct world *w, struct comm *c, unsigned char *x, size_t len, int turn) {
    int root = turn * 5 % c->n;
    memset(x, c->me == root ? turn + 1 : 0, len);
    NEED(w, coll_somehow(c, &(struct call){.kind = OP_BROADCAST, .recv = x, .count = len, .root = root}) == SYP_OK);
    for (size_t k = 0; k < len; k++)
        NEED(w, x[k] == (unsigned char)(turn + 1));
    return 0;
}

static int exact_in(struct world *w, struct comm *c, int turns) {
    static const size_t counts[] = {1, 2, 17, 256, MAIL_REDUCED / 4, MAIL_REDUCED / 4 + 1, MAIL_DATA / 4 + 1, 5000};
    float *in = world_alloc(w, 5000 * 4), *out = malloc(5000 * 4);
    NEED(w, in && out && c->parts > 0);
    for (int i = 0; i < turns; i++) {
        store_relaxed(&w->peers.crowded, (uint32_t)(i / 4 % 2)); /* who has a processor waits for the leaders' words alone */
        if (one_sum(w, c, i % 2 ? in : out, counts[i % 8], i)) return 1;
        NEED(w, coll_somehow(c, &(struct call){.kind = OP_BARRIER}) == SYP_OK);
        if (one_broadcast(w, c, (unsigned char *)(i % 3 ? in : out), i % 4 ? 100 : 10000, i)) return 1;
    }
    world_free(w, in);
    free(out);
    return 0;
}

static int exact(struct world *w, void *arg) {
    return exact_in(w, &w->coll.comm[0], *(int *)arg);
}

static const int sizes[] = {17, 31, 33, 64};

static void results_are_exact_in_threads(void) {
    int turns = (int)check_count(16, 200);
    for (int i = 0; i < (CHECK_SLOW_BUILD ? 2 : 4); i++)
        CHECK_EQ(worlds_as_threads(sizes[i], &small, exact, &turns), 0);
}

static void results_are_exact_in_processes(void) {
    int turns = (int)check_count(16, 400);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(worlds_as_processes(sizes[i], &small, exact, &turns), 0);
}

static void results_are_exact_with_delays(void) {
    int turns = (int)check_count(16, 300);
    uint64_t seed = check_seed();
    delays_on(seed, 20);
    CHECK_EQ(worlds_as_threads(18, &small, exact, &turns), 0);
    delays_off();
}

/* --------------------------------------------------------------------------------------------------------- caches */

/* Which cache a rank is near to, were there several: dealt out like cards; in blocks of uneven size; nobody tells; a few strays among a large one. */
static int32_t dealt(int rank) { return rank % 3; }
static int32_t in_blocks(int rank) { return rank < 5 ? 40 : rank < 25 ? 8 : 0; }
static int32_t untold(int rank) { return (void)rank, NO_CACHE_GROUP; }
static int32_t strays(int rank) { return rank % 11 ? 7 : 100 + rank; }

struct layout {
    int32_t (*cache)(int rank);
    const char *n33; /* the parts of 33 members: cache x members */
};

static const struct layout layouts[] = {{dealt, "0x11 1x11 2x11 "}, {in_blocks, "40x5 8x10 8x10 0x8 "}, {untold, "-1x11 -1x11 -1x11 "}, {strays, "100x1 7x15 7x15 111x2 "}};

static void parts_as_text(const struct comm *c, int32_t (*cache)(int rank), char *out, size_t cap) {
    size_t len = 0;
    for (int p = 0; p < c->parts && len < cap; p++)
        len += (size_t)snprintf(out + len, cap - len, "%dx%d ", cache(c->seat[c->part[p].first]), c->part[p].end - c->part[p].first);
}

/* In every group everybody sits once, member 0 first, in parts that are neither too large nor, but for a few, of several caches. */
static void whoever_shares_a_cache_shares_a_part(void) {
    static struct roster_entry entry[MAX_WORLD];
    static struct comm_member member[MAX_WORLD];
    static int rank[MAX_WORLD];
    struct peers peers = {.roster = {.rank = entry}};
    struct coll k = {.peers = &peers};
    for (int i = 0; i < 4; i++) {
        for (int m = 0; m < MAX_WORLD; m++) {
            entry[m].cache_group = layouts[i].cache(m);
            rank[m] = m;
        }
        for (int n = 17; n <= MAX_WORLD; n += n < 70 ? 1 : 53) {
            struct comm c = {.coll = &k, .n = n, .me = n / 2, .member = member, .rank = rank};
            void *table = malloc(tree_table_bytes(n)); /* exactly, so that a sanitizer sees a part too many */
            uint8_t seated[MAX_WORLD] = {0};
            char text[400];
            tree_arrange(&c, table);
            CHECK(c.parts > 1 && c.parts <= n / 4 && c.seat[0] == 0 && c.part[0].first == 0 && c.part[c.parts - 1].end == n);
            for (int p = 0; p < c.parts; p++) {
                CHECK(c.part[p].end > c.part[p].first && c.part[p].end - c.part[p].first <= (n <= 256 ? 16 : 32));
                CHECK(p == 0 || c.part[p].first == c.part[p - 1].end);
                for (int s = c.part[p].first; s < c.part[p].end; s++) {
                    CHECK(c.seat[s] != c.me || p == c.own_part);
                    seated[c.seat[s]]++;
                }
            }
            for (int m = 0; m < n; m++)
                CHECK(seated[m] == 1);
            if (n == 33) {
                parts_as_text(&c, layouts[i].cache, text, sizeof text);
                CHECK_STR(text, layouts[i].n33);
            }
            free(table);
        }
    }
}

static int exact_with_caches(struct world *w, void *arg) {
    int ranks[64], n = w->peers.n;
    for (int r = 0; r < n; r++) {
        w->peers.roster.rank[r].cache_group = ((const struct layout *)arg)->cache(r);
        ranks[r] = n - 1 - r;
    }
    struct comm *c;
    NEED(w, comm_create(&w->coll.comm[0], ranks, n, &c) == SYP_OK);
    return exact_in(w, c, (int)check_count(8, 100));
}

static void results_are_exact_whatever_the_caches(void) {
    for (int i = 0; i < 4; i++)
        CHECK_EQ(worlds_as_threads(i % 2 ? 33 : 27, &small, exact_with_caches, (void *)(uintptr_t)&layouts[i]), 0);
}

/* --------------------------------------------------------------------------------------------------- disagreement */

static int disagree(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = &w->coll.comm[0];
    static const int odd[] = {0, 11, 20, 5, 32}; /* leaders, and members of every part */
    for (int i = 0; i < 10; i++) {
        char what[60];
        float x[8] = {0};
        int who = odd[i / 2], other = c->me == who, rc;
        snprintf(what, sizeof what, "rank %d: allreduce sum float32 x 5", who);
        if (i % 2)
            rc = coll_allreduce(c, x, x, other ? 5 : 4, SYP_FLOAT32, SYP_SUM, 0);
        else
            rc = other ? coll_allreduce(c, x, x, 5, SYP_FLOAT32, SYP_SUM, 0) : coll_barrier(c, 0);
        NEED(w, rc == SYP_EMISMATCH && strstr(syp_error_text(), what));
        NEED(w, err_record()->peer == who);
        NEED(w, coll_barrier(c, 0) == SYP_OK);
    }
    return 0;
}

static void who_asks_for_something_else_is_named(void) {
    CHECK_EQ(worlds_as_threads(33, &small, disagree, NULL), 0);
    CHECK_EQ(worlds_as_processes(33, &small, disagree, NULL), 0);
}

/* The last one comes late, so all others sleep: on stamps of their part, on leaders' words, on member 0's. */
static int late(struct world *w, void *arg) {
    struct comm *c = &w->coll.comm[0];
    uint64_t before = stats_read(STAT_LATE_WAKES);
    (void)arg;
    for (int i = 0; i < 12; i++) {
        float x = 1;
        store_relaxed(&w->peers.crowded, (uint32_t)(i % 2));
        if (c->me == c->n - 1) os->sleep(15 * NS_PER_MS);
        NEED(w, i % 3 ? coll_barrier(c, 0) == SYP_OK : coll_allreduce(c, &x, &x, 1, SYP_FLOAT32, SYP_SUM, 0) == SYP_OK);
    }
    NEED(w, stats_read(STAT_LATE_WAKES) - before <= 4); /* now and then the end of a slice and the late one coincide */
    return 0;
}

static void sleepers_are_woken(void) {
    CHECK_EQ(worlds_as_processes(33, &small, late, NULL), 0);
}

/* -------------------------------------------------------------------------------------------------------- trouble */

#define N 18

struct told {
    atom64 struck_at, seen_at[N], done[N];
    atom32 code[N], blamed[N];
    char text[N][300];
};

struct plan {
    const char *point; /* NULL: comm_abort */
    int victim, after, signal, mixed, crowded;
    int64_t timeout_ns;
};

static int work(struct world *w, const struct plan *p, struct told *t) {
    struct comm *c = &w->coll.comm[0];
    int me = c->me, rc = SYP_OK;
    for (int i = 0; rc == SYP_OK && i < 100000; i++) {
        float x[300];
        store_relaxed(&w->peers.crowded, (uint32_t)p->crowded);
        if (p->point && !strcmp(p->point, "wait.sleep") && me == N - 1) os->sleep(20 * NS_PER_MS); /* the others must sleep */
        if (!p->point && me == p->victim && i == p->after) {
            store_relaxed(&t->struck_at, os->now());
            if (comm_abort(c) != SYP_OK) return 3;
        }
        for (int k = 0; k < 300; k++)
            x[k] = (float)(me + i % 100);
        rc = p->mixed && i % 2 ? coll_allreduce(c, x, x, 300, SYP_FLOAT32, SYP_SUM, p->timeout_ns) : coll_barrier(c, p->timeout_ns);
        for (int k = 0; rc == SYP_OK && p->mixed && i % 2 && k < 300; k++)
            if (x[k] != (float)(N * (i % 100) + N * (N - 1) / 2)) return 4;
        if (rc == SYP_OK) store_relaxed(&t->done[me], (uint64_t)i + 1);
    }
    store_relaxed(&t->code[me], (uint32_t)-rc);
    store_relaxed(&t->blamed[me], (uint32_t)(err_record()->peer + 1));
    snprintf(t->text[me], sizeof t->text[me], "%s", syp_error_text());
    store_release(&t->seen_at[me], os->now());
    return 0;
}

static int rank_main(struct ranks *r, int rank, void *arg) {
    const struct plan *p = arg;
    struct told *t = r->shared;
    struct world *w = world_new();
    w->process = 1;
    syp_config c = ranks_config(r, rank, 4 << 20, 1 << 20);
    if (world_attach(w, &c) != SYP_OK) return 1;
    if (coll_barrier(&w->coll.comm[0], 0) != SYP_OK) return 2;
    if (rank == p->victim && p->point) strike_at(p->point, p->after, p->signal, &t->struck_at);
    int rc = work(w, p, t);
    world_vanish(w);
    return rc;
}

static void judge(const struct plan *p, const struct told *t, int want) {
    uint64_t done = 0;
    for (int k = 0; k < N; k++) {
        if (k == p->victim && want != SYP_EABORTED) continue;
        uint64_t his = load_relaxed((atom64 *)&t->done[k]);
        if (!done) done = his;
        int ok = CHECK(-(int)load_relaxed((atom32 *)&t->code[k]) == want) && CHECK((int)load_relaxed((atom32 *)&t->blamed[k]) - 1 == p->victim) &&
                 (want == SYP_EABORTED || CHECK(his == done));
        if (!ok) printf("%s on %d: rank %d after %llu operations: %s\n", p->point ? p->point : "abort", p->victim, k, (unsigned long long)his, t->text[k]);
    }
}

static void one_trouble(const struct plan *p, int want) {
    struct ranks r;
    if (!CHECK(ranks_start(&r, N, sizeof(struct told), rank_main, (void *)(uintptr_t)p) == 0)) return;
    struct told *t = r.shared;
    if (p->signal == SIGSTOP) {
        for (int i = 0, seen = 0; i < 20000 && seen < N - 1; i++, usleep(1000))
            for (int k = seen = 0; k < N; k++)
                seen += load_acquire(&t->seen_at[k]) != 0;
        kill(r.pid[p->victim], SIGCONT);
    }
    CHECK_EQ(ranks_wait(&r, 60, p->signal == SIGKILL ? p->victim : -1), 0);
    CHECK(load_relaxed(&t->struck_at) != 0); /* the point was reached */
    judge(p, t, want);
    if (p->signal == SIGSTOP) CHECK(load_relaxed(&t->code[p->victim]) != 0); /* it learns that it was given up */
    ranks_free(&r);
}

static const int victims[] = {0, N / 2, 5, N - 1}; /* the root and leader, a leader, members of both */

static void survivors_of_a_kill_agree(void) {
    static const char *const points[] = {"publish", "published", "tree.publish", "tree.published", "wait.sleep"};
    for (int i = 0; i < (int)check_count(18, 200); i++) {
        struct plan p = {.point = points[i % 5], .victim = victims[i / 5 % 4], .after = 3 + i * 7 % 11, .signal = SIGKILL};
        p.mixed = i % 3 != 0;
        p.crowded = i % 2;
        if (!strncmp(p.point, "tree", 4)) p.victim = victims[i / 5 % 2];
        if (!strcmp(p.point, "wait.sleep")) p.after = 1;
        if (!strcmp(p.point, "wait.sleep") && p.victim == N - 1) p.victim = N / 2;
        one_trouble(&p, SYP_EPEER);
    }
}

static void a_stopped_member_is_a_timeout_of_all(void) {
    static const char *const points[] = {"publish", "tree.publish", "published"};
    for (int i = 0; i < (int)check_count(6, 60); i++) {
        struct plan p = {.point = points[i % 3], .victim = victims[i / 3 % 4], .after = 4 + i % 5, .signal = SIGSTOP, .timeout_ns = NS_PER_S};
        if (i % 3 == 1) p.victim = victims[i / 3 % 2]; /* only leaders pass it */
        p.mixed = i % 2;
        p.crowded = i / 2 % 2;
        one_trouble(&p, SYP_ETIMEOUT);
    }
}

static void an_abort_reaches_all(void) {
    for (int i = 0; i < (int)check_count(4, 40); i++) {
        struct plan p = {.victim = victims[i % 4], .after = 5 + i, .mixed = i % 2, .crowded = i / 2 % 2};
        one_trouble(&p, SYP_EABORTED);
    }
}

int main(void) {
    return check_main("tree", (struct check_test[]){{"results_are_exact_in_threads", results_are_exact_in_threads},
                                                    {"results_are_exact_in_processes", results_are_exact_in_processes},
                                                    {"results_are_exact_with_delays", results_are_exact_with_delays},
                                                    {"whoever_shares_a_cache_shares_a_part", whoever_shares_a_cache_shares_a_part},
                                                    {"results_are_exact_whatever_the_caches", results_are_exact_whatever_the_caches},
                                                    {"who_asks_for_something_else_is_named", who_asks_for_something_else_is_named},
                                                    {"sleepers_are_woken", sleepers_are_woken},
                                                    {"survivors_of_a_kill_agree", survivors_of_a_kill_agree},
                                                    {"a_stopped_member_is_a_timeout_of_all", a_stopped_member_is_a_timeout_of_all},
                                                    {"an_abort_reaches_all", an_abort_reaches_all},
                                                    {NULL, NULL}});
}
