/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/* Commit state: over a backend that only keeps accounts, and over real host memory. */
#include "pool/region.h"

#include "pool/base/log.h"
#include "pool/base/status.h"
#include "pool/stats.h"
#include "tests/support/check.h"
#include "tests/support/fake_os.h"
#include "tests/support/ranks.h"

#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>

#define KIB 1024ull
#define MIB (1024 * KIB)
#define CHUNK (64 * KIB)
#define LEN (200 * CHUNK) /* four words of bits, the last not full */

/* ------------------------------------------------------------------------------- a backend that keeps accounts */

static struct {
    pthread_mutex_t lock;
    uint8_t times[LEN / CHUNK]; /* each chunk was committed */
    unsigned calls;
    uint64_t off[64], len[64]; /* of the first calls */
    unsigned fail_call;        /* number of the call that is refused, 0 = none */
    int created;
    uint64_t unit;
} book = {.lock = PTHREAD_MUTEX_INITIALIZER, .unit = 4 * KIB};

static char place; /* nobody touches the memory of this backend */

static unsigned book_caps(void) {
    return 0;
}

static uint64_t book_granularity(int huge) {
    return huge ? 2 * MIB : book.unit;
}

static int book_create(struct backend_region *r, const struct backend_request *req, void *at) {
    *r = (struct backend_region){.base = at ? at : &place, .len = req->len, .fd = req->shared ? 1000 : -1};
    book.created++;
    return SYP_OK;
}

static int book_destroy(struct backend_region *r) {
    r->base = NULL;
    book.created--;
    return SYP_OK;
}

static int book_commit(struct backend_region *r, uint64_t off, uint64_t len) {
    CHECK(off % CHUNK == 0 && len > 0 && off + len <= r->len && (len % CHUNK == 0 || off + len == r->len));
    pthread_mutex_lock(&book.lock);
    unsigned call = ++book.calls;
    int refused = call == book.fail_call;
    if (call <= 64) {
        book.off[call - 1] = off;
        book.len[call - 1] = len;
    }
    for (uint64_t i = off / CHUNK; !refused && i * CHUNK < off + len; i++)
        book.times[i]++;
    pthread_mutex_unlock(&book.lock);
    return refused ? err_set(SYP_ENOMEM, "commit: the test says no") : SYP_OK;
}

static const struct backend_ops book_keeper = {.name = "book",
                                               .caps = book_caps,
                                               .granularity = book_granularity,
                                               .create = book_create,
                                               .destroy = book_destroy,
                                               .commit = book_commit};

static struct region_conf conf_of(uint64_t len) {
    return (struct region_conf){
        .backend = &book_keeper, .len = len, .meta = 0, .shared = 1, .chunk = CHUNK, .name = "region test"};
}

static void open_book(struct region *r, uint64_t len) {
    struct region_conf conf = conf_of(len);
    memset(book.times, 0, sizeof book.times);
    book.calls = book.fail_call = 0;
    CHECK_EQ(region_open(r, &conf), SYP_OK);
}

/* ----------------------------------------------------------------------------------------------------- tests */

static void rounding(void) {
    static const struct {
        uint64_t len, meta;
        int huge;
        uint64_t want_len, want_meta;
    } cases[] = {{1, 0, 0, 4 * KIB, 0},
                 {4 * KIB, 4 * KIB, 0, 4 * KIB, 4 * KIB},
                 {4 * KIB + 1, 1, 0, 8 * KIB, 4 * KIB},
                 {64 * KIB, 64 * KIB, 1, 2 * MIB, 64 * KIB},
                 {2 * MIB + 1, 2 * MIB + 1, 1, 4 * MIB, 2 * MIB + 4 * KIB}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct region_conf conf = conf_of(cases[i].len);
        struct region r;
        uint64_t len, meta;
        conf.meta = cases[i].meta;
        conf.huge = cases[i].huge;
        region_round(&conf, &len, &meta);
        CHECK_EQ(len, cases[i].want_len);
        CHECK_EQ(meta, cases[i].want_meta);
        CHECK_EQ(region_open(&r, &conf), SYP_OK);
        CHECK_EQ(r.len, len);
        CHECK_EQ(r.meta, meta);
        CHECK_EQ(r.chunk, cases[i].huge ? 2 * MIB : CHUNK); /* at least the granularity */
        region_close(&r);
    }
    CHECK_EQ(book.created, 0);
}

