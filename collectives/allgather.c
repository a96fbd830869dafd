/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All-gather, of equal parts and of different ones.  Small: each part travels in its owner's mail.  Else everybody copies the parts from where they lie, in
 * their owners' pools or staging areas, beginning with its neighbour's, so that not all read the same memory at once.
 */
#include "collectives/call.h"
#include "collectives/parts.h"
#include "pool/base/point.h"
#include "pool/base/status.h"

static void pack(const struct request *r, uint8_t *data) {
    part_copy(r, data, r->send, part_units(r, r->c->me));
}

static void stage(const struct request *r, uint64_t at, uint64_t n, char *half) {
    part_copy(r, half, (const char *)r->send + at, part_clip(part_units(r, r->c->me), at, n));
}

/* The units of the round, of every part, from there.  In place our own part is where it belongs. */
static int copy_parts(struct request *r) {
    int n = r->c->n, m = (r->c->me + 1) % n;
    uint64_t begin = part_begin(r, m), now = rounds_now(r);
    for (int i = 0; i < n; i++) {
        uint64_t len = part_clip(part_units(r, m), r->done, now);
        if (len) {
            char *to = (char *)r->recv + begin + r->done;
            const char *from = part_source(r, m, r->done, 0, len);
            if (!from) return request_corrupt(r, m, "send offset", r->c->member[m].at.send);
            if (to != from) part_deliver(r, to, from, len);
            TEST_POINT("allgather.copied");
        }
        begin += part_units(r, m);
        if (++m == n) m = 0, begin = 0;
    }
    return SYP_OK;
}

static const struct op_moves allgather_moves = {.pack = pack, .unpack = parts_unpack, .stage = stage, .move = copy_parts};

static int judge(struct request *r, const struct call *call) {
    int me = r->c->me, rc;
    r->unit = 1;
    if (r->kind == OP_ALLGATHERV) {
        rc = parts_of_list(r, "lens", call->send_lens);
    } else {
        rc = call_bytes(r, call->count, (uint64_t)r->c->n);
        r->count = r->units = r->part_len = call->count;
    }
    if (rc == SYP_OK) rc = call_buffer(r, "send", r->send, part_units(r, me));
    if (rc == SYP_OK) rc = call_buffer(r, "recv", r->recv, r->total);
    return rc == SYP_OK ? call_overlap(r, part_units(r, me), r->total, part_begin(r, me)) : rc;
}

void setup_allgather(struct request *r, const struct call *call) {
    r->step = rounds_step;
    r->moves = &allgather_moves;
    r->send = call->send;
    r->recv = call->recv;
    r->parts = 1;
    r->sources = r->readers = EVERYBODY;
    if (!r->error) r->error = judge(r, call);
    if (r->error) return;
    r->mailed = r->units && r->units <= MAIL_DATA;
    r->send_len = r->c->n > 1 ? part_units(r, r->c->me) : 0;
}
