/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One job that loses a rank again and again: at every phase of every kind of operation a rank is killed, or stopped.  Each time all survivors are told who it was, go on
 * without it through a random program whose results are exact, and are whole again: with a replacement for a dead one, and with a stopped one that has woken up.  At
 * the end nothing is left over of descriptors, mappings, threads, or names.
 *
 * A phase is the number of test points that the victim has passed since the operation began, so "every phase" needs no list: an operation that the victim
 * survives had fewer.
 */
#include "collectives/pairs.h"
#include "collectives/rma.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"
#include "tests/support/walk.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define N 4
#define STOP_DEADLINE (300 * (int64_t)NS_PER_MS)
#define JOIN_DEADLINE (20 * (int64_t)NS_PER_S)

/* What the victim is inside of when it is struck. */
enum other { PAIR = 100, SIGNALS, CHANNEL, CREATE, AGREE, SHRINK, SYMMETRIC };
static const int kinds[] = {OP_BARRIER,    OP_BROADCAST,      OP_ALLREDUCE, OP_REDUCE,  OP_REDUCE_SCATTER, OP_REDUCE_SCATTERV, OP_ALLGATHER,
                            OP_ALLGATHERV, OP_ALLGATHER_ROWS, OP_GATHER,    OP_SCATTER, OP_ALLTOALL,       OP_ALLTOALLV,       PAIR,
                            SIGNALS,       CHANNEL,           CREATE,       AGREE,      SHRINK,            SYMMETRIC};
enum { KINDS = sizeof kinds / sizeof kinds[0], WAYS = 4, SCENES = KINDS * WAYS };

/* Which way of a kind: size and place of the buffers, and whether it is a request. */
enum way { SMALL, IN_POOL, OUTSIDE, REQUEST };

struct plan {
    int scene, phase, victim, signal, steps;
    uint64_t seed;
};

struct told {
    struct plan plan; /* of this cycle; before `cycle` */
    atom32 cycle;     /* 0 = none yet */
    atom32 stop;      /* no more cycles: leave together */
    atom32 struck;    /* by the victim just before */
    atom32 went_on;   /* survivors that have computed without it */
    atom32 done;      /* ranks of the whole world at the end of the cycle */
    atom32 failed;
};

struct life {
    struct world *w;
    struct told *t;
    const struct plan *p;
    char *box;
    uint64_t *words; /* in the pool, at the same offset on all */
    int64_t deadline;
};

static struct comm *world_of(const struct life *l) {
    return &l->w->coll.comm[WORLD_SLOT];
}

/* ------------------------------------------------------------------------------------------------ the strike */

static struct {
    struct told *t;
    atom32 passages;
    int signal;
} armed;

static void strike(const char *point) {
    (void)point;
    if (add_relaxed(&armed.passages, 1) + 1 != 0) return;
    store_release(&armed.t->struck, 1);
    kill(getpid(), armed.signal);
}

static void arm(const struct life *l) {
    armed.t = l->t;
    armed.signal = l->p->signal;
    store_relaxed(&armed.passages, (uint32_t)-l->p->phase);
    test_point_hook = strike;
}

/* --------------------------------------------------------------------------------------------- the operations */

static int collective(struct life *l, int kind, enum way way) {
    struct comm *c = world_of(l);
    struct op_case *a = calloc(1, sizeof *a);
    uint64_t id, places = way == IN_POOL || (way == REQUEST && c->me & 1) ? BOTH_IN_POOL : 0;
    NEED(l->w, a && op_case_make(a, l->w, c, kind, way == SMALL ? 100 : 100000, l->p->seed, places) == 0);
    int rc = way == REQUEST ? queue_add(c, "test", &a->call, l->deadline, &id) : coll_run(c, &a->call, l->deadline);
    if (way == REQUEST && rc == SYP_OK) rc = queue_wait(c, id);
    if (rc == SYP_OK && !op_case_exact(a)) rc = 1;
    op_case_free(a);
    free(a);
    return rc;
}

static int pair(struct life *l, enum way way) {
    struct comm *c = world_of(l);
    size_t len[1] = {way == SMALL ? 100 : 400000};
    int pool = way == IN_POOL || (way == REQUEST && c->me & 1);
    char *block = pool ? world_alloc(l->w, 2 * len[0]) : malloc(2 * len[0]);
    NEED(l->w, block);
    memset(block, c->me + 1, len[0]);
    void *out[1] = {block}, *in[1] = {block + len[0]};
    const struct buffers send = {out, len, 1, (c->me + 1) % N}, recv = {in, len, 1, (c->me + N - 1) % N};
    int rc = coll_sendrecv(c, &send, &recv, l->deadline);
    for (size_t i = 0; rc == SYP_OK && i < len[0]; i++)
        if (block[len[0] + i] != recv.member + 1) rc = 1;
    if (pool)
        world_free(l->w, block);
    else
        free(block);
    return rc;
}

