/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names of shm.h, used as their source is used.  What breaks the source has a test each: interleaved all-reduce and all-gather with a rank that is
 * descheduled after it published, restarts after a crash, two jobs with one port, sizes around its limits, no elements, unknown types, a rank that
 * fails between two collectives.
 */
#include "allocator/compat/shm.h"
#include "allocator/sympool.h"
#include "pool/base/conf.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"
#include "tests/support/world_test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define ADDR "127.0.0.1"
#define MIB ((size_t)1 << 20)

/* A port that no other run of this program uses at the same time; it is a name here. */
static const char *own_port(void) {
    static char port[16];
    if (!port[0]) snprintf(port, sizeof port, "p%d", (int)getpid());
    return port;
}

/* ---------------------------------------------------------------------------------------------------- the log */

static struct {
    unsigned lines, errors;
    char last[1400];
} said;

static void listen_to(void *arg, int level, const char *text) {
    (void)arg;
    said.lines++;
    if (level != SYP_LOG_ERROR) return;
    said.errors++;
    snprintf(said.last, sizeof said.last, "%s", text);
}

static void listen_to_the_log(void) {
    memset(&said, 0, sizeof said); /* of the parent */
    syp_log_set(listen_to, NULL);
}

/* A rank of the job of this test. */
static int joined(struct ranks *r, int rank) {
    listen_to_the_log();
    if (CHECK(shm_initialize(r->n, rank, ADDR, own_port()) == 0)) return 1;
    printf("rank %d: %s\n", rank, said.last);
    return 0;
}

/* -------------------------------------------------------------------------------------------------- its figures */

/* Element i of rank r: small whole numbers, exact in every type, whose sums over 8 ranks are so, too; they repeat every PERIOD elements. */
#define PERIOD 13

static int figure(size_t i, int r) {
    return (int)((i * 7 + (size_t)r * 3) % PERIOD);
}

/* binary16 of whole numbers 0 .. 2047 */
static uint16_t to_half(int v) {
    int exponent = 25;
    if (v == 0) return 0;
    for (; v < 0x400; v <<= 1)
        exponent--;
    return (uint16_t)(exponent << 10 | (v & 0x3ff));
}

static int from_half(uint16_t h) {
    return h ? ((h & 0x3ff) | 0x400) >> (25 - (h >> 10)) : 0;
}

static void put(void *p, size_t i, int dtype, int v) {
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    switch (dtype) {
    case SHM_FLOAT32: ((float *)p)[i] = f; break;
    case SHM_BFLOAT16: ((uint16_t *)p)[i] = (uint16_t)(bits >> 16); break;
    case SHM_FLOAT16: ((uint16_t *)p)[i] = to_half(v); break;
    default: ((int8_t *)p)[i] = (int8_t)v;
    }
}

static int get(const void *p, size_t i, int dtype) {
    float f;
    uint32_t bits;
    switch (dtype) {
    case SHM_FLOAT32: return (int)((const float *)p)[i];
    case SHM_FLOAT16: return from_half(((const uint16_t *)p)[i]);
    case SHM_BFLOAT16:
        bits = (uint32_t)((const uint16_t *)p)[i] << 16;
        memcpy(&f, &bits, sizeof f);
        return (int)f;
    default: return ((const int8_t *)p)[i];
    }
}

static size_t size_of(int dtype) {
    return dtype == SHM_FLOAT32 ? 4 : dtype == SYP_INT8 ? 1 : 2;
}

/* All-reduce numel elements and look at every one; the bytes on both sides must stay. */
static int reduce_and_look(struct ranks *r, int rank, size_t numel, int dtype) {
    size_t len = numel * size_of(dtype);
    char *block = malloc(len + 128), *x = block + 64;
    int sum[PERIOD] = {0};
    for (size_t i = 0; i < PERIOD * (size_t)r->n; i++)
        sum[i % PERIOD] += figure(i % PERIOD, (int)(i / PERIOD));
    memset(block, 0x5a, len + 128);
    for (size_t i = 0; i < numel; i++)
        put(x, i, dtype, figure(i, rank));
    int good = CHECK(all_reduce_outer_loop(x, numel, len, dtype) == 0);
    for (size_t i = 0; i < numel && good; i++)
        if (get(x, i, dtype) != sum[i % PERIOD])
            good = check_fail(__FILE__, __LINE__, "rank %d, type %d, element %zu of %zu: %d, not %d", rank, dtype, i, numel, get(x, i, dtype),
                              sum[i % PERIOD]);
    for (size_t i = 0; i < 64; i++)
        good &= block[i] == 0x5a && x[len + i] == 0x5a;
    free(block);
    return CHECK(good);
}

