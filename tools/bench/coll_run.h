/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives, in the first process: options, the teams of ranks, what is measured with them, and the results.
 */
#ifndef BENCH_COLL_RUN_H
#define BENCH_COLL_RUN_H

#include <stdio.h>

#include "tools/bench/bench.h"
#include "tools/bench/coll_board.h"

/* --------------------------------------------------------------------------------------------------------- options */

enum coll_mode { MODE_HOT, MODE_FRESH, MODE_LOOP, N_MODES };
extern const char *const coll_mode_names[N_MODES];

enum team_id { TEAM_OURS, TEAM_OPENMPI, TEAM_OPENMPI_SM, TEAM_OPENMPI_UCX, TEAM_MPICH, TEAM_GLOO, TEAM_VLLM, N_TEAMS };

#define N_RANKS_MAX 8

struct coll_options {
    unsigned ops, modes, buffers, teams; /* bits; buffers: 1 outside, 2 pool */
    int ranks[N_RANKS_MAX], n_ranks;
    uint64_t min, max;
    int step; /* from one size to the next: 2 or 4 */
    enum coll_type type;
    int samples;
    double budget_ns; /* for the samples of one implementation, size and mode */
    int json, osu;
    const char *csv, *svg; /* files, NULL: none */
};

/* args: after "coll", NULL at the end.  Returns 0, or ends the process with status 2 (or 0 after --help). */
void coll_options_parse(struct coll_options *o, char **args);
void coll_options_default(struct coll_options *o);

/* ----------------------------------------------------------------------------------------------------------- teams */

/* The ranks of one implementation. */
struct team {
    enum team_id id;
    const char *name;
    int started, present; /* it did run; it runs and answers */
    char why[200]; /* if not */
    struct board *board;
    int board_fd, log;
    struct job job;    /* of ranks that are this program */
    pid_t pid[COLL_RANKS_MAX]; /* else: of the launcher, or of the ranks */
    int n_pid;
    char folder[64]; /* through which they meet; "" = none */
    int64_t deadline;
};

const char *team_name(enum team_id id);
/* What the operation is not measured with, though it could: coll sm has only a few of its own. */
int team_measures(enum team_id id, enum coll_op op);
void team_start(struct team *t, enum team_id id, int n, uint64_t send_len, uint64_t recv_len);
/* 0 when it failed: then it is no longer present, and why says so.  Ours must not fail. */
int team_ask(struct team *t, const struct coll_command *c);
void team_end(struct team *t);

/* --------------------------------------------------------------------------------------------------------- results */

#define LANES_MAX 16

/* Medians of one run over the machine. */
struct coll_machine {
    double line, yield, clock_offset; /* ns; yield: NAN where every rank has a processor */
    double copy_rate, copy_nt_rate;   /* bytes/s, all ranks at once, 64 MiB each; NAN where ranks share processors */
    double probe_write[3], probe_read[3]; /* 64 KiB: median, lowest, highest over the run */
    double seconds, busy, own, stolen; /* processor seconds */
    int tsc;
};

/* One implementation, size and mode. */
struct coll_result {
    enum coll_op op;
    enum coll_mode mode;
    int n, is_peer, in_pool; /* in_pool: -1 where it makes no difference */
    uint64_t bytes;
    const char *impl;
    double median, p99, low; /* ns; NAN: not measured */
    int samples, count;      /* of so many operations each */
    const char *best_name;
    double best, limit; /* of the fastest peer; what the machine allows */
    double line, yield, copy;
};

struct coll_results {
    struct coll_result *row;
    size_t n, room;
};

struct coll_result *coll_results_add(struct coll_results *all);

/* ------------------------------------------------------------------------------------------------------ measuring */

struct coll_run {
    const struct coll_options *o;
    int n; /* ranks */
    struct team team[N_TEAMS];
    struct coll_machine machine;
    struct coll_results *results;
    double *lines, *probe_writes, *probe_reads, *yields; /* one per cell */
    size_t cells, cells_max;
};

/* One operation and size, all implementations in turns. */
void coll_measure(struct coll_run *r, enum coll_op op, uint64_t bytes);
/* Before and after: rates that do not depend on the operation; processor time. */
void coll_machine_start(struct coll_run *r);
void coll_machine_end(struct coll_run *r);
/* Bytes that the machine could still give away. */
uint64_t coll_memory_available(void);
/* Factor of the copy of n bytes that the operation cannot do without. */
double coll_copies(enum coll_op op, int n);

/* ---------------------------------------------------------------------------------------------------------- output */

void coll_print_method(const struct coll_run *r);
void coll_print_machine(const struct coll_run *r);
/* The rows [from, results->n), all of one operation. */
void coll_print_tables(const struct coll_run *r, size_t from);
void coll_csv_start(FILE *f);
void coll_csv_rows(FILE *f, const struct coll_options *o, const struct coll_results *all, size_t from);
void coll_plot(const char *path, const struct coll_options *o, const struct coll_results *all);

#endif
