/* SPDX-License-Identifier: Apache-2.0 */
/* A job on two hosts, which here are one machine and two values of SYMPOOL_HOST_ID: everything attaches, memory is
 * shared inside a host only, what would need it across hosts says so, and nothing hangs. */
#include "allocator/sympool.h"
#include "bootstrap/hostid.h"
#include "pool/base/conf.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"

#include <stdlib.h>

struct cast {
    int hosts;
    int blocks; /* 1 = 0 0 1 1, 0 = 0 1 0 1 */
};

static int host_of(const struct cast *c, int rank, int n) {
    return c->blocks ? rank * c->hosts / n : rank % c->hosts;
}

static int attach(struct ranks *r, int rank, const struct cast *c) {
    char host[8];
    snprintf(host, sizeof host, "host%d", host_of(c, rank, r->n));
    setenv("SYMPOOL_HOST_ID", host, 1);
    syp_config k = ranks_config(r, rank, 8 << 20, 1 << 20);
    int rc = syp_init_config(&k);
    if (rc != SYP_OK) fprintf(stderr, "rank %d: %s\n", rank, syp_error_text());
    return rc;
}

static void reach(struct ranks *r, int rank, const struct cast *c) {
    int *word = syp_malloc(sizeof *word);
    *word = 100 + rank;
    for (int k = 0; k < r->n; k++) {
        int near = host_of(c, k, r->n) == host_of(c, rank, r->n);
        void *there = syp_peer_ptr(word, k);
        CHECK_EQ(there != NULL, near);
        CHECK_EQ(syp_pool_base(k) != NULL, near);
        if (near) continue;
        CHECK_EQ(err_record()->code, SYP_EREACH);
        CHECK_HAS(syp_error_text(), "another host");
        syp_peer_ptr(word, k);
        CHECK_EQ(err_record()->code, SYP_EREACH);
    }
    CHECK_EQ(syp_has(SYP_CAP_ZERO_COPY), 0);
    syp_free(word);
}

/* Groups of ranks of one host work, made from the world by the ranks of that host; groups across hosts are refused. */
static void groups(struct ranks *r, int rank, const struct cast *c) {
    int here[16], n = 0;
    for (int k = 0; k < r->n; k++)
        if (host_of(c, k, r->n) == host_of(c, rank, r->n)) here[n++] = k;
    syp_comm *g = NULL, *across = (syp_comm *)r;
    CHECK_EQ(syp_comm_create(SYP_COMM_WORLD, here, n, &g), SYP_OK);
    CHECK_EQ(syp_comm_size(g), n);
    for (int i = 0; i < 50; i++) {
        int32_t sum = rank + i, want = 0;
        for (int k = 0; k < n; k++)
            want += here[k] + i;
        CHECK_EQ(syp_allreduce(&sum, &sum, 1, SYP_INT32, SYP_SUM, g, NULL), SYP_OK);
        CHECK_EQ(sum, want);
    }
    int all[16];
    for (int k = 0; k < r->n; k++)
        all[k] = k;
    CHECK_EQ(syp_comm_create(SYP_COMM_WORLD, all, r->n, &across), SYP_EREACH);
    CHECK(across == NULL);
    CHECK_HAS(syp_error_text(), "another host");
    uint64_t flags = 1;
    CHECK_EQ(syp_comm_agree(SYP_COMM_WORLD, &flags, NULL), SYP_EREACH);
    CHECK_EQ(syp_comm_shrink(SYP_COMM_WORLD, 0, NULL, &across), SYP_EREACH);
    CHECK_EQ(syp_rejoin(0, NULL), SYP_EREACH);
    CHECK(syp_symm_malloc(64) == NULL);
    CHECK_EQ(err_record()->code, SYP_EREACH);
    CHECK_EQ(syp_barrier(g, NULL), SYP_OK);
    CHECK_EQ(syp_comm_destroy(g), SYP_OK);
}

static int rank_of_two_hosts(struct ranks *r, int rank, void *arg) {
    const struct cast *c = arg;
    if (!CHECK(attach(r, rank, c) == SYP_OK)) return 1;
    CHECK_EQ(syp_world_size(), r->n);
    reach(r, rank, c);
    uint64_t start = os->now();
    float x = 1;
    CHECK_EQ(syp_allreduce(&x, &x, 1, SYP_FLOAT32, SYP_SUM, SYP_COMM_WORLD, NULL), SYP_EREACH);
    CHECK_HAS(syp_error_text(), "another host");
    CHECK_EQ(syp_barrier(SYP_COMM_WORLD, NULL), SYP_EREACH);
    groups(r, rank, c);
    /* the call itself did nothing: the process goes on */
    void *p = syp_malloc(1 << 16);
    CHECK(p != NULL);
    syp_free(p);
    CHECK_EQ(syp_check(), SYP_OK);
    CHECK_EQ(syp_finalize(), SYP_OK);
    CHECK_EQ(syp_world_size(), 0);
    CHECK(os->now() - start < 4 * NS_PER_S); /* nobody waited for a deadline */
    return 0;
}

static void memory_is_shared_inside_a_host_only(void) {
    static const struct cast casts[] = {{2, 1}, {2, 0}, {4, 1}, {3, 0}};
    for (size_t i = 0; i < sizeof casts / sizeof *casts; i++) {
        struct ranks r;
        struct cast c = casts[i];
        if (!CHECK(ranks_start(&r, 4, 0, rank_of_two_hosts, &c) == 0)) return;
        CHECK_EQ(ranks_wait(&r, 60, -1), 0);
        ranks_free(&r);
    }
}

static void the_identity_follows_the_setting(void) {
    uint64_t plain[2], one[2], two[2], again[2];
    host_identity(plain);
    setenv("SYMPOOL_HOST_ID", "one", 1);
    conf_reset();
    host_identity(one);
    host_identity(again);
    setenv("SYMPOOL_HOST_ID", "two", 1);
    conf_reset();
    host_identity(two);
    unsetenv("SYMPOOL_HOST_ID");
    conf_reset();
    CHECK(memcmp(one, again, sizeof one) == 0);
    CHECK(memcmp(one, two, sizeof one) != 0 && memcmp(one, plain, sizeof one) != 0);
    host_identity(again);
    CHECK(memcmp(plain, again, sizeof one) == 0);
}

int main(void) {
    return check_main(
        "hosts", (struct check_test[]){{"memory_is_shared_inside_a_host_only", memory_is_shared_inside_a_host_only},
                                       {"the_identity_follows_the_setting", the_identity_follows_the_setting},
                                       {0}});
}
