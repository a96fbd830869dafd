/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels for processors with AVX2 and F16C, 32 bytes at a time.
 */
#if defined(__x86_64__)
#define VEC 32
#define TARGET __attribute__((target("avx2,f16c")))
#include "collectives/reduce_vec.h"

#include <immintrin.h>

/* minps returns its second operand when one is a NaN or both are zeros; a NaN or -0 on either side survives the OR. */
INLINE vf32 f32_lower(vf32 x, vf32 y) {
    return (vf32)_mm256_or_ps(_mm256_min_ps((__m256)x, (__m256)y), _mm256_min_ps((__m256)y, (__m256)x));
}
INLINE vf64 f64_lower(vf64 x, vf64 y) {
    return (vf64)_mm256_or_pd(_mm256_min_pd((__m256d)x, (__m256d)y), _mm256_min_pd((__m256d)y, (__m256d)x));
}
INLINE vf32 f32_upper(vf32 x, vf32 y) { return -f32_lower(-x, -y); }
INLINE vf64 f64_upper(vf64 x, vf64 y) { return -f64_lower(-x, -y); }

INLINE vf32 f32_canonical(vf32 x) {
    __m256 v = (__m256)x;
    return (vf32)_mm256_blendv_ps(v, _mm256_set1_ps(__builtin_nanf("")), _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
}
INLINE vf64 f64_canonical(vf64 x) {
    __m256d v = (__m256d)x;
    return (vf64)_mm256_blendv_pd(v, _mm256_set1_pd(__builtin_nan("")), _mm256_cmp_pd(v, v, _CMP_UNORD_Q));
}

/* Lower elements in a, upper ones in b.  Conversion from memory takes half as long as from a register whose upper half must be moved down. */
typedef uint8_t half_anywhere __attribute__((vector_size(16), aligned(1), may_alias));
INLINE vf32 f16_widen(const char *p) { return (vf32)_mm256_cvtph_ps((__m128i) * (const half_anywhere *)p); }
INLINE pair f16_load(const char *p) { return (pair){f16_widen(p), f16_widen(p + 16)}; }
INLINE vec f16_narrow(pair x) {
    __m128i a = _mm256_cvtps_ph((__m256)x.a, _MM_FROUND_TO_NEAREST_INT), b = _mm256_cvtps_ph((__m256)x.b, _MM_FROUND_TO_NEAREST_INT);
    return (vec)_mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}

INLINE vu16 u16_minus(vu16 x, vu16 y) { return (vu16)_mm256_subs_epu16((__m256i)x, (__m256i)y); }
INLINE vu16 u16_choose(vu16 m, vu16 x, vu16 y) { return (vu16)_mm256_blendv_epi8((__m256i)y, (__m256i)x, (__m256i)m); }
INLINE vu16 u16_mix(vu16 x, vu16 y) { return (vu16)_mm256_blend_epi16((__m256i)x, (__m256i)y, 0xaa); }

#include "collectives/reduce_simd.h"

TARGET static void stream(char *dst, const char *src, size_t n) {
    for (size_t at = 0; at < n; at += 64) {
        __m256i a = (__m256i)get(src + at), b = (__m256i)get(src + at + VEC);
        _mm256_stream_si256((__m256i *)(dst + at), a);
        _mm256_stream_si256((__m256i *)(dst + at + VEC), b);
    }
    _mm_sfence();
}

const struct kernels kernels_avx2 = {.name = "avx2", .reduce = KERNEL_TABLE, .stream = stream};
#endif
