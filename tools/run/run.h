/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sympool-run: start the ranks of one job on this host, carry their output, end all of them when one fails.
 *
 *   options.c  the command line                       place.c   which processors each rank may use
 *   group.c    the process group and its guard        spawn.c   one rank: environment, descriptors, exec
 *   output.c   whole lines from many pipes            input.c   a terminal's keystrokes to rank 0
 *   supervise.c  the loop: signals, deaths, deadlines main.c    order of all that
 *
 * Single-threaded; all waiting is in supervise.c's poll.  It knows the SYMPOOL_* variables and the placement module's
 * table, and nothing else of the library.
 */
#ifndef TOOLS_RUN_H
#define TOOLS_RUN_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

struct pollfd;

/* Exit statuses of our own; a rank's are passed on. */
#define EXIT_ERROR 1
#define EXIT_USAGE 2
#define EXIT_TIMEOUT 124 /* as timeout(1) */
#define EXIT_NOT_EXECUTABLE 126
#define EXIT_NOT_FOUND 127

#define MAX_RANKS 1024
#define GRACE_NS 2000000000ll /* between asking a group to end and killing it */

/* ------------------------------------------------------------------------------------------------- options.c */

enum bind_mode { BIND_AUTO, BIND_NONE, BIND_CORE, BIND_NUMA };
enum output_mode { OUTPUT_TAGGED, OUTPUT_PLAIN, OUTPUT_FILES };

struct options {
    int n;
    int64_t timeout_ns; /* 0 = none */
    enum bind_mode bind;
    enum output_mode output;
    const char *output_dir;     /* OUTPUT_FILES */
    const char *addr;           /* NULL = a loopback port of our own */
    const char *job;            /* first part of the job's name; NULL = the program's base name */
    const char *local_mem_size; /* NULL = leave the environment alone; so meta_size */
    const char *meta_size;
    const char **env; /* NAME=VALUE, n_env of them */
    int n_env;
    int stdin_to_rank0;
    int verbose;
    char **argv; /* the program and its arguments, NULL-terminated */
};

/* -1: go on.  Else the exit status: help or version was printed, or a mistake reported. */
int options_parse(int argc, char **argv, struct options *opt);

/* --------------------------------------------------------------------------------------------------- place.c */

#define PLACE_CPUS 8192
struct cpus {
    unsigned long bits[PLACE_CPUS / (8 * sizeof(unsigned long))];
};

struct placement {
    int bound;          /* 0: ranks keep the launcher's processors */
    struct cpus *ranks; /* one per rank when bound */
    const char *how;    /* for -v */
};

int place_ranks(const struct options *opt, struct placement *out);
void place_text(const struct cpus *set, char *text, size_t cap); /* "0-3,8" */

/* -------------------------------------------------------------------------------------------------- output.c */

/* Where lines go: the launcher's stdout or stderr. */
struct sink {
    int fd; /* -1 = the reader has gone, or it failed: everything is dropped */
    int is_socket;
    const char *name; /* "stdout" */
    char *buf;
    size_t start, end, cap; /* waiting bytes: [start, end) */
};

/* Where they come from: one pipe of one rank. */
struct source {
    int fd; /* -1 = at its end */
    int rank;
    struct sink *sink;
    char *line; /* the unfinished line */
    size_t len, cap;
};

struct output {
    struct sink out, err;
    struct sink *messages; /* &err, or &out when both are one file */
    struct source *sources;
    int n_sources;
    int failed; /* a write failed other than by a closed pipe */
};

void output_open(struct output *o, int n_ranks);
/* Pipe of a rank; fd is its read end.  to_stderr: which sink. */
int output_add(struct output *o, int rank, int fd, int to_stderr);
/* Fill fds for poll (room for 2 + n_sources), then act on what poll said. */
int output_poll_set(const struct output *o, struct pollfd *fds);
void output_service(struct output *o, const struct pollfd *fds);
void output_drain(struct output *o); /* read what is in the pipes now, finish unfinished lines, close the pipes */
int output_pending(const struct output *o);
void output_flush(struct output *o); /* write what can be written without waiting */
void output_message(struct output *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void output_close(struct output *o);

/* --------------------------------------------------------------------------------------------------- input.c */

/* A terminal belongs to the foreground process group, which the ranks are not: its input goes through us. */
struct input {
    int to; /* write end of rank 0's stdin; -1 = not relayed, or over */
    char buf[4096];
    size_t start, end;
};

int input_poll_set(const struct input *in, struct pollfd *fds); /* at most 1 */
void input_service(struct input *in, const struct pollfd *fds, int n);

/* --------------------------------------------------------------------------------------------------- group.c */

/*
 * All ranks are in one process group, whose leader is the guard: a child of ours that does nothing but wait for our
 * end.  While it lives the group's number cannot be reused, and when we are killed, it kills the group.
 */
struct group {
    pid_t id;  /* of the guard and of the group */
    int guard; /* write end of the guard's pipe; -1 = dismissed */
};

int group_open(struct group *g);
void group_dismiss_guard(struct group *g); /* all ranks have ended: from here on the group is gone when it is empty */
int group_is_gone(const struct group *g);  /* guard dismissed and no child of ours left in the group */

/* --------------------------------------------------------------------------------------------------- spawn.c */

struct rank {
    pid_t pid; /* 0 = not started */
    int running;
    int status;      /* of wait, once it has ended */
    int was_exiting; /* on its way out already when the first failure was noticed */
};

struct run {
    const struct options *opt;
    struct placement place;
    struct group group;
    struct output output;
    struct input input;
    struct rank *ranks;
    int n_running;
    int listen_fd; /* rank 0 gets it; -1 = none */
    char addr[64]; /* ours; opt->addr when given */
    char job[64];
    int signal_fd;
    /* what the ranks get back */
    sigset_t old_mask;
    struct sigaction old_sigpipe;
    struct rlimit old_nofile;
    /* how it ends */
    int failed_rank; /* the first to fail, -1 = none */
    int others;      /* how many ran on then */
    int reported;    /* the failure was told */
    int forwarded;   /* last signal passed on to the ranks, 0 = none */
    int timed_out;
    int exit_status; /* of a failure of our own, else 0 */
    int next_signal; /* to be sent at next_at, 0 = none */
    int64_t next_at;
    int64_t timeout_at; /* 0 = none */
};

/* Close all descriptors from `first` on: now, or when a program is started. */
void close_from(unsigned first, int at_exec);
/* Start rank r.  0, or the exit status after a message. */
int spawn_rank(struct run *run, int r);

/* ----------------------------------------------------------------------------------------------- supervise.c */

int64_t now_ns(void);
void supervise_open(struct run *run);                /* signals blocked and routed to signal_fd */
int supervise(struct run *run);                      /* until nothing is left; the exit status */
void supervise_give_up(struct run *run, int status); /* a failure of our own: end the ranks that run */

#endif
