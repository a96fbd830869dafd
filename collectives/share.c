/* SPDX-License-Identifier: Apache-2.0 */
#include "collectives/share.h"
#include "bootstrap/roster.h"
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
    char *dst;
    const char *src;
    size_t len;
};

static void copy_part(void *arg, unsigned part, unsigned parts) {
    const struct copy *copy = arg;
    size_t begin, n;
    range_of(copy->len, 1, part, parts, &begin, &n);
    memcpy(copy->dst + begin, copy->src + begin, n);
}

void share_copy(struct crew *c, void *dst, const void *src, size_t len) {
    unsigned parts = parts_of(c, len);
    struct copy copy = {dst, src, len};
    if (parts == 1)
        memcpy(dst, src, len);
    else
        crew_run(c, copy_part, &copy, parts);
}
