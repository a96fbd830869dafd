/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One variant of the kernels: what reduce.c and copy.c choose from.  A variant is a table of functions in one file, reduce_<name>.c.
 */
#ifndef SYP_COLLECTIVES_REDUCE_KERNELS_H
#define SYP_COLLECTIVES_REDUCE_KERNELS_H

#include "collectives/reduce.h"

enum { REDUCE_TYPES = SYP_UINT64, REDUCE_OPS = SYP_AVG };

/* As reduce_push. */
typedef void (*reduce_fn)(char *const *dst, int n_dst, const char *const *src, int n, size_t count);

struct kernels {
    const char *name;
    reduce_fn reduce[REDUCE_TYPES][REDUCE_OPS]; /* [dtype - 1][op - 1]; NULL = as scalar */
    /* Copy n bytes, a multiple of 64, past the caches.  dst: aligned to 64.  Visible to others after the next publish. */
    void (*stream)(char *dst, const char *src, size_t n);
};

extern const struct kernels kernels_scalar;
#if defined(__x86_64__)
extern const struct kernels kernels_avx2, kernels_avx512;
#elif defined(__aarch64__)
extern const struct kernels kernels_neon;
#endif

/* The variant in use. */
const struct kernels *kernels_chosen(void);

#endif
