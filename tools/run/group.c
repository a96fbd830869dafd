/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process group of the ranks and its guard.  Ranks also ask the kernel for SIGKILL at our death (spawn.c); the
 * guard is for what they start themselves, which that does not reach.
 */
#include "tools/run/run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* One byte on the pipe: dismissed.  End of file without it: the launcher is dead. */
static _Noreturn void guard(int pipe_fd) {
    sigset_t all;
    char byte;
    ssize_t got;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    prctl(PR_SET_NAME, "sympool-guard");
    /* Holds nothing that somebody may wait for the end of. */
    dup2(pipe_fd, 0);
    close_from(1, 0);
    do
        got = read(0, &byte, 1);
    while (got < 0 && errno == EINTR);
    if (got == 1) _exit(0);
    kill(0, SIGKILL);
    _exit(0);
}

int group_open(struct group *g) {
    int fds[2];
    /* Orphans of the ranks become our children, so that we can tell when the last one has gone. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (pipe2(fds, O_CLOEXEC) != 0) {
        fprintf(stderr, "sympool-run: pipe: %s\n", strerror(errno));
        return EXIT_ERROR;
    }
    pid_t pid = fork();
    if (pid < 0) {
        fprintf(stderr, "sympool-run: fork: %s\n", strerror(errno));
        return EXIT_ERROR;
    }
    if (pid == 0) {
        setpgid(0, 0);
        close(fds[1]);
        guard(fds[0]);
    }
    setpgid(pid, pid); /* whoever of the two comes first */
    close(fds[0]);
    *g = (struct group){.id = pid, .guard = fds[1]};
    return 0;
}

void group_dismiss_guard(struct group *g) {
    if (g->guard < 0) return;
    while (write(g->guard, "q", 1) < 0 && errno == EINTR)
        continue;
    close(g->guard);
    g->guard = -1;
    kill(g->id, SIGCONT); /* in case somebody stopped it */
    while (waitpid(g->id, NULL, 0) < 0 && errno == EINTR)
        continue;
}

int group_is_gone(const struct group *g) {
    siginfo_t info;
    if (g->guard >= 0) return 0;
    return waitid(P_PGID, (id_t)g->id, &info, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD;
}
