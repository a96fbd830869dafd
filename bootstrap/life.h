/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who lives.  The keeper thread of an attached process holds the robust futex "life" in its own control segment; the
 * kernel flags it within 0.1 ms of the process's death, whatever the size of its memory.  Waiters poll the word with a
 * plain load (they never chain on the lock). The first to notice a death publishes it in its own segment, where all
 * others find it.
 */
#ifndef SYP_BOOTSTRAP_LIFE_H
#define SYP_BOOTSTRAP_LIFE_H

#include "bootstrap/peers.h"

#include <linux/futex.h>

struct keeper {
    struct os_thread *thread;
    struct control_head *control;
    atom32 stop;  /* futex the keeper sleeps on; 1 = leave orderly, 2 = vanish (tests: as if killed) */
    atom32 ready; /* futex the starter sleeps on */
    int error;    /* of the start, -errno */
    struct robust_list_head robust; /* read by the kernel when the thread ends, so not on its stack */
};

/* Start the keeper of this process: the life word is held when this returns SYP_OK, else SYP_ESYS.  k and control stay
 * in place until the end. */
int keeper_start(struct keeper *k, struct control_head *control);
/* Orderly end: life = LIFE_LEFT, thread joined. */
void keeper_stop(struct keeper *k);
/* Tests only: the thread ends as at SIGKILL, the kernel flags the word. */
void keeper_vanish(struct keeper *k);

/* Cheap look at one rank: 0 = lives (or not known here), else enum life_reason.  Pairs with the kernel's store and with
 * life_publish. */
static inline int life_of(const struct peers *p, int rank) {
    const struct control_head *c = p->peer[rank].control;
    if (!c) return 0;
    uint32_t w = load_acquire((atom32 *)&c->life);
    if (__builtin_expect((w & (LIFE_DIED | LIFE_LEFT)) == 0, 1)) return 0;
    return (w & LIFE_DIED) ? LIFE_REASON_DIED : LIFE_REASON_LEFT;
}

/* Publish that `rank` is gone in this rank's own notices (idempotent). */
void life_publish(const struct peers *p, int rank, int reason);
/* What any rank of `ranks` (n of them) has published or the kernel has flagged: first gone member, or -1.  reason: out.
 */
int life_look(const struct peers *p, const int *ranks, int n, int *reason);

#endif
