/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks that share processors, and ranks that wait: operations keep moving when ranks outnumber processors, waiting
 * costs next to nothing, and no wake-up is lost.  Times are printed; what is asserted holds on a busy machine too.
 */
#include "pool/base/status.h"
#include "pool/stats.h"
#include "tests/support/check.h"
#include "tests/support/world_test.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static struct comm *world_comm(struct world *w) {
    return &w->coll.comm[0];
}

static uint64_t cpu_ns(void) {
    struct rusage u; /* of all threads, the keeper's too */
    getrusage(RUSAGE_SELF, &u);
    return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * NS_PER_S +
           ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * NS_PER_US;
}

/* ------------------------------------------------------------------------------- more ranks than processors */

#define CROWD 16
#define SHARED_CPUS 2
#define BARRIERS 500

/* Bind this process, and so the ranks it starts, to the first `most` processors it may use.  Returns their number. */
static int bind_to_few(const cpu_set_t *all, int most) {
    cpu_set_t few;
    CPU_ZERO(&few);
    for (size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&few) < most; cpu++)
        if (CPU_ISSET(cpu, all)) CPU_SET(cpu, &few);
    CHECK_EQ(sched_setaffinity(0, sizeof few, &few), 0);
    return CPU_COUNT(&few);
}

struct relay {
    atom64 turn; /* even: the parent's; odd: the child's */
    uint64_t end;
};

static void run_relay(struct relay *r, uint64_t me) {
    while (os->now() < r->end) {
        uint64_t turn = load_acquire(&r->turn); /* pairs with the store below */
        if (turn % 2 == me)
            store_release(&r->turn, turn + 1);
        else
            os->yield();
    }
}

/* Two processes on one processor hand a word to and fro by sched_yield: ns per hand-over, which is what a rank's turn
 * on a shared processor costs at the least. */
