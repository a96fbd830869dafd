/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/*
 * No interleaving hangs or corrupts: random programs of all operations over overlapping groups (support/walk), 2 to 8 ranks as threads on common mappings and as
 * processes, on however many processors there are, with delays at the test points, with one or several threads of each rank in groups of their own.  And several
 * threads of a rank in one group: each call is exact or SYP_EBUSY.
 *
 * A program follows from its seed alone; a failure names it, and SEED=... runs that program first.
 */
#include "collectives/pairs.h"
#include "pool/base/conf.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/walk.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#define MOST_WALKERS 3

static struct comm *world_comm(struct world *w) {
    return &w->coll.comm[WORLD_SLOT];
}

/* Symmetric memory, as an offset that is equal on all. */
static char *symmetric(struct world *w, size_t len) {
    uint64_t off = coll_symm_alloc(&w->coll, len, 64, 0);
    return off == SPACE_NONE ? NULL : (char *)w->pool->region.mem.base + off;
}

/* ------------------------------------------------------------------------------------------------ programs */

struct program {
    uint64_t seed;
    int steps, walkers;
    size_t largest;
};

struct walking {
    struct world *w;
    struct comm *root;
    struct walk walk;
    int failed;
    pthread_t thread;
};

static void *walk_thread(void *arg) {
    struct walking *k = arg;
    k->failed = walk_run(k->w, k->root, &k->walk);
    return NULL;
}

/* Each walker has groups of its own.  The last one is in the world, and beside it agreed symmetric blocks come and go. */
static int run_program(struct world *w, void *arg) {
    const struct program *p = arg;
    struct walking k[MOST_WALKERS] = {{0}};
    int all[WALK_MEMBERS], n = w->peers.n, failed = 0;
    for (int i = 0; i < p->walkers; i++) {
        k[i] = (struct walking){.w = w, .root = world_comm(w), .walk = {p->seed + (uint64_t)i * 0x100000001u, p->steps / p->walkers, p->largest, NULL}};
        k[i].walk.box = symmetric(w, WALK_BOX);
        NEED(w, k[i].walk.box);
        for (int r = 0; r < n; r++)
            all[r] = (r + i) % n;
        if (i + 1 < p->walkers) NEED(w, comm_create(world_comm(w), all, n, &k[i].root) == SYP_OK);
    }
    for (int i = 1; i < p->walkers; i++)
        NEED(w, pthread_create(&k[i].thread, NULL, walk_thread, &k[i]) == 0);
    walk_thread(&k[0]);
    for (int i = 0; i < p->walkers; i++) {
        if (i) pthread_join(k[i].thread, NULL);
        failed |= k[i].failed;
    }
    return failed;
}

/* A rank that is descheduled after it published, for longer than the others have patience to spin; else what delays_on does. */
static void (*short_delay)(const char *point);
static _Thread_local uint64_t passages;

static void delay(const char *point) {
    if ((++passages & 0x7ff) == 0x155) usleep(3000);
    short_delay(point);
}

static void choose(const char *name, const char *value) {
    if (value)
        setenv(name, value, 1);
    else
        unsetenv(name);
}

/* What the ranks are and how they are disturbed follows from the seed, too; successive seeds try all numbers of ranks, both ways. */
static int program(uint64_t seed, int steps) {
    static const char *const staging[] = {"8K", "64K", "256K"}, *const algorithm[] = {NULL, NULL, "one-shot", "push", "pull", NULL};
    uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15u >> 20;
    int n = 2 + (int)(seed % 7), threads = CHECK_SLOW_BUILD || seed / 7 % 2, which = (int)(x % 3);
    struct program p = {.seed = seed, .steps = steps, .walkers = x >> 8 & 1 ? 1 + (int)((x >> 12) % MOST_WALKERS) : 1, .largest = (size_t[]){40000, 200000, 400000}[which]};
    choose("SYMPOOL_STAGING_SIZE", staging[which]);
    choose("SYMPOOL_COLL_ALGORITHM", algorithm[(x >> 16) % 6]);
    choose("SYMPOOL_COLL_THREADS", x >> 24 & 3 ? NULL : "2");
    conf_reset();
    if (x >> 28 & 3) {
        delays_on(seed, 2 + (unsigned)(x >> 32) % 20);
        short_delay = test_point_hook;
        test_point_hook = delay;
    }
    struct world_setup setup = {.timeout_ns = 60 * (int64_t)NS_PER_S};
    int failed = threads ? worlds_as_threads(n, &setup, run_program, &p) : worlds_as_processes(n, &setup, run_program, &p);
    delays_off();
    if (!CHECK(failed == 0))
        printf("  replay: SEED=%llu (%d ranks as %s, %d walkers, %d steps)\n", (unsigned long long)seed, n, threads ? "threads" : "processes", p.walkers, steps);
    return failed;
}

