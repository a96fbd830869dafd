/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which operations have their time taken, and that it is the right one: the histograms of the statistics segment of each rank, read as the tool does.
 */
#include "pool/base/status.h"
#include "pool/stats.h"
#include "tests/support/check.h"
#include "tests/support/world_test.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static struct comm *world_comm(struct world *w) {
    return &w->coll.comm[0];
}

/* The segment that is open now; the rank's function opened it. */
static const char *map_segment(void) {
    const char *base = NULL;
    DIR *dir = opendir("/proc/self/fd");
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) {
        char path[300], target[300] = "";
        struct stat st;
        snprintf(path, sizeof path, "/proc/self/fd/%s", e->d_name);
        if (readlink(path, target, sizeof target - 1) < 0 || !strstr(target, "/memfd:" STATS_SEGMENT_NAME)) continue;
        if (fstat(atoi(e->d_name), &st) == 0) base = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, atoi(e->d_name), 0);
    }
    if (dir) closedir(dir);
    return base == MAP_FAILED ? NULL : base;
}

static const struct stats_hist *hist_of(const char *base, int kind, uint64_t bytes) {
    const struct stats_head *head = (const void *)base;
    for (uint32_t i = 0; i < head->n_hists; i++) {
        const struct stats_hist *h = (const void *)(base + head->hists_off + (uint64_t)i * head->hist_size);
        if ((int)h->kind == kind && bytes >= h->least_bytes && (!h->below_bytes || bytes < h->below_bytes)) return h;
    }
    return NULL;
}

static uint64_t counted(const char *base, int kind, uint64_t bytes) {
    const struct stats_hist *h = hist_of(base, kind, bytes);
    uint64_t n = 0;
    for (unsigned i = 0; h && i < STATS_BUCKETS; i++)
        n += load_relaxed(&h->bucket[i]);
    return n;
}

static int barrier_now(struct comm *c) {
    return coll_run(c, &(struct call){.kind = OP_BARRIER}, 0);
}
static int sum_now(struct comm *c, void *x, size_t bytes) {
    return coll_run(c, &(struct call){.kind = OP_ALLREDUCE, .send = x, .recv = x, .count = bytes / 4, .dtype = SYP_FLOAT32, .op = SYP_SUM}, 0);
}

/* Small ones go one way (quick.c), middle ones the other (requests); barriers between them, so that the operations are a pattern of three. */
static int pattern(struct world *w, void *arg) {
    struct comm *c = world_comm(w);
    const int n = *(int *)arg;
    uint64_t barriers = 0, sums = 0;
    float *x = world_alloc(w, 128 << 10);
    NEED(w, x && stats_open(1, &(struct stats_identity){c->me, c->n, c->me, "latency", NULL, "host"}) == SYP_OK);
    const char *seen = map_segment();
    NEED(w, seen);
    memset(x, 0, 128 << 10);
    for (int i = 0; i < n; i++) {
        NEED(w, sum_now(c, x, 8) == SYP_OK);
        sums += (uint64_t)stats_sampled(c->sequence);
        NEED(w, barrier_now(c) == SYP_OK);
        barriers += (uint64_t)stats_sampled(c->sequence);
        NEED(w, sum_now(c, x, 32 << 10) == SYP_OK);
        sums += (uint64_t)stats_sampled(c->sequence);
    }
    NEED(w, barriers > (uint64_t)n / STATS_SAMPLED / 2 && sums > (uint64_t)n / STATS_SAMPLED);
    NEED(w, counted(seen, OP_BARRIER, 0) == barriers);
    NEED(w, counted(seen, OP_ALLREDUCE, 8) == sums);
    NEED(w, counted(seen, OP_ALLREDUCE, 64 << 10) == 0);
    /* long ones: each */
    for (int i = 0; i < 100; i++)
        NEED(w, sum_now(c, x, 64 << 10) == SYP_OK);
    NEED(w, counted(seen, OP_ALLREDUCE, 64 << 10) == 100 && counted(seen, OP_ALLREDUCE, 8) == sums);
    /* a request that the program leaves alone for a while is none of the figures */
    for (int i = 0; i < 200; i++) {
        uint64_t id;
        struct call call = {.kind = OP_BARRIER};
        NEED(w, queue_add(c, "test", &call, 0, &id) == SYP_OK && queue_wait(c, id) == SYP_OK);
    }
    NEED(w, counted(seen, OP_BARRIER, 0) == barriers);
    /* nor is what was refused */
    for (int i = 0; i < 200; i++)
        NEED(w, sum_now(c, x, c->me ? 8 : 12) == SYP_EMISMATCH);
    NEED(w, counted(seen, OP_ALLREDUCE, 8) == sums);
    uint64_t flag = 1;
    NEED(w, comm_agree(c, &flag, 0) == SYP_OK && counted(seen, OP_AGREE, 0) == 1);
    stats_close();
    world_free(w, x);
    return 0;
}

static void each_kind_is_counted_as_promised(void) {
    int n = (int)check_count(2000, 200000);
    CHECK_EQ(worlds_as_processes(2, NULL, pattern, &n), 0);
}

/* Whoever comes last has a short operation, the others a long one: as long as they waited for it, and no longer than the calls took. */
static int late(struct world *w, void *arg) {
    struct comm *c = world_comm(w);
    (void)arg;
    float *x = world_alloc(w, 64 << 10);
    NEED(w, x && stats_open(1, &(struct stats_identity){c->me, c->n, c->me, "latency", NULL, "host"}) == SYP_OK);
    const char *seen = map_segment();
    NEED(w, seen);
    memset(x, 0, 64 << 10);
    uint64_t most = 0, most_sampled = 0;
    for (int i = 0; i < 300; i++) {
        int large = i % 100 == 50;
        NEED(w, barrier_now(c) == SYP_OK);
        int is_sampled = stats_sampled(c->sequence + 1);
        if (c->me == 1 && (large || is_sampled)) os->sleep(30 * NS_PER_MS);
        uint64_t begin = os->now();
        NEED(w, sum_now(c, x, large ? 64 << 10 : 8) == SYP_OK);
        uint64_t took = os->now() - begin;
        if (large && took > most) most = took;
        if (!large && is_sampled && took > most_sampled) most_sampled = took;
    }
    NEED(w, most_sampled > 0);
    const struct stats_hist *few = hist_of(seen, OP_ALLREDUCE, 8), *each = hist_of(seen, OP_ALLREDUCE, 64 << 10);
    NEED(w, few->max_ns > 0 && few->max_ns <= most_sampled && each->max_ns > 0 && each->max_ns <= most);
    if (c->me == 0) NEED(w, few->max_ns > 15 * NS_PER_MS && each->max_ns > 15 * NS_PER_MS);
    stats_close();
    world_free(w, x);
    return 0;
}

static void the_time_is_that_of_the_call(void) {
    CHECK_EQ(worlds_as_processes(2, NULL, late, NULL), 0);
}

int main(void) {
    return check_main("latency", (struct check_test[]){{"each_kind_is_counted_as_promised", each_kind_is_counted_as_promised},
                                                       {"the_time_is_that_of_the_call", the_time_is_that_of_the_call},
                                                       {0}});
}
