/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sympool-topo.so: which processors and NUMA nodes belong to a rank, by hwloc and libnuma.
 *
 * A module of its own, with nothing of the library in it but topo.h: it may allocate and use stdio, and is called at
 * attach or by the launcher only.  The answers are a pure function of the topology, the affinity of the process,
 * local_rank and local_size, so that ranks need not talk to each other to get shares that do not overlap.
 */
#include "pool/topo/topo.h"

#include <hwloc.h>
#include <numa.h>
#include <numaif.h>

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define WORD_BITS (8 * sizeof(unsigned long))
#define MOST_NODES (TOPO_MASK_WORDS * WORD_BITS)

static int load(const char *synthetic, hwloc_topology_t *out, const char **why) {
    hwloc_topology_t t;
    *why = "hwloc cannot start";
    if (hwloc_topology_init(&t) != 0) return -1;
    int rc = 0;
    if (synthetic) {
        size_t len = strlen(synthetic);
        int xml = len > 4 && strcmp(synthetic + len - 4, ".xml") == 0;
        rc = xml ? hwloc_topology_set_xml(t, synthetic) : hwloc_topology_set_synthetic(t, synthetic);
        *why = xml ? "hwloc cannot read the XML topology" : "hwloc does not understand the synthetic topology";
    }
    if (rc == 0) {
        /* only processors, cores and nodes are asked for: the rest costs most of the time */
        hwloc_topology_set_io_types_filter(t, HWLOC_TYPE_FILTER_KEEP_NONE);
        hwloc_topology_set_cache_types_filter(t, HWLOC_TYPE_FILTER_KEEP_NONE);
        rc = hwloc_topology_load(t);
        if (rc != 0 && !synthetic) *why = "hwloc cannot read the topology of this machine";
    }
    if (rc != 0) {
        hwloc_topology_destroy(t);
        return -1;
    }
    *out = t;
    return 0;
}

/* Processors this process may run on.  *bound = 1 when somebody chose fewer than the machine (or its container) has. */
static hwloc_bitmap_t allowed_processors(hwloc_topology_t t, int *bound) {
    hwloc_const_bitmap_t all = hwloc_topology_get_topology_cpuset(t);
    hwloc_bitmap_t set = hwloc_bitmap_dup(all);
    *bound = 0;
    if (!set || !hwloc_topology_is_thissystem(t)) return set;
    hwloc_bitmap_t own = hwloc_bitmap_alloc();
    if (own && hwloc_get_cpubind(t, own, HWLOC_CPUBIND_PROCESS) == 0 && hwloc_bitmap_intersects(own, all)) {
        hwloc_bitmap_and(set, own, all);
        *bound = !hwloc_bitmap_isequal(set, all);
    }
    hwloc_bitmap_free(own);
    return set;
}

/* Objects of a type that have a processor in the set. */
static unsigned count_inside(hwloc_topology_t t, hwloc_obj_type_t type, hwloc_const_bitmap_t set) {
    unsigned n = 0;
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_obj_by_type(t, type, o)) != NULL;)
        n += (unsigned)hwloc_bitmap_intersects(o->cpuset, set);
    return n;
}

/*
 * Keep the share of `rank` of `size`: neighbours in logical order, whole cores while there are enough, else single
 * hardware threads, which several ranks share when there are more ranks still.
 */
static int cut_share(hwloc_topology_t t, hwloc_bitmap_t set, int rank, int size) {
    hwloc_obj_type_t type = HWLOC_OBJ_CORE;
    uint64_t n = count_inside(t, type, set);
    if (n < (uint64_t)size) n = count_inside(t, type = HWLOC_OBJ_PU, set);
    uint64_t first = (uint64_t)rank * n / (uint64_t)size, end = ((uint64_t)rank + 1) * n / (uint64_t)size, i = 0;
    if (end == first) end = first + 1;
    hwloc_bitmap_t share = hwloc_bitmap_alloc();
    if (!share || n == 0) {
        hwloc_bitmap_free(share);
        return -1;
    }
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_obj_by_type(t, type, o)) != NULL;) {
        if (!hwloc_bitmap_intersects(o->cpuset, set)) continue;
        if (i >= first && i < end) hwloc_bitmap_or(share, share, o->cpuset);
        i++;
    }
    hwloc_bitmap_and(set, set, share);
    hwloc_bitmap_free(share);
    return 0;
}

/* The processors of this rank.  share_when_bound = 0: an affinity that somebody set already is this rank's whole share.
 */
static hwloc_bitmap_t choose(hwloc_topology_t t, int rank, int size, int share_when_bound, const char **why) {
    int bound;
    hwloc_bitmap_t set = allowed_processors(t, &bound);
    *why = "no memory for a set of processors";
    if (!set) return NULL;
    if (size > 1 && (!bound || share_when_bound) && cut_share(t, set, rank, size) != 0) {
        *why = "hwloc found no processor that this process may run on";
        hwloc_bitmap_free(set);
        return NULL;
    }
    return set;
}

