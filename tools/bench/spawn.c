/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starts ranks by executing this program again, so that each is a process as a launcher would make it: nothing
 * inherited but the environment and three pipes.  A job of its own name each time; the ranks meet on this host without
 * an address.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/bench/bench.h"

static void set_number(const char *name, long value) {
    char text[24];
    snprintf(text, sizeof text, "%ld", value);
    setenv(name, text, 1);
}

/* In the child: who it is.  Settings that are not about identity (SYMPOOL_SPIN, SYMPOOL_HUGE ...) stay as the user gave
 * them. */
static void set_environment(int rank, int n, const char *job, const char *local_mem_size, const char *meta_size) {
    unsetenv("SYMPOOL_ADDR");
    unsetenv("SYMPOOL_ADDR_FILE");
    unsetenv("SYMPOOL_LISTEN_FD");
    set_number("SYMPOOL_RANK", rank);
    set_number("SYMPOOL_WORLD_SIZE", n);
    set_number("SYMPOOL_LOCAL_RANK", rank);
    set_number("SYMPOOL_LOCAL_SIZE", n);
    setenv("SYMPOOL_JOB", job, 1);
    setenv("SYMPOOL_LOCAL_MEM_SIZE", local_mem_size, 1);
    setenv("SYMPOOL_META_SIZE", meta_size, 1);
}

static void make_pipe(int fds[2]) {
    if (pipe2(fds, O_CLOEXEC)) die("pipe: %s", strerror(errno));
}

/* Executes this program with the pipes' numbers as arguments; the child's ends lose close-on-exec. */
static _Noreturn void exec_rank(const char *role, int result, int ready, int gate) {
    char numbers[3][16];
    int fds[3] = {result, ready, gate};
    for (int i = 0; i < 3; i++) {
        snprintf(numbers[i], sizeof numbers[i], "%d", fds[i]);
        if (fcntl(fds[i], F_SETFD, 0)) _exit(127);
    }
    char *argv[] = {(char[]){"sympool-bench"}, (char[]){"--rank"}, NULL, numbers[0], numbers[1], numbers[2], NULL};
    argv[2] = strdup(role);
    if (argv[2]) execv("/proc/self/exe", argv);
    _exit(127);
}

/* A job of its own for whom we start. */
static void new_name(char *name, size_t cap) {
    static unsigned count;
    snprintf(name, cap, "bench-%ld-%u", (long)getpid(), count++);
}

void job_start(struct job *job, const char *role, int n, const char *local_mem_size, const char *meta_size) {
    char name[64];
    int result[2], ready[2], gate[2];
    pid_t parent = getpid();
    new_name(name, sizeof name);
    make_pipe(result);
    make_pipe(ready);
    make_pipe(gate);
    job->n = n;
    fflush(NULL); /* so that no child has buffered text */
    for (int r = 0; r < n; r++) {
        pid_t pid = fork();
        if (pid < 0) die("fork of rank %d of %d: %s", r, n, strerror(errno));
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent) _exit(127);
            set_environment(r, n, name, local_mem_size, meta_size);
            exec_rank(role, result[1], ready[1], gate[0]);
        }
        job->pid[r] = pid;
    }
    close(result[1]);
    close(ready[1]);
    close(gate[0]);
    job->result = result[0];
    job->ready = ready[0];
    job->gate = gate[1];
}

/* len bytes; fewer only at the end of the pipe */
static size_t read_fully(int fd, void *buf, size_t len) {
    size_t done = 0;
    while (done < len) {
        ssize_t got = read(fd, (char *)buf + done, len - done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) die("reading from a rank: %s", strerror(errno));
        if (got == 0) break;
        done += (size_t)got;
    }
    return done;
}

void job_release(struct job *job) {
    char bytes[JOB_MAX];
    size_t ready = read_fully(job->ready, bytes, (size_t)job->n);
    close(job->ready);
    if (ready < (size_t)job->n) die("only %zu of %d ranks started", ready, job->n);
    close(job->gate);
}

int job_next(struct job *job, void *record, size_t len) {
    size_t got = read_fully(job->result, record, len);
    if (got != 0 && got != len) die("a rank ended in the middle of a record");
    return got == len;
}

static int wait_for(pid_t pid) {
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) die("waitpid: %s", strerror(errno));
    return status;
}

void job_end(struct job *job) {
    int bad = -1, bad_status = 0;
    for (int r = 0; r < job->n; r++) {
        int status = wait_for(job->pid[r]);
        if (status == 0 || bad >= 0) continue;
        bad = r;
        bad_status = status;
    }
    close(job->result);
    if (bad < 0) return;
    if (WIFSIGNALED(bad_status)) die("rank %d of %d was ended by signal %d", bad, job->n, WTERMSIG(bad_status));
    die("rank %d of %d failed with exit status %d", bad, job->n, WEXITSTATUS(bad_status));
}

void worker_start(struct worker *w, const char *role, const char *preload, const char *local_mem_size, const char *meta_size) {
    char name[64];
    int ask[2], answer[2];
    pid_t parent = getpid();
    new_name(name, sizeof name);
    make_pipe(ask);
    make_pipe(answer);
    fflush(NULL);
    w->pid = fork();
    if (w->pid < 0) die("fork of a worker: %s", strerror(errno));
    if (w->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(127);
        set_environment(0, 1, name, local_mem_size, meta_size);
        unsetenv("LD_PRELOAD");
        if (preload) setenv("LD_PRELOAD", preload, 1);
        exec_rank(role, answer[1], answer[1], ask[0]);
    }
    close(ask[0]);
    close(answer[1]);
    w->ask = ask[1];
    w->answer = answer[0];
}

void worker_ask(struct worker *w, const char *name, const void *question, size_t question_len, void *answer, size_t answer_len) {
    if (write(w->ask, question, question_len) != (ssize_t)question_len || read_fully(w->answer, answer, answer_len) != answer_len)
        die("the worker of %s ended without an answer", name);
}

void worker_end(struct worker *w, const char *name) {
    close(w->ask);
    close(w->answer);
    int status = wait_for(w->pid);
    if (status) die("the worker of %s ended with status %d", name, status);
}

int64_t fork_exec_ns(const char *path, int n) {
    pid_t pid[JOB_MAX];
    fflush(NULL);
    int64_t start = now_ns();
    for (int i = 0; i < n; i++) {
        pid[i] = fork();
        if (pid[i] < 0) die("fork: %s", strerror(errno));
        if (pid[i] == 0) {
            execl(path, path, (char *)NULL);
            _exit(127);
        }
    }
    int bad = 0;
    for (int i = 0; i < n; i++)
        bad |= wait_for(pid[i]) != 0;
    int64_t ns = now_ns() - start;
    if (bad) die("%s failed", path);
    return ns;
}

void rank_wait_for_release(const struct rank_io *io) {
    char byte = 0;
    if (write(io->ready, &byte, 1) != 1) die("the first process is gone");
    close(io->ready);
    if (read_fully(io->gate, &byte, 1) != 0) die("unexpected byte at the gate");
    close(io->gate);
}

void rank_send(const struct rank_io *io, const void *record, size_t len) {
    if (write(io->result, record, len) != (ssize_t)len) die("sending a result: %s", strerror(errno));
}
