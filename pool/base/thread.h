/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a thread carries: one pointer of initial-exec TLS to a record that lives in the arena.  (TLS of a preloaded or dlopened
 * allocator must stay within 64 bytes.)  A record is made at a thread's first use and inherited by a later thread once its
 * owner is gone; no thread-exit hook is used, since those allocate.
 */
#ifndef SYP_BASE_THREAD_H
#define SYP_BASE_THREAD_H

#include "allocator/sympool.h"
#include "pool/base/atomic.h"

/* Words for upper layers, zero in a new thread; each layer owns the slots named after it. */
enum { THREAD_SLOT_SCOPES, THREAD_SLOTS };

struct thread {
    struct thread *next; /* all records, newest first; init-const once linked */
    atom32 owner;        /* tid of the owner in the low 22 bits, above them a count of owners (against reuse of a tid) */
    struct syp_error error;
    void *slot[THREAD_SLOTS];
    uint32_t shard; /* of the statistics, 0 = none; stays with the record: at most one living thread writes a shard */
    /* The lock this thread holds as its favourite (lock.h), else NULL.  Written by the owner; release, acquire: lock.h. */
    _Atomic(const void *) favoured;
};

/* The calling thread's record if it has one already: thread_self without the call. */
extern _Thread_local struct thread *thread_own;

/* The calling thread's record; NULL when the system has no more memory. */
struct thread *thread_self(void);

/* In the forked child: the calling thread is the only one; it keeps its record under its new tid. */
void thread_after_fork(void);

#endif
