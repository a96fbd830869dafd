/* SPDX-License-Identifier: Apache-2.0 */
/* The cache of freed blocks, over a backend whose events fire when the test says. */
#include "pool/cache.h"

#include "tests/support/check.h"

#include <errno.h>

#define KIB 1024ull
#define MIB (1024 * KIB)

/* --------------------------------------------------------------------------- a backend made of stream clocks */

#define STREAMS 8

/* Work queued on each stream and work done; an event is a point of one of them. */
static uint64_t queued[STREAMS], done[STREAMS];
static int record_result;

static unsigned caps_async(void) {
    return BACKEND_HOST_ACCESS | BACKEND_ASYNC;
}
static unsigned caps_sync(void) {
    return BACKEND_HOST_ACCESS;
}

static int clock_record(void *stream, backend_event *out) {
    *out = (uint64_t)(uintptr_t)stream << 48 | queued[(uintptr_t)stream];
    return record_result;
}

static int clock_query(backend_event e) {
    return done[e >> 48] >= (e & ((1ull << 48) - 1));
}

static const struct backend_ops async_ops = {.name = "clocks",
                                             .caps = caps_async,
                                             .event_record = clock_record,
                                             .event_query = clock_query};
static const struct backend_ops sync_ops = {.name = "sync", .caps = caps_sync};

static struct space s;
static struct cache c;

static void start(const struct backend_ops *backend, uint64_t limit, int on) {
    memset(queued, 0, sizeof queued);
    memset(done, 0, sizeof done);
    record_result = SYP_OK;
    CHECK_EQ(space_init(&s, 0, 64 * MIB), SYP_OK);
    cache_init(&c, backend, limit, on);
}

static void expect_sound(void) {
    const char *damage = space_check(&s);
    if (!damage) damage = cache_check(&c, &s);
    if (damage) check_fail(__FILE__, __LINE__, "%s", damage);
}

static void finish(void) {
    expect_sound();
    space_fini(&s);
}

static uint32_t fresh(uint64_t len) {
    return space_alloc(&s, len, 64);
}

/* ---------------------------------------------------------------------------------------------- by example */

static void keeps_by_exact_length_newest_first(void) {
    start(&sync_ops, 16 * MIB, 1);
    uint32_t a = fresh(64 * KIB), b = fresh(64 * KIB), d = fresh(128 * KIB);
    CHECK_EQ(cache_keep(&c, &s, a, 0), 1);
    CHECK_EQ(cache_keep(&c, &s, b, 0), 1);
    CHECK_EQ(cache_keep(&c, &s, d, 0), 1);
    CHECK_EQ(space_at(&s, a)->state, SPACE_CACHED);
    CHECK_EQ(c.bytes, 256 * KIB);
    expect_sound();
    CHECK_EQ(cache_take(&c, &s, 96 * KIB, 64, 0), 0);
    CHECK_EQ(cache_take(&c, &s, 64 * KIB, 64, 0), b);
    CHECK_EQ(space_at(&s, b)->state, SPACE_LIVE);
    CHECK_EQ(cache_take(&c, &s, 64 * KIB, 64, 7), a); /* host memory: any stream at once */
    CHECK_EQ(cache_take(&c, &s, 64 * KIB, 64, 0), 0);
    CHECK_EQ(c.hits, 2);
    CHECK_EQ(c.misses, 2);
    CHECK_EQ(c.bytes, 128 * KIB);
    CHECK_EQ(cache_flush(&c, &s), 128 * KIB);
    CHECK_EQ(cache_flush(&c, &s), 0);
    CHECK_EQ(space_at(&s, d)->state, SPACE_FREE);
    finish();
}

static void alignment_is_looked_at(void) {
    start(&sync_ops, 16 * MIB, 1);
    fresh(64);
    uint32_t a = fresh(64 * KIB);
    CHECK_EQ(cache_keep(&c, &s, a, 0), 1);
    CHECK_EQ(cache_take(&c, &s, 64 * KIB, 4096, 0), 0);
    s.bias = 4096 - 64; /* what counts is the address */
    CHECK_EQ(cache_take(&c, &s, 64 * KIB, 4096, 0), a);
    finish();
}

