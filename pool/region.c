/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commit state of a region.
 *
 * Invariants: a bit is set only after the backend committed the whole chunk, and cleared before it is given back, when no
 * block lies in it; committed = bytes of the chunks whose bit is set.  A failed commit keeps the chunks that were committed before
 * it, so that bits and backend agree; the same call again goes on with the rest. Must not know: blocks, peers, how
 * memory is made.
 */
#include "pool/region.h"

#include "pool/base/arena.h"
#include "pool/base/atomic.h"
#include "pool/base/headroom.h"
#include "pool/base/log.h"
#include "pool/base/status.h"
#include "pool/stats.h"

#include <string.h>

#define WORD_BITS 64u
/* Close to a limit, ranks that commit at the same time look again after each step: the margin covers a few of these. */
#define STEP (4ull << 20)
#define FAR (1ull << 30)

void region_round(const struct region_conf *conf, uint64_t *len, uint64_t *meta) {
    *len = round_up(conf->len, conf->backend->granularity(conf->huge));
    *meta = round_up(conf->meta, os_page_size());
}

static uint64_t bits_len(const struct region *r) {
    return (r->n_chunks + WORD_BITS - 1) / WORD_BITS * sizeof(uint64_t);
}

static void drop_records(struct region *r) {
    if (r->bits) map_free(r->bits, bits_len(r));
    if (r->freed) map_free(r->freed, r->n_chunks * sizeof *r->freed);
    r->bits = NULL;
    r->freed = NULL;
}

/* Figures of private memory stay out of the segment, whose gauges are the pool's of this rank. */
static void publish_locked(const struct region *r) {
    if (r->mem.fd >= 0) stats_set(STAT_COMMITTED, r->committed);
}

static int check_conf(const struct region_conf *conf, uint64_t len, uint64_t meta) {
    if (conf->len == 0 || conf->len > PTRDIFF_MAX || len > PTRDIFF_MAX)
        return err_set(SYP_EINVAL, "open \"%s\": length %llu is out of range", conf->name,
                       (unsigned long long)conf->len);
    if (conf->meta > conf->len || meta > len)
        return err_set(SYP_EINVAL, "open \"%s\": symmetric part of %B in a pool of %B", conf->name,
                       (unsigned long long)conf->meta, (unsigned long long)conf->len);
    if (!is_pow2(conf->chunk))
        return err_set(SYP_EINVAL, "open \"%s\": commit unit of %llu bytes is not a power of two", conf->name,
                       (unsigned long long)conf->chunk);
    return SYP_OK;
}

int region_open(struct region *r, const struct region_conf *conf) {
    uint64_t len, meta, least = conf->backend->granularity(conf->huge);
    memset(r, 0, sizeof *r);
    r->mem.fd = -1;
    r->lock.rank = LOCK_REGION;
    quarantine_init(&r->quarantine);
    region_round(conf, &len, &meta);
    int rc = check_conf(conf, len, meta);
    if (rc != SYP_OK) return rc;
    r->backend = conf->backend;
    r->chunk = conf->chunk < least ? least : conf->chunk;
    r->n_chunks = (len + r->chunk - 1) / r->chunk;
    r->bits = map_alloc(bits_len(r));
    r->freed = map_alloc(r->n_chunks * sizeof *r->freed);
    if (!r->bits || !r->freed) {
        drop_records(r);
        return err_set(
            SYP_ENOMEM,
            "open \"%s\" of %B: no memory for its commit state of %B; raise the memory limit of this process",
            conf->name, (unsigned long long)len, (unsigned long long)bits_len(r));
    }
    headroom_find();
    struct backend_request req = {.len = len,
                                  .shared = conf->shared,
                                  .huge = conf->huge,
                                  .huge_required = conf->huge_required,
                                  .nodes = conf->nodes,
                                  .max_node = conf->max_node,
                                  .name = conf->name};
    rc = r->backend->create(&r->mem, &req, conf->at);
    if (rc != SYP_OK) {
        drop_records(r);
        return rc;
    }
    r->len = len;
    r->meta = meta;
    if (conf->commit_full) rc = region_commit(r, 0, len);
    if (rc != SYP_OK) region_close(r);
    return rc;
}