static void bad_conf(void) {
    struct region r;
    struct region_conf conf;
    static const struct {
        uint64_t len, meta, chunk;
    } bad[] = {{0, 0, CHUNK},         {UINT64_MAX, 0, CHUNK},   {PTRDIFF_MAX, 0, CHUNK},
               {LEN, LEN + 1, CHUNK}, {LEN, UINT64_MAX, CHUNK}, {LEN, 0, 0},
               {LEN, 0, 3},           {LEN, 0, CHUNK + 1}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        conf = conf_of(bad[i].len);
        conf.meta = bad[i].meta;
        conf.chunk = bad[i].chunk;
        CHECK_EQ(region_open(&r, &conf), SYP_EINVAL);
        CHECK_HAS(syp_error_text(), "region test");
        region_close(&r); /* after a failed open: nothing */
    }
    CHECK_EQ(book.created, 0);
}

static void commits_what_is_missing(void) {
    struct region r;
    open_book(&r, LEN);
    CHECK_EQ(r.committed, 0);
    CHECK_EQ(region_commit(&r, 0, 0), SYP_OK);
    CHECK_EQ(book.calls, 0);
    CHECK_EQ(region_commit(&r, CHUNK + 5, 1), SYP_OK); /* chunk 1 */
    CHECK_EQ(region_commit(&r, CHUNK, CHUNK), SYP_OK); /* nothing more */
    CHECK_EQ(book.calls, 1);
    CHECK_EQ(region_commit(&r, 3 * CHUNK - 1, 2), SYP_OK); /* chunks 2 and 3 */
    CHECK_EQ(book.calls, 2);
    CHECK_EQ(region_commit(&r, 70 * CHUNK, CHUNK), SYP_OK);
    CHECK_EQ(r.committed, 4 * CHUNK);
    CHECK_EQ(stats_read(STAT_COMMITTED), 4 * CHUNK);
    /* 0, 4 .. 69 over a word border, 71 .. 129: three runs, one call each */
    CHECK_EQ(region_commit(&r, 100, 130 * CHUNK - 100), SYP_OK);
    CHECK_EQ(book.calls, 6);
    CHECK(book.off[3] == 0 && book.len[3] == CHUNK);
    CHECK(book.off[4] == 4 * CHUNK && book.len[4] == 66 * CHUNK);
    CHECK(book.off[5] == 71 * CHUNK && book.len[5] == 59 * CHUNK);
    CHECK_EQ(r.committed, 130 * CHUNK);
    CHECK_EQ(region_commit(&r, 0, LEN), SYP_OK);
    CHECK_EQ(r.committed, LEN);
    CHECK_EQ(r.committed_peak, LEN);
    unsigned calls = book.calls;
    CHECK_EQ(region_commit(&r, 0, LEN), SYP_OK);
    CHECK_EQ(book.calls, calls);
    for (size_t i = 0; i < LEN / CHUNK; i++)
        CHECK_EQ(book.times[i], 1);
    CHECK_EQ(region_commit(&r, LEN, 1), SYP_EINVAL);
    CHECK_EQ(region_commit(&r, LEN - 1, 2), SYP_EINVAL);
    CHECK_EQ(region_commit(&r, 1, UINT64_MAX), SYP_EINVAL);
    CHECK_EQ(region_commit(&r, UINT64_MAX, 1), SYP_EINVAL);
    region_close(&r);
    CHECK_EQ(stats_read(STAT_COMMITTED), 0);
    region_close(&r);
    CHECK_EQ(book.created, 0);
}

static void last_chunk_is_short(void) {
    struct region r;
    open_book(&r, 2 * CHUNK + 4 * KIB);
    CHECK_EQ(region_commit(&r, r.len - 1, 1), SYP_OK);
    CHECK(book.off[0] == 2 * CHUNK && book.len[0] == 4 * KIB);
    CHECK_EQ(r.committed, 4 * KIB);
    CHECK_EQ(region_commit(&r, 0, r.len), SYP_OK);
    CHECK_EQ(r.committed, r.len);
    region_close(&r);
    /* a region smaller than one chunk */
    open_book(&r, 4 * KIB);
    CHECK_EQ(region_commit(&r, 0, 1), SYP_OK);
    CHECK(book.len[0] == 4 * KIB && r.committed == 4 * KIB);
    region_close(&r);
}