/* All-gather a tensor of these sizes along dim, likewise. */
static int gather_and_look(struct ranks *r, int rank, const int64_t *sizes, int n_dims, int dim, int dtype) {
    size_t rows = 1, row = 1, unit = size_of(dtype), n = (size_t)r->n;
    int first = dim < 0 ? dim + n_dims : dim;
    for (int d = 0; d < n_dims; d++)
        *(d < first ? &rows : &row) *= (size_t)sizes[d];
    size_t numel = rows * row;
    char *x = malloc(numel * unit + 1), *all = malloc(n * numel * unit + 64);
    for (size_t i = 0; i < numel; i++)
        put(x, i, dtype, figure(i, rank));
    memset(all, 0x5a, n * numel * unit + 64);
    int good = CHECK(all_gather(all, x, dim, numel, numel * unit, dtype, sizes, n_dims) == 0);
    for (size_t k = 0; k < numel * n && good; k++) {
        size_t at = k / (n * row), m = k / row % n, i = at * row + k % row;
        if (get(all, k, dtype) != figure(i, (int)m))
            good = check_fail(__FILE__, __LINE__, "rank %d, dim %d: element %zu: %d, not %d", rank, dim, k, get(all, k, dtype), figure(i, (int)m));
    }
    for (size_t i = 0; i < 64; i++)
        good &= all[n * numel * unit + i] == 0x5a;
    free(x);
    free(all);
    return CHECK(good);
}

static void run(int n, int (*fn)(struct ranks *r, int rank, void *arg), void *arg) {
    struct ranks r;
    own_port();
    if (!CHECK(ranks_start(&r, n, 4096, fn, arg) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 200, -1), 0);
    ranks_free(&r);
}

/* ------------------------------------------------------------------------------------------------ as it is used */

static int use_as_the_source_does(struct ranks *r, int rank, void *arg) {
    (void)arg;
    listen_to_the_log();
    if (!CHECK(shm_initialize(r->n, rank, "127.0.0.1", "29500") == 0)) {
        printf("rank %d: %s\n", rank, said.last);
        return 1;
    }
    for (int layer = 0; layer < 50; layer++) {
        reduce_and_look(r, rank, 5120, SHM_FLOAT32);
        gather_and_look(r, rank, (int64_t[]){4, 320}, 2, -1, SHM_FLOAT32);
    }
    CHECK_EQ(said.lines, 0);
    return 0; /* the source has no end either: who leaves first disturbs nobody */
}

static void usage_example_of_the_source(void) {
    run(4, use_as_the_source_does, NULL);
}

static int use_a_taken_port(struct ranks *r, int rank, void *port) {
    if (!CHECK(shm_initialize(r->n, rank, ADDR, port) == 0)) return 1;
    return !reduce_and_look(r, rank, 100, SHM_FLOAT32);
}

static void port_is_a_name_and_neither_bound_nor_connected_to(void) {
    char port[16];
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (!CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&a, len) == 0 && listen(fd, 8) == 0 && getsockname(fd, (struct sockaddr *)&a, &len) == 0)) return;
    snprintf(port, sizeof port, "%d", ntohs(a.sin_port));
    run(2, use_a_taken_port, port);
    CHECK(accept(fd, NULL, NULL) < 0 && errno == EAGAIN);
    close(fd);
}