void region_close(struct region *r) {
    if (!r->bits) return;
    lock_take(&r->lock);
    r->committed = 0;
    publish_locked(r);
    lock_drop(&r->lock);
    if (r->backend->destroy(&r->mem) != SYP_OK) log_warn("close the pool: %s", err_record()->text);
    drop_records(r);
    r->len = r->meta = 0;
    r->mem.base = NULL;
    r->mem.fd = -1;
}

/* --------------------------------------------------------------------------------------------------- commit */

/* Bits first .. last of word w that belong to the range of chunks [first, last]. */
static uint64_t word_mask(uint64_t w, uint64_t first, uint64_t last) {
    uint64_t mask = ~0ull;
    if (w == first / WORD_BITS) mask &= ~0ull << (first % WORD_BITS);
    if (w == last / WORD_BITS) mask &= ~0ull >> (WORD_BITS - 1 - last % WORD_BITS);
    return mask;
}

static int all_committed(const struct region *r, uint64_t first, uint64_t last) {
    for (uint64_t w = first / WORD_BITS; w <= last / WORD_BITS; w++) {
        uint64_t mask = word_mask(w, first, last);
        if ((load_acquire(&r->bits[w]) & mask) != mask) return 0; /* pairs with commit_run_locked */
    }
    return 1;
}

static int is_committed_locked(const struct region *r, uint64_t chunk) {
    return (int)(load_relaxed(&r->bits[chunk / WORD_BITS]) >> (chunk % WORD_BITS) &
                 1); /* written under this lock only */
}

/* Memory of this machine that its limits count; pages of hugetlb have their own pool. */
static int is_limited(const struct region *r) {
    return (r->backend->caps() & BACKEND_HOST_ACCESS) && r->mem.huge != BACKEND_2M && r->mem.huge != BACKEND_1G;
}

/* The one place that asks the backend for physical memory: whatever limits it is compared here.  All or nothing. */
static int commit_bytes_locked(struct region *r, uint64_t off, uint64_t end) {
    uint64_t left = UINT64_MAX, step = r->chunk > STEP ? r->chunk : STEP, at = off;
    int rc = is_limited(r) ? headroom_check(end - off, &left) : SYP_OK;
    if (left > FAR || r->mem.fd < 0) step = end - off; /* private memory is counted as it is touched: no use to look again */
    while (rc == SYP_OK && at < end) {
        uint64_t n = end - at < step ? end - at : step;
        if (at != off) rc = headroom_check(end - at, NULL);
        if (rc == SYP_OK) rc = r->backend->commit(&r->mem, at, n);
        if (rc == SYP_OK) at += n;
    }
    if (rc == SYP_OK || at == off) return rc;
    syp_error why = *err_record();
    (void)r->backend->decommit(&r->mem, off, at - off);
    *err_record() = why;
    return rc;
}

/* Chunks [first, last], none of them committed. */
static int commit_run_locked(struct region *r, uint64_t first, uint64_t last) {
    uint64_t off = first * r->chunk, end = (last + 1) * r->chunk;
    if (end > r->len) end = r->len;
    int rc = commit_bytes_locked(r, off, end);
    if (rc != SYP_OK) {
        err_prefix("pool of %B, %B committed, %B more", (unsigned long long)r->len, (unsigned long long)r->committed,
                   (unsigned long long)(end - off));
        return rc;
    }
    for (uint64_t w = first / WORD_BITS; w <= last / WORD_BITS; w++) /* release: pairs with all_committed */
        store_release(&r->bits[w], load_relaxed(&r->bits[w]) | word_mask(w, first, last));
    r->committed += end - off;
    if (r->committed > r->committed_peak) r->committed_peak = r->committed;
    publish_locked(r);
    return SYP_OK;
}

