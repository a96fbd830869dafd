/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One table for the process: grain of the address space -> number of a range record.
 *
 * Invariants: a table entry that is not 0 names a record that is filled in; a record is cleared only after its entries.
 * Readers take no lock.
 *
 * Must not know: what kinds of ranges there are.
 */
#include "pool/addrmap.h"

#include "pool/base/lock.h"
#include "pool/base/os.h"
#include "pool/base/status.h"

static struct lock writers = LOCK_INIT(LOCK_LEAF);
struct addr_range addrmap_ranges[ADDRMAP_RANGES];
_Atomic uint16_t addrmap_grains[ADDRMAP_GRAINS];

static uint64_t first_grain(const struct addr_range *r) {
    return r->base / ADDRMAP_GRAIN;
}
static uint64_t end_grain(const struct addr_range *r) {
    return (r->base + r->len + ADDRMAP_GRAIN - 1) / ADDRMAP_GRAIN;
}

static void fill(const struct addr_range *r, uint16_t entry) {
    for (uint64_t i = first_grain(r); i < end_grain(r); i++)
        store_release(&addrmap_grains[i], entry);
}

static int add_locked(const struct addr_range *range) {
    for (uint64_t i = first_grain(range); i < end_grain(range); i++) {
        uint16_t entry = load_relaxed(&addrmap_grains[i]); /* written under this lock only */
        if (!entry) continue;
        const struct addr_range *other = &addrmap_ranges[entry - 1];
        return err_set(SYP_EINVAL, "note the range of %B at %p: it meets the range of %B at %p",
                       (unsigned long long)range->len, (void *)range->base, (unsigned long long)other->len,
                       (void *)other->base);
    }
    for (uint32_t n = 0; n < ADDRMAP_RANGES; n++) {
        if (addrmap_ranges[n].len) continue;
        addrmap_ranges[n] = *range;
        fill(range, (uint16_t)(n + 1));
        return SYP_OK;
    }
    return err_set(SYP_ENOMEM, "note the range of %B at %p: %u ranges are known already",
                   (unsigned long long)range->len, (void *)range->base, ADDRMAP_RANGES);
}

int addrmap_add(const struct addr_range *range) {
    const uint64_t top = ADDRMAP_GRAINS * ADDRMAP_GRAIN;
    if (range->len == 0 || range->base % ADDRMAP_GRAIN || range->base >= top || range->len > top - range->base)
        return err_set(SYP_EINVAL,
                       "note the range of %B at %p: not a multiple of %B, empty, or above the user addresses",
                       (unsigned long long)range->len, (void *)range->base, (unsigned long long)ADDRMAP_GRAIN);
    lock_take(&writers);
    int rc = add_locked(range);
    lock_drop(&writers);
    return rc;
}

void addrmap_remove(uintptr_t base) {
    lock_take(&writers);
    for (uint32_t n = 0; n < ADDRMAP_RANGES; n++) {
        if (addrmap_ranges[n].len == 0 || addrmap_ranges[n].base != base) continue;
        fill(&addrmap_ranges[n], 0);
        addrmap_ranges[n] = (struct addr_range){0};
        break;
    }
    lock_drop(&writers);
}

void addrmap_after_fork(void) {
    lock_reset(&writers);
}
