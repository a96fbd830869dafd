/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which chunks are old enough to go back.
 *
 * Invariants: a chunk goes only while it lies in one free block, under the lock that hands blocks out; freed[chunk] is the
 * tick at which something in it was last freed, as far as the clock was read since.  The tick may lag behind the clock
 * by PURGE_CALLS small calls: then memory goes early, never memory in use.
 *
 * Must not know: addresses, peers, how memory is given back.
 */
#include "pool/purge.h"

#include "pool/base/os.h"

#define TICKS 4                   /* in the time of the setting */
#define AGE_ENOUGH (TICKS + 1u)   /* the tick of the free may have begun just before it or long before */

void purge_init(struct purge *p, int64_t after) {
    *p = (struct purge){.after = after, .calls = after < 0 ? INT32_MAX : 0};
}

static uint32_t tick_now(const struct purge *p) {
    uint64_t tick_ns = (uint64_t)p->after / TICKS;
    return (uint32_t)(os->now() / (tick_ns ? tick_ns : 1));
}

void purge_note_free_locked(struct purge *p, struct region *r, uint64_t off, uint64_t len, int exact) {
    if (p->after <= 0) return;
    if (exact) p->tick = tick_now(p);
    int shift = __builtin_ctzll(r->chunk);
    for (uint64_t i = off >> shift; i <= (off + len - 1) >> shift; i++)
        store_relaxed(&r->freed[i], p->tick);
}

uint64_t purge_locked(struct region *r, const struct space *s, uint32_t tick, uint32_t age) {
    uint64_t given = 0;
    for (uint32_t n = space_next_free(s, 0, r->chunk); n && given < PURGE_PART; n = space_next_free(s, n, r->chunk)) {
        const struct space_block *b = space_at(s, n);
        given += region_decommit(r, b->off, b->len, tick, age, PURGE_PART - given);
    }
    return given;
}

struct since {
    const struct region *region;
    uint32_t tick, age;
};

static int is_old(void *arg, const struct space_block *b) {
    const struct since *t = arg;
    return t->tick - load_relaxed(&t->region->freed[b->off >> __builtin_ctzll(t->region->chunk)]) >= t->age;
}

void purge_tick_locked(struct purge *p, struct region *r, struct space *s, struct cache *c) {
    p->calls = p->after < 0 ? INT32_MAX : p->after == 0 ? 0 : PURGE_CALLS;
    if (p->after < 0) return;
    struct since t = {r, tick_now(p), p->after ? AGE_ENOUGH : 0};
    p->tick = t.tick;
    if (t.tick == p->looked && p->after && !p->more) return;
    p->looked = t.tick;
    if (c && c->bytes) cache_expire(c, s, is_old, &t);
    p->more = purge_locked(r, s, t.tick, t.age) >= PURGE_PART;
    if (p->more) p->calls = 0;
}
