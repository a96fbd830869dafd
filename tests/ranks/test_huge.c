/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages, parts, offsets, strides and counts above 2^31 and 2^32, on two ranks, in the pool and outside.  Their memory is that of
 * alias_backend.h: a slab is 2.06 GiB of addresses over 64 MiB.  Each rank has two areas of four slabs, to send from and to receive in, in its
 * pool and outside.  And once, in the full run, with as much memory as it says.
 */
#include "collectives/pairs.h"
#include "collectives/rma.h"
#include "pool/base/conf.h"
#include "tests/support/alias_backend.h"
#include "tests/support/check.h"
#include "tests/support/ops.h"
#include "tests/support/world_test.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLAB ALIAS_SLAB
#define SLABS ((int)ALIAS_SLABS)
#define UNTOUCHED 0x5a
#define ALL_UNTOUCHED (0x0101010101010101u * UNTOUCHED)
#define ALL (-2)     /* reduced over both ranks */
#define NOTHING (-1)

enum { SEND, RECV };

struct huge {
    struct world *w;
    struct comm *c;
    int me;
    char *area[2][2]; /* [in the pool][SEND or RECV] */
};

/* What an area holds in its bytes begin .. end: slab i is slab from[i].slab of that rank's area to send from.  The rest is untouched. */
struct held {
    struct {
        int rank, slab;
    } from[SLABS];
    uint64_t begin, end;
    int op;
};

/* Bytes p .. p + 7 of what is behind slab `slab` of a rank's area. */
static uint64_t word_of(int rank, int slab, uint64_t p) {
    uint64_t x = (p + 1) * 0x9e3779b97f4a7c15u ^ (uint64_t)(rank * SLABS + slab + 1) * 0xc2b2ae3d27d4eb4fu;
    x *= 0xff51afd7ed558ccdu;
    return x ^ x >> 32;
}

static uint64_t combined(uint64_t a, uint64_t b, int op) {
    uint8_t x[8], y[8];
    memcpy(x, &a, 8);
    memcpy(y, &b, 8);
    for (int i = 0; i < 8; i++)
        x[i] = (uint8_t)(op == SYP_SUM ? x[i] + y[i] : x[i] > y[i] ? x[i] : y[i]);
    memcpy(&a, x, 8);
    return a;
}

static uint64_t held_word(const struct held *h, int slab, uint64_t p) {
    int rank = h->from[slab].rank, from = h->from[slab].slab;
    return rank == ALL ? combined(word_of(0, from, p), word_of(1, from, p), h->op) : word_of(rank, from, p);
}

/* The parts of an area with memory of their own, as places where an operation on whole slabs leaves nothing out: of windows, the second. */
static int piece(int i, int *slab, uint64_t *at, uint64_t *p, uint64_t *len) {
    *slab = i / 2;
    if (i == 2 * SLABS) {
        *at = ALIAS_SLABS * SLAB;
        *p = 0;
        *len = ALIAS_PAGE;
    } else {
        *at = (uint64_t)*slab * SLAB + (i % 2 ? ALIAS_WINDOWS * ALIAS_WINDOW : ALIAS_WINDOW);
        *p = i % 2 ? ALIAS_WINDOW : 0;
        *len = i % 2 ? ALIAS_TAIL : ALIAS_WINDOW;
    }
    return i <= 2 * SLABS;
}

static void blank(char *area) {
    uint64_t at, p, len;
    for (int i = 0, slab; piece(i, &slab, &at, &p, &len); i++)
        memset(area + at, UNTOUCHED, len);
}

static void fill(char *area, const struct held *h) {
    uint64_t at, p, len;
    for (int i = 0, slab; piece(i, &slab, &at, &p, &len); i++)
        for (uint64_t j = 0; j < len; j += 8) {
            uint64_t word = slab < SLABS ? held_word(h, slab, p + j) : ALL_UNTOUCHED;
            memcpy(area + at + j, &word, 8);
        }
}

