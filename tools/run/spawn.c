/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start one rank: its pipes or files, its environment, its place, then exec.  A rank has descriptors 0, 1 and 2, and
 * rank 0 the listening socket; signals, limits and everything else are as the launcher found them.  The outcome of exec
 * comes back on a pipe, so that "no such program" is our message and not a rank's failure.
 */
#include "tools/run/run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the rank gets as 0, 1 and 2 (-1 = the launcher's own), and the other ends of pipes among them. */
struct stdio {
    int child[3];
    int ours[3];
};

void close_from(unsigned first, int at_exec) {
#ifdef SYS_close_range
    if (syscall(SYS_close_range, first, ~0u, at_exec ? 4u /* CLOSE_RANGE_CLOEXEC */ : 0u) == 0) return;
#endif
    /* before Linux 5.11 */
    long end = sysconf(_SC_OPEN_MAX);
    if (end < 0 || end > 65536) end = 65536;
    for (int fd = (int)first; fd < end; fd++) {
        if (at_exec)
            fcntl(fd, F_SETFD, FD_CLOEXEC);
        else
            close(fd);
    }
}

static void stdio_close(struct stdio *io) {
    for (int i = 0; i < 3; i++) {
        if (io->child[i] >= 0) close(io->child[i]);
        if (io->ours[i] >= 0) close(io->ours[i]);
        io->child[i] = io->ours[i] = -1;
    }
}

/* A pipe for descriptor `which` of the rank. */
static int stdio_pipe(struct stdio *io, int which) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) return -1;
    io->child[which] = which == 0 ? fds[0] : fds[1];
    io->ours[which] = which == 0 ? fds[1] : fds[0];
    return 0;
}

static int stdio_file(struct stdio *io, int which, const char *path, int flags) {
    io->child[which] = open(path, flags | O_CLOEXEC, 0666);
    return io->child[which] < 0 ? -1 : 0;
}

static int stdio_open(struct run *run, int r, struct stdio *io, char *what, size_t cap) {
    const struct options *opt = run->opt;
    *io = (struct stdio){.child = {-1, -1, -1}, .ours = {-1, -1, -1}};
    snprintf(what, cap, "/dev/null");
    if (r != 0 || !opt->stdin_to_rank0) {
        if (stdio_file(io, 0, "/dev/null", O_RDONLY) != 0) return -1;
    } else if (isatty(0)) {
        snprintf(what, cap, "pipe");
        if (stdio_pipe(io, 0) != 0) return -1;
    }
    for (int i = 1; i <= 2 && opt->output != OUTPUT_PLAIN; i++) {
        snprintf(what, cap, "pipe");
        if (opt->output == OUTPUT_TAGGED && stdio_pipe(io, i) != 0) return -1;
        if (opt->output != OUTPUT_FILES) continue;
        snprintf(what, cap, "%s/rank.%d.%s", opt->output_dir, r, i == 1 ? "out" : "err");
        if (stdio_file(io, i, what, O_WRONLY | O_CREAT | O_TRUNC) != 0) return -1;
    }
    return 0;
}

/* The launcher's ends, once the rank has started. */
static int stdio_keep(struct run *run, int r, struct stdio *io) {
    for (int i = 1; i <= 2; i++) {
        if (io->ours[i] < 0) continue;
        if (output_add(&run->output, r, io->ours[i], i == 2) != 0) return -1;
        io->ours[i] = -1;
    }
    if (io->ours[0] >= 0) {
        if (fcntl(io->ours[0], F_SETFL, O_NONBLOCK) != 0) return -1;
        run->input.to = io->ours[0];
        io->ours[0] = -1;
    }
    stdio_close(io);
    return 0;
}

static int set_number(const char *name, int value) {
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    return setenv(name, text, 1);
}

