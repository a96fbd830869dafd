/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Crowding: masks of processors, one for each rank, in the control segments.
 *
 * Invariant: a rank bound to one processor is not crowded as long as the others are bound elsewhere, so only all masks together tell.  The words are
 * hints: read and written relaxed, each for itself, and a wrong one costs time, never a result.  Must not know: who waits for what.
 */
#include "bootstrap/crowd.h"

#include "bootstrap/life.h"
#include "pool/base/log.h"
#include "pool/base/os.h"
#include "pool/stats.h"

#define WORDS (CONTROL_PROCESSORS / 64)

void crowd_publish(struct control_head *own) {
    uint64_t mask[WORDS] = {0};
    os->processors(mask, WORDS);
    for (size_t i = 0; i < WORDS; i++)
        store_relaxed(&own->processors[i], mask[i]); /* pairs with processors_of */
}

/* Processors of the ranks that are on this host and have not gone; how many ranks those are. */
static int processors_of(const struct peers *p, int *ranks) {
    uint64_t all[WORDS] = {0};
    int n = 0;
    *ranks = 0;
    for (int r = 0; r < p->n; r++) {
        struct control_head *c = (struct control_head *)(uintptr_t)p->peer[r].control;
        if (!c || life_of(p, r)) continue;
        ++*ranks;
        for (size_t i = 0; i < WORDS; i++)
            all[i] |= load_relaxed(&c->processors[i]); /* pairs with crowd_publish */
    }
    for (size_t i = 0; i < WORDS; i++)
        n += __builtin_popcountll(all[i]);
    return n;
}

static void decide(struct peers *p, uint32_t crowded) {
    store_relaxed(&p->crowded, crowded); /* pairs with whoever waits */
    stats_set(STAT_CROWDED, crowded);
}

void crowd_count(struct peers *p) {
    int ranks;
    p->n_processors = processors_of(p, &ranks);
    decide(p, ranks > p->n_processors);
}

void crowd_look_again(struct peers *p, uint64_t now) {
    uint64_t due = load_relaxed(&p->next_crowd_look);
    if (now < due || !cas_acquire(&p->next_crowd_look, &due, now + CROWD_LOOK_EVERY)) return; /* another thread does */
    int ranks;
    crowd_publish(p->self);
    int processors = processors_of(p, &ranks);
    uint32_t crowded = ranks > processors;
    if (crowded == load_relaxed(&p->crowded)) return;
    decide(p, crowded);
    log_info("%d ranks of this host on %d processors: whoever waits %s from now on", ranks, processors, crowded ? "yields" : "spins");
}
