/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replacements: a rank is killed, another process takes its place, and the world is whole again: same offsets in the symmetric region, exact sums, old
 * groups ended.  Ranks are processes; the parent kills and replaces them.
 */
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"
#include "tests/support/world_test.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define N 4

/* Shared by all processes of a test. */
struct scene {
    atom32 ready;       /* ranks that wait to see somebody die */
    atom32 replaced;    /* 1 = processes started from now on are replacements */
    atom32 done;        /* ranks that may leave */
    int victim;
    int n_ranks;        /* after the rejoin */
    uint64_t pool_size; /* of replacements, 0 = as all */
    int expect;         /* of the rejoin of those who stay */
    int diverged;       /* rank 1 has made one symmetric call more than the others */
    uint64_t offset[8]; /* of a symmetric block allocated after it, + 1 */
    int no_blocks;      /* 1 = no symmetric call before the rejoin */
    int flaky;          /* 1 = the replacement's first attach fails when it is half way in */
};

static void settings(void) {
    setenv("SYMPOOL_MAX_WORLD", "6", 1);
    setenv("SYMPOOL_MAX_LOCAL_MEM_SIZE", "48M", 1);
}

static int attach(struct ranks *r, struct world *w, int rank, int n, uint64_t size) {
    settings();
    w->process = 1;
    syp_config c = ranks_config(r, rank, size ? size : 16 << 20, 4 << 20);
    c.n_ranks = n;
    c.timeout_ns = 20 * (int64_t)NS_PER_S;
    c.join_timeout_ns = 20 * (int64_t)NS_PER_S;
    return world_attach(w, &c);
}

static struct comm *world_of(struct world *w) {
    return &w->coll.comm[WORLD_SLOT];
}

static int sums_are_right(struct world *w, struct comm *c, int rounds) {
    size_t count = 3000;
    double want = 0, *x = world_alloc(w, count * sizeof *x);
    NEED(w, x != NULL);
    for (int m = 0; m < c->n; m++)
        want += c->rank[m] + 1;
    for (int i = 0; i < rounds; i++) {
        for (size_t k = 0; k < count; k++)
            x[k] = (w->who.rank + 1) * (i + 1);
        NEED(w, coll_allreduce(c, x, x, count, SYP_FLOAT64, SYP_SUM, 0) == SYP_OK);
        for (size_t k = 0; k < count; k++)
            NEED(w, x[k] == want * (i + 1));
    }
    world_free(w, x);
    return 0;
}

/* A pattern of live blocks and gaps, the same on all. */
static void make_blocks(struct world *w) {
    void *p[64];
    for (int i = 0; i < 64; i++)
        p[i] = symm_alloc(&w->pool->symm, 64u * (unsigned)(1 + i * 7 % 23), 64, 0);
    for (int i = 0; i < 64; i += 3)
        (void)symm_free(&w->pool->symm, p[i]);
}

/* In the new world: operations, agreed and unagreed symmetric allocations, peers' memory. */
static int world_is_whole(struct world *w, struct scene *s) {
    struct comm *c = world_of(w);
    NEED(w, c->n == s->n_ranks && w->peers.n == s->n_ranks);
    if (sums_are_right(w, c, 50)) return 1;
    if (w->who.rank == 3) os->sleep(30 * NS_PER_MS); /* the others look at who lives while they wait */
    NEED(w, coll_barrier(c, 0) == SYP_OK); /* which also compares the symmetric positions */
    uint64_t off = coll_symm_alloc(&w->coll, 640, 64, 0);
    NEED(w, off != SPACE_NONE);
    void *local = symm_alloc(&w->pool->symm, 128, 64, 0);
    NEED(w, local != NULL);
    uint64_t *word = region_at(&w->pool->region, off);
    word[0] = (uint64_t)w->who.rank * 1000 + 7;
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    for (int r = 0; r < c->n; r++)
        NEED(w, *(uint64_t *)(void *)(w->peers.peer[r].data + off) == (uint64_t)r * 1000 + 7);
    s->offset[w->who.rank] = 1 + off + region_offset(&w->pool->region, local);
    NEED(w, symm_check(&w->pool->symm) == SYP_OK && heap_check(&w->pool->heap) == SYP_OK);
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    return 0;
}

static int leave_together(struct world *w) {
    NEED(w, world_detach(w) == SYP_OK);
    return 0;
}

static int keep_open;

