/* SPDX-License-Identifier: Apache-2.0 */
/* Frames: round trips, cut at every byte, lying lengths, fields out of range, noise. */
#include "bootstrap/wire.h"
#include "pool/base/arena.h"
#include "pool/base/status.h"
#include "tests/support/check.h"

#include <stdlib.h>

static struct hello sample(void) {
    struct hello h = {.library = SYP_VERSION,
                      .layout = 0x1122334455667788ull,
                      .rank = 3,
                      .n_ranks = 8,
                      .job = "job-1",
                      .page_size = 4096,
                      .settings = 7,
                      .staging_size = 1 << 20,
                      .patience_ns = 30000000000ull};
    h.self = (struct roster_entry){.rank = 3,
                                   .pid = 4711,
                                   .uid = 1000,
                                   .start_ticks = 99,
                                   .host_id = {1, ~2ull},
                                   .local_mem_size = 1ull << 30,
                                   .meta_size = 1 << 20,
                                   .data_len = 1ull << 30,
                                   .control_len = 8192,
                                   .exchange_len = 1 << 20,
                                   .cache_group = 8};
    return h;
}

static size_t encode(const struct hello *h, uint8_t *buf, size_t cap) {
    struct wire w = {.buf = buf, .cap = cap};
    wire_put_hello(&w, h);
    return w.bad ? 0 : w.pos;
}

/* From a block of exactly n bytes, so that a sanitizer sees any read past it. */
static int decode(const uint8_t *buf, size_t n, struct hello *h) {
    uint8_t *exact = malloc(n ? n : 1);
    memcpy(exact, buf, n);
    struct wire w = {.buf = exact, .cap = n};
    int rc = wire_get_hello(&w, h);
    free(exact);
    return rc;
}

static void hello_goes_round(void) {
    struct hello h = sample(), back;
    uint8_t buf[WIRE_HELLO_MAX];
    size_t n = encode(&h, buf, sizeof buf);
    CHECK(n > 0);
    CHECK_EQ(decode(buf, n, &back), 0);
    CHECK_EQ(back.library, h.library);
    CHECK_EQ(back.layout, h.layout);
    CHECK_EQ(back.rank, 3);
    CHECK_EQ(back.n_ranks, 8);
    CHECK_STR(back.job, "job-1");
    CHECK_EQ(back.self.pid, 4711);
    CHECK_EQ(back.self.uid, 1000);
    CHECK_EQ(back.self.start_ticks, 99);
    CHECK_EQ(back.self.host_id[1], ~2ull);
    CHECK_EQ(back.self.local_mem_size, 1ull << 30);
    CHECK_EQ(back.self.meta_size, 1 << 20);
    CHECK_EQ(back.self.data_len, 1ull << 30);
    CHECK_EQ(back.self.control_len, 8192);
    CHECK_EQ(back.self.exchange_len, 1 << 20);
    CHECK_EQ(back.page_size, 4096);
    CHECK_EQ(back.settings, 7);
    CHECK_EQ(back.staging_size, 1 << 20);
    CHECK_EQ(back.patience_ns, 30000000000ull);
    /* the longest possible fits what an unknown peer may send */
    memset(h.job, 'x', sizeof h.job - 1);
    CHECK(encode(&h, buf, sizeof buf) > 0);
}

static void bytes_are_little_endian(void) {
    uint8_t buf[32];
    struct wire w = {.buf = buf, .cap = sizeof buf};
    wire_put_u16(&w, 0x0102);
    wire_put_u32(&w, 0x03040506);
    wire_put_u64(&w, 0x0708090a0b0c0d0eull);
    wire_put_text(&w, "ab");
    static const uint8_t expected[] = {2, 1, 6, 5, 4, 3, 0xe, 0xd, 0xc, 0xb, 0xa, 9, 8, 7, 2, 0, 'a', 'b'};
    CHECK_EQ(w.pos, sizeof expected);
    CHECK(memcmp(buf, expected, sizeof expected) == 0);
}

