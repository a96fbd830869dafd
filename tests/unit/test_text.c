/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool/base/text: the formatter against snprintf, cutting, and the parsers' tables.
 */
#include "pool/base/text.h"
#include "tests/support/check.h"

#include <errno.h>
#include <limits.h>

static uint64_t state;

static uint64_t any(void) {
    /* small, large and everything between */
    return check_random(&state) >> (check_random(&state) % 64);
}

/* The formats are literals so that the compiler checks them for snprintf. */
static void same_as_snprintf(void) {
    static const char *const words[] = {"", "a", "pool", "0123456789", "a longer text with blanks"};
    state = check_seed();
    for (uint64_t i = check_count(20000, 2000000); i > 0; i--) {
        uint64_t v = any();
        const char *w = words[check_random(&state) % 5];
        int precision = (int)(check_random(&state) % 12);
        char want[200], got[200];
        size_t cap = 1 + check_random(&state) % sizeof want;
#define BOTH(...) (snprintf(want, cap, __VA_ARGS__), text_format(got, cap, __VA_ARGS__))
        size_t len = 0;
        switch (check_random(&state) % 12) {
        case 0:
            len = BOTH("%d %u %x|%08x", (int)v, (unsigned)v, (unsigned)v, (unsigned)v);
            break;
        case 1:
            len = BOTH("%ld %lu %lx", (long)v, (unsigned long)v, (unsigned long)v);
            break;
        case 2:
            len = BOTH("%lld %llu %llx", (long long)v, (unsigned long long)v, (unsigned long long)v);
            break;
        case 3:
            len = BOTH("%zu %zx %zd", (size_t)v, (size_t)v, (ssize_t)v);
            break;
        case 4:
            len = BOTH("<%s> %.*s", w, precision, w);
            break;
        case 5:
            len = BOTH("%c%c 100%%", (char)('a' + v % 26), (char)('0' + v % 10));
            break;
        case 6:
            len = BOTH("%p", (void *)(uintptr_t)(v | 1));
            break;
        case 7:
            len = BOTH("%5d|%05d|%20s|%3u", (int)v, (int)v, w, (unsigned)v);
            break;
        case 8:
            len = BOTH("%016llx", (unsigned long long)v);
            break;
        case 9:
            len = BOTH("%d%s%d", -(int)(v >> 33), w, INT_MIN);
            break;
        case 10:
            len = BOTH("%lld %lld", LLONG_MIN, LLONG_MAX);
            break;
        case 11:
            len = BOTH("%.3s %% %.20s", w, w);
            break;
        }
#undef BOTH
        if (strcmp(want, got) != 0 || len != strlen(want)) {
            CHECK_STR(got, want);
            CHECK_EQ(len, strlen(want));
            return;
        }
    }
    CHECK(1);
}

