/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Debug mode: blocks with slack around them whose bytes are known, and freed blocks that wait before they are used again.
 *
 *   raw block   [front | what was asked for | tail (canary) | guard page]     front and guard page under `guard` only
 *   life        live -> held (filled, in the quarantine) -> free             parked instead of held while a straggler may write
 *
 * Invariants: a live block of the program has front in `up` and tail with guard in `right`, set when its slack is filled;
 * under `guard` exactly the pages of live blocks are accessible; under `junk` a free grain of 64 bytes is all
 * DEBUG_JUNK_FREED or all zero (never used, or given back to the system).  Nothing is logged with the lock held: damage goes to
 * the record, and the caller tells it afterwards.
 *
 * Must not know: peers, where a heap's memory comes from.
 */
#include "pool/debug.h"

#include "pool/base/conf.h"
#include "pool/base/log.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/base/text.h"
#include "pool/debug_tools.h"
#include "pool/scope.h"
#include "pool/stats.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Touches bytes that the program must not touch. */
#define TOUCHES_ANYTHING __attribute__((no_sanitize("address")))

void debug_conf_read(struct debug_conf *c) {
    c->parts = (unsigned)conf_int(CONF_DEBUG);
    c->hold = c->parts & DEBUG_QUARANTINE ? conf_size(CONF_DEBUG_QUARANTINE) : 0;
    c->every = (uint64_t)conf_int(CONF_DEBUG_CHECK);
    c->fatal = (int)conf_int(CONF_DEBUG_DAMAGE);
}

/* Guard pages for the whole heap, which is empty: 1, or 0 where they cannot be had. */
static int shut_all(struct heap *h) {
    if (h->region->mem.huge != BACKEND_BASE_PAGES) {
        log_warn("no guard pages: the pool has large pages; set SYMPOOL_HUGE=none, or leave guard out of SYMPOOL_DEBUG");
        return 0;
    }
    int rc = os->protect(region_at(h->region, h->space.begin), h->space.end - h->space.begin, PROT_NONE);
    if (rc < 0) log_warn("no guard pages: mprotect: error %d", -rc);
    return rc >= 0;
}

void debug_start(struct heap *h, const struct debug_conf *c) {
    struct heap_debug *d = &h->debug;
    if ((!c->parts && !c->every) || h->space.begin == h->space.end) return;
    if (!(h->region->backend->caps() & BACKEND_HOST_ACCESS)) {
        log_warn("no debug mode: the processor cannot look into \"%s\" memory", h->region->backend->name);
        return;
    }
    *d = (struct heap_debug){.parts = c->parts, .every = c->every, .hold = c->hold, .fatal = c->fatal, .page = SPACE_GRAIN, .on = 1};
    if ((d->parts & DEBUG_GUARD) && !shut_all(h)) d->parts &= ~(unsigned)DEBUG_GUARD;
    if (d->parts & DEBUG_GUARD) d->page = os_page_size();
    /* also keeps valgrind's search for leaks from reading gigabytes of address space */
    if (d->parts & DEBUG_TOOLS) VALGRIND_MAKE_MEM_NOACCESS(region_at(h->region, h->space.begin), h->space.end - h->space.begin);
    h->fast = h->cache.on = 0; /* the quarantine's work; and blocks must not come back without having been looked at */
}

void debug_stop(struct heap *h) {
    /* the addresses may serve something else next */
    if (h->debug.parts & DEBUG_TOOLS) {
        if (h->debug.high) tools_open(region_at(h->region, h->space.begin), h->debug.high - h->space.begin);
        VALGRIND_MAKE_MEM_UNDEFINED(region_at(h->region, h->space.begin), h->space.end - h->space.begin);
    }
    h->debug.on = 0;
}

/* ------------------------------------------------------------------------------------------------ damage */

/* What a call found.  The first piece is in the record of the thread. */
struct finding {
    const char *during; /* operation, for the record */
    unsigned n;
};

static void name_block(struct text *t, const struct heap *h, const struct space_block *b) {
    syp_pool_id id = scope_id(b->scope);
    text_addf(t, "block %p of %llu bytes (%s, stream %llx", region_at(h->region, b->off + b->up),
              (unsigned long long)(b->len - b->up - b->right), b->state == SPACE_LIVE ? "live" : "freed", (unsigned long long)b->tag);
    if (id.hi || id.lo) text_addf(t, ", scope {%llx, %llx}", (unsigned long long)id.hi, (unsigned long long)id.lo);
    text_addf(t, ")");
}

