/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fork of an attached process, by fork(), _Fork(), raw clone, vfork and posix_spawn: the child has no part in the job, its allocations are its
 * own, its frees of the parent's blocks do nothing, and the parent's pool is as it was.  Forks among peers: test_fork_peers.c.
 */
#include "allocator/sympool.h"
#include "tests/support/check.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
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

/* ---------------------------------------------------------------------------------------- after finalize */

static pid_t raw_clone(void) {
    return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static uint64_t hash(const void *p, size_t n) {
    uint64_t h = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const unsigned char *)p)[i]) * 0x100000001b3ull;
    return h;
}

#define LEFT_LEN 300000

/* The child writes and frees what its parent still has from an attach that is over; `frees` = 1 when they are its own to free. */
static int scribble(char *left, char *older, int frees) {
    (void)syp_rank(); /* a raw clone is noticed at its first call */
    if (left[0] != 5 || left[LEFT_LEN - 1] != 5 || older[0] != 9) return 1;
    memset(left, 6, LEFT_LEN);
    memset(older, 6, 1000);
    usleep(2000); /* the parent writes, too */
    if (left[0] != 6 || left[LEFT_LEN / 2] != 6) return 2;
    syp_free(left);
    syp_free(older);
    if (frees && (syp_usable_size(left) != 0 || syp_usable_size(older) != 0)) return 3;
    char *own = syp_malloc(LEFT_LEN);
    if (!own) return 4;
    memset(own, 7, LEFT_LEN);
    syp_free(own);
    return 0;
}

/* Blocks that outlive their attach are memory of one process: a fork copies them on write, in both directions. */
static void blocks_after_finalize(void) {
    char *begin = syp_malloc(1000);
    CHECK_EQ(syp_init(0, 1, 16 << 20, 1 << 20, NULL), SYP_OK);
    char *left = syp_malloc(LEFT_LEN);
    memset(begin, 9, 1000);
    memset(left, 5, LEFT_LEN);
    CHECK_EQ(syp_finalize(), SYP_OK);
    for (int i = 0; i < 8; i++) {
        uint64_t before = hash(left, LEFT_LEN);
        pid_t pid = i % 2 ? fork() : raw_clone();
        if (pid == 0) _exit(scribble(left, begin, i % 2));
        if (i % 2) { /* the child reads the old bytes, not these */
            memset(left, 8, LEFT_LEN);
            usleep(500);
        }
        int status = -1;
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        CHECK_EQ(WEXITSTATUS(status), 0);
        if (i % 2) memset(left, 5, LEFT_LEN);
        CHECK(hash(left, LEFT_LEN) == before && begin[0] == 9 && begin[999] == 9);
    }
    CHECK_EQ(syp_check(), SYP_OK);
    syp_free(left);
    syp_free(begin);
}

/* Memory that the parent gives back to the system is still the child's. */
static void child_keeps_what_the_parent_gives_back(void) {
    size_t len = 12 << 20;
    int go[2], status = -1;
    CHECK_EQ(syp_init(0, 1, 32 << 20, 1 << 20, NULL), SYP_OK);
    char *large = syp_malloc(len), *small = syp_malloc(1000);
    memset(large, 5, len);
    CHECK_EQ(syp_finalize(), SYP_OK);
    CHECK_EQ(pipe(go), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char word;
        if (read(go[0], &word, 1) != 1) _exit(1);
        for (size_t i = 0; i < len; i++)
            if (large[i] != 5) _exit(2);
        syp_free(large);
        _exit(syp_trim() > 0 && syp_check() == SYP_OK ? 0 : 3);
    }
    syp_free(large);
    CHECK(syp_trim() >= 8 << 20);
    CHECK(write(go[1], "x", 1) == 1);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_EQ(status, 0);
    close(go[0]);
    close(go[1]);
    syp_free(small);
}

/* ------------------------------------------------------------------------------------------ kinds of children */

static int grandchild(void) {
    int first = in_child(), status = -1;
    if (first) return first;
    char *own = syp_malloc(100000);
    memset(own, 3, 100000);
    pid_t pid = fork();
    if (pid == 0) {
        if (own[99999] != 3) _exit(21);
        memset(own, 4, 100000);
        syp_free(own);
        _exit(in_child());
    }
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) return 22;
    return WEXITSTATUS(status) ? WEXITSTATUS(status) : own[0] == 3 && own[99999] == 3 ? 0 : 23;
}

static void start_job(void) {
    CHECK_EQ(syp_init(0, 1, 16 << 20, 1 << 20, NULL), SYP_OK);
    block = syp_malloc(100000);
    symm = syp_symm_malloc(1000);
    memset(block, 5, 100000);
    memset(symm, 6, 1000);
}

static void end_job(void) {
    CHECK_EQ(syp_check(), SYP_OK);
    CHECK_EQ(syp_barrier(NULL, NULL), SYP_OK);
    syp_free(block);
    CHECK_EQ(syp_symm_free(symm), SYP_OK);
    CHECK_EQ(syp_finalize(), SYP_OK);
}

