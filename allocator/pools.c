/* SPDX-License-Identifier: Apache-2.0 */
#include "allocator/pools.h"
#include "allocator/process.h"
#include "pool/base/conf.h"
#include "pool/base/log.h"
#include "pool/base/status.h"
#include "pool/debug.h"
#include "pool/stats.h"

#include <string.h>

/* Private memory is reserved, not committed; halved until the limits of the process allow it. */
#define PRIVATE_MOST (64ull << 30)
#define PRIVATE_LEAST (64ull << 20)

struct pool pools[POOLS_MAX];
struct lock private_lock = LOCK_INIT(LOCK_ATTACH);
_Atomic(struct pool *) pool_private_opened;

struct pool *pool_new(void) {
    for (int i = 0; i < POOLS_MAX; i++) {
        uint32_t expected = POOL_FREE;
        struct pool *p = &pools[i];
        if (!cas_acq_rel(&p->state, &expected, POOL_ACTIVE)) continue; /* pairs with pool_close */
        p->shared = p->mapped = p->parted = 0; /* a pool that a child inherited is never given back, nor used again */
        p->rank = -1;
        p->window = NULL;
        p->window_len = 0;
        return p;
    }
    err_set(SYP_ENOMEM, "all %d pools of this process are in use: blocks of earlier attaches are still live; free them", POOLS_MAX);
    return NULL;
}

/* Enter the pool's addresses into the map, so that pool_find knows them. */
static int map_pool(struct pool *p) {
    struct addr_range range = {(uintptr_t)p->region.mem.base, p->region.len, RANGE_POOL, p->rank, p};
    int rc = addrmap_add(&range);
    if (rc == SYP_OK) p->mapped = 1;
    return rc;
}

static void unmap_pool(struct pool *p) {
    if (p->mapped) addrmap_remove((uintptr_t)p->region.mem.base);
    p->mapped = 0;
}

int pool_open(struct pool *p, const struct region_conf *conf, int cache_on, int mapped) {
    int rc = region_open(&p->region, conf);
    if (rc != SYP_OK) return rc;
    /* before the heap is: a late caller of the pool before may be given a block at once, and free it */
    if (mapped) rc = map_pool(p);
    if (rc == SYP_OK) rc = heap_init(&p->heap, &p->region, cache_on);
    if (rc != SYP_OK) {
        unmap_pool(p);
        region_close(&p->region);
        return rc;
    }
    struct debug_conf debug;
    debug_conf_read(&debug);
    debug_start(&p->heap, &debug);
    int64_t decay = conf->commit_full ? PURGE_NEVER : conf_int(CONF_DECAY);
    lock_take(&p->heap.lock); /* a late caller of the pool before may be using it already */
    purge_init(&p->heap.purge, decay);
    lock_drop(&p->heap.lock);
    store_release(&p->ready, 1); /* pairs with fork's for_all_locks */
    return SYP_OK;
}

void pool_close(struct pool *p) {
    unmap_pool(p);
    store_release(&p->ready, 0); /* a fork that has its locks already is waited for here */
    symm_fini(&p->symm);
    heap_fini(&p->heap); /* from here on nobody who holds a lock of this pool looks at the region */
    region_close(&p->region);
    if (p->window) os->release(p->window, p->window_len);
    p->window = NULL;
    store_release(&p->state, POOL_FREE); /* pairs with pool_new */
}

static int empty(struct pool *p) {
    lock_take(&p->heap.lock);
    uint64_t live = p->heap.n_live;
    lock_drop(&p->heap.lock);
    return live == 0;
}

void pool_settle(struct pool *p) {
    uint32_t expected = POOL_RETIRED;
    if (load_acquire(&p->state) != POOL_RETIRED || !empty(p)) return; /* pairs with pool_retire */
    if (cas_acq_rel(&p->state, &expected, POOL_CLOSING)) pool_close(p);
}

void pool_retire(struct pool *p) {
    symm_fini(&p->symm);
    uint64_t live = heap_close(&p->heap); /* what other threads allocate from now on comes from elsewhere */
    if (live)
        log_info("finalize: %llu blocks of the pool are still live; their memory stays with this process until they are freed",
                 (unsigned long long)live);
    store_release(&p->state, POOL_RETIRED); /* pairs with pool_settle */
    pool_settle(p);
}

static struct pool *open_private(void) {
    fork_guard();
    struct pool *p = pool_new();
    if (!p) return NULL;
    int rc = SYP_ENOMEM;
    syp_error kept = *err_record(); /* refusals on the way to success are no failure */
    for (uint64_t len = PRIVATE_MOST; rc != SYP_OK && len >= PRIVATE_LEAST; len /= 2) {
        struct region_conf conf = {.backend = &backend_host, .len = len, .chunk = 2 << 20, .name = "sympool private"};
        rc = pool_open(p, &conf, 1, 1);
    }
    p->heap.private_memory = 1;
    if (rc == SYP_OK) {
        *err_record() = kept;
        return p;
    }
    err_prefix("private memory");
    store_release(&p->state, POOL_FREE); /* nothing was opened; pairs with pool_new */
    return NULL;
}

struct pool *pool_private_open(void) {
    lock_take(&private_lock);
    struct pool *p = load_relaxed(&pool_private_opened);
    if (!p) {
        p = open_private();
        store_release(&pool_private_opened, p); /* pairs with pool_private */
    }
    lock_drop(&private_lock);
    return p;
}

/* The mapping is replaced in one step: other threads' stores go to the one or the other, which show the same pages.  Where the system refuses, the
 * child shares the blocks with its parent. */
void pools_before_fork(void) {
    for (int i = 0; i < POOLS_MAX; i++) {
        struct pool *p = &pools[i];
        if (load_acquire(&p->state) != POOL_RETIRED || p->parted || p->heap.n_live == 0) continue; /* pairs with pool_retire */
        p->parted = p->region.backend->make_private(&p->region.mem) == 0;
    }
}

void pools_after_fork(int consistent) {
    lock_reset(&private_lock);
    if (!consistent) pools_before_fork(); /* late, but the child's stores do not reach the parent from now on */
    for (int i = 0; i < POOLS_MAX; i++) {
        struct pool *p = &pools[i];
        lock_reset(&p->symm.lock); /* also of an unused pool: another thread of the parent may have been opening or leaving it */
        lock_reset(&p->heap.lock);
        lock_reset(&p->region.lock);
        if (load_relaxed(&p->state) == POOL_ACTIVE && !load_relaxed(&p->ready)) store_relaxed(&p->state, POOL_FREE);
        if (load_relaxed(&p->state) == POOL_FREE) continue;
        if ((p->shared && !p->parted) || !consistent) p->inherited = 1;
    }
    /* Private memory is copied on write and goes on being used, unless some thread of the parent was in the middle of changing its records. */
    if (!consistent) store_release(&pool_private_opened, NULL);
}
