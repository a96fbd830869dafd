/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/*
 * pool/base/lock: mutual exclusion, try, wake-ups, fork; and the rank check of debug builds.
 */
/* The debug build of the lock, whose order check is part of what is tested; it takes the place of the one in the library. */
#define SYP_DEBUG 1
#include "pool/base/lock.c"
#include "pool/base/os.h"
#include "tests/support/check.h"

#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static struct lock lock = LOCK_INIT(LOCK_LEAF);
static uint64_t counter;       /* under the lock, a plain variable */
static int inside;             /* under the lock */
static atom32 overlaps, tried; /* counts of the threads */

static void *count_up(void *arg) {
    uint64_t n = (uint64_t)(uintptr_t)arg;
    for (uint64_t i = 0; i < n; i++) {
        if (i % 4 == 0) {
            if (!lock_try(&lock)) {
                add_relaxed(&tried, 1u);
                lock_take(&lock);
            }
        } else {
            lock_take(&lock);
        }
        if (inside++) add_relaxed(&overlaps, 1u);
        counter++;
        if (i % 64 == 0) os->yield(); /* others come while it is held, and sleep */
        inside--;
        lock_drop(&lock);
    }
    return NULL;
}

static void mutual_exclusion(void) {
    uint64_t n = check_count(20000, 1000000);
    pthread_t id[4];
    counter = 0;
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&id[i], NULL, count_up, (void *)(uintptr_t)n), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(id[i], NULL);
    CHECK_EQ(counter, 4 * n);
    CHECK_EQ(load_relaxed(&overlaps), 0);
    CHECK_EQ(load_relaxed(&lock.word), 0);
}

static void try_and_reset(void) {
    struct lock l = LOCK_INIT(LOCK_HEAP);
    CHECK_EQ(lock_try(&l), 1);
    CHECK_EQ(lock_try(&l), 0);
    lock_drop(&l);
    CHECK_EQ(lock_try(&l), 1);
    /* whoever held it: free again */
    lock_reset(&l);
    CHECK_EQ(lock_try(&l), 1);
    lock_drop(&l);
    store_relaxed(&l.word, 2);
    lock_reset(&l);
    lock_take(&l);
    lock_drop(&l);
    CHECK_EQ(load_relaxed(&l.word), 0);
}

static unsigned waits, wakes;
static int counted_wait(const void *word, uint32_t expected, uint64_t ns) {
    waits++;
    return os_linux.futex_wait(word, expected, ns);
}
static int counted_wake(const void *word, int n) {
    wakes++;
    return os_linux.futex_wake(word, n);
}

static void no_system_call_without_contention(void) {
    struct os_ops table = os_linux;
    struct lock l = LOCK_INIT(LOCK_HEAP);
    table.futex_wait = counted_wait;
    table.futex_wake = counted_wake;
    const struct os_ops *old = os_swap(&table);
    for (int i = 0; i < 1000; i++) {
        lock_take(&l);
        lock_drop(&l);
    }
    os_swap(old);
    CHECK_EQ(waits + wakes, 0);
}

static atom32 stage;
static void *sleeper(void *arg) {
    struct lock *l = arg;
    store_release(&stage, 1); /* pairs with the load below */
    lock_take(l);
    lock_drop(l);
    return NULL;
}

static atom32 timeouts;
static int timed_wait(const void *word, uint32_t expected, uint64_t ns) {
    int rc = os_linux.futex_wait(word, expected, ns);
    if (rc == -ETIMEDOUT) add_relaxed(&timeouts, 1u);
    return rc;
}

static void a_sleeper_is_woken(void) {
    struct lock l = LOCK_INIT(LOCK_HEAP);
    struct os_ops table = os_linux;
    table.futex_wait = timed_wait;
    const struct os_ops *old = os_swap(&table);
    for (int i = 0; i < 20; i++) {
        pthread_t id;
        store_relaxed(&stage, 0);
        lock_take(&l);
        CHECK_EQ(pthread_create(&id, NULL, sleeper, &l), 0);
        while (load_acquire(&stage) == 0 || load_relaxed(&l.word) != 2)
            os->sleep(NS_PER_MS / 10);
        lock_drop(&l);
        pthread_join(id, NULL);
    }
    os_swap(old);
    CHECK_EQ(load_relaxed(&l.word), 0);
    CHECK(load_relaxed(&timeouts) <= 5); /* by lock_drop, not by the end of a time slice; a busy machine may hold up a few */
}

static void wrong_order_stops_a_debug_build(void) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct lock heap = LOCK_INIT(LOCK_HEAP), attach = LOCK_INIT(LOCK_ATTACH);
        close(2);
        lock_take(&heap);
        lock_take(&attach);
        _exit(0);
    }
    int status = 0;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    struct lock heap = LOCK_INIT(LOCK_HEAP), attach = LOCK_INIT(LOCK_ATTACH);
    lock_take(&attach);
    lock_take(&heap);
    lock_drop(&attach);
    lock_drop(&heap);
    lock_take(&attach);
    lock_drop(&attach);
}

int main(void) {
    return check_main("lock",
                      (struct check_test[]){{"mutual_exclusion", mutual_exclusion},
                                            {"try_and_reset", try_and_reset},
                                            {"no_system_call_without_contention", no_system_call_without_contention},
                                            {"a_sleeper_is_woken", a_sleeper_is_woken},
                                            {"wrong_order_stops_a_debug_build", wrong_order_stops_a_debug_build},
                                            {0}});
}
