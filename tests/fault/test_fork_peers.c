/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forks among peers: a child is not the rank (its life and death are nobody's business, and it does not keep a dead rank alive), and forks go on
 * while peers die.
 */
#include "allocator/sympool.h"
#include "pool/base/atomic.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define N 4

struct told {
    atom32 children; /* that were started and ended as they should */
    atom32 joined;
    atom32 bystander; /* pid of a child that outlives its rank */
};

static int join(const struct ranks *r, int rank) {
    syp_config c = ranks_config(r, rank, 16 << 20, 1 << 20);
    c.timeout_ns = 20000000000;
    return syp_init_config(&c);
}

static int report(const char *what, int rank) {
    fprintf(stderr, "rank %d: %s: %s\n", rank, what, syp_error_text());
    return 1;
}

/* 1 = the child did what it should. */
static int child_is_well(int kind) {
    int status = -1;
    pid_t pid = kind ? _Fork() : fork();
    if (pid == 0) {
        char *p = syp_malloc(10000);
        if (p) memset(p, 1, 10000);
        syp_free(p);
        if (kind == 1 && p) kill(getpid(), SIGKILL); /* even so */
        _exit(p && syp_barrier(NULL, NULL) == SYP_EFORKED ? 0 : 1);
    }
    if (waitpid(pid, &status, 0) != pid) return 0;
    return kind ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Children come and go, by themselves or killed: the ranks' barriers do not notice. */
static int children_come_and_go(struct ranks *r, int rank, void *arg) {
    (void)arg;
    int *mine, n = (int)check_count(20, 300);
    if (join(r, rank) != SYP_OK) return report("join", rank);
    mine = syp_symm_malloc(sizeof *mine);
    if (!mine) return report("symm_malloc", rank);
    for (int i = 0; i < n; i++) {
        *mine = i;
        if (!child_is_well(i % 2)) return report("child", rank);
        if (syp_barrier(NULL, NULL) != SYP_OK) return report("barrier", rank);
        const int *his = syp_peer_ptr(mine, (rank + 1) % r->n);
        if (*his != i) return report("a peer's word", rank);
        if (syp_barrier(NULL, NULL) != SYP_OK) return report("barrier", rank);
    }
    return syp_finalize() == SYP_OK ? 0 : report("finalize", rank);
}

static void children_are_not_ranks(void) {
    struct ranks r;
    if (!CHECK(ranks_start(&r, N, sizeof(struct told), children_come_and_go, NULL) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 60, -1), 0);
    ranks_free(&r);
}

/* Rank 1 leaves a child behind that has everything mapped, and dies: its peers learn it all the same, soon. */
static int dies_before_its_child(struct ranks *r, int rank, void *arg) {
    struct told *t = r->shared;
    struct timespec a, b;
    int rc;
    (void)arg;
    if (join(r, rank) != SYP_OK) return report("join", rank);
    if (rank == 1) {
        pid_t pid = fork();
        if (pid == 0) {
            sleep(30);
            _exit(0);
        }
        store_release(&t->bystander, (uint32_t)pid);
    }
    if (syp_barrier(NULL, NULL) != SYP_OK) return report("barrier", rank);
    if (rank == 1) kill(getpid(), SIGKILL);
    clock_gettime(CLOCK_MONOTONIC, &a);
    while ((rc = syp_barrier(NULL, NULL)) == SYP_OK) {
    }
    clock_gettime(CLOCK_MONOTONIC, &b);
    syp_error e = {.size = sizeof e};
    syp_last_error(&e);
    if (rc != SYP_EPEER || e.peer != 1) return report("not told that rank 1 died", rank);
    return b.tv_sec - a.tv_sec <= 2 ? 0 : report("told late", rank);
}

static void a_child_does_not_keep_its_rank_alive(void) {
    struct ranks r;
    if (!CHECK(ranks_start(&r, N, sizeof(struct told), dies_before_its_child, NULL) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 60, 1), 0);
    pid_t child = (pid_t)load_acquire(&((struct told *)r.shared)->bystander);
    CHECK(child > 0 && kill(child, SIGKILL) == 0); /* it was there all the time */
    ranks_free(&r);
}

/* Every survivor forks all the time; its children end well, before, while and after a peer dies. */
static int forks_while_peers_die(struct ranks *r, int rank, void *arg) {
    struct told *t = r->shared;
    uint64_t seed = *(uint64_t *)arg + (uint64_t)rank;
    float x[64] = {0};
    int rc = SYP_OK;
    if (join(r, rank) != SYP_OK) return report("join", rank);
    add_relaxed(&t->joined, 1u);
    int last = 5 + (int)(check_random(&seed) % 20);
    for (int i = 0; rc == SYP_OK; i++) {
        if (rank == N - 1 && i == last) kill(getpid(), SIGKILL);
        if (!child_is_well((int)(check_random(&seed) % 2))) return report("child", rank);
        add_relaxed(&t->children, 1u);
        rc = syp_allreduce(x, x, 64, SYP_FLOAT32, SYP_SUM, NULL, NULL);
    }
    if (rc != SYP_EPEER) return report("not told of the death", rank);
    if (!child_is_well(0) || !child_is_well(1)) return report("child after the death", rank);
    return syp_finalize() == SYP_EPEER ? 0 : report("finalize", rank);
}

static void forks_while_peers_are_dying(void) {
    uint64_t seed = check_seed();
    for (int i = 0; i < (int)check_count(5, 100); i++, seed += 1000) {
        struct ranks r;
        if (!CHECK(ranks_start(&r, N, sizeof(struct told), forks_while_peers_die, &seed) == 0)) return;
        CHECK_EQ(ranks_wait(&r, 60, N - 1), 0);
        CHECK_EQ(load_relaxed(&((struct told *)r.shared)->joined), N);
        CHECK(load_relaxed(&((struct told *)r.shared)->children) > N);
        ranks_free(&r);
    }
}

int main(void) {
    return check_main("fork_peers", (struct check_test[]){{"children_are_not_ranks", children_are_not_ranks},
                                                          {"a_child_does_not_keep_its_rank_alive", a_child_does_not_keep_its_rank_alive},
                                                          {"forks_while_peers_are_dying", forks_while_peers_are_dying},
                                                          {0}});
}
