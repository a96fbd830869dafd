/* SPDX-License-Identifier: Apache-2.0 */
#include "collectives/share.h"
#include "bootstrap/roster.h"
#include "collectives/copy.h"
#include "collectives/reduce.h"

#include <stdint.h>
#include <string.h>

#define PART_BYTES (128u << 10) /* a part smaller than that is not worth telling another thread of it */
#define MOST_PARTS 1024u

/* 1 = one thread does it all. */
static unsigned parts_of(const struct crew *c, size_t bytes) {
    size_t parts = bytes / PART_BYTES;
    return c->n == 0 || parts < 2 ? 1 : parts < MOST_PARTS ? (unsigned)parts : MOST_PARTS;
}

/* Elements of a part: whole pairs of cache lines. */
static void range_of(size_t count, size_t size, unsigned part, unsigned parts, size_t *begin, size_t *n) {
    size_t line = CACHE_LINE / size, per = ((count + parts - 1) / parts + line - 1) / line * line;
    *begin = part * per < count ? part * per : count;
    *n = count - *begin < per ? count - *begin : per;
}

struct reduction {
    char *const *dst;
    const char *const *src;
    int n_dst, n, dtype, op;
    size_t count;
};

static void reduce_part(void *arg, unsigned part, unsigned parts) {
    const struct reduction *r = arg;
    const char *src[MAX_WORLD];
    char *dst[MAX_WORLD];
    size_t begin, n, size = reduce_size(r->dtype);
    range_of(r->count, size, part, parts, &begin, &n);
    for (int i = 0; i < r->n; i++)
        src[i] = r->src[i] + begin * size;
    for (int i = 0; i < r->n_dst; i++)
        dst[i] = r->dst[i] + begin * size;
    reduce_push(dst, r->n_dst, src, r->n, n, r->dtype, r->op);
}

void share_reduce(struct crew *c, char *const *dst, int n_dst, const char *const *src, int n, size_t count, int dtype, int op) {
    unsigned parts = parts_of(c, count * reduce_size(dtype));
    struct reduction r = {.dst = dst, .src = src, .n_dst = n_dst, .n = n, .dtype = dtype, .op = op, .count = count};
    if (parts == 1)
        reduce_push(dst, n_dst, src, n, count, dtype, op);
    else
        crew_run(c, reduce_part, &r, parts);
}

struct copy {
    void (*how)(void *dst, const void *src, size_t len);
    char *dst;
    const char *src;
    size_t len;
};

static void copy_part(void *arg, unsigned part, unsigned parts) {
    const struct copy *copy = arg;
    size_t begin, n;
    range_of(copy->len, 1, part, parts, &begin, &n);
    copy->how(copy->dst + begin, copy->src + begin, n);
}

static void plain(void *dst, const void *src, size_t len) {
    memcpy(dst, src, len);
}

static void run_copy(struct crew *c, struct copy copy) {
    unsigned parts = parts_of(c, copy.len);
    if (parts == 1)
        copy.how(copy.dst, copy.src, copy.len);
    else
        crew_run(c, copy_part, &copy, parts);
}

void share_copy(struct crew *c, void *dst, const void *src, size_t len) {
    run_copy(c, (struct copy){plain, dst, src, len});
}

void share_stream(struct crew *c, void *dst, const void *src, size_t len) {
    run_copy(c, (struct copy){copy_stream, dst, src, len});
}

struct rows {
    char *dst;
    const char *src;
    size_t dst_stride, src_stride, len, n;
};

static void copy_rows_part(void *arg, unsigned part, unsigned parts) {
    const struct rows *rows = arg;
    size_t begin, n;
    range_of(rows->n, CACHE_LINE, part, parts, &begin, &n); /* any row may begin a part */
    copy_strided(rows->dst + begin * rows->dst_stride, rows->dst_stride, rows->src + begin * rows->src_stride, rows->src_stride, rows->len, n);
}

void share_rows(struct crew *c, void *dst, size_t dst_stride, const void *src, size_t src_stride, size_t len, size_t rows) {
    unsigned parts = parts_of(c, len * rows);
    struct rows all = {dst, src, dst_stride, src_stride, len, rows};
    if (parts == 1)
        copy_strided(dst, dst_stride, src, src_stride, len, rows);
    else if (parts <= rows)
        crew_run(c, copy_rows_part, &all, parts);
    else
        for (size_t i = 0; i < rows; i++) /* a row is longer than a part */
            share_copy(c, all.dst + i * dst_stride, all.src + i * src_stride, len);
}
