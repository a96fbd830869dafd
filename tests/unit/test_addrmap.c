/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/* The map of addresses.  The ranges are numbers: nothing is mapped. */
#include "pool/addrmap.h"

#include "allocator/sympool.h"
#include "pool/base/atomic.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "tests/support/check.h"

#include <pthread.h>

#define G ADDRMAP_GRAIN
#define BASE (1000 * G)

static int add(uintptr_t base, uint64_t len, int kind) {
    return addrmap_add(&(struct addr_range){.base = base, .len = len, .kind = kind, .rank = kind + 1});
}

static const struct addr_range *find(uintptr_t p) {
    return addrmap_find((const void *)p);
}

static void finds_what_was_added(void) {
    int owner;
    struct addr_range r = {.base = BASE, .len = 3 * G - 4096, .kind = 7, .rank = 5, .owner = &owner};
    CHECK(find(BASE) == NULL);
    CHECK_EQ(addrmap_add(&r), SYP_OK);
    const struct addr_range *f = find(BASE + G + 5);
    if (CHECK(f != NULL))
        CHECK(f->base == BASE && f->len == r.len && f->kind == 7 && f->rank == 5 && f->owner == &owner);
    CHECK(find(BASE) == f);
    CHECK(find(BASE + r.len - 1) == f);
    CHECK(find(BASE + r.len) == NULL); /* the rest of the last grain is foreign */
    CHECK(find(BASE - 1) == NULL);
    CHECK(find(BASE + 3 * G) == NULL);
    CHECK(addrmap_find(NULL) == NULL);
    CHECK(find(UINTPTR_MAX) == NULL);
    CHECK(addrmap_find(&owner) == NULL);
    addrmap_remove(BASE + G); /* not the start of one: nothing */
    CHECK(find(BASE) == f);
    addrmap_remove(BASE);
    CHECK(find(BASE) == NULL);
    CHECK(find(BASE + 2 * G) == NULL);
    addrmap_remove(BASE);
}

static void wrong_ranges_are_refused(void) {
    CHECK_EQ(add(BASE, 2 * G, 1), SYP_OK);
    CHECK_EQ(add(BASE, G, 2), SYP_EINVAL);
    CHECK_EQ(add(BASE + G, 4 * G, 2), SYP_EINVAL);
    CHECK_EQ(add(BASE - G, 2 * G, 2), SYP_EINVAL);
    CHECK_HAS(err_record()->text, "meets the range of 128 MiB");
    CHECK(find(BASE - G) == NULL); /* nothing of it was noted */
    CHECK_EQ(add(BASE + 4096, G, 2), SYP_EINVAL);
    CHECK_EQ(add(BASE + 8 * G, 0, 2), SYP_EINVAL);
    CHECK_EQ(add(1ull << 48, G, 2), SYP_EINVAL);
    CHECK_EQ(add((1ull << 48) - G, G + 1, 2), SYP_EINVAL);
    CHECK_EQ(add((1ull << 48) - G, G, 3), SYP_OK);
    CHECK_EQ(find((1ull << 48) - 1)->kind, 3);
    CHECK_EQ(add(BASE + 2 * G, G, 4), SYP_OK); /* side by side */
    CHECK_EQ(find(BASE + 2 * G)->kind, 4);
    CHECK_EQ(find(BASE + 2 * G - 1)->kind, 1);
    addrmap_remove(BASE);
    addrmap_remove(BASE + 2 * G);
    addrmap_remove((1ull << 48) - G);
}

static void the_table_of_ranges_has_an_end(void) {
    unsigned n = 0;
    while (add(BASE + n * G, G, (int)n) == SYP_OK)
        n++;
    CHECK_EQ(n, 4096);
    CHECK_EQ(err_record()->code, SYP_ENOMEM);
    for (unsigned i = 0; i < n; i++)
        CHECK_EQ(find(BASE + i * G + 1)->kind, i);
    addrmap_remove(BASE + 17 * G);
    CHECK_EQ(add(BASE + 5000 * G, G, 1), SYP_OK);
    addrmap_remove(BASE + 5000 * G);
    for (unsigned i = 0; i < n; i++)
        addrmap_remove(BASE + i * G);
    for (unsigned i = 0; i < n; i++)
        CHECK(find(BASE + i * G) == NULL);
}

/* ---------------------------------------------------------------------------------------------- threads */

static atom32 stop,
    wrong; /* set by the test, looked at by the readers; counted by the readers, read after they ended */

static void *read_stable(void *arg) {
    (void)arg;
    while (!load_acquire(&stop)) {
        for (uint64_t i = 0; i < 64; i++) {
            const struct addr_range *r = find(BASE + i * 2 * G + 12345);
            if (!r || r->base != BASE + i * 2 * G || r->kind != (int)i) add_relaxed(&wrong, 1u);
        }
    }
    return NULL;
}

static void readers_are_not_disturbed(void) {
    pthread_t t[2];
    const uint64_t rounds = check_count(2000, 100000);
    store_relaxed(&stop, 0);
    for (unsigned i = 0; i < 64; i++)
        CHECK_EQ(add(BASE + i * 2 * G, G, (int)i), SYP_OK);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(pthread_create(&t[i], NULL, read_stable, NULL), 0);
    for (uint64_t i = 0; i < rounds; i++) { /* neighbours come and go */
        uintptr_t base = BASE + (i % 64 * 2 + 1) * G;
        if (add(base, G, 100) != SYP_OK || find(base)->kind != 100) add_relaxed(&wrong, 1u);
        addrmap_remove(base);
    }
    store_release(&stop, 1);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    CHECK_EQ(load_relaxed(&wrong), 0);
    for (unsigned i = 0; i < 64; i++)
        addrmap_remove(BASE + i * 2 * G);
}

/* Readers wait for each range to appear: what they find is filled in.  Nothing else orders them, so ThreadSanitizer would see it. */
static void *read_new(void *arg) {
    (void)arg;
    for (uint64_t i = 0; i < 512; i++) {
        const struct addr_range *r;
        while ((r = find(BASE + i * G + 5)) == NULL)
            os->yield();
        if (r->base != BASE + i * G || r->len != G || r->kind != (int)i + 1) add_relaxed(&wrong, 1u);
    }
    return NULL;
}

static void a_range_that_is_found_is_whole(void) {
    pthread_t t[2];
    int started = 1, added = 0;
    for (int i = 0; i < 2; i++)
        started &= pthread_create(&t[i], NULL, read_new, NULL) == 0;
    for (unsigned i = 0; i < 512; i++) {
        added += add(BASE + i * G, G, (int)i + 1) == SYP_OK;
        os->yield();
    }
    for (int i = 0; started && i < 2; i++)
        pthread_join(t[i], NULL);
    CHECK(started);
    CHECK_EQ(added, 512);
    CHECK_EQ(load_relaxed(&wrong), 0);
    for (unsigned i = 0; i < 512; i++)
        addrmap_remove(BASE + i * G);
}

int main(void) {
    return check_main("addrmap", (struct check_test[]){
                                     {"finds_what_was_added", finds_what_was_added},
                                     {"wrong_ranges_are_refused", wrong_ranges_are_refused},
                                     {"the_table_of_ranges_has_an_end", the_table_of_ranges_has_an_end},
                                     {"a_range_that_is_found_is_whole", a_range_that_is_found_is_whole},
                                     {"readers_are_not_disturbed", readers_are_not_disturbed},
                                     {0},
                                 });
}
