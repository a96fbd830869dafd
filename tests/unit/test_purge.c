/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/* Free memory goes back to the system, by time and by syp_trim: what is measured is the memory of the file and of the process. */
#include "pool/base/conf.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/heap.h"
#include "pool/symm.h"
#include "tests/support/check.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define KIB 1024ull
#define MIB (1024 * KIB)
#define SECOND 1000000000ull

/* ----------------------------------------------------------------------------- a clock of ours, and counted calls */

static uint64_t clock_ns;
static atom32 system_calls;
static struct os_ops table;

static uint64_t our_clock(void) {
    return clock_ns;
}

static int count_commit(int fd, uint64_t off, uint64_t len) {
    add_relaxed(&system_calls, 1);
    return os_linux.file_commit(fd, off, len);
}

static int count_punch(int fd, uint64_t off, uint64_t len) {
    add_relaxed(&system_calls, 1);
    return os_linux.file_punch(fd, off, len);
}

static int count_advise(void *addr, size_t len, int advice) {
    add_relaxed(&system_calls, 1);
    return os_linux.advise(addr, len, advice);
}

static struct region region;
static struct heap heap;
static struct symm symm;
static struct symm_call ring[SYMM_RING];

static void start(int shared, int64_t decay) {
    table = os_linux;
    table.now = our_clock;
    table.file_commit = count_commit;
    table.file_punch = count_punch;
    table.advise = count_advise;
    clock_ns = 1000 * SECOND;
    os_swap(&table);
    struct region_conf conf = {.backend = &backend_host, .len = 512 * MIB + 5 * 4096, .meta = 33 * MIB, .shared = shared,
                               .chunk = 2 * MIB, .name = "test"};
    memset(ring, 0, sizeof ring);
    CHECK_EQ(region_open(&region, &conf), SYP_OK);
    CHECK_EQ(heap_init(&heap, &region, 1), SYP_OK);
    CHECK_EQ(symm_init(&symm, &region, ring), SYP_OK);
    purge_init(&heap.purge, decay);
    symm.purge = heap.purge;
}

static void finish(void) {
    CHECK_EQ(heap_check(&heap), SYP_OK);
    CHECK_EQ(symm_check(&symm), SYP_OK);
    heap_fini(&heap);
    symm_fini(&symm);
    region_close(&region);
    os_swap(&os_linux);
}

static char *take(uint64_t len) {
    return heap_alloc(&heap, &(struct heap_want){.len = len, .align = 64});
}

static void give(void *p) {
    CHECK_EQ(heap_free(&heap, p), SYP_OK);
}

