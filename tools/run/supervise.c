/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop that runs until nothing of the job is left: output, signals, deaths, deadlines.
 *
 *   state      event                                   next
 *   running    a rank fails, time is up, no start      asked: SIGTERM to all, GRACE
 *   running    SIGINT, SIGTERM, SIGHUP                 forwarded: passed on, no deadline
 *   running    the last rank ends well                 lingering: GRACE for what ranks left in the background
 *   forwarded  a rank fails                            lingering: all are on their way out by themselves
 *   forwarded  a second such signal                    asked
 *   lingering  GRACE is over                           asked
 *   asked      GRACE is over                           killed: SIGKILL to all, again each GRACE
 *   any        nothing is left in the group            end
 *
 * Whose failure it was: the first one noticed.  But a rank that was killed takes long to become waitable when it has
 * much memory, and its peers notice at once, give up and exit first.  So the ranks that are on their way out when a
 * failure is noticed are waited for, and one among them that was killed is the one to name.
 */
#include "tools/run/run.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PF_EXITING 0x4ul /* in field 9 of /proc/PID/stat */

int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* ---------------------------------------------------------------------------------------------------- signals */

void supervise_open(struct run *run) {
    static const int ours[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT, SIGCHLD};
    struct sigaction act;
    sigset_t set;
    sigemptyset(&set);
    signal(SIGCHLD, SIG_DFL);
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        /* What we were started to ignore (nohup) stays ignored. */
        if (sigaction(ours[i], NULL, &act) == 0 && act.sa_handler == SIG_IGN) continue;
        sigaddset(&set, ours[i]);
    }
    sigprocmask(SIG_BLOCK, &set, &run->old_mask);
    run->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    act = (struct sigaction){.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &act, &run->old_sigpipe);
}

static void signal_ranks(const struct run *run, int sig) {
    kill(-run->group.id, sig);
    for (int r = 0; r < run->opt->n; r++) {
        pid_t pid = run->ranks[r].pid;
        if (!run->ranks[r].running) continue;
        pid_t group = getpgid(pid);
        if (group != run->group.id)
            kill(group == pid ? -pid : pid, sig); /* it has made a group or a session of its own */
    }
}

static void ask_to_end(struct run *run) {
    signal_ranks(run, SIGTERM);
    signal_ranks(run, SIGCONT); /* a stopped one gets to see it */
    run->next_signal = SIGKILL;
    run->next_at = now_ns() + GRACE_NS;
}

void supervise_give_up(struct run *run, int status) {
    run->exit_status = status;
    ask_to_end(run);
}

/* ----------------------------------------------------------------------------------------------------- deaths */

static int failed_by_signal(const struct rank *rank) {
    return WIFSIGNALED(rank->status);
}

/* Killed from outside or by its own fault.  SIGABRT is how programs give up when something else went wrong. */
static int is_cause(const struct rank *rank) {
    return failed_by_signal(rank) && WTERMSIG(rank->status) != SIGABRT;
}

static int is_exiting(pid_t pid) {
    char path[40], text[1024];
    unsigned long flags = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (f == NULL) return 0;
    size_t got = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[got] = '\0';
    const char *after_name = strrchr(text, ')');
    if (after_name == NULL || sscanf(after_name + 1, " %*c %*d %*d %*d %*d %*d %lu", &flags) != 1) return 0;
    return (flags & PF_EXITING) != 0;
}

static void note_failure(struct run *run, int r) {
    if (run->failed_rank >= 0) {
        if (run->ranks[r].was_exiting && !run->reported && is_cause(&run->ranks[r]) &&
            !failed_by_signal(&run->ranks[run->failed_rank]))
            run->failed_rank = r;
        return;
    }
    if (run->timed_out || run->exit_status != 0 || run->next_signal != 0) return; /* it was asked to end */
    run->failed_rank = r;
    for (int i = 0; i < run->opt->n; i++) {
        if (!run->ranks[i].running) continue;
        run->ranks[i].was_exiting = is_exiting(run->ranks[i].pid);
        run->others += !run->ranks[i].was_exiting;
    }
    if (run->forwarded == 0) {
        ask_to_end(run);
        return;
    }
    run->next_signal = SIGTERM;
    run->next_at = now_ns() + GRACE_NS;
}

