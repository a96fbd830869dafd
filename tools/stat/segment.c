/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One statistics segment: mapped read-only, every offset and count checked against the size of the file, everything
 * copied. The head is copied once and the copy is what is checked and used, since the writer may change it at any time.
 * The file may even shrink while we read: the SIGBUS of that is caught and is one more way for a segment to be
 * unreadable.
 */
#include "tools/stat/stat.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

/* Far above what any rank writes; bounds our memory and time. */
#define LARGEST_FILE (64u << 20)
#define MOST_ENTRIES 4096u
#define MOST_OPS 4096u
#define MOST_HISTS 4096u
#define MOST_SHARDS 4096u

struct segment {
    const unsigned char *base;
    uint64_t size;
    struct stats_head head;
};

static sigjmp_buf shrunk;

static void on_sigbus(int sig) {
    (void)sig;
    siglongjmp(shrunk, 1);
}

static int refuse(char *why, size_t cap, const char *text) {
    snprintf(why, cap, "%s", text);
    return -1;
}

/* n items of item bytes from off on lie within size, 8-aligned, at least `least` bytes each. */
static int fits(uint64_t off, uint64_t n, uint64_t item, uint64_t least, uint64_t size) {
    if (off % 8 != 0 || item % 8 != 0 || item < least || off < STATS_HEAD_LEAST || off > size) return 0;
    return n <= (size - off) / item;
}

static int check_head(const struct stats_head *h, uint64_t size, char *why, size_t cap) {
    if (h->magic != STATS_MAGIC) return refuse(why, cap, "not a statistics segment (wrong magic number)");
    if (h->version != STATS_VERSION) {
        snprintf(why, cap, "layout version %u, this tool reads version %u", h->version, STATS_VERSION);
        return -1;
    }
    if (h->head_size < STATS_HEAD_LEAST || h->head_size > size) return refuse(why, cap, "damaged: size of the head");
    if (h->total_size > size) return refuse(why, cap, "truncated: the file is smaller than its head says");
    if (h->n_entries > MOST_ENTRIES ||
        !fits(h->entries_off, h->n_entries, h->entry_size, sizeof(struct stats_entry), h->total_size))
        return refuse(why, cap, "damaged: place or number of the entries");
    if (h->n_ops > MOST_OPS || !fits(h->ops_off, h->n_ops, h->op_size, sizeof(struct stats_op), h->total_size))
        return refuse(why, cap, "damaged: place or number of the operations");
    if (h->n_hists > 0 &&
        (h->n_hists > MOST_HISTS || !fits(h->hists_off, h->n_hists, h->hist_size, sizeof(struct stats_hist), h->total_size)))
        return refuse(why, cap, "damaged: place or number of the histograms");
    if (h->n_shards < 1 || h->n_shards > MOST_SHARDS || h->n_slots > MOST_ENTRIES ||
        !fits(h->shards_off, h->n_shards, h->shard_stride, 8 * (uint64_t)(h->n_slots > 0 ? h->n_slots : 1),
              h->total_size))
        return refuse(why, cap, "damaged: place or number of the shards");
    if (h->pid <= 0 || h->world < 1 || h->rank < 0 || h->rank >= h->world)
        return refuse(why, cap, "damaged: process id or rank");
    return 0;
}

/* A fixed array that may lack its NUL and hold anything, as text that is safe to print. */
static void copy_text(char *dst, const char *src, size_t len) {
    size_t i = 0;
    for (; i < len && src[i] != '\0'; i++)
        dst[i] = src[i] >= 0x20 && src[i] < 0x7f ? src[i] : '?';
    dst[i] = '\0';
}

/* Counters add up over the shards, peaks are the largest, gauges are in the first.  Pairs with the relaxed stores of
 * pool/stats.c. */
