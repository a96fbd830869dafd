/* SPDX-License-Identifier: Apache-2.0 */
/* The symmetric region: equal calls give equal offsets and digests, unequal ones are seen; refusals; the ring, also
 * while it is written. */
#include "pool/symm.h"

#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/stats.h"
#include "tests/support/check.h"
#include "tests/support/fake_os.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

#define KIB 1024ull
#define MIB (1024 * KIB)

/* -------------------------------------------------------------------------------- a backend of address space */

static int commit_result; /* SYP_OK, or what commit answers */

static unsigned sparse_caps(void) {
    return BACKEND_HOST_ACCESS;
}

static uint64_t sparse_granularity(int huge) {
    (void)huge;
    return 4096;
}

static int sparse_create(struct backend_region *r, const struct backend_request *req, void *at) {
    void *base;
    CHECK(at == NULL);
    if (os_linux.reserve("sparse", req->len, 2 * MIB, &base) < 0) return err_set(SYP_ENOMEM, "no address space");
    *r = (struct backend_region){.base = base, .len = req->len, .fd = -1};
    return SYP_OK;
}

static int sparse_destroy(struct backend_region *r) {
    return os_linux.release(r->base, r->len);
}

static int sparse_commit(struct backend_region *r, uint64_t off, uint64_t len) {
    void *out;
    if (commit_result != SYP_OK) return err_set(commit_result, "commit: the test says no");
    if (os_linux.map(r->base + off, len, PROT_READ | PROT_WRITE, -1, 0, &out) < 0)
        return err_set(SYP_ENOMEM, "commit: no memory");
    return SYP_OK;
}

static int sparse_decommit(struct backend_region *r, uint64_t off, uint64_t len) {
    (void)r, (void)off, (void)len;
    return SYP_OK;
}

static const struct backend_ops sparse_ops = {.name = "sparse",
                                              .caps = sparse_caps,
                                              .granularity = sparse_granularity,
                                              .create = sparse_create,
                                              .destroy = sparse_destroy,
                                              .commit = sparse_commit,
                                              .decommit = sparse_decommit};

/* One rank: region, symmetric allocator and the ring its peers would read. */
struct side {
    struct region region;
    struct symm symm;
    struct symm_call ring[SYMM_RING];
};
static struct side one, two;

static void start(struct side *s, uint64_t meta) {
    commit_result = SYP_OK;
    memset(s, 0, sizeof *s);
    struct region_conf conf = {
        .backend = &sparse_ops, .len = meta + 2 * MIB, .meta = meta, .chunk = 64 * KIB, .name = "test"};
    CHECK_EQ(region_open(&s->region, &conf), SYP_OK);
    CHECK_EQ(symm_init(&s->symm, &s->region, s->ring), SYP_OK);
}

static void finish(struct side *s) {
    CHECK_EQ(symm_check(&s->symm), SYP_OK);
    symm_fini(&s->symm);
    region_close(&s->region);
}

static uint64_t off_of(struct side *s, const void *p) {
    return region_offset(&s->region, p);
}

static uint64_t digest_of(struct side *s) {
    uint64_t calls, digest;
    symm_position(&s->symm, &calls, &digest);
    return digest;
}

static uint64_t calls_of(struct side *s) {
    uint64_t calls, digest;
    symm_position(&s->symm, &calls, &digest);
    return calls;
}

/* ---------------------------------------------------------------------------------------------- by example */

