/* SPDX-License-Identifier: Apache-2.0 */
/* The scalar kernels against one-element-at-a-time arithmetic, for every type and operation, misaligned and in place. */
#include "collectives/reduce.h"
#include "tests/support/check.h"

#include <math.h>
#include <stdlib.h>

#define N_SRC 5

static const int dtypes[] = {SYP_FLOAT64, SYP_FLOAT32, SYP_INT32, SYP_INT64};
static const int ops[] = {SYP_SUM, SYP_MIN, SYP_MAX};

/* The definition, written the other way round: element by element, member by member. */
static void expected(void *out, char *const *src, size_t i, int dtype, int op) {
#define ONE(type, sum, less)                                                                                           \
    do {                                                                                                               \
        type x, y;                                                                                                     \
        memcpy(&x, src[0] + i * sizeof x, sizeof x);                                                                   \
        for (int k = 1; k < N_SRC; k++) {                                                                              \
            memcpy(&y, src[k] + i * sizeof y, sizeof y);                                                               \
            x = op == SYP_SUM ? (sum) : op == SYP_MIN ? ((less) ? x : y) : ((less) ? y : x);                           \
        }                                                                                                              \
        memcpy(out, &x, sizeof x);                                                                                     \
    } while (0)
    switch (dtype) {
    case SYP_FLOAT64:
        ONE(double, x + y, x < y);
        break;
    case SYP_FLOAT32:
        ONE(float, x + y, x < y);
        break;
    case SYP_INT32:
        ONE(int32_t, (int32_t)((uint32_t)x + (uint32_t)y), x < y);
        break;
    default:
        ONE(int64_t, (int64_t)((uint64_t)x + (uint64_t)y), x < y);
    }
#undef ONE
}

static void fill(char *p, size_t count, int dtype, uint64_t *seed) {
    for (size_t i = 0; i < count; i++) {
        uint64_t x = check_random(seed);
        float f = (float)((double)(int64_t)x * 1e-15);
        double d = (double)(int64_t)x * 1e-10;
        const void *v = dtype == SYP_FLOAT32 ? (void *)&f : dtype == SYP_FLOAT64 ? (void *)&d : (void *)&x;
        memcpy(p + i * reduce_size(dtype), v, reduce_size(dtype));
    }
}

static void all_kernels(void) {
    uint64_t seed = check_seed();
    static const size_t counts[] = {1, 2, 3, 15, 16, 17, 511, 512, 513, 1024, 4097};
    for (size_t t = 0; t < 4; t++)
        for (size_t o = 0; o < 3; o++)
            for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
                int dtype = dtypes[t], op = ops[o];
                size_t count = counts[c], size = reduce_size(dtype), bytes = count * size;
                char *buf[N_SRC], *src[N_SRC], *dst[2];
                size_t shift = check_random(&seed) % 9; /* also misaligned */
                for (int k = 0; k < N_SRC; k++) {
                    buf[k] = malloc(bytes + 16);
                    src[k] = buf[k] + shift;
                    fill(src[k], count, dtype, &seed);
                }
                char *want = malloc(bytes), *out = malloc(bytes + 1);
                for (size_t i = 0; i < count; i++)
                    expected(want + i * size, src, i, dtype, op);
                dst[0] = src[2]; /* in place on member 2 */
                dst[1] = out;
                out[bytes] = 77;
                reduce_push(dst, 2, (const char *const *)src, N_SRC, count, dtype, op);
                CHECK(memcmp(src[2], want, bytes) == 0);
                CHECK(memcmp(out, want, bytes) == 0);
                CHECK_EQ(out[bytes], 77);
                for (int k = 0; k < N_SRC; k++)
                    free(buf[k]);
                free(want);
                free(out);
            }
}

static float reduce_two(float a, float b, int op) {
    float r;
    char *dst = (char *)&r;
    const char *src[2] = {(char *)&a, (char *)&b};
    reduce_push(&dst, 1, src, 2, 1, SYP_FLOAT32, op);
    return r;
}

static void edges(void) {
    CHECK(isnan(reduce_two(NAN, 1, SYP_MIN)) && isnan(reduce_two(1, NAN, SYP_MAX)));
    CHECK(signbit(reduce_two(0.0f, -0.0f, SYP_MIN)) && signbit(reduce_two(-0.0f, 0.0f, SYP_MIN)));
    CHECK(!signbit(reduce_two(0.0f, -0.0f, SYP_MAX)) && !signbit(reduce_two(-0.0f, 0.0f, SYP_MAX)));
    CHECK(isinf(reduce_two(INFINITY, 1, SYP_SUM)) && isnan(reduce_two(INFINITY, -INFINITY, SYP_SUM)));
    int32_t big = INT32_MAX, one = 1, r;
    char *dst = (char *)&r;
    const char *src[2] = {(char *)&big, (char *)&one};
    reduce_push(&dst, 1, src, 2, 1, SYP_INT32, SYP_SUM);
    CHECK_EQ(r, INT32_MIN); /* integers wrap */
    CHECK_EQ(reduce_size(99), 0);
    CHECK(!reduce_op_known(0) && !reduce_op_known(4));
}

int main(void) {
    return check_main("reduce", (struct check_test[]){{"all_kernels", all_kernels}, {"edges", edges}, {0}});
}
