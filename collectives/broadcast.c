/* SPDX-License-Identifier: Apache-2.0 */
/* Broadcast.  Small: the data travels in the root's mail.  Else everybody copies from where it lies, in the root's pool or its staging area. */
#include "collectives/call.h"
#include "collectives/parts.h"
#include "pool/base/point.h"
#include "pool/base/status.h"

#include <string.h>

static void pack(const struct request *r, uint8_t *data) {
    if (r->c->me == r->root) memcpy(data, r->send, r->total);
}

static void unpack(struct request *r) {
    if (r->c->me != r->root) memcpy(r->recv, request_mail(r, r->root), r->total);
}

static void stage(const struct request *r, uint64_t at, uint64_t n, char *half) {
    share_copy(&r->c->coll->crew, half, (const char *)r->send + at, n);
}

static int move(struct request *r) {
    if (r->c->me != r->root) {
        uint64_t n = rounds_now(r);
        const char *from = request_source(r, r->root, r->done, 0, n);
        if (!from) return request_corrupt(r, r->root, "offset", r->c->member[r->root].at.send);
        part_deliver(r, (char *)r->recv + r->done, from, n);
    }
    TEST_POINT("broadcast.copied");
    return SYP_OK;
}

static const struct op_moves broadcast_moves = {.pack = pack, .unpack = unpack, .stage = stage, .move = move};

void setup_broadcast(struct request *r, const struct call *call) {
    int is_root = r->c->me == call->root;
    r->step = rounds_step;
    r->moves = &broadcast_moves;
    r->send = r->recv = call->recv;
    r->count = r->units = call->count;
    r->parts = r->pipelined = 1;
    r->sources = is_root ? NOBODY : THE_ROOT;
    r->readers = is_root ? EVERYBODY : NOBODY;
    if (!r->error) r->error = call_root(r, call->root);
    if (!r->error) r->error = call_bytes(r, call->count, 1);
    if (!r->error) r->error = call_buffer(r, "buf", call->recv, call->count);
    r->send_len = is_root ? r->total : 0;
    r->few_mails = r->total <= MAIL_DATA;
    r->mailed = r->total && r->few_mails;
}
