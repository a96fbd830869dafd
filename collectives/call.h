/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The call of a collective: what the caller asks for, and what becomes of it.
 *
 * Each kind has a setup function in its own file, which judges the arguments as far as this rank can alone, and fills in the request.  A refused call is posted
 * all the same (r->error), so that the other members learn of it.
 */
#ifndef SYP_COLLECTIVES_CALL_H
#define SYP_COLLECTIVES_CALL_H

#include "collectives/request.h"

/* Arguments as of the public function of that kind; those it does not have are 0. */
struct call {
    int kind; /* OP_* */
    int dtype, op, root;
    const void *send;
    void *recv;
    size_t count; /* or bytes */
    size_t rows, send_stride, recv_stride;
    const size_t *send_lens, *send_offs, *recv_lens, *recv_offs; /* of the v forms; counts and lens of reduce_scatterv and allgatherv are send_lens */
};

/* Run it to its end.  timeout_ns: 0 = the default, < 0 = refused. */
int coll_run(struct comm *c, const struct call *call, int64_t timeout_ns);
/* quick.c: 1 = done.  0 = not; posted: the operation has begun and our mail is out. */
int quick_run(struct comm *c, const struct call *call, int *posted);
/* Fill in a numbered request. */
void call_setup(struct request *r, const struct call *call);

void setup_barrier(struct request *r, const struct call *call);
void setup_broadcast(struct request *r, const struct call *call);
void setup_reduce(struct request *r, const struct call *call); /* all-reduce, too */
void setup_reduce_scatter(struct request *r, const struct call *call); /* reduce_scatterv, too */
void setup_allgather(struct request *r, const struct call *call);      /* allgatherv, too */
void setup_allgather_rows(struct request *r, const struct call *call);
void setup_gather(struct request *r, const struct call *call); /* scatter, too */
void setup_alltoall(struct request *r, const struct call *call);
void setup_alltoallv(struct request *r, const struct call *call);

/* For the setup functions.  Each returns SYP_OK, or SYP_EINVAL with the record set. */

/* Sets r->root. */
int call_root(struct request *r, int root);
/* Of `parts` times `count` elements: sets r->dtype, op, unit and total. */
int call_reduction(struct request *r, uint64_t count, uint64_t parts, int dtype, int op);
/* Of `parts` times `len` bytes: sets r->unit and total. */
int call_bytes(struct request *r, uint64_t len, uint64_t parts);
/* A buffer that is needed. */
int call_buffer(const struct request *r, const char *name, const void *buf, uint64_t len);
/* send and recv: apart, or, in place, recv == send + in_place (or send == recv + in_place where send is the smaller one).  in_place: UINT64_MAX = never. */
int call_overlap(const struct request *r, uint64_t send_len, uint64_t recv_len, uint64_t in_place);

#endif
