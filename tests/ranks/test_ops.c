/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/*
 * Every collective beside barrier and broadcast: results, sizes around every switch, mixtures of buffers in the pool, outside and in place, at any alignment; no byte
 * outside the result is touched; what one member refuses, or asks for differently, is told to all.  Blocking or not, as each member likes (coll_somehow).
 */
#include "collectives/reduce.h"
#include "pool/base/conf.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/op_case.h"
#include "tests/support/world_test.h"

#include <stdlib.h>
#include <sys/mman.h>

#define STAGING "16K"

enum { N_KINDS = CASE_KINDS - 1 }; /* broadcast: test_coll */

static struct comm *world_comm(struct world *w) {
    return &w->coll.comm[0];
}

/* One operation of the common stream; each member's place is its own part of the stream, or where_all. */
static int one(struct world *w, struct comm *c, int kind, size_t bytes, uint64_t *seed, uint64_t where_all) {
    struct op_case a;
    uint64_t common = check_random(seed), where = where_all;
    for (int m = 0; m < c->n; m++) {
        uint64_t x = check_random(seed) >> 20;
        if (m == c->me && !where_all) where = x;
    }
    NEED(w, op_case_make(&a, w, c, kind, bytes, common, where) == 0);
    int failed = coll_somehow(c, &a.call) != SYP_OK || !op_case_exact(&a);
    if (failed)
        fprintf(stderr, "rank %d: %s, n %d, about %zu bytes, where 0x%llx: %s\n", w->who.rank, op_name(kind), c->n, bytes, (unsigned long long)where,
                syp_error_text());
    op_case_free(&a);
    return failed;
}

/* ------------------------------------------------------------------------------------------------- sizes */

/* Around the switches: a message in the mail (of a part, or of all), a chunk, three chunks and a tail. */
static int sizes_of(size_t n, size_t half, size_t *list) {
    size_t around_these[] = {64, MAIL_DATA / n, MAIL_REDUCED, MAIL_DATA, half / n / 64 * 64, half}, k = 0;
    list[k++] = 0;
    list[k++] = 1;
    for (size_t i = 0; i < sizeof around_these / sizeof around_these[0]; i++)
        for (size_t d = 0; d < 3; d++)
            list[k++] = around_these[i] + d - 1;
    list[k++] = 8 * (MAIL_DATA / 8 + 1); /* of eight-byte elements, too */
    list[k++] = 3 * (half / n) + 17;
    list[k++] = 3 * half + 17;
    return (int)k;
}

static int every_size(struct world *w, void *arg) {
    uint64_t seed = *(uint64_t *)arg;
    size_t list[32];
    struct comm *c = world_comm(w);
    int n_sizes = sizes_of((size_t)c->n, w->coll.conf.staging / 2, list);
    for (int round = 0; round < (int)check_count(6, 40); round++)
        for (int k = 0; k < N_KINDS; k++)
            for (int i = 0; i < n_sizes; i++)
                if (one(w, c, case_kinds[k], list[i], &seed, round == 0 ? BOTH_IN_POOL | BUFFERS_IN_PLACE : 0)) return 1;
    return 0;
}

static void sizes(void) {
    uint64_t seed = check_seed();
    for (int n = 1; n <= (int)check_count(5, 8); n++)
        CHECK_EQ(worlds_as_threads(n, NULL, every_size, &seed), 0);
}

static void sizes_in_processes(void) {
    uint64_t seed = check_seed();
    for (int n = 1; n <= (int)check_count(5, 8); n++)
        CHECK_EQ(worlds_as_processes(n, NULL, every_size, &seed), 0);
}

/* --------------------------------------------------------------------------------------- which way it went */

