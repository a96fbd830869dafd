/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local heap: what turns a space of offsets into blocks of memory.  Order of an allocation: cache, space, space
 * once more after the cache was given back, commit.
 *
 * Invariants (heap_check): used and n_live are those of the SPACE_LIVE blocks, cache.bytes those of the SPACE_CACHED
 * ones, parked_bytes those of the SPACE_PARKED ones; a block that was handed out is committed, and stays so while it is
 * cached.  The lock is not held while memory is committed, but for a resize that lost a race with purge.c.
 *
 * Must not know: peers, scopes beyond their number, who calls.
 */
#include "pool/heap.h"

#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/debug.h"
#include "pool/heap_fast.h"
#include "pool/scope.h"
#include "pool/stats.h"

#include <string.h>

int heap_init(struct heap *h, struct region *r, int cache_on) {
    h->lock.rank = LOCK_HEAP;
    lock_take(&h->lock);
    memset(&h->space, 0, sizeof *h - offsetof(struct heap, space));
    h->region = r;
    int rc = space_init(&h->space, r->meta, r->len);
    h->space.bias = (uint64_t)(uintptr_t)r->mem.base;
    if (rc == SYP_OK) cache_init(&h->cache, r->backend, (r->len - r->meta) / 4, cache_on);
    purge_init(&h->purge, PURGE_NEVER);
    h->closed = rc != SYP_OK;
    h->fast = rc == SYP_OK && cache_on && !h->cache.async;
    if (!h->lock.patience) h->lock.patience = LOCK_PATIENCE;
    lock_drop(&h->lock);
    return rc;
}

uint64_t heap_close(struct heap *h) {
    lock_take(&h->lock);
    h->closed = 1;
    h->fast = 0;
    uint64_t live = h->n_live;
    lock_drop(&h->lock);
    return live;
}

void heap_fini(struct heap *h) {
    lock_take(&h->lock);
    if (h->debug.on) debug_stop(h);
    h->closed = 1;
    h->fast = 0;
    h->used = h->n_live = 0;
    h->parked = h->debug.first = h->debug.last = 0;
    cache_fini(&h->cache);
    h->recent.at = NULL;
    space_fini(&h->space);
    lock_drop(&h->lock);
}

/* Nothing is left that a look-up could find: the region may be gone. */
static int gone_locked(const struct heap *h) {
    return h->closed && h->n_live == 0;
}

/* Gauges of the pool's heap. */
static void publish_locked(const struct heap *h) {
    if (h->private_memory) return;
    stats_set(STAT_HEAP_USED, h->used);
    stats_set(STAT_HEAP_CACHED, h->cache.bytes);
}

static void add_used_locked(struct heap *h, uint64_t len) {
    h->used += len;
    if (h->used <= h->used_peak) return;
    h->used_peak = h->used;
    if (!h->private_memory) stats_raise(STAT_HEAP_PEAK, h->used);
}

/* The live block that starts at p; 0 = none. */
uint32_t heap_live_at_locked(const struct heap *h, const void *p) {
    if (gone_locked(h) || !region_contains(h->region, p)) return 0;
    uint64_t off = region_offset(h->region, p);
    uint32_t block = space_find(&h->space, off);
    if (!block && h->debug.on) block = space_find(&h->space, round_down(off, h->debug.page));
    const struct space_block *b = block ? space_at(&h->space, block) : NULL;
    return b && b->state == SPACE_LIVE && b->off + b->up == off ? block : 0;
}

/* Where the user's part of a block starts.  Free blocks use `up` for the tree. */
static uint64_t user_off(const struct space_block *b) {
    return b->state == SPACE_FREE ? b->off : b->off + b->up;
}
static uint64_t user_len(const struct space_block *b) {
    return b->state == SPACE_FREE ? b->len : b->len - b->up - b->right;
}

/* ---------------------------------------------------------------------------------------------- allocation */

static int refuse(const struct heap_want *want, uint64_t largest, uint64_t idle, uint64_t cached) {
    stats_add(STAT_ALLOC_FAILED, 1);
    if (largest >= want->len && want->align <= SPACE_GRAIN)
        return err_set(SYP_ENOMEM,
                       "allocate %B in the local heap: no memory for the record of the block; raise the memory limit "
                       "of this process",
                       (unsigned long long)want->len);
    return err_set(SYP_ENOMEM,
                   "allocate %B aligned to %B in the local heap: largest free block %B, free %B, cached %B; raise "
                   "SYMPOOL_LOCAL_MEM_SIZE",
                   (unsigned long long)want->len, (unsigned long long)want->align, (unsigned long long)largest,
                   (unsigned long long)idle, (unsigned long long)cached);
}

