/* SPDX-License-Identifier: Apache-2.0 */
#include "collectives/parts.h"
#include "pool/base/status.h"

uint64_t parts_digest(const uint64_t *words, int n) {
    uint64_t h = 0xcbf29ce484222325ull; /* FNV-1a over words; the shift brings the high bits down */
    for (int i = 0; i < n; i++) {
        h = (h ^ words[i]) * 0x100000001b3ull;
        h ^= h >> 32;
    }
    return h;
}

void parts_unpack(struct request *r) {
    r->chunk = r->units;
    (void)r->moves->move(r); /* it fails over offsets of pools only */
}

int parts_of_list(struct request *r, const char *name, const size_t *list) {
    uint64_t sum = 0, total = 0;
    if (!list) return err_set(SYP_EINVAL, "%s: %s is NULL", op_name(r->kind), name);
    for (int m = 0; m < r->c->n; m++) {
        if (__builtin_add_overflow(sum, list[m], &sum) || __builtin_mul_overflow(sum, r->unit, &total) || total > PTRDIFF_MAX)
            return err_set(SYP_EINVAL, "%s: %s[%d] is %zu: the parts up to it exceed PTRDIFF_MAX bytes", op_name(r->kind), name, m, list[m]);
        if (list[m] > r->units) r->units = list[m];
    }
    r->lens = list;
    r->total = total;
    r->count = parts_digest(list, r->c->n);
    return SYP_OK;
}
