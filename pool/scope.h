/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocation scopes of a thread: a stack of pool ids; the newest open one says where the thread's allocations go.  Scope ids are numbered
 * once per process (scope index, shown by the walker).
 */
#ifndef SYP_POOL_SCOPE_H
#define SYP_POOL_SCOPE_H

#include "allocator/sympool.h"
#include "pool/base/atomic.h"

#define SCOPE_DEPTH 32
#define SCOPE_IDS 4096 /* distinct ids per process */

struct scope {
    syp_pool_id id;
    int kind;       /* SYP_SCOPE_* */
    uint32_t index; /* 1 .. */
};

int scope_begin(syp_pool_id id, int kind);
int scope_end(syp_pool_id id);
extern atom32 scope_n_ids; /* ids that were ever used (scope.c) */
const struct scope *scope_innermost(void);
/* The innermost open scope of this thread, NULL = none.  A few loads.  Relaxed: a thread that opened one has seen its own store. */
static inline const struct scope *scope_current(void) { return load_relaxed(&scope_n_ids) ? scope_innermost() : NULL; }
/* The id behind a scope index, {0,0} for 0 or unknown. */
syp_pool_id scope_id(uint32_t index);
/* Forget every scope of this thread (after fork, after finalize). */
void scope_clear(void);

/* In the forked child: usable again, whatever another thread of the parent was doing. */
void scope_after_fork(void);

#endif