static uint64_t read_value(const struct segment *s, unsigned kind, unsigned slot) {
    uint64_t value = 0;
    for (uint32_t i = 0; i < s->head.n_shards; i++) {
        const unsigned char *at = s->base + s->head.shards_off + i * s->head.shard_stride + 8 * (uint64_t)slot;
        uint64_t v = atomic_load_explicit((const _Atomic uint64_t *)(const void *)at, memory_order_relaxed);
        if (kind == STATS_PEAK)
            value = v > value ? v : value;
        else
            value += v;
        if (kind == STATS_GAUGE) break;
    }
    return value;
}

static int read_entries(const struct segment *s, struct view *v, char *why, size_t cap) {
    v->entries = calloc(s->head.n_entries + 1u, sizeof v->entries[0]);
    if (v->entries == NULL) return refuse(why, cap, "out of memory");
    for (uint32_t i = 0; i < s->head.n_entries; i++) {
        struct stats_entry raw;
        struct entry *e = &v->entries[i];
        memcpy(&raw, s->base + s->head.entries_off + i * (uint64_t)s->head.entry_size, sizeof raw);
        if (raw.slot >= s->head.n_slots) return refuse(why, cap, "damaged: an entry outside the shards");
        copy_text(e->name, raw.name, sizeof raw.name);
        copy_text(e->help, raw.help, sizeof raw.help);
        e->kind = raw.kind;
        e->unit = raw.unit;
        e->value = read_value(s, raw.kind, raw.slot);
    }
    v->n_entries = s->head.n_entries;
    return 0;
}

