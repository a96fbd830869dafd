/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Placement, through the module sympool-topo.so (hwloc + libnuma), which is opened at attach only when placement is asked for, so that the
 * library itself needs libc alone.  The module exports one symbol, `sympool_topo`, a struct topo_ops.
 * Without the module, or on a machine with one node: unbound, one line at level info.
 */
#ifndef SYP_POOL_TOPO_H
#define SYP_POOL_TOPO_H

#include <stddef.h>

#define TOPO_ABI 1u
#define TOPO_MASK_WORDS 16 /* 1,024 nodes */

struct topo_place {
    unsigned long nodes[TOPO_MASK_WORDS]; /* NUMA nodes for mbind */
    unsigned long max_node;               /* for mbind: highest node of the mask + 2, since it looks at one bit less */
    int n_nodes;                          /* nodes of the machine */
    char text[96];                        /* "node 1 of 2, processors 8-15" */
};

struct topo_ops {
    unsigned abi; /* TOPO_ABI */
    /* Node(s) of the processors this process may run on.  local_rank / local_size choose a share when the process is not bound.
     * synthetic: an hwloc synthetic or XML topology for tests, NULL = the machine.  0, or -1 with *why set to a static text. */
    int (*place)(const char *synthetic, int local_rank, int local_size, struct topo_place *out, const char **why);
    /* Processors of that share as a list ("0-3,8"), for the launcher's binding. */
    int (*processors)(const char *synthetic, int local_rank, int local_size, char *list, size_t cap, const char **why);
};

/* Place memory, all of a mapping, on these nodes; of a shared file for whoever touches it first, the peers too.  Before anything of it is touched or committed.
 * Soft: a full node must not kill the process, as MPOL_BIND would.  0 or -errno. */
int topo_bind(void *at, size_t len, const unsigned long *nodes, unsigned long max_node);

/* Open the module if it is there: in dir (NULL = SYMPOOL_MODULE_DIR), then beside the library (modules/), then in its installed place
 * (sympool/ beside the library).  NULL with *why set to a static text when it is not usable. */
const struct topo_ops *topo_open(const char *dir, const char **why);

#endif
