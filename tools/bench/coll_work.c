/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives, in a rank: the timed loops, the same for every implementation.
 *
 * A sample is this rank's time from the common start until it is done; the first process takes the slowest rank's.  Every result is
 * compared with what it must be, untimed: byte by byte after each fresh operation, and with every element different in DO_VERIFY.
 */
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "tools/bench/coll_work.h"

#define OFFSET 64u /* of buffers from the start of a page */

/* --------------------------------------------------------------------------------------------------------- data */

/* What rank `from` has for `block` at a place, in this generation: 1 .. 8, so that sums are exact in every type. */
static int value_at(int from, int block, unsigned generation, size_t place) {
    return 1 + (int)((3u * (unsigned)from + 5u * (unsigned)block + generation + place) % 8);
}

/* The same in the result: of rank w->rank in its block. */
static int result_at(const struct work *w, const struct coll_call *c, int block, unsigned generation, size_t place) {
    int left = (w->rank + w->n - 1) % w->n, right = (w->rank + 1) % w->n, sum = 0;
    switch (c->op) {
    case OP_ALLREDUCE:
    case OP_REDUCE:
    case OP_REDUCE_SCATTER:
        for (int r = 0; r < w->n; r++)
            sum += value_at(r, c->op == OP_REDUCE_SCATTER ? w->rank : 0, generation, place);
        return sum;
    case OP_ALLGATHER:
    case OP_GATHER: return value_at(block, 0, generation, place);
    case OP_BROADCAST: return value_at(c->root, 0, generation, place);
    case OP_SCATTER: return value_at(c->root, w->rank, generation, place);
    case OP_ALLTOALL: return value_at(block, w->rank, generation, place);
    case OP_PUT: return value_at(left, 0, generation, place);
    case OP_GET: return value_at(right, 0, generation, place);
    default: return value_at(w->rank, 0, generation, place);
    }
}

/* Before the timing: the 64 bytes that repeat, for each generation and block. */
static void make_patterns(struct work *w, struct coll_call *c) {
    size_t size = coll_types[c->type].size;
    for (unsigned g = 0; g < GENERATIONS; g++)
        for (int block = 0; block < w->n; block++)
            for (size_t i = 0; i < PATTERN / size; i++) {
                c->root = (int)(g % (unsigned)w->n);
                coll_encode(c->type, value_at(w->rank, block, g, i), &w->input[g][block][i * size]);
                coll_encode(c->type, result_at(w, c, block, g, i), &w->output[g][block][i * size]);
            }
}

static void fill(uint8_t *to, size_t bytes, const uint8_t *pattern) {
    size_t i = 0;
    for (; i + PATTERN <= bytes; i += PATTERN)
        memcpy(to + i, pattern, PATTERN);
    memcpy(to + i, pattern, bytes - i);
}

typedef uint64_t two_words __attribute__((vector_size(16)));

/* Reads all of it, whatever it finds. */
static int differs(const uint8_t *from, size_t bytes, const uint8_t *pattern) {
    two_words found[4] = {{0}}, is[4], expected[4];
    size_t i = 0;
    memcpy(expected, pattern, PATTERN);
    for (; i + PATTERN <= bytes; i += PATTERN) {
        memcpy(is, from + i, PATTERN);
        for (int k = 0; k < 4; k++)
            found[k] |= is[k] ^ expected[k];
    }
    two_words any = found[0] | found[1] | found[2] | found[3];
    return (any[0] | any[1]) != 0 || memcmp(from + i, pattern, bytes - i) != 0;
}

static int is_rank_of(const struct coll_call *c, int only_root) {
    return !only_root || c->rank == c->root;
}

static void write_input(const struct work *w, const struct coll_call *c, unsigned g) {
    const struct coll_op_info *op = &coll_ops[c->op];
    size_t blocks = coll_blocks_of(op->send, w->n);
    /* The source and the destination of a copy are rewritten, since in place they would be the same. */
    if (c->op == OP_COPY || c->op == OP_COPY_NT) fill(c->recv, c->bytes, w->input[(g + 1) % GENERATIONS][0]);
    if (!is_rank_of(c, op->root_sends)) return;
    for (size_t i = 0; i < blocks; i++)
        fill((uint8_t *)c->send + i * c->bytes, c->bytes, w->input[g][i]);
}

