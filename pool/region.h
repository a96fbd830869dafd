/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pool of this process: a backend region split into [0, meta) symmetric and [meta, len) heap, and the commit state of both.
 * Knows nothing of peers and nothing of blocks.
 *
 * Commit state: one bit per chunk.  region_commit is called before a block is handed out and is a few loads when the range is
 * committed already.  A committed chunk stays so until region_close or until region_decommit gives it back, whose caller knows
 * that no block lies in it and, by its lock, that none will before it returns.
 */
#ifndef SYP_POOL_REGION_H
#define SYP_POOL_REGION_H

#include "pool/backend.h"
#include "pool/base/atomic.h"
#include "pool/base/lock.h"
#include "pool/quarantine.h"

struct region_conf {
    const struct backend_ops *backend;
    uint64_t len, meta;   /* as asked; rounded up by region_open */
    int shared;
    int huge;             /* enum backend_huge */
    int huge_required;    /* fail rather than fall back to base pages */
    int commit_full;
    uint64_t chunk;       /* commit unit, power of two; at least the backend's granularity is used */
    const unsigned long *nodes;
    unsigned long max_node;
    const char *name;
    void *at;             /* address inside a reservation, NULL = own reservation */
};

struct region {
    const struct backend_ops *backend; /* init-const */
    struct backend_region mem;         /* init-const */
    uint64_t len, meta;                /* init-const; meta multiple of the page size */
    uint64_t chunk;                    /* init-const */
    struct lock lock;                  /* LOCK_REGION: bits, committed */
    _Atomic uint64_t *bits;            /* set under the lock with release, read without */
    uint64_t n_chunks;
    atom32 *freed;                     /* per chunk, for purge.c: tick of the last free in it; relaxed, two allocators may share a chunk */
    uint64_t committed, committed_peak; /* bytes; lock */
    struct quarantine quarantine;       /* ranges that must not be reused yet; its own lock */
};

/* Rounded length and meta that region_open will use for this configuration (peers must agree before it is opened). */
void region_round(const struct region_conf *conf, uint64_t *len, uint64_t *meta);
int region_open(struct region *r, const struct region_conf *conf);
/* Twice, or after a failed open: nothing. */
void region_close(struct region *r);
/* Make [off, off + len) usable.  SYP_OK or SYP_ENOMEM with the record set.  Thread-safe. */
int region_commit(struct region *r, uint64_t off, uint64_t len);
/* Give back what is committed of the whole chunks inside [off, off + len) that were freed `age` ticks or more before `tick`,
 * and are not quarantined, up to `most` bytes and a chunk: bytes given back.  They read as zero until they are committed again. */
uint64_t region_decommit(struct region *r, uint64_t off, uint64_t len, uint32_t tick, uint32_t age, uint64_t most);
/* 1 if region_commit of this range has nothing to do; without a lock.  len > 0, the range lies in the region. */
int region_is_committed(const struct region *r, uint64_t off, uint64_t len);
/* 1 if p lies in the region. */
static inline int region_contains(const struct region *r, const void *p) {
    return (uintptr_t)p - (uintptr_t)r->mem.base < r->len;
}
static inline uint64_t region_offset(const struct region *r, const void *p) {
    return (uint64_t)((const char *)p - r->mem.base);
}
static inline void *region_at(const struct region *r, uint64_t off) { return r->mem.base + off; }

#endif
