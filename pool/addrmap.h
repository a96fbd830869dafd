/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address -> what lies there, in O(1) and without a lock: one table entry per 64 MiB of the address space.  Ranges are aligned to
 * ADDRMAP_GRAIN and do not share a grain.  Reading is safe against concurrent add and remove; an entry that is being removed must
 * not be in use any more.
 */
#ifndef SYP_POOL_ADDRMAP_H
#define SYP_POOL_ADDRMAP_H

#include <stddef.h>
#include <stdint.h>

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
/* The range that contains p, NULL = foreign.  Valid until it is removed. */
const struct addr_range *addrmap_find(const void *p);

/* In the forked child: usable again, whatever another thread of the parent was doing. */
void addrmap_after_fork(void);

#endif