static void hello_cut_anywhere_is_refused(void) {
    struct hello h = sample(), back;
    uint8_t buf[WIRE_HELLO_MAX + 8] = {0};
    size_t n = encode(&h, buf, sizeof buf);
    for (size_t i = 0; i < n; i++)
        CHECK_EQ(decode(buf, i, &back), SYP_EJOIN);
    for (size_t i = 1; i < 8; i++)
        CHECK_EQ(decode(buf, n + i, &back), SYP_EJOIN);
    for (size_t cap = 0; cap < n; cap++)
        CHECK_EQ(encode(&h, buf, cap), 0);
}

static void hello_out_of_range_is_refused(void) {
    uint8_t buf[WIRE_HELLO_MAX];
    struct hello back;
#define REFUSED(change, why)                                                                                           \
    do {                                                                                                               \
        struct hello h = sample();                                                                                     \
        change;                                                                                                        \
        size_t n = encode(&h, buf, sizeof buf);                                                                        \
        CHECK_EQ(decode(buf, n, &back), SYP_EJOIN);                                                                    \
        CHECK_HAS(err_record()->text, why);                                                                            \
    } while (0)
    REFUSED(h.rank = h.self.rank = -1, "rank");
    REFUSED(h.rank = h.self.rank = 8, "rank");
    REFUSED(h.rank = h.self.rank = MAX_WORLD, "rank");
    REFUSED(h.rank = 2, "two different ranks");
    REFUSED(h.n_ranks = 0, "world");
    REFUSED(h.n_ranks = -1, "world");
    REFUSED(h.n_ranks = MAX_WORLD + 1, "world");
    REFUSED(h.self.pid = 0, "process");
    REFUSED(h.self.pid = -5, "process");
    REFUSED(h.self.data_len = 1ull << 60, "length");
    REFUSED(h.self.control_len = UINT64_MAX, "length");
    REFUSED(h.self.exchange_len = 1ull << 47, "length");
    REFUSED(h.self.meta_size = h.self.local_mem_size + 1, "meta_size");
    REFUSED(strcpy(h.job, "a b"), "job");
    REFUSED(strcpy(h.job, "a\nb"), "job");
}

static void texts_are_bounded(void) {
    uint8_t buf[80];
    char out[8];
    const struct {
        uint16_t len;
        int bad;
    } t[] = {{0, 0}, {7, 0}, {8, 1}, {9, 1}, {70, 1}, {65535, 1}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        memset(buf, 'x', sizeof buf);
        struct wire w = {.buf = buf, .cap = sizeof buf};
        wire_put_u16(&w, t[i].len);
        w.pos = 0;
        memset(out, 1, sizeof out);
        wire_get_text(&w, out, sizeof out);
        CHECK_EQ(w.bad, t[i].bad);
        CHECK_EQ(strlen(out), t[i].bad ? 0 : t[i].len);
    }
    struct wire w = {.buf = buf, .cap = sizeof buf};
    wire_put_u16(&w, 5);
    buf[4] = 0;
    w.pos = 0;
    wire_get_text(&w, out, sizeof out);
    CHECK_EQ(w.bad, 1); /* a NUL inside */
    wire_get_u64(&w);
    CHECK_EQ(w.bad, 1); /* stays so */
}

static int head_of(uint64_t magic, uint16_t version, uint16_t type, uint32_t flags, uint32_t length, uint32_t most) {
    uint8_t buf[WIRE_HEAD];
    struct wire w = {.buf = buf, .cap = sizeof buf};
    wire_put_u64(&w, magic);
    wire_put_u16(&w, version);
    wire_put_u16(&w, type);
    wire_put_u32(&w, flags);
    wire_put_u32(&w, length);
    wire_put_u64(&w, 42);
    CHECK_EQ(w.pos, WIRE_HEAD);
    struct wire r = {.buf = buf, .cap = sizeof buf};
    struct wire_head h;
    int rc = wire_get_head(&r, &h, most);
    if (!rc) CHECK_EQ(h.sequence, 42);
    return rc;
}

