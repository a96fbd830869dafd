/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives: the memory through which the first process tells the ranks of one implementation what to measure and gets their
 * samples.  It is the same for every implementation, and so is the common start; the ranks sleep while others are measured.  A file
 * without a name that ranks open through /proc/PID/fd, since launchers pass on no descriptors.
 */
#ifndef BENCH_COLL_BOARD_H
#define BENCH_COLL_BOARD_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "tools/bench/bench.h"
#include "tools/bench/coll.h"

#define COLL_SAMPLES_MAX 2048  /* of one command */
#define COLL_SHARED ((16u << 20) + (64u << 10)) /* for coll_impl.share */
#define COLL_IMPL_MAX 32
#define COLL_RATE_BYTES (64u << 20) /* own buffers have at least so many, for copies from memory to memory */

enum coll_what {
    DO_HOT,    /* a sample: count operations back to back from a common start */
    DO_FRESH,  /* a sample: inputs written, common start, one operation, results read and checked */
    DO_LOOP,   /* a sample: count times inputs written, operation, results read; all of it timed */
    DO_BARE,   /* the same without the operation */
    DO_VERIFY, /* one operation on data in which every element's place shows */
    DO_LINE,   /* one-way latency of a cache line between ranks 0 and 1 */
    DO_YIELD,  /* the same between two ranks that share a processor and yield it to each other */
    DO_PROBE,  /* 64 KiB rewritten by one rank (its row of samples) that the other has read, and read by that one (the other row) */
    DO_QUIT,
};

struct coll_command {
    enum coll_what what;
    enum coll_op op;
    enum coll_type type;
    int in_pool, plain; /* see coll_call */
    uint64_t bytes;
    int warm, samples, count;
};

struct board {
    /* Written before the ranks start. */
    int n, processors, tsc;
    pid_t owner;
    double ns_per_tick;
    uint64_t send_len, recv_len; /* what buffers have to hold */
    char impl[COLL_IMPL_MAX];    /* which one, where one program has several */
    /* By the ranks when they have opened it. */
    int has_pool;
    uint32_t does[N_OPS]; /* bits: types */
    int backwards;        /* DO_LINE: clocks of the two processors that disagreed by more than a line's latency */
    double clock_offset_ns;

    struct coll_command command;
    _Alignas(128) _Atomic uint32_t turn; /* futex; release: the first process wrote a command, acquire: the ranks */
    _Alignas(128) _Atomic uint32_t done; /* futex; release: each rank has done it, acquire: the first process */
    _Alignas(128) _Atomic uint64_t start; /* release: rank 0 chose when all start, acquire: the others */
    struct {
        _Alignas(128) _Atomic uint64_t arrived; /* release: the rank is ready for the next start, acquire: rank 0 */
        _Alignas(128) _Atomic uint64_t word;    /* ping-pong: each rank waits on its own; release and acquire */
        uint64_t stamp;                         /* beside it: the sender's clock */
        _Alignas(128) _Atomic uint64_t mark;    /* barriers are verified by it; relaxed: only their order counts */
    } rank[COLL_RANKS_MAX];
    _Alignas(4096) double sample[COLL_RANKS_MAX][COLL_SAMPLES_MAX]; /* ns; NAN: this rank came late to the start */
    _Alignas(4096) uint8_t shared[COLL_SHARED];
};

/* ---------------------------------------------------------------------------------------------- in the first process */

/* fd: to be closed, after the ranks have opened it, with board_close. */
struct board *board_create(const char *impl, int n, int *fd);
void board_path(int fd, char *out, size_t cap);
void board_close(struct board *b, int fd);
/* Let all ranks do it.  alive(arg): called now and then, returns 0 when it is no use to wait any longer.  Returns 1 when all have. */
int board_ask(struct board *b, const struct coll_command *c, int (*alive)(void *), void *arg);
/* The ranks have opened it. */
int board_wait_open(struct board *b, int (*alive)(void *), void *arg);
/* Use clock_gettime from now on: the processors' counters disagree. */
void board_drop_tsc(struct board *b);

/* -------------------------------------------------------------------------------------------------------- in a rank */

struct board *board_open(const char *path);
/* Sleep until the next command. */
const struct coll_command *board_next(struct board *b, uint32_t *turn);
void board_done(struct board *b);

/* The processor's counter where all processors count alike, else the clock. */
static inline uint64_t board_ticks(const struct board *b) {
#if defined(__x86_64__)
    if (b->tsc) {
        _mm_lfence(); /* what comes before has been done */
        return __rdtsc();
    }
#endif
    (void)b;
    return (uint64_t)now_ns();
}

/* Loops that wait call it with a count of their own: yields when processors are shared, and ends the process when nobody answers. */
void board_relax(const struct board *b, unsigned spins);
/* Wait for all ranks; returns the tick at which all start.  *late: this rank was not there at that time. */
uint64_t board_start(struct board *b, int rank, uint64_t *round, int *late);

#endif
