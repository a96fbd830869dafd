/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/*
 * The symmetric region over ranks: equal offsets from equal calls, every kind of divergence named by every member of the next meeting group, and one
 * rank's shortage everybody's error.
 */
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/world_test.h"

#include <stdlib.h>

static struct comm *world_comm(struct world *w) {
    return &w->coll.comm[0];
}

static void *local(struct world *w, uint64_t len) {
    return symm_alloc(&w->pool->symm, len, 64, 0);
}

/* -------------------------------------------------------------------------------------------- equal offsets */

#define LIVE 64

static int same_sequence(struct world *w, void *arg) {
    uint64_t seed = *(uint64_t *)arg;
    void *live[LIVE] = {0};
    int64_t digest = 0;
    int calls = (int)check_count(1500, 20000);
    for (int i = 0; i < calls; i++) {
        uint64_t x = check_random(&seed), off;
        int slot = (int)(x % LIVE);
        if (live[slot]) {
            NEED(w, symm_free(&w->pool->symm, live[slot]) == SYP_OK);
            live[slot] = NULL;
        } else if (x >> 60 == 0) { /* now and then the agreed form, also aligned */
            off = coll_symm_alloc(&w->coll, 1 + (x >> 8) % 50000, 1ull << (6 + (x >> 40) % 8), 0);
            NEED(w, off != SPACE_NONE);
            live[slot] = region_at(&w->pool->region, off);
        } else {
            live[slot] = local(w, 1 + (x >> 8) % 100000);
            NEED(w, live[slot]);
        }
        if (live[slot]) digest = (int64_t)((uint64_t)digest * 31 + region_offset(&w->pool->region, live[slot]));
    }
    int64_t low = digest, high = digest;
    NEED(w, coll_allreduce(world_comm(w), &low, &low, 1, SYP_INT64, SYP_MIN, 0) == SYP_OK);
    NEED(w, coll_allreduce(world_comm(w), &high, &high, 1, SYP_INT64, SYP_MAX, 0) == SYP_OK);
    NEED(w, low == digest && high == digest); /* every offset on every rank */
    NEED(w, symm_check(&w->pool->symm) == SYP_OK);
    NEED(w, coll_barrier(world_comm(w), 0) == SYP_OK);
    return 0;
}

static void equal_calls_give_equal_offsets(void) {
    uint64_t seed = check_seed();
    CHECK_EQ(worlds_as_processes(8, NULL, same_sequence, &seed), 0);
    CHECK_EQ(worlds_as_threads(3, NULL, same_sequence, &seed), 0);
}

/* ----------------------------------------------------------------------------------------------- divergence */

static uint64_t size_of_call(int i) {
    return 4096 + 64 * (uint64_t)(i % 7);
}

/* Rank 2 asks for one byte more in call 1000; then everybody allocates and frees 300 times more before anybody meets. */
static int one_byte_more(struct world *w, void *arg) {
    (void)arg;
    void *p = NULL;
    for (int i = 1; i <= 1300; i++) {
        uint64_t len = i == 1000 ? 4096 : size_of_call(i);
        if (i == 1000 && w->who.rank == 2) len = 4097;
        if (i % 2 == 0 || i == 999) {
            NEED(w, (p = local(w, len)));
        } else if (p) {
            NEED(w, symm_free(&w->pool->symm, p) == SYP_OK);
            p = NULL;
        } else {
            NEED(w, local(w, 64));
        }
    }
    float x = 1;
    NEED(w, coll_allreduce(world_comm(w), &x, &x, 1, SYP_FLOAT32, SYP_SUM, 0) == SYP_EDIVERGED);
    NEED(w, strstr(syp_error_text(), "symmetric call 1000") && strstr(syp_error_text(), "rank 2 asked 4097 bytes"));
    NEED(w, strstr(syp_error_text(), "ranks 0, 1, 3 asked 4096 bytes"));
    NEED(w, err_record()->peer == 2 && x == 1); /* no data was touched */
    NEED(w, coll_barrier(world_comm(w), 0) == SYP_EDIVERGED); /* it stays wrong, and the group does not hang */
    NEED(w, coll_symm_alloc(&w->coll, 64, 64, 0) == SPACE_NONE && err_record()->code == SYP_EDIVERGED);
    return 0;
}

