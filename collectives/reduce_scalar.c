/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scalar kernels: plain loops over blocks that stay in the first-level cache, elements combined in member order.  They are the
 * definition that every faster kernel is held against; fused multiply-add is off (-ffp-contract=off) and nothing here depends on the
 * size of the call.  Integers are also averaged by these alone: no vector unit divides them.
 */
#include "collectives/reduce_kernels.h"

#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Elements of a block. */
#define BLOCK 512

/* ---------------------------------------------------------------------------------------------- 16-bit floats */

static inline uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float from_bf16(uint16_t h) {
    return float_of((uint32_t)h << 16);
}

/* To nearest, ties to even.  f is not a NaN, or the canonical one. */
static inline uint16_t to_bf16(float f) {
    uint32_t u = bits_of(f);
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

static inline float from_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = h & 0x7fff;
    if (magnitude >= 0x7c00) return float_of(sign | 0x7f800000 | (magnitude & 0x3ff) << 13); /* infinities and NaNs */
    if (magnitude >= 0x0400) return float_of(sign | ((magnitude << 13) + ((127 - 15) << 23)));
    return float_of(sign | bits_of((float)magnitude * 0x1p-24f)); /* subnormals and zeros: exact */
}

/* To nearest, ties to even.  f is not a NaN, or the canonical one. */
static inline uint16_t to_f16(float f) {
    uint32_t u = bits_of(f), sign = u >> 16 & 0x8000, magnitude = u & 0x7fffffff;
    if (magnitude > 0x7f800000) return 0x7e00;
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* from 65520 on the nearest is infinity */
    if (magnitude < 0x38800000) /* below 2^-14: adding 1/2 makes the processor round to a multiple of 2^-24 */
        return (uint16_t)(sign | (bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f)));
    return (uint16_t)(sign | ((magnitude - ((127 - 15) << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13));
}

/* ------------------------------------------------------------------------------------------------ arithmetic */

/* Equal operands differ at most in the sign of zero: for min the negative one wins, for max the positive one. */
#define FLOAT_MIN_MAX(T, type, nan, negative)                                                                          \
    static inline type T##_lower(type a, type b) {                                                                       \
        if (a != a || b != b) return nan;                                                                              \
        if (a == b) return negative(a) ? a : b;                                                                        \
        return a < b ? a : b;                                                                                          \
    }                                                                                                                  \
    static inline type T##_upper(type a, type b) {                                                                       \
        if (a != a || b != b) return nan;                                                                              \
        if (a == b) return negative(a) ? b : a;                                                                        \
        return a > b ? a : b;                                                                                          \
    }                                                                                                                  \
    static inline type T##_canonical(type a) { return a != a ? nan : a; }
FLOAT_MIN_MAX(f32, float, __builtin_nanf(""), __builtin_signbitf)
FLOAT_MIN_MAX(f64, double, __builtin_nan(""), __builtin_signbit)

#define ADD(a, b) ((a) + (b))
#define MUL(a, b) ((a) * (b))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

#define SAME(x) (x)

/* How the combined value x of n members becomes an element. */
#define ONLY(x, n) (x)
#define F64(x, n) f64_canonical(x)
#define F64_AVG(x, n) f64_canonical((x) / (n))
#define F32(x, n) f32_canonical(x)
#define F32_AVG(x, n) f32_canonical((x) / (float)(n))
#define F16(x, n) to_f16(F32(x, n))
#define F16_AVG(x, n) to_f16(F32_AVG(x, n))
#define BF16(x, n) to_bf16(F32(x, n))
#define BF16_AVG(x, n) to_bf16(F32_AVG(x, n))
#define I8_AVG(x, n) ((int8_t)(x) / (n))
#define U8_AVG(x, n) ((x) / (n))
#define I32_AVG(x, n) ((int32_t)(x) / (n))
#define U32_AVG(x, n) ((x) / (uint32_t)(n))
#define I64_AVG(x, n) ((int64_t)(x) / (n))
#define U64_AVG(x, n) ((x) / (uint64_t)(n))

/*
 * type: of an element; acc: what it is combined in; load: from the one to the other; finish: back.  Buffers may be misaligned memory of the user:
 * they are accessed through memcpy, which compiles to plain loads and stores.
 */
