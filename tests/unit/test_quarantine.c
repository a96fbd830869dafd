/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/* Quarantined ranges: what a straggler may still write is handed to nobody else, in the heap and in the symmetric region. */
#include "pool/base/status.h"
#include "pool/heap.h"
#include "pool/symm.h"
#include "tests/support/check.h"

#define KIB 1024ull
#define MIB (1024 * KIB)

static struct region region;
static struct heap heap;
static struct symm symm;
static struct symm_call ring[SYMM_RING];

static void start(void) {
    struct region_conf conf = {.backend = &backend_host, .len = 16 * MIB, .meta = 4 * MIB, .shared = 1, .chunk = 64 * KIB, .name = "test"};
    memset(ring, 0, sizeof ring);
    CHECK_EQ(region_open(&region, &conf), SYP_OK);
    CHECK_EQ(heap_init(&heap, &region, 1), SYP_OK);
    CHECK_EQ(symm_init(&symm, &region, ring), SYP_OK);
}

static void finish(void) {
    CHECK_EQ(heap_check(&heap), SYP_OK);
    CHECK_EQ(symm_check(&symm), SYP_OK);
    heap_fini(&heap);
    symm_fini(&symm);
    region_close(&region);
}

static char *take(uint64_t len) {
    return heap_alloc(&heap, &(struct heap_want){.len = len, .align = 64});
}

static int begin(uint64_t id, const void *p, uint64_t len) {
    return quarantine_add(&region.quarantine, id, region_offset(&region, p), len);
}

static int end(uint64_t id) {
    int n = quarantine_remove(&region.quarantine, id);
    heap_quarantine_release(&heap);
    return n;
}

static void ranges_are_half_open_and_end_by_id(void) {
    static struct quarantine q;
    quarantine_init(&q);
    CHECK(!quarantine_any(&q) && !quarantine_hits(&q, 0, UINT64_MAX));
    CHECK_EQ(quarantine_add(&q, 7, 128, 64), SYP_OK);
    CHECK_EQ(quarantine_add(&q, 8, 160, 640), SYP_OK);
    CHECK_EQ(quarantine_add(&q, 7, 4096, 1), SYP_OK);
    CHECK_EQ(quarantine_add(&q, 9, 9000, 0), SYP_OK); /* no bytes, no range */
    CHECK(!quarantine_hits(&q, 64, 64) && quarantine_hits(&q, 64, 65));
    CHECK(!quarantine_hits(&q, 800, 64) && quarantine_hits(&q, 799, 1));
    CHECK(quarantine_hits(&q, 4096, 64) && !quarantine_hits(&q, 9000, 64));
    CHECK_EQ(quarantine_remove(&q, 7), 2);
    CHECK(!quarantine_hits(&q, 4096, 64) && !quarantine_hits(&q, 128, 32) && quarantine_hits(&q, 160, 1));
    CHECK_EQ(quarantine_remove(&q, 7), 0);
    CHECK_EQ(quarantine_remove(&q, 8), 1);
    CHECK(!quarantine_any(&q));
}

static void freed_block_waits_for_the_end(void) {
    start();
    char *p = take(MIB), *small = take(128), *wall = take(64);
    CHECK_EQ(begin(1, p + MIB - 1, 1), SYP_OK); /* the last byte is enough */
    CHECK_EQ(begin(2, small, 64), SYP_OK);
    CHECK_EQ(heap_free(&heap, p), SYP_OK);
    CHECK_EQ(heap_free(&heap, small), SYP_OK);
    CHECK_EQ(heap.used, 64);
    CHECK_EQ(heap.n_live, 1);
    CHECK_EQ(heap.parked_bytes, MIB + 128);
    CHECK_EQ(heap_check(&heap), SYP_OK);
    CHECK_EQ(heap_usable(&heap, p), 0);
    CHECK_EQ(heap_free(&heap, p), SYP_EFOREIGN);
    CHECK_HAS(err_record()->text, "double free of");
    char *q = take(MIB), *s = take(128);
    CHECK(q != p && s != small); /* without the quarantine: the very same blocks */
    CHECK_EQ(end(2), 1);
    CHECK_EQ(heap.parked_bytes, MIB);
    CHECK(take(128) == small);
    CHECK_EQ(end(1), 1);
    CHECK_EQ(heap.parked_bytes, 0);
    CHECK(take(MIB) == p);
    CHECK_EQ(heap_free(&heap, wall), SYP_OK);
    finish();
}

