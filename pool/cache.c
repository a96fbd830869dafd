/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Freed blocks, kept by length and stream.  Bins hash the length; in a bin the newest block comes first.
 *
 * Invariants: every block in a bin is SPACE_CACHED and hashes there; bytes is the sum of the cached blocks; a block
 * whose event has not fired leaves only to its own stream.  So where the backend runs behind us (BACKEND_ASYNC), a
 * block that work may still use is kept even when it is small, over the limits or the cache is off: back in the space
 * it could go to any stream.
 *
 * Must not know: addresses, locks, statistics.
 */
#include "pool/cache.h"

#include <string.h>

void cache_init(struct cache *c, const struct backend_ops *backend, uint64_t limit, int on) {
    memset(c, 0, sizeof *c);
    c->backend = backend;
    c->limit = limit;
    c->on = on;
    c->async = (backend->caps() & BACKEND_ASYNC) != 0;
}

void cache_fini(struct cache *c) {
    memset(c, 0, sizeof *c);
}

/* An event that cannot be asked is one that has not fired. */
static int has_fired(const struct cache *c, const struct space_block *b) {
    return !c->async || c->backend->event_query(b->event) == 1;
}

/* Take the block *link names out of its bin. */
static uint32_t unlink_block(struct cache *c, struct space *s, struct cache_bin *bin, uint32_t *link) {
    uint32_t block = *link;
    struct space_block *b = space_at(s, block);
    *link = b->left;
    b->left = 0;
    bin->n--;
    c->bytes -= b->len;
    return block;
}

uint32_t cache_take(struct cache *c, struct space *s, uint64_t len, uint64_t align, uint64_t stream) {
    struct cache_bin *bin = cache_bin(c, len);
    uint32_t *found = NULL;
    for (uint32_t *link = &bin->newest; *link; link = &space_at(s, *link)->left) {
        const struct space_block *b = space_at(s, *link);
        if (b->len != len || ((s->bias + b->off) & (align - 1)) != 0) continue;
        if (b->tag == stream) {
            found = link;
            break;
        }
        if (!found && has_fired(c, b)) found = link;
    }
    if (!found) {
        c->misses++;
        return 0;
    }
    c->hits++;
    uint32_t block = unlink_block(c, s, bin, found);
    space_at(s, block)->state = SPACE_LIVE;
    return block;
}

/* Give the oldest block of a bin that nobody uses any more back to the space: 1, or 0 when there is none. */
static int drop_oldest(struct cache *c, struct space *s, struct cache_bin *bin) {
    uint32_t *oldest = NULL;
    for (uint32_t *link = &bin->newest; *link; link = &space_at(s, *link)->left)
        if (has_fired(c, space_at(s, *link))) oldest = link;
    if (!oldest) return 0;
    space_free(s, unlink_block(c, s, bin, oldest));
    return 1;
}

/* May a block of this length be kept?  Makes room first: yesterday's sizes must not keep today's out. */
static int has_room(struct cache *c, struct space *s, uint64_t len, struct cache_bin *bin) {
    if (!c->on || len < CACHE_MIN || len > c->limit) return 0;
    if (bin->n >= CACHE_PER_BIN && !drop_oldest(c, s, bin)) return 0;
    if (c->bytes + len > c->limit) cache_flush(c, s);
    return c->bytes + len <= c->limit;
}

/* cache_keep where work may still use the block: kept whatever the limits. */
static int keep_async(struct cache *c, struct space *s, struct cache_bin *bin, uint32_t block, struct space_block *b) {
    int recorded = c->backend->event_record((void *)(uintptr_t)b->tag, &b->event) == SYP_OK;
    int pending = !(recorded && c->backend->event_query(b->event) == 1);
    if (!has_room(c, s, b->len, bin) && !pending) return 0;
    if (recorded) {
        cache_push(c, bin, block, b);
    } else { /* no telling when: lost to everybody, rather than used by two */
        b->state = SPACE_CACHED;
        c->bytes += b->len;
    }
    return 1;
}

int cache_keep(struct cache *c, struct space *s, uint32_t block, uint64_t stream) {
    struct space_block *b = space_at(s, block);
    struct cache_bin *bin = cache_bin(c, b->len);
    b->tag = stream;
    if (c->async) return keep_async(c, s, bin, block, b);
    if (!has_room(c, s, b->len, bin)) return 0;
    cache_push(c, bin, block, b);
    return 1;
}

uint64_t cache_flush(struct cache *c, struct space *s) {
    return cache_expire(c, s, NULL, NULL);
}

uint64_t cache_expire(struct cache *c, struct space *s, int (*old)(void *arg, const struct space_block *b), void *arg) {
    uint64_t before = c->bytes;
    for (uint32_t i = 0; i < CACHE_BINS && c->bytes; i++) {
        struct cache_bin *bin = &c->bin[i];
        uint32_t *link = &bin->newest;
        while (*link) {
            const struct space_block *b = space_at(s, *link);
            if ((!old || old(arg, b)) && has_fired(c, b))
                space_free(s, unlink_block(c, s, bin, link));
            else
                link = &space_at(s, *link)->left;
        }
    }
    return before - c->bytes;
}

const char *cache_check(const struct cache *c, const struct space *s) {
    for (uint32_t i = 0; i < CACHE_BINS; i++) {
        uint32_t n = 0;
        for (uint32_t block = c->bin[i].newest; block; block = space_at(s, block)->left) {
            if (n++ == c->bin[i].n) return "a bin of the cache is damaged";
            if (block >= s->blocks.next) return "the cache names what is no block";
            const struct space_block *b = space_at(s, block);
            if (b->state != SPACE_CACHED || cache_bin_of(b->len) != i) return "the cache and a block of it disagree";
        }
        if (n != c->bin[i].n) return "blocks of the cache are miscounted";
    }
    return NULL;
}
