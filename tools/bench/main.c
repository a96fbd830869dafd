/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sympool-bench: measures the library beside its peers and beside what the machine can do at all, all in one run, since
 * only ratios of one run mean anything.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench/bench.h"

static const struct {
    const char *name;
    void (*run)(void);
    void (*rank)(const struct rank_io *io);
} parts[] = {
    {"init", bench_init, bench_init_rank},
    {"coll", bench_coll, bench_coll_rank},
    {"heap", bench_heap, bench_heap_rank},
};
enum { N_PARTS = sizeof parts / sizeof parts[0] };

static const char usage[] =
    "usage: sympool-bench all|init|coll|heap [--json]\n"
    "       sympool-bench coll [options]; see sympool-bench coll --help\n"
    "\n"
    "  init    time of syp_init for 8 and for 64 ranks, beside fork and exec of as many processes\n"
    "  coll    collectives on 2, 4 and 8 ranks, 8 B to 4 MiB, buffers in the pool and outside, beside Open MPI, MPICH,\n"
    "          gloo and vLLM's scheme, as far as these are there, and beside what the machine can do\n"
    "  heap    syp_malloc and syp_free, in one thread, from thread to thread and on recorded traces, beside glibc,\n"
    "          jemalloc, mimalloc and tcmalloc, as far as these are installed\n"
    "  all     all of them\n"
    "\n"
    "  --json  one JSON object instead of tables\n"
    "  --help  this text\n"
    "\n"
    "The program starts its ranks itself.  SYMPOOL_* settings other than rank, address and sizes are passed on to "
    "them.\n";

static int descriptor(const char *text) {
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (end == text || *end || errno || v < 0 || v > 1 << 20) die("%s: not a descriptor", text);
    return (int)v;
}

/* As job_start of spawn.c executes it: --rank ROLE RESULT READY GATE. */
static int rank_main(char **args) {
    struct rank_io io = {descriptor(args[1]), descriptor(args[2]), descriptor(args[3])};
    for (int i = 0; i < N_PARTS; i++)
        if (strcmp(args[0], parts[i].name) == 0) {
            parts[i].rank(&io);
            return 0;
        }
    die("%s: no such measurement", args[0]);
}

int main(int argc, char **argv) {
    const char *what = NULL;
    int json = 0;
    signal(SIGPIPE, SIG_IGN); /* a rank reports that the first process is gone */
    if (argc == 6 && strcmp(argv[1], "--rank") == 0) return rank_main(argv + 2);
    if (argc > 1 && strcmp(argv[1], "coll") == 0) {
        bench_coll_main(argv + 2);
        return 0;
    }
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return 0;
        }
        if (strcmp(argv[i], "--json") == 0) {
            json = 1;
        } else if (!what && argv[i][0] != '-') {
            what = argv[i];
        } else {
            fprintf(stderr, "sympool-bench: %s: not an option; see --help\n", argv[i]);
            return 2;
        }
    }
    int known = what && strcmp(what, "all") == 0;
    for (int i = 0; what && i < N_PARTS; i++)
        known |= strcmp(what, parts[i].name) == 0;
    if (!known) {
        fprintf(stderr, "sympool-bench: %s: say all, init, coll or heap; see --help\n", what ? what : "nothing to do");
        return 2;
    }
    report_start(json);
    for (int i = 0; i < N_PARTS; i++)
        if (strcmp(what, "all") == 0 || strcmp(what, parts[i].name) == 0) parts[i].run();
    report_end();
    return 0;
}
