/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All pools of the job as this process sees them: three windows of address space (data, control, exchange), each
 * n_ranks strides long, with every local rank's segment mapped at rank * stride.  The only place that knows which ranks
 * are on this host.
 *
 *   data      the pool (backend memory), peers map it read-write
 *   control   flags and states, owner writes, peers map it read-only
 *   exchange  staging area of collectives (and later signal words): peers write into it, nothing in it is trusted
 */
#ifndef SYP_BOOTSTRAP_PEERS_H
#define SYP_BOOTSTRAP_PEERS_H

#include "bootstrap/control.h"
#include "bootstrap/roster.h"
#include "pool/region.h"

enum peer_reach { REACH_NONE = 0, REACH_LOADSTORE = 1 };

/* One rank as seen from here. */
struct peer {
    const struct control_head *control; /* NULL when not reached */
    char *data;
    char *exchange;
    uint64_t data_len, exchange_len;
    enum peer_reach reach;
    struct backend_region imported; /* data of a peer, for unimport */
};

struct segment { /* one of this rank's own small segments */
    void *base;
    uint64_t len;
    int fd;
};

/* Sizes of the small segments; the body sizes are the collectives' (equal on all ranks). */
struct peers_layout {
    uint64_t control_body;
    uint64_t control_first; /* bytes of it that get memory at once, 0 = all; the rest by peers_commit_control */
    uint64_t exchange_len;
    /* Room for ranks that join later: pools up to max_data_len, ranks up to max_ranks; 0 = as the roster has them. */
    uint64_t max_data_len;
    int max_ranks;
    const unsigned long *nodes; /* NUMA nodes of this rank, where its small segments go; NULL = wherever the kernel puts them */
    unsigned long max_node;
};

struct peers {
    int n, me;
    int cap; /* ranks that the windows have room for, >= n */
    struct peers_layout layout;
    struct roster roster;
    struct peer *peer; /* cap, map_alloc'ed */
    char *data_window, *control_window, *exchange_window;
    uint64_t data_stride, control_stride, exchange_stride;
    struct control_head *self;        /* own control segment, writable */
    struct segment control, exchange; /* own */
    struct region *region;            /* own pool, inside the data window */
    int n_local, n_processors; /* ranks on this host; processors that all of them together could run on when they were mapped */
    atom32 crowded;         /* more local ranks than processors: waits yield at once; known after peers_map, kept up by crowd.c */
    atom64 next_crowd_look; /* ns: crowd_look */
};

/* Steps of the attach, in this order; each names what undoes it. */

/* Look at the roster, reserve the windows.  The roster's table stays the caller's and must outlive p.  SYP_OK,
 * SYP_ENOMEM, SYP_EJOIN, SYP_EINVAL.  Undo: peers_release. */
int peers_reserve(struct peers *p, const struct roster *roster, int me, const struct peers_layout *layout);
/* Where this rank's pool must be opened (region_conf.at). */
void *peers_pool_place(const struct peers *p);
/* Make the own control and exchange segments, sealed.  own: the pool, opened at peers_pool_place with the roster's
 * length.  SYP_OK, SYP_ENOMEM, SYP_ESYS, SYP_EINVAL.  Undo: peers_close_segments. */
int peers_open_segments(struct peers *p, struct region *own);
/* Exchange descriptors with the ranks of this host and map them.  SYP_OK; what fdpass_exchange returns; SYP_EJOIN (a
 * peer's segment is not what the roster says), SYP_ENOMEM.  On failure nothing stays mapped.  Undo: peers_unmap. */
int peers_map(struct peers *p, uint64_t deadline);

/*
 * Later: some ranks are other processes than before, or new (rejoin).  Two steps, so that nobody looks at a rank while it is taken out:
 * peers_check_roster: can they be taken in?  SYP_OK; SYP_EBUSY (the former process of a rank still lives); SYP_EINVAL (more ranks, or a larger pool,
 * than the windows have room for); SYP_EJOIN.  Changes nothing.  peers_renew: unmap them and map the new ones.  The roster's table as in
 * peers_reserve, also when it fails: ranks that could not be mapped are then not reached.  Returns as peers_map.
 */
int peers_check_roster(const struct peers *p, const struct roster *roster, uint64_t deadline);
int peers_renew(struct peers *p, const struct roster *roster, uint64_t deadline);
/* Does the process of this entry still run?  Its pid may be another's by now. */
int peers_process_lives(const struct roster_entry *e);
/* Is `rank` of this roster the process that is mapped here? */
int peers_same_process(const struct peers *p, const struct roster *roster, int rank);

/* Memory for a part of the own exchange segment: SYP_OK, SYP_ENOMEM. */
int peers_commit_exchange(const struct peers *p, uint64_t off, uint64_t len);
/* The same for a part of the body of the own control segment. */
int peers_commit_control(const struct peers *p, uint64_t off, uint64_t len);

/* The undoing ones take any state, partial and undone too, and p all zero.  Each undoes the later steps first. */
void peers_unmap(struct peers *p);
void peers_close_segments(struct peers *p);
void peers_release(struct peers *p);

/* Body of a rank's control segment; NULL when not reached. */
static inline const void *peers_control_body(const struct peers *p, int rank) {
    const struct control_head *c = p->peer[rank].control;
    return c ? (const char *)c + sizeof(struct control_head) : 0;
}
static inline void *peers_own_body(const struct peers *p) {
    return (char *)p->self + sizeof(struct control_head);
}

/* Equal on two ranks if and only if (but for chance) all windows lie at the same addresses there. */
uint64_t peers_window_digest(const struct peers *p);

#endif
