/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both large products (inputs times w1, and inputs transposed times the hidden gradient) have their 128 outputs in the
 * inner loop, which the compiler vectorises, and take four terms per pass so that loads and stores of the sums do not
 * dominate.  The order of every sum is fixed by the code, so equal inputs give equal bits.
 */
#include "tools/demo/mlp.h"

#include <math.h>
#include <string.h>

/* gcc's -O2 leaves these loops scalar; clang's does not. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

/* sum[j] += a0 r0[j] + a1 r1[j] + a2 r2[j] + a3 r3[j] over the hidden units */
static inline void add_four_rows(float *restrict sum, const float *restrict a, size_t a_step,
                                 const float *restrict rows, size_t row_step) {
    float a0 = a[0], a1 = a[a_step], a2 = a[2 * a_step], a3 = a[3 * a_step];
    const float *restrict r0 = rows, *restrict r1 = rows + row_step;
    const float *restrict r2 = rows + 2 * row_step, *restrict r3 = rows + 3 * row_step;
    for (int j = 0; j < MLP_HIDDEN; j++)
        sum[j] += a0 * r0[j] + a1 * r1[j] + (a2 * r2[j] + a3 * r3[j]);
}

static inline void add_row(float *restrict sum, float a, const float *restrict row) {
    for (int j = 0; j < MLP_HIDDEN; j++)
        sum[j] += a * row[j];
}

size_t mlp_work_floats(int cap) {
    return (size_t)cap * (MLP_IN + 2 * MLP_HIDDEN + 16);
}

void mlp_work_carve(struct mlp_work *w, int cap, float *memory) {
    w->cap = cap;
    w->x = memory;
    w->hidden = w->x + (size_t)cap * MLP_IN;
    w->dhidden = w->hidden + (size_t)cap * MLP_HIDDEN;
    w->out = w->dhidden + (size_t)cap * MLP_HIDDEN;
}

uint64_t mlp_seed(uint64_t seed) {
    /* splitmix64: neighbouring seeds give unrelated sequences */
    seed += 0x9e3779b97f4a7c15u;
    seed = (seed ^ seed >> 30) * 0xbf58476d1ce4e5b9u;
    seed = (seed ^ seed >> 27) * 0x94d049bb133111ebu;
    seed ^= seed >> 31;
    return seed ? seed : 1;
}

uint64_t mlp_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1du;
}

/* Roughly normal, mean 0, deviation 1: sum of twelve uniform numbers. */
static float random_normal(uint64_t *state) {
    float sum = -6.0f;
    for (int i = 0; i < 12; i++)
        sum += (float)(mlp_random(state) >> 40) * (1.0f / 16777216.0f);
    return sum;
}

void mlp_init(float *params, uint64_t seed) {
    uint64_t state = mlp_seed(seed);
    memset(params, 0, MLP_PARAMS * sizeof *params);
    float scale1 = sqrtf(2.0f / MLP_IN), scale2 = sqrtf(2.0f / MLP_HIDDEN);
    for (int i = 0; i < MLP_IN * MLP_HIDDEN; i++)
        params[MLP_W1 + i] = scale1 * random_normal(&state);
    for (int i = 0; i < MLP_HIDDEN * MLP_OUT; i++)
        params[MLP_W2 + i] = scale2 * random_normal(&state);
}

/* Softmax of one row of logits in place; returns the index of the largest and the cross-entropy of `label`. */
static int softmax(float *z, int label, double *loss) {
    int best = 0;
    for (int o = 1; o < MLP_OUT; o++)
        if (z[o] > z[best]) best = o;
    float top = z[best], at_label = z[label], sum = 0;
    for (int o = 0; o < MLP_OUT; o++) {
        z[o] = expf(z[o] - top);
        sum += z[o];
    }
    for (int o = 0; o < MLP_OUT; o++)
        z[o] /= sum;
    *loss += (double)(logf(sum) + top - at_label);
    return best;
}

