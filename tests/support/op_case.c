/* SPDX-License-Identifier: Apache-2.0 */
/* See the header.  The expected bytes are made from the members' inputs alone, by code that shares nothing with the library's. */
#include "tests/support/op_case.h"

#include "collectives/reduce.h"
#include "tests/support/check.h"

#include <stdlib.h>

#define GUARD 64u
#define UNTOUCHED 0x5a

static const int kinds[] = {OP_ALLREDUCE,  OP_REDUCE,         OP_REDUCE_SCATTER, OP_REDUCE_SCATTERV, OP_ALLGATHER, OP_ALLGATHERV, OP_ALLGATHER_ROWS,
                            OP_GATHER,     OP_SCATTER,        OP_ALLTOALL,       OP_ALLTOALLV,       OP_BROADCAST, OP_BARRIER,    OP_ALLREDUCE};

static int reduces(int kind) {
    return kind == OP_ALLREDUCE || kind == OP_REDUCE || kind == OP_REDUCE_SCATTER || kind == OP_REDUCE_SCATTERV;
}

static size_t sum(const size_t *list, int n) {
    size_t s = 0;
    for (int i = 0; i < n; i++)
        s += list[i];
    return s;
}

/* -------------------------------------------------------------------------------------------------- inputs */

static uint32_t hash_of(const struct op_case *a, int m, size_t i) {
    return ((uint32_t)i + 1) * 2654435761u + a->salt + (uint32_t)m * 0x85ebca6bu;
}

/* Small whole numbers, or such that a sum's order shows. */
#define FILL(type, expression)                                                                                         \
    for (size_t e = 0; e < len / sizeof(type); e++) {                                                                  \
        int v = (int)(hash_of(a, m, at / sizeof(type) + e) >> 12) - 500000;                                            \
        type x = (type)(expression);                                                                                   \
        memcpy(to + e * sizeof x, &x, sizeof x);                                                                       \
    }                                                                                                                  \
    break

/* Bytes [at, at + len) of what member m sends; whole elements. */
static void input(const struct op_case *a, int m, size_t at, size_t len, char *to) {
    switch (a->call.dtype) {
    case SYP_FLOAT32: FILL(float, (float)v * 1.1f);
    case SYP_FLOAT64: FILL(double, v * 1.1);
    case SYP_INT8: FILL(int8_t, v & 0x3f);
    case SYP_INT32: FILL(int32_t, v);
    case SYP_INT64: FILL(int64_t, (int64_t)v << 20);
    default:
        for (size_t i = 0; i < len; i++)
            to[i] = (char)(hash_of(a, m, at + i) >> 24);
    }
}

#define COMBINE(type)                                                                                                  \
    for (size_t e = 0; e < len / sizeof(type); e++) {                                                                  \
        type x, y;                                                                                                     \
        memcpy(&x, acc + e * sizeof x, sizeof x);                                                                      \
        memcpy(&y, with + e * sizeof y, sizeof y);                                                                     \
        x = (type)(a->call.op == SYP_SUM ? x + y : (a->call.op == SYP_MAX) == (x > y) ? x : y);                           \
        memcpy(acc + e * sizeof x, &x, sizeof x);                                                                      \
    }                                                                                                                  \
    break

/* The promise: in member order, rounded after every step. */
static void combine(const struct op_case *a, char *acc, const char *with, size_t len) {
    switch (a->call.dtype) {
    case SYP_FLOAT32: COMBINE(float);
    case SYP_FLOAT64: COMBINE(double);
    case SYP_INT8: COMBINE(int8_t);
    case SYP_INT32: COMBINE(int32_t);
    default: COMBINE(int64_t);
    }
}

/* ------------------------------------------------------------------------------------------------ arguments */

/* A length, mostly `len`. */
static size_t around(uint64_t *seed, size_t len) {
    uint64_t x = check_random(seed) >> 20;
    return x % 4 == 0 ? x / 4 % (len + 1) : x % 16 == 1 ? 0 : len;
}

