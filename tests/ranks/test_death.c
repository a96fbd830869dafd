/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Death and straggling: a rank is killed (or stopped) at a named point of init, barrier, all-reduce, finalize; every survivor gets SYP_EPEER naming
 * it, quickly; a stopped rank is a timeout that names it and never a death.
 */
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"
#include "tests/support/strike.h"
#include "tests/support/world_test.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define N 4
#define VICTIM 2

/* What a rank leaves for the parent. */
struct told {
    atom64 killed_at;     /* ns, by the victim just before the end */
    atom64 seen_at[N];    /* ns, survivors: when the call returned */
    atom32 code[N];       /* -status */
    atom32 blamed[N];     /* rank + 1 */
    atom64 sequence[N];
    char text[N][300];
};

struct plan {
    const char *point;  /* test point at which the victim acts; NULL = between two operations */
    int after;          /* act at the n-th passage */
    int signal;         /* SIGKILL or SIGSTOP */
    int what;           /* 0 barriers, 1 all-reduces in the pool, 2 all-reduces outside, 3 finalize, 4 init */
    int64_t timeout_ns;
};

static int report(struct told *t, int rank, int rc) {
    store_relaxed(&t->seen_at[rank], os->now());
    store_relaxed(&t->code[rank], (uint32_t)-rc);
    store_relaxed(&t->blamed[rank], (uint32_t)(err_record()->peer + 1));
    store_relaxed(&t->sequence[rank], err_record()->sequence);
    snprintf(t->text[rank], sizeof t->text[rank], "%s", syp_error_text());
    return 0;
}

/* Operations until one fails; the data of every one that succeeded is exact. */
static int work(struct world *w, const struct plan *p, struct told *t) {
    struct comm *c = &w->coll.comm[0];
    size_t count = 20000;
    float *x = p->what == 1 ? world_alloc(w, count * 4) : malloc(count * 4);
    for (int i = 0; i < 100000; i++) {
        int rc;
        if (w->who.rank == 0 && p->point && !strcmp(p->point, "wait.sleep")) os->sleep(3 * NS_PER_MS); /* the others must sleep */
        if (p->what == 0) {
            rc = coll_barrier(c, p->timeout_ns);
        } else {
            for (size_t k = 0; k < count; k++)
                x[k] = (float)(w->who.rank + i % 100);
            rc = coll_allreduce(c, x, x, count, SYP_FLOAT32, SYP_SUM, p->timeout_ns);
            for (size_t k = 0; rc == SYP_OK && k < count; k++)
                if (x[k] != (float)(N * (i % 100) + N * (N - 1) / 2)) return 3;
        }
        if (rc != SYP_OK) return report(t, w->who.rank, rc);
        if (!p->point && w->who.rank == VICTIM && i == p->after) {
            store_release(&t->killed_at, os->now());
            kill(getpid(), p->signal);
        }
    }
    return 4;
}

static int rank_main(struct ranks *r, int rank, void *arg) {
    const struct plan *p = arg;
    struct told *t = r->shared;
    struct world *w = world_new();
    w->process = 1;
    syp_config c = ranks_config(r, rank, 16 << 20, 1 << 20);
    if (rank == VICTIM && p->point) strike_at(p->point, p->after, p->signal, &t->killed_at);
    int rc = world_attach(w, &c);
    if (rc != SYP_OK) return p->what == 4 ? report(t, rank, rc) : 1;
    if (p->what < 3) {
        if (work(w, p, t)) return 2;
        world_vanish(w);
        return 0;
    }
    return report(t, rank, world_detach(w));
}

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t delay_of[4096];
static int n_delays;

/* One kill; every survivor must have seen it. */
static void one_death(const struct plan *p) {
    struct ranks r;
    if (!CHECK(ranks_start(&r, N, sizeof(struct told), rank_main, (void *)(uintptr_t)p) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 60, VICTIM), 0);
    const struct told *t = r.shared;
    uint64_t killed = load_relaxed((atom64 *)&t->killed_at);
    CHECK(killed != 0); /* the point was reached */
    CHECK(WIFSIGNALED(r.status[VICTIM]));
    for (int k = 0; k < N; k++) {
        if (k == VICTIM) continue;
        CHECK_EQ(-(int)load_relaxed((atom32 *)&t->code[k]), SYP_EPEER);
        CHECK_EQ((int)load_relaxed((atom32 *)&t->blamed[k]) - 1, VICTIM);
        if (p->what < 4) CHECK(load_relaxed((atom64 *)&t->sequence[k]) > 0);
        CHECK_HAS(t->text[k], "rank 2");
        uint64_t seen = load_relaxed((atom64 *)&t->seen_at[k]);
        if (seen > killed + 15 * NS_PER_MS)
            printf("rank %d took %.2f ms at %s of case %d: %s\n", k, (double)(seen - killed) / 1e6, p->point ? p->point : "no point",
                   p->what, t->text[k]);
        if (n_delays < 4096) delay_of[n_delays++] = seen > killed ? seen - killed : 0;
    }
    ranks_free(&r);
}

