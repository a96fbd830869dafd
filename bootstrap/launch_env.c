/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who am I: see launch_env.h for the order.
 *
 * A source is one launcher's view of this process.  All launchers are read, since `srun torchrun` leaves two of them in
 * the environment; the first complete one wins.  Must not know: sockets, the wire.
 */
#include "bootstrap/launch_env.h"

#include "bootstrap/roster.h"
#include "bootstrap/wire.h"
#include "pool/base/conf.h"
#include "pool/base/log.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <string.h>

enum presence { ABSENT, PARTIAL, COMPLETE };

struct source {
    const char *name, *rank_var, *size_var;
    enum presence presence;
    int rank, size, local_rank, local_size, restart;
    char job[64];
};

/* A number of 0 .. 2^31-1 in the environment; -1 = absent or something else. */
static int number(const char *name) {
    const char *v = name ? conf_environ(name) : NULL;
    int64_t n;
    if (!v || text_to_i64(v, &n) || n < 0 || n > INT32_MAX) return -1;
    return (int)n;
}

/* A launcher's job id as a name of ours: other characters become "_", and one that is too long keeps a digest of the
 * whole. */
static void name_job(char out[64], const char *prefix, const char *id, const char *suffix) {
    char whole[512];
    struct text t = TEXT_INIT(whole);
    text_addf(&t, "%s%s%s", prefix, id, suffix);
    uint64_t digest = 0xcbf29ce484222325ull;
    for (char *p = whole; *p; p++) {
        digest = (digest ^ (uint8_t)*p) * 0x100000001b3ull;
        char one[2] = {*p, 0};
        if (!wire_job_ok(one)) *p = '_';
    }
    if (t.len < 64)
        text_copy(out, 64, whole);
    else
        text_format(out, 64, "%.*s-%08x%08x", 46, whole, (unsigned)(digest >> 32), (unsigned)digest);
}

static void read_source(struct source *s, const char *name, const char *rank_var, const char *size_var,
                        const char *local_rank_var, const char *local_size_var) {
    *s = (struct source){.name = name, .rank_var = rank_var, .size_var = size_var};
    s->rank = number(rank_var);
    s->size = number(size_var);
    s->local_rank = number(local_rank_var);
    s->local_size = number(local_size_var);
    if (conf_environ(rank_var)) s->presence = s->rank >= 0 && s->size >= 0 ? COMPLETE : PARTIAL;
}

static void read_torchrun(struct source *s) {
    read_source(s, "torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE");
    int restart = number("TORCHELASTIC_RESTART_COUNT");
    s->restart = restart < 0 ? 0 : restart;
    /* The run id is often "none": the port tells two such jobs apart. */
    const char *id = conf_environ("TORCHELASTIC_RUN_ID"), *port = conf_environ("MASTER_PORT");
    if (id || port) name_job(s->job, id ? id : "torch", port ? ":" : "", port ? port : "");
}

