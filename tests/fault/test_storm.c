/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A storm: four ranks work through the public API while one at random is killed every 50 to 200 ms.  Survivors shrink and go on, a replacement comes, they
 * rejoin, and so on.  No wrong bit, no hang, and at the end nothing is left of descriptors, mappings, threads, or names in /dev/shm.
 */
#include "allocator/sympool.h"
#include "pool/base/atomic.h"
#include "pool/base/os.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define N 4
#define COUNT 30000

struct storm {
    atom32 stop;       /* the parent: no more kills, leave together */
    atom64 operations; /* that succeeded, on all ranks */
    atom64 rejoins, shrinks, wrong;
    atom64 longest_ns; /* from an error to a whole world again */
};

struct rank {
    struct storm *s;
    int me;
    uint64_t turn; /* the same on all: agreed after every join */
    float *in_pool, *outside;
};

#define SAY(...) fprintf(stderr, __VA_ARGS__)

/* One all-reduce whose inputs change with the turn; SYP_OK, the error, or 1 for a wrong bit. */
static int sum(struct rank *r, syp_comm *c, const int *ranks, int n, float *x, size_t count) {
    float want = 0;
    for (int m = 0; m < n; m++)
        want += (float)((ranks[m] + 1) * (int)(r->turn % 50 + 1));
    for (size_t k = 0; k < count; k++)
        x[k] = (float)((r->me + 1) * (int)(r->turn % 50 + 1));
    int rc = syp_allreduce(x, x, count, SYP_FLOAT32, SYP_SUM, c, NULL);
    for (size_t k = 0; rc == SYP_OK && k < count; k++)
        if (x[k] != want) {
            SAY("rank %d turn %llu: element %zu is %g, expected %g\n", r->me, (unsigned long long)r->turn, k, (double)x[k], (double)want);
            add_relaxed(&r->s->wrong, 1);
            return 1;
        }
    if (rc == SYP_OK) add_relaxed(&r->s->operations, 1);
    return rc;
}

/* Everything once. */
static int turn(struct rank *r) {
    static const int all[N] = {0, 1, 2, 3};
    int rc = sum(r, SYP_COMM_WORLD, all, N, r->in_pool, COUNT);
    if (rc == SYP_OK) rc = sum(r, SYP_COMM_WORLD, all, N, r->outside, COUNT);
    if (rc == SYP_OK) rc = sum(r, SYP_COMM_WORLD, all, N, r->in_pool, 16);
    if (rc == SYP_OK) rc = syp_barrier(SYP_COMM_WORLD, NULL);
    if (rc == SYP_OK && r->turn % 4 == 0) { /* agreed, so that a death cannot divide the ranks over it */
        syp_error e = {.size = sizeof e};
        if (!syp_symm_malloc(64 + r->turn % 7 * 64)) {
            syp_last_error(&e);
            rc = e.code == SYP_ENOMEM ? SYP_OK : e.code; /* the region fills up in the course of the storm */
        }
    }
    r->turn++;
    return rc;
}

/* The turn of a replacement is the others'. */
static int same_turn(struct rank *r) {
    int64_t mine = (int64_t)r->turn;
    int rc = syp_allreduce(&mine, &mine, 1, SYP_INT64, SYP_MAX, SYP_COMM_WORLD, NULL);
    r->turn = (uint64_t)mine;
    return rc;
}

static int is_failure(int rc) {
    return rc == SYP_EPEER || rc == SYP_ETIMEOUT || rc == SYP_EABORTED;
}

/* Survivors go on among themselves for a moment. */
static int without_the_dead(struct rank *r) {
    syp_comm *left = NULL;
    int ranks[N], gone[N], n = 0;
    syp_call within = {sizeof within, 2 * (int64_t)NS_PER_S};
    int rc = syp_comm_shrink(SYP_COMM_WORLD, 0, &within, &left);
    if (rc != SYP_OK) return rc;
    add_relaxed(&r->s->shrinks, 1);
    int n_gone = syp_comm_failed(SYP_COMM_WORLD, gone, N);
    for (int k = 0; k < N; k++) {
        int dead = 0;
        for (int i = 0; i < n_gone; i++)
            dead |= gone[i] == k;
        if (!dead) ranks[n++] = k;
    }
    for (int i = 0; i < 5 && rc == SYP_OK; i++)
        rc = sum(r, left, ranks, n, r->in_pool, COUNT / 4);
    (void)syp_comm_destroy(left);
    return rc;
}

static void raise_to(atom64 *peak, uint64_t v) {
    uint64_t seen = load_relaxed(peak);
    while (v > seen && !atomic_compare_exchange_weak(peak, &seen, v))
        ;
}

/* Until the world is whole again.  0, or 1 = something that must not happen. */
static int recover(struct rank *r) {
    uint64_t start = os->now();
    int rc = without_the_dead(r);
    if (rc == 1) return 1;
    for (;;) {
        syp_call within = {sizeof within, 5 * (int64_t)NS_PER_S};
        rc = syp_rejoin(0, &within);
        if (rc == SYP_OK) rc = same_turn(r);
        if (rc == SYP_OK) break;
        if (!is_failure(rc) && rc != SYP_EJOIN && rc != SYP_EBUSY) {
            SAY("rank %d: rejoin gave %s: %s\n", r->me, syp_strerror(rc), syp_error_text());
            return 1;
        }
        if (os->now() - start > 60 * NS_PER_S) {
            SAY("rank %d: not whole again after 60 s: %s\n", r->me, syp_error_text());
            return 1;
        }
    }
    add_relaxed(&r->s->rejoins, 1);
    raise_to(&r->s->longest_ns, os->now() - start);
    return 0;
}

