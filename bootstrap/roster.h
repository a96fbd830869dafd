/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The roster: what every rank knows of every rank after the join.  Same bytes everywhere; sent by rank 0.
 */
#ifndef SYP_BOOTSTRAP_ROSTER_H
#define SYP_BOOTSTRAP_ROSTER_H

#include <stdint.h>

#define MAX_WORLD 1024

#define ROSTER_UNSEALED 1u /* memfd is refused there: its segments are files of /dev/shm, which cannot be sealed */
#define ROSTER_FENCES 2u   /* its kernel cannot fence the ranks' threads: everybody does it in each operation (collectives/fence.h) */
#define ROSTER_FLAGS (ROSTER_UNSEALED | ROSTER_FENCES)

struct roster_entry {
    int32_t rank;
    int32_t pid;
    uint32_t uid;
    uint32_t generation;     /* epoch in which this process took the rank */
    uint64_t start_ticks;    /* of the process, guards pid reuse */
    uint64_t host_id[2];     /* digest of boot id and of the pid, user, ipc and net namespaces */
    uint64_t local_mem_size; /* rounded */
    uint64_t meta_size;
    uint64_t data_len;       /* bytes of the data segment file */
    uint64_t control_len, exchange_len;
    uint32_t flags;          /* ROSTER_* */
    int32_t cache_group;     /* cache_group.h: on one host, the same for ranks that share a cache */
    int32_t host_index;      /* 0 .. n_hosts - 1, in order of first rank; filled by rank 0 */
    char addr[80];           /* as rank 0 saw it, for messages */
};

struct roster {
    int n;                    /* world size */
    int n_hosts;
    uint64_t nonce;           /* of this job instance, never 0 */
    uint32_t epoch;           /* 1; counts up with every rejoin */
    struct roster_entry *rank; /* n entries, map_alloc'ed */
};

void roster_free(struct roster *r);
static inline int roster_same_host(const struct roster *r, int a, int b) {
    return r->rank[a].host_index == r->rank[b].host_index;
}

#endif
