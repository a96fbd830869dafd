/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small operations when nothing is unusual: the arguments are beyond doubt, the members arrive soon and ask for the same.  Then an operation is: post, look at
 * the members' mails, take what one needs.  Anything else is left to the request's steps, which find the mail posted and go on from there, so errors,
 * waits and statistics of waits have one place.
 *
 * What makes this worth a file: 8 bytes cross between two processors in some 50 ns, and a request's bookkeeping takes as long.
 */
#include "collectives/call.h"
#include "collectives/post.h"
#include "collectives/reduce.h"
#include "pool/base/status.h"

#include <string.h>

#define LOOKS 400        /* at a mail, before the request waits */
#define LOOKS_CROWDED 2  /* whoever we wait for may need this processor */
#define LOOKS_HASTY 60   /* the first of them without a pause between, which is as long as it takes a line to come */

/* What travels in our mail. */
struct parcel {
    uint64_t what, count, total;
    const void *data;
    size_t len;
};

/* memcpy without the way to it. */
static inline void copy_small(void *dst, const void *src, size_t len) {
    if (len == 8) {
        memcpy(dst, src, 8);
    } else if (len >= 16 && len <= 64) {
        size_t at = 0;
        for (; at + 16 < len; at += 16)
            memcpy((char *)dst + at, (const char *)src + at, 16);
        memcpy((char *)dst + len - 16, (const char *)src + len - 16, 16);
    } else if (len) {
        memcpy(dst, src, len);
    }
}

static int apart(const void *a, const void *b, size_t len) {
    return (uintptr_t)a + len <= (uintptr_t)b || (uintptr_t)b + len <= (uintptr_t)a;
}

/* 1 = small, and nothing to refuse. */
static int parcel_of(const struct comm *c, const struct call *call, struct parcel *p) {
    size_t count = call->count, len = count;
    int dtype = 0, op = 0, root = -1, gives = 1;
    switch (call->kind) {
    case OP_BARRIER:
        break;
    case OP_BROADCAST:
        root = call->root;
        gives = root == c->me;
        if (root < 0 || root >= c->n || len > MAIL_DATA || !call->recv) return 0;
        p->data = call->recv;
        break;
    case OP_ALLREDUCE:
        dtype = call->dtype;
        op = call->op;
        if (count > MAIL_DATA || !reduce_size(dtype) || !reduce_op_known(op)) return 0;
        len = count * reduce_size(dtype);
        if (len > c->coll->mail_max || !call->send || !call->recv) return 0;
        if (call->send != call->recv && !apart(call->send, call->recv, len)) return 0;
        p->data = call->send;
        break;
    default:
        return 0;
    }
    p->what = mail_what(call->kind, dtype, op, SYP_OK, root);
    p->count = count;
    p->total = len;
    p->len = gives ? len : 0;
    return 1;
}

/* 1 = all members have posted, and want the same as we. */
static int all_agree(struct comm *c) {
    const struct mail_call *mine = &comm_mail(c)->call;
    int looks = c->coll->peers->crowded ? LOOKS_CROWDED : LOOKS, hasty = c->coll->peers->crowded ? 0 : LOOKS - LOOKS_HASTY;
    for (int m = 0; m < c->n; m++) {
        if (m == c->me) continue;
        while (!wait_reached(c, m, c->phase)) {
            if (looks-- == 0) return 0;
            if (looks < hasty) cpu_relax();
        }
    }
    uint64_t differs = 0;
    fence_light(c->coll); /* as in wait_aborted */
    for (int m = 0; m < c->n; m++) {
        const struct mail_call *his = &comm_mail_of(c, m)->call;
        differs |= (his->what ^ mine->what) | (his->count ^ mine->count) | (his->token ^ mine->token);
        differs |= load_acquire((atom64 *)&c->member[m].slot->abort_group) > c->id; /* pairs with announce_break */
    }
    return differs == 0;
}

static void unpack(const struct comm *c, const struct call *call, const struct parcel *p) {
    if (call->kind == OP_BROADCAST) {
        if (c->me != call->root) copy_small(call->recv, comm_mail_of(c, call->root)->data, p->total);
    } else if (call->kind == OP_ALLREDUCE) {
        const char *src[MAX_WORLD];
        char *dst = call->recv;
        for (int m = 0; m < c->n; m++)
            src[m] = (const char *)comm_mail_of(c, m)->data;
        reduce_push(&dst, 1, src, c->n, call->count, call->dtype, call->op);
    }
}

static void count_done(const struct comm *c, const struct call *call, uint64_t total) {
    struct stats_shard *own = stats_own();
    if (own) {
        stats_bump(own, STAT_OPS);
        stats_raise_own(own, STAT_OP_BYTES, total);
        stats_raise_own(own, STAT_MAILED, total != 0);
    } else {
        stats_add(STAT_OPS, 1);
        stats_add(STAT_OP_BYTES, total);
        stats_add(STAT_MAILED, total != 0);
    }
    stats_op_quick((unsigned)c->slot, (enum stats_op_kind)call->kind, c->sequence, total);
}

int quick_run(struct comm *c, const struct call *call, int *posted) {
    struct parcel p = {0};
    *posted = 0;
    if (!parcel_of(c, call, &p)) return 0;
    (void)comm_begin(c);
    struct mail *mail = post_address(c, p.what, p.count, p.total);
    copy_small(mail->data, p.data, p.len);
    post_deliver(c, call->kind);
    post_prepare_next(c, p.len);
    *posted = 1;
    if (!all_agree(c)) return 0;
    c->symm_agreed = mail->symm_calls;
    if (p.total) unpack(c, call, &p);
    count_done(c, call, p.total);
    return 1;
}
