/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arithmetic of the reductions.  The scalar kernels are the definition; faster ones must give the same bits.
 */
#ifndef SYP_COLLECTIVES_REDUCE_H
#define SYP_COLLECTIVES_REDUCE_H

#include "allocator/sympool.h"

/* Bytes of an element, 0 = type not reduced here. */
size_t reduce_size(int dtype);
int reduce_op_known(int op);
const char *reduce_dtype_name(int dtype);
const char *reduce_op_name(int op);

/*
 * For each i < count: x = src[0][i]; x = x (op) src[k][i] for k = 1 .. n - 1, in that order; dst[d][i] = x for every d < n_dst.
 * A dst may be the same memory as a src (not a partial overlap).  Types and op already checked.
 */
void reduce_push(char *const *dst, int n_dst, const char *const *src, int n, size_t count, int dtype, int op);

#endif
