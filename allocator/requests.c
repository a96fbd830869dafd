/* SPDX-License-Identifier: Apache-2.0 */
/* The C face of non-blocking collectives. */
#include "allocator/groups.h"
#include "allocator/process.h"
#include "collectives/queue.h"
#include "pool/base/status.h"

/* A handle is the number of its request: see queue.c. */
static int start(const char *name, const syp_comm *comm, const syp_call *options, syp_request **out, const struct call *what) {
    struct comm *c = NULL;
    int64_t timeout;
    uint64_t id = 0;
    if (out) *out = NULL;
    int rc = find_call(name, comm, options, &c, &timeout);
    if (rc != SYP_OK) return rc;
    rc = out ? queue_add(c, name, what, timeout, &id) : err_set(SYP_EINVAL, "%s: out is NULL", name);
    if (rc != SYP_OK) return err_operation(name);
    *out = (syp_request *)(uintptr_t)id;
    return SYP_OK;
}

int syp_ibarrier(syp_comm *comm, const syp_call *call, syp_request **out) {
    return start("ibarrier", comm, call, out, &(struct call){.kind = OP_BARRIER});
}

int syp_ibroadcast(void *buf, size_t len, int root, syp_comm *comm, const syp_call *call, syp_request **out) {
    return start("ibroadcast", comm, call, out, &(struct call){.kind = OP_BROADCAST, .recv = buf, .count = len, .root = root});
}

int syp_iallreduce(const void *send, void *recv, size_t count, syp_dtype dtype, syp_op op, syp_comm *comm, const syp_call *call,
                   syp_request **out) {
    struct call what = {.kind = OP_ALLREDUCE, .send = send, .recv = recv, .count = count, .dtype = (int)dtype, .op = (int)op};
    return start("iallreduce", comm, call, out, &what);
}

int syp_ireduce(const void *send, void *recv, size_t count, syp_dtype dtype, syp_op op, int root, syp_comm *comm, const syp_call *call,
                syp_request **out) {
    struct call what = {.kind = OP_REDUCE, .send = send, .recv = recv, .count = count, .dtype = (int)dtype, .op = (int)op, .root = root};
    return start("ireduce", comm, call, out, &what);
}

int syp_ireduce_scatter(const void *send, void *recv, size_t count, syp_dtype dtype, syp_op op, syp_comm *comm, const syp_call *call,
                        syp_request **out) {
    struct call what = {.kind = OP_REDUCE_SCATTER, .send = send, .recv = recv, .count = count, .dtype = (int)dtype, .op = (int)op};
    return start("ireduce_scatter", comm, call, out, &what);
}

int syp_ireduce_scatterv(const void *send, void *recv, const size_t *counts, syp_dtype dtype, syp_op op, syp_comm *comm,
                         const syp_call *call, syp_request **out) {
    struct call what = {.kind = OP_REDUCE_SCATTERV, .send = send, .recv = recv, .send_lens = counts, .dtype = (int)dtype, .op = (int)op};
    return start("ireduce_scatterv", comm, call, out, &what);
}

int syp_iallgather(const void *send, void *recv, size_t len, syp_comm *comm, const syp_call *call, syp_request **out) {
    return start("iallgather", comm, call, out, &(struct call){.kind = OP_ALLGATHER, .send = send, .recv = recv, .count = len});
}

int syp_iallgatherv(const void *send, void *recv, const size_t *lens, syp_comm *comm, const syp_call *call, syp_request **out) {
    return start("iallgatherv", comm, call, out, &(struct call){.kind = OP_ALLGATHERV, .send = send, .recv = recv, .send_lens = lens});
}

int syp_iallgather_rows(const void *send, void *recv, size_t rows, size_t len, size_t send_stride, size_t recv_stride, syp_comm *comm,
                        const syp_call *call, syp_request **out) {
    struct call what = {.kind = OP_ALLGATHER_ROWS, .send = send, .recv = recv, .rows = rows, .count = len,
                        .send_stride = send_stride, .recv_stride = recv_stride};
    return start("iallgather_rows", comm, call, out, &what);
}

int syp_igather(const void *send, void *recv, size_t len, int root, syp_comm *comm, const syp_call *call, syp_request **out) {
    return start("igather", comm, call, out, &(struct call){.kind = OP_GATHER, .send = send, .recv = recv, .count = len, .root = root});
}

int syp_iscatter(const void *send, void *recv, size_t len, int root, syp_comm *comm, const syp_call *call, syp_request **out) {
    return start("iscatter", comm, call, out, &(struct call){.kind = OP_SCATTER, .send = send, .recv = recv, .count = len, .root = root});
}

int syp_ialltoall(const void *send, void *recv, size_t len, syp_comm *comm, const syp_call *call, syp_request **out) {
    return start("ialltoall", comm, call, out, &(struct call){.kind = OP_ALLTOALL, .send = send, .recv = recv, .count = len});
}

int syp_ialltoallv(const void *send, const size_t *send_lens, const size_t *send_offs, void *recv, const size_t *recv_lens,
                   const size_t *recv_offs, syp_comm *comm, const syp_call *call, syp_request **out) {
    struct call what = {.kind = OP_ALLTOALLV, .send = send, .recv = recv, .send_lens = send_lens, .send_offs = send_offs,
                        .recv_lens = recv_lens, .recv_offs = recv_offs};
    return start("ialltoallv", comm, call, out, &what);
}

/* ------------------------------------------------------------------------------------------------- progress */

/* Attached, and a handle that might be one. */
static int find(const char *name, const syp_request *request, struct comm **out) {
    struct world *w = NULL;
    int rc = process_need(name, &w);
    if (rc != SYP_OK) return rc;
    if (!request) {
        err_set(SYP_EINVAL, "%s: request is NULL", name);
        return err_operation(name);
    }
    *out = queue_group(&w->coll, (uintptr_t)request);
    return SYP_OK;
}

int syp_test(syp_request *request, int *done) {
    struct comm *c = NULL;
    if (done) *done = 0;
    int rc = find("test", request, &c);
    if (rc == SYP_OK && !done) {
        err_set(SYP_EINVAL, "test: done is NULL; it is told whether the request has ended");
        rc = err_operation("test");
    }
    return rc == SYP_OK ? queue_test(c, (uintptr_t)request, done) : rc;
}

int syp_wait(syp_request *request) {
    struct comm *c = NULL;
    int rc = find("wait", request, &c);
    return rc == SYP_OK ? queue_wait(c, (uintptr_t)request) : rc;
}

int syp_cancel(syp_request *request) {
    struct comm *c = NULL;
    int rc = find("cancel", request, &c);
    return rc == SYP_OK ? queue_cancel(c, (uintptr_t)request) : rc;
}