/* Pages of the file, or of this process in the region: what the system has spent on it. */
static uint64_t resident(void) {
    struct stat st;
    if (region.mem.fd >= 0) return fstat(region.mem.fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
    static unsigned char in_core[256 * 1024];
    uint64_t n = 0;
    CHECK_EQ(mincore(region.mem.base, region.len, in_core), 0);
    for (uint64_t i = 0; i < region.len / 4096; i++)
        n += in_core[i] & 1;
    return n * 4096;
}

static int all_are(const char *p, uint64_t len, char want) {
    for (uint64_t i = 0; i < len; i++)
        if (p[i] != want) return 0;
    return 1;
}

/* ---------------------------------------------------------------------------------------------------- trim */

static void trim_gives_all_free_chunks_back(void) {
    for (int shared = 0; shared < 2; shared++) {
        start(shared, PURGE_NEVER);
        char *live = take(MIB), *p = take(256 * MIB), *cached = take(16 * MIB), *wall = take(64);
        memset(live, 1, MIB);
        memset(p, 2, 256 * MIB);
        memset(cached, 3, 16 * MIB);
        memset(wall, 4, 64);
        CHECK(resident() >= 273 * MIB);
        give(p);
        give(cached);
        CHECK(heap.cache.bytes == 16 * MIB && resident() >= 273 * MIB);
        uint64_t before = region.committed, given = heap_trim(&heap);
        CHECK(given >= 270 * MIB && given <= 272 * MIB);
        CHECK_EQ(before - region.committed, given);
        CHECK_EQ(heap.cache.bytes, 0);
        CHECK(resident() < 7 * MIB);
        CHECK(all_are(live, MIB, 1) && all_are(wall, 64, 4));
        CHECK_EQ(heap_trim(&heap), 0);
        CHECK(take(256 * MIB) == p);
        CHECK(all_are(p, 256 * MIB, 0)); /* and committed again */
        finish();
    }
}

static void symmetric_trim_keeps_offsets(void) {
    start(1, PURGE_NEVER);
    char *a = symm_alloc(&symm, 8 * MIB, 64, 0), *b = symm_alloc(&symm, 8 * MIB, 64, 0), *c = symm_alloc(&symm, 17 * MIB, 64, 0);
    memset(a, 1, 33 * MIB);
    char *h = take(64); /* in the chunk that both parts share */
    *h = 5;
    CHECK(symm_free(&symm, a) == SYP_OK && symm_free(&symm, c) == SYP_OK);
    uint64_t calls, digest, calls2, digest2;
    symm_position(&symm, &calls, &digest);
    CHECK_EQ(symm_trim(&symm), 24 * MIB); /* not the half chunk at the end */
    symm_position(&symm, &calls2, &digest2);
    CHECK(calls == calls2 && digest == digest2);
    CHECK(resident() <= 10 * MIB);
    CHECK(all_are(b, 8 * MIB, 1) && *h == 5);
    CHECK(symm_alloc(&symm, 8 * MIB, 64, 0) == a);
    finish();
}

static void peers_see_zeros(void) {
    start(1, PURGE_NEVER);
    char *p = take(4 * MIB), *peer = mmap(NULL, region.len, PROT_READ | PROT_WRITE, MAP_SHARED, region.mem.fd, 0);
    memset(p, 1, 4 * MIB);
    uint64_t off = region_offset(&region, p);
    give(p);
    CHECK(heap_trim(&heap) > 0);
    CHECK(all_are(peer + round_up(off, 2 * MIB), 2 * MIB, 0)); /* a SIGBUS would end this program */
    munmap(peer, region.len);
    finish();
}

static void quarantined_chunks_stay(void) {
    start(1, PURGE_NEVER);
    char *p = take(64 * MIB), *s = symm_alloc(&symm, 32 * MIB, 64, 0);
    memset(p, 1, 64 * MIB);
    memset(s, 1, 32 * MIB);
    CHECK_EQ(quarantine_add(&region.quarantine, 1, region_offset(&region, p) + 30 * MIB, 64), SYP_OK);
    CHECK_EQ(quarantine_add(&region.quarantine, 1, 5 * MIB, 64), SYP_OK);
    give(p);
    CHECK_EQ(symm_free(&symm, s), SYP_OK);
    CHECK_EQ(heap_trim(&heap), 0); /* parked whole */
    CHECK_EQ(symm_trim(&symm), 30 * MIB);
    CHECK(all_are(p, 64 * MIB, 1) && all_are(s + 4 * MIB, 2 * MIB, 1) && all_are(s, 4 * MIB, 0));
    CHECK_EQ(quarantine_remove(&region.quarantine, 1), 2);
    heap_quarantine_release(&heap);
    CHECK(heap_trim(&heap) >= 62 * MIB);
    CHECK_EQ(symm_trim(&symm), 2 * MIB);
    finish();
}

static int refuse_punch(int fd, uint64_t off, uint64_t len) {
    (void)fd, (void)off, (void)len;
    return -ENOSYS;
}

static void refusal_of_the_system_is_no_failure(void) {
    start(1, PURGE_NEVER);
    char *p = take(64 * MIB);
    memset(p, 1, 64 * MIB);
    give(p);
    table.file_punch = refuse_punch;
    *err_record() = (struct syp_error){.size = sizeof(struct syp_error)};
    uint64_t before = region.committed;
    CHECK_EQ(heap_trim(&heap), 0);
    CHECK(region.committed == before && err_record()->code == SYP_OK);
    CHECK(take(64 * MIB) == p);
    finish();
}

/* --------------------------------------------------------------------------------------------------- decay */

static void memory_goes_after_the_time(void) {
    for (int shared = 0; shared < 2; shared++) {
        start(shared, 10 * SECOND);
        char *p = take(256 * MIB), *cached = take(16 * MIB);
        memset(p, 1, 256 * MIB);
        memset(cached, 1, 16 * MIB);
        give(p);
        give(cached);
        for (int i = 0; i < 95; i++) { /* 9.5 s of other work */
            clock_ns += SECOND / 10;
            give(take(20 * KIB));
        }
        CHECK(resident() >= 272 * MIB);
        clock_ns += 3 * SECOND;
        uint64_t last = resident();
        for (int i = 0; i < 200 && resident() > 5 * MIB; i++) {
            give(take(64));
            CHECK(last - resident() <= 2 * 66 * MIB); /* in parts: no call of the two pays for everything */
            last = resident();
        }
        CHECK(resident() <= 5 * MIB);
        CHECK(heap.cache.bytes <= 20 * KIB); /* in the chunk that the last calls used */
        finish();
    }
}

static void steady_state_makes_no_system_call(void) {
    static const uint64_t lens[] = {20 * KIB, 4 * MIB, 64 * MIB, 300 * MIB}; /* the last is too long for the cache */
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        start(1, 10 * SECOND);
        give(take(lens[i]));
        uint32_t before = load_relaxed(&system_calls);
        for (int n = 0; n < 10000; n++) {
            clock_ns += SECOND / 50;
            give(take(lens[i]));
        }
        CHECK_EQ(load_relaxed(&system_calls), before);
        finish();
    }
}