static void equal_calls_give_equal_offsets_and_digests(void) {
    start(&one, 8 * MIB);
    start(&two, 8 * MIB);
    uint64_t seed = check_seed();
    void *p[64] = {0}, *q[64] = {0};
    uint64_t last = digest_of(&one);
    for (int i = 0; i < 5000; i++) {
        unsigned k = (unsigned)(check_random(&seed) % 64);
        if (p[k]) {
            CHECK_EQ(symm_free(&one.symm, p[k]), SYP_OK);
            CHECK_EQ(symm_free(&two.symm, q[k]), SYP_OK);
            p[k] = q[k] = NULL;
        } else {
            uint64_t len = 1 + check_random(&seed) % (512 * KIB), align = 1ull << check_random(&seed) % 17;
            p[k] = symm_alloc(&one.symm, len, align, 0);
            q[k] = symm_alloc(&two.symm, len, align, 0);
            CHECK(!p[k] == !q[k]); /* refusals included */
            if (p[k]) CHECK(off_of(&one, p[k]) == off_of(&two, q[k]) && off_of(&one, p[k]) % align == 0);
            if (p[k]) memset(p[k], 1, len); /* committed */
        }
        CHECK(digest_of(&one) == digest_of(&two));
        CHECK(digest_of(&one) != last);
        last = digest_of(&one);
    }
    CHECK_EQ(calls_of(&one), 5000);
    finish(&one);
    finish(&two);
}

/* The third call of a rank, as everybody makes it (how 0) or not quite. */
enum { AS_ALL, OTHER_SIZE, OTHER_ALIGNMENT, OTHER_KIND, ONLY_HERE_REFUSED, ONE_MORE, OTHER_HISTORY, WAYS };

static void third_call(struct side *s, void *first, int how) {
    commit_result = how == ONLY_HERE_REFUSED ? SYP_ENOMEM : SYP_OK;
    if (how == OTHER_KIND)
        CHECK_EQ(symm_free(&s->symm, first), SYP_OK);
    else
        symm_alloc(&s->symm, MIB - (how == OTHER_SIZE), how == OTHER_ALIGNMENT ? 128 : 64,
                   0); /* same block after rounding */
    commit_result = SYP_OK;
    if (how == ONE_MORE) symm_alloc(&s->symm, 64, 64, 0);
}

/* Any single difference changes the digest of that call and of every later one. */
static void any_difference_is_seen(void) {
    for (int how = AS_ALL; how < WAYS; how++) {
        start(&one, 8 * MIB);
        start(&two, 8 * MIB);
        void *p = symm_alloc(&one.symm, 1000, 64, 0),
             *q = symm_alloc(&two.symm, how == OTHER_HISTORY ? 999 : 1000, 64, 0);
        symm_alloc(&one.symm, 2000, 64, 0);
        symm_alloc(&two.symm, 2000, 64, 0);
        third_call(&one, p, AS_ALL);
        third_call(&two, q, how);
        CHECK((digest_of(&one) == digest_of(&two)) == (how == AS_ALL));
        symm_alloc(&one.symm, 64, 64, 0);
        symm_alloc(&two.symm, 64, 64, 0);
        CHECK((digest_of(&one) == digest_of(&two)) == (how == AS_ALL));
        finish(&one);
        finish(&two);
    }
}