static int use_every_kind_of_name(struct ranks *r, int rank, void *arg) {
    static const char *const names[][2] = {{"", ""}, {"fe80::1%eth0", "80 80"}, {"a-host-name-that-is-much-longer-than-the-name-of-a-job-may-be.example.org", "1"}};
    char port[32];
    (void)arg;
    for (int i = 0; i < 3; i++) {
        snprintf(port, sizeof port, "%s%s", names[i][1], own_port());
        if (!CHECK(shm_initialize(r->n, rank, names[i][0], port) == 0)) printf("rank %d: %s\n", rank, syp_error_text());
        reduce_and_look(r, rank, 100, SHM_FLOAT32);
        CHECK_EQ(syp_finalize(), 0);
    }
    CHECK_EQ(shm_initialize(1, 0, NULL, NULL), 0); /* alone */
    return 0;
}

static void any_address_and_port_name_a_job(void) {
    run(2, use_every_kind_of_name, NULL);
}

/* ------------------------------------------------------------------------------------------------ the arguments */

static int initialise_again(struct ranks *r, int rank, void *arg) {
    int attached_before = arg != NULL;
    if (attached_before) {
        syp_config c = SYP_CONFIG_INIT;
        c.rank = rank;
        c.n_ranks = r->n;
        c.job = own_port();
        CHECK_EQ(syp_init_config(&c), 0);
    }
    if (!joined(r, rank)) return 1;
    CHECK_EQ(shm_initialize(r->n, rank, ADDR, own_port()), 0);
    CHECK_EQ(said.lines, 0);
    CHECK_EQ(shm_initialize(r->n, rank, ADDR, "another"), SYP_ESTATE);
    CHECK_HAS(said.last, "another address or port");
    CHECK_EQ(shm_initialize(r->n + 1, rank, ADDR, own_port()), SYP_ESTATE);
    CHECK_HAS(said.last, rank ? "is rank 1 of 2 already" : "is rank 0 of 2 already");
    CHECK_EQ(shm_initialize(r->n, 1 - rank, ADDR, own_port()), SYP_ESTATE);
    CHECK_EQ(shm_initialize(0, 0, ADDR, own_port()), SYP_EINVAL);
    CHECK_EQ(shm_initialize(2, 2, ADDR, own_port()), SYP_EINVAL);
    CHECK_EQ(shm_initialize(2, -1, ADDR, own_port()), SYP_EINVAL);
    CHECK_EQ(said.errors, 6);
    return !reduce_and_look(r, rank, 1000, SHM_FLOAT32);
}

static void second_call_is_fine_with_the_same_arguments_only(void) {
    run(2, initialise_again, NULL);
}

static void attached_process_keeps_its_world(void) {
    run(2, initialise_again, "");
}

/* One rank's call is wrong: it gets EINVAL, the other EMISMATCH, and the next operation works. */
static void look_at_refusal(struct ranks *r, int rank, int rc, const char *why) {
    CHECK_EQ(rc, rank == 0 ? SYP_EINVAL : SYP_EMISMATCH);
    CHECK_HAS(said.last, rank == 0 ? why : "rank 0");
    reduce_and_look(r, rank, 100, SHM_FLOAT32);
}

