/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/* Statistics: the segment as a reader from outside sees it, exact sums under threads, and what happens without a
 * segment. */
#include "pool/stats.h"

#include "pool/base/atomic.h"
#include "pool/base/log.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/fake_os.h"
#include "tests/support/ranks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct stats_identity me = {2, 4, 1, "job-7", "somewhere", "host"};

static int n_lines;
static char line[512];
static void keep_line(void *arg, int level, const char *text) {
    (void)arg;
    (void)level;
    n_lines++;
    snprintf(line, sizeof line, "%s", text);
}

/* The newest descriptor of this process that is a statistics segment, -1 = none: as the tool finds it. */
static int find_segment(void) {
    int found = -1;
    DIR *dir = opendir("/proc/self/fd");
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) {
        char path[300], target[300] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%s", e->d_name);
        if (readlink(path, target, sizeof target - 1) > 0 && strstr(target, "/memfd:" STATS_SEGMENT_NAME) &&
            atoi(e->d_name) > found)
            found = atoi(e->d_name);
    }
    if (dir) closedir(dir);
    return found;
}

/* A reader of its own: maps the file read-only and believes only what the head says. */
struct reader {
    const char *base;
    size_t len;
    const struct stats_head *head;
};

static struct reader read_segment(int fd) {
    struct stat st = {0};
    CHECK_EQ(fstat(fd, &st), 0);
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    return (struct reader){p, (size_t)st.st_size, p};
}

static void read_end(struct reader *r) {
    munmap((void *)(uintptr_t)r->base, r->len);
}

static const struct stats_entry *entry_named(const struct reader *r, const char *name) {
    for (uint32_t i = 0; i < r->head->n_entries; i++) {
        const void *e = r->base + r->head->entries_off + (uint64_t)i * r->head->entry_size;
        if (strcmp(((const struct stats_entry *)e)->name, name) == 0) return e;
    }
    return NULL;
}

static uint64_t value_named(const struct reader *r, const char *name) {
    const struct stats_entry *e = entry_named(r, name);
    uint64_t sum = 0;
    if (!CHECK(e != NULL)) return 0;
    for (uint32_t i = 0; i < r->head->n_shards; i++)
        sum += load_relaxed((const atom64 *)(r->base + r->head->shards_off + i * r->head->shard_stride) + e->slot);
    return sum;
}

static const struct stats_op *op_of(const struct reader *r, unsigned slot) {
    return (const struct stats_op *)(r->base + r->head->ops_off + (uint64_t)slot * r->head->op_size);
}

static const struct stats_hist *hist_of(const struct reader *r, enum stats_op_kind kind, uint64_t bytes) {
    for (uint32_t i = 0; i < r->head->n_hists; i++) {
        const struct stats_hist *h = (const void *)(r->base + r->head->hists_off + (uint64_t)i * r->head->hist_size);
        if (h->kind == kind && bytes >= h->least_bytes && (!h->below_bytes || bytes < h->below_bytes)) return h;
    }
    return NULL;
}

static uint64_t counted(const struct stats_hist *h) {
    uint64_t n = 0;
    for (unsigned i = 0; h && i < STATS_BUCKETS; i++)
        n += load_relaxed(&h->bucket[i]);
    return n;
}

/* ----------------------------------------------------------------------------------------------------- tests */

