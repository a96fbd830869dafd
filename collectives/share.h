/* SPDX-License-Identifier: Apache-2.0 */
/* Large reductions and copies, shared among this rank's threads.  The bits do not depend on how many there are. */
#ifndef SYP_COLLECTIVES_SHARE_H
#define SYP_COLLECTIVES_SHARE_H

#include "collectives/crew.h"

#include <stddef.h>

/* reduce_push, memcpy and copy_strided otherwise. */
void share_reduce(struct crew *c, char *const *dst, int n_dst, const char *const *src, int n, size_t count, int dtype, int op);
void share_copy(struct crew *c, void *dst, const void *src, size_t len);
/* The same with stores past the caches. */
void share_stream(struct crew *c, void *dst, const void *src, size_t len);
void share_rows(struct crew *c, void *dst, size_t dst_stride, const void *src, size_t src_stride, size_t len, size_t rows);

#endif
