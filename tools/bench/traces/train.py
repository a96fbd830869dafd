# SPDX-License-Identifier: Apache-2.0
# A two-layer classifier with Adam, batches of changing length, an evaluation now and then.
import numpy as np
rng = np.random.default_rng(7)
n_in, n_hid, n_out = 784, 512, 10
x_all = rng.standard_normal((6000, n_in), dtype=np.float32)
y_all = rng.integers(0, n_out, 6000)
params = [rng.standard_normal(s, dtype=np.float32) * 0.05 for s in ((n_in, n_hid), (n_hid,), (n_hid, n_hid), (n_hid,), (n_hid, n_out), (n_out,))]
m = [np.zeros_like(p) for p in params]
v = [np.zeros_like(p) for p in params]
def forward(x):
    h1 = np.maximum(x @ params[0] + params[1], 0)
    h2 = np.maximum(h1 @ params[2] + params[3], 0)
    return h1, h2, h2 @ params[4] + params[5]
for step in range(24):
    n = int(rng.integers(64, 513))
    idx = rng.integers(0, 6000, n)
    x, y = x_all[idx], y_all[idx]
    h1, h2, z = forward(x)
    p = np.exp(z - z.max(axis=1, keepdims=True)); p /= p.sum(axis=1, keepdims=True)
    p[np.arange(n), y] -= 1; p /= n
    d2 = (p @ params[4].T) * (h2 > 0); d1 = (d2 @ params[2].T) * (h1 > 0)
    grads = [x.T @ d1, d1.sum(0), h1.T @ d2, d2.sum(0), h2.T @ p, p.sum(0)]
    for i, g in enumerate(grads):
        m[i] = 0.9 * m[i] + 0.1 * g
        v[i] = 0.999 * v[i] + 0.001 * g * g
        params[i] = params[i] - 1e-3 * m[i] / (np.sqrt(v[i]) + 1e-8)
    if step % 8 == 7:
        forward(x_all[:int(rng.integers(1000, 3000))])