/* One line about the first failure, when it is certain whose it was. */
static void report_failure(struct run *run, int now) {
    char how[96], rest[64] = "";
    if (run->failed_rank < 0 || run->reported) return;
    for (int r = 0; r < run->opt->n && !now; r++)
        if (run->ranks[r].was_exiting && run->ranks[r].running) return;
    run->reported = 1;
    const struct rank *rank = &run->ranks[run->failed_rank];
    int sig = failed_by_signal(rank) ? WTERMSIG(rank->status) : 0;
    /* The user's own Ctrl-C, or the user's own `| head`. */
    if (sig != 0 && (sig == run->forwarded || (sig == SIGPIPE && (run->output.out.fd < 0 || run->output.err.fd < 0))))
        return;
    if (sig != 0)
        snprintf(how, sizeof how, "was killed by signal %d (%s%s)", sig, strsignal(sig),
                 WCOREDUMP(rank->status) ? ", core dumped" : "");
    else
        snprintf(how, sizeof how, "exited with status %d", WEXITSTATUS(rank->status));
    if (run->others == 1)
        snprintf(rest, sizeof rest, "; ending the other rank");
    else if (run->others > 1)
        snprintf(rest, sizeof rest, "; ending the other %d ranks", run->others);
    output_message(&run->output, "rank %d (pid %d) %s%s", run->failed_rank, (int)rank->pid, how, rest);
}

static void on_end(struct run *run, int r, int status) {
    struct rank *rank = &run->ranks[r];
    rank->running = 0;
    rank->status = status;
    run->n_running--;
    if (run->opt->verbose && WIFEXITED(status))
        output_message(&run->output, "rank %d (pid %d) exited with status %d", r, (int)rank->pid, WEXITSTATUS(status));
    else if (run->opt->verbose)
        output_message(&run->output, "rank %d (pid %d) was killed by signal %d", r, (int)rank->pid, WTERMSIG(status));
    if (status != 0) note_failure(run, r);
}

static void reap(struct run *run) {
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        for (int r = 0; r < run->opt->n; r++) /* the others are the guard, and orphans of ranks */
            if (run->ranks[r].running && run->ranks[r].pid == pid) {
                on_end(run, r, status);
                break;
            }
    report_failure(run, 0);
    if (run->n_running > 0 || run->group.guard < 0) return;
    group_dismiss_guard(&run->group);
    if (run->next_signal == 0) {
        run->next_signal = SIGTERM;
        run->next_at = now_ns() + GRACE_NS;
    }
}

static void forward(struct run *run, int sig) {
    int ends = sig == SIGINT || sig == SIGTERM || sig == SIGHUP;
    if (run->opt->verbose) output_message(&run->output, "passing signal %d (%s) on to the ranks", sig, strsignal(sig));
    if (ends && run->forwarded != 0) {
        ask_to_end(run);
        return;
    }
    signal_ranks(run, sig);
    if (ends) run->forwarded = sig;
}

