/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives: each rank rewrites its whole buffer before every operation and reads the whole result after it, as a
 * program that computes does; back-to-back calls on data nobody touches would measure a different, friendlier state of
 * the caches. Beside every operation the same loop times a plain copy of as many bytes that the next rank has just
 * written.
 */
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "allocator/sympool.h"
#include "tools/bench/bench.h"

#define MAX_BYTES (16u << 20)
#define MAX_ROUNDS 1001
#define WARM_UP 3
#define MEM_SIZE "256M"
#define META_SIZE "96M"

static const uint32_t sizes[] = {8, 256, 4u << 10, 64u << 10, 256u << 10, 1u << 20, 4u << 20, 16u << 20};
#define N_SIZES (sizeof sizes / sizeof sizes[0])

struct coll_record {
    char op[16], buffers[16];
    int ranks, rounds;
    uint32_t bytes;
    double op_ns, copy_ns, line_ns;
};

enum coll_op { OP_BARRIER, OP_BROADCAST, OP_ALLREDUCE };
static const char *const op_names[] = {"barrier", "broadcast", "all-reduce"};

struct coll {
    const struct rank_io *io;
    int rank, n;
    int processors; /* that the job may use; below n the ranks take turns */
    float *pool;    /* symmetric region: the buffer that peers copy from, and of the rows "pool" */
    float *outside; /* libc's memory */
    float *copy;    /* destination of the plain copy */
    int64_t *times; /* symmetric region: [MAX_ROUNDS] of the operation, then of the copy */
    double line_ns;
};

static void barrier(void) {
    must(syp_barrier(SYP_COMM_WORLD, NULL), "barrier");
}

/*
 * One processor for each rank, when there are enough: else the scheduler now and then puts two ranks on one, and the
 * figures are its.  After syp_init, which counts the processors a rank may use.
 */
static void pin(const struct coll *c) {
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof all, &all) || CPU_COUNT(&all) < c->n) return;
    CPU_ZERO(&one);
    int seen = 0;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && seen++ == c->rank) CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one)) die("rank %d: a processor of its own: %s", c->rank, strerror(errno));
}

/* ------------------------------------------------------------------------------------ the physical limits */

/* One-way latency of a cache line between ranks 0 and 1: each spins on its own word and answers in the other's. */
static double line_latency(struct coll *c) {
    enum { BLOCKS = 9, TURNS = 2000 };
    double block_ns[BLOCKS];
    int patient = c->processors >= 2;
    _Atomic uint64_t *own = must_have(syp_symm_aligned_alloc(128, 128), "a cache line");
    atomic_store_explicit(own, 0, memory_order_relaxed);
    barrier();
    if (c->rank < 2) {
        _Atomic uint64_t *peer = must_have(syp_peer_ptr(own, 1 - c->rank), "the peer's line");
        uint64_t turn = 0;
        for (int b = 0; b < BLOCKS; b++) {
            int64_t start = now_ns();
            for (int i = 0; i < TURNS; i++) {
                turn++;
                /* release: pairs with the acquire load of the other side's loop */
                if (c->rank == 0) atomic_store_explicit(peer, turn, memory_order_release);
                for (unsigned spins = 1; atomic_load_explicit(own, memory_order_acquire) != turn; spins++) {
                    if (!patient) sched_yield();
                    if (spins % (1u << 24) == 0 && now_ns() - start > 20000000000) die("the peer does not answer");
                }
                if (c->rank == 1) atomic_store_explicit(peer, turn, memory_order_release);
            }
            block_ns[b] = (double)(now_ns() - start) / (2 * TURNS);
        }
        c->line_ns = median(block_ns, BLOCKS);
    }
    barrier();
    must(syp_symm_free((void *)own), "free");
    return c->line_ns;
}

/*
 * The copying that the operation cannot do without: of a broadcast, every other rank copies the root's buffer; of an
 * all-reduce, every rank that of the next.
 */
static int64_t time_copy(struct coll *c, enum coll_op op, uint32_t bytes, int round) {
    int from = op == OP_BROADCAST ? round % c->n : (c->rank + 1) % c->n;
    const float *peer = must_have(syp_peer_ptr(c->pool, from), "the peer's buffer");
    barrier();
    int64_t start = now_ns();
    if (from != c->rank) memcpy(c->copy, peer, bytes);
    return now_ns() - start;
}

/* ------------------------------------------------------------------------------------------ one operation */

/* Small whole numbers: every sum is exact. */
static float input(int rank, int round, uint32_t i) {
    return (float)((rank + 1) * (round % 7 + 1) + (int)(i % 16));
}

static void fill(float *buf, uint32_t bytes, int rank, int round) {
    for (uint32_t i = 0; i < bytes / sizeof *buf; i++)
        buf[i] = input(rank, round, i);
}

static void verify(const struct coll *c, enum coll_op op, const float *buf, uint32_t bytes, int round) {
    for (uint32_t i = 0; i < bytes / sizeof *buf; i++) {
        float expected = op == OP_BROADCAST ? input(round % c->n, round, i)
                                            : (float)(c->n * (c->n + 1) / 2 * (round % 7 + 1) + c->n * (int)(i % 16));
        if (buf[i] != expected)
            die("rank %d: %s of %u bytes: element %u is %g, expected %g", c->rank, op_names[op], bytes, i,
                (double)buf[i], (double)expected);
    }
}

static int64_t time_op(struct coll *c, enum coll_op op, float *buf, uint32_t bytes, int round) {
    barrier();
    int64_t start = now_ns();
    if (op == OP_ALLREDUCE)
        must(syp_allreduce(buf, buf, bytes / sizeof *buf, SYP_FLOAT32, SYP_SUM, SYP_COMM_WORLD, NULL), "all-reduce");
    else if (op == OP_BROADCAST)
        must(syp_broadcast(buf, bytes, round % c->n, SYP_COMM_WORLD, NULL), "broadcast");
    else
        barrier();
    return now_ns() - start;
}

