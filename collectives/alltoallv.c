/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All-to-all with parts of any size and place.  No member knows the others' lists, so they travel in the mails, and no phase is spent on them:
 *
 *   balance   the sum of a hash of each part that the member sends, minus that of each it expects, of {from, to, length}.  The members agree about every ordered
 *             pair if and only if the sum of all balances is 0 (but for 1 in 2^64), so each comes to the verdict from one word a member.
 *   longest   decides how many rounds there are when somebody's data is staged: all of them take part in all rounds
 *   offsets   where in its send buffer, or in its mail, each one's part begins.  They fit for up to MEMBERS_PLACED; in larger groups all data is staged,
 *             where a part's place is known without them.
 *   lengths   for a text that says which pair differs, in groups of up to MEMBERS_LISTED
 *   data      if all a member sends fits behind them.  If everybody's does, the first phase was all.
 *
 * Our part for ourselves is copied straight and takes no part in all this.
 */
#include "collectives/call.h"
#include "collectives/parts.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <string.h>

/* The mail's data: this, then words, then data. */
struct told {
    struct mail_buffers at; /* first: rounds_go */
    uint64_t balance, longest, in_mail;
};
#define MEMBERS_PLACED 240
#define MEMBERS_LISTED (MEMBERS_PLACED / 3)
_Static_assert(sizeof(struct told) + MEMBERS_PLACED * sizeof(uint64_t) <= MAIL_DATA, "lists in the mail");

/* Lists in the mail: offsets, lengths sent, lengths expected. */
static int lists_told(int n) {
    return n <= MEMBERS_LISTED ? 3 : n <= MEMBERS_PLACED ? 1 : 0;
}

static size_t data_begin(int n) {
    return sizeof(struct told) + (size_t)(lists_told(n) * n) * sizeof(uint64_t);
}

static struct told told_by(const struct request *r, int member) {
    struct told t;
    memcpy(&t, request_mail(r, member), sizeof t);
    return t;
}

/* Entry i of a list that a member told: 0 = offsets, 1 = sent, 2 = expected. */
static uint64_t entry(const struct request *r, int member, int list, int i) {
    uint64_t word;
    memcpy(&word, request_mail(r, member) + sizeof(struct told) + (size_t)(list * r->c->n + i) * sizeof word, sizeof word);
    return word;
}

/* ----------------------------------------------------------------------------------------------- telling */

