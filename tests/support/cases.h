/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cases of the collectives that move data: what all members ask for, what each sends, and what each must have afterwards.  A case is drawn from a
 * random stream that all ranks have in common, so each knows every other's input, and with it its own result.  Where the buffers lie is the test's.
 */
#ifndef TESTS_CASES_H
#define TESTS_CASES_H

#include "tests/support/ops.h"

#define UNTOUCHED 0x5a

/* What all members ask for.  Its buffers and lists are for case_call to set. */
struct ask {
    struct call call;
    int n;
    uint32_t salt;
    size_t size;               /* of an element; 1 */
    size_t *lens;              /* of parts; alltoallv: [from * n + to] */
    size_t *recv_lens;         /* alltoallv: [to * n + from] */
    size_t *send_at, *recv_at; /* alltoallv: likewise, [to * n + from]; rows: the members' strides */
};

/* A member's side of it. */
struct side {
    size_t send_len, recv_len;
    size_t in_place; /* where the smaller buffer may lie in the larger one; SIZE_MAX = nowhere */
    size_t own;      /* units of its part */
    size_t begin;    /* units before it */
};

/* Every kind that moves data, broadcast last. */
enum { CASE_KINDS = 12 };
extern const int case_kinds[CASE_KINDS];
int case_reduces(int kind);

/* bytes: of the message, or of a part where there are several.  Members' lists are part of the case.  Of a barrier, too. */
void case_draw(struct ask *a, int kind, int n, size_t bytes, uint64_t *seed);
void case_forget(struct ask *a);
struct side case_side(const struct ask *a, int me);

/*
 * This member's input; its call on these buffers; that run as coll_somehow; whether the buffers hold afterwards what they must, 0 = no, with the difference
 * said.  The receive buffer is full of UNTOUCHED before; in place one buffer lies in the other.  null_send: where no byte is sent, the call says NULL.
 */
void case_input(const struct ask *a, const struct side *s, int me, char *send);
struct call case_call(const struct ask *a, const struct side *s, int me, char *send, char *recv, int null_send, int null_recv);
int case_run(struct comm *c, const struct ask *a, const struct side *s, char *send, char *recv, int null_send, int null_recv);
int case_right(const struct ask *a, const struct side *s, int me, const char *send, const char *recv);

#endif
