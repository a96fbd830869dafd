/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Futex mutex (the three-state one of Drepper's "Futexes are tricky").
 *
 * Invariants: word 2 whenever a thread may sleep on it, so that lock_drop_word knows that it must wake.  Who holds the
 * word and has seen `favourite` NULL since (look_at_favourite) is alone; so is the favourite inside.  A thread is inside
 * one lock as favourite at most.  Must not know: what is protected.
 */
#include "pool/base/lock.h"
#include "pool/base/log.h"
#include "pool/base/os.h"

/* About 1 us: sections under our locks are shorter than a sleep. */
#define LOCK_SPINS 64
/* A sleeper looks again after this time even when nobody woke it. */
#define LOCK_SLICE_NS (100 * NS_PER_MS)

/* The most patience doubles to: two threads that take turns of that length pay little for the fences. */
#define PATIENCE_MOST (1u << 20)
/* Without a fence in the other threads: longer than any processor keeps a store to itself. */
#define NO_FENCE_NS (10 * NS_PER_MS)

#ifdef SYP_DEBUG
/* Bit r: this thread holds a lock of rank r. */
static _Thread_local uint32_t held;

void lock_debug_check(const struct lock *l) {
    if ((held >> l->rank) == 0) return;
    log_error("lock of rank %u taken while locks 0x%x are held: a bug of sympool", l->rank, held);
    __builtin_trap();
}
void lock_debug_took(const struct lock *l) {
    held |= 1u << l->rank;
}
void lock_debug_dropped(const struct lock *l) {
    held &= ~(1u << l->rank);
}
#endif

/* Pairs with lock_drop_word's release of the word. */
static int take_free(struct lock *l, uint32_t as) {
    uint32_t word = 0;
    return load_relaxed(&l->word) == 0 && cas_acquire(&l->word, &word, as);
}

static void take_slow(struct lock *l) {
    for (int i = 0; i < LOCK_SPINS; i++) {
        if (take_free(l, 1)) return;
        cpu_relax();
    }
    /* From here on the word is set to 2: we cannot know whether others sleep.  Pairs with the swap in lock_drop_word. */
    while (swap_acq_rel(&l->word, 2) != 0)
        (void)os->futex_wait((const void *)&l->word, 2, LOCK_SLICE_NS);
}

/* Word held: the favourite is none any more, and not inside. */
static void take_back(struct lock *l, struct thread *owner) {
    store_relaxed(&l->favourite, NULL);
    if (l->patience < PATIENCE_MOST) l->patience *= 2;
    if (owner != thread_own && os->fence_threads() < 0) {
        l->patience = 0;
        (void)os->sleep(NO_FENCE_NS);
    }
    /* acquire: pairs with its store of NULL in lock_drop */
    for (int i = 0; load_acquire(&owner->favoured) == l; i++) {
        cpu_relax();
        if (i >= LOCK_SPINS) os->yield();
    }
}

/* Word held: make this thread the favourite once it came often enough. */
static void grow_fond(struct lock *l) {
    struct thread *self = thread_own;
    if (!self || l->last != self) {
        l->last = self;
        l->in_a_row = 0;
        return;
    }
    if (++l->in_a_row < l->patience) return;
    l->in_a_row = 0;
    if (os->fence_threads() < 0)
        l->patience = 0; /* the favour could not be taken back */
    else
        store_release(&l->favourite, self); /* pairs with lock_enter_favoured of this thread only */
}

/* Word just taken. */
static void look_at_favourite(struct lock *l) {
    struct thread *owner = load_relaxed(&l->favourite); /* written by holders of the word only */
    if (owner)
        take_back(l, owner);
    else if (l->patience)
        grow_fond(l);
}

void lock_take_word(struct lock *l) {
    if (!take_free(l, 1)) take_slow(l);
    look_at_favourite(l);
}

int lock_try(struct lock *l) {
    if (!take_free(l, 1)) return 0;
    look_at_favourite(l);
    lock_debug_took(l);
    return 1;
}

void lock_drop_word(struct lock *l) {
    /* Pairs with take_free and take_slow of the next holder. */
    if (swap_acq_rel(&l->word, 0) == 2) (void)os->futex_wake((const void *)&l->word, 1);
}

void lock_reset(struct lock *l) {
    struct thread *self = thread_own;
    lock_debug_dropped(l);
    /* only this thread exists: pairs with nobody */
    store_release(&l->favourite, NULL);
    l->last = NULL;
    if (self && load_relaxed(&self->favoured) == l) store_release(&self->favoured, NULL);
    store_release(&l->word, 0);
}