static double hand_over_ns(const cpu_set_t *all) {
    const uint64_t ns = 200 * NS_PER_MS;
    struct relay *r = mmap(NULL, sizeof *r, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!CHECK(r != MAP_FAILED)) return 1;
    bind_to_few(all, 1);
    r->end = os->now() + ns;
    pid_t pid = fork();
    if (pid == 0) {
        run_relay(r, 1);
        _exit(0);
    }
    CHECK(pid > 0);
    run_relay(r, 0);
    CHECK(waitpid(pid, NULL, 0) == pid);
    uint64_t turns = load_relaxed(&r->turn);
    CHECK(turns > 1);
    munmap(r, sizeof *r);
    return (double)ns / (double)(turns ? turns : 1);
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

struct turns {
    double hand_over;
    int cpus;
};

/* Processor time of all ranks together is what is judged, since other programs may hold the processors meanwhile: a
 * wait that burns its time slice costs 4 ms per barrier and more on every processor. */
static int crowded_barriers(struct world *w, const struct turns *t) {
    struct comm *c = world_comm(w);
    uint64_t took[BARRIERS];
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    uint64_t begin = os->now();
    int64_t cpu = (int64_t)cpu_ns();
    for (int i = 0; i < BARRIERS; i++) {
        uint64_t start = os->now();
        NEED(w, coll_barrier(c, 0) == SYP_OK);
        took[i] = os->now() - start;
    }
    uint64_t total = os->now() - begin;
    cpu = (int64_t)cpu_ns() - cpu;
    NEED(w, coll_allreduce(c, &cpu, &cpu, 1, SYP_INT64, SYP_SUM, 0) == SYP_OK);
    qsort(took, BARRIERS, sizeof took[0], by_value);
    double median = (double)took[BARRIERS / 2], busy = (double)cpu / t->cpus / BARRIERS;
    if (c->me == 0)
        printf("  %d ranks on %d processors: barrier median %.1f us, mean %.1f us, %.1f us of each processor; hand-over "
               "%.2f us; median / (one turn each) = %.2f\n",
               c->n, t->cpus, median / 1e3, (double)total / BARRIERS / 1e3, busy / 1e3, t->hand_over / 1e3,
               median / (t->hand_over * c->n / t->cpus));
    NEED(w, busy < 2.0 * NS_PER_MS);
    return 0;
}

static int crowded_sums(struct world *w, size_t count, int times) {
    struct comm *c = world_comm(w);
    float *x = world_alloc(w, count * sizeof *x);
    NEED(w, x);
    uint64_t begin = os->now();
    for (int i = 0; i < times; i++) {
        for (size_t k = 0; k < count; k++)
            x[k] = (float)(c->me + i);
        NEED(w, coll_allreduce(c, x, x, count, SYP_FLOAT32, SYP_SUM, 0) == SYP_OK);
        float want = (float)(c->n * (c->n - 1) / 2 + c->n * i);
        NEED(w, x[0] == want && x[count / 2] == want && x[count - 1] == want);
    }
    if (c->me == 0)
        printf("  all-reduce of %zu bytes: mean %.1f us\n", count * sizeof *x,
               (double)(os->now() - begin) / times / 1e3);
    world_free(w, x);
    return 0;
}

static int crowd(struct world *w, void *arg) {
    NEED(w, w->peers.crowded);
    return crowded_barriers(w, arg) || crowded_sums(w, 8, 200) || crowded_sums(w, 1 << 18, 20);
}

static void more_ranks_than_processors(void) {
    cpu_set_t all;
    if (!CHECK(sched_getaffinity(0, sizeof all, &all) == 0)) return;
    struct turns t = {.hand_over = hand_over_ns(&all), .cpus = bind_to_few(&all, SHARED_CPUS)};
    CHECK_EQ(worlds_as_processes(CROWD, NULL, crowd, &t), 0);
    CHECK_EQ(sched_setaffinity(0, sizeof all, &all), 0);
}

/* ------------------------------------------------------------------------------- processors come and go */

/* Operations until all ranks say `want` of themselves; the same number on all.  1 = they do. */
static int until_crowded(struct world *w, int want) {
    struct comm *c = world_comm(w);
    int32_t end[2] = {0, 0}; /* somebody says otherwise; somebody has waited long enough */
    uint64_t begin = os->now();
    do {
        end[0] = (int)load_relaxed(&w->peers.crowded) != want;
        end[1] = os->now() - begin > 20 * NS_PER_S;
        if (coll_allreduce(c, end, end, 2, SYP_INT32, SYP_MAX, 0) != SYP_OK) return 0;
    } while (end[0] && !end[1]);
    return !end[0];
}

static int bind_all(struct world *w, const cpu_set_t *to) {
    for (int r = 0; r < w->peers.n; r++)
        if (sched_setaffinity(w->peers.roster.rank[r].pid, sizeof *to, to) != 0) return 0;
    return 1;
}

/* Rank 0 binds all ranks, itself among them, to one processor, and lets them go again. */
static int change_over(struct world *w, void *arg) {
    struct comm *c = world_comm(w);
    const cpu_set_t *all = arg;
    cpu_set_t one;
    CPU_ZERO(&one);
    for (size_t cpu = 0; CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, all)) CPU_SET(cpu, &one);
    for (int times = 0; times < 2; times++) {
        NEED(w, until_crowded(w, 0) && stats_read(STAT_CROWDED) == 0);
        if (c->me == 0) NEED(w, bind_all(w, &one));
        NEED(w, until_crowded(w, 1) && stats_read(STAT_CROWDED) == 1);
        NEED(w, coll_barrier(c, 0) == SYP_OK); /* all have looked */
        if (c->me == 0) NEED(w, bind_all(w, all));
    }
    NEED(w, until_crowded(w, 0));
    /* asleep, too: nobody comes for half a second */
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    if (c->me == 0) {
        NEED(w, bind_all(w, &one));
        os->sleep(500 * NS_PER_MS);
    }
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    for (int r = 1; r < c->n; r++) {
        cpu_set_t mask;
        uint64_t published = 0;
        for (size_t i = 0; i < CONTROL_PROCESSORS / 64; i++)
            published += (uint64_t)__builtin_popcountll(load_relaxed((atom64 *)&w->peers.peer[r].control->processors[i])); /* pairs with crowd_publish */
        NEED(w, published == 1 && sched_getaffinity(w->peers.roster.rank[r].pid, sizeof mask, &mask) == 0 && CPU_COUNT(&mask) == 1);
    }
    return 0;
}

static void pinned_from_outside_and_let_go(void) {
    cpu_set_t all;
    if (!CHECK(sched_getaffinity(0, sizeof all, &all) == 0)) return;
    if (CPU_COUNT(&all) < 2) {
        printf("  SKIP: no hardware: one processor\n");
        return;
    }
    CHECK_EQ(worlds_as_processes(2, NULL, change_over, &all), 0);
}

/* ------------------------------------------------------------------------------------------------ idle ranks */

