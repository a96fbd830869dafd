/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of threads.
 *
 * Invariants: a record stays in the list for ever; `owner` names exactly one living thread, or one that is gone.  A
 * record changes hands by one compare-and-swap of `owner`, whose count of owners makes it fail when the tid was reused
 * meanwhile. Must not know: what the slots hold.
 */
#include "pool/base/thread.h"
#include "pool/base/arena.h"
#include "pool/base/os.h"

#include <string.h>

#define TID_BITS 22u /* the kernel's limit of process and thread numbers is 2^22 */
#define TID_MASK ((1u << TID_BITS) - 1)

/* A new thread looks at this many records before it makes one of its own: with thousands of threads alive, starting
 * one must not cost a system call for each of them. */
#define RECLAIM_LOOKS 32

_Thread_local struct thread *thread_own;
/* Newest record.  Release in link_record pairs with the acquire in reclaim. */
static _Atomic(struct thread *) records;
/* Where the next search goes on; a hint. */
static _Atomic(struct thread *) search_from;

static void start_fresh(struct thread *t) {
    memset(&t->error, 0, sizeof t->error);
    t->error.size = sizeof t->error;
    t->error.rank = t->error.peer = -1;
    memset(t->slot, 0, sizeof t->slot);
    store_relaxed(&t->favoured, NULL); /* ours alone now */
}

/* Take over the record of a thread that is gone; NULL when none was met. */
static struct thread *reclaim(uint32_t tid) {
#if defined(__SANITIZE_THREAD__)
    /* ThreadSanitizer cannot see the order that the kernel gives between a thread's end and its tid being gone. */
    return (void)tid, (void)start_fresh, NULL;
#endif
    struct thread *t = load_acquire(&search_from); /* pairs with the store below */
    for (int looks = 0; looks < RECLAIM_LOOKS; looks++) {
        if (!t) t = load_acquire(&records);
        if (!t) return NULL;
        uint32_t owner = load_acquire(&t->owner); /* pairs with the swap of the previous owner's start */
        /* our own tid: its owner is gone too, since we have no record yet */
        if ((owner & TID_MASK) == tid || os->thread_alive((int)(owner & TID_MASK)) == 0) {
            uint32_t taken = ((owner & ~TID_MASK) + (1u << TID_BITS)) | tid;
            if (cas_acq_rel(&t->owner, &owner, taken)) {
                store_release(&search_from, t->next);
                start_fresh(t);
                return t;
            }
        }
        t = t->next;
    }
    store_release(&search_from, t);
    return NULL;
}

static struct thread *make_record(uint32_t tid) {
    struct thread *t = arena_alloc(sizeof *t);
    if (!t) return NULL;
    start_fresh(t);
    store_relaxed(&t->owner, tid);
    t->next = load_acquire(&records);
    while (!cas_acq_rel(&records, &t->next, t)) {
    }
    return t;
}

struct thread *thread_self(void) {
    if (__builtin_expect(thread_own != NULL, 1)) return thread_own;
    uint32_t tid = (uint32_t)os->tid() & TID_MASK;
    struct thread *t = reclaim(tid);
    if (!t) t = make_record(tid);
    return thread_own = t;
}

void thread_after_fork(void) {
    struct thread *self = thread_own;
    if (!self) return;
    uint32_t owner = load_relaxed(&self->owner);
    /* no other thread exists in the child: relaxed */
    store_relaxed(&self->owner, (owner & ~TID_MASK) | ((uint32_t)os->tid() & TID_MASK));
}
