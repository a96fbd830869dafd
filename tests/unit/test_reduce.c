/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every variant of the reduction kernels that runs here against arithmetic written another way: floating point in a type so wide that rounding it
 * again changes nothing, integers in 128 bits, one element at a time.
 */
#include "collectives/reduce.h"
#include "tests/support/check.h"

#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#define MAX_N 9
#define MAX_COUNT 1025
#define MAX_BYTES (MAX_COUNT * 8)
#define GUARD 64

/* At least 2 * 53 + 2 bits: sums, products and quotients rounded to it first, then to binary64, are as rounded once. */
#if defined(__x86_64__)
typedef __float128 wide;
static const char *const levels[] = {"scalar", "avx2", "avx512"};
static const char *const lacking[] = {"", "no hardware: AVX2", "no hardware: AVX-512"};
#else
typedef long double wide;
static const char *const levels[] = {"scalar", "neon"};
static const char *const lacking[] = {"", "no hardware: NEON"};
#endif
#define N_LEVELS (sizeof levels / sizeof levels[0])
enum { N_TYPES = SYP_UINT64, N_OPS = SYP_AVG };

/* ------------------------------------------------------------------------------------------- the definition */

static int is_float(int dtype) {
    return dtype <= SYP_BFLOAT16;
}

static int is_signed(int dtype) {
    return dtype == SYP_INT8 || dtype == SYP_INT32 || dtype == SYP_INT64;
}

/* exponent and fraction bits of the 16-bit types */
static int exponent_bits(int dtype) {
    return dtype == SYP_FLOAT16 ? 5 : 8;
}

static double decode16(uint16_t u, int dtype) {
    int e_bits = exponent_bits(dtype), f_bits = 15 - e_bits, bias = (1 << (e_bits - 1)) - 1;
    int e = u >> f_bits & ((1 << e_bits) - 1), f = u & ((1 << f_bits) - 1);
    double x = e == (1 << e_bits) - 1 ? (f ? (double)NAN : (double)INFINITY)
               : e                    ? ldexp(f + (1 << f_bits), e - bias - f_bits)
                                      : ldexp(f, 1 - bias - f_bits);
    return u & 0x8000 ? -x : x;
}

static uint16_t encode16(double x, int dtype) {
    int e_bits = exponent_bits(dtype), f_bits = 15 - e_bits, bias = (1 << (e_bits - 1)) - 1, e;
    int infinity = ((1 << e_bits) - 1) << f_bits, sign = signbit(x) ? 0x8000 : 0;
    if (isnan(x)) return (uint16_t)(infinity | 1 << (f_bits - 1));
    if (isinf(x)) return (uint16_t)(sign | infinity);
    if (x == 0) return (uint16_t)sign;
    frexp(x, &e); /* |x| in [2^(e-1), 2^e) */
    e = e - 1 < 1 - bias ? 1 - bias : e - 1;
    double steps = nearbyint(ldexp(fabs(x), f_bits - e)); /* ties to even; subnormals have the steps of the least exponent */
    int magnitude = (int)steps + (steps >= 1 << f_bits ? (e + bias - 1) << f_bits : 0);
    return (uint16_t)(sign | (magnitude > infinity ? infinity : magnitude));
}

static double load_float(const char *p, int dtype) {
    double d;
    float f;
    uint16_t h;
    switch (dtype) {
    case SYP_FLOAT64:
        memcpy(&d, p, 8);
        return d;
    case SYP_FLOAT32:
        memcpy(&f, p, 4);
        return f;
    default:
        memcpy(&h, p, 2);
        return decode16(h, dtype);
    }
}

static void store_float(char *p, double x, int dtype) {
    static const uint64_t nan64 = 0x7ff8000000000000;
    static const uint32_t nan32 = 0x7fc00000;
    float f = (float)x;
    uint16_t h;
    switch (dtype) {
    case SYP_FLOAT64:
        memcpy(p, isnan(x) ? (const void *)&nan64 : (const void *)&x, 8);
        break;
    case SYP_FLOAT32:
        memcpy(p, isnan(x) ? (const void *)&nan32 : (const void *)&f, 4);
        break;
    default:
        h = encode16(x, dtype);
        memcpy(p, &h, 2);
    }
}

