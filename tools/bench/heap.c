/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local heap beside four mallocs.  Each allocator is a process of its own, the peers' with their library preloaded, all
 * running the same loops; the samples alternate.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tools/bench/bench.h"
#include "tools/bench/heap.h"

#define SAMPLES 21
#define CROSS_SAMPLES 7
#define PAIRS 500u
#define TOUCHED (8ull << 20) /* bytes touched per sample, at least one block */
#define BLOCKS 10000u        /* from thread to thread */

static const struct allocator {
    const char *name, *preload, *package;
} allocators[] = {
    {"syp", NULL, NULL},
    {"glibc", NULL, NULL},
    {"jemalloc", "libjemalloc.so.2", "libjemalloc2"},
    {"mimalloc", "libmimalloc.so.2", "libmimalloc2.0"},
    {"tcmalloc", "libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"},
};
enum { OURS, GLIBC, N_ALLOCATORS = sizeof allocators / sizeof allocators[0] };

struct team {
    struct worker worker[N_ALLOCATORS];
    int present[N_ALLOCATORS];
};

static struct heap_answer ask(struct team *t, int i, struct heap_ask q) {
    struct heap_answer a;
    worker_ask(&t->worker[i], allocators[i].name, &q, sizeof q, &a, sizeof a);
    return a;
}

static void team_start(struct team *t) {
    for (int i = 0; i < N_ALLOCATORS; i++) {
        const struct allocator *al = &allocators[i];
        worker_start(&t->worker[i], "heap", al->preload, "1G", "0");
        struct heap_answer a = ask(t, i, (struct heap_ask){.kind = HEAP_OPEN, .ours = i == OURS});
        t->present[i] = !al->preload || strstr(a.provider, al->name) != NULL;
        if (!t->present[i]) worker_end(&t->worker[i], al->name);
    }
}

static void team_end(struct team *t) {
    for (int i = 0; i < N_ALLOCATORS; i++)
        if (t->present[i]) worker_end(&t->worker[i], allocators[i].name);
}

static const char *peers_of(const struct team *t) {
    static char text[400];
    size_t used = (size_t)snprintf(text, sizeof text, "glibc's malloc");
    for (int i = GLIBC + 1; i < N_ALLOCATORS; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, t->present[i] ? ", %s" : "; %s NOT MEASURED: package %s is missing",
                                 allocators[i].name, allocators[i].package);
    return text;
}

/* One question to all, sample by sample in turns: medians. */
static void measure(struct team *t, struct heap_ask q, int samples, struct heap_answer *out) {
    double ns[N_ALLOCATORS][SAMPLES], faults[N_ALLOCATORS][SAMPLES];
    for (int s = 0; s < samples; s++)
        for (int i = 0; i < N_ALLOCATORS; i++) {
            if (!t->present[i]) continue;
            struct heap_answer a = ask(t, i, q);
            ns[i][s] = a.ns;
            faults[i][s] = a.faults;
        }
    for (int i = 0; i < N_ALLOCATORS; i++) {
        out[i].ns = t->present[i] ? median(ns[i], (size_t)samples) : NAN;
        out[i].faults = t->present[i] ? median(faults[i], (size_t)samples) : NAN;
    }
}

/* The columns of all allocators from row[n] on; returns how many there are then.  of_best: ours / the best peer. */
static int add_times(struct field *row, int n, const struct heap_answer *a) {
    double best = INFINITY;
    for (int i = 0; i < N_ALLOCATORS; i++) {
        row[n++] = (struct field){allocators[i].name, UNIT_NS, a[i].ns, NULL};
        if (i != OURS && a[i].ns < best) best = a[i].ns;
    }
    row[n++] = (struct field){"of_best", UNIT_RATIO, a[OURS].ns / best, NULL};
    row[n++] = (struct field){"syp_faults", UNIT_COUNT, a[OURS].faults, NULL};
    return n;
}

