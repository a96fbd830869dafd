/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transport of one host: a rank's memory is mapped here, so that moving bytes is memcpy.
 *
 * Invariant: no address outside the peer's segment is ever formed; offsets and lengths may come from a peer and are
 * checked as such. Must not know: what the bytes mean, and when they may be moved (waiting is the caller's).
 */
#include "bootstrap/transport.h"

#include "pool/base/status.h"

#include <string.h>

static enum peer_reach shm_reach(const struct peers *p, int rank) {
    return rank >= 0 && rank < p->n ? p->peer[rank].reach : REACH_NONE;
}

/* Start and length of a segment; NULL when there is none. */
static char *segment_of(const struct peer *peer, enum transport_segment seg, uint64_t *len) {
    *len = seg == SEGMENT_DATA ? peer->data_len : peer->exchange_len;
    return seg == SEGMENT_DATA ? peer->data : peer->exchange;
}

static void *shm_address(const struct peers *p, int rank, enum transport_segment seg, uint64_t off, uint64_t len) {
    uint64_t seg_len;
    if (shm_reach(p, rank) != REACH_LOADSTORE) return NULL;
    char *base = segment_of(&p->peer[rank], seg, &seg_len);
    return base && off <= seg_len && len <= seg_len - off ? base + off : NULL;
}

static int refused(const struct peers *p, int rank, enum transport_segment seg, uint64_t off, uint64_t len) {
    uint64_t seg_len;
    if (shm_reach(p, rank) != REACH_LOADSTORE)
        return err_set(SYP_EREACH, "reach rank %d of %d through shared memory: it is not mapped here", rank,
                       p->n);
    (void)segment_of(&p->peer[rank], seg, &seg_len);
    return err_set(SYP_EINVAL, "reach bytes %llu + %llu of the %s segment of rank %d: it has %llu bytes",
                   (unsigned long long)off, (unsigned long long)len, seg == SEGMENT_DATA ? "data" : "exchange", rank,
                   (unsigned long long)seg_len);
}

static int shm_put(const struct peers *p, int rank, enum transport_segment seg, uint64_t off, const void *src,
                   uint64_t len) {
    void *dst = shm_address(p, rank, seg, off, len);
    if (!dst) return refused(p, rank, seg, off, len);
    if (len) memcpy(dst, src, len);
    return SYP_OK;
}

static int shm_get(const struct peers *p, int rank, enum transport_segment seg, uint64_t off, void *dst, uint64_t len) {
    const void *src = shm_address(p, rank, seg, off, len);
    if (!src) return refused(p, rank, seg, off, len);
    if (len) memcpy(dst, src, len);
    return SYP_OK;
}

const struct transport_ops transport_shm = {
    .name = "shm", .reach = shm_reach, .address = shm_address, .put = shm_put, .get = shm_get};
