/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives, in a rank: what the loops (coll_work.c) share with the measurements of the machine (coll_limits.c).
 */
#ifndef BENCH_COLL_WORK_H
#define BENCH_COLL_WORK_H

#include "tools/bench/coll_board.h"

#define PATTERN 64u    /* bytes; data repeats after them */
#define GENERATIONS 4u /* inputs differ from one operation to the next */

struct work {
    struct board *board;
    const struct coll_impl *impl;
    int rank, n;
    uint64_t round;           /* of common starts */
    uint64_t pings, line_turn; /* commands with a ping-pong; turns in it, different in every command */
    uint8_t *send[2], *recv[2]; /* in memory of the process's own; in the implementation's pool, NULL when it has none */
    uint8_t input[GENERATIONS][COLL_RANKS_MAX][PATTERN], output[GENERATIONS][COLL_RANKS_MAX][PATTERN];
};

/* DO_LINE, DO_YIELD: samples of one-way times, in rank 0's row.  Also measures the offset of the clocks when c->warm is set. */
void limits_ping(struct work *w, const struct coll_command *c);
void limits_probe(struct work *w, const struct coll_command *c);
/* OP_COPY_NT */
void limits_copy_nt(void *to, const void *from, size_t len);

#endif
