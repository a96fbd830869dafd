/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See coll_board.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "tools/bench/coll_board.h"

#define START_MARGIN_NS 700   /* from the choice of a common start to it: all have seen it by then, unless interrupted */
#define NOBODY_ANSWERS_S 60   /* a rank that spins alone for so long gives up */
#define LONG_WAIT (1u << 14)   /* spins: somebody else runs on the other's processor, or ours is wanted */
#define LOOK_NS 200000000L    /* how often the first process looks whether the ranks live */

static long futex(_Atomic uint32_t *word, int op, uint32_t value, const struct timespec *timeout) {
    return syscall(SYS_futex, (uint32_t *)word, op, value, timeout, NULL, 0);
}

/* ---------------------------------------------------------------------------------------------- in the first process */

#if defined(__x86_64__)
static int counter_is_invariant(void) {
    unsigned a, b, c, d;
    return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & (1u << 8));
}

/* Against the clock, over 50 ms; of the readings that enclose one of the clock the closest one counts. */
static double ns_per_tick(void) {
    double ns[2], ticks[2];
    for (int end = 0; end < 2; end++) {
        uint64_t closest = UINT64_MAX;
        for (int i = 0; i < 100; i++) {
            uint64_t before = __rdtsc();
            int64_t now = now_ns();
            uint64_t after = __rdtsc();
            if (after - before >= closest) continue;
            closest = after - before;
            ns[end] = (double)now;
            ticks[end] = (double)before + (double)closest / 2;
        }
        if (end == 0) usleep(50000);
    }
    return (ns[1] - ns[0]) / (ticks[1] - ticks[0]);
}
#endif

struct board *board_create(const char *impl, int n, int *fd) {
    static double measured;
    *fd = memfd_create("sympool-bench", MFD_CLOEXEC);
    if (*fd < 0 || ftruncate(*fd, sizeof(struct board))) die("memory for %d ranks of %s: %s", n, impl, strerror(errno));
    struct board *b = mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (b == MAP_FAILED) die("memory for %d ranks of %s: %s", n, impl, strerror(errno));
    b->n = n;
    b->processors = processors();
    b->owner = getpid();
    b->ns_per_tick = 1;
    snprintf(b->impl, sizeof b->impl, "%s", impl);
#if defined(__x86_64__)
    b->tsc = counter_is_invariant();
    if (b->tsc && measured == 0) measured = ns_per_tick();
    if (b->tsc) b->ns_per_tick = measured;
#endif
    (void)measured;
    return b;
}

void board_drop_tsc(struct board *b) {
    b->tsc = 0;
    b->ns_per_tick = 1;
}

void board_path(int fd, char *out, size_t cap) {
    snprintf(out, cap, "/proc/%ld/fd/%d", (long)getpid(), fd);
}

void board_close(struct board *b, int fd) {
    munmap(b, sizeof *b);
    close(fd);
}

/* Sleep until all ranks have counted themselves. */
static int all_done(struct board *b, int (*alive)(void *), void *arg) {
    for (;;) {
        uint32_t done = atomic_load_explicit(&b->done, memory_order_acquire);
        if (done == (uint32_t)b->n) return 1;
        struct timespec look = {0, LOOK_NS};
        if (futex(&b->done, FUTEX_WAIT, done, &look) && errno == ETIMEDOUT && !alive(arg)) return 0;
    }
}

int board_wait_open(struct board *b, int (*alive)(void *), void *arg) {
    return all_done(b, alive, arg);
}

int board_ask(struct board *b, const struct coll_command *c, int (*alive)(void *), void *arg) {
    b->command = *c;
    atomic_store_explicit(&b->done, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&b->turn, 1, memory_order_release);
    futex(&b->turn, FUTEX_WAKE, INT_MAX, NULL);
    return all_done(b, alive, arg);
}

/* -------------------------------------------------------------------------------------------------------- in a rank */

struct board *board_open(const char *path) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct board *b = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *b, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (b == MAP_FAILED) die("the first process's memory at %s: %s", path, strerror(errno));
    close(fd);
    return b;
}

const struct coll_command *board_next(struct board *b, uint32_t *turn) {
    while (atomic_load_explicit(&b->turn, memory_order_acquire) == *turn) {
        struct timespec look = {5, 0};
        if (futex(&b->turn, FUTEX_WAIT, *turn, &look) && errno == ETIMEDOUT && kill(b->owner, 0)) die("the first process is gone");
    }
    ++*turn;
    return &b->command;
}

void board_done(struct board *b) {
    if (atomic_fetch_add_explicit(&b->done, 1, memory_order_release) + 1 == (uint32_t)b->n) futex(&b->done, FUTEX_WAKE, 1, NULL);
}

void board_relax(const struct board *b, unsigned spins) {
    static int64_t since;
    if (b->n > b->processors || spins > LONG_WAIT) sched_yield();
    if (spins == 1u << 16) since = now_ns();
    if (spins > 1u << 16 && spins % (1u << 16) == 0 && now_ns() - since > NOBODY_ANSWERS_S * 1000000000ll)
        die("%s: a rank has waited for the others for %d s", b->impl, NOBODY_ANSWERS_S);
}

uint64_t board_start(struct board *b, int rank, uint64_t *round, int *late) {
    uint64_t mine = ++*round, start, now;
    uint64_t last = atomic_load_explicit(&b->start, memory_order_relaxed); /* rank 0 waits for us before it stores the next */
    atomic_thread_fence(memory_order_seq_cst); /* also of non-temporal stores, which release does not order */
    atomic_store_explicit(&b->rank[rank].arrived, mine, memory_order_release);
    if (rank == 0) {
        for (int r = 1; r < b->n; r++)
            for (unsigned spins = 1; atomic_load_explicit(&b->rank[r].arrived, memory_order_acquire) < mine; spins++)
                board_relax(b, spins);
        start = board_ticks(b);
        if (b->n <= b->processors) start += (uint64_t)(START_MARGIN_NS / b->ns_per_tick);
        if (start == last) start++;
        atomic_store_explicit(&b->start, start, memory_order_release);
    } else {
        for (unsigned spins = 1; (start = atomic_load_explicit(&b->start, memory_order_acquire)) == last; spins++)
            board_relax(b, spins);
    }
    *late = 0;
    if (b->n > b->processors) return start; /* they take turns: those who wait are late by nature */
    *late = (now = board_ticks(b)) >= start;
    while (now < start)
        now = board_ticks(b);
    return start;
}
