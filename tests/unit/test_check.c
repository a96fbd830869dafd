/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checkers behind syp_check find every corruption of the allocator's records that changes what they mean: each field of each kind of record,
 * in a heap with live, free and cached blocks and in a symmetric region, takes a row of wrong values.  None of them may crash the checker.
 */
#include "pool/heap.h"
#include "pool/symm.h"

#include "pool/base/os.h"
#include "pool/base/status.h"
#include "tests/support/check.h"

#include <stddef.h>
#include <sys/mman.h>

#define KIB 1024ull
#define MIB (1024 * KIB)

static unsigned mem_caps(void) {
    return BACKEND_HOST_ACCESS;
}
static uint64_t mem_granularity(int huge) {
    (void)huge;
    return 4096;
}
static int mem_create(struct backend_region *r, const struct backend_request *req, void *at) {
    void *base = NULL;
    CHECK(at == NULL && os->reserve("check", req->len, 2 * MIB, &base) == 0);
    *r = (struct backend_region){.base = base, .len = req->len, .fd = -1};
    return SYP_OK;
}
static int mem_destroy(struct backend_region *r) {
    return os->release(r->base, r->len);
}
static int mem_commit(struct backend_region *r, uint64_t off, uint64_t len) {
    (void)r, (void)off, (void)len;
    return SYP_OK;
}
static int mem_event(void *stream, backend_event *out) {
    (void)stream;
    *out = 0;
    return SYP_OK;
}
static int mem_done(backend_event e) {
    (void)e;
    return 1;
}
static const struct backend_ops mem = {.name = "check", .caps = mem_caps, .granularity = mem_granularity, .create = mem_create,
                                       .destroy = mem_destroy, .commit = mem_commit, .decommit = mem_commit, .event_record = mem_event,
                                       .event_query = mem_done};

static struct region region;
static struct heap heap;
static struct symm symm;
static struct symm_call ring[SYMM_RING];

/* A heap of 40 blocks in a known order: live, free and cached ones; the symmetric region with every third block freed. */
static void set_up(void) {
    struct region_conf conf = {.backend = &mem, .len = 64 * MIB, .meta = 4 * MIB, .chunk = 64 * KIB, .name = "check"};
    void *p[40];
    CHECK_EQ(region_open(&region, &conf), SYP_OK);
    CHECK_EQ(heap_init(&heap, &region, 1), SYP_OK);
    CHECK_EQ(symm_init(&symm, &region, ring), SYP_OK);
    for (int i = 0; i < 40; i++)
        p[i] = heap_alloc(&heap, &(struct heap_want){.len = i % 4 ? 64u * (uint64_t)(i + 1) : 20 * KIB + 64u * (uint64_t)i, .align = 64});
    for (int i = 1; i < 40; i += 2)
        CHECK_EQ(heap_free(&heap, p[i]), SYP_OK);
    for (int i = 0; i < 40; i += 8)
        CHECK_EQ(heap_free(&heap, p[i]), SYP_OK); /* 20 KiB: into the cache */
    for (int i = 0; i < 40; i++)
        p[i] = symm_alloc(&symm, 64u * (uint64_t)(i + 1), 64, 0);
    for (int i = 0; i < 40; i += 3)
        CHECK_EQ(symm_free(&symm, p[i]), SYP_OK);
    CHECK(heap.cache.bytes > 0);
    CHECK_EQ(heap_check(&heap), SYP_OK);
    CHECK_EQ(symm_check(&symm), SYP_OK);
}

static void tear_down(void) {
    heap_fini(&heap);
    symm_fini(&symm);
    region_close(&region);
}

static int check_all(void) {
    int a = heap_check(&heap);
    return a ? a : symm_check(&symm);
}

static unsigned n_kinds, n_missed;

/* One field takes one wrong value: it must be seen, and gone once the field is mended. */
static void mutate(const char *name, void *field, size_t len, uint64_t value) {
    uint64_t kept = 0;
    memcpy(&kept, field, len);
    if (memcmp(&kept, &value, len) == 0) return;
    memcpy(field, &value, len);
    int rc = check_all();
    memcpy(field, &kept, len);
    n_kinds++;
    if (rc != SYP_ESTATE) {
        n_missed++;
        check_fail(__FILE__, __LINE__, "%s: %llu instead of %llu was not seen", name, (unsigned long long)value, (unsigned long long)kept);
    }
    if (check_all() != SYP_OK) check_fail(__FILE__, __LINE__, "%s: mended, yet %s", name, err_record()->text);
}

