# SPDX-License-Identifier: Apache-2.0
# A decoder that serves requests of random length: keys and values of each layer grow as tokens come, requests come and go.
import numpy as np
rng = np.random.default_rng(11)
layers, dim, heads = 4, 256, 4
w = [[rng.standard_normal((dim, dim), dtype=np.float32) * 0.05 for _ in range(4)] for _ in range(layers)]
active = []
for step in range(160):
    while len(active) < 8 and rng.random() < 0.5:
        n = int(rng.integers(16, 400))
        prompt = rng.standard_normal((n, dim), dtype=np.float32)
        kv = [(prompt @ l[1], prompt @ l[2]) for l in w]
        active.append([int(rng.integers(5, 60)), kv])
    for request in active:
        x = rng.standard_normal((1, dim), dtype=np.float32)
        for i, l in enumerate(w):
            k, v = request[1][i]
            k = np.concatenate([k, x @ l[1]]); v = np.concatenate([v, x @ l[2]])
            request[1][i] = (k, v)
            q = (x @ l[0]).reshape(heads, -1)
            s = np.einsum('hd,nhd->hn', q, k.reshape(len(k), heads, -1))
            p = np.exp(s - s.max(axis=1, keepdims=True)); p /= p.sum(axis=1, keepdims=True)
            x = x + np.einsum('hn,nhd->hd', p, v.reshape(len(v), heads, -1)).reshape(1, -1) @ l[3]
        request[0] -= 1
    active = [r for r in active if r[0] > 0]
