/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The environment: settings and launchers' variables.
 *
 *   input: a byte for the arguments and whether values are long, lines NAME=VALUE; the last line is what /proc/self/stat says
 */
#include "bootstrap/launch_env.h"
#include "bootstrap/roster.h"
#include "bootstrap/wire.h"
#include "pool/base/conf.h"
#include "pool/base/status.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>

extern char **environ;

#define MOST_LINES 12
#define ZEROS 900 /* in front of a long value: together they are more than a snapshot holds */
static const char *proc_stat = "";
static int opened;

static int open_some(const char *path) {
    (void)path;
    opened++;
    return 1000;
}

static int open_log(const char *path, int mode) {
    (void)mode;
    MUST(path[0]);
    opened++;
    return 1000;
}

static int64_t read_stat(int fd, void *buf, size_t len) {
    size_t n = strlen(proc_stat);
    MUST(fd == 1000);
    if (n > len) n = len;
    memcpy(buf, proc_stat, n);
    proc_stat += n;
    return (int64_t)n;
}

static int close_some(int fd) {
    MUST(fd == 1000);
    opened--;
    return 0;
}

void fuzz_start(void) {
    fuzz_os.open_read = open_some;
    fuzz_os.open_append = open_log;
    fuzz_os.read = read_stat;
    fuzz_os.close = close_some;
}

void fuzz_seeds(void) {
    static const char *const seeds[] = {
        "0RANK=1\nWORLD_SIZE=4\nLOCAL_RANK=1\nLOCAL_WORLD_SIZE=4\nTORCHELASTIC_RUN_ID=x y\nTORCHELASTIC_RESTART_COUNT=2\n"
        "MASTER_ADDR=h\nMASTER_PORT=29500\n",
        "0OMPI_COMM_WORLD_RANK=0\nOMPI_COMM_WORLD_SIZE=2\nOMPI_COMM_WORLD_LOCAL_RANK=0\nOMPI_COMM_WORLD_LOCAL_SIZE=2\n"
        "PMIX_NAMESPACE=a@b/c\n",
        "0PMI_RANK=1\nPMI_SIZE=2\nMPI_LOCALRANKID=1\nMPI_LOCALNRANKS=2\n12 (a b) ) S 4711 1 1",
        "0SLURM_PROCID=1\nSLURM_NTASKS=2\nSLURM_LOCALID=1\nSLURM_JOB_ID=99\nSLURM_STEP_ID=0\n"
        "SLURM_STEP_TASKS_PER_NODE=2(x3)\nSLURM_TASKS_PER_NODE=2,1\n",
        "1SYMPOOL_RANK=1\nSYMPOOL_WORLD_SIZE=2\nSYMPOOL_LOCAL_RANK=1\nSYMPOOL_ADDR=tcp://127.0.0.1:3366\nSYMPOOL_JOB=j\n"
        "SYMPOOL_LISTEN_FD=7\n",
        "2SYMPOOL_LOCAL_MEM_SIZE=512M\nSYMPOOL_META_SIZE=0\nSYMPOOL_COMMIT=full\nSYMPOOL_HUGE=2M\nSYMPOOL_TIMEOUT=1.5s\n"
        "SYMPOOL_SPIN=50us\nSYMPOOL_LOG=debug\nSYMPOOL_LOG_FILE=/tmp/x-%p-%r\nSYMPOOL_COMMITT=1\nSYMPOOL_CACHE=maybe\n",
        "4SYMPOOL_RANK=1\nSYMPOOL_WORLD_SIZE=2\nSYMPOOL_LOCAL_RANK=1\nSYMPOOL_ADDR=x\nSYMPOOL_JOB=j\nSYMPOOL_LISTEN_FD=7\n"
        "SYMPOOL_LOCAL_MEM_SIZE=512M\nSYMPOOL_META_SIZE=1M\nSYMPOOL_TIMEOUT=1s\nSYMPOOL_SPIN=50us\nSYMPOOL_LOG_FILE=f\nSYMPOOL_JOIN_TIMEOUT=9s\n",
    };
    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++)
        (seeds[i][0] == '4' ? fuzz_seed : fuzz_good_seed)(seeds[i], strlen(seeds[i]));
}

/* As long as it is, so that a step beyond is seen. */
static char *line_of(const uint8_t *text, size_t len, int is_long) {
    const uint8_t *equals = is_long ? memchr(text, '=', len) : NULL;
    size_t head = equals ? (size_t)(equals + 1 - text) : 0, zeros = equals ? ZEROS : 0;
    char *line = malloc(len + zeros + 1);
    memcpy(line, text, head);
    memset(line + head, '0', zeros);
    memcpy(line + head + zeros, text + head, len - head);
    line[len + zeros] = 0;
    return line;
}

static void every_setting(void) {
    for (int k = 0; k < CONF_N; k++) {
        const struct conf_entry *e = conf_entry((enum conf_key)k);
        const char *text = conf_str((enum conf_key)k);
        MUST(!text || strlen(text) < 1024);
        (void)conf_int((enum conf_key)k);
        if (!conf_is_set((enum conf_key)k)) MUST(text == e->def);
    }
    MUST(conf_size(CONF_LOCAL_MEM_SIZE) >= 64u << 10 && conf_size(CONF_LOCAL_MEM_SIZE) <= 1ull << 40);
    MUST(conf_int(CONF_RANK) >= -1 && conf_int(CONF_RANK) < MAX_WORLD);
    MUST(conf_int(CONF_TIMEOUT) > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    char *lines[MOST_LINES + 1], *stat = NULL, **kept = environ;
    int n = 0;
    if (len < 1) return 0;
    unsigned how = data[0] % 4;
    int is_long = data[0] & 4;
    data++, len--;
    while (len && n < MOST_LINES) {
        const uint8_t *end = memchr(data, '\n', len);
        size_t m = end ? (size_t)(end - data) : len;
        char *line = line_of(data, m, is_long && end);
        if (end)
            lines[n++] = line;
        else
            stat = line;
        data += m + (end != NULL);
        len -= m + (end != NULL);
        if (!end) break;
    }
    lines[n] = NULL;
    environ = lines;
    proc_stat = stat ? stat : "";
    conf_reset();
    struct launch l;
    int rc = launch_detect(how == 1 ? 1 : -1, how == 1 ? 2 : -1, how == 2 ? "127.0.0.1:1" : NULL, how == 3 ? "j" : NULL, &l);
    MUST(rc == SYP_OK || rc == SYP_EINVAL);
    fuzz_ok = rc == SYP_OK;
    if (rc == SYP_OK) {
        MUST(l.n_ranks >= 1 && l.n_ranks <= MAX_WORLD && l.rank >= 0 && l.rank < l.n_ranks);
        MUST(memchr(l.job, 0, sizeof l.job) && wire_job_ok(l.job) && l.restart >= 0 && l.source);
    }
    every_setting();
    environ = kept;
    conf_reset();
    for (int i = 0; i < n; i++)
        free(lines[i]);
    free(stat);
    return 0;
}