static void refuse_closed(const struct heap_want *want) {
    if (want->closed)
        *want->closed = 1;
    else
        err_set(SYP_ESTATE, "allocate %B in the local heap: syp_finalize has closed it", (unsigned long long)want->len);
}

/* Would this block need new memory although as much lies in the cache?  Lengths that never come again must not make the heap grow. */
static int hoarding_locked(const struct heap *h, uint32_t block) {
    const struct space_block *b = space_at(&h->space, block);
    return h->cache.bytes >= b->len && !region_is_committed(h->region, b->off, b->len);
}

/* A block from the space, emptying the cache if that is what it takes. */
static uint32_t take_space_locked(struct heap *h, const struct heap_want *want) {
    uint32_t block = space_alloc(&h->space, want->len, want->align);
    if (block && !hoarding_locked(h, block)) return block;
    if (cache_flush(&h->cache, &h->space) == 0) return block;
    h->retries++;
    stats_add(STAT_CACHE_FLUSHES, 1);
    if (block) space_free(&h->space, block);
    return space_alloc(&h->space, want->len, want->align);
}

/* Undo of an allocation whose memory the system refused. */
static void put_back(struct heap *h, uint32_t block) {
    lock_take(&h->lock);
    h->used -= space_at(&h->space, block)->len;
    h->n_live--;
    space_free(&h->space, block);
    publish_locked(h);
    lock_drop(&h->lock);
    stats_add(STAT_ALLOC_FAILED, 1);
}

void *heap_alloc(struct heap *h, const struct heap_want *want) {
    return h->debug.on ? debug_alloc(h, want) : heap_take(h, want);
}

void *heap_take(struct heap *h, const struct heap_want *want) {
    uint64_t asked = round_up(want->len, SPACE_GRAIN);
    lock_take(&h->lock);
    void *p = heap_reuse_locked(h, h->region, want, thread_own);
    if (p) {
        lock_drop(&h->lock);
        return p;
    }
    if (__builtin_expect(h->closed, 0)) {
        lock_drop(&h->lock);
        refuse_closed(want);
        return NULL;
    }
    uint32_t block =
        asked >= CACHE_MIN || h->cache.async ? cache_take(&h->cache, &h->space, asked, want->align, want->stream) : 0;
    int hit = block != 0;
    if (!hit) block = take_space_locked(h, want);
    if (!block) {
        uint64_t largest = space_largest_free(&h->space), cached = h->cache.bytes;
        uint64_t idle = h->space.end - h->space.begin - h->space.used;
        lock_drop(&h->lock);
        refuse(want, largest, idle, cached);
        return NULL;
    }
    struct space_block *b = space_at(&h->space, block);
    uint64_t off = b->off, len = b->len;
    b->tag = want->stream;
    b->scope = want->scope;
    add_used_locked(h, len);
    h->n_live++;
    if (!hit && asked >= CACHE_MIN) h->purge.calls = 0;
    if (--h->purge.calls < 0) purge_tick_locked(&h->purge, h->region, &h->space, &h->cache);
    publish_locked(h);
    lock_drop(&h->lock);
    if (hit) {
        if (!h->private_memory) stats_add(STAT_CACHE_HITS, 1);
    } else if (region_commit(h->region, off, len) != SYP_OK) {
        put_back(h, block);
        return NULL;
    }
    stats_add(h->private_memory ? STAT_PRIVATE_ALLOCS : STAT_ALLOCS, 1);
    return region_at(h->region, off);
}

/* ----------------------------------------------------------------------------------------------- giving back */

/* p is not the start of a live block: count it and say what it is. */
int heap_bad_pointer(struct heap *h, const void *p, const char *what) {
    uint32_t block = 0;
    struct space_block b = {0};
    lock_take(&h->lock);
    h->bad_frees++;
    if (!gone_locked(h) && region_contains(h->region, p)) block = space_find_inside(&h->space, region_offset(h->region, p));
    if (block) b = *space_at(&h->space, block);
    lock_drop(&h->lock);
    stats_add(STAT_BAD_FREES, 1);
    if (!block) return err_set(SYP_EFOREIGN, "%s %p: not in this heap", what, p);
    char *start = region_at(h->region, user_off(&b));
    if (b.state == SPACE_LIVE)
        return err_set(SYP_EFOREIGN, "%s %p: pointer into the middle of a block of %B that starts at %p", what, p,
                       (unsigned long long)user_len(&b), (void *)start);
    if (start == p) return err_set(SYP_EFOREIGN, "%s %p: double free of %p, which is not allocated", what, p, p);
    return err_set(SYP_EFOREIGN, "%s %p: no block starts there, the memory is free: double free or a wild pointer",
                   what, p);
}

