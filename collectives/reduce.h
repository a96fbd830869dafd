/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arithmetic of the reductions, and which variant of it this process uses.  The scalar kernels are the definition; the others give the same bits.
 *
 * 16-bit floats are combined in binary32 and rounded once, to nearest even.  Every result that is not a number is the canonical quiet NaN
 * (positive, payload 0): processors differ in which operand's payload they pass on, so none is.  min and max: a NaN operand gives NaN, -0 is below
 * +0.  Integers wrap around.  avg: the sum divided by n, for floats as a division in the type they are combined in, for integers truncated
 * towards zero.  The host's rounding mode and flushing of subnormals change nothing, its exception flags may be set.
 */
#ifndef SYP_COLLECTIVES_REDUCE_H
#define SYP_COLLECTIVES_REDUCE_H

#include "allocator/sympool.h"

/* Bytes of an element, 0 = no such type. */
static inline size_t reduce_size(int dtype) {
    static const uint8_t size[] = {0, 8, 4, 2, 2, 4, 8, 1, 1, 4, 8}; /* from SYP_FLOAT64 on */
    _Static_assert(sizeof size == SYP_UINT64 + 1, "of every type");
    return (unsigned)dtype < sizeof size ? size[dtype] : 0;
}
static inline int reduce_op_known(int op) { return op >= SYP_SUM && op <= SYP_AVG; }
const char *reduce_dtype_name(int dtype);
const char *reduce_op_name(int op);

/*
 * For each i < count: x = src[0][i]; x = x (op) src[k][i] for k = 1 .. n - 1, in that order; dst[d][i] = x for every d < n_dst.
 * A dst may be the same memory as a src (not a partial overlap).  Any alignment.  n >= 1.  Types and op already checked.
 */
void reduce_push(char *const *dst, int n_dst, const char *const *src, int n, size_t count, int dtype, int op);

/*
 * Choose the variant for this process: "auto" (the widest that this processor has), "scalar", "avx2", "avx512", "neon".  The bits are the same,
 * so the ranks of a job need not agree.  SYP_OK; SYP_EUNSUPPORTED: not on this processor, the choice stays.  Without a call: "auto".
 */
int reduce_choose(const char *level);
/* The variant in use; never "auto". */
const char *reduce_level(void);

#endif
