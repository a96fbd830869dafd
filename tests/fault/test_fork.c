/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fork of an attached process, by fork(), _Fork() and raw clone: the child has no part in the job, its allocations are its own, its frees of the
 * parent's blocks do nothing, and the parent's pool is as it was.
 */
#include "allocator/sympool.h"
#include "tests/support/check.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void *block, *symm, *early;

static int in_child(void) {
    float x = 1;
    syp_location at = {.size = sizeof at};
    if (syp_barrier(NULL, NULL) != SYP_EFORKED || syp_finalize() != SYP_EFORKED) return 1;
    if (syp_init(0, 1, 1 << 20, 0, NULL) != SYP_EFORKED || syp_rank() != -1) return 2;
    if (syp_allreduce(&x, &x, 1, SYP_FLOAT32, SYP_SUM, NULL, NULL) != SYP_EFORKED) return 3;
    if (!strstr(syp_error_text(), "forked child")) return 4;
    if (((char *)block)[0] != 5 || ((char *)symm)[0] != 6) return 5; /* readable */
    syp_free(block); /* the parent's: nothing is done, so doing it twice is no error either */
    syp_free(symm);
    syp_free(block);
    syp_error e = {.size = sizeof e};
    if (syp_last_error(&e) != SYP_OK || e.code != SYP_EFORKED) return 8;
    /* a block of the parent made shorter: a new one, and what lies behind it is left alone */
    char *hole = syp_malloc(64), *behind = syp_malloc(64);
    for (int i = 0; i < 1000 && behind != hole + 64; i++) {
        hole = behind;
        behind = syp_malloc(64);
    }
    if (!hole || behind != hole + 64) return 9;
    memset(behind, 9, 64);
    syp_free(hole);
    char *copy = syp_realloc(block, 64);
    if (copy != hole || copy[63] != 5 || behind[0] != 9 || behind[63] != 9) return 10;
    char *own = syp_malloc(300000), *torch = syp_torch_malloc(5000, 0, NULL);
    if (!own || !torch || own == block) return 6;
    memset(own, 1, 300000);
    syp_free(own);
    syp_torch_free(torch, 5000, 0, NULL);
    if (syp_owner(block, &at) != SYP_EFORKED || syp_symm_malloc(10)) return 7;
    return 0;
}

static void check_child(pid_t pid) {
    int status = -1;
    if (pid == 0) _exit(in_child());
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
}

static void children(void) {
    early = syp_malloc(1000);
    CHECK_EQ(syp_init(0, 1, 16 << 20, 1 << 20, NULL), SYP_OK);
    block = syp_malloc(100000);
    symm = syp_symm_malloc(1000);
    memset(block, 5, 100000);
    memset(symm, 6, 1000);
    for (int i = 0; i < 20; i++) {
        check_child(fork());
        check_child(_Fork());
        check_child((pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    }
    for (int i = 0; i < 100000; i++)
        if (((char *)block)[i] != 5) CHECK(((char *)block)[i] == 5);
    CHECK_EQ(syp_check(), SYP_OK);
    CHECK_EQ(syp_barrier(NULL, NULL), SYP_OK);
    syp_pool_info info = {.size = sizeof info};
    CHECK_EQ(syp_pool_query(&info), SYP_OK);
    CHECK_EQ(info.n_live, 2);
    syp_free(block);
    CHECK_EQ(syp_symm_free(symm), SYP_OK);
    CHECK_EQ(syp_finalize(), SYP_OK);
    syp_free(early);
}

/* Fork while another thread is inside the allocator: the child finds every lock free. */
static volatile int stop;
static void *churn(void *arg) {
    while (!stop)
        syp_free(syp_malloc(50000 + (size_t)arg));
    return NULL;
}

static void fork_while_allocating(void) {
    CHECK_EQ(syp_init(0, 1, 16 << 20, 1 << 20, NULL), SYP_OK);
    block = syp_malloc(1000);
    symm = syp_symm_malloc(1000);
    memset(block, 5, 1000);
    memset(symm, 6, 1000);
    pthread_t t[2];
    stop = 0;
    for (size_t i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, churn, (void *)(i * 1000));
    for (int i = 0; i < (int)check_count(200, 5000); i++)
        check_child(fork());
    stop = 1;
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    CHECK_EQ(syp_finalize(), SYP_OK);
    syp_free(block);
}

/* Private memory is the child's own copy: it must not be one that a thread of the parent was changing. */
static int private_child(void) {
    char *p = syp_malloc(60000), *q = syp_malloc(200);
    if (!p || !q || syp_check() != SYP_OK) return 1;
    memset(p, 7, 60000);
    syp_free(p);
    syp_free(q);
    return syp_check() == SYP_OK ? 0 : 2;
}

static void *churn_private(void *arg) {
    char *p[64] = {0};
    uint64_t random = (uint64_t)(uintptr_t)arg + 1;
    while (!stop) {
        size_t k = check_random(&random) % 64;
        syp_free(p[k]);
        p[k] = syp_malloc(check_random(&random) % 20000);
    }
    for (size_t k = 0; k < 64; k++)
        syp_free(p[k]);
    return NULL;
}

static void fork_while_allocating_private_memory(void) {
    pthread_t t[2];
    stop = 0;
    for (size_t i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, churn_private, (void *)i);
    for (int i = 0; i < (int)check_count(200, 5000); i++) {
        int status = -1;
        pid_t pid = fork();
        if (pid == 0) _exit(private_child());
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        CHECK_EQ(WEXITSTATUS(status), 0);
    }
    stop = 1;
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    CHECK_EQ(syp_check(), SYP_OK);
}

/* A process that never attached: its private memory is copied on write, parent and child go their own ways. */
static void private_memory(void) {
    char *p = syp_malloc(100000);
    memset(p, 1, 100000);
    pid_t pid = fork();
    if (pid == 0) {
        memset(p, 2, 100000);
        syp_free(p);
        char *q = syp_malloc(100000);
        _exit(q && syp_init(0, 1, 1 << 20, 0, NULL) == SYP_OK && syp_finalize() == SYP_OK ? 0 : 1);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(p[0] == 1 && p[99999] == 1);
    syp_free(p);
}

int main(void) {
    return check_main("fork", (struct check_test[]){{"private_memory", private_memory},
                                                    {"children", children},
                                                    {"fork_while_allocating_private_memory", fork_while_allocating_private_memory},
                                                    {"fork_while_allocating", fork_while_allocating},
                                                    {0}});
}