/* Bytes of buffers in the pool do not pass through a staging area: there is no memory, and no access, where it would be. */
static int zero_copy(struct world *w, void *arg) {
    uint64_t seed = *(uint64_t *)arg, before = stats_read(STAT_ZERO_COPY), mailed = stats_read(STAT_MAILED);
    struct comm *c = world_comm(w);
    NEED(w, mprotect(w->peers.exchange.base, w->coll.conf.staging, PROT_NONE) == 0);
    for (int m = 0; m < c->n; m++)
        if (m != c->me) NEED(w, mprotect(w->peers.peer[m].exchange, w->coll.conf.staging, PROT_NONE) == 0);
    for (int k = 0; k < N_KINDS; k++)
        if (one(w, c, case_kinds[k], 100000, &seed, BOTH_IN_POOL) || one(w, c, case_kinds[k], 100001, &seed, BOTH_IN_POOL | BUFFERS_IN_PLACE)) return 1;
    NEED(w, stats_read(STAT_ZERO_COPY) - before == 2 * N_KINDS && stats_read(STAT_MAILED) == mailed && stats_read(STAT_STAGED) == 0);
    NEED(w, !w->coll.staging_ready[WORLD_SLOT]);
    /* the receiver's buffer alone may be anywhere, where others do not store into it */
    before = stats_read(STAT_ZERO_COPY);
    for (int k = 0; k < N_KINDS; k++)
        if (case_kinds[k] != OP_ALLREDUCE && case_kinds[k] != OP_REDUCE && one(w, c, case_kinds[k], 50000, &seed, 1)) return 1;
    NEED(w, stats_read(STAT_ZERO_COPY) - before == N_KINDS - 2 && !w->coll.staging_ready[WORLD_SLOT]);
    /* small: in the mails, wherever the buffers lie */
    mailed = stats_read(STAT_MAILED);
    for (int k = 0; k < N_KINDS; k++)
        if (one(w, c, case_kinds[k], 64, &seed, 1u << 20)) return 1;
    NEED(w, stats_read(STAT_MAILED) - mailed == N_KINDS && stats_read(STAT_STAGED) == 0 && !w->coll.staging_ready[WORLD_SLOT]);
    return 0;
}

static void pool_buffers_are_not_staged(void) {
    uint64_t seed = 77; /* lists without a part that is empty, and rows */
    CHECK_EQ(worlds_as_processes(3, NULL, zero_copy, &seed), 0);
}

/* Several parts of 128 KiB for the threads of a rank, out of place and in, in the pool and outside. */
static int with_threads(struct world *w, void *arg) {
    uint64_t seed = *(uint64_t *)arg;
    NEED(w, w->coll.crew.n == 2);
    for (int k = 0; k < N_KINDS; k++)
        for (int i = 0; i < 3; i++)
            if (one(w, world_comm(w), case_kinds[k], i == 2 ? 100000 : 1000003, &seed, i == 0 ? BOTH_IN_POOL : 0)) return 1;
    return 0;
}

static void shared_among_threads(void) {
    uint64_t seed = check_seed();
    setenv("SYMPOOL_COLL_THREADS", "3", 1);
    setenv("SYMPOOL_STAGING_SIZE", "2M", 1);
    conf_reset(); /* another test has had them read */
    CHECK_EQ(worlds_as_processes(2, NULL, with_threads, &seed), 0);
    setenv("SYMPOOL_STAGING_SIZE", STAGING, 1);
    unsetenv("SYMPOOL_COLL_THREADS");
    conf_reset();
}

/* ----------------------------------------------------------------------------------------------- refusals */

struct refusal {
    const char *said;
    struct call call;
};

static float space[4096], other[4096];
static const size_t fine[] = {4, 4, 4}, places[] = {0, 4, 8}, endless[] = {4, SIZE_MAX / 2, SIZE_MAX / 2}, overlapping[] = {0, 2, 8}, own_differs[] = {4, 5, 4};

