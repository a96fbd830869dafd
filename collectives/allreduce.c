/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All-reduce.  Small: every member's data travels in its post and everybody reduces all of it.  Else "owner push" in rounds: each member
 * reduces its own slice, reading all members' buffers in member order, and stores the result into every member's buffer.
 *
 *   phase 2k+1: inputs of round k are readable      phase 2k+2: this member's slice of round k is in every buffer
 *
 * A buffer in its rank's pool is used where it lies; one outside goes through the rank's staging area.  When nobody stages, one round takes the
 * whole message; else rounds of the staging size.  Slices are fixed by member number, so the same core touches the same lines in every call.
 * Elements are always combined in member order, whatever the path: every member gets the same bits.
 */
#include "collectives/reduce.h"
#include "collectives/request.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"

#include <stdint.h>
#include <string.h>

enum { AR_START, AR_CHECK, AR_REDUCE, AR_SLICE_DONE, AR_COLLECT, AR_NEXT_IN, AR_NEXT_WAIT };

static uint64_t round_count(const struct request *r) {
    uint64_t left = r->count - r->done;
    return left < r->chunk ? left : r->chunk;
}

/* Slice of member m in a round of n elements: whole pairs of cache lines, the last ones may be empty. */
static void slice_of(const struct request *r, int m, uint64_t n, uint64_t *begin, uint64_t *len) {
    uint64_t line = CACHE_LINE / reduce_size(r->dtype);
    uint64_t per = round_up((n + (uint64_t)r->c->n - 1) / (uint64_t)r->c->n, line);
    *begin = (uint64_t)m * per < n ? (uint64_t)m * per : n;
    *len = n - *begin < per ? n - *begin : per;
}

static void small_result(struct request *r) {
    const char *src[MAX_WORLD];
    char *dst = r->recv;
    for (int m = 0; m < r->c->n; m++)
        src[m] = (const char *)request_payload(r, m);
    reduce_push(&dst, 1, src, r->c->n, r->count, r->dtype, r->op);
}

/* Reduce own slice of this round into everybody's buffer. */
static int reduce_slice(struct request *r) {
    struct comm *c = r->c;
    const char *src[MAX_WORLD];
    char *dst[MAX_WORLD];
    uint64_t begin, len, size = reduce_size(r->dtype);
    slice_of(r, c->me, round_count(r), &begin, &len);
    if (len == 0) return SYP_OK;
    for (int m = 0; m < c->n; m++) {
        src[m] = request_source(r, m, (r->done + begin) * size, begin * size, len * size);
        dst[m] = request_target(r, m, (r->done + begin) * size, begin * size, len * size);
        if (!src[m]) return request_corrupt(r, m, "send offset", c->member[m].send_off);
        if (!dst[m]) return request_corrupt(r, m, "receive offset", c->member[m].recv_off);
    }
    reduce_push(dst, c->n, src, c->n, len, r->dtype, r->op);
    return SYP_OK;
}

static void copy_in(struct request *r) {
    if (r->c->member[r->c->me].flags & POST_SEND_IN_POOL) return;
    uint64_t size = reduce_size(r->dtype);
    memcpy(r->staging, (const char *)r->send + r->done * size, round_count(r) * size);
}

static void copy_out(struct request *r) {
    if (r->c->member[r->c->me].flags & POST_RECV_IN_POOL) return;
    uint64_t size = reduce_size(r->dtype);
    memcpy((char *)r->recv + r->done * size, r->staging, round_count(r) * size);
}

/* Before the post: small data into the post, or the first chunk into the staging area, when our buffers need it. */
static void start(struct request *r) {
    uint64_t off;
    if (r->error || r->count == 0) return;
    if (r->bytes <= POST_PAYLOAD) {
        memcpy(r->payload, r->send, r->bytes);
        r->payload_len = (unsigned)r->bytes;
        return;
    }
    r->chunk = r->c->coll->conf.staging / reduce_size(r->dtype);
    int send_in = request_in_pool(r, r->send, r->bytes, &off), recv_in = request_in_pool(r, r->recv, r->bytes, &off);
    if (send_in && recv_in) return;
    r->error = request_staging(r);
    if (!r->error && !send_in) memcpy(r->staging, r->send, round_count(r) * reduce_size(r->dtype));
}

