/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local heap beside libc: pairs of allocation and release of large blocks, without touching them (the allocator's
 * own cost) and writing one byte into every page (what a program pays that uses the block).
 */
#include <stdlib.h>
#include <sys/resource.h>

#include "allocator/sympool.h"
#include "tools/bench/bench.h"

#define SAMPLES 31
#define PAGE 4096u

struct heap_record {
    uint64_t bytes;
    int touch, pairs;
    double syp_ns, libc_ns;         /* per pair */
    double syp_faults, libc_faults; /* per pair */
};

/* Through volatile pointers, so that the compiler cannot see that a block is not used. */
struct allocator {
    void *(*volatile alloc)(size_t);
    void (*volatile release)(void *);
};

static const struct allocator ours = {syp_malloc, syp_free}, libc = {malloc, free};

static long page_faults(void) {
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u)) die("getrusage failed");
    return u.ru_minflt + u.ru_majflt;
}

/* Time per pair; adds the page faults of all pairs to *faults. */
static double one_sample(const struct allocator *a, const struct heap_record *r, double *faults) {
    long faults_before = page_faults();
    int64_t start = now_ns();
    for (int i = 0; i < r->pairs; i++) {
        volatile char *p = a->alloc(r->bytes);
        if (!p)
            die("a block of %llu bytes: %s", (unsigned long long)r->bytes,
                a == &ours ? syp_error_text() : "libc has none");
        if (r->touch)
            for (uint64_t off = 0; off < r->bytes; off += PAGE)
                p[off] = 1;
        a->release((void *)p);
    }
    double ns = (double)(now_ns() - start) / r->pairs;
    *faults += (double)(page_faults() - faults_before);
    return ns;
}

static void measure(const struct rank_io *io, uint64_t bytes, int touch) {
    struct heap_record r = {.bytes = bytes, .touch = touch, .pairs = 100};
    double syp[SAMPLES], sys[SAMPLES], ignored = 0;
    if (touch) r.pairs = bytes >= 16u << 20 ? 1 : (int)((16u << 20) / bytes);
    one_sample(&ours, &r, &ignored);
    one_sample(&libc, &r, &ignored);
    for (int i = 0; i < SAMPLES; i++) {
        syp[i] = one_sample(&ours, &r, &r.syp_faults);
        sys[i] = one_sample(&libc, &r, &r.libc_faults);
    }
    r.syp_ns = median(syp, SAMPLES);
    r.libc_ns = median(sys, SAMPLES);
    r.syp_faults /= (double)r.pairs * SAMPLES;
    r.libc_faults /= (double)r.pairs * SAMPLES;
    rank_send(io, &r, sizeof r);
}

void bench_heap_rank(const struct rank_io *io) {
    rank_wait_for_release(io);
    must(syp_init_env(), "syp_init");
    for (int touch = 0; touch <= 1; touch++)
        for (uint64_t bytes = 64u << 10; bytes <= 64u << 20; bytes *= 4)
            measure(io, bytes, touch);
    must(syp_finalize(), "syp_finalize");
}

void bench_heap(void) {
    struct job job;
    struct heap_record r;
    report_section("heap",
                   "pairs of malloc and free, the two allocators taking turns sample by sample; time per pair, median "
                   "of 31 samples; "
                   "page faults per pair from getrusage",
                   "libc malloc as it is set up in this environment",
                   "no page fault, and a few tens of ns for the bookkeeping; x_faster = libc / syp");
    job_start(&job, "heap", 1, "256M", "0");
    job_release(&job);
    while (job_next(&job, &r, sizeof r)) {
        struct field row[] = {
            {"pages", UNIT_TEXT, 0, r.touch ? "touched" : "untouched"},
            {"size", UNIT_BYTES, (double)r.bytes, NULL},
            {"syp", UNIT_NS, r.syp_ns, NULL},
            {"libc", UNIT_NS, r.libc_ns, NULL},
            {"x_faster", UNIT_RATIO, r.libc_ns / r.syp_ns, NULL},
            {"syp_faults", UNIT_COUNT, r.syp_faults, NULL},
            {"libc_faults", UNIT_COUNT, r.libc_faults, NULL},
        };
        report_row(row, (int)(sizeof row / sizeof row[0]));
    }
    job_end(&job);
}