static void draw_lists(struct op_case *a, uint64_t *seed) {
    int n = a->n;
    size_t count = a->call.count;
    for (int m = 0; m < n; m++)
        a->lens[m] = around(seed, count);
    if (a->call.kind == OP_ALLGATHER_ROWS)
        for (int m = 0; m < n; m++) {
            a->send_at[m] = count + (check_random(seed) >> 20) % 3 * 7;
            a->recv_at[m] = count * (size_t)n + (check_random(seed) >> 20) % 3 * 5;
        }
    if (a->call.kind != OP_ALLTOALLV) return;
    for (int i = 0; i < n * n; i++)
        a->lens[i] = around(seed, count);
    for (int m = 0; m < n; m++) {
        size_t send = 0, recv = 0;
        for (int i = 0; i < n; i++) { /* in an order that is not the members', with gaps */
            int k = m % 2 ? n - 1 - i : i;
            a->send_at[m * n + k] = send += (check_random(seed) >> 20) % 3;
            a->recv_at[m * n + k] = recv += (check_random(seed) >> 20) % 3;
            send += a->lens[m * n + k];
            recv += a->lens[k * n + m];
        }
    }
}

static void draw(struct op_case *a, int kind, size_t bytes, uint64_t *seed) {
    static const int types[] = {SYP_FLOAT32, SYP_FLOAT64, SYP_INT8, SYP_INT64, SYP_INT32}, ops[] = {SYP_SUM, SYP_SUM, SYP_MIN, SYP_MAX};
    uint64_t x = check_random(seed) >> 20;
    int whole;
    a->salt = (uint32_t)(check_random(seed) >> 20);
    a->call.kind = kind != OP_NONE ? kind : kinds[(x >> 16) % (sizeof kinds / sizeof kinds[0])];
    kind = a->call.kind;
    whole = kind == OP_ALLREDUCE || kind == OP_REDUCE || kind == OP_BROADCAST;
    a->size = 1;
    a->call.root = (int)(x % (uint64_t)a->n);
    if (reduces(kind)) {
        a->call.dtype = types[(x >> 8 & 15) % 5];
        a->call.op = ops[x >> 12 & 3];
        a->size = reduce_size(a->call.dtype);
    }
    a->call.count = kind == OP_BARRIER ? 0 : bytes / a->size / (size_t)(whole ? 1 : a->n);
    if (kind == OP_ALLGATHER_ROWS) {
        a->call.rows = (size_t)(x >> 13 & 7);
        if (a->call.rows) a->call.count /= a->call.rows;
    }
    draw_lists(a, seed);
}

static size_t last_end(const size_t *at, const size_t *lens, int n, int step) {
    size_t end = 0;
    for (int i = 0; i < n; i++)
        if (lens[i * step] && at[i] + lens[i * step] > end) end = at[i] + lens[i * step];
    return end;
}

/* What this member has and gets. */
static void take_side(struct op_case *a) {
    const struct call *call = &a->call;
    size_t n = (size_t)a->n, count = call->count, me = (size_t)a->me;
    int root = a->me == call->root, v = call->kind == OP_REDUCE_SCATTERV || call->kind == OP_ALLGATHERV;
    a->own = v ? a->lens[me] : count;
    a->begin = v ? sum(a->lens, a->me) : me * count;
    a->in_place = SIZE_MAX;
    size_t all = v ? sum(a->lens, a->n) : n * count, send = 0, recv = 0;
    switch (call->kind) {
    case OP_ALLREDUCE:
    case OP_REDUCE:
        send = count;
        recv = root || call->kind == OP_ALLREDUCE ? count : 0;
        a->begin = a->in_place = 0;
        break;
    case OP_REDUCE_SCATTER:
    case OP_REDUCE_SCATTERV: send = all, recv = a->own, a->in_place = a->begin * a->size; break;
    case OP_ALLGATHER:
    case OP_ALLGATHERV: send = a->own, recv = all, a->in_place = a->begin; break;
    case OP_ALLGATHER_ROWS:
        send = call->rows && count ? (call->rows - 1) * a->send_at[me] + count : 0;
        recv = call->rows && count ? (call->rows - 1) * a->recv_at[me] + count * n : 0;
        break;
    case OP_GATHER: send = count, recv = root ? all : 0, a->in_place = root ? a->begin : SIZE_MAX; break;
    case OP_SCATTER: send = root ? all : 0, recv = count, a->in_place = root ? a->begin : SIZE_MAX; break;
    case OP_ALLTOALL: send = recv = all; break;
    case OP_ALLTOALLV:
        send = last_end(a->send_at + a->me * a->n, a->lens + a->me * a->n, a->n, 1);
        recv = last_end(a->recv_at + a->me * a->n, a->lens + a->me, a->n, a->n);
        break;
    case OP_BROADCAST: recv = count; break;
    default: break;
    }
    a->send_len = send * a->size;
    a->recv_len = recv * a->size;
}

