/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gather to one member, and scatter from one.  Small: the data travels in its owner's mail.  Else whoever gets a part copies it from where it lies, in the
 * owner's pool or staging area.  The members wait for the root alone, and the root for all.
 */
#include "collectives/call.h"
#include "collectives/parts.h"
#include "pool/base/point.h"
#include "pool/base/status.h"

/* The bytes of the round of a part: it begins at byte `at` of what member `from` sends, and at byte `part` of what we receive. */
static int copy_part(struct request *r, int from, uint64_t at, uint64_t staged_at, uint64_t part) {
    uint64_t n = rounds_now(r);
    char *to = (char *)r->recv + part + r->done;
    const char *source = part_source(r, from, at + r->done, staged_at, n);
    if (!source) return request_corrupt(r, from, "send offset", r->c->member[from].at.send);
    if (to != source) part_deliver(r, to, source, n); /* the same: in place */
    TEST_POINT("gather.copied");
    return SYP_OK;
}

/* ------------------------------------------------------------------------------------------------- gather */

static void gather_pack(const struct request *r, uint8_t *data) {
    if (r->c->me != r->root) part_copy(r, data, r->send, r->part_len);
}

static void gather_stage(const struct request *r, uint64_t at, uint64_t n, char *half) {
    part_copy(r, half, (const char *)r->send + at, n);
}

static int gather_move(struct request *r) {
    int rc = SYP_OK;
    if (r->c->me != r->root) return SYP_OK;
    for (int m = 0; m < r->c->n && rc == SYP_OK; m++)
        rc = copy_part(r, m, 0, 0, part_begin(r, m));
    return rc;
}

static const struct op_moves gather_moves = {.pack = gather_pack, .unpack = parts_unpack, .stage = gather_stage, .move = gather_move};

/* ------------------------------------------------------------------------------------------------ scatter */

static void scatter_pack(const struct request *r, uint8_t *data) {
    if (r->c->me == r->root) part_copy(r, data, r->send, r->total);
}

static void scatter_stage(const struct request *r, uint64_t at, uint64_t n, char *half) {
    for (int m = 0; m < r->c->n; m++)
        if (m != r->c->me) part_copy(r, half + part_staged_at(r, m), (const char *)r->send + part_begin(r, m) + at, n);
}

static int scatter_move(struct request *r) {
    return copy_part(r, r->root, part_begin(r, r->c->me), part_staged_at(r, r->c->me), 0);
}

static const struct op_moves scatter_moves = {.pack = scatter_pack, .unpack = parts_unpack, .stage = scatter_stage, .move = scatter_move};

/* ------------------------------------------------------------------------------------------------ both */

static int judge(struct request *r, const struct call *call) {
    int gathers = r->kind == OP_GATHER, is_root = r->c->me == call->root;
    uint64_t len = call->count;
    int rc = call_root(r, call->root);
    if (rc == SYP_OK) rc = call_bytes(r, len, (uint64_t)r->c->n);
    if (rc != SYP_OK) return rc;
    r->count = r->units = r->part_len = len;
    uint64_t send_len = gathers ? len : is_root ? r->total : 0, recv_len = !gathers ? len : is_root ? r->total : 0;
    rc = call_buffer(r, "send", r->send, send_len);
    if (rc == SYP_OK) rc = call_buffer(r, "recv", r->recv, recv_len);
    return rc == SYP_OK ? call_overlap(r, send_len, recv_len, part_begin(r, r->root)) : rc;
}

void setup_gather(struct request *r, const struct call *call) {
    int gathers = r->kind == OP_GATHER, is_root = r->c->me == call->root, gives = gathers != is_root;
    enum whose others = is_root ? EVERYBODY : THE_ROOT;
    r->step = rounds_step;
    r->moves = gathers ? &gather_moves : &scatter_moves;
    r->send = call->send;
    r->recv = call->recv;
    r->parts = gathers ? 1 : (uint64_t)r->c->n;
    r->sources = gives ? NOBODY : others;
    r->readers = gives ? others : NOBODY;
    if (!r->error) r->error = judge(r, call);
    if (r->error) return;
    uint64_t given = gathers ? r->part_len : r->total;
    r->mailed = given && given <= MAIL_DATA;
    r->send_len = gives && r->c->n > 1 ? given : 0;
}