static double rounded(wide x, int dtype) {
    return dtype == SYP_FLOAT64 ? (double)x : (double)(float)x;
}

static void expect_float(char *out, const char *const *src, int n, size_t at, int dtype, int op) {
    double x = load_float(src[0] + at, dtype);
    for (int k = 1; k < n; k++) {
        double y = load_float(src[k] + at, dtype);
        int y_below = y < x || (y == x && signbit(y));
        if (op == SYP_SUM || op == SYP_AVG)
            x = rounded((wide)x + (wide)y, dtype);
        else if (op == SYP_PROD)
            x = rounded((wide)x * (wide)y, dtype);
        else if (isnan(x) || isnan(y))
            x = NAN;
        else
            x = y_below == (op == SYP_MIN) ? y : x;
    }
    if (op == SYP_AVG) x = rounded((wide)x / (wide)n, dtype);
    store_float(out, x, dtype);
}

/* As the type shows them. */
static __int128 load_int(const char *p, int dtype) {
    size_t size = reduce_size(dtype);
    uint64_t u = 0;
    memcpy(&u, p, size); /* little endian */
    if (is_signed(dtype) && u >> (8 * size - 1)) return (__int128)u - ((__int128)1 << (8 * size));
    return u;
}

static void expect_int(char *out, const char *const *src, int n, size_t at, int dtype, int op) {
    unsigned __int128 x = (unsigned __int128)load_int(src[0] + at, dtype);
    for (int k = 1; k < n; k++) {
        __int128 y = load_int(src[k] + at, dtype);
        if (op == SYP_SUM || op == SYP_AVG)
            x += (unsigned __int128)y;
        else if (op == SYP_PROD)
            x *= (unsigned __int128)y;
        else if ((y < (__int128)x) == (op == SYP_MIN))
            x = (unsigned __int128)y;
    }
    memcpy(out, &x, reduce_size(dtype)); /* wraps around */
    if (op != SYP_AVG) return;
    __int128 sum = load_int(out, dtype), quotient = (sum < 0 ? -sum : sum) / n;
    if (sum < 0) quotient = -quotient;
    memcpy(out, &quotient, reduce_size(dtype));
}

static void expect(char *out, const char *const *src, int n, size_t count, int dtype, int op) {
    size_t size = reduce_size(dtype);
    for (size_t i = 0; i < count; i++)
        (is_float(dtype) ? expect_float : expect_int)(out + i * size, src, n, i * size, dtype, op);
}

/* ------------------------------------------------------------------------------------------------- the data */

/* Bit patterns, cut to the type's length: zeros, subnormals, ones and their neighbours, the largest, infinities, NaNs quiet and signalling. */
static const uint64_t special64[] = {0, 1, 1ull << 63, 0x000fffffffffffff, 0x8000000000000001, 0x0010000000000000, 0x3ff0000000000000,
                                     0xbff0000000000001, 0x7fefffffffffffff, 0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000,
                                     0xfff8000000000000, 0x7ff0000000000001, 0xfff0000000beef00, 0x7fffffffffffffff, UINT64_MAX};
static const uint32_t special32[] = {0, 1, 0x80000000, 0x007fffff, 0x80000001, 0x00800000, 0x3f800000, 0xbf800001, 0x7f7fffff,
                                     0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001, 0xff80beef, 0x7fffffff, UINT32_MAX};
static const uint16_t special_f16[] = {0, 1, 0x8000, 0x03ff, 0x8001, 0x0400, 0x3c00, 0xbc01, 0x7bff,
                                       0x7c00, 0xfc00, 0x7e00, 0xfe00, 0x7c01, 0xfcef, 0x7fff, 0xffff};
static const uint16_t special_bf16[] = {0, 1, 0x8000, 0x007f, 0x8001, 0x0080, 0x3f80, 0xbf81, 0x7f7f,
                                        0x7f80, 0xff80, 0x7fc0, 0xffc0, 0x7f81, 0xffbe, 0x7fff, 0xffff};
