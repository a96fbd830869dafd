/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vectors of VEC bytes (defined by the includer, with TARGET, the attribute under which everything is compiled), and moving them to and
 * from memory of any alignment.  Nothing outside the bytes asked for is touched: they may end at the end of a mapping.
 */
#include "collectives/reduce_kernels.h"

#include <stdint.h>
#include <string.h>

#define INLINE TARGET static inline __attribute__((always_inline))
#define VECTOR __attribute__((vector_size(VEC)))

typedef uint8_t vec VECTOR; /* as in memory */
typedef uint8_t vec_anywhere __attribute__((vector_size(VEC), aligned(1), may_alias));
typedef float vf32 VECTOR;
typedef double vf64 VECTOR;
typedef int8_t vi8 VECTOR;
typedef uint8_t vu8 VECTOR;
typedef int16_t vi16 VECTOR;
typedef uint16_t vu16 VECTOR;
typedef int32_t vi32 VECTOR;
typedef uint32_t vu32 VECTOR;
typedef int64_t vi64 VECTOR;
typedef uint64_t vu64 VECTOR;
/* 16-bit floats widened; which half holds which elements is the affair of who widens and narrows. */
typedef struct {
    vf32 a, b;
} pair;

INLINE vec get(const char *p) {
    return *(const vec_anywhere *)p;
}

INLINE void put(char *p, vec v) {
    *(vec_anywhere *)p = v;
}

/* The first len bytes of a vector, 0 < len < VEC; the rest is 0.  AVX-512 has masks for it. */
#if VEC < 64
INLINE uint64_t get_64(const char *p) {
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

INLINE uint64_t get_32(const char *p) {
    uint32_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* The last len % 8 of the len bytes at p, low byte first. */
INLINE uint64_t get_rest(const char *p, size_t len) {
    size_t r = len % 8;
    if (r == 0) return 0;
    if (len > 8) return get_64(p + len - 8) >> (64 - 8 * r);
    if (r >= 4) return get_32(p) | get_32(p + r - 4) << (8 * (r - 4));
    const uint8_t *b = (const uint8_t *)p;
    return b[0] | (uint64_t)b[r / 2] << (8 * (r / 2)) | (uint64_t)b[r - 1] << (8 * (r - 1));
}

INLINE vec get_part(const char *p, size_t len) {
    uint64_t rest = get_rest(p, len);
#define WORD(i) (len >= 8 * (i) + 8 ? get_64(p + 8 * (i)) : len > 8 * (i) ? rest : 0)
#if VEC == 16
    return (vec)(vu64){WORD(0), WORD(1)};
#else
    return (vec)(vu64){WORD(0), WORD(1), WORD(2), WORD(3)};
#endif
#undef WORD
}

INLINE void put_part(char *p, vec v, size_t len) {
    char x[VEC];
    put(x, v);
    /* two pieces that may overlap */
    if (len >= 16) {
        memcpy(p, x, 16);
        memcpy(p + len - 16, x + len - 16, 16);
    } else if (len >= 8) {
        memcpy(p, x, 8);
        memcpy(p + len - 8, x + len - 8, 8);
    } else if (len >= 4) {
        memcpy(p, x, 4);
        memcpy(p + len - 4, x + len - 4, 4);
    } else {
        p[0] = x[0];
        p[len / 2] = x[len / 2];
        p[len - 1] = x[len - 1];
    }
}
#endif
