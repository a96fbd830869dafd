/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sympool: who runs on this host, what is allocated, who waits for whom.  Reads the statistics segments of the ranks
 * and nothing else: no daemon, no signal, no lock, nothing written, so it works on hung and on stopped ranks.
 *
 *   find.c     segments among the descriptors of all processes     list.c  the table of ranks
 *   segment.c  one segment, validated and copied                   show.c  everything about the ranks of one job
 *   format.c   sizes, times, operations as text; tables            json.c  both for programs
 *   hist.c     percentiles
 *
 * Of the library it knows pool/stats_shared.h alone.  A segment is written by somebody else and may be damaged, old or
 * hostile: segment.c is the only file that touches it, the others work on checked copies.
 */
#ifndef TOOLS_STAT_H
#define TOOLS_STAT_H

#include "pool/stats_shared.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define EXIT_OK 0
#define EXIT_USAGE 1 /* also: the output could not be written */
#define EXIT_NO_JOB 2
#define EXIT_UNREADABLE 3 /* a segment was refused; the others were shown */

struct entry {
    char name[41], help[81];
    unsigned kind, unit;
    uint64_t value;
};

/* Current or last operation of a group. */
struct op {
    uint64_t comm_id, n_members, kind, sequence, bytes;
    uint64_t start_ns, end_ns; /* end 0 = running */
    int64_t waits_for;         /* rank, -1 = nobody */
    uint64_t result;           /* 0 or -SYP_E* */
    int torn;                  /* caught while it was written: figures may not belong together */
};

/* How long operations of one kind and size took. */
struct hist {
    uint64_t kind, every, least_bytes, below_bytes; /* as in struct stats_hist */
    uint64_t count, max_ns;
    uint64_t bucket[STATS_BUCKETS];
};

/* What one rank says of itself, and what the kernel says of it. */
struct view {
    char job[65], host[65], backend[17]; /* printable ASCII */
    int rank, world, local_rank;
    int owner_pid; /* as the rank knows it, in its own pid namespace */
    uint64_t start_ticks, attach_ns, nonce;
    unsigned state; /* enum stats_state */
    struct entry *entries;
    size_t n_entries;
    struct op *ops; /* groups in use */
    size_t n_ops;
    struct hist *hists; /* that have counted something */
    size_t n_hists;
    dev_t dev; /* of the segment's file */
    ino_t ino;
    pid_t pid; /* here; owner_pid when the process is gone */
    int alive;
    char process_state; /* R S D T t Z ... of /proc/PID/stat; '-' when gone */
};

struct problem {
    pid_t pid;
    int fd;
    dev_t dev;
    ino_t ino;
    char text[160];
};

struct scan {
    struct view *views; /* by job, nonce, rank, pid */
    size_t n_views, cap_views;
    struct problem *problems;
    size_t n_problems, cap_problems;
    int n_denied;    /* processes whose descriptors we may not see */
    uint64_t now_ns; /* CLOCK_MONOTONIC of the scan */
};

/* find.c.  Memory of a scan lives to the end of the program. */
void scan_host(struct scan *scan);
void *grow(void *array, size_t n, size_t *cap,
           size_t size); /* room for element n; ends the program when there is none */

/* segment.c: 0, or -1 with the reason. */
int segment_read(int fd, struct view *v, char *why, size_t cap);
const struct entry *view_entry(const struct view *v, const char *name); /* NULL when the rank has no such figure */

/* format.c */
struct table {
    char **cells; /* row by row */
    size_t n_cells, cap;
    size_t n_cols; /* up to 16 */
};
void format_size(char *out, size_t cap, uint64_t bytes);
void format_time(char *out, size_t cap, uint64_t ns);
void format_value(char *out, size_t cap, const struct entry *e);
void format_op(char *out, size_t cap, const struct op *op, uint64_t now);
const char *op_name(uint64_t kind);
const char *state_name(unsigned state);
const char *kind_name(unsigned kind);
const char *unit_name(unsigned unit);
const char *result_name(uint64_t result);
const char *view_state(const struct view *v);   /* "attached", "stopped", "dead" ... */
const struct op *view_op(const struct view *v); /* the one to show: longest running, else last ended; NULL = none */
uint64_t elapsed(uint64_t since, uint64_t now);
void table_add(struct table *t, const char *cell); /* the next cell of the row; n_cols of them make one */
void table_print(const struct table *t);

/* hist.c: the time that `percent` of the counted operations did not exceed, within a factor of 2. */
uint64_t hist_percentile(const struct hist *h, unsigned percent);
uint64_t hist_bucket_end(unsigned bucket); /* first ns that is no longer in it; UINT64_MAX for the last one */
void format_range(char *out, size_t cap, const struct hist *h); /* "< 64 KiB" */

/* The commands.  chosen: the views to show. */
void print_list(const struct scan *scan);
void print_show(const struct scan *scan, const struct view *const *chosen, size_t n);
void print_json(const struct scan *scan, const struct view *const *chosen, size_t n, int everything);

#endif