static const uint8_t special8[] = {0, 1, 0x80, 0x7f, 0xff, 0x81, 2, 0xfe};

static void special(char *p, int dtype, uint64_t which) {
#define PICK(table) memcpy(p, &(table)[which % (sizeof(table) / sizeof(table)[0])], sizeof(table)[0])
    switch (dtype) {
    case SYP_FLOAT16:
        PICK(special_f16);
        break;
    case SYP_BFLOAT16:
        PICK(special_bf16);
        break;
    case SYP_INT8:
    case SYP_UINT8:
        PICK(special8);
        break;
    default:
        if (reduce_size(dtype) == 8)
            PICK(special64);
        else
            PICK(special32);
    }
#undef PICK
}

/* Ordinary values of nearby magnitudes, any bits, and the special ones. */
static void fill(char *p, size_t count, int dtype, uint64_t *seed) {
    size_t size = reduce_size(dtype);
    for (size_t i = 0; i < count; i++, p += size) {
        uint64_t x = check_random(seed), kind = check_random(seed) % 8;
        if (kind == 0)
            special(p, dtype, x);
        else if (kind == 1 || !is_float(dtype))
            memcpy(p, &x, size);
        else
            store_float(p, ldexp((double)(int64_t)x, -63 + (int)(kind - 4)), dtype);
    }
}

static void *memory(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) abort();
    return p;
}

/* Runs f for every variant that this processor has. */
static void for_levels(void (*f)(const char *level)) {
    for (size_t l = 0; l < N_LEVELS; l++) {
        if (reduce_choose(levels[l]) == SYP_OK)
            f(levels[l]);
        else
            check_skip(lacking[l]);
    }
    CHECK_EQ(reduce_choose("auto"), SYP_OK);
}

/* -------------------------------------------------------------------------------------------------- the call */

#define ROOM (GUARD + 64 + MAX_BYTES + GUARD) /* guard, any alignment, data, guard */
static char (*area)[ROOM], (*before)[ROOM];   /* one for each source and one more; their state before the call */

enum where { APART, IN_ALL, IN_ONE }; /* the destinations: one that is no source; every source; one source and one that is none */

/* One call at random alignments; the destinations get `want` and nothing else changes. */
static int call(const char *const *data, const char *want, int n, size_t count, int dtype, int op, enum where where, uint64_t *seed) {
    size_t len = count * reduce_size(dtype);
    const char *src[MAX_N];
    char *at[MAX_N + 1], *dst[MAX_N + 1];
    int n_dst = 0, in = (int)(check_random(seed) % (uint64_t)n);
    for (int k = 0; k <= n; k++) {
        at[k] = area[k] + GUARD + check_random(seed) % 64;
        memset(area[k], 0x5a + k, GUARD + 64 + len + GUARD);
        if (k < n) memcpy(at[k], data[k], len);
        if (k < n) src[k] = at[k];
        memcpy(before[k], area[k], GUARD + 64 + len + GUARD);
        if (k == n ? where != IN_ALL : where == IN_ALL || (where == IN_ONE && k == in)) dst[n_dst++] = at[k];
    }
    reduce_push(dst, n_dst, src, n, count, dtype, op);
    int ok = 1;
    for (int d = 0; d < n_dst; d++)
        for (int k = 0; k <= n; k++)
            if (dst[d] == at[k]) {
                ok &= memcmp(at[k], want, len) == 0;
                memcpy(at[k], before[k] + (at[k] - area[k]), len); /* what remains must be as before */
            }
    for (int k = 0; k <= n; k++)
        ok &= memcmp(area[k], before[k], GUARD + 64 + len + GUARD) == 0;
    return ok;
}

static uint64_t base_seed;