static void heads_are_checked(void) {
    CHECK_EQ(head_of(WIRE_MAGIC, WIRE_VERSION, WIRE_DATA, 0, 100, 100), 0);
    CHECK_EQ(head_of(WIRE_MAGIC + 1, WIRE_VERSION, WIRE_DATA, 0, 100, 100), SYP_EJOIN);
    CHECK_EQ(head_of(WIRE_MAGIC, WIRE_VERSION + 1, WIRE_DATA, 0, 100, 100), SYP_EJOIN);
    CHECK_HAS(err_record()->text, "version 2");
    CHECK_EQ(head_of(WIRE_MAGIC, WIRE_VERSION, 0, 0, 100, 100), SYP_EJOIN);
    CHECK_EQ(head_of(WIRE_MAGIC, WIRE_VERSION, 7, 0, 100, 100), SYP_EJOIN);
    CHECK_EQ(head_of(WIRE_MAGIC, WIRE_VERSION, WIRE_DATA, WIRE_SEALED, 100, 100), 0);
    for (unsigned flag = 1; flag < 32; flag++)
        CHECK_EQ(head_of(WIRE_MAGIC, WIRE_VERSION, WIRE_DATA, 1u << flag, 100, 100), SYP_EJOIN);
    for (uint16_t type = WIRE_HELLO; type <= WIRE_GREET; type++) /* only data has a number, here 42 */
        CHECK_EQ(head_of(WIRE_MAGIC, WIRE_VERSION, type, 0, 100, 100), type == WIRE_DATA ? 0 : SYP_EJOIN);
    CHECK_EQ(head_of(WIRE_MAGIC, WIRE_VERSION, WIRE_DATA, 0, 101, 100), SYP_EJOIN);
    CHECK_EQ(head_of(WIRE_MAGIC, WIRE_VERSION, WIRE_DATA, 0, 1u << 31, UINT32_MAX), SYP_EJOIN);
    CHECK_EQ(head_of(WIRE_MAGIC, WIRE_VERSION, WIRE_DATA, 0, UINT32_MAX, UINT32_MAX), SYP_EJOIN);
    CHECK_EQ(head_of(WIRE_MAGIC, WIRE_VERSION, WIRE_DATA, 0, WIRE_MAX, UINT32_MAX), 0);
    uint8_t none[WIRE_HEAD] = {0};
    for (size_t i = 0; i < WIRE_HEAD; i++) {
        struct wire w = {.buf = none, .cap = i};
        struct wire_head h;
        CHECK_EQ(wire_get_head(&w, &h, 100), SYP_EJOIN);
    }
}

static void greeting_goes_round(void) {
    uint8_t nonce[WIRE_NONCE], back[WIRE_NONCE], buf[WIRE_NONCE + 1];
    for (unsigned i = 0; i < WIRE_NONCE; i++)
        nonce[i] = (uint8_t)(i * 7 + 1);
    struct wire w = {.buf = buf, .cap = sizeof buf};
    wire_put_greet(&w, nonce);
    CHECK_EQ(w.pos, WIRE_NONCE);
    for (size_t len = 0; len <= sizeof buf; len++) {
        struct wire r = {.buf = buf, .cap = len};
        CHECK_EQ(wire_get_greet(&r, back), len == WIRE_NONCE ? 0 : SYP_EJOIN);
    }
    CHECK(memcmp(nonce, back, sizeof back) == 0);
    struct wire small = {.buf = buf, .cap = WIRE_NONCE - 1};
    wire_put_greet(&small, nonce);
    CHECK(small.bad);
}

