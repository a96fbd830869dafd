/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How bytes reach a rank, as one table per transport.  Remote addresses are always {rank, segment, offset}. Collectives
 * see `reach` and this table, never a transport's name.  Shared memory is the first entry; others (UCX, TCP) are
 * modules with the same table, chosen where shared memory says REACH_NONE.
 */
#ifndef SYP_BOOTSTRAP_TRANSPORT_H
#define SYP_BOOTSTRAP_TRANSPORT_H

#include "bootstrap/peers.h"

enum transport_segment { SEGMENT_DATA = 0, SEGMENT_EXCHANGE = 1 };

struct transport_ops {
    const char *name;
    enum peer_reach (*reach)(const struct peers *p, int rank);
    /* Local address of a remote range for load and store; NULL when out of the segment or not reachable that way. */
    void *(*address)(const struct peers *p, int rank, enum transport_segment seg, uint64_t off, uint64_t len);
    /* Copies; SYP_OK, SYP_EINVAL (range outside the segment), SYP_EREACH (not reached). */
    int (*put)(const struct peers *p, int rank, enum transport_segment seg, uint64_t off, const void *src,
               uint64_t len);
    int (*get)(const struct peers *p, int rank, enum transport_segment seg, uint64_t off, void *dst, uint64_t len);
};

extern const struct transport_ops transport_shm;

#endif
