/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Placement as the kernel is asked for it: ranks attach on machines of tests/unit/topologies, and the arguments of their mbind are
 * recorded.  Fakes, since this machine may have one node only: the kernel's list of nodes, and mbind itself.  And in which order ranks read
 * each other's memory.
 */
#include "allocator/attach.h"
#include "pool/base/conf.h"
#include "pool/base/log.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "tests/support/ops.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"
#include "tests/support/world_test.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define NODE_LIST "/sys/devices/system/node/online"
#define PREFERRED_MANY 5 /* of linux/mempolicy.h */
#define POOL (8ull << 20)

/* One process, one rank: what its mbind was called with, in which order with its fallocate. */
struct bound {
    int when, mode;
    char *at;
    size_t len;
    unsigned long nodes[4], max_node;
};
static struct {
    int clock, calls, answer;
    struct bound bound[8];
    int first_commit[1024]; /* of a descriptor; 0 = none */
} seen;
static char lines[2000];

static int fake_open_read(const char *path) {
    if (strcmp(path, NODE_LIST) != 0) return os_linux.open_read(path);
    int fd = memfd_create("nodes", MFD_CLOEXEC);
    CHECK(fd >= 0 && write(fd, "0-7\n", 4) == 4 && lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

static int fake_bind_memory(void *at, size_t len, int mode, const unsigned long *nodes, unsigned long max_node) {
    struct bound *b = &seen.bound[seen.calls++ % 8];
    *b = (struct bound){.when = ++seen.clock, .mode = mode, .at = at, .len = len, .max_node = max_node};
    memcpy(b->nodes, nodes, sizeof b->nodes);
    return seen.answer;
}

static int fake_file_commit(int fd, uint64_t off, uint64_t len) {
    seen.clock++;
    if (fd >= 0 && fd < 1024 && seen.first_commit[fd] == 0) seen.first_commit[fd] = seen.clock;
    return os_linux.file_commit(fd, off, len);
}

/* The memory at `at` was bound to these nodes, all of it, and before the first page of its file was made. */
static void check_bound(const void *at, uint64_t len, int fd, unsigned long nodes) {
    const struct bound *b = NULL;
    for (int i = 0; i < seen.calls && i < 8; i++)
        if (seen.bound[i].at == at) b = &seen.bound[i];
    if (!CHECK(b != NULL)) return;
    CHECK_EQ(b->len, len);
    CHECK_EQ(b->mode, PREFERRED_MANY); /* no flags, and never MPOL_BIND: a full node must not kill */
    CHECK_EQ(b->nodes[0], nodes);
    CHECK_EQ(b->nodes[1] | b->nodes[2] | b->nodes[3], 0);
    CHECK_EQ(b->max_node, 64 - __builtin_clzl(nodes) + 1);
    CHECK(seen.first_commit[fd] == 0 || b->when < seen.first_commit[fd]);
}

static uint64_t blocks_of(int fd) {
    struct stat st = {0};
    CHECK_EQ(fstat(fd, &st), 0);
    return (uint64_t)st.st_blocks;
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
    struct world *w = world_new();
    syp_config c = ranks_config(r, rank, POOL, 1 << 20);
    char text[1100];
    table.open_read = fake_open_read;
    table.bind_memory = fake_bind_memory;
    table.file_commit = fake_file_commit;
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
    if (!CHECK(world_attach(w, &c) == SYP_OK)) fprintf(stderr, "rank %d: %s\n", rank, syp_error_text());

    /* the pool of this rank, and what it and its peers talk through; the one node of its processors, all nodes for a rank alone */
    const struct region *pool = &w->pool->region;
    unsigned long want = 0;
    for (int node = rank * m->n_nodes / r->n; node < (rank + 1) * m->n_nodes / r->n; node++)
        want |= 1ul << node;
    if (want == 0) want = 1ul << (rank * m->n_nodes / r->n);
    const struct segment *control = &w->peers.control, *exchange = &w->peers.exchange;
    CHECK_EQ(seen.calls, 3);
    CHECK_EQ(pool->len, POOL);
    check_bound(pool->mem.base, pool->len, pool->mem.fd, want);
    check_bound(control->base, control->len, control->fd, want);
    check_bound(exchange->base, exchange->len, exchange->fd, want);
    CHECK(seen.first_commit[exchange->fd] > 0);
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

    /* Staging areas get their memory from their owners: what the peers read and write there is never theirs to make. */
    static float outside[1 << 18];
    struct comm *world = &w->coll.comm[0];
    CHECK_EQ(coll_staging(&w->coll, 0), SYP_OK);
    CHECK_EQ(coll_barrier(world, 0), SYP_OK);
    uint64_t blocks = blocks_of(exchange->fd);
    CHECK(blocks * 512 >= w->coll_conf.staging);
    for (size_t i = 0; i < 1 << 18; i++)
        outside[i] = 1;
    CHECK_EQ(coll_allreduce(world, outside, outside, 1 << 18, SYP_FLOAT32, SYP_SUM, 0), SYP_OK);
    CHECK(outside[0] == (float)r->n && outside[(1 << 18) - 1] == (float)r->n);
    CHECK_EQ(coll_barrier(world, 0), SYP_OK);
    CHECK_EQ(blocks_of(exchange->fd), blocks);
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

/* ------------------------------------------------------------------------------------------------ order */

#define PART (64u << 10)

/* What this rank has received so far; parts are of the byte 1 + number of the member they come from. */
static struct {
    const uint8_t *recv;
    int n, first, next, steps; /* members; the first one copied; copies done, of so many */
} watch;

static void look_at_parts(const char *point) {
    if (!watch.recv || !strstr(point, ".copied") || watch.next >= watch.steps) return;
    int m = (watch.first + watch.next++) % watch.n, after = (watch.first + watch.next) % watch.n;
    CHECK_EQ(watch.recv[(size_t)m * PART], 1 + m);
    if (watch.next < watch.steps) CHECK_EQ(watch.recv[(size_t)after * PART], 0);
}

static int copies(struct world *w, void *arg) {
    struct comm *c = &w->coll.comm[0];
    int n = c->n, me = c->me;
    size_t lens[RANKS_MAX], offs[RANKS_MAX];
    uint8_t *send = world_alloc(w, (size_t)n * PART), *recv = world_alloc(w, (size_t)n * PART);
    (void)arg;
    NEED(w, send && recv);
    memset(send, 1 + me, (size_t)n * PART);
    for (int m = 0; m < n; m++)
        lens[m] = PART, offs[m] = (size_t)m * PART;
    test_point_hook = look_at_parts;
    const struct {
        struct call call;
        int first, steps;
    } kinds[] = {
        {{.kind = OP_ALLGATHER, .count = PART}, me + 1, n},
        {{.kind = OP_ALLTOALL, .count = PART}, me, n},
        {{.kind = OP_ALLTOALLV, .send_lens = lens, .send_offs = offs, .recv_lens = lens, .recv_offs = offs}, me + 1, n - 1},
        {{.kind = OP_ALLGATHER_ROWS, .rows = 1, .count = PART}, me + 1, n},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct call call = kinds[i].call;
        memset(recv, 0, (size_t)n * PART);
        call.send = send;
        call.recv = recv;
        watch.recv = recv;
        watch.n = n;
        watch.steps = kinds[i].steps;
        watch.first = kinds[i].first;
        watch.next = 0;
        NEED(w, coll_run(c, &call, 0) == SYP_OK);
        NEED(w, watch.next == kinds[i].steps && check_failures() == 0);
    }
    watch.recv = NULL;
    test_point_hook = NULL;
    world_free(w, send);
    world_free(w, recv);
    return 0;
}

/* Neighbours' memory is near, and if all began with rank 0 they would share what its memory gives. */
static void each_begins_with_its_neighbour(void) {
    for (int n = 2; n <= 5; n++)
        CHECK_EQ(worlds_as_processes(n, NULL, copies, NULL), 0);
}

int main(void) {
    return check_main("placement", (struct check_test[]){{"two_nodes", two_nodes},
                                                         {"eight_nodes", eight_nodes},
                                                         {"refused_by_the_kernel", refused_by_the_kernel},
                                                         {"each_begins_with_its_neighbour", each_begins_with_its_neighbour},
                                                         {0}});
}