/* b NULL: no block, off is of the region. */
static void found(struct heap *h, struct finding *f, const struct space_block *b, uint64_t off, const char *what, const char *turn) {
    h->debug.damaged++;
    stats_add(STAT_HEAP_DAMAGE, 1);
    if (f->n++) return;
    char where[256] = "free memory";
    struct text t = TEXT_INIT(where);
    if (b) {
        t.len = 0;
        name_block(&t, h, b);
    }
    int64_t at = b ? (int64_t)(off - b->off - b->up) : (int64_t)off;
    err_set(SYP_ESTATE, "heap damage seen at call %llu (%s): %s: %s, first changed byte at offset %lld (%p); %s",
            (unsigned long long)h->debug.calls, f->during, where, what, (long long)at, region_at(h->region, off), turn);
    err_operation(f->during);
}

/* After the lock was dropped. */
static void tell(const struct heap *h, const struct finding *f) {
    if (f->n == 0) return;
    log_error("%s", err_record()->text);
    if (f->n > 1) log_error("heap damage: %u more pieces in the same call", f->n - 1);
    if (h->debug.fatal) abort();
}

/* ------------------------------------------------------------------------------------------------- bytes */

static unsigned char canary_at(uint64_t off) {
    return (unsigned char)(0xc3 ^ (off * 29));
}

TOUCHES_ANYTHING static void put_canary(struct heap *h, uint64_t off, uint64_t end) {
    for (volatile unsigned char *p = region_at(h->region, 0); off < end; off++)
        p[off] = canary_at(off);
}

/* First offset in [off, end) whose byte is not its canary; end = none. */
TOUCHES_ANYTHING static uint64_t changed_canary(const struct heap *h, uint64_t off, uint64_t end) {
    const volatile unsigned char *p = region_at(h->region, 0);
    while (off < end && p[off] == canary_at(off))
        off++;
    return off;
}

TOUCHES_ANYTHING static uint64_t changed_junk(const struct heap *h, uint64_t off, uint64_t end) {
    const volatile unsigned char *p = region_at(h->region, 0);
    while (off < end && p[off] == DEBUG_JUNK_FREED)
        off++;
    return off;
}

/* As changed_junk, but a grain that is zero all over is right, too. */
TOUCHES_ANYTHING static uint64_t changed_free(const struct heap *h, uint64_t off, uint64_t end) {
    const volatile unsigned char *p = region_at(h->region, 0);
    for (; off < end; off += SPACE_GRAIN) {
        unsigned char want = p[off] ? DEBUG_JUNK_FREED : 0;
        for (uint64_t i = 0; i < SPACE_GRAIN; i++)
            if (p[off + i] != want) return off + i;
    }
    return end;
}

/* ------------------------------------------------------------------------------------------------- blocks */

static uint64_t guard_len(const struct heap_debug *d) {
    return d->parts & DEBUG_GUARD ? d->page : 0;
}

static uint64_t data_end(const struct heap *h, const struct space_block *b) {
    return b->off + b->len - guard_len(&h->debug);
}

/* Make the block's own pages accessible.  0 = refused. */
static int open_pages(struct heap *h, uint64_t off, uint64_t end) {
    if ((h->debug.parts & DEBUG_GUARD) && os->protect(region_at(h->region, off), end - off, PROT_READ | PROT_WRITE) < 0) return 0;
    if (h->debug.parts & DEBUG_TOOLS) tools_open(region_at(h->region, off), end - off);
    return 1;
}

/* A refusal leaves them accessible: one trap less. */
static void shut_pages(struct heap *h, uint64_t off, uint64_t end) {
    if (h->debug.parts & DEBUG_TOOLS) tools_shut(region_at(h->region, off), end - off);
    if (h->debug.parts & DEBUG_GUARD) (void)os->protect(region_at(h->region, off), end - off, PROT_NONE);
}

static void check_slack(struct heap *h, const struct space_block *b, struct finding *f) {
    if (!(h->debug.parts & DEBUG_CANARY) || !(b->up | b->right)) return;
    uint64_t start = b->off + b->up, end = b->off + b->len - b->right, at;
    VALGRIND_DISABLE_ERROR_REPORTING;
    if ((at = changed_canary(h, b->off, start)) != start)
        found(h, f, b, at, "bytes before its start were overwritten",
              "look for a write below the block; valgrind with SYMPOOL_DEBUG=tools shows it");
    if ((at = changed_canary(h, end, data_end(h, b))) != data_end(h, b))
        found(h, f, b, at, "bytes behind its end were overwritten",
              "look for a write past the end; SYMPOOL_DEBUG=guard traps it, or valgrind with SYMPOOL_DEBUG=tools shows it");
    VALGRIND_ENABLE_ERROR_REPORTING;
}

