/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels, written once for every vector level: included by reduce_<level>.c after reduce_vec.h and these functions of its own:
 *   f32_lower, f64_lower, f32_upper, f64_upper    NaN operand -> a NaN; -0 below +0
 *   f32_canonical, f64_canonical                  NaN -> the canonical one
 *   pair f16_load(p), vec f16_narrow(pair)        exact; to nearest even, NaN -> a quiet NaN
 *   vu16 u16_minus(vu16 x, vu16 y)                x - y, 0 when y > x
 *   vu16 u16_choose(vu16 m, vu16 x, vu16 y)       x where m is all ones, y where it is 0
 *   vu16 u16_mix(vu16 x, vu16 y)                  even elements of x, odd ones of y
 *
 * The accumulators stay in registers: a group of vectors is loaded from every source in order, combined, and stored to every destination.
 * The last vector may overlap the one before it; it is computed before anything is stored, because a destination may be a source.
 */

/* ------------------------------------------------------------------------------------------------ arithmetic */

#define ADD(a, b) ((a) + (b))
#define MUL(a, b) ((a) * (b))

INLINE vf32 f32_load(const char *p) { return (vf32)get(p); }
INLINE vec f32_store(vf32 x, int n) { return (void)n, (vec)f32_canonical(x); }
INLINE vec f32_mean(vf32 x, int n) { return (vec)f32_canonical(x / (float)n); }
INLINE vf64 f64_load(const char *p) { return (vf64)get(p); }
INLINE vec f64_store(vf64 x, int n) { return (void)n, (vec)f64_canonical(x); }
INLINE vec f64_mean(vf64 x, int n) { return (vec)f64_canonical(x / (double)n); }

#define PAIR_OP(name, op)                                                                                              \
    INLINE pair name(pair x, pair y) { return (pair){op(x.a, y.a), op(x.b, y.b)}; }
PAIR_OP(pair_add, ADD)
PAIR_OP(pair_mul, MUL)
PAIR_OP(pair_lower, f32_lower)
PAIR_OP(pair_upper, f32_upper)
INLINE pair pair_over(pair x, int n) { return (pair){x.a / (float)n, x.b / (float)n}; }

/* 16-bit floats: above infinity lie the NaNs. */
INLINE vec canonical16(vu16 x, int16_t infinity, uint16_t nan) {
    return (vec)u16_choose((vu16)((vi16)(x & 0x7fff) > infinity), (vu16){0} + nan, x);
}

INLINE vec f16_store(pair x, int n) { return (void)n, canonical16((vu16)f16_narrow(x), 0x7c00, 0x7e00); }
INLINE vec f16_mean(pair x, int n) { return f16_store(pair_over(x, n), n); }

/* Even elements in a, odd ones in b. */
INLINE pair bf16_load(const char *p) {
    vu32 x = (vu32)get(p);
    return (pair){(vf32)(x << 16), (vf32)(x & 0xffff0000)};
}

/*
 * high: what truncation gives; low: what it cuts off.  Up when low > 0x8000, or low == 0x8000 and high is odd: when the top bit is left in low - 1
 * (high even) or in low - 0 (high odd), where the difference stops at 0.  A NaN that arithmetic made is quiet, so its high half shows it; one
 * that was merely loaded has nothing in its low half.
 */
INLINE vec bf16_store(pair x, int n) {
    (void)n;
    vu32 even = (vu32)x.a, odd = (vu32)x.b;
    vu16 high = u16_mix((vu16)(even >> 16), (vu16)odd), low = u16_mix((vu16)even, (vu16)(odd << 16));
    return canonical16(high + (u16_minus(low, ~high & 1) >> 15), 0x7f80, 0x7fc0);
}
INLINE vec bf16_mean(pair x, int n) { return bf16_store(pair_over(x, n), n); }

#define INT_OPS(T, V, S)                                                                                               \
    INLINE V T##_load(const char *p) { return (V)get(p); }                                                                        \
    INLINE V T##_lower(V x, V y) {                                                                                       \
        V less = (V)(S)(x < y);                                                                                        \
        return (x & less) | (y & ~less);                                                                               \
    }                                                                                                                  \
    INLINE V T##_upper(V x, V y) {                                                                                       \
        V less = (V)(S)(x < y);                                                                                        \
        return (y & less) | (x & ~less);                                                                               \
    }                                                                                                                  \
    INLINE vec T##_store(V x, int n) { return (void)n, (vec)x; }
INT_OPS(i8, vi8, vi8)
INT_OPS(u8, vu8, vi8)
INT_OPS(i32, vi32, vi32)
INT_OPS(u32, vu32, vi32)
INT_OPS(i64, vi64, vi64)
INT_OPS(u64, vu64, vi64)

/* --------------------------------------------------------------------------------------------------- kernels */

/*
 * acc: what a vector of memory is combined in; the functions: load(p) -> acc, op(acc, acc) -> acc, finish(acc, n) -> vec.  n >= 2.
 * Written out, not as loops over four: the unrolling must not hang on the compiler's taste.
 */
