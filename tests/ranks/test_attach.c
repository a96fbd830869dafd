/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The attach as a whole: every system call of it failed in turn, a thousand cycles without a leak, sizes beyond the machine, and the refusals that
 * every rank must see.
 */
#include "allocator/sympool.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/fake_os.h"
#include "tests/support/ranks.h"
#include "tests/support/world_test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

static int attach_one(struct world *w) {
    syp_config c = SYP_CONFIG_INIT;
    memset(w, 0, sizeof *w);
    w->process = 1;
    c.rank = 0;
    c.n_ranks = 1;
    c.local_mem_size = 4 << 20;
    c.meta_size = 1 << 20;
    return world_attach(w, &c);
}

/* Each failable call of an attach of one rank fails once: an error that names the step, or a fallback that works; nothing is left. */
static void every_call_fails_once(void) {
    struct world *w = world_new();
    int errors = 0, fallbacks = 0;
    CHECK_EQ(attach_one(w), SYP_OK); /* what is made once per process exists now */
    CHECK_EQ(world_detach(w), SYP_OK);
    fake_os_on();
    CHECK_EQ(attach_one(w), SYP_OK);
    unsigned calls = fake_os_calls();
    CHECK_EQ(world_detach(w), SYP_OK);
    CHECK_EQ(fake_os_open_fds(), 0);
    CHECK_EQ(fake_os_mapped_bytes(), 0);
    fake_os_off();
    CHECK(calls > 10);
    for (unsigned n = 1; n <= calls; n++) {
        fake_os_on();
        fake_os_fail(n, n % 2 ? ENOMEM : EPERM);
        int rc = attach_one(w);
        if (rc != SYP_OK) {
            errors++;
            CHECK_HAS(syp_error_text(), "init: ");
            CHECK(strlen(syp_error_text()) > 20);
            CHECK_STR(err_record()->operation, "init");
        } else {
            fallbacks++;
            CHECK_EQ(world_detach(w), SYP_OK);
        }
        if (fake_os_open_fds() || fake_os_mapped_bytes() || fake_os_threads())
            check_fail(__FILE__, __LINE__, "failing call %u (%s) left %ld fds, %ld bytes, %ld threads", n,
                       fake_os_last() ? fake_os_last() : "none", fake_os_open_fds(), fake_os_mapped_bytes(), fake_os_threads());
        fake_os_off();
    }
    printf("%u calls failed in turn: %d errors, %d fallbacks\n", calls, errors, fallbacks);
    CHECK(errors > 5);
    free(w);
}

/* ---------------------------------------------------------------------------------------------------- cycles */

static long resident_kb(void) {
    long size = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%ld %ld", &size, &resident) != 2) resident = 0;
    if (f) fclose(f);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static int cycles_rank(struct ranks *r, int rank, void *arg) {
    int cycles = *(int *)arg, fds = 0, maps = 0, threads = 0;
    long rss = 0;
    char job[32];
    for (int i = 0; i < cycles; i++) {
        syp_config c = SYP_CONFIG_INIT;
        c.rank = rank;
        c.n_ranks = r->n;
        c.local_mem_size = 8 << 20;
        c.meta_size = 1 << 20;
        snprintf(job, sizeof job, "cycles-%d-%d", (int)getppid(), i);
        c.job = job;
        if (syp_init_config(&c) != SYP_OK) {
            fprintf(stderr, "rank %d cycle %d: %s\n", rank, i, syp_error_text());
            return 1;
        }
        char *p = syp_symm_malloc(5000);
        float *x = syp_malloc(100000);
        if (!p || !x || syp_allreduce(x, x, 25000, SYP_FLOAT32, SYP_SUM, SYP_COMM_WORLD, NULL) != SYP_OK) return 2;
        syp_free(x);
        if (syp_finalize() != SYP_OK) {
            fprintf(stderr, "rank %d cycle %d: %s\n", rank, i, syp_error_text());
            return 3;
        }
        if (i == 20) {
            fds = count_open_fds();
            maps = count_mappings();
            threads = count_threads();
            rss = resident_kb();
        }
    }
    CHECK_EQ(count_open_fds(), fds);
    CHECK_EQ(count_threads_until(threads), threads);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CHECK(count_mappings() <= maps + 2); /* sanitizers map memory of their own */
    CHECK(resident_kb() <= rss + 256);
#else
    (void)maps, (void)rss;
#endif
    return 0;
}

static void cycles(void) {
    int n = (int)check_count(200, 1000);
    struct ranks r;
    if (!CHECK(ranks_start(&r, 2, 0, cycles_rank, &n) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 200, -1), 0);
    ranks_free(&r);
}

/* A port that was free a moment ago; nobody holds it. */
static void free_address(char *addr, size_t cap) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(fd, (struct sockaddr *)&a, len) == 0 && getsockname(fd, (struct sockaddr *)&a, &len) == 0);
    close(fd);
    snprintf(addr, cap, "tcp://127.0.0.1:%d", ntohs(a.sin_port));
}

