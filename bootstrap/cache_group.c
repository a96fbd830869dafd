/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cache groups, from sysfs: the topology module would tell the same, but takes longer to load than the rest of a join.  Must not know: who is arranged by them.
 */
#include "bootstrap/cache_group.h"

#include "pool/base/os.h"
#include "pool/base/text.h"

#define WORDS (8192 / 64) /* what the kernel can be built for */

static int first_of(const uint64_t *mask) {
    for (int i = 0; i < WORDS; i++)
        if (mask[i]) return i * 64 + __builtin_ctzll(mask[i]);
    return -1;
}

/* A number at *p, which moves on behind it; -1 = there is none. */
static int number(const char **p) {
    int n = -1;
    for (; **p >= '0' && **p <= '9' && n < WORDS * 64; ++*p)
        n = (n < 0 ? 0 : n * 10) + (**p - '0');
    return n < WORDS * 64 ? n : -1;
}

/* Take the processors of a list ("0-3,8") out of the mask.  Returns the first of them, or -1 when it is no list. */
static int take_out(const char *list, uint64_t *mask) {
    int lowest = -1;
    for (const char *p = list;; p++) {
        int first = number(&p), last = *p == '-' ? (p++, number(&p)) : first;
        if (first < 0 || last < first) return -1;
        if (lowest < 0) lowest = first;
        for (int i = first; i <= last; i++)
            mask[i / 64] &= ~(1ull << i % 64);
        if (*p != ',') return *p == '\n' || *p == 0 ? lowest : -1;
    }
}

int32_t cache_group(void) {
    uint64_t mask[WORDS];
    char path[80], list[1024];
    os->processors(mask, WORDS);
    int own = first_of(mask);
    if (own < 0) return NO_CACHE_GROUP;
    text_format(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index3/shared_cpu_list", own);
    if (os_read_file(path, list, sizeof list) <= 0) return NO_CACHE_GROUP;
    int first = take_out(list, mask);
    return first >= 0 && first_of(mask) < 0 ? first : NO_CACHE_GROUP;
}
