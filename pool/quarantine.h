/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranges of a region that somebody may still write although their operation is over: the buffers of a broken collective, into
 * which a stopped rank will store when it wakes up.  While a range is here, freed memory that overlaps it is neither
 * handed out again nor given back to the system:
 *
 *   local heap         the block is parked: freed for its user, kept from everybody (heap_free, heap_quarantine_release)
 *   symmetric region   the free is applied at once, since offsets are a pure function of the calls; an allocation that
 *                      would hand out quarantined bytes fails with SYP_EBUSY, and counts as a call like any refused one
 *
 * Added before the broken operation returns to its caller, who is the one that may free its buffers; so a free never misses a
 * range.  Knows no groups and no ranks: an id is the adder's.
 */
#ifndef SYP_POOL_QUARANTINE_H
#define SYP_POOL_QUARANTINE_H

#include "pool/base/atomic.h"
#include "pool/base/lock.h"

#define QUARANTINE_RANGES 256u

struct quarantine_range {
    uint64_t id, off, len;
};

struct quarantine {
    struct lock lock; /* LOCK_LEAF: ranges */
    atom32 n;         /* entries in use; written under the lock, read without as "is there any?" */
    atom32 full;      /* 1 = a range had no place: from then on everything counts as quarantined; as n */
    struct quarantine_range range[QUARANTINE_RANGES];
};

void quarantine_init(struct quarantine *q);
/* [off, off + len) begins; len 0: nothing.  One id may have several ranges, and ranges may overlap.
 * SYP_OK, or SYP_ENOMEM when the table is full: then nothing in this region is reused until it is closed. */
int quarantine_add(struct quarantine *q, uint64_t id, uint64_t off, uint64_t len);
/* All ranges of this id end: how many there were.  Behind it call heap_quarantine_release. */
int quarantine_remove(struct quarantine *q, uint64_t id);
/* 1 when some byte of [off, off + len) is in a range. */
int quarantine_hits(struct quarantine *q, uint64_t off, uint64_t len);
/* 0 = certainly none: two loads, for the paths that are walked often.  Relaxed: who may free a buffer has seen the add. */
static inline int quarantine_any(struct quarantine *q) {
    return (load_relaxed(&q->n) | load_relaxed(&q->full)) != 0;
}

#endif
