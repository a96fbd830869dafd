/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/cases.h"
#include "collectives/reduce.h"
#include "tests/support/check.h"

#include <stdlib.h>

const int case_kinds[CASE_KINDS] = {OP_ALLREDUCE, OP_REDUCE,  OP_REDUCE_SCATTER, OP_REDUCE_SCATTERV, OP_ALLGATHER, OP_ALLGATHERV,
                                    OP_ALLGATHER_ROWS, OP_GATHER, OP_SCATTER, OP_ALLTOALL, OP_ALLTOALLV, OP_BROADCAST};

/* ----------------------------------------------------------------------------------------------- one case */

int case_reduces(int kind) {
    return kind == OP_ALLREDUCE || kind == OP_REDUCE || kind == OP_REDUCE_SCATTER || kind == OP_REDUCE_SCATTERV;
}

/* A length, mostly `len`. */
static size_t around(uint64_t *seed, size_t len) {
    uint64_t x = check_random(seed) >> 20;
    return x % 4 == 0 ? x / 4 % (len + 1) : x % 16 == 1 ? 0 : len;
}

static void draw_lists(struct ask *a, size_t len, uint64_t *seed) {
    int n = a->n;
    for (int m = 0; m < n; m++)
        a->lens[m] = around(seed, len);
    if (a->call.kind == OP_ALLGATHER_ROWS)
        for (int m = 0; m < n; m++) {
            a->send_at[m] = a->call.count + (check_random(seed) >> 20) % 3 * 7;
            a->recv_at[m] = a->call.count * (size_t)n + (check_random(seed) >> 20) % 3 * 5;
        }
    if (a->call.kind != OP_ALLTOALLV) return;
    for (int from = 0; from < n; from++)
        for (int to = 0; to < n; to++)
            a->lens[from * n + to] = around(seed, len);
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

void case_draw(struct ask *a, int kind, int n, size_t bytes, uint64_t *seed) {
    static const int types[] = {SYP_FLOAT32, SYP_FLOAT64, SYP_INT8, SYP_INT64};
    *a = (struct ask){.n = n, .size = 1, .salt = check_random(seed)};
    uint64_t x = check_random(seed) >> 20;
    a->call.kind = kind;
    a->call.root = (int)(x % (uint64_t)n);
    if (case_reduces(kind)) {
        a->call.dtype = types[x >> 8 & 3];
        a->call.op = (x >> 10 & 3) == 3 ? SYP_MAX : SYP_SUM;
        a->size = reduce_size(a->call.dtype);
    }
    a->call.count = bytes / a->size;
    if (kind == OP_ALLGATHER_ROWS) {
        a->call.rows = (size_t)(x >> 12 & 7);
        if (a->call.rows) a->call.count /= a->call.rows;
    }
    a->lens = calloc((size_t)(n * n), sizeof *a->lens);
    a->send_at = calloc((size_t)(n * n), sizeof *a->lens);
    a->recv_at = calloc((size_t)(n * n), sizeof *a->lens);
    draw_lists(a, a->call.count, seed);
}

void case_forget(struct ask *a) {
    free(a->lens);
    free(a->send_at);
    free(a->recv_at);
}

/* Byte j of what member m sends. */
static char byte_of(const struct ask *a, int m, size_t j) {
    uint64_t x = (j + 1) * 0x9e3779b97f4a7c15u ^ a->salt ^ (uint64_t)(m + 1) * 0xc2b2ae3d27d4eb4fu;
    return (char)(x >> 29);
}

/* Element e of what member m sends: small whole numbers and quarters, so that no sum depends on rounding but its order would show in the larger
 * ones. */
static double number_of(const struct ask *a, int m, size_t e) {
    uint64_t x = (e + 1) * 0x9e3779b97f4a7c15u ^ a->salt ^ (uint64_t)(m + 1) * 0xc2b2ae3d27d4eb4fu;
    x ^= x >> 31;
    return (double)(int64_t)(x & 0xfffff) - 500000;
}

static void put_number(const struct ask *a, char *at, double v) {
    float f = (float)v * 1.1f;
    double d = v * 1.1;
    int8_t i = (int8_t)((int64_t)v & 0x7f);
    int64_t l = (int64_t)v;
    const void *from = a->call.dtype == SYP_FLOAT32 ? (const void *)&f : a->call.dtype == SYP_FLOAT64 ? (const void *)&d : (const void *)&l;
    memcpy(at, a->size == 1 ? (const void *)&i : from, a->size);
}

#define COMBINE(type)                                                                                                  \
    do {                                                                                                               \
        type x, y;                                                                                                     \
        memcpy(&x, acc, sizeof x);                                                                                     \
        memcpy(&y, v, sizeof y);                                                                                       \
        x = (type)(a->call.op == SYP_SUM ? x + y : x > y ? x : y);                                                       \
        memcpy(acc, &x, sizeof x);                                                                                     \
    } while (0)

/* The promise: combined in member order, rounded after every step. */
static void reduced(const struct ask *a, char *acc, size_t e) {
    char v[8];
    put_number(a, acc, number_of(a, 0, e));
    for (int m = 1; m < a->n; m++) {
        put_number(a, v, number_of(a, m, e));
        switch (a->call.dtype) {
        case SYP_FLOAT32: COMBINE(float); break;
        case SYP_FLOAT64: COMBINE(double); break;
        case SYP_INT8: COMBINE(int8_t); break;
        default: COMBINE(int64_t);
        }
    }
}

/* --------------------------------------------------------------------------------- what a member has and gets */

static size_t sum(const size_t *list, int n) {
    size_t s = 0;
    for (int i = 0; i < n; i++)
        s += list[i];
    return s;
}

static size_t last_end(const size_t *at, const size_t *lens, int n, int step) {
    size_t end = 0;
    for (int i = 0; i < n; i++)
        if (lens[i * step] && at[i] + lens[i * step] > end) end = at[i] + lens[i * step];
    return end;
}

struct side case_side(const struct ask *a, int me) {
    size_t n = (size_t)a->n, count = a->call.count, size = a->size, rows = a->call.rows;
    int is_root = me == a->call.root, v = a->call.kind == OP_REDUCE_SCATTERV || a->call.kind == OP_ALLGATHERV;
    struct side s = {.in_place = SIZE_MAX, .own = v ? a->lens[me] : count, .begin = v ? sum(a->lens, me) : (size_t)me * count};
    switch (a->call.kind) {
    case OP_ALLREDUCE: s = (struct side){count * size, count * size, 0, count, 0}; break;
    case OP_REDUCE: s = (struct side){count * size, is_root ? count * size : 0, 0, count, 0}; break;
    case OP_REDUCE_SCATTER:
    case OP_REDUCE_SCATTERV:
        s.send_len = (v ? sum(a->lens, a->n) : n * count) * size;
        s.recv_len = s.own * size;
        s.in_place = s.begin * size;
        break;
    case OP_ALLGATHER:
    case OP_ALLGATHERV:
        s.send_len = s.own;
        s.recv_len = v ? sum(a->lens, a->n) : n * count;
        s.in_place = s.begin;
        break;
    case OP_ALLGATHER_ROWS:
        s.send_len = rows && count ? (rows - 1) * a->send_at[me] + count : 0;
        s.recv_len = rows && count ? (rows - 1) * a->recv_at[me] + count * n : 0;
        break;
    case OP_BROADCAST: s = (struct side){is_root ? count : 0, is_root ? 0 : count, SIZE_MAX, count, 0}; break;
    case OP_GATHER: s = (struct side){count, is_root ? n * count : 0, is_root ? s.begin : SIZE_MAX, count, s.begin}; break;
    case OP_SCATTER: s = (struct side){is_root ? n * count : 0, count, is_root ? s.begin : SIZE_MAX, count, s.begin}; break;
    case OP_ALLTOALL: s.send_len = s.recv_len = n * count; break;
    default:
        s.send_len = last_end(a->send_at + me * a->n, a->lens + me * a->n, a->n, 1);
        s.recv_len = last_end(a->recv_at + me * a->n, a->lens + me, a->n, a->n);
    }
    return s;
}

static void want_bytes(const struct ask *a, char *to, int from, size_t at, size_t len) {
    for (size_t j = 0; j < len; j++)
        to[j] = byte_of(a, from, at + j);
}

/* What this member's receive buffer holds afterwards. */
static void want(const struct ask *a, const struct side *s, int me, char *to) {
    size_t count = a->call.count, n = (size_t)a->n;
    memset(to, UNTOUCHED, s->recv_len);
    if (s->recv_len == 0) return;
    if (case_reduces(a->call.kind)) {
        for (size_t e = 0; e < s->recv_len / a->size; e++)
            reduced(a, to + e * a->size, s->begin + e);
        return;
    }
    for (size_t m = 0, at = 0; m < n; m++) {
        int k = (int)m;
        switch (a->call.kind) {
        case OP_ALLGATHERV:
            want_bytes(a, to + at, k, 0, a->lens[m]);
            at += a->lens[m];
            break;
        case OP_ALLGATHER_ROWS:
            for (size_t r = 0; r < a->call.rows; r++)
                want_bytes(a, to + r * a->recv_at[me] + m * count, k, r * a->send_at[m], count);
            break;
        case OP_BROADCAST: want_bytes(a, to, a->call.root, 0, count); break;
        case OP_SCATTER: want_bytes(a, to, a->call.root, s->begin, count); break;
        case OP_ALLTOALL: want_bytes(a, to + m * count, k, (size_t)me * count, count); break;
        case OP_ALLTOALLV: want_bytes(a, to + a->recv_at[me * a->n + k], k, a->send_at[k * a->n + me], a->lens[k * a->n + me]); break;
        default: want_bytes(a, to + m * count, k, 0, count);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ one member */

void case_input(const struct ask *a, const struct side *s, int me, char *send) {
    if (!case_reduces(a->call.kind)) {
        want_bytes(a, send, me, 0, s->send_len);
        return;
    }
    for (size_t e = 0; e < s->send_len / a->size; e++)
        put_number(a, send + e * a->size, number_of(a, me, e));
}

int case_run(struct comm *c, const struct ask *a, const struct side *s, char *send, char *recv, int null_send, int null_recv) {
    struct call call = a->call;
    size_t recv_lens[256];
    int all = call.kind == OP_ALLTOALLV, me = c->me, row = me * a->n;
    call.send = s->send_len || !null_send ? send : NULL; /* NULL where no byte is read or written */
    call.recv = s->recv_len || !null_recv ? recv : NULL;
    if (call.kind == OP_BROADCAST && me == call.root) call.recv = send;
    for (int m = 0; m < a->n; m++)
        recv_lens[m] = a->lens[m * a->n + me];
    call.send_lens = a->lens + (all ? row : 0);
    call.send_offs = a->send_at + (all ? row : 0);
    call.recv_offs = a->recv_at + (all ? row : 0);
    call.recv_lens = recv_lens;
    if (call.kind == OP_ALLGATHER_ROWS) {
        call.send_stride = a->send_at[me] == call.count ? 0 : a->send_at[me];
        call.recv_stride = a->recv_at[me] == call.count * (size_t)a->n ? 0 : a->recv_at[me];
    }
    return coll_somehow(c, &call);
}

static int say(const struct ask *a, int me, const char *of, size_t i, size_t len, char is, char expected) {
    fprintf(stderr, "%s of %zu, member %d of %d: byte %zu of %zu %s is %02x, expected %02x\n", op_name(a->call.kind), a->call.count, me, a->n, i, len,
            of, (unsigned char)is, (unsigned char)expected);
    return 0;
}

int case_right(const struct ask *a, const struct side *s, int me, const char *send, const char *recv, const char *before) {
    char *expected = malloc(s->recv_len + 1);
    int right = expected != NULL;
    if (right) want(a, s, me, expected);
    for (size_t i = 0; i < s->recv_len && right; i++)
        if (recv[i] != expected[i]) right = say(a, me, "received", i, s->recv_len, recv[i], expected[i]);
    for (size_t i = 0; i < s->send_len && right; i++) /* the input is as it was, but for the result in place */
        if (send[i] != before[i] && !(s->recv_len && send + i >= recv && send + i < recv + s->recv_len))
            right = say(a, me, "sent", i, s->send_len, send[i], before[i]);
    free(expected);
    return right;
}