/* Rank 1 skips call 1000 of a sequence of changing sizes. */
static int skipped_call(struct world *w, void *arg) {
    (void)arg;
    for (int i = 1; i <= 1010; i++)
        if (!(i == 1000 && w->who.rank == 1)) NEED(w, local(w, size_of_call(i)));
    NEED(w, coll_barrier(world_comm(w), 0) == SYP_EDIVERGED);
    NEED(w, strstr(syp_error_text(), "symmetric call 1000"));
    char mine[64], theirs[64];
    snprintf(mine, sizeof mine, "rank 1 asked %d bytes", (int)size_of_call(1001));
    snprintf(theirs, sizeof theirs, "ranks 0, 2, 3 asked %d bytes", (int)size_of_call(1000));
    NEED(w, strstr(syp_error_text(), mine) && strstr(syp_error_text(), theirs));
    return 0;
}

/* Only two of four ranks meet: only they can know, and both do; the others carry on among themselves. */
static int in_a_small_group(struct world *w, void *arg) {
    (void)arg;
    struct comm *low, *high;
    int a[2] = {0, 1}, b[2] = {2, 3};
    NEED(w, comm_create(world_comm(w), a, 2, &low) == SYP_OK && comm_create(world_comm(w), b, 2, &high) == SYP_OK);
    NEED(w, local(w, w->who.rank == 1 ? 1024 : 512));
    if (low) {
        NEED(w, coll_barrier(low, 0) == SYP_EDIVERGED);
        NEED(w, strstr(syp_error_text(), "rank 0 asked 512 bytes; rank 1 asked 1024 bytes"));
    } else {
        NEED(w, coll_barrier(high, 0) == SYP_OK);
    }
    NEED(w, coll_barrier(world_comm(w), 0) == SYP_EDIVERGED);
    NEED(w, strstr(syp_error_text(), "rank 1 asked 1024 bytes") && strstr(syp_error_text(), "ranks 0, 2, 3 asked 512 bytes"));
    return 0;
}

/* One allocation ahead is legal in any collective but the barrier of the world. */
static int ahead(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w), *pair;
    int all[3] = {0, 1, 2};
    float x = 1;
    NEED(w, comm_create(c, all, 3, &pair) == SYP_OK);
    NEED(w, local(w, 100));
    if (w->who.rank == 0) NEED(w, local(w, 200));
    NEED(w, coll_allreduce(c, &x, &x, 1, SYP_FLOAT32, SYP_SUM, 0) == SYP_OK && x == 3);
    NEED(w, coll_barrier(pair, 0) == SYP_OK);
    NEED(w, coll_barrier(c, 0) == SYP_EDIVERGED);
    NEED(w, strstr(syp_error_text(), "1, 2 made 1, rank 0 made 2; missing is call 2") && strstr(syp_error_text(), "asked 200 bytes"));
    if (w->who.rank != 0) NEED(w, local(w, 200)); /* the others catch up */
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    return 0;
}

static int frees_in_another_order(struct world *w, void *arg) {
    (void)arg;
    void *a = local(w, 256), *b = local(w, 512);
    NEED(w, a && b);
    NEED(w, symm_free(&w->pool->symm, w->who.rank == 1 ? b : a) == SYP_OK);
    NEED(w, coll_barrier(world_comm(w), 0) == SYP_EDIVERGED);
    NEED(w, strstr(syp_error_text(), "symmetric call 3") && strstr(syp_error_text(), "freed the block at offset"));
    return 0;
}

static void divergence_is_named(void) {
    CHECK_EQ(worlds_as_processes(4, NULL, one_byte_more, NULL), 0);
    CHECK_EQ(worlds_as_processes(4, NULL, skipped_call, NULL), 0);
    CHECK_EQ(worlds_as_processes(4, NULL, in_a_small_group, NULL), 0);
    CHECK_EQ(worlds_as_threads(4, NULL, one_byte_more, NULL), 0);
    CHECK_EQ(worlds_as_threads(4, NULL, in_a_small_group, NULL), 0);
    CHECK_EQ(worlds_as_threads(2, NULL, frees_in_another_order, NULL), 0);
}

static void being_ahead_is_legal(void) {
    CHECK_EQ(worlds_as_processes(3, NULL, ahead, NULL), 0);
    CHECK_EQ(worlds_as_threads(3, NULL, ahead, NULL), 0);
}

