/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A collective operation whose arguments, inputs and exact results follow from one number that all members have in common.
 *
 *     op_case_make -> a->call, to be run in any way -> op_case_exact, or op_case_untouched when nothing may have happened -> op_case_free
 *
 * Where this member's buffers lie (in the pool, outside, in place, at which alignment) follows from a number of its own.  Every buffer lies between guards.
 */
#ifndef TESTS_OP_CASE_H
#define TESTS_OP_CASE_H

#include "tests/support/world_test.h"

#define CASE_MEMBERS 8

struct op_case {
    struct call call;
    /* the rest is op_case.c's */
    struct world *w;
    int n, me;
    uint32_t salt;
    size_t size;                                                              /* of an element */
    size_t lens[CASE_MEMBERS * CASE_MEMBERS];                                 /* of parts; alltoallv: [from * n + to] */
    size_t send_at[CASE_MEMBERS * CASE_MEMBERS], recv_at[CASE_MEMBERS * CASE_MEMBERS]; /* alltoallv: likewise, [to * n + from]; rows: strides */
    size_t recv_lens[CASE_MEMBERS];
    size_t send_len, recv_len, in_place; /* bytes; in_place: where the smaller one may lie in the larger one, SIZE_MAX = nowhere */
    size_t own, begin;                   /* elements of this member's part, and before it */
    struct case_block {
        char *memory, *at;
        size_t len;
        int in_pool;
    } block[2];
    char *send, *recv;
    int same; /* 1 = in place */
};

/* About so many bytes in all; kind OP_NONE: any.  A group of at most CASE_MEMBERS.  0 = made. */
int op_case_make(struct op_case *a, struct world *w, const struct comm *c, int kind, size_t bytes, uint64_t common, uint64_t mine);
/* 1 = so it is; else the first difference is printed. */
int op_case_exact(const struct op_case *a);
int op_case_untouched(const struct op_case *a);
void op_case_free(struct op_case *a);

#endif