static void long_computation_keeps_its_next_block(void) {
    start(1, 10 * SECOND);
    char *p = take(300 * MIB);
    clock_ns += 3600 * SECOND; /* live all the time */
    give(p);
    uint32_t before = load_relaxed(&system_calls);
    CHECK(take(300 * MIB) == p);
    CHECK_EQ(load_relaxed(&system_calls), before);
    finish();
}

static void zero_is_at_once_and_off_is_never(void) {
    start(1, 0);
    char *p = take(16 * MIB);
    memset(p, 1, 16 * MIB);
    give(p);
    CHECK(resident() <= 4 * MIB);
    p = symm_alloc(&symm, 16 * MIB, 64, 0);
    memset(p, 1, 16 * MIB);
    CHECK_EQ(symm_free(&symm, p), SYP_OK);
    CHECK(resident() <= 4 * MIB);
    finish();
    start(1, PURGE_NEVER);
    p = take(256 * MIB);
    give(p);
    for (int i = 0; i < 1000; i++) {
        clock_ns += 3600 * SECOND;
        give(take(64 * KIB));
    }
    CHECK(resident() >= 256 * MIB);
    finish();
}

static void symmetric_memory_decays(void) {
    start(1, 10 * SECOND);
    char *p = symm_alloc(&symm, 16 * MIB, 64, 0);
    memset(p, 1, 16 * MIB);
    CHECK_EQ(symm_free(&symm, p), SYP_OK);
    clock_ns += 9 * SECOND;
    char *q = symm_alloc(&symm, 64, 64, 0);
    CHECK(resident() >= 16 * MIB);
    clock_ns += 4 * SECOND;
    CHECK_EQ(symm_free(&symm, q), SYP_OK);
    CHECK(resident() <= 2 * MIB);
    finish();
}

/* --------------------------------------------------------------------------------- beside other threads' work */

static atom32 working;

static void *work(void *arg) {
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    uintptr_t wrong = 0;
    int rounds = (int)check_count(1500, 30000);
    for (int i = 0; i < rounds; i++) {
        uint64_t len = 1 + check_random(&seed) % (check_random(&seed) % 4 ? 100 * KIB : 6 * MIB);
        char fill = (char)(check_random(&seed) | 1), *p = take(len);
        if (!p) continue;
        p[0] = p[len / 2] = p[len - 1] = fill;
        uint64_t more = len + check_random(&seed) % MIB;
        if (check_random(&seed) % 4 == 0 && heap_resize(&heap, p, more) == 1) p[more - 1] = 1;
        wrong += p[0] != fill || p[len / 2] != fill;
        wrong += heap_free(&heap, p) != SYP_OK;
    }
    store_release(&working, 0);
    return (void *)wrong;
}

