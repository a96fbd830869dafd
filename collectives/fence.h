/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Store, then look at what another rank stores: both sides need a fence between the two, or each may miss the other.  One side here is in every operation, the
 * other is rare; so the rare one pays for both: fence_heavy makes every running thread of every rank execute a fence, and fence_light is then a matter of
 * the compiler alone (Linux: membarrier).  When the kernel of any rank refuses that (struct coll.fences), both are plain fences.
 *
 * A store is followed by fence_light at one side, by fence_heavy at the other; then each loads.  At least one of the two sees the other's store.
 */
#ifndef SYP_COLLECTIVES_FENCE_H
#define SYP_COLLECTIVES_FENCE_H

#include "collectives/coll.h"
#include "pool/base/os.h"

/* ThreadSanitizer does not know fences; what they order here are atomics, in which it sees no race without them. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wtsan"
#endif

static inline void fence_light(const struct coll *k) {
    if (__builtin_expect(k->fences, 0))
        atomic_thread_fence(memory_order_seq_cst);
    else
        atomic_signal_fence(memory_order_seq_cst);
}

static inline void fence_heavy(const struct coll *k) {
    atomic_thread_fence(memory_order_seq_cst);
    if (!k->fences) (void)os->fence_ranks();
}

/* What was loaded before it stays before what is loaded behind it. */
static inline void fence_loads(void) {
    atomic_thread_fence(memory_order_acquire);
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif
