/* SPDX-License-Identifier: Apache-2.0 */
/* The collectives as functions on a group of a test's own, without a process's world. */
#ifndef TESTS_OPS_H
#define TESTS_OPS_H

#include "collectives/queue.h"

#include <sched.h>

/* Run it as a blocking call, as a request that is waited for, or as one that is asked for until it has ended: each member its own way. */
static inline int coll_somehow(struct comm *c, const struct call *call) {
    uint64_t id, way = (c->sequence + (uint64_t)c->me) % 3;
    int done = 0, rc;
    if (way == 0) return coll_run(c, call, 0);
    rc = queue_add(c, "test", call, 0, &id);
    if (rc != SYP_OK || way == 1) return rc == SYP_OK ? queue_wait(c, id) : rc;
    while ((rc = queue_test(c, id, &done)) == SYP_OK && !done)
        sched_yield();
    return rc;
}

static inline int coll_barrier(struct comm *c, int64_t timeout_ns) {
    return coll_run(c, &(struct call){.kind = OP_BARRIER}, timeout_ns);
}

static inline int coll_broadcast(struct comm *c, void *buf, size_t len, int root, int64_t timeout_ns) {
    return coll_run(c, &(struct call){.kind = OP_BROADCAST, .recv = buf, .count = len, .root = root}, timeout_ns);
}

static inline int coll_allreduce(struct comm *c, const void *send, void *recv, size_t count, int dtype, int op, int64_t timeout_ns) {
    return coll_run(c, &(struct call){.kind = OP_ALLREDUCE, .send = send, .recv = recv, .count = count, .dtype = dtype, .op = op}, timeout_ns);
}

static inline int coll_reduce(struct comm *c, const void *send, void *recv, size_t count, int dtype, int op, int root, int64_t timeout_ns) {
    struct call call = {.kind = OP_REDUCE, .send = send, .recv = recv, .count = count, .dtype = dtype, .op = op, .root = root};
    return coll_run(c, &call, timeout_ns);
}

static inline int coll_reduce_scatter(struct comm *c, const void *send, void *recv, size_t count, int dtype, int op, int64_t timeout_ns) {
    return coll_run(c, &(struct call){.kind = OP_REDUCE_SCATTER, .send = send, .recv = recv, .count = count, .dtype = dtype, .op = op}, timeout_ns);
}

static inline int coll_allgather(struct comm *c, const void *send, void *recv, size_t len, int64_t timeout_ns) {
    return coll_run(c, &(struct call){.kind = OP_ALLGATHER, .send = send, .recv = recv, .count = len}, timeout_ns);
}

/* kind: OP_GATHER, OP_SCATTER. */
static inline int coll_gather(struct comm *c, int kind, const void *send, void *recv, size_t len, int root, int64_t timeout_ns) {
    return coll_run(c, &(struct call){.kind = kind, .send = send, .recv = recv, .count = len, .root = root}, timeout_ns);
}

static inline int coll_allgather_rows(struct comm *c, const void *send, void *recv, size_t rows, size_t len, int64_t timeout_ns) {
    return coll_run(c, &(struct call){.kind = OP_ALLGATHER_ROWS, .send = send, .recv = recv, .rows = rows, .count = len}, timeout_ns);
}

static inline int coll_alltoall(struct comm *c, const void *send, void *recv, size_t len, int64_t timeout_ns) {
    return coll_run(c, &(struct call){.kind = OP_ALLTOALL, .send = send, .recv = recv, .count = len}, timeout_ns);
}

/* Sends and expects the same lengths at the same places. */
static inline int coll_alltoallv(struct comm *c, const void *send, void *recv, const size_t *lens, const size_t *offs, int64_t timeout_ns) {
    struct call call = {.kind = OP_ALLTOALLV, .send = send, .recv = recv, .send_lens = lens, .send_offs = offs, .recv_lens = lens, .recv_offs = offs};
    return coll_run(c, &call, timeout_ns);
}

#endif
