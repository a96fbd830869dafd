/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sympool: command line, choice of ranks, exit status.
 */
#include "tools/stat/stat.h"

#include "allocator/sympool.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help_text[] = "usage: sympool [list] [options]\n"
                                "       sympool show JOB[:RANK] [options]\n"
                                "\n"
                                "Show the sympool jobs on this host: ranks, memory, current operations.\n"
                                "JOB is a job's name, or the beginning of one if only one job begins so.\n"
                                "\n"
                                "  list             one line for each rank; the default\n"
                                "  show JOB[:RANK]  all figures of the job's ranks, and their groups\n"
                                "\n"
                                "  -a, --all        also say how many processes could not be read\n"
                                "      --json       for programs (schema_version 1)\n"
                                "  -h, --help       this text\n"
                                "      --version    the version\n"
                                "\n"
                                "exit status: 0 ok, 1 usage or output error, 2 no such job, 3 a rank's\n"
                                "statistics could not be read (the others were shown)\n";

struct request {
    int json, all;
    const char *job; /* show; NULL = list */
};

static int usage(const char *what, const char *arg) {
    if (what != NULL) fprintf(stderr, "sympool: %s%s\n", what, arg);
    fputs("usage: sympool [list | show JOB[:RANK]] [--json] [--all]   (--help explains)\n", stderr);
    return EXIT_USAGE;
}

/* The exit status: `status` when everything has arrived. */
static int close_output(int status) {
    errno = 0;
    int bad = ferror(stdout);
    if (fclose(stdout) == 0 && !bad) return status;
    fprintf(stderr, "sympool: writing to stdout: %s\n", errno != 0 ? strerror(errno) : "failed");
    return EXIT_USAGE;
}

/* -1: go on, else the exit status. */
static int parse(int argc, char **argv, struct request *req) {
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"all", no_argument, NULL, 'a'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'V'},
                                            {NULL, 0, NULL, 0}};
    argv[0] = "sympool"; /* what getopt_long starts its messages with */
    for (int c; (c = getopt_long(argc, argv, "ah", options, NULL)) != -1;) {
        if (c == 'j')
            req->json = 1;
        else if (c == 'a')
            req->all = 1;
        else if (c == 'h')
            fputs(help_text, stdout);
        else if (c == 'V')
            printf("sympool %d.%d.%d\n", SYP_VERSION_MAJOR, SYP_VERSION_MINOR, SYP_VERSION_PATCH);
        else
            return usage(NULL, "");
        if (c == 'h' || c == 'V') return close_output(EXIT_OK);
    }
    const char *command = optind < argc ? argv[optind] : "list";
    int n_args = optind < argc ? argc - optind - 1 : 0;
    if (strcmp(command, "list") == 0) {
        if (n_args > 0) return usage("list takes no argument: ", argv[optind + 1]);
        return -1;
    }
    if (strcmp(command, "show") != 0) return usage("unknown command: ", command);
    if (n_args != 1)
        return usage(n_args == 0 ? "show: which job?" : "show takes one job: ", n_args == 0 ? "" : argv[optind + 2]);
    req->job = argv[optind + 1];
    return -1;
}

/* Views whose job is `name` (or begins with it).  The number, with the last one's job in *job; -1 when they are of
 * different jobs. */
static int matches(const struct scan *scan, const char *name, size_t len, int exact, const char **job) {
    int n = 0;
    for (size_t i = 0; i < scan->n_views; i++) {
        const char *have = scan->views[i].job;
        if (strncmp(have, name, len) != 0 || (exact && have[len] != '\0')) continue;
        if (n > 0 && strcmp(*job, have) != 0) return -1;
        *job = have;
        n++;
    }
    return n;
}

/*
 * The job an argument means: the name as it stands, then with its :RANK taken off (names may hold colons), then both as
 * beginnings. NULL after a message.  *rank -1 = all.
 */
static const char *find_job(const struct scan *scan, const char *arg, int *rank) {
    const char *colon = strrchr(arg, ':'), *job = NULL;
    size_t len = strlen(arg), base = len;
    *rank = -1;
    if (colon != NULL && colon[1] != '\0' && strspn(colon + 1, "0123456789") == strlen(colon + 1))
        base = (size_t)(colon - arg);
    for (int exact = 1; exact >= 0; exact--)
        for (int with_rank = 0; with_rank <= (base != len); with_rank++) {
            int n = matches(scan, arg, with_rank ? base : len, exact, &job);
            if (n < 0) {
                fprintf(stderr, "sympool: %s: more than one job begins so; `sympool list` has the names\n", arg);
                return NULL;
            }
            if (n == 0) continue;
            if (with_rank) *rank = atoi(colon + 1);
            return job;
        }
    fprintf(stderr, "sympool: %s: no such job on this host\n", arg);
    return NULL;
}

static int run(const struct request *req) {
    struct scan scan;
    const char *job = NULL;
    int rank = -1, status = EXIT_OK;
    size_t n = 0;
    scan_host(&scan);
    const struct view **chosen = calloc(scan.n_views + 1, sizeof chosen[0]);
    if (chosen == NULL) return usage("out of memory", "");
    for (size_t i = 0; i < scan.n_problems; i++) {
        fprintf(stderr, "sympool: process %d, descriptor %d: %s\n", (int)scan.problems[i].pid, scan.problems[i].fd,
                scan.problems[i].text);
        status = EXIT_UNREADABLE;
    }
    if (req->all && scan.n_denied > 0)
        fprintf(stderr, "sympool: %d process%s not readable\n", scan.n_denied, scan.n_denied == 1 ? "" : "es");
    if (req->job != NULL && (job = find_job(&scan, req->job, &rank)) == NULL) return EXIT_NO_JOB;
    for (size_t i = 0; i < scan.n_views; i++)
        if (job == NULL || (strcmp(scan.views[i].job, job) == 0 && (rank < 0 || scan.views[i].rank == rank)))
            chosen[n++] = &scan.views[i];
    if (job != NULL && n == 0) {
        fprintf(stderr, "sympool: job %s has no rank %d on this host\n", job, rank);
        return EXIT_NO_JOB;
    }
    if (req->json)
        print_json(&scan, chosen, n, job != NULL);
    else if (job != NULL)
        print_show(&scan, chosen, n);
    else
        print_list(&scan);
    return close_output(status);
}

int main(int argc, char **argv) {
    struct request req = {0};
    signal(SIGPIPE, SIG_DFL); /* a reader that goes away ends us quietly, also where the parent ignores SIGPIPE */
    int status = parse(argc, argv, &req);
    return status >= 0 ? status : run(&req);
}
