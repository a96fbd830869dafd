/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process with a statistics segment made by hand, for stat_tool.sh: right ones, wrong ones, and ones that change
 * while they are read.  usage: stat_standin MODE JOB RANK WORLD.  Prints "ready PID" when the segment is there, then
 * waits to be killed.
 */
#include "pool/stats_shared.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define N_ENTRIES 6u
#define N_OPS 4u
#define N_HISTS 3u
#define N_SHARDS 4u
#define STRIDE 128u

static const struct stats_entry entries[N_ENTRIES] = {
    {"pool_size", STATS_GAUGE, STATS_UNIT_BYTES, 0, 0, "local_mem_size of this rank"},
    {"heap_used", STATS_GAUGE, STATS_UNIT_BYTES, 1, 0, "live bytes in the local heap"},
    {"symm_used", STATS_GAUGE, STATS_UNIT_BYTES, 2, 0, "live bytes in the symmetric region"},
    {"heap_peak", STATS_PEAK, STATS_UNIT_BYTES, 3, 0, "most live bytes in the local heap"},
    {"allocs", STATS_COUNTER, STATS_UNIT_COUNT, 4, 0, "allocations served by the pool"},
    {"join_ns", STATS_GAUGE, STATS_UNIT_NS, 5, 0, "time the attach took"},
};

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t start_ticks(void) {
    char text[1024];
    unsigned long long ticks = 0;
    FILE *f = fopen("/proc/self/stat", "r");
    if (f == NULL) return 0;
    size_t got = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[got] = '\0';
    char *p = strrchr(text, ')');
    for (int field = 2; field < 22 && p != NULL; field++)
        p = strchr(p + 1, ' ');
    if (p != NULL) ticks = strtoull(p, NULL, 10);
    return ticks;
}

struct segment {
    int fd;
    unsigned char *base;
    struct stats_head *head;
    struct stats_op *ops;
    struct stats_hist *hists;
    uint64_t *shards;
    uint64_t size;
};

static uint64_t *value(struct segment *s, unsigned shard, unsigned slot) {
    return s->shards + shard * (STRIDE / 8) + slot;
}

