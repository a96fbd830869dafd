/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A multilayer perceptron 784-128-10: ReLU, softmax, cross-entropy.  Pure mathematics on memory of the caller: it knows
 * no ranks.
 *
 * Parameters and gradients are vectors of MLP_PARAMS floats with the same layout: w1[784][128], b1[128], w2[128][10],
 * b2[10].
 */
#ifndef DEMO_MLP_H
#define DEMO_MLP_H

#include <stddef.h>
#include <stdint.h>

enum {
    MLP_IN = 784,
    MLP_HIDDEN = 128,
    MLP_OUT = 10,
    MLP_W1 = 0,
    MLP_B1 = MLP_W1 + MLP_IN * MLP_HIDDEN,
    MLP_W2 = MLP_B1 + MLP_HIDDEN,
    MLP_B2 = MLP_W2 + MLP_HIDDEN * MLP_OUT,
    MLP_PARAMS = MLP_B2 + MLP_OUT
};

/* Working memory for up to `cap` samples: mlp_work_floats(cap) floats, 64-byte aligned. */
struct mlp_work {
    int cap;
    float *x;       /* [cap][784], inputs 0 .. 1: filled by the caller */
    float *hidden;  /* [cap][128] */
    float *out;     /* [cap][10], probabilities, then their gradient */
    float *dhidden; /* [cap][128] */
};

size_t mlp_work_floats(int cap);
void mlp_work_carve(struct mlp_work *w, int cap, float *memory);

/* Random initial parameters (He); biases zero. */
void mlp_init(float *params, uint64_t seed);

/* Forward pass over the n samples in w->x.  Returns how many are classified right, adds their cross-entropy to *loss.
 */
int mlp_forward(const float *params, struct mlp_work *w, int n, const uint8_t *labels, double *loss);

/* After mlp_forward with the same arguments: grad = sum over the n samples of the gradient of the loss (all zero when n
 * is 0). */
void mlp_backward(const float *params, struct mlp_work *w, int n, const uint8_t *labels, float *grad);

/* velocity = momentum * velocity + scale * grad; params -= rate * velocity. */
void mlp_update(float *params, float *velocity, const float *grad, float scale, float momentum, float rate);

/* Numbers that are the same on every rank for the same seed: xorshift64*, state never 0. */
uint64_t mlp_random(uint64_t *state);
uint64_t mlp_seed(uint64_t seed);

#endif
