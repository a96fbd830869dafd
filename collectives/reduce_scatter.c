/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reduce-scatter, of equal parts and of different ones.  Each member reduces its own part, reading it from all members' mails, pools or staging areas, straight
 * into its receive buffer.  Nobody stores into another member's memory.  Elements are combined in member order.
 */
#include "collectives/call.h"
#include "collectives/parts.h"
#include "pool/base/status.h"

static void pack(const struct request *r, uint8_t *data) {
    part_copy(r, data, r->send, r->total);
}

/* What the others need of us: all parts but our own. */
static void stage(const struct request *r, uint64_t at, uint64_t n, char *half) {
    uint64_t begin = at * r->unit;
    for (int m = 0; m < r->c->n; m++) {
        uint64_t len = part_clip(part_units(r, m), at, n) * r->unit;
        if (m != r->c->me) part_copy(r, half + part_staged_at(r, m), (const char *)r->send + begin, len);
        begin += part_bytes(r, m);
    }
}

static int reduce_part(struct request *r) {
    struct comm *c = r->c;
    const char *src[MAX_WORLD];
    uint64_t len = part_clip(part_units(r, c->me), r->done, rounds_now(r));
    if (len == 0) return SYP_OK;
    uint64_t at = part_begin(r, c->me) + r->done * r->unit, staged_at = part_staged_at(r, c->me);
    for (int m = 0; m < c->n; m++) {
        src[m] = part_source(r, m, at, staged_at, len * r->unit);
        if (!src[m]) return request_corrupt(r, m, "send offset", c->member[m].at.send);
    }
    char *dst = (char *)r->recv + r->done * r->unit;
    share_reduce(&r->c->coll->crew, &dst, 1, src, c->n, len, r->dtype, r->op);
    return SYP_OK;
}

static const struct op_moves reduce_scatter_moves = {.pack = pack, .unpack = parts_unpack, .stage = stage, .move = reduce_part};

static int judge(struct request *r, const struct call *call) {
    int v = r->kind == OP_REDUCE_SCATTERV, me = r->c->me;
    int rc = call_reduction(r, v ? 0 : call->count, (uint64_t)r->c->n, call->dtype, call->op);
    if (rc != SYP_OK) return rc;
    if (v)
        rc = parts_of_list(r, "counts", call->send_lens);
    else
        r->count = r->units = r->part_len = call->count;
    if (rc == SYP_OK) rc = call_buffer(r, "send", r->send, r->total);
    if (rc == SYP_OK) rc = call_buffer(r, "recv", r->recv, part_bytes(r, me));
    return rc == SYP_OK ? call_overlap(r, r->total, part_bytes(r, me), part_begin(r, me)) : rc;
}

void setup_reduce_scatter(struct request *r, const struct call *call) {
    r->step = rounds_step;
    r->moves = &reduce_scatter_moves;
    r->send = call->send;
    r->recv = call->recv;
    r->parts = (uint64_t)r->c->n;
    r->sources = r->readers = EVERYBODY;
    if (!r->error) r->error = judge(r, call);
    r->mailed = r->total && r->total <= r->c->mail_max;
    r->send_len = r->c->n > 1 ? r->total : 0;
}
