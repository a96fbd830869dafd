/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local heap: a space over [meta, len) of a region, plus commit, lock, cache of freed blocks (cache.h), statistics,
 * and the recognition of bad frees.  Pointers are addresses in the region.  Used both for the shared pool and for
 * private memory.
 */
#ifndef SYP_POOL_HEAP_H
#define SYP_POOL_HEAP_H

#include "pool/base/lock.h"
#include "pool/cache.h"
#include "pool/purge.h"
#include "pool/region.h"
#include "pool/space.h"

/* Debug mode (debug.h).  A live block of it has `up` slack bytes before and `right` behind what was asked for. */
struct heap_debug {
    unsigned parts;      /* enum debug_part; init-const, as the others up to page */
    int on;              /* 1 = calls go through debug.c */
    int fatal;           /* damage ends the process */
    uint64_t every;      /* check the heap at every n-th call, 0 = never */
    uint64_t hold;       /* bytes that are kept back after they were freed */
    uint64_t page;       /* grain of guard pages */
    uint64_t calls;      /* allocations and frees so far; heap lock, as the rest */
    uint64_t damaged;    /* pieces of damage found */
    uint32_t first, last; /* held blocks, oldest first, linked by space_block.left */
    uint64_t held_bytes;
    uint64_t high;       /* end of what was ever handed out */
};

struct heap {
    struct region *region;  /* init-const */
    struct lock lock;       /* LOCK_HEAP: everything below */
    struct space space;
    struct cache cache;
    uint64_t used, used_peak; /* bytes of live blocks (cached ones not counted) */
    uint64_t n_live;
    uint64_t bad_frees;
    uint64_t retries;       /* allocations that needed the cache flushed */
    uint32_t parked;        /* blocks freed while quarantined, linked by space_block.left; not in used and n_live */
    uint64_t parked_bytes;
    struct heap_debug debug;
    struct purge purge;
    struct {                /* what heap_fast.h handed out last: often the next one freed; a guess */
        struct space_block *at;
        struct cache_bin *bin; /* for len */
        uint64_t len;
        uint32_t block;
    } recent;
    int fast;               /* heap_fast.h may serve: cache on, no events to wait for, no debug mode, not closed */
    int private_memory;     /* set by the owner after heap_init: its figures are not the pool's */
    int closed;             /* no new blocks; with no live block either, region and space are not there any more */
};

/* What an allocation is for. */
struct heap_want {
    uint64_t len;   /* > 0 */
    uint64_t align; /* power of two */
    uint64_t stream; /* key of the stream the block is for; 0 = none */
    uint32_t scope;  /* scope index for the walker, 0 = none */
    int *closed;     /* set to 1, and the record left alone, when the heap takes no blocks any more; NULL = SYP_ESTATE as usual */
};

/* The lock of a heap that is used again stays what it is: a late caller may be waiting for it.  Zero at the first use. */
int heap_init(struct heap *h, struct region *r, int cache_on);
/* No new blocks from now on; returns the number of live ones. */
uint64_t heap_close(struct heap *h);
/* Late callers find a heap without blocks. */
void heap_fini(struct heap *h);
/* NULL with the record set: SYP_ENOMEM, SYP_ESTATE (closed). */
void *heap_alloc(struct heap *h, const struct heap_want *want);
/* SYP_OK or SYP_EFOREIGN with the record set ("double free of ...", "pointer into the middle of a block of ..."). */
int heap_free(struct heap *h, void *p);
/* A quarantine of the region has ended: blocks freed meanwhile that no other range holds are free now. */
void heap_quarantine_release(struct heap *h);
/* In place: 1 done, 0 not possible, SYP_EFOREIGN. */
int heap_resize(struct heap *h, void *p, uint64_t len);
/* Usable bytes of the live block starting at p; 0 = none starts there. */
uint64_t heap_usable(struct heap *h, const void *p);
/* Live block containing p: start and length; 0 = none. */
int heap_find(struct heap *h, const void *p, void **block, uint64_t *len);
int heap_walk(struct heap *h, int (*fn)(void *arg, const syp_block *b), void *arg);
int heap_check(struct heap *h); /* SYP_OK or SYP_ESTATE with the damage in the record */
/* Give every cached block back to the space. */
void heap_flush(struct heap *h);
/* Give all free memory back to the system, cached blocks too: bytes. */
uint64_t heap_trim(struct heap *h);

/* For debug.c, whose calls are made of these.  heap_take: heap_alloc without it. */
void *heap_take(struct heap *h, const struct heap_want *want);
int heap_bad_pointer(struct heap *h, const void *p, const char *what);
uint32_t heap_live_at_locked(const struct heap *h, const void *p);
void heap_count_free_locked(struct heap *h, uint32_t block);
/* A block that is nobody's any more: parked, cached or free. */
void heap_let_go_locked(struct heap *h, uint32_t block);
const char *heap_damage_locked(const struct heap *h);

#endif
