/* SPDX-License-Identifier: Apache-2.0 */
/* Debug mode: each part finds the bug planted for it, which goes unseen without it; and none sees what is not there. */
#include "pool/debug.h"

#include "pool/base/conf.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/stats.h"
#include "tests/support/check.h"
#include "tests/support/fake_os.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define KIB 1024ull
#define MIB (1024 * KIB)
#define ALL 31u

static struct region region;
static struct heap heap;

static void start_as(const struct debug_conf *c, int shared) {
    struct region_conf conf = {.backend = &backend_host, .len = 64 * MIB, .meta = MIB, .shared = shared, .chunk = 64 * KIB, .name = "test"};
    CHECK_EQ(region_open(&region, &conf), SYP_OK);
    CHECK_EQ(heap_init(&heap, &region, 1), SYP_OK);
    debug_start(&heap, c);
    *err_record() = (struct syp_error){.size = sizeof(struct syp_error)};
}

static void start(unsigned parts) {
    start_as(&(struct debug_conf){.parts = parts, .hold = parts & DEBUG_QUARANTINE ? MIB : 0}, 1);
}

static void finish(void) {
    CHECK_EQ(heap_check(&heap), SYP_OK);
    heap_fini(&heap);
    region_close(&region);
}

static char *take_aligned(uint64_t len, uint64_t align) {
    return heap_alloc(&heap, &(struct heap_want){.len = len, .align = align, .stream = 0x77});
}

static char *take(uint64_t len) {
    return take_aligned(len, 64);
}

static void give(void *p) {
    CHECK_EQ(heap_free(&heap, p), SYP_OK);
}

/* ------------------------------------------------------------------------------------- a child with a bug in it */

struct fate {
    int status;
    void *fault;     /* address of its SIGSEGV */
    char log[4096];  /* what it wrote to stderr */
};

static struct shared {
    void *volatile fault;
    void *volatile expected;
} *shared;

/* The program's own handler; then it dies of the signal. */
static void note_fault(int sig, siginfo_t *info, void *context) {
    (void)context;
    shared->fault = info->si_addr;
    signal(sig, SIG_DFL);
}

static struct fate run(void (*bug)(void)) {
    struct fate f = {0};
    int fds[2];
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (pipe(fds) != 0) return f;
    fflush(stdout);
    unsigned before = check_failures();
    pid_t child = fork();
    if (child == 0) {
        struct sigaction a = {.sa_sigaction = note_fault, .sa_flags = SA_SIGINFO};
        sigaction(SIGSEGV, &a, NULL);
        dup2(fds[1], 2);
        syp_log_set(NULL, NULL);
        bug();
        _exit(check_failures() != before ? 100 : 0);
    }
    close(fds[1]);
    size_t used = 0;
    for (ssize_t n; used < sizeof f.log - 1 && (n = read(fds[0], f.log + used, sizeof f.log - 1 - used)) > 0;)
        used += (size_t)n;
    close(fds[0]);
    waitpid(child, &f.status, 0);
    f.fault = shared->fault;
    return f;
}

static int died_of(const struct fate *f, int sig) {
    return WIFSIGNALED(f->status) && WTERMSIG(f->status) == sig;
}

static int survived(const struct fate *f) {
    if (!WIFEXITED(f->status) || WEXITSTATUS(f->status)) fprintf(stderr, "%s", f->log);
    return WIFEXITED(f->status) && WEXITSTATUS(f->status) == 0;
}

static unsigned parts; /* of the child's heap */

/* Writes where a bug writes: not at an address the compiler can reason about. */
static void poke(char *p, long at) {
    shared->expected = p + at;
    ((volatile char *)p)[at] = 99;
}

/* ---------------------------------------------------------------------------------------------------- guard */

static uint64_t bug_len = 5 * 64, bug_align = 64;

static void one_past_the_end(void) {
    start(parts);
    take(64);
    char *p = take_aligned(bug_len, bug_align);
    take(64);
    memset(p, 0, bug_len);
    poke(p, (long)bug_len);
    finish();
}

static void one_below_the_start(void) {
    start(parts);
    take(4096);
    char *p = take(4096);
    poke(p, -1);
}

