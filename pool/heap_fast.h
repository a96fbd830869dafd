/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steady state of the heap: an allocation of a length and stream that was freed before, and a free into the cache.  heap_alloc and
 * heap_free begin with it; the public calls have it inlined for the thread that the heap's lock favours (lock.h), so that
 * a pair is some 150 instructions without a call, a system call or an atomic read-modify-write.
 *
 * Whatever is not that plain is "not served", and nothing has changed.
 */
#ifndef SYP_POOL_HEAP_FAST_H
#define SYP_POOL_HEAP_FAST_H

#include "pool/heap.h"
#include "pool/stats.h"

static inline int heap_likely(int condition) { return __builtin_expect(condition, 1) != 0; }

/* Gauges of the pool's heap, and a counter or two (the same twice = one), by the thread that holds the lock. */
static inline void heap_count_locked(const struct heap *h, uint32_t shard, enum stats_id event, enum stats_id second) {
    struct stats_shard *s = load_acquire(&stats_shards);
    store_relaxed(&s[0].value[STAT_HEAP_USED], h->used);
    store_relaxed(&s[0].value[STAT_HEAP_CACHED], h->cache.bytes);
    stats_bump(&s[shard], event);
    if (second != event) stats_bump(&s[shard], second);
}

/* self: thread_own.  NULL = not served. */
static inline void *heap_reuse_locked(struct heap *h, const struct region *r, const struct heap_want *want,
                                      const struct thread *self) {
    uint64_t asked = round_up(want->len, SPACE_GRAIN);
    struct cache_bin *bin = cache_bin(&h->cache, asked);
    if (!heap_likely(h->fast && bin->newest && self && self->shard)) return NULL;
    struct space_block *b = space_at(&h->space, bin->newest);
    if (!heap_likely(b->len == asked && b->tag == want->stream && h->used + asked <= h->used_peak && h->purge.calls > 0)) return NULL;
    if (want->align > SPACE_GRAIN && ((h->space.bias + b->off) & (want->align - 1)) != 0) return NULL;
    h->recent.at = b;
    h->recent.bin = bin;
    h->recent.len = asked;
    h->recent.block = bin->newest;
    cache_pop(&h->cache, bin, b);
    b->scope = want->scope;
    h->used += asked;
    h->n_live++;
    h->purge.calls--;
    if (heap_likely(!h->private_memory))
        heap_count_locked(h, self->shard, STAT_ALLOCS, STAT_CACHE_HITS);
    else
        stats_bump(&load_acquire(&stats_shards)[self->shard], STAT_PRIVATE_ALLOCS);
    return region_at(r, b->off);
}

/* Take block, which is b, into the cache if it is live and has a place there: 1. */
static inline int heap_keep_locked(struct heap *h, struct cache_bin *bin, uint32_t block, struct space_block *b,
                                   const struct thread *self) {
    if (!heap_likely(b->state == SPACE_LIVE && h->purge.calls > 0 && cache_has_place(&h->cache, bin, b->len))) return 0;
    cache_push(&h->cache, bin, block, b);
    purge_note_block_locked(&h->purge, h->region, b);
    h->purge.calls--;
    h->used -= b->len;
    h->n_live--;
    if (heap_likely(!h->private_memory)) heap_count_locked(h, self->shard, STAT_FREES, STAT_FREES);
    return 1;
}

/* r is the heap's region.  0 = not served. */
static inline int heap_recycle_locked(struct heap *h, struct region *r, const void *p, const struct thread *self) {
    if (!heap_likely(h->fast && self && self->shard && !quarantine_any(&r->quarantine))) return 0;
    uint64_t off = region_offset(r, p); /* of a foreign pointer: where no block starts */
    /* The block handed out last first: keeps the search out of what a free right behind its allocation waits for. */
    struct space_block *b = h->recent.at;
    if (b && b->off == off && b->len == h->recent.len) return heap_keep_locked(h, h->recent.bin, h->recent.block, b, self);
    uint32_t block = space_find(&h->space, off);
    if (!block) return 0;
    b = space_at(&h->space, block);
    return heap_keep_locked(h, cache_bin(&h->cache, b->len), block, b, self);
}

/* The same for the favourite of the lock; NULL, 0 = not served. */
static inline void *heap_reuse_favoured(struct heap *h, const struct region *r, const struct heap_want *want) {
    struct thread *self = thread_own;
    if (!lock_enter_favoured(&h->lock, self)) return NULL;
    void *p = heap_reuse_locked(h, r, want, self);
    lock_leave_favoured(self);
    return p;
}

static inline int heap_recycle_favoured(struct heap *h, struct region *r, const void *p) {
    struct thread *self = thread_own;
    if (!lock_enter_favoured(&h->lock, self)) return 0;
    int done = heap_recycle_locked(h, r, p, self);
    lock_leave_favoured(self);
    return done;
}

#endif
