/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Placement on machines that are not this one: the files of tests/unit/topologies, as lstopo --of xml wrote them from a description.
 * Which node and which processors each rank gets is worked out here a second time, from the shape of the machine alone.
 */
#include "pool/topo/topo.h"

#include "tests/support/check.h"

#include <stdlib.h>

#define MOST_RANKS 16

/* Parts in the order of the machine, processors numbered through it. */
struct machine {
    const char *file;
    int threads; /* of a core */
    int n_parts;
    struct {
        int node, cores, first_processor, memory;
    } part[8];
};

static const struct machine machines[] = {
    {"two_nodes", 2, 2, {{0, 4, 0, 1}, {1, 4, 8, 1}}},
    {"eight_nodes", 1, 8, {{0, 2, 0, 1}, {1, 2, 2, 1}, {2, 2, 4, 1}, {3, 2, 6, 1}, {4, 2, 8, 1}, {5, 2, 10, 1}, {6, 2, 12, 1}, {7, 2, 14, 1}}},
    /* 4, 1 and 3 cores: some are switched off */
    {"asymmetric", 1, 3, {{0, 4, 0, 1}, {1, 1, 4, 1}, {2, 3, 8, 1}}},
    {"memoryless", 1, 4, {{0, 2, 0, 1}, {1, 2, 2, 0}, {2, 2, 4, 1}, {3, 2, 6, 0}}},
    /* the cpuset of a container: the second half of one node, the first half of the other */
    {"container", 2, 2, {{0, 2, 4, 1}, {1, 2, 8, 1}}},
};

static const struct topo_ops *module(void) {
    char dir[1024];
    const char *why = "", *build = getenv("B");
    snprintf(dir, sizeof dir, "%s/modules", build && *build ? build : "build");
    const struct topo_ops *ops = topo_open(dir, &why);
    if (CHECK(ops != NULL)) return ops;
    fprintf(stderr, "%s: %s\n", dir, why);
    exit(1);
}

static void path_of(const struct machine *m, char *path, size_t cap) {
    snprintf(path, cap, "tests/unit/topologies/%s.xml", m->file);
}

struct share {
    unsigned long nodes;
    uint8_t processor[64];
    int n_processors;
};

/* Cores while there are enough, else threads: neighbours, r * n / size to (r + 1) * n / size, at least one. */
static struct share share_of(const struct machine *m, int rank, int size) {
    struct share s = {0};
    int n_cores = 0;
    for (int p = 0; p < m->n_parts; p++)
        n_cores += m->part[p].cores;
    int unit = n_cores >= size ? m->threads : 1, n = n_cores * m->threads / unit;
    int first = rank * n / size * unit, end = (rank + 1) * n / size * unit, at = 0;
    if (end == first) end = first + unit;
    for (int p = 0; p < m->n_parts; p++)
        for (int i = 0; i < m->part[p].cores * m->threads; i++, at++) {
            if (at < first || at >= end) continue;
            s.processor[m->part[p].first_processor + i] = 1;
            s.n_processors++;
            if (m->part[p].memory) s.nodes |= 1ul << m->part[p].node;
        }
    return s;
}

static void check_processors(const char *list, const struct share *want) {
    int n = 0;
    for (const char *p = list; *p;) {
        char *end;
        long first = strtol(p, &end, 10), last = first;
        if (*end == '-') last = strtol(end + 1, &end, 10);
        for (; first <= last; first++, n++)
            CHECK(first >= 0 && first < 64 && want->processor[first]);
        p = *end == ',' ? end + 1 : end;
    }
    CHECK_EQ(n, want->n_processors);
}

static void check_rank(const struct topo_ops *ops, const struct machine *m, int rank, int size) {
    struct topo_place p;
    char path[128], list[256] = "";
    const char *why = "";
    struct share want = share_of(m, rank, size);
    unsigned before = check_failures();
    path_of(m, path, sizeof path);
    CHECK_EQ(ops->processors(path, rank, size, list, sizeof list, &why), 0);
    check_processors(list, &want);
    if (want.nodes == 0) {
        CHECK_EQ(ops->place(path, rank, size, &p, &why), -1);
        CHECK_HAS(why, "has memory");
    } else if (CHECK(ops->place(path, rank, size, &p, &why) == 0)) {
        CHECK_EQ(p.nodes[0], want.nodes);
        CHECK_EQ(p.n_nodes, m->n_parts);
        /* the highest node is the last bit that mbind looks at: bits 0 .. max_node - 2 */
        CHECK_EQ(p.max_node, 64 - __builtin_clzl(want.nodes) + 1);
        CHECK_HAS(p.text, list);
    }
    if (check_failures() != before) fprintf(stderr, "  that was rank %d of %d on %s: \"%s\" %s\n", rank, size, path, list, why);
}

static void every_rank_of_1_to_16(void) {
    const struct topo_ops *ops = module();
    for (size_t i = 0; i < sizeof machines / sizeof machines[0]; i++)
        for (int size = 1; size <= MOST_RANKS; size++)
            for (int rank = 0; rank < size; rank++)
                check_rank(ops, &machines[i], rank, size);
}

/* As many ranks as nodes, or a multiple: one node each, and each node the same number of ranks. */
static void whole_ranks_stay_on_one_node(void) {
    const struct topo_ops *ops = module();
    for (int i = 0; i < 2; i++) {
        const struct machine *m = &machines[i];
        for (int per = 1; per * m->n_parts <= MOST_RANKS; per *= 2) {
            int ranks_on[8] = {0}, size = per * m->n_parts;
            for (int rank = 0; rank < size; rank++) {
                struct topo_place p;
                char path[128];
                const char *why = "";
                path_of(m, path, sizeof path);
                if (!CHECK(ops->place(path, rank, size, &p, &why) == 0)) continue;
                CHECK_EQ(__builtin_popcountl(p.nodes[0]), 1);
                CHECK_EQ(p.nodes[0], 1ul << m->part[rank / per].node);
                ranks_on[__builtin_ctzl(p.nodes[0]) & 7]++;
            }
            for (int k = 0; k < m->n_parts; k++)
                CHECK_EQ(ranks_on[k], per);
        }
    }
}

/* hwloc's own variables describe the machine where none is named: what attach sees then. */
static void described_by_the_environment(void) {
    const struct topo_ops *ops = module();
    struct topo_place p;
    const char *why = "";
    setenv("HWLOC_SYNTHETIC", "numa:2 core:4 pu:2", 1);
    CHECK_EQ(ops->place(NULL, 1, 2, &p, &why), 0);
    CHECK_STR(p.text, "node 1 of 2, processors 8-15");
    unsetenv("HWLOC_SYNTHETIC");
    setenv("HWLOC_XMLFILE", "tests/unit/topologies/eight_nodes.xml", 1);
    CHECK_EQ(ops->place(NULL, 6, 8, &p, &why), 0);
    CHECK_STR(p.text, "node 6 of 8, processors 12-13");
    unsetenv("HWLOC_XMLFILE");
}

int main(void) {
    return check_main("topologies", (struct check_test[]){{"every_rank_of_1_to_16", every_rank_of_1_to_16},
                                                          {"whole_ranks_stay_on_one_node", whole_ranks_stay_on_one_node},
                                                          {"described_by_the_environment", described_by_the_environment},
                                                          {0}});
}