static void refusals_are_counted_and_change_nothing(void) {
    start(&one, MIB);
    stats_open(0, &(struct stats_identity){.rank = -1});
    void *p = symm_alloc(&one.symm, 512 * KIB, 64, 0);
    uint64_t used = one.symm.space.used, peak = one.symm.space.used_peak;
    CHECK(symm_alloc(&one.symm, MIB, 64, 0) == NULL);
    CHECK_EQ(err_record()->code, SYP_ENOMEM);
    CHECK_EQ(err_record()->sequence, 2);
    CHECK_HAS(err_record()->text, "allocate 1 MiB");
    CHECK_HAS(err_record()->text, "largest free block 512 KiB");
    CHECK_HAS(err_record()->text, "SYMPOOL_META_SIZE");
    CHECK_EQ(calls_of(&one), 2);
    commit_result = SYP_ENOMEM;
    CHECK(symm_alloc(&one.symm, 256 * KIB, 64, 0) == NULL);
    CHECK_HAS(err_record()->text, "the test says no");
    commit_result = SYP_OK;
    CHECK_EQ(calls_of(&one), 3);
    uint64_t off[4000];
    unsigned n = 0;
    fake_os_on();
    do { /* until the records have to grow */
        fake_os_fail_op("map", 1, ENOMEM);
        off[n] = symm_try(&one.symm, 64, 64);
    } while (off[n] != SPACE_NONE && ++n < 4000);
    fake_os_off();
    if (CHECK(n < 4000)) CHECK_HAS(err_record()->text, "no memory for the record");
    while (n)
        symm_undo(&one.symm, off[--n]);
    CHECK_EQ(calls_of(&one), 3);
    CHECK(one.symm.space.used == used && peak == used);
    CHECK_EQ(stats_read(STAT_SYMM_CALLS), 3);
    CHECK_EQ(stats_read(STAT_ALLOC_FAILED), 2);
    CHECK_EQ(stats_read(STAT_SYMM_USED), 512 * KIB);
    CHECK_EQ(symm_free(&one.symm, p), SYP_OK);
    CHECK_EQ(stats_read(STAT_SYMM_USED), 0);
    CHECK_EQ(stats_read(STAT_SYMM_PEAK), 512 * KIB);
    finish(&one);

    start(&one, 0); /* a pool without a symmetric region */
    CHECK(symm_alloc(&one.symm, 1, 64, 0) == NULL);
    CHECK_EQ(symm_try(&one.symm, 1, 64) == SPACE_NONE, 1);
    finish(&one);
}

static void bad_frees_are_not_counted(void) {
    start(&one, MIB);
    stats_open(0, &(struct stats_identity){.rank = -1});
    char *p = symm_alloc(&one.symm, 4096, 64, 0);
    CHECK_EQ(symm_free(&one.symm, p + 64), SYP_EFOREIGN);
    CHECK_HAS(err_record()->text, "pointer into the middle of a block of 4 KiB");
    CHECK_EQ(symm_free(&one.symm, p), SYP_OK);
    CHECK_EQ(symm_free(&one.symm, p), SYP_EFOREIGN);
    CHECK_HAS(err_record()->text, "double free of");
    CHECK_EQ(symm_free(&one.symm, &p), SYP_EFOREIGN);
    CHECK_EQ(symm_free(&one.symm, region_at(&one.region, one.region.meta)), SYP_EFOREIGN);
    CHECK_HAS(err_record()->text, "not in the symmetric region");
    CHECK_EQ(calls_of(&one), 2);
    CHECK_EQ(stats_read(STAT_BAD_FREES), 4);
    finish(&one);
}

static void agreed_form_counts_what_is_kept(void) {
    start(&one, MIB);
    start(&two, MIB);
    uint64_t off = symm_try(&one.symm, 1000, 64);
    CHECK_EQ(off, 0);
    CHECK_EQ(calls_of(&one), 0);
    symm_undo(&one.symm, off);
    CHECK_EQ(one.symm.space.used, 0);
    CHECK_EQ(calls_of(&one), 0);
    off = symm_try(&one.symm, 1000, 64);
    symm_keep(&one.symm, off, 1000, 64, 0);
    CHECK_EQ(calls_of(&one), 1);
    CHECK(off_of(&two, symm_alloc(&two.symm, 1000, 64, 0)) == off);
    CHECK(digest_of(&one) == digest_of(&two)); /* both forms are the same call */
    CHECK(symm_try(&one.symm, MIB, 64) == SPACE_NONE);
    finish(&one);
    finish(&two);
}

static int count_block(void *arg, const syp_block *b) {
    uint64_t *sum = arg;
    CHECK_EQ(b->where, SYP_WHERE_SYMMETRIC);
    sum[b->live] += b->len;
    return sum[2] && --sum[2] == 0 ? 7 : 0;
}