#define F32 .dtype = SYP_FLOAT32, .op = SYP_SUM
static const struct refusal refusals[] = {
    {"recv is NULL", {.kind = OP_REDUCE, .send = space, .count = 4, F32, .root = 1}},
    {"root is 3", {.kind = OP_REDUCE, .send = space, .recv = other, .count = 4, F32, .root = 3}},
    {"dtype 77", {.kind = OP_REDUCE_SCATTER, .send = space, .recv = other, .count = 4, .dtype = 77, .op = SYP_SUM}},
    {"op 77", {.kind = OP_REDUCE_SCATTER, .send = space, .recv = other, .count = 4, .dtype = SYP_FLOAT32, .op = 77}},
    {"exceed", {.kind = OP_REDUCE_SCATTER, .send = space, .recv = other, .count = SIZE_MAX / 8, F32}},
    {"overlap", {.kind = OP_REDUCE_SCATTER, .send = space, .recv = space, .count = 4, F32}},
    {"counts is NULL", {.kind = OP_REDUCE_SCATTERV, .send = space, .recv = other, F32}},
    {"counts[1]", {.kind = OP_REDUCE_SCATTERV, .send = space, .recv = other, .send_lens = endless, F32}},
    {"send is NULL", {.kind = OP_REDUCE_SCATTERV, .recv = other, .send_lens = fine, F32}},
    {"recv is NULL", {.kind = OP_ALLGATHER, .send = space, .count = 4}},
    {"len is", {.kind = OP_ALLGATHER, .send = space, .recv = other, .count = SIZE_MAX / 2}},
    {"overlap", {.kind = OP_ALLGATHER, .send = space, .recv = space, .count = 4}},
    {"lens is NULL", {.kind = OP_ALLGATHERV, .send = space, .recv = other}},
    {"lens[1]", {.kind = OP_ALLGATHERV, .send = space, .recv = other, .send_lens = endless}},
    {"send_stride is 3", {.kind = OP_ALLGATHER_ROWS, .send = space, .recv = other, .rows = 2, .count = 4, .send_stride = 3}},
    {"recv_stride is 11", {.kind = OP_ALLGATHER_ROWS, .send = space, .recv = other, .rows = 2, .count = 4, .recv_stride = 11}},
    {"recv_stride", {.kind = OP_ALLGATHER_ROWS, .send = space, .recv = other, .rows = 5, .count = 4, .recv_stride = SIZE_MAX / 4}},
    {"rows is", {.kind = OP_ALLGATHER_ROWS, .send = space, .recv = other, .rows = SIZE_MAX / 8, .count = 4}},
    {"overlap", {.kind = OP_ALLGATHER_ROWS, .send = (char *)space + 4, .recv = space, .rows = 1, .count = 4}},
    {"root is -1", {.kind = OP_GATHER, .send = space, .recv = other, .count = 4, .root = -1}},
    {"recv is NULL", {.kind = OP_GATHER, .send = space, .count = 4, .root = 1}},
    {"overlap", {.kind = OP_GATHER, .send = space, .recv = space, .count = 4, .root = 1}},
    {"send is NULL", {.kind = OP_SCATTER, .recv = other, .count = 4, .root = 1}},
    {"overlap", {.kind = OP_SCATTER, .send = space, .recv = space, .count = 4, .root = 1}},
    {"len is", {.kind = OP_SCATTER, .send = space, .recv = other, .count = SIZE_MAX, .root = 1}},
    {"separate buffers", {.kind = OP_ALLTOALL, .send = space, .recv = space, .count = 4}},
    {"send_lens is NULL", {.kind = OP_ALLTOALLV, .send = space, .recv = other, .send_offs = places, .recv_lens = fine, .recv_offs = places}},
    {"recv_offs is NULL", {.kind = OP_ALLTOALLV, .send = space, .recv = other, .send_lens = fine, .send_offs = places, .recv_lens = fine}},
    {"send_offs[1]", {.kind = OP_ALLTOALLV, .send = space, .recv = other, .send_lens = fine, .send_offs = endless, .recv_lens = fine, .recv_offs = places}},
    {"parts 0 and 1 of recv overlap", {.kind = OP_ALLTOALLV, .send = space, .recv = other, .send_lens = fine, .send_offs = places, .recv_lens = fine, .recv_offs = overlapping}},
    {"part 0 of send and part 0 of recv overlap", {.kind = OP_ALLTOALLV, .send = space, .recv = space, .send_lens = fine, .send_offs = places, .recv_lens = fine, .recv_offs = places}},
    {"send_lens[1] is 5, but recv_lens[1] 4", {.kind = OP_ALLTOALLV, .send = space, .recv = other, .send_lens = own_differs, .send_offs = places, .recv_lens = fine, .recv_offs = places}},
};

