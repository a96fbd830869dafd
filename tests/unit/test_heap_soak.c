/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/*
 * Two threads allocate from one heap, resize, free their own blocks and each other's, against a model with one bit per
 * 64 bytes: set while a live block covers them.  SOAK_OPS in the environment sets the number of operations.
 */
#include "pool/heap.h"

#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/stats.h"
#include "tests/support/check.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#define KIB 1024ull
#define MIB (1024 * KIB)
#define LEN (24 * MIB) /* less than the blocks of both threads need at times, so that some are refused */
#define SLOTS 256
#define MAILS 64
#define CHECK_EVERY (1u << 20)

/* Only addresses: nothing here is written. */
static unsigned no_caps(void) {
    return 0;
}
static uint64_t page(int huge) {
    (void)huge;
    return 4096;
}
static int reserve(struct backend_region *r, const struct backend_request *req, void *at) {
    void *base;
    (void)at;
    if (os->reserve("soak", req->len, 2 * MIB, &base) < 0) return err_set(SYP_ENOMEM, "no address space");
    *r = (struct backend_region){.base = base, .len = req->len, .fd = -1};
    return SYP_OK;
}
static int release(struct backend_region *r) {
    return os->release(r->base, r->len);
}
static int commit(struct backend_region *r, uint64_t off, uint64_t len) {
    (void)r, (void)off, (void)len;
    return SYP_OK;
}
static const struct backend_ops addresses = {
    .name = "addresses", .caps = no_caps, .granularity = page, .create = reserve, .destroy = release, .commit = commit};

static struct region region;
static struct heap heap;

/* ------------------------------------------------------------------------------------------------- the model */

static atom64 covered[LEN / SPACE_GRAIN / 64];
static atom64 live_bytes;

/* Flip the bits of [off, off + len), all of which must have been `before`. */
static void flip(uint64_t off, uint64_t len, int before) {
    uint64_t first = off / SPACE_GRAIN, end = (off + len) / SPACE_GRAIN, wrong = 0;
    while (first < end) {
        uint64_t n = 64 - first % 64 < end - first ? 64 - first % 64 : end - first;
        uint64_t mask = (n == 64 ? ~0ull : (1ull << n) - 1) << (first % 64);
        atom64 *word = &covered[first / 64];
        uint64_t old = before ? atomic_fetch_and_explicit(word, ~mask, memory_order_relaxed) : or_relaxed(word, mask);
        wrong |= (before ? ~old : old) & mask;
        first += n;
    }
    if (wrong) check_fail(__FILE__, __LINE__, "[%llu, +%llu) overlaps another block", (unsigned long long)off, (unsigned long long)len);
}

static void cover(uint64_t off, uint64_t len) {
    flip(off, len, 0);
    add_relaxed(&live_bytes, len);
}
static void uncover(uint64_t off, uint64_t len) {
    flip(off, len, 1);
    add_relaxed(&live_bytes, -len);
}

/* ----------------------------------------------------------------------------------------------- operations */

struct block {
    uint64_t off, len;
};

struct player {
    uint64_t seed, ops;
    unsigned n;
    struct block block[SLOTS];
    uint64_t refused, resized, sent;
};

/* Blocks on their way to whoever comes by: offset and length in units of SPACE_GRAIN, 0 = empty. */
static atom64 mail[MAILS];

static uint64_t random_len(uint64_t *seed) {
    uint64_t r = check_random(seed), kind = r >> 8 & 15;
    if (kind < 7) return 64ull << (r >> 16 & 7);
    if (kind < 14) return CACHE_MIN << (r >> 16 & 3);
    return 1 + (r >> 16) % (128 * KIB);
}

static void allocate(struct player *p) {
    struct heap_want want = {.len = random_len(&p->seed), .align = 64, .stream = p->seed >> 40 & 1};
    if ((p->seed >> 44 & 15) == 0) want.align = 64ull << (p->seed >> 48 & 7);
    char *at = heap_alloc(&heap, &want);
    if (!at) {
        p->refused++;
        return;
    }
    struct block b = {region_offset(&region, at), round_up(want.len, SPACE_GRAIN)};
    if ((uintptr_t)at % want.align) check_fail(__FILE__, __LINE__, "alignment");
    cover(b.off, b.len);
    p->block[p->n++] = b;
}

static void give_back(struct block b) {
    uncover(b.off, b.len);
    if (heap_free(&heap, region_at(&region, b.off)) != SYP_OK) check_fail(__FILE__, __LINE__, "%s", err_record()->text);
}

