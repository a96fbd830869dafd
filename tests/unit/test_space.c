/* SPDX-License-Identifier: Apache-2.0 */
/* The space: choice of blocks, coalescing, alignment, resize, the checker itself, a shadow model, and refusals of
 * memory for records. */
#include "allocator/sympool.h"
#include "pool/base/os.h"
#include "pool/space.h"
#include "tests/support/check.h"
#include "tests/support/fake_os.h"

#include <errno.h>
#include <stdlib.h>

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

static void expect_sound(const struct space *s) {
    const char *damage = space_check(s);
    if (damage) check_fail(__FILE__, __LINE__, "space_check: %s", damage);
}

static uint64_t off_of(const struct space *s, uint32_t n) {
    return space_at(s, n)->off;
}

/* The same choice by looking at every block: smallest free block in which the part fits, lowest offset on ties. */
static uint32_t naive_choice(const struct space *s, uint64_t len, uint64_t align, unsigned *n_free) {
    uint32_t best = 0;
    len = round_up(len, SPACE_GRAIN);
    *n_free = 0;
    for (uint32_t n = s->first; n; n = space_at(s, n)->next) {
        const struct space_block *b = space_at(s, n);
        if (b->state != SPACE_FREE) continue;
        ++*n_free;
        uint64_t start = round_up(b->off + s->bias, align) - s->bias;
        if (start + len > b->off + b->len) continue;
        if (!best || b->len < space_at(s, best)->len) best = n;
    }
    return best;
}

/* ---------------------------------------------------------------------------------------------- by example */

static void takes_the_smallest_that_fits(void) {
    struct space s;
    CHECK_EQ(space_init(&s, 4096, 4096 + MIB), SYP_OK);
    uint32_t b[8];
    const uint64_t len[8] = {1000, 64, 512, 64, 512, 64, 4096, 64};
    for (int i = 0; i < 8; i++)
        b[i] = space_alloc(&s, len[i], 1);
    CHECK_EQ(off_of(&s, b[0]), 4096);
    CHECK_EQ(space_at(&s, b[0])->len, 1024);
    CHECK_EQ(off_of(&s, b[1]), 4096 + 1024);
    uint64_t hole[3] = {off_of(&s, b[2]), off_of(&s, b[4]), off_of(&s, b[6])};
    space_free(&s, b[6]);
    space_free(&s, b[4]);
    space_free(&s, b[2]);
    expect_sound(&s);
    CHECK_EQ(off_of(&s, space_alloc(&s, 500, 1)), hole[0]); /* tie: the lower one */
    CHECK_EQ(off_of(&s, space_alloc(&s, 512, 1)), hole[1]);
    CHECK_EQ(off_of(&s, space_alloc(&s, 512, 1)), hole[2]); /* cut from the next larger */
    CHECK_EQ(off_of(&s, space_alloc(&s, 64, 1)), hole[2] + 512);
    expect_sound(&s);
    space_fini(&s);
}

