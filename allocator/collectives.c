/* SPDX-License-Identifier: Apache-2.0 */
/* The C face of the collectives: arguments become the record of a call; everything about them is judged below. */
#include "allocator/groups.h"
#include "collectives/call.h"
#include "pool/base/status.h"

static int run(const char *name, syp_comm *comm, const syp_call *options, const struct call *call) {
    struct comm *c = NULL;
    int64_t timeout;
    int rc = find_call(name, comm, options, &c, &timeout);
    return rc == SYP_OK ? coll_run(c, call, timeout) : rc;
}

int syp_barrier(syp_comm *comm, const syp_call *call) {
    return run("barrier", comm, call, &(struct call){.kind = OP_BARRIER});
}

int syp_broadcast(void *buf, size_t len, int root, syp_comm *comm, const syp_call *call) {
    return run("broadcast", comm, call, &(struct call){.kind = OP_BROADCAST, .recv = buf, .count = len, .root = root});
}

int syp_allreduce(const void *send, void *recv, size_t count, syp_dtype dtype, syp_op op, syp_comm *comm, const syp_call *call) {
    struct call what = {.kind = OP_ALLREDUCE, .send = send, .recv = recv, .count = count, .dtype = (int)dtype, .op = (int)op};
    return run("allreduce", comm, call, &what);
}

int syp_reduce(const void *send, void *recv, size_t count, syp_dtype dtype, syp_op op, int root, syp_comm *comm, const syp_call *call) {
    struct call what = {.kind = OP_REDUCE, .send = send, .recv = recv, .count = count, .dtype = (int)dtype, .op = (int)op, .root = root};
    return run("reduce", comm, call, &what);
}

int syp_reduce_scatter(const void *send, void *recv, size_t count, syp_dtype dtype, syp_op op, syp_comm *comm, const syp_call *call) {
    struct call what = {.kind = OP_REDUCE_SCATTER, .send = send, .recv = recv, .count = count, .dtype = (int)dtype, .op = (int)op};
    return run("reduce_scatter", comm, call, &what);
}

int syp_reduce_scatterv(const void *send, void *recv, const size_t *counts, syp_dtype dtype, syp_op op, syp_comm *comm, const syp_call *call) {
    struct call what = {.kind = OP_REDUCE_SCATTERV, .send = send, .recv = recv, .send_lens = counts, .dtype = (int)dtype, .op = (int)op};
    return run("reduce_scatterv", comm, call, &what);
}

int syp_allgather(const void *send, void *recv, size_t len, syp_comm *comm, const syp_call *call) {
    return run("allgather", comm, call, &(struct call){.kind = OP_ALLGATHER, .send = send, .recv = recv, .count = len});
}

int syp_allgatherv(const void *send, void *recv, const size_t *lens, syp_comm *comm, const syp_call *call) {
    return run("allgatherv", comm, call, &(struct call){.kind = OP_ALLGATHERV, .send = send, .recv = recv, .send_lens = lens});
}

int syp_allgather_rows(const void *send, void *recv, size_t rows, size_t len, size_t send_stride, size_t recv_stride, syp_comm *comm,
                       const syp_call *call) {
    struct call what = {.kind = OP_ALLGATHER_ROWS, .send = send, .recv = recv, .rows = rows, .count = len,
                        .send_stride = send_stride, .recv_stride = recv_stride};
    return run("allgather_rows", comm, call, &what);
}

int syp_gather(const void *send, void *recv, size_t len, int root, syp_comm *comm, const syp_call *call) {
    return run("gather", comm, call, &(struct call){.kind = OP_GATHER, .send = send, .recv = recv, .count = len, .root = root});
}

int syp_scatter(const void *send, void *recv, size_t len, int root, syp_comm *comm, const syp_call *call) {
    return run("scatter", comm, call, &(struct call){.kind = OP_SCATTER, .send = send, .recv = recv, .count = len, .root = root});
}

int syp_alltoall(const void *send, void *recv, size_t len, syp_comm *comm, const syp_call *call) {
    return run("alltoall", comm, call, &(struct call){.kind = OP_ALLTOALL, .send = send, .recv = recv, .count = len});
}

int syp_alltoallv(const void *send, const size_t *send_lens, const size_t *send_offs, void *recv, const size_t *recv_lens,
                  const size_t *recv_offs, syp_comm *comm, const syp_call *call) {
    struct call what = {.kind = OP_ALLTOALLV, .send = send, .recv = recv, .send_lens = send_lens, .send_offs = send_offs,
                        .recv_lens = recv_lens, .recv_offs = recv_offs};
    return run("alltoallv", comm, call, &what);
}
