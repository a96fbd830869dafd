/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives: the options of `sympool-bench coll`.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench/coll_run.h"

#define MAX_BYTES (256u << 20)

const char *const coll_mode_names[N_MODES] = {"hot", "fresh", "loop"};

static const char usage[] =
    "usage: sympool-bench coll [options]\n"
    "\n"
    "Collectives of this library beside those of Open MPI, MPICH and gloo, as far as they are installed and their workers built\n"
    "(make bench), beside vLLM's scheme, and beside what the machine can do; all in one run, in turns.\n"
    "\n"
    "  --op LIST       allreduce, reduce, reduce-scatter, allgather, broadcast, gather, scatter, alltoall, barrier, put, get;\n"
    "                  default: all\n"
    "  --ranks LIST    numbers of ranks, 2 to 64; default: 2,4,8\n"
    "  --min SIZE      smallest block, default 8; --max SIZE  largest, default 4M, at most 256M\n"
    "  --step 2|4      powers of two, or of four and 8 (default)\n"
    "  --type TYPE     fp32 (default), fp64, fp16, bf16, i8, u8, i32, u32, i64, u64; the sum is reduced\n"
    "  --mode LIST     hot: back to back; fresh: inputs written before, results read after each operation, untimed;\n"
    "                  loop: writing, operation and reading, less the same loop without the operation; default: all\n"
    "  --buffers LIST  ours: pool, outside; default: both\n"
    "  --peers LIST    openmpi, openmpi-sm, openmpi-ucx, mpich, gloo, vllm, or none; default: all\n"
    "  --samples N     of each implementation, size and mode, as far as --budget allows; default 1000, at most 100000\n"
    "  --budget MS     time for these samples, 1 to 60000, default 40\n"
    "  --csv FILE      all figures, one line for each implementation, size and mode\n"
    "  --svg FILE      plots of latency and bandwidth against size\n"
    "  --json          one JSON object instead of tables\n"
    "  --osu           two columns, size and time, as the OSU benchmarks print them, instead of tables\n"
    "  --help          this text\n";