#define KERNEL(name, type, acc, load, combine, finish)                                                                 \
    static void name(char *const *dst, int n_dst, const char *const *src, int n, size_t count) {                       \
        acc x[BLOCK];                                                                                                  \
        type v, out[BLOCK];                                                                                            \
        for (size_t at = 0; at < count; at += BLOCK) {                                                                 \
            size_t m = count - at < BLOCK ? count - at : BLOCK;                                                        \
            for (size_t i = 0; i < m; i++) {                                                                           \
                memcpy(&v, src[0] + (at + i) * sizeof v, sizeof v);                                                    \
                x[i] = (acc)load(v);                                                                                   \
            }                                                                                                          \
            for (int k = 1; k < n; k++)                                                                                \
                for (size_t i = 0; i < m; i++) {                                                                       \
                    memcpy(&v, src[k] + (at + i) * sizeof v, sizeof v);                                                \
                    x[i] = (acc)combine(x[i], (acc)load(v));                                                           \
                }                                                                                                      \
            for (size_t i = 0; i < m; i++)                                                                             \
                out[i] = (type)finish(x[i], n);                                                                        \
            for (int d = 0; d < n_dst; d++)                                                                            \
                memcpy(dst[d] + at * sizeof v, out, m * sizeof v);                                                     \
        }                                                                                                              \
    }

#define FLOAT_KERNELS(T, type, acc, A, load, finish, finish_avg)                                                       \
    KERNEL(T##_sum, type, acc, load, ADD, finish)                                                                      \
    KERNEL(T##_min, type, acc, load, A##_lower, finish)                                                                  \
    KERNEL(T##_max, type, acc, load, A##_upper, finish)                                                                  \
    KERNEL(T##_prod, type, acc, load, MUL, finish)                                                                     \
    KERNEL(T##_avg, type, acc, load, ADD, finish_avg)
FLOAT_KERNELS(f64, double, double, f64, SAME, F64, F64_AVG)
FLOAT_KERNELS(f32, float, float, f32, SAME, F32, F32_AVG)
FLOAT_KERNELS(f16, uint16_t, float, f32, from_f16, F16, F16_AVG)
FLOAT_KERNELS(bf16, uint16_t, float, f32, from_bf16, BF16, BF16_AVG)

/* Combined as unsigned, where wrapping around is defined. */
#define INT_KERNELS(T, type, wraps, finish_avg)                                                                        \
    KERNEL(T##_sum, type, wraps, SAME, ADD, ONLY)                                                                      \
    KERNEL(T##_min, type, type, SAME, MIN, ONLY)                                                                       \
    KERNEL(T##_max, type, type, SAME, MAX, ONLY)                                                                       \
    KERNEL(T##_prod, type, wraps, SAME, MUL, ONLY)                                                                     \
    KERNEL(T##_avg, type, wraps, SAME, ADD, finish_avg)
INT_KERNELS(i8, int8_t, uint8_t, I8_AVG)
INT_KERNELS(u8, uint8_t, uint8_t, U8_AVG)
INT_KERNELS(i32, int32_t, uint32_t, I32_AVG)
INT_KERNELS(u32, uint32_t, uint32_t, U32_AVG)
INT_KERNELS(i64, int64_t, uint64_t, I64_AVG)
INT_KERNELS(u64, uint64_t, uint64_t, U64_AVG)

/* ---------------------------------------------------------------------------------------------------- copies */

static void stream(char *dst, const char *src, size_t n) {
#if defined(__x86_64__) /* SSE2 is part of every such processor */
    for (size_t at = 0; at < n; at += 64) {
        __m128i x[4];
        for (int j = 0; j < 4; j++)
            x[j] = _mm_loadu_si128((const __m128i *)(src + at + j * 16));
        for (int j = 0; j < 4; j++)
            _mm_stream_si128((__m128i *)(dst + at + j * 16), x[j]);
    }
    _mm_sfence();
#else
    memcpy(dst, src, n);
#endif
}

#define ROW(T) {T##_sum, T##_min, T##_max, T##_prod, T##_avg}
const struct kernels kernels_scalar = {
    .name = "scalar",
    .reduce = {ROW(f64), ROW(f32), ROW(f16), ROW(bf16), ROW(i32), ROW(i64), ROW(i8), ROW(u8), ROW(u32), ROW(u64)},
    .stream = stream,
};