static void describes_itself(void) {
    uint64_t ticks = 0;
    CHECK_EQ(stats_open(1, &me), SYP_OK);
    struct reader r = read_segment(find_segment());
    const struct stats_head *h = r.head;
    CHECK(h->magic == STATS_MAGIC && memcmp(r.base, "SYMPSTAT", 8) == 0);
    CHECK_EQ(h->version, STATS_VERSION);
    CHECK_EQ(h->head_size, sizeof *h);
    CHECK_EQ(h->total_size, r.len);
    CHECK_EQ(stats_overhead(), r.len);
    CHECK_EQ(h->n_entries, STATS_N);
    CHECK_EQ(h->n_ops, STATS_OPS);
    CHECK_EQ(h->n_shards, STATS_SHARDS);
    CHECK(h->n_slots >= STATS_N && h->shard_stride >= 8ull * h->n_slots);
    CHECK(h->entries_off >= h->head_size && h->entries_off % 64 == 0);
    CHECK(h->ops_off >= h->entries_off + (uint64_t)h->n_entries * h->entry_size && h->ops_off % 64 == 0);
    CHECK(h->hists_off >= h->ops_off + (uint64_t)h->n_ops * h->op_size && h->hists_off % 64 == 0);
    CHECK(h->shards_off >= h->hists_off + (uint64_t)h->n_hists * h->hist_size && h->shards_off % CACHE_LINE == 0);
    CHECK(h->shard_stride % CACHE_LINE == 0 && h->shards_off + h->n_shards * h->shard_stride <= r.len);
    CHECK_EQ(h->pid, getpid());
    CHECK_EQ(h->rank, 2);
    CHECK_EQ(h->world, 4);
    CHECK_EQ(h->local_rank, 1);
    CHECK_EQ(os->start_time(getpid(), &ticks), 0);
    CHECK_EQ(h->start_ticks, ticks);
    CHECK(h->attach_ns > 0 && h->attach_ns <= os->now());
    CHECK_STR(h->job, "job-7");
    CHECK_STR(h->host, "somewhere");
    CHECK_STR(h->backend, "host");
    CHECK_EQ(h->state, STATS_JOINING);
    CHECK_EQ(h->job_nonce, 0);
    stats_set_state(STATS_ATTACHED);
    stats_set_job(0xABCDEF);
    CHECK_EQ(h->state, STATS_ATTACHED);
    CHECK_EQ(h->job_nonce, 0xABCDEF);
    for (unsigned i = 0; i < h->n_entries; i++) {
        const struct stats_entry *e = (const void *)(r.base + h->entries_off + (uint64_t)i * h->entry_size);
        CHECK(e->name[0] && e->help[0] && memchr(e->name, 0, sizeof e->name) && memchr(e->help, 0, sizeof e->help));
        CHECK(e->slot < h->n_slots && e->kind >= STATS_COUNTER && e->kind <= STATS_PEAK);
        CHECK(e->unit >= STATS_UNIT_COUNT && e->unit <= STATS_UNIT_NS);
        CHECK(entry_named(&r, e->name) == e); /* no name twice */
    }
    /* cut by the field or by the table: a help that does not fit would end in the middle of a word */
#define X(id, name_, kind_, unit_, help_)                                                                              \
    CHECK(entry_named(&r, name_) != NULL && strcmp(entry_named(&r, name_)->help, help_) == 0);                         \
    CHECK(entry_named(&r, name_)->kind == kind_ && entry_named(&r, name_)->unit == unit_);
    STATS_LIST(X)
#undef X
    read_end(&r);
    stats_close();
    CHECK_EQ(find_segment(), -1);
    stats_close(); /* nothing open: nothing happens */

    struct utsname machine;
    struct stats_identity nowhere = me;
    nowhere.host = NULL;
    CHECK(uname(&machine) == 0 && stats_open(1, &nowhere) == SYP_OK);
    r = read_segment(find_segment());
    CHECK_STR(r.head->host, machine.nodename);
    read_end(&r);
    stats_close();
}

/* Nobody but this process's own mapping can write it, and nobody can resize it. */
static void only_the_owner_writes(void) {
    char path[64];
    stats_open(1, &me);
    int fd = find_segment();
    struct reader r = read_segment(fd);
    int seals = fcntl(fd, F_GET_SEALS);
    CHECK_EQ(seals & (F_SEAL_SHRINK | F_SEAL_GROW), F_SEAL_SHRINK | F_SEAL_GROW);
    CHECK(ftruncate(fd, 0) == -1 && errno == EPERM);
    CHECK(ftruncate(fd, (off_t)r.len * 2) == -1 && errno == EPERM);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDWR | O_CLOEXEC);
    CHECK(again >= 0);
    CHECK(mmap(NULL, r.len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EPERM);
    CHECK(mmap(NULL, r.len, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0) == MAP_FAILED && errno == EPERM);
    CHECK_EQ(mprotect((void *)(uintptr_t)r.base, r.len, PROT_READ | PROT_WRITE), -1);
    CHECK(pwrite(again, "x", 1, 0) == -1 && errno == EPERM);
    stats_add(STAT_ALLOCS, 3); /* and the owner still does */
    CHECK_EQ(value_named(&r, "allocs"), 3);
    close(again);
    read_end(&r);
    stats_close();
}