/* -------------------------------------------------------------------------------------------------- buffers */

static int block_make(struct op_case *a, int which, size_t len, int in_pool, size_t shift) {
    struct case_block *b = &a->block[which];
    b->len = len;
    b->in_pool = in_pool;
    b->memory = in_pool ? world_alloc(a->w, len + 3 * GUARD) : malloc(len + 3 * GUARD);
    if (!b->memory) return 1;
    memset(b->memory, UNTOUCHED, len + 3 * GUARD);
    b->at = b->memory + GUARD + shift;
    return 0;
}

static void fill_call(struct op_case *a, uint64_t mine) {
    struct call *call = &a->call;
    int all = call->kind == OP_ALLTOALLV, row = all ? a->me * a->n : 0;
    call->send = a->send_len || mine >> 16 & 1 ? a->send : NULL; /* NULL where no byte is read or written */
    call->recv = a->recv_len || mine >> 17 & 1 ? a->recv : NULL;
    call->send_lens = a->lens + row;
    call->send_offs = a->send_at + row;
    call->recv_offs = a->recv_at + row;
    for (int m = 0; m < a->n; m++)
        a->recv_lens[m] = a->lens[m * a->n + a->me];
    call->recv_lens = a->recv_lens;
    if (call->kind == OP_ALLGATHER_ROWS) {
        call->send_stride = a->send_at[a->me];
        call->recv_stride = a->recv_at[a->me];
    }
}

int op_case_make(struct op_case *a, struct world *w, const struct comm *c, int kind, size_t bytes, uint64_t common, uint64_t mine) {
    uint64_t seed = common | 1;
    memset(a, 0, sizeof *a);
    a->w = w;
    a->n = c->n;
    a->me = c->me;
    for (int i = 0; i < 3; i++)
        (void)check_random(&seed);
    draw(a, kind, bytes, &seed);
    take_side(a);
    a->same = a->in_place != SIZE_MAX && a->send_len && a->recv_len && (mine & 3) == 3;
    if (!(a->same && a->send_len < a->recv_len) && block_make(a, 0, a->send_len, mine >> 2 & 1, mine >> 8 & 15)) return 1;
    if (!(a->same && a->send_len >= a->recv_len) && block_make(a, 1, a->recv_len, mine >> 3 & 1, mine >> 12 & 15)) return 1;
    a->send = a->block[0].memory ? a->block[0].at : a->block[1].at + a->in_place;
    a->recv = a->block[1].memory ? a->block[1].at : a->block[0].at + a->in_place;
    input(a, a->me, 0, a->send_len, a->send);
    if (a->call.kind == OP_BROADCAST && a->me == a->call.root) input(a, a->me, 0, a->recv_len, a->recv);
    fill_call(a, mine);
    return 0;
}

void op_case_free(struct op_case *a) {
    for (int i = 0; i < 2; i++) {
        if (a->block[i].memory && a->block[i].in_pool)
            world_free(a->w, a->block[i].memory);
        else
            free(a->block[i].memory);
        a->block[i].memory = NULL;
    }
}

/* -------------------------------------------------------------------------------------------------- results */

