/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this process is: attached or not, or the forked child of an attached one.  Every public call starts here.
 *
 *   COLD --syp_init--> ATTACHING --> ATTACHED --syp_finalize--> DETACHING --> COLD
 *   any state --fork--> the child is FORKED for good if the parent was attached, else as the parent was
 */
#ifndef SYP_ALLOCATOR_PROCESS_H
#define SYP_ALLOCATOR_PROCESS_H

#include "allocator/attach.h"

/* process.c: the world while attached, else NULL, as in a child. */
extern _Atomic(struct world *) process_job_world;
/* fork.c: a word that is 1 in the process that wrote it, 0 in a child.  One that stays 1 while none is needed, or if the kernel refuses it. */
extern _Atomic(atom32 *) fork_page;
/* process.c: what the child does; consistent = the handlers ran. */
void process_after_fork(int consistent);
/* process.c: 1 in a forked child of an attached process, which alone writes it. */
extern atom32 process_is_child;
/* process.c: the job's pool while attached, else NULL, as in a child. */
extern _Atomic(struct pool *) process_job_pool;

/* 1 once in a child after a fork that no handler saw (raw clone). */
static inline int fork_noticed(void) { return load_relaxed(load_acquire(&fork_page)) == 0; } /* pairs with fork_guard */

/* 1 in a forked child of an attached process. */
static inline int process_forked(void) {
    if (__builtin_expect(fork_noticed(), 0)) process_after_fork(0);
    return (int)load_relaxed(&process_is_child);
}

/* The job's pool while attached and not in a forked child, else NULL.  Its heap may be closed at any time after: see heap_want.closed. */
static inline struct pool *process_pool(void) {
    if (__builtin_expect(fork_noticed(), 0)) process_after_fork(0); /* first: the child of an unattached process needs it, too */
    return load_acquire(&process_job_pool);                         /* pairs with settle */
}

/* The world while attached and not in a forked child, else NULL. */
static inline struct world *process_world(void) {
    if (__builtin_expect(fork_noticed(), 0)) process_after_fork(0);
    return load_acquire(&process_job_world); /* pairs with settle */
}

/* SYP_OK and *out = the world; or SYP_ESTATE / SYP_EFORKED with the record naming `call`. */
int process_need(const char *call, struct world **out);
/* As process_need, and finalize waits until process_leave: for calls that read what finalize takes away. */
int process_enter(const char *call, struct world **out);
/* As process_enter, without an error record: NULL when not attached, and nothing to leave. */
struct world *process_enter_quietly(void);
void process_leave(void);
/* For finalize, in state DETACHING: SYP_OK when nobody is between enter and leave any more, SYP_EBUSY after timeout_ns. */
int process_quiesce(int64_t timeout_ns);
/* 0, or SYP_EFORKED with the record naming `call`. */
int process_usable(const char *call);

/* copies.c: SYP_OK, this copy of the library is the one that attaches; SYP_ESTATE, another one in this process does, and the record names its file. */
int copies_claim(void);
void copies_release(void);

/* fork.c: called before the first state that a fork could damage exists. */
void fork_guard(void);
/* fork.c: in the child, usable again. */
void fork_reset(void);

#endif