static int idle(struct world *w, void *arg) {
    struct comm *c = world_comm(w);
    uint64_t seconds = *(uint64_t *)arg;
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    int64_t used = 0;
    if (c->me == 0) {
        os->sleep(seconds * NS_PER_S);
        NEED(w, coll_barrier(c, 0) == SYP_OK);
    } else {
        uint64_t cpu = cpu_ns(), start = os->now();
        NEED(w, coll_barrier(c, 0) == SYP_OK);
        used = (int64_t)((cpu_ns() - cpu) * 1000000 / (os->now() - start));
        NEED(w, os->now() - start > seconds * NS_PER_S / 2); /* it did wait */
    }
    NEED(w, coll_allreduce(c, &used, &used, 1, SYP_INT64, SYP_MAX, 0) == SYP_OK);
    if (c->me == 0)
        printf("  %d ranks wait %llu s for one: at most %.3f %% of a processor each\n", c->n - 1,
               (unsigned long long)seconds, (double)used / 1e4);
    NEED(w, used < 20000); /* 2 % */
    return 0;
}

static void waiting_costs_little(void) {
    uint64_t seconds = check_count(3, 30);
    struct world_setup patient = {.timeout_ns = 100 * (int64_t)NS_PER_S};
    CHECK_EQ(worlds_as_processes(4, &patient, idle, &seconds), 0);
    CHECK_EQ(worlds_as_processes(16, &patient, idle, &seconds), 0);
}

/* -------------------------------------------------------------------------------------------------- wake-ups */

static int many_small(struct world *w, void *arg) {
    struct comm *c = world_comm(w);
    uint64_t n = *(uint64_t *)arg, start = os->now();
    for (uint64_t i = 0; i < n; i++) {
        int32_t x = (int32_t)i + c->me;
        if (i % 2)
            NEED(w, coll_barrier(c, 0) == SYP_OK);
        else
            NEED(w, coll_allreduce(c, &x, &x, 1, SYP_INT32, SYP_SUM, 0) == SYP_OK && x == 2 * (int32_t)i + 1);
    }
    uint64_t ns = os->now() - start;
    int64_t late = (int64_t)stats_read(STAT_LATE_WAKES), sleeps = (int64_t)stats_read(STAT_SLEEPS);
    NEED(w, stats_read(STAT_OPS) >= n); /* it is the statistics of this rank */
    NEED(w, coll_allreduce(c, &late, &late, 1, SYP_INT64, SYP_SUM, 0) == SYP_OK);
    NEED(w, coll_allreduce(c, &sleeps, &sleeps, 1, SYP_INT64, SYP_SUM, 0) == SYP_OK);
    if (c->me == 0)
        printf("  %llu small operations, %.2f us each: %lld sleeps, %lld late wakes\n", (unsigned long long)n,
               (double)ns / (double)n / 1e3, (long long)sleeps, (long long)late);
    NEED(w, late <= 2 + sleeps / 20); /* a rank that loses its processor before it can wake the others is no lost wake-up */
    return 0;
}

/* Whoever sleeps until a late member comes is woken by it, not by the end of a time slice; that may coincide now and then. */
static int late_every_time(struct world *w, void *arg) {
    struct comm *c = world_comm(w);
    int n = *(int *)arg;
    for (int i = 0; i < n; i++) {
        if (c->me == 1) os->sleep(4 * NS_PER_MS + (uint64_t)i % 7 * 300 * NS_PER_US);
        NEED(w, coll_barrier(c, 0) == SYP_OK);
    }
    if (c->me == 1) return 0;
    NEED(w, stats_read(STAT_SLEEPS) >= (uint64_t)n);
    NEED(w, stats_read(STAT_LATE_WAKES) <= (uint64_t)n / 4);
    return 0;
}

static void sleepers_are_woken(void) {
    int n = (int)check_count(60, 2000);
    CHECK_EQ(worlds_as_processes(2, NULL, late_every_time, &n), 0);
}

static void no_wake_up_is_lost(void) {
    uint64_t n = check_count(20000, 250000);
    for (int i = 0; i < (int)check_count(1, 4); i++)
        CHECK_EQ(worlds_as_processes(2, NULL, many_small, &n), 0);
}

int main(void) {
    return check_main("crowd", (struct check_test[]){{"more_ranks_than_processors", more_ranks_than_processors},
                                                     {"pinned_from_outside_and_let_go", pinned_from_outside_and_let_go},
                                                     {"waiting_costs_little", waiting_costs_little},
                                                     {"sleepers_are_woken", sleepers_are_woken},
                                                     {"no_wake_up_is_lost", no_wake_up_is_lost},
                                                     {0}});
}
