/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All-reduce, and reduce to one member.  Small: everybody's data travels in the mails, and who gets the result reduces all of it.  Else "owner push": each
 * member reduces its own slice, reading all members' buffers, and stores the result into the buffer of everyone who gets it.
 *
 * Slices are fixed by member number, so the same core touches the same lines in every call; a line that one core reads and then writes changes hands
 * cheaply, one that two cores keep copies of does not.  Elements are always combined in member order, whatever the path: every member gets the same bits.
 */
#include "collectives/call.h"
#include "collectives/reduce.h"
#include "pool/base/os.h"
#include "pool/base/status.h"

#include <string.h>

/* Slice of this member in a round of n elements: whole pairs of cache lines, the last members' may be empty. */
static void own_slice(const struct request *r, uint64_t n, uint64_t *begin, uint64_t *len) {
    uint64_t line = CACHE_LINE / r->unit, members = (uint64_t)r->c->n, me = (uint64_t)r->c->me;
    uint64_t per = round_up((n + members - 1) / members, line);
    *begin = me * per < n ? me * per : n;
    *len = n - *begin < per ? n - *begin : per;
}

static int gets_result(const struct request *r, int member) {
    return r->kind == OP_ALLREDUCE || member == r->root;
}

static void pack(const struct request *r, uint8_t *data) {
    memcpy(data, r->send, r->total);
}

static void unpack(struct request *r) {
    if (!gets_result(r, r->c->me)) return;
    const char *src[MAX_WORLD];
    char *dst = r->recv;
    for (int m = 0; m < r->c->n; m++)
        src[m] = (const char *)request_mail(r, m);
    reduce_push(&dst, 1, src, r->c->n, r->count, r->dtype, r->op);
}

/* What the others need: all but our own slice. */
static void stage(const struct request *r, uint64_t at, uint64_t n, char *half) {
    uint64_t begin, len, size = r->unit;
    own_slice(r, n, &begin, &len);
    const char *send = (const char *)r->send + at * size;
    memcpy(half, send, begin * size);
    memcpy(half + (begin + len) * size, send + (begin + len) * size, (n - begin - len) * size);
}

static int move(struct request *r) {
    struct comm *c = r->c;
    const char *src[MAX_WORLD];
    char *dst[MAX_WORLD];
    uint64_t begin, len, size = r->unit;
    int n_dst = 0;
    own_slice(r, rounds_now(r), &begin, &len);
    if (len == 0) return SYP_OK;
    for (int m = 0; m < c->n; m++) {
        src[m] = request_source(r, m, (r->done + begin) * size, begin * size, len * size);
        if (!src[m]) return request_corrupt(r, m, "send offset", c->member[m].at.send);
        if (!gets_result(r, m)) continue;
        dst[n_dst] = request_target(r, m, (r->done + begin) * size, begin * size, len * size);
        if (!dst[n_dst++]) return request_corrupt(r, m, "receive offset", c->member[m].at.recv);
    }
    reduce_push(dst, n_dst, src, c->n, len, r->dtype, r->op);
    return SYP_OK;
}

static void take(struct request *r, const char *half) {
    uint64_t begin, len, size = r->unit, n = rounds_now(r);
    own_slice(r, n, &begin, &len);
    char *recv = (char *)r->recv + r->done * size;
    memcpy(recv, half, begin * size);
    memcpy(recv + (begin + len) * size, half + (begin + len) * size, (n - begin - len) * size);
}

static const struct op_moves reduce_moves = {pack, unpack, stage, move, take};

static int judge(struct request *r, const struct call *call) {
    int rc = r->kind == OP_REDUCE ? call_root(r, call->root) : SYP_OK;
    if (rc == SYP_OK) rc = call_reduction(r, call->count, 1, call->dtype, call->op);
    if (rc == SYP_OK) rc = call_buffer(r, "send", r->send, r->total);
    if (rc != SYP_OK || !gets_result(r, r->c->me)) return rc;
    rc = call_buffer(r, "recv", r->recv, r->total);
    return rc == SYP_OK ? call_overlap(r, r->total, r->total, 0) : rc;
}

void setup_reduce(struct request *r, const struct call *call) {
    r->step = rounds_step;
    r->moves = &reduce_moves;
    r->send = call->send;
    r->recv = call->recv;
    r->count = r->units = call->count;
    r->parts = 1;
    r->pushed = 1;
    r->sources = r->readers = EVERYBODY;
    if (!r->error) r->error = judge(r, call);
    r->send_len = r->total;
    r->recv_len = gets_result(r, r->c->me) ? r->total : 0;
    r->mailed = r->total <= MAIL_DATA;
}