/* A freed block that a straggler of a broken operation may still write. */
static void park_locked(struct heap *h, uint32_t block) {
    struct space_block *b = space_at(&h->space, block);
    b->state = SPACE_PARKED;
    b->left = h->parked;
    h->parked = block;
    h->parked_bytes += b->len;
}

void heap_let_go_locked(struct heap *h, uint32_t block) {
    const struct space_block *b = space_at(&h->space, block);
    uint64_t off = b->off, len = b->len;
    if (quarantine_any(&h->region->quarantine) && quarantine_hits(&h->region->quarantine, off, len)) {
        park_locked(h, block);
    } else {
        int kept = cache_keep(&h->cache, &h->space, block, b->tag);
        purge_note_free_locked(&h->purge, h->region, off, len, !kept && len >= CACHE_MIN);
        if (!kept) space_free(&h->space, block);
    }
    if (--h->purge.calls < 0) purge_tick_locked(&h->purge, h->region, &h->space, &h->cache);
    publish_locked(h);
}

void heap_count_free_locked(struct heap *h, uint32_t block) {
    h->used -= space_at(&h->space, block)->len;
    h->n_live--;
    if (!h->private_memory) stats_add(STAT_FREES, 1);
}

void heap_quarantine_release(struct heap *h) {
    lock_take(&h->lock);
    uint32_t block = h->parked;
    h->parked = 0;
    while (block) {
        struct space_block *b = space_at(&h->space, block);
        uint32_t next = b->left;
        b->left = 0;
        h->parked_bytes -= b->len;
        if (h->debug.on) debug_wipe_locked(h, block);
        heap_let_go_locked(h, block);
        block = next;
    }
    publish_locked(h);
    lock_drop(&h->lock);
}

int heap_free(struct heap *h, void *p) {
    if (h->debug.on) return debug_free(h, p);
    lock_take(&h->lock);
    if (heap_recycle_locked(h, h->region, p, thread_own)) {
        lock_drop(&h->lock);
        return SYP_OK;
    }
    uint32_t block = heap_live_at_locked(h, p);
    if (!block) {
        lock_drop(&h->lock);
        return heap_bad_pointer(h, p, "free");
    }
    heap_count_free_locked(h, block);
    heap_let_go_locked(h, block);
    lock_drop(&h->lock);
    return SYP_OK;
}

/* Commit what block p will grow into; nothing when it cannot grow or need not.  0 = the system refused, record as
 * before. */
static int commit_growth(struct heap *h, void *p, uint64_t len) {
    lock_take(&h->lock);
    uint32_t block = heap_live_at_locked(h, p);
    uint64_t off = 0, more = 0;
    if (block) {
        const struct space_block *b = space_at(&h->space, block), *next = b->next ? space_at(&h->space, b->next) : NULL;
        if (len > b->len && next && next->state == SPACE_FREE && len - b->len <= next->len) {
            off = next->off;
            more = len - b->len;
        }
    }
    lock_drop(&h->lock);
    if (!more) return 1;
    struct syp_error kept = *err_record(); /* a resize that is not possible in place is no failure */
    if (region_commit(h->region, off, more) == SYP_OK) return 1;
    *err_record() = kept;
    return 0;
}

int heap_resize(struct heap *h, void *p, uint64_t len) {
    if (h->debug.on) return heap_usable(h, p) ? 0 : heap_bad_pointer(h, p, "resize"); /* always moved */
    if (!commit_growth(h, p, len)) return 0;
    lock_take(&h->lock);
    uint32_t block = heap_live_at_locked(h, p);
    if (!block) {
        lock_drop(&h->lock);
        return heap_bad_pointer(h, p, "resize");
    }
    struct space_block *b = space_at(&h->space, block);
    uint64_t before = b->len;
    b->event = 0; /* other chunks from now on */
    /* what a block gives up must not be reused while it is quarantined: then it keeps it */
    int keep = len < before && quarantine_hits(&h->region->quarantine, b->off + len, before - len);
    int done = keep || space_resize(&h->space, block, len);
    /* what it grew into may have been given back since commit_growth: then it shrinks again, as it was */
    if (done && b->len > before && region_commit(h->region, b->off, b->len) != SYP_OK) done = !space_resize(&h->space, block, before);
    if (b->len < before) purge_note_free_locked(&h->purge, h->region, b->off + b->len, before - b->len, 0);
    h->used -= before;
    add_used_locked(h, b->len);
    publish_locked(h);
    lock_drop(&h->lock);
    return done;
}

