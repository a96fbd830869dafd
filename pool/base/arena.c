/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for our own records: the arena, whole pages, and slabs.
 *
 * Invariants: arena memory is never given back and never handed out twice; a chunk that was linked stays linked, so a
 * reader may walk the list at any time.  Must not know: locks, threads, log lines (all of them use the arena).
 */
#include "pool/base/arena.h"
#include "pool/base/atomic.h"
#include "pool/base/os.h"

#include <string.h>
#include <sys/mman.h>

#define ARENA_ALIGN 16u
#define BOOT_LEN 65536u
#define CHUNK_LEN 262144u

struct chunk {
    struct chunk *next; /* older chunk; init-const once linked */
    char *base;         /* init-const */
    size_t len;         /* init-const */
    _Atomic size_t used;
};

static _Alignas(ARENA_ALIGN) char boot_bytes[BOOT_LEN];
static struct chunk boot = {NULL, boot_bytes, BOOT_LEN, 0};
/* Newest chunk, from which small requests are served.  Release in chunk_link pairs with the acquire loads of the
 * readers. */
static _Atomic(struct chunk *) newest = &boot;

static void *chunk_take(struct chunk *c, size_t len) {
    size_t used = load_relaxed(&c->used);
    do {
        if (len > c->len - used) return NULL;
        /* relaxed would do: the bytes were zero since the chunk was linked, which the reader acquired */
    } while (!cas_acq_rel(&c->used, &used, used + len));
    return c->base + used;
}

/* A mapped chunk of at least `len` free bytes, its descriptor at its start, not linked yet. */
static struct chunk *chunk_map(size_t len) {
    size_t head = round_up(sizeof(struct chunk), ARENA_ALIGN), whole = head + len;
    if (whole < CHUNK_LEN) whole = CHUNK_LEN;
    whole = round_up(whole, os_page_size());
    struct chunk *c = map_alloc(whole);
    if (!c) return NULL;
    c->base = (char *)c + head;
    c->len = whole - head;
    return c;
}

void *arena_alloc(size_t len) {
    if (len == 0) len = 1;
    if (len > PTRDIFF_MAX - CHUNK_LEN) return NULL;
    len = round_up(len, ARENA_ALIGN);
    struct chunk *c = load_acquire(&newest);
    for (;;) {
        void *p = chunk_take(c, len);
        if (p) return p;
        struct chunk *fresh = chunk_map(len);
        if (!fresh) return NULL;
        fresh->next = c;
        store_relaxed(&fresh->used, len);
        if (cas_acq_rel(&newest, &c, fresh)) return fresh->base;
        /* Another thread linked a chunk meanwhile (c is that one now): use it, give ours back. */
        map_free(fresh, (size_t)(fresh->base - (char *)fresh) + fresh->len);
    }
}

int arena_contains(const void *p) {
    for (const struct chunk *c = load_acquire(&newest); c; c = c->next) {
        if ((uintptr_t)p - (uintptr_t)c->base < c->len) return 1;
    }
    return 0;
}

void *map_alloc(size_t len) {
    void *p;
    if (len == 0 || len > PTRDIFF_MAX) return NULL;
    if (os->map(NULL, round_up(len, os_page_size()), PROT_READ | PROT_WRITE, -1, 0, &p) < 0) return NULL;
    return p;
}

void map_free(void *p, size_t len) {
    if (p) (void)os->unmap(p, round_up(len, os_page_size()));
}

void slab_init(struct slab *s, size_t record) {
    memset(s, 0, sizeof *s);
    /* room for the list link, and 16-byte alignment as soon as a record is large enough to need it */
    s->record = round_up(record, record > 8 ? 16 : 8);
    s->per_chunk = 1;
    while ((size_t)s->per_chunk * 2 * s->record <= SLAB_CHUNK_LEN)
        s->per_chunk *= 2;
    s->shift = (uint32_t)__builtin_ctz(s->per_chunk);
    s->next = 1;
}

/* Make room for one more pointer in the chunk table. */
static int slab_grow_table(struct slab *s) {
    if (s->n_chunks < s->cap_chunks) return 0;
    size_t cap = s->cap_chunks ? (size_t)s->cap_chunks * 2 : os_page_size() / sizeof(void *);
    if (cap > UINT32_MAX) return -1;
    void **table = map_alloc(cap * sizeof(void *));
    if (!table) return -1;
    if (s->chunks) memcpy(table, s->chunks, s->n_chunks * sizeof(void *));
    map_free(s->chunks, s->cap_chunks * sizeof(void *));
    s->chunks = table;
    s->cap_chunks = (uint32_t)cap;
    return 0;
}

uint32_t slab_new(struct slab *s) {
    uint32_t index = s->free_head;
    if (index) {
        void *record = slab_at(s, index);
        memcpy(&s->free_head, record, sizeof s->free_head);
        memset(record, 0, s->record);
        s->live++;
        return index;
    }
    if (s->next == UINT32_MAX) return 0;
    if (s->next / s->per_chunk >= s->n_chunks) {
        if (slab_grow_table(s)) return 0;
        /* per_chunk 1: index 0 names no record, its place in the table stays empty */
        if (s->per_chunk == 1 && s->n_chunks == 0) s->n_chunks = 1;
        void *chunk = map_alloc(s->per_chunk * s->record);
        if (!chunk) return 0;
        s->chunks[s->n_chunks++] = chunk;
    }
    s->live++;
    return s->next++;
}

void slab_put(struct slab *s, uint32_t index) {
    memcpy(slab_at(s, index), &s->free_head, sizeof s->free_head);
    s->free_head = index;
    s->live--;
}

void slab_fini(struct slab *s) {
    if (s->record == 0) return; /* never set up */
    for (uint32_t i = 0; i < s->n_chunks; i++)
        map_free(s->chunks[i], s->per_chunk * s->record);
    map_free(s->chunks, s->cap_chunks * sizeof(void *));
    slab_init(s, s->record);
}
