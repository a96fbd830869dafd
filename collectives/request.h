/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One operation in progress, and the pieces every operation is made of.
 */
#ifndef SYP_COLLECTIVES_REQUEST_H
#define SYP_COLLECTIVES_REQUEST_H

#include "collectives/coll.h"

#define REQUEST_BLOCKED 1 /* of a step: wait for wait_member to reach wait_target, then step again */

struct request {
    struct comm *c;
    int (*step)(struct request *r); /* SYP_OK = complete, REQUEST_BLOCKED, or SYP_E* with the record set */
    int state;                      /* the step function's own */

    /* the call */
    int kind, dtype, op, root;
    const void *send;
    void *recv;
    uint64_t count;     /* elements, or bytes */
    uint64_t bytes;     /* payload, for statistics */
    int error;          /* refused at our side; posted, so that the others learn */
    uint8_t payload[POST_PAYLOAD];
    unsigned payload_len;

    /* progress */
    uint64_t sequence;
    uint64_t start, deadline, next_warning, stall; /* ns; next_warning 0 = never */
    int check_state;    /* request_check's own */
    int cursor;         /* members below have reached wait_target */
    int wait_one;       /* 1 = only wait_member matters, 0 = all members must reach wait_target */
    int wait_member;
    uint64_t wait_target;
    char *staging;      /* this rank's staging area, once it is needed */
    int staged_any;     /* some member's buffer is not in its pool */
    int pushed;         /* the members store into each other's receive buffers */
    uint64_t chunk, done; /* elements per round, elements finished */
};

/* Take the group for this thread: SYP_EBUSY, SYP_ESTATE (destroyed), the group's own error when it is broken.  And give it back. */
int request_take(struct comm *c, int kind);
void request_release(struct comm *c);
/* Number an operation of a group that is taken.  timeout_ns: 0 = default, < 0 = the caller's options were not usable. */
void request_number(struct request *r, struct comm *c, int kind, int64_t timeout_ns);
/* Run to the end; the group stays taken, so that the posts stay readable. */
int request_drive(struct request *r);

/* What a blocking call is: take and number; drive and give back. */
int request_begin(struct request *r, struct comm *c, int kind, int64_t timeout_ns);
int request_run(struct request *r);

/* Post our side: parameters, symmetric position, payload; next phase. */
void request_post(struct request *r);
/* 1 = every member has reached phase `target`; 0 = blocked (wait_* set). */
int request_all_at(struct request *r, uint64_t target);
int request_one_at(struct request *r, int member, uint64_t target);
/*
 * After the post: wait for all posts, compare them with ours, check symmetry.  SYP_OK, REQUEST_BLOCKED, or the verdict that every member
 * reaches (SYP_EMISMATCH, SYP_EDIVERGED).  Copies what the data phase needs into comm_member.
 */
int request_check(struct request *r);
/* Payload of a member's post of this operation; valid until we advance to the next operation's post. */
const uint8_t *request_payload(const struct request *r, int member);

/* Compare the members' symmetric positions (symm_check.c); called when they differ, with every member held until all have read. */
int request_symm_verdict(struct request *r);

/* Where a member's bytes lie for load and store, at byte `at` of its buffer in the running round (staged: at byte `at` of its staging area).
 * NULL when the offset it published does not fit its pool. */
char *request_source(const struct request *r, int member, uint64_t user_at, uint64_t round_at, uint64_t len);
char *request_target(const struct request *r, int member, uint64_t user_at, uint64_t round_at, uint64_t len);
/* The member published something no honest library publishes: break the group. */
int request_corrupt(struct request *r, int member, const char *field, uint64_t value);

/* Set r->staging to this rank's staging area of the group, with memory behind it.  SYP_OK or SYP_ENOMEM. */
int request_staging(struct request *r);
/* 1 if [p, p + len) lies in this rank's pool; off: its offset. */
int request_in_pool(const struct request *r, const void *p, uint64_t len, uint64_t *off);

/* wait.c: block until the request's wait_* condition holds.  SYP_OK, or the error that ends the operation. */
int wait_for(struct request *r);
/* Has a member given the group up?  Then nobody's buffer may be touched any more.  SYP_OK, or the error that ends the operation. */
int wait_aborted(struct request *r);
/* ", stopped", ", dumping core", ", held by a debugger", ", not visible" or "", as /proc says; only for messages. */
const char *process_state(int pid, char *buf, size_t cap);
static inline int wait_reached(const struct comm_slot *slot, uint64_t target) {
    return load_acquire((atom64 *)&slot->phase) >= target; /* pairs with comm_publish */
}

#endif
