/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocation scopes.  Two things: the stack of the calling thread, and the numbering of pool ids, one per process.
 *
 * Invariants: a stack belongs to one thread record for ever (records are inherited by later threads, their slots are
 * then empty: the new owner finds the record's stack again and starts at depth 0); an id keeps its number for the life
 * of the process.
 *
 * Must not know: what a scope's allocations are made from.
 */
#include "pool/scope.h"

#include "pool/base/arena.h"
#include "pool/base/lock.h"
#include "pool/base/status.h"
#include "pool/base/thread.h"

#define HASH_SIZE (2u * SCOPE_IDS) /* power of two, at most half full */

struct scope_stack {
    struct scope_stack *next;   /* all stacks, newest first; init-const once linked */
    const struct thread *owner; /* init-const */
    uint32_t depth;
    struct scope open[SCOPE_DEPTH]; /* innermost last */
};

/* Release in make_stack pairs with the acquire in stack_of. */
static _Atomic(struct scope_stack *) stacks;

/* Number of an id: its place in ids + 1.  Release of scope_n_ids in scope_number pairs with the acquire in scope_id. */
static struct lock numbering = LOCK_INIT(LOCK_LEAF);
static syp_pool_id ids[SCOPE_IDS];
static uint16_t hash[HASH_SIZE]; /* open addressing: id -> number; under the lock */
atom32 scope_n_ids;

static int same_id(syp_pool_id a, syp_pool_id b) {
    return a.hi == b.hi && a.lo == b.lo;
}

/* 0 = no number left. */
static uint32_t scope_number(syp_pool_id id) {
    uint64_t mixed = (id.hi * 0x9E3779B97F4A7C15ull ^ id.lo) * 0xBF58476D1CE4E5B9ull;
    uint32_t place = (uint32_t)(mixed >> 32) % HASH_SIZE, number;
    lock_take(&numbering);
    while ((number = hash[place]) != 0 && !same_id(ids[number - 1], id))
        place = (place + 1) % HASH_SIZE;
    uint32_t n = load_relaxed(&scope_n_ids); /* written under this lock only */
    if (!number && n < SCOPE_IDS) {
        ids[n] = id;
        number = n + 1;
        hash[place] = (uint16_t)number;
        store_release(&scope_n_ids, number);
    }
    lock_drop(&numbering);
    return number;
}

syp_pool_id scope_id(uint32_t index) {
    if (index == 0 || index > load_acquire(&scope_n_ids)) return (syp_pool_id){0, 0}; /* pairs with scope_number */
    return ids[index - 1];
}

static struct scope_stack *make_stack(const struct thread *owner) {
    struct scope_stack *st = arena_alloc(sizeof *st);
    if (!st) return NULL;
    st->owner = owner;
    st->next = load_relaxed(&stacks);
    while (!cas_acq_rel(&stacks, &st->next, st)) {
    }
    return st;
}

/* The stack of this thread; NULL when there is no memory for one. */
static struct scope_stack *stack_of(struct thread *self) {
    struct scope_stack *st = self->slot[THREAD_SLOT_SCOPES];
    if (st) return st;
    for (st = load_acquire(&stacks); st && st->owner != self; st = st->next) {
    } /* pairs with make_stack */
    if (!st) st = make_stack(self);
    if (st) st->depth = 0;
    return self->slot[THREAD_SLOT_SCOPES] = st;
}

/* The stack of this thread if it ever opened a scope. */
static struct scope_stack *stack_if_any(void) {
    /* A thread that opened one has seen its own store: relaxed.  Keeps threads of programs without scopes from getting
     * a record here. */
    if (load_relaxed(&scope_n_ids) == 0) return NULL;
    struct thread *self = thread_self();
    return self ? self->slot[THREAD_SLOT_SCOPES] : NULL;
}

int scope_begin(syp_pool_id id, int kind) {
    if (id.hi == 0 && id.lo == 0) return err_set(SYP_EINVAL, "begin a scope: pool id {0, 0} is not a legal id");
    if (kind != SYP_SCOPE_HEAP && kind != SYP_SCOPE_SYMMETRIC)
        return err_set(SYP_EINVAL,
                       "begin scope {%llx, %llx}: kind %d is neither SYP_SCOPE_HEAP nor SYP_SCOPE_SYMMETRIC",
                       (unsigned long long)id.hi, (unsigned long long)id.lo, kind);
    struct thread *self = thread_self();
    struct scope_stack *st = self ? stack_of(self) : NULL;
    if (!st)
        return err_set(SYP_ENOMEM, "begin scope {%llx, %llx}: no memory for this thread's stack of scopes",
                       (unsigned long long)id.hi, (unsigned long long)id.lo);
    if (st->depth == SCOPE_DEPTH)
        return err_set(SYP_ESTATE, "begin scope {%llx, %llx}: this thread has %u open already; end some first",
                       (unsigned long long)id.hi, (unsigned long long)id.lo, st->depth);
    uint32_t number = scope_number(id);
    if (!number)
        return err_set(SYP_ENOMEM, "begin scope {%llx, %llx}: %d different pool ids were used already; use ids again",
                       (unsigned long long)id.hi, (unsigned long long)id.lo, SCOPE_IDS);
    st->open[st->depth++] = (struct scope){.id = id, .kind = kind, .index = number};
    return SYP_OK;
}

int scope_end(syp_pool_id id) {
    if (id.hi == 0 && id.lo == 0) return err_set(SYP_EINVAL, "end a scope: pool id {0, 0} is not a legal id");
    struct scope_stack *st = stack_if_any();
    if (!st || st->depth == 0)
        return err_set(SYP_ESTATE, "end scope {%llx, %llx}: this thread has no scope open", (unsigned long long)id.hi,
                       (unsigned long long)id.lo);
    syp_pool_id innermost = st->open[st->depth - 1].id;
    if (!same_id(innermost, id))
        return err_set(SYP_ESTATE, "end scope {%llx, %llx}: the innermost open scope is {%llx, %llx}; end that first",
                       (unsigned long long)id.hi, (unsigned long long)id.lo, (unsigned long long)innermost.hi,
                       (unsigned long long)innermost.lo);
    st->depth--;
    return SYP_OK;
}

const struct scope *scope_innermost(void) {
    const struct scope_stack *st = stack_if_any();
    return st && st->depth ? &st->open[st->depth - 1] : NULL;
}

void scope_clear(void) {
    struct scope_stack *st = stack_if_any();
    if (st) st->depth = 0;
}

void scope_after_fork(void) {
    lock_reset(&numbering);
}