static void on_signals(struct run *run) {
    struct signalfd_siginfo info;
    while (read(run->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        int sig = (int)info.ssi_signo;
        if (sig == SIGCHLD) continue; /* below: several may have become one */
        if (sig == SIGTSTP) {
            signal_ranks(run, SIGTSTP);
            raise(SIGSTOP);
        } else if (sig == SIGCONT) {
            signal_ranks(run, SIGCONT);
        } else {
            forward(run, sig);
        }
    }
    reap(run);
}

/* -------------------------------------------------------------------------------------------------- deadlines */

static void on_time(struct run *run) {
    int64_t now = now_ns();
    if (run->timeout_at != 0 && now >= run->timeout_at) {
        run->timeout_at = 0;
        if (run->next_signal == 0 && run->n_running > 0) {
            run->timed_out = 1;
            output_message(&run->output, "the time limit of %g s has passed; ending %d rank%s",
                           (double)run->opt->timeout_ns / 1e9, run->n_running, run->n_running == 1 ? "" : "s");
            ask_to_end(run);
        }
    }
    if (run->next_signal == 0 || now < run->next_at) return;
    report_failure(run, 1);
    if (run->next_signal == SIGTERM) {
        ask_to_end(run);
        return;
    }
    if (run->opt->verbose) output_message(&run->output, "killing what is left");
    signal_ranks(run, SIGKILL);
    run->next_at = now + GRACE_NS; /* again, should something have been forked meanwhile */
}

static int poll_timeout(const struct run *run) {
    int64_t at = INT64_MAX, now = now_ns();
    if (run->timeout_at != 0) at = run->timeout_at;
    if (run->next_signal != 0 && run->next_at < at) at = run->next_at;
    if (at == INT64_MAX) return -1;
    if (at <= now) return 0;
    int64_t ms = (at - now + 999999) / 1000000;
    return ms > 3600000 ? 3600000 : (int)ms;
}

static void turn(struct run *run, struct pollfd *fds) {
    fds[0] = (struct pollfd){.fd = run->signal_fd, .events = POLLIN};
    int n = 1 + output_poll_set(&run->output, fds + 1);
    int inputs = input_poll_set(&run->input, fds + n);
    if (poll(fds, (nfds_t)(n + inputs), poll_timeout(run)) > 0) {
        output_service(&run->output, fds + 1);
        input_service(&run->input, fds + n, inputs);
        if (fds[0].revents != 0) on_signals(run);
    }
    on_time(run);
}

/* Nothing runs any more: hand over what is in the buffers.  A reader that has stopped reading is waited for only after
 * a good end. */
static void finish_output(struct run *run, struct pollfd *fds) {
    int64_t end = now_ns() + GRACE_NS;
    int good = run->failed_rank < 0 && !run->timed_out && run->exit_status == 0 && run->forwarded == 0;
    output_drain(&run->output);
    while (output_pending(&run->output) && (good || now_ns() < end)) {
        struct signalfd_siginfo info;
        output_poll_set(&run->output, fds);
        fds[2] = (struct pollfd){.fd = run->signal_fd, .events = POLLIN};
        poll(fds, 3, good ? -1 : 100);
        while (fds[2].revents != 0 && read(run->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
            if (info.ssi_signo == SIGINT || info.ssi_signo == SIGTERM || info.ssi_signo == SIGHUP) good = 0;
        output_flush(&run->output);
    }
}

static int exit_status(const struct run *run) {
    if (run->exit_status != 0) return run->exit_status;
    if (run->timed_out) return EXIT_TIMEOUT;
    if (run->failed_rank >= 0) {
        int status = run->ranks[run->failed_rank].status;
        return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
    for (int r = 0; r < run->opt->n; r++) /* ended by the second Ctrl-C */
        if (run->ranks[r].pid != 0 && run->ranks[r].status != 0) return 128 + run->forwarded;
    return run->output.failed ? EXIT_ERROR : 0;
}

int supervise(struct run *run) {
    /* signals, two sinks, two pipes a rank, input */
    struct pollfd *fds = calloc(4 + 2 * (size_t)run->opt->n, sizeof fds[0]);
    if (fds == NULL) {
        output_message(&run->output, "out of memory");
        return EXIT_ERROR; /* the guard ends the ranks */
    }
    reap(run); /* also when none was started: the guard goes */
    while (!group_is_gone(&run->group))
        turn(run, fds);
    finish_output(run, fds);
    free(fds);
    return exit_status(run);
}