static void child_of_a_child(void) {
    start_job();
    uint64_t before = hash(block, 100000);
    pid_t (*const kinds[])(void) = {fork, _Fork, raw_clone};
    for (int i = 0; i < 9; i++) {
        int status = -1;
        pid_t pid = kinds[i % 3]();
        if (pid == 0) _exit(grandchild());
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        CHECK_EQ(WEXITSTATUS(status), 0);
        CHECK(hash(block, 100000) == before);
    }
    end_job();
}

/* No descriptor of the pool reaches another program, and the rank goes on. */
static const char *const look_for_ours[] = {"sh", "-c", "for f in /proc/self/fd/*; do readlink $f; done | grep -q sympool && exit 5; exit 7", NULL};

static void vfork_and_spawn(void) {
    extern char **environ;
    start_job();
    for (int i = 0; i < 10; i++) {
        pid_t pid = -1;
        int status = -1;
        if (i % 2) {
            CHECK_EQ(posix_spawn(&pid, "/bin/sh", NULL, NULL, (char *const *)(uintptr_t)look_for_ours, environ), 0);
        } else {
            pid = vfork();
            if (pid == 0) {
                execv("/bin/sh", (char *const *)(uintptr_t)look_for_ours);
                _exit(126);
            }
        }
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        CHECK_EQ(WEXITSTATUS(status), 7);
        CHECK_EQ(syp_barrier(NULL, NULL), SYP_OK); /* this process is what it was */
        CHECK_EQ(syp_rank(), 0);
    }
    end_job();
}

/* ----------------------------------------------------------------------------------------- forking in threads */

static volatile long forks_left;
static _Atomic int bad_children;

static void *forker(void *arg) {
    while (__atomic_fetch_sub(&forks_left, 1, __ATOMIC_RELAXED) > 0) {
        int status = -1;
        pid_t pid = arg ? raw_clone() : fork();
        if (pid == 0) { /* exactly: the thread's stack and the library's locks must be usable here */
            char *p = syp_malloc(50000);
            if (p) memset(p, 1, 50000);
            syp_free(p);
            syp_free(block);
            _exit(p && ((char *)block)[0] == 5 && syp_barrier(NULL, NULL) == SYP_EFORKED ? 0 : 1);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) bad_children++;
    }
    return NULL;
}

static void *reduce(void *arg) {
    float x[100] = {0};
    while (!stop)
        if (syp_allreduce(x, x, 100, SYP_FLOAT32, SYP_SUM, arg, NULL) != SYP_OK) bad_children++;
    return NULL;
}

/* 4 threads fork (one of them by raw clone), 3 allocate, 1 runs collectives.  A hang is ended by the watchdog. */
static void threads_fork_and_work(void) {
    pthread_t f[4], w[4];
    start_job();
    stop = 0;
    bad_children = 0;
    forks_left = (long)check_count(500, 10000);
    for (size_t i = 0; i < 4; i++)
        pthread_create(&w[i], NULL, i < 3 ? churn : reduce, i < 3 ? (void *)(i * 1000) : NULL);
    for (size_t i = 0; i < 4; i++)
        pthread_create(&f[i], NULL, forker, (void *)(i == 3 ? (size_t)1 : 0));
    for (int i = 0; i < 4; i++)
        pthread_join(f[i], NULL);
    stop = 1;
    for (int i = 0; i < 4; i++)
        pthread_join(w[i], NULL);
    CHECK_EQ(bad_children, 0);
    end_job();
}

/* Each in a fresh process: two threads allocate for the first time while it forks. */
static int fresh(void) {
    pthread_t t[2];
    stop = 0;
    for (size_t i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, churn, (void *)(i * 1000));
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        void *p = syp_malloc(50000);
        syp_free(p);
        int rc = syp_check();
        if (!p || rc != SYP_OK) fprintf(stderr, "child: block %p, check %d: %s\n", p, rc, syp_error_text());
        _exit(p && rc == SYP_OK ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) fprintf(stderr, "child: %s\n", strsignal(WTERMSIG(status)));
    stop = 1;
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    return status;
}

static void fork_beside_the_first_allocation(void) {
    for (int i = 0; i < (int)check_count(100, 2000); i++) {
        int status = -1;
        pid_t pid = fork();
        if (pid == 0) {
            int bad = fresh();
            fflush(NULL);
            _exit(bad != 0);
        }
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK_EQ(status, 0);
    }
}

int main(void) {
    return check_main("fork", (struct check_test[]){{"fork_beside_the_first_allocation", fork_beside_the_first_allocation}, /* first: nothing is allocated yet */
                                                    {"private_memory", private_memory},
                                                    {"blocks_after_finalize", blocks_after_finalize},
                                                    {"child_keeps_what_the_parent_gives_back", child_keeps_what_the_parent_gives_back},
                                                    {"child_of_a_child", child_of_a_child},
                                                    {"vfork_and_spawn", vfork_and_spawn},
                                                    {"threads_fork_and_work", threads_fork_and_work},
                                                    {"children", children},
                                                    {"fork_while_allocating_private_memory", fork_while_allocating_private_memory},
                                                    {"fork_while_allocating", fork_while_allocating},
                                                    {0}});
}
