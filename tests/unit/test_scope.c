/* SPDX-License-Identifier: Apache-2.0 */
/* Scopes: nesting, order, numbering, threads and the records they inherit. */
#include "pool/base/arena.h"
#include "pool/base/status.h"
#include "pool/base/thread.h"
#include "pool/scope.h"
#include "tests/support/check.h"

#include <pthread.h>

static const syp_pool_id A = {1, 10}, B = {2, 20}, NONE = {0, 0};

static void nest_newest_first(void) {
    CHECK(scope_current() == NULL);
    CHECK_EQ(scope_end(A), SYP_ESTATE); /* before any scope of the process */
    CHECK_HAS(err_record()->text, "no scope open");
    CHECK_EQ(scope_begin(A, SYP_SCOPE_HEAP), SYP_OK);
    uint32_t a = scope_current()->index;
    CHECK(scope_current()->id.hi == 1 && scope_current()->id.lo == 10);
    CHECK_EQ(scope_current()->kind, SYP_SCOPE_HEAP);
    CHECK_EQ(scope_begin(B, SYP_SCOPE_SYMMETRIC), SYP_OK);
    uint32_t b = scope_current()->index;
    CHECK_EQ(scope_current()->kind, SYP_SCOPE_SYMMETRIC);
    CHECK(a >= 1 && b >= 1 && a != b);
    CHECK_EQ(scope_begin(A, SYP_SCOPE_HEAP), SYP_OK); /* the same once more */
    CHECK_EQ(scope_current()->index, a);
    CHECK_EQ(scope_end(A), SYP_OK);
    CHECK_EQ(scope_end(A), SYP_ESTATE);
    CHECK_HAS(err_record()->text, "{1, a}");
    CHECK_HAS(err_record()->text, "{2, 14}");
    CHECK_EQ(scope_current()->index, b);
    CHECK_EQ(scope_end(B), SYP_OK);
    CHECK_EQ(scope_end(A), SYP_OK);
    CHECK(scope_current() == NULL);
    CHECK_EQ(scope_end(A), SYP_ESTATE);
    CHECK(scope_id(a).hi == 1 && scope_id(a).lo == 10);
    CHECK(scope_id(b).hi == 2 && scope_id(b).lo == 20);
    CHECK(scope_id(0).hi == 0 && scope_id(0).lo == 0);
    CHECK(scope_id(100000).hi == 0 && scope_id(100000).lo == 0);
}

static void wrong_arguments(void) {
    CHECK_EQ(scope_begin(NONE, SYP_SCOPE_HEAP), SYP_EINVAL);
    CHECK_EQ(scope_end(NONE), SYP_EINVAL);
    CHECK_EQ(scope_begin(A, 2), SYP_EINVAL);
    CHECK_EQ(scope_begin(A, -1), SYP_EINVAL);
    CHECK(scope_current() == NULL);
}

static void depth_is_bounded(void) {
    for (int i = 0; i < SCOPE_DEPTH; i++)
        CHECK_EQ(scope_begin(i % 2 ? A : B, SYP_SCOPE_HEAP), SYP_OK);
    CHECK_EQ(scope_begin(A, SYP_SCOPE_HEAP), SYP_ESTATE);
    CHECK_HAS(err_record()->text, "32 open");
    for (int i = SCOPE_DEPTH - 1; i >= 0; i--)
        CHECK_EQ(scope_end(i % 2 ? A : B), SYP_OK);
    CHECK_EQ(scope_begin(A, SYP_SCOPE_HEAP), SYP_OK);
    CHECK_EQ(scope_begin(B, SYP_SCOPE_HEAP), SYP_OK);
    scope_clear();
    CHECK(scope_current() == NULL);
    CHECK_EQ(scope_end(B), SYP_ESTATE);
}

static void *not_routed(void *arg) {
    CHECK(scope_current() == NULL);
    scope_clear();
    CHECK_EQ(scope_begin(B, SYP_SCOPE_HEAP), SYP_OK);
    CHECK(scope_current()->id.hi == 2);
    *(const struct thread **)arg = thread_self();
    return NULL; /* ends with the scope open */
}