static int call_wrongly(struct ranks *r, int rank, void *arg) {
    float x[24] = {0}, all[48];
    int64_t sizes[3] = {2, 3, 4}, negative[2] = {-1, 4}, more[3] = {2, 3, 5};
    int wrong = rank == 0;
    (void)arg;
    if (!joined(r, rank)) return 1;
    look_at_refusal(r, rank, all_reduce_outer_loop(x, 24, 96, wrong ? 99 : SHM_FLOAT32), "99");
    look_at_refusal(r, rank, all_reduce_outer_loop(x, 24, 96, wrong ? -1 : SHM_FLOAT32), "-1");
    look_at_refusal(r, rank, all_reduce_outer_loop(x, 24, wrong ? 95 : 96, SHM_FLOAT32), "are not 95 bytes");
    look_at_refusal(r, rank, all_reduce_outer_loop(x, wrong ? SIZE_MAX / 2 : 24, 96, SHM_FLOAT32), "are not 96 bytes");
    look_at_refusal(r, rank, all_gather(all, x, 1, 24, 96, wrong ? 0 : SHM_FLOAT32, sizes, 3), "no element type");
    look_at_refusal(r, rank, all_gather(all, x, wrong ? 3 : 1, 24, 96, SHM_FLOAT32, sizes, 3), "dim 3 of 3");
    look_at_refusal(r, rank, all_gather(all, x, wrong ? -4 : 1, 24, 96, SHM_FLOAT32, sizes, 3), "dim -4 of 3");
    look_at_refusal(r, rank, all_gather(all, x, 1, 24, 96, SHM_FLOAT32, wrong ? NULL : sizes, 3), "sizes NULL");
    look_at_refusal(r, rank, all_gather(all, x, 1, 24, 96, SHM_FLOAT32, wrong ? negative : sizes, wrong ? 2 : 3), "size -1");
    look_at_refusal(r, rank, all_gather(all, x, 1, 24, 96, SHM_FLOAT32, wrong ? more : sizes, 3), "do not agree");
    CHECK_EQ(all_reduce_outer_loop(x, rank ? 24 : 23, rank ? 96 : 92, SHM_FLOAT32), SYP_EMISMATCH); /* different counts */
    CHECK_EQ(all_reduce_outer_loop(x, 24, 96, rank ? SHM_FLOAT32 : SYP_INT32), SYP_EMISMATCH);
    return !gather_and_look(r, rank, sizes, 3, 1, SHM_FLOAT32);
}

static void wrong_argument_on_one_rank_is_an_error_on_all_and_nobody_waits(void) {
    run(2, call_wrongly, NULL);
}

static void calls_before_shm_initialize_are_errors(void) {
    float x = 1;
    listen_to_the_log();
    CHECK_EQ(all_reduce_outer_loop(&x, 1, 4, SHM_FLOAT32), SYP_ESTATE);
    CHECK_EQ(all_reduce_outer_loop(&x, 1, 3, SHM_FLOAT32), SYP_ESTATE);
    CHECK_EQ(all_gather(&x, &x, 0, 1, 4, SHM_FLOAT32, (int64_t[]){1}, 1), SYP_ESTATE);
    CHECK_EQ(said.errors, 4); /* of the second two: what was wrong with it, and that nobody could be told */
    syp_log_set(NULL, NULL);
}

/* --------------------------------------------------------------------------------------------- sizes and types */

static int reduce_sizes(struct ranks *r, int rank, void *arg) {
    static const int types[] = {SHM_FLOAT32, SHM_BFLOAT16, SHM_FLOAT16, SYP_INT8};
    size_t sizes[] = {0, 1, 255, MIB / 2, MIB, MIB + MIB / 3};
    (void)arg;
    if (!joined(r, rank)) return 1;
    for (int t = 0; t < 4; t++) {
        size_t unit = size_of(types[t]);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
            for (int off = -1; off <= 1; off++) /* below, at and above each, in elements; of bytes by the 8-bit type */
                if (sizes[i] >= unit || off >= 0) reduce_and_look(r, rank, sizes[i] / unit + (size_t)off, types[t]);
    }
    return 0;
}

static void all_reduce_is_exact_at_all_sizes_in_all_types_of_the_source(void) {
    run(3, reduce_sizes, NULL);
}

static int reduce_chunks(struct ranks *r, int rank, void *arg) {
    uint64_t full = check_count(0, 1);
    (void)arg;
    if (!joined(r, rank)) return 1;
    for (int off = -1; off <= 1; off++)
        reduce_and_look(r, rank, 32 * MIB + (size_t)off, SYP_INT8);
    reduce_and_look(r, rank, 8 * MIB + 1, SHM_FLOAT32);
    gather_and_look(r, rank, (int64_t[]){3, 3 * MIB + 1}, 2, 1, SHM_FLOAT32);
    if (full) reduce_and_look(r, rank, 3 * 32 * MIB / 4 + 77, SHM_FLOAT32); /* three chunks and a tail */
    return 0;
}

static void chunk_sizes_of_the_source_are_no_edges_here(void) {
    run(2, reduce_chunks, NULL);
}

