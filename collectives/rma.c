/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Put and get: the range is checked, the address is one subtraction and one table look-up away, and the rest is memcpy.
 * Must not know: groups.
 */
#include "collectives/rma.h"
#include "pool/base/status.h"

#include <string.h>

static int lives(const struct coll *k, int rank) {
    return (unsigned)rank < (unsigned)k->peers->n && k->peers->peer[rank].reach == REACH_LOADSTORE && !life_of(k->peers, rank);
}

/* [at, at + len) inside both pools. */
static int inside(const struct coll *k, const void *at, uint64_t len, int rank) {
    const struct region *own = k->peers->region;
    uint64_t off = (uint64_t)((uintptr_t)at - (uintptr_t)own->mem.base), his = k->peers->peer[rank].data_len;
    uint64_t most = own->len < his ? own->len : his;
    return off <= most && len <= most - off;
}

static int refuse_rank(const struct coll *k, const char *call, int rank) {
    const struct peers *p = k->peers;
    if (rank < 0 || rank >= p->n) {
        err_set(SYP_EINVAL, "%s: rank is %d, outside 0 .. %d", call, rank, p->n - 1);
        return err_operation(call);
    }
    int pid = p->roster.rank[rank].pid, reason = life_of(p, rank);
    if (p->peer[rank].reach != REACH_LOADSTORE)
        err_set(SYP_EREACH, "%s: rank %d is on another host, whose memory is not reached from here", call, rank);
    else
        err_set(SYP_EPEER, "%s: rank %d (pid %d) %s", call, rank, pid, reason == LIFE_REASON_LEFT ? "has left the job" : "died");
    err_operation(call);
    return err_peer(rank, pid);
}

char *rma_place(const struct coll *k, const char *call, const char *name, const void *at, uint64_t len, int rank) {
    if (__builtin_expect(lives(k, rank) && inside(k, at, len, rank), 1))
        return k->peers->peer[rank].data + ((uintptr_t)at - (uintptr_t)k->peers->region->mem.base);
    if (!lives(k, rank)) {
        refuse_rank(k, call, rank);
        return NULL;
    }
    if (len == 0) return k->peers->peer[rank].data;
    err_set(SYP_EINVAL, "%s: %s is %p with len %llu, not inside the pools of both ranks: that of rank %d begins at %p and has %llu bytes, that of rank %d has "
                        "%llu; give the address of the same offset in the own pool", call, name, at, (unsigned long long)len, k->peers->me,
            (void *)k->peers->region->mem.base, (unsigned long long)k->peers->region->len, rank, (unsigned long long)k->peers->peer[rank].data_len);
    err_operation(call);
    return NULL;
}

static int refuse_null(const char *call, const char *name, uint64_t len) {
    err_set(SYP_EINVAL, "%s: %s is NULL with len %llu", call, name, (unsigned long long)len);
    return err_operation(call);
}

static inline void copy(const struct coll *k, void *dst, const void *src, uint64_t len, int rank) {
    if (__builtin_expect(rank == k->peers->me, 0)) /* the two may overlap */
        memmove(dst, src, len);
    else if (len)
        memcpy(dst, src, len);
}

int rma_put(const struct coll *k, const char *call, void *dst, const void *src, uint64_t len, int rank) {
    char *there = rma_place(k, call, "dst", dst, len, rank);
    if (!there) return err_record()->code;
    if (!src && len) return refuse_null(call, "src", len);
    copy(k, there, src, len, rank);
    return SYP_OK;
}

int rma_get(const struct coll *k, void *dst, const void *src, uint64_t len, int rank) {
    const char *there = rma_place(k, "get", "src", src, len, rank);
    if (!there) return err_record()->code;
    if (!dst && len) return refuse_null("get", "dst", len);
    copy(k, dst, there, len, rank);
    return SYP_OK;
}
