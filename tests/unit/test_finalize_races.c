/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/*
 * Attach and finalize, again and again, while other threads do what they like: every call finds the process attached or not, nothing
 * crashes, no block is lost, and no two blocks overlap.
 */
#include "allocator/sympool.h"
#include "tests/support/check.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define THREADS 4
#define LIVE 16

static _Atomic int stop, wrong;

static int attach(void) {
    return syp_init(0, 1, 16 << 20, 1 << 20, NULL);
}

static void expect(int held, const char *what) {
    if (held) return;
    if (wrong++ == 0) fprintf(stderr, "%s: %s\n", what, syp_error_text());
}

static int nothing(void *arg, const syp_block *b) {
    (void)arg;
    return b->len == 0;
}

/* Look-ups of every kind; each has a few answers that are right. */
static void look(void *p, syp_pool_id id) {
    syp_location at = {.size = sizeof at};
    syp_pool_info info = {.size = sizeof info};
    int rank = syp_rank(), n = syp_world_size();
    expect((rank == 0 || rank == -1) && (n == 0 || n == 1), "rank and size");
    expect(syp_owner(p, &at) == SYP_OK && at.block == p && at.len >= 64, "owner of a live block");
    expect(syp_usable_size(p) >= 64, "usable size of a live block");
    expect(syp_has(SYP_CAP_ATTACHED) <= 1 && syp_has(SYP_CAP_ZERO_COPY) <= 1 && syp_has(SYP_CAP_HUGE_PAGES) == 0, "has");
    void *there = syp_peer_ptr(p, 0);
    expect(there == NULL || there == p, "peer_ptr of the own rank");
    (void)syp_pool_base(0);
    int rc = syp_pool_query(&info);
    expect((rc == SYP_OK && info.local_mem_size == 16 << 20) || rc == SYP_ESTATE, "pool_query");
    expect(syp_check() == SYP_OK, "check");
    expect(syp_walk(nothing, NULL) == SYP_OK, "walk");
    rc = syp_scope_begin(id, NULL);
    expect(rc == SYP_OK || rc == SYP_ESTATE, "scope_begin");
    if (rc == SYP_OK) {
        syp_free(syp_malloc(100));
        rc = syp_scope_end(id);
        expect(rc == SYP_OK, "scope_end");
    }
    rc = syp_barrier(NULL, NULL);
    expect(rc == SYP_OK || rc == SYP_ESTATE || rc == SYP_EBUSY, "barrier");
    char *s = syp_symm_malloc_local(64);
    if (s) (void)syp_symm_free(s);
    s = syp_symm_calloc(4, 64);
    if (s) (void)syp_symm_free(s);
}

static void *worker(void *arg) {
    uint64_t seed = 77 + (uint64_t)(uintptr_t)arg;
    unsigned char *live[LIVE] = {0};
    syp_pool_id id = {1, 1 + (uint64_t)(uintptr_t)arg};
    while (!stop) {
        uint64_t x = check_random(&seed);
        unsigned k = (unsigned)(x % LIVE), len = 64 + (unsigned)(x >> 8) % 16 * 6000, mark = (unsigned)(uintptr_t)arg * LIVE + k;
        if (live[k]) {
            expect(live[k][0] == mark && live[k][63] == mark, "content of a live block");
            if (x >> 40 & 1) {
                unsigned char *moved = syp_realloc(live[k], len);
                expect(moved && moved[0] == mark && moved[63] == mark, "realloc");
                live[k] = moved;
            }
            if (x >> 50 & 1) look(live[k], id);
            syp_free(live[k]);
            live[k] = NULL;
        } else {
            live[k] = x >> 60 & 1 ? syp_malloc(len) : syp_torch_malloc(len, 0, NULL);
            expect(live[k] != NULL, "malloc");
            if (live[k]) live[k][0] = live[k][63] = (unsigned char)mark;
        }
    }
    for (int k = 0; k < LIVE; k++)
        syp_free(live[k]);
    return NULL;
}

static int count(void *arg, const syp_block *b) {
    *(int *)arg += b->live;
    return 0;
}

static void anything_beside_finalize(void) {
    pthread_t t[THREADS];
    int rounds = (int)check_count(300, 20000), busy = 0, live = 0;
    stop = wrong = 0;
    for (intptr_t i = 0; i < THREADS; i++)
        pthread_create(&t[i], NULL, worker, (void *)i);
    for (int i = 0; i < rounds && !wrong; i++) {
        int rc;
        CHECK_EQ(attach(), SYP_OK);
        usleep(200 + (useconds_t)(i * 37 % 1000));
        while ((rc = syp_finalize()) == SYP_EBUSY)
            busy++;
        CHECK_EQ(rc, SYP_OK);
    }
    stop = 1;
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    printf("%d rounds, finalize busy %d times\n", rounds, busy);
    CHECK_EQ(wrong, 0);
    CHECK_EQ(syp_walk(count, &live), SYP_OK);
    CHECK_EQ(live, 0);
}

static _Atomic int walking;

static int linger(void *arg, const syp_block *b) {
    (void)arg, (void)b;
    walking = 1;
    while (!stop)
        usleep(1000);
    return 1;
}

static void *walk(void *arg) {
    (void)arg;
    syp_walk(linger, NULL);
    return NULL;
}

static void *initialise(void *arg) {
    *(int *)arg = attach();
    return NULL;
}

static void two_threads_attach(void) {
    for (int i = 0; i < (int)check_count(50, 1000); i++) {
        pthread_t t[THREADS];
        int rc[THREADS];
        for (int k = 0; k < THREADS; k++)
            pthread_create(&t[k], NULL, initialise, &rc[k]);
        for (int k = 0; k < THREADS; k++) {
            pthread_join(t[k], NULL);
            CHECK_EQ(rc[k], SYP_OK);
        }
        CHECK_EQ(syp_finalize(), SYP_OK);
    }
}

/* Finalize waits for a thread that walks, however long: the walker holds the lock of the heap that is to be closed. */
static void finalize_beside_a_walk(void) {
    pthread_t t;
    stop = walking = 0;
    CHECK_EQ(attach(), SYP_OK);
    void *p = syp_malloc(1000);
    pthread_create(&t, NULL, walk, NULL);
    while (!walking)
        usleep(100);
    stop = 1;
    CHECK_EQ(syp_finalize(), SYP_OK);
    pthread_join(t, NULL);
    syp_free(p);
}

int main(void) {
#ifdef __SANITIZE_THREAD__
    setenv("SYMPOOL_STATS", "off", 1); /* late counts reach a segment that is being replaced, on purpose; seen as a write by mmap */
#endif
    return check_main("finalize_races", (struct check_test[]){{"anything_beside_finalize", anything_beside_finalize},
                                                              {"two_threads_attach", two_threads_attach},
                                                              {"finalize_beside_a_walk", finalize_beside_a_walk},
                                                              {0}});
}