static void figures(void) {
    stats_open(1, &me);
    struct reader r = read_segment(find_segment());
    stats_add(STAT_ALLOCS, 2);
    stats_add(STAT_ALLOCS, 40);
    stats_set(STAT_POOL_SIZE, 7);
    stats_set(STAT_POOL_SIZE, 1ull << 40);
    stats_raise(STAT_HEAP_PEAK, 10);
    stats_raise(STAT_HEAP_PEAK, 30);
    stats_raise(STAT_HEAP_PEAK, 20);
    CHECK_EQ(stats_read(STAT_ALLOCS), 42);
    CHECK_EQ(value_named(&r, "allocs"), 42);
    CHECK_EQ(stats_read(STAT_POOL_SIZE), 1ll << 40);
    CHECK_EQ(value_named(&r, "pool_size"), 1ll << 40);
    CHECK_EQ(stats_read(STAT_HEAP_PEAK), 30);
    CHECK_EQ(value_named(&r, "heap_peak"), 30);
    CHECK_EQ(value_named(&r, "frees"), 0);
    read_end(&r);
    stats_close();
    stats_open(1, &me); /* the next one starts at zero */
    CHECK_EQ(stats_read(STAT_ALLOCS), 0);
    CHECK_EQ(stats_read(STAT_HEAP_PEAK), 0);
    stats_close();
}

#define ADDERS 48 /* more than shards: several share one */
static pthread_barrier_t adders_start;

static void *add_many(void *arg) {
    uint64_t n = *(uint64_t *)arg;
    pthread_barrier_wait(&adders_start);
    for (uint64_t i = 1; i <= n; i++) {
        stats_add(STAT_ALLOCS, 1);
        stats_add(STAT_OP_BYTES, i);
        stats_raise(STAT_SYMM_PEAK, i);
    }
    return NULL;
}

static void sums_are_exact(void) {
    uint64_t n = check_count(100000, 1000000);
    pthread_t t[ADDERS];
    CHECK_EQ(pthread_barrier_init(&adders_start, NULL, ADDERS), 0);
    stats_open(1, &me);
    struct reader r = read_segment(find_segment());
    for (int i = 0; i < ADDERS; i++)
        CHECK_EQ(pthread_create(&t[i], NULL, add_many, &n), 0);
    for (int i = 0; i < ADDERS; i++)
        CHECK_EQ(pthread_join(t[i], NULL), 0);
    CHECK_EQ(value_named(&r, "allocs"), n * ADDERS);
    CHECK_EQ(value_named(&r, "collective_bytes"), n * (n + 1) / 2 * ADDERS);
    CHECK_EQ(value_named(&r, "symm_peak"), n);
    CHECK_EQ(stats_read(STAT_ALLOCS), n * ADDERS);
    /* threads spread over the shards */
    unsigned used = 0;
    for (uint32_t i = 0; i < r.head->n_shards; i++)
        used += load_relaxed((const atom64 *)(r.base + r.head->shards_off + i * r.head->shard_stride) +
                             entry_named(&r, "allocs")->slot) != 0;
    CHECK(used > 1);
    read_end(&r);
    stats_close();
}

/* ------------------------------------------------------------------------------------------------- operations */