/* Fill and close a block that was freed; its pages are open. */
static void wipe(struct heap *h, const struct space_block *b) {
    if (h->debug.parts & DEBUG_JUNK) memset(region_at(h->region, b->off), DEBUG_JUNK_FREED, data_end(h, b) - b->off);
    shut_pages(h, b->off, data_end(h, b));
}

void debug_wipe_locked(struct heap *h, uint32_t block) {
    const struct space_block *b = space_at(&h->space, block);
    if (open_pages(h, b->off, data_end(h, b))) wipe(h, b);
}

static void check_held(struct heap *h, const struct space_block *b, struct finding *f) {
    uint64_t end = data_end(h, b);
    if (!(h->debug.parts & DEBUG_JUNK)) return;
    if ((h->debug.parts & DEBUG_GUARD) && os->protect(region_at(h->region, b->off), end - b->off, PROT_READ) < 0) return;
    VALGRIND_DISABLE_ERROR_REPORTING;
    uint64_t at = changed_junk(h, b->off, end);
    VALGRIND_ENABLE_ERROR_REPORTING;
    if (h->debug.parts & DEBUG_GUARD) (void)os->protect(region_at(h->region, b->off), end - b->off, PROT_NONE);
    if (at != end)
        found(h, f, b, at, "it was written after it was freed",
              "look for a pointer that outlives its block, also on the other ranks; valgrind with SYMPOOL_DEBUG=tools shows a "
              "write of this process");
}

/* ---------------------------------------------------------------------------------------------- quarantine */

static void hold_locked(struct heap *h, uint32_t block) {
    struct heap_debug *d = &h->debug;
    struct space_block *b = space_at(&h->space, block);
    b->state = SPACE_HELD;
    b->left = 0;
    if (d->last) space_at(&h->space, d->last)->left = block;
    else d->first = block;
    d->last = block;
    d->held_bytes += b->len;
}

static void release_oldest_locked(struct heap *h, struct finding *f) {
    struct heap_debug *d = &h->debug;
    uint32_t block = d->first;
    struct space_block *b = space_at(&h->space, block);
    check_held(h, b, f);
    d->held_bytes -= b->len;
    d->first = b->left;
    if (!d->first) d->last = 0;
    if (f->n) debug_wipe_locked(h, block); /* or the same bytes would be found again */
    heap_let_go_locked(h, block);
}

/* ---------------------------------------------------------------------------------------------- every call */

int debug_check_locked(struct heap *h) {
    struct finding f = {.during = "check"};
    for (uint32_t n = h->space.first; n; n = space_at(&h->space, n)->next) {
        const struct space_block *b = space_at(&h->space, n);
        if (b->state == SPACE_LIVE) check_slack(h, b, &f);
        if (b->state == SPACE_HELD) check_held(h, b, &f);
    }
    return f.n ? SYP_ESTATE : SYP_OK;
}

static void repair_slack(struct heap *h, const struct space_block *b) {
    if (!(h->debug.parts & DEBUG_CANARY) || !(b->up | b->right)) return;
    VALGRIND_DISABLE_ERROR_REPORTING;
    put_canary(h, b->off, b->off + b->up);
    put_canary(h, b->off + b->len - b->right, data_end(h, b));
    VALGRIND_ENABLE_ERROR_REPORTING;
}

/* Count a call; at every n-th look at everything.  What was told is put right, so that it is told once. */
static void count_call_locked(struct heap *h, struct finding *f) {
    struct heap_debug *d = &h->debug;
    d->calls++;
    if (!d->every || d->calls % d->every) return;
    const char *during = f->during, *broken = heap_damage_locked(h);
    f->during = "periodic check";
    if (broken) {
        found(h, f, NULL, h->space.begin, broken, "the records are damaged, which no block of the program can do; stop this process");
        d->every = 0;
    }
    for (uint32_t n = h->space.first; n && !broken; n = space_at(&h->space, n)->next) {
        const struct space_block *b = space_at(&h->space, n);
        unsigned before = f->n;
        if (b->state == SPACE_LIVE) check_slack(h, b, f);
        if (b->state == SPACE_HELD) check_held(h, b, f);
        if (f->n == before) continue;
        if (b->state == SPACE_LIVE) repair_slack(h, b);
        else debug_wipe_locked(h, n);
    }
    f->during = during;
}

/* ------------------------------------------------------------------------------------------------ the calls */

struct layout {
    uint64_t len, align; /* of the raw block */
    uint64_t front, tail;
};