static void read_after_free(void) {
    start(parts);
    char *p = take(3 * 4096);
    give(p);
    shared->expected = p + 4096;
    (void)((volatile char *)p)[4096];
}

static void guard_traps_at_the_byte(void) {
    static void (*const bugs[])(void) = {one_past_the_end, one_below_the_start, read_after_free};
    for (size_t i = 0; i < sizeof bugs / sizeof bugs[0]; i++) {
        parts = DEBUG_GUARD;
        struct fate f = run(bugs[i]);
        CHECK(died_of(&f, SIGSEGV));
        CHECK(f.fault && f.fault == shared->expected);
        parts = 0;
        f = run(bugs[i]); /* control: unseen */
        CHECK(survived(&f) && f.fault == NULL);
    }
    parts = DEBUG_GUARD;
    for (bug_align = 64; bug_align <= 4 * MIB; bug_align *= 4) {
        bug_len = bug_align > 4096 ? 4096 : bug_align;
        struct fate f = run(one_past_the_end);
        CHECK(died_of(&f, SIGSEGV) && f.fault == shared->expected);
    }
    bug_len = 5 * 64;
    bug_align = 64;
}

static void refused_guard_pages_are_an_error_of_that_call(void) {
    start(DEBUG_GUARD | DEBUG_JUNK);
    char *p = take(64);
    fake_os_on();
    fake_os_fail_op("protect", 1, ENOMEM);
    CHECK(take(64) == NULL);
    CHECK_EQ(err_record()->code, SYP_ENOMEM);
    CHECK_HAS(err_record()->text, "vm.max_map_count");
    fake_os_off();
    CHECK_EQ(heap.n_live, 1);
    CHECK_EQ(heap_check(&heap), SYP_OK);
    give(take(64));
    give(p);
    finish();
}

/* --------------------------------------------------------------------------------------------------- canary */

static void slack_tells_of_an_overflow(void) {
    for (int guard = 0; guard < 2; guard++) {
        for (int n = 1; n <= 64; n += guard ? 9 : 1) {
            uint64_t len = guard ? 4096 + 1 : 200;
            start(DEBUG_CANARY | (guard ? DEBUG_GUARD : 0u));
            char *wall = take(64), *p = take_aligned(len, guard ? 4096 : 64), *q = take(64);
            memset(p, 1, len + (unsigned)n);
            CHECK_EQ(heap_check(&heap), SYP_ESTATE);
            give(p);
            CHECK_EQ(err_record()->code, SYP_ESTATE);
            CHECK_STR(err_record()->operation, "free");
            CHECK_HAS(err_record()->text, guard ? "of 4097 bytes" : "of 200 bytes");
            CHECK_HAS(err_record()->text, "(live, stream 77): bytes behind its end were overwritten");
            CHECK_HAS(err_record()->text, guard ? "first changed byte at offset 4097" : "first changed byte at offset 200");
            CHECK_HAS(err_record()->text, "seen at call 4 (free)");
            give(wall);
            give(q);
            CHECK_EQ(heap.debug.damaged, 2); /* the check's and the free's */
            finish();
        }
    }
    start(0); /* control: unseen */
    char *p = take(200);
    take(64);
    memset(p, 1, 264);
    CHECK_EQ(heap_check(&heap), SYP_OK);
    give(p);
    CHECK_EQ(err_record()->code, SYP_OK);
    finish();
}

static void slack_tells_of_an_underflow(void) {
    start(DEBUG_CANARY | DEBUG_GUARD);
    char *p = take(100);
    memset(p - 3, 1, 103);
    give(p);
    CHECK_HAS(err_record()->text, "bytes before its start were overwritten, first changed byte at offset -3");
    finish();
}

/* ----------------------------------------------------------------------------------------------------- junk */

static int all_are(const char *p, uint64_t len, unsigned char want) {
    for (uint64_t i = 0; i < len; i++)
        if (((const volatile unsigned char *)p)[i] != want) return 0;
    return 1;
}

