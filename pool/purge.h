/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Free memory goes back to the system: what nobody used for the time of SYMPOOL_DECAY, chunk by chunk.  Driven by the calls
 * of the program, since a process that is not attached must not get a thread: the clock is read at a large allocation or free
 * that misses the cache, and at every PURGE_CALLS-th call of any kind.  Time counts in ticks of a quarter of the setting, so memory
 * goes back after 1 to 1.25 times the setting, at the next call.
 *
 * Only whole chunks in free blocks; blocks in the cache that are old enough are freed first.  Caller's lock (the heap's or the symmetric
 * region's), also of region.freed for the chunks of that part.
 */
#ifndef SYP_POOL_PURGE_H
#define SYP_POOL_PURGE_H

#include "pool/cache.h"
#include "pool/region.h"

#define PURGE_NEVER (-1)
#define PURGE_CALLS 256
/* Given back with the lock held once; the next call goes on. */
#define PURGE_PART (64ull << 20)

struct purge {
    int64_t after; /* ns; 0 = at once, PURGE_NEVER */
    uint32_t tick;   /* when the clock was last read */
    uint32_t looked; /* when chunks were last looked at */
    int32_t calls;   /* below 0: read the clock */
    int more;        /* 1 = the last part was not all */
};

void purge_init(struct purge *p, int64_t after);
/* [off, off + len) is free or cached from now on.  exact: worth reading the clock for. */
void purge_note_free_locked(struct purge *p, struct region *r, uint64_t off, uint64_t len, int exact);
/* The same for a block of which this is often said (no events, so that space_block.event is ours): one comparison a tick. */
static inline void purge_note_block_locked(struct purge *p, struct region *r, struct space_block *b) {
    if (__builtin_expect(b->event == p->tick + 1ull, 1)) return;
    b->event = p->tick + 1ull;
    purge_note_free_locked(p, r, b->off, b->len, 0);
}
/* Give back what is old enough.  c NULL: no cache. */
void purge_tick_locked(struct purge *p, struct region *r, struct space *s, struct cache *c);
/* Give back what was freed `age` ticks before `tick`, 0 = everything, up to PURGE_PART: bytes. */
uint64_t purge_locked(struct region *r, const struct space *s, uint32_t tick, uint32_t age);

#endif