static struct layout layout_of(const struct heap_debug *d, const struct heap_want *want) {
    uint64_t align = want->align > SPACE_GRAIN ? want->align : SPACE_GRAIN;
    if (!(d->parts & DEBUG_GUARD)) {
        uint64_t len = round_up(want->len + (d->parts & DEBUG_CANARY ? DEBUG_CANARY_LEN : 0), SPACE_GRAIN);
        return (struct layout){.len = len, .align = align, .tail = len - want->len};
    }
    uint64_t data = round_up(want->len, d->page), front = align >= d->page ? 0 : data - round_up(want->len, align);
    return (struct layout){.len = data + d->page,
                           .align = align > d->page ? align : d->page,
                           .front = front,
                           .tail = data + d->page - front - want->len};
}

/* As a cache is flushed when memory is short: what is held back is given back. */
static void *take_raw(struct heap *h, const struct heap_want *raw, struct finding *f) {
    struct syp_error kept = *err_record();
    char *p = heap_take(h, raw);
    if (p || !h->debug.first) return p;
    lock_take(&h->lock);
    while (h->debug.first)
        release_oldest_locked(h, f);
    lock_drop(&h->lock);
    if (f->n == 0) *err_record() = kept;
    struct syp_error damage = *err_record();
    p = heap_take(h, raw);
    if (p || f->n) *err_record() = damage;
    return p;
}

/* The bytes of a new block, which is nobody's yet. */
static void fill_new(struct heap *h, uint64_t off, uint64_t user, uint64_t len, uint64_t end) {
    if (h->debug.parts & DEBUG_JUNK) memset(region_at(h->region, user), DEBUG_JUNK_NEW, len);
    if (h->debug.parts & DEBUG_CANARY) {
        put_canary(h, off, user);
        put_canary(h, user + len, end);
    }
    if (h->debug.parts & DEBUG_TOOLS)
        tools_alloc(region_at(h->region, off), region_at(h->region, user), len, region_at(h->region, end));
}

void *debug_alloc(struct heap *h, const struct heap_want *want) {
    struct finding f = {.during = "malloc"};
    struct layout l = layout_of(&h->debug, want);
    struct heap_want raw = {.len = l.len, .align = l.align, .stream = want->stream, .scope = want->scope, .closed = want->closed};
    char *base = take_raw(h, &raw, &f);
    if (!base) {
        tell(h, &f);
        return NULL;
    }
    uint64_t off = region_offset(h->region, base), end = off + l.len - guard_len(&h->debug), user = off + l.front;
    int open = open_pages(h, off, end);
    uint64_t at = end;
    if (open && (h->debug.parts & DEBUG_JUNK)) {
        VALGRIND_DISABLE_ERROR_REPORTING;
        at = changed_free(h, off, end);
        VALGRIND_ENABLE_ERROR_REPORTING;
    }
    if (open) fill_new(h, off, user, want->len, end);
    lock_take(&h->lock);
    count_call_locked(h, &f);
    uint32_t block = space_find(&h->space, off);
    if (at != end)
        found(h, &f, NULL, at, "it was written after it was freed, before this allocation took it",
              "look for a pointer that outlives its block; SYMPOOL_DEBUG=quarantine,junk tells whose");
    if (open) {
        space_at(&h->space, block)->up = (uint32_t)l.front;
        space_at(&h->space, block)->right = (uint32_t)l.tail;
        if (off + l.len > h->debug.high) h->debug.high = off + l.len;
    } else {
        heap_count_free_locked(h, block);
        heap_let_go_locked(h, block);
    }
    lock_drop(&h->lock);
    tell(h, &f);
    if (open) return region_at(h->region, user);
    err_set(SYP_ENOMEM, "allocate %B: mprotect refused guard pages; raise vm.max_map_count or leave guard out of SYMPOOL_DEBUG",
            (unsigned long long)want->len);
    return NULL;
}

int debug_free(struct heap *h, void *p) {
    struct finding f = {.during = "free"};
    lock_take(&h->lock);
    uint32_t block = heap_live_at_locked(h, p);
    if (!block) {
        lock_drop(&h->lock);
        return heap_bad_pointer(h, p, "free");
    }
    struct space_block *b = space_at(&h->space, block);
    count_call_locked(h, &f);
    check_slack(h, b, &f);
    heap_count_free_locked(h, block);
    if (h->debug.parts & DEBUG_TOOLS) tools_free(p);
    if (quarantine_hits(&h->region->quarantine, b->off, b->len)) {
        shut_pages(h, b->off, data_end(h, b));
        heap_let_go_locked(h, block);
    } else {
        if (h->debug.parts & DEBUG_TOOLS) tools_open(region_at(h->region, b->off), data_end(h, b) - b->off);
        wipe(h, b);
        hold_locked(h, block);
        while (h->debug.held_bytes > h->debug.hold)
            release_oldest_locked(h, &f);
    }
    lock_drop(&h->lock);
    tell(h, &f);
    return SYP_OK;
}