static void make_segment(struct segment *s, const char *job, int rank, int world) {
    uint64_t ops_off = sizeof(struct stats_head) + sizeof entries;
    uint64_t hists_off = ops_off + N_OPS * sizeof(struct stats_op);
    uint64_t shards_off = hists_off + N_HISTS * sizeof(struct stats_hist);
    s->size = shards_off + (uint64_t)N_SHARDS * STRIDE;
    s->fd = memfd_create(STATS_SEGMENT_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (s->fd < 0 || ftruncate(s->fd, (off_t)s->size) != 0) exit(1);
    s->base = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
    if (s->base == MAP_FAILED) exit(1);
    s->head = (void *)s->base;
    s->ops = (void *)(s->base + ops_off);
    s->hists = (void *)(s->base + hists_off);
    s->shards = (void *)(s->base + shards_off);
    struct stats_head h = {.magic = STATS_MAGIC,
                           .version = STATS_VERSION,
                           .head_size = sizeof h,
                           .total_size = s->size,
                           .n_entries = N_ENTRIES,
                           .entry_size = sizeof entries[0],
                           .entries_off = sizeof h,
                           .n_ops = N_OPS,
                           .op_size = sizeof(struct stats_op),
                           .ops_off = ops_off,
                           .n_hists = N_HISTS,
                           .hist_size = sizeof(struct stats_hist),
                           .hists_off = hists_off,
                           .n_shards = N_SHARDS,
                           .n_slots = N_ENTRIES,
                           .shards_off = shards_off,
                           .shard_stride = STRIDE,
                           .pid = (int32_t)getpid(),
                           .rank = rank,
                           .world = world,
                           .local_rank = rank,
                           .start_ticks = start_ticks(),
                           .attach_ns = now(),
                           .job_nonce = 0x1234,
                           .state = STATS_ATTACHED};
    snprintf(h.job, sizeof h.job, "%s", job);
    snprintf(h.host, sizeof h.host, "standin");
    snprintf(h.backend, sizeof h.backend, "host");
    memcpy((void *)s->head, &h, sizeof h);
    memcpy(s->base + sizeof h, entries, sizeof entries);
    *value(s, 0, 0) = 1u << 30;
    *value(s, 0, 1) = 3u << 20;
    *value(s, 0, 2) = 1u << 20;
    *value(s, 0, 3) = 5u << 20;
    *value(s, 1, 3) = 7u << 20;
    for (unsigned i = 0; i < N_SHARDS; i++)
        *value(s, i, 4) = 10 + i;
    *value(s, 0, 5) = 1500000;
    s->ops[0].n_members = (uint64_t)world;
    /* 50 took 512 to 1,023 ns, 45 up to 2,047, 4 up to 8,191, and one 5 ms; of barriers none; of large all-reduces one of 2 s */
    struct stats_hist *small = &s->hists[0], *large = &s->hists[2];
    small->kind = large->kind = STATS_OP_ALLREDUCE;
    small->every = STATS_SAMPLED;
    small->below_bytes = large->least_bytes = STATS_LONG;
    small->bucket[9] = 50;
    small->bucket[10] = 45;
    small->bucket[12] = 4;
    small->bucket[22] = 1;
    small->max_ns = 5000000;
    s->hists[1].kind = STATS_OP_BARRIER;
    s->hists[1].every = large->every = 1;
    large->bucket[30] = 1;
    large->max_ns = 2000000000;
}

static void set_op(struct segment *s, unsigned slot, uint64_t kind, uint64_t sequence, uint64_t bytes, uint64_t age_ns,
                   int done) {
    struct stats_op *op = &s->ops[slot];
    op->turn = 2;
    op->kind = kind;
    op->sequence = sequence;
    op->bytes = bytes;
    op->start_ns = now() - age_ns;
    op->end_ns = done ? op->start_ns + 1000 : 0;
}

/* Operations that begin and end as fast as they can: sequence and bytes always belong together. */
static void hammer(struct segment *s) {
    struct stats_op *op = &s->ops[0];
    for (uint64_t i = 1;; i++) {
        atomic_store_explicit(&op->turn, 2 * i - 1, memory_order_relaxed);
        atomic_thread_fence(memory_order_release);
        atomic_store_explicit(&op->kind, STATS_OP_ALLREDUCE, memory_order_relaxed);
        atomic_store_explicit(&op->sequence, i, memory_order_relaxed);
        atomic_store_explicit(&op->bytes, 8 * i, memory_order_relaxed);
        atomic_store_explicit(&op->start_ns, i, memory_order_relaxed);
        atomic_store_explicit(&op->end_ns, i + 1, memory_order_relaxed);
        atomic_store_explicit(&op->turn, 2 * i, memory_order_release);
        for (volatile int k = 0; k < 200; k++)
            continue;
    }
}

/* Shrinks and grows: a reader that trusts the size gets SIGBUS. */
static void breathe(struct segment *s) {
    for (;;)
        if (ftruncate(s->fd, 0) != 0 || ftruncate(s->fd, (off_t)s->size) != 0) exit(1);
}

/* Many segments, each with some bytes of its head and entries overwritten. */
static void fuzz(const char *job, int n) {
    unsigned seed = 12345;
    for (int i = 0; i < n; i++) {
        struct segment s;
        make_segment(&s, job, i, n);
        int flips = 1 + rand_r(&seed) % 4;
        for (int k = 0; k < flips; k++) {
            uint64_t at = (uint64_t)rand_r(&seed) % (sizeof(struct stats_head) + sizeof entries);
            static const unsigned char bytes[] = {0x00, 0xff, 0x80, 0x7f, 0x01, 0x40};
            s.base[at] = i % 2 ? bytes[rand_r(&seed) % 6] : (unsigned char)rand_r(&seed);
        }
        munmap(s.base, s.size);
    }
}

static void spoil(struct segment *s, const char *mode) {
    struct stats_head *h = s->head;
    if (strcmp(mode, "magic") == 0)
        h->magic ^= 1;
    else if (strcmp(mode, "version") == 0)
        h->version = STATS_VERSION + 1;
    else if (strcmp(mode, "head_size") == 0)
        h->head_size = 8;
    else if (strcmp(mode, "entries_off") == 0)
        h->entries_off = s->size + 8;
    else if (strcmp(mode, "entries_wrap") == 0)
        h->entries_off = UINT64_MAX - 7;
    else if (strcmp(mode, "entries_odd") == 0)
        h->entries_off += 1;
    else if (strcmp(mode, "n_entries") == 0)
        h->n_entries = UINT32_MAX;
    else if (strcmp(mode, "entry_size") == 0)
        h->entry_size = 0;
    else if (strcmp(mode, "ops_off") == 0)
        h->ops_off = s->size - 8;
    else if (strcmp(mode, "n_ops") == 0)
        h->n_ops = UINT32_MAX;
    else if (strcmp(mode, "hists_off") == 0)
        h->hists_off = s->size - 16;
    else if (strcmp(mode, "n_hists") == 0)
        h->n_hists = UINT32_MAX;
    else if (strcmp(mode, "hist_size") == 0)
        h->hist_size = sizeof(struct stats_hist) - 8;
    else if (strcmp(mode, "hist_count") == 0)
        s->hists[0].bucket[1] = UINT64_MAX;
    else if (strcmp(mode, "n_shards") == 0)
        h->n_shards = UINT32_MAX;
    else if (strcmp(mode, "stride") == 0)
        h->shard_stride = UINT64_MAX - 7;
    else if (strcmp(mode, "n_slots") == 0)
        h->n_slots = 4000;
    else if (strcmp(mode, "slot") == 0)
        ((struct stats_entry *)(void *)(s->base + sizeof *h))[2].slot = 999;
    else if (strcmp(mode, "rank") == 0)
        h->rank = h->world;
    else if (strcmp(mode, "truncated") == 0 && ftruncate(s->fd, (off_t)s->size - 64) != 0)
        exit(1);
    else if (strcmp(mode, "tiny") == 0 && ftruncate(s->fd, 16) != 0)
        exit(1);
    else if (strcmp(mode, "empty") == 0 && ftruncate(s->fd, 0) != 0)
        exit(1);
    else if (strcmp(mode, "escape") == 0) {
        memset(h->job, 'x', sizeof h->job);
        memcpy(h->job, "esc\033[31m\n", 9);
        memset(h->host, 'y', sizeof h->host);
    } else if (strcmp(mode, "torn") == 0) {
        set_op(s, 0, STATS_OP_ALLREDUCE, 7, 64, 1000, 0);
        s->ops[0].turn = 3;
    } else if (strcmp(mode, "older") == 0) { /* what lies behind its head is none of the tool's business */
        h->head_size = STATS_HEAD_LEAST;
        h->n_hists = UINT32_MAX;
    } else if (strcmp(mode, "reused") == 0)
        h->start_ticks += 1;
    else if (strcmp(mode, "detached") == 0)
        h->state = STATS_DETACHED;
}

int main(int argc, char **argv) {
    struct segment s;
    if (argc != 5) return 2;
    const char *mode = argv[1];
    if (strcmp(mode, "fuzz") == 0) {
        fuzz(argv[2], atoi(argv[4]));
    } else {
        make_segment(&s, argv[2], atoi(argv[3]), atoi(argv[4]));
        spoil(&s, mode);
    }
    if (strcmp(mode, "running") == 0) {
        set_op(&s, 0, STATS_OP_ALLREDUCE, 1042, 4u << 20, 12300000000u, 0);
        s.ops[0].waits_for = 5 + 1;
        s.ops[1].n_members = 2;
        s.ops[1].comm_id = 0xab;
        set_op(&s, 1, STATS_OP_BROADCAST, 3, 100, 1000000, 1);
    } else if (strcmp(mode, "done") == 0) {
        set_op(&s, 0, STATS_OP_BARRIER, 7, 0, 200000000, 1);
    } else if (strcmp(mode, "failed") == 0) {
        set_op(&s, 0, STATS_OP_ALLREDUCE, 9, 512, 1000000, 1);
        s.ops[0].result = 40;
    } else if (strcmp(mode, "children") == 0 || strcmp(mode, "orphan") == 0) {
        pid_t pid = fork(); /* both hold the segment */
        if (pid < 0) return 1;
        if (strcmp(mode, "orphan") == 0 && pid > 0) _exit(0);
    }
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    if (strcmp(mode, "hammer") == 0) hammer(&s);
    if (strcmp(mode, "breathe") == 0) breathe(&s);
    for (;;)
        pause();
}
