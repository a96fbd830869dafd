/* SPDX-License-Identifier: Apache-2.0 */
/* Placement: opening the module, and its answers on machines that hwloc makes up.  Without the module this program
 * fails. */
#include "pool/topo/topo.h"

#include "pool/base/conf.h"
#include "tests/support/check.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char module_dir[1024];

static const struct topo_ops *module(void) {
    const char *why = "", *build = getenv("B");
    snprintf(module_dir, sizeof module_dir, "%s/modules", build && *build ? build : "build");
    const struct topo_ops *ops = topo_open(module_dir, &why);
    if (!CHECK(ops != NULL)) {
        fprintf(stderr, "%s: %s\n", module_dir, why);
        exit(1);
    }
    return ops;
}

static void opens(void) {
    const char *why = "";
    const struct topo_ops *ops = module();
    CHECK_EQ(ops->abi, TOPO_ABI);
    CHECK(ops->place != NULL && ops->processors != NULL);
    CHECK(topo_open(module_dir, &why) == ops); /* again: the same */
    setenv("SYMPOOL_MODULE_DIR", module_dir, 1);
    conf_reset();
    CHECK(topo_open(NULL, &why) == ops);
    unsetenv("SYMPOOL_MODULE_DIR");
    conf_reset();
}

/* Beside the library (or the program that has it inside): in modules/ and in sympool/.  A copy of this program in
 * another place looks. */
static void beside(void) {
    static const char *const folders[] = {"modules", "sympool"};
    const char *why = "";
    if (getenv("TEST_TOPO_BESIDE")) {
        CHECK(topo_open(NULL, &why) != NULL);
        return;
    }
    (void)module();
    for (size_t i = 0; i < 2; i++) {
        char dir[] = "/tmp/sympool-topo-XXXXXX", command[4096];
        CHECK(mkdtemp(dir) != NULL);
        snprintf(command, sizeof command,
                 "mkdir %s/%s && cp %s/sympool-topo.so %s/%s/ && cp /proc/%d/exe %s/copy && "
                 "TEST_TOPO_BESIDE=here ONLY=beside %s/copy >/dev/null",
                 dir, folders[i], module_dir, dir, folders[i], (int)getpid(), dir, dir);
        CHECK_EQ(system(command), 0);
        snprintf(command, sizeof command, "rm -r %s", dir);
        CHECK_EQ(system(command), 0);
    }
}