/* What is received; `with` is room for as much. */
static void want(const struct op_case *a, char *to, char *with) {
    size_t count = a->call.count, n = (size_t)a->n, me = (size_t)a->me, at = 0;
    memset(to, UNTOUCHED, a->recv_len);
    if (a->recv_len == 0) return;
    if (reduces(a->call.kind)) {
        input(a, 0, a->begin * a->size, a->recv_len, to);
        for (int m = 1; m < a->n; m++) {
            input(a, m, a->begin * a->size, a->recv_len, with);
            combine(a, to, with, a->recv_len);
        }
        return;
    }
    if (a->call.kind == OP_BROADCAST || a->call.kind == OP_SCATTER) {
        input(a, a->call.root, a->call.kind == OP_SCATTER ? a->begin : 0, count, to);
        return;
    }
    for (size_t m = 0; m < n; m++) {
        int k = (int)m;
        switch (a->call.kind) {
        case OP_ALLGATHERV:
            input(a, k, 0, a->lens[m], to + at);
            at += a->lens[m];
            break;
        case OP_ALLGATHER_ROWS:
            for (size_t r = 0; r < a->call.rows; r++)
                input(a, k, r * a->send_at[m], count, to + r * a->recv_at[me] + m * count);
            break;
        case OP_ALLTOALL: input(a, k, me * count, count, to + m * count); break;
        case OP_ALLTOALLV: input(a, k, a->send_at[m * n + me], a->lens[m * n + me], to + a->recv_at[me * n + m]); break;
        default: input(a, k, 0, count, to + m * count);
        }
    }
}

static int differs(const struct op_case *a, const char *what, const char *is, const char *should, size_t len) {
    if (!len || memcmp(is, should, len) == 0) return 0;
    size_t i = 0;
    while (is[i] == should[i])
        i++;
    fprintf(stderr, "rank %d: %s of %zu, member %d of %d: byte %zu of %zu %s is %02x, expected %02x\n", a->w->who.rank, op_name(a->call.kind), a->call.count,
            a->me, a->n, i, len, what, (unsigned char)is[i], (unsigned char)should[i]);
    return 1;
}

static int guards_hold(const struct op_case *a) {
    for (int i = 0; i < 2; i++) {
        const struct case_block *b = &a->block[i];
        const char *end = b->memory ? b->memory + b->len + 3 * GUARD : NULL;
        for (const char *p = b->memory; p < end; p = p + 1 == b->at ? b->at + b->len : p + 1)
            if (*p != UNTOUCHED) {
                fprintf(stderr, "rank %d: %s of %zu: byte %td from the start of a buffer of %zu is written\n", a->w->who.rank, op_name(a->call.kind),
                        a->call.count, p - b->at, b->len);
                return 0;
            }
    }
    return 1;
}

/* The two buffers as they should be; in place they overlap, and what is received covers what was sent. */
static int holds(const struct op_case *a, const char *recv) {
    char *send = malloc(a->send_len + 1);
    if (!send) return 0;
    input(a, a->me, 0, a->send_len, send);
    if (a->same && a->send_len >= a->recv_len)
        memcpy(send + a->in_place, recv, a->recv_len);
    else if (a->same)
        memcpy(send, recv + a->in_place, a->send_len);
    int good = !differs(a, "received", a->recv, recv, a->recv_len) && !differs(a, "sent", a->send, send, a->send_len) && guards_hold(a);
    free(send);
    return good;
}

int op_case_exact(const struct op_case *a) {
    char *recv = malloc(2 * a->recv_len + 1);
    if (!recv) return 0;
    want(a, recv, recv + a->recv_len);
    int good = holds(a, recv);
    free(recv);
    return good;
}

int op_case_untouched(const struct op_case *a) {
    char *recv = malloc(a->recv_len + 1);
    if (!recv) return 0;
    memset(recv, UNTOUCHED, a->recv_len);
    if (a->call.kind == OP_BROADCAST && a->me == a->call.root) input(a, a->me, 0, a->recv_len, recv);
    if (a->same && a->send_len >= a->recv_len)
        input(a, a->me, a->in_place, a->recv_len, recv);
    else if (a->same)
        input(a, a->me, 0, a->send_len, recv + a->in_place);
    int good = holds(a, recv);
    free(recv);
    return good;
}
