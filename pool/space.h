/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A range of offsets, cut into blocks: best fit (smallest block that fits, lowest offset on ties), full coalescing,
 * resize in place.  All bookkeeping is outside the range (records in a slab), so the range may be device memory and no
 * stray write can corrupt the lists.  A pure function of the call sequence: equal calls give equal offsets in every
 * process.  O(log n).  No lock: the caller's.
 *
 * Invariants (space_check): blocks tile [begin, end) in address order without gap or overlap; no two free blocks are
 * neighbours; every free block is in the tree keyed (length, offset); every block is in the offset index; all multiples
 * of SPACE_GRAIN.
 */
#ifndef SYP_POOL_SPACE_H
#define SYP_POOL_SPACE_H

#include "pool/base/arena.h"

#include <stdint.h>

#define SPACE_GRAIN 64u /* smallest block and alignment, bytes */

/* One block, live or free.  `tag` and `scope` are the caller's. */
struct space_block {
    uint32_t slab_link;       /* slab's; 0 while in use */
    uint32_t prev, next;      /* neighbours in address order */
    uint32_t left, right, up; /* tree of free blocks; of others: the caller's, 0 in a new one */
    uint64_t off, len;
    uint64_t tag;             /* not free: caller's word (heap: stream key) */
    uint64_t event;           /* cached: the backend's; where there are none, purge.h's; 0 in a new block */
    uint32_t scope;           /* live: caller's scope index, 0 = none */
    uint8_t state;            /* enum space_state */
    uint8_t color;            /* tree */
};
enum space_state { SPACE_FREE = 1, SPACE_LIVE, SPACE_CACHED, SPACE_PARKED, SPACE_HELD };

struct space {
    uint64_t begin, end;      /* init-const, multiples of SPACE_GRAIN */
    uint64_t bias;            /* alignment is judged at bias + offset; 0 after space_init, heap: address of offset 0 */
    struct slab blocks;
    uint32_t first;           /* lowest block */
    uint32_t root;            /* free tree */
    uint32_t *index;          /* open-addressed hash: offset -> block number */
    uint32_t index_mask, index_used;
    uint64_t used, used_peak; /* bytes of blocks that are not free */
    uint64_t n_used;
};

#define SPACE_NONE UINT64_MAX

/* SYP_OK or SYP_ENOMEM (for the records). */
int space_init(struct space *s, uint64_t begin, uint64_t end);
void space_fini(struct space *s);
/* len > 0, align power of two.  Returns the block number, 0 when nothing fits or there is no memory for a record. */
uint32_t space_alloc(struct space *s, uint64_t len, uint64_t align);
void space_free(struct space *s, uint32_t block);
/* The block that contains off (O(n)); 0 = out of range. */
uint32_t space_find_inside(const struct space *s, uint64_t off);
/* Grow into the free neighbour behind, or shrink and free the tail.  1 = done, 0 = not possible in place. */
int space_resize(struct space *s, uint32_t block, uint64_t len);
uint64_t space_largest_free(const struct space *s);
/* Free blocks of at least len bytes, one after the other: n = 0 gives the first; 0 = no more. */
uint32_t space_next_free(const struct space *s, uint32_t n, uint64_t len);
static inline struct space_block *space_at(const struct space *s, uint32_t block) {
    _Static_assert(sizeof(struct space_block) == 64, "one line, and a power of two for slab_at_const");
    return (struct space_block *)slab_at_const(&s->blocks, block, sizeof(struct space_block));
}
/* Place in the index where the search for the block at off begins. */
static inline uint32_t space_index_home(uint64_t off, uint32_t mask) {
    return (uint32_t)((off * 0x9E3779B97F4A7C15ull) >> 38) & mask;
}
/* The block that starts at off; 0 = none. */
static inline uint32_t space_find(const struct space *s, uint64_t off) {
    uint32_t n;
    for (uint32_t i = space_index_home(off, s->index_mask); (n = s->index[i]) != 0; i = (i + 1) & s->index_mask)
        if (space_at(s, n)->off == off) return n;
    return 0;
}
/* Every invariant; NULL = sound, else what is wrong (static text). */
const char *space_check(const struct space *s);

#endif
