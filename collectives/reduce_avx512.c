/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels for processors with AVX-512 (F, BW, DQ, VL), 64 bytes at a time.  Of its conversions only the binary16 ones are used: those
 * to bfloat16 flush subnormals.
 */
#if defined(__x86_64__)
#define VEC 64
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,f16c")))
#include "collectives/reduce_vec.h"

#include <immintrin.h>

/* Masked-off bytes are not accessed, so they cannot fault. */
INLINE vec get_part(const char *p, size_t len) { return (vec)_mm512_maskz_loadu_epi8((1ull << len) - 1, p); }
INLINE void put_part(char *p, vec v, size_t len) { _mm512_mask_storeu_epi8(p, (1ull << len) - 1, (__m512i)v); }

/* As in reduce_avx2.c. */
INLINE vf32 f32_lower(vf32 x, vf32 y) {
    return (vf32)_mm512_or_ps(_mm512_min_ps((__m512)x, (__m512)y), _mm512_min_ps((__m512)y, (__m512)x));
}
INLINE vf64 f64_lower(vf64 x, vf64 y) {
    return (vf64)_mm512_or_pd(_mm512_min_pd((__m512d)x, (__m512d)y), _mm512_min_pd((__m512d)y, (__m512d)x));
}
INLINE vf32 f32_upper(vf32 x, vf32 y) { return -f32_lower(-x, -y); }
INLINE vf64 f64_upper(vf64 x, vf64 y) { return -f64_lower(-x, -y); }

INLINE vf32 f32_canonical(vf32 x) {
    __m512 v = (__m512)x;
    return (vf32)_mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), _mm512_set1_ps(__builtin_nanf("")));
}
INLINE vf64 f64_canonical(vf64 x) {
    __m512d v = (__m512d)x;
    return (vf64)_mm512_mask_mov_pd(v, _mm512_cmp_pd_mask(v, v, _CMP_UNORD_Q), _mm512_set1_pd(__builtin_nan("")));
}

/* Lower elements in a, upper ones in b. */
INLINE pair f16_load(const char *p) {
    return (pair){(vf32)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)),
                  (vf32)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p + 32)))};
}
INLINE vec f16_narrow(pair x) {
    __m256i a = _mm512_maskz_cvtps_ph(0xffff, (__m512)x.a, _MM_FROUND_TO_NEAREST_INT);
    __m256i b = _mm512_maskz_cvtps_ph(0xffff, (__m512)x.b, _MM_FROUND_TO_NEAREST_INT);
    return (vec)_mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

INLINE vu16 u16_minus(vu16 x, vu16 y) { return (vu16)_mm512_subs_epu16((__m512i)x, (__m512i)y); }
INLINE vu16 u16_choose(vu16 m, vu16 x, vu16 y) { return (x & m) | (y & ~m); }
INLINE vu16 u16_mix(vu16 x, vu16 y) { return (vu16)_mm512_mask_mov_epi16((__m512i)x, 0xaaaaaaaa, (__m512i)y); }

#include "collectives/reduce_simd.h"

TARGET static void stream(char *dst, const char *src, size_t n) {
    for (size_t at = 0; at < n; at += VEC)
        _mm512_stream_si512((__m512i *)(dst + at), (__m512i)get(src + at));
    _mm_sfence();
}

const struct kernels kernels_avx512 = {.name = "avx512", .reduce = KERNEL_TABLE, .stream = stream};
#endif