/* Member 1 calls what cannot be; the others what can. */
static int refused(struct world *w, void *arg) {
    struct comm *c = world_comm(w);
    char said[64];
    (void)arg;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct call call = refusals[i].call;
        if (c->me != 1) {
            struct call good = {.kind = call.kind, .send = space, .recv = other, .count = 4, F32, .root = 1, .rows = 2, .send_lens = fine, .send_offs = places,
                                .recv_lens = fine, .recv_offs = places};
            call = good;
        }
        int rc = coll_somehow(c, &call);
        snprintf(said, sizeof said, "rank 1: called %s with a refused argument", op_name(call.kind));
        if (rc != (c->me == 1 ? SYP_EINVAL : SYP_EMISMATCH) || !strstr(syp_error_text(), c->me == 1 ? refusals[i].said : said)) {
            fprintf(stderr, "rank %d: refusal %zu (%s): %d: %s\n", w->who.rank, i, refusals[i].said, rc, syp_error_text());
            return 1;
        }
        NEED(w, strcmp(err_record()->operation, op_name(call.kind)) == 0 && (c->me == 1 || err_record()->peer == 1));
    }
    uint64_t seed = 1;
    return one(w, c, OP_ALLGATHER, 5000, &seed, 0); /* the group is as good as before */
}

static void refused_calls(void) {
    CHECK_EQ(worlds_as_threads(3, NULL, refused, NULL), 0);
}

/* What member 1 asks for otherwise than the rest, and what is said of it. */
struct difference {
    const char *said;
    struct call call, differs;
};

static const size_t fine_too[] = {5, 4, 3}, fewer[] = {4, 4, 3}, far[] = {0, 100, 200};
#define BOTH .send = space, .recv = other
static const struct difference differences[] = {
    {"rank 1: reduce sum float32 x 5 to member 0", {.kind = OP_REDUCE, BOTH, .count = 4, F32}, {.kind = OP_REDUCE, BOTH, .count = 5, F32}},
    {"rank 1: reduce sum float32 x 4 to member 2", {.kind = OP_REDUCE, BOTH, .count = 4, F32}, {.kind = OP_REDUCE, BOTH, .count = 4, F32, .root = 2}},
    {"rank 1: reduce_scatter sum float32 x 5", {.kind = OP_REDUCE_SCATTER, BOTH, .count = 4, F32}, {.kind = OP_REDUCE_SCATTER, BOTH, .count = 5, F32}},
    {"rank 1: reduce_scatter max float32 x 4", {.kind = OP_REDUCE_SCATTER, BOTH, .count = 4, F32}, {.kind = OP_REDUCE_SCATTER, BOTH, .count = 4, .dtype = SYP_FLOAT32, .op = SYP_MAX}},
    {"rank 1: reduce_scatter sum int32 x 4", {.kind = OP_REDUCE_SCATTER, BOTH, .count = 4, F32}, {.kind = OP_REDUCE_SCATTER, BOTH, .count = 4, .dtype = SYP_INT32, .op = SYP_SUM}},
    {"rank 1: reduce_scatterv sum float32 of 48 bytes in parts of list #", {.kind = OP_REDUCE_SCATTERV, BOTH, .send_lens = fine, F32}, {.kind = OP_REDUCE_SCATTERV, BOTH, .send_lens = fine_too, F32}},
    {"rank 1: allgather of 5 bytes", {.kind = OP_ALLGATHER, BOTH, .count = 4}, {.kind = OP_ALLGATHER, BOTH, .count = 5}},
    {"rank 1: allgatherv of 12 bytes in parts of list #", {.kind = OP_ALLGATHERV, BOTH, .send_lens = fine}, {.kind = OP_ALLGATHERV, BOTH, .send_lens = fine_too}},
    {"rank 1: allgather of 4 bytes", {.kind = OP_ALLGATHERV, BOTH, .send_lens = fine}, {.kind = OP_ALLGATHER, BOTH, .count = 4}},
    {"rank 1: allgather_rows of 48 bytes in rows of another length", {.kind = OP_ALLGATHER_ROWS, BOTH, .rows = 2, .count = 8}, {.kind = OP_ALLGATHER_ROWS, BOTH, .rows = 4, .count = 4}},
    {"rank 1: gather of 5 bytes to member 0", {.kind = OP_GATHER, BOTH, .count = 4}, {.kind = OP_GATHER, BOTH, .count = 5}},
    {"rank 1: gather of 4 bytes to member 1", {.kind = OP_GATHER, BOTH, .count = 4}, {.kind = OP_GATHER, BOTH, .count = 4, .root = 1}},
    {"rank 1: scatter of 2000 bytes from member 0", {.kind = OP_SCATTER, BOTH, .count = 4}, {.kind = OP_SCATTER, BOTH, .count = 2000}},
    {"rank 1: scatter of 4 bytes from member 2", {.kind = OP_SCATTER, BOTH, .count = 4}, {.kind = OP_SCATTER, BOTH, .count = 4, .root = 2}},
    {"rank 1: alltoall of 3000 bytes", {.kind = OP_ALLTOALL, BOTH, .count = 4}, {.kind = OP_ALLTOALL, BOTH, .count = 3000}},
    {"rank 1: alltoall of 4 bytes", {.kind = OP_ALLTOALLV, BOTH, .send_lens = fine, .send_offs = places, .recv_lens = fine, .recv_offs = places}, {.kind = OP_ALLTOALL, BOTH, .count = 4}},
    {"rank 1 sends 3 bytes to rank 2, which expects 4",
     {.kind = OP_ALLTOALLV, BOTH, .send_lens = fine, .send_offs = places, .recv_lens = fine, .recv_offs = places},
     {.kind = OP_ALLTOALLV, BOTH, .send_lens = fewer, .send_offs = places, .recv_lens = fine, .recv_offs = places}},
    {"rank 2 sends 4 bytes to rank 1, which expects 3",
     {.kind = OP_ALLTOALLV, BOTH, .send_lens = fine, .send_offs = places, .recv_lens = fine, .recv_offs = far},
     {.kind = OP_ALLTOALLV, BOTH, .send_lens = fine, .send_offs = far, .recv_lens = fewer, .recv_offs = places}},
};