static uint64_t mix(uint64_t x) { /* the finaliser of splitmix64 */
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static uint64_t pair_hash(int from, int to, uint64_t len) {
    return mix(mix((uint64_t)from << 32 | (uint64_t)to) + len);
}

/* Sets what the mail says but for the buffers' places.  Before rounds_begin, since data in the mail is staged nowhere. */
static struct told tell(struct request *r, uint8_t *data) {
    struct told t = {.in_mail = 1};
    int n = r->c->n, me = r->c->me;
    uint64_t at = data_begin(n), room = lists_told(n) ? MAIL_DATA - at : 0, given = 0;
    for (int m = 0; m < n; m++) {
        t.balance += pair_hash(me, m, r->lens[m]) - pair_hash(m, me, r->recv_lens[m]);
        if (m == me) continue;
        if (r->lens[m] > t.longest) t.longest = r->lens[m];
        if (given <= MAIL_DATA) given += part_clip(r->lens[m], 0, MAIL_DATA + 1);
    }
    if (given > room) t.in_mail = 0;
    if (t.in_mail) r->send_len = 0;
    for (int m = 0; m < n && lists_told(n); m++) {
        uint64_t words[3] = {t.in_mail ? at : r->send_offs[m], r->lens[m], r->recv_lens[m]};
        for (int list = 0; list < lists_told(n); list++)
            memcpy(data + sizeof t + (size_t)(list * n + m) * sizeof *words, &words[list], sizeof *words);
        if (!t.in_mail || m == me) continue;
        part_copy(r, data + at, (const char *)r->send + (r->lens[m] ? r->send_offs[m] : 0), r->lens[m]);
        at += r->lens[m];
    }
    r->units = t.longest ? t.longest : 1; /* at least: the others' parts may be longer */
    return t;
}

static void post(struct request *r) {
    if (r->error) {
        request_post(r, NULL, 0);
        return;
    }
    uint8_t *data = comm_mail(r->c)->data;
    struct told t = tell(r, data);
    rounds_begin(r);
    t.at = r->at;
    request_post(r, &t, sizeof t);
}

/* -------------------------------------------------------------------------------------------- the verdict */

/* The pairs that differ, and the sender of the first one. */
static int describe_pairs(const struct request *r, struct text *t) {
    const struct comm *c = r->c;
    int blame = -1, said = 0;
    for (int from = 0; from < c->n; from++)
        for (int to = 0; to < c->n; to++) {
            uint64_t sent = entry(r, from, 1, to), expected = entry(r, to, 2, from);
            if (sent == expected) continue;
            if (blame < 0) blame = from;
            if (said++ == 6) {
                text_addf(t, "; and others");
                return blame;
            }
            text_addf(t, "%srank %d sends %llu bytes to rank %d, which expects %llu", said > 1 ? "; " : "", c->rank[from], (unsigned long long)sent,
                      c->rank[to], (unsigned long long)expected);
        }
    return blame;
}

static int lists_differ(struct request *r) {
    char pairs[800];
    struct text t = TEXT_INIT(pairs);
    struct comm *c = r->c;
    int blame = -1;
    if (lists_told(c->n) == 3)
        blame = describe_pairs(r, &t);
    else
        text_addf(&t, "what some member sends is not what the receiver expects (which one is told in groups of up to %d)", MEMBERS_LISTED);
    err_set(SYP_EMISMATCH, "operation %llu on group %d: alltoallv: the members' lists of lengths disagree: %s; nothing was done, the group can be used "
                           "further", (unsigned long long)r->sequence, c->slot, pairs);
    return blame < 0 ? SYP_EMISMATCH : err_peer(c->rank[blame], c->coll->peers->roster.rank[c->rank[blame]].pid);
}

/* All mails are there: do the lists agree, how many rounds, is all data in the mails?  Equal on all members. */
static int agree(struct request *r) {
    uint64_t balance = 0, in_mail = 1;
    for (int m = 0; m < r->c->n; m++) {
        struct told t = told_by(r, m);
        balance += t.balance;
        in_mail &= t.in_mail;
        if (t.longest > PTRDIFF_MAX) return request_corrupt(r, m, "length", t.longest);
        if (t.longest > r->units) r->units = t.longest;
    }
    if (balance) return lists_differ(r);
    r->mailed = in_mail == 1;
    return SYP_OK;
}

/* ------------------------------------------------------------------------------------------------ moving */

static void stage(const struct request *r, uint64_t at, uint64_t n, char *half) {
    for (int m = 0; m < r->c->n; m++) {
        uint64_t len = part_clip(r->lens[m], at, n);
        if (m != r->c->me && len) part_copy(r, half + part_staged_at(r, m), (const char *)r->send + r->send_offs[m] + at, len);
    }
}

/* The bytes of the round that member m has for us. */
static const char *source(const struct request *r, int m, uint64_t len) {
    struct told t = told_by(r, m);
    uint64_t off = lists_told(r->c->n) ? entry(r, m, 0, r->c->me) : 0, at;
    if (__builtin_add_overflow(off, r->done, &at)) return NULL;
    if (t.in_mail) return at <= MAIL_DATA && len <= MAIL_DATA - at ? (const char *)request_mail(r, m) + at : NULL;
    return request_source(r, m, at, part_staged_at(r, r->c->me), len);
}

static int copy_parts(struct request *r) {
    int n = r->c->n, me = r->c->me;
    if (r->done == 0 && r->lens[me]) part_deliver(r, (char *)r->recv + r->recv_offs[me], (const char *)r->send + r->send_offs[me], r->lens[me]);
    for (int i = 1; i < n; i++) {
        int m = (me + i) % n;
        uint64_t len = part_clip(r->recv_lens[m], r->done, rounds_now(r));
        if (!len) continue;
        const char *from = source(r, m, len);
        if (!from) return request_corrupt(r, m, "send offset", r->c->member[m].at.send);
        part_deliver(r, (char *)r->recv + r->recv_offs[m] + r->done, from, len);
        TEST_POINT("alltoallv.copied");
    }
    return SYP_OK;
}

static const struct op_moves alltoallv_moves = {.stage = stage, .move = copy_parts};

static int alltoallv_step(struct request *r) {
    if (r->state == 0) {
        post(r);
        r->state = 1;
    }
    int rc = request_check(r);
    if (rc == SYP_OK) rc = agree(r);
    if (rc != SYP_OK) return rc;
    if (r->mailed) {
        r->chunk = r->units;
        return copy_parts(r);
    }
    return rounds_go(r);
}

/* --------------------------------------------------------------------------------------------- arguments */

struct list {
    const char *name, *lens_name, *offs_name;
    const char *buf;
    const uint64_t *lens, *offs;
    uint64_t begin, end; /* of all parts */
};

static int judge_list(const struct request *r, struct list *l) {
    if (!l->lens || !l->offs) return err_set(SYP_EINVAL, "%s: %s is NULL", op_name(r->kind), l->lens ? l->offs_name : l->lens_name);
    l->begin = UINT64_MAX;
    for (int m = 0; m < r->c->n; m++) {
        uint64_t end;
        if (!l->lens[m]) continue;
        if (__builtin_add_overflow(l->lens[m], l->offs[m], &end) || end > PTRDIFF_MAX)
            return err_set(SYP_EINVAL, "%s: %s[%d] is %llu and %s[%d] %llu: the part ends beyond PTRDIFF_MAX", op_name(r->kind), l->lens_name, m,
                           (unsigned long long)l->lens[m], l->offs_name, m, (unsigned long long)l->offs[m]);
        if (l->offs[m] < l->begin) l->begin = l->offs[m];
        if (end > l->end) l->end = end;
    }
    return call_buffer(r, l->name, l->buf, l->end);
}

static int parts_touch(const struct list *a, int i, const struct list *b, int k) {
    uintptr_t x = (uintptr_t)a->buf + a->offs[i], y = (uintptr_t)b->buf + b->offs[k];
    return a->lens[i] && b->lens[k] && x < y + b->lens[k] && y < x + a->lens[i];
}

/* Parts of recv: one behind the other, as usual, or each beside each. */
static int judge_recv(const struct request *r, const struct list *recv) {
    uint64_t end = 0;
    int n = r->c->n, m = 0;
    for (; m < n && (!recv->lens[m] || recv->offs[m] >= end); m++)
        if (recv->lens[m]) end = recv->offs[m] + recv->lens[m];
    for (int i = 0; m < n && i < n; i++)
        for (int k = i + 1; k < n; k++)
            if (parts_touch(recv, i, recv, k))
                return err_set(SYP_EINVAL, "%s: the parts %d and %d of recv overlap: look at recv_lens and recv_offs", op_name(r->kind), i, k);
    return SYP_OK;
}

static int judge_overlap(const struct request *r, const struct list *send, const struct list *recv) {
    uintptr_t s = (uintptr_t)send->buf, d = (uintptr_t)recv->buf;
    if (!send->end || !recv->end || s + send->begin >= d + recv->end || d + recv->begin >= s + send->end) return SYP_OK;
    for (int i = 0; i < r->c->n; i++)
        for (int k = 0; k < r->c->n; k++)
            if (parts_touch(send, i, recv, k))
                return err_set(SYP_EINVAL, "%s: part %d of send and part %d of recv overlap: look at send_offs and recv_offs, or use separate buffers",
                               op_name(r->kind), i, k);
    return SYP_OK;
}

static int judge(struct request *r, const struct call *call) {
    struct list send = {"send", "send_lens", "send_offs", r->send, call->send_lens, call->send_offs, 0, 0};
    struct list recv = {"recv", "recv_lens", "recv_offs", r->recv, call->recv_lens, call->recv_offs, 0, 0};
    int me = r->c->me, rc = judge_list(r, &send);
    if (rc == SYP_OK) rc = judge_list(r, &recv);
    if (rc != SYP_OK) return rc;
    if (send.lens[me] != recv.lens[me])
        return err_set(SYP_EINVAL, "%s: send_lens[%d] is %llu, but recv_lens[%d] %llu, and both are of this member itself", op_name(r->kind), me,
                       (unsigned long long)send.lens[me], me, (unsigned long long)recv.lens[me]);
    rc = judge_recv(r, &recv);
    if (rc == SYP_OK) rc = judge_overlap(r, &send, &recv);
    for (int m = 0; m < r->c->n; m++)
        if (__builtin_add_overflow(r->total, send.lens[m], &r->total)) r->total = UINT64_MAX; /* parts of send may overlap */
    r->send_len = r->c->n > 1 ? send.end : 0;
    r->lens = send.lens;
    r->send_offs = send.offs;
    r->recv_lens = recv.lens;
    r->recv_offs = recv.offs;
    return rc;
}

void setup_alltoallv(struct request *r, const struct call *call) {
    r->step = alltoallv_step;
    r->moves = &alltoallv_moves;
    r->send = call->send;
    r->recv = call->recv;
    r->unit = 1;
    r->parts = (uint64_t)r->c->n;
    r->always_staged = lists_told(r->c->n) == 0;
    r->sources = r->readers = EVERYBODY;
    if (!r->error) r->error = judge(r, call);
}
