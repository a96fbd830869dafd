/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks for tests: forked children, or threads of this process; and counts of what a process holds.
 *
 * Invariants: no child outlives the parent (PR_SET_PDEATHSIG) or the deadline of ranks_wait.  After ranks_start the
 * listening socket is open in rank 0 only, so that it goes away with rank 0.  The counts allocate nothing, so that
 * counting changes nothing.
 */
#include "tests/support/ranks.h"

#include "tests/support/check.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK_FAILED_STATUS 100

/* ------------------------------------------------------------------------------------------------ processes */

/* A listening socket on a port of 127.0.0.1 that the kernel chose. */
static int listen_anywhere(struct ranks *r) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    r->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (r->listen_fd < 0) return -1;
    if (bind(r->listen_fd, (struct sockaddr *)&a, sizeof a) || listen(r->listen_fd, RANKS_MAX) ||
        getsockname(r->listen_fd, (struct sockaddr *)&a, &len)) {
        close(r->listen_fd);
        return -1;
    }
    snprintf(r->addr, sizeof r->addr, "tcp://127.0.0.1:%u", (unsigned)ntohs(a.sin_port));
    return 0;
}

static _Noreturn void run_child(struct ranks *r, int rank, pid_t parent, int (*fn)(struct ranks *, int, void *),
                                void *arg) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1); /* it died before the line above */
    alarm(0);
    r->pid[rank] = getpid();
    if (rank != 0) {
        if (r->listen_fd >= 0) close(r->listen_fd);
        r->listen_fd = -1;
    }
    unsigned before = check_failures();
    int result = fn(r, rank, arg);
    if (check_failures() != before) result = CHECK_FAILED_STATUS;
    fflush(NULL);
    _exit(result & 0xff ? result & 0xff : result != 0);
}

static void kill_and_reap(struct ranks *r, int n) {
    for (int i = 0; i < n; i++)
        if (r->pid[i] > 0) kill(r->pid[i], SIGKILL);
    for (int i = 0; i < n; i++)
        if (r->pid[i] > 0) waitpid(r->pid[i], NULL, 0);
    for (int i = 0; i < n; i++)
        r->pid[i] = 0;
}

int ranks_start(struct ranks *r, int n, size_t shared_len, int (*fn)(struct ranks *r, int rank, void *arg), void *arg) {
    memset(r, 0, sizeof *r);
    r->listen_fd = -1;
    if (n < 1 || n > RANKS_MAX) return -1;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    r->shared_len = (shared_len / page + 1) * page;
    r->shared = mmap(NULL, r->shared_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (r->shared == MAP_FAILED || listen_anywhere(r)) {
        perror("ranks_start");
        if (r->shared != MAP_FAILED) munmap(r->shared, r->shared_len);
        r->shared = NULL;
        r->listen_fd = -1;
        return -1;
    }
    pid_t parent = getpid();
    fflush(NULL); /* or every child prints it again */
    for (int i = 0; i < n; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            r->n = n;
            run_child(r, i, parent, fn, arg);
        }
        if (pid < 0) {
            perror("ranks_start: fork");
            kill_and_reap(r, i);
            ranks_free(r);
            return -1;
        }
        r->pid[i] = pid;
    }
    r->n = n;
    close(r->listen_fd);
    r->listen_fd = -1;
    return 0;
}

int ranks_replace(struct ranks *r, int rank, int (*fn)(struct ranks *r, int rank, void *arg), void *arg) {
    pid_t parent = getpid();
    if (rank >= r->n) r->n = rank + 1;
    if (r->pid[rank] > 0) waitpid(r->pid[rank], &r->status[rank], 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) run_child(r, rank, parent, fn, arg);
    r->pid[rank] = pid > 0 ? pid : 0;
    return pid > 0 ? 0 : -1;
}

static uint64_t milliseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

static void report_child(const struct ranks *r, int rank) {
    int s = r->status[rank];
    if (s == -1)
        fprintf(stderr, "rank %d of %d: hung, killed\n", rank, r->n);
    else if (WIFSIGNALED(s))
        fprintf(stderr, "rank %d of %d: killed by signal %d (%s)\n", rank, r->n, WTERMSIG(s), strsignal(WTERMSIG(s)));
    else if (WEXITSTATUS(s) == CHECK_FAILED_STATUS)
        fprintf(stderr, "rank %d of %d: a check failed\n", rank, r->n);
    else
        fprintf(stderr, "rank %d of %d: exit status %d\n", rank, r->n, WEXITSTATUS(s));
}