static void free_joins_both_neighbours(void) {
    for (int order = 0; order < 6; order++) {
        static const int turn[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
        struct space s;
        CHECK_EQ(space_init(&s, 0, 3 * KIB), SYP_OK);
        uint32_t b[3];
        for (int i = 0; i < 3; i++)
            b[i] = space_alloc(&s, KIB, 64);
        CHECK_EQ(space_alloc(&s, 1, 1), 0);
        CHECK_EQ(space_largest_free(&s), 0);
        for (int i = 0; i < 3; i++) {
            space_free(&s, b[turn[order][i]]);
            expect_sound(&s);
        }
        CHECK_EQ(space_largest_free(&s), 3 * KIB);
        CHECK_EQ(s.blocks.live, 1);
        CHECK_EQ(s.used, 0);
        CHECK_EQ(s.used_peak, 3 * KIB);
        space_fini(&s);
    }
}

static void alignment_leaves_the_head_free(void) {
    struct space s;
    CHECK_EQ(space_init(&s, 0, 8 * MIB), SYP_OK);
    uint32_t a = space_alloc(&s, 64, 1), b = space_alloc(&s, 100, 2 * MIB);
    CHECK_EQ(off_of(&s, a), 0);
    CHECK_EQ(off_of(&s, b), 2 * MIB);
    expect_sound(&s);
    CHECK_EQ(off_of(&s, space_alloc(&s, 2 * MIB - 64, 1)), 64); /* the gap, exactly */
    CHECK_EQ(space_alloc(&s, 8 * MIB, 64), 0);
    CHECK_EQ(space_alloc(&s, UINT64_MAX, 64), 0);
    CHECK_EQ(space_alloc(&s, 64, 1ull << 63), 0);
    CHECK_EQ(space_alloc(&s, 64, 1ull << 40), 0);
    expect_sound(&s);
    space_fini(&s);

    CHECK_EQ(space_init(&s, 0, 8 * MIB), SYP_OK);
    s.bias = 0x7000000000ull + 3 * 4096;
    uint32_t c = space_alloc(&s, 64, MIB);
    CHECK_EQ((s.bias + off_of(&s, c)) % MIB, 0);
    CHECK_EQ(off_of(&s, c), MIB - 3 * 4096);
    expect_sound(&s);
    space_fini(&s);
}

/* More unaligned candidates than are looked at: the one that holds the part anywhere is taken, and without it the rest
 * is searched. */
static void alignment_search_is_bounded_but_complete(void) {
    for (int with_large = 0; with_large < 2; with_large++) {
        struct space s;
        CHECK_EQ(space_init(&s, 0, 64 * MIB), SYP_OK);
        uint32_t hole[300], aligned_hole;
        for (int i = 0; i < 300; i++) { /* holes of 4096 bytes, 64 behind a multiple of 4096, apart from each other */
            space_alloc(&s, 64, 64);
            hole[i] = space_alloc(&s, 4096, 64);
            space_alloc(&s, 4032, 64);
        }
        aligned_hole = space_alloc(&s, 4160, 64);
        uint64_t aligned_off = off_of(&s, aligned_hole);
        space_alloc(&s, 64, 64);
        uint32_t rest = 0;
        while (space_largest_free(&s) >= 4096)
            CHECK(rest = space_alloc(&s, space_largest_free(&s), 64));
        for (int i = 0; i < 300; i++)
            space_free(&s, hole[i]);
        space_free(&s, aligned_hole);
        uint64_t large_off = off_of(&s, rest);
        if (with_large) space_free(&s, rest);
        expect_sound(&s);
        uint32_t n = space_alloc(&s, 4096, 4096);
        if (CHECK(n != 0)) CHECK_EQ(off_of(&s, n), with_large ? round_up(large_off, 4096) : aligned_off);
        expect_sound(&s);
        space_fini(&s);
    }
}

static void resize_in_place(void) {
    struct space s;
    CHECK_EQ(space_init(&s, 0, 64 * KIB), SYP_OK);
    uint32_t a = space_alloc(&s, KIB, 64), b = space_alloc(&s, KIB, 64), c = space_alloc(&s, KIB, 64);
    CHECK_EQ(space_resize(&s, a, KIB), 1);
    CHECK_EQ(space_resize(&s, a, KIB + 1), 0); /* b is in the way */
    CHECK_EQ(space_resize(&s, a, 100), 1);     /* tail of its own */
    CHECK_EQ(space_at(&s, a)->len, 128);
    expect_sound(&s);
    CHECK_EQ(space_resize(&s, a, 65), 1); /* same after rounding */
    CHECK_EQ(space_resize(&s, a, 64), 1); /* joins the free tail */
    expect_sound(&s);
    CHECK_EQ(space_resize(&s, a, KIB), 1); /* takes the free one whole */
    CHECK_EQ(s.blocks.live, 4);
    expect_sound(&s);
    space_free(&s, b);
    CHECK_EQ(space_resize(&s, a, KIB + 512), 1); /* part of the neighbour */
    CHECK_EQ(space_resize(&s, a, 2 * KIB + 64), 0);
    CHECK_EQ(space_resize(&s, a, UINT64_MAX), 0);
    CHECK_EQ(space_at(&s, a)->len, KIB + 512);
    expect_sound(&s);
    CHECK_EQ(space_resize(&s, c, 62 * KIB), 1); /* to the very end */
    CHECK_EQ(space_resize(&s, c, 62 * KIB + 1), 0);
    CHECK_EQ(space_at(&s, c)->state, SPACE_LIVE);
    CHECK_EQ(s.used, KIB + 512 + 62 * KIB);
    expect_sound(&s);
    space_fini(&s);
}

static void finds_blocks(void) {
    struct space s;
    CHECK_EQ(space_init(&s, 8192, 8192 + 64 * KIB), SYP_OK);
    uint32_t a = space_alloc(&s, KIB, 64), b = space_alloc(&s, KIB, 64);
    CHECK_EQ(space_find(&s, 8192), a);
    CHECK_EQ(space_find(&s, 8192 + KIB), b);
    CHECK_EQ(space_find(&s, 8192 + 64), 0);
    CHECK_EQ(space_find_inside(&s, 8192 + 64), a);
    CHECK_EQ(space_find_inside(&s, 8192 + 2 * KIB - 1), b);
    CHECK_EQ(space_at(&s, space_find_inside(&s, 8192 + 3 * KIB))->state, SPACE_FREE);
    CHECK_EQ(space_find_inside(&s, 8191), 0);
    CHECK_EQ(space_find_inside(&s, 8192 + 64 * KIB), 0);
    space_fini(&s);

    CHECK_EQ(space_init(&s, 4096, 4096), SYP_OK); /* an empty range is a legal one */
    CHECK_EQ(space_alloc(&s, 1, 1), 0);
    CHECK_EQ(space_largest_free(&s), 0);
    CHECK_EQ(space_find_inside(&s, 4096), 0);
    expect_sound(&s);
    space_fini(&s);
}

/* Each damage must be seen, and nothing else once it is repaired. */
static void checker_sees_damage(void) {
    struct space s;
    CHECK_EQ(space_init(&s, 0, MIB), SYP_OK);
    uint32_t b[9];
    for (int i = 0; i < 9; i++)
        b[i] = space_alloc(&s, 64u * (uint32_t)(i + 1), 64);
    for (int i = 1; i < 9; i += 2)
        space_free(&s, b[i]);
    expect_sound(&s);
#define DAMAGE(field, value, text)                                                                                     \
    do {                                                                                                               \
        __typeof__(field) kept = (field);                                                                              \
        (field) = (__typeof__(field))(value);                                                                          \
        CHECK_HAS(space_check(&s), text);                                                                              \
        (field) = kept;                                                                                                \
        expect_sound(&s);                                                                                              \
    } while (0)
    DAMAGE(space_at(&s, b[2])->len, 64, "gap or overlap");
    DAMAGE(space_at(&s, b[2])->len, 0, "impossible length");
    DAMAGE(space_at(&s, b[8])->len, 2 * MIB, "impossible length");
    DAMAGE(space_at(&s, b[2])->off, 0, "gap or overlap");
    DAMAGE(space_at(&s, b[2])->prev, b[0], "backwards");
    DAMAGE(space_at(&s, b[2])->next, b[0], "damaged");
    DAMAGE(space_at(&s, b[2])->next, 0, "end of the range");
    DAMAGE(space_at(&s, b[2])->next, 70000, "damaged");
    DAMAGE(space_at(&s, b[2])->state, SPACE_FREE, "neighbours");
    DAMAGE(space_at(&s, b[2])->state, 7, "unknown state");
    DAMAGE(space_at(&s, b[3])->state, SPACE_LIVE, "miscounted");
    DAMAGE(space_at(&s, b[3])->color, !space_at(&s, b[3])->color, "tree");
    DAMAGE(space_at(&s, s.root)->left, 0, "tree");
    DAMAGE(space_at(&s, s.root)->right, s.root, "tree");
    DAMAGE(space_at(&s, s.root)->up, b[1], "tree");
    DAMAGE(s.root, b[2], "tree");
    DAMAGE(s.used, 1, "miscounted");
    DAMAGE(s.n_used, 1, "miscounted");
    DAMAGE(s.index_used, 1, "index");
    DAMAGE(s.blocks.live, s.blocks.live + 1, "no block");
    DAMAGE(s.end, 2 * MIB, "end of the range");
    uint32_t place = 0;
    while (s.index[place] != b[4])
        place++;
    DAMAGE(s.index[place], b[5], "not in the index");
    space_fini(&s);
}

/* ------------------------------------------------------------------------------------------- shadow model */

#define SLOTS 512
#define MODEL_BEGIN MIB
#define MODEL_END (MIB + 16 * GIB)

struct model {
    struct space s;
    uint64_t seed, digest;
    unsigned n;
    uint64_t off[SLOTS], len[SLOTS];
    uint32_t block[SLOTS];
    uint64_t refused, resized, exact;
};

static uint64_t random_len(uint64_t *seed) {
    uint64_t bits = check_random(seed) % 31;
    return 1 + check_random(seed) % (1ull << bits);
}

static void note(struct model *m, uint64_t what) {
    m->digest = (m->digest ^ what) * 0x100000001B3ull + 1;
}

/* No live block but `self` meets [off, off + len). */
static void expect_apart(const struct model *m, unsigned self, uint64_t off, uint64_t len) {
    unsigned meets = 0;
    for (unsigned i = 0; i < m->n; i++)
        meets += m->off[i] < off + len && off < m->off[i] + m->len[i];
    if (self < m->n) meets -= 1; /* itself */
    if (meets || off < MODEL_BEGIN || off + len > MODEL_END)
        check_fail(__FILE__, __LINE__, "[%llx, +%llx) meets %u live blocks", (unsigned long long)off,
                   (unsigned long long)len, meets);
}

static void model_alloc(struct model *m, int compare) {
    uint64_t len = random_len(&m->seed), align = 1ull << check_random(&m->seed) % 22;
    uint32_t expected = 0;
    unsigned n_free = 0;
    if (compare) expected = naive_choice(&m->s, len, align, &n_free);
    uint64_t expected_off = expected ? round_up(off_of(&m->s, expected), align) : SPACE_NONE;
    uint32_t n = space_alloc(&m->s, len, align);
    note(m, n ? off_of(&m->s, n) : SPACE_NONE);
    if (!n) {
        m->refused++;
        if (naive_choice(&m->s, len, align, &n_free)) check_fail(__FILE__, __LINE__, "refused though it fits");
        return;
    }
    const struct space_block *b = space_at(&m->s, n);
    if (compare &&
        (align <= SPACE_GRAIN || n_free <= 128)) { /* beyond that the search for an aligned place is bounded */
        m->exact++;
        if (b->off != expected_off) check_fail(__FILE__, __LINE__, "not the best fit");
    }
    if (b->off % align || b->len != round_up(len, SPACE_GRAIN)) check_fail(__FILE__, __LINE__, "alignment or length");
    expect_apart(m, SLOTS, b->off, b->len);
    m->off[m->n] = b->off;
    m->len[m->n] = b->len;
    m->block[m->n++] = n;
}

static void model_free(struct model *m, unsigned i) {
    if (space_find(&m->s, m->off[i]) != m->block[i]) check_fail(__FILE__, __LINE__, "live block not found");
    space_free(&m->s, m->block[i]);
    m->n--;
    m->off[i] = m->off[m->n];
    m->len[i] = m->len[m->n];
    m->block[i] = m->block[m->n];
}

static void model_resize(struct model *m, unsigned i) {
    uint64_t len = random_len(&m->seed), rounded = round_up(len, SPACE_GRAIN);
    const struct space_block *b = space_at(&m->s, m->block[i]);
    const struct space_block *next = b->next ? space_at(&m->s, b->next) : NULL;
    int fits = rounded <= b->len + (next && next->state == SPACE_FREE ? next->len : 0);
    int done = space_resize(&m->s, m->block[i], len);
    note(m, (uint64_t)done);
    if (done != fits || b->off != m->off[i] || b->len != (done ? rounded : m->len[i]))
        check_fail(__FILE__, __LINE__, "resize to %llu: %d", (unsigned long long)len, done);
    m->len[i] = b->len;
    m->resized += (unsigned)done;
    expect_apart(m, i, b->off, b->len);
}

static void model_run(struct model *m, uint64_t seed, uint64_t count) {
    memset(m, 0, sizeof *m);
    m->seed = seed;
    CHECK_EQ(space_init(&m->s, MODEL_BEGIN, MODEL_END), SYP_OK);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t what = check_random(&m->seed) % 100,
                 grow = i / 4096 % 3 == 0 ? 60 : 45; /* waves: fuller and emptier */
        if (m->n == 0 || (what < grow && m->n < SLOTS))
            model_alloc(m, i % 16 == 0);
        else if (what < 85)
            model_free(m, (unsigned)(check_random(&m->seed) % m->n));
        else
            model_resize(m, (unsigned)(check_random(&m->seed) % m->n));
        if (i % 8192 == 0) expect_sound(&m->s);
    }
    expect_sound(&m->s);
    while (m->n)
        model_free(m, (unsigned)(check_random(&m->seed) % m->n));
    expect_sound(&m->s);
    CHECK_EQ(m->s.blocks.live, 1);
    CHECK_EQ(space_largest_free(&m->s), MODEL_END - MODEL_BEGIN);
    CHECK_EQ(m->s.used, 0);
    CHECK_EQ(m->s.n_used, 0);
    space_fini(&m->s);
}

