/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One rank's membership in a job: everything between syp_init and syp_finalize, and the one table that knows the order.
 *
 * A struct world is complete in itself, so that the tests can run ranks as threads.  `process` worlds also own what a process has only one
 * of: statistics segment, address map, rank in the log prefix.
 */
#ifndef SYP_ALLOCATOR_ATTACH_H
#define SYP_ALLOCATOR_ATTACH_H

#include "allocator/pools.h"
#include "bootstrap/life.h"
#include "bootstrap/rendezvous.h"
#include "collectives/coll.h"
#include "pool/topo/topo.h"

struct world {
    int process;              /* 1 = the world of this process */
    const struct backend_ops *backend; /* what the pool is made of; set before world_attach, NULL = host memory */
    syp_config asked;         /* as given; pointers not kept */
    struct launch who;
    uint64_t local_mem_size, meta_size; /* as resolved, not yet rounded */
    uint64_t deadline;        /* of the join */
    uint64_t started;         /* ns */
    struct topo_place place;
    int placed;               /* 1 = place is to be used */
    struct region_conf region_conf;
    struct coll_conf coll_conf;
    struct roster roster;     /* its table is the peers' too */
    struct star *star;
    struct peers peers;
    struct pool *pool;
    struct keeper keeper;
    int claim_fd;             /* the claim on the rank; -1 = none */
    int steps;                /* of the table, done */
    int same_va;
    struct coll coll;         /* last: outlives the attach, a late caller finds its groups taken */
};

/* Attach.  asked: complete but for what the environment gives.  On failure everything is undone. */
int world_attach(struct world *w, const syp_config *asked);
/* Leave: barrier with the peers (bounded), then undo every step.  Returns the barrier's verdict. */
int world_detach(struct world *w);
/* Undo without telling anybody, as if the process had been killed (tests). */
void world_vanish(struct world *w);
/* Meet again, with replacements for ranks that died, and more ranks up to n_ranks (0 = as many as now); see syp_rejoin.  timeout_ns 0 = the join's. */
int world_rejoin(struct world *w, int n_ranks, int64_t timeout_ns);
/* SYP_OK, or SYP_ESTATE with the list of differences between what was asked and what this world is. */
int world_same(const struct world *w, const syp_config *asked);

/* Number and names of the steps, for the tests that fail each. */
int world_step_count(void);
const char *world_step_name(int step);

#endif