/* 1 = the area holds that. */
static int holds(const char *area, const struct held *h, const char *what) {
    uint64_t at, p, len;
    for (int i = 0, slab; piece(i, &slab, &at, &p, &len); i++)
        for (uint64_t j = 0; j < len; j += 8) {
            uint64_t word = ALL_UNTOUCHED, v = at + j;
            int any = slab < SLABS && h->from[slab].rank != NOTHING && v + 8 > h->begin && v < h->end;
            uint8_t expected[8];
            memcpy(expected, &word, 8);
            if (any) word = held_word(h, slab, p + j);
            for (uint64_t b = 0; any && b < 8; b++)
                if (v + b >= h->begin && v + b < h->end) expected[b] = ((uint8_t *)&word)[b];
            if (memcmp(area + v, expected, 8) == 0) continue;
            fprintf(stderr, "%s: slab %d, byte %llu of the area: %02x..., expected %02x...\n", what, slab, (unsigned long long)v,
                    (uint8_t)area[v], expected[0]);
            return 0;
        }
    return 1;
}

/* What this rank sends, whichever slabs an operation uses. */
static struct held own(int me) {
    struct held h = {.begin = 0, .end = ALIAS_SLABS * SLAB};
    for (int s = 0; s < SLABS; s++)
        h.from[s].rank = me, h.from[s].slab = s;
    return h;
}

static int unchanged(const struct huge *g, int in_pool) {
    const struct held h = own(g->me);
    return holds(g->area[in_pool][SEND], &h, "to be sent");
}

/* ------------------------------------------------------------------------------------------------ the areas */

static char *area_outside(void) {
    int fd = memfd_create("huge", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)ALIAS_BYTES(ALIAS_SLABS)) != 0) return NULL;
    char *at = mmap(NULL, ALIAS_LEN(ALIAS_SLABS) + 2 * ALIAS_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED || alias_map(at + ALIAS_PAGE, fd, 0, ALIAS_SLABS) != 0 ? NULL : at + ALIAS_PAGE;
}

/* pool: of which kind of memory; -1 = both are used. */
static int areas_make(struct world *w, struct huge *g, int pool) {
    const struct held h = own(w->who.rank);
    *g = (struct huge){.w = w, .c = &w->coll.comm[0], .me = w->who.rank};
    char *heap = world_alloc(w, ALIAS_REGION - ALIAS_META); /* one block above 2^34 */
    NEED(w, heap && heap == (char *)w->pool->region.mem.base + ALIAS_META);
    for (int i = 0; i < 2; i++) {
        g->area[1][i] = heap + (ALIAS_AREA((unsigned)i) - ALIAS_META);
        NEED(w, g->area[0][i] = area_outside());
    }
    for (int i = 0; i < 2; i++)
        if (pool != 1 - i) fill(g->area[i][SEND], &h);
    return 0;
}

/* --------------------------------------------------------------------------------------------- operations */

/* A call on slabs, with buffers at the beginning of the areas but for `shift`; and what is received. */
struct deed {
    const char *name;
    struct call call;
    uint64_t shift;
    struct held held[2]; /* by rank */
};

#define NONE {NOTHING, 0}
#define U8 .dtype = SYP_UINT8, .op = SYP_SUM
#define SUMS {{{ALL, 0}, {ALL, 1}, NONE, NONE}, 13, 2 * SLAB - 7, SYP_SUM}
#define NOT_THERE {{NONE, NONE, NONE, NONE}, 0, 0, 0}
#define HELD(a, b, c, d) {{a, b, c, d}, 0, 4 * SLAB, SYP_SUM}
#define FROM(rank, slab) {rank, slab}

