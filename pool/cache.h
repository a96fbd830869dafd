/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Freed blocks kept for reuse: bins by exact length and stream, newest first.  A block freed on a stream is reused at
 * once on that stream; on another only after the event recorded at its free has fired (host memory: at once).  Cached
 * blocks are SPACE_CACHED in the space: neither merged nor split.  Only blocks of CACHE_MIN bytes and more are kept,
 * CACHE_PER_BIN of one kind, and together no more than the limit (a quarter of the heap); to keep one more, the oldest
 * of its kind, or all, go back to the space.  A block whose event has not fired is kept whatever the limits.  Caller's
 * lock (the heap's).
 */
#ifndef SYP_POOL_CACHE_H
#define SYP_POOL_CACHE_H

#include "pool/backend.h"
#include "pool/space.h"

#define CACHE_MIN (16u << 10)
#define CACHE_BINS 256u  /* hash bins by length */
#define CACHE_PER_BIN 128u

struct cache {
    const struct backend_ops *backend;
    struct cache_bin {
        uint32_t newest, n; /* block, linked by space_block.left; tag is the stream, event that of the free */
    } bin[CACHE_BINS];
    uint64_t bytes, limit;
    uint64_t hits, misses;
    int on;
    int async; /* the backend's events may fire later than they are recorded */
};

void cache_init(struct cache *c, const struct backend_ops *backend, uint64_t limit, int on);
/* Empty, and off: its blocks are gone. */
void cache_fini(struct cache *c);
static inline uint32_t cache_bin_of(uint64_t len) {
    return (uint32_t)((len * 0x9E3779B97F4A7C15ull) >> 56); /* of CACHE_BINS = 2^8 */
}
static inline struct cache_bin *cache_bin(struct cache *c, uint64_t len) { return &c->bin[cache_bin_of(len)]; }
/* A live block of this length could be kept without giving another one back (no events). */
static inline int cache_has_place(const struct cache *c, const struct cache_bin *bin, uint64_t len) {
    return len >= CACHE_MIN && bin->n < CACHE_PER_BIN && c->bytes + len <= c->limit;
}
/* Keep it, newest of its bin.  Its stream is its tag. */
static inline void cache_push(struct cache *c, struct cache_bin *bin, uint32_t block, struct space_block *b) {
    b->state = SPACE_CACHED;
    b->left = bin->newest;
    bin->newest = block;
    bin->n++;
    c->bytes += b->len;
}
/* Take b, the newest of its bin, out of it. */
static inline void cache_pop(struct cache *c, struct cache_bin *bin, struct space_block *b) {
    b->state = SPACE_LIVE;
    bin->newest = b->left;
    bin->n--;
    c->bytes -= b->len;
    c->hits++;
}
/* A block of exactly len bytes aligned to align for this stream; 0 = none.  Its state becomes SPACE_LIVE. */
uint32_t cache_take(struct cache *c, struct space *s, uint64_t len, uint64_t align, uint64_t stream);
/* Keep a live block: 1 = kept (state SPACE_CACHED), 0 = the caller frees it. */
int cache_keep(struct cache *c, struct space *s, uint32_t block, uint64_t stream);
/* Free every entry whose event has fired into the space; returns bytes freed. */
uint64_t cache_flush(struct cache *c, struct space *s);
/* As cache_flush, but only blocks that `old` says yes to. */
uint64_t cache_expire(struct cache *c, struct space *s, int (*old)(void *arg, const struct space_block *b), void *arg);
/* Every entry against its block; NULL = sound, else what is wrong (static text). */
const char *cache_check(const struct cache *c, const struct space *s);

#endif