static int same_port_rank(struct ranks *r, int rank, void *arg) {
    for (int i = 0; i < 20; i++) { /* the listener is gone after the join; the same address at once */
        if (syp_init(rank, r->n, 8 << 20, 0, arg) != SYP_OK || syp_finalize() != SYP_OK) {
            fprintf(stderr, "rank %d restart %d: %s\n", rank, i, syp_error_text());
            return 1;
        }
    }
    return 0;
}

static void restart_on_the_same_port(void) {
    struct ranks r;
    char addr[64];
    free_address(addr, sizeof addr);
    if (!CHECK(ranks_start(&r, 3, 0, same_port_rank, addr) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 60, -1), 0);
    ranks_free(&r);
}

/* ------------------------------------------------------------------------------------------------- refusals */

struct odd {
    int rank, n;          /* what the odd rank says, -2 = as the others */
    uint64_t meta;
    const char *expect, *also;
    int code;
};

static int odd_rank(struct ranks *r, int rank, void *arg) {
    const struct odd *o = arg;
    int odd = rank == 2;
    syp_config c = SYP_CONFIG_INIT;
    c.rank = odd && o->rank > -2 ? o->rank : rank;
    c.n_ranks = odd && o->n > -2 ? o->n : r->n;
    c.local_mem_size = 8 << 20;
    c.meta_size = odd ? o->meta : 1 << 20;
    c.addr = r->addr;
    c.listen_fd = rank == 0 ? r->listen_fd : -1;
    c.join_timeout_ns = 3 * (int64_t)NS_PER_S;
    int rc = syp_init_config(&c);
    CHECK_EQ(rc, o->code);
    CHECK_HAS(syp_error_text(), o->expect);
    CHECK_HAS(syp_error_text(), o->also);
    CHECK_EQ(syp_rank(), -1);
    return 0;
}

static void disagreements_reach_every_rank(void) {
    static const struct odd odds[] = {{-2, -2, 0, "meta_size", "rank 2", SYP_EJOIN},
                                      {-2, 5, 1 << 20, "world size", "5", SYP_EJOIN},
                                      {1, -2, 1 << 20, "rank 1", "127.0.0.1:", SYP_EJOIN}};
    for (int i = 0; i < 3; i++) {
        struct ranks r;
        if (!CHECK(ranks_start(&r, 4, 0, odd_rank, (void *)(uintptr_t)&odds[i]) == 0)) return;
        CHECK_EQ(ranks_wait(&r, 30, -1), 0);
        ranks_free(&r);
    }
}

static int missing_rank(struct ranks *r, int rank, void *arg) {
    (void)arg;
    if (rank == 1) return 0; /* never comes */
    syp_config c = ranks_config(r, rank, 8 << 20, 0);
    c.join_timeout_ns = 400 * (int64_t)NS_PER_MS;
    uint64_t begin = os->now();
    CHECK_EQ(syp_init_config(&c), SYP_EJOIN);
    CHECK(os->now() - begin >= 200 * NS_PER_MS);
    CHECK_HAS(syp_error_text(), "missing");
    CHECK_HAS(syp_error_text(), "1");
    return 0;
}