static void queries(void) {
    start(&one, MIB);
    char *p = symm_alloc(&one.symm, 1000, 64, 0);
    CHECK_EQ(symm_usable(&one.symm, p), 1024);
    CHECK_EQ(symm_usable(&one.symm, p + 64), 0);
    void *block = NULL;
    uint64_t len = 0, sum[3] = {0};
    CHECK_EQ(symm_find(&one.symm, p + 1023, &block, &len), 1);
    CHECK(block == p && len == 1024);
    CHECK_EQ(symm_find(&one.symm, p + 1024, &block, &len), 0);
    CHECK_EQ(symm_find(&one.symm, &len, &block, &len), 0);
    CHECK_EQ(symm_walk(&one.symm, count_block, sum), SYP_OK);
    CHECK(sum[1] == 1024 && sum[0] == MIB - 1024);
    sum[2] = 1;
    CHECK_EQ(symm_walk(&one.symm, count_block, sum), 7);
    one.symm.space.used += 64;
    CHECK_EQ(symm_check(&one.symm), SYP_ESTATE);
    CHECK_HAS(err_record()->text, "symmetric region");
    one.symm.space.used -= 64;
    finish(&one);
}

/* ------------------------------------------------------------------------------------------------ the ring */

static void ring_keeps_the_last_calls(void) {
    static uint64_t digest[3 * SYMM_RING + 1];
    struct symm_record r;
    start(&one, MIB);
    void *p = NULL;
    CHECK_EQ(symm_read_call(one.ring, 0, &r), 0);
    CHECK_EQ(symm_read_call(one.ring, 1, &r), 0); /* not yet */
    for (uint64_t i = 1; i <= 3 * SYMM_RING; i++) {
        if (i % 3 == 1)
            p = symm_alloc(&one.symm, i, 4096, 0);
        else if (i % 3 == 2)
            CHECK_EQ(symm_free(&one.symm, p), SYP_OK);
        else
            CHECK(symm_alloc(&one.symm, 2 * MIB, 64, 0) == NULL);
        digest[i] = digest_of(&one);
    }
    for (uint64_t i = 1; i <= 3 * SYMM_RING + 1; i++) {
        int there = symm_read_call(one.ring, i, &r);
        CHECK_EQ(there, i > 2 * SYMM_RING && i <= 3 * SYMM_RING);
        if (!there) continue;
        CHECK(r.number == i && r.digest == digest[i]);
        CHECK_EQ(r.kind, i % 3 == 2 ? SYMM_FREE : SYMM_ALLOC);
        CHECK_EQ(r.failed, i % 3 == 0);
        CHECK_EQ(r.size, i % 3 == 1 ? i : i % 3 == 2 ? 0 : 2 * MIB);
        CHECK_EQ(r.align_log2, i % 3 == 1 ? 12 : i % 3 == 2 ? 0 : 6);
    }
    finish(&one);
}

static atom32 writing;     /* cleared by the writer when it is done, seen by the readers */
static uint64_t *expected; /* digest of call n, from a run before; size of call n is n */
static uint64_t ring_calls;

/* One entry over and over: every lap of the writer is a chance to catch it half written. */
static void *read_ring(void *arg) {
    const struct symm_call *entry = &one.ring[(uintptr_t)arg];
    uint64_t wrong = 0, valid = 0;
    struct symm_record r;
    while (load_acquire(&writing)) { /* pairs with the end of readers_never_see_torn_calls */
        uint64_t number = load_relaxed(&entry->number);
        if (!symm_read_call(one.ring, number, &r)) continue;
        valid++;
        wrong += r.number != number || r.digest != expected[number] || r.size != number || r.kind != SYMM_ALLOC;
    }
    CHECK(valid > 0);
    return (void *)(uintptr_t)wrong;
}

static void make_calls(void) {
    /* Refused ones: they only move the ring. */
    for (uint64_t i = 1; i <= ring_calls; i++) {
        symm_alloc(&one.symm, i, 1ull << 40, 0);
        if (expected[i] == 0) expected[i] = digest_of(&one);
    }
}