static void notice_goes_round(void) {
    struct notice n = {.code = SYP_EPEER, .peer = 2, .pid = 4711, .text = "rank 2 died\n"}, back;
    uint8_t buf[1024];
    struct wire w = {.buf = buf, .cap = sizeof buf};
    wire_put_notice(&w, &n);
    size_t len = w.pos;
    for (size_t i = 0; i <= len; i++) {
        struct wire r = {.buf = buf, .cap = i};
        CHECK_EQ(wire_get_notice(&r, &back), i == len ? 0 : SYP_EJOIN);
    }
    CHECK_EQ(back.code, SYP_EPEER);
    CHECK_EQ(back.peer, 2);
    CHECK_EQ(back.pid, 4711);
    CHECK_STR(back.text, "rank 2 died?"); /* nothing that could forge a log line */
    const struct notice bad[] = {{.code = 0, .peer = 1},
                                 {.code = 5, .peer = 1},
                                 {.code = SYP_EPEER, .peer = -2},
                                 {.code = SYP_EPEER, .peer = MAX_WORLD}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        w = (struct wire){.buf = buf, .cap = sizeof buf};
        wire_put_notice(&w, &bad[i]);
        struct wire r = {.buf = buf, .cap = w.pos};
        CHECK_EQ(wire_get_notice(&r, &back), SYP_EJOIN);
    }
}

static struct roster roster_of(int n, int hosts) {
    struct roster r = {.n = n, .n_hosts = hosts, .nonce = 77, .epoch = 2, .rank = map_alloc((size_t)n * sizeof *r.rank)};
    for (int i = 0; i < n; i++) {
        r.rank[i] = sample().self;
        r.rank[i].rank = i;
        r.rank[i].pid = 1000 + i;
        r.rank[i].generation = 1;
        r.rank[i].host_index = i < hosts ? i : i % hosts;
        snprintf(r.rank[i].addr, sizeof r.rank[i].addr, "%079d", i);
    }
    return r;
}

static size_t encode_roster(const struct roster *r, uint8_t *buf) {
    struct wire w = {.buf = buf, .cap = WIRE_MAX};
    wire_put_roster(&w, r);
    return w.bad ? 0 : w.pos;
}

static int decode_roster(const uint8_t *buf, size_t n, struct roster *out) {
    uint8_t *exact = malloc(n ? n : 1);
    memcpy(exact, buf, n);
    struct wire w = {.buf = exact, .cap = n};
    int rc = wire_get_roster(&w, out);
    free(exact);
    return rc;
}

static void roster_goes_round(void) {
    uint8_t *buf = malloc(WIRE_MAX);
    static const int sizes[] = {1, 2, 7, 64, MAX_WORLD};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int n = sizes[i];
        struct roster r = roster_of(n, n < 3 ? n : 3), back;
        size_t len = encode_roster(&r, buf);
        CHECK(len > 0);
        CHECK_EQ(decode_roster(buf, len, &back), 0);
        CHECK_EQ(back.n, n);
        CHECK_EQ(back.nonce, 77);
        CHECK_EQ(back.epoch, 2);
        CHECK_EQ(back.n_hosts, r.n_hosts);
        CHECK(memcmp(back.rank, r.rank, (size_t)n * sizeof *r.rank) == 0);
        roster_free(&back);
        CHECK(back.rank == NULL);
        roster_free(&r);
    }
    free(buf);
}

static void roster_cut_or_wrong_is_refused(void) {
    uint8_t *buf = malloc(WIRE_MAX);
    struct roster r = roster_of(4, 2), back;
    size_t len = encode_roster(&r, buf);
    memset(buf + len, 0, 8);
    for (size_t i = 0; i < len + 8; i++)
        if (i != len) CHECK_EQ(decode_roster(buf, i, &back), SYP_EJOIN);
    CHECK(back.rank == NULL);
    static const uint32_t lies[] = {0, 3, 5, MAX_WORLD, MAX_WORLD + 1, 1u << 31, UINT32_MAX};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct wire w = {.buf = buf, .cap = 4};
        wire_put_u32(&w, lies[i]);
        CHECK_EQ(decode_roster(buf, len, &back), SYP_EJOIN);
    }
