/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations whose message has a part for each member: how long the parts are, and where they begin.  Lengths are counted in units of r->unit bytes; they
 * are equal (r->part_len) or the members' list says them (r->lens).  A round moves the same range of units of every part, clipped to its length.
 */
#ifndef SYP_COLLECTIVES_PARTS_H
#define SYP_COLLECTIVES_PARTS_H

#include "collectives/request.h"
#include "collectives/share.h"

/* Units of a member's part. */
static inline uint64_t part_units(const struct request *r, int member) { return r->lens ? r->lens[member] : r->part_len; }

static inline uint64_t part_bytes(const struct request *r, int member) { return part_units(r, member) * r->unit; }

/* Byte of the whole message at which a member's part begins. */
static inline uint64_t part_begin(const struct request *r, int member) {
    if (!r->lens) return (uint64_t)member * r->part_len * r->unit;
    uint64_t units = 0;
    for (int m = 0; m < member; m++)
        units += r->lens[m];
    return units * r->unit;
}

/* How many of the n units from unit `at` on a part of `units` has. */
static inline uint64_t part_clip(uint64_t units, uint64_t at, uint64_t n) {
    uint64_t left = at < units ? units - at : 0;
    return left < n ? left : n;
}

/* Where the units of the running round of a member's part begin in a half of a staging area that holds them of all parts. */
static inline uint64_t part_staged_at(const struct request *r, int member) { return (uint64_t)member * r->chunk * r->unit; }

/* Copies, large ones shared among this rank's threads.  NULL is legal for no bytes. */
static inline void part_copy(const struct request *r, void *to, const void *from, uint64_t len) {
    if (len) share_copy(&r->c->coll->crew, to, from, len);
}

/*
 * The same into the caller's own buffer: past the caches when the message is too large to be there still when it is read.  Measured with 2 ranks, out of pools
 * and out of staging areas: 15 to 30 % less time for 16 MiB, but up to twice as much for 8 MiB in parts of 4.
 */
#define STREAM_ABOVE (8u << 20)
static inline void part_deliver(const struct request *r, void *to, const void *from, uint64_t len) {
    if (r->total > STREAM_ABOVE)
        share_stream(&r->c->coll->crew, to, from, len);
    else
        part_copy(r, to, from, len);
}

/* Where to read a member's bytes: request_source, or its mail. */
static inline const char *part_source(const struct request *r, int member, uint64_t at, uint64_t staged_at, uint64_t len) {
    return r->mailed && member != r->c->me ? (const char *)request_mail(r, member) + at : request_source(r, member, at, staged_at, len);
}

/* op_moves.unpack of operations whose `move` reads through part_source: one round over the whole message. */
void parts_unpack(struct request *r);

/*
 * The parts as the caller's list has them, in units: sets r->lens, units (of the longest), total, and count, so that members whose lists differ learn it.
 * r->unit is set.  SYP_OK, or SYP_EINVAL with the record set.
 */
int parts_of_list(struct request *r, const char *name, const size_t *list);
/* Numbers to one word: equal words, equal numbers, but for 1 in 2^64. */
uint64_t parts_digest(const uint64_t *words, int n);

#endif
