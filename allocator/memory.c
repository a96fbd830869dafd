/* SPDX-License-Identifier: Apache-2.0 */
/* The C face of memory: syp_malloc and its family, look-ups, walker and checker. */
#include "allocator/memory.h"
#include "allocator/sympool.h"
#include "pool/base/log.h"
#include "pool/base/status.h"
#include "pool/heap_fast.h"
#include "pool/scope.h"
#include "pool/stats.h"

#include <errno.h>
#include <string.h>

#define LARGEST_ALIGN (1ull << 30)

static atom64 bad_frees; /* since load; relaxed, a figure */

/* ----------------------------------------------------------------------------------------- allocate and free */

static void *alloc_in_symmetric_scope(const struct scope *s, size_t len, size_t align) {
    struct world *w;
    void *p = NULL;
    if (process_enter("allocation in a symmetric scope", &w) != SYP_OK) return NULL;
    if (w->pool->region.meta)
        p = symm_alloc(&w->pool->symm, len, align, s->index);
    else
        err_set(SYP_EUNSUPPORTED, "allocation in a symmetric scope: meta_size is 0; raise SYMPOOL_META_SIZE");
    process_leave();
    return p;
}

/* The pool that serves this process now, NULL = none yet.  Not inherited: a child has neither. */
static inline struct pool *likely_pool(void) {
    struct pool *p = process_pool();
    return p ? p : load_acquire(&pool_private_opened); /* pairs with pool_private_open */
}

/* The steady state (heap_fast.h): NULL = not served. */
static inline void *alloc_fast(size_t len, size_t align, uint64_t stream) {
    struct pool *p = likely_pool();
    if (!p || load_relaxed(&scope_n_ids) != 0) return NULL; /* relaxed: scope.h */
    const struct heap_want want = {.len = len, .align = align, .stream = stream};
    return heap_reuse_favoured(&p->heap, &p->region, &want);
}

void *memory_alloc(size_t len, size_t align, uint64_t stream) {
    struct pool *p = process_pool();
    const struct scope *s = p ? scope_current() : NULL;
    if (s && s->kind == SYP_SCOPE_SYMMETRIC) return alloc_in_symmetric_scope(s, len, align);
    int closed = 0; /* by a finalize in another thread, after we looked: private memory, as if we had come later */
    struct heap_want want = {.len = len, .align = align, .stream = stream, .scope = s ? s->index : 0, .closed = &closed};
    void *block = p ? heap_alloc(&p->heap, &want) : NULL;
    if (block || (p && !closed)) return block;
    want.scope = 0;
    want.closed = NULL;
    p = pool_private();
    return p ? heap_alloc(&p->heap, &want) : NULL;
}

static int refuse_free(void) {
    static struct log_limit limit = LOG_RATE(10);
    add_relaxed(&bad_frees, 1);
    log_warn_limited(&limit, "%s; ignored", err_record()->text);
    return SYP_EFOREIGN;
}

int memory_free(void *p) {
    (void)process_forked(); /* first: it may change what the pools are */
    struct pool *pool = pool_find(p);
    int rc;
    if (!pool) {
        stats_add(STAT_BAD_FREES, 1);
        err_set(SYP_EFOREIGN, "free: %p is not in any pool of this process", p);
        return refuse_free();
    }
    if (pool->inherited) return SYP_OK; /* the parent's block */
    if (load_acquire(&pool->state) == POOL_ACTIVE && region_offset(&pool->region, p) < pool->region.meta)
        rc = symm_free(&pool->symm, p);
    else
        rc = heap_free(&pool->heap, p);
    if (rc != SYP_OK) return refuse_free();
    pool_settle(pool);
    return SYP_OK;
}

/* The steady state (heap_fast.h): 0 = not served. */
static inline int free_fast(void *p) {
    struct pool *pool = likely_pool();
    return pool && heap_recycle_favoured(&pool->heap, &pool->region, p);
}

static __attribute__((noinline)) void free_or_say(void *p) {
    int saved = errno; /* the fast path makes no call that could change it */
    if (p && memory_free(p) != SYP_OK) err_operation("free");
    errno = saved;
}

static void *fail(const char *call) {
    err_operation(call);
    return NULL;
}

/* Arguments of an allocation call: 1 = in range. */
static int legal(size_t len, size_t align) {
    if (len > PTRDIFF_MAX)
        err_set(SYP_EINVAL, "allocation: len is %zu bytes, above PTRDIFF_MAX; is it a negative number?", len);
    else if (!is_pow2(align) || align > LARGEST_ALIGN)
        err_set(SYP_EINVAL, "allocation: align is %zu; alignments are powers of two up to 1 GiB", align);
    else
        return 1;
    return 0;
}

static __attribute__((noinline)) void *malloc_full(size_t len) {
    void *p = legal(len, 1) ? memory_alloc(len ? len : 1, SPACE_GRAIN, 0) : NULL;
    return p ? p : fail("malloc");
}

