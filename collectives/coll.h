/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups and operations of one attached rank.  All state is in struct coll, so that ranks can also be threads of one process.
 *
 * An operation is a request: a small state machine whose step function runs until it is complete or must wait for a member's phase.
 * A blocking call runs it to the end (request_run); non-blocking forms can be built from the same steps.
 *
 *     request_begin -> step: post -> wait all posts -> check -> move data (phases) -> complete -> request_end
 */
#ifndef SYP_COLLECTIVES_COLL_H
#define SYP_COLLECTIVES_COLL_H

#include "bootstrap/life.h"
#include "bootstrap/peers.h"
#include "collectives/board.h"
#include "pool/stats.h"
#include "pool/symm.h"

enum op_kind {
    OP_NONE = 0,
    OP_BARRIER = STATS_OP_BARRIER,
    OP_BROADCAST = STATS_OP_BROADCAST,
    OP_ALLREDUCE = STATS_OP_ALLREDUCE,
    OP_SYMM_MALLOC = STATS_OP_SYMM_MALLOC,
    OP_COMM_CREATE = STATS_OP_COMM_CREATE,
    OP_FINALIZE = STATS_OP_FINALIZE
};
const char *op_name(int kind);

struct coll_conf {
    int64_t timeout_ns; /* default deadline of an operation */
    int64_t stall_ns;   /* first warning about a slow member; 0 = never */
    int64_t spin_ns;    /* how long to spin before sleeping */
    uint64_t staging;   /* bytes of a staging area, one per rank and group, equal on all ranks; multiple of the page size */
};

/* What this rank knows of a member of a group. */
struct comm_member {
    int rank;                      /* in the world */
    const struct comm_slot *slot;  /* its side of the group; own slot for ourselves */
    /* copied out of its post of the running operation, checked */
    uint32_t flags;
    uint64_t send_off, recv_off;
    uint64_t symm_calls, symm_digest;
};

struct comm {
    struct coll *coll;
    int in_use;
    int slot;                  /* 0 = world */
    int n, me;                 /* members; our number among them */
    struct comm_member *member; /* n, map_alloc'ed */
    int *rank;                 /* n: the members' ranks in the world, in the same memory */
    struct comm_slot *own;
    uint64_t id;               /* slot | start phase << 8: never the same twice among ranks that could meet */
    uint64_t phase;            /* ours, as published */
    uint64_t sequence;         /* operations begun */
    uint64_t symm_agreed;      /* symmetric calls known to be equal on all members */
    atom32 busy;               /* 1 = a thread is inside an operation; acquire/release: request_take / request_release */
    int broken;                /* SYP_E* of the operation that broke the group */
    syp_error why;             /* its record */
};

struct coll {
    struct peers *peers;
    struct symm *symm;
    struct coll_conf conf;
    struct lock lock;          /* LOCK_COMM: in_use of comm[] */
    /* comm[0] is the world.  Part of this struct, and not cleared by coll_close, so that a late caller finds a busy group, not freed memory. */
    struct comm comm[COMM_SLOTS];
    uint8_t staging_ready[COMM_SLOTS]; /* 1 once the group's staging area has memory; used by the one thread inside the group */
};

/* What the control and exchange segments must hold.  Staging areas lie at slot * staging; memory is committed when one is first used. */
static inline uint64_t coll_board_size(void) { return sizeof(struct board); }
static inline uint64_t coll_exchange_size(uint64_t staging) { return COMM_SLOTS * staging; }

int coll_open(struct coll *c, struct peers *p, struct symm *s, const struct coll_conf *conf);
void coll_close(struct coll *c);
/* Bytes of staging areas that have memory. */
uint64_t coll_staging_bytes(const struct coll *c);
/* Take every group for good, before finalize: SYP_OK, or SYP_EBUSY when a thread is inside an operation. */
int coll_claim(struct coll *c);

/* Groups (comm.c) */
int comm_create(struct comm *parent, const int *ranks, int n, struct comm **out);
int comm_destroy(struct comm *c);
/* Publish the next phase and wake members that sleep on it. */
void comm_publish(struct comm *c);
/* The group is over: remember and publish why, wake everybody.  Returns code, the calling thread's record is set. */
int comm_break(struct comm *c, int code, int culprit, uint64_t sequence);

/* Operations.  timeout_ns: 0 = the default. */
int coll_barrier(struct comm *c, int64_t timeout_ns);
/* The barrier of finalize; the groups are claimed. */
int coll_finalize(struct comm *world, int64_t timeout_ns);
int coll_broadcast(struct comm *c, void *buf, size_t len, int root, int64_t timeout_ns);
int coll_allreduce(struct comm *c, const void *send, void *recv, size_t count, int dtype, int op, int64_t timeout_ns);
/* Agreed symmetric allocation over the world: offset, or SPACE_NONE with the record set. */
uint64_t coll_symm_alloc(struct coll *c, uint64_t len, uint64_t align, uint32_t scope);

#endif
