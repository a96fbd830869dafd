/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pools of this process, and which one an address belongs to.
 *
 *   POOL_FREE -> POOL_ACTIVE (attached, or the private one) -> POOL_RETIRED (detached with live blocks) -> POOL_FREE
 *
 * A struct pool lives in a static table and is never unmapped, and its locks are never set up twice: a call that races with finalize finds a
 * lock and a closed heap, or a heap that came after it, never freed memory.
 */
#ifndef SYP_ALLOCATOR_POOLS_H
#define SYP_ALLOCATOR_POOLS_H

#include "pool/addrmap.h"
#include "pool/heap.h"
#include "pool/symm.h"

enum pool_state { POOL_FREE = 0, POOL_ACTIVE, POOL_RETIRED, POOL_CLOSING };
enum range_kind { RANGE_POOL = 1, RANGE_PEER };

struct pool {
    atom32 state;        /* enum pool_state; acq_rel: pool_new, pool_retire, pool_settle */
    int shared;          /* 1 = of an attached job, 0 = private memory */
    int rank;            /* -1 = private */
    int inherited;       /* 1 = came from the parent of a fork: frees do nothing */
    int parted;          /* 1 = retired, and copied on write by fork since one was seen; heap lock */
    struct region region;
    struct heap heap;
    struct symm symm;
    void *window;        /* address space to give back with the pool, NULL = the region's own */
    uint64_t window_len;
    int mapped;          /* 1 = in the address map */
    atom32 ready;        /* 1 = it can be walked, and its locks are to be taken by fork; release: pool_open, pool_close */
};

/* An unused entry, POOL_ACTIVE, zero; NULL with the record set. */
struct pool *pool_new(void);
/* Open region and heap as conf says; mapped: pool_find knows its addresses before the first block is handed out.  The pool is the caller's to close; on an
 * error nothing is open. */
int pool_open(struct pool *p, const struct region_conf *conf, int cache_on, int mapped);
/* Everything given back.  For a pool without live blocks, or whose blocks nobody will use. */
void pool_close(struct pool *p);
/* Detached: close when no block is live, else keep it as memory of this process until the last free (pool_settle). */
void pool_retire(struct pool *p);
/* After a free: close the pool if it is retired and that was the last block.  Safe whatever became of the pool meanwhile. */
void pool_settle(struct pool *p);

/* The pool of this process that contains the address, NULL = foreign or a peer's. */
static inline struct pool *pool_find(const void *p) {
    const struct addr_range *range = addrmap_find(p);
    return range && range->kind == RANGE_POOL ? range->owner : NULL;
}

extern _Atomic(struct pool *) pool_private_opened; /* release: pool_private_open.  acquire: its readers */
struct pool *pool_private_open(void);

/* Memory of this process alone, made at the first call; NULL with the record set. */
static inline struct pool *pool_private(void) {
    struct pool *p = load_acquire(&pool_private_opened);
    return p ? p : pool_private_open();
}
/* Held while the private pool is made.  Fork takes it, or the child could find a pool that was made after its parent's locks were taken. */
extern struct lock private_lock;

/* All pools that are not POOL_FREE, for the walker and the fork handlers. */
#define POOLS_MAX 64
extern struct pool pools[POOLS_MAX];

/* Before a fork, with the locks of all pools held: retired pools are memory of this process alone, so the child gets its own copy on write. */
void pools_before_fork(void);
/* In the forked child: what came from the parent.  consistent: no thread was inside an allocator at the fork. */
void pools_after_fork(int consistent);

#endif
