/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole attach of two ranks with a fault on the line between them: cut at every byte, pieced together, delayed, reset at every byte, every
 * byte altered, replayed, reflected.
 *
 * Whatever happens: both ranks come back soon, each with success or with a clear error; and a rank that came back with success has been told the truth: its
 * operations give the right result, or say what is wrong.
 */
#include "pool/base/conf.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/proxy.h"
#include "tests/support/ranks.h"
#include "tests/support/world_test.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define JOIN_NS (300 * (int64_t)NS_PER_MS)
#define WORKERS 8

struct rank_result {
    int rc, use; /* of the attach; of an all-reduce and a barrier after it */
    uint64_t took;
    char text[512];
};

struct run {
    struct proxy_plan plan;
    struct rank_result rank[2];
    size_t passed[2];
    int struck;
    char addr[2][64];
    char job[32];
    pthread_barrier_t attached;
};

/* 0, or the error of an operation; 1 = wrong result without an error. */
static int use_world(struct world *w) {
    float x[4] = {1, 2, 3, (float)w->who.rank}, y[4] = {0};
    struct comm *c = &w->coll.comm[0];
    int rc = coll_allreduce(c, x, y, 4, SYP_FLOAT32, SYP_SUM, 2 * (int64_t)NS_PER_S);
    if (rc == SYP_OK && (y[0] != 2 || y[3] != 1)) return 1;
    float *big = world_alloc(w, 4 * 20000);
    for (int i = 0; big && i < 20000; i++)
        big[i] = (float)(i + w->who.rank);
    if (rc == SYP_OK && big) rc = coll_allreduce(c, big, big, 20000, SYP_FLOAT32, SYP_SUM, 2 * (int64_t)NS_PER_S);
    if (rc == SYP_OK && big && (big[0] != 1 || big[19999] != 2 * 19999 + 1)) rc = 1;
    if (big) world_free(w, big);
    return rc;
}

static void *rank_main(void *arg, int rank) {
    struct run *r = arg;
    struct rank_result *res = &r->rank[rank];
    struct world *w = world_new();
    syp_config c = SYP_CONFIG_INIT;
    c.rank = rank;
    c.n_ranks = 2;
    c.local_mem_size = 4 << 20;
    c.meta_size = 1 << 20;
    c.addr = r->addr[rank];
    c.job = r->job;
    c.join_timeout_ns = JOIN_NS;
    uint64_t start = os->now();
    res->rc = world_attach(w, &c);
    res->took = os->now() - start;
    snprintf(res->text, sizeof res->text, "%s", res->rc ? syp_error_text() : "");
    pthread_barrier_wait(&r->attached);
    if (res->rc == SYP_OK) {
        /* alone, there is nobody to operate with */
        if (r->rank[!rank].rc == SYP_OK) res->use = use_world(w);
        if (res->use) snprintf(res->text, sizeof res->text, "%s", syp_error_text());
        pthread_barrier_wait(&r->attached);
        world_vanish(w);
    } else {
        pthread_barrier_wait(&r->attached);
    }
    free(w);
    return NULL;
}
static void *rank_0(void *arg) {
    return rank_main(arg, 0);
}
static void *rank_1(void *arg) {
    return rank_main(arg, 1);
}

/* A port of 127.0.0.1, held by a bound socket until rank 0 takes it over (SO_REUSEADDR). */
static int hold_port(char addr[64]) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    CHECK(bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && getsockname(fd, (struct sockaddr *)&a, &len) == 0);
    snprintf(addr, 64, "tcp://127.0.0.1:%u", (unsigned)ntohs(a.sin_port));
    return fd;
}

static void run_pair(struct run *r) {
    static _Atomic unsigned count;
    pthread_t t[2];
    int fd = hold_port(r->addr[0]);
    snprintf(r->job, sizeof r->job, "line-%d-%u", (int)getpid(), count++);
    struct proxy *p = proxy_start(r->addr[0], &r->plan, r->addr[1]);
    pthread_barrier_init(&r->attached, NULL, 2);
    pthread_create(&t[0], NULL, rank_0, r);
    pthread_create(&t[1], NULL, rank_1, r);
    pthread_join(t[0], NULL);
    pthread_join(t[1], NULL);
    pthread_barrier_destroy(&r->attached);
    r->struck = proxy_stop(p, r->passed);
    close(fd);
}

/* ------------------------------------------------------------------------------------------------ verdicts */

static int said(const struct run *r, const char *what) {
    fprintf(stderr, "fault %d, way %d, byte %zu, mask %02x: %s\n  rank 0: %d %d %s\n  rank 1: %d %d %s\n", (int)r->plan.fault,
            (int)r->plan.way, r->plan.at, r->plan.mask, what, r->rank[0].rc, r->rank[0].use, r->rank[0].text, r->rank[1].rc, r->rank[1].use,
            r->rank[1].text);
    return 0;
}

static int joined(const struct run *r) {
    return r->rank[0].rc == SYP_OK && r->rank[1].rc == SYP_OK && r->rank[0].use == SYP_OK && r->rank[1].use == SYP_OK;
}

static int is_join_error(int rc) {
    return rc == SYP_EJOIN || rc == SYP_EPEER || rc == SYP_ETIMEOUT;
}

