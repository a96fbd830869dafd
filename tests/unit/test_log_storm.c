/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that does the same wrong thing for ever: the log stays readable, says how much it left out, and no line is written while a lock of the
 * heap is held (another thread can allocate while the program's log function runs).
 */
#include "allocator/sympool.h"
#include "tests/support/check.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static _Atomic int lines, left_out, done, free_heap, looked;

static void count(void *arg, int level, const char *text) {
    int n = 0;
    (void)arg, (void)level;
    lines++;
    if (sscanf(strstr(text, "warning: ") ? strstr(text, "warning: ") : "", "warning: %d lines of this kind", &n) == 1) left_out += n;
}

static uint64_t milliseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* 2.5 s of bad frees from two threads. */
static _Atomic int frees;
static void *storm(void *until) {
    int local;
    while (milliseconds() < (uint64_t)(uintptr_t)until) {
        syp_free(&local);
        frees++;
    }
    return NULL;
}

static void bad_frees(void) {
    pthread_t t[2];
    uint64_t begin = milliseconds();
    lines = left_out = frees = 0;
    syp_log_set(count, NULL);
    for (int i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, storm, (void *)(uintptr_t)(begin + 2500));
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    int seconds = (int)((milliseconds() - begin) / 1000) + 1, storms = lines;
    syp_log_set(NULL, NULL);
    printf("%d bad frees, %d lines, %d said to be left out\n", (int)frees, storms, (int)left_out);
    CHECK(frees > 1000);
    CHECK(storms >= 6 && storms <= 10 + 1 + 2 * seconds); /* some of the first ten were used up by the test before */
    CHECK(left_out > 0 && left_out < frees);
}

static void *allocate(void *arg) {
    void *p = syp_malloc(100000);
    syp_free(p);
    done = syp_check() == SYP_OK;
    return arg;
}

/* In the middle of a log line: can others use the heap? */
static void look(void *arg, int level, const char *text) {
    pthread_t t;
    (void)arg, (void)level, (void)text;
    done = 0;
    looked++;
    pthread_create(&t, NULL, allocate, NULL);
    for (int i = 0; i < 2000 && !done; i++)
        usleep(1000);
    if (done)
        pthread_join(t, NULL);
    else
        pthread_detach(t);
    free_heap += done;
}

static void no_lock_is_held_while_logging(void) {
    int local;
    setenv("SYMPOOL_LOG", "debug", 1);
    CHECK_EQ(syp_init(0, 1, 16 << 20, 1 << 20, NULL), SYP_OK);
    char *p = syp_malloc(1000), *q = syp_malloc(1000);
    looked = free_heap = 0;
    syp_log_set(look, NULL);
    syp_free(p + 64);
    syp_free(q);
    syp_free(q);
    syp_free(&local);
    syp_torch_free(&local, 5, 0, NULL);
    CHECK(syp_torch_malloc(1ull << 35, 0, NULL) == NULL);
    CHECK_EQ(syp_finalize(), SYP_OK); /* says that p is left */
    syp_log_set(NULL, NULL);
    syp_free(p);
    printf("%d lines, the heap was free in %d\n", (int)looked, (int)free_heap);
    CHECK(looked >= 3);
    CHECK_EQ(free_heap, looked);
}

int main(void) {
    return check_main("log_storm", (struct check_test[]){{"no_lock_is_held_while_logging", no_lock_is_held_while_logging}, {"bad_frees", bad_frees}, {0}});
}