/* One after another, so that each may get the record of the one before: its scopes must not come along. */
static void threads_have_their_own(void) {
    const struct thread *record[64];
    int inherited = 0;
    CHECK_EQ(scope_begin(A, SYP_SCOPE_HEAP), SYP_OK);
    for (int i = 0; i < 64; i++) {
        pthread_t t;
        CHECK_EQ(pthread_create(&t, NULL, not_routed, &record[i]), 0);
        pthread_join(t, NULL);
        for (int k = 0; k < i; k++)
            inherited += record[k] == record[i];
    }
    CHECK(inherited > 0);
    CHECK(scope_current()->id.hi == 1);
    CHECK_EQ(scope_end(A), SYP_OK);
}

static void *open_one(void *arg) {
    CHECK_EQ(scope_begin(A, SYP_SCOPE_HEAP), SYP_OK);
    *(void **)arg = thread_self()->slot[THREAD_SLOT_SCOPES];
    return NULL;
}

/* Thread after thread costs nothing once a record and its stack exist. */
static void stacks_are_used_again(void) {
    void *stack[200];
    int distinct = 0;
    for (int i = 0; i < 200; i++) {
        pthread_t t;
        CHECK_EQ(pthread_create(&t, NULL, open_one, &stack[i]), 0);
        pthread_join(t, NULL);
        CHECK(arena_contains(stack[i]));
        int seen = 0;
        for (int k = 0; k < i; k++)
            seen |= stack[k] == stack[i];
        distinct += !seen;
    }
    CHECK(distinct < 20);
}

static pthread_barrier_t all_here; /* none ends before the last began: no record changes hands meanwhile */

static void *many(void *arg) {
    uint64_t from = (uint64_t)(uintptr_t)arg, wrong = thread_self() == NULL;
    pthread_barrier_wait(&all_here);
    for (uint64_t i = 0; i < 500; i++) {
        syp_pool_id id = {77, from + i};
        wrong += scope_begin(id, SYP_SCOPE_HEAP) != SYP_OK;
        uint32_t n = scope_current()->index;
        wrong += scope_id(n).hi != 77 || scope_id(n).lo != id.lo;
        wrong += scope_end(id) != SYP_OK;
    }
    return (void *)(uintptr_t)wrong;
}

static void threads_number_ids_together(void) {
    pthread_t t[4];
    pthread_barrier_init(&all_here, NULL, 4);
    for (uintptr_t i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&t[i], NULL, many, (void *)(i * 250 + 1)), 0);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(t[i], &wrong);
        CHECK(wrong == NULL);
    }
    pthread_barrier_destroy(&all_here);
    CHECK_EQ(scope_begin((syp_pool_id){77, 600}, SYP_SCOPE_HEAP), SYP_OK);
    uint32_t n = scope_current()->index;
    CHECK_EQ(scope_end((syp_pool_id){77, 600}), SYP_OK);
    CHECK(n <= 1300); /* 1,250 ids of four threads, half of them shared, and those of the tests before */
}

/* Last: uses the numbers up. */
static void ids_have_an_end(void) {
    int rc = SYP_OK, n = 0;
    for (; n <= SCOPE_IDS && rc == SYP_OK; n++) {
        syp_pool_id id = {99, (uint64_t)n << 32};
        if ((rc = scope_begin(id, SYP_SCOPE_HEAP)) == SYP_OK) CHECK_EQ(scope_end(id), SYP_OK);
    }
    CHECK_EQ(rc, SYP_ENOMEM);
    CHECK_HAS(err_record()->text, "4096 different pool ids");
    CHECK(scope_current() == NULL);
    CHECK_EQ(scope_begin(A, SYP_SCOPE_HEAP), SYP_OK); /* known ones still work */
    CHECK_EQ(scope_end(A), SYP_OK);
    CHECK(scope_id(SCOPE_IDS).hi == 99);
    CHECK(scope_id(SCOPE_IDS + 1).hi == 0);
}

int main(void) {
    return check_main("scope", (struct check_test[]){
                                   {"nest_newest_first", nest_newest_first},
                                   {"wrong_arguments", wrong_arguments},
                                   {"depth_is_bounded", depth_is_bounded},
                                   {"threads_have_their_own", threads_have_their_own},
                                   {"stacks_are_used_again", stacks_are_used_again},
                                   {"threads_number_ids_together", threads_number_ids_together},
                                   {"ids_have_an_end", ids_have_an_end},
                                   {0},
                               });
}