static void operation_of_a_group(void) {
    stats_open(1, &me);
    struct reader r = read_segment(find_segment());
    const struct stats_op *op = op_of(&r, 5);
    CHECK(op->turn == 0 && op->n_members == 0);
    stats_op_group(5, 77, 4);
    CHECK(op->turn == 2 && op->comm_id == 77 && op->n_members == 4 && op->kind == STATS_OP_NONE);
    stats_op_begin(5, STATS_OP_ALLREDUCE, 1042, 4096, 1000);
    CHECK_EQ(op->turn, 4);
    CHECK(op->kind == STATS_OP_ALLREDUCE && op->sequence == 1042 && op->bytes == 4096 && op->start_ns == 1000 &&
          op->end_ns == 0);
    CHECK_EQ(op->waits_for, 0);
    stats_op_waits(5, 3);
    CHECK_EQ(op->waits_for, 4);
    stats_op_waits(5, 0);
    CHECK_EQ(op->waits_for, 1);
    stats_op_waits(5, -1);
    CHECK_EQ(op->waits_for, 0);
    stats_op_waits(5, 1);
    stats_op_end(5, SYP_ETIMEOUT, 2000);
    CHECK(op->turn == 6 && op->end_ns == 2000 && op->result == 41 && op->waits_for == 0 && op->sequence == 1042);
    stats_op_begin(5, STATS_OP_BARRIER, 1043, 0, 3000);
    CHECK(op->result == 0 && op->end_ns == 0);
    stats_op_end(5, SYP_OK, 3001);
    CHECK_EQ(op->result, 0);
    stats_op_group(5, 0, 0);
    CHECK(op->n_members == 0 && op->sequence == 0 && op->turn % 2 == 0);
    CHECK(op_of(&r, 4)->turn == 0 && op_of(&r, 6)->turn == 0);
    /* beyond the slots: nothing is touched */
    stats_op_group(STATS_OPS, 1, 1);
    stats_op_begin(STATS_OPS, STATS_OP_BARRIER, 1, 1, 1);
    stats_op_waits(STATS_OPS, 1);
    stats_op_end(STATS_OPS, 0, 1);
    CHECK_EQ(value_named(&r, "pool_size"), 0);
    read_end(&r);
    stats_close();
}

static atom32 stop_writing;

static void *write_ops(void *arg) {
    for (uint64_t i = 1; !load_acquire(&stop_writing); i++) { /* pairs with the end of the test */
        stats_op_begin(9, (enum stats_op_kind)(1 + i % 6), i, 3 * i, 5 * i);
        for (uint64_t pause = i % 64; pause > 0; pause--)
            cpu_relax();
        stats_op_end(9, i % 2 ? SYP_EPEER : SYP_OK, 7 * i);
        for (uint64_t pause = i % 32; pause > 0; pause--)
            cpu_relax();
    }
    return arg;
}

/* What a reader accepts belongs to one operation, begun or ended. */
static void operations_are_read_whole(void) {
    uint64_t n = check_count(20000, 2000000), torn = 0, last = 0;
    pthread_t writer;
    stats_open(1, &me);
    struct reader r = read_segment(find_segment());
    const struct stats_op *op = op_of(&r, 9);
    store_relaxed(&stop_writing, 0);
    CHECK_EQ(pthread_create(&writer, NULL, write_ops, NULL), 0);
    while (n > 0) {
        uint64_t turn = load_acquire(&op->turn); /* all of these pair with stats_op_begin and stats_op_end */
        uint64_t kind = load_acquire(&op->kind), i = load_acquire(&op->sequence), bytes = load_acquire(&op->bytes);
        uint64_t start = load_acquire(&op->start_ns), end = load_acquire(&op->end_ns),
                 result = load_acquire(&op->result);
        if (turn % 2 != 0 || load_relaxed(&op->turn) != turn || i == 0) continue;
        n--;
        int whole = kind == 1 + i % 6 && bytes == 3 * i && start == 5 * i && (end == 0 || end == 7 * i) &&
                    result == (end && i % 2 ? (uint64_t)-SYP_EPEER : 0) && i >= last;
        torn += !whole;
        last = i;
    }
    store_release(&stop_writing, 1);
    CHECK_EQ(pthread_join(writer, NULL), 0);
    CHECK_EQ(torn, 0);
    read_end(&r);
    stats_close();
}

/* --------------------------------------------------------------------------------------------- histograms */