/* Median over the rounds of the slowest rank's time.  times: this rank's, in the symmetric region. */
static double slowest_median(const struct coll *c, const int64_t *times, int rounds) {
    static double slowest[MAX_ROUNDS];
    for (int i = 0; i < rounds; i++) {
        slowest[i] = 0;
        for (int r = 0; r < c->n; r++) {
            const int64_t *peer = must_have(syp_peer_ptr(times, r), "the peers' times");
            if ((double)peer[i] > slowest[i]) slowest[i] = (double)peer[i];
        }
    }
    return median(slowest, (size_t)rounds);
}

static void measure(struct coll *c, enum coll_op op, int in_pool, uint32_t bytes) {
    float *buf = in_pool ? c->pool : c->outside;
    uint32_t fit = (256u << 20) / (bytes ? bytes : 1);
    int rounds = fit > MAX_ROUNDS ? MAX_ROUNDS : fit < 25 ? 25 : (int)fit;
    for (int i = -WARM_UP; i < rounds; i++) {
        int slot = i < 0 ? 0 : i, round = i + WARM_UP;
        fill(c->pool, bytes, c->rank, round);
        c->times[MAX_ROUNDS + slot] = time_copy(c, op, bytes, round);
        barrier(); /* the copies are done before the buffers change again */
        fill(buf, bytes, c->rank, round);
        c->times[slot] = time_op(c, op, buf, bytes, round);
        verify(c, op, buf, bytes, round);
    }
    barrier();
    if (c->rank == 0) {
        struct coll_record record = {.ranks = c->n, .rounds = rounds, .bytes = bytes, .line_ns = c->line_ns};
        snprintf(record.op, sizeof record.op, "%s", op_names[op]);
        snprintf(record.buffers, sizeof record.buffers, "%s", op == OP_BARRIER ? "-" : in_pool ? "pool" : "outside");
        record.op_ns = slowest_median(c, c->times, rounds);
        record.copy_ns = bytes ? slowest_median(c, c->times + MAX_ROUNDS, rounds) : 0;
        rank_send(c->io, &record, sizeof record);
    }
    barrier();
}

void bench_coll_rank(const struct rank_io *io) {
    rank_wait_for_release(io);
    must(syp_init_env(), "syp_init");
    struct coll c = {.io = io, .rank = syp_rank(), .n = syp_world_size(), .processors = processors()};
    pin(&c);
    c.pool = must_have(syp_symm_malloc(MAX_BYTES), "the buffer");
    c.times = must_have(syp_symm_malloc(2 * MAX_ROUNDS * sizeof *c.times), "the times");
    c.copy = must_have(aligned_alloc(4096, MAX_BYTES), "the copy");
    c.outside = must_have(aligned_alloc(4096, MAX_BYTES), "the outside buffer");
    /* Every page is there before anything is timed. */
    memset(c.pool, 0, MAX_BYTES);
    memset(c.copy, 0, MAX_BYTES);
    memset(c.outside, 0, MAX_BYTES);
    memset(c.times, 0, 2 * MAX_ROUNDS * sizeof *c.times);

    line_latency(&c);
    measure(&c, OP_BARRIER, 1, 0);
    for (enum coll_op op = OP_BROADCAST; op <= OP_ALLREDUCE; op++)
        for (int in_pool = 1; in_pool >= 0; in_pool--)
            for (size_t s = 0; s < N_SIZES; s++)
                measure(&c, op, in_pool, sizes[s]);

    free(c.outside);
    free(c.copy);
    must(syp_symm_free(c.times), "free");
    must(syp_symm_free(c.pool), "free");
    must(syp_finalize(), "syp_finalize");
}

/* ---------------------------------------------------------------------------------------------- the tables */

static void report_job(int n) {
    struct job job;
    struct coll_record rec;
    job_start(&job, "coll", n, MEM_SIZE, META_SIZE);
    job_release(&job);
    while (job_next(&job, &rec, sizeof rec)) {
        /* Nothing that moves bytes between two processors is faster than one line, or than copying the bytes. */
        double limit = rec.copy_ns > rec.line_ns ? rec.copy_ns : rec.line_ns;
        struct field row[] = {
            {"operation", UNIT_TEXT, 0, rec.op},      {"buffers", UNIT_TEXT, 0, rec.buffers},
            {"ranks", UNIT_COUNT, rec.ranks, NULL},   {"size", UNIT_BYTES, rec.bytes, NULL},
            {"time", UNIT_NS, rec.op_ns, NULL},       {"line", UNIT_NS, rec.line_ns, NULL},
            {"copy", UNIT_NS, rec.copy_ns, NULL},     {"x_limit", UNIT_RATIO, rec.op_ns / limit, NULL},
            {"rounds", UNIT_COUNT, rec.rounds, NULL},
        };
        report_row(row, (int)(sizeof row / sizeof row[0]));
    }
    job_end(&job);
}

void bench_coll(void) {
    report_section(
        "coll",
        "fp32 sum, in place; every rank rewrites its buffer before and checks the whole result after each operation, "
        "untimed; "
        "each rank on a processor of its own where there are enough; barrier, then one timed operation; the slowest "
        "rank's time, two clock reads included; median over rounds",
        "none built in but the plain copy",
        "line = one-way latency of a cache line between ranks 0 and 1; copy = memcpy of as many bytes that another "
        "rank has just written, into every rank (broadcast: into all but the root) at once, in the same loop; x_limit "
        "= time / the larger of the two; with more ranks than processors the scheduler's turns come on top of both");
    report_job(2);
    report_job(4);
}