void *syp_malloc(size_t len) {
    void *p = alloc_fast(len, SPACE_GRAIN, 0); /* a length that is not legal is in no cache */
    return p ? p : malloc_full(len);
}

void *syp_aligned_alloc(size_t align, size_t len) {
    if (!legal(len, align)) return fail("aligned_alloc");
    void *p = memory_alloc(len ? len : 1, align > SPACE_GRAIN ? align : SPACE_GRAIN, 0);
    return p ? p : fail("aligned_alloc");
}

void *syp_calloc(size_t n, size_t len) {
    size_t bytes;
    if (__builtin_mul_overflow(n, len, &bytes)) {
        err_set(SYP_EINVAL, "calloc: n is %zu, len is %zu bytes: the product overflows", n, len);
        return fail("calloc");
    }
    void *p = legal(bytes, 1) ? memory_alloc(bytes ? bytes : 1, SPACE_GRAIN, 0) : NULL;
    return p ? memset(p, 0, bytes) : fail("calloc");
}

void syp_free(void *p) {
    if (!free_fast(p)) free_or_say(p);
}

/* ------------------------------------------------------------------------------------------------- resize */

static size_t usable(struct pool *pool, const void *p) {
    if (load_acquire(&pool->state) == POOL_ACTIVE && region_offset(&pool->region, p) < pool->region.meta)
        return symm_usable(&pool->symm, p);
    return heap_usable(&pool->heap, p);
}

void *syp_realloc(void *p, size_t len) {
    if (!p) return syp_malloc(len);
    if (len == 0) {
        syp_free(p);
        return NULL;
    }
    if (!legal(len, 1)) return fail("realloc");
    (void)process_forked(); /* first, as above */
    struct pool *pool = pool_find(p);
    size_t old = pool ? usable(pool, p) : 0;
    if (old == 0) {
        err_set(SYP_EFOREIGN, "realloc: %p is not the start of a live block", p);
        return fail("realloc");
    }
    if (region_offset(&pool->region, p) < pool->region.meta) {
        err_set(SYP_EUNSUPPORTED, "realloc: %p is a symmetric block; allocate a new one on every rank and copy", p);
        return fail("realloc");
    }
    if (!pool->inherited && heap_resize(&pool->heap, p, len) == 1) return p;
    void *q = memory_alloc(len, SPACE_GRAIN, 0);
    if (!q) return fail("realloc");
    memcpy(q, p, old < len ? old : len);
    memory_free(p);
    return q;
}

/* ----------------------------------------------------------------------------------------------- questions */

size_t syp_usable_size(const void *p) {
    (void)process_forked(); /* first: it may have to free the locks */
    struct pool *pool = p ? pool_find(p) : NULL;
    size_t n = pool ? usable(pool, p) : 0;
    if (n == 0) {
        err_set(SYP_EFOREIGN, "usable_size: %p is not the start of a live block", p);
        err_operation("usable_size");
    }
    return n;
}

/* w: NULL when not attached: then there are no peers' ranges either. */
static int locate(const void *p, const struct world *w, syp_location *out) {
    const struct addr_range *found = addrmap_find(p);
    struct addr_range range = found ? *found : (struct addr_range){0};
    struct pool *pool = range.kind == RANGE_POOL ? range.owner : NULL;
    if (!pool && (range.kind != RANGE_PEER || !w)) return err_set(SYP_EFOREIGN, "owner: %p is not in any pool this process knows", p);
    syp_location at = {.size = sizeof at, .rank = range.rank, .offset = (uint64_t)((uintptr_t)p - range.base)};
    uint64_t meta = pool ? pool->region.meta : w->pool->region.meta;
    at.where = pool && !pool->shared ? SYP_WHERE_PRIVATE : at.offset < meta ? SYP_WHERE_SYMMETRIC : SYP_WHERE_HEAP;
    uint64_t len = 0;
    if (pool && at.where == SYP_WHERE_SYMMETRIC)
        symm_find(&pool->symm, p, &at.block, &len);
    else if (pool)
        heap_find(&pool->heap, p, &at.block, &len);
    at.len = len;
    *out = at;
    return SYP_OK;
}

int syp_owner(const void *p, syp_location *out) {
    int rc = process_usable("owner");
    if (rc != SYP_OK) return rc;
    if (!out || out->size < sizeof *out) {
        err_set(SYP_EINVAL, "owner: out is NULL or out->size is below %zu", sizeof *out);
        return err_operation("owner");
    }
    const struct world *w = process_enter_quietly(); /* peers' ranges stay while we look */
    rc = locate(p, w, out);
    if (w) process_leave();
    return rc == SYP_OK ? SYP_OK : err_operation("owner");
}