static void trimming_beside_allocations_loses_nothing(void) {
    for (int shared = 0; shared < 2; shared++) {
        start(shared, shared ? 0 : 10 * SECOND);
        uint64_t seed = check_seed();
        pthread_t t[3];
        store_release(&working, 1);
        for (uintptr_t i = 0; i < 3; i++)
            CHECK_EQ(pthread_create(&t[i], NULL, work, (void *)(uintptr_t)(seed * 7 + i)), 0);
        while (load_acquire(&working)) {
            heap_trim(&heap);
            os_linux.sleep(200000);
        }
        for (int i = 0; i < 3; i++) {
            void *wrong;
            pthread_join(t[i], &wrong);
            CHECK(wrong == NULL);
        }
        heap_trim(&heap);
        CHECK(resident() <= 2 * MIB);
        CHECK_EQ(region.committed <= 2 * MIB, 1);
        finish();
    }
}

/* ----------------------------------------------------------------------------------------------- interface */

static uint64_t committed(void) {
    syp_pool_info i = {.size = sizeof i};
    CHECK_EQ(syp_pool_query(&i), SYP_OK);
    return i.committed;
}

static void public_calls(void) {
    setenv("SYMPOOL_DECAY", "200ms", 1);
    char *early = syp_malloc(32 * MIB); /* private */
    memset(early, 1, 32 * MIB);
    syp_free(early);
    CHECK(syp_trim() >= (int64_t)(30 * MIB));
    CHECK_EQ(syp_init(0, 1, 512 * MIB, 16 * MIB, NULL), SYP_OK);
    char *p = syp_malloc(256 * MIB), *s = syp_symm_malloc(8 * MIB);
    memset(p, 1, 256 * MIB);
    memset(s, 1, 8 * MIB);
    syp_free(p);
    CHECK_EQ(syp_symm_free(s), SYP_OK);
    CHECK(committed() >= 264 * MIB);
    CHECK(syp_trim() >= (int64_t)(262 * MIB));
    CHECK(committed() <= 2 * MIB);
    CHECK_EQ(syp_trim(), 0);
    CHECK(syp_symm_malloc(8 * MIB) == s);
    CHECK(syp_malloc(256 * MIB) == p);
    memset(p, 2, 256 * MIB);
    syp_free(p);
    for (int i = 0; i < 100 && committed() > 16 * MIB; i++) {
        os->sleep(20 * NS_PER_MS);
        syp_free(syp_malloc((100 + (unsigned)i) * KIB));
    }
    CHECK(committed() <= 16 * MIB);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) _exit(syp_trim() == SYP_EFORKED ? 0 : 1);
    int status = 1;
    waitpid(child, &status, 0);
    CHECK_EQ(status, 0);
    CHECK_EQ(syp_check(), SYP_OK);
    CHECK_EQ(syp_finalize(), SYP_OK);
}

int main(void) {
    return check_main("purge", (struct check_test[]){
                                   {"trim_gives_all_free_chunks_back", trim_gives_all_free_chunks_back},
                                   {"symmetric_trim_keeps_offsets", symmetric_trim_keeps_offsets},
                                   {"peers_see_zeros", peers_see_zeros},
                                   {"quarantined_chunks_stay", quarantined_chunks_stay},
                                   {"refusal_of_the_system_is_no_failure", refusal_of_the_system_is_no_failure},
                                   {"memory_goes_after_the_time", memory_goes_after_the_time},
                                   {"steady_state_makes_no_system_call", steady_state_makes_no_system_call},
                                   {"long_computation_keeps_its_next_block", long_computation_keeps_its_next_block},
                                   {"zero_is_at_once_and_off_is_never", zero_is_at_once_and_off_is_never},
                                   {"symmetric_memory_decays", symmetric_memory_decays},
                                   {"trimming_beside_allocations_loses_nothing", trimming_beside_allocations_loses_nothing},
                                   {"public_calls", public_calls},
                                   {0},
                               });
}