/* The connections of the join end. */
static void lose_connections(const char *point) {
    if (strcmp(point, "rejoin.give")) return;
    test_point_hook = NULL;
    for (int fd = 3; fd < 256; fd++)
        if (fd != keep_open) shutdown(fd, SHUT_RDWR);
}

static int replacement(struct ranks *r, int rank, void *arg) {
    struct scene *s = r->shared;
    struct world *w = world_new();
    (void)arg;
    keep_open = r->listen_fd;
    if (s->flaky) {
        test_point_hook = lose_connections;
        NEED(w, attach(r, w, rank, s->n_ranks, 0) != SYP_OK && !test_point_hook);
    }
    int rc = attach(r, w, rank, s->n_ranks, s->pool_size);
    if (s->expect != SYP_OK) return rc == SYP_OK;
    NEED(w, rc == SYP_OK);
    NEED(w, symm_check(&w->pool->symm) == SYP_OK);
    return world_is_whole(w, s) || leave_together(w);
}

static int member(struct ranks *r, int rank, void *arg) {
    struct scene *s = r->shared;
    struct world *w = world_new();
    static const int without_0[] = {1, 2, 3}, only_1_2[] = {1, 2};
    struct comm *c, *three = NULL, *two = NULL;
    (void)arg;
    NEED(w, attach(r, w, rank, N, 0) == SYP_OK);
    c = world_of(w);
    if (!s->no_blocks) make_blocks(w);
    NEED(w, comm_create(c, without_0, 3, &three) == SYP_OK);
    NEED(w, comm_create(c, only_1_2, 2, &two) == SYP_OK);
    char *kept = world_alloc(w, 5000);
    memset(kept, 'k', 5000);
    if (sums_are_right(w, c, 5)) return 1;
    add_relaxed(&s->ready, 1);
    int rc = SYP_OK;
    while (rc == SYP_OK)
        rc = coll_barrier(c, 0);
    NEED(w, rc == SYP_EPEER && err_record()->peer == s->victim);
    struct comm *left = NULL;
    NEED(w, comm_shrink(c, 0, 0, &left) == SYP_OK);
    if (sums_are_right(w, left, 5)) return 1;
    if (s->diverged && rank == 1) NEED(w, symm_alloc(&w->pool->symm, 64, 64, 0));
    rc = world_rejoin(w, s->n_ranks, 0);
    for (int i = 0; i < 3 && s->flaky && rc != SYP_OK; i++)
        rc = world_rejoin(w, 0, 0);
    if (rc != s->expect) fprintf(stderr, "rank %d: rejoin: %s\n", rank, syp_error_text());
    NEED(w, rc == s->expect);
    if (rc != SYP_OK) {
        NEED(w, coll_barrier(c, 0) < 0); /* still broken */
        world_vanish(w);
        return 0;
    }
    if (world_is_whole(w, s)) return 1;
    for (int i = 0; i < 5000; i++)
        NEED(w, kept[i] == 'k');
    if (sums_are_right(w, left, 5)) return 1; /* nobody of it was replaced */
    if (three) NEED(w, coll_barrier(three, 0) == (s->victim ? SYP_EPEER : SYP_OK));
    if (two) NEED(w, coll_barrier(two, 0) == (s->victim == 1 || s->victim == 2 ? SYP_EPEER : SYP_OK));
    NEED(w, comm_buffers_safe(c) == SYP_OK);
    return leave_together(w);
}

/* N ranks; the victim is killed, and replaced; more may come. */
static void one_scene(const struct scene *plan) {
    struct ranks r;
    int shm = count_shm_entries(), fds = count_open_fds();
    if (!CHECK(ranks_start(&r, N, sizeof(struct scene), member, NULL) == 0)) return;
    struct scene *s = r.shared;
    memcpy(&s->victim, &plan->victim, sizeof *s - offsetof(struct scene, victim));
    for (int i = 0; i < 2000 && load_relaxed(&s->ready) < N; i++)
        usleep(5000);
    kill(r.pid[plan->victim], SIGKILL);
    CHECK_EQ(ranks_replace(&r, plan->victim, replacement, NULL), 0);
    for (int rank = N; rank < plan->n_ranks; rank++)
        CHECK_EQ(ranks_replace(&r, rank, replacement, NULL), 0);
    CHECK_EQ(ranks_wait(&r, 60, -1), 0);
    for (int rank = 1; rank < plan->n_ranks && plan->expect == SYP_OK; rank++)
        CHECK(s->offset[rank] && s->offset[rank] == s->offset[0]);
    ranks_free(&r);
    CHECK_EQ(count_shm_entries(), shm);
    CHECK_EQ(count_open_fds(), fds);
}