static void *peer_ptr(const struct world *w, const void *p, int rank) {
    const struct region *own = &w->pool->region;
    if (rank < 0 || rank >= w->peers.n)
        err_set(SYP_EINVAL, "peer_ptr: rank %d is outside 0 .. %d", rank, w->peers.n - 1);
    else if (!region_contains(own, p))
        err_set(SYP_EFOREIGN, "peer_ptr: %p is not in this rank's pool", p);
    else if (w->peers.peer[rank].reach != REACH_LOADSTORE)
        err_set(SYP_EREACH, "peer_ptr: rank %d is not reachable by load and store (it runs on another host)", rank);
    else if (region_offset(own, p) >= w->peers.peer[rank].data_len)
        err_set(SYP_EFOREIGN, "peer_ptr: offset %llu lies beyond the pool of rank %d, which has %llu bytes",
                (unsigned long long)region_offset(own, p), rank, (unsigned long long)w->peers.peer[rank].data_len);
    else
        return w->peers.peer[rank].data + region_offset(own, p);
    return NULL;
}

void *syp_peer_ptr(const void *p, int rank) {
    struct world *w;
    if (process_enter("peer_ptr", &w) != SYP_OK) return NULL;
    void *there = peer_ptr(w, p, rank);
    process_leave();
    return there ? there : fail("peer_ptr");
}

void *syp_pool_base(int rank) {
    struct world *w;
    if (process_enter("pool_base", &w) != SYP_OK) return NULL;
    void *there = peer_ptr(w, w->pool->region.mem.base, rank);
    process_leave();
    return there ? there : fail("pool_base");
}

static int in_use(struct pool *p) {
    uint32_t s = load_acquire(&p->state); /* pairs with pool_new and pool_retire */
    return (s == POOL_ACTIVE || s == POOL_RETIRED) && load_acquire(&p->ready) && !p->inherited; /* the last: pool_open, pool_close */
}

int syp_walk(int (*fn)(void *arg, const syp_block *block), void *arg) {
    int rc = process_usable("walk");
    if (rc == SYP_OK && !fn) {
        err_set(SYP_EINVAL, "walk: fn is NULL; it is called for each block");
        rc = err_operation("walk");
    }
    for (int i = 0; rc == SYP_OK && i < POOLS_MAX; i++) {
        struct pool *p = &pools[i];
        if (!in_use(p)) continue;
        rc = symm_walk(&p->symm, fn, arg); /* most pools have none, which is no block */
        if (rc == SYP_OK) rc = heap_walk(&p->heap, fn, arg);
    }
    return rc;
}

int syp_check(void) {
    int rc = process_usable("check");
    for (int i = 0; rc == SYP_OK && i < POOLS_MAX; i++) {
        struct pool *p = &pools[i];
        if (!in_use(p)) continue;
        rc = symm_check(&p->symm);
        if (rc == SYP_OK) rc = heap_check(&p->heap);
        if (rc != SYP_OK) err_operation("check");
    }
    return rc;
}

int64_t syp_trim(void) {
    int rc = process_usable("trim");
    if (rc != SYP_OK) return rc;
    int64_t given = 0;
    for (int i = 0; i < POOLS_MAX; i++) {
        struct pool *p = &pools[i];
        if (!in_use(p)) continue;
        given += (int64_t)symm_trim(&p->symm);
        given += (int64_t)heap_trim(&p->heap);
    }
    return given;
}

static void figures(const struct world *w, syp_pool_info *out) {
    struct pool *p = w->pool;
    syp_pool_info i = {.size = sizeof i, .local_mem_size = p->region.len, .meta_size = p->region.meta};
    lock_take(&p->symm.lock);
    i.symm_used = p->symm.space.used;
    i.symm_peak = p->symm.space.used_peak;
    i.n_live = p->symm.space.n_used;
    lock_drop(&p->symm.lock);
    lock_take(&p->heap.lock);
    i.heap_used = p->heap.used;
    i.heap_peak = p->heap.used_peak;
    i.heap_cached = p->heap.cache.bytes;
    i.heap_quarantined = p->heap.parked_bytes;
    i.n_live += p->heap.n_live;
    i.largest_free = space_largest_free(&p->heap.space);
    lock_drop(&p->heap.lock);
    lock_take(&p->region.lock);
    i.committed = p->region.committed;
    i.committed_peak = p->region.committed_peak;
    lock_drop(&p->region.lock);
    i.used_peak = i.symm_peak + i.heap_peak;
    i.overhead = stats_overhead() + coll_bytes(&w->coll);
    i.bad_frees = load_relaxed(&bad_frees);
    memcpy(out, &i, out->size < sizeof i ? out->size : sizeof i);
}

int syp_pool_query(syp_pool_info *out) {
    struct world *w;
    const size_t oldest = offsetof(syp_pool_info, heap_quarantined); /* fields from here on came later */
    int rc = process_enter("pool_query", &w);
    if (rc != SYP_OK) return rc;
    if (!out || out->size < oldest) {
        err_set(SYP_EINVAL, "pool_query: out is NULL or out->size is below %zu", oldest);
        rc = err_operation("pool_query");
    } else {
        figures(w, out);
    }
    process_leave();
    return rc;
}
