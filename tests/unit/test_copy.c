/* SPDX-License-Identifier: Apache-2.0 */
/* The copies, in every variant that runs here: exact, any alignment and length, nothing beside the destination touched. */
#include "collectives/copy.h"
#include "collectives/reduce.h"
#include "pool/base/atomic.h"
#include "pool/base/os.h"
#include "tests/support/check.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__x86_64__)
static const char *const levels[] = {"scalar", "avx2", "avx512"};
static const char *const lacking[] = {"", "no hardware: AVX2", "no hardware: AVX-512"};
#else
static const char *const levels[] = {"scalar", "neon"};
static const char *const lacking[] = {"", "no hardware: NEON"};
#endif

static void for_levels(void (*f)(void)) {
    for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++) {
        if (reduce_choose(levels[l]) == SYP_OK)
            f();
        else
            check_skip(lacking[l]);
    }
    CHECK_EQ(reduce_choose("auto"), SYP_OK);
}

/* One page or more of memory with inaccessible pages on both sides. */
static char *fenced(size_t len) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *p = mmap(NULL, len + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + page, len, PROT_READ | PROT_WRITE) != 0) abort();
    return p + page;
}

static void unfence(char *p, size_t len) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    munmap(p - page, len + 2 * page);
}

#define AREA ((size_t)64 << 10) /* a multiple of the page sizes there are */
static char *to, *from, *wanted;

static void random_bytes(char *p, size_t len, uint64_t *seed) {
    for (size_t i = 0; i + 8 <= len; i += 8)
        memcpy(p + i, &(uint64_t){check_random(seed)}, 8);
}

typedef void (*copy_fn)(void *, const void *, size_t);

static int one(copy_fn f, size_t d, size_t s, size_t len) {
    memset(to, 0x5a, AREA);
    memset(wanted, 0x5a, AREA);
    for (size_t i = 0; i < len; i++)
        wanted[d + i] = from[s + i];
    f(to + d, from + s, len);
    int ok = memcmp(to, wanted, AREA) == 0;
    if (!ok) check_fail(__FILE__, __LINE__, "%s: %zu bytes from %zu to %zu", reduce_level(), len, s, d);
    return ok;
}

static void lengths_and_alignments(void) {
    uint64_t seed = check_seed();
    random_bytes(from, AREA, &seed);
    copy_fn both[] = {copy_stream, copy_plain};
    for (int f = 0; f < 2; f++) {
        for (size_t a = 0; a < 64; a++) /* every alignment of the destination, lengths around 0 to 3 lines */
            for (size_t len = 0; len <= 200; len += 1 + check_random(&seed) % check_count(9, 1))
                if (!one(both[f], a, check_random(&seed) % 64, len)) return;
        for (int i = 0; i < 200; i++) { /* larger, and up to the ends of the mappings */
            size_t len = check_random(&seed) % AREA, d = check_random(&seed) % (AREA - len + 1), s = check_random(&seed) % (AREA - len + 1);
            if (i % 4 == 1) d = s = 0;
            if (i % 4 == 2) d = s = AREA - len;
            if (!one(both[f], d, s, len)) return;
        }
        CHECK(one(both[f], 0, 0, AREA));
    }
    copy_stream(NULL, NULL, 0);
    copy_plain(NULL, NULL, 0);
}

static void copies_are_exact(void) {
    to = fenced(AREA);
    from = fenced(AREA);
    wanted = malloc(AREA);
    for_levels(lengths_and_alignments);
    unfence(to, AREA);
    unfence(from, AREA);
    free(wanted);
}

static void rows_are_exact(void) {
    uint64_t seed = check_seed();
    to = fenced(AREA);
    from = fenced(AREA);
    wanted = malloc(AREA);
    random_bytes(from, AREA, &seed);
    for (size_t len = 0; len <= 300; len += len < 80 ? 1 : 37)
        for (int i = 0; i < 12; i++) {
            size_t rows = check_random(&seed) % 9, gap = i % 3 ? check_random(&seed) % 40 : 0;
            size_t ds = len + gap, ss = len + (i % 3 == 2 ? 0 : check_random(&seed) % 40) * (i % 3 != 0);
            size_t d_end = rows ? (rows - 1) * ds + len : 0, s_end = rows ? (rows - 1) * ss + len : 0;
            /* flush with either end of the mapping */
            size_t d = i % 2 ? AREA - d_end : 0, s = i % 2 ? AREA - s_end : 0;
            memset(to, 0x5a, AREA);
            memset(wanted, 0x5a, AREA);
            for (size_t r = 0; r < rows; r++)
                for (size_t j = 0; j < len; j++)
                    wanted[d + r * ds + j] = from[s + r * ss + j];
            copy_strided(to + d, ds, from + s, ss, len, rows);
            if (memcmp(to, wanted, AREA) == 0)
                check_pass();
            else
                check_fail(__FILE__, __LINE__, "%zu rows of %zu, strides %zu and %zu", rows, len, ds, ss);
        }
    unfence(to, AREA);
    unfence(from, AREA);
    free(wanted);
}

/* ------------------------------------------------------------------------------- streamed data and a plain flag */

enum { WORDS = 512 };
static struct {
    _Alignas(128) atom64 word[WORDS]; /* written by copy_stream */
    _Alignas(128) atom64 flag;        /* pairs: streamer's store with watcher's load */
    _Alignas(128) atom64 seen;        /* pairs: watcher's store with streamer's load */
} shared;
static const uint64_t done = UINT64_MAX;
static uint64_t early;

static void wait_while(atom64 *word, uint64_t value) {
    for (unsigned spins = 0; load_acquire(word) == value; spins++)
        spins % 4096 == 4095 ? (void)sched_yield() : cpu_relax();
}

static void *watcher(void *arg) {
    (void)arg;
    for (uint64_t r = 1;; r++) {
        wait_while(&shared.flag, r - 1);
        if (load_relaxed(&shared.flag) == done) return NULL;
        for (int i = WORDS - 1; i >= 0; i--)
            early += load_relaxed(&shared.word[i]) != r;
        store_release(&shared.seen, r);
    }
}

static void streams_before_flags(void) {
    uint64_t data[WORDS], rounds = check_count(50000, 1000000), end = os->now() + check_count(1000, 5000) * NS_PER_MS;
    pthread_t t;
    memset(&shared, 0, sizeof shared);
    early = 0;
    if (pthread_create(&t, NULL, watcher, NULL) != 0) abort();
    for (uint64_t r = 1; r <= rounds && os->now() < end; r++) { /* on a busy machine a round takes a time slice */
        for (int i = 0; i < WORDS; i++)
            data[i] = r;
        copy_stream((void *)shared.word, data, sizeof data);
        store_release(&shared.flag, r);
        wait_while(&shared.seen, r - 1);
    }
    store_release(&shared.flag, done);
    pthread_join(t, NULL);
    CHECK_EQ(early, 0);
}

static void what_was_streamed_is_seen_after_a_later_flag(void) {
    for_levels(streams_before_flags);
}

int main(void) {
    return check_main("copy", (struct check_test[]){{"copies_are_exact", copies_are_exact},
                                                    {"rows_are_exact", rows_are_exact},
                                                    {"what_was_streamed_is_seen_after_a_later_flag", what_was_streamed_is_seen_after_a_later_flag},
                                                    {0}});
}