static int different(struct world *w, void *arg) {
    struct comm *c = world_comm(w);
    (void)arg;
    for (size_t i = 0; i < sizeof differences / sizeof differences[0]; i++) {
        const struct difference *d = &differences[i];
        memset(other, UNTOUCHED, 64);
        int rc = coll_somehow(c, c->me == 1 ? &d->differs : &d->call);
        if (rc != SYP_EMISMATCH || !strstr(syp_error_text(), d->said)) {
            fprintf(stderr, "rank %d: difference %zu (%s): %d: %s\n", w->who.rank, i, d->said, rc, syp_error_text());
            return 1;
        }
        for (int k = 0; k < 64; k++)
            NEED(w, ((char *)other)[k] == UNTOUCHED);
    }
    uint64_t seed = 1;
    return one(w, c, OP_ALLTOALLV, 5000, &seed, 0);
}

static void different_calls_are_told(void) {
    CHECK_EQ(worlds_as_processes(3, NULL, different, NULL), 0);
}

/* More members than a mail has room for lists of: the verdict is the same, the text cannot say which. */
static int crowd(struct world *w, void *arg) {
    struct comm *c = world_comm(w);
    uint64_t seed = *(uint64_t *)arg;
    size_t lens[256], offs[256];
    for (int i = 0; i < 2; i++)
        if (one(w, c, OP_ALLTOALLV, 20, &seed, 0) || one(w, c, OP_ALLTOALLV, 100, &seed, 0) || one(w, c, OP_ALLTOALLV, 100, &seed, BOTH_IN_POOL)) return 1;
    if (one(w, c, OP_ALLTOALLV, 0, &seed, 0) || one(w, c, OP_REDUCE_SCATTERV, 64, &seed, 0) || one(w, c, OP_ALLGATHERV, 100, &seed, 0)) return 1;
    for (int m = 0; m < c->n; m++)
        lens[m] = 2, offs[m] = 2 * (size_t)m;
    struct call call = {.kind = OP_ALLTOALLV, BOTH, .send_lens = lens, .send_offs = offs, .recv_lens = lens, .recv_offs = offs};
    char mine[512];
    call.recv = mine;
    if (c->me == 3) lens[5] = 1;
    NEED(w, coll_run(c, &call, 0) == SYP_EMISMATCH && strstr(syp_error_text(), "lists of lengths disagree"));
    return 0;
}

static void more_members_than_lists(void) {
    uint64_t seed = check_seed();
    struct world_setup small = {.local_mem_size = 4 << 20, .meta_size = 64 << 10, .timeout_ns = 60 * (int64_t)NS_PER_S};
    CHECK_EQ(worlds_as_processes(81, &small, crowd, &seed), 0);
    CHECK_EQ(worlds_as_processes(243, &small, crowd, &seed), 0);
}

/* ---------------------------------------------------------------------------------------- random programs */

struct program {
    uint64_t seed;
    int steps;
};

