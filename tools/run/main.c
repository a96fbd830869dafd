/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sympool-run: the order of things.  Nothing here needs undoing on failure: what is not a rank ends with this process,
 * and the ranks are ended by supervise(), or by the guard.
 */
#include "tools/run/run.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Descriptors 0 to 2 exist, so that no pipe of ours becomes a rank's stderr; the others stay out of the ranks. */
static void tidy_descriptors(void) {
    int fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= 2)
        fd = dup(fd);
    if (fd > 2) close(fd);
    close_from(3, 1);
}

/* Two pipes a rank can be more than the usual limit; the ranks get the old limit back. */
static void raise_file_limit(struct run *run) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &run->old_nofile) != 0) return;
    limit = run->old_nofile;
    rlim_t want = 3 * (rlim_t)run->opt->n + 64;
    if (limit.rlim_cur >= want) return;
    limit.rlim_cur = limit.rlim_max < want ? limit.rlim_max : want;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* The job's name: base name of the program or --job, and our pid, in the characters a name may have. */
static void name_job(struct run *run) {
    const char *from = run->opt->job;
    char base[53];
    if (from == NULL) {
        const char *slash = strrchr(run->opt->argv[0], '/');
        from = slash != NULL ? slash + 1 : run->opt->argv[0];
    }
    snprintf(base, sizeof base, "%s", from[0] != '\0' ? from : "job");
    for (char *p = base; *p != '\0'; p++)
        if (strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-", *p) == NULL) *p = '_';
    snprintf(run->job, sizeof run->job, "%s-%d", base, (int)getpid());
}

/* A loopback port that is ours from now on: rank 0 inherits the listening socket, so nobody can take the port in
 * between. */
static int listen_on_loopback(struct run *run) {
    struct sockaddr_in addr = {.sin_family = AF_INET};
    socklen_t len = sizeof addr;
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof addr) != 0 || listen(fd, MAX_RANKS) != 0 ||
        getsockname(fd, (struct sockaddr *)&addr, &len) != 0) {
        fprintf(stderr, "sympool-run: listening on 127.0.0.1: %s; --addr gives another address\n", strerror(errno));
        return EXIT_ERROR;
    }
    run->listen_fd = fd;
    snprintf(run->addr, sizeof run->addr, "tcp://127.0.0.1:%d", ntohs(addr.sin_port));
    return 0;
}

static int make_output_dir(const struct options *opt) {
    if (opt->output != OUTPUT_FILES || mkdir(opt->output_dir, 0777) == 0 || errno == EEXIST) return 0;
    fprintf(stderr, "sympool-run: --output-dir %s: %s\n", opt->output_dir, strerror(errno));
    return EXIT_ERROR;
}

static void tell_start(struct run *run) {
    output_message(&run->output, "job %s, %d rank%s at %s, %s", run->job, run->opt->n, run->opt->n == 1 ? "" : "s",
                   run->opt->addr != NULL ? run->opt->addr : run->addr, run->place.how);
    for (int r = 0; r < run->opt->n && run->ranks[r].pid != 0; r++) {
        char list[512] = "all";
        if (run->place.bound) place_text(&run->place.ranks[r], list, sizeof list);
        output_message(&run->output, "rank %d: pid %d, processors %s", r, (int)run->ranks[r].pid, list);
    }
}

static void start_ranks(struct run *run) {
    for (int r = 0; r < run->opt->n; r++) {
        int status = spawn_rank(run, r);
        /* Only rank 0 listens: when it dies, the others' connects are refused. */
        if (r == 0 && run->listen_fd >= 0) {
            close(run->listen_fd);
            run->listen_fd = -1;
        }
        if (status != 0) {
            supervise_give_up(run, status);
            return;
        }
    }
    if (run->opt->verbose) tell_start(run);
}

static int launch(struct run *run) {
    const struct options *opt = run->opt;
    int status;
    if ((status = place_ranks(opt, &run->place)) != 0) return status;
    if ((status = make_output_dir(opt)) != 0) return status;
    if (opt->addr == NULL && (status = listen_on_loopback(run)) != 0) return status;
    name_job(run);
    raise_file_limit(run);
    run->ranks = calloc((size_t)opt->n, sizeof run->ranks[0]);
    output_open(&run->output, opt->n);
    supervise_open(run);
    if (run->ranks == NULL || run->output.sources == NULL || run->signal_fd < 0) {
        fprintf(stderr, "sympool-run: starting up: %s\n", strerror(errno));
        return EXIT_ERROR;
    }
    if ((status = group_open(&run->group)) != 0) return status;
    if (opt->timeout_ns > 0) run->timeout_at = now_ns() + opt->timeout_ns;
    start_ranks(run);
    status = supervise(run);
    output_close(&run->output);
    return status;
}

int main(int argc, char **argv) {
    struct options opt;
    struct run run = {.opt = &opt, .listen_fd = -1, .failed_rank = -1, .input = {.to = -1}};
    tidy_descriptors();
    int status = options_parse(argc, argv, &opt);
    if (status < 0) status = launch(&run);
    free(run.place.ranks);
    free(run.ranks);
    free(opt.env);
    return status;
}