static void bytes_say_new_and_freed(void) {
    start(DEBUG_JUNK);
    char *p = take(1000);
    CHECK(all_are(p, 1000, DEBUG_JUNK_NEW));
    memset(p, 0, 1000);
    give(p);
    CHECK(all_are(p, 1000, DEBUG_JUNK_FREED));
    finish();
}

static void write_after_free_is_seen_at_reuse(void) {
    start(DEBUG_JUNK);
    char *p = take(1000), *wall = take(64);
    give(p);
    p[333] = 1;
    CHECK(take(1000) == p);
    CHECK_EQ(err_record()->code, SYP_ESTATE);
    CHECK_HAS(err_record()->text, "seen at call 4 (malloc)");
    CHECK_HAS(err_record()->text, "written after it was freed");
    char at[32];
    snprintf(at, sizeof at, "(%p)", (void *)(p + 333));
    CHECK_HAS(err_record()->text, at);
    give(p);
    give(wall);
    finish();
    start(0); /* control */
    p = take(64 * KIB);
    give(p);
    p[333] = 1;
    CHECK(take(64 * KIB) == p && err_record()->code == SYP_OK);
    finish();
}

/* Zeros too, which memory that was never used also holds. */
static void write_after_free_is_seen_when_the_quarantine_ends(void) {
    for (int guard = 0; guard < 2; guard++) {
        start(DEBUG_JUNK | DEBUG_QUARANTINE | (guard ? DEBUG_GUARD : 0u));
        char *p = take(1000), *peer;
        give(p);
        /* under guard only a peer, through a mapping of its own, can still write */
        peer = mmap(NULL, region.len, PROT_READ | PROT_WRITE, MAP_SHARED, region.mem.fd, 0);
        memset(peer + region_offset(&region, p) + 128, 0, 64);
        munmap(peer, region.len);
        for (int i = 0; i < 17 && err_record()->code == SYP_OK; i++)
            give(take(64 * KIB));
        CHECK_EQ(err_record()->code, SYP_ESTATE);
        CHECK_HAS(err_record()->text, "of 1000 bytes (freed, stream 77): it was written after it was freed");
        CHECK_HAS(err_record()->text, "first changed byte at offset 128");
        give(take(1000));
        CHECK_EQ(heap.debug.damaged, 1);
        finish();
    }
}

/* ----------------------------------------------------------------------------------------------- quarantine */

static void freed_blocks_are_held_back(void) {
    start(DEBUG_QUARANTINE);
    char *p = take(64 * KIB);
    give(p);
    CHECK_EQ(heap_free(&heap, p), SYP_EFOREIGN);
    CHECK_HAS(err_record()->text, "double free of");
    for (int i = 0; i < 15; i++) {
        char *q = take(64 * KIB);
        CHECK(q != p);
        give(q);
    }
    CHECK_EQ(heap.debug.held_bytes, MIB);
    give(take(64 * KIB)); /* the first leaves */
    CHECK(take(64 * KIB) == p);
    finish();
    start(0); /* control: at once */
    p = take(64 * KIB);
    give(p);
    CHECK(take(64 * KIB) == p);
    finish();
}

static void held_blocks_are_released_when_memory_is_short(void) {
    start_as(&(struct debug_conf){.parts = ALL & ~(unsigned)DEBUG_TOOLS, .hold = 1ull << 40}, 1);
    for (int i = 0; i < 20; i++) {
        char *p = take(20 * MIB);
        CHECK(p != NULL);
        give(p);
    }
    CHECK_EQ(err_record()->code, SYP_OK);
    CHECK(take(64 * MIB) == NULL && err_record()->code == SYP_ENOMEM);
    finish();
}

/* Late stores into a broken operation's buffer are no damage: they are what the range is for. */
static void stragglers_are_not_blamed(void) {
    start(DEBUG_JUNK | DEBUG_CANARY | DEBUG_QUARANTINE);
    char *p = take(64 * KIB);
    CHECK_EQ(quarantine_add(&region.quarantine, 1, region_offset(&region, p), 64 * KIB), SYP_OK);
    give(p);
    memset(p, 1, 64 * KIB);
    CHECK_EQ(heap_check(&heap), SYP_OK);
    CHECK_EQ(quarantine_remove(&region.quarantine, 1), 1);
    heap_quarantine_release(&heap);
    CHECK(take(64 * KIB) == p);
    CHECK_EQ(heap.debug.damaged, 0);
    finish();
}