#define WRONG(change)                                                                                                  \
    do {                                                                                                               \
        struct roster x = roster_of(4, 2);                                                                             \
        change;                                                                                                        \
        len = encode_roster(&x, buf);                                                                                  \
        CHECK_EQ(decode_roster(buf, len, &back), SYP_EJOIN);                                                           \
        x.n = 4;                                                                                                       \
        roster_free(&x);                                                                                               \
    } while (0)
    WRONG(x.nonce = 0);
    WRONG(x.epoch = 0);
    WRONG(x.rank[1].generation = 3);
    WRONG(x.n_hosts = 3);
    WRONG(x.n_hosts = 1);
    WRONG(x.rank[1].rank = 2);
    WRONG(x.rank[2].host_index = -1);
    WRONG(x.rank[1].host_index = 2);
    WRONG(x.rank[0].host_index = 1);
    WRONG(x.rank[3].generation = 0);
    WRONG(x.rank[3].pid = -1);
    WRONG(x.rank[3].cache_group = -2);
    WRONG(x.rank[3].meta_size = UINT64_MAX);
    roster_free(&r);
    free(buf);
}

/* Valid frames with a few bytes changed, through every parser. */
static void survives_noise(void) {
    uint64_t state = check_seed(), tries = check_count(100000, 3000000);
    uint8_t *buf = malloc(WIRE_MAX), work[2048];
    struct hello h = sample(), hb;
    struct roster r = roster_of(4, 2), rb;
    struct notice n = {.code = SYP_EPEER, .peer = 2, .pid = 4711, .text = "rank 2 died"}, nb;
    for (uint64_t i = 0; i < tries; i++) {
        int kind = (int)(check_random(&state) % 3);
        struct wire w = {.buf = buf, .cap = WIRE_MAX};
        if (kind == 0)
            wire_put_hello(&w, &h);
        else if (kind == 1)
            wire_put_roster(&w, &r);
        else
            wire_put_notice(&w, &n);
        size_t len = w.pos - (check_random(&state) % 4 == 0 ? check_random(&state) % w.pos : 0);
        if (len > sizeof work) len = sizeof work;
        for (int k = 0; k < 4; k++)
            buf[check_random(&state) % w.pos] = (uint8_t)check_random(&state);
        memcpy(work, buf, len);
        struct wire g = {.buf = work, .cap = len};
        int rc = kind == 0 ? wire_get_hello(&g, &hb) : kind == 1 ? wire_get_roster(&g, &rb) : wire_get_notice(&g, &nb);
        if (rc == 0 && kind == 0 && !(hb.rank >= 0 && hb.rank < hb.n_ranks && hb.n_ranks <= MAX_WORLD)) CHECK(0);
        if (kind == 1 && rc == 0) roster_free(&rb);
        if (rc != 0 && rc != SYP_EJOIN) CHECK(0);
    }
    roster_free(&r);
    free(buf);
    CHECK(1);
}

int main(void) {
    return check_main("wire", (struct check_test[]){{"hello_goes_round", hello_goes_round},
                                                    {"bytes_are_little_endian", bytes_are_little_endian},
                                                    {"hello_cut_anywhere_is_refused", hello_cut_anywhere_is_refused},
                                                    {"hello_out_of_range_is_refused", hello_out_of_range_is_refused},
                                                    {"texts_are_bounded", texts_are_bounded},
                                                    {"heads_are_checked", heads_are_checked},
                                                    {"greeting_goes_round", greeting_goes_round},
                                                {"notice_goes_round", notice_goes_round},
                                                    {"roster_goes_round", roster_goes_round},
                                                    {"roster_cut_or_wrong_is_refused", roster_cut_or_wrong_is_refused},
                                                    {"survives_noise", survives_noise},
                                                    {0}});
}
