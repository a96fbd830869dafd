/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One CUnit suite per test program:
 *
 *     static void adds(void) { CHECK_EQ(1 + 1, 2); }
 *     int main(void) { return check_main("arithmetic", (struct check_test[]){{"adds", adds}, {0}}); }
 *
 * Random tests take their seed from check_seed(), which prints it; SEED=... in the environment replays.  Counts come from
 * check_count(quick, full): the full one when SYP_CHECK=long.  A failed test names its file, line and both values.
 */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <CUnit/Basic.h>

struct check_test {
    const char *name;
    void (*run)(void);
};

/* Runs the tests whose name contains $ONLY (all when unset); 0 = all passed.  Arms a watchdog of $SYP_TEST_TIMEOUT seconds (default 300)
 * that dumps the stacks (gdb, when there) and ends the program: a hang is a failure. */
int check_main(const char *suite, const struct check_test *tests);
uint64_t check_seed(void);
uint64_t check_count(uint64_t quick, uint64_t full);
/* Say that a test cannot run here, and why; counted by tests/run.sh. */
void check_skip(const char *why);

/* 1 in a build whose times say nothing about the library's. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__SANITIZE_UNDEFINED__)
#define CHECK_SLOW_BUILD 1
#else
#define CHECK_SLOW_BUILD 0
#endif

/* xorshift; state never 0 */
static inline uint64_t check_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

int check_fail(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int check_pass(void);
/* Checks that failed so far, in any thread; a forked child starts with its parent's number. */
unsigned check_failures(void);

/* 1 = held.  The checks may be used in any thread. */
#define CHECK(cond) ((cond) ? check_pass() : check_fail(__FILE__, __LINE__, "%s", #cond))
#define CHECK_EQ(a, b)                                                                                                 \
    do {                                                                                                               \
        long long check_a = (long long)(a), check_b = (long long)(b);                                                  \
        if (check_a == check_b)                                                                                        \
            check_pass();                                                                                              \
        else                                                                                                           \
            check_fail(__FILE__, __LINE__, "%s is %lld, expected %s = %lld", #a, check_a, #b, check_b);                \
    } while (0)
#define CHECK_STR(a, b)                                                                                                \
    do {                                                                                                               \
        const char *check_a = (a), *check_b = (b);                                                                     \
        if (check_a && check_b && strcmp(check_a, check_b) == 0)                                                       \
            check_pass();                                                                                              \
        else                                                                                                           \
            check_fail(__FILE__, __LINE__, "%s is \"%s\", expected \"%s\"", #a, check_a ? check_a : "(null)",          \
                       check_b ? check_b : "(null)");                                                                  \
    } while (0)
/* text contains part */
#define CHECK_HAS(text, part)                                                                                          \
    do {                                                                                                               \
        const char *check_t = (text), *check_p = (part);                                                               \
        if (check_t && strstr(check_t, check_p))                                                                       \
            check_pass();                                                                                              \
        else                                                                                                           \
            check_fail(__FILE__, __LINE__, "\"%s\" lacks \"%s\"", check_t ? check_t : "(null)", check_p);              \
    } while (0)

#endif
