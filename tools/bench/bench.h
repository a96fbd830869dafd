/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sympool-bench: what its parts share.  A measurement runs in ranks that the program starts by executing itself
 * (spawn.c); they send records through a pipe to the first process, which prints them (report.c).
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* ------------------------------------------------------------------------------------------------ report */

enum unit { UNIT_NS, UNIT_BYTES, UNIT_COUNT, UNIT_RATIO, UNIT_TEXT };

struct field {
    const char *name; /* a word; in JSON with its unit: "op" gives "op_ns" */
    enum unit unit;
    double value;
    const char *text; /* UNIT_TEXT */
};

void report_start(int json);
int report_is_json(void);
/* A section says who is compared, how it was measured, and what physics allows. */
void report_section(const char *name, const char *method, const char *peers, const char *limit);
void report_row(const struct field *fields, int n);
void report_end(void);

/* Middle of n values, which are sorted in place; n > 0. */
double median(double *values, size_t n);
int64_t now_ns(void);
/* Processors this process may run on. */
int processors(void);

/* Print "sympool-bench: ..." to stderr and exit with 1. */
_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void must(int status, const char *what);
void *must_have(void *p, const char *what);

/* ----------------------------------------------------------------------------------------------- processes */

#define JOB_MAX 64

/* The ranks of one measurement. */
struct job {
    int n;
    pid_t pid[JOB_MAX];
    int result; /* reading end of the pipe of records */
    int ready;  /* one byte from each rank that has arrived in main */
    int gate;   /* closing it lets them go */
};

/* What a rank finds when it is started. */
struct rank_io {
    int result, ready, gate;
};

/* Start n processes of this program in the role ("init", "coll", "heap"), with the environment of a job of their own.
 */
void job_start(struct job *job, const char *role, int n, const char *local_mem_size, const char *meta_size);
/* Wait until all are ready, then let them go. */
void job_release(struct job *job);
/* The next record (len bytes, below PIPE_BUF): 1, or 0 when all ranks have closed the pipe. */
int job_next(struct job *job, void *record, size_t len);
/* All ranks must end with status 0. */
void job_end(struct job *job);
/* One rank that answers questions, one at a time: in it, questions come from io->gate and answers go to io->result. */
struct worker {
    pid_t pid;
    int ask, answer;
};
/* preload: a shared object for LD_PRELOAD, NULL = none. */
void worker_start(struct worker *w, const char *role, const char *preload, const char *local_mem_size, const char *meta_size);
/* name: for messages. */
void worker_ask(struct worker *w, const char *name, const void *question, size_t question_len, void *answer, size_t answer_len);
void worker_end(struct worker *w, const char *name);
/* Time to fork and execute `path` n times and wait for all of them. */
int64_t fork_exec_ns(const char *path, int n);

/* In a rank: say that it is ready and wait for the release. */
void rank_wait_for_release(const struct rank_io *io);
void rank_send(const struct rank_io *io, const void *record, size_t len);

/* --------------------------------------------------------------------------------------------- measurements */

void bench_init(void);
void bench_init_rank(const struct rank_io *io);
void bench_coll(void);
void bench_coll_main(char **args); /* with the options after "coll" */
void bench_coll_rank(const struct rank_io *io);
void bench_heap(void);
void bench_heap_rank(const struct rank_io *io);

#endif