static void readers_never_see_torn_calls(void) {
    ring_calls = check_count(400000, 4000000);
    size_t bytes = (ring_calls + 1) * sizeof *expected;
    expected = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    start(&one, MIB);
    make_calls();
    finish(&one);
    start(&one, MIB);
    pthread_t t[2];
    store_release(&writing, 1);
    for (uintptr_t i = 0; i < 2; i++)
        CHECK_EQ(pthread_create(&t[i], NULL, read_ring, (void *)(i * 511)), 0);
    make_calls();
    store_release(&writing, 0);
    for (int i = 0; i < 2; i++) {
        void *wrong;
        pthread_join(t[i], &wrong);
        CHECK(wrong == NULL);
    }
    CHECK_EQ(calls_of(&one), ring_calls);
    finish(&one);
    munmap(expected, bytes);
}

/* A region built from another's list goes on exactly as that one does; a list that cannot be is refused. */
static void a_region_is_taken_over(void) {
    uint64_t seed = check_seed(), calls, digest;
    void *p[64] = {0};
    start(&one, 8 * MIB);
    start(&two, 8 * MIB);
    for (int i = 0; i < 2000; i++) {
        unsigned k = (unsigned)(check_random(&seed) % 64);
        if (p[k])
            CHECK_EQ(symm_free(&one.symm, p[k]), SYP_OK);
        p[k] = p[k] ? NULL : symm_alloc(&one.symm, 1 + check_random(&seed) % (200 * KIB), 64, 0);
    }
    symm_position(&one.symm, &calls, &digest);
    uint32_t cursor = 0;
    do {
        uint64_t words[7];
        size_t n = symm_list(&one.symm, &cursor, words, 7);
        CHECK_EQ(symm_restore(&two.symm, words, n, cursor ? 0 : calls, digest), SYP_OK);
    } while (cursor);
    CHECK(calls_of(&two) == calls && digest_of(&two) == digest);
    CHECK_EQ(two.symm.space.used, one.symm.space.used);
    for (int i = 0; i < 2000; i++) {
        unsigned k = (unsigned)(check_random(&seed) % 64);
        if (p[k]) {
            CHECK_EQ(symm_free(&two.symm, region_at(&two.region, off_of(&one, p[k]))), SYP_OK);
            CHECK_EQ(symm_free(&one.symm, p[k]), SYP_OK);
            p[k] = NULL;
        } else {
            uint64_t len = 1 + check_random(&seed) % (200 * KIB);
            void *q = symm_alloc(&two.symm, len, 64, 0);
            p[k] = symm_alloc(&one.symm, len, 64, 0);
            CHECK(!p[k] == !q && (!q || off_of(&one, p[k]) == off_of(&two, q)));
        }
        CHECK(digest_of(&two) == digest_of(&one));
    }
    finish(&two);
    finish(&one);

    static const uint64_t wrong[][2] = {{0, 0}, {1, 0}, {100 | 1, 0}, {(8 * MIB + 64) | 1, 0}, {4 * MIB | 1, (4 * MIB + 64) | 1}, {~63ull | 1, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        start(&two, 8 * MIB);
        CHECK_EQ(symm_restore(&two.symm, wrong[i], 2, 1, 1), SYP_EINVAL);
        finish(&two);
    }
}

int main(void) {
    return check_main("symm",
                      (struct check_test[]){
                          {"equal_calls_give_equal_offsets_and_digests", equal_calls_give_equal_offsets_and_digests},
                          {"any_difference_is_seen", any_difference_is_seen},
                          {"refusals_are_counted_and_change_nothing", refusals_are_counted_and_change_nothing},
                          {"bad_frees_are_not_counted", bad_frees_are_not_counted},
                          {"agreed_form_counts_what_is_kept", agreed_form_counts_what_is_kept},
                          {"queries", queries},
                          {"ring_keeps_the_last_calls", ring_keeps_the_last_calls},
                          {"a_region_is_taken_over", a_region_is_taken_over},
                          {"readers_never_see_torn_calls", readers_never_see_torn_calls},
                          {0},
                      });
}