static int set_environment(const struct run *run, int r) {
    const struct options *opt = run->opt;
    int bad = 0;
    for (int i = 0; i < opt->n_env; i++) {
        char *pair = strdup(opt->env[i]);
        if (pair == NULL) return -1;
        char *eq = strchr(pair, '=');
        *eq = '\0';
        bad |= setenv(pair, eq + 1, 1);
        free(pair);
    }
    if (opt->local_mem_size != NULL) bad |= setenv("SYMPOOL_LOCAL_MEM_SIZE", opt->local_mem_size, 1);
    if (opt->meta_size != NULL) bad |= setenv("SYMPOOL_META_SIZE", opt->meta_size, 1);
    bad |= set_number("SYMPOOL_RANK", r) | set_number("SYMPOOL_WORLD_SIZE", opt->n);
    bad |= set_number("SYMPOOL_LOCAL_RANK", r) | set_number("SYMPOOL_LOCAL_SIZE", opt->n);
    bad |= setenv("SYMPOOL_JOB", run->job, 1);
    bad |= setenv("SYMPOOL_ADDR", opt->addr != NULL ? opt->addr : run->addr, 1);
    /* An outer launcher's number means nothing here. */
    bad |= unsetenv("SYMPOOL_LISTEN_FD");
    if (r == 0 && run->listen_fd >= 0) bad |= set_number("SYMPOOL_LISTEN_FD", run->listen_fd);
    return bad;
}

/* In the child.  Comes back only when something failed, with errno. */
static void become_rank(struct run *run, int r, const struct stdio *io, pid_t launcher) {
    setpgid(0, run->group.id);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != launcher) _exit(EXIT_ERROR); /* it died before the line above */
    for (int i = 0; i < 3; i++)
        if (io->child[i] >= 0 && dup2(io->child[i], i) < 0) return;
    if (run->place.bound) sched_setaffinity(0, sizeof run->place.ranks[r], (cpu_set_t *)(void *)&run->place.ranks[r]);
    if (set_environment(run, r) != 0) return;
    if (r == 0 && run->listen_fd >= 0 && fcntl(run->listen_fd, F_SETFD, 0) != 0) return;
    setrlimit(RLIMIT_NOFILE, &run->old_nofile);
    sigaction(SIGPIPE, &run->old_sigpipe, NULL);
    sigprocmask(SIG_SETMASK, &run->old_mask, NULL);
    execvp(run->opt->argv[0], run->opt->argv);
}

/* The child's errno, 0 when the program runs. */
static int exec_result(int fd) {
    int error = 0;
    ssize_t got;
    do
        got = read(fd, &error, sizeof error);
    while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof error ? error : 0;
}

static int start(struct run *run, int r, struct stdio *io, int result[2]) {
    pid_t launcher = getpid(), pid = fork();
    if (pid < 0) {
        output_message(&run->output, "starting rank %d: fork: %s", r, strerror(errno));
        return EXIT_ERROR;
    }
    if (pid == 0) {
        become_rank(run, r, io, launcher);
        int error = errno;
        while (write(result[1], &error, sizeof error) < 0 && errno == EINTR)
            continue;
        _exit(EXIT_NOT_FOUND);
    }
    setpgid(pid, run->group.id); /* whoever of the two comes first */
    close(result[1]);
    result[1] = -1;
    int error = exec_result(result[0]);
    if (error != 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            continue;
        output_message(&run->output, "%s: %s", run->opt->argv[0], strerror(error));
        return error == ENOENT || error == ENOTDIR ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
    }
    run->ranks[r] = (struct rank){.pid = pid, .running = 1};
    run->n_running++;
    return 0;
}

int spawn_rank(struct run *run, int r) {
    struct stdio io;
    char what[4200];
    int result[2] = {-1, -1}, status = EXIT_ERROR;
    if (stdio_open(run, r, &io, what, sizeof what) != 0)
        output_message(&run->output, "starting rank %d: %s: %s", r, what, strerror(errno));
    else if (pipe2(result, O_CLOEXEC) != 0)
        output_message(&run->output, "starting rank %d: pipe: %s", r, strerror(errno));
    else
        status = start(run, r, &io, result);
    if (result[0] >= 0) close(result[0]);
    if (result[1] >= 0) close(result[1]);
    if (status == 0 && stdio_keep(run, r, &io) != 0) {
        output_message(&run->output, "starting rank %d: %s", r, strerror(errno));
        status = EXIT_ERROR;
    }
    stdio_close(&io);
    return status;
}
