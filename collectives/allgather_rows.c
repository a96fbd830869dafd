/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All-gather along a dimension that is not the first: rows, with a stride on either side that each member chooses for itself.
 *
 * Where bytes of ours are passed on, in a mail or through the staging area, they are packed, row behind row; units are bytes of the packed rows.  From a pool the
 * rows are copied with the stride that their owner's mail says.
 */
#include "collectives/call.h"
#include "collectives/parts.h"
#include "pool/base/point.h"
#include "pool/base/status.h"

/* n bytes of rows of len bytes; the first one is byte `col` of its row.  Packed rows have stride len. */
static void copy_rows(const struct request *r, char *to, uint64_t to_stride, const char *from, uint64_t from_stride, uint64_t len, uint64_t col, uint64_t n) {
    if (col) {
        uint64_t rest = len - col < n ? len - col : n;
        part_copy(r, to, from, rest);
        if ((n -= rest) == 0) return; /* the next row may be beyond the buffer */
        to += to_stride - col;
        from += from_stride - col;
    }
    uint64_t rows = n / len;
    share_rows(&r->c->coll->crew, to, to_stride, from, from_stride, len, rows);
    if (n % len) part_copy(r, to + rows * to_stride, from + rows * from_stride, n % len);
}

/* Byte of a buffer with that stride that is byte `at` of the packed rows. */
static uint64_t strided(const struct request *r, uint64_t stride, uint64_t at) {
    return at / r->part_len * stride + at % r->part_len;
}

static void stage(const struct request *r, uint64_t at, uint64_t n, char *half) {
    copy_rows(r, half, r->part_len, (const char *)r->send + strided(r, r->send_stride, at), r->send_stride, r->part_len, at % r->part_len, n);
}

static void pack(const struct request *r, uint8_t *data) {
    stage(r, 0, r->units, (char *)data);
}

/* Bytes of the round of one member's rows to where they belong. */
static void place(struct request *r, int m, const char *from, uint64_t stride) {
    char *to = (char *)r->recv + (uint64_t)m * r->part_len + strided(r, r->recv_stride, r->done);
    copy_rows(r, to, r->recv_stride, from, stride, r->part_len, r->done % r->part_len, rounds_now(r));
    TEST_POINT("allgather_rows.copied");
}

/* The rows of another member.  Its stride is its own word: the range is checked against its pool, as every offset is. */
static int copy_from(struct request *r, int m) {
    const struct mail_buffers *at = &r->c->member[m].at;
    uint64_t now = rounds_now(r), first = r->done, stride = at->send_stride;
    if (r->mailed || at->send == AT_STAGED) {
        const char *packed = part_source(r, m, 0, 0, now);
        if (!packed) return request_corrupt(r, m, "send offset", at->send);
        place(r, m, packed, r->part_len);
        return SYP_OK;
    }
    uint64_t last = first + now - 1, begin, end;
    if (__builtin_mul_overflow(last / r->part_len, stride, &end) || stride < r->part_len) return request_corrupt(r, m, "send stride", stride);
    begin = strided(r, stride, first);
    end = strided(r, stride, last) + 1;
    const char *from = end > begin ? request_source(r, m, begin, 0, end - begin) : NULL;
    if (!from) return request_corrupt(r, m, "send offset", at->send);
    place(r, m, from, stride);
    return SYP_OK;
}

static int move(struct request *r) {
    int n = r->c->n, me = r->c->me, rc = SYP_OK;
    for (int i = 1; i < n && rc == SYP_OK; i++)
        rc = copy_from(r, (me + i) % n);
    if (rc == SYP_OK) place(r, me, (const char *)r->send + strided(r, r->send_stride, r->done), r->send_stride);
    return rc;
}

static const struct op_moves rows_moves = {.pack = pack, .unpack = parts_unpack, .stage = stage, .move = move};

/* Bytes from the first of `rows` rows of len bytes to the end of the last one.  0 = more than PTRDIFF_MAX. */
static uint64_t span(uint64_t rows, uint64_t stride, uint64_t len) {
    uint64_t n;
    return __builtin_mul_overflow(rows - 1, stride, &n) || __builtin_add_overflow(n, len, &n) || n > PTRDIFF_MAX ? 0 : n;
}

static int stride_refused(const struct request *r, const char *name, uint64_t stride, uint64_t row) {
    return err_set(SYP_EINVAL, "%s: %s is %llu bytes for %llu rows of %llu: smaller than a row, or beyond PTRDIFF_MAX", op_name(r->kind), name,
                   (unsigned long long)stride, (unsigned long long)r->rows, (unsigned long long)row);
}

static int judge(struct request *r, const struct call *call) {
    uint64_t len = call->count, row = 0, all = 0, send_span = 0, recv_span = 0;
    r->part_len = len;
    r->rows = call->rows;
    r->unit = 1;
    if (__builtin_mul_overflow(len, (uint64_t)r->c->n, &row) || __builtin_mul_overflow(row, r->rows, &all) || all > PTRDIFF_MAX)
        return err_set(SYP_EINVAL, "%s: rows is %zu and len %zu: so much of %d members exceeds PTRDIFF_MAX bytes", op_name(r->kind), call->rows, call->count,
                       r->c->n);
    r->total = all;
    r->units = r->rows * len;
    r->count = parts_digest((uint64_t[]){r->rows, len}, 2);
    r->send_stride = call->send_stride ? call->send_stride : len;
    r->recv_stride = call->recv_stride ? call->recv_stride : row;
    if (r->send_stride < len || (r->units && !(send_span = span(r->rows, r->send_stride, len))))
        return stride_refused(r, "send_stride", r->send_stride, len);
    if (r->recv_stride < row || (r->units && !(recv_span = span(r->rows, r->recv_stride, row))))
        return stride_refused(r, "recv_stride", r->recv_stride, row);
    int rc = call_buffer(r, "send", r->send, send_span);
    if (rc == SYP_OK) rc = call_buffer(r, "recv", r->recv, recv_span);
    if (rc == SYP_OK) rc = call_overlap(r, send_span, recv_span, UINT64_MAX);
    r->send_len = r->c->n > 1 ? send_span : 0;
    return rc;
}

void setup_allgather_rows(struct request *r, const struct call *call) {
    r->step = rounds_step;
    r->moves = &rows_moves;
    r->send = call->send;
    r->recv = call->recv;
    r->parts = 1;
    r->sources = r->readers = EVERYBODY;
    if (!r->error) r->error = judge(r, call);
    r->mailed = r->units && r->units <= MAIL_DATA;
}
