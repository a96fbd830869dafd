/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All-reduce, and reduce to one member.
 *
 *   small     everybody's data travels in the mails, and who gets the result reduces all of it
 *   one-shot  the same with data in the pools or staging areas: one wait less than the following, but n times the reading
 *   push      each member reduces its own slice, reading all members' buffers, and stores the result into the buffer of everyone who gets it
 *   pull      each member reduces its own slice into its own buffer, and everyone fetches the slices: no member writes another's memory
 *
 * Slices are fixed by member number, so the same core touches the same lines in every call; a line that one core reads and then writes changes hands
 * cheaply, one that two cores keep copies of does not: hence push.  Elements are always combined in member order, whatever the path: every member gets
 * the same bits.
 */
#include "collectives/call.h"
#include "collectives/parts.h"
#include "collectives/reduce.h"
#include "pool/base/os.h"
#include "pool/base/status.h"

#include <string.h>

/* Slice of a member in a round of n elements: whole pairs of cache lines, the last members' may be empty. */
static void slice_of(const struct request *r, int member, uint64_t n, uint64_t *begin, uint64_t *len) {
    uint64_t line = CACHE_LINE / r->unit, members = (uint64_t)r->c->n, m = (uint64_t)member;
    uint64_t per = round_up((n + members - 1) / members, line);
    *begin = m * per < n ? m * per : n;
    *len = n - *begin < per ? n - *begin : per;
}

static void own_slice(const struct request *r, uint64_t n, uint64_t *begin, uint64_t *len) {
    slice_of(r, r->c->me, n, begin, len);
}

static int gets_result(const struct request *r, int member) {
    return r->kind == OP_ALLREDUCE || member == r->root;
}

static void pack(const struct request *r, uint8_t *data) {
    memcpy(data, r->send, r->total);
}

static void combine(const struct request *r, void *result) {
    const char *src[MAX_WORLD];
    char *dst = result;
    for (int m = 0; m < r->c->n; m++)
        src[m] = m == r->c->me ? r->send : (const char *)request_mail(r, m);
    reduce_push(&dst, 1, src, r->c->n, r->count, r->dtype, r->op);
}

static void unpack(struct request *r) {
    if (gets_result(r, r->c->me)) combine(r, r->recv);
}

/* What the others need: all but our own slice. */
static void stage(const struct request *r, uint64_t at, uint64_t n, char *half) {
    uint64_t begin, len, size = r->unit;
    own_slice(r, n, &begin, &len);
    const char *send = (const char *)r->send + at * size;
    share_copy(&r->c->coll->crew, half, send, begin * size);
    share_copy(&r->c->coll->crew, half + (begin + len) * size, send + (begin + len) * size, (n - begin - len) * size);
}

/* Elements begin .. begin + len of the round in all members' buffers. */
static int sources(struct request *r, uint64_t begin, uint64_t len, const char **src) {
    uint64_t size = r->unit;
    for (int m = 0; m < r->c->n; m++) {
        src[m] = request_source(r, m, (r->done + begin) * size, begin * size, len * size);
        if (!src[m]) return request_corrupt(r, m, "send offset", r->c->member[m].at.send);
    }
    return SYP_OK;
}

static int push(struct request *r) {
    struct comm *c = r->c;
    const char *src[MAX_WORLD];
    char *dst[MAX_WORLD];
    uint64_t begin, len, size = r->unit;
    int n_dst = 0;
    own_slice(r, rounds_now(r), &begin, &len);
    if (len == 0) return SYP_OK;
    int rc = sources(r, begin, len, src);
    if (rc != SYP_OK) return rc;
    for (int m = 0; m < c->n; m++) {
        if (!gets_result(r, m)) continue;
        dst[n_dst] = request_target(r, m, (r->done + begin) * size, begin * size, len * size);
        if (!dst[n_dst++]) return request_corrupt(r, m, "receive offset", c->member[m].at.recv);
    }
    share_reduce(&c->coll->crew, dst, n_dst, src, c->n, len, r->dtype, r->op);
    return SYP_OK;
}

static void take(struct request *r, const char *half) {
    uint64_t begin, len, size = r->unit, n = rounds_now(r);
    own_slice(r, n, &begin, &len);
    char *recv = (char *)r->recv + r->done * size;
    part_deliver(r, recv, half, begin * size);
    part_deliver(r, recv + (begin + len) * size, half + (begin + len) * size, (n - begin - len) * size);
}

static const struct op_moves push_moves = {.pack = pack, .unpack = unpack, .combine = combine, .stage = stage, .move = push, .take = take};

/* ---------------------------------------------------------------------------------------------------- one-shot */