static void read_openmpi(struct source *s) {
    read_source(s, "Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                "OMPI_COMM_WORLD_LOCAL_SIZE");
    const char *id = conf_environ("PMIX_NAMESPACE");
    if (id) name_job(s->job, "", id, "");
}

/* Parent of this process; 0 = cannot be told. */
static int parent_pid(void) {
    char buf[512];
    if (os_read_file("/proc/self/stat", buf, sizeof buf) <= 0) return 0;
    const char *p = strrchr(buf, ')'); /* the command may hold blanks and brackets */
    int pid = 0;
    if (!p || strlen(p) < 5) return 0;
    for (p += 4; *p >= '0' && *p <= '9' && pid < INT32_MAX / 10; p++)
        pid = pid * 10 + (*p - '0');
    return pid;
}

static void read_pmi(struct source *s) {
    read_source(s, "PMI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS");
    /* PMI has no job id outside its own protocol, but all ranks of a host are children of one proxy.  The parent
     * differs between hosts, so this name serves the meeting without an address only: see launch_detect. */
    int parent = s->presence == COMPLETE ? parent_pid() : 0;
    if (parent > 0) text_format(s->job, sizeof s->job, "pmi-%d", parent);
}

/* "4" or "4(x2)": tasks on every node; a list of different counts says nothing certain about this node. */
static int tasks_per_node(const char *v) {
    int n = 0;
    if (!v || *v < '1' || *v > '9') return -1;
    for (; *v >= '0' && *v <= '9'; v++) {
        n = n * 10 + (*v - '0');
        if (n > MAX_WORLD) return -1;
    }
    if (*v == 0) return n;
    return strncmp(v, "(x", 2) == 0 && !strchr(v, ',') ? n : -1;
}

static void read_slurm(struct source *s) {
    read_source(s, "Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", NULL);
    const char *tasks = conf_environ("SLURM_STEP_TASKS_PER_NODE"), *job = conf_environ("SLURM_JOB_ID"),
               *step = conf_environ("SLURM_STEP_ID");
    s->local_size = tasks_per_node(tasks ? tasks : conf_environ("SLURM_TASKS_PER_NODE"));
    if (!job) return;
    char suffix[32];
    text_format(suffix, sizeof suffix, ".%s", step ? step : "batch");
    name_job(s->job, "slurm-", job, suffix);
}

/* One of {argument, setting}: -1 = neither; SYP_EINVAL through *rc when they differ. */
static int agree(const char *what, const char *variable, int argument, int setting, int *rc) {
    if (argument >= 0 && setting >= 0 && argument != setting)
        *rc = err_set(SYP_EINVAL, "%s: the argument is %d, %s is %d; give one of them, or both alike", what, argument,
                      variable, setting);
    return argument >= 0 ? argument : setting;
}

static int check_range(const struct launch *l) {
    if (l->n_ranks < 1 || l->n_ranks > MAX_WORLD)
        return err_set(SYP_EINVAL, "world size %d (from %s): it must be 1 to %d", l->n_ranks, l->source, MAX_WORLD);
    if (l->rank < 0 || l->rank >= l->n_ranks)
        return err_set(SYP_EINVAL, "rank %d (from %s): it must be 0 to %d, since the world size is %d", l->rank,
                       l->source, l->n_ranks - 1, l->n_ranks);
    return SYP_OK;
}

/* The launcher that decides, or NULL; SYP_EINVAL when one named a rank and none is complete. */
static int choose_launcher(const struct source *sources, int n, const struct source **out) {
    const struct source *partial = NULL;
    *out = NULL;
    for (int i = 0; i < n; i++) {
        if (sources[i].presence == COMPLETE && !*out) *out = &sources[i];
        if (sources[i].presence == PARTIAL && !partial) partial = &sources[i];
    }
    if (*out || !partial) return SYP_OK;
    const char *rank = conf_environ(partial->rank_var), *size = conf_environ(partial->size_var);
    return err_set(
        SYP_EINVAL,
        "%s environment: %s is \"%s\" and %s is %s%s%s; set both to numbers, or SYMPOOL_RANK and SYMPOOL_WORLD_SIZE",
        partial->name, partial->rank_var, rank, partial->size_var, size ? "\"" : "", size ? size : "not set",
        size ? "\"" : "");
}

/* Rank and size: arguments over SYMPOOL_* over the launchers. */
static int who_am_i(int rank, int n_ranks, const struct source *sources, int n, struct launch *out) {
    int rc = SYP_OK;
    int own_rank = agree("rank", "SYMPOOL_RANK", rank, (int)conf_int(CONF_RANK), &rc);
    int own_size = agree("world size", "SYMPOOL_WORLD_SIZE", n_ranks, (int)conf_int(CONF_WORLD_SIZE), &rc);
    if (rc) return rc;
    out->source = rank >= 0 || n_ranks >= 0 ? "arguments" : "SYMPOOL_*";
    out->rank = own_rank;
    out->n_ranks = own_size;
    if (own_rank >= 0 && own_size < 0)
        return err_set(SYP_EINVAL, "rank is %d (from %s), but the world size is not known; set SYMPOOL_WORLD_SIZE",
                       own_rank, out->source);
    if (own_size == 1 && own_rank < 0)
        out->rank = 0;
    else if (own_size >= 0 && own_rank < 0)
        return err_set(SYP_EINVAL, "world size is %d (from %s), but the rank is not known; set SYMPOOL_RANK", own_size,
                       out->source);
    if (own_size >= 0) return check_range(out);
    const struct source *s;
    rc = choose_launcher(sources, n, &s);
    if (rc) return rc;
    out->source = s ? s->name : "none";
    out->rank = s ? s->rank : 0;
    out->n_ranks = s ? s->size : 1;
    return check_range(out);
}

/* Other launchers that see this process otherwise: legal (srun torchrun), but worth a line. */
static void tell_others(const struct source *sources, int n, const struct launch *l) {
    for (int i = 0; i < n; i++)
        if (sources[i].presence == COMPLETE && (sources[i].rank != l->rank || sources[i].size != l->n_ranks))
            log_info("rank %d of %d from %s; %s says rank %d of %d, which is not used", l->rank, l->n_ranks, l->source,
                     sources[i].name, sources[i].rank, sources[i].size);
}

static int same_url(const struct url *a, const struct url *b) {
    return a->port == b->port && strcmp(a->host, b->host) == 0 && strcmp(a->scope, b->scope) == 0;
}

static int find_addr(const char *argument, struct launch *out) {
    const char *setting = conf_str(CONF_ADDR);
    if (setting && !*setting) setting = NULL;
    if (!argument && !setting) return SYP_OK;
    int rc = url_parse(argument ? argument : setting, &out->addr);
    if (rc) return argument ? rc : err_prefix("SYMPOOL_ADDR");
    out->has_addr = 1;
    if (!argument || !setting) return SYP_OK;
    struct url other;
    rc = url_parse(setting, &other);
    if (rc) return err_prefix("SYMPOOL_ADDR");
    if (!same_url(&out->addr, &other))
        return err_set(SYP_EINVAL,
                       "address: the argument is \"%s\", SYMPOOL_ADDR is \"%s\"; give one of them, or both alike",
                       argument, setting);
    return SYP_OK;
}

static int find_job(const char *argument, struct launch *out) {
    const char *setting = conf_str(CONF_JOB);
    if (setting && !*setting) setting = NULL;
    if (argument && !*argument) argument = NULL;
    if (argument && setting && strcmp(argument, setting) != 0)
        return err_set(SYP_EINVAL,
                       "job: the argument is \"%s\", SYMPOOL_JOB is \"%s\"; give one of them, or both alike", argument,
                       setting);
    const char *job = argument ? argument : setting;
    if (!job) return SYP_OK;
    if (strlen(job) >= sizeof out->job || !wire_job_ok(job))
        return err_set(SYP_EINVAL, "job \"%s\" (from %s): it must have up to 63 characters of [A-Za-z0-9._:-]", job,
                       argument ? "the arguments" : "SYMPOOL_JOB");
    text_copy(out->job, sizeof out->job, job);
    return SYP_OK;
}

/* What a launcher that means the same rank knows besides. */
static void take_from(const struct source *s, struct launch *out) {
    if (out->local_rank < 0) out->local_rank = s->local_rank;
    if (out->local_size < 0) out->local_size = s->local_size;
    if (!out->restart) out->restart = s->restart;
    int of_host_only = strcmp(s->name, "PMI") == 0 && out->has_addr;
    if (!out->job[0] && !of_host_only) text_copy(out->job, sizeof out->job, s->job);
}

int launch_detect(int rank, int n_ranks, const char *addr, const char *job, struct launch *out) {
    memset(out, 0, sizeof *out);
    out->listen_fd = -1;
    if (rank < -1) return err_set(SYP_EINVAL, "rank %d: it must be 0 or more, or -1 for the environment's", rank);
    if (n_ranks < -1)
        return err_set(SYP_EINVAL, "world size %d: it must be 1 to %d, or -1 for the environment's", n_ranks,
                       MAX_WORLD);
    struct source sources[4];
    int n = 0;
    read_torchrun(&sources[n++]);
    read_openmpi(&sources[n++]);
    read_pmi(&sources[n++]);
    read_slurm(&sources[n++]);
    int rc = who_am_i(rank, n_ranks, sources, n, out);
    if (!rc) rc = find_addr(addr, out);
    if (!rc) rc = find_job(job, out);
    if (rc) return rc;
    out->local_rank = (int)conf_int(CONF_LOCAL_RANK);
    out->local_size = (int)conf_int(CONF_LOCAL_SIZE);
    for (int i = 0; i < n; i++)
        if (sources[i].presence == COMPLETE && sources[i].rank == out->rank && sources[i].size == out->n_ranks)
            take_from(&sources[i], out);
    if (out->rank == 0) out->listen_fd = (int)conf_int(CONF_LISTEN_FD);
    tell_others(sources, n, out);
    return SYP_OK;
}
