/* SPDX-License-Identifier: Apache-2.0 */
/* Posting: what a rank publishes at the first phase of an operation, and the flag itself.  Inline, because a small operation is little else. */
#ifndef SYP_COLLECTIVES_POST_H
#define SYP_COLLECTIVES_POST_H

#include "collectives/fence.h"
#include "pool/base/point.h"

#define POST_KIND_SHIFT 56

static inline uint64_t mail_what(int kind, int dtype, int op, int error, int root) {
    return (uint64_t)(kind & 0xff) | (uint64_t)(dtype & 0xff) << 8 | (uint64_t)(op & 0xff) << 16 | (uint64_t)(-error & 0xff) << 24 |
           (uint64_t)(uint32_t)(root + 1) << 32;
}

/* What the count adds to a token: different counts never the same. */
static inline uint64_t mail_token(uint64_t count) { return count * 0x9e3779b97f4a7c15ull; }

/* Everything of the mail of the operation begun last, but its data.  count: see struct mail.  total: in words for people, bytes. */
static inline struct mail *post_address(struct comm *c, uint64_t what, uint64_t count, uint64_t total) {
    struct mail *mail = comm_mail(c);
    mail->comm_id = c->id;
    mail->sequence = c->sequence;
    mail->total = total;
    mail->count = count;
    c->call.what = what;
    c->call.token = symm_glance(c->coll->symm, &mail->symm_calls) ^ (c->token + c->sequence) ^ mail_token(count);
    mail->call = c->call;
    return mail;
}

/* Publish the next phase and wake those of the members first .. end - 1 that sleep on it. */
static inline void comm_publish_to(struct comm *c, int first, int end) {
    struct mail *mail = comm_mail(c);
    uint64_t sleeper = asleep_on(c->coll->peers->me, ON_STAMP, (int)(c->sequence & 1));
    TEST_POINT("publish");
    store_release(&mail->stamp, ++c->phase); /* pairs with wait_reached, and through the fences with wait_sleep */
    fence_light(c->coll);
    int wake = 0;
    for (int m = first; m < end; m++)
        wake |= load_relaxed((atom64 *)&c->member[m].slot->asleep) == sleeper;
    if (__builtin_expect(wake, 0)) comm_wake(c);
    TEST_POINT("published");
}
static inline void comm_publish(struct comm *c) { comm_publish_to(c, 0, c->n); }

/* The operation begun last, for messages about who is behind; before its first phase is published. */
static inline void post_note(struct comm *c, int kind) {
    store_relaxed(&c->own->current, c->sequence | (uint64_t)kind << POST_KIND_SHIFT); /* read by describe_behind */
}

/* The members have copies of the lines of our other mail, from the operation before.  The next one shall not begin by taking them away.  len: of the data that
 * it is expected to carry. */
static inline void post_prepare_next(const struct comm *c, size_t len) {
    const char *next = (const char *)&c->own->mail[(c->sequence + 1) & 1];
    for (size_t at = 0; at < MAIL_HEAD + len; at += 64)
        prefetch_write(next + at);
}

#endif
