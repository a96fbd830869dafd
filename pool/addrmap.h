/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address -> what lies there, in O(1) and without a lock: one table entry per 64 MiB of the address space.  Ranges are aligned to
 * ADDRMAP_GRAIN and do not share a grain.  Reading is safe against concurrent add and remove; an entry that is being removed must
 * not be in use any more.
 */
#ifndef SYP_POOL_ADDRMAP_H
#define SYP_POOL_ADDRMAP_H

#include "pool/base/atomic.h"

#include <stddef.h>

#define ADDRMAP_GRAIN (64ull << 20)

/* kind and owner are the caller's words. */
struct addr_range {
    uintptr_t base;
    uint64_t len;
    int kind;
    int rank;
    void *owner;
};

/* SYP_OK, SYP_EINVAL (not aligned, above the mappable range, or overlapping), SYP_ENOMEM (too many ranges). */
int addrmap_add(const struct addr_range *range);
void addrmap_remove(uintptr_t base);

#define ADDRESS_BITS 48 /* user addresses: 47 on x86-64, 48 on aarch64; the kernel gives higher ones only on request */
#define ADDRMAP_GRAINS ((1ull << ADDRESS_BITS) / ADDRMAP_GRAIN)
#define ADDRMAP_RANGES 4096u

extern struct addr_range addrmap_ranges[ADDRMAP_RANGES]; /* len 0 = unused */
/* Range number + 1.  Untouched pages of it cost nothing.  Release in fill (addrmap.c) pairs with the acquire in addrmap_find. */
extern _Atomic uint16_t addrmap_grains[ADDRMAP_GRAINS];

/* The range that contains p, NULL = foreign.  Valid until it is removed. */
static inline const struct addr_range *addrmap_find(const void *p) {
    uintptr_t at = (uintptr_t)p;
    if (at / ADDRMAP_GRAIN >= ADDRMAP_GRAINS) return NULL;
    uint16_t entry = load_acquire(&addrmap_grains[at / ADDRMAP_GRAIN]); /* pairs with fill */
    if (!entry) return NULL;
    const struct addr_range *r = &addrmap_ranges[entry - 1];
    return at - r->base < r->len ? r : NULL;
}

/* In the forked child: usable again, whatever another thread of the parent was doing. */
void addrmap_after_fork(void);

#endif
