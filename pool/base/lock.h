/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A futex mutex with a rank: a thread takes locks in increasing rank only.  Debug builds (SYP_DEBUG) check the order and stop the
 * process on a violation, which is a bug of ours.  Zero-initialised except for the rank.
 *
 * Rules: no log line, no callback and no system call that waits is made with a lock held.
 */
#ifndef SYP_BASE_LOCK_H
#define SYP_BASE_LOCK_H

#include "pool/base/atomic.h"

/* Order in which locks are taken; also the order in which the fork handler takes them. */
enum lock_rank {
    LOCK_ATTACH = 1, /* allocator: attach and finalize */
    LOCK_COMM,       /* collectives: table of groups */
    LOCK_SYMM,       /* pool: symmetric region */
    LOCK_HEAP,       /* pool: local heap */
    LOCK_REGION,     /* pool: commit state */
    LOCK_LEAF        /* anything that takes no other lock */
};

struct lock {
    atom32 word; /* 0 free, 1 held, 2 held with waiters */
    uint32_t rank;
};
#define LOCK_INIT(r) {0, (r)}

void lock_take(struct lock *l);
int lock_try(struct lock *l); /* 1 = taken */
void lock_drop(struct lock *l);
/* In the forked child: free again, whoever held it. */
void lock_reset(struct lock *l);

#endif