static int join(struct ranks *r, int rank) {
    uint64_t start = os->now();
    syp_config c = ranks_config(r, rank, 8 << 20, 1 << 20);
    c.n_ranks = N;
    c.join_timeout_ns = 5 * (int64_t)NS_PER_S;
    c.timeout_ns = 20 * (int64_t)NS_PER_S;
    int rc;
    while ((rc = syp_init_config(&c)) != SYP_OK)
        if (os->now() - start > 60 * NS_PER_S) return rc;
    return SYP_OK;
}

static int rank_main(struct ranks *ranks, int rank, void *arg) {
    struct rank r = {.s = ranks->shared, .me = rank};
    (void)arg;
    if (join(ranks, rank) != SYP_OK) {
        SAY("rank %d: %s\n", rank, syp_error_text());
        return 2;
    }
    r.in_pool = syp_malloc(COUNT * sizeof(float));
    r.outside = malloc(COUNT * sizeof(float));
    int fds = -1, maps = -1, threads = -1;
    int rc = same_turn(&r);
    for (;;) {
        if (rc == SYP_OK) rc = turn(&r);
        int32_t stop = (int32_t)load_relaxed(&r.s->stop);
        if (rc == SYP_OK) rc = syp_allreduce(&stop, &stop, 1, SYP_INT32, SYP_MIN, SYP_COMM_WORLD, NULL);
        if (rc == SYP_OK && stop) break;
        if (rc == SYP_OK) continue;
        if (!is_failure(rc)) {
            SAY("rank %d turn %llu: %s: %s\n", rank, (unsigned long long)r.turn, syp_strerror(rc), syp_error_text());
            return 3;
        }
        if (recover(&r)) return 4;
        rc = SYP_OK;
        if (fds < 0) { /* what one recovery leaves open, later ones must not add to */
            fds = count_open_fds();
            maps = count_mappings();
            threads = count_threads();
        }
    }
    if (fds >= 0 && (count_open_fds() > fds || count_threads() > threads || count_mappings() > maps + 40)) {
        SAY("rank %d: descriptors %d -> %d, mappings %d -> %d, threads %d -> %d\n", rank, fds, count_open_fds(), maps, count_mappings(), threads,
            count_threads());
        return 5;
    }
    if (syp_check() != SYP_OK || syp_finalize() != SYP_OK) {
        SAY("rank %d: %s\n", rank, syp_error_text());
        return 6;
    }
    return 0;
}

static int abstract_sockets(void) {
    FILE *f = fopen("/proc/net/unix", "r");
    char line[256];
    int n = 0;
    while (f && fgets(line, sizeof line, f))
        n += strstr(line, "@sympool") != NULL;
    if (f) fclose(f);
    return n;
}

static void nothing_breaks_in_the_storm(void) {
    uint64_t seed = check_seed(), seconds = check_count(15, 600);
    if (getenv("STORM_SECONDS")) seconds = strtoull(getenv("STORM_SECONDS"), NULL, 10);
    int shm = count_shm_entries(), fds = count_open_fds(), sockets = abstract_sockets(), kills = 0, ended = 0;
    struct ranks r;
    if (!CHECK(ranks_start(&r, N, sizeof(struct storm), rank_main, NULL) == 0)) return;
    struct storm *s = r.shared;
    uint64_t end = os->now() + seconds * NS_PER_S;
    usleep(200000);
    int burst = 0; /* another one, while the ranks are finding together again */
    while (os->now() < end && !ended) {
        usleep((useconds_t)(burst ? check_random(&seed) % 12000 : 50000 + check_random(&seed) % 150000));
        burst = check_random(&seed) % 3 == 0;
        for (int k = 0; k < N; k++) { /* only victims may end */
            int status;
            if (r.pid[k] > 0 && waitpid(r.pid[k], &status, WNOHANG) > 0) {
                fprintf(stderr, "rank %d ended by itself, status 0x%x\n", k, (unsigned)status);
                r.pid[k] = 0;
                ended = 1;
            }
        }
        int victim = (int)(check_random(&seed) % N);
        kill(r.pid[victim], SIGKILL);
        CHECK_EQ(ranks_replace(&r, victim, rank_main, NULL), 0);
        kills++;
    }
    store_relaxed(&s->stop, 1);
    CHECK_EQ(ended, 0);
    CHECK_EQ(ranks_wait(&r, 120, -1), 0);
    printf("%d kills in %llu s: %llu operations, %llu shrinks, %llu rejoins (counted per rank), longest way back %.2f s\n", kills,
           (unsigned long long)seconds, (unsigned long long)load_relaxed(&s->operations), (unsigned long long)load_relaxed(&s->shrinks),
           (unsigned long long)load_relaxed(&s->rejoins), (double)load_relaxed(&s->longest_ns) / 1e9);
    CHECK_EQ(load_relaxed(&s->wrong), 0);
    CHECK(load_relaxed(&s->rejoins) > 0 && load_relaxed(&s->shrinks) > 0);
    ranks_free(&r);
    CHECK_EQ(count_shm_entries(), shm);
    CHECK_EQ(count_open_fds(), fds);
    for (int i = 0; i < 100 && abstract_sockets() > sockets; i++) /* other jobs of this machine come and go */
        usleep(50000);
    CHECK(abstract_sockets() <= sockets);
}

int main(void) {
    setenv("SYMPOOL_LOG", "off", 1);
    return check_main("storm", (struct check_test[]){{"storm", nothing_breaks_in_the_storm}, {0}});
}
