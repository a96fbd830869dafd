/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arguments of a call, as far as this rank can judge them alone.  Each returns SYP_OK or SYP_EINVAL with the record set; a refused call is
 * posted all the same, so that the other members learn of it.
 */
#ifndef SYP_COLLECTIVES_CALL_H
#define SYP_COLLECTIVES_CALL_H

#include "collectives/request.h"

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
