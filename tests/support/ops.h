/* SPDX-License-Identifier: Apache-2.0 */
/* The collectives as functions on a group of a test's own, without a process's world. */
#ifndef TESTS_OPS_H
#define TESTS_OPS_H

#include "collectives/call.h"

static inline int coll_barrier(struct comm *c, int64_t timeout_ns) {
    return coll_run(c, &(struct call){.kind = OP_BARRIER}, timeout_ns);
}

static inline int coll_broadcast(struct comm *c, void *buf, size_t len, int root, int64_t timeout_ns) {
    return coll_run(c, &(struct call){.kind = OP_BROADCAST, .recv = buf, .count = len, .root = root}, timeout_ns);
}

static inline int coll_allreduce(struct comm *c, const void *send, void *recv, size_t count, int dtype, int op, int64_t timeout_ns) {
    return coll_run(c, &(struct call){.kind = OP_ALLREDUCE, .send = send, .recv = recv, .count = count, .dtype = dtype, .op = op}, timeout_ns);
}

#endif