/* -------------------------------------------------------------------------------------- n-th call and policy */

static void nth_call_finds_damage(void) {
    start_as(&(struct debug_conf){.parts = DEBUG_CANARY, .every = 10}, 1);
    char *p = take(64);
    while (heap.debug.calls < 39) {
        if (heap.debug.calls == 33) p[64] = 1;
        take(64);
        CHECK_EQ(err_record()->code, SYP_OK);
    }
    take(64);
    CHECK_EQ(err_record()->code, SYP_ESTATE);
    CHECK_HAS(err_record()->text, "seen at call 40 (periodic check)");
    while (heap.debug.calls < 60)
        take(64);
    CHECK_EQ(heap.debug.damaged, 1); /* told once */
    finish();
}

static void overflow_then_free(void) {
    setenv("SYMPOOL_DEBUG", "canary", 1);
    conf_reset();
    char *p = syp_malloc(10);
    memset(p, 1, 11);
    syp_free(p);
    CHECK_HAS(syp_error_text(), "offset 10");
}

static void overflow_then_abort(void) {
    setenv("SYMPOOL_DEBUG_DAMAGE", "abort", 1);
    overflow_then_free();
}

static void damage_is_reported_or_fatal_as_set(void) {
    struct fate f = run(overflow_then_free);
    CHECK(survived(&f));
    CHECK_HAS(f.log, "error: heap damage seen at call 2 (free): block ");
    f = run(overflow_then_abort);
    CHECK(died_of(&f, SIGABRT));
    CHECK_HAS(f.log, "error: heap damage seen at call 2 (free): block ");
}

static void misspelt(void) {
    setenv("SYMPOOL_DEBUG", "guard,jnuk", 1);
    conf_reset();
    char *p = syp_malloc(10);
    syp_free(p);
}

static void unknown_part_is_named(void) {
    struct fate f = run(misspelt);
    CHECK(survived(&f));
    CHECK_HAS(f.log, "SYMPOOL_DEBUG=guard,jnuk is not usable: expected off, on or a comma list of "
                     "guard|junk|canary|quarantine|tools; using off");
}

/* ------------------------------------------------------------------------------------------ no false alarms */

struct block {
    char *p;
    uint64_t len;
    char fill;
};

static void random_round(uint64_t *seed, struct block *b) {
    if (b->p) {
        CHECK(all_are(b->p, b->len, (unsigned char)b->fill));
        CHECK_EQ(heap_usable(&heap, b->p) >= b->len, 1);
        void *start_of = NULL;
        uint64_t len = 0;
        CHECK(heap_find(&heap, b->p + b->len - 1, &start_of, &len) && start_of == b->p && len >= b->len);
        give(b->p);
        b->p = NULL;
        return;
    }
    uint64_t align = 1ull << check_random(seed) % 16;
    b->len = 1 + check_random(seed) % (1ull << check_random(seed) % 17);
    b->fill = (char)check_random(seed);
    b->p = take_aligned(b->len, align);
    CHECK(b->p && (uintptr_t)b->p % align == 0);
    if (b->p) memset(b->p, b->fill, heap_usable(&heap, b->p));
}

static void correct_use_is_never_blamed(void) {
    uint64_t seed = check_seed();
    int rounds = (int)check_count(300, 5000);
    for (unsigned p = 0; p <= ALL; p++) {
        static struct block blocks[40];
        memset(blocks, 0, sizeof blocks);
        start_as(&(struct debug_conf){.parts = p, .hold = p & DEBUG_QUARANTINE ? MIB : 0, .every = 50}, (int)(seed + p) % 2);
        for (int i = 0; i < rounds; i++)
            random_round(&seed, &blocks[check_random(&seed) % 40]);
        CHECK_EQ(heap.debug.damaged, 0);
        CHECK_EQ(err_record()->code, SYP_OK);
        for (int i = 0; i < 40; i++)
            if (blocks[i].p) random_round(&seed, &blocks[i]);
        CHECK_EQ(heap.used + heap.n_live, 0);
        finish();
    }
}