static void every_kernel(const char *level) {
    static const size_t more[] = {127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025};
    char *data[MAX_N], *want = malloc(MAX_BYTES);
    uint64_t seed = base_seed;
    for (int k = 0; k < MAX_N; k++)
        data[k] = malloc(MAX_BYTES);
    for (int dtype = 1; dtype <= N_TYPES; dtype++)
        for (int op = 1; op <= N_OPS; op++)
            for (int n = 1; n <= MAX_N; n++) {
                for (int k = 0; k < n; k++)
                    fill(data[k], MAX_COUNT, dtype, &seed);
                expect(want, (const char *const *)data, n, MAX_COUNT, dtype, op);
                for (size_t c = 0; c < 71 + sizeof more / sizeof more[0]; c++) {
                    size_t count = c < 71 ? c : more[c - 71];
                    for (enum where where = APART; where <= IN_ONE; where++) {
                        if (c >= 71 && (c + (size_t)n) % 3 != (size_t)where) continue;
                        if (!call((const char *const *)data, want, n, count, dtype, op, where, &seed))
                            check_fail(__FILE__, __LINE__, "%s: %s of %zu %s, %d sources, destinations %d", level, reduce_op_name(op), count,
                                       reduce_dtype_name(dtype), n, where);
                        if (check_failures() > 20) goto end;
                    }
                }
                check_pass();
            }
end:
    for (int k = 0; k < MAX_N; k++)
        free(data[k]);
    free(want);
}

static void kernels_give_the_defined_bits(void) {
    base_seed = check_seed();
    for_levels(every_kernel);
}

/* ------------------------------------------------------------------------------------- all 16-bit floats, n > 9 */

static void every_half(const char *level) {
    enum { ALL = 65536 };
    uint64_t seed = base_seed, partners = check_count(1, 40);
    char *x = malloc(ALL * 2), *y = malloc(ALL * 2), *out = malloc(ALL * 2), *want = malloc(ALL * 2);
    const char *src[2] = {x, y};
    for (uint32_t i = 0; i < ALL; i++)
        memcpy(x + 2 * i, &(uint16_t){(uint16_t)i}, 2);
    for (int dtype = SYP_FLOAT16; dtype <= SYP_BFLOAT16; dtype++)
        for (uint64_t p = 0; p < partners; p++)
            for (int op = 1; op <= N_OPS; op++) {
                /* half of the partners near in magnitude, so that sums round and tie, half anything */
                for (uint32_t i = 0; i < ALL; i++) {
                    uint64_t r = check_random(&seed);
                    uint16_t v = (uint16_t)(r & 1 ? i ^ (r >> 32 & (dtype == SYP_FLOAT16 ? 0x9fff : 0x87ff)) : r >> 32);
                    memcpy(y + 2 * i, &v, 2);
                }
                expect(want, src, 2, ALL, dtype, op);
                reduce_push(&out, 1, src, 2, ALL, dtype, op);
                if (memcmp(out, want, ALL * 2) == 0)
                    check_pass();
                else
                    check_fail(__FILE__, __LINE__, "%s: %s of all %s", level, reduce_op_name(op), reduce_dtype_name(dtype));
            }
    free(x);
    free(y);
    free(out);
    free(want);
}

static void every_16_bit_float_is_rounded_once(void) {
    base_seed = check_seed();
    for_levels(every_half);
}

static void many_sources(const char *level) {
    enum { N = 300, COUNT = 100 };
    uint64_t seed = base_seed;
    char *data[N], *out = malloc(COUNT * 8), *want = malloc(COUNT * 8);
    for (int k = 0; k < N; k++)
        data[k] = malloc(COUNT * 8);
    for (int dtype = 1; dtype <= N_TYPES; dtype++)
        for (int op = 1; op <= N_OPS; op++) {
            for (int k = 0; k < N; k++)
                fill(data[k], COUNT, dtype, &seed);
            for (int k = 0; k < N && is_float(dtype); k++) /* NaNs would soon be everywhere */
                for (size_t i = 0; i < COUNT; i++)
                    store_float(data[k] + i * reduce_size(dtype), ldexp((double)(int64_t)check_random(&seed), -62), dtype);
            expect(want, (const char *const *)data, N, COUNT, dtype, op);
            reduce_push(&out, 1, (const char *const *)data, N, COUNT, dtype, op);
            if (memcmp(out, want, COUNT * reduce_size(dtype)) == 0)
                check_pass();
            else
                check_fail(__FILE__, __LINE__, "%s: %s of %d x %s", level, reduce_op_name(op), N, reduce_dtype_name(dtype));
        }
    for (int k = 0; k < N; k++)
        free(data[k]);
    free(out);
    free(want);
}

