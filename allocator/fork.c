/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fork.  Handlers are registered once, when the library is loaded: the forking thread takes every lock of the allocator, so that the child finds
 * consistent records, and the child starts afresh.  A raw clone runs no handler: it is noticed by a page that the kernel wipes in every child.
 */
#include "allocator/process.h"
#include "pool/base/log.h"

#include <pthread.h>
#include <sys/mman.h>

static atom32 no_page = 1; /* stays so in children */
_Atomic(atom32 *) fork_page = &no_page;

void fork_guard(void) {
    atom32 *page = load_acquire(&fork_page);
    if (page == &no_page) {
        void *p;
        if (os->map(NULL, os_page_size(), PROT_READ | PROT_WRITE, -1, 0, &p) < 0) return;
        if (os->advise(p, os_page_size(), MADV_WIPEONFORK) < 0) {
            os->unmap(p, os_page_size());
            return;
        }
        page = p;
        atom32 *expected = &no_page;
        store_relaxed(page, 1); /* the swap publishes it */
        if (!cas_acq_rel(&fork_page, &expected, page)) os->unmap(p, os_page_size());
        return;
    }
    store_relaxed(page, 1); /* was 0 only in a child, which has one thread */
}

static void for_all_locks(void (*f)(struct lock *)) {
    for (int i = 0; i < POOLS_MAX; i++)
        if (load_acquire(&pools[i].ready)) f(&pools[i].symm.lock); /* pairs with pool_open, pool_close */
    for (int i = 0; i < POOLS_MAX; i++)
        if (load_acquire(&pools[i].ready)) f(&pools[i].heap.lock);
    for (int i = 0; i < POOLS_MAX; i++)
        if (load_acquire(&pools[i].ready)) f(&pools[i].region.lock);
}

/* What this fork holds: pools come and go between prepare and parent. */
static struct lock forking = LOCK_INIT(LOCK_ATTACH);
static struct lock *taken[3 * POOLS_MAX + 1];
static int n_taken;

void fork_reset(void) {
    lock_reset(&forking); /* another thread of the parent may have been forking */
    n_taken = 0;
}

static void take(struct lock *l) {
    lock_take(l);
    taken[n_taken++] = l;
}

static void prepare(void) {
    lock_take(&forking);
    n_taken = 0;
    take(&private_lock);
    for_all_locks(take);
    pools_before_fork();
}

static void parent(void) {
    while (n_taken > 0)
        lock_drop(taken[--n_taken]);
    lock_drop(&forking);
}

static void child(void) {
    process_after_fork(1);
}

__attribute__((constructor)) static void register_handlers(void) {
    pthread_atfork(prepare, parent, child);
}
