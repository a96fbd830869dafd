/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives: for each number of ranks the teams are started, every operation and size is measured with all of them in turns, and
 * the teams end.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "allocator/sympool.h"
#include "tools/bench/coll_impls.h"
#include "tools/bench/coll_run.h"

#define CELLS_MAX 1024

/* ------------------------------------------------------------------------------------------------------------ a rank */

/* Ours, or one that runs vLLM's scheme: the board knows. */
void bench_coll_rank(const struct rank_io *io) {
    const char *path = getenv("BENCH_COLL_BOARD"), *rank = getenv("SYMPOOL_RANK");
    if (!path || !rank) die("a rank of coll is started by sympool-bench only");
    rank_wait_for_release(io);
    struct board *b = board_open(path);
    int ours = strcmp(b->impl, team_name(TEAM_OURS)) == 0;
    if (!ours) {
        coll_worker(path, atoi(rank), &coll_impl_vllm);
        return;
    }
    must(syp_init_env(), "syp_init");
    coll_worker(path, syp_rank(), &coll_impl_ours);
    must(syp_finalize(), "syp_finalize");
}

/* ---------------------------------------------------------------------------------------------------- the measurement */

/* 8, then powers of two or four that are at least --min. */
static uint64_t next_size(const struct coll_options *o, uint64_t size) {
    if (size == 8) size = o->step == 2 ? 8 : 4;
    size *= (uint64_t)o->step;
    return size;
}

static uint64_t first_size(const struct coll_options *o) {
    uint64_t size = 8;
    while (size < o->min)
        size = next_size(o, size);
    return size;
}

/* Bytes that all teams together need for buffers, with blocks of this size. */
static uint64_t memory_for(const struct coll_options *o, int n, uint64_t bytes, uint64_t *send, uint64_t *recv) {
    unsigned teams = 0;
    *send = *recv = 64;
    for (int op = 0; op < N_OPS; op++) {
        if (!(o->ops >> op & 1)) continue;
        uint64_t s = coll_blocks_of(coll_ops[op].send, n) * bytes, r = coll_blocks_of(coll_ops[op].recv, n) * bytes;
        if (s > *send) *send = s;
        if (r > *recv) *recv = r;
    }
    for (int i = 0; i < N_TEAMS; i++)
        teams += o->teams >> i & 1;
    return (teams + 1) * (uint64_t)n * (*send + *recv); /* ours twice: in the pool and outside */
}

static uint64_t largest_size(const struct coll_options *o, int n) {
    uint64_t send, recv, most = coll_memory_available() / 10 * 7, size = first_size(o);
    for (uint64_t next = size; next <= o->max && memory_for(o, n, next, &send, &recv) <= most; next = next_size(o, next))
        size = next;
    return size;
}

static void start_teams(struct coll_run *r, uint64_t largest) {
    uint64_t send, recv;
    memory_for(r->o, r->n, largest, &send, &recv);
    for (int i = 0; i < N_TEAMS; i++)
        if (r->o->teams >> i & 1) team_start(&r->team[i], (enum team_id)i, r->n, send, recv);
}

static void measure_op(struct coll_run *r, enum coll_op op, uint64_t largest, FILE *csv) {
    size_t from = r->results->n;
    if (coll_ops[op].recv == BLOCKS_NONE)
        coll_measure(r, op, 0);
    else
        for (uint64_t size = first_size(r->o); size <= largest; size = next_size(r->o, size))
            if (size % coll_types[r->o->type].size == 0) coll_measure(r, op, size);
    coll_print_tables(r, from);
    if (csv) coll_csv_rows(csv, r->o, r->results, from);
}

static void measure_ranks(const struct coll_options *o, int n, struct coll_results *results, FILE *csv) {
    static struct coll_run r;
    memset(&r, 0, sizeof r);
    r = (struct coll_run){.o = o, .n = n, .results = results, .cells_max = CELLS_MAX};
    r.lines = calloc(4 * CELLS_MAX, sizeof *r.lines);
    if (!r.lines) die("no memory for the results");
    r.yields = r.lines + CELLS_MAX;
    r.probe_writes = r.yields + CELLS_MAX;
    r.probe_reads = r.probe_writes + CELLS_MAX;
    uint64_t largest = largest_size(o, n);
    start_teams(&r, largest);
    coll_print_method(&r);
    if (next_size(o, largest) <= o->max && !o->json)
        printf("# no sizes above %llu bytes: %llu MiB of memory are available\n", (unsigned long long)largest,
               (unsigned long long)coll_memory_available() >> 20);
    coll_machine_start(&r);
    for (int op = 0; op < N_OPS; op++)
        if (o->ops >> op & 1) measure_op(&r, (enum coll_op)op, largest, csv);
    coll_machine_end(&r);
    coll_print_machine(&r);
    for (int i = 0; i < N_TEAMS; i++)
        team_end(&r.team[i]);
    free(r.lines);
}

static void measure(const struct coll_options *o) {
    struct coll_results results = {0};
    FILE *csv = o->csv ? fopen(o->csv, "w") : NULL;
    if (o->csv && !csv) die("%s: %s", o->csv, strerror(errno));
    if (csv) coll_csv_start(csv);
    for (int i = 0; i < o->n_ranks; i++)
        measure_ranks(o, o->ranks[i], &results, csv);
    if (csv && (ferror(csv) | fclose(csv))) die("%s: writing failed", o->csv);
    if (o->svg) coll_plot(o->svg, o, &results);
    free(results.row);
}

void bench_coll(void) {
    struct coll_options o;
    coll_options_default(&o);
    o.json = report_is_json();
    measure(&o);
}

void bench_coll_main(char **args) {
    struct coll_options o;
    coll_options_parse(&o, args);
    if (o.osu) {
        measure(&o);
        return;
    }
    report_start(o.json);
    measure(&o);
    report_end();
}