static void sizes_as_people_say_them(void) {
    static const struct {
        unsigned long long v;
        const char *text;
    } table[] = {
        {0, "0 B"},
        {1, "1 B"},
        {1023, "1023 B"},
        {1024, "1 KiB"},
        {4096, "4 KiB"},
        {4097, "4097 B"},
        {1280, "1.25 KiB"},
        {1536, "1.5 KiB"},
        {1792, "1.75 KiB"},
        {1048576, "1 MiB"},
        {1052672, "1028 KiB"},
        {1610612736, "1.5 GiB"},
        {1ull << 40, "1 TiB"},
        {1ull << 63, "8388608 TiB"},
        {~0ull, "18446744073709551615 B"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char buf[64];
        text_format(buf, sizeof buf, "%B", table[i].v);
        CHECK_STR(buf, table[i].text);
    }
}

static void cut_and_terminated(void) {
    char buf[8];
    struct text t = TEXT_INIT(buf);
    memset(buf, 'x', sizeof buf);
    text_addf(&t, "%s", "");
    CHECK_STR(buf, "");
    text_addf(&t, "abc%d", 1234567);
    CHECK_STR(buf, "abc1234");
    CHECK_EQ(t.len, 7);
    text_addf(&t, "%020d %s %B", 1, "more", 1ull);
    CHECK_STR(buf, "abc1234");
    CHECK_EQ(text_format(buf, 1, "abc"), 0);
    CHECK_STR(buf, "");
    text_copy(buf, sizeof buf, "0123456789");
    CHECK_STR(buf, "0123456");
    text_copy(buf, 4, "01");
    CHECK_STR(buf, "01");
    CHECK_EQ(text_format(buf, sizeof buf, "%s", (const char *)NULL), 6);
    CHECK_STR(buf, "(null)");
    /* a conversion that does not exist ends the formatting visibly */
    CHECK_EQ(text_format(buf, sizeof buf, "a%q %d", 1), 6);
    CHECK_STR(buf, "a%q %d");
}

static void rank_lists(void) {
    static const struct {
        const char *set, *text;
    } table[] = {{"0000", ""},
                 {"1000", "0"},
                 {"0001", "3"},
                 {"1100", "0, 1"},
                 {"1110", "0-2"},
                 {"1111", "0-3"},
                 {"110111110", "0, 1, 3-7"},
                 {"10101", "0, 2, 4"},
                 {"1011", "0, 2, 3"}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        uint8_t set[16];
        int n = (int)strlen(table[i].set);
        for (int k = 0; k < n; k++)
            set[k] = table[i].set[k] == '1';
        char buf[64];
        struct text t = TEXT_INIT(buf);
        text_add_ranks(&t, set, n);
        CHECK_STR(buf, table[i].text);
    }
}

static void errno_names(void) {
    char buf[64];
    struct text t = TEXT_INIT(buf);
    text_add_errno(&t, ENOSPC);
    CHECK_STR(buf, "ENOSPC (No space left on device)");
    t.len = 0;
    text_add_errno(&t, 4242);
    CHECK_STR(buf, "errno 4242");
    /* the list against the C library's */
    for (int e = 1; e < 134; e++) {
        const char *name = strerrorname_np(e);
        char want[128];
        t.len = 0;
        text_add_errno(&t, e);
        if (strncmp(buf, "errno ", 6) == 0 || !name) continue;
        snprintf(want, sizeof want, "%s (%s)", name, strerrordesc_np(e));
        CHECK_STR(buf, want);
    }
}

static void numbers(void) {
    uint64_t u;
    int64_t i;
    CHECK(text_to_u64("0", &u) == 0 && u == 0);
    CHECK(text_to_u64("18446744073709551615", &u) == 0 && u == UINT64_MAX);
    CHECK(text_to_u64("007", &u) == 0 && u == 7);
    static const char *const bad[] = {
        "", " 1", "1 ", "+1", "-1", "1x", "0x10", "18446744073709551616", "1.0", "99999999999999999999"};
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        u = 77;
        if (!CHECK(text_to_u64(bad[k], &u) == -1)) fprintf(stderr, "accepted \"%s\"\n", bad[k]);
        CHECK_EQ(u, 77);
    }
    CHECK(text_to_i64("-9223372036854775808", &i) == 0 && i == INT64_MIN);
    CHECK(text_to_i64("9223372036854775807", &i) == 0 && i == INT64_MAX);
    CHECK(text_to_i64("-1", &i) == 0 && i == -1);
    CHECK(text_to_i64("9223372036854775808", &i) == -1);
    CHECK(text_to_i64("-9223372036854775809", &i) == -1);
    CHECK(text_to_i64("--1", &i) == -1);
    CHECK(text_to_i64("-", &i) == -1);
    CHECK(text_to_i64("", &i) == -1);
    CHECK(text_to_i64("+1", &i) == -1);
}

static void sizes(void) {
    static const struct {
        const char *text;
        uint64_t v;
    } good[] = {{"0", 0},
                {"1", 1},
                {"512M", 512ull << 20},
                {".5g", 1ull << 29},
                {"3.1M", 3250586},
                {"64KiB", 65536},
                {"64kb", 65536},
                {"64k", 65536},
                {"1T", 1ull << 40},
                {"1tib", 1ull << 40},
                {"0.1", 1},
                {"1.0", 1},
                {"1.5", 2},
                {"0.0000000000000000001", 1},
                {"1.0000000000000000000", 1},
                {"1.00000000000000000001k", 1025},
                {"16777215T", 16777215ull << 40},
                {"18446744073709551615", UINT64_MAX}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        uint64_t v = 77;
        CHECK_EQ(text_to_size(good[i].text, &v), 0);
        CHECK_EQ(v, good[i].v);
    }
    static const char *const bad[] = {"",
                                      "M",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1 M",
                                      "1MM",
                                      "1MiBs",
                                      "1e3",
                                      "1.",
                                      ".",
                                      "1.M",
                                      "1.2.3",
                                      "0x10",
                                      "1P",
                                      "5iB",
                                      "5B",
                                      "1i",
                                      "1Mi",
                                      "inf",
                                      "nan",
                                      "18446744073709551616",
                                      "16777216T",
                                      "99999999999999999999M"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t v = 77;
        if (!CHECK(text_to_size(bad[i], &v) == -1)) fprintf(stderr, "accepted \"%s\"\n", bad[i]);
        CHECK_EQ(v, 77);
    }
}