static void report_pairs(struct team *t) {
    static const uint64_t sizes[] = {16,        256,     4096,    16 << 10, 64 << 10, 256 << 10,
                                     1 << 20, 2 << 20, 4 << 20, 16 << 20, 64 << 20};
    report_section("heap",
                   "pairs of allocation and release of one block, untouched or with one byte written into each page; a process each, "
                   "with a second, idle thread, all on one processor in turns; time per pair, median of 21 samples of 500 "
                   "pairs, or of 8 MiB touched, that alternate; page faults per pair from getrusage",
                   peers_of(t),
                   "column limit: untouched, lock and unlock of a mutex nobody else wants; touched, touching the pages of a block that is "
                   "kept; of_best = syp / best peer");
    for (int touch = 0; touch <= 1; touch++)
        for (size_t k = touch ? 4 : 0; k < sizeof sizes / sizeof sizes[0]; k++) {
            uint64_t bytes = sizes[k], blocks = TOUCHED / bytes ? TOUCHED / bytes : 1;
            struct heap_answer a[N_ALLOCATORS], limit[N_ALLOCATORS];
            struct field row[12] = {{"pages", UNIT_TEXT, 0, touch ? "touched" : "untouched"}, {"size", UNIT_BYTES, (double)bytes, NULL}};
            struct heap_ask q = {.kind = HEAP_PAIRS, .touch = touch, .bytes = bytes, .count = touch ? blocks : PAIRS};
            measure(t, q, SAMPLES, a);
            q.kind = touch ? HEAP_TOUCH : HEAP_MUTEX;
            limit[OURS] = ask(t, OURS, q);
            int n = add_times(row, 2, a);
            row[n++] = (struct field){"limit", UNIT_NS, limit[OURS].ns, NULL};
            report_row(row, n);
        }
}

static void report_cross(struct team *t) {
    static const uint64_t sizes[] = {64, 4096, 64 << 10, 1 << 20, 4 << 20};
    report_section("heap-threads",
                   "one thread allocates and writes the first byte, another releases, 64 blocks under way at most; time per block, "
                   "median of 7 samples of 10000 blocks that alternate",
                   peers_of(t), "two lines of cache that change hands per block");
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        struct heap_answer a[N_ALLOCATORS];
        struct field row[12] = {{"size", UNIT_BYTES, (double)sizes[k], NULL}};
        measure(t, (struct heap_ask){.kind = HEAP_CROSS, .bytes = sizes[k], .count = BLOCKS}, CROSS_SAMPLES, a);
        report_row(row, add_times(row, 1, a));
    }
}

/* A fresh process for each trace and allocator. */
static void report_traces(void) {
    for (int k = 0; k < n_traces; k++) {
        struct team t;
        struct heap_answer a = {0};
        struct field row[10] = {{"trace", UNIT_TEXT, 0, traces[k].name}, {"live", UNIT_BYTES, 0, NULL}};
        int n = 2;
        team_start(&t);
        if (k == 0)
            report_section("heap-traces",
                           "recorded allocations of 4 KiB and more of NumPy programs (tools/bench/traces), every page touched; most memory "
                           "taken from the system over most bytes live: committed memory of the pool, growth of the resident set of the "
                           "peers",
                           peers_of(&t), "1.00: no byte more than is live");
        for (int i = 0; i < N_ALLOCATORS; i++) {
            double over = NAN;
            if (t.present[i]) {
                a = ask(&t, i, (struct heap_ask){.kind = HEAP_REPLAY, .trace = k});
                over = (double)a.peak / (double)a.live;
            }
            row[n++] = (struct field){allocators[i].name, UNIT_RATIO, over, NULL};
        }
        row[1].value = (double)a.live;
        report_row(row, n);
        team_end(&t);
    }
}

void bench_heap(void) {
    struct team t;
    team_start(&t);
    report_pairs(&t);
    report_cross(&t);
    team_end(&t);
    report_traces();
}
