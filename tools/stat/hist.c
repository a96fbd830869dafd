/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Percentiles of a histogram with a bucket for each power of 2.  Within a bucket the operations are taken for evenly spread, and none took longer than the longest.
 */
#include "tools/stat/stat.h"

#include <stdio.h>

uint64_t hist_bucket_end(unsigned bucket) {
    return bucket + 1 < STATS_BUCKETS ? 2ull << bucket : UINT64_MAX;
}

uint64_t hist_percentile(const struct hist *h, unsigned percent) {
    double before = 0, want = (double)h->count * percent / 100;
    for (unsigned i = 0; i < STATS_BUCKETS; i++) {
        double in = (double)h->bucket[i];
        if (in > 0 && before + in >= want) {
            double begin = i ? (double)(1ull << i) : 0, end = (double)(2ull << i);
            double ns = begin + (end - begin) * (want > before ? (want - before) / in : 0);
            return ns < (double)h->max_ns ? (uint64_t)ns : h->max_ns;
        }
        before += in;
    }
    return h->max_ns;
}

void format_range(char *out, size_t cap, const struct hist *h) {
    char size[32];
    format_size(size, sizeof size, h->least_bytes ? h->least_bytes : h->below_bytes);
    if (!h->least_bytes && !h->below_bytes)
        snprintf(out, cap, "all");
    else
        snprintf(out, cap, "%s %s", h->least_bytes ? ">=" : "<", size);
}