static void fails_half_way(void) {
    struct region r;
    open_book(&r, LEN);
    CHECK_EQ(region_commit(&r, 5 * CHUNK, CHUNK), SYP_OK);
    CHECK_EQ(region_commit(&r, 8 * CHUNK, CHUNK), SYP_OK);
    book.fail_call = 4; /* 0-4 goes, 6-7 is refused, 9-19 is not reached */
    CHECK_EQ(region_commit(&r, 0, 20 * CHUNK), SYP_ENOMEM);
    CHECK_HAS(syp_error_text(), "pool of 12.5 MiB, 448 KiB committed, ");
    CHECK_HAS(syp_error_text(), " more: commit: the test says no");
    CHECK_EQ(r.committed, 7 * CHUNK);
    CHECK_EQ(stats_read(STAT_COMMITTED), 7 * CHUNK);
    for (size_t i = 0; i < 20; i++)
        CHECK_EQ(book.times[i], i <= 5 || i == 8);
    /* what is committed stays usable without the backend; the rest is asked for again */
    unsigned calls = book.calls;
    CHECK_EQ(region_commit(&r, 0, 6 * CHUNK), SYP_OK);
    CHECK_EQ(book.calls, calls);
    CHECK_EQ(region_commit(&r, 0, 20 * CHUNK), SYP_OK);
    CHECK_EQ(book.calls, calls + 2);
    for (size_t i = 0; i < 20; i++)
        CHECK_EQ(book.times[i], 1);
    CHECK_EQ(r.committed, 20 * CHUNK);
    region_close(&r);
}

static void all_at_open(void) {
    struct region r;
    struct region_conf conf = conf_of(LEN);
    conf.commit_full = 1;
    book.calls = book.fail_call = 0;
    CHECK_EQ(region_open(&r, &conf), SYP_OK);
    CHECK_EQ(book.calls, 1);
    CHECK_EQ(r.committed, LEN);
    region_close(&r);
    book.calls = 0;
    book.fail_call = 1;
    CHECK_EQ(region_open(&r, &conf), SYP_ENOMEM);
    CHECK_EQ(book.created, 0);
    CHECK(!region_contains(&r, &place));
    region_close(&r);
}

/* Private memory is not the rank's pool: its figures stay out. */
static void private_is_not_counted(void) {
    struct region pool, private_memory;
    struct region_conf conf = conf_of(LEN);
    open_book(&pool, LEN);
    CHECK_EQ(region_commit(&pool, 0, 3 * CHUNK), SYP_OK);
    conf.shared = 0;
    CHECK_EQ(region_open(&private_memory, &conf), SYP_OK);
    CHECK_EQ(region_commit(&private_memory, 0, 9 * CHUNK), SYP_OK);
    CHECK_EQ(private_memory.committed, 9 * CHUNK);
    CHECK_EQ(stats_read(STAT_COMMITTED), 3 * CHUNK);
    region_close(&private_memory);
    CHECK_EQ(stats_read(STAT_COMMITTED), 3 * CHUNK);
    region_close(&pool);
}

static void random_against_model(void) {
    struct region r;
    uint8_t model[LEN / CHUNK] = {0};
    uint64_t seed = check_seed(), committed = 0;
    open_book(&r, LEN);
    for (uint64_t n = check_count(2000, 200000); n > 0; n--) {
        uint64_t off = check_random(&seed) % LEN, len = check_random(&seed) % (seed & 1 ? 2 * CHUNK : LEN / 8);
        if (len > LEN - off) len = LEN - off;
        int want_failure = check_random(&seed) % 4 == 0;
        book.fail_call = want_failure ? book.calls + 1 + (unsigned)(check_random(&seed) % 2) : 0;
        int rc = region_commit(&r, off, len);
        CHECK(rc == SYP_OK || (want_failure && rc == SYP_ENOMEM));
        committed = 0;
        for (uint64_t i = 0; i < LEN / CHUNK; i++) {
            int inside = len > 0 && i >= off / CHUNK && i <= (off + len - 1) / CHUNK;
            if (inside && rc == SYP_OK) model[i] = 1;
            if (inside && rc != SYP_OK && book.times[i]) model[i] = 1;
            if (book.times[i] != model[i]) CHECK_EQ(book.times[i], model[i]);
            committed += model[i] * CHUNK;
        }
        CHECK_EQ(r.committed, committed);
        if (committed > LEN * 3 / 4) { /* start again: a full region tests nothing */
            region_close(&r);
            open_book(&r, LEN);
            memset(model, 0, sizeof model);
        }
    }
    region_close(&r);
}

static struct region shared_by_threads;
static atom32 go; /* relaxed: nothing but the region may order the threads */

