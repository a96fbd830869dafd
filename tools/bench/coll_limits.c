/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives, in a rank: what the machine can do.  The latency of a cache line, the price of a turn on a shared processor, and the
 * probe that tells whether the two processors are near each other or far apart.
 */
#include <sched.h>
#include <string.h>

#include "tools/bench/coll_work.h"

#define PROBE_BYTES (64u << 10)
#define MEETING 10 /* turns before the timed ones: then both run */

/* Wait until our word is `value`; yield: the one we wait for needs our processor. */
static void await(struct work *w, uint64_t value, int yield) {
    for (unsigned spins = 1; atomic_load_explicit(&w->board->rank[w->rank].word, memory_order_acquire) != value; spins++) {
        if (yield) sched_yield();
        if (spins >= 1u << 12) board_relax(w->board, spins);
    }
}

static void tell(struct work *w, int peer, uint64_t value) {
    atomic_store_explicit(&w->board->rank[peer].word, value, memory_order_release);
}

/* Of 500 round trips with clock readings the shortest one decides how far the clocks differ. */
static void clock_offset(struct work *w, int peer) {
    struct board *b = w->board;
    uint64_t closest = UINT64_MAX;
    for (int i = 0; i < 500; i++) {
        uint64_t turn = ++w->line_turn;
        if (w->rank == 0) {
            uint64_t sent = board_ticks(b);
            tell(w, peer, turn);
            await(w, turn, 0);
            uint64_t back = board_ticks(b), there = b->rank[0].stamp;
            if (there < sent || there > back) b->backwards++;
            if (back - sent >= closest) continue;
            closest = back - sent;
            b->clock_offset_ns = ((double)(there - sent) - (double)closest / 2) * b->ns_per_tick;
        } else {
            await(w, turn, 0);
            b->rank[peer].stamp = board_ticks(b);
            tell(w, peer, turn);
        }
    }
}

void limits_ping(struct work *w, const struct coll_command *c) {
    struct board *b = w->board;
    int yield = c->what == DO_YIELD || b->processors < 2, other = c->what == DO_YIELD ? b->processors : 1;
    w->line_turn = ++w->pings << 32; /* also in those who take no part in this one */
    if (w->rank != 0 && w->rank != other) return;
    int peer = w->rank == 0 ? other : 0;
    if (c->warm && c->what == DO_LINE) clock_offset(w, peer);
    for (int s = 0; s < c->samples; s++) {
        uint64_t start = 0;
        for (int i = -MEETING; i < c->count; i++) {
            uint64_t turn = ++w->line_turn;
            if (i == 0) start = board_ticks(b);
            if (w->rank == 0) tell(w, peer, turn);
            await(w, turn, yield);
            if (w->rank != 0) tell(w, peer, turn);
        }
        b->sample[w->rank][s] = (double)(board_ticks(b) - start) * b->ns_per_tick / (2.0 * c->count);
    }
}

void limits_probe(struct work *w, const struct coll_command *c) {
    struct board *b = w->board;
    uint64_t sum = 0;
    w->line_turn = ++w->pings << 32;
    if (w->rank > 1) return;
    for (int s = 0; s < c->samples; s++) {
        uint64_t turn = ++w->line_turn, start = board_ticks(b);
        if (w->rank == 0) {
            memset(b->shared, s, PROBE_BYTES);
            b->sample[0][s] = (double)(board_ticks(b) - start) * b->ns_per_tick;
            tell(w, 1, turn);
            await(w, turn, b->processors < 2);
        } else {
            await(w, turn, b->processors < 2);
            start = board_ticks(b);
            for (size_t i = 0; i < PROBE_BYTES; i += sizeof sum)
                sum += *(const volatile uint64_t *)(b->shared + i);
            b->sample[1][s] = (double)(board_ticks(b) - start) * b->ns_per_tick;
            tell(w, 0, turn);
        }
    }
}

void limits_copy_nt(void *to, const void *from, size_t len) {
#if defined(__x86_64__)
    size_t i = 0;
    for (; i + 64 <= len; i += 64)
        for (size_t k = i; k < i + 64; k += 16)
            _mm_stream_si128((__m128i *)((char *)to + k), _mm_load_si128((const __m128i *)((const char *)from + k)));
    memcpy((char *)to + i, (const char *)from + i, len - i);
    _mm_sfence();
#else
    memcpy(to, from, len);
#endif
}
