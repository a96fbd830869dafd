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
    size_t part;      /* of a member's part of it */
    const void *data; /* ours, */
    size_t len;       /* so many bytes */
    size_t next;      /* and so many next time, should this member then be the one who gives */
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

/* The buffers are there, and lie apart, or in place as documented: the smaller one begins at byte in_place of the larger one; SIZE_MAX = never. */
static inline int buffers_usable(const struct call *call, size_t sent, size_t received, size_t in_place) {
    uintptr_t s = (uintptr_t)call->send, d = (uintptr_t)call->recv;
    if ((sent && !s) || (received && !d)) return 0;
    if (!sent || !received || s + sent <= d || d + received <= s) return 1;
    return in_place != SIZE_MAX && (sent <= received ? s == d + in_place : d == s + in_place);
}

/* 1 = small, and nothing to refuse.  kind is a constant wherever this is expanded, and most of it is gone. */
static inline __attribute__((always_inline)) int parcel_of_kind(const struct comm *c, const struct call *call, int kind, struct parcel *p) {
    int reduces = kind == OP_ALLREDUCE || kind == OP_REDUCE || kind == OP_REDUCE_SCATTER, whole = kind == OP_ALLREDUCE || kind == OP_REDUCE;
    int rooted = kind == OP_REDUCE || kind == OP_GATHER || kind == OP_SCATTER, is_root = call->root == c->me;
    size_t size = reduces ? reduce_size(call->dtype) : 1;
    if (!call->count || call->count > MAIL_DATA || !size || (reduces && !reduce_op_known(call->op))) return 0;
    if (rooted && (call->root < 0 || call->root >= c->n)) return 0;
    size_t part = call->count * size, all = part * (size_t)c->n, sent = part, received = part, in_place = whole ? 0 : (size_t)c->me * part;
    if (kind == OP_REDUCE_SCATTER || kind == OP_ALLTOALL) sent = all;
    if (kind == OP_ALLGATHER || kind == OP_ALLTOALL) received = all;
    if (kind == OP_ALLTOALL) in_place = SIZE_MAX;
    if (kind == OP_SCATTER) sent = is_root ? all : 0;
    if (kind == OP_GATHER) received = is_root ? all : 0;
    if (kind == OP_REDUCE) received = is_root ? part : 0;
    size_t given = whole || kind == OP_ALLGATHER || kind == OP_GATHER ? part : all;
    if (given > (reduces ? c->mail_max : MAIL_DATA) || !buffers_usable(call, sent, received, in_place)) return 0;
    p->what = mail_what(kind, reduces ? call->dtype : 0, reduces ? call->op : 0, SYP_OK, rooted ? call->root : -1);
    p->total = whole ? part : all;
    p->part = part;
    p->data = call->send;
    p->len = kind == OP_GATHER && is_root ? 0 : sent;
    p->next = given;
    return 1;
}

static inline int word_of_root(const struct comm *c, const struct call *call, struct parcel *p) {
    if (call->root < 0 || call->root >= c->n || call->count > MAIL_DATA || !call->recv) return 0;
    p->total = p->part = p->next = call->count;
    p->len = call->root == c->me ? call->count : 0;
    p->what = mail_what(OP_BROADCAST, 0, 0, SYP_OK, call->root);
    p->data = call->recv;
    return 1;
}

static inline int parcel_of(const struct comm *c, const struct call *call, struct parcel *p) {
    switch (call->kind) {
    case OP_BARRIER:
        *p = (struct parcel){.what = mail_what(OP_BARRIER, 0, 0, SYP_OK, -1)};
        return 1;
    case OP_BROADCAST:
        return word_of_root(c, call, p);
#define KIND(k) case k: return parcel_of_kind(c, call, k, p)
    KIND(OP_ALLREDUCE);
    KIND(OP_ALLGATHER);
    KIND(OP_REDUCE);
    KIND(OP_REDUCE_SCATTER);
    KIND(OP_GATHER);
    KIND(OP_SCATTER);
    KIND(OP_ALLTOALL);
#undef KIND
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

/*
 * Byte `at` of what a member gives.  Ours is read from where it came: the others have just taken the lines of our mail, and the whole operation would take up to
 * twice as long.
 */
static inline const char *given_by(const struct comm *c, const struct call *call, int member, size_t at) {
    return (member == c->me ? (const char *)call->send : (const char *)comm_mail_of(c, member)->data) + at;
}

static inline void copy_given(const struct comm *c, const struct call *call, int member, size_t at, char *to, size_t len) {
    const char *from = given_by(c, call, member, at);
    if (to != from) copy_small(to, from, len); /* the same: in place */
}

/* A mail may be read beyond its data: so the smallest sums are whole vectors. */
#define SMALL 64

/* Bytes at .. at + len - 1 of what all give. */
static inline void reduce_given(const struct comm *c, const struct call *call, size_t at, size_t len) {
    const char *src[MAX_WORLD];
    char *dst = call->recv, small[SMALL], own[SMALL] = {0};
    for (int m = 0; m < c->n; m++)
        src[m] = given_by(c, call, m, at);
    if (len >= SMALL) {
        reduce_push(&dst, 1, src, c->n, call->count, call->dtype, call->op);
        return;
    }
    copy_small(own, src[c->me], len);
    src[c->me] = own;
    dst = small;
    reduce_push(&dst, 1, src, c->n, SMALL / reduce_size(call->dtype), call->dtype, call->op);
    copy_small(call->recv, small, len);
}

static inline void unpack(const struct comm *c, const struct call *call, const struct parcel *p) {
    size_t part = p->part, own = (size_t)c->me * part;
    char *recv = call->recv;
    switch (call->kind) {
    case OP_ALLREDUCE:
        reduce_given(c, call, 0, part);
        break;
    case OP_REDUCE:
        if (c->me == call->root) reduce_given(c, call, 0, part);
        break;
    case OP_REDUCE_SCATTER:
        reduce_given(c, call, own, part);
        break;
    case OP_SCATTER:
        copy_given(c, call, call->root, own, recv, part);
        break;
    case OP_BROADCAST:
        if (c->me != call->root) copy_small(recv, comm_mail_of(c, call->root)->data, p->total);
        break;
    case OP_GATHER:
        if (c->me != call->root) break;
        /* fall through */
    case OP_ALLGATHER:
    case OP_ALLTOALL:
        for (int m = 0; m < c->n; m++)
            copy_given(c, call, m, call->kind == OP_ALLTOALL ? own : 0, recv + (size_t)m * part, part);
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
    post_prepare_next(c, p.next);
    *posted = 1;
    if (!all_agree(c)) return 0;
    c->symm_agreed = mail->symm_calls;
    if (p.total) unpack(c, call, &p);
    count_done(c, call, p.total);
    if (__builtin_expect(stats_sampled(c->sequence), 0)) comm_sample_end(c, call->kind, p.total);
    return 1;
}