static int group(struct life *l, int kind) {
    static const int all[N] = {2, 3, 0, 1};
    struct comm *g = NULL, *left = NULL;
    uint64_t flags = 7;
    int rc = comm_create(world_of(l), all, N, &g);
    if (rc != SYP_OK) return rc;
    if (kind == AGREE) rc = comm_agree(g, &flags, l->deadline);
    if (kind == SHRINK) rc = comm_shrink(g, 0, l->deadline, &left);
    if (rc == SYP_OK && flags != 7) rc = 1;
    if (left) (void)comm_destroy(left);
    (void)comm_destroy(g);
    return kind == CREATE ? rc : SYP_OK; /* these get over a death; of a stopped member the world hears anyway */
}

static int operate(struct life *l) {
    const struct coll *k = &l->w->coll;
    struct comm *c = world_of(l);
    int kind = kinds[l->p->scene / WAYS], to = (c->me + 1) % N, from = (c->me + N - 1) % N, rc;
    enum way way = (enum way)(l->p->scene % WAYS);
    char byte = 1;
    uint64_t seen;
    if (kind < PAIR) return collective(l, kind, way);
    switch (kind) {
    case PAIR: return pair(l, way);
    case SIGNALS:
        rc = rma_put_signal(k, l->words + 8, &byte, 1, l->words, l->p->seed, to);
        return rc == SYP_OK ? signal_wait(k, l->words, SYP_EQ, l->p->seed, from, &seen, l->deadline) : rc;
    case CHANNEL:
        rc = channel_notify(c, to, 1);
        return rc == SYP_OK ? channel_wait(c, from, 1, l->deadline) : rc;
    case SYMMETRIC: return coll_symm_alloc(&l->w->coll, 64, 64, 0) == SPACE_NONE ? err_record()->code : SYP_OK;
    default: return group(l, kind);
    }
}

/* ------------------------------------------------------------------------------------------------- a cycle */

static int names_victim(const struct life *l) {
    char rank[16];
    snprintf(rank, sizeof rank, "rank %d", l->p->victim);
    return err_record()->peer == l->p->victim || strstr(syp_error_text(), rank) != NULL;
}

static int said(const struct life *l, int rc, const char *what) {
    fprintf(stderr, "rank %d, scene %d phase %d, rank %d %s: %s: %d: %s\n", l->w->who.rank, l->p->scene, l->p->phase, l->p->victim,
            l->p->signal == SIGKILL ? "killed" : "stopped", what, rc, syp_error_text());
    return 1;
}

/* A survivor: the operation failed, or the next one of the world does. */
static int is_told(struct life *l, int rc) {
    int killed = l->p->signal == SIGKILL;
    if (rc == 1) return said(l, rc, "wrong result");
    if (rc != SYP_OK && (killed ? rc != SYP_EPEER && rc != SYP_EABORTED : rc != SYP_ETIMEOUT && rc != SYP_EABORTED)) return said(l, rc, "operation");
    rc = coll_barrier(world_of(l), 4 * l->deadline);
    if (killed ? rc != SYP_EPEER : rc != SYP_ETIMEOUT && rc != SYP_EABORTED) return said(l, rc, "barrier");
    return names_victim(l) ? 0 : said(l, rc, "who it was");
}

static int go_on_without(struct life *l) {
    struct comm *c = world_of(l), *left = NULL;
    struct walk walk = {l->p->seed, l->p->steps, 40000, l->box};
    int rc = comm_shrink(c, l->p->signal == SIGSTOP, l->p->signal == SIGSTOP ? 2 * STOP_DEADLINE : 0, &left);
    if (rc != SYP_OK || left->n != N - 1) return said(l, rc, "shrink");
    int gone[N];
    if (comm_failed(c, gone, N) != 1 || gone[0] != l->p->victim) return said(l, rc, "who is gone");
    if (walk_run(l->w, left, &walk)) return said(l, 1, "the program without it");
    NEED(l->w, comm_destroy(left) == SYP_OK);
    add_relaxed(&l->t->went_on, 1);
    return 0;
}

