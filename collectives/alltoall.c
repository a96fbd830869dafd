/* SPDX-License-Identifier: Apache-2.0 */
/* All-to-all with equal parts.  Small: the data travels in the mails.  Else everybody copies its parts from where they lie, in the others' pools or staging areas. */
#include "collectives/call.h"
#include "collectives/parts.h"
#include "pool/base/point.h"
#include "pool/base/status.h"

static void pack(const struct request *r, uint8_t *data) {
    part_copy(r, data, r->send, r->total);
}

static void stage(const struct request *r, uint64_t at, uint64_t n, char *half) {
    for (int m = 0; m < r->c->n; m++)
        if (m != r->c->me) part_copy(r, half + part_staged_at(r, m), (const char *)r->send + part_begin(r, m) + at, n);
}

static int copy_parts(struct request *r) {
    int n = r->c->n, me = r->c->me;
    uint64_t begin = part_begin(r, me), staged_at = part_staged_at(r, me), len = rounds_now(r);
    for (int i = 0; i < n; i++) {
        int m = (me + i) % n;
        const char *from = part_source(r, m, begin + r->done, staged_at, len);
        if (!from) return request_corrupt(r, m, "send offset", r->c->member[m].at.send);
        part_deliver(r, (char *)r->recv + part_begin(r, m) + r->done, from, len);
        TEST_POINT("alltoall.copied");
    }
    return SYP_OK;
}

static const struct op_moves alltoall_moves = {.pack = pack, .unpack = parts_unpack, .stage = stage, .move = copy_parts};

static int judge(struct request *r, const struct call *call) {
    int rc = call_bytes(r, call->count, (uint64_t)r->c->n);
    r->count = r->units = r->part_len = call->count;
    if (rc == SYP_OK) rc = call_buffer(r, "send", r->send, r->total);
    if (rc == SYP_OK) rc = call_buffer(r, "recv", r->recv, r->total);
    return rc == SYP_OK ? call_overlap(r, r->total, r->total, UINT64_MAX) : rc;
}

void setup_alltoall(struct request *r, const struct call *call) {
    r->step = rounds_step;
    r->moves = &alltoall_moves;
    r->send = call->send;
    r->recv = call->recv;
    r->parts = (uint64_t)r->c->n;
    r->sources = r->readers = EVERYBODY;
    if (!r->error) r->error = judge(r, call);
    r->mailed = r->total && r->total <= MAIL_DATA;
    r->send_len = r->c->n > 1 ? r->total : 0;
}
