/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The symmetric region: offsets as a pure function of the sequence of calls, and the proof of that sequence.
 *
 * Invariants: digest covers calls 1 .. calls; a call is counted under the lock that moved the space, so the order of
 * the count is the order of the space; a refused allocation is counted and leaves the space as it was.  That is why
 * memory is committed under the lock.
 *
 * Must not know: peers, groups, the control segment that holds the ring.
 */
#include "pool/symm.h"

#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/scope.h"
#include "pool/stats.h"

#include <string.h>

int symm_init(struct symm *s, struct region *r, struct symm_call *ring) {
    s->lock.rank = LOCK_SYMM;
    lock_take(&s->lock);
    store_relaxed(&s->calls, 0);
    store_relaxed(&s->digest, 0);
    s->ring = ring;
    purge_init(&s->purge, PURGE_NEVER);
    int rc = space_init(&s->space, 0, r->meta);
    s->region = rc == SYP_OK ? r : NULL;
    lock_drop(&s->lock);
    return rc;
}

void symm_fini(struct symm *s) {
    lock_take(&s->lock);
    if (s->region) space_fini(&s->space);
    s->region = NULL;
    lock_drop(&s->lock);
}

/* --------------------------------------------------------------------------------------- sequence of calls */

/* Every bit of both words reaches every bit of the result (finisher of splitmix64). */
static uint64_t mix(uint64_t digest, uint64_t word) {
    uint64_t x = (digest ^ word) + 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

static uint64_t kind_align_of(const struct symm_record *r) {
    return (uint64_t)r->kind | (uint64_t)r->align_log2 << 8 | (uint64_t)r->failed << 16;
}

/*
 * Show a call to the peers.  The entry is invalid (number 0) while its fields change: every field is stored with release, so that a reader who sees a
 * new field sees number 0 or later when it looks again.  Pairs with symm_read_call.
 */
static void show_call_locked(struct symm *s, const struct symm_record *r) {
    struct symm_call *call = &s->ring[(r->number - 1) % SYMM_RING];
    store_relaxed(&call->number, 0);
    store_release(&call->digest, r->digest);
    store_release(&call->size, r->size);
    store_release(&call->kind_align, kind_align_of(r));
    store_release(&call->number, r->number);
}

/* Count one call. */
static void count_call_locked(struct symm *s, enum symm_kind kind, uint64_t size, uint64_t align, uint64_t off) {
    int failed = off == SPACE_NONE;
    struct symm_record r = {.number = load_relaxed(&s->calls) + 1, .size = size, .kind = (int)kind, .align_log2 = __builtin_ctzll(align), .failed = failed};
    r.digest = mix(mix(mix(mix(load_relaxed(&s->digest), r.number), kind_align_of(&r)), size), off);
    show_call_locked(s, &r);
    store_release(&s->digest, r.digest); /* both pair with symm_glance: */
    store_release(&s->calls, r.number);  /* whoever sees the number sees a digest that covers that call */
    stats_add(STAT_SYMM_CALLS, 1);
    stats_set(STAT_SYMM_USED, s->space.used);
    stats_raise(STAT_SYMM_PEAK, s->space.used);
    if (kind == SYMM_FREE)
        stats_add(STAT_FREES, 1);
    else
        stats_add(failed ? STAT_ALLOC_FAILED : STAT_ALLOCS, 1);
}

int symm_read_call(const struct symm_call *ring, uint64_t number, struct symm_record *out) {
    if (number == 0) return 0;
    const struct symm_call *call = &ring[(number - 1) % SYMM_RING];
    if (load_acquire(&call->number) != number)
        return 0; /* each acquire here pairs with the release of that field above */
    uint64_t digest = load_acquire(&call->digest);
    uint64_t size = load_acquire(&call->size);
    uint64_t kind_align = load_acquire(&call->kind_align);
    if (load_relaxed(&call->number) != number) return 0; /* ordered behind the fields by their acquires */
    *out = (struct symm_record){.number = number,
                                .digest = digest,
                                .size = size,
                                .kind = (int)(kind_align & 0xff),
                                .align_log2 = (int)(kind_align >> 8 & 0xff),
                                .failed = (int)(kind_align >> 16 & 1)};
    return 1;
}

void symm_position(struct symm *s, uint64_t *calls, uint64_t *digest) {
    lock_take(&s->lock);
    *calls = load_relaxed(&s->calls);
    *digest = load_relaxed(&s->digest);
    lock_drop(&s->lock);
}

/* ---------------------------------------------------------------------------------------------- allocation */

/* A committed block, or 0 with the record set and the space as it was. */
static uint32_t try_locked(struct symm *s, uint64_t len, uint64_t align) {
    purge_tick_locked(&s->purge, s->region, &s->space, NULL);
    uint64_t peak = s->space.used_peak;
    uint32_t block = space_alloc(&s->space, len, align);
    if (!block) {
        uint64_t largest = space_largest_free(&s->space);
        if (largest >= len && align <= SPACE_GRAIN)
            err_set(SYP_ENOMEM,
                    "allocate %B in the symmetric region: no memory for the record of the block; raise the "
                    "memory limit of this process",
                    (unsigned long long)len);
        else
            err_set(SYP_ENOMEM,
                    "allocate %B aligned to %B in the symmetric region: largest free block %B, free %B of %B; "
                    "raise SYMPOOL_META_SIZE",
                    (unsigned long long)len, (unsigned long long)align, (unsigned long long)largest,
                    (unsigned long long)(s->region->meta - s->space.used), (unsigned long long)s->region->meta);
        return 0;
    }
    const struct space_block *b = space_at(&s->space, block);
    if (quarantine_hits(&s->region->quarantine, b->off, b->len))
        err_set(SYP_EBUSY,
                "allocate %B in the symmetric region: its place %llu is quarantined, a straggler of a broken operation "
                "may still write there; call syp_comm_buffers_safe on every rank, then allocate again",
                (unsigned long long)len, (unsigned long long)b->off);
    else if (region_commit(s->region, b->off, b->len) == SYP_OK)
        return block;
    space_free(&s->space, block);
    s->space.used_peak = peak;
    return 0;
}

void *symm_alloc(struct symm *s, uint64_t len, uint64_t align, uint32_t scope) {
    lock_take(&s->lock);
    if (!s->region) {
        lock_drop(&s->lock);
        err_set(SYP_ESTATE, "allocate %B in the symmetric region: syp_finalize has closed it", (unsigned long long)len);
        err_operation("symm_malloc");
        return NULL;
    }
    uint32_t block = try_locked(s, len, align);
    uint64_t off = SPACE_NONE;
    if (block) {
        off = space_at(&s->space, block)->off;
        space_at(&s->space, block)->scope = scope;
    }
    count_call_locked(s, SYMM_ALLOC, len, align, off);
    uint64_t number = load_relaxed(&s->calls);
    void *p = block ? region_at(s->region, off) : NULL;
    lock_drop(&s->lock);
    if (p) return p;
    err_operation("symm_malloc");
    err_sequence(0, number);
    return NULL;
}

uint64_t symm_try(struct symm *s, uint64_t len, uint64_t align) {
    lock_take(&s->lock);
    uint32_t block = try_locked(s, len, align);
    uint64_t off = block ? space_at(&s->space, block)->off : SPACE_NONE;
    lock_drop(&s->lock);
    return off;
}

void symm_keep(struct symm *s, uint64_t off, uint64_t len, uint64_t align, uint32_t scope) {
    lock_take(&s->lock);
    space_at(&s->space, space_find(&s->space, off))->scope = scope;
    count_call_locked(s, SYMM_ALLOC, len, align, off);
    lock_drop(&s->lock);
}

void symm_undo(struct symm *s, uint64_t off) {
    lock_take(&s->lock);
    space_free(&s->space, space_find(&s->space, off));
    lock_drop(&s->lock);
}

/* The live block that starts at p; 0 = none. */
static uint32_t live_at_locked(const struct symm *s, const void *p) {
    if (!s->region || !region_contains(s->region, p)) return 0;
    uint32_t block = space_find(&s->space, region_offset(s->region, p));
    return block && space_at(&s->space, block)->state == SPACE_LIVE ? block : 0;
}

/* The live block that contains p; 0 = none. */
static uint32_t live_around_locked(const struct symm *s, const void *p) {
    if (!s->region || !region_contains(s->region, p)) return 0;
    uint32_t block = space_find_inside(&s->space, region_offset(s->region, p));
    return block && space_at(&s->space, block)->state == SPACE_LIVE ? block : 0;
}

int symm_free(struct symm *s, void *p) {
    lock_take(&s->lock);
    uint32_t block = live_at_locked(s, p);
    if (block) {
        uint64_t off = space_at(&s->space, block)->off;
        purge_note_free_locked(&s->purge, s->region, off, space_at(&s->space, block)->len, 1);
        space_free(&s->space, block);
        purge_tick_locked(&s->purge, s->region, &s->space, NULL);
        count_call_locked(s, SYMM_FREE, off, 1, off);
        lock_drop(&s->lock);
        return SYP_OK;
    }
    block = live_around_locked(s, p);
    uint64_t len = block ? space_at(&s->space, block)->len : 0;
    const void *start = block ? region_at(s->region, space_at(&s->space, block)->off) : NULL;
    int inside = s->region && region_contains(s->region, p) && region_offset(s->region, p) < s->region->meta;
    lock_drop(&s->lock);
    stats_add(STAT_BAD_FREES, 1);
    if (block)
        return err_set(SYP_EFOREIGN, "free symmetric %p: pointer into the middle of a block of %B that starts at %p", p,
                       (unsigned long long)len, start);
    if (inside)
        return err_set(SYP_EFOREIGN, "free symmetric %p: no live block starts there; double free of %p", p, p);
    return err_set(SYP_EFOREIGN, "free symmetric %p: not in the symmetric region", p);
}

uint64_t symm_trim(struct symm *s) {
    uint64_t given = 0, part, most;
    do {
        lock_take(&s->lock);
        part = s->region ? purge_locked(s->region, &s->space, 0, 0) : 0;
        most = s->region ? s->region->len : 0;
        lock_drop(&s->lock);
        given += part;
    } while (part >= PURGE_PART && given < most);
    return given;
}

/* ------------------------------------------------------------------------------------------------- queries */

uint64_t symm_usable(struct symm *s, const void *p) {
    lock_take(&s->lock);
    uint32_t block = live_at_locked(s, p);
    uint64_t len = block ? space_at(&s->space, block)->len : 0;
    lock_drop(&s->lock);
    return len;
}

int symm_find(struct symm *s, const void *p, void **block, uint64_t *len) {
    lock_take(&s->lock);
    uint32_t n = live_around_locked(s, p);
    if (n) {
        *block = region_at(s->region, space_at(&s->space, n)->off);
        *len = space_at(&s->space, n)->len;
    }
    lock_drop(&s->lock);
    return n != 0;
}

int symm_walk(struct symm *s, int (*fn)(void *arg, const syp_block *b), void *arg) {
    int rc = SYP_OK;
    lock_take(&s->lock);
    for (uint32_t n = s->space.first; n && rc == SYP_OK; n = space_at(&s->space, n)->next) {
        const struct space_block *b = space_at(&s->space, n);
        int live = b->state == SPACE_LIVE;
        syp_pool_id id = scope_id(live ? b->scope : 0);
        syp_block out = {.size = sizeof out,
                         .ptr = region_at(s->region, b->off),
                         .len = b->len,
                         .where = SYP_WHERE_SYMMETRIC,
                         .live = live,
                         .scope = {id.hi, id.lo}};
        rc = fn(arg, &out);
    }
    lock_drop(&s->lock);
    return rc;
}

static const char *check_locked(const struct symm *s) {
    const char *damage = space_check(&s->space);
    for (uint32_t n = damage ? 0 : s->space.first; n; n = space_at(&s->space, n)->next)
        if (space_at(&s->space, n)->state != SPACE_FREE && space_at(&s->space, n)->state != SPACE_LIVE)
            return "a block is neither live nor free";
    if (damage) return damage;
    struct symm_record last = {0}; /* of no calls, the digest is 0, too */
    uint64_t calls = load_relaxed(&s->calls);
    int sound = calls == 0 || symm_read_call(s->ring, calls, &last);
    return sound && last.digest == load_relaxed(&s->digest) ? NULL : "the count of calls or their digest is not that of the last call";
}

int symm_check(struct symm *s) {
    lock_take(&s->lock);
    const char *damage = s->region ? check_locked(s) : NULL;
    lock_drop(&s->lock);
    return damage ? err_set(SYP_ESTATE, "check the symmetric region: %s", damage) : SYP_OK;
}

/* ------------------------------------------------------------------------------------------------- takeover */

#define GAP 1u /* tag of a block that stands for a free one until the restore is complete */

size_t symm_list(struct symm *s, uint32_t *cursor, uint64_t *words, size_t n) {
    size_t done = 0;
    lock_take(&s->lock);
    uint32_t block = *cursor ? *cursor : s->space.first;
    for (; block && done < n; block = space_at(&s->space, block)->next) {
        const struct space_block *b = space_at(&s->space, block);
        words[done++] = b->len | (b->state == SPACE_LIVE);
    }
    *cursor = block;
    lock_drop(&s->lock);
    return done;
}

/* In a region that is free from here to its end, the best fit is here. */
static int restore_locked(struct symm *s, uint64_t word) {
    uint64_t len = word & ~1ull;
    if (len == 0 || len % SPACE_GRAIN || len > s->region->meta - s->space.used)
        return err_set(SYP_EINVAL, "restore the symmetric region: a block of %llu bytes after %llu of %llu", (unsigned long long)len,
                       (unsigned long long)s->space.used, (unsigned long long)s->region->meta);
    uint32_t block = space_alloc(&s->space, len, SPACE_GRAIN);
    if (!block) return err_set(SYP_ENOMEM, "restore the symmetric region: no memory for the record of a block");
    struct space_block *b = space_at(&s->space, block);
    b->tag = word & 1 ? 0 : GAP;
    return word & 1 ? region_commit(s->region, b->off, b->len) : SYP_OK;
}

static void free_gaps_locked(struct symm *s) {
    uint32_t next;
    for (uint32_t block = s->space.first; block; block = next) {
        next = space_at(&s->space, block)->next;
        if (space_at(&s->space, block)->state != SPACE_LIVE || space_at(&s->space, block)->tag != GAP) continue;
        if (next && space_at(&s->space, next)->state == SPACE_FREE) next = space_at(&s->space, next)->next; /* it is merged */
        space_free(&s->space, block);
    }
}

int symm_restore(struct symm *s, const uint64_t *words, size_t n) {
    int rc = SYP_OK;
    lock_take(&s->lock);
    for (size_t i = 0; i < n && rc == SYP_OK; i++)
        rc = restore_locked(s, words[i]);
    lock_drop(&s->lock);
    return rc;
}

int symm_restored(struct symm *s, uint64_t calls, uint64_t digest, const struct symm_call *ring) {
    struct symm_record r = {0};
    lock_take(&s->lock);
    free_gaps_locked(s);
    for (uint64_t number = calls > SYMM_RING ? calls - SYMM_RING + 1 : 1; number <= calls; number++)
        if (symm_read_call(ring, number, &r)) show_call_locked(s, &r);
    store_release(&s->digest, digest); /* both pair with symm_glance */
    store_release(&s->calls, calls);
    s->space.used_peak = s->space.used;
    stats_set(STAT_SYMM_USED, s->space.used);
    lock_drop(&s->lock);
    if (calls == 0 || (r.number == calls && r.digest == digest)) return SYP_OK;
    return err_set(SYP_EINVAL, "restore the symmetric region: call %llu is not the last one that its donor shows", (unsigned long long)calls);
}