static uint64_t load(const _Atomic uint64_t *word) {
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* Pairs with the odd and even turns of stats_op_begin and stats_op_end.  A stopped writer may leave it odd for ever:
 * bounded. */
static void read_op(const struct stats_op *raw, struct op *out) {
    uint64_t before = 0, after = 1, waits_for = 0;
    for (int i = 0; i < 100 && (before != after || (before & 1) != 0); i++) {
        if (i >= 10) nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
        before = atomic_load_explicit(&raw->turn, memory_order_acquire);
        out->comm_id = load(&raw->comm_id);
        out->n_members = load(&raw->n_members);
        out->kind = load(&raw->kind);
        out->sequence = load(&raw->sequence);
        out->bytes = load(&raw->bytes);
        out->start_ns = load(&raw->start_ns);
        out->end_ns = load(&raw->end_ns);
        waits_for = load(&raw->waits_for);
        out->result = load(&raw->result);
        atomic_thread_fence(memory_order_acquire);
        after = load(&raw->turn);
    }
    out->torn = before != after || (before & 1) != 0;
    out->waits_for = waits_for <= INT32_MAX ? (int64_t)waits_for - 1 : -1;
}

static int read_ops(const struct segment *s, struct view *v, char *why, size_t cap) {
    v->ops = calloc(s->head.n_ops + 1u, sizeof v->ops[0]);
    if (v->ops == NULL) return refuse(why, cap, "out of memory");
    for (uint32_t i = 0; i < s->head.n_ops; i++) {
        const unsigned char *at = s->base + s->head.ops_off + i * (uint64_t)s->head.op_size;
        const struct stats_op *raw = (const struct stats_op *)(const void *)at;
        if (load(&raw->n_members) == 0) continue;
        read_op(raw, &v->ops[v->n_ops]);
        if (v->ops[v->n_ops].n_members != 0) v->n_ops++;
    }
    return 0;
}

/* Read while the rank may be adding to it: each word is right, and the count is of the words that were seen.  Pairs with stats_latency. */
static int read_hists(const struct segment *s, struct view *v, char *why, size_t cap) {
    v->hists = calloc(s->head.n_hists + 1u, sizeof v->hists[0]);
    if (v->hists == NULL) return refuse(why, cap, "out of memory");
    for (uint32_t i = 0; i < s->head.n_hists; i++) {
        const unsigned char *at = s->base + s->head.hists_off + i * (uint64_t)s->head.hist_size;
        const struct stats_hist *raw = (const struct stats_hist *)(const void *)at;
        struct hist *h = &v->hists[v->n_hists];
        *h = (struct hist){.kind = raw->kind, .every = raw->every, .least_bytes = raw->least_bytes, .below_bytes = raw->below_bytes};
        for (unsigned k = 0; k < STATS_BUCKETS; k++) {
            h->bucket[k] = load(&raw->bucket[k]);
            if (__builtin_add_overflow(h->count, h->bucket[k], &h->count)) return refuse(why, cap, "damaged: a histogram's count");
        }
        h->max_ns = load(&raw->max_ns);
        if (h->count != 0) v->n_hists++;
    }
    return 0;
}

static int read_all(struct segment *s, struct view *v, char *why, size_t cap) {
    const struct stats_head *h = &s->head;
    memcpy((void *)&s->head, s->base, s->size < sizeof s->head ? s->size : sizeof s->head);
    if (h->head_size >= STATS_HEAD_LEAST && h->head_size < sizeof *h) /* an older one */
        memset((char *)(void *)&s->head + h->head_size, 0, sizeof *h - h->head_size);
    if (check_head(h, s->size, why, cap) != 0) return -1;
    copy_text(v->job, h->job, sizeof h->job);
    copy_text(v->host, h->host, sizeof h->host);
    copy_text(v->backend, h->backend, sizeof h->backend);
    if (v->job[0] == '\0') snprintf(v->job, sizeof v->job, "-");
    v->rank = h->rank;
    v->world = h->world;
    v->local_rank = h->local_rank;
    v->owner_pid = h->pid;
    v->start_ticks = h->start_ticks;
    v->attach_ns = h->attach_ns;
    v->nonce = h->job_nonce;
    v->state = atomic_load_explicit(&h->state, memory_order_relaxed); /* our copy */
    if (read_entries(s, v, why, cap) != 0) return -1;
    if (read_ops(s, v, why, cap) != 0) return -1;
    return read_hists(s, v, why, cap);
}

/* A segment that has just been made has no size or no magic number yet: worth a second look. */
static int open_segment(int fd, struct segment *s, char *why, size_t cap) {
    for (int tries = 0;; tries++) {
        struct stat st;
        if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return refuse(why, cap, "not a memory file");
        if (st.st_size > (off_t)LARGEST_FILE) return refuse(why, cap, "larger than any statistics segment");
        s->size = (uint64_t)st.st_size;
        if (s->size >= STATS_HEAD_LEAST) {
            void *p = mmap(NULL, s->size, PROT_READ, MAP_SHARED, fd, 0);
            if (p == MAP_FAILED) return refuse(why, cap, strerror(errno));
            s->base = p;
            uint64_t magic =
                atomic_load_explicit((const _Atomic uint64_t *)p, memory_order_acquire); /* stored last by stats_open */
            if (magic != 0 || tries >= 5) return 0;
            munmap(p, s->size);
        } else if (tries >= 5 || s->size > 0) {
            return refuse(why, cap, "truncated: smaller than a head");
        }
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
}

int segment_read(int fd, struct view *v, char *why, size_t cap) {
    struct segment s = {0};
    struct sigaction act = {.sa_handler = on_sigbus}, old;
    int result;
    sigaction(SIGBUS, &act, &old);
    if (sigsetjmp(shrunk, 1) != 0) {
        result = refuse(why, cap, "truncated while it was read");
    } else if ((result = open_segment(fd, &s, why, cap)) == 0) {
        result = read_all(&s, v, why, cap);
        munmap((void *)(uintptr_t)s.base, s.size);
    }
    sigaction(SIGBUS, &old, NULL);
    return result;
}

const struct entry *view_entry(const struct view *v, const char *name) {
    for (size_t i = 0; i < v->n_entries; i++)
        if (strcmp(v->entries[i].name, name) == 0) return &v->entries[i];
    return NULL;
}