static void block_in_two_ranges_waits_for_both(void) {
    start();
    char *p = take(MIB);
    CHECK_EQ(begin(1, p, 64), SYP_OK);
    CHECK_EQ(begin(2, p + 4096, 64), SYP_OK);
    CHECK_EQ(heap_free(&heap, p), SYP_OK);
    CHECK_EQ(end(1), 1);
    CHECK(take(MIB) != p);
    CHECK_EQ(end(2), 1);
    CHECK(take(MIB) == p);
    finish();
}

static void all_but_the_quarantined_bytes_are_served(void) {
    start();
    char *p = take(4 * MIB);
    CHECK_EQ(begin(1, p, 4 * MIB), SYP_OK);
    CHECK_EQ(heap_free(&heap, p), SYP_OK);
    uint64_t bytes = 0;
    for (char *q; (q = take(64 * KIB)) != NULL; bytes += 64 * KIB)
        CHECK(q + 64 * KIB <= p || q >= p + 4 * MIB);
    CHECK_EQ(bytes, 8 * MIB);
    CHECK_EQ(err_record()->code, SYP_ENOMEM);
    CHECK_EQ(end(1), 1);
    CHECK(take(64 * KIB) != NULL);
    finish();
}

static void resize_gives_up_no_quarantined_bytes(void) {
    start();
    char *p = take(MIB);
    CHECK_EQ(begin(1, p + MIB - 64, 64), SYP_OK);
    CHECK_EQ(heap_resize(&heap, p, 64), 1);
    CHECK_EQ(heap_usable(&heap, p), MIB);
    CHECK_EQ(end(1), 1);
    CHECK_EQ(heap_resize(&heap, p, 64), 1);
    CHECK_EQ(heap_usable(&heap, p), 64);
    finish();
}

static void symmetric_bytes_are_refused_not_moved(void) {
    start();
    char *p = symm_alloc(&symm, MIB, 64, 0);
    CHECK_EQ(begin(1, p, MIB), SYP_OK);
    CHECK_EQ(symm_free(&symm, p), SYP_OK); /* at once: a pure function of the calls */
    CHECK_EQ(symm.calls, 2);
    CHECK(symm_alloc(&symm, 64 * KIB, 64, 0) == NULL);
    CHECK_EQ(err_record()->code, SYP_EBUSY);
    CHECK_HAS(err_record()->text, "syp_comm_buffers_safe");
    CHECK_EQ(symm.calls, 3); /* counted, so that ranks that were refused alike do not diverge */
    CHECK_EQ(symm_try(&symm, 64, 64), SPACE_NONE);
    CHECK_EQ(err_record()->code, SYP_EBUSY);
    CHECK_EQ(symm.space.used, 0);
    CHECK_EQ(end(1), 1);
    CHECK(symm_alloc(&symm, 64 * KIB, 64, 0) == p);
    finish();
}

static void full_table_reuses_nothing(void) {
    start();
    char *p = take(MIB), *wall = take(64);
    for (uint64_t i = 0; i < QUARANTINE_RANGES; i++)
        CHECK_EQ(quarantine_add(&region.quarantine, i, 0, 1), SYP_OK);
    CHECK_EQ(begin(1000, wall, 64), SYP_ENOMEM);
    CHECK_HAS(err_record()->text, "256 ranges");
    for (uint64_t i = 0; i < QUARANTINE_RANGES; i++)
        CHECK_EQ(end(i), 1);
    CHECK_EQ(end(1000), 0);
    CHECK_EQ(heap_free(&heap, p), SYP_OK);
    CHECK_EQ(heap.parked_bytes, MIB); /* memory is lost rather than written by two */
    finish();
}

int main(void) {
    return check_main("quarantine", (struct check_test[]){
                                        {"ranges_are_half_open_and_end_by_id", ranges_are_half_open_and_end_by_id},
                                        {"freed_block_waits_for_the_end", freed_block_waits_for_the_end},
                                        {"block_in_two_ranges_waits_for_both", block_in_two_ranges_waits_for_both},
                                        {"all_but_the_quarantined_bytes_are_served", all_but_the_quarantined_bytes_are_served},
                                        {"resize_gives_up_no_quarantined_bytes", resize_gives_up_no_quarantined_bytes},
                                        {"symmetric_bytes_are_refused_not_moved", symmetric_bytes_are_refused_not_moved},
                                        {"full_table_reuses_nothing", full_table_reuses_nothing},
                                        {0},
                                    });
}