void heap_flush(struct heap *h) {
    lock_take(&h->lock);
    if (!gone_locked(h)) cache_flush(&h->cache, &h->space);
    publish_locked(h);
    lock_drop(&h->lock);
}

uint64_t heap_trim(struct heap *h) {
    uint64_t given = 0, part, most;
    do { /* in parts, so that others get the lock in between */
        lock_take(&h->lock);
        int gone = gone_locked(h);
        if (h->cache.bytes && !gone) cache_flush(&h->cache, &h->space);
        part = gone ? 0 : purge_locked(h->region, &h->space, 0, 0);
        most = gone ? 0 : h->region->len;
        publish_locked(h);
        lock_drop(&h->lock);
        given += part;
    } while (part >= PURGE_PART && given < most);
    return given;
}

/* ------------------------------------------------------------------------------------------------- queries */

uint64_t heap_usable(struct heap *h, const void *p) {
    lock_take(&h->lock);
    uint32_t block = heap_live_at_locked(h, p);
    uint64_t len = block ? user_len(space_at(&h->space, block)) : 0;
    lock_drop(&h->lock);
    return len;
}

int heap_find(struct heap *h, const void *p, void **block, uint64_t *len) {
    lock_take(&h->lock);
    uint32_t n = 0;
    if (!gone_locked(h) && region_contains(h->region, p)) n = space_find_inside(&h->space, region_offset(h->region, p));
    const struct space_block *b = n ? space_at(&h->space, n) : NULL;
    int found = b && b->state == SPACE_LIVE && region_offset(h->region, p) - user_off(b) < user_len(b);
    if (found) {
        *block = region_at(h->region, user_off(b));
        *len = user_len(b);
    }
    lock_drop(&h->lock);
    return found;
}

int heap_walk(struct heap *h, int (*fn)(void *arg, const syp_block *b), void *arg) {
    int rc = SYP_OK;
    lock_take(&h->lock);
    for (uint32_t n = h->space.first; n && rc == SYP_OK; n = space_at(&h->space, n)->next) {
        const struct space_block *b = space_at(&h->space, n);
        int live = b->state == SPACE_LIVE;
        syp_pool_id id = scope_id(live ? b->scope : 0);
        syp_block out = {.size = sizeof out,
                         .ptr = region_at(h->region, live ? user_off(b) : b->off),
                         .len = live ? user_len(b) : b->len,
                         .where = h->private_memory ? SYP_WHERE_PRIVATE : SYP_WHERE_HEAP,
                         .live = live,
                         .scope = {id.hi, id.lo}};
        rc = fn(arg, &out);
    }
    lock_drop(&h->lock);
    return rc;
}

const char *heap_damage_locked(const struct heap *h) {
    const char *damage = space_check(&h->space);
    if (damage) return damage;
    uint64_t live = 0, n_live = 0, cached = 0, parked = 0, parked_bytes = 0, held = 0;
    for (uint32_t n = h->space.first; n; n = space_at(&h->space, n)->next) {
        const struct space_block *b = space_at(&h->space, n);
        if (b->state == SPACE_LIVE) {
            live += b->len;
            n_live++;
        } else if (b->state == SPACE_CACHED) {
            cached += b->len;
        } else if (b->state == SPACE_PARKED) {
            parked += b->len;
        } else if (b->state == SPACE_HELD) {
            held += b->len;
        }
    }
    if (live != h->used || n_live != h->n_live) return "bytes or number of live blocks are miscounted";
    if (cached != h->cache.bytes) return "bytes of cached blocks are miscounted";
    for (uint32_t n = h->parked; n && parked; n = space_at(&h->space, n)->left) {
        if (space_at(&h->space, n)->state != SPACE_PARKED) return "the list of parked blocks is damaged";
        parked -= space_at(&h->space, n)->len;
        parked_bytes += space_at(&h->space, n)->len;
    }
    if (parked || parked_bytes != h->parked_bytes) return "bytes of parked blocks are miscounted";
    if (held != h->debug.held_bytes) return "bytes of held blocks are miscounted";
    return cache_check(&h->cache, &h->space);
}

int heap_check(struct heap *h) {
    lock_take(&h->lock);
    const char *damage = gone_locked(h) ? NULL : heap_damage_locked(h);
    int bytes = h->debug.on && !damage && !gone_locked(h) ? debug_check_locked(h) : SYP_OK;
    lock_drop(&h->lock);
    if (bytes != SYP_OK) return bytes;
    return damage ? err_set(SYP_ESTATE, "check the local heap: %s", damage) : SYP_OK;
}
