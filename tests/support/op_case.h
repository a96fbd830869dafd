/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A case (cases.h) that follows from one number that all members have in common, with its buffers.
 *
 *     op_case_make -> a->call, to be run in any way -> op_case_exact, or op_case_untouched when nothing may have happened -> op_case_free
 *
 * Where this member's buffers lie (in the pool, outside, in place, at which alignment) follows from a number of its own.  Every buffer lies between guards.
 */
#ifndef TESTS_OP_CASE_H
#define TESTS_OP_CASE_H

#include "tests/support/cases.h"
#include "tests/support/world_test.h"

struct op_case {
    struct call call;
    /* the rest is op_case.c's */
    struct world *w;
    int me;
    struct ask ask;
    struct side side;
    struct case_block {
        char *memory, *at;
        size_t len;
        int in_pool;
    } block[2];
    char *send, *recv;
};

/* Where this member's buffers lie; bits 8 to 15: their alignment, 16 and 17: where nothing is sent, or received, the call does not say NULL. */
#define SEND_IN_POOL 1u
#define RECV_IN_POOL 2u
#define BOTH_IN_POOL 3u
#define BUFFERS_IN_PLACE 4u /* where that is legal */

/* bytes: as case_draw, or, with kind OP_NONE, about so many in all of any.  0 = made. */
int op_case_make(struct op_case *a, struct world *w, const struct comm *c, int kind, size_t bytes, uint64_t common, uint64_t where);
/* 1 = so it is; else the first difference is printed. */
int op_case_exact(const struct op_case *a);
int op_case_untouched(const struct op_case *a);
void op_case_free(struct op_case *a);

#endif