static int read_output(const struct work *w, const struct coll_call *c, unsigned g) {
    const struct coll_op_info *op = &coll_ops[c->op];
    size_t blocks = coll_blocks_of(op->recv, w->n);
    int bad = 0;
    if (!is_rank_of(c, op->root_receives)) return 0;
    for (size_t i = 0; i < blocks; i++)
        bad |= differs((uint8_t *)c->recv + i * c->bytes, c->bytes, w->output[g][i]);
    return bad;
}

/* ----------------------------------------------------------------------------------------------------- the loops */

/* generation: its inputs; the root rotates with it. */
static void run(struct work *w, struct coll_call *c, unsigned generation) {
    c->root = (int)(generation % (unsigned)w->n); /* what has none ignores it */
    switch (c->op) {
    case OP_COPY: memcpy(c->recv, c->send, c->bytes); break;
    case OP_COPY_NT: limits_copy_nt(c->recv, c->send, c->bytes); break;
    case OP_NOTHING: break;
    default: w->impl->run(c); break;
    }
}

static double since(const struct work *w, uint64_t start) {
    uint64_t now = board_ticks(w->board);
    return (double)(int64_t)(now - start) * w->board->ns_per_tick;
}

static void hot(struct work *w, const struct coll_command *q, struct coll_call *c) {
    const struct coll_op_info *op = &coll_ops[c->op];
    int late;
    /* Zeros stay zeros, however often they are added up. */
    memset(c->send, 0, coll_blocks_of(op->send, w->n) * c->bytes);
    memset(c->recv, 0, coll_blocks_of(op->recv, w->n) * c->bytes);
    board_start(w->board, w->rank, &w->round, &late);
    for (int i = 0; i < q->warm; i++)
        run(w, c, (unsigned)i);
    for (int s = 0; s < q->samples; s++) {
        uint64_t start = board_start(w->board, w->rank, &w->round, &late);
        for (int i = 0; i < q->count; i++)
            run(w, c, (unsigned)i);
        double ns = since(w, start);
        w->board->sample[w->rank][s] = late ? NAN : ns / q->count;
    }
}

static void fresh(struct work *w, const struct coll_command *q, struct coll_call *c) {
    int late;
    for (int s = -q->warm; s < q->samples; s++) {
        unsigned g = (unsigned)(s + q->warm) % GENERATIONS;
        c->root = (int)(g % (unsigned)w->n);
        write_input(w, c, g);
        uint64_t start = board_start(w->board, w->rank, &w->round, &late);
        run(w, c, g);
        double ns = since(w, start);
        if (coll_ops[c->op].one_sided) {
            int ignored;
            board_start(w->board, w->rank, &w->round, &ignored);
        }
        if (read_output(w, c, g)) coll_fail(c, w->impl->name, "the result is wrong");
        if (s >= 0) w->board->sample[w->rank][s] = late ? NAN : ns;
    }
}

/* with: with the operation. */
static void loop(struct work *w, const struct coll_command *q, struct coll_call *c, int with) {
    int late, bad = 0;
    for (int s = -1; s < q->samples; s++) { /* the first one warms up */
        uint64_t start = board_start(w->board, w->rank, &w->round, &late);
        for (int i = 0; i < (s < 0 ? q->warm : q->count); i++) {
            unsigned g = (unsigned)i % GENERATIONS;
            c->root = (int)(g % (unsigned)w->n);
            write_input(w, c, g);
            if (with) run(w, c, g);
            bad |= read_output(w, c, g);
        }
        double ns = since(w, start);
        if (bad && with) coll_fail(c, w->impl->name, "the result is wrong");
        if (s >= 0) w->board->sample[w->rank][s] = late ? NAN : ns / q->count;
    }
}

/* Nobody leaves before all have come: each rank marks that it comes, some of them late. */
static void verify_barrier(struct work *w, struct coll_call *c) {
    for (uint64_t i = 1; i <= 50; i++) {
        if ((int)(i % (unsigned)w->n) == w->rank)
            for (int64_t until = now_ns() + 20000; now_ns() < until;)
                ;
        uint64_t mark = (w->round << 8) + i;
        atomic_store_explicit(&w->board->rank[w->rank].mark, mark, memory_order_relaxed);
        run(w, c, 0);
        for (int r = 0; r < w->n; r++)
            if (atomic_load_explicit(&w->board->rank[r].mark, memory_order_relaxed) < mark)
                coll_fail(c, w->impl->name, "a rank left before all had come");
    }
}