static const size_t uneven[] = {2 * SLAB, SLAB};
static const struct deed deeds[] = {
    {"all-reduce", {.kind = OP_ALLREDUCE, .count = 2 * SLAB - 20, U8}, 13, {SUMS, SUMS}},
    {"reduce", {.kind = OP_REDUCE, .count = 2 * SLAB - 20, U8, .root = 1}, 13, {NOT_THERE, SUMS}},
    {"broadcast", {.kind = OP_BROADCAST, .count = 2 * SLAB - 20}, 13,
     {NOT_THERE, {{FROM(0, 0), FROM(0, 1), NONE, NONE}, 13, 2 * SLAB - 7, 0}}},
    {"reduce-scatter", {.kind = OP_REDUCE_SCATTER, .count = SLAB, U8}, 0,
     {HELD(FROM(ALL, 0), NONE, NONE, NONE), HELD(FROM(ALL, 1), NONE, NONE, NONE)}},
    {"reduce-scatter of parts", {.kind = OP_REDUCE_SCATTERV, .send_lens = uneven, U8}, 0,
     {HELD(FROM(ALL, 0), FROM(ALL, 1), NONE, NONE), HELD(FROM(ALL, 2), NONE, NONE, NONE)}},
    {"all-gather", {.kind = OP_ALLGATHER, .count = 2 * SLAB}, 0,
     {HELD(FROM(0, 0), FROM(0, 1), FROM(1, 0), FROM(1, 1)), HELD(FROM(0, 0), FROM(0, 1), FROM(1, 0), FROM(1, 1))}},
    {"all-gather of parts", {.kind = OP_ALLGATHERV, .send_lens = uneven}, 0,
     {HELD(FROM(0, 0), FROM(0, 1), FROM(1, 0), NONE), HELD(FROM(0, 0), FROM(0, 1), FROM(1, 0), NONE)}},
    {"all-gather of rows", {.kind = OP_ALLGATHER_ROWS, .rows = 2, .count = SLAB}, 0,
     {HELD(FROM(0, 0), FROM(1, 0), FROM(0, 1), FROM(1, 1)), HELD(FROM(0, 0), FROM(1, 0), FROM(0, 1), FROM(1, 1))}},
    {"gather", {.kind = OP_GATHER, .count = 2 * SLAB}, 0, {HELD(FROM(0, 0), FROM(0, 1), FROM(1, 0), FROM(1, 1)), NOT_THERE}},
    {"scatter", {.kind = OP_SCATTER, .count = 2 * SLAB, .root = 1}, 0,
     {HELD(FROM(1, 0), FROM(1, 1), NONE, NONE), HELD(FROM(1, 2), FROM(1, 3), NONE, NONE)}},
    {"all-to-all", {.kind = OP_ALLTOALL, .count = 2 * SLAB}, 0,
     {HELD(FROM(0, 0), FROM(0, 1), FROM(1, 0), FROM(1, 1)), HELD(FROM(0, 2), FROM(0, 3), FROM(1, 2), FROM(1, 3))}},
    {"all-to-all of parts", {.kind = OP_ALLTOALLV}, 0,
     {HELD(FROM(0, 0), NONE, FROM(1, 1), FROM(1, 2)), HELD(FROM(0, 1), FROM(0, 2), FROM(0, 3), NONE)}},
};
enum { QUICK = 2, DEEDS = sizeof deeds / sizeof deeds[0] }; /* broadcast touches the fewest pages, which is what takes the time */

static int run_deed(struct huge *g, const struct deed *d, int in_pool) {
    /* rank 0 keeps slab 0 and gives 1 .. 3; rank 1 gives 1 and 2, and keeps nothing */
    static const size_t send_lens[2][2] = {{SLAB, 3 * SLAB}, {2 * SLAB, 0}}, send_offs[2][2] = {{0, SLAB}, {SLAB, 0}};
    static const size_t recv_lens[2][2] = {{SLAB, 2 * SLAB}, {3 * SLAB, 0}}, recv_offs[2][2] = {{0, 2 * SLAB}, {0, 0}};
    struct world *w = g->w;
    struct call call = d->call;
    call.send = g->area[in_pool][SEND] + d->shift;
    call.recv = g->area[in_pool][RECV] + d->shift;
    if (call.kind == OP_BROADCAST && call.root == g->me) call.recv = g->area[in_pool][SEND] + d->shift;
    if (call.kind == OP_ALLTOALLV) {
        call.send_lens = send_lens[g->me];
        call.send_offs = send_offs[g->me];
        call.recv_lens = recv_lens[g->me];
        call.recv_offs = recv_offs[g->me];
    }
    blank(g->area[in_pool][RECV]);
    NEED(w, coll_somehow(g->c, &call) == SYP_OK);
    NEED(w, holds(g->area[in_pool][RECV], &d->held[g->me], d->name) && unchanged(g, in_pool));
    return 0;
}

/* The larger of both is so, however often it is made: bytes that are the same memory may be reduced again and again. */
static int in_place(struct huge *g, int in_pool) {
    struct world *w = g->w;
    struct held max = {{{ALL, 0}, {ALL, 1}, FROM(g->me, 2), FROM(g->me, 3)}, 0, 4 * SLAB, SYP_MAX}, mine = own(g->me);
    char *area = g->area[in_pool][RECV];
    fill(area, &mine);
    NEED(w, coll_allreduce(g->c, area, area, 2 * SLAB, SYP_UINT8, SYP_MAX, 0) == SYP_OK);
    NEED(w, holds(area, &max, "all-reduce in place"));
    return 0;
}

