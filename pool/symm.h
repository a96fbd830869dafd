/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The symmetric region of this rank: a space over [0, meta), and the record of the sequence of symmetric calls that proves
 * symmetry: a rolling digest per call, and a ring of the last SYMM_RING calls that peers read (it lies in the control segment, given by
 * the caller; only this rank writes it).  Knows no peers: comparing is the collectives' business.
 */
#ifndef SYP_POOL_SYMM_H
#define SYP_POOL_SYMM_H

#include "pool/base/atomic.h"
#include "pool/base/lock.h"
#include "pool/purge.h"
#include "pool/region.h"
#include "pool/space.h"

#define SYMM_RING 1024u

enum symm_kind { SYMM_ALLOC = 1, SYMM_FREE = 2 };

/* One call, as peers read it: number is stored last with release (pairs with symm_read_call) and is 0 while the rest is being written. */
struct symm_call {
    atom64 number;  /* 1 .. ; 0 = being written */
    atom64 digest;  /* of calls 1 .. number */
    atom64 size;    /* bytes asked for; SYMM_FREE: offset freed */
    atom64 kind_align; /* enum symm_kind | log2(align) << 8 | failed << 16 */
};

struct symm {
    struct lock lock;         /* LOCK_SYMM: everything below */
    struct region *region;    /* NULL = before symm_init and after symm_fini */
    struct symm_call *ring;   /* SYMM_RING entries */
    struct space space;
    atom64 digest;            /* of all symmetric calls so far; release, behind the ring's entry of the last one: symm_glance */
    atom64 calls;             /* how many; release, behind the digest: likewise */
    struct purge purge;
};

/* A call as copied out of a ring. */
struct symm_record {
    uint64_t number, digest, size;
    int kind, align_log2, failed;
};

/* The lock of a region that is used again stays what it is.  Zero at the first use. */
int symm_init(struct symm *s, struct region *r, struct symm_call *ring);
/* Late callers find a region without blocks: SYP_ESTATE, SYP_EFOREIGN. */
void symm_fini(struct symm *s);
/* Allocate and count the call, also when it fails (SYP_ENOMEM; SYP_EBUSY = the bytes are quarantined, see quarantine.h).  scope: for the walker.  NULL with the record set. */
void *symm_alloc(struct symm *s, uint64_t len, uint64_t align, uint32_t scope);
/* Free and count the call.  SYP_OK or SYP_EFOREIGN (not counted). */
int symm_free(struct symm *s, void *p);
/* The agreed form, in two steps: try (nothing counted; SPACE_NONE = no room), then keep or undo.  The lock is not held between. */
uint64_t symm_try(struct symm *s, uint64_t len, uint64_t align);
void symm_keep(struct symm *s, uint64_t off, uint64_t len, uint64_t align, uint32_t scope);
void symm_undo(struct symm *s, uint64_t off);
/* For comparing: a digest of all calls, and a number of calls that it covers at least.  No lock is taken. */
static inline uint64_t symm_glance(const struct symm *s, uint64_t *calls) {
    *calls = load_acquire((atom64 *)&s->calls); /* both pair with count_call */
    return load_acquire((atom64 *)&s->digest);
}
/* Number of calls and digest, together. */
void symm_position(struct symm *s, uint64_t *calls, uint64_t *digest);
uint64_t symm_usable(struct symm *s, const void *p);
int symm_find(struct symm *s, const void *p, void **block, uint64_t *len);
int symm_walk(struct symm *s, int (*fn)(void *arg, const syp_block *b), void *arg);
int symm_check(struct symm *s);
/* Give the memory of all free chunks back to the system: bytes.  Offsets stay as they are. */
uint64_t symm_trim(struct symm *s);

/*
 * The state of the region in words, for a rank that takes a dead one's place: its blocks in address order, length | 1 for a live one.  Equal words make
 * equal regions, so equal calls give equal offsets from then on.
 * symm_list: words from block *cursor on (0 = the first) into `words`, at most n; *cursor moves, 0 again = that was all.  Returns how many.
 * symm_restore: into a region that has seen no call; in as many pieces as the list came in.  symm_restored: that was the last one; calls, digest and
 * ring are the donor's.  SYP_OK; SYP_ENOMEM; SYP_EINVAL (words that no region has; a ring without its last call).
 */
size_t symm_list(struct symm *s, uint32_t *cursor, uint64_t *words, size_t n);
int symm_restore(struct symm *s, const uint64_t *words, size_t n);
int symm_restored(struct symm *s, uint64_t calls, uint64_t digest, const struct symm_call *ring);

/* Copy call `number` out of a ring (own or a peer's).  1 = there, 0 = not there any more (overwritten) or not yet. */
int symm_read_call(const struct symm_call *ring, uint64_t number, struct symm_record *out);

#endif
