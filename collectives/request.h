/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One operation in progress, and the pieces every operation is made of.
 */
#ifndef SYP_COLLECTIVES_REQUEST_H
#define SYP_COLLECTIVES_REQUEST_H

#include "collectives/coll.h"

#define REQUEST_BLOCKED 1 /* of a step: wait for wait_member to reach wait_target, then step again */

struct request;

/* Whose phases a member waits for. */
enum whose { NOBODY, THE_ROOT, EVERYBODY };

/*
 * What an operation is, for the engine that runs it in rounds (rounds.c).  A round takes up to `chunk` units of the message: all of them when nobody's buffer is
 * staged.  The functions look at r->done (units before this round) and rounds_now() (units in it).
 */
struct op_moves {
    /* Data that travels in the mail: bytes of ours to put there (r->mailed says that everybody does), and what each makes of all mails. */
    void (*pack)(const struct request *r, uint8_t *data);
    void (*unpack)(struct request *r);
    /* Optional.  The result that every member makes of all mails, r->total bytes: in a large group one makes it for all, and none unpacks. */
    void (*combine)(const struct request *r, void *result);
    /* Our input of the round beginning at unit `at` into our half of the staging area.  Only if our send buffer is outside the pool. */
    void (*stage)(const struct request *r, uint64_t at, uint64_t n, char *half);
    /* All inputs of the round are readable: do this rank's share.  SYP_OK, or an error that broke the group. */
    int (*move)(struct request *r);
    /* Optional.  All shares are done, and what others need of ours is readable: fetch theirs.  As move. */
    int (*fetch)(struct request *r);
    /* All shares are done: our result from our half of the staging area.  Optional.  Only if our receive buffer is outside the pool and others store into it. */
    void (*take)(struct request *r, const char *half);
};

struct request {
    struct comm *c;
    int (*step)(struct request *r); /* SYP_OK = complete, REQUEST_BLOCKED, or SYP_E* with the record set */
    const struct op_moves *moves;
    int state; /* the step function's own */

    /* the call */
    int kind, dtype, op, root;
    int error;            /* refused at our side; posted, so that the others learn */
    const void *send;
    void *recv;
    uint64_t send_len, recv_len; /* bytes of our buffers, 0 = not used by this member */
    uint64_t count;       /* that all members must agree on: elements, bytes, or a digest of lists */
    uint64_t total;       /* in words for people: bytes */
    uint64_t units, unit; /* what a round is made of: number of units, bytes of one in each part of a staging area */
    uint64_t parts;       /* parts that a staging area is divided into; each holds the same units of another part of the message */
    const uint64_t *lens; /* of the members' parts, in units, where they differ; else NULL, and each is part_len.  parts.h */
    uint64_t part_len;    /* or, of rows, bytes of one */
    const uint64_t *send_offs, *recv_lens, *recv_offs; /* of alltoallv; lens is what we send */
    uint64_t rows, send_stride, recv_stride;
    enum whose sources;   /* whose data this member reads, or who stores into its buffers */
    enum whose readers;   /* who reads its data, or whom it stores to: they must be done before it goes on */
    uint8_t pushed;       /* the members store into each other's receive buffers */
    uint8_t one_shot;     /* every member does the whole of it for itself */
    uint8_t always_staged; /* the others may not read our send buffer where it lies: we overwrite it meanwhile, or they do not learn the place */
    uint8_t mailed;       /* the data travels in the mails */
    uint8_t pipelined;    /* one stages while others copy: rounds short enough for both to be busy */
    uint8_t together;     /* behind each share every member awaits every member */
    uint8_t few_mails;    /* of all mails, it reads that of its root at most */
    uint8_t combined;     /* in a large group: member 0 combines the mails for all */
    const void *data;     /* of request_meet: data_len bytes, at most MAIL_DATA */
    size_t data_len;