/* All ranks walk one random list of (group, operation); each takes part where it is a member. */
static int random_program(struct world *w, void *arg) {
    const struct program *p = arg;
    uint64_t seed = p->seed;
    struct comm *g[5] = {world_comm(w)};
    int n = w->peers.n;
    for (int k = 1; k < 5; k++) {
        int list[MAX_WORLD], m = 0;
        for (int r = 0; r < n; r++)
            if (check_random(&seed) >> 20 & 1) list[m++] = r;
        if (m == 0) list[m++] = k % n;
        NEED(w, comm_create(g[0], list, m, &g[k]) == SYP_OK);
    }
    for (int i = 0; i < p->steps; i++) {
        uint64_t x = check_random(&seed), own = x;
        struct comm *c = g[x % 5];
        size_t len = (x >> 8 & 3) == 0 ? x >> 12 & 0x7fff : x >> 12 & 0x3ff;
        if (c && one(w, c, case_kinds[(x >> 40) % N_KINDS], len, &own, 0)) return 1;
    }
    return 0;
}

static void random_programs(void) {
    struct program p = {check_seed(), (int)check_count(150, 6000)};
    for (int n = 2; n <= 8; n += (int)check_count(3, 1)) {
        delays_on(p.seed, 3);
        CHECK_EQ(worlds_as_threads(n, NULL, random_program, &p), 0);
        CHECK_EQ(worlds_as_processes(n, NULL, random_program, &p), 0);
        delays_off();
        p.steps *= 4;
        CHECK_EQ(worlds_as_processes(n, NULL, random_program, &p), 0);
        p.steps /= 4;
        check_random(&p.seed);
    }
}

/* ------------------------------------------------------------------------------------------------- groups */

static int strided(struct world *w, void *arg) {
    struct comm *c = world_comm(w), *g = NULL;
    uint64_t seed = 5;
    (void)arg;
    NEED(w, comm_split_strided(c, 4, -2, 3, &g) == SYP_OK && (g != NULL) == (c->me % 2 == 0));
    if (g) NEED(w, g->n == 3 && g->rank[0] == 4 && g->rank[1] == 2 && g->rank[2] == 0);
    if (g && one(w, g, OP_ALLGATHER, 3000, &seed, 0)) return 1;
    if (g) NEED(w, comm_destroy(g) == SYP_OK);
    NEED(w, comm_split_strided(c, c->n - 1, 0, 1, &g) == SYP_OK && (g != NULL) == (c->me == c->n - 1));
    if (g) NEED(w, comm_destroy(g) == SYP_OK);
    static const int wrong[][3] = {{0, 0, 2}, {0, 1, 6}, {0, 1, 0}, {-1, 1, 2}, {5, -1, 2}, {1, -1, 3}, {3, 1, 3}, {0, INT32_MAX, 5}, {0, INT32_MIN, 5}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        NEED(w, comm_split_strided(c, wrong[i][0], wrong[i][1], wrong[i][2], &g) == SYP_EINVAL && !g);
        NEED(w, strstr(syp_error_text(), "not so many different ranks of a group of 5"));
    }
    int rc = c->me == 1 ? comm_split_strided(c, 0, 9, 2, &g) : comm_split_strided(c, 0, 1, 2, &g); /* refused at one side: the others learn it */
    NEED(w, rc == (c->me == 1 ? SYP_EINVAL : SYP_EMISMATCH) && !g);
    rc = c->me == 1 ? comm_split_strided(c, 0, 2, 2, &g) : comm_split_strided(c, 0, 1, 2, &g);
    NEED(w, rc == SYP_EMISMATCH && !g);
    return coll_barrier(c, 0);
}

static void strided_groups(void) {
    CHECK_EQ(worlds_as_threads(5, NULL, strided, NULL), 0);
}

int main(void) {
    setenv("SYMPOOL_STAGING_SIZE", STAGING, 1);
    return check_main("operations", (struct check_test[]){{"sizes", sizes},
                                                          {"sizes_in_processes", sizes_in_processes},
                                                          {"pool_buffers_are_not_staged", pool_buffers_are_not_staged},
                                                          {"shared_among_threads", shared_among_threads},
                                                          {"refused_calls", refused_calls},
                                                          {"different_calls_are_told", different_calls_are_told},
                                                          {"more_members_than_lists", more_members_than_lists},
                                                          {"random_programs", random_programs},
                                                          {"strided_groups", strided_groups},
                                                          {0}});
}