static void latencies(void) {
    stats_open(1, &me);
    struct reader r = read_segment(find_segment());
    /* each operation of each kind has one place */
    for (unsigned kind = 1; kind <= STATS_OP_ALLTOALLV; kind++) {
        const struct stats_hist *small = hist_of(&r, kind, 0), *large = hist_of(&r, kind, STATS_LONG);
        if (!CHECK(small != NULL && large != NULL)) continue;
        CHECK(small != large && hist_of(&r, kind, STATS_LONG - 1) == small && hist_of(&r, kind, UINT64_MAX) == large);
        CHECK_EQ(small->every, kind == STATS_OP_AGREE || kind == STATS_OP_SHRINK ? 1 : STATS_SAMPLED);
        CHECK_EQ(large->every, 1);
        CHECK(counted(small) == 0 && counted(large) == 0);
    }
    /* 2^i ns begin bucket i */
    const struct stats_hist *h = hist_of(&r, STATS_OP_ALLREDUCE, 8);
    stats_latency(STATS_OP_ALLREDUCE, 8, 0);
    stats_latency(STATS_OP_ALLREDUCE, 8, 1);
    CHECK(h->bucket[0] == 2 && h->max_ns == 1);
    for (unsigned i = 1; i < 64; i++) {
        stats_latency(STATS_OP_ALLREDUCE, 8, 1ull << i);
        CHECK_EQ(h->max_ns, (int64_t)(1ull << i));
        stats_latency(STATS_OP_ALLREDUCE, 8, (2ull << i) - 1);
    }
    for (unsigned i = 1; i < STATS_BUCKETS - 1; i++)
        CHECK_EQ(h->bucket[i], 2);
    CHECK_EQ(h->bucket[STATS_BUCKETS - 1], 2 * (64 - (STATS_BUCKETS - 1)));
    CHECK(h->max_ns == UINT64_MAX);
    stats_latency(STATS_OP_ALLREDUCE, 8, 5);
    CHECK(h->max_ns == UINT64_MAX);
    stats_latency(STATS_OP_ALLREDUCE, STATS_LONG, 9);
    CHECK(counted(hist_of(&r, STATS_OP_ALLREDUCE, STATS_LONG)) == 1 && counted(hist_of(&r, STATS_OP_BARRIER, 0)) == 0);
    stats_latency(STATS_OP_NONE, 0, 1); /* no kind: nothing is touched */
    stats_latency((enum stats_op_kind)100, 0, 1);
    CHECK_EQ(value_named(&r, "pool_size"), 0);
    /* a child's are its own; the next attach begins anew */
    pid_t child = fork();
    if (child == 0) {
        stats_close();
        stats_latency(STATS_OP_BARRIER, 0, 1);
        _exit(0);
    }
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK_EQ(counted(hist_of(&r, STATS_OP_BARRIER, 0)), 0);
    read_end(&r);
    stats_close();
    stats_latency(STATS_OP_BARRIER, 0, 1); /* detached: lands in the process */
    stats_open(1, &me);
    r = read_segment(find_segment());
    CHECK(counted(hist_of(&r, STATS_OP_ALLREDUCE, 8)) == 0 && counted(hist_of(&r, STATS_OP_BARRIER, 0)) == 0);
    read_end(&r);
    stats_close();
}

static void *time_many(void *arg) {
    uint64_t n = *(uint64_t *)arg;
    for (uint64_t i = 1; i <= n; i++)
        stats_latency(STATS_OP_BARRIER, 0, i);
    return NULL;
}

static void latencies_of_threads_add_up(void) {
    uint64_t n = check_count(50000, 1000000), sum = 0;
    pthread_t t[4];
    stats_open(1, &me);
    struct reader r = read_segment(find_segment());
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&t[i], NULL, time_many, &n), 0);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_join(t[i], NULL), 0);
    const struct stats_hist *h = hist_of(&r, STATS_OP_BARRIER, 0);
    for (unsigned i = 0; i < STATS_BUCKETS; i++)
        sum += load_relaxed(&h->bucket[i]);
    CHECK_EQ(sum, 4 * n);
    CHECK_EQ(h->max_ns, n);
    read_end(&r);
    stats_close();
}