static void random_operations_against_a_model(void) {
    static struct model m;
    model_run(&m, check_seed(), check_count(300000, 10000000));
    CHECK(m.refused > 0);
    CHECK(m.resized > 0);
    CHECK(m.exact > 0);
}

static void replay_gives_the_same_offsets(void) {
    static struct model m;
    uint64_t seed = check_seed(), count = check_count(100000, 1000000);
    model_run(&m, seed, count);
    uint64_t first = m.digest;
    model_run(&m, seed, count);
    CHECK(m.digest == first);
    model_run(&m, seed + 1, count);
    CHECK(m.digest != first);
}

/* ----------------------------------------------------------------------------------------------- refusals */

#define SCRIPT 6000

/* Grows records and index in every way; a refused step must change nothing and succeed when it is repeated.  Refusals
 * seen. */
static unsigned script(struct space *s) {
    static uint32_t block[SCRIPT];
    unsigned refusals = 0;
    for (unsigned i = 0; i < SCRIPT; i++) {
        uint64_t used = s->used, n_used = s->n_used, peak = s->used_peak;
        uint32_t live = s->blocks.live;
        uint64_t align = i % 3 == 0 ? 4096 : 64;
        block[i] = space_alloc(s, 128, align);
        if (block[i]) continue;
        refusals++;
        CHECK(s->used == used && s->n_used == n_used && s->used_peak == peak && s->blocks.live == live);
        expect_sound(s);
        CHECK(block[i] = space_alloc(s, 128, align));
    }
    for (unsigned i = 0; i < SCRIPT; i++) {
        uint64_t used = s->used;
        if (space_resize(s, block[i], 64)) continue;
        refusals++;
        CHECK(s->used == used && space_at(s, block[i])->len == 128);
        expect_sound(s);
        CHECK_EQ(space_resize(s, block[i], 64), 1);
    }
    expect_sound(s);
    for (unsigned i = 0; i < SCRIPT; i++)
        space_free(s, block[i]); /* never needs anything */
    expect_sound(s);
    CHECK_EQ(s->blocks.live, 1);
    return refusals;
}

