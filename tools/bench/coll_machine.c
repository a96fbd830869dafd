/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives, in the first process: what the machine does meanwhile.  Copy rates from memory, processor time that others took, phases
 * in which the two processors were near each other or far apart.
 */
#include <ctype.h>
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/bench/coll_run.h"

#define RATE_SAMPLES 5
#define PROCESSES_MAX 4096

uint64_t coll_memory_available(void) {
    char line[128];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu", &kib) == 1) break;
    if (f) fclose(f);
    return kib ? kib << 10 : UINT64_MAX;
}

/* ----------------------------------------------------------------------------------------------------- processor time */

struct process {
    long pid, parent;
    unsigned long long ticks;
    int ours;
};

static int read_process(const char *pid, struct process *p) {
    char path[300], text[1024];
    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    FILE *f = fopen(path, "r");
    size_t len = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[len] = 0;
    const char *after = strrchr(text, ')'); /* the name may hold anything */
    unsigned long long user, system;
    *p = (struct process){.pid = atol(pid)};
    if (!after || sscanf(after + 1, " %*c %ld %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &p->parent, &user, &system) != 3) return 0;
    p->ticks = user + system;
    return 1;
}

/* Processor seconds of this process and all that descend from it. */
static double own_seconds(void) {
    static struct process all[PROCESSES_MAX];
    int n = 0, changed = 1;
    unsigned long long ticks = 0;
    DIR *d = opendir("/proc");
    if (!d) return NAN;
    for (struct dirent *e; n < PROCESSES_MAX && (e = readdir(d));)
        if (isdigit((unsigned char)e->d_name[0]) && read_process(e->d_name, &all[n])) n++;
    closedir(d);
    for (int i = 0; i < n; i++)
        all[i].ours = all[i].pid == getpid();
    while (changed) {
        changed = 0;
        for (int i = 0; i < n; i++)
            for (int k = 0; k < n && !all[i].ours; k++)
                if (all[k].ours && all[k].pid == all[i].parent) all[i].ours = changed = 1;
    }
    for (int i = 0; i < n; i++)
        if (all[i].ours) ticks += all[i].ticks;
    return (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

/* Of all processors: what anybody used, and what the host kept from us. */
static void busy_seconds(double *busy, double *stolen) {
    unsigned long long user = 0, nice = 0, system = 0, idle, wait, irq = 0, soft = 0, steal = 0;
    double hz = (double)sysconf(_SC_CLK_TCK);
    FILE *f = fopen("/proc/stat", "r");
    int got = f ? fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &wait, &irq, &soft, &steal) : 0;
    if (f) fclose(f);
    *busy = got == 8 ? (double)(user + nice + system + irq + soft) / hz : NAN;
    *stolen = got == 8 ? (double)steal / hz : NAN;
}

static void read_clocks(struct coll_machine *m, double sign) {
    double busy, stolen;
    busy_seconds(&busy, &stolen);
    m->busy += sign * busy;
    m->stolen += sign * stolen;
    m->own += sign * own_seconds();
    m->seconds += sign * (double)now_ns() / 1e9;
}

/* --------------------------------------------------------------------------------------------------------------- rates */

static double rate(struct team *t, enum coll_op op) {
    struct coll_command q = {.what = DO_HOT, .op = op, .type = TYPE_FP32, .bytes = COLL_RATE_BYTES, .warm = 1, .count = 1};
    q.samples = RATE_SAMPLES;
    double ns[RATE_SAMPLES];
    team_ask(t, &q);
    for (int s = 0; s < RATE_SAMPLES; s++) {
        ns[s] = 0;
        for (int r = 0; r < t->board->n; r++)
            if (t->board->sample[r][s] > ns[s]) ns[s] = t->board->sample[r][s];
    }
    return (double)t->board->n * COLL_RATE_BYTES / (median(ns, RATE_SAMPLES) / 1e9);
}

void coll_machine_start(struct coll_run *r) {
    struct coll_machine *m = &r->machine;
    struct team *ours = &r->team[TEAM_OURS];
    struct coll_command line = {.what = DO_LINE, .warm = 1, .samples = 3, .count = 100};
    *m = (struct coll_machine){.copy_rate = NAN, .copy_nt_rate = NAN, .tsc = ours->board->tsc};
    team_ask(ours, &line);
    m->clock_offset = ours->board->clock_offset_ns;
    if (ours->board->backwards) {
        for (int i = 0; i < N_TEAMS; i++)
            if (r->team[i].present) board_drop_tsc(r->team[i].board);
        m->tsc = 0;
    }
    if (r->n <= processors() && r->o->samples >= RATE_SAMPLES && coll_memory_available() > 4ull * (unsigned)r->n * COLL_RATE_BYTES) {
        m->copy_rate = rate(ours, OP_COPY);
        m->copy_nt_rate = rate(ours, OP_COPY_NT);
    }
    read_clocks(m, -1);
}

static void summary(double *values, size_t n, double out[3]) {
    out[0] = out[1] = out[2] = NAN;
    if (!n) return;
    out[0] = median(values, n); /* sorted now */
    out[1] = values[0];
    out[2] = values[n - 1];
}

void coll_machine_end(struct coll_run *r) {
    double three[3];
    read_clocks(&r->machine, 1);
    summary(r->lines, r->cells, three);
    r->machine.line = three[0];
    summary(r->yields, r->cells, three);
    r->machine.yield = three[0];
    summary(r->probe_writes, r->cells, r->machine.probe_write);
    summary(r->probe_reads, r->cells, r->machine.probe_read);
}