static _Noreturn void refuse(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static _Noreturn void refuse(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fputs("sympool-bench: coll: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputs("; see --help\n", stderr);
    va_end(ap);
    exit(2);
}

/* Words between commas, each one of the names; returns their bits. */
static unsigned words(const char *option, const char *list, const char *(*name)(int), int n) {
    unsigned bits = 0;
    for (const char *at = list;; at++) {
        size_t len = strcspn(at, ",");
        int found = -1;
        for (int i = 0; i < n; i++)
            if (strlen(name(i)) == len && strncmp(name(i), at, len) == 0) found = i;
        if (found < 0) refuse("%s %.*s: not one of those it knows", option, (int)len, at);
        bits |= 1u << found;
        at += len;
        if (!*at) return bits;
    }
}

static const char *op_name(int i) {
    return coll_ops[i].name;
}

static const char *mode_name(int i) {
    return coll_mode_names[i];
}

static const char *peer_name(int i) {
    return i + 1 < N_TEAMS ? team_name((enum team_id)(i + 1)) : "none";
}

static const char *buffers_name(int i) {
    return i ? "pool" : "outside";
}

static const char *type_name(int i) {
    return coll_types[i].name;
}

static long number(const char *option, const char *text, long low, long high) {
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (end == text || *end || errno || v < low || v > high) refuse("%s %s: not a number from %ld to %ld", option, text, low, high);
    return v;
}

/* 8, 64K, 4M */
static uint64_t size(const char *option, const char *text) {
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    int shift = *end == 'K' || *end == 'k' ? 10 : *end == 'M' || *end == 'm' ? 20 : 0;
    if (end == text || *text == '-' || errno || end[shift != 0] || v > MAX_BYTES >> shift || v << shift < 8)
        refuse("%s %s: not a size from 8 to 256M", option, text);
    return v << shift;
}

static void ranks(struct coll_options *o, const char *list) {
    o->n_ranks = 0;
    for (const char *at = list;; at++) {
        char one[16];
        size_t len = strcspn(at, ",");
        snprintf(one, sizeof one, "%.*s", len < sizeof one ? (int)len : (int)sizeof one - 1, at);
        if (o->n_ranks == N_RANKS_MAX) refuse("--ranks %s: more than %d numbers", list, N_RANKS_MAX);
        o->ranks[o->n_ranks++] = (int)number("--ranks", one, 2, COLL_RANKS_MAX);
        at += len;
        if (!*at) return;
    }
}

void coll_options_default(struct coll_options *o) {
    *o = (struct coll_options){.ops = (1u << N_OPS) - 1, .modes = (1u << N_MODES) - 1, .buffers = 3, .teams = (1u << N_TEAMS) - 1,
                               .ranks = {2, 4, 8}, .n_ranks = 3, .min = 8, .max = 4u << 20, .step = 4, .type = TYPE_FP32,
                               .samples = 1000, .budget_ns = 40e6};
}

static void option_with_value(struct coll_options *o, const char *option, const char *value) {
    if (strcmp(option, "--op") == 0) {
        o->ops = words(option, value, op_name, N_OPS);
    } else if (strcmp(option, "--ranks") == 0) {
        ranks(o, value);
    } else if (strcmp(option, "--min") == 0) {
        o->min = size(option, value);
    } else if (strcmp(option, "--max") == 0) {
        o->max = size(option, value);
    } else if (strcmp(option, "--step") == 0) {
        if (strcmp(value, "2") != 0 && strcmp(value, "4") != 0) refuse("--step %s: not 2 or 4", value);
        o->step = value[0] - '0';
    } else if (strcmp(option, "--type") == 0) {
        unsigned bits = words(option, value, type_name, N_TYPES);
        if (bits & (bits - 1)) refuse("--type %s: one at a time", value);
        for (o->type = 0; !(bits >> o->type & 1); o->type++)
            ;
    } else if (strcmp(option, "--mode") == 0) {
        o->modes = words(option, value, mode_name, N_MODES);
    } else if (strcmp(option, "--buffers") == 0) {
        o->buffers = words(option, value, buffers_name, 2);
    } else if (strcmp(option, "--peers") == 0) {
        unsigned bits = words(option, value, peer_name, N_TEAMS);
        if (bits >> (N_TEAMS - 1) & 1 && bits & (bits - 1)) refuse("--peers %s: none, or some", value);
        o->teams = 1u << TEAM_OURS | (bits << 1 & ((1u << N_TEAMS) - 1));
    } else if (strcmp(option, "--samples") == 0) {
        o->samples = (int)number(option, value, 1, 100000);
    } else if (strcmp(option, "--budget") == 0) {
        o->budget_ns = (double)number(option, value, 1, 60000) * 1e6;
    } else if (strcmp(option, "--csv") == 0) {
        o->csv = value;
    } else {
        o->svg = value;
    }
}

void coll_options_parse(struct coll_options *o, char **args) {
    static const char *const with_value[] = {"--op",      "--ranks", "--min",     "--max",    "--step", "--type", "--mode",
                                             "--buffers", "--peers", "--samples", "--budget", "--csv",  "--svg"};
    coll_options_default(o);
    for (char **a = args; *a; a++) {
        int takes = 0;
        for (size_t i = 0; i < sizeof with_value / sizeof with_value[0]; i++)
            takes |= strcmp(*a, with_value[i]) == 0;
        if (strcmp(*a, "--help") == 0) {
            fputs(usage, stdout);
            exit(0);
        } else if (strcmp(*a, "--json") == 0) {
            o->json = 1;
        } else if (strcmp(*a, "--osu") == 0) {
            o->osu = 1;
        } else if (!takes) {
            refuse("%s: not an option", *a);
        } else if (!a[1]) {
            refuse("%s: a value is missing", *a);
        } else {
            option_with_value(o, a[0], a[1]);
            a++;
        }
    }
    if (o->min > o->max) refuse("--min is above --max");
    if (o->json && o->osu) refuse("--json and --osu: one of them");
}