static void *commit_at_random(void *arg) {
    uint64_t seed = (uint64_t)(uintptr_t)arg * 0x9E3779B97F4A7C15ull | 1;
    while (load_relaxed(&go) == 0)
        os->yield();
    for (int i = 0; i < 400; i++) {
        uint64_t off = check_random(&seed) % LEN, len = 1 + check_random(&seed) % (3 * CHUNK);
        if (len > LEN - off) len = LEN - off;
        if (region_commit(&shared_by_threads, off, len) != SYP_OK) return arg;
        /* what this call answered for is there, whoever committed it, and may be used: read without a lock, so that
         * ThreadSanitizer sees whether the bits order it */
        for (uint64_t c = off / CHUNK; c <= (off + len - 1) / CHUNK; c++)
            if (book.times[c] != 1) return arg;
    }
    return NULL;
}

static void threads(void) {
    for (uint64_t round = check_count(20, 100); round > 0; round--) {
        pthread_t t[4];
        int started = 1;
        open_book(&shared_by_threads, LEN);
        store_relaxed(&go, 0);
        for (uintptr_t i = 0; i < 4; i++)
            started &= pthread_create(&t[i], NULL, commit_at_random, (void *)(i + 1)) == 0;
        store_relaxed(&go, 1); /* no check before the end: it takes a lock, which orders, too */
        for (int i = 0; started && i < 4; i++) {
            void *failed = NULL;
            CHECK_EQ(pthread_join(t[i], &failed), 0);
            CHECK(failed == NULL);
        }
        CHECK(started);
        uint64_t sum = 0;
        for (size_t i = 0; i < LEN / CHUNK; i++)
            sum += book.times[i] * CHUNK;
        CHECK_EQ(shared_by_threads.committed, sum);
        region_close(&shared_by_threads);
    }
}

/* ------------------------------------------------------------------------------------------------ host memory */

static void host_memory(void) {
    struct region r;
    struct stat st;
    struct region_conf conf = conf_of(16 * MIB);
    conf.backend = &backend_host;
    conf.chunk = 2 * MIB;
    conf.meta = 5000;
    CHECK_EQ(region_open(&r, &conf), SYP_OK);
    CHECK_EQ(r.meta, round_up(5000, os_page_size()));
    CHECK(region_contains(&r, region_at(&r, 0)) && region_contains(&r, region_at(&r, r.len - 1)));
    CHECK(!region_contains(&r, region_at(&r, 0) - 1) && !region_contains(&r, (char *)region_at(&r, 0) + r.len));
    CHECK_EQ(region_offset(&r, region_at(&r, 12345)), 12345);
    CHECK_EQ(region_commit(&r, 3 * MIB, 2 * MIB), SYP_OK);
    CHECK(fstat(r.mem.fd, &st) == 0 && st.st_blocks * 512 == 4 * (long)MIB);
    CHECK_EQ(r.committed, 4 * MIB);
    memset(region_at(&r, 2 * MIB), 1, 4 * MIB);

    fake_os_on();
    fake_os_fail_op("file_commit", 1, ENOSPC);
    CHECK_EQ(region_commit(&r, 6 * MIB, 1), SYP_ENOMEM);
    CHECK_HAS(syp_error_text(), "pool of 16 MiB, 4 MiB committed, ");
    CHECK_HAS(syp_error_text(), " more: commit 2 MiB at offset 6 MiB: fallocate: ENOSPC");
    fake_os_off();
    CHECK_EQ(region_commit(&r, 6 * MIB, 1), SYP_OK);
    region_close(&r);
}

static void nothing_is_left(void) {
    for (int shared = 0; shared <= 1; shared++) {
        int failed;
        unsigned n = 0;
        do {
            struct region r;
            struct region_conf conf = conf_of(16 * MIB);
            conf.backend = &backend_host;
            conf.shared = shared;
            conf.commit_full = 1;
            fake_os_on();
            fake_os_fail(++n, ENOMEM);
            int rc = region_open(&r, &conf);
            failed = fake_os_last() != NULL;
            if (rc == SYP_OK)
                region_close(&r);
            else
                CHECK(rc == SYP_ENOMEM || rc == SYP_ESYS);
            CHECK_EQ(fake_os_open_fds(), 0);
            CHECK_EQ(fake_os_mapped_bytes(), 0);
            fake_os_off();
        } while (failed && n < 100);
        CHECK(n > 2 && n < 100);
    }
}

/* A place that cannot be given up is said, and the region is closed all the same. */
static char line[512];
static void keep_line(void *arg, int level, const char *text) {
    (void)arg;
    (void)level;
    snprintf(line, sizeof line, "%s", text);
}

