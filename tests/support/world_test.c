/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/world_test.h"
#include "pool/base/conf.h"
#include "pool/base/log.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/fake_os.h"
#include "tests/support/ranks.h"

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

struct job {
    struct world_setup setup;
    int (*fn)(struct world *w, void *arg);
    void *arg;
    char addr[64];
    char name[32];
};

struct world *world_new(void) {
    struct world *w = aligned_alloc(_Alignof(struct world), sizeof *w);
    if (!w) abort();
    return memset(w, 0, sizeof *w);
}

static int run_rank(const struct job *job, int rank, int n, const char *addr, int listen_fd, int process) {
    struct world *w = world_new();
    syp_config c = SYP_CONFIG_INIT;
    w->process = process;
    w->backend = job->setup.backend;
    c.rank = rank;
    c.n_ranks = n;
    c.local_mem_size = (job->setup.local_mem_size ? job->setup.local_mem_size : 64 << 20) + job->setup.uneven * (uint64_t)rank;
    c.meta_size = job->setup.no_meta ? 0 : job->setup.meta_size ? job->setup.meta_size : 16 << 20;
    c.addr = addr;
    c.job = job->name;
    c.timeout_ns = job->setup.timeout_ns ? job->setup.timeout_ns : 20 * (int64_t)NS_PER_S;
    c.join_timeout_ns = 60 * (int64_t)NS_PER_S;
    c.listen_fd = listen_fd;
    int rc = world_attach(w, &c);
    if (rc != SYP_OK) {
        fprintf(stderr, "rank %d: attach: %s\n", rank, syp_error_text());
        free(w);
        return 1;
    }
    int failed = job->fn(w, job->arg);
    if (w->steps) {
        rc = world_detach(w);
        if (rc != SYP_OK && !failed) {
            fprintf(stderr, "rank %d: detach: %s\n", rank, syp_error_text());
            failed = 2;
        }
    }
    free(w);
    return failed;
}

static int thread_rank(int rank, int n, void *arg) {
    const struct job *job = arg;
    return run_rank(job, rank, n, NULL, -1, 0);
}

static int process_rank(struct ranks *r, int rank, void *arg) {
    const struct job *job = arg;
    return run_rank(job, rank, r->n, r->addr, rank == 0 ? r->listen_fd : -1, 1);
}

static void job_init(struct job *job, const struct world_setup *setup, int (*fn)(struct world *w, void *arg), void *arg) {
    static unsigned count;
    *job = (struct job){.fn = fn, .arg = arg};
    if (setup) job->setup = *setup;
    snprintf(job->name, sizeof job->name, "test-%d-%u", (int)getpid(), count++);
}

int worlds_as_threads(int n, const struct world_setup *setup, int (*fn)(struct world *w, void *arg), void *arg) {
    struct job job;
    job_init(&job, setup, fn, arg);
    common_os_on();
    conf_freeze();
    int failed = ranks_as_threads(n, thread_rank, &job);
    common_os_off();
    return failed;
}

int worlds_as_processes(int n, const struct world_setup *setup, int (*fn)(struct world *w, void *arg), void *arg) {
    struct job job;
    struct ranks r;
    job_init(&job, setup, fn, arg);
    if (ranks_start(&r, n, 4096, process_rank, &job) != 0) return n;
    int failed = ranks_wait(&r, job.setup.seconds ? job.setup.seconds : 120, -1);
    ranks_free(&r);
    return failed;
}

/* -------------------------------------------------------------------------------------------------- delays */

static uint64_t delay_seed;
static unsigned delay_rarity;
static _Atomic unsigned delay_threads;
static _Thread_local uint64_t delay_state;

static void delay(const char *point) {
    (void)point;
    if (!delay_state) delay_state = delay_seed ^ (0x9e3779b97f4a7c15u * (uint64_t)(1 + delay_threads++) + (uint64_t)getpid());
    uint64_t x = check_random(&delay_state);
    if (x % delay_rarity) return;
    switch (x >> 40 & 3) {
    case 0:
        for (volatile unsigned i = 0; i < (x >> 20 & 1023); i++)
            ;
        break;
    case 1:
        sched_yield();
        break;
    default:
        usleep((useconds_t)(x >> 20 & 127) + 1);
    }
}

void delays_on(uint64_t seed, unsigned rarity) {
    delay_seed = seed;
    delay_rarity = rarity;
    test_point_hook = delay;
}

void delays_off(void) {
    test_point_hook = NULL;
}

void *world_alloc(struct world *w, size_t len) {
    struct heap_want want = {.len = len, .align = 64};
    return heap_alloc(&w->pool->heap, &want);
}

void world_free(struct world *w, void *p) {
    heap_free(&w->pool->heap, p);
}