/* A program repeats a pattern of operations: each of the pattern is counted, and about as often as the others. */
static void every_step_of_a_pattern_is_sampled(void) {
    const uint64_t n = 1u << 20;
    for (uint64_t period = 1; period <= 300; period++) {
        uint32_t times[300] = {0}, least = UINT32_MAX, most = 0;
        for (uint64_t sequence = 1, step = 0; sequence <= n; sequence++, step = step + 1 < period ? step + 1 : 0)
            times[step] += (uint32_t)stats_sampled(sequence);
        for (uint64_t i = 0; i < period; i++) {
            least = times[i] < least ? times[i] : least;
            most = times[i] > most ? times[i] : most;
        }
        double fair = (double)n / STATS_SAMPLED / (double)period;
        if (!CHECK(least > fair * 0.4 && most < fair * 1.7))
            fprintf(stderr, "period %d: %u to %u, not %.0f\n", (int)period, least, most, fair);
    }
}

/* ------------------------------------------------------------------------------------------ without a segment */

static void in_the_process(void) {
    stats_open(0, &me);
    CHECK_EQ(find_segment(), -1);
    CHECK_EQ(stats_overhead(), 0);
    stats_add(STAT_FREES, 5);
    stats_set(STAT_META_SIZE, 6);
    CHECK_EQ(stats_read(STAT_FREES), 5);
    CHECK_EQ(stats_read(STAT_META_SIZE), 6);
    stats_set_state(STATS_ATTACHED);
    stats_op_group(0, 0, 2);
    stats_op_begin(0, STATS_OP_BARRIER, 1, 0, 1);
    stats_op_end(0, 0, 2);
    stats_close();
    stats_open(0, &me);
    CHECK_EQ(stats_read(STAT_FREES), 0);
    stats_close();
}

static void refused(void) {
    static const int errors[] = {EPERM, ENOMEM, ENOSYS};
    stats_open(1, &me); /* the place of a segment is made once and kept */
    stats_close();
    syp_log_set(keep_line, NULL);
    for (size_t e = 0; e < sizeof errors / sizeof errors[0]; e++) {
        int failed;
        unsigned n = 0, warned = 0;
        do {
            n_lines = 0;
            fake_os_on();
            fake_os_fail(++n, errors[e]);
            CHECK_EQ(stats_open(1, &me), SYP_OK);
            stats_add(STAT_SLEEPS, 1);
            CHECK_EQ(stats_read(STAT_SLEEPS), 1);
            CHECK_EQ(n_lines, stats_overhead() == 0);
            CHECK_EQ(fake_os_open_fds(), stats_overhead() != 0);
            if (n_lines) {
                warned++;
                CHECK_HAS(line, "publish statistics: ");
                CHECK_HAS(line, "SYMPOOL_STATS=off");
            }
            stats_close();
            failed = fake_os_last() != NULL;
            CHECK_EQ(fake_os_open_fds(), 0);
            CHECK_EQ(fake_os_mapped_bytes(), 0);
            fake_os_off();
        } while (failed && n < 100);
        CHECK(warned >= 5 && n < 100); /* memfd, size, memory, mapping, seal */
    }
    /* a kernel before 5.1 does not know the seal against writers: the others are there */
    fake_os_on();
    fake_os_fail_op("file_seal", 1, EINVAL);
    n_lines = 0;
    stats_open(1, &me);
    fake_os_off();
    CHECK_EQ(n_lines, 0);
    CHECK_EQ(fcntl(find_segment(), F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_GROW), F_SEAL_SHRINK | F_SEAL_GROW);
    stats_close();
    syp_log_set(NULL, NULL);
}

static void several_open(void) {
    struct stats_identity other = me;
    other.rank = 3;
    stats_open(1, &me);
    int first_fd = find_segment();
    struct reader first = read_segment(first_fd);
    stats_add(STAT_ALLOCS, 1);
    stats_open(1, &other);
    struct reader second = read_segment(find_segment());
    CHECK_EQ(second.head->rank, 3);
    stats_add(STAT_ALLOCS, 10);
    stats_close();
    stats_add(STAT_ALLOCS, 100);
    CHECK_EQ(value_named(&first, "allocs"), 101);
    CHECK_EQ(value_named(&second, "allocs"), 10);
    CHECK_EQ(find_segment(), first_fd);
    stats_close();
    read_end(&first);
    read_end(&second);
    CHECK_EQ(find_segment(), -1);
}

