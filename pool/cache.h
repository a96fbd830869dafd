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
#define CACHE_PER_BIN 32u

struct cache_entry {
    uint32_t slab_link;
    uint32_t next;       /* in its bin, newest first */
    uint32_t block;      /* in the space */
    uint64_t len, stream;
    backend_event event; /* recorded when it was freed */
};

struct cache {
    const struct backend_ops *backend;
    struct slab entries;
    uint32_t bin[CACHE_BINS];
    uint32_t n_in_bin[CACHE_BINS];
    uint64_t bytes, limit;
    uint64_t hits, misses;
    int on;
    int async; /* the backend's events may fire later than they are recorded */
};

void cache_init(struct cache *c, const struct backend_ops *backend, uint64_t limit, int on);
void cache_fini(struct cache *c);
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
