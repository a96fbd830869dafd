/* SPDX-License-Identifier: Apache-2.0 */
/* See the header.  The expected bytes are made from the members' inputs alone, by code that shares nothing with the library's. */
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
            a->recv_lens[to * n + from] = a->lens[from * n + to] = around(seed, len);
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
    static const int types[] = {SYP_FLOAT32, SYP_FLOAT64, SYP_INT8, SYP_INT64, SYP_INT32}, ops[] = {SYP_SUM, SYP_SUM, SYP_MIN, SYP_MAX};
    *a = (struct ask){.n = n, .size = 1, .salt = (uint32_t)(check_random(seed) >> 20)};
    uint64_t x = check_random(seed) >> 20;
    a->call.kind = kind;
    a->call.root = (int)(x % (uint64_t)n);
    if (case_reduces(kind)) {
        a->call.dtype = types[(x >> 8 & 15) % 5];
        a->call.op = ops[x >> 12 & 3];
        a->size = reduce_size(a->call.dtype);
    }
    a->call.count = kind == OP_BARRIER ? 0 : bytes / a->size;
    if (kind == OP_ALLGATHER_ROWS) {
        a->call.rows = (size_t)(x >> 14 & 7);
        if (a->call.rows) a->call.count /= a->call.rows;
    }
    a->lens = calloc((size_t)(n * n), sizeof *a->lens);
    a->recv_lens = calloc((size_t)(n * n), sizeof *a->lens);
    a->send_at = calloc((size_t)(n * n), sizeof *a->lens);
    a->recv_at = calloc((size_t)(n * n), sizeof *a->lens);
    draw_lists(a, a->call.count, seed);
}

void case_forget(struct ask *a) {
    free(a->lens);
    free(a->recv_lens);
    free(a->send_at);
    free(a->recv_at);
}

/* -------------------------------------------------------------------------------------------------- inputs */

static uint32_t hash_of(const struct ask *a, int m, size_t i) {
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
static void input(const struct ask *a, int m, size_t at, size_t len, char *to) {
    switch (a->call.dtype) {
    case SYP_FLOAT32: FILL(float, (float)v * 1.1f);
    case SYP_FLOAT64: FILL(double, v * 1.1);
    case SYP_INT8: FILL(int8_t, v & 0x3f);
    case SYP_INT32: FILL(int32_t, v);
    case SYP_INT64: FILL(int64_t, (int64_t)v * (1 << 20));
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
static void combine(const struct ask *a, char *acc, const char *with, size_t len) {
    switch (a->call.dtype) {
    case SYP_FLOAT32: COMBINE(float);
    case SYP_FLOAT64: COMBINE(double);
    case SYP_INT8: COMBINE(int8_t);
    case SYP_INT32: COMBINE(int32_t);
    default: COMBINE(int64_t);
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

/* Elements of every member's input that begin at byte `at`, combined. */
static void reduced(const struct ask *a, size_t at, size_t len, char *to) {
    char with[4096];
    input(a, 0, at, len, to);
    for (size_t done = 0, piece; done < len; done += piece) {
        piece = len - done < sizeof with ? len - done : sizeof with;
        for (int m = 1; m < a->n; m++) {
            input(a, m, at + done, piece, with);
            combine(a, to + done, with, piece);
        }
    }
}

/* What this member's receive buffer holds afterwards. */
static void want(const struct ask *a, const struct side *s, int me, char *to) {
    size_t count = a->call.count, n = (size_t)a->n;
    memset(to, UNTOUCHED, s->recv_len);
    if (s->recv_len == 0) return;
    if (case_reduces(a->call.kind)) {
        reduced(a, s->begin * a->size, s->recv_len, to);
        return;
    }
    if (a->call.kind == OP_BROADCAST || a->call.kind == OP_SCATTER) {
        input(a, a->call.root, a->call.kind == OP_SCATTER ? s->begin : 0, count, to);
        return;
    }
    for (size_t m = 0, at = 0; m < n; m++) {
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
        case OP_ALLTOALL: input(a, k, (size_t)me * count, count, to + m * count); break;
        case OP_ALLTOALLV: input(a, k, a->send_at[k * a->n + me], a->lens[k * a->n + me], to + a->recv_at[me * a->n + k]); break;
        default: input(a, k, 0, count, to + m * count);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ one member */

void case_input(const struct ask *a, const struct side *s, int me, char *send) {
    input(a, me, 0, s->send_len, send);
}

struct call case_call(const struct ask *a, const struct side *s, int me, char *send, char *recv, int null_send, int null_recv) {
    struct call call = a->call;
    int row = call.kind == OP_ALLTOALLV ? me * a->n : 0;
    call.send = s->send_len || !null_send ? send : NULL;
    call.recv = s->recv_len || !null_recv ? recv : NULL;
    if (call.kind == OP_BROADCAST && me == call.root) call.recv = send;
    call.send_lens = a->lens + row;
    call.recv_lens = a->recv_lens + row;
    call.send_offs = a->send_at + row;
    call.recv_offs = a->recv_at + row;
    if (call.kind == OP_ALLGATHER_ROWS) {
        call.send_stride = a->send_at[me] == call.count ? 0 : a->send_at[me];
        call.recv_stride = a->recv_at[me] == call.count * (size_t)a->n ? 0 : a->recv_at[me];
    }
    return call;
}

int case_run(struct comm *c, const struct ask *a, const struct side *s, char *send, char *recv, int null_send, int null_recv) {
    struct call call = case_call(a, s, c->me, send, recv, null_send, null_recv);
    return coll_somehow(c, &call);
}

/* 1 = the same but for bytes [from, from + n) of `is`. */
static int same(const struct ask *a, int me, const char *of, const char *is, const char *should, size_t len, const char *from, size_t n) {
    if (!len || memcmp(is, should, len) == 0) return 1;
    for (size_t i = 0; i < len; i++)
        if (is[i] != should[i] && !(n && is + i >= from && is + i < from + n)) {
            fprintf(stderr, "%s of %zu, member %d of %d: byte %zu of %zu %s is %02x, expected %02x\n", op_name(a->call.kind), a->call.count, me, a->n, i,
                    len, of, (unsigned char)is[i], (unsigned char)should[i]);
            return 0;
        }
    return 1;
}

int case_right(const struct ask *a, const struct side *s, int me, const char *send, const char *recv) {
    char *should = malloc((s->recv_len > s->send_len ? s->recv_len : s->send_len) + 1);
    if (!should) return 0;
    want(a, s, me, should);
    int right = same(a, me, "received", recv, should, s->recv_len, NULL, 0);
    input(a, me, 0, s->send_len, should); /* is as it was, but for the result in place */
    right = right && same(a, me, "sent", send, should, s->send_len, recv, s->recv_len);
    free(should);
    return right;
}