static void again_and_again(void) {
    stats_open(1, &me);
    stats_close();
    int fds = count_open_fds(), mappings = count_mappings();
    for (uint64_t i = check_count(300, 5000); i > 0; i--) {
        stats_open(1, &me);
        stats_add(STAT_FREES, i);
        CHECK_EQ(stats_read(STAT_FREES), i);
        stats_close();
    }
    CHECK_EQ(count_open_fds(), fds);
    CHECK_EQ(count_mappings(), mappings);
}

/* A forked child closes the parent's segment for itself: what it counts afterwards is its own. */
static void fork_child(void) {
    stats_open(1, &me);
    struct reader r = read_segment(find_segment());
    stats_add(STAT_ALLOCS, 5);
    pid_t child = fork();
    if (child == 0) {
        stats_close();
        int gone = find_segment() == -1;
        stats_add(STAT_ALLOCS, 1000);
        _exit(gone ? 0 : 1);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    stats_add(STAT_ALLOCS, 5);
    CHECK_EQ(value_named(&r, "allocs"), 10);
    CHECK(find_segment() >= 0);
    read_end(&r);
    stats_close();
}

/* A program that closes all descriptors and opens a file of its own under our number keeps that file. */
static void descriptor_taken_away(void) {
    stats_open(1, &me);
    int fd = find_segment();
    close(fd);
    CHECK_EQ(open("/dev/null", O_RDONLY | O_CLOEXEC), fd);
    stats_add(STAT_ALLOCS, 1);
    CHECK_EQ(stats_read(STAT_ALLOCS), 1);
    stats_close();
    CHECK(fcntl(fd, F_GETFD) >= 0);
    close(fd);
    stats_open(1, &me);
    fd = find_segment();
    close(fd);
    stats_close();
    CHECK_EQ(find_segment(), -1);
}

/* ThreadSanitizer takes the mmap of a new segment over the place of the last one for a plain write.  For a writer that
 * was delayed since then it is not: it writes into the one or the other, both mapped.  No other test needs this. */
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) {
    return "race:^publish$\n";
}

static void *add_until_told(void *arg) {
    atom32 *stop = arg;
    uint64_t n = 0;
    while (!load_acquire(stop)) { /* pairs with writers_meet_close */
        stats_add(STAT_ALLOCS, 1);
        stats_set(STAT_HEAP_USED, ++n);
        stats_op_waits(3, 1);
    }
    return NULL;
}

/* Other threads go on allocating while the segment is opened and closed under them. */
static void writers_meet_close(void) {
    static atom32 stop;
    pthread_t t[3];
    store_relaxed(&stop, 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(pthread_create(&t[i], NULL, add_until_told, &stop), 0);
    for (uint64_t i = check_count(200, 5000); i > 0; i--) {
        CHECK_EQ(stats_open((int)(i % 3 != 0), &me), SYP_OK);
        sched_yield();
        stats_close();
    }
    store_release(&stop, 1);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(pthread_join(t[i], NULL), 0);
}

int main(void) {
    return check_main("stats", (struct check_test[]){{"describes_itself", describes_itself},
                                                     {"only_the_owner_writes", only_the_owner_writes},
                                                     {"figures", figures},
                                                     {"sums_are_exact", sums_are_exact},
                                                     {"operation_of_a_group", operation_of_a_group},
                                                     {"operations_are_read_whole", operations_are_read_whole},
                                                     {"latencies", latencies},
                                                     {"latencies_of_threads_add_up", latencies_of_threads_add_up},
                                                     {"every_step_of_a_pattern_is_sampled", every_step_of_a_pattern_is_sampled},
                                                     {"in_the_process", in_the_process},
                                                     {"refused", refused},
                                                     {"several_open", several_open},
                                                     {"again_and_again", again_and_again},
                                                     {"fork_child", fork_child},
                                                     {"descriptor_taken_away", descriptor_taken_away},
                                                     {"writers_meet_close", writers_meet_close},
                                                     {0}});
}