/* What the formatter prints, exactly, the parser reads back. */
static void sizes_there_and_back(void) {
    state = check_seed();
    for (uint64_t i = check_count(20000, 1000000); i > 0; i--) {
        uint64_t v = any() << (check_random(&state) % 40), back;
        char printed[64], text[64];
        size_t n = 0;
        text_format(printed, sizeof printed, "%B", (unsigned long long)v);
        for (const char *c = printed; *c; c++)
            if (*c != ' ') text[n++] = *c;
        text[n] = 0;
        if (n > 1 && text[n - 1] == 'B' && text[n - 2] != 'i') text[n - 1] = 0;
        if (text_to_size(text, &back) != 0 || back != v) {
            CHECK_STR(printed, "something that reads back");
            return;
        }
    }
    CHECK(1);
}

static void durations(void) {
    static const struct {
        const char *text;
        int64_t v;
    } good[] = {{"0", 0},
                {"1", 1000000000},
                {"30s", 30000000000},
                {"1ms", 1000000},
                {"50us", 50000},
                {"7ns", 7},
                {"1.5", 1500000000},
                {"0.5ms", 500000},
                {"2m", 120000000000},
                {"24h", 86400000000000},
                {".1s", 100000000},
                {"0.5ns", 1},
                {"2562047h", 2562047ll * 3600000000000ll}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        int64_t v = 77;
        CHECK_EQ(text_to_duration(good[i].text, &v), 0);
        CHECK_EQ(v, good[i].v);
    }
    static const char *const bad[] = {"",     "s",  "-1",  "-1s",      "1 s",        "1S",
                                      "1sec", "1d", "1.s", "2562048h", "9223372037", "1e9"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t v = 77;
        if (!CHECK(text_to_duration(bad[i], &v) == -1)) fprintf(stderr, "accepted \"%s\"\n", bad[i]);
        CHECK_EQ(v, 77);
    }
}

/* Random bytes: either refused, or within the grammar; never a crash (run with the address sanitizer). */
static void junk_is_refused_or_read(void) {
    static const char letters[] = "0123456789..kKmMgGtTiIbBnusmh -+ex";
    state = check_seed();
    for (uint64_t i = check_count(50000, 5000000); i > 0; i--) {
        char text[40];
        size_t n = check_random(&state) % sizeof text;
        for (size_t k = 0; k < n; k++)
            text[k] = letters[check_random(&state) % (sizeof letters - 1)];
        text[n] = 0;
        uint64_t u;
        int64_t d;
        if (text_to_size(text, &u) == 0 && !strpbrk(text, "0123456789")) CHECK_STR(text, "a number");
        if (text_to_duration(text, &d) == 0 && d < 0) CHECK_STR(text, "not negative");
        (void)text_to_u64(text, &u);
        (void)text_to_i64(text, &d);
    }
    CHECK(1);
}

int main(void) {
    return check_main("text", (struct check_test[]){{"same_as_snprintf", same_as_snprintf},
                                                    {"sizes_as_people_say_them", sizes_as_people_say_them},
                                                    {"cut_and_terminated", cut_and_terminated},
                                                    {"rank_lists", rank_lists},
                                                    {"errno_names", errno_names},
                                                    {"numbers", numbers},
                                                    {"sizes", sizes},
                                                    {"sizes_there_and_back", sizes_there_and_back},
                                                    {"durations", durations},
                                                    {"junk_is_refused_or_read", junk_is_refused_or_read},
                                                    {0}});
}