static void more_sources_than_a_byte_counts(void) {
    base_seed = check_seed();
    for_levels(many_sources);
}

/* ------------------------------------------------------------------------------------------- known answers */

static uint16_t two16(uint16_t a, uint16_t b, int dtype, int op) {
    uint16_t r = 0x5a5a;
    char *dst = (char *)&r;
    const char *src[2] = {(char *)&a, (char *)&b};
    reduce_push(&dst, 1, src, 2, 1, dtype, op);
    return r;
}

static uint32_t two32(uint32_t a, uint32_t b, int dtype, int op) {
    uint32_t r = 0x5a5a;
    char *dst = (char *)&r;
    const char *src[2] = {(char *)&a, (char *)&b};
    reduce_push(&dst, 1, src, 2, 1, dtype, op);
    return r;
}

static void known(const char *level) {
    (void)level;
    /* ties go to even, up and down; just above a tie goes up */
    CHECK_EQ(two16(0x3f80, 0x3b80, SYP_BFLOAT16, SYP_SUM), 0x3f80); /* 1 + 2^-8 */
    CHECK_EQ(two16(0x3f81, 0x3b80, SYP_BFLOAT16, SYP_SUM), 0x3f82);
    CHECK_EQ(two16(0x3f80, 0x3b81, SYP_BFLOAT16, SYP_SUM), 0x3f81);
    CHECK_EQ(two16(0x6800, 0x3c00, SYP_FLOAT16, SYP_SUM), 0x6800); /* 2048 + 1 */
    CHECK_EQ(two16(0x6801, 0x3c00, SYP_FLOAT16, SYP_SUM), 0x6802);
    CHECK_EQ(two16(0x6800, 0x3c01, SYP_FLOAT16, SYP_SUM), 0x6801);
    /* into infinity from half a step above the largest on */
    CHECK_EQ(two16(0x7bff, 0x4c00, SYP_FLOAT16, SYP_SUM), 0x7c00); /* 65504 + 16 */
    CHECK_EQ(two16(0x7bff, 0x4bff, SYP_FLOAT16, SYP_SUM), 0x7bff);
    CHECK_EQ(two16(0x7f7f, 0x7b00, SYP_BFLOAT16, SYP_SUM), 0x7f80);
    /* subnormals are kept, and halved to even */
    CHECK_EQ(two16(0x0001, 0x0000, SYP_BFLOAT16, SYP_SUM), 0x0001);
    CHECK_EQ(two16(0x0001, 0x0000, SYP_BFLOAT16, SYP_AVG), 0x0000);
    CHECK_EQ(two16(0x0001, 0x0002, SYP_FLOAT16, SYP_AVG), 0x0002);
    CHECK_EQ(two32(0x00000001, 0x00000001, SYP_FLOAT32, SYP_SUM), 0x00000002);
    /* zeros and NaNs */
    CHECK_EQ(two32(0x00000000, 0x80000000, SYP_FLOAT32, SYP_MIN), 0x80000000);
    CHECK_EQ(two32(0x80000000, 0x00000000, SYP_FLOAT32, SYP_MIN), 0x80000000);
    CHECK_EQ(two32(0x00000000, 0x80000000, SYP_FLOAT32, SYP_MAX), 0x00000000);
    CHECK_EQ(two32(0x80000000, 0x00000000, SYP_FLOAT32, SYP_MAX), 0x00000000);
    CHECK_EQ(two32(0xff812345, 0x3f800000, SYP_FLOAT32, SYP_MIN), 0x7fc00000);
    CHECK_EQ(two32(0x3f800000, 0xff812345, SYP_FLOAT32, SYP_MAX), 0x7fc00000);
    CHECK_EQ(two32(0x7f800000, 0xff800000, SYP_FLOAT32, SYP_SUM), 0x7fc00000); /* inf - inf, negative on some processors */
    CHECK_EQ(two16(0xfe01, 0x3c00, SYP_FLOAT16, SYP_SUM), 0x7e00);
    CHECK_EQ(two16(0xffff, 0x3c00, SYP_BFLOAT16, SYP_SUM), 0x7fc0);
    /* integers */
    CHECK_EQ(two32(0x7fffffff, 1, SYP_INT32, SYP_SUM), 0x80000000);
    CHECK_EQ(two32((uint32_t)-3, 0, SYP_INT32, SYP_AVG), (uint32_t)-1);
    CHECK_EQ(two32(0x80000000, 0x80000000, SYP_UINT32, SYP_AVG), 0);
    CHECK_EQ(two32(0x7fffffff, 0x80000000, SYP_INT32, SYP_MIN), 0x80000000);
    CHECK_EQ(two32(0x7fffffff, 0x80000000, SYP_UINT32, SYP_MIN), 0x7fffffff);
}