syp_config ranks_config(const struct ranks *r, int rank, uint64_t local_mem_size, uint64_t meta_size) {
    syp_config c = SYP_CONFIG_INIT;
    c.rank = rank;
    c.n_ranks = r->n;
    c.local_mem_size = local_mem_size;
    c.meta_size = meta_size;
    c.addr = r->addr;
    c.listen_fd = rank == 0 ? r->listen_fd : -1;
    return c;
}

int ranks_wait(struct ranks *r, int seconds, int victim) {
    uint64_t end = milliseconds() + (uint64_t)seconds * 1000u;
    int left = 0, bad = 0;
    for (int i = 0; i < r->n; i++)
        left += r->pid[i] > 0;
    while (left > 0) {
        int expired = milliseconds() >= end;
        for (int i = 0; i < r->n; i++) {
            if (r->pid[i] <= 0) continue;
            int s = 0;
            pid_t got = waitpid(r->pid[i], &s, WNOHANG);
            if (got == 0 && !expired) continue;
            if (got == 0) { /* also ends a stopped one */
                kill(r->pid[i], SIGKILL);
                waitpid(r->pid[i], &s, 0);
                s = -1;
            }
            r->pid[i] = 0;
            r->status[i] = s;
            left--;
            if (i == victim || s == 0) continue;
            bad++;
            report_child(r, i);
        }
        if (left > 0) nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    return bad;
}

void ranks_free(struct ranks *r) {
    kill_and_reap(r, r->n);
    if (r->listen_fd >= 0) close(r->listen_fd);
    if (r->shared) munmap(r->shared, r->shared_len);
    r->listen_fd = -1;
    r->shared = NULL;
    r->n = 0;
}

/* -------------------------------------------------------------------------------------------------- threads */

struct thread_rank {
    pthread_t thread;
    int (*fn)(int, int, void *);
    int rank, n, result;
    void *arg;
};

static void *run_thread(void *p) {
    struct thread_rank *t = p;
    t->result = t->fn(t->rank, t->n, t->arg);
    return NULL;
}

int ranks_as_threads(int n, int (*fn)(int rank, int n, void *arg), void *arg) {
    struct thread_rank t[RANKS_MAX];
    int started = 0, bad = 0;
    if (n < 1 || n > RANKS_MAX) return -1;
    for (; started < n; started++) {
        t[started] = (struct thread_rank){.fn = fn, .rank = started, .n = n, .result = -1, .arg = arg};
        if (pthread_create(&t[started].thread, NULL, run_thread, &t[started])) break;
    }
    bad = n - started;
    for (int i = 0; i < started; i++) {
        pthread_join(t[i].thread, NULL);
        bad += t[i].result != 0;
    }
    return bad;
}

/* --------------------------------------------------------------------------------------------------- counts */

/* Entries of a folder without "." and ".."; -1 when it cannot be read. */
static int count_entries(const char *path) {
    _Alignas(struct dirent64) char buf[4096];
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0;
    if (fd < 0) return -1;
    long got;
    while ((got = syscall(SYS_getdents64, fd, buf, sizeof buf)) > 0)
        for (long at = 0; at < got;) {
            const struct dirent64 *d = (const struct dirent64 *)(const void *)(buf + at);
            n += strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
            at += d->d_reclen;
        }
    close(fd);
    return got < 0 ? -1 : n;
}

int count_open_fds(void) {
    return count_entries("/proc/self/fd") - 1; /* without the one that reads the folder */
}

int count_shm_entries(void) {
    return count_entries("/dev/shm");
}

int count_threads(void) {
    return count_entries("/proc/self/task");
}

int count_threads_until(int expected) {
    for (int i = 0; i < 1000 && count_threads() != expected; i++)
        usleep(1000);
    return count_threads();
}

int count_mappings(void) {
    char buf[4096];
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC), n = 0;
    if (fd < 0) return -1;
    ssize_t got;
    while ((got = read(fd, buf, sizeof buf)) > 0 || (got < 0 && errno == EINTR))
        for (ssize_t i = 0; i < got; i++)
            n += buf[i] == '\n';
    close(fd);
    return n;
}
