/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Placement as the kernel is asked for it: ranks attach on machines of tests/unit/topologies, and the arguments of their mbind are
 * recorded.  Fakes, since this machine may have one node only: the kernel's list of nodes, and mbind itself.
 */
#include "allocator/attach.h"
#include "pool/base/conf.h"
#include "pool/base/log.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "tests/support/ops.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define NODE_LIST "/sys/devices/system/node/online"
#define PREFERRED_MANY 5 /* of linux/mempolicy.h */
#define POOL (8ull << 20)

/* One process, one rank: what its mbind was called with. */
static struct {
    int calls, mode, answer;
    char *at;
    size_t len;
    unsigned long nodes[4], max_node;
} seen;
static char lines[2000];

static int fake_open_read(const char *path) {
    if (strcmp(path, NODE_LIST) != 0) return os_linux.open_read(path);
    int fd = memfd_create("nodes", MFD_CLOEXEC);
    CHECK(fd >= 0 && write(fd, "0-7\n", 4) == 4 && lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

static int fake_bind_memory(void *at, size_t len, int mode, const unsigned long *nodes, unsigned long max_node) {
    seen.calls++;
    seen.at = at;
    seen.len = len;
    seen.mode = mode;
    memcpy(seen.nodes, nodes, sizeof seen.nodes);
    seen.max_node = max_node;
    return seen.answer;
}

static void keep_line(void *arg, int level, const char *text) {
    (void)level, (void)arg;
    size_t at = strlen(lines);
    if (strstr(text, "placed on") || strstr(text, "mbind")) snprintf(lines + at, sizeof lines - at, "%s\n", text);
}

struct machine {
    const char *file;
    int n_nodes, answer;
};

static int placed_rank(struct ranks *r, int rank, void *arg) {
    const struct machine *m = arg;
    struct os_ops table = os_linux;
    struct world *w = calloc(1, sizeof *w);
    syp_config c = SYP_CONFIG_INIT;
    char text[1100];
    table.open_read = fake_open_read;
    table.bind_memory = fake_bind_memory;
    os_swap(&table);
    seen.answer = m->answer;
    snprintf(text, sizeof text, "tests/unit/topologies/%s.xml", m->file);
    setenv("HWLOC_XMLFILE", text, 1);
    snprintf(text, sizeof text, "%s/modules", getenv("B") ? getenv("B") : "build");
    setenv("SYMPOOL_MODULE_DIR", text, 1);
    setenv("SYMPOOL_LOG", "info", 1);
    snprintf(text, sizeof text, "%d", rank);
    setenv("SYMPOOL_LOCAL_RANK", text, 1);
    snprintf(text, sizeof text, "%d", r->n);
    setenv("SYMPOOL_LOCAL_SIZE", text, 1);
    conf_reset();
    syp_log_set(keep_line, NULL);
    w->process = 1;
    c.rank = rank;
    c.n_ranks = r->n;
    c.local_mem_size = POOL;
    c.meta_size = 1 << 20;
    c.addr = r->addr;
    c.listen_fd = rank == 0 ? r->listen_fd : -1;
    if (!CHECK(world_attach(w, &c) == SYP_OK)) fprintf(stderr, "rank %d: %s\n", rank, syp_error_text());

    /* the pool of this rank and nothing else; the one node of its processors, all nodes for a rank alone */
    const struct region *pool = &w->pool->region;
    unsigned long want = 0;
    for (int node = rank * m->n_nodes / r->n; node < (rank + 1) * m->n_nodes / r->n; node++)
        want |= 1ul << node;
    if (want == 0) want = 1ul << (rank * m->n_nodes / r->n);
    CHECK_EQ(seen.calls, 1);
    CHECK(seen.at == pool->mem.base);
    CHECK_EQ(seen.len, pool->len);
    CHECK_EQ(seen.len, POOL);
    CHECK_EQ(seen.mode, PREFERRED_MANY); /* no flags, and never MPOL_BIND: a full node must not kill */
    CHECK_EQ(seen.nodes[0], want);
    CHECK_EQ(seen.nodes[1] | seen.nodes[2] | seen.nodes[3], 0);
    CHECK_EQ(seen.max_node, 64 - __builtin_clzl(want) + 1);
    CHECK_EQ(pool->mem.bound, m->answer == 0);
    CHECK_HAS(lines, "pool placed on node");
    int n_lines = 0;
    for (const char *p = lines; (p = strchr(p, '\n')) != NULL; p++)
        n_lines++;
    CHECK_EQ(n_lines, m->answer ? 2 : 1);
    if (m->answer) CHECK_HAS(lines, "mbind: EPERM");
    if (m->answer) CHECK_HAS(lines, "the kernel chooses");

    /* placed or not: the memory is there */
    float x = 1;
    char *p = heap_alloc(&w->pool->heap, &(struct heap_want){.len = 1 << 20, .align = 64});
    CHECK(p != NULL);
    if (p) memset(p, 1, 1 << 20);
    CHECK_EQ(coll_allreduce(&w->coll.comm[0], &x, &x, 1, SYP_FLOAT32, SYP_SUM, 0), SYP_OK);
    CHECK(x == (float)r->n);
    if (p) heap_free(&w->pool->heap, p);
    CHECK_EQ(world_detach(w), SYP_OK);
    return 0;
}

static void attach_on(const struct machine *m, int n) {
    struct ranks r;
    if (!CHECK(ranks_start(&r, n, 0, placed_rank, (void *)(uintptr_t)m) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 60, -1), 0);
    ranks_free(&r);
}

static void two_nodes(void) {
    static const struct machine m = {"two_nodes", 2, 0};
    for (int n = 1; n <= 16; n *= 2)
        attach_on(&m, n);
}

static void eight_nodes(void) {
    static const struct machine m = {"eight_nodes", 8, 0};
    for (int n = 1; n <= 16; n *= 2)
        attach_on(&m, n);
}

static void refused_by_the_kernel(void) {
    static const struct machine m = {"two_nodes", 2, -EPERM};
    attach_on(&m, 2);
}

int main(void) {
    return check_main("placement", (struct check_test[]){{"two_nodes", two_nodes},
                                                         {"eight_nodes", eight_nodes},
                                                         {"refused_by_the_kernel", refused_by_the_kernel},
                                                         {0}});
}