static void limits(void) {
    start(&sync_ops, MIB, 1);
    CHECK_EQ(cache_keep(&c, &s, fresh(CACHE_MIN - 64), 0), 0);
    CHECK_EQ(cache_keep(&c, &s, fresh(MIB + 64), 0), 0);
    CHECK_EQ(cache_keep(&c, &s, fresh(MIB), 0), 1);
    CHECK_EQ(cache_keep(&c, &s, fresh(CACHE_MIN), 0), 1); /* the older one made room */
    CHECK_EQ(c.bytes, CACHE_MIN);
    expect_sound();
    finish();

    start(&sync_ops, 64 * MIB, 1);
    uint32_t b[CACHE_PER_BIN + 1];
    for (unsigned i = 0; i <= CACHE_PER_BIN; i++)
        b[i] = fresh(CACHE_MIN);
    for (unsigned i = 0; i <= CACHE_PER_BIN; i++)
        CHECK_EQ(cache_keep(&c, &s, b[i], 0), 1);
    CHECK_EQ(c.bytes, CACHE_PER_BIN * CACHE_MIN);
    CHECK_EQ(space_at(&s, b[0])->state, SPACE_FREE); /* the oldest of its kind */
    finish();

    start(&sync_ops, 64 * MIB, 0);
    CHECK_EQ(cache_keep(&c, &s, fresh(MIB), 0), 0);
    finish();
}

static void other_streams_wait_for_the_event(void) {
    start(&async_ops, 16 * MIB, 1);
    uint32_t a = fresh(MIB), b = fresh(MIB);
    queued[1] = 5;
    CHECK_EQ(cache_keep(&c, &s, a, 1), 1);
    CHECK_EQ(cache_take(&c, &s, MIB, 64, 2), 0);
    CHECK_EQ(cache_take(&c, &s, MIB, 64, 1), a); /* its own: at once */
    CHECK_EQ(cache_keep(&c, &s, a, 1), 1);
    CHECK_EQ(cache_flush(&c, &s), 0);
    done[1] = 4;
    CHECK_EQ(cache_take(&c, &s, MIB, 64, 2), 0);
    done[1] = 5;
    queued[2] = 1;
    CHECK_EQ(cache_keep(&c, &s, b, 2), 1);
    CHECK_EQ(cache_take(&c, &s, MIB, 64, 1), a); /* own stream first, though b is newer */
    CHECK_EQ(cache_take(&c, &s, MIB, 64, 3), 0);
    done[2] = 1;
    CHECK_EQ(cache_take(&c, &s, MIB, 64, 3), b);
    finish();
}

/* Too small, too large, over the limit, cache off: what is refused goes to the space, and so to any stream.  Pending
 * work forbids it. */
static void pending_blocks_are_kept_whatever_the_limits(void) {
    for (int on = 0; on < 2; on++) {
        start(&async_ops, MIB, on);
        uint32_t small = fresh(64), large = fresh(4 * MIB), idle = fresh(64);
        queued[1] = 1;
        CHECK_EQ(cache_keep(&c, &s, small, 1), 1);
        CHECK_EQ(cache_keep(&c, &s, large, 1), 1);
        CHECK_EQ(cache_keep(&c, &s, idle, 2), 0); /* nothing queued there */
        CHECK_EQ(cache_take(&c, &s, 64, 64, 2), 0);
        CHECK_EQ(cache_take(&c, &s, 64, 64, 1), small);
        CHECK_EQ(cache_flush(&c, &s), 0);
        expect_sound();
        done[1] = 1;
        CHECK_EQ(cache_flush(&c, &s), 4 * MIB);
        finish();
    }
}

static void a_block_without_an_event_is_lost_to_everybody(void) {
    start(&async_ops, 16 * MIB, 1);
    uint32_t a = fresh(MIB);
    record_result = SYP_ESYS;
    CHECK_EQ(cache_keep(&c, &s, a, 1), 1); /* no telling when work is done with it: nobody gets it any more */
    CHECK_EQ(space_at(&s, a)->state, SPACE_CACHED);
    CHECK_EQ(cache_take(&c, &s, MIB, 64, 1), 0);
    CHECK_EQ(c.bytes, MIB);
    CHECK_EQ(cache_flush(&c, &s), 0);
    finish();
}

static void checker_sees_damage(void) {
    start(&sync_ops, 16 * MIB, 1);
    uint32_t a = fresh(MIB);
    CHECK_EQ(cache_keep(&c, &s, a, 0), 1);
    uint32_t bin = 0;
    while (!c.bin[bin].newest)
        bin++;
    CHECK_EQ(c.bin[bin].newest, a);
    struct space_block *b = space_at(&s, a), kept = *b;
    c.bin[bin].newest = s.blocks.next;
    CHECK_HAS(cache_check(&c, &s), "no block");
    c.bin[bin].newest = a;
    b->len = 64;
    CHECK_HAS(cache_check(&c, &s), "disagree");
    *b = kept;
    b->left = a;
    CHECK_HAS(cache_check(&c, &s), "damaged");
    *b = kept;
    c.bin[bin].n = 2;
    CHECK_HAS(cache_check(&c, &s), "miscounted");
    c.bin[bin].n = 1;
    space_at(&s, a)->state = SPACE_LIVE;
    CHECK_HAS(cache_check(&c, &s), "disagree");
    space_at(&s, a)->state = SPACE_CACHED;
    finish();
}

