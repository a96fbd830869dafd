/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper thread, and what this rank says and reads about who is gone.
 *
 *   keeper:  STARTING --robust list set, life word held--> READY --stop 1--> LIFE_LEFT, thread ends
 *                \--the system refused--> FAILED             \--stop 2--> thread ends, the kernel flags the word
 *
 * Invariants: the keeper's robust list holds the life word and nothing else (the keeper takes no pthread mutex, so
 * replacing glibc's list is safe); list head and entry lie in memory that outlives the thread's stack.  What a peer
 * published is read once and believed only as far as it names a rank of this world.  Must not know: operations, groups.
 */
#include "bootstrap/life.h"

#include "pool/base/limits.h"
#include "pool/base/status.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>

_Static_assert(LIFE_DIED == FUTEX_OWNER_DIED && LIFE_WAITERS == FUTEX_WAITERS, "the kernel writes these bits");
_Static_assert(sizeof(struct robust_list) == sizeof(void *), "robust_entry stands for a struct robust_list");

enum keeper_stop_word { STOP_LEAVE = 1, STOP_VANISH = 2 };
enum keeper_ready_word { READY = 1, FAILED = 2 };

#define KEEPER_SLICE (60 * NS_PER_S) /* a lost wake-up costs one slice */

/* Called by the keeper: the kernel walks the list of the thread that dies.  0 or -errno. */
static int hold_life(struct keeper *k) {
    struct control_head *c = k->control;
    struct robust_list *entry = (struct robust_list *)(void *)&c->robust_entry;
    entry->next = &k->robust.list;
    k->robust.list.next = entry;
    k->robust.futex_offset =
        (long)offsetof(struct control_head, life) - (long)offsetof(struct control_head, robust_entry);
    k->robust.list_op_pending = NULL;
    int r = os->robust_list(&k->robust, sizeof k->robust);
    if (r < 0) return r;
    store_release(&c->life, (uint32_t)os->tid() | LIFE_WAITERS); /* pairs with life_of */
    return 0;
}

static void *keeper_run(void *arg) {
    struct keeper *k = arg;
    k->error = hold_life(k);
    store_release(&k->ready, k->error ? FAILED : READY); /* pairs with keeper_start */
    (void)os->futex_wake(&k->ready, 1);
    if (k->error) return NULL;
    uint32_t stop;
    while ((stop = load_acquire(&k->stop)) == 0)
        (void)os->futex_wait(&k->stop, 0, KEEPER_SLICE); /* pairs with end_keeper */
    if (stop == STOP_LEAVE) {
        store_release(&k->control->life, LIFE_LEFT); /* pairs with life_of */
        k->robust.list.next = &k->robust.list;       /* empty: nothing for the kernel to flag */
    }
    return NULL;
}

int keeper_start(struct keeper *k, struct control_head *control) {
    *k = (struct keeper){.control = control};
    int r = os->thread_start(keeper_run, k, &k->thread);
    if (r < 0) {
        k->thread = NULL;
        err_sys(SYP_ESYS, -r, "start the keeper thread");
        return err_limits(r);
    }
    while (load_acquire(&k->ready) == 0)
        (void)os->futex_wait(&k->ready, 0, NS_PER_S); /* pairs with keeper_run */
    if (load_acquire(&k->ready) == READY) return SYP_OK;
    (void)os->thread_join(k->thread);
    k->thread = NULL;
    return err_sys(SYP_ESYS, -k->error, "hold the life word by set_robust_list (a seccomp profile must allow it)");
}

static void end_keeper(struct keeper *k, uint32_t stop) {
    if (!k || !k->thread) return;
    store_release(&k->stop, stop); /* pairs with keeper_run */
    (void)os->futex_wake(&k->stop, INT_MAX);
    (void)os->thread_join(k->thread);
    k->thread = NULL;
}

void keeper_stop(struct keeper *k) {
    end_keeper(k, STOP_LEAVE);
}

void keeper_vanish(struct keeper *k) {
    end_keeper(k, STOP_VANISH);
}

/* -------------------------------------------------------------------------------------------------- notices */

void life_publish(const struct peers *p, int rank, int reason) {
    if (!p->self || rank < 0 || rank >= p->n) return;
    uint8_t none = 0;
    /* Threads of this rank may find the same death: one of them counts it.  Both pair with noticed_by. */
    if (!atomic_compare_exchange_strong_explicit(&p->self->dead[rank], &none, (uint8_t)(1 + reason),
                                                 memory_order_acq_rel, memory_order_acquire))
        return;
    atomic_fetch_add_explicit(&p->self->notice_epoch, 1, memory_order_release);
}

/* What the notices of one rank say about another: 0 = nothing.  Pairs with life_publish. */
static int noticed_by(const struct control_head *c, int rank) {
    uint8_t word = load_relaxed((_Atomic uint8_t *)&c->dead[rank]);
    if (word == 0) return 0;
    return word == 1 + LIFE_REASON_LEFT ? LIFE_REASON_LEFT : LIFE_REASON_DIED;
}

static int notices(const struct peers *p, const struct control_head *c, const int *ranks, int n, int *reason) {
    for (int i = 0; i < n; i++) {
        if (ranks[i] == p->me) continue; /* this rank knows better */
        *reason = noticed_by(c, ranks[i]);
        if (*reason) return ranks[i];
    }
    return -1;
}

int life_look(const struct peers *p, const int *ranks, int n, int *reason) {
    for (int i = 0; i < n; i++) {
        if (ranks[i] == p->me) continue;
        *reason = life_of(p, ranks[i]);
        if (*reason) return ranks[i];
    }
    for (int i = 0; i < n; i++) {
        const struct control_head *c = p->peer[ranks[i]].control;
        if (!c || load_acquire((atom64 *)&c->notice_epoch) == 0) continue; /* pairs with life_publish */
        int gone = notices(p, c, ranks, n, reason);
        if (gone >= 0) return gone;
    }
    *reason = 0;
    return -1;
}
