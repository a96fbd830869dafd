/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How requests end when something else does: a rank is killed or stopped, the group is aborted, shrunk or destroyed, the job is left, joined again or made whole,
 * the process forks.  Ranks are processes that use the public interface.
 */
#include "allocator/sympool.h"
#include "pool/base/os.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"
#include "tests/support/strike.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define MUST(cond)                                                                                                                           \
    do {                                                                                                                                     \
        if (!(cond)) {                                                                                                                       \
            fprintf(stderr, "rank %d: %s (line %d): %s\n", syp_rank(), #cond, __LINE__, syp_error_text());                                   \
            return 1;                                                                                                                        \
        }                                                                                                                                    \
    } while (0)

#define N 3
#define VICTIM 1
#define LINE 6

static int attach(const struct ranks *r, int rank, const char *job) {
    syp_config c = ranks_config(r, rank, 16 << 20, 1 << 20);
    if (job) {
        c.job = job;
        c.addr = NULL;
        c.listen_fd = -1;
    }
    c.timeout_ns = 20 * (int64_t)NS_PER_S;
    MUST(syp_init_config(&c) == SYP_OK);
    return 0;
}

static const size_t counts[LINE] = {1, 300, 5000, 20000, 1, 40000};

struct line {
    float *x[LINE];
    syp_request *q[LINE];
};

/* Sums in the pool and outside, small and large. */
static int make(struct line *l, syp_comm *comm, int64_t timeout_ns) {
    const syp_call call = {sizeof call, timeout_ns};
    for (int i = 0; i < LINE; i++) {
        l->x[i] = i % 2 ? malloc(counts[i] * 4) : syp_malloc(counts[i] * 4);
        for (size_t k = 0; k < counts[i]; k++)
            l->x[i][k] = 1;
        MUST(syp_iallreduce(l->x[i], l->x[i], counts[i], SYP_FLOAT32, SYP_SUM, comm, &call, &l->q[i]) == SYP_OK && l->q[i]);
    }
    return 0;
}

static int sums_are_right(syp_comm *comm, int rounds) {
    float x[40];
    int n = syp_comm_size(comm);
    for (int i = 0; i < rounds; i++) {
        syp_request *q = NULL;
        for (int k = 0; k < 40; k++)
            x[k] = (float)(i + k);
        MUST(syp_iallreduce(x, x, 40, SYP_FLOAT32, SYP_SUM, comm, NULL, &q) == SYP_OK && syp_wait(q) == SYP_OK);
        for (int k = 0; k < 40; k++)
            MUST(x[k] == (float)(n * (i + k)));
    }
    return 0;
}

static int ask(syp_request *q, int by_wait) {
    int done = 0, rc = SYP_OK;
    if (by_wait) return syp_wait(q);
    while (!done && rc == SYP_OK) {
        rc = syp_test(q, &done);
        sched_yield();
    }
    return done ? rc : -1000 + rc;
}

/* Each is exact, up to one from which all have ended with `code`.  Returns how many were. */
static int all_end(struct line *l, int n, int code, const char *said, int by_wait, int *exact) {
    int done = 1;
    *exact = 0;
    for (int i = 0; i < LINE; i++) {
        int rc = ask(l->q[i], by_wait);
        if (rc == SYP_OK) {
            MUST(*exact == i);
            for (size_t k = 0; k < counts[i]; k++)
                MUST(l->x[i][k] == (float)n);
            *exact = i + 1;
        } else {
            syp_error e = {.size = sizeof e};
            MUST(rc == code && syp_last_error(&e) == SYP_OK && e.code == code);
            MUST(strstr(e.text, said) && strcmp(e.operation, "allreduce") == 0);
        }
        MUST(syp_test(l->q[i], &done) == SYP_ESTATE && !done);
    }
    return 0;
}

/* --------------------------------------------------------------------------------------- killed and stopped */

struct plan {
    const char *point; /* NULL = between two calls, with requests made and `tests` tests of the last one */
    int after, tests, signal, by_wait;
};

struct told {
    atom64 struck_at;
    atom32 done[N];
    atom32 exact[N];
};

static int die_in_the_middle(struct ranks *r, int rank, void *arg) {
    const struct plan *p = arg;
    struct told *t = r->shared;
    struct line world, group;
    syp_comm *comm = NULL, *left = NULL;
    int all[N] = {0, 1, 2}, done = 0, exact = 0, by_wait = p->by_wait, stop = p->signal == SIGSTOP;
    int64_t timeout = stop && rank != VICTIM ? 2 * (int64_t)NS_PER_S : 0;
    if (attach(r, rank, NULL)) return 1;
    MUST(syp_comm_create(NULL, all, N, &comm) == SYP_OK && syp_barrier(NULL, NULL) == SYP_OK);
    if (make(&world, NULL, timeout) || make(&group, comm, timeout)) return 1;
    if (rank == VICTIM) {
        if (p->point) strike_at(p->point, p->after, p->signal, &t->struck_at);
        for (int i = 0; i < p->tests && !done; i++) {
            MUST(syp_test(world.q[LINE - 1], &done) == SYP_OK);
            usleep(1000);
        }
        if (!p->point) {
            store_release(&t->struck_at, os->now());
            kill(getpid(), p->signal);
        }
        for (int i = 0; i < LINE; i++)
            (void)ask(world.q[i], by_wait);
        int rc = ask(group.q[0], by_wait); /* it was stopped, and is told */
        MUST(rc == SYP_EABORTED || rc == SYP_EPEER);
        return 0;
    }
    if (all_end(&world, N, stop ? SYP_ETIMEOUT : SYP_EPEER, "rank 1", by_wait, &exact)) return 1;
    store_release(&t->exact[rank], (uint32_t)exact);
    if (all_end(&group, N, stop ? SYP_ETIMEOUT : SYP_EPEER, "rank 1", !by_wait, &exact)) return 1;
    MUST(exact == 0);
    store_release(&t->done[rank], 1);
    if (stop) return 0;
    MUST(syp_comm_shrink(comm, 0, NULL, &left) == SYP_OK && syp_comm_size(left) == N - 1);
    return sums_are_right(left, 50);
}

static void killed_with_requests(void) {
    static const struct plan plans[] = {{NULL, 0, 0, SIGKILL, 0},      {NULL, 0, 3, SIGKILL, 0},         {NULL, 0, 20, SIGKILL, 1},
                                        {"publish", 2, 0, SIGKILL, 1}, {"published", 3, 0, SIGKILL, 0},  {"rounds.share", 2, 0, SIGKILL, 0},
                                        {"publish", 6, 0, SIGKILL, 0}, {"rounds.share", 3, 0, SIGKILL, 1}, {"rounds.shared", 1, 0, SIGKILL, 0}};
    int n = (int)(sizeof plans / sizeof plans[0]), rounds = (int)check_count(1, 10);
    for (int i = 0; i < n * rounds; i++) {
        struct ranks r;
        if (!CHECK(ranks_start(&r, N, sizeof(struct told), die_in_the_middle, (void *)(uintptr_t)&plans[i % n]) == 0)) return;
        CHECK_EQ(ranks_wait(&r, 60, VICTIM), 0);
        const struct told *t = r.shared;
        CHECK(load_relaxed((atom64 *)&t->struck_at) != 0 && WIFSIGNALED(r.status[VICTIM]));
        /* both have the same ones exact */
        CHECK_EQ(load_relaxed((atom32 *)&t->exact[0]), load_relaxed((atom32 *)&t->exact[2]));
        ranks_free(&r);
    }
}

static void stopped_with_requests(void) {
    static const struct plan plans[] = {{NULL, 0, 2, SIGSTOP, 0}, {"rounds.share", 1, 0, SIGSTOP, 1}};
    for (int i = 0; i < 2; i++) {
        struct ranks r;
        if (!CHECK(ranks_start(&r, N, sizeof(struct told), die_in_the_middle, (void *)(uintptr_t)&plans[i]) == 0)) return;
        struct told *t = r.shared;
        for (int k = 0; k < 1000 && !(load_acquire(&t->done[0]) && load_acquire(&t->done[2])); k++)
            usleep(20000);
        CHECK(load_acquire(&t->done[0]) && load_acquire(&t->done[2]));
        kill(r.pid[VICTIM], SIGCONT);
        CHECK_EQ(ranks_wait(&r, 60, -1), 0);
        ranks_free(&r);
    }
}

/* -------------------------------------------------------------------------------------------- ended by a call */

/* An agreement is a meeting that leaves requests alone. */
static int meet(void) {
    uint64_t flags = 1;
    MUST(syp_comm_agree(NULL, &flags, NULL) == SYP_OK);
    return 0;
}

static int abort_in_progress(struct ranks *r, int rank, void *arg) {
    const int begun = *(int *)arg;
    float *x;
    syp_comm *comm = NULL, *left = NULL;
    syp_request *first = NULL, *second = NULL;
    int all[N] = {0, 1, 2}, done = 0;
    const syp_call call = {sizeof call, 3 * (int64_t)NS_PER_S};
    if (attach(r, rank, NULL)) return 1;
    x = syp_calloc(50000, sizeof *x);
    MUST(x && syp_comm_create(NULL, all, N, &comm) == SYP_OK);
    MUST(syp_iallreduce(x, x, 50000, SYP_FLOAT32, SYP_SUM, comm, &call, &first) == SYP_OK);
    MUST(syp_ibarrier(comm, NULL, &second) == SYP_OK);
    if (begun >> rank & 1) MUST(syp_test(first, &done) == SYP_OK && !done);
    if (meet()) return 1;
    if (rank == 0) MUST(syp_comm_abort(comm) == SYP_OK);
    if (rank == 0) MUST(ask(second, 0) == SYP_EABORTED && syp_wait(first) == SYP_EABORTED && strstr(syp_error_text(), "aborted by this rank"));
    if (meet()) return 1;
    if (rank != 0) MUST(ask(first, rank == 1) == SYP_EABORTED && strstr(syp_error_text(), "rank 0") && ask(second, 0) == SYP_EABORTED);
    for (int i = 0; i < 100 && syp_comm_buffers_safe(comm) != SYP_OK; i++) /* nobody is inside any more */
        usleep(10000);
    MUST(syp_comm_buffers_safe(comm) == SYP_OK); /* for good: a member that begins now finds that the group is over */
    MUST(syp_comm_shrink(comm, 0, NULL, &left) == SYP_OK && syp_comm_size(left) == N && syp_comm_destroy(comm) == SYP_OK);
    if (sums_are_right(left, 20)) return 1;
    /* shrinking ends requests, too */
    MUST(syp_ibarrier(left, NULL, &first) == SYP_OK);
    if (begun >> rank & 1) MUST(syp_test(first, &done) == SYP_OK && !done);
    if (meet()) return 1;
    MUST(syp_comm_shrink(left, 0, NULL, &comm) == SYP_OK && syp_wait(first) == SYP_EABORTED && strstr(syp_error_text(), "shrunk by this rank"));
    return sums_are_right(comm, 20) || syp_finalize();
}

static void aborts_end_requests(void) {
    for (int begun = 0; begun < 7; begun++) { /* not 7: then the sum is complete */
        struct ranks r;
        if (!CHECK(ranks_start(&r, N, 64, abort_in_progress, &begun) == 0)) return;
        CHECK_EQ(ranks_wait(&r, 60, -1), 0);
        ranks_free(&r);
    }
}

static int destroy(struct ranks *r, int rank, void *arg) {
    syp_comm *comm = NULL;
    syp_request *q = NULL, *cancelled = NULL;
    int all[N] = {0, 1, 2}, done = 1;
    (void)arg;
    if (attach(r, rank, NULL)) return 1;
    MUST(syp_comm_create(NULL, all, N, &comm) == SYP_OK && syp_ibarrier(comm, NULL, &q) == SYP_OK);
    MUST(syp_comm_destroy(comm) == SYP_EBUSY && strstr(syp_error_text(), "1 requests"));
    MUST(syp_wait(q) == SYP_OK && syp_ibarrier(comm, NULL, &q) == SYP_OK && syp_barrier(comm, NULL) == SYP_OK);
    MUST(syp_comm_destroy(comm) == SYP_EBUSY); /* it has ended, and nobody was told */
    MUST(syp_test(q, &done) == SYP_OK && done && syp_comm_destroy(comm) == SYP_OK && syp_wait(q) == SYP_ESTATE);
    MUST(syp_ibarrier(comm, NULL, &q) == SYP_ESTATE && !q);
    /* cancelled ones are nobody's: but those who did not cancel are told at once */
    MUST(syp_comm_create(NULL, all, N, &comm) == SYP_OK && syp_ibarrier(comm, NULL, &cancelled) == SYP_OK);
    if (rank == 2) {
        MUST(syp_cancel(cancelled) == SYP_OK && syp_comm_destroy(comm) == SYP_OK);
    } else {
        MUST(ask(cancelled, rank) == SYP_EABORTED && strstr(syp_error_text(), "rank 2"));
        /* on a broken group they end with it */
        MUST(syp_ibarrier(comm, NULL, &q) == SYP_OK && syp_comm_destroy(comm) == SYP_OK && syp_test(q, &done) == SYP_ESTATE);
    }
    /* all cancel: nothing happened */
    MUST(syp_comm_create(NULL, all, N, &comm) == SYP_OK && syp_ibarrier(comm, NULL, &cancelled) == SYP_OK);
    MUST(syp_cancel(cancelled) == SYP_OK && syp_comm_destroy(comm) == SYP_OK && syp_barrier(NULL, NULL) == SYP_OK);
    return syp_finalize();
}

static void destroying_a_group_minds_its_requests(void) {
    struct ranks r;
    if (!CHECK(ranks_start(&r, N, 64, destroy, NULL) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 60, -1), 0);
    ranks_free(&r);
}

/* ----------------------------------------------------------------------------------------------- leaving */

static int leave_and_come_back(struct ranks *r, int rank, void *arg) {
    struct line world;
    syp_comm *comm = NULL;
    syp_request *of_group = NULL, *again = NULL;
    int all[N] = {0, 1, 2}, done = 0;
    char job[40];
    (void)arg;
    if (attach(r, rank, NULL)) return 1;
    MUST(syp_comm_create(NULL, all, N, &comm) == SYP_OK && syp_ibarrier(comm, NULL, &of_group) == SYP_OK);
    if (make(&world, NULL, 0)) return 1;
    if (rank == 0) MUST(syp_test(world.q[LINE - 1], &done) == SYP_OK && syp_cancel(world.q[4]) == SYP_OK);
    if (rank == 1) MUST(ask(of_group, 0) == SYP_EABORTED && strstr(syp_error_text(), "aborted")); /* the others have gone to finalize */
    if (rank == 2) MUST(ask(world.q[3], 1) == SYP_OK && world.x[3][19999] == N);                    /* whose world goes on till then */
    MUST(syp_finalize() == SYP_OK);
    MUST(world.x[1][7] == N && world.x[3][7] == N);
    MUST(syp_wait(world.q[0]) == SYP_ESTATE && syp_test(world.q[1], &done) == SYP_ESTATE && syp_cancel(of_group) == SYP_ESTATE);
    MUST(strstr(syp_error_text(), "not attached") && syp_ibarrier(NULL, NULL, &again) == SYP_ESTATE && !again);
    snprintf(job, sizeof job, "again-%d", (int)getppid());
    if (attach(r, rank, job)) return 1;
    MUST(syp_ibarrier(NULL, NULL, &again) == SYP_OK);
    for (int i = 0; i < LINE; i++)
        MUST(syp_wait(world.q[i]) == SYP_ESTATE && strstr(syp_error_text(), "not a request"));
    MUST(syp_wait(of_group) == SYP_ESTATE && syp_wait(again) == SYP_OK);
    return sums_are_right(NULL, 20) || syp_finalize();
}

static void finalize_completes_the_worlds_requests(void) {
    struct ranks r;
    if (!CHECK(ranks_start(&r, N, 64, leave_and_come_back, NULL) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 60, -1), 0);
    ranks_free(&r);
}

/* The world begins anew; other groups, and their requests, go on. */
static int rejoin(struct ranks *r, int rank, void *arg) {
    syp_comm *comm = NULL;
    syp_request *begun = NULL, *made = NULL, *of_group = NULL;
    int all[N] = {0, 1, 2}, done = 0;
    (void)arg;
    if (attach(r, rank, NULL)) return 1;
    MUST(syp_comm_create(NULL, all, N, &comm) == SYP_OK && syp_ibarrier(NULL, NULL, &begun) == SYP_OK && syp_ibarrier(NULL, NULL, &made) == SYP_OK);
    MUST(syp_ibarrier(comm, NULL, &of_group) == SYP_OK);
    if (rank == 1) MUST(syp_test(begun, &done) == SYP_OK && !done && syp_test(of_group, &done) == SYP_OK && !done);
    MUST(syp_rejoin(0, NULL) == SYP_OK);
    MUST(syp_wait(of_group) == SYP_OK);
    if (sums_are_right(NULL, 20)) return 1;
    MUST(syp_wait(made) == SYP_EABORTED && strstr(syp_error_text(), "syp_rejoin"));
    MUST(syp_test(begun, &done) == SYP_EABORTED && done);
    return sums_are_right(comm, 20) || syp_finalize();
}

static void a_new_world_ends_the_old_ones_requests(void) {
    struct ranks r;
    if (!CHECK(ranks_start(&r, N, 64, rejoin, NULL) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 60, -1), 0);
    ranks_free(&r);
}

/* A child has no part in its parent's requests, and does them no harm. */
static int in_child(syp_request *q) {
    syp_request *other = (syp_request *)1;
    int done = 1;
    MUST(syp_test(q, &done) == SYP_EFORKED && !done && syp_wait(q) == SYP_EFORKED && syp_cancel(q) == SYP_EFORKED);
    MUST(syp_ibarrier(NULL, NULL, &other) == SYP_EFORKED && !other);
    return 0;
}

static int forked(struct ranks *r, int rank, void *arg) {
    struct line world;
    int done = 0, status = -1, exact;
    (void)arg;
    if (attach(r, rank, NULL) || make(&world, NULL, 0)) return 1;
    MUST(syp_test(world.q[0], &done) == SYP_OK);
    pid_t pid = fork();
    if (pid == 0) _exit(in_child(world.q[LINE - 1]));
    MUST(waitpid(pid, &status, 0) == pid && status == 0);
    float one = 1;
    MUST((done || syp_wait(world.q[0]) == SYP_OK) && world.x[0][0] == N);
    MUST(syp_iallreduce(&one, world.x[0], 1, SYP_FLOAT32, SYP_SUM, NULL, NULL, &world.q[0]) == SYP_OK);
    if (all_end(&world, N, SYP_OK, "", 1, &exact)) return 1;
    MUST(exact == LINE);
    return syp_finalize();
}

static void a_child_has_no_requests(void) {
    struct ranks r;
    if (!CHECK(ranks_start(&r, N, 64, forked, NULL) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 60, -1), 0);
    ranks_free(&r);
}

int main(void) {
    return check_main("requests end",
                      (struct check_test[]){{"killed with requests", killed_with_requests},
                                            {"stopped with requests", stopped_with_requests},
                                            {"aborts end requests", aborts_end_requests},
                                            {"destroying a group minds its requests", destroying_a_group_minds_its_requests},
                                            {"finalize completes the world's requests", finalize_completes_the_worlds_requests},
                                            {"a new world ends the old one's requests", a_new_world_ends_the_old_ones_requests},
                                            {"a child has no requests", a_child_has_no_requests},
                                            {0}});
}