static void refused_records_change_nothing(void) {
    unsigned rounds = 0, refusals;
    do {
        fake_os_on();
        fake_os_fail(++rounds, ENOMEM);
        struct space s;
        int rc = space_init(&s, 0, GIB);
        if (rc == SYP_OK) {
            refusals = script(&s);
            space_fini(&s);
        } else {
            CHECK_EQ(rc, SYP_ENOMEM);
            refusals = 1;
        }
        CHECK(refusals <= 1);
        CHECK_EQ(fake_os_mapped_bytes(), 0);
        if (refusals == 0) CHECK(fake_os_calls() < rounds); /* the fault was never reached: all of them were tried */
        fake_os_off();
    } while (refusals);
    CHECK(rounds >= 8); /* first index, first records, and each growing more than once */
}

int main(void) {
    return check_main("space",
                      (struct check_test[]){
                          {"takes_the_smallest_that_fits", takes_the_smallest_that_fits},
                          {"free_joins_both_neighbours", free_joins_both_neighbours},
                          {"alignment_leaves_the_head_free", alignment_leaves_the_head_free},
                          {"alignment_search_is_bounded_but_complete", alignment_search_is_bounded_but_complete},
                          {"resize_in_place", resize_in_place},
                          {"finds_blocks", finds_blocks},
                          {"checker_sees_damage", checker_sees_damage},
                          {"random_operations_against_a_model", random_operations_against_a_model},
                          {"replay_gives_the_same_offsets", replay_gives_the_same_offsets},
                          {"refused_records_change_nothing", refused_records_change_nothing},
                          {0},
                      });
}
