/* SPDX-License-Identifier: Apache-2.0 */
/* From a call to its request; judging arguments. */
#include "collectives/call.h"
#include "collectives/reduce.h"
#include "pool/base/status.h"

void call_setup(struct request *r, const struct call *call) {
    switch (call->kind) {
    case OP_BARRIER:
        setup_barrier(r, call);
        break;
    case OP_BROADCAST:
        setup_broadcast(r, call);
        break;
    case OP_ALLREDUCE:
    case OP_REDUCE:
        setup_reduce(r, call);
        break;
    case OP_REDUCE_SCATTER:
    case OP_REDUCE_SCATTERV:
        setup_reduce_scatter(r, call);
        break;
    case OP_ALLGATHER:
    case OP_ALLGATHERV:
        setup_allgather(r, call);
        break;
    case OP_ALLGATHER_ROWS:
        setup_allgather_rows(r, call);
        break;
    case OP_GATHER:
    case OP_SCATTER:
        setup_gather(r, call);
        break;
    case OP_ALLTOALL:
        setup_alltoall(r, call);
        break;
    case OP_ALLTOALLV:
        setup_alltoallv(r, call);
        break;
    }
}

int coll_run(struct comm *c, const struct call *call, int64_t timeout_ns) {
    int posted = 0, rc = request_take(c, call->kind);
    if (rc != SYP_OK) return rc;
    if (timeout_ns >= 0 && quick_run(c, call, &posted)) {
        request_release(c);
        return SYP_OK;
    }
    struct request r;
    request_number(&r, c, call->kind, timeout_ns, posted);
    call_setup(&r, call);
    return request_run(&r);
}

int call_root(struct request *r, int root) {
    if (root < 0 || root >= r->c->n)
        return err_set(SYP_EINVAL, "%s: root is %d, outside 0 .. %d", op_name(r->kind), root, r->c->n - 1);
    r->root = root;
    return SYP_OK;
}

int call_bytes(struct request *r, uint64_t len, uint64_t parts) {
    uint64_t total;
    if (__builtin_mul_overflow(len, parts, &total) || total > PTRDIFF_MAX)
        return err_set(SYP_EINVAL, "%s: len is %llu; %llu times as many bytes exceed PTRDIFF_MAX", op_name(r->kind), (unsigned long long)len,
                       (unsigned long long)parts);
    r->unit = 1;
    r->total = total;
    return SYP_OK;
}

int call_reduction(struct request *r, uint64_t count, uint64_t parts, int dtype, int op) {
    uint64_t size = reduce_size(dtype), len;
    if (!size) return err_set(SYP_EINVAL, "%s: dtype %d is none of the SYP_FLOAT64 .. SYP_UINT64 of sympool.h", op_name(r->kind), dtype);
    if (!reduce_op_known(op)) return err_set(SYP_EINVAL, "%s: op %d is none of SYP_SUM, SYP_MIN, SYP_MAX, SYP_PROD, SYP_AVG", op_name(r->kind), op);
    if (__builtin_mul_overflow(count, size, &len) || len > PTRDIFF_MAX / parts)
        return err_set(SYP_EINVAL, "%s: count is %llu; so many elements of %s exceed PTRDIFF_MAX bytes", op_name(r->kind), (unsigned long long)count,
                       reduce_dtype_name(dtype));
    r->total = len * parts;
    r->unit = size;
    r->dtype = dtype;
    r->op = op;
    return SYP_OK;
}

int call_buffer(const struct request *r, const char *name, const void *buf, uint64_t len) {
    if (buf || !len) return SYP_OK;
    return err_set(SYP_EINVAL, "%s: %s is NULL for %llu bytes", op_name(r->kind), name, (unsigned long long)len);
}

int call_overlap(const struct request *r, uint64_t send_len, uint64_t recv_len, uint64_t in_place) {
    uintptr_t s = (uintptr_t)r->send, d = (uintptr_t)r->recv;
    if (s >= d + recv_len || d >= s + send_len || !send_len || !recv_len) return SYP_OK;
    if (in_place != UINT64_MAX && (send_len <= recv_len ? s == d + in_place : d == s + in_place)) return SYP_OK;
    return err_set(SYP_EINVAL, "%s: send and recv overlap%s", op_name(r->kind),
                   in_place == UINT64_MAX ? "; use separate buffers" : " in part; use the buffers in place as documented, or separate ones");
}
