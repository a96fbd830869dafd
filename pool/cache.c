/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Freed blocks, kept by length and stream.  Bins hash the length; in a bin the newest entry comes first.
 *
 * Invariants: every entry names a SPACE_CACHED block of its length; bytes is the sum of the cached blocks; a block
 * whose event has not fired leaves only to its own stream.  So where the backend runs behind us (BACKEND_ASYNC), a
 * block that work may still use is kept even when it is small, over the limits or the cache is off: back in the space
 * it could go to any stream.
 *
 * Must not know: addresses, locks, statistics.
 */
#include "pool/cache.h"

#include "pool/base/os.h"

#include <string.h>

#define EVENT_PATIENCE NS_PER_S /* how long an entry without a record waits for its event */

static uint32_t bin_of(uint64_t len) {
    return (uint32_t)(((len / SPACE_GRAIN) * 0x9E3779B97F4A7C15ull) >> 56) % CACHE_BINS;
}

static struct cache_entry *entry_at(const struct cache *c, uint32_t entry) {
    return (struct cache_entry *)slab_at(&c->entries, entry);
}

void cache_init(struct cache *c, const struct backend_ops *backend, uint64_t limit, int on) {
    memset(c, 0, sizeof *c);
    c->backend = backend;
    c->limit = limit;
    c->on = on;
    c->async = (backend->caps() & BACKEND_ASYNC) != 0;
    slab_init(&c->entries, sizeof(struct cache_entry));
}

void cache_fini(struct cache *c) {
    slab_fini(&c->entries);
}

/* An event that cannot be asked is one that has not fired. */
static int has_fired(const struct cache *c, const struct cache_entry *e) {
    return !c->async || c->backend->event_query(e->event) == 1;
}

/* Take the entry *link points at out of its bin: its block. */
static uint32_t unlink_entry(struct cache *c, uint32_t bin, uint32_t *link) {
    uint32_t entry = *link;
    struct cache_entry *e = entry_at(c, entry);
    uint32_t block = e->block;
    *link = e->next;
    c->n_in_bin[bin]--;
    c->bytes -= e->len;
    slab_put(&c->entries, entry);
    return block;
}

uint32_t cache_take(struct cache *c, struct space *s, uint64_t len, uint64_t align, uint64_t stream) {
    uint32_t bin = bin_of(len), *found = NULL;
    for (uint32_t *link = &c->bin[bin]; *link; link = &entry_at(c, *link)->next) {
        const struct cache_entry *e = entry_at(c, *link);
        if (e->len != len || ((s->bias + space_at(s, e->block)->off) & (align - 1)) != 0) continue;
        if (e->stream == stream) {
            found = link;
            break;
        }
        if (!found && has_fired(c, e)) found = link;
    }
    if (!found) {
        c->misses++;
        return 0;
    }
    c->hits++;
    uint32_t block = unlink_entry(c, bin, found);
    space_at(s, block)->state = SPACE_LIVE;
    return block;
}

/* Give the oldest block of a bin that nobody uses any more back to the space: 1, or 0 when there is none. */
static int drop_oldest(struct cache *c, struct space *s, uint32_t bin) {
    uint32_t *oldest = NULL;
    for (uint32_t *link = &c->bin[bin]; *link; link = &entry_at(c, *link)->next)
        if (has_fired(c, entry_at(c, *link))) oldest = link;
    if (!oldest) return 0;
    space_free(s, unlink_entry(c, bin, oldest));
    return 1;
}

/* May a block of this length be kept?  Makes room first: yesterday's sizes must not keep today's out. */
static int has_room(struct cache *c, struct space *s, uint64_t len, uint32_t bin) {
    if (!c->on || len < CACHE_MIN || len > c->limit) return 0;
    if (c->n_in_bin[bin] >= CACHE_PER_BIN && !drop_oldest(c, s, bin)) return 0;
    if (c->bytes + len > c->limit) cache_flush(c, s);
    return c->bytes + len <= c->limit;
}

int cache_keep(struct cache *c, struct space *s, uint32_t block, uint64_t stream) {
    struct space_block *b = space_at(s, block);
    uint32_t bin = bin_of(b->len);
    backend_event event = 0;
    int recorded = !c->async || c->backend->event_record((void *)(uintptr_t)stream, &event) == SYP_OK;
    int pending = c->async && !(recorded && c->backend->event_query(event) == 1);
    if (!has_room(c, s, b->len, bin) && !pending) return 0;
    uint32_t entry = recorded ? slab_new(&c->entries) : 0;
    if (!entry) {
        if (!pending) return 0;
        if (recorded && c->backend->event_wait(event, deadline_after(os->now(), EVENT_PATIENCE)) == SYP_OK) return 0;
    } else {
        struct cache_entry *e = entry_at(c, entry);
        e->block = block;
        e->len = b->len;
        e->stream = stream;
        e->event = event;
        e->next = c->bin[bin];
        c->bin[bin] = entry;
        c->n_in_bin[bin]++;
    }
    c->bytes += b->len; /* without an entry too: lost to everybody, rather than used by two */
    b->state = SPACE_CACHED;
    return 1;
}

uint64_t cache_flush(struct cache *c, struct space *s) {
    return cache_expire(c, s, NULL, NULL);
}

uint64_t cache_expire(struct cache *c, struct space *s, int (*old)(void *arg, const struct space_block *b), void *arg) {
    uint64_t before = c->bytes;
    for (uint32_t bin = 0; bin < CACHE_BINS && c->bytes; bin++) {
        uint32_t *link = &c->bin[bin];
        while (*link) {
            const struct cache_entry *e = entry_at(c, *link);
            if ((!old || old(arg, space_at(s, e->block))) && has_fired(c, e))
                space_free(s, unlink_entry(c, bin, link));
            else
                link = &entry_at(c, *link)->next;
        }
    }
    return before - c->bytes;
}

const char *cache_check(const struct cache *c, const struct space *s) {
    for (uint32_t bin = 0; bin < CACHE_BINS; bin++) {
        uint32_t n = 0;
        for (uint32_t entry = c->bin[bin]; entry; entry = entry_at(c, entry)->next) {
            if (n++ == c->n_in_bin[bin] || entry >= c->entries.next) return "a bin of the cache is damaged";
            const struct cache_entry *e = entry_at(c, entry);
            if (!e->block || e->block >= s->blocks.next) return "a cache entry names no block";
            const struct space_block *b = space_at(s, e->block);
            if (b->state != SPACE_CACHED || b->len != e->len || bin_of(e->len) != bin)
                return "a cache entry and its block disagree";
        }
        if (n != c->n_in_bin[bin]) return "entries of the cache are miscounted";
    }
    return NULL;
}
