/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks of one host whose roster is made by hand: everything the bootstrap does after the rendezvous, for tests of its
 * parts.
 */
#ifndef TESTS_LOCAL_WORLD_H
#define TESTS_LOCAL_WORLD_H

#include "bootstrap/life.h"
#include "bootstrap/peers.h"

#define LOCAL_BODY 4096u
#define LOCAL_EXCHANGE (256u << 10)
#define LOCAL_DATA (1u << 20)

struct local_rank {
    struct roster roster;
    struct region region;
    struct peers peers;
    struct keeper keeper;
    int opened; /* region */
};

/* A roster of n ranks on one host, with this process's pid for all; the caller overwrites what differs. */
int local_roster(struct roster *r, int n, uint64_t nonce);
/* The sizes of the segments that such a roster names. */
struct peers_layout local_layout(void);

/* Windows, pool, own segments (zero l first).  Takes the roster over, also on failure.  SYP_OK or the code of what
 * failed, undone. */
int local_open(struct local_rank *l, const struct roster *roster, int me);
/* Keeper and peers on top. */
int local_join(struct local_rank *l, uint64_t deadline);
/* Both. */
int local_up(struct local_rank *l, const struct roster *roster, int me, uint64_t deadline);
/* From any state. */
void local_down(struct local_rank *l);

/* With the fake OS on: descriptors, mappings and threads are all given back. */
void local_nothing_left(void);

#endif