static struct block pick(struct player *p) {
    unsigned i = (unsigned)((p->seed >> 16) % p->n);
    struct block b = p->block[i];
    p->block[i] = p->block[--p->n];
    return b;
}

/* Leave a block of ours, and free what lies there. */
static void hand_over(struct player *p) {
    struct block b = pick(p), got;
    uint64_t old = swap_acq_rel(&mail[p->seed >> 32 & (MAILS - 1)], (b.off / SPACE_GRAIN + 1) << 32 | b.len / SPACE_GRAIN);
    p->sent++;
    if (!old) return;
    got.off = ((old >> 32) - 1) * SPACE_GRAIN;
    got.len = (uint32_t)old * (uint64_t)SPACE_GRAIN;
    give_back(got);
}

static void resize(struct player *p) {
    struct block *b = &p->block[(p->seed >> 16) % p->n];
    uint64_t len = round_up(random_len(&p->seed), SPACE_GRAIN);
    if (len < b->len) uncover(b->off + len, b->len - len); /* before others may get it */
    int done = heap_resize(&heap, region_at(&region, b->off), len);
    if (done == 1 && len > b->len) cover(b->off + b->len, len - b->len);
    if (done != 1 && len < b->len) check_fail(__FILE__, __LINE__, "shrinking in place was refused: %d", done);
    if (done == 1) b->len = len;
    p->resized += done == 1;
}

static void *play(void *arg) {
    struct player *p = arg;
    for (uint64_t i = 0; i < p->ops; i++) {
        uint64_t what = check_random(&p->seed) & 63, grow = i >> 12 & 1 ? 36 : 26;
        if (p->n == 0 || (what < grow && p->n < SLOTS))
            allocate(p);
        else if (what < 52)
            give_back(pick(p));
        else if (what < 60)
            hand_over(p);
        else
            resize(p);
        if (i % CHECK_EVERY == 0 && heap_check(&heap) != SYP_OK) check_fail(__FILE__, __LINE__, "%s", err_record()->text);
    }
    return NULL;
}

/* ------------------------------------------------------------------------------------------------------ test */

static void empty_mail(void) {
    for (int i = 0; i < MAILS; i++) {
        uint64_t old = load_relaxed(&mail[i]);
        if (old) give_back((struct block){((old >> 32) - 1) * SPACE_GRAIN, (uint32_t)old * (uint64_t)SPACE_GRAIN});
    }
}

static void two_threads_and_a_model_agree(void) {
    static struct player players[2];
    struct region_conf conf = {.backend = &addresses, .len = LEN, .chunk = 64 * KIB, .name = "soak"};
    const char *ops = getenv("SOAK_OPS");
    uint64_t seed = check_seed(), n = ops ? strtoull(ops, NULL, 10) : check_count(1000000, 1000000000);
    pthread_t id[2];
    CHECK_EQ(region_open(&region, &conf), SYP_OK);
    CHECK_EQ(heap_init(&heap, &region, 1), SYP_OK);
    uint64_t allocs = stats_read(STAT_ALLOCS), frees = stats_read(STAT_FREES), start = os->now();
    for (int i = 0; i < 2; i++) {
        players[i] = (struct player){.seed = seed * 2 + (uint64_t)i + 1, .ops = n / 2};
        CHECK_EQ(pthread_create(&id[i], NULL, play, &players[i]), 0);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(id[i], NULL);
    uint64_t ns = os->now() - start;
    CHECK_EQ(heap.used, load_relaxed(&live_bytes));
    for (int i = 0; i < 2; i++) {
        struct player *p = &players[i];
        CHECK(p->resized > 0 && p->sent > 0);
        while (p->n)
            give_back(pick(p));
    }
    CHECK(players[0].refused + players[1].refused > 0);
    empty_mail();
    CHECK_EQ(heap.used + load_relaxed(&live_bytes), 0);
    CHECK_EQ(stats_read(STAT_ALLOCS) - allocs, stats_read(STAT_FREES) - frees);
    heap_flush(&heap);
    CHECK_EQ(heap_check(&heap), SYP_OK);
    CHECK_EQ(space_largest_free(&heap.space), LEN);
    printf("%llu operations, %llu ns each on both threads together\n", (unsigned long long)n, (unsigned long long)(ns / n));
    heap_fini(&heap);
    region_close(&region);
}

int main(void) {
    return check_main("heap_soak", (struct check_test[]){{"two_threads_and_a_model_agree", two_threads_and_a_model_agree}, {0}});
}