/* A row of wrong values for a field: nothing, all ones, neighbours, single bits, and what a stray copy would leave. */
static void mutate_field(const char *name, void *field, size_t len) {
    uint64_t value = 0;
    memcpy(&value, field, len);
    const uint64_t row[] = {0,          UINT64_MAX,      value + 1,       value - 1,          value ^ 64,          value ^ 1ull << (8 * len - 1),
                            value << 1, value + 64, 0x4141414141414141, (uint64_t)(uintptr_t)field, 3};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        mutate(name, field, len, row[i]);
}
#define FIELD(prefix, object, field)                                                                                   \
    do {                                                                                                               \
        char what[96];                                                                                                 \
        snprintf(what, sizeof what, "%s." #field, prefix);                                                             \
        mutate_field(what, &(object)->field, sizeof(object)->field);                                                   \
    } while (0)

/* Blocks hold the caller's words besides (tag, scope), and words that mean something in other states only. */
static void blocks_of(const char *whose, struct space *s) {
    static const char *const states[] = {"?", "free", "live", "cached", "parked"};
    unsigned seen[5] = {0};
    for (uint32_t n = s->first; n; n = space_at(s, n)->next) {
        struct space_block *b = space_at(s, n);
        char name[64];
        if (b->state > 4 || seen[b->state]++ >= 6) continue;
        snprintf(name, sizeof name, "%s %s block %u", whose, states[b->state], n);
        FIELD(name, b, prev);
        FIELD(name, b, next);
        FIELD(name, b, off);
        FIELD(name, b, len);
        mutate(name, &b->state, 1, 0);
        mutate(name, &b->state, 1, 255);
        for (uint64_t state = SPACE_FREE; state <= SPACE_CACHED; state++)
            mutate(name, &b->state, 1, state);
        if (b->state != SPACE_FREE) continue;
        FIELD(name, b, left);
        FIELD(name, b, right);
        FIELD(name, b, up);
        mutate(name, &b->color, 1, !b->color);
    }
    CHECK(seen[SPACE_FREE] > 3 && seen[SPACE_LIVE] > 3);
}

static void space_itself(const char *whose, struct space *s) {
    FIELD(whose, s, begin);
    FIELD(whose, s, end);
    FIELD(whose, s, first);
    FIELD(whose, s, root);
    FIELD(whose, s, index_used);
    FIELD(whose, s, used);
    FIELD(whose, s, n_used);
    unsigned entries = 0;
    for (uint32_t i = 0; i <= s->index_mask && entries < 8; i++) {
        if (!s->index[i]) continue;
        entries++;
        mutate_field("index entry", &s->index[i], sizeof s->index[i]);
    }
    for (uint32_t i = 0; i <= s->index_mask; i++) {
        if (s->index[i]) continue;
        mutate_field("empty index entry", &s->index[i], sizeof s->index[i]);
        break;
    }
}

static void blocks(void) {
    set_up();
    blocks_of("heap", &heap.space);
    blocks_of("symmetric", &symm.space);
    tear_down();
}

static void spaces(void) {
    set_up();
    space_itself("heap", &heap.space);
    space_itself("symmetric", &symm.space);
    tear_down();
}

static void heap_and_cache(void) {
    set_up();
    struct cache *c = &heap.cache;
    FIELD("heap", &heap, used);
    FIELD("heap", &heap, n_live);
    FIELD("cache", c, bytes);
    unsigned entries = 0, empty = 0;
    for (unsigned bin = 0; bin < CACHE_BINS; bin++) {
        if (!c->bin[bin].newest && empty++) continue;
        FIELD("cache", c, bin[bin].newest);
        FIELD("cache", c, bin[bin].n);
        if (!c->bin[bin].newest) continue;
        struct space_block *b = space_at(&heap.space, c->bin[bin].newest);
        FIELD("cached block", b, left);
        FIELD("cached block", b, len);
        entries++;
    }
    CHECK(entries >= 3);
    tear_down();
}

/* The sequence of calls: a ring entry or the count that peers would read. */
static void symmetric_sequence(void) {
    set_up();
    FIELD("symmetric", &symm, calls);
    FIELD("symmetric", &symm, digest);
    tear_down();
}

static void many_kinds(void) {
    printf("  %u corruptions, %u missed\n", n_kinds, n_missed);
    CHECK(n_kinds >= 200);
}

int main(void) {
    return check_main("check", (struct check_test[]){{"blocks", blocks},
                                                     {"spaces", spaces},
                                                     {"heap and cache", heap_and_cache},
                                                     {"symmetric sequence", symmetric_sequence},
                                                     {"many kinds", many_kinds},
                                                     {0}});
}
