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
    uint64_t what;
    size_t total;     /* bytes of the operation */
    const void *data; /* ours, */
    size_t len;       /* so many bytes */
    int from;         /* whose data we take; -1 = everybody's, of len bytes each */
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

static inline int reduction_of(const struct comm *c, const struct call *call, struct parcel *p) {
    if (call->count > MAIL_DATA || !reduce_size(call->dtype) || !reduce_op_known(call->op)) return 0;
    p->len = p->total = call->count * reduce_size(call->dtype);
    if (p->len > c->mail_max || !call->send || !call->recv) return 0;
    if (call->send != call->recv && !apart(call->send, call->recv, p->len)) return 0;
    p->what = mail_what(OP_ALLREDUCE, call->dtype, call->op, SYP_OK, -1);
    p->data = call->send;
    p->from = -1;
    return 1;
}

static inline int part_of_all(const struct comm *c, const struct call *call, struct parcel *p) {
    if (!call->count || call->count > MAIL_DATA || !call->send || !call->recv) return 0;
    p->len = call->count;
    p->total = p->len * (size_t)c->n;
    const char *own = (const char *)call->recv + (size_t)c->me * p->len;
    if (call->send != own && ((uintptr_t)call->send + p->len > (uintptr_t)call->recv && (uintptr_t)call->recv + p->total > (uintptr_t)call->send)) return 0;
    p->what = mail_what(OP_ALLGATHER, 0, 0, SYP_OK, -1);
    p->data = call->send;
    p->from = -1;
    return 1;
}

static inline int word_of_root(const struct comm *c, const struct call *call, struct parcel *p) {
    if (call->root < 0 || call->root >= c->n || call->count > MAIL_DATA || !call->recv) return 0;
    p->total = call->count;
    p->len = call->root == c->me ? call->count : 0;
    p->what = mail_what(OP_BROADCAST, 0, 0, SYP_OK, call->root);
    p->data = call->recv;
    p->from = call->root;
    return 1;
}

/* 1 = small, and nothing to refuse. */
static inline int parcel_of(const struct comm *c, const struct call *call, struct parcel *p) {
    switch (call->kind) {
    case OP_BARRIER:
        *p = (struct parcel){.what = mail_what(OP_BARRIER, 0, 0, SYP_OK, -1)};
        return 1;
    case OP_ALLREDUCE:
        return reduction_of(c, call, p);
    case OP_ALLGATHER:
        return part_of_all(c, call, p);
    case OP_BROADCAST:
        return word_of_root(c, call, p);
    default:
        return 0;
    }
}

/* 1 = all members have posted, and want the same as we. */
static inline int all_agree(struct comm *c) {
    int crowded = load_relaxed(&c->coll->peers->crowded) != 0, looks = crowded ? LOOKS_CROWDED : LOOKS, hasty = crowded ? 0 : LOOKS - LOOKS_HASTY;
    uint64_t differs = 0;
    for (int m = 0; m < c->n; m++) {
        if (m == c->me) continue;
        const struct mail *his = comm_mail_of(c, m);
        while (load_acquire((atom64 *)&his->stamp) < c->phase) { /* wait_reached */
            if (looks-- == 0) return 0;
            if (looks < hasty) cpu_relax();
        }
        differs |= mail_calls_differ(&his->call, &c->call);
    }
    fence_light(c->coll); /* as in wait_aborted */
    for (int m = 0; m < c->n; m++)
        differs |= load_acquire((atom64 *)&c->member[m].slot->abort_group) > c->id; /* pairs with announce_break */
    return differs == 0;
}

/* A mail may be read beyond its data: so the smallest sums are whole vectors. */
#define SMALL 64

/* Ours is read from where it came: the others have just taken the lines of our mail, and the whole operation would take up to twice as long. */
static inline void reduce_mails(const struct comm *c, const struct call *call, size_t len) {
    const char *src[MAX_WORLD];
    char *dst = call->recv, small[SMALL], own[SMALL] = {0};
    for (int m = 0; m < c->n; m++)
        src[m] = (const char *)comm_mail_of(c, m)->data;
    if (len >= SMALL) {
        src[c->me] = call->send;
        reduce_push(&dst, 1, src, c->n, call->count, call->dtype, call->op);
        return;
    }
    copy_small(own, call->send, len);
    src[c->me] = own;
    dst = small;
    reduce_push(&dst, 1, src, c->n, SMALL / reduce_size(call->dtype), call->dtype, call->op);
    copy_small(call->recv, small, len);
}

static inline void unpack(const struct comm *c, const struct call *call, const struct parcel *p) {
    switch (call->kind) {
    case OP_ALLREDUCE:
        reduce_mails(c, call, p->len);
        break;
    case OP_ALLGATHER:
        for (int m = 0; m < c->n; m++) {
            char *to = (char *)call->recv + (size_t)m * p->len;
            const void *from = m == c->me ? call->send : comm_mail_of(c, m)->data;
            if (to != from) copy_small(to, from, p->len);
        }
        break;
    case OP_BROADCAST:
        if (c->me != call->root) copy_small(call->recv, comm_mail_of(c, call->root)->data, p->total);
        break;
    }
}

static void count_done(const struct comm *c, const struct call *call, uint64_t total) {
    struct stats_shard *own = stats_own();
    if (own) {
        stats_bump(own, STAT_OPS);
        if (total) {
            stats_raise_own(own, STAT_OP_BYTES, total);
            stats_bump(own, STAT_MAILED);
        }
    } else {
        stats_add(STAT_OPS, 1);
        stats_add(STAT_OP_BYTES, total);
        stats_add(STAT_MAILED, total != 0);
    }
    stats_op_quick((unsigned)c->slot, (enum stats_op_kind)call->kind, c->sequence, total);
}

int quick_run(struct comm *c, const struct call *call, int *posted) {
    struct parcel p;
    if (c->parts) return 0;
    if (!parcel_of(c, call, &p)) return 0;
    (void)comm_begin(c);
    struct mail *mail = post_address(c, p.what, call->count, p.total);
    if (p.len) copy_small(mail->data, p.data, p.len);
    post_note(c, call->kind);
    comm_publish(c);
    post_prepare_next(c, p.from < 0 ? p.len : p.total); /* the next root may be this rank */
    *posted = 1;
    if (!all_agree(c)) return 0;
    c->symm_agreed = mail->symm_calls;
    if (p.total) unpack(c, call, &p);
    count_done(c, call, p.total);
    if (__builtin_expect(stats_sampled(c->sequence), 0)) comm_sample_end(c, call->kind, p.total);
    return 1;
}