static void known_answers(void) {
    for_levels(known);
}

/* ------------------------------------------------------------------------------------- the end of the mapping */

static void at_the_edge(const char *level) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *map = memory(9 * page), *first[4], *last[4];
    for (int i = 0; i < 5; i++)
        mprotect(map + 2 * (size_t)i * page, page, PROT_NONE);
    for (size_t i = 0; i < 4; i++) {
        first[i] = map + (2 * i + 1) * page;
        last[i] = first[i] + page;
    }
    uint64_t seed = base_seed;
    for (int dtype = 1; dtype <= N_TYPES; dtype++)
        for (size_t count = 0; count <= 140; count++) {
            size_t len = count * reduce_size(dtype);
            for (int end = 0; end < 2; end++) {
                const char *src[3];
                char *dst[2], want[140 * 8];
                for (int i = 0; i < 3; i++)
                    fill(end ? last[i] - len : first[i], count, dtype, &seed), src[i] = end ? last[i] - len : first[i];
                for (int i = 0; i < 2; i++)
                    dst[i] = end ? last[i + 2] - len : first[i + 2]; /* a source and one that is none */
                expect(want, src, 3, count, dtype, SYP_SUM);
                reduce_push(dst, 2, src, 3, count, dtype, SYP_SUM);
                if (memcmp(dst[0], want, len) == 0 && memcmp(dst[1], want, len) == 0)
                    check_pass();
                else
                    check_fail(__FILE__, __LINE__, "%s: %zu %s at the edge", level, count, reduce_dtype_name(dtype));
            }
        }
    munmap(map, 9 * page);
}

static void nothing_beyond_the_buffers_is_touched(void) {
    base_seed = check_seed();
    for_levels(at_the_edge);
}

/* --------------------------------------------------------------------------------- the host's floating point */

#if defined(__x86_64__)
/* flushing of results and operands; the roundings; no exception masked */
static const uint64_t states[] = {0x9fc0, 0x3f80, 0x5f80, 0x7f80, 0xffc0, 0x0000};
static const uint64_t state_bits = ~0x3full;
static uint64_t state_get(void) { return _mm_getcsr(); }
static void state_set(uint64_t s) { _mm_setcsr((unsigned)s); }
#else
/* FZ and FZ16; the roundings; default NaN; alternative half precision */
static const uint64_t states[] = {1 << 24 | 1 << 19, 1 << 22, 2 << 22, 3 << 22, 1 << 25, 1 << 26};
static const uint64_t state_bits = ~0ull;
static uint64_t state_get(void) {
    uint64_t s;
    __asm__ volatile("mrs %0, fpcr" : "=r"(s));
    return s;
}
static void state_set(uint64_t s) { __asm__ volatile("msr fpcr, %0" ::"r"(s)); }
#endif

