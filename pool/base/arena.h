/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for our own records.  Our code never calls malloc: it lives inside malloc.
 *
 * arena_alloc: a few small records for the life of the process (bootstrap arena of 64 KiB in .bss, then mapped chunks);
 * never freed.  map_alloc/map_free: whole pages for one table, given back.  slab: many records of one size, by index, so that
 * a table can hold 32-bit references and grow without moving records.
 */
#ifndef SYP_BASE_ARENA_H
#define SYP_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

/* Zeroed, 16-byte aligned; NULL when the system has no more.  Thread-safe, lock-free. */
void *arena_alloc(size_t len);
/* 1 if p points into the arena. */
int arena_contains(const void *p);

/* Zeroed pages; NULL when the system has no more.  free needs the length given to alloc. */
void *map_alloc(size_t len);
void map_free(void *p, size_t len);

/* Records of one size, numbered 1 .. (0 = none).  Caller's lock. */
struct slab {
    size_t record;      /* bytes of a record, set by slab_init */
    uint32_t per_chunk; /* records in a chunk; 1 << shift */
    uint32_t shift;
    uint32_t n_chunks, cap_chunks;
    void **chunks;
    uint32_t free_head; /* list through the first 4 bytes of free records */
    uint32_t next;      /* first index never handed out */
    uint32_t live;
};
void slab_init(struct slab *s, size_t record);
uint32_t slab_new(struct slab *s); /* zeroed record; 0 = no memory */
void slab_put(struct slab *s, uint32_t index);
void slab_fini(struct slab *s); /* gives all memory back */
static inline void *slab_at(const struct slab *s, uint32_t index) {
    return (char *)s->chunks[index >> s->shift] + (size_t)(index & (s->per_chunk - 1)) * s->record;
}
/* The same for records whose length is a power of two of 16 bytes or more, known to the compiler. */
#define SLAB_CHUNK_LEN 65536u
static inline void *slab_at_const(const struct slab *s, uint32_t index, uint32_t record) {
    const uint32_t per_chunk = SLAB_CHUNK_LEN / record;
    return (char *)s->chunks[index / per_chunk] + (size_t)(index % per_chunk) * record;
}

#endif