static int commit_missing_locked(struct region *r, uint64_t first, uint64_t last) {
    int rc = SYP_OK;
    for (uint64_t i = first; i <= last && rc == SYP_OK; i++) {
        if (is_committed_locked(r, i)) continue;
        uint64_t end = i;
        while (end < last && !is_committed_locked(r, end + 1))
            end++;
        rc = commit_run_locked(r, i, end);
        i = end;
    }
    return rc;
}

int region_is_committed(const struct region *r, uint64_t off, uint64_t len) {
    int shift = __builtin_ctzll(r->chunk);
    return all_committed(r, off >> shift, (off + len - 1) >> shift);
}

int region_commit(struct region *r, uint64_t off, uint64_t len) {
    if (len == 0) return SYP_OK;
    if (off > r->len || len > r->len - off)
        return err_set(SYP_EINVAL, "commit %llu bytes at offset %llu: the pool ends at %llu", (unsigned long long)len,
                       (unsigned long long)off, (unsigned long long)r->len);
    int shift = __builtin_ctzll(r->chunk);
    uint64_t first = off >> shift, last = (off + len - 1) >> shift;
    if (region_is_committed(r, off, len)) return SYP_OK;
    lock_take(&r->lock);
    int rc = commit_missing_locked(r, first, last);
    lock_drop(&r->lock);
    return rc;
}

/* Chunks [first, last], all committed, in which no block lies: bytes given back, 0 when the system refused. */
static uint64_t decommit_run_locked(struct region *r, uint64_t first, uint64_t last) {
    uint64_t off = first * r->chunk, end = (last + 1) * r->chunk;
    if (end > r->len) end = r->len;
    struct syp_error kept = *err_record();
    if (r->backend->decommit(&r->mem, off, end - off) != SYP_OK) {
        *err_record() = kept; /* memory stays where it is: no failure of the caller's */
        return 0;
    }
    for (uint64_t w = first / WORD_BITS; w <= last / WORD_BITS; w++)
        store_relaxed(&r->bits[w], load_relaxed(&r->bits[w]) & ~word_mask(w, first, last)); /* seen through the caller's lock */
    r->committed -= end - off;
    publish_locked(r);
    if (r->mem.fd >= 0) stats_add(STAT_PURGED, end - off);
    return end - off;
}

static int may_go_locked(struct region *r, uint64_t chunk, uint32_t tick, uint32_t age) {
    return is_committed_locked(r, chunk) && tick - load_relaxed(&r->freed[chunk]) >= age &&
           !quarantine_hits(&r->quarantine, chunk * r->chunk, r->chunk);
}

uint64_t region_decommit(struct region *r, uint64_t off, uint64_t len, uint32_t tick, uint32_t age, uint64_t most) {
    /* hugetlb pages were set aside when the file was mapped, and a peer that reads a hole of it could get SIGBUS */
    if (r->mem.huge == BACKEND_2M || r->mem.huge == BACKEND_1G) return 0;
    int shift = __builtin_ctzll(r->chunk);
    uint64_t first = (off + r->chunk - 1) >> shift, end = off + len == r->len ? r->n_chunks : (off + len) >> shift, given = 0;
    lock_take(&r->lock);
    for (uint64_t i = first; i < end && given < most; i++) {
        if (i % WORD_BITS == 0 && load_relaxed(&r->bits[i / WORD_BITS]) == 0) i += WORD_BITS - 1; /* most of a large pool */
        if (i >= end || !may_go_locked(r, i, tick, age)) continue;
        uint64_t last = i;
        while (last + 1 < end && (last + 1 - i) << shift < most - given && may_go_locked(r, last + 1, tick, age))
            last++;
        given += decommit_run_locked(r, i, last);
        i = last;
    }
    lock_drop(&r->lock);
    return given;
}
