/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of quarantined ranges.
 *
 * Invariants: the first n entries are in use, in no order; `full` never goes back, since the range that found no place
 * cannot be found again to end it: memory is lost rather than written by two.
 *
 * Must not know: blocks, groups, peers.
 */
#include "pool/quarantine.h"

#include "pool/base/status.h"

#include <string.h>

void quarantine_init(struct quarantine *q) {
    memset(q, 0, sizeof *q);
    q->lock.rank = LOCK_LEAF;
}

int quarantine_add(struct quarantine *q, uint64_t id, uint64_t off, uint64_t len) {
    if (len == 0) return SYP_OK;
    lock_take(&q->lock);
    uint32_t n = load_relaxed(&q->n); /* written under this lock only */
    int placed = n < QUARANTINE_RANGES;
    if (placed) {
        q->range[n] = (struct quarantine_range){id, off, len};
        store_relaxed(&q->n, n + 1);
    } else {
        store_relaxed(&q->full, 1);
    }
    lock_drop(&q->lock);
    if (placed) return SYP_OK;
    return err_set(SYP_ENOMEM,
                   "quarantine %B at offset %llu: %u ranges are quarantined already; no freed memory of this pool is "
                   "reused any more; call syp_comm_buffers_safe after a broken operation, or finalize",
                   (unsigned long long)len, (unsigned long long)off, QUARANTINE_RANGES);
}

int quarantine_remove(struct quarantine *q, uint64_t id) {
    uint32_t kept = 0;
    lock_take(&q->lock);
    uint32_t n = load_relaxed(&q->n);
    for (uint32_t i = 0; i < n; i++)
        if (q->range[i].id != id) q->range[kept++] = q->range[i];
    store_relaxed(&q->n, kept);
    lock_drop(&q->lock);
    return (int)(n - kept);
}

int quarantine_hits(struct quarantine *q, uint64_t off, uint64_t len) {
    if (!quarantine_any(q)) return 0;
    lock_take(&q->lock);
    int hit = load_relaxed(&q->full) != 0;
    uint32_t n = load_relaxed(&q->n);
    for (uint32_t i = 0; i < n && !hit; i++)
        hit = off < q->range[i].off + q->range[i].len && q->range[i].off < off + len;
    lock_drop(&q->lock);
    return hit;
}