static int allreduce_step(struct request *r) {
    struct comm *c = r->c;
    int rc;
    for (;;) switch (r->state) {
        case AR_START:
            start(r);
            request_post(r);
            r->state = AR_CHECK;
            break;
        case AR_CHECK:
            if ((rc = request_check(r)) != SYP_OK) return rc;
            if (r->bytes <= POST_PAYLOAD) {
                r->staged_any = 0;
                if (r->count) small_result(r);
                return SYP_OK;
            }
            if (!r->staged_any) r->chunk = r->count;
            r->state = AR_REDUCE;
            break;
        case AR_REDUCE:
            TEST_POINT("allreduce.reduce");
            if ((rc = wait_aborted(r)) != SYP_OK || (rc = reduce_slice(r)) != SYP_OK) return rc;
            comm_publish(c);
            r->state = AR_SLICE_DONE;
            break;
        case AR_SLICE_DONE:
            if (!request_all_at(r, c->phase)) return REQUEST_BLOCKED;
            /* a member that gave up may have changed its buffer while we read it */
            if ((rc = wait_aborted(r)) != SYP_OK) return rc;
            r->state = AR_COLLECT;
            break;
        case AR_COLLECT:
            copy_out(r);
            r->done += round_count(r);
            if (r->done == r->count) return SYP_OK;
            r->state = AR_NEXT_IN;
            break;
        case AR_NEXT_IN:
            copy_in(r);
            TEST_POINT("allreduce.staged");
            comm_publish(c);
            r->state = AR_NEXT_WAIT;
            break;
        case AR_NEXT_WAIT:
            if (!request_all_at(r, c->phase)) return REQUEST_BLOCKED;
            r->state = AR_REDUCE;
            break;
        }
}

/* The arguments, as far as this rank can judge them alone. */
static int check_call(const void *send, const void *recv, size_t count, int dtype, int op) {
    uint64_t size = reduce_size(dtype), bytes;
    if (!size) return err_set(SYP_EINVAL, "allreduce: dtype %d is not one of SYP_FLOAT32, SYP_FLOAT64, SYP_INT32, SYP_INT64", dtype);
    if (!reduce_op_known(op)) return err_set(SYP_EINVAL, "allreduce: op %d is not one of SYP_SUM, SYP_MIN, SYP_MAX", op);
    if (__builtin_mul_overflow((uint64_t)count, size, &bytes) || bytes > PTRDIFF_MAX)
        return err_set(SYP_EINVAL, "allreduce: count is %llu; so many elements of %s exceed PTRDIFF_MAX bytes", (unsigned long long)count,
                       reduce_dtype_name(dtype));
    if (count && !send) return err_set(SYP_EINVAL, "allreduce: send is NULL for %llu elements", (unsigned long long)count);
    if (count && !recv) return err_set(SYP_EINVAL, "allreduce: recv is NULL for %llu elements", (unsigned long long)count);
    uintptr_t s = (uintptr_t)send, d = (uintptr_t)recv;
    if (s != d && s < d + bytes && d < s + bytes)
        return err_set(SYP_EINVAL, "allreduce: send and recv overlap in part; use the same buffer or separate ones");
    return SYP_OK;
}

int coll_allreduce(struct comm *c, const void *send, void *recv, size_t count, int dtype, int op, int64_t timeout_ns) {
    struct request r;
    int rc = request_begin(&r, c, OP_ALLREDUCE, timeout_ns);
    if (rc != SYP_OK) return rc;
    r.step = allreduce_step;
    r.pushed = 1;
    r.send = send;
    r.recv = recv;
    r.count = count;
    r.dtype = dtype;
    r.op = op;
    if (!r.error) r.error = check_call(send, recv, count, dtype, op);
    r.bytes = r.error ? 0 : count * reduce_size(dtype);
    return request_run(&r);
}