static void random_programs_of_all_operations_are_exact(void) {
    uint64_t seed = check_seed(), done = 0, wanted = CHECK_SLOW_BUILD ? check_count(3000, 30000) : check_count(14000, 1000000);
    int steps = CHECK_SLOW_BUILD ? 300 : (int)check_count(1000, 5000), programs = 0;
    for (; done < wanted && !program(seed, steps); seed++, programs++)
        done += (uint64_t)steps;
    for (const char *const *name = (const char *const[]){"SYMPOOL_STAGING_SIZE", "SYMPOOL_COLL_ALGORITHM", "SYMPOOL_COLL_THREADS", NULL}; *name; name++)
        unsetenv(*name);
    conf_reset();
    printf("  %d programs, %llu operations\n", programs, (unsigned long long)done);
}

/* Found by a random program: reductions of nothing did not know how to. */
static int nothing(struct world *w, void *arg) {
    int32_t x = 7;
    (void)arg;
    for (int i = 0; i < 12; i++) {
        struct call call = {.kind = i & 1 ? OP_REDUCE : OP_ALLREDUCE, .send = i & 2 ? &x : NULL, .recv = i & 2 ? &x : NULL, .dtype = SYP_INT32, .op = SYP_SUM};
        NEED(w, coll_somehow(world_comm(w), &call) == SYP_OK && x == 7);
        NEED(w, coll_broadcast(world_comm(w), call.recv, 0, 1, 0) == SYP_OK && x == 7);
    }
    return 0;
}

static void nothing_is_reduced_by_every_algorithm(void) {
    for (const char *const *name = (const char *const[]){"auto", "one-shot", "push", "pull", NULL}; *name; name++) {
        choose("SYMPOOL_COLL_ALGORITHM", *name);
        conf_reset();
        CHECK_EQ(worlds_as_processes(3, NULL, nothing, NULL), 0);
    }
    choose("SYMPOOL_COLL_ALGORITHM", NULL);
    conf_reset();
}

/* ------------------------------------------------------------------------------- several threads in one group */

#define CROWD 3
#define NUMBERS 3000

/* The threads of a rank share its calls: each takes one that is left and tries until it was let in, so all ranks make as many. */
struct crowd {
    struct world *w;
    atom32 left;
    atom32 refused; /* calls that found the group busy */
};

struct fellow {
    struct crowd *crowd;
    int which, failed;
    int32_t *in, *out;
    pthread_t thread;
};

static int refused(struct fellow *f, int rc) {
    if (rc != SYP_EBUSY || !strstr(syp_error_text(), "another thread of this rank")) return 0;
    add_relaxed(&f->crowd->refused, 1);
    sched_yield();
    return 1;
}

/* As a blocking call, or as a request; how often each is refused meanwhile does not matter. */
static int call_somehow(struct fellow *f, struct comm *c, const struct call *call, int way) {
    uint64_t id;
    int rc, done = 0;
    do
        rc = way ? queue_add(c, "test", call, 0, &id) : coll_run(c, call, 0);
    while (rc != SYP_OK && refused(f, rc));
    if (rc != SYP_OK || !way) return rc;
    do
        rc = way == 1 ? queue_wait(c, id) : queue_test(c, id, &done);
    while (rc != SYP_OK ? refused(f, rc) : way == 2 && !done);
    return rc;
}

/* Every thread's numbers are the same, so any order of the calls gives this sum, and a mixture of two does not: the receive buffer is the thread's own. */
static int sum_once(struct fellow *f, int way) {
    struct world *w = f->crowd->w;
    struct comm *c = world_comm(w);
    for (int i = 0; i < NUMBERS; i++) {
        f->in[i] = (c->me + 1) * (i + 1);
        f->out[i] = -1;
    }
    struct call call = {.kind = OP_ALLREDUCE, .send = f->in, .recv = f->out, .count = NUMBERS, .dtype = SYP_INT32, .op = SYP_SUM};
    NEED(w, call_somehow(f, c, &call, way) == SYP_OK);
    for (int i = 0; i < NUMBERS; i++)
        NEED(w, f->out[i] == c->n * (c->n + 1) / 2 * (i + 1) && f->in[i] == (c->me + 1) * (i + 1));
    return 0;
}

static void *sum_often(void *arg) {
    struct fellow *f = arg;
    for (uint64_t way = (uint64_t)f->which; !f->failed && (int32_t)add_relaxed(&f->crowd->left, UINT32_MAX) > 0; way++)
        f->failed = sum_once(f, (int)(way % 3));
    return NULL;
}