    /* progress */
    uint8_t staged_any;   /* some member's buffer is not in its pool */
    struct mail_buffers at; /* ours */
    uint8_t check_state;  /* request_check's own */
    uint8_t posted;       /* our mail is out already */
    uint64_t sequence;
    uint64_t start, deadline, next_warning, stall; /* ns; start 0 = no clock was read yet; next_warning 0 = never */
    int64_t timeout_ns;
    int cursor;           /* members below have reached wait_target */
    int part_seen;        /* in a large group: so many members of the part that is looked at have */
    int wait_one;         /* 1 = only wait_member matters, 0 = all members must reach wait_target */
    enum awaited wait_on; /* its stamp, or a word of the tree */
    uint64_t all_seen;    /* the stamps of all were seen to have reached it, whatever the tree says */
    int wait_member;
    uint64_t wait_target;
    uint64_t base;        /* phase of the mail */
    char *staging;        /* this rank's staging area, once it is needed */
    uint64_t chunk, done, round; /* units per round, units finished, rounds finished */
};

/* Nothing stands against an operation on a group that is taken: see request_unusable. */
static inline int comm_ready(const struct comm *c) {
    return c->ready && load_relaxed(&c->own->abort_group) != c->id + 1 && (load_relaxed(&c->coll->peers->self->life) & LIFE_DIED) == 0;
}
/* One operation in many has its time taken: at its begin; at its end, when it ended well. */
void comm_sample_begin(struct comm *c);
void comm_sample_end(const struct comm *c, int kind, uint64_t bytes);
/* Number an operation. */
static inline uint64_t comm_begin(struct comm *c) {
    store_relaxed(&c->own->inside, c->id + 1); /* published by the post; pairs with comm_inside_of */
    if (__builtin_expect(stats_sampled(++c->sequence), 0)) comm_sample_begin(c);
    return c->sequence;
}

/* Another thread has it: SYP_EBUSY.  And: something is unusual about a group that this thread has taken: requests come first, or it is of no use. */
int request_taken_already(const struct comm *c, int kind);
int request_take_slowly(struct comm *c, int kind);
/* Take the group for this thread, and complete the requests in its queue: SYP_EBUSY, SYP_ESTATE (destroyed), the group's own error when it is broken.  And
 * give it back. */
static inline int request_take(struct comm *c, int kind) {
    uint32_t idle = 0;
    if (__builtin_expect(!cas_acquire(&c->busy, &idle, 1), 0)) return request_taken_already(c, kind); /* pairs with request_release */
    return __builtin_expect(comm_ready(c), 1) ? SYP_OK : request_take_slowly(c, kind);
}
static inline void request_release(struct comm *c) {
    store_release(&c->own->inside, 0); /* pairs with comm_inside_of */
    store_release(&c->busy, 0);        /* pairs with request_take */
}
/* Number an operation of a group that is taken.  timeout_ns: 0 = default, < 0 = the caller's options were not usable.  posted: quick.c has done so,
 * and has posted our mail. */
void request_number(struct request *r, struct comm *c, int kind, int64_t timeout_ns, int posted);
/* Why a group that this thread has taken is of no use: the same codes; SYP_OK = it is. */
int request_unusable(struct comm *c, const char *call);
/* Run to the end; the group stays taken, so that the mails stay readable. */
int request_drive(struct request *r);
/* Its two ends: before the first step; after the last one, with what that returned, which is the result. */
void request_start(struct request *r);
int request_finish(struct request *r, int rc);

/* What a blocking call is: take and number; drive and give back. */
int request_begin(struct request *r, struct comm *c, int kind, int64_t timeout_ns);
int request_run(struct request *r);
/* Start the clock of an operation, if it does not run yet: small ones that never wait long do not read it. */
void request_clock(struct request *r);