/* Few bytes at far places: rows with strides, and parts with offsets, above 2^32. */
static int far_places(struct huge *g, int in_pool) {
    struct world *w = g->w;
    char *send = g->area[in_pool][SEND], *recv = g->area[in_pool][RECV];
    size_t len = 5000, lens[2] = {len, len}, offs[2] = {3 * SLAB + 77, 100};
    struct call rows = {.kind = OP_ALLGATHER_ROWS, .send = send, .recv = recv, .rows = 2, .count = len,
                        .send_stride = 2 * SLAB, .recv_stride = 2 * SLAB + 4096};
    blank(recv);
    NEED(w, coll_somehow(g->c, &rows) == SYP_OK);
    for (int m = 0; m < 2; m++)
        for (int r = 0; r < 2; r++)
            for (size_t i = 0; i < len; i += 8) {
                uint64_t word = word_of(m, 2 * r, i);
                NEED(w, memcmp(recv + (size_t)r * rows.recv_stride + (size_t)m * len + i, &word, 8) == 0);
            }
    blank(recv);
    NEED(w, coll_alltoallv(g->c, send, recv, lens, offs, 0) == SYP_OK);
    for (int m = 0; m < 2; m++)
        for (size_t i = 0; i < len; i++) {
            size_t at = (g->me == 0 ? 77 : 100) + i; /* in its slab */
            uint64_t word = word_of(m, g->me == 0 ? 3 : 0, at & ~(size_t)7);
            NEED(w, recv[offs[m] + i] == ((char *)&word)[at & 7]);
        }
    return 0;
}

/* A buffer above 2^32 to the other rank, and one back. */
static int between_two(struct huge *g, int send_pool, int recv_pool) {
    struct world *w = g->w;
    int other = 1 - g->me;
    struct held two = {{FROM(other, 0), FROM(other, 1), NONE, NONE}, 13, 2 * SLAB - 7, 0};
    void *out = g->area[send_pool][SEND] + 13, *in = g->area[recv_pool][RECV] + 13;
    size_t len = 2 * SLAB - 20;
    const struct buffers send = {&out, &len, 1, other}, recv = {&in, &len, 1, other};
    blank(g->area[recv_pool][RECV]);
    NEED(w, coll_sendrecv(g->c, &send, &recv, 0) == SYP_OK);
    NEED(w, holds(g->area[recv_pool][RECV], &two, "sent and received") && unchanged(g, send_pool));
    return 0;
}

static int put_and_get(struct huge *g, int in_pool) {
    struct world *w = g->w;
    int other = 1 - g->me;
    struct held put = {{FROM(other, 0), FROM(other, 1), NONE, NONE}, 13, 2 * SLAB - 7, 0};
    struct held got = {{FROM(g->me, 0), FROM(g->me, 1), NONE, NONE}, 13, 2 * SLAB - 7, 0};
    char *box = g->area[1][RECV];
    blank(box);
    blank(g->area[0][RECV]);
    NEED(w, coll_barrier(g->c, 0) == SYP_OK);
    NEED(w, rma_put(&w->coll, "put", box + 13, g->area[in_pool][SEND] + 13, 2 * SLAB - 20, other) == SYP_OK);
    NEED(w, coll_barrier(g->c, 0) == SYP_OK);
    NEED(w, holds(box, &put, "put"));
    NEED(w, rma_get(&w->coll, g->area[0][RECV] + 13, box + 13, 2 * SLAB - 20, other) == SYP_OK);
    NEED(w, coll_barrier(g->c, 0) == SYP_OK);
    NEED(w, holds(g->area[0][RECV], &got, "got"));
    return 0;
}

static int is_long(void) {
    return check_count(0, 1) == 1;
}

static int in_pool_or_outside(struct world *w, void *arg) {
    int in_pool = *(int *)arg;
    struct huge g;
    if (areas_make(w, &g, in_pool)) return 1;
    if (far_places(&g, in_pool)) return 1;
    if (!is_long()) return (in_pool && run_deed(&g, &deeds[QUICK], in_pool)) || coll_barrier(g.c, 0); /* finalize waits less long */
    for (int i = 0; i < DEEDS; i++)
        if (run_deed(&g, &deeds[i], in_pool)) return 1;
    return in_place(&g, in_pool) || coll_barrier(g.c, 0);
}