static int whole_again(struct life *l, int rejoins) {
    uint64_t end = os->now() + 60 * NS_PER_S;
    int rc = SYP_OK;
    while (rejoins && (rc = world_rejoin(l->w, 0, JOIN_DEADLINE)) != SYP_OK)
        if (os->now() > end) return said(l, rc, "rejoin");
    struct walk walk = {l->p->seed ^ 1, 60, 40000, l->box};
    if (walk_run(l->w, world_of(l), &walk)) return said(l, 1, "the program afterwards");
    NEED(l->w, heap_check(&l->w->pool->heap) == SYP_OK && symm_check(&l->w->pool->symm) == SYP_OK);
    return 0;
}

static int cycle(struct life *l) {
    struct comm *c = world_of(l);
    int victim = c->me == l->p->victim;
    l->deadline = l->p->signal == SIGSTOP ? STOP_DEADLINE : 20 * (int64_t)NS_PER_S;
    NEED(l->w, coll_barrier(c, 0) == SYP_OK);
    if (victim) arm(l);
    int rc = operate(l);
    test_point_hook = NULL;
    if (victim && load_acquire(&l->t->struck)) { /* awake again: it was given up, sooner or later */
        rc = SYP_OK;
        while (rc == SYP_OK)
            rc = coll_barrier(c, 4 * l->deadline);
        return whole_again(l, 1);
    }
    /* has anybody been struck?  That can be told by the world alone */
    if (victim || (rc == SYP_OK && !load_acquire(&l->t->struck))) {
        if (rc == SYP_OK) rc = coll_barrier(c, 4 * l->deadline);
        if (rc == SYP_OK) return whole_again(l, 0); /* it had fewer phases */
    }
    return is_told(l, rc) || go_on_without(l) || whole_again(l, 1);
}

/* ----------------------------------------------------------------------------------------------- the ranks */

static int attach(struct ranks *r, struct life *l, int rank) {
    l->t = r->shared;
    l->p = &l->t->plan;
    l->w = world_new();
    l->w->process = 1;
    l->w->who.rank = rank;
    syp_config c = ranks_config(r, rank, 32 << 20, 1 << 20);
    c.n_ranks = N;
    c.join_timeout_ns = 3 * JOIN_DEADLINE;
    c.timeout_ns = JOIN_DEADLINE;
    NEED(l->w, world_attach(l->w, &c) == SYP_OK);
    l->box = world_alloc(l->w, WALK_BOX); /* the first blocks: at the same offsets on all */
    l->words = world_alloc(l->w, 128);
    NEED(l->w, l->box && l->words);
    return 0;
}

static int live(struct life *l) {
    uint32_t last = load_acquire(&l->t->cycle);
    int fds = -1, threads = -1, maps = -1;
    for (int lived = 0;; lived++) {
        add_relaxed(&l->t->done, 1);
        while (load_acquire(&l->t->cycle) == last && !load_acquire(&l->t->stop))
            os->sleep(NS_PER_MS / 4);
        if (load_acquire(&l->t->stop)) break;
        last = load_acquire(&l->t->cycle);
        if (cycle(l)) return 1;
        if (lived != 1) continue; /* what the first cycles leave open, later ones must not add to */
        fds = count_open_fds();
        threads = count_threads();
        maps = count_mappings();
    }
    if (fds >= 0 && (count_open_fds() > fds || count_threads() > threads || count_mappings() > maps + 20)) {
        fprintf(stderr, "rank %d: descriptors %d -> %d, threads %d -> %d, mappings %d -> %d\n", l->w->who.rank, fds, count_open_fds(), threads,
                count_threads(), maps, count_mappings());
        return 1;
    }
    NEED(l->w, world_detach(l->w) == SYP_OK);
    return 0;
}

static int first_life(struct ranks *r, int rank, void *arg) {
    struct life l = {0};
    (void)arg;
    int rc = attach(r, &l, rank) || live(&l);
    if (rc) store_release(&((struct told *)r->shared)->failed, 1);
    return rc;
}

static int replacement(struct ranks *r, int rank, void *arg) {
    struct life l = {0};
    (void)arg;
    int rc = attach(r, &l, rank) || whole_again(&l, 0) || live(&l);
    if (rc) store_release(&((struct told *)r->shared)->failed, 1);
    return rc;
}

/* ---------------------------------------------------------------------------------------------- the parent */

static int wait_for_all(struct told *t, atom32 *count, uint32_t n) {
    for (uint64_t end = os->now() + 100 * NS_PER_S; load_acquire(count) < n; usleep(200))
        if (load_acquire(&t->failed) || os->now() > end) return check_fail(__FILE__, __LINE__, "scene %d phase %d: %u of %u", t->plan.scene, t->plan.phase,
                                                                           load_acquire(count), n);
    return 1;
}