/* -------------------------------------------------------------------------------------------- agreed results */

static int disagreeing_sizes(struct world *w, void *arg) {
    (void)arg;
    NEED(w, coll_symm_alloc(&w->coll, w->who.rank == 1 ? 4097 : 4096, 64, 0) == SPACE_NONE);
    NEED(w, err_record()->code == SYP_EMISMATCH && strstr(syp_error_text(), "rank 1: symm_malloc of 4097 bytes"));
    NEED(w, coll_symm_alloc(&w->coll, 4096, w->who.rank == 2 ? 128 : 64, 0) == SPACE_NONE && err_record()->code == SYP_EMISMATCH);
    NEED(w, coll_symm_alloc(&w->coll, w->who.rank == 0 ? 0 : 64, 64, 0) == SPACE_NONE);
    NEED(w, err_record()->code == (w->who.rank == 0 ? SYP_EINVAL : SYP_EMISMATCH));
    NEED(w, coll_symm_alloc(&w->coll, 1ull << 40, 64, 0) == SPACE_NONE && err_record()->code == SYP_ENOMEM);
    NEED(w, coll_symm_alloc(&w->coll, 4096, 64, 0) == 0); /* nothing of all that left a trace */
    NEED(w, coll_barrier(world_comm(w), 0) == SYP_OK);
    return 0;
}

static int refuse_commit(struct backend_region *r, uint64_t off, uint64_t len) {
    (void)r, (void)off;
    return err_sys(SYP_ENOMEM, 28, "no space for %llu bytes", (unsigned long long)len);
}

/* Physical memory runs out on one rank: all get the same error, and can go on when there is memory again. */
static int one_rank_short(struct world *w, void *arg) {
    (void)arg;
    const struct backend_ops *real = w->pool->region.backend;
    struct backend_ops poor = *real;
    poor.commit = refuse_commit;
    if (w->who.rank == 1) w->pool->region.backend = &poor;
    NEED(w, coll_symm_alloc(&w->coll, 3 << 20, 64, 0) == SPACE_NONE);
    NEED(w, err_record()->code == SYP_ENOMEM && err_record()->peer == 1);
    NEED(w, strstr(syp_error_text(), "rank 1 has no memory for it: ENOSPC"));
    w->pool->region.backend = real;
    uint64_t off = coll_symm_alloc(&w->coll, 3 << 20, 64, 0);
    NEED(w, off == 0);
    memset(region_at(&w->pool->region, off), 1, 3 << 20);
    return 0;
}

/* A straggler may still write where the block would lie, on one rank: nobody gets it, until that is over. */
static int one_rank_quarantined(struct world *w, void *arg) {
    (void)arg;
    struct quarantine *q = &w->pool->region.quarantine;
    if (w->who.rank == 2) NEED(w, quarantine_add(q, 1, 4096, 64) == SYP_OK);
    NEED(w, coll_symm_alloc(&w->coll, 8192, 64, 0) == SPACE_NONE);
    NEED(w, err_record()->code == SYP_EBUSY && err_record()->peer == 2 && strstr(syp_error_text(), "syp_comm_buffers_safe"));
    NEED(w, coll_symm_alloc(&w->coll, 4096, 64, 0) == 0);
    if (w->who.rank == 2) NEED(w, quarantine_remove(q, 1) == 1);
    NEED(w, coll_symm_alloc(&w->coll, 8192, 64, 0) == 4096);
    return 0;
}

static void agreement(void) {
    CHECK_EQ(worlds_as_processes(3, NULL, disagreeing_sizes, NULL), 0);
    CHECK_EQ(worlds_as_threads(3, NULL, disagreeing_sizes, NULL), 0);
    CHECK_EQ(worlds_as_processes(3, NULL, one_rank_short, NULL), 0);
    CHECK_EQ(worlds_as_processes(3, NULL, one_rank_quarantined, NULL), 0);
    CHECK_EQ(worlds_as_threads(3, NULL, one_rank_quarantined, NULL), 0);
}

int main(void) {
    return check_main("symmetry", (struct check_test[]){{"equal_calls_give_equal_offsets", equal_calls_give_equal_offsets},
                                                        {"divergence_is_named", divergence_is_named},
                                                        {"being_ahead_is_legal", being_ahead_is_legal},
                                                        {"agreement", agreement},
                                                        {0}});
}