static _Atomic uint8_t seen[1 << 15];
static uint32_t n_calls;

/* A message is one number many times; all messages of a sender have different ones.  Nobody may see two numbers in one, or one twice. */
static int message_once(struct fellow *f, uint32_t call) {
    struct world *w = f->crowd->w;
    struct comm *c = world_comm(w);
    int rc;
    for (int i = 0; i < NUMBERS; i++)
        f->in[i] = (int32_t)call, f->out[i] = -1;
    const struct buffers send = {(void *[]){f->in}, (size_t[]){NUMBERS * 4}, 1, 1}, recv = {(void *[]){f->out}, (size_t[]){NUMBERS * 4}, 1, 0};
    do
        rc = c->me == 0 ? coll_send(c, &send, 0) : coll_recv(c, &recv, 0);
    while (rc != SYP_OK && refused(f, rc));
    NEED(w, rc == SYP_OK);
    if (c->me == 0) return 0;
    for (int i = 1; i < NUMBERS; i++)
        NEED(w, f->out[i] == f->out[0]);
    NEED(w, f->out[0] >= 0 && (uint32_t)f->out[0] < n_calls && !atomic_fetch_add_explicit(&seen[f->out[0]], 1, memory_order_relaxed));
    return 0;
}

static void *message_often(void *arg) {
    struct fellow *f = arg;
    int32_t left;
    while (!f->failed && (left = (int32_t)add_relaxed(&f->crowd->left, UINT32_MAX)) > 0)
        f->failed = message_once(f, (uint32_t)left - 1);
    return NULL;
}

static int crowd_in_one_group(struct world *w, void *fn) {
    struct crowd crowd = {.w = w};
    struct fellow f[CROWD];
    int failed = 0;
    store_relaxed(&crowd.left, n_calls);
    for (int i = 0; i < CROWD; i++) {
        f[i] = (struct fellow){.crowd = &crowd, .which = i};
        f[i].in = i & 1 ? malloc(NUMBERS * 4) : world_alloc(w, NUMBERS * 4);
        f[i].out = i & 2 ? malloc(NUMBERS * 4) : world_alloc(w, NUMBERS * 4);
        NEED(w, f[i].in && f[i].out && pthread_create(&f[i].thread, NULL, *(void *(**)(void *))fn, &f[i]) == 0);
    }
    for (int i = 0; i < CROWD; i++) {
        pthread_join(f[i].thread, NULL);
        failed |= f[i].failed;
        if (i & 1) free(f[i].in);
        if (i & 2) free(f[i].out);
    }
    NEED(w, load_relaxed(&crowd.refused) > 0); /* or this has tried nothing */
    return failed;
}

static void threads_of_a_rank_in_one_group_are_busy_or_exact(void) {
    void *(*fn)(void *) = sum_often;
    n_calls = (uint32_t)check_count(500, 20000) / (CHECK_SLOW_BUILD ? 5 : 1);
    CHECK_EQ(worlds_as_threads(3, NULL, crowd_in_one_group, &fn), 0);
    delays_on(check_seed(), 4);
    CHECK_EQ(worlds_as_threads(2, NULL, crowd_in_one_group, &fn), 0);
    CHECK_EQ(worlds_as_processes(3, NULL, crowd_in_one_group, &fn), 0);
    delays_off();
}

static void threads_of_a_rank_with_one_partner_are_busy_or_exact(void) {
    void *(*fn)(void *) = message_often;
    n_calls = (uint32_t)check_count(500, 20000) / (CHECK_SLOW_BUILD ? 5 : 1);
    for (int i = 0; i < 2; i++) {
        memset((void *)seen, 0, sizeof seen);
        if (i) delays_on(check_seed(), 4);
        CHECK_EQ(worlds_as_threads(2, NULL, crowd_in_one_group, &fn), 0);
        delays_off();
    }
    memset((void *)seen, 0, sizeof seen);
    CHECK_EQ(worlds_as_processes(2, NULL, crowd_in_one_group, &fn), 0);
}

int main(void) {
    return check_main("programs",
                      (struct check_test[]){{"random_programs_of_all_operations_are_exact", random_programs_of_all_operations_are_exact},
                                            {"nothing_is_reduced_by_every_algorithm", nothing_is_reduced_by_every_algorithm},
                                            {"threads_of_a_rank_in_one_group_are_busy_or_exact", threads_of_a_rank_in_one_group_are_busy_or_exact},
                                            {"threads_of_a_rank_with_one_partner_are_busy_or_exact", threads_of_a_rank_with_one_partner_are_busy_or_exact},
                                            {0}});
}
