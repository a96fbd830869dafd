/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of sympool-run.  Values are checked here, so that a mistake is one line of ours and not one of every
 * rank.
 */
#include "tools/run/run.h"

#include "allocator/sympool.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help_text[] =
    "usage: sympool-run -n N [options] [--] program [arguments]\n"
    "\n"
    "Start N ranks of a program on this host, as one sympool job.\n"
    "\n"
    "  -n, --np N               number of ranks, 1 to 1024\n"
    "      --timeout TIME       end the job after TIME (90, 500ms, 5m, 1h); exit status 124\n"
    "      --bind none|core|numa  processors of a rank: all, a share, or all of the share's\n"
    "                           NUMA nodes; default: core, none when ranks outnumber processors\n"
    "      --tag-output         prefix each line of output with [rank]; the default\n"
    "      --no-tag, --tag=none ranks write to the launcher's stdout and stderr themselves\n"
    "      --output-dir DIR     output of rank N to DIR/rank.N.out and DIR/rank.N.err\n"
    "      --stdin rank0|none   who gets the launcher's stdin; default: rank0\n"
    "  -x NAME=VALUE            set a variable for the ranks; may be repeated\n"
    "      --local-mem-size SIZE  SYMPOOL_LOCAL_MEM_SIZE of the ranks (512M, 2G)\n"
    "      --meta-size SIZE     SYMPOOL_META_SIZE of the ranks\n"
    "      --job NAME           the job is called NAME-PID; default: the program's name\n"
    "      --addr URL           where rank 0 listens; default: a free port of 127.0.0.1\n"
    "  -v, --verbose            say what is started and ended\n"
    "  -h, --help               this text\n"
    "      --version            the version\n";

enum {
    OPT_TIMEOUT = 256,
    OPT_BIND,
    OPT_TAG_OUTPUT,
    OPT_NO_TAG,
    OPT_TAG,
    OPT_OUTPUT_DIR,
    OPT_STDIN,
    OPT_LOCAL_MEM_SIZE,
    OPT_META_SIZE,
    OPT_JOB,
    OPT_ADDR,
    OPT_VERSION
};

static const struct option long_options[] = {
    {"np", required_argument, NULL, 'n'},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"bind", required_argument, NULL, OPT_BIND},
    {"tag-output", no_argument, NULL, OPT_TAG_OUTPUT},
    {"no-tag", no_argument, NULL, OPT_NO_TAG},
    {"tag", required_argument, NULL, OPT_TAG},
    {"output-dir", required_argument, NULL, OPT_OUTPUT_DIR},
    {"stdin", required_argument, NULL, OPT_STDIN},
    {"local-mem-size", required_argument, NULL, OPT_LOCAL_MEM_SIZE},
    {"meta-size", required_argument, NULL, OPT_META_SIZE},
    {"job", required_argument, NULL, OPT_JOB},
    {"addr", required_argument, NULL, OPT_ADDR},
    {"verbose", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};

