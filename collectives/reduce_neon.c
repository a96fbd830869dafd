/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels for 64-bit Arm: NEON, 16 bytes at a time.
 */
#if defined(__aarch64__)
#define VEC 16
#define TARGET
#include "collectives/reduce_vec.h"

#include <arm_neon.h>

/* fmin and fmax are as the reductions are defined, but for the NaN's payload. */
INLINE vf32 f32_lower(vf32 x, vf32 y) { return (vf32)vminq_f32((float32x4_t)x, (float32x4_t)y); }
INLINE vf64 f64_lower(vf64 x, vf64 y) { return (vf64)vminq_f64((float64x2_t)x, (float64x2_t)y); }
INLINE vf32 f32_upper(vf32 x, vf32 y) { return (vf32)vmaxq_f32((float32x4_t)x, (float32x4_t)y); }
INLINE vf64 f64_upper(vf64 x, vf64 y) { return (vf64)vmaxq_f64((float64x2_t)x, (float64x2_t)y); }

INLINE vf32 f32_canonical(vf32 x) {
    float32x4_t v = (float32x4_t)x;
    return (vf32)vbslq_f32(vceqq_f32(v, v), v, vdupq_n_f32(__builtin_nanf("")));
}
INLINE vf64 f64_canonical(vf64 x) {
    float64x2_t v = (float64x2_t)x;
    return (vf64)vbslq_f64(vceqq_f64(v, v), v, vdupq_n_f64(__builtin_nan("")));
}

/* Lower elements in a, upper ones in b. */
INLINE pair f16_load(const char *p) {
    float16x8_t v = (float16x8_t)get(p);
    return (pair){(vf32)vcvt_f32_f16(vget_low_f16(v)), (vf32)vcvt_high_f32_f16(v)};
}
INLINE vec f16_narrow(pair x) { return (vec)vcvt_high_f16_f32(vcvt_f16_f32((float32x4_t)x.a), (float32x4_t)x.b); }

INLINE vu16 u16_minus(vu16 x, vu16 y) { return (vu16)vqsubq_u16((uint16x8_t)x, (uint16x8_t)y); }
INLINE vu16 u16_choose(vu16 m, vu16 x, vu16 y) { return (x & m) | (y & ~m); }
INLINE vu16 u16_mix(vu16 x, vu16 y) { return (vu16)vbslq_u16((uint16x8_t)vdupq_n_u32(0xffff), (uint16x8_t)x, (uint16x8_t)y); }

#include "collectives/reduce_simd.h"

/* Pairs of registers with the hint that they are not read soon.  The next publish orders them: it is a release. */
static void stream(char *dst, const char *src, size_t n) {
    for (size_t at = 0; at < n; at += 64) {
        vec a = get(src + at), b = get(src + at + 16), c = get(src + at + 32), d = get(src + at + 48);
        __asm__ volatile("stnp %q1, %q2, [%0]\n\tstnp %q3, %q4, [%0, #32]" ::"r"(dst + at), "w"(a), "w"(b), "w"(c), "w"(d) : "memory");
    }
}

const struct kernels kernels_neon = {.name = "neon", .reduce = KERNEL_TABLE, .stream = stream};
#endif