static int pairs(struct world *w, void *arg) {
    struct huge g;
    (void)arg;
    if (areas_make(w, &g, -1)) return 1;
    for (int i = 0; i < 4; i++)
        if (between_two(&g, i & 1, i >> 1)) return 1;
    return put_and_get(&g, 0) || put_and_get(&g, 1) || coll_barrier(g.c, 0);
}

/* -------------------------------------------------------------------------------------------------- memory */

/* Says so when the machine has less than that much free. */
static int has_memory(double gib) {
    char line[128], why[128];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f) && sscanf(line, "MemAvailable: %llu", &kib) != 1)
        ;
    if (f) fclose(f);
    if ((double)kib >= gib * 1024 * 1024) return 1;
    snprintf(why, sizeof why, "no hardware: %.1f GiB of memory are free, %.1f needed", (double)kib / 1024 / 1024, gib);
    check_skip(why);
    return 0;
}

static const struct world_setup windows = {.local_mem_size = ALIAS_REGION, .meta_size = ALIAS_META,
                                           .timeout_ns = 250 * (int64_t)NS_PER_S, .seconds = 900, .backend = &alias_backend};

static void run(int (*fn)(struct world *w, void *arg), int where) {
    if (has_memory(3)) CHECK_EQ(worlds_as_processes(2, &windows, fn, &where), 0);
}

static void beyond_4_gib_in_pool(void) {
    run(in_pool_or_outside, 1);
}

static void beyond_4_gib_outside(void) {
    run(in_pool_or_outside, 0);
}

static void beyond_4_gib_by_threads(void) {
    setenv("SYMPOOL_COLL_THREADS", "2", 1);
    conf_reset(); /* another test has had it read */
    run(in_pool_or_outside, 1);
    unsetenv("SYMPOOL_COLL_THREADS");
    conf_reset();
}

static void beyond_4_gib_between_two(void) {
    run(pairs, 0);
}

/* ---------------------------------------------------------------------------------------------- the real one */

#define REAL_COUNT ((4200ull << 20) / 4 + 3) /* elements: 4.1 GiB and a tail */

static float number_of(int rank, uint64_t e) {
    uint64_t x = (e + 1) * 0x9e3779b97f4a7c15u ^ (uint64_t)(rank + 1) * 0xc2b2ae3d27d4eb4fu;
    return (float)(x >> 40) * 0.37f;
}

static int really(struct world *w, void *arg) {
    struct comm *c = &w->coll.comm[0];
    (void)arg;
    uint64_t zero_copy = stats_read(STAT_ZERO_COPY);
    float *x = world_alloc(w, REAL_COUNT * sizeof *x + 64);
    NEED(w, x);
    for (uint64_t e = 0; e < REAL_COUNT; e++)
        x[e] = number_of(c->me, e);
    memset(x + REAL_COUNT, UNTOUCHED, 64);
    NEED(w, coll_allreduce(c, x, x, REAL_COUNT, SYP_FLOAT32, SYP_SUM, 0) == SYP_OK);
    for (uint64_t e = 0; e < REAL_COUNT; e++)
        if (x[e] != number_of(0, e) + number_of(1, e)) {
            fprintf(stderr, "rank %d: element %llu is %g, expected %g\n", c->me, (unsigned long long)e, (double)x[e],
                    (double)(number_of(0, e) + number_of(1, e)));
            return 1;
        }
    for (int i = 0; i < 64; i++)
        NEED(w, ((char *)(x + REAL_COUNT))[i] == UNTOUCHED);
    NEED(w, stats_read(STAT_ZERO_COPY) == zero_copy + 1);
    return coll_barrier(c, 0);
}

static void real_4_gib_in_place(void) {
    const struct world_setup setup = {.local_mem_size = 4400ull << 20, .meta_size = 1 << 20, .timeout_ns = 250 * (int64_t)NS_PER_S,
                                      .seconds = 900};
    if (has_memory(10)) CHECK_EQ(worlds_as_processes(2, &setup, really, NULL), 0);
}

int main(void) {
    struct check_test tests[] = {{"beyond_4_gib_in_pool", beyond_4_gib_in_pool},
                                 {"beyond_4_gib_outside", beyond_4_gib_outside},
                                 {"beyond_4_gib_by_threads", beyond_4_gib_by_threads}, /* from here on in the full run only */
                                 {"beyond_4_gib_between_two", beyond_4_gib_between_two},
                                 {"real_4_gib_in_place", real_4_gib_in_place},
                                 {0}};
    if (!is_long()) tests[2] = (struct check_test){0};
    return check_main("huge", tests);
}
