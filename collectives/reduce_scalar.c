/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scalar kernels: plain loops over blocks that stay in the first-level cache, elements combined in member order.  They are
 * the oracle for every faster kernel; fused multiply-add is off (-ffp-contract=off) and nothing here depends on the size of the call.
 *
 * min and max of floating point: a NaN operand gives the canonical quiet NaN, -0 is below +0.  Integers wrap around.
 */
#include "collectives/reduce.h"
#include "pool/base/point.h"

#include <stdint.h>
#include <string.h>

#define BLOCK_BYTES 4096

size_t reduce_size(int dtype) {
    switch (dtype) {
    case SYP_FLOAT64:
    case SYP_INT64:
        return 8;
    case SYP_FLOAT32:
    case SYP_INT32:
        return 4;
    default:
        return 0;
    }
}

int reduce_op_known(int op) {
    return op == SYP_SUM || op == SYP_MIN || op == SYP_MAX;
}

const char *reduce_dtype_name(int dtype) {
    switch (dtype) {
    case SYP_FLOAT64:
        return "float64";
    case SYP_FLOAT32:
        return "float32";
    case SYP_INT32:
        return "int32";
    case SYP_INT64:
        return "int64";
    default:
        return "unknown type";
    }
}

const char *reduce_op_name(int op) {
    switch (op) {
    case SYP_SUM:
        return "sum";
    case SYP_MIN:
        return "min";
    case SYP_MAX:
        return "max";
    default:
        return "unknown operation";
    }
}

/* Equal operands differ at most in the sign of zero: for min the negative one wins (or of the bits), for max the positive one (and). */
static inline float f32_min(float a, float b) {
    if (a != a || b != b) return __builtin_nanf("");
    if (a == b) return __builtin_signbitf(a) ? a : b;
    return a < b ? a : b;
}
static inline float f32_max(float a, float b) {
    if (a != a || b != b) return __builtin_nanf("");
    if (a == b) return __builtin_signbitf(a) ? b : a;
    return a > b ? a : b;
}
static inline double f64_min(double a, double b) {
    if (a != a || b != b) return __builtin_nan("");
    if (a == b) return __builtin_signbit(a) ? a : b;
    return a < b ? a : b;
}
static inline double f64_max(double a, double b) {
    if (a != a || b != b) return __builtin_nan("");
    if (a == b) return __builtin_signbit(a) ? b : a;
    return a > b ? a : b;
}

#define ADD(a, b) ((a) + (b))
#define ADD_I32(a, b) ((int32_t)((uint32_t)(a) + (uint32_t)(b)))
#define ADD_I64(a, b) ((int64_t)((uint64_t)(a) + (uint64_t)(b)))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* One accumulation over a block.  x may be misaligned memory of the user: it is read through memcpy, which compiles to plain loads. */
#define KERNEL(name, type, combine)                                                                                    \
    static void name(void *acc, const char *x, size_t n) {                                                             \
        type *a = acc;                                                                                                 \
        for (size_t i = 0; i < n; i++) {                                                                               \
            type v;                                                                                                    \
            memcpy(&v, x + i * sizeof v, sizeof v);                                                                    \
            a[i] = (type)combine(a[i], v);                                                                             \
        }                                                                                                              \
    }
KERNEL(sum_f32, float, ADD)
KERNEL(min_f32, float, f32_min)
KERNEL(max_f32, float, f32_max)
KERNEL(sum_f64, double, ADD)
KERNEL(min_f64, double, f64_min)
KERNEL(max_f64, double, f64_max)
KERNEL(sum_i32, int32_t, ADD_I32)
KERNEL(min_i32, int32_t, MIN)
KERNEL(max_i32, int32_t, MAX)
KERNEL(sum_i64, int64_t, ADD_I64)
KERNEL(min_i64, int64_t, MIN)
KERNEL(max_i64, int64_t, MAX)

typedef void (*kernel_fn)(void *acc, const char *x, size_t n);

static kernel_fn kernel(int dtype, int op) {
    static const kernel_fn table[4][3] = {{sum_f64, min_f64, max_f64},
                                          {sum_f32, min_f32, max_f32},
                                          {sum_i32, min_i32, max_i32},
                                          {sum_i64, min_i64, max_i64}};
    int row = dtype == SYP_FLOAT64 ? 0 : dtype == SYP_FLOAT32 ? 1 : dtype == SYP_INT32 ? 2 : 3;
    return table[row][op - SYP_SUM];
}

void reduce_push(char *const *dst, int n_dst, const char *const *src, int n, size_t count, int dtype, int op) {
    _Alignas(64) char acc[BLOCK_BYTES];
    size_t size = reduce_size(dtype), per_block = BLOCK_BYTES / size;
    kernel_fn combine = kernel(dtype, op);
    for (size_t at = 0; at < count; at += per_block) {
        size_t m = count - at < per_block ? count - at : per_block;
        memcpy(acc, src[0] + at * size, m * size);
        TEST_POINT("reduce.block");
        for (int k = 1; k < n; k++)
            combine(acc, src[k] + at * size, m);
        for (int d = 0; d < n_dst; d++)
            memcpy(dst[d] + at * size, acc, m * size);
    }
}