static void verify(struct work *w, struct coll_call *c) {
    const struct coll_op_info *op = &coll_ops[c->op];
    size_t size = coll_types[c->type].size, count = c->bytes / size;
    int late;
    board_start(w->board, w->rank, &w->round, &late);
    if (c->op == OP_BARRIER) {
        verify_barrier(w, c);
        return;
    }
    c->root = w->n - 1;
    for (size_t b = 0; b < coll_blocks_of(op->send, w->n); b++)
        for (size_t i = 0; i < count; i++)
            coll_encode(c->type, value_at(w->rank, (int)b, 1, i + i / 61), (uint8_t *)c->send + b * c->bytes + i * size);
    board_start(w->board, w->rank, &w->round, &late);
    run(w, c, (unsigned)c->root);
    board_start(w->board, w->rank, &w->round, &late);
    for (size_t b = 0; b < coll_blocks_of(op->recv, w->n) && is_rank_of(c, op->root_receives); b++)
        for (size_t i = 0; i < count; i++) {
            uint8_t expected[8];
            coll_encode(c->type, result_at(w, c, (int)b, 1, i + i / 61), expected);
            if (memcmp(expected, (uint8_t *)c->recv + b * c->bytes + i * size, size) == 0) continue;
            char why[80];
            snprintf(why, sizeof why, "element %zu of block %zu is wrong", i, b);
            coll_fail(c, w->impl->name, why);
        }
}

/* --------------------------------------------------------------------------------------------------- the commands */

static void collective(struct work *w, const struct coll_command *q) {
    struct coll_call c = {.op = (int)q->op, .type = (int)q->type, .rank = w->rank, .n = w->n, .plain = q->plain, .bytes = q->bytes};
    /* The side of a put or get that the peer reaches is always in the pool. */
    c.send = w->send[q->in_pool || q->op == OP_GET];
    c.recv = w->recv[q->in_pool || q->op == OP_PUT];
    if (coll_ops[q->op].in_place) c.send = c.recv;
    make_patterns(w, &c);
    switch (q->what) {
    case DO_HOT: hot(w, q, &c); break;
    case DO_FRESH: fresh(w, q, &c); break;
    case DO_LOOP:
    case DO_BARE: loop(w, q, &c, q->what == DO_LOOP); break;
    default: verify(w, &c); break;
    }
}

/* Committed when it is touched. */
static uint8_t *own_memory(uint64_t len) {
    if (len < COLL_RATE_BYTES) len = COLL_RATE_BYTES;
    void *p = mmap(NULL, len + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) die("a buffer of %llu bytes: %s", (unsigned long long)len, strerror(errno));
    return (uint8_t *)p + OFFSET;
}

static uint8_t *pool_memory(const struct coll_impl *impl, uint64_t len) {
    return impl->pool ? (uint8_t *)impl->pool(len + OFFSET) + OFFSET : NULL;
}

/* Rank r to the r-th processor, modulo their number; after the implementation was started, which may look at the mask. */
static void pin(int rank) {
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof all, &all)) return;
    int n = rank % CPU_COUNT(&all);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &all) || n-- > 0) continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        if (sched_setaffinity(0, sizeof one, &one)) die("rank %d: processor %zu cannot be chosen: %s", rank, cpu, strerror(errno));
        return;
    }
}

void coll_worker(const char *board_path, int rank, const struct coll_impl *impl) {
    static struct work w; /* too large for the stack of some */
    struct board *b = board_open(board_path);
    uint32_t turn = 0;
    w.board = b;
    w.impl = impl;
    w.rank = rank;
    w.n = b->n;
    if (rank < 0 || rank >= b->n) die("%s: rank %d of %d", impl->name, rank, b->n);
    pin(rank);
    if (impl->share) impl->share(b->shared, sizeof b->shared, rank, b->n);
    w.send[0] = own_memory(b->send_len);
    w.recv[0] = own_memory(b->recv_len);
    w.send[1] = pool_memory(impl, b->send_len);
    w.recv[1] = pool_memory(impl, b->recv_len);
    if (rank == 0) {
        b->has_pool = w.send[1] != NULL;
        for (int op = 0; op < N_OPS; op++)
            for (int type = 0; type < N_TYPES; type++)
                if (impl->does(op, type)) b->does[op] |= 1u << type;
    }
    board_done(b);
    for (;;) {
        const struct coll_command *q = board_next(b, &turn);
        if (q->what == DO_QUIT) break;
        if (q->what == DO_LINE || q->what == DO_YIELD)
            limits_ping(&w, q);
        else if (q->what == DO_PROBE)
            limits_probe(&w, q);
        else
            collective(&w, q);
        board_done(b);
    }
    board_done(b);
}