static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    CHECK(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void not_usable(void) {
    char dir[] = "/tmp/sympool-topo-XXXXXX", path[128];
    const char *why = NULL;
    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/sympool-topo.so", dir);

    CHECK(topo_open(dir, &why) == NULL); /* this program does not lie beside a module */
    CHECK_HAS(why, "was not found");
    CHECK_HAS(why, "SYMPOOL_MODULE_DIR");
    CHECK(topo_open(NULL, &why) == NULL);
    CHECK_HAS(why, "was not found");
    CHECK(topo_open("", &why) == NULL);

    write_file(path, "this is no shared object");
    CHECK(topo_open(dir, &why) == NULL);
    CHECK_HAS(why, "cannot be loaded");
    unlink(path);
    CHECK_EQ(mkdir(path, 0755), 0);
    CHECK(topo_open(dir, &why) == NULL);
    CHECK_HAS(why, "cannot be loaded");
    rmdir(path);
    rmdir(dir);
}

/* Another version, and a library that is not ours: both are shared objects that load.  Each has a name of its own,
 * since the dynamic loader remembers files. */
static void wrong_module(void) {
    static const char *const reasons[] = {"another version", "no sympool_topo"};
    for (size_t i = 0; i < 2; i++) {
        char dir[] = "/tmp/sympool-topo-XXXXXX", source[128], command[512];
        const char *why = NULL, *cc = getenv("CC");
        CHECK(mkdtemp(dir) != NULL);
        snprintf(source, sizeof source, i == 0 ? "unsigned sympool_topo[8] = {%u};" : "int something_else = %u;",
                 TOPO_ABI + 1);
        snprintf(command, sizeof command, "echo '%s' | %s -shared -fPIC -x c - -o %s/sympool-topo.so", source,
                 cc && *cc ? cc : "cc", dir);
        CHECK_EQ(system(command), 0);
        CHECK(topo_open(dir, &why) == NULL);
        CHECK_HAS(why, reasons[i]);
        snprintf(command, sizeof command, "%s/sympool-topo.so", dir);
        unlink(command);
        rmdir(dir);
    }
}

/* ------------------------------------------------------------------------------------------- made-up machines */

/* Two nodes of four cores of two threads: processors 0-7 on node 0, 8-15 on node 1. */
#define TWO_NODES "numa:2 core:4 pu:2"

static void shares(void) {
    static const struct {
        const char *machine;
        int rank, size;
        unsigned long nodes;
        int n_nodes;
        const char *processors;
    } cases[] = {
        {TWO_NODES, 0, 1, 3, 2, "0-15"},
        {TWO_NODES, 0, 2, 1, 2, "0-7"},
        {TWO_NODES, 1, 2, 2, 2, "8-15"},
        /* 8 cores for 3 ranks: 2, 3, 3; the middle one lies on both nodes */
        {TWO_NODES, 0, 3, 1, 2, "0-3"},
        {TWO_NODES, 1, 3, 3, 2, "4-9"},
        {TWO_NODES, 2, 3, 2, 2, "10-15"},
        {TWO_NODES, 0, 8, 1, 2, "0-1"},
        {TWO_NODES, 3, 8, 1, 2, "6-7"},
        {TWO_NODES, 4, 8, 2, 2, "8-9"},
        {TWO_NODES, 7, 8, 2, 2, "14-15"},
        /* more ranks than cores: threads; more than threads: shared */
        {TWO_NODES, 0, 16, 1, 2, "0"},
        {TWO_NODES, 9, 16, 2, 2, "9"},
        {TWO_NODES, 0, 32, 1, 2, "0"},
        {TWO_NODES, 1, 32, 1, 2, "0"},
        {TWO_NODES, 31, 32, 2, 2, "15"},
        /* numbers of processors alternate between the nodes, as many machines have them: hwloc's order counts */
        {"numa:2 core:2 pu:1(indexes=0,2,1,3)", 0, 2, 1, 2, "0,2"},
        {"numa:2 core:2 pu:1(indexes=0,2,1,3)", 1, 2, 2, 2, "1,3"},
        {"numa:4(indexes=3,2,1,0) core:1 pu:1", 0, 4, 8, 4, "0"},
        {"numa:1 core:2 pu:1", 1, 2, 1, 1, "1"},
        {"pu:1", 5, 8, 1, 1, "0"}};
    const struct topo_ops *ops = module();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct topo_place p;
        char list[256] = "";
        const char *why = "";
        if (!CHECK(ops->place(cases[i].machine, cases[i].rank, cases[i].size, &p, &why) == 0)) continue;
        CHECK_EQ(p.nodes[0], cases[i].nodes);
        for (int w = 1; w < TOPO_MASK_WORDS; w++)
            CHECK_EQ(p.nodes[w], 0);
        CHECK_EQ(p.max_node, (8 * sizeof(long) - (unsigned)__builtin_clzl(cases[i].nodes)) + 1);
        CHECK_EQ(p.n_nodes, cases[i].n_nodes);
        CHECK_EQ(ops->processors(cases[i].machine, cases[i].rank, cases[i].size, list, sizeof list, &why), 0);
        CHECK_STR(list, cases[i].processors);
        CHECK_HAS(p.text, list);
    }
    struct topo_place p;
    const char *why;
    CHECK_EQ(ops->place(TWO_NODES, 1, 2, &p, &why), 0);
    CHECK_STR(p.text, "node 1 of 2, processors 8-15");
    CHECK_EQ(ops->place(TWO_NODES, 0, 1, &p, &why), 0);
    CHECK_STR(p.text, "nodes 0-1 of 2, processors 0-15");
}

static void add_list(const char *list, uint8_t *set, int *n) {
    for (char *end = (char *)(uintptr_t)list; *end;) {
        long first = strtol(end, &end, 10), last = first;
        if (*end == '-') last = strtol(end + 1, &end, 10);
        for (; first <= last; first++, (*n)++)
            set[first]++;
        if (*end == ',') end++;
    }
}

/* Whatever the number of ranks: nobody is left without a processor, and while there are enough no processor has two
 * ranks. */
static void shares_tile_the_machine(void) {
    static const char *const machines[] = {TWO_NODES, "numa:4 core:6 pu:1", "pack:2 numa:2 core:3 pu:2", "core:7 pu:1"};
    static const int n_processors[] = {16, 24, 24, 7};
    const struct topo_ops *ops = module();
    for (size_t m = 0; m < sizeof machines / sizeof machines[0]; m++) {
        for (int size = 1; size <= 30; size += size < 8 ? 1 : 7) {
            uint8_t set[64] = {0};
            int total = 0;
            for (int rank = 0; rank < size; rank++) {
                char list[256];
                const char *why = "";
                int before = total;
                if (!CHECK(ops->processors(machines[m], rank, size, list, sizeof list, &why) == 0)) continue;
                add_list(list, set, &total);
                CHECK(total > before);
            }
            for (int i = 0; i < n_processors[m]; i++)
                if (size <= n_processors[m]) CHECK_EQ(set[i], 1);
            CHECK_EQ(total, size <= n_processors[m] ? n_processors[m] : size);
        }
    }
}