static int count_live(void *arg, const syp_block *b) {
    size_t *sum = arg;
    if (b->live) *sum += b->len;
    return 0;
}

static void whole_interface(void) {
    setenv("SYMPOOL_DEBUG", "on", 1);
    conf_reset();
    char *p = syp_malloc(100);
    CHECK_EQ(syp_usable_size(p), 100);
    CHECK(all_are(p, 100, DEBUG_JUNK_NEW));
    memset(p, 7, 100);
    char *q = syp_realloc(p, 5000);
    CHECK(q && q != p && all_are(q, 100, 7) && syp_usable_size(q) == 5000);
    syp_location at = {.size = sizeof at};
    CHECK(syp_owner(q + 4999, &at) == SYP_OK && at.block == q && at.len == 5000 && at.where == SYP_WHERE_PRIVATE);
    CHECK(syp_owner(q + 5000, &at) == SYP_OK && at.block == NULL);
    char *z = syp_calloc(3, 1000), *a = syp_aligned_alloc(1 << 20, 10);
    CHECK(all_are(z, 3000, 0) && (uintptr_t)a % (1 << 20) == 0);
    size_t sum = 0;
    CHECK(syp_walk(count_live, &sum) == SYP_OK && sum == 5000 + 3000 + 10);
    syp_free(a);
    syp_free(z);
    CHECK_EQ(syp_init(0, 1, 64 << 20, 1 << 20, NULL), SYP_OK); /* q lives on */
    float *x = syp_malloc(1000 * sizeof *x), *y = syp_malloc(1000 * sizeof *y);
    for (int i = 0; i < 1000; i++)
        x[i] = (float)i;
    CHECK_EQ(syp_allreduce(x, y, 1000, SYP_FLOAT32, SYP_SUM, SYP_COMM_WORLD, NULL), SYP_OK);
    CHECK(y[999] == 999.0f);
    CHECK_EQ(syp_check(), SYP_OK);
    syp_free(x);
    CHECK_EQ(syp_finalize(), SYP_OK);
    syp_free(y); /* the retired pool's */
    CHECK_EQ(q[99], 7);
    syp_free(q);
    CHECK_EQ(syp_check(), SYP_OK);
    CHECK_STR(syp_error_text(), "");
}

static void whole_interface_works_in_debug_mode(void) {
    struct fate f = run(whole_interface);
    CHECK(survived(&f));
    CHECK_STR(f.log, "");
}

/* The planted damage of this process; the children's goes to their stderr. */
static void say_nothing(void *arg, int level, const char *text) {
    (void)arg, (void)level, (void)text;
}

int main(void) {
    syp_log_set(say_nothing, NULL);
    return check_main("debug", (struct check_test[]){
                                   {"guard_traps_at_the_byte", guard_traps_at_the_byte},
                                   {"refused_guard_pages_are_an_error_of_that_call", refused_guard_pages_are_an_error_of_that_call},
                                   {"slack_tells_of_an_overflow", slack_tells_of_an_overflow},
                                   {"slack_tells_of_an_underflow", slack_tells_of_an_underflow},
                                   {"bytes_say_new_and_freed", bytes_say_new_and_freed},
                                   {"write_after_free_is_seen_at_reuse", write_after_free_is_seen_at_reuse},
                                   {"write_after_free_is_seen_when_the_quarantine_ends", write_after_free_is_seen_when_the_quarantine_ends},
                                   {"freed_blocks_are_held_back", freed_blocks_are_held_back},
                                   {"held_blocks_are_released_when_memory_is_short", held_blocks_are_released_when_memory_is_short},
                                   {"stragglers_are_not_blamed", stragglers_are_not_blamed},
                                   {"nth_call_finds_damage", nth_call_finds_damage},
                                   {"damage_is_reported_or_fatal_as_set", damage_is_reported_or_fatal_as_set},
                                   {"unknown_part_is_named", unknown_part_is_named},
                                   {"correct_use_is_never_blamed", correct_use_is_never_blamed},
                                   {"whole_interface_works_in_debug_mode", whole_interface_works_in_debug_mode},
                                   {0},
                               });
}
