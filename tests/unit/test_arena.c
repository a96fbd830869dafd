/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/*
 * pool/base/arena: arena, mapped tables, slabs; from several threads, and without memory.
 */
#include "pool/base/arena.h"
#include "pool/base/os.h"
#include "tests/support/check.h"
#include "tests/support/fake_os.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

static void zeroed_aligned_apart(void) {
    enum { N = 3000 };
    static struct {
        unsigned char *p;
        size_t len;
    } got[N];
    uint64_t state = check_seed();
    for (int i = 0; i < N; i++) {
        got[i].len = check_random(&state) % 700;
        got[i].p = arena_alloc(got[i].len);
        if (!CHECK(got[i].p != NULL)) return;
        CHECK_EQ((uintptr_t)got[i].p % 16, 0);
        for (size_t k = 0; k < got[i].len; k++)
            if (got[i].p[k]) {
                CHECK_EQ(got[i].p[k], 0);
                return;
            }
        memset(got[i].p, i & 0xff, got[i].len);
    }
    for (int i = 0; i < N; i++) {
        CHECK(arena_contains(got[i].p));
        for (size_t k = 0; k < got[i].len; k++)
            if (got[i].p[k] != (i & 0xff)) {
                CHECK_EQ(got[i].p[k], i & 0xff);
                return;
            }
    }
    int on_stack;
    CHECK(!arena_contains(&on_stack));
    CHECK(!arena_contains(NULL));
    CHECK(!arena_contains(got));
}

static void larger_than_a_chunk(void) {
    size_t len = 3u << 20;
    char *p = arena_alloc(len);
    CHECK(p != NULL && arena_contains(p) && arena_contains(p + len - 1));
    memset(p, 1, len);
    CHECK(arena_alloc(SIZE_MAX) == NULL);
    CHECK(arena_alloc(SIZE_MAX / 2) == NULL);
    CHECK(arena_alloc(16) != NULL);
}

static void *take_many(void *arg) {
    uintptr_t tag = (uintptr_t)arg;
    uint64_t n = check_count(4000, 100000);
    uintptr_t *last = NULL;
    long bad = 0;
    for (uint64_t i = 0; i < n; i++) {
        uintptr_t *p = arena_alloc(48);
        if (!p) return (void *)-1;
        bad += p[0] || p[1] || p[5];
        p[0] = tag;
        p[1] = (uintptr_t)last;
        p[5] = i;
        last = p;
    }
    for (uint64_t i = n; i-- > 0; last = (uintptr_t *)last[1])
        bad += last[0] != tag || last[5] != i;
    return (void *)bad;
}

static void four_threads(void) {
    pthread_t id[4];
    for (uintptr_t i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&id[i], NULL, take_many, (void *)(i + 1)), 0);
    for (int i = 0; i < 4; i++) {
        void *bad;
        pthread_join(id[i], &bad);
        CHECK_EQ((long)bad, 0);
    }
}

static void pages(void) {
    fake_os_on();
    char *p = map_alloc(5000);
    CHECK(p != NULL && p[0] == 0 && p[4999] == 0);
    CHECK(fake_os_mapped_bytes() >= 5000);
    memset(p, 1, 5000);
    map_free(p, 5000);
    map_free(NULL, 100);
    CHECK_EQ(fake_os_mapped_bytes(), 0);
    CHECK(map_alloc(0) == NULL);
    CHECK(map_alloc(SIZE_MAX) == NULL);
    fake_os_off();
}

static void slab_of(size_t record) {
    struct slab s;
    uint32_t n = record > 10000 ? 40 : 5000, live = 0;
    uint32_t *index = calloc(n, sizeof *index);
    uint64_t state = check_seed();
    fake_os_on();
    slab_init(&s, record);
    for (uint64_t step = 0; step < n * 6u; step++) {
        uint32_t k = (uint32_t)(check_random(&state) % n);
        if (index[k]) {
            unsigned char *p = slab_at(&s, index[k]);
            if (p[0] != (unsigned char)k || p[record - 1] != (unsigned char)k) CHECK_EQ(p[0], (unsigned char)k);
            slab_put(&s, index[k]);
            index[k] = 0;
            live--;
        } else {
            index[k] = slab_new(&s);
            if (!CHECK(index[k] != 0)) break;
            unsigned char *p = slab_at(&s, index[k]);
            for (size_t b = 0; b < record; b++)
                if (p[b]) {
                    CHECK_EQ(p[b], 0);
                    break;
                }
            memset(p, (int)k, record);
            live++;
        }
    }
    CHECK_EQ(s.live, live);
    CHECK(s.next <= n + 1); /* freed records were used again */
    slab_fini(&s);
    CHECK_EQ(fake_os_mapped_bytes(), 0);
    CHECK(slab_new(&s) != 0); /* empty again, same record size */
    CHECK_EQ(s.live, 1);
    slab_fini(&s);
    CHECK_EQ(fake_os_mapped_bytes(), 0);
    fake_os_off();
    free(index);
}

static void slabs(void) {
    static const size_t records[] = {4, 8, 12, 24, 64, 1000, 40000, 200000};
    for (size_t i = 0; i < sizeof records / sizeof records[0]; i++)
        slab_of(records[i]);
}

/* More chunks than the first table holds. */
static void slab_table_grows(void) {
    struct slab s;
    uint32_t n = 0;
    fake_os_on();
    slab_init(&s, 32768);
    while (s.cap_chunks <= 512 && n < 4000) {
        uint32_t index = slab_new(&s);
        if (!CHECK(index == ++n)) break;
        memcpy(slab_at(&s, index), &index, sizeof index);
    }
    for (uint32_t i = 1; i <= n; i++) {
        uint32_t v;
        memcpy(&v, slab_at(&s, i), sizeof v);
        if (v != i) CHECK_EQ(v, i);
    }
    CHECK(s.cap_chunks > 512);
    slab_fini(&s);
    CHECK_EQ(fake_os_mapped_bytes(), 0);
    fake_os_off();
}

static void without_memory(void) {
    struct slab s;
    fake_os_on();
    fake_os_fail_op("map", 1, ENOMEM);
    CHECK(map_alloc(100) == NULL);
    slab_init(&s, 40000); /* one record in a chunk */
    for (unsigned n = 1; n <= 2; n++) {
        fake_os_fail_op("map", n, ENOMEM);
        CHECK_EQ(slab_new(&s), 0);
        CHECK_EQ(s.live, 0);
    }
    CHECK_EQ(slab_new(&s), 1);
    fake_os_fail_op("map", 1, ENOMEM);
    CHECK_EQ(slab_new(&s), 0);
    CHECK_EQ(s.live, 1);
    CHECK_EQ(slab_new(&s), 2);
    slab_fini(&s);
    CHECK_EQ(fake_os_mapped_bytes(), 0);
    fake_os_fail_op("map", 1, ENOMEM);
    CHECK(arena_alloc(1u << 20) == NULL);
    CHECK(arena_alloc(1u << 20) != NULL);
    fake_os_off();
}

int main(void) {
    return check_main("arena", (struct check_test[]){{"zeroed_aligned_apart", zeroed_aligned_apart},
                                                     {"larger_than_a_chunk", larger_than_a_chunk},
                                                     {"four_threads", four_threads},
                                                     {"pages", pages},
                                                     {"slabs", slabs},
                                                     {"slab_table_grows", slab_table_grows},
                                                     {"without_memory", without_memory},
                                                     {0}});
}
