/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One rank of the tests in environments.sh, started with SYMPOOL_* in its environment.
 *
 *   env_rank run COUNT SLEEP_MS     all-reduces with a pause between; prints "rank R of N: fine"
 *   env_rank end HOW                rank 1 ends by HOW while one of its threads is inside a barrier; the others print what they are told and when
 */
#include "allocator/sympool.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int fail(const char *what) {
    printf("rank %d: %s: %s\n", syp_rank(), what, syp_error_text());
    return 1;
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int run(int count, int sleep_ms) {
    enum { N = 20000 };
    int rank = syp_rank(), n = syp_world_size();
    float *x = syp_malloc(N * sizeof *x);
    int *symmetric = syp_symm_malloc(sizeof *symmetric);
    if (!x || !symmetric) return fail("malloc");
    for (int i = 0; i < count; i++) {
        for (int k = 0; k < N; k++)
            x[k] = (float)(rank + i);
        if (syp_allreduce(x, x, N, SYP_FLOAT32, SYP_SUM, NULL, NULL) != SYP_OK) return fail("allreduce");
        for (int k = 0; k < N; k++)
            if (x[k] != (float)(n * (n - 1) / 2 + n * i)) return fail("sum");
        *symmetric = i;
        if (syp_barrier(NULL, NULL) != SYP_OK) return fail("barrier");
        const int *his = syp_peer_ptr(symmetric, (rank + 1) % n);
        if (!his || *his != i) return fail("peer's word");
        if (syp_barrier(NULL, NULL) != SYP_OK) return fail("barrier");
        if (sleep_ms) usleep((useconds_t)sleep_ms * 1000);
    }
    syp_free(x);
    if (syp_symm_free(symmetric) != SYP_OK || syp_check() != SYP_OK || syp_finalize() != SYP_OK) return fail("end");
    printf("rank %d of %d: fine\n", rank, n);
    return 0;
}

static void *pending(void *arg) {
    while (syp_barrier(NULL, NULL) == SYP_OK) {
    }
    return arg;
}

static void *exit_here(void *arg) {
    exit(arg == NULL ? 0 : 1);
}

static int end_by(const char *how) {
    pthread_t t;
    char *const nothing[] = {(char *)(uintptr_t)"true", NULL};
    usleep(50000);
    if (strcmp(how, "exit") == 0) exit(0);
    if (strcmp(how, "_exit") == 0) _exit(0);
    if (strcmp(how, "abort") == 0) abort();
    if (strcmp(how, "exec") == 0) execv("/bin/true", nothing);
    if (strcmp(how, "thread_exit") == 0) {
        pthread_create(&t, NULL, exit_here, NULL);
        pause();
    }
    if (strcmp(how, "thread_exec") == 0) {
        if (fork() == 0) execv("/bin/true", nothing); /* a child's exec is nobody's end ... */
        execv("/bin/true", nothing);
    }
    return 0; /* "return": from main */
}

static int end(const char *how) {
    pthread_t t;
    if (syp_barrier(NULL, NULL) != SYP_OK) return fail("barrier");
    if (syp_rank() == 1) {
        pthread_create(&t, NULL, pending, NULL);
        return end_by(how);
    }
    usleep(20000 * (useconds_t)syp_rank()); /* rank 1 waits for the others most of the time */
    double begin = seconds();
    int rc;
    while ((rc = syp_barrier(NULL, NULL)) == SYP_OK)
        usleep(10000);
    syp_error e = {.size = sizeof e};
    syp_last_error(&e);
    printf("rank %d: %s peer %d after %.3f s\n", syp_rank(), syp_strerror(rc), e.peer, seconds() - begin);
    return 0;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (syp_init_env() != SYP_OK) {
        printf("init: %s\n", syp_error_text());
        return 3;
    }
    if (argc == 4 && strcmp(argv[1], "run") == 0) return run(atoi(argv[2]), atoi(argv[3]));
    if (argc == 3 && strcmp(argv[1], "end") == 0) return end(argv[2]);
    return 2;
}