static void close_refused(void) {
    struct region r;
    struct region_conf conf = conf_of(16 * MIB);
    void *window;
    conf.backend = &backend_host;
    CHECK_EQ(os->reserve("window", 16 * MIB, 2 * MIB, &window), 0);
    conf.at = window;
    CHECK_EQ(region_open(&r, &conf), SYP_OK);
    CHECK(r.mem.base == window);
    syp_log_set(keep_line, NULL);
    int fd = r.mem.fd;
    fake_os_on();
    fake_os_fail_op("map", 1, ENOMEM);
    region_close(&r);
    fake_os_off();
    syp_log_set(NULL, NULL);
    CHECK_HAS(line, "close the pool: unmap 16 MiB");
    CHECK(!region_contains(&r, window));
    CHECK_EQ(os->release(window, 16 * MIB), 0);
    CHECK_EQ(os->close(fd), -EBADF); /* given back all the same */
}

/* ------------------------------------------------------------------------------------------- limits of the machine */

/* Only /proc/meminfo is there, and says what the test wants: at the first look, and later. */
static uint64_t memory_first, memory_later;
static unsigned looks;
static int meminfo_read;
static const struct os_ops *real_os;
enum { MEMINFO_FD = 99999 };

static int meminfo_open_read(const char *path) {
    if (strcmp(path, "/proc/meminfo") != 0) return -ENOENT;
    meminfo_read = 0;
    looks++;
    return MEMINFO_FD;
}

static int64_t meminfo_text(int fd, void *buf, size_t len) {
    CHECK_EQ(fd, MEMINFO_FD);
    if (meminfo_read++) return 0;
    unsigned long long free_now = looks == 1 ? memory_first : memory_later;
    return snprintf(buf, len, "MemTotal: 1000000 kB\nMemAvailable: %llu kB\n", free_now / KIB);
}

static int meminfo_close(int fd) {
    return fd == MEMINFO_FD ? 0 : real_os->close(fd);
}

static void meminfo_on(uint64_t first, uint64_t later) {
    static struct os_ops table;
    table = *os;
    table.open_read = meminfo_open_read;
    table.read = meminfo_text;
    table.close = meminfo_close;
    memory_first = first;
    memory_later = later;
    looks = 0;
    real_os = os_swap(&table);
}

/* Other ranks take memory while a large commit is under way: what it got so far goes back. */
static void a_commit_that_meets_a_limit_half_way_gives_back(void) {
    struct region r;
    struct region_conf conf = conf_of(16 * MIB);
    struct stat st;
    conf.backend = &backend_host;
    CHECK_EQ(region_open(&r, &conf), SYP_OK);
    CHECK_EQ(region_commit(&r, 14 * MIB, MIB), SYP_OK);
    meminfo_on(30 * MIB, 20 * MIB);
    CHECK_EQ(region_commit(&r, 0, 12 * MIB), SYP_ENOMEM);
    os_swap(real_os);
    CHECK_EQ(looks, 2);
    CHECK_HAS(syp_error_text(), "pool of 16 MiB, 1 MiB committed, 12 MiB more: this machine: memory");
    CHECK_EQ(r.committed, MIB);
    CHECK(fstat(r.mem.fd, &st) == 0 && (uint64_t)st.st_blocks * 512 == MIB);

    meminfo_on(20 * MIB, 20 * MIB); /* refused at once: nothing was committed */
    CHECK_EQ(region_commit(&r, 0, 12 * MIB), SYP_ENOMEM);
    os_swap(real_os);
    CHECK_EQ(looks, 1);
    meminfo_on(30 * MIB, 30 * MIB);
    CHECK_EQ(region_commit(&r, 0, 12 * MIB), SYP_OK);
    CHECK_EQ(looks, 3);
    CHECK_EQ(region_commit(&r, 0, 12 * MIB), SYP_OK); /* committed already: nothing is read */
    CHECK_EQ(looks, 3);
    os_swap(real_os);
    CHECK_EQ(r.committed, 13 * MIB);
    region_close(&r);
}

int main(void) {
    return check_main("region", (struct check_test[]){{"rounding", rounding},
                                                      {"bad_conf", bad_conf},
                                                      {"commits_what_is_missing", commits_what_is_missing},
                                                      {"last_chunk_is_short", last_chunk_is_short},
                                                      {"fails_half_way", fails_half_way},
                                                      {"all_at_open", all_at_open},
                                                      {"private_is_not_counted", private_is_not_counted},
                                                      {"random_against_model", random_against_model},
                                                      {"threads", threads},
                                                      {"host_memory", host_memory},
                                                      {"nothing_is_left", nothing_is_left},
                                                      {"close_refused", close_refused},
                                                      {"a_commit_that_meets_a_limit_half_way_gives_back", a_commit_that_meets_a_limit_half_way_gives_back},
                                                      {0}});
}