/* 1 = somebody was struck; 0 = the operation has fewer phases; -1 = failed. */
static int one_cycle(struct ranks *r, const struct plan *p) {
    struct told *t = r->shared;
    t->plan = *p;
    store_relaxed(&t->struck, 0);
    store_relaxed(&t->went_on, 0);
    store_relaxed(&t->done, 0);
    store_release(&t->cycle, load_relaxed(&t->cycle) + 1);
    while (!load_acquire(&t->struck) && !load_acquire(&t->done) && !load_acquire(&t->failed))
        usleep(200);
    int struck = (int)load_acquire(&t->struck);
    if (struck && p->signal == SIGKILL && !CHECK(ranks_replace(r, p->victim, replacement, NULL) == 0)) return -1;
    if (struck && p->signal == SIGSTOP) {
        if (!wait_for_all(t, &t->went_on, N - 1)) return -1;
        kill(r->pid[p->victim], SIGCONT);
    }
    return wait_for_all(t, &t->done, N) ? struck : -1;
}

/* The job, with its plans; how many cycles somebody was struck in. */
static int job(int (*cycles)(struct ranks *r, uint64_t *seed)) {
    uint64_t seed = check_seed();
    int shm = count_shm_entries(), fds = count_open_fds(), n = 0;
    struct ranks r;
    if (!CHECK(ranks_start(&r, N, sizeof(struct told), first_life, NULL) == 0)) return 0;
    struct told *t = r.shared;
    if (wait_for_all(t, &t->done, N)) n = cycles(&r, &seed);
    store_release(&t->stop, 1);
    CHECK_EQ(ranks_wait(&r, 30, -1), 0);
    ranks_free(&r);
    CHECK_EQ(count_shm_entries(), shm);
    CHECK_EQ(count_open_fds(), fds);
    return n;
}

#define MOST_PHASES 24

static int every_phase(struct ranks *r, uint64_t *seed, int signal) {
    const char *only = getenv("SCENE");
    int n = 0, long_ones = 50, struck;
    for (int scene = 0; scene < SCENES; scene++) {
        int kind = kinds[scene / WAYS];
        if ((kind > PAIR || kind == OP_BARRIER) && scene % WAYS) continue; /* no buffers */
        if (only && atoi(only) != scene) continue;
        for (int phase = 1; phase <= MOST_PHASES; phase += signal == SIGSTOP ? 5 : 1) {
            struct plan p = {scene, phase, 1 + (n + phase) % (N - 1), signal, n < long_ones ? 10000 : 300, check_random(seed) >> 16 | 1};
            if ((struck = one_cycle(r, &p)) < 0) return n;
            if (!struck) break;
            n++;
        }
    }
    return n;
}

static int a_few(struct ranks *r, uint64_t *seed, int signal, int wanted) {
    int n = 0, struck;
    while (n < wanted) {
        uint64_t x = check_random(seed) >> 16;
        struct plan p = {(int)(x % SCENES), 1 + (int)(x >> 16) % 4, 1 + (int)((x >> 20) % (N - 1)), signal, 1000, x | 1};
        if ((struck = one_cycle(r, &p)) < 0) return n;
        n += struck;
    }
    return n;
}

static int kills(struct ranks *r, uint64_t *seed) {
    return check_count(0, 1) || getenv("SCENE") ? every_phase(r, seed, SIGKILL) : a_few(r, seed, SIGKILL, 3);
}

static int stops(struct ranks *r, uint64_t *seed) {
    return check_count(0, 1) || getenv("SCENE") ? every_phase(r, seed, SIGSTOP) : a_few(r, seed, SIGSTOP, 2);
}

static void killed_at_every_phase_of_every_operation_and_replaced(void) {
    int n = job(kills);
    printf("  %d cycles\n", n);
    CHECK(n >= (int)check_count(3, 50) || getenv("SCENE"));
}

static void stopped_at_every_phase_of_every_operation_and_back(void) {
    int n = job(stops);
    printf("  %d cycles\n", n);
    CHECK(n >= (int)check_count(2, 50) || getenv("SCENE"));
}

int main(void) {
    setenv("SYMPOOL_LOG", "off", 1);
    setenv("SYMPOOL_STAGING_SIZE", "64K", 1);
    return check_main("cycles", (struct check_test[]){{"killed_at_every_phase_of_every_operation_and_replaced", killed_at_every_phase_of_every_operation_and_replaced},
                                                      {"stopped_at_every_phase_of_every_operation_and_back", stopped_at_every_phase_of_every_operation_and_back},
                                                      {0}});
}
