/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies: plain, past the caches, and of rows.  Any alignment, any length, 0 too; source and destination do not overlap.
 */
#ifndef SYP_COLLECTIVES_COPY_H
#define SYP_COLLECTIVES_COPY_H

#include <stddef.h>
#include <string.h>

/* For what this processor or its peer uses soon. */
static inline void copy_plain(void *dst, const void *src, size_t len) {
    if (len) memcpy(dst, src, len);
}

/* With stores that leave the caches alone: for large data that others read, or nobody soon.  On return everything is ordered before the next publish. */
void copy_stream(void *dst, const void *src, size_t len);

/* `rows` rows of len bytes; row r lies at r * stride. */
void copy_strided(void *dst, size_t dst_stride, const void *src, size_t src_stride, size_t len, size_t rows);

#endif
