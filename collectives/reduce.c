/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of types and operations, the choice among the variants of the kernels, and the floating-point state around a call.
 * Does not know any arithmetic.
 */
#include "collectives/reduce_kernels.h"
#include "pool/base/atomic.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

static const struct {
    const char *name;
    int is_float;
} types[REDUCE_TYPES] = {{"float64", 1}, {"float32", 1}, {"float16", 1}, {"bfloat16", 1}, {"int32", 0}, {"int64", 0}, {"int8", 0}, {"uint8", 0},
                         {"uint32", 0}, {"uint64", 0}};
static const char *const ops[REDUCE_OPS] = {"sum", "min", "max", "prod", "avg"};

static int type_known(int dtype) {
    return dtype >= 1 && dtype <= REDUCE_TYPES;
}

const char *reduce_dtype_name(int dtype) {
    return type_known(dtype) ? types[dtype - 1].name : "unknown type";
}

const char *reduce_op_name(int op) {
    return reduce_op_known(op) ? ops[op - 1] : "unknown operation";
}

/* --------------------------------------------------------------------------------------------------- choice */

static int always(void) {
    return 1;
}

#if defined(__x86_64__)
/* Does the operating system save these registers?  bits: of XCR0. */
static int system_saves(unsigned bits) {
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & bits) == bits;
}

static int has_avx2(void) {
    unsigned a, b, c, d;
    if (!system_saves(0x6) || !__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_AVX) || !(c & bit_F16C)) return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}

static int has_avx512(void) {
    const unsigned wanted = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    unsigned a, b, c, d;
    return has_avx2() && system_saves(0xe6) && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & wanted) == wanted;
}
#endif

/* The widest first. */
static const struct {
    const struct kernels *kernels;
    int (*here)(void);
} levels[] = {
#if defined(__x86_64__)
    {&kernels_avx512, has_avx512},
    {&kernels_avx2, has_avx2},
#elif defined(__aarch64__)
    {&kernels_neon, always},
#endif
    {&kernels_scalar, always},
};
enum { N_LEVELS = sizeof levels / sizeof levels[0] };

/* Of the process, as the processor is.  Relaxed: it points to constants, and whatever a thread reads is right. */
static _Atomic(const struct kernels *) chosen;

const struct kernels *kernels_chosen(void) {
    const struct kernels *k = load_relaxed(&chosen); /* pairs with reduce_choose */
    if (__builtin_expect(k != NULL, 1)) return k;
    reduce_choose("auto");
    return load_relaxed(&chosen);
}

int reduce_choose(const char *level) {
    char names[64];
    struct text have = TEXT_INIT(names);
    for (int i = 0; i < N_LEVELS; i++) {
        const char *name = levels[i].kernels->name;
        if (!levels[i].here()) continue;
        if (strcmp(level, "auto") == 0 || strcmp(level, name) == 0) {
            store_relaxed(&chosen, levels[i].kernels); /* pairs with kernels_chosen */
            return SYP_OK;
        }
        text_addf(&have, "%s%s", have.len ? ", " : "", name);
    }
    return err_set(SYP_EUNSUPPORTED, "choose kernels \"%s\": this processor and this build have %s; set SYMPOOL_KERNELS to auto or to one of these",
                   level, names);
}

const char *reduce_level(void) {
    return kernels_chosen()->name;
}

/* ------------------------------------------------------------------------------------- floating-point state */

/* Rounding to nearest, no flushing of subnormals, no trap: what the bits are defined with.  Reading the register costs a few cycles, writing it
 * tens, so it is written only when the host has changed it. */
#if defined(__x86_64__)
enum { FP_FLAGS = 0x3f, FP_DEFAULT = 0x1f80 };
static inline uint64_t fp_get(void) { return _mm_getcsr(); }
static inline void fp_set(uint64_t state) { _mm_setcsr((unsigned)state); }
#elif defined(__aarch64__)
enum { FP_FLAGS = 0, FP_DEFAULT = 0 };
static inline uint64_t fp_get(void) {
    uint64_t state;
    __asm__ volatile("mrs %0, fpcr" : "=r"(state));
    return state;
}
static inline void fp_set(uint64_t state) { __asm__ volatile("msr fpcr, %0" ::"r"(state) : "memory"); }
#else
#error "the floating-point control register of this processor is not known here"
#endif

void reduce_push(char *const *dst, int n_dst, const char *const *src, int n, size_t count, int dtype, int op) {
    const char *twice[2] = {src[0], src[0]};
    if (n == 1) { /* the minimum of x and x is x, but for the payload of a NaN: the kernels need not know of one source */
        src = twice;
        n = 2;
        op = SYP_MIN;
    }
    reduce_fn f = kernels_chosen()->reduce[dtype - 1][op - 1];
    if (!f) f = kernels_scalar.reduce[dtype - 1][op - 1];
    TEST_POINT("reduce.block");
    if (!types[dtype - 1].is_float) {
        f(dst, n_dst, src, n, count);
        return;
    }
    uint64_t state = fp_get();
    int foreign = (state & ~(uint64_t)FP_FLAGS) != FP_DEFAULT;
    if (__builtin_expect(foreign, 0)) fp_set(FP_DEFAULT);
    f(dst, n_dst, src, n, count);
    if (__builtin_expect(foreign, 0)) fp_set(state);
}