#define KERNEL(name, size, acc, load, op, finish)                                                                      \
    INLINE vec name##_one(const char *const *src, int n, size_t at) {                                                  \
        acc x = op(load(src[0] + at), load(src[1] + at));                                                              \
        for (int k = 2; k < n; k++)                                                                                    \
            x = op(x, load(src[k] + at));                                                                              \
        return finish(x, n);                                                                                           \
    }                                                                                                                  \
    INLINE void name##_four(char *const *dst, int n_dst, const char *const *src, int n, size_t at) {                   \
        const char *p = src[0] + at, *q = src[1] + at;                                                                 \
        acc x = op(load(p), load(q)), y = op(load(p + VEC), load(q + VEC));                                            \
        acc z = op(load(p + 2 * VEC), load(q + 2 * VEC)), w = op(load(p + 3 * VEC), load(q + 3 * VEC));                \
        for (int k = 2; k < n; k++) {                                                                                  \
            p = src[k] + at;                                                                                           \
            x = op(x, load(p));                                                                                        \
            y = op(y, load(p + VEC));                                                                                  \
            z = op(z, load(p + 2 * VEC));                                                                              \
            w = op(w, load(p + 3 * VEC));                                                                              \
        }                                                                                                              \
        vec a = finish(x, n), b = finish(y, n), c = finish(z, n), d = finish(w, n);                                    \
        for (int i = 0; i < n_dst; i++) {                                                                              \
            char *to = dst[i] + at;                                                                                    \
            put(to, a);                                                                                                \
            put(to + VEC, b);                                                                                          \
            put(to + 2 * VEC, c);                                                                                      \
            put(to + 3 * VEC, d);                                                                                      \
        }                                                                                                              \
    }                                                                                                                  \
    /* less than a vector */                                                                                           \
    INLINE void name##_part(char *const *dst, int n_dst, const char *const *src, int n, size_t len) {                  \
        char part[2 * VEC];                                                                                            \
        put(part, get_part(src[0], len));                                                                              \
        put(part + VEC, get_part(src[1], len));                                                                        \
        acc x = op(load(part), load(part + VEC));                                                                      \
        for (int k = 2; k < n; k++) {                                                                                  \
            put(part, get_part(src[k], len));                                                                          \
            x = op(x, load(part));                                                                                     \
        }                                                                                                              \
        vec r = finish(x, n);                                                                                          \
        for (int i = 0; i < n_dst; i++)                                                                                \
            put_part(dst[i], r, len);                                                                                  \
    }                                                                                                                  \
    TARGET static void name(char *const *dst, int n_dst, const char *const *src, int n, size_t count) {                \
        size_t at = 0, len = count * (size);                                                                           \
        if (len < VEC) {                                                                                               \
            if (len) name##_part(dst, n_dst, src, n, len);                                                             \
            return;                                                                                                    \
        }                                                                                                              \
        vec r, last = name##_one(src, n, len - VEC);                                                                   \
        for (; len - at > 4 * VEC; at += 4 * VEC)                                                                      \
            name##_four(dst, n_dst, src, n, at);                                                                       \
        for (; len - at > VEC; at += VEC) {                                                                            \
            r = name##_one(src, n, at);                                                                                \
            for (int i = 0; i < n_dst; i++)                                                                            \
                put(dst[i] + at, r);                                                                                   \
        }                                                                                                              \
        for (int i = 0; i < n_dst; i++)                                                                                \
            put(dst[i] + len - VEC, last);                                                                             \
    }

#define FLOAT_KERNELS(T, size, acc, A)                                                                                 \
    KERNEL(T##_sum, size, acc, T##_load, A##_add, T##_store)                                                           \
    KERNEL(T##_min, size, acc, T##_load, A##_lower, T##_store)                                                           \
    KERNEL(T##_max, size, acc, T##_load, A##_upper, T##_store)                                                           \
    KERNEL(T##_prod, size, acc, T##_load, A##_mul, T##_store)                                                          \
    KERNEL(T##_avg, size, acc, T##_load, A##_add, T##_mean)
#define f64_add ADD
#define f64_mul MUL
#define f32_add ADD
#define f32_mul MUL
FLOAT_KERNELS(f64, 8, vf64, f64)
FLOAT_KERNELS(f32, 4, vf32, f32)
FLOAT_KERNELS(f16, 2, pair, pair)
FLOAT_KERNELS(bf16, 2, pair, pair)

/* Sums and products of signed integers have the bits of the unsigned ones. */
#define INT_KERNELS(I, vi, U, vu, size)                                                                                \
    KERNEL(U##_sum, size, vu, U##_load, ADD, U##_store)                                                                \
    KERNEL(U##_prod, size, vu, U##_load, MUL, U##_store)                                                               \
    KERNEL(U##_min, size, vu, U##_load, U##_lower, U##_store)                                                         \
    KERNEL(U##_max, size, vu, U##_load, U##_upper, U##_store)                                                         \
    KERNEL(I##_min, size, vi, I##_load, I##_lower, I##_store)                                                         \
    KERNEL(I##_max, size, vi, I##_load, I##_upper, I##_store)
INT_KERNELS(i8, vi8, u8, vu8, 1)
INT_KERNELS(i32, vi32, u32, vu32, 4)
INT_KERNELS(i64, vi64, u64, vu64, 8)

#define FLOAT_ROW(T) {T##_sum, T##_min, T##_max, T##_prod, T##_avg}
#define INT_ROW(T, U) {U##_sum, T##_min, T##_max, U##_prod, NULL}
#define KERNEL_TABLE                                                                                                   \
    {FLOAT_ROW(f64), FLOAT_ROW(f32), FLOAT_ROW(f16), FLOAT_ROW(bf16), INT_ROW(i32, u32), INT_ROW(i64, u64),            \
     INT_ROW(i8, u8), INT_ROW(u8, u8), INT_ROW(u32, u32), INT_ROW(u64, u64)}