int mlp_forward(const float *params, struct mlp_work *w, int n, const uint8_t *labels, double *loss) {
    const float *w1 = params + MLP_W1, *b1 = params + MLP_B1, *w2 = params + MLP_W2, *b2 = params + MLP_B2;
    for (int i = 0; i < n; i++)
        memcpy(w->hidden + (size_t)i * MLP_HIDDEN, b1, MLP_HIDDEN * sizeof *b1);
    /* Four rows of w1 stay in the first-level cache while every sample uses them. */
    for (int k = 0; k < MLP_IN; k += 4)
        for (int i = 0; i < n; i++)
            add_four_rows(w->hidden + (size_t)i * MLP_HIDDEN, w->x + (size_t)i * MLP_IN + k, 1,
                          w1 + (size_t)k * MLP_HIDDEN, MLP_HIDDEN);
    int right = 0;
    for (int i = 0; i < n; i++) {
        float *restrict h = w->hidden + (size_t)i * MLP_HIDDEN;
        float *restrict z = w->out + (size_t)i * MLP_OUT;
        for (int j = 0; j < MLP_HIDDEN; j++)
            h[j] = h[j] > 0 ? h[j] : 0;
        memcpy(z, b2, MLP_OUT * sizeof *b2);
        for (int j = 0; j < MLP_HIDDEN; j++)
            for (int o = 0; o < MLP_OUT; o++)
                z[o] += h[j] * w2[j * MLP_OUT + o];
        right += softmax(z, labels[i], loss) == labels[i];
    }
    return right;
}

/* Gradients of the second layer, and of the hidden units through the ReLU. */
static void backward_out(const float *params, struct mlp_work *w, int i, int label, float *grad) {
    const float *w2 = params + MLP_W2;
    const float *restrict h = w->hidden + (size_t)i * MLP_HIDDEN;
    float *restrict z = w->out + (size_t)i * MLP_OUT, *restrict dh = w->dhidden + (size_t)i * MLP_HIDDEN;
    float *restrict dw2 = grad + MLP_W2, *restrict db2 = grad + MLP_B2;
    z[label] -= 1.0f;
    for (int o = 0; o < MLP_OUT; o++)
        db2[o] += z[o];
    for (int j = 0; j < MLP_HIDDEN; j++) {
        float sum = 0;
        for (int o = 0; o < MLP_OUT; o++) {
            dw2[j * MLP_OUT + o] += h[j] * z[o];
            sum += w2[j * MLP_OUT + o] * z[o];
        }
        dh[j] = h[j] > 0 ? sum : 0;
    }
}

void mlp_backward(const float *params, struct mlp_work *w, int n, const uint8_t *labels, float *grad) {
    memset(grad, 0, MLP_PARAMS * sizeof *grad);
    for (int i = 0; i < n; i++) {
        backward_out(params, w, i, labels[i], grad);
        add_row(grad + MLP_B1, 1.0f, w->dhidden + (size_t)i * MLP_HIDDEN);
    }
    /* One row of the gradient of w1 stays in the first-level cache while all samples add to it. */
    for (int k = 0; k < MLP_IN; k++) {
        float *row = grad + MLP_W1 + (size_t)k * MLP_HIDDEN;
        const float *x = w->x + k; /* column k of the inputs */
        int i = 0;
        for (; i + 4 <= n; i += 4)
            add_four_rows(row, x + (size_t)i * MLP_IN, MLP_IN, w->dhidden + (size_t)i * MLP_HIDDEN, MLP_HIDDEN);
        for (; i < n; i++)
            add_row(row, x[(size_t)i * MLP_IN], w->dhidden + (size_t)i * MLP_HIDDEN);
    }
}

void mlp_update(float *restrict params, float *restrict velocity, const float *restrict grad, float scale,
                float momentum, float rate) {
    for (int i = 0; i < MLP_PARAMS; i++) {
        velocity[i] = momentum * velocity[i] + scale * grad[i];
        params[i] -= rate * velocity[i];
    }
}
