/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for one rank, or for whatever any of them does: signals, channels, transfers.  The waits of a group's operations are wait.c's.
 *
 * A rank has one bell, a futex word in its exchange segment, on which all its threads sleep here.  Whoever has stored something for a rank that may wait for it
 * rings (nap_ring), which is one load while nobody sleeps there.  So a wait may be for several things at once, and for a word anywhere.
 */
#ifndef SYP_COLLECTIVES_NAP_H
#define SYP_COLLECTIVES_NAP_H

#include "collectives/fence.h"

struct nap {
    const struct coll *k;
    int (*ready)(void *arg);              /* 1 = there is something to do; cheap, called often */
    int (*look)(void *arg, uint64_t now); /* after a fruitless slice: SYP_OK = wait on, else what nap returns */
    void *arg;
    int64_t timeout_ns;       /* 0 = the default */
    uint64_t start, deadline; /* ns; 0 until there was something to wait for, and kept from one wait of a call to the next */
};

/* Memory for the bell: SYP_OK or SYP_ENOMEM. */
int nap_open(struct coll *k);
/* Until it is ready: SYP_OK, or what look returned.  look has to mind the deadline. */
int nap(struct nap *n);
/* nap_ring's rare part. */
void nap_wake(const struct coll *k, int rank);

/* After a store: wake the threads of `rank` that sleep, if there are any. */
static inline void nap_ring(const struct coll *k, int rank) {
    const struct board *b = peers_control_body(k->peers, rank);
    fence_light(k); /* pairs with nap_sleep */
    if (__builtin_expect(b && load_relaxed((atom32 *)&b->napping) != 0, 0)) nap_wake(k, rank);
}

#endif
