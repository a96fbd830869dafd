/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The copies.  The variant of the kernels in use (reduce.c) brings the streaming of whole lines.
 */
#include "collectives/copy.h"
#include "collectives/reduce_kernels.h"

#include <stdint.h>

#define LINE 64

void copy_stream(void *dst, const void *src, size_t len) {
    char *d = dst;
    const char *s = src;
    size_t head = -(uintptr_t)d % LINE;
    if (len < head + LINE) {
        copy_plain(d, s, len);
        return;
    }
    size_t lines = (len - head) & ~(size_t)(LINE - 1), tail = len - head - lines;
    copy_plain(d, s, head);
    copy_plain(d + head + lines, s + head + lines, tail);
    kernels_chosen()->stream(d + head, s + head, lines);
}

/* Rows that a call of memcpy would cost more than: two pieces of `piece` bytes, which may overlap in the middle. */
#define SHORT_ROWS(piece)                                                                                              \
    for (; rows; rows--, d += dst_stride, s += src_stride) {                                                           \
        char x[piece], y[piece];                                                                                       \
        memcpy(x, s, piece);                                                                                           \
        memcpy(y, s + len - piece, piece);                                                                             \
        memcpy(d, x, piece);                                                                                           \
        memcpy(d + len - piece, y, piece);                                                                             \
    }

void copy_strided(void *dst, size_t dst_stride, const void *src, size_t src_stride, size_t len, size_t rows) {
    char *d = dst;
    const char *s = src;
    if (dst_stride == len && src_stride == len) {
        copy_plain(d, s, len * rows);
        return;
    }
    if (len == 0) return;
    if (len == 1)
        SHORT_ROWS(1)
    else if (len < 4)
        SHORT_ROWS(2)
    else if (len < 8)
        SHORT_ROWS(4)
    else if (len < 16)
        SHORT_ROWS(8)
    else if (len <= 32)
        SHORT_ROWS(16)
    else
        for (; rows; rows--, d += dst_stride, s += src_stride)
            memcpy(d, s, len);
}
