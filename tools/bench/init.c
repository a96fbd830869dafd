/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long syp_init takes: the ranks are started, arrive in main, and are let go together; each times its own call.
 */
#include <stdio.h>

#include "allocator/sympool.h"
#include "tools/bench/bench.h"

#define MAX_REPETITIONS 11

struct init_record {
    int64_t init_ns;
};

void bench_init_rank(const struct rank_io *io) {
    rank_wait_for_release(io);
    int64_t start = now_ns();
    must(syp_init_env(), "syp_init");
    struct init_record record = {now_ns() - start};
    rank_send(io, &record, sizeof record);
    must(syp_finalize(), "syp_finalize");
}

/* Slowest rank's syp_init. */
static double one_job(int n) {
    struct job job;
    struct init_record record;
    int64_t slowest = 0;
    int seen = 0;
    job_start(&job, "init", n, "256M", "64M");
    job_release(&job);
    for (; job_next(&job, &record, sizeof record); seen++)
        if (record.init_ns > slowest) slowest = record.init_ns;
    job_end(&job);
    if (seen != n) die("%d of %d ranks reported", seen, n);
    return (double)slowest;
}

static void measure(int n, int repetitions) {
    double init[MAX_REPETITIONS], exec[MAX_REPETITIONS];
    one_job(n); /* warms the page cache */
    for (int i = 0; i < repetitions; i++) {
        exec[i] = (double)fork_exec_ns("/bin/true", n);
        init[i] = one_job(n);
    }
    double init_ns = median(init, (size_t)repetitions), exec_ns = median(exec, (size_t)repetitions);
    struct field row[] = {
        {"ranks", UNIT_COUNT, n, NULL},
        {"pool", UNIT_BYTES, 256 << 20, NULL},
        {"syp_init", UNIT_NS, init_ns, NULL},
        {"fork_exec", UNIT_NS, exec_ns, NULL},
        {"x_limit", UNIT_RATIO, init_ns / exec_ns, NULL},
        {"repetitions", UNIT_COUNT, repetitions, NULL},
    };
    report_row(row, (int)(sizeof row / sizeof row[0]));
}

void bench_init(void) {
    report_section(
        "init", "all ranks wait in main, then call syp_init at once; the slowest rank's time; median over repetitions",
        "none built in",
        "fork + exec + wait of as many /bin/true, before each repetition; x_limit = syp_init / fork_exec");
    measure(8, 11);
    measure(64, 5);
}
