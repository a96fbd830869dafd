/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several deaths at once, the death of the one who reports a death, and a death that a core dump delays.  All survivors agree on who is gone and go on.
 */
#include "allocator/sympool.h"
#include "pool/base/os.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"
#include "tests/support/strike.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define N 5

struct plan {
    int first, second;  /* who dies; second -1 = nobody else */
    const char *point;  /* the second dies there, by itself; NULL = the parent kills both */
    int dumps;          /* 1 = the first one aborts, with a core file */
    uint64_t pool;
    int64_t timeout_ns; /* of the operation in which the death is met; 0 = default */
};

struct told {
    atom32 ready;
    atom64 struck_at;
    atom32 code[N], dumping[N];
    uint64_t gone[N]; /* bit per rank */
};

static int sums_are_right(syp_comm *c, int rank, uint64_t gone) {
    for (int i = 0; i < 100; i++) {
        double x = (rank + 1) * (i + 1), want = 0;
        for (int k = 0; k < N; k++)
            if (!(gone >> k & 1)) want += (k + 1) * (i + 1);
        if (!CHECK(syp_allreduce(&x, &x, 1, SYP_FLOAT64, SYP_SUM, c, NULL) == SYP_OK) || !CHECK(x == want)) return 1;
    }
    return 0;
}

static int attach(struct ranks *r, int rank, const struct plan *p) {
    syp_config c = ranks_config(r, rank, p->pool ? p->pool : 4 << 20, 1 << 20);
    c.n_ranks = N;
    c.timeout_ns = 20 * (int64_t)NS_PER_S;
    return syp_init_config(&c);
}

/* The whole way of a survivor: the error, one view, a working group. */
static int survive(struct ranks *r, int rank, const struct plan *p) {
    struct told *t = r->shared;
    syp_call call = {sizeof call, p->timeout_ns};
    int rc = SYP_OK;
    while (rc == SYP_OK)
        rc = syp_barrier(SYP_COMM_WORLD, &call);
    syp_error e = {.size = sizeof e};
    syp_last_error(&e);
    store_relaxed(&t->code[rank], (uint32_t)-rc);
    store_relaxed(&t->dumping[rank], strstr(e.text, "dumping core") != NULL);
    CHECK(rc == SYP_EPEER || (p->timeout_ns && (rc == SYP_ETIMEOUT || rc == SYP_EABORTED)));
    CHECK(e.peer == p->first || e.peer == p->second);
    uint64_t flags = 0xff;
    CHECK_EQ(syp_comm_agree(SYP_COMM_WORLD, &flags, NULL), SYP_OK);
    int gone[N], n = syp_comm_failed(SYP_COMM_WORLD, gone, N);
    for (int i = 0; i < n; i++)
        t->gone[rank] |= 1ull << gone[i];
    syp_comm *left = NULL;
    if (!CHECK(syp_comm_shrink(SYP_COMM_WORLD, 0, NULL, &left) == SYP_OK)) return 1;
    uint64_t all = 1ull << p->first | (p->second >= 0 ? 1ull << p->second : 0);
    CHECK_EQ(syp_comm_size(left), N - __builtin_popcountll(all));
    if (sums_are_right(left, rank, all)) return 1;
    CHECK_EQ(syp_barrier(left, NULL), SYP_OK);
    return 0;
}

static int rank_main(struct ranks *r, int rank, void *arg) {
    const struct plan *p = arg;
    struct told *t = r->shared;
    if (!CHECK(attach(r, rank, p) == SYP_OK)) return 1;
    if (rank == p->second && p->point) strike_at(p->point, 1, SIGKILL, &t->struck_at);
    if (p->dumps && rank == p->first) {
        struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
        setrlimit(RLIMIT_CORE, &all);
        char *much = syp_malloc(p->pool / 2);
        if (!much) return 2;
        memset(much, 1, p->pool / 2);
    }
    for (int i = 0; i < 10; i++)
        CHECK_EQ(syp_barrier(SYP_COMM_WORLD, NULL), SYP_OK);
    add_relaxed(&t->ready, 1);
    if (p->dumps && rank == p->first) {
        signal(SIGABRT, SIG_DFL);
        abort();
    }
    return survive(r, rank, p);
}

static int dies(const struct plan *p, int rank) {
    return rank == p->first || rank == p->second;
}

static void one_case(const struct plan *p, struct told *out) {
    struct ranks r;
    if (!CHECK(ranks_start(&r, N, sizeof(struct told), rank_main, (void *)(uintptr_t)p) == 0)) return;
    struct told *t = r.shared;
    for (int i = 0; i < 20000 && load_relaxed(&t->ready) < N; i++)
        usleep(1000);
    if (!p->dumps) kill(r.pid[p->first], SIGKILL);
    if (p->second >= 0 && !p->point) kill(r.pid[p->second], SIGKILL);
    int bad = ranks_wait(&r, 60, p->first), killed = p->second >= 0 && WIFSIGNALED(r.status[p->second]);
    CHECK_EQ(bad - killed, 0);
    uint64_t all = 1ull << p->first | (p->second >= 0 ? 1ull << p->second : 0);
    int witness = 0;
    while (dies(p, witness))
        witness++;
    for (int k = 0; k < N; k++)
        if (!dies(p, k)) CHECK((t->gone[k] & ~all) == 0 && t->gone[k] == t->gone[witness]);
    *out = *t;
    ranks_free(&r);
}

static void two_die_together(void) {
    struct told t;
    for (int i = 0; i < (int)check_count(1, 20); i++)
        for (int a = 0; a < N; a++)
            for (int b = 0; b < a; b++)
                one_case(&(struct plan){.first = a, .second = b}, &t);
}

static void who_reports_a_death_dies(void) {
    static const char *const points[] = {"break", "broken", "agree.post", "agree.promise", "agree.accept", "agree.decided", "shrink"};
    struct told t;
    for (int i = 0; i < (int)check_count(7, 140); i++) {
        struct plan p = {.first = 3, .second = i / 7 % 3, .point = points[i % 7]};
        if (!strncmp(p.point, "agree.", 6) && strcmp(p.point, "agree.post")) p.second = 0; /* the one who leads */
        one_case(&p, &t);
        CHECK(load_relaxed(&t.struck_at) != 0);
    }
}

static void a_core_dump_delays_but_ends(void) {
    char dir[] = "/tmp/sympool-core-XXXXXX", back[4096], path[64];
    struct told t = {0};
    if (!mkdtemp(dir) || !getcwd(back, sizeof back) || chdir(dir)) return;
    struct plan p = {.first = 1, .second = -1, .dumps = 1, .pool = 512 << 20, .timeout_ns = 60 * (int64_t)NS_PER_MS};
    one_case(&p, &t);
    int said = 0, timeouts = 0;
    for (int k = 0; k < N; k++) {
        said += (int)load_relaxed(&t.dumping[k]);
        timeouts += -(int)load_relaxed(&t.code[k]) == SYP_ETIMEOUT;
    }
    printf("%d survivors ran into their deadline, %d saw the core dump\n", timeouts, said);
    CHECK(timeouts == 0 || said > 0);
    snprintf(path, sizeof path, "rm -rf %s", dir);
    CHECK_EQ(chdir(back), 0);
    CHECK_EQ(system(path), 0);
}

int main(void) {
    setenv("SYMPOOL_LOG", "off", 1);
    return check_main("deaths", (struct check_test[]){{"pairs", two_die_together},
                                                      {"reporter", who_reports_a_death_dies},
                                                      {"core dump", a_core_dump_delays_but_ends},
                                                      {0}});
}