static void every_rank_can_be_replaced(void) {
    for (int i = 0; i < (int)check_count(1, 20); i++)
        for (int victim = 0; victim < N; victim++)
            one_scene(&(struct scene){.victim = victim, .n_ranks = N});
}

static void a_replacement_may_have_a_larger_pool(void) {
    one_scene(&(struct scene){.victim = 2, .n_ranks = N, .pool_size = 40 << 20});
}

static void a_pool_beyond_the_windows_is_refused_on_all(void) {
    one_scene(&(struct scene){.victim = 2, .n_ranks = N, .pool_size = 100 << 20, .expect = SYP_EINVAL});
}

static void ranks_whose_symmetric_regions_differ_do_not_go_on(void) {
    one_scene(&(struct scene){.victim = 2, .n_ranks = N, .expect = SYP_EDIVERGED, .diverged = 1});
}

static void more_ranks_may_join(void) {
    one_scene(&(struct scene){.victim = 3, .n_ranks = 6});
}

static void without_symmetric_calls_the_region_is_free(void) {
    one_scene(&(struct scene){.victim = 1, .n_ranks = N, .no_blocks = 1});
}

static void a_replacement_that_failed_may_try_again(void) {
    one_scene(&(struct scene){.victim = 2, .n_ranks = N, .flaky = 1});
}

/* One more rank comes, fails half way in, and comes again later; meanwhile the others go on as they were. */
static int late_newcomer(struct ranks *r, int rank, void *arg) {
    struct scene *s = r->shared;
    struct world *w = world_new();
    (void)arg;
    keep_open = r->listen_fd;
    test_point_hook = lose_connections;
    for (int i = 0; i < 4000 && load_relaxed(&s->ready) < N; i++)
        usleep(5000);
    NEED(w, attach(r, w, rank, N + 1, 0) != SYP_OK && !test_point_hook);
    for (int i = 0; i < 4000 && load_acquire(&s->done) < N; i++)
        usleep(5000);
    NEED(w, attach(r, w, rank, N + 1, 0) == SYP_OK);
    return world_is_whole(w, s) || leave_together(w);
}

static int grown_late(struct ranks *r, int rank, void *arg) {
    struct scene *s = r->shared;
    struct world *w = world_new();
    (void)arg;
    NEED(w, attach(r, w, rank, N, 0) == SYP_OK);
    make_blocks(w);
    add_relaxed(&s->ready, 1);
    NEED(w, world_rejoin(w, N + 1, 0) != SYP_OK);
    NEED(w, w->who.n_ranks == N && world_of(w)->n == N);
    if (sums_are_right(w, world_of(w), 20)) return 1; /* nothing of the old world was touched */
    NEED(w, world_rejoin(w, 0, 0) == SYP_OK);
    NEED(w, w->peers.n == N && !w->peers.peer[N].data && !w->peers.peer[N].control);
    if (sums_are_right(w, world_of(w), 20)) return 1;
    add_relaxed(&s->done, 1);
    NEED(w, world_rejoin(w, N + 1, 0) == SYP_OK && w->who.n_ranks == N + 1);
    return world_is_whole(w, s) || leave_together(w);
}

static void growth_that_failed_leaves_the_world_as_it_was(void) {
    struct ranks r;
    int shm = count_shm_entries(), fds = count_open_fds();
    if (!CHECK(ranks_start(&r, N, sizeof(struct scene), grown_late, NULL) == 0)) return;
    ((struct scene *)r.shared)->n_ranks = N + 1;
    CHECK_EQ(ranks_replace(&r, N, late_newcomer, NULL), 0);
    CHECK_EQ(ranks_wait(&r, 60, -1), 0);
    ranks_free(&r);
    CHECK_EQ(count_shm_entries(), shm);
    CHECK_EQ(count_open_fds(), fds);
}

int main(void) {
    return check_main("rejoin", (struct check_test[]){{"replaced", every_rank_can_be_replaced},
                                                      {"larger", a_replacement_may_have_a_larger_pool},
                                                      {"too large", a_pool_beyond_the_windows_is_refused_on_all},
                                                      {"diverged", ranks_whose_symmetric_regions_differ_do_not_go_on},
                                                      {"more", more_ranks_may_join},
                                                      {"no calls", without_symmetric_calls_the_region_is_free},
                                                      {"again", a_replacement_that_failed_may_try_again},
                                                      {"growth", growth_that_failed_leaves_the_world_as_it_was},
                                                      {0}});
}