/* ----------------------------------------------------------------------------------------- random model */

#define LIVE 64
#define USES 4096

/* Memory that work queued on a stream, up to a point, may still touch. */
struct use {
    uint64_t off, len, point;
    unsigned stream;
};

static struct use uses[USES];
static unsigned n_uses;
static uint64_t reused_early, crossed, kept_small;

static int pending(const struct use *u) {
    return done[u->stream] < u->point;
}

static void forget_finished(void) {
    for (unsigned i = 0; i < n_uses;)
        if (pending(&uses[i]))
            i++;
        else
            uses[i] = uses[--n_uses];
}

/* The block goes to `stream`: no other stream may still work on it. */
static void expect_safe(uint32_t block, unsigned stream) {
    const struct space_block *b = space_at(&s, block);
    for (unsigned i = 0; i < n_uses; i++) {
        const struct use *u = &uses[i];
        if (u->off >= b->off + b->len || b->off >= u->off + u->len || !pending(u)) continue;
        if (u->stream != stream)
            check_fail(__FILE__, __LINE__, "block at %llx went to stream %u while stream %u works on it",
                       (unsigned long long)b->off, stream, u->stream);
        else
            reused_early++;
    }
}

static void model_free(uint32_t block) {
    struct space_block *b = space_at(&s, block);
    unsigned stream = (unsigned)b->tag;
    uses[n_uses++] = (struct use){b->off, b->len, queued[stream], stream};
    int is_pending = pending(&uses[n_uses - 1]);
    if (cache_keep(&c, &s, block, stream))
        kept_small += b->len < CACHE_MIN;
    else if (is_pending)
        check_fail(__FILE__, __LINE__, "block with pending work not kept");
    else
        space_free(&s, block);
}

static uint32_t model_alloc(uint64_t len, unsigned stream) {
    uint32_t block = cache_take(&c, &s, len, 64, stream);
    if (block && space_at(&s, block)->tag != stream) crossed++;
    if (!block) block = space_alloc(&s, len, 64);
    if (!block && cache_flush(&c, &s)) block = space_alloc(&s, len, 64);
    if (!block) return 0;
    space_at(&s, block)->tag = stream;
    expect_safe(block, stream);
    return block;
}

static void no_block_reaches_a_stream_too_early(void) {
    static const uint64_t lens[] = {64, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 3 * MIB, 5 * MIB};
    uint32_t live[LIVE];
    unsigned n = 0;
    uint64_t seed = check_seed(), count = check_count(100000, 1000000);
    start(&async_ops, 8 * MIB, 1);
    n_uses = 0;
    reused_early = crossed = kept_small = 0;
    for (uint64_t i = 0; i < count; i++) {
        unsigned what = (unsigned)(check_random(&seed) % 100), stream = (unsigned)(check_random(&seed) % STREAMS);
        if (what < 40 && n < LIVE) {
            uint32_t block = model_alloc(lens[check_random(&seed) % 8], stream);
            if (block) live[n++] = block;
        } else if (what < 80 && n) {
            unsigned k = (unsigned)(check_random(&seed) % n);
            model_free(live[k]);
            live[k] = live[--n];
        } else if (what < 90) {
            queued[stream]++;
        } else if (done[stream] < queued[stream]) {
            done[stream] += 1 + check_random(&seed) % (queued[stream] - done[stream]);
            forget_finished();
        }
        if (n_uses == USES) { /* let everything finish, so that the list stays small */
            memcpy(done, queued, sizeof done);
            forget_finished();
        }
        if (i % 1024 == 0) expect_sound();
    }
    CHECK(reused_early > 0);
    CHECK(crossed > 0);
    CHECK(kept_small > 0);
    while (n)
        model_free(live[--n]);
    memcpy(done, queued, sizeof done);
    cache_flush(&c, &s);
    CHECK_EQ(c.bytes, 0);
    CHECK_EQ(s.blocks.live, 1);
    finish();
}

int main(void) {
    return check_main("cache",
                      (struct check_test[]){
                          {"keeps_by_exact_length_newest_first", keeps_by_exact_length_newest_first},
                          {"alignment_is_looked_at", alignment_is_looked_at},
                          {"limits", limits},
                          {"other_streams_wait_for_the_event", other_streams_wait_for_the_event},
                          {"pending_blocks_are_kept_whatever_the_limits", pending_blocks_are_kept_whatever_the_limits},
                          {"a_block_without_an_event_is_lost_to_everybody", a_block_without_an_event_is_lost_to_everybody},
                          {"checker_sees_damage", checker_sees_damage},
                          {"no_block_reaches_a_stream_too_early", no_block_reaches_a_stream_too_early},
                          {0},
                      });
}