static int check_rank(int rank, int size, const char **why) {
    if (size >= 1 && rank >= 0 && rank < size) return 0;
    *why = "rank or number of ranks on this host is out of range";
    return -1;
}

/* Nodes whose memory the process may not use (cpuset.mems) are left out: asking for them makes mbind fail as a whole.
 * Where the question is refused (docker's seccomp filter) libnuma would say none, and write to stderr. */
static void keep_permitted(hwloc_bitmap_t nodes) {
    if (get_mempolicy(NULL, NULL, 0, NULL, 0) != 0 || numa_available() < 0) return;
    struct bitmask *permitted = numa_get_mems_allowed();
    if (!permitted) return;
    int most = numa_max_node();
    for (int node = hwloc_bitmap_first(nodes); node >= 0; node = hwloc_bitmap_next(nodes, node))
        if (node > most || !numa_bitmask_isbitset(permitted, (unsigned)node)) hwloc_bitmap_clr(nodes, (unsigned)node);
    numa_bitmask_free(permitted);
}

/* Nodes without memory are left out: they hold nothing, and mbind refuses a mask of them alone. */
static void keep_with_memory(hwloc_topology_t t, hwloc_bitmap_t nodes) {
    int known = 0; /* a machine may not tell how much its nodes have */
    for (hwloc_obj_t o = NULL; (o = hwloc_get_next_obj_by_type(t, HWLOC_OBJ_NUMANODE, o)) != NULL;)
        known |= o->attr->numanode.local_memory != 0;
    for (hwloc_obj_t o = NULL; known && (o = hwloc_get_next_obj_by_type(t, HWLOC_OBJ_NUMANODE, o)) != NULL;)
        if (o->attr->numanode.local_memory == 0) hwloc_bitmap_clr(nodes, o->os_index);
}

static int fill_place(hwloc_topology_t t, hwloc_const_bitmap_t set, struct topo_place *out, const char **why) {
    char node_list[24], processors[48];
    hwloc_bitmap_t nodes = hwloc_bitmap_alloc();
    *why = "no memory for a set of nodes";
    if (!nodes) return -1;
    hwloc_cpuset_to_nodeset(t, set, nodes);
    keep_with_memory(t, nodes);
    if (hwloc_topology_is_thissystem(t)) keep_permitted(nodes);
    int last = hwloc_bitmap_last(nodes);
    if (last < 0 || (size_t)last >= MOST_NODES) {
        *why = last < 0 ? "none of the NUMA nodes of this rank's processors has memory that may be used"
                        : "the NUMA node has too high a number";
        hwloc_bitmap_free(nodes);
        return -1;
    }
    memset(out, 0, sizeof *out);
    for (int node = hwloc_bitmap_first(nodes); node >= 0; node = hwloc_bitmap_next(nodes, node))
        out->nodes[(size_t)node / WORD_BITS] |= 1ul << ((size_t)node % WORD_BITS);
    out->max_node = (unsigned long)last + 2; /* mbind looks at one bit less than it is told */
    out->n_nodes = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_NUMANODE);
    hwloc_bitmap_list_snprintf(node_list, sizeof node_list, nodes);
    hwloc_bitmap_list_snprintf(processors, sizeof processors, set);
    snprintf(out->text, sizeof out->text, "%s %s of %d, processors %s",
             hwloc_bitmap_weight(nodes) == 1 ? "node" : "nodes", node_list, out->n_nodes, processors);
    hwloc_bitmap_free(nodes);
    return 0;
}

static int place(const char *synthetic, int local_rank, int local_size, struct topo_place *out, const char **why) {
    hwloc_topology_t t;
    if (check_rank(local_rank, local_size, why) != 0 || load(synthetic, &t, why) != 0) return -1;
    hwloc_bitmap_t set = choose(t, local_rank, local_size, 0, why);
    int rc = set ? fill_place(t, set, out, why) : -1;
    hwloc_bitmap_free(set);
    hwloc_topology_destroy(t);
    return rc;
}

static int processors(const char *synthetic, int local_rank, int local_size, char *list, size_t cap, const char **why) {
    hwloc_topology_t t;
    if (check_rank(local_rank, local_size, why) != 0 || load(synthetic, &t, why) != 0) return -1;
    hwloc_bitmap_t set = choose(t, local_rank, local_size, 1, why);
    int rc = -1;
    if (set) {
        int len = hwloc_bitmap_list_snprintf(list, cap, set);
        rc = len > 0 && (size_t)len < cap ? 0 : -1;
        if (rc != 0) *why = "the list of processors is too long";
    }
    hwloc_bitmap_free(set);
    hwloc_topology_destroy(t);
    return rc;
}

__attribute__((visibility("default"))) extern const struct topo_ops sympool_topo;
const struct topo_ops sympool_topo = {.abi = TOPO_ABI, .place = place, .processors = processors};