/* Post our side: what we ask for, and len bytes of data, at most MAIL_DATA; next phase. */
void request_post(struct request *r, const void *data, size_t len);
/* The same with the data packed by r->moves (r->mailed), or the buffers' places. */
void request_post_moves(struct request *r);
/* Step of an operation in which the members only meet: what they tell each other, r->data, travels in the mails. */
int request_meet(struct request *r);
/* 1 = every member has reached phase `target`; 0 = blocked (wait_* set). */
int request_all_at(struct request *r, uint64_t target);
int request_one_at(struct request *r, int member, uint64_t target);
int request_these_at(struct request *r, enum whose who, uint64_t target);
/*
 * After the post: wait for all mails, compare them with ours, check symmetry.  SYP_OK, REQUEST_BLOCKED, or the verdict that every member
 * reaches (SYP_EMISMATCH, SYP_EDIVERGED).
 */
int request_check(struct request *r);
/* Data of a member's mail of this operation; valid until we begin the next operation. */
static inline const uint8_t *request_mail(const struct request *r, int member) { return comm_mail_of(r->c, member)->data; }

/* mismatch.c: the members disagree: who asked what.  Returns SYP_EMISMATCH, or our own error, which says it better. */
int request_mismatch(struct request *r);
/* Compare the members' symmetric positions (symm_check.c); called when they differ, with every member held until all have read. */
int request_symm_verdict(struct request *r);

/* Where a member's bytes lie for load and store: at byte `at` of its buffer; when that is staged, at byte `staged_at` of its half of the running round.  Ours
 * always in our buffer itself, so what only we read or write of it need not be staged.  NULL when the offset it published does not fit its pool. */
char *request_source(const struct request *r, int member, uint64_t at, uint64_t staged_at, uint64_t len);
char *request_target(const struct request *r, int member, uint64_t at, uint64_t staged_at, uint64_t len);
/* The member published something no honest library publishes: break the group. */
int request_corrupt(struct request *r, int member, const char *field, uint64_t value);

/* Set r->staging to this rank's staging area of the group, with memory behind it.  SYP_OK or SYP_ENOMEM. */
int request_staging(struct request *r);
/* Bytes of a half of a staging area, and ours of round k. */
static inline uint64_t staging_half(const struct request *r) { return r->c->coll->conf.staging / 2; }
static inline uint64_t half_of(const struct request *r, uint64_t round) { return ((r->c->halves + round) & 1) * staging_half(r); }
static inline char *request_half(const struct request *r, uint64_t round) { return r->staging + half_of(r, round); }
/* 1 if [p, p + len) lies in this rank's pool; off: its offset. */
int request_in_pool(const struct request *r, const void *p, uint64_t len, uint64_t *off);

/* rounds.c: what an operation with moves does. */
int rounds_step(struct request *r);
/* Its pieces, for an operation that posts more than the places of its buffers (alltoallv.c).  Before the post: r->at, and the first input, if ours is staged.
 * Depends on our own buffers alone. */
void rounds_begin(struct request *r);
/* Behind the check, with every member's r->at at the beginning of its mail's data: all rounds.  Becomes r->step. */
int rounds_go(struct request *r);
/* Units of the running round. */
static inline uint64_t rounds_now(const struct request *r) {
    uint64_t left = r->units - r->done;
    return left < r->chunk ? left : r->chunk;
}

/* wait.c: block until the request's wait_* condition holds.  SYP_OK, or the error that ends the operation. */
int wait_for(struct request *r);
/* Does it hold? */
int wait_over(struct request *r);
/* One look at what makes waiting pointless: a death, an abort, the deadline.  The request's clock runs.  SYP_OK = wait on. */
int wait_look(struct request *r, uint64_t now);
/* Has a member given the group up?  Then nobody's buffer may be touched any more.  SYP_OK, or the error that ends the operation. */
int wait_aborted(struct request *r);
/* ", stopped", ", dumping core", ", held by a debugger", ", not visible" or "", as /proc says; only for messages. */
const char *process_state(int pid, char *buf, size_t cap);
/* Has the member reached the phase in this operation? */
static inline int wait_reached(const struct comm *c, int member, uint64_t target) {
    return load_acquire((atom64 *)&comm_mail_of(c, member)->stamp) >= target; /* pairs with comm_publish */
}

#endif