static void kills(void) {
    static const struct plan plans[] = {{"publish", 5, SIGKILL, 0, 0},
                                        {"published", 9, SIGKILL, 0, 0},
                                        {NULL, 20, SIGKILL, 0, 0},
                                        {"wait.sleep", 1, SIGKILL, 0, 0},
                                        {"rounds.share", 3, SIGKILL, 1, 0},
                                        {"publish", 6, SIGKILL, 1, 0},
                                        {"published", 7, SIGKILL, 1, 0},
                                        {"rounds.share", 4, SIGKILL, 2, 0},
                                        {"publish", 8, SIGKILL, 2, 0},
                                        {"attach.map", 1, SIGKILL, 4, 0},
                                        {"publish", 1, SIGKILL, 3, 0}};
    int n = (int)(sizeof plans / sizeof plans[0]), shm = count_shm_entries(), fds = count_open_fds();
    int rounds = (int)check_count(3, 19); /* 19 x 11 = 209 kills */
    n_delays = 0;
    for (int i = 0; i < rounds * n; i++)
        one_death(&plans[i % n]);
    qsort(delay_of, (size_t)n_delays, sizeof delay_of[0], by_size);
    uint64_t p50 = delay_of[n_delays / 2], p99 = delay_of[n_delays * 99 / 100], worst = delay_of[n_delays - 1];
    printf("%d kills, %d survivors: detection p50 %.2f ms, p99 %.2f ms, worst %.2f ms\n", rounds * n, n_delays, (double)p50 / 1e6,
           (double)p99 / 1e6, (double)worst / 1e6);
    CHECK(p99 <= 20 * NS_PER_MS || CHECK_SLOW_BUILD);
    CHECK_EQ(count_shm_entries(), shm);
    CHECK_EQ(count_open_fds(), fds);
}

/* -------------------------------------------------------------------------------------------------- stopped */

static void stops(void) {
    static const struct plan plans[] = {{"publish", 5, SIGSTOP, 0, 300 * (int64_t)NS_PER_MS},
                                        {"rounds.share", 3, SIGSTOP, 1, 300 * (int64_t)NS_PER_MS}};
    for (int i = 0; i < 2; i++) {
        struct ranks r;
        if (!CHECK(ranks_start(&r, N, sizeof(struct told), rank_main, (void *)(uintptr_t)&plans[i]) == 0)) return;
        struct told *t = r.shared;
        for (int k = 0; k < 400; k++) { /* until all survivors have given up */
            int seen = 0;
            for (int s = 0; s < N; s++)
                seen += load_acquire(&t->seen_at[s]) != 0;
            if (seen == N - 1) break;
            usleep(20000);
        }
        for (int k = 0; k < N; k++) {
            if (k == VICTIM) continue;
            CHECK_EQ(-(int)load_relaxed(&t->code[k]), SYP_ETIMEOUT);
            CHECK_EQ((int)load_relaxed(&t->blamed[k]) - 1, VICTIM);
            CHECK_HAS(t->text[k], "rank 2 (pid");
        }
        int said_stopped = 0;
        for (int k = 0; k < N; k++)
            said_stopped += strstr(t->text[k], "stopped") != NULL;
        CHECK(said_stopped >= 1);
        kill(r.pid[VICTIM], SIGCONT); /* it wakes up and is told that it was too late, or that the others are gone */
        CHECK_EQ(ranks_wait(&r, 60, -1), 0);
        int code = -(int)load_relaxed(&t->code[VICTIM]);
        CHECK(code == SYP_EABORTED || code == SYP_EPEER);
        ranks_free(&r);
    }
}

int main(void) {
    return check_main("death", (struct check_test[]){{"kills", kills}, {"stops", stops}, {0}});
}
