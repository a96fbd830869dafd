/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Do the ranks of this host outnumber the processors that they may run on?  Then whoever waits yields at once instead of spinning.  Decided when the ranks are
 * mapped, and again now and then by those that wait: affinities are changed from outside, cpusets shrink, ranks die.
 */
#ifndef SYP_BOOTSTRAP_CROWD_H
#define SYP_BOOTSTRAP_CROWD_H

#include "bootstrap/peers.h"

#define CROWD_LOOK_EVERY (100 * NS_PER_MS)

/* Publish the processors that the calling thread may run on as this rank's. */
void crowd_publish(struct control_head *own);
/* From what the ranks have published: p->crowded, p->n_processors.  While nobody else looks. */
void crowd_count(struct peers *p);
/* Both, with p->crowded alone.  Any thread, any time. */
void crowd_look_again(struct peers *p, uint64_t now);

/* For whoever waits and has just read the clock. */
static inline void crowd_look(struct peers *p, uint64_t now) {
    if (__builtin_expect(now >= load_relaxed(&p->next_crowd_look), 0)) crowd_look_again(p, now); /* its own time, no data behind it */
}

#endif