static void stage_all(const struct request *r, uint64_t at, uint64_t n, char *half) {
    share_copy(&r->c->coll->crew, half, (const char *)r->send + at * r->unit, n * r->unit);
}

static int reduce_all(struct request *r) {
    if (!gets_result(r, r->c->me)) return SYP_OK;
    const char *src[MAX_WORLD];
    char *dst = (char *)r->recv + r->done * r->unit;
    uint64_t n = rounds_now(r);
    int rc = sources(r, 0, n, src);
    if (rc == SYP_OK) share_reduce(&r->c->coll->crew, &dst, 1, src, r->c->n, n, r->dtype, r->op);
    return rc;
}

static const struct op_moves one_shot_moves = {.pack = pack, .unpack = unpack, .combine = combine, .stage = stage_all, .move = reduce_all};

/* -------------------------------------------------------------------------------------------------------- pull */

/* Our slice into our buffer, and to where the others find it. */
static int reduce_own(struct request *r) {
    const char *src[MAX_WORLD];
    char *dst[2];
    uint64_t begin, len, size = r->unit;
    own_slice(r, rounds_now(r), &begin, &len);
    if (len == 0) return SYP_OK;
    int rc = sources(r, begin, len, src);
    if (rc != SYP_OK) return rc;
    dst[0] = (char *)r->recv + (r->done + begin) * size;
    dst[1] = r->at.recv == AT_STAGED ? request_half(r, r->round) + begin * size : NULL;
    share_reduce(&r->c->coll->crew, dst, dst[1] ? 2 : 1, src, r->c->n, len, r->dtype, r->op);
    return SYP_OK;
}

static int fetch(struct request *r) {
    for (int m = 0; m < r->c->n; m++) {
        uint64_t begin, len, size = r->unit;
        slice_of(r, m, rounds_now(r), &begin, &len);
        if (m == r->c->me || len == 0) continue;
        const char *from = request_target(r, m, (r->done + begin) * size, begin * size, len * size);
        if (!from) return request_corrupt(r, m, "receive offset", r->c->member[m].at.recv);
        part_deliver(r, (char *)r->recv + (r->done + begin) * size, from, len * size);
    }
    return SYP_OK;
}

static const struct op_moves pull_moves = {.stage = stage, .move = reduce_own, .fetch = fetch};

/* -------------------------------------------------------------------------------------------------------- call */

static int judge(struct request *r, const struct call *call) {
    int rc = r->kind == OP_REDUCE ? call_root(r, call->root) : SYP_OK;
    if (rc == SYP_OK) rc = call_reduction(r, call->count, 1, call->dtype, call->op);
    if (rc == SYP_OK) rc = call_buffer(r, "send", r->send, r->total);
    if (rc != SYP_OK || !gets_result(r, r->c->me)) return rc;
    rc = call_buffer(r, "recv", r->recv, r->total);
    return rc == SYP_OK ? call_overlap(r, r->total, r->total, 0) : rc;
}

static enum coll_algorithm choose(const struct request *r) {
    const struct coll_conf *conf = &r->c->coll->conf;
    if (conf->algorithm == COLL_PULL) return r->kind == OP_REDUCE ? COLL_ONE_SHOT : COLL_PULL;
    if (conf->algorithm != COLL_AUTO) return (enum coll_algorithm)conf->algorithm;
    return r->total <= conf->one_shot && !r->c->parts ? COLL_ONE_SHOT : COLL_PUSH;
}

static void one_shot(struct request *r) {
    int gets = gets_result(r, r->c->me);
    r->one_shot = 1;
    r->moves = &one_shot_moves;
    r->always_staged = r->send == r->recv && gets;
    r->recv_len = 0;
    r->sources = gets ? EVERYBODY : NOBODY;
    r->readers = r->kind == OP_ALLREDUCE ? EVERYBODY : r->c->me == r->root ? NOBODY : THE_ROOT;
}

void setup_reduce(struct request *r, const struct call *call) {
    r->step = rounds_step;
    r->send = call->send;
    r->recv = call->recv;
    r->count = r->units = call->count;
    r->parts = 1;
    r->sources = r->readers = EVERYBODY;
    if (!r->error) r->error = judge(r, call);
    r->send_len = r->total;
    r->recv_len = gets_result(r, r->c->me) ? r->total : 0;
    r->mailed = r->total && r->total <= r->c->mail_max;
    enum coll_algorithm how = choose(r);
    r->moves = how == COLL_PULL ? &pull_moves : &push_moves;
    r->pushed = how == COLL_PUSH;
    if (how == COLL_ONE_SHOT) one_shot(r);
    if (r->kind != OP_ALLREDUCE) return;
    r->combined = r->mailed && r->total;
    r->together = !r->one_shot;
}
