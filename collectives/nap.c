/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spin, or yield when ranks outnumber processors; then sleep on the bell in slices of 1 ms doubling to 8, with a look after each.  So a store that nobody rings
 * for, and a death, are seen within a slice.
 *
 * A sleeper counts itself (board.napping), then looks once more; whoever stores looks at the count afterwards; both have a fence between (fence.h), so one of
 * the two sees the other.  The bell was read before that look, so a ring after it does not find the sleeper's value in the kernel.
 */
#include "collectives/nap.h"
#include "bootstrap/transport.h"
#include "collectives/awake.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"

#include <errno.h>

#define CROWDED_SPINS 20

static atom32 *bell_of(const struct coll *k, int rank) {
    return transport_shm.address(k->peers, rank, SEGMENT_EXCHANGE, coll_bell(k->conf.staging), sizeof(atom32));
}

int nap_open(struct coll *k) {
    int rc = peers_commit_exchange(k->peers, coll_bell(k->conf.staging), sizeof(atom32));
    return rc == SYP_OK ? rc : err_prefix("memory for waiting");
}

void nap_wake(const struct coll *k, int rank) {
    atom32 *bell = bell_of(k, rank);
    if (!bell) return;
    atomic_fetch_add_explicit(bell, 1, memory_order_release); /* pairs with nap_sleep */
    os->futex_wake(bell, INT32_MAX);
}

/* One slice on the bell.  Returns the time after it. */
static uint64_t nap_sleep(const struct nap *n, uint64_t now, uint64_t slice) {
    struct board *own = peers_own_body(n->k->peers);
    atom32 *bell = bell_of(n->k, n->k->peers->me);
    uint64_t left = deadline_left(now, n->deadline);
    if (slice > left) slice = left;
    if (slice == 0) return now;
    TEST_POINT("nap.sleep");
    add_relaxed(&own->napping, 1);
    uint32_t seen = load_acquire(bell); /* pairs with nap_wake */
    fence_heavy(n->k);                  /* pairs with nap_ring */
    int rc = 0;
    if (!n->ready(n->arg)) rc = os->futex_wait(bell, seen, slice);
    atomic_fetch_sub_explicit(&own->napping, 1, memory_order_relaxed);
    uint64_t after = os->now();
    crowd_look(n->k->peers, after);
    stats_add(STAT_SLEEPS, 1);
    stats_add(STAT_WAIT_NS, after - now);
    if (rc == -ETIMEDOUT && left > slice && n->ready(n->arg)) stats_add(STAT_LATE_WAKES, 1);
    return after;
}

int nap(struct nap *n) {
    if (stay_awake(n->k, n->ready, n->arg, CROWDED_SPINS, CROWDED_YIELDS_NS)) return SYP_OK;
    uint64_t now = os->now(), slice = FIRST_SLICE;
    if (!n->start) {
        n->start = now;
        n->deadline = deadline_after(now, n->timeout_ns > 0 ? n->timeout_ns : n->k->conf.timeout_ns);
    }
    int rc;
    while ((rc = n->look(n->arg, now)) == SYP_OK && !n->ready(n->arg)) {
        now = nap_sleep(n, now, slice);
        if (n->ready(n->arg)) break;
        slice = next_slice(slice);
    }
    return rc;
}