static void under_states(const char *level) {
    enum { COUNT = 200 };
    char *x = malloc(COUNT * 8), *y = malloc(COUNT * 8), *out = malloc(COUNT * 8), *want = malloc(COUNT * 8);
    const char *src[2] = {x, y};
    uint64_t seed = base_seed, normal = state_get();
    for (int dtype = SYP_FLOAT64; dtype <= SYP_BFLOAT16; dtype++)
        for (int op = 1; op <= N_OPS; op++)
            for (size_t s = 0; s < sizeof states / sizeof states[0]; s++) {
                fill(x, COUNT, dtype, &seed);
                fill(y, COUNT, dtype, &seed);
                special(x, dtype, 1); /* the least subnormal and 0: flushing shows */
                special(y, dtype, 0);
                expect(want, src, 2, COUNT, dtype, op);
                state_set(states[s]);
                uint64_t set = state_get() & state_bits;
                reduce_push(&out, 1, src, 2, COUNT, dtype, op);
                uint64_t after = state_get() & state_bits;
                state_set(normal);
                CHECK_EQ(after, set);
                if (memcmp(out, want, COUNT * reduce_size(dtype)) == 0)
                    check_pass();
                else
                    check_fail(__FILE__, __LINE__, "%s: %s of %s under state %llx", level, reduce_op_name(op), reduce_dtype_name(dtype),
                               (unsigned long long)states[s]);
            }
    free(x);
    free(y);
    free(out);
    free(want);
}

static void the_hosts_rounding_and_flushing_change_nothing(void) {
    base_seed = check_seed();
    for_levels(under_states);
}

/* ---------------------------------------------------------------------------------------------- names, choice */

static void names(void) {
    CHECK_EQ(reduce_size(SYP_BFLOAT16), 2);
    CHECK_EQ(reduce_size(0), 0);
    CHECK_EQ(reduce_size(11), 0);
    CHECK_EQ(reduce_size(-1), 0);
    CHECK(reduce_op_known(SYP_SUM) && reduce_op_known(SYP_AVG) && !reduce_op_known(0) && !reduce_op_known(6));
    CHECK_STR(reduce_dtype_name(SYP_UINT64), "uint64");
    CHECK_STR(reduce_dtype_name(99), "unknown type");
    CHECK_STR(reduce_op_name(SYP_AVG), "avg");
    CHECK_STR(reduce_op_name(99), "unknown operation");
}

static void an_unsupported_choice_is_refused_and_changes_nothing(void) {
#if defined(__x86_64__)
    const char *foreign = "neon";
#else
    const char *foreign = "avx2";
#endif
    CHECK_EQ(reduce_choose("scalar"), SYP_OK);
    CHECK_STR(reduce_level(), "scalar");
    CHECK_EQ(reduce_choose(foreign), SYP_EUNSUPPORTED);
    CHECK_HAS(syp_error_text(), foreign);
    CHECK_HAS(syp_error_text(), "scalar");
    CHECK_HAS(syp_error_text(), "SYMPOOL_KERNELS");
    CHECK_EQ(reduce_choose(""), SYP_EUNSUPPORTED);
    CHECK_STR(reduce_level(), "scalar");
    CHECK_EQ(reduce_choose("auto"), SYP_OK);
    CHECK(strcmp(reduce_level(), "auto") != 0);
}

int main(void) {
    area = memory((MAX_N + 1) * sizeof *area);
    before = memory((MAX_N + 1) * sizeof *before);
    printf("  kernels of this processor: %s\n", reduce_level()); /* before any choice */
    return check_main("reduce", (struct check_test[]){{"kernels_give_the_defined_bits", kernels_give_the_defined_bits},
                                                      {"every_16_bit_float_is_rounded_once", every_16_bit_float_is_rounded_once},
                                                      {"more_sources_than_a_byte_counts", more_sources_than_a_byte_counts},
                                                      {"known_answers", known_answers},
                                                      {"nothing_beyond_the_buffers_is_touched", nothing_beyond_the_buffers_is_touched},
                                                      {"the_hosts_rounding_and_flushing_change_nothing", the_hosts_rounding_and_flushing_change_nothing},
                                                      {"names", names},
                                                      {"an_unsupported_choice_is_refused", an_unsupported_choice_is_refused_and_changes_nothing},
                                                      {0}});
}