/* Nothing hangs, nothing is silent, nobody computes something wrong. */
static int sound(const struct run *r) {
    for (int i = 0; i < 2; i++) {
        const struct rank_result *k = &r->rank[i];
        if (k->rc != SYP_OK && (!is_join_error(k->rc) || !k->text[0])) return said(r, "not a clear error");
        if (k->took > (uint64_t)JOIN_NS + 2 * NS_PER_S) return said(r, "too late");
        if (k->use == 1) return said(r, "a wrong result");
    }
    return 1;
}

struct series {
    struct proxy_plan plan;
    size_t most, step;
    _Atomic size_t next;
    _Atomic unsigned n_joined, n_failed, n_bad;
    int must_join;
    uint64_t seed;
};

static void *work(void *arg) {
    struct series *s = arg;
    for (size_t at; (at = s->next++ * s->step) < s->most;) {
        struct run r = {.plan = s->plan};
        r.plan.at = at;
        if (r.plan.fault == PROXY_ALTER && !r.plan.mask) {
            uint64_t x = s->seed + 77 * at + 1;
            r.plan.mask = (uint8_t)(1u << check_random(&x) % 8);
        }
        run_pair(&r);
        int good = sound(&r) && (!s->must_join || joined(&r) || said(&r, "did not join"));
        if (joined(&r))
            s->n_joined++;
        else
            s->n_failed++;
        if (!good) s->n_bad++;
    }
    return NULL;
}

static void run_series(struct series *s, const char *name) {
    pthread_t t[WORKERS];
    for (int i = 0; i < WORKERS; i++)
        pthread_create(&t[i], NULL, work, s);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(t[i], NULL);
    printf("  %s: %u joined, %u did not\n", name, s->n_joined, s->n_failed);
    CHECK_EQ(s->n_bad, 0);
}

/* Bytes of an undisturbed attach, each way. */
static const size_t *length(void) {
    static struct run r;
    if (!r.passed[0]) {
        run_pair(&r);
        CHECK(joined(&r) || said(&r, "an undisturbed attach"));
    }
    return r.passed;
}

static const enum proxy_way ways[] = {TO_ROOT, TO_MEMBER};
static const char *const way_names[] = {"to rank 0", "to the member"};

static void every_fault_at_every_byte(enum proxy_fault fault, int must_join, size_t quick_step) {
    for (int i = 0; i < 2; i++) {
        struct series s = {.plan = {.fault = fault, .way = ways[i]}, .most = length()[i], .must_join = must_join};
        s.step = check_count(quick_step, 1);
        s.seed = check_seed();
        run_series(&s, way_names[i]);
        CHECK(s.n_joined + s.n_failed > 20);
    }
}

static void a_cut_anywhere_does_not_matter(void) {
    every_fault_at_every_byte(PROXY_SPLIT, 1, 5);
}

static void pieces_of_any_size_do_not_matter(void) {
    static const enum proxy_fault faults[] = {PROXY_NONE, PROXY_DRIP, PROXY_COALESCE, PROXY_DELAY};
    for (size_t k = 0; k < sizeof faults / sizeof *faults; k++)
        for (int i = 0; i < 2; i++) {
            struct run r = {.plan = {.fault = faults[k], .way = ways[i], .delay_us = 20000}};
            run_pair(&r);
            CHECK(joined(&r) || said(&r, "did not join"));
        }
}

static void a_reset_anywhere_is_survived_or_said(void) {
    every_fault_at_every_byte(PROXY_RESET, 0, 7);
}

static void an_altered_byte_is_found_or_does_not_matter(void) {
    every_fault_at_every_byte(PROXY_ALTER, 0, 5);
}

/* A second hello with a rank's bytes, and one's own frames sent back. */
static void replayed_and_reflected_frames_are_refused(void) {
    static const enum proxy_fault faults[] = {PROXY_REPLAY, PROXY_REFLECT};
    for (size_t k = 0; k < 2; k++)
        for (int i = 0; i < 2; i++)
            for (size_t at = 28; at <= length()[i]; at += length()[i] / 6) {
                struct run r = {.plan = {.fault = faults[k], .way = ways[i], .at = at}};
                run_pair(&r);
                CHECK(sound(&r) && (r.struck || said(&r, "the fault did not strike")));
            }
}

static void nothing_is_left(void) {
    (void)length();
    int fds = count_open_fds(), threads = count_threads();
    struct series s = {.plan = {.fault = PROXY_RESET, .way = TO_ROOT}, .most = 64, .step = 4};
    run_series(&s, "resets");
    CHECK_EQ(count_open_fds(), fds);
    CHECK_EQ(count_threads_until(threads), threads);
}

int main(void) {
    conf_freeze();
    return check_main("hostile line", (struct check_test[]){
                                          {"a cut anywhere does not matter", a_cut_anywhere_does_not_matter},
                                          {"pieces of any size do not matter", pieces_of_any_size_do_not_matter},
                                          {"a reset anywhere is survived or said", a_reset_anywhere_is_survived_or_said},
                                          {"an altered byte is found or does not matter", an_altered_byte_is_found_or_does_not_matter},
                                          {"replayed and reflected frames are refused", replayed_and_reflected_frames_are_refused},
                                          {"nothing is left", nothing_is_left},
                                          {0}});
}
