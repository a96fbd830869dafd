/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker of the heap's measurement: runs the loops with one allocator, which is ours through the C API, or whatever provides malloc in
 * this process.  It has a second, idle thread, since the programs this library is for have, and a malloc may take
 * shortcuts in a process of one thread.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "allocator/sympool.h"
#include "tools/bench/bench.h"
#include "tools/bench/heap.h"

#define PAGE 4096u

/* Through volatile pointers, so that the compiler cannot see that a block is not used. */
static void *(*volatile do_alloc)(size_t) = malloc;
static void (*volatile do_release)(void *) = free;
static int ours;

static double page_faults(void) {
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u)) die("getrusage failed");
    return (double)(u.ru_minflt + u.ru_majflt);
}

static cpu_set_t allowed; /* at the start */

/* The calling thread to the n-th processor, modulo their number: all workers run on the same one, in turns, or one that a
 * neighbour slows down would be some allocator's bad luck. */
static void pin(int n) {
    n %= CPU_COUNT(&allowed);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        cpu_set_t one;
        if (!CPU_ISSET(cpu, &allowed) || n-- > 0) continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        if (sched_setaffinity(0, sizeof one, &one)) die("processor %zu cannot be chosen", cpu);
        return;
    }
}

static void *get(uint64_t bytes) {
    void *p = do_alloc(bytes);
    if (!p) die("a block of %llu bytes: %s", (unsigned long long)bytes, ours ? syp_error_text() : "none");
    return p;
}

static void touch(volatile char *p, uint64_t bytes) {
    for (uint64_t off = 0; off < bytes; off += PAGE)
        p[off] = 1;
}

static void *sleep_for_ever(void *arg) {
    for (;;)
        pause();
    return arg;
}

static void open_allocator(const struct heap_ask *q, struct heap_answer *a) {
    Dl_info info;
    pthread_t id;
    ours = q->ours;
    if (sched_getaffinity(0, sizeof allowed, &allowed)) die("the processors of this process are unknown");
    if (ours) {
        must(syp_init_env(), "syp_init");
        do_alloc = syp_malloc;
        do_release = syp_free;
    }
    void *function = dlsym(RTLD_DEFAULT, ours ? "syp_malloc" : "malloc");
    if (function && dladdr(function, &info)) snprintf(a->provider, sizeof a->provider, "%s", info.dli_fname);
    if (pthread_create(&id, NULL, sleep_for_ever, NULL)) die("no second thread");
    pin(0);
}

static void pairs(const struct heap_ask *q, struct heap_answer *a) {
    double faults = 0;
    int64_t start = 0;
    for (uint64_t i = 0; i <= q->count + q->count / 8; i++) {
        if (i == q->count / 8) { /* warm by now */
            faults = page_faults();
            start = now_ns();
        }
        volatile char *p = get(q->bytes);
        if (q->touch) touch(p, q->bytes);
        do_release((void *)p);
    }
    a->ns = (double)(now_ns() - start) / (double)(q->count + 1);
    a->faults = (page_faults() - faults) / (double)(q->count + 1);
}

static void touching(const struct heap_ask *q, struct heap_answer *a) {
    char *p = get(q->bytes);
    touch(p, q->bytes);
    int64_t start = now_ns();
    for (uint64_t i = 0; i < q->count; i++)
        touch(p, q->bytes);
    a->ns = (double)(now_ns() - start) / (double)q->count;
    do_release(p);
}

static void mutex(const struct heap_ask *q, struct heap_answer *a) {
    pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
    int64_t start = now_ns();
    for (uint64_t i = 0; i < q->count; i++) {
        pthread_mutex_lock(&m);
        pthread_mutex_unlock(&m);
    }
    a->ns = (double)(now_ns() - start) / (double)q->count;
}

/* ------------------------------------------------------------------------------------- from thread to thread */

#define RING 64u
static struct {
    _Alignas(128) _Atomic uint64_t put; /* release: the producer, acquire: the consumer */
    _Alignas(128) _Atomic uint64_t got; /* and the other way round */
    void *slot[RING];
} ring;

static void wait_while(_Atomic uint64_t *word, uint64_t is) {
    for (int i = 0; atomic_load_explicit(word, memory_order_acquire) == is; i++)
        if (i >= 100) sched_yield();
}

static void *consumer(void *arg) {
    uint64_t n = *(uint64_t *)arg;
    pin(1);
    for (uint64_t i = 0; i < n; i++) {
        wait_while(&ring.put, i);
        do_release(ring.slot[i % RING]);
        atomic_store_explicit(&ring.got, i + 1, memory_order_release);
    }
    return NULL;
}

static void cross(const struct heap_ask *q, struct heap_answer *a) {
    pthread_t id;
    uint64_t n = q->count;
    atomic_store(&ring.put, 0);
    atomic_store(&ring.got, 0);
    if (pthread_create(&id, NULL, consumer, &n)) die("no thread to free blocks");
    double faults = page_faults();
    int64_t start = now_ns();
    for (uint64_t i = 0; i < n; i++) {
        volatile char *p = get(q->bytes);
        *p = 1;
        if (i >= RING) wait_while(&ring.got, i - RING);
        ring.slot[i % RING] = (void *)p;
        atomic_store_explicit(&ring.put, i + 1, memory_order_release);
    }
    pthread_join(id, NULL);
    a->ns = (double)(now_ns() - start) / (double)n;
    a->faults = (page_faults() - faults) / (double)n;
}

/* ---------------------------------------------------------------------------------------------------- traces */

/* A line "NAME:  123 kB" of /proc/self/status, in bytes. */
static uint64_t status_bytes(const char *name) {
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (got <= 0) die("/proc/self/status cannot be read");
    close(fd);
    text[got] = 0;
    const char *at = strstr(text, name);
    if (!at) die("/proc/self/status has no %s", name);
    return strtoull(at + strlen(name) + 1, NULL, 10) * 1024;
}

static void replay(const struct heap_ask *q, struct heap_answer *a) {
    syp_pool_info info = {.size = sizeof info};
    if (ours) {
        must(syp_pool_query(&info), "syp_pool_query");
        uint64_t before = info.committed;
        a->live = trace_replay(&traces[q->trace], do_alloc, do_release);
        must(syp_pool_query(&info), "syp_pool_query");
        a->peak = info.committed_peak - before;
        return;
    }
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC); /* "5": the high water mark starts afresh */
    if (fd < 0 || write(fd, "5", 1) != 1) die("/proc/self/clear_refs cannot be written");
    close(fd);
    uint64_t before = status_bytes("VmRSS");
    a->live = trace_replay(&traces[q->trace], do_alloc, do_release);
    a->peak = status_bytes("VmHWM") - before;
}

void bench_heap_rank(const struct rank_io *io) {
    static void (*const work[])(const struct heap_ask *, struct heap_answer *) = {
        [HEAP_OPEN] = open_allocator, [HEAP_PAIRS] = pairs, [HEAP_TOUCH] = touching,
        [HEAP_MUTEX] = mutex,         [HEAP_CROSS] = cross, [HEAP_REPLAY] = replay,
    };
    struct heap_ask q;
    while (read(io->gate, &q, sizeof q) == (ssize_t)sizeof q) {
        struct heap_answer a = {0};
        work[q.kind](&q, &a);
        rank_send(io, &a, sizeof a);
    }
}
