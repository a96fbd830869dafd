/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Futex mutex (the three-state one of Drepper's "Futexes are tricky").
 *
 * Invariant: word 2 whenever a thread may sleep on it, so that lock_drop knows that it must wake.  Must not know: what
 * is protected.
 */
#include "pool/base/lock.h"
#include "pool/base/log.h"
#include "pool/base/os.h"

/* About 1 us: sections under our locks are shorter than a sleep. */
#define LOCK_SPINS 64
/* A sleeper looks again after this time even when nobody woke it. */
#define LOCK_SLICE_NS (100 * NS_PER_MS)

#ifdef SYP_DEBUG
/* Bit r: this thread holds a lock of rank r. */
static _Thread_local uint32_t held;

static void debug_check(const struct lock *l) {
    if ((held >> l->rank) == 0) return;
    log_error("lock of rank %u taken while locks 0x%x are held: a bug of sympool", l->rank, held);
    __builtin_trap();
}
static void debug_took(const struct lock *l) {
    held |= 1u << l->rank;
}
static void debug_dropped(const struct lock *l) {
    held &= ~(1u << l->rank);
}
#else
static void debug_check(const struct lock *l) {
    (void)l;
}
static void debug_took(const struct lock *l) {
    (void)l;
}
static void debug_dropped(const struct lock *l) {
    (void)l;
}
#endif

/* Pairs with lock_drop's release of the word. */
static int take_free(struct lock *l, uint32_t as) {
    uint32_t word = 0;
    return load_relaxed(&l->word) == 0 && cas_acquire(&l->word, &word, as);
}

static void take_slow(struct lock *l) {
    for (int i = 0; i < LOCK_SPINS; i++) {
        if (take_free(l, 1)) return;
        cpu_relax();
    }
    /* From here on the word is set to 2: we cannot know whether others sleep.  Pairs with the swap in lock_drop. */
    while (swap_acq_rel(&l->word, 2) != 0)
        (void)os->futex_wait((const void *)&l->word, 2, LOCK_SLICE_NS);
}

void lock_take(struct lock *l) {
    debug_check(l);
    if (!take_free(l, 1)) take_slow(l);
    debug_took(l);
}

int lock_try(struct lock *l) {
    if (!take_free(l, 1)) return 0;
    debug_took(l);
    return 1;
}

void lock_drop(struct lock *l) {
    debug_dropped(l);
    /* Pairs with take_free and take_slow of the next holder. */
    if (swap_acq_rel(&l->word, 0) == 2) (void)os->futex_wake((const void *)&l->word, 1);
}

void lock_reset(struct lock *l) {
    debug_dropped(l);
    store_release(&l->word, 0); /* only this thread exists: pairs with nobody */
}
