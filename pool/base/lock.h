/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A futex mutex with a rank: a thread takes locks in increasing rank only.  Debug builds (SYP_DEBUG) check the order and stop the
 * process on a violation, which is a bug of ours.  Zero-initialised except for the rank.
 *
 * A lock with patience favours the thread that took it so many times in a row: that thread then takes and drops it without an
 * atomic read-modify-write (each costs 3 to 5 ns, four of them are half of an allocation).  The first other thread that comes takes
 * the favour back, with a fence in all threads of the process (13 us), and patience is doubled.
 *
 * Rules: no log line, no callback and no system call that waits is made with a lock held.
 */
#ifndef SYP_BASE_LOCK_H
#define SYP_BASE_LOCK_H

#include "pool/base/atomic.h"
#include "pool/base/thread.h"

/* Order in which locks are taken; also the order in which the fork handler takes them. */
enum lock_rank {
    LOCK_ATTACH = 1, /* allocator: attach and finalize */
    LOCK_COMM,       /* collectives: table of groups */
    LOCK_SYMM,       /* pool: symmetric region */
    LOCK_HEAP,       /* pool: local heap */
    LOCK_REGION,     /* pool: commit state */
    LOCK_LEAF        /* anything that takes no other lock */
};

struct lock {
    atom32 word; /* 0 free, 1 held, 2 held with waiters */
    uint32_t rank;
    /* Changed by holders of the word only. */
    _Atomic(struct thread *) favourite; /* may enter without the word; NULL = nobody */
    struct thread *last;                /* who held the word last, and how many times in a row */
    uint32_t in_a_row;
    uint32_t patience; /* times in a row that make a favourite; 0 = never */
};
#define LOCK_INIT(r) {.rank = (r)}
/* First patience of a lock with favourites: long enough for what makes a favourite to be lost in the noise. */
#define LOCK_PATIENCE 1024u

void lock_take_word(struct lock *l);
void lock_drop_word(struct lock *l);
int lock_try(struct lock *l); /* 1 = taken */
/* In the forked child: free again, whoever held it. */
void lock_reset(struct lock *l);

#ifdef SYP_DEBUG
void lock_debug_check(const struct lock *l);
void lock_debug_took(const struct lock *l);
void lock_debug_dropped(const struct lock *l);
#else
static inline void lock_debug_check(const struct lock *l) { (void)l; }
static inline void lock_debug_took(const struct lock *l) { (void)l; }
static inline void lock_debug_dropped(const struct lock *l) { (void)l; }
#endif

/*
 * Store, then look again: whoever takes the favour back clears `favourite`, has every thread execute a fence, and then
 * waits while `favoured` is this lock (take_back in lock.c).  So either it sees our store, or we see NULL.  Between the two the
 * processor needs no fence of its own, only the compiler does.
 * self: thread_own.
 */
static inline int lock_enter_favoured(struct lock *l, struct thread *self) {
    if (!self || load_relaxed(&l->favourite) != self || load_relaxed(&self->favoured)) return 0;
    store_relaxed(&self->favoured, l);
    atomic_signal_fence(memory_order_seq_cst);
    if (__builtin_expect(load_acquire(&l->favourite) == self, 1)) return 1; /* pairs with take_back */
    store_release(&self->favoured, NULL);
    return 0;
}

/* Behind lock_enter_favoured that gave 1. */
static inline void lock_leave_favoured(struct thread *self) {
    store_release(&self->favoured, NULL); /* pairs with take_back */
}

static inline void lock_take(struct lock *l) {
    lock_debug_check(l);
    if (!lock_enter_favoured(l, thread_own)) lock_take_word(l);
    lock_debug_took(l);
}

static inline void lock_drop(struct lock *l) {
    struct thread *self = thread_own;
    lock_debug_dropped(l);
    if (self && load_relaxed(&self->favoured) == l)
        lock_leave_favoured(self);
    else
        lock_drop_word(l);
}

#endif