static void missing_ranks_are_listed(void) {
    struct ranks r;
    if (!CHECK(ranks_start(&r, 3, 0, missing_rank, NULL) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 30, -1), 0);
    ranks_free(&r);
}

/* ---------------------------------------------------------------------------------------------------- sizes */

/* More than the machine has: attaches, serves what there is, and running out is the error of the allocation that hit it. */
static int huge_rank(struct ranks *r, int rank, void *arg) {
    (void)arg;
    syp_config c = ranks_config(r, rank, 39ull << 30, 0);
    CHECK_EQ(syp_init_config(&c), SYP_OK);
    CHECK(syp_symm_malloc(64) == NULL);
    CHECK_EQ(err_record()->code, SYP_EUNSUPPORTED);
    CHECK_HAS(syp_error_text(), "meta_size is 0");
    char *p = syp_malloc(1 << 20);
    CHECK(p != NULL);
    if (p) memset(p, 1, 1 << 20);
    CHECK(syp_malloc(40ull << 30) == NULL);
    CHECK_EQ(err_record()->code, SYP_ENOMEM);
    CHECK_HAS(syp_error_text(), "SYMPOOL_LOCAL_MEM_SIZE");
    float x = 1;
    CHECK_EQ(syp_allreduce(&x, &x, 1, SYP_FLOAT32, SYP_SUM, SYP_COMM_WORLD, NULL), SYP_OK);
    CHECK(x == (float)r->n);
    syp_free(p);
    CHECK_EQ(syp_finalize(), SYP_OK);
    return 0;
}

static void larger_than_the_machine(void) {
    struct ranks r;
    if (!CHECK(ranks_start(&r, 3, 0, huge_rank, NULL) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 30, -1), 0);
    ranks_free(&r);
}

/* Every rank has a pool of its own size: an address at a peer is one inside the peer's pool, or an error that names its size. */
static int sized_rank(struct ranks *r, int rank, void *arg) {
    (void)arg;
    syp_config c = ranks_config(r, rank, rank == 0 ? 8 << 20 : 32 << 20, 1 << 20);
    CHECK_EQ(syp_init_config(&c), SYP_OK);
    char *low = syp_malloc(1 << 20), *high = rank == 0 ? NULL : syp_malloc(20 << 20);
    CHECK(low && (rank == 0 || high));
    CHECK(syp_peer_ptr(low, 1 - rank) != NULL);
    if (rank == 1) {
        char *last = (char *)syp_pool_base(1) + (8 << 20) - 1;
        CHECK(syp_peer_ptr(last, 0) == (char *)syp_pool_base(0) + (8 << 20) - 1);
        CHECK(syp_peer_ptr(last + 1, 0) == NULL);
        CHECK_EQ(err_record()->code, SYP_EFOREIGN);
        CHECK_HAS(syp_error_text(), "rank 0, which has 8388608 bytes");
        CHECK(syp_peer_ptr(high + (19 << 20), 0) == NULL);
    }
    CHECK_EQ(syp_barrier(SYP_COMM_WORLD, NULL), SYP_OK);
    syp_free(low);
    syp_free(high);
    CHECK_EQ(syp_finalize(), SYP_OK);
    return 0;
}

static void pools_of_different_sizes(void) {
    struct ranks r;
    if (!CHECK(ranks_start(&r, 2, 0, sized_rank, NULL) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 30, -1), 0);
    ranks_free(&r);
}

int main(void) {
    return check_main("attach", (struct check_test[]){{"every_call_fails_once", every_call_fails_once},
                                                      {"cycles", cycles},
                                                      {"restart_on_the_same_port", restart_on_the_same_port},
                                                      {"disagreements_reach_every_rank", disagreements_reach_every_rank},
                                                      {"missing_ranks_are_listed", missing_ranks_are_listed},
                                                      {"pools_of_different_sizes", pools_of_different_sizes},
                                                      {"larger_than_the_machine", larger_than_the_machine},
                                                      {0}});
}
