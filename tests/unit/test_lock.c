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

/* ---------------------------------------------------------------------------------------------- favourites */

#define FOND 8u /* patience of the locks here */

static void *take_once(void *arg) {
    lock_take(arg);
    lock_drop(arg);
    return NULL;
}

static void in_another_thread(void *(*run)(void *), void *arg) {
    pthread_t id;
    CHECK_EQ(pthread_create(&id, NULL, run, arg), 0);
    pthread_join(id, NULL);
}

static void court(struct lock *l) {
    for (unsigned i = 0; i <= FOND; i++)
        take_once(l);
}

/* Where membarrier is refused nobody is favoured: what is left is without_fences_there_are_no_favourites. */
static int no_fences_here(void) {
    if (os->fence_threads() >= 0) return 0;
    check_skip("membarrier is refused, so there are no favourites");
    return 1;
}

static void a_favourite_enters_without_the_word(void) {
    if (no_fences_here()) return;
    struct lock l = {.rank = LOCK_HEAP, .patience = FOND}, plain = LOCK_INIT(LOCK_HEAP);
    CHECK(thread_self() != NULL);
    court(&plain);
    CHECK(load_relaxed(&plain.favourite) == NULL);
    court(&l);
    CHECK(load_relaxed(&l.favourite) == thread_self());
    lock_take(&l);
    CHECK_EQ(load_relaxed(&l.word), 0);
    CHECK(load_relaxed(&thread_self()->favoured) == &l);
    lock_drop(&l);
    CHECK(load_relaxed(&thread_self()->favoured) == NULL);
    in_another_thread(take_once, &l); /* takes the favour back */
    CHECK(load_relaxed(&l.favourite) == NULL);
    CHECK_EQ(l.patience, 2 * FOND);
    lock_take(&l);
    CHECK_EQ(load_relaxed(&l.word), 1);
    lock_drop(&l);
}

static void *take_and_tell(void *arg) {
    lock_take(arg);
    store_release(&stage, 2); /* pairs with the loads below */
    lock_drop(arg);
    return NULL;
}

static void who_takes_the_favour_back_waits_for_the_one_inside(void) {
    if (no_fences_here()) return;
    struct lock l = {.rank = LOCK_HEAP, .patience = FOND};
    pthread_t id;
    CHECK(thread_self() != NULL);
    court(&l);
    store_relaxed(&stage, 0);
    lock_take(&l);
    CHECK_EQ(load_relaxed(&l.word), 0);
    CHECK_EQ(pthread_create(&id, NULL, take_and_tell, &l), 0);
    while (load_relaxed(&l.favourite))
        os->yield();
    os->sleep(20 * NS_PER_MS);
    CHECK_EQ(load_acquire(&stage), 0);
    lock_drop(&l);
    pthread_join(id, NULL);
    CHECK_EQ(load_acquire(&stage), 2);
}

static void favourite_of_one_lock_inside_another(void) {
    if (no_fences_here()) return;
    struct lock a = {.rank = LOCK_SYMM, .patience = FOND}, b = {.rank = LOCK_HEAP, .patience = FOND};
    CHECK(thread_self() != NULL);
    court(&a);
    court(&b);
    lock_take(&a);
    lock_take(&b); /* by the word: a thread is inside one lock as favourite */
    CHECK_EQ(load_relaxed(&b.word), 1);
    lock_drop(&b);
    CHECK(load_relaxed(&thread_self()->favoured) == &a);
    lock_drop(&a);
    CHECK_EQ(load_relaxed(&a.word) + load_relaxed(&b.word), 0);
}

static struct lock fond;

static void *count_in_bursts(void *arg) {
    uint64_t n = (uint64_t)(uintptr_t)arg;
    CHECK(thread_self() != NULL);
    for (uint64_t i = 0; i < n; i++) {
        lock_take(&fond);
        if (inside++) add_relaxed(&overlaps, 1u);
        counter++;
        if (load_relaxed(&fond.word) == 0) add_relaxed(&tried, 1u); /* inside as favourite */
        inside--;
        lock_drop(&fond);
        if (i % 256 == 0) os->yield();
    }
    return NULL;
}

static void favourites_come_and_go_and_exclude_each_other(void) {
    if (no_fences_here()) return;
    const uint64_t n = 4000, rounds = check_count(100, 5000);
    pthread_t id[3];
    counter = 0;
    store_relaxed(&tried, 0);
    store_relaxed(&overlaps, 0);
    for (uint64_t r = 0; r < rounds; r++) {
        fond = (struct lock){.rank = LOCK_HEAP, .patience = FOND}; /* it doubles: a few favourites a round */
        for (int i = 0; i < 3; i++)
            CHECK_EQ(pthread_create(&id[i], NULL, count_in_bursts, (void *)(uintptr_t)n), 0);
        for (int i = 0; i < 3; i++)
            pthread_join(id[i], NULL);
    }
    CHECK_EQ(counter, 3 * n * rounds);
    CHECK_EQ(load_relaxed(&overlaps), 0);
    CHECK(load_relaxed(&tried) > n / 10 * rounds);
}

static int refused_fence(void) {
    return -ENOSYS;
}
static unsigned slept;
static int counted_sleep(uint64_t ns) {
    slept++;
    return os_linux.sleep(ns);
}

static void without_fences_there_are_no_favourites(void) {
    struct os_ops table = os_linux;
    struct lock l = {.rank = LOCK_HEAP, .patience = FOND}, late = {.rank = LOCK_HEAP, .patience = FOND};
    CHECK(thread_self() != NULL);
    court(&late);
    int fences = os->fence_threads() >= 0;
    CHECK(load_relaxed(&late.favourite) == (fences ? thread_self() : NULL));
    table.fence_threads = refused_fence;
    table.sleep = counted_sleep;
    const struct os_ops *old = os_swap(&table);
    court(&l);
    CHECK(load_relaxed(&l.favourite) == NULL);
    CHECK_EQ(l.patience, 0);
    in_another_thread(take_once, &late); /* refused since: taken back all the same, and for good */
    os_swap(old);
    CHECK_EQ(slept, fences);
    CHECK(load_relaxed(&late.favourite) == NULL);
    court(&late);
    CHECK(load_relaxed(&late.favourite) == NULL);
}

static void reset_forgets_the_favourite(void) {
    if (no_fences_here()) return;
    struct lock l = {.rank = LOCK_HEAP, .patience = FOND};
    CHECK(thread_self() != NULL);
    court(&l);
    lock_take(&l);
    lock_reset(&l);
    CHECK(load_relaxed(&l.favourite) == NULL && load_relaxed(&thread_self()->favoured) == NULL);
    in_another_thread(take_once, &l);
    take_once(&l);
    CHECK_EQ(load_relaxed(&l.word), 0);
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
                                            {"a_favourite_enters_without_the_word", a_favourite_enters_without_the_word},
                                            {"who_takes_the_favour_back_waits_for_the_one_inside",
                                             who_takes_the_favour_back_waits_for_the_one_inside},
                                            {"favourite_of_one_lock_inside_another", favourite_of_one_lock_inside_another},
                                            {"favourites_come_and_go_and_exclude_each_other",
                                             favourites_come_and_go_and_exclude_each_other},
                                            {"without_fences_there_are_no_favourites", without_fences_there_are_no_favourites},
                                            {"reset_forgets_the_favourite", reset_forgets_the_favourite},
                                            {"wrong_order_stops_a_debug_build", wrong_order_stops_a_debug_build},
                                            {0}});
}