/* Memory for len bytes; in the quick run one window of 64 MiB, again and again. */
static int8_t *plenty(size_t len) {
    size_t window = 64 * MIB;
    int fd = memfd_create("plenty", 0);
    if (check_count(0, 1)) window = len;
    char *p = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int good = fd >= 0 && p != MAP_FAILED && ftruncate(fd, (off_t)window) == 0;
    for (size_t at = 0; at < len && good; at += window)
        good = mmap(p + at, len - at < window ? len - at : window, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
    close(fd);
    return good ? (int8_t *)p : NULL;
}

/* The source counts bytes in an int. */
static int reduce_above_2_gib(struct ranks *r, int rank, void *arg) {
    size_t len = (2ull << 30) + 4099, good = 0;
    int full = check_count(0, 1) != 0;
    int8_t *x = plenty(len);
    (void)arg;
    if (!joined(r, rank) || !CHECK(x)) return 1;
    if (full) memset(x, 1 + rank, len);
    CHECK_EQ(all_reduce_outer_loop(x, len, len, SYP_INT8), 0);
    for (size_t i = 0; i < len; i += full ? 1 : 4096)
        good += x[i] == (full ? 3 : 0);
    CHECK_EQ(good, full ? len : len / 4096 + 1);
    return 0;
}

static void more_than_2_gib_are_reduced(void) {
    run(2, reduce_above_2_gib, NULL);
}

static int gather_dims(struct ranks *r, int rank, void *arg) {
    static const int types[] = {SHM_FLOAT32, SHM_BFLOAT16, SYP_INT8};
    (void)arg;
    if (!joined(r, rank)) return 1;
    for (int t = 0; t < 3; t++)
        for (int dim = -3; dim < 3; dim++) {
            gather_and_look(r, rank, (int64_t[]){3, 4, 5}, 3, dim, types[t]);
            gather_and_look(r, rank, (int64_t[]){17, 1, 4099}, 3, dim, types[t]);
            gather_and_look(r, rank, (int64_t[]){3, 0, 5}, 3, dim, types[t]); /* no elements */
        }
    return 0;
}

static void all_gather_joins_along_every_dimension(void) {
    run(3, gather_dims, NULL);
}

/* --------------------------------------------------------------------------------------------- what breaks the source */

/* Now and then this rank loses its processor just after it has published. */
static unsigned published;
static void descheduled_after_publishing(const char *point) {
    if (strcmp(point, "published") == 0 && ++published % 5 == 0) usleep(2000);
}

static int interleave(struct ranks *r, int rank, void *arg) {
    int gather_first = arg != NULL;
    uint64_t rounds = check_count(6, 100);
    if (!joined(r, rank)) return 1;
    for (uint64_t i = 0; i < rounds && !check_failures(); i++) {
        /* another rank in turn, or all at random */
        test_point_hook = (int)(i % (uint64_t)r->n) == rank ? descheduled_after_publishing : NULL;
        if (i % 6 == 5) delays_on(i * 31 + (uint64_t)rank, 10);
        if (gather_first) gather_and_look(r, rank, (int64_t[]){2, 30011}, 2, 1, SHM_FLOAT32);
        reduce_and_look(r, rank, MIB / 4 + 3 + i, SHM_FLOAT32);
        gather_and_look(r, rank, (int64_t[]){30011, 2}, 2, 0, SHM_FLOAT32);
        reduce_and_look(r, rank, 512, SHM_FLOAT32);
    }
    delays_off();
    return 0;
}

static void large_all_reduce_then_all_gather_with_a_rank_descheduled_after_publishing(void) {
    run(4, interleave, NULL);
}

static void all_gather_then_large_all_reduce_likewise(void) {
    run(4, interleave, "");
}

/* The stage of a test, in the shared page: other processes wait for it. */
static void reach(struct ranks *r, int stage) {
    (void)add_relaxed((atom32 *)r->shared + stage, 1u);
}

static int reached(struct ranks *r, int stage, uint32_t by) {
    for (uint64_t until = os->now() + 60 * NS_PER_S; os->now() < until; usleep(200))
        if (load_acquire((atom32 *)r->shared + stage) >= by) return 1;
    return check_fail(__FILE__, __LINE__, "the others did not come");
}

static int hang_in_the_middle(struct ranks *r, int rank, void *arg) {
    (void)arg;
    if (!joined(r, rank)) return 1;
    reduce_and_look(r, rank, MIB / 2, SHM_FLOAT32);
    reach(r, 0);
    if (rank != 0) reduce_and_look(r, rank, MIB / 2, SHM_FLOAT32); /* waits for rank 0 until it is killed */
    pause();
    return 0;
}

static int reduce_once(struct ranks *r, int rank, void *arg) {
    (void)arg;
    return !joined(r, rank) || !reduce_and_look(r, rank, MIB / 2, SHM_FLOAT32);
}

static void killed_job_can_be_started_again_at_once_under_the_same_names(void) {
    own_port();
    int before = count_shm_entries();
    for (uint64_t i = 0; i < check_count(3, 30); i++) {
        struct ranks killed;
        if (!CHECK(ranks_start(&killed, 4, 4096, hang_in_the_middle, NULL) == 0)) return;
        reached(&killed, 0, 4);
        usleep((useconds_t)(i * 997 % 5000));
        for (int k = 0; k < 4; k++)
            kill(killed.pid[k], SIGKILL);
        run(4, reduce_once, NULL); /* nobody has waited for the dead */
        (void)ranks_wait(&killed, 10, -1);
        ranks_free(&killed);
    }
    CHECK_EQ(count_shm_entries(), before);
}

static int live_beside_others(struct ranks *r, int rank, void *arg) {
    (void)arg;
    if (!joined(r, rank)) return 1;
    reach(r, 0);
    reached(r, 1, 1);
    reduce_and_look(r, rank, 1000, SHM_FLOAT32);
    CHECK_EQ(said.lines, 0);
    return 0;
}

static int come_second(struct ranks *r, int rank, void *arg) {
    (void)arg;
    listen_to_the_log();
    CHECK_EQ(shm_initialize(r->n, rank, ADDR, own_port()), SYP_ESTATE);
    CHECK_HAS(said.last, "is held by process");
    CHECK_EQ(said.errors, 1);
    return 0;
}

static void two_jobs_with_one_port_of_one_size_the_second_is_refused_the_first_undisturbed(void) {
    struct ranks first;
    own_port();
    if (!CHECK(ranks_start(&first, 2, 4096, live_beside_others, NULL) == 0)) return;
    reached(&first, 0, 2);
    run(2, come_second, NULL);
    reach(&first, 1);
    CHECK_EQ(ranks_wait(&first, 60, -1), 0);
    ranks_free(&first);
}

static void two_jobs_with_one_port_of_different_sizes_are_two_jobs(void) {
    struct ranks first;
    own_port();
    if (!CHECK(ranks_start(&first, 3, 4096, live_beside_others, NULL) == 0)) return;
    reached(&first, 0, 3);
    run(2, reduce_once, NULL);
    reach(&first, 1);
    CHECK_EQ(ranks_wait(&first, 60, -1), 0);
    ranks_free(&first);
}

/* Ranks 0 and 2 must learn why rank 1 is not where they are. */
static int fail_between_collectives(struct ranks *r, int rank, void *arg) {
    const char *how = arg;
    float x[100] = {0}, all[300];
    setenv("SYMPOOL_TIMEOUT", "1s", 1);
    conf_reset();
    if (!joined(r, rank)) return 1;
    reduce_and_look(r, rank, 1000, SHM_FLOAT32);
    if (rank == 1 && strcmp(how, "leaves") == 0) return 0;
    if (rank == 1 && strcmp(how, "is late") == 0) usleep(2500000);
    int swallowed = rank == 1 && strcmp(how, "goes on") == 0; /* an exception in the middle of a layer */
    int rc = swallowed ? all_gather(all, x, 0, 100, 400, SHM_FLOAT32, (int64_t[]){100}, 1) : all_reduce_outer_loop(x, 100, 400, SHM_FLOAT32);
    CHECK_HAS(said.last, rank == 1 && !swallowed ? "" : "rank 1");
    if (strcmp(how, "goes on") == 0) {
        CHECK_EQ(rc, SYP_EMISMATCH);
        return !reduce_and_look(r, rank, 1000, SHM_FLOAT32);
    }
    if (strcmp(how, "leaves") == 0) CHECK_EQ(rc, SYP_EPEER);
    else CHECK(rc == SYP_ETIMEOUT || rc == SYP_EABORTED);
    /* callers of a void function do not look: that must neither hang nor fill the log */
    for (int i = 0; i < 1000; i++)
        CHECK(all_reduce_outer_loop(x, 100, 400, SHM_FLOAT32) != 0);
    CHECK(said.errors >= 1 && said.errors <= 3);
    return 0;
}

static void rank_that_skips_a_collective_is_a_mismatch_on_all_and_the_job_goes_on(void) {
    run(3, fail_between_collectives, "goes on");
}

static void rank_that_leaves_is_an_error_on_all(void) {
    run(3, fail_between_collectives, "leaves");
}

static void rank_that_does_not_come_is_a_timeout_that_names_it(void) {
    run(3, fail_between_collectives, "is late");
}

static int come_alone(struct ranks *r, int rank, void *arg) {
    (void)arg;
    setenv("SYMPOOL_JOIN_TIMEOUT", "700ms", 1);
    conf_reset();
    listen_to_the_log();
    CHECK_EQ(shm_initialize(r->n + 1, rank, ADDR, own_port()), SYP_EJOIN);
    CHECK_HAS(said.last, "2"); /* who is missing */
    return 0;
}

static void missing_rank_is_an_error_after_the_deadline(void) {
    run(2, come_alone, NULL);
}

int main(void) {
    static const struct check_test tests[] = {
        {"usage_example_of_the_source", usage_example_of_the_source},
        {"port_is_a_name_and_neither_bound_nor_connected_to", port_is_a_name_and_neither_bound_nor_connected_to},
        {"any_address_and_port_name_a_job", any_address_and_port_name_a_job},
        {"second_call_is_fine_with_the_same_arguments_only", second_call_is_fine_with_the_same_arguments_only},
        {"attached_process_keeps_its_world", attached_process_keeps_its_world},
        {"wrong_argument_on_one_rank_is_an_error_on_all_and_nobody_waits", wrong_argument_on_one_rank_is_an_error_on_all_and_nobody_waits},
        {"calls_before_shm_initialize_are_errors", calls_before_shm_initialize_are_errors},
        {"all_reduce_is_exact_at_all_sizes_in_all_types_of_the_source", all_reduce_is_exact_at_all_sizes_in_all_types_of_the_source},
        {"chunk_sizes_of_the_source_are_no_edges_here", chunk_sizes_of_the_source_are_no_edges_here},
        {"more_than_2_gib_are_reduced", more_than_2_gib_are_reduced},
        {"all_gather_joins_along_every_dimension", all_gather_joins_along_every_dimension},
        {"large_all_reduce_then_all_gather_with_a_rank_descheduled_after_publishing",
         large_all_reduce_then_all_gather_with_a_rank_descheduled_after_publishing},
        {"all_gather_then_large_all_reduce_likewise", all_gather_then_large_all_reduce_likewise},
        {"killed_job_can_be_started_again_at_once_under_the_same_names", killed_job_can_be_started_again_at_once_under_the_same_names},
        {"two_jobs_with_one_port_of_one_size_the_second_is_refused_the_first_undisturbed",
         two_jobs_with_one_port_of_one_size_the_second_is_refused_the_first_undisturbed},
        {"two_jobs_with_one_port_of_different_sizes_are_two_jobs", two_jobs_with_one_port_of_different_sizes_are_two_jobs},
        {"rank_that_skips_a_collective_is_a_mismatch_on_all_and_the_job_goes_on", rank_that_skips_a_collective_is_a_mismatch_on_all_and_the_job_goes_on},
        {"rank_that_leaves_is_an_error_on_all", rank_that_leaves_is_an_error_on_all},
        {"rank_that_does_not_come_is_a_timeout_that_names_it", rank_that_does_not_come_is_a_timeout_that_names_it},
        {"missing_rank_is_an_error_after_the_deadline", missing_rank_is_an_error_after_the_deadline},
        {0},
    };
    return check_main("shm_compat", tests);
}