static void refusals(void) {
    static const struct {
        const char *machine;
        int rank, size;
        const char *why;
    } cases[] = {{"nonsense:2", 0, 1, "synthetic"}, {"", 0, 1, "synthetic"},     {"/nowhere.xml", 0, 1, "XML"},
                 {TWO_NODES, 2, 2, "range"},        {TWO_NODES, -1, 2, "range"}, {TWO_NODES, 0, 0, "range"}};
    const struct topo_ops *ops = module();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct topo_place p;
        char list[8];
        const char *why = "";
        CHECK_EQ(ops->place(cases[i].machine, cases[i].rank, cases[i].size, &p, &why), -1);
        CHECK_HAS(why, cases[i].why);
        why = "";
        CHECK_EQ(ops->processors(cases[i].machine, cases[i].rank, cases[i].size, list, sizeof list, &why), -1);
        CHECK_HAS(why, cases[i].why);
    }
    char list[4];
    const char *why = "";
    CHECK_EQ(ops->processors(TWO_NODES, 0, 1, list, sizeof list, &why), -1); /* "0-15" and its end are five bytes */
    CHECK_HAS(why, "too long");
    struct topo_place p;
    CHECK_EQ(ops->place("numa:2(indexes=5,1024) core:1 pu:1", 1, 2, &p, &why), -1); /* beyond the mask */
    CHECK_HAS(why, "high a number");
    CHECK_EQ(ops->place("numa:2(indexes=5,1023) core:1 pu:1", 1, 2, &p, &why), 0);
    CHECK_EQ(p.nodes[TOPO_MASK_WORDS - 1], 1ul << 63);
}

static void xml(void) {
    char path[] = "/tmp/sympool-topo-XXXXXX.xml";
    const struct topo_ops *ops = module();
    struct topo_place p;
    const char *why = "";
    int fd = mkstemps(path, 4);
    CHECK(fd >= 0);
    close(fd);
    /* line by line: hwloc's own parser wants it as hwloc writes it */
    write_file(
        path, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n<topology "
              "version=\"2.0\">\n"
              "  <object type=\"Machine\" os_index=\"0\" cpuset=\"0x3\" complete_cpuset=\"0x3\" allowed_cpuset=\"0x3\" "
              "nodeset=\"0x4\" complete_nodeset=\"0x4\" allowed_nodeset=\"0x4\" gp_index=\"1\">\n"
              "    <object type=\"NUMANode\" os_index=\"2\" cpuset=\"0x3\" complete_cpuset=\"0x3\" nodeset=\"0x4\" "
              "complete_nodeset=\"0x4\" gp_index=\"2\" local_memory=\"1024\"/>\n"
              "    <object type=\"PU\" os_index=\"0\" cpuset=\"0x1\" complete_cpuset=\"0x1\" nodeset=\"0x4\" "
              "complete_nodeset=\"0x4\" gp_index=\"3\"/>\n"
              "    <object type=\"PU\" os_index=\"1\" cpuset=\"0x2\" complete_cpuset=\"0x2\" nodeset=\"0x4\" "
              "complete_nodeset=\"0x4\" gp_index=\"4\"/>\n  </object>\n</topology>\n");
    CHECK_EQ(ops->place(path, 1, 2, &p, &why), 0);
    CHECK_EQ(p.nodes[0], 4);
    CHECK_EQ(p.n_nodes, 1);
    CHECK_STR(p.text, "node 2 of 1, processors 1"); /* nodes keep the system's numbers */
    unlink(path);
}

/* The machine itself: nodes that exist, processors this process may run on; and an affinity set by somebody else is the
 * share. */
static void this_machine(void) {
    const struct topo_ops *ops = module();
    struct topo_place p;
    char list[4096];
    const char *why = "";
    cpu_set_t before, one;
    CHECK_EQ(sched_getaffinity(0, sizeof before, &before), 0);
    CHECK_EQ(ops->place(NULL, 0, 1, &p, &why), 0);
    CHECK(p.n_nodes >= 1 && p.max_node >= 2);
    uint8_t set[CPU_SETSIZE] = {0};
    int n = 0;
    CHECK_EQ(ops->processors(NULL, 0, 1, list, sizeof list, &why), 0);
    add_list(list, set, &n);
    CHECK_EQ(n, CPU_COUNT(&before));
    for (size_t i = 0; i < CPU_SETSIZE; i++)
        CHECK_EQ(set[i], CPU_ISSET(i, &before) != 0);

    size_t last = 0;
    for (size_t i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &before)) last = i;
    CPU_ZERO(&one);
    CPU_SET(last, &one);
    CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    char want[64];
    snprintf(want, sizeof want, ", processors %zu", last);
    for (int rank = 0; rank < 2; rank++) {
        CHECK_EQ(ops->place(NULL, rank, 2, &p, &why), 0);
        CHECK_HAS(p.text, want);
        CHECK_EQ(ops->processors(NULL, rank, 2, list, sizeof list, &why), 0);
        CHECK_EQ(atoi(list), last);
    }
    CHECK_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

int main(void) {
    return check_main("topo", (struct check_test[]){{"opens", opens},
                                                    {"beside", beside},
                                                    {"not_usable", not_usable},
                                                    {"wrong_module", wrong_module},
                                                    {"shares", shares},
                                                    {"shares_tile_the_machine", shares_tile_the_machine},
                                                    {"refusals", refusals},
                                                    {"xml", xml},
                                                    {"this_machine", this_machine},
                                                    {0}});
}