__attribute__((format(printf, 1, 2))) static int usage(const char *fmt, ...) {
    va_list ap;
    fputs("sympool-run: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputs("\nusage: sympool-run -n N [options] [--] program [arguments]   (--help lists the options)\n", stderr);
    return EXIT_USAGE;
}

static int help(const char *text) {
    fputs(text, stdout);
    if (fflush(stdout) == 0) return 0;
    fprintf(stderr, "sympool-run: writing to stdout: %s\n", strerror(errno));
    return EXIT_ERROR;
}

/* A decimal number without sign or exponent: its end, NULL when s does not start with one. */
static const char *skip_number(const char *s) {
    const char *p = s;
    while (isdigit((unsigned char)*p))
        p++;
    size_t digits = (size_t)(p - s);
    if (*p == '.') {
        const char *fraction = ++p;
        while (isdigit((unsigned char)*p))
            p++;
        digits += (size_t)(p - fraction);
    }
    return digits > 0 ? p : NULL;
}

/* The grammar of the library's durations: a number with ns us ms s m h; plain = seconds. */
static int parse_duration(const char *s, int64_t *out) {
    static const struct {
        const char *unit;
        double ns;
    } units[] = {{"", 1e9}, {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
    const char *end = skip_number(s);
    if (end == NULL) return -1;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(end, units[i].unit) != 0) continue;
        double ns = strtod(s, NULL) * units[i].ns;
        if (!(ns >= 1 && ns < 9e18)) return -1;
        *out = (int64_t)ns;
        return 0;
    }
    return -1;
}

/* The grammar of the library's sizes: a number with k m g t, an optional B or iB after it. */
static int is_size(const char *s) {
    const char *p = skip_number(s);
    if (p == NULL) return 0;
    if (*p != '\0' && strchr("kKmMgGtT", *p) != NULL) {
        p++;
        if (p[0] == 'i' && p[1] == 'B') p++;
    }
    if (*p == 'B') p++;
    return *p == '\0';
}

static int is_job_name(const char *s) {
    size_t len = strlen(s);
    if (len == 0 || len > 52) return 0; /* 63 less "-" and a pid */
    return strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-") == len;
}

/* Variables that are this program's to set. */
static const char *owner_option(const char *name, size_t len) {
    static const struct {
        const char *name, *option;
    } ours[] = {
        {"SYMPOOL_RANK", "-n"},          {"SYMPOOL_WORLD_SIZE", "-n"}, {"SYMPOOL_LOCAL_RANK", "-n"},
        {"SYMPOOL_LOCAL_SIZE", "-n"},    {"SYMPOOL_JOB", "--job"},     {"SYMPOOL_ADDR", "--addr"},
        {"SYMPOOL_LISTEN_FD", "--addr"},
    };
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        if (strlen(ours[i].name) == len && memcmp(ours[i].name, name, len) == 0) return ours[i].option;
    return NULL;
}

static int add_env(struct options *opt, const char *arg) {
    const char *eq = strchr(arg, '=');
    if (eq == NULL || eq == arg) return usage("-x %s: expected NAME=VALUE", arg);
    const char *option = owner_option(arg, (size_t)(eq - arg));
    if (option != NULL) return usage("-x %.*s: set by sympool-run; see %s", (int)(eq - arg), arg, option);
    opt->env[opt->n_env++] = arg;
    return -1;
}

static int parse_count(struct options *opt, const char *arg) {
    char *end;
    errno = 0;
    long n = strtol(arg, &end, 10);
    if (!isdigit((unsigned char)arg[0]) || *end != '\0' || errno != 0 || n < 1 || n > MAX_RANKS)
        return usage("-n %s: expected a number of ranks, 1 to %d", arg, MAX_RANKS);
    opt->n = (int)n;
    return -1;
}

static int parse_bind(struct options *opt, const char *arg) {
    if (strcmp(arg, "none") == 0)
        opt->bind = BIND_NONE;
    else if (strcmp(arg, "core") == 0)
        opt->bind = BIND_CORE;
    else if (strcmp(arg, "numa") == 0)
        opt->bind = BIND_NUMA;
    else
        return usage("--bind %s: expected none, core or numa", arg);
    return -1;
}

static int parse_tag(struct options *opt, const char *arg) {
    if (strcmp(arg, "none") == 0)
        opt->output = OUTPUT_PLAIN;
    else if (strcmp(arg, "rank") == 0)
        opt->output = OUTPUT_TAGGED;
    else
        return usage("--tag=%s: expected rank or none", arg);
    return -1;
}

static int parse_stdin(struct options *opt, const char *arg) {
    if (strcmp(arg, "rank0") != 0 && strcmp(arg, "none") != 0) return usage("--stdin %s: expected rank0 or none", arg);
    opt->stdin_to_rank0 = strcmp(arg, "rank0") == 0;
    return -1;
}

static int parse_size(const char *option, const char *arg, const char **out) {
    if (!is_size(arg)) return usage("%s %s: expected a size like 512M or 2G", option, arg);
    *out = arg;
    return -1;
}

/* One option.  -1: go on, else the exit status. */
static int parse_one(struct options *opt, int c, const char *arg) {
    switch (c) {
    case 'n':
        return parse_count(opt, arg);
    case 'x':
        return add_env(opt, arg);
    case 'v':
        opt->verbose = 1;
        return -1;
    case 'h':
        return help(help_text);
    case OPT_TIMEOUT:
        if (parse_duration(arg, &opt->timeout_ns) != 0)
            return usage("--timeout %s: expected a time like 90, 500ms, 5m or 1h", arg);
        return -1;
    case OPT_BIND:
        return parse_bind(opt, arg);
    case OPT_TAG_OUTPUT:
        opt->output = OUTPUT_TAGGED;
        return -1;
    case OPT_NO_TAG:
        opt->output = OUTPUT_PLAIN;
        return -1;
    case OPT_TAG:
        return parse_tag(opt, arg);
    case OPT_OUTPUT_DIR:
        opt->output_dir = arg;
        return -1;
    case OPT_STDIN:
        return parse_stdin(opt, arg);
    case OPT_LOCAL_MEM_SIZE:
        return parse_size("--local-mem-size", arg, &opt->local_mem_size);
    case OPT_META_SIZE:
        return parse_size("--meta-size", arg, &opt->meta_size);
    case OPT_JOB:
        if (!is_job_name(arg)) return usage("--job %s: expected 1 to 52 of the characters A-Z a-z 0-9 . _ : -", arg);
        opt->job = arg;
        return -1;
    case OPT_ADDR:
        if (arg[0] == '\0') return usage("--addr: expected tcp://ip:port");
        opt->addr = arg;
        return -1;
    case OPT_VERSION: {
        char text[64];
        snprintf(text, sizeof text, "sympool-run (sympool) %d.%d.%d\n", SYP_VERSION_MAJOR, SYP_VERSION_MINOR,
                 SYP_VERSION_PATCH);
        return help(text);
    }
    default: /* getopt_long has said what is wrong */
        fputs("usage: sympool-run -n N [options] [--] program [arguments]   (--help lists the options)\n", stderr);
        return EXIT_USAGE;
    }
}

int options_parse(int argc, char **argv, struct options *opt) {
    *opt = (struct options){.stdin_to_rank0 = 1};
    opt->env = calloc((size_t)argc, sizeof opt->env[0]);
    if (opt->env == NULL) {
        fputs("sympool-run: out of memory\n", stderr);
        return EXIT_ERROR;
    }
    argv[0] = "sympool-run"; /* what getopt_long starts its messages with */
    for (int c; (c = getopt_long(argc, argv, "+n:x:vh", long_options, NULL)) != -1;) {
        int status = parse_one(opt, c, optarg);
        if (status >= 0) return status;
    }
    if (opt->n == 0) return usage("how many ranks?  -n N is needed");
    if (optind >= argc) return usage("which program?");
    if (opt->output_dir != NULL) opt->output = OUTPUT_FILES;
    opt->argv = argv + optind;
    return -1;
}
