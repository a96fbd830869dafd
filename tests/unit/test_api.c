/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The public face in one process: memory before, during and after an attach, look-ups, scopes, the PyTorch entries, misuse, and the promise that the
 * library never calls malloc.
 */
#include "allocator/sympool.h"
#include "pool/base/os.h"
#include "tests/support/check.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

/* ------------------------------------------------------------------- malloc is watched while the library works */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1 /* malloc is the sanitizer's */
#else
#define SANITIZED 0
#endif

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t m);
extern void *__libc_realloc(void *p, size_t n);
static _Atomic int watching;
static _Atomic int malloc_calls;

#if !SANITIZED
void *malloc(size_t n) {
    if (watching) malloc_calls++;
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t m) {
    if (watching) malloc_calls++;
    return __libc_calloc(n, m);
}
void *realloc(void *p, size_t n) {
    if (watching) malloc_calls++;
    return __libc_realloc(p, n);
}
#endif

static int attach(void) {
    return syp_init(0, 1, 64 << 20, 16 << 20, NULL);
}

static void never_calls_malloc(void) {
    if (SANITIZED) {
        check_skip("the sanitizer has replaced malloc: its calls cannot be watched");
        return;
    }
    CHECK_EQ(attach(), SYP_OK);
    CHECK_EQ(syp_finalize(), SYP_OK);
    void *plain = malloc(10); /* the watch itself works */
    malloc_calls = 0;
    watching = 1;
    void *volatile q = malloc(10);
    CHECK(malloc_calls >= 1);
    free((void *)q);
    int calls_before = malloc_calls; /* CHECK allocates; look only at what lies between */
    int rc = SYP_OK;
    void *early = syp_torch_malloc(100000, 0, NULL);
    calls_before = malloc_calls;
    for (int i = 0; i < 50 && rc == SYP_OK; i++) {
        void *a = syp_malloc(1000), *b = syp_calloc(10, 100000), *s = syp_symm_malloc_local(10);
        a = syp_realloc(a, 500000);
        syp_free(b);
        syp_free(a);
        (void)s;
        syp_torch_free(syp_torch_malloc(3 << 20, 0, NULL), 3 << 20, 0, NULL);
        syp_free((void *)0x1234567); /* errors and log lines, too */
        syp_malloc(SIZE_MAX);
    }
    int without_attach = malloc_calls - calls_before;
    watching = 0;
    CHECK_EQ(without_attach, 0);
    CHECK_EQ(attach(), SYP_OK);
    float x[1000] = {0};
    watching = 1;
    calls_before = malloc_calls;
    for (int i = 0; i < 50; i++) {
        void *a = syp_malloc(300000), *s = syp_symm_malloc(4096), *t = syp_symm_calloc(3, 5);
        rc |= syp_allreduce(x, x, 1000, SYP_FLOAT32, SYP_SUM, SYP_COMM_WORLD, NULL) | syp_barrier(NULL, NULL);
        syp_comm *g;
        int zero = 0;
        rc |= syp_comm_create(NULL, &zero, 1, &g) | syp_comm_destroy(g);
        rc |= syp_symm_free(s) | syp_symm_free(t) | syp_check();
        syp_free(a);
    }
    int attached = malloc_calls - calls_before;
    watching = 0;
    CHECK_EQ(rc, SYP_OK);
    CHECK_EQ(attached, 0);
    syp_torch_free(early, 100000, 0, NULL);
    CHECK_EQ(syp_finalize(), SYP_OK);
    free(plain);
}

/* ------------------------------------------------------------------------------------------------- memory */

static void memory(void) {
    syp_location at = {.size = sizeof at};
    char *early = syp_malloc(200000); /* before the attach: private */
    CHECK(early && syp_usable_size(early) >= 200000);
    memset(early, 3, 200000);
    CHECK_EQ(syp_owner(early + 5, &at), SYP_OK);
    CHECK_EQ(at.where, SYP_WHERE_PRIVATE);
    CHECK(at.block == early && at.rank == -1);
    CHECK_EQ(attach(), SYP_OK);
    char *p = syp_malloc(100);
    CHECK(p && ((uintptr_t)p & 63) == 0);
    CHECK_EQ(syp_owner(p + 50, &at), SYP_OK);
    CHECK_EQ(at.where, SYP_WHERE_HEAP);
    CHECK(at.block == p && at.rank == 0 && at.offset >= 16 << 20);
    char *z = syp_calloc(1000, 3);
    for (int i = 0; i < 3000; i++)
        if (z[i]) CHECK(z[i] == 0);
    memset(z, 1, 3000);
    char *bigger = syp_realloc(z, 100000);
    CHECK(bigger && bigger[2999] == 1);
    char *moved = syp_realloc(early, 400000); /* across pools */
    CHECK(moved && moved[199999] == 3);
    CHECK_EQ(syp_owner(moved, &at), SYP_OK);
    for (size_t a = 1; a <= 2 << 20; a *= 2) {
        char *q = syp_aligned_alloc(a, 10);
        CHECK(q && ((uintptr_t)q & (a - 1)) == 0);
        syp_free(q);
    }
    CHECK(syp_malloc(0) != NULL);
    CHECK(syp_realloc(p, 0) == NULL);
    CHECK(syp_calloc((size_t)1 << 33, (size_t)1 << 31) == NULL); /* 2^64 bytes are not 0 */
    CHECK(syp_malloc(SIZE_MAX) == NULL && syp_calloc(SIZE_MAX, 2) == NULL && syp_aligned_alloc(3, 1) == NULL);
    CHECK(syp_malloc(1ull << 30) == NULL); /* larger than the pool */
    CHECK_HAS(syp_error_text(), "SYMPOOL_LOCAL_MEM_SIZE");
    CHECK_EQ(syp_check(), SYP_OK);
    syp_free(bigger);
    CHECK_EQ(syp_finalize(), SYP_OK);
    CHECK(moved[199999] == 3 && moved[0] == 3); /* live blocks outlive the attach */
    CHECK_EQ(syp_owner(moved, &at), SYP_OK);
    syp_free(moved);
}

static void bad_frees(void) {
    CHECK_EQ(attach(), SYP_OK);
    syp_pool_info before = {.size = sizeof before}, after = before;
    char *p = syp_malloc(5000), *kept = syp_malloc(5000);
    int local = 0;
    memset(kept, 9, 5000);
    CHECK_EQ(syp_pool_query(&before), SYP_OK);
    syp_free(p);
    errno = 77;
    syp_free(p); /* double */
    CHECK_EQ(errno, 77);
    syp_error e = {.size = sizeof e};
    CHECK_EQ(syp_last_error(&e), SYP_OK);
    CHECK_EQ(e.code, SYP_EFOREIGN);
    CHECK_STR(e.operation, "free");
    syp_free(kept + 64);  /* interior */
    syp_free(kept + 1);   /* not even aligned */
    syp_free(&local);     /* stack */
    syp_free((void *)(uintptr_t)0xdeadbeef000);
    CHECK_EQ(syp_pool_query(&after), SYP_OK);
    CHECK_EQ(after.bad_frees - before.bad_frees, 5);
    CHECK_EQ(syp_check(), SYP_OK);
    CHECK(kept[4999] == 9 && syp_usable_size(kept) >= 5000);
    CHECK_EQ(syp_usable_size(kept + 64), 0);
    CHECK(syp_realloc(&local, 5) == NULL);
    syp_free(NULL);
    syp_free(kept);
    CHECK_EQ(syp_finalize(), SYP_OK);
}

struct seen {
    int live, symmetric;
    void *find;
    int found;
};

static int visit(void *arg, const syp_block *b) {
    struct seen *s = arg;
    s->live += b->live;
    s->symmetric += b->live && b->where == SYP_WHERE_SYMMETRIC;
    if (b->ptr == s->find && b->live && b->scope[0] == 7 && b->scope[1] == 8) s->found = 1;
    return 0;
}

static int stop_at_once(void *arg, const syp_block *b) {
    (void)arg, (void)b;
    return 42;
}

static void scopes_and_walk(void) {
    syp_pool_id id = {7, 8}, other = {0, 9}, none = {0, 0};
    syp_scope_attr symm = {sizeof symm, SYP_SCOPE_SYMMETRIC};
    CHECK_EQ(syp_scope_begin(id, NULL), SYP_ESTATE); /* not attached */
    CHECK_EQ(attach(), SYP_OK);
    syp_location at = {.size = sizeof at};
    CHECK_EQ(syp_scope_begin(none, NULL), SYP_EINVAL);
    CHECK_EQ(syp_scope_begin(id, &symm), SYP_OK);
    char *a = syp_malloc(100), *t = syp_torch_malloc(1000, 0, NULL);
    CHECK(a && syp_owner(a, &at) == SYP_OK && at.where == SYP_WHERE_SYMMETRIC);
    CHECK(t && syp_owner(t, &at) == SYP_OK && at.where == SYP_WHERE_SYMMETRIC);
    CHECK_EQ(syp_scope_begin(other, NULL), SYP_OK); /* nested: newest first */
    char *b = syp_malloc(100);
    CHECK(b && syp_owner(b, &at) == SYP_OK && at.where == SYP_WHERE_HEAP);
    CHECK_EQ(syp_scope_begin(id, &symm), SYP_OK); /* the same id again */
    CHECK_EQ(syp_scope_end(other), SYP_ESTATE);   /* out of order: both named */
    CHECK_HAS(syp_error_text(), "9");
    CHECK_EQ(syp_scope_end(id), SYP_OK);
    CHECK_EQ(syp_scope_end(other), SYP_OK);
    struct seen s = {.find = a};
    CHECK_EQ(syp_walk(visit, &s), SYP_OK);
    CHECK(s.found && s.symmetric == 2 && s.live >= 3);
    CHECK_EQ(syp_walk(stop_at_once, NULL), 42);
    CHECK_EQ(syp_walk(NULL, NULL), SYP_EINVAL);
    CHECK_EQ(syp_scope_end(id), SYP_OK);
    CHECK_EQ(syp_scope_end(id), SYP_ESTATE);
    b = syp_realloc(a, 10);
    CHECK(b == NULL);
    CHECK_HAS(syp_error_text(), "symmetric");
    syp_free(a);
    syp_torch_free(t, 1000, 0, NULL);
    CHECK_EQ(syp_finalize(), SYP_OK);
}

/* ------------------------------------------------------------------------------------------------ PyTorch */

static void *torch_thread(void *arg) {
    uint64_t seed = 0x1234567 + (uint64_t)(uintptr_t)arg;
    void *live[32] = {0};
    size_t len[32] = {0};
    long wrong = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t x = check_random(&seed);
        int k = (int)(x % 32);
        if (live[k]) {
            if (((unsigned char *)live[k])[len[k] - 1] != (unsigned char)k) wrong++;
            syp_torch_free(live[k], len[k], 0, (void *)(x >> 60));
            live[k] = NULL;
        } else {
            len[k] = 1 + (x >> 8) % 200000;
            live[k] = syp_torch_malloc(len[k], 0, (void *)(x >> 60));
            if (!live[k] || (uintptr_t)live[k] % 512) wrong++;
            if (live[k]) memset(live[k], k, len[k]);
        }
    }
    for (int k = 0; k < 32; k++)
        syp_torch_free(live[k], len[k], 0, NULL);
    return (void *)wrong;
}

static void torch_entries(void) {
    CHECK(syp_torch_malloc(0, 0, NULL) == NULL);
    CHECK(syp_torch_malloc((size_t)-5, 0, NULL) == NULL);
    void *before = syp_torch_malloc(1 << 20, 0, NULL);
    CHECK(before && (uintptr_t)before % 512 == 0);
    CHECK_EQ(attach(), SYP_OK);
    void *during = syp_torch_malloc(1 << 20, 0, NULL);
    syp_location at = {.size = sizeof at};
    CHECK(syp_owner(during, &at) == SYP_OK && at.where == SYP_WHERE_HEAP);
    syp_torch_free(before, 1 << 20, 0, NULL);
    pthread_t t[8];
    for (intptr_t i = 0; i < 8; i++)
        pthread_create(&t[i], NULL, torch_thread, (void *)i);
    for (int i = 0; i < 8; i++) {
        void *wrong;
        pthread_join(t[i], &wrong);
        CHECK(wrong == NULL);
    }
    syp_pool_info info = {.size = sizeof info};
    CHECK(syp_pool_query(&info) == SYP_OK && info.n_live == 1);
    CHECK_EQ(syp_check(), SYP_OK);
    CHECK(syp_torch_malloc(1ull << 40, 0, NULL) == NULL); /* says so in the log, returns NULL */
    CHECK_EQ(syp_finalize(), SYP_OK);
    memset(during, 1, 1 << 20);
    void *after = syp_torch_malloc(1 << 20, 0, NULL);
    CHECK(after && syp_owner(after, &at) == SYP_OK && at.where == SYP_WHERE_PRIVATE);
    syp_torch_free(during, 1 << 20, 0, NULL); /* the last block of a retired pool: its memory goes */
    CHECK_EQ(syp_owner(during, &at), SYP_EFOREIGN);
    syp_torch_free(during, 1 << 20, 0, NULL); /* again: foreign now, counted, harmless */
    syp_torch_free(after, 1 << 20, 0, NULL);
}

/* ------------------------------------------------------------------------------------------------- misuse */

static void misuse(void) {
    syp_config c = SYP_CONFIG_INIT;
    syp_error e = {.size = 4};
    syp_pool_info info = {.size = sizeof info};
    syp_comm *g = NULL;
    float x = 0;
    int zero = 0;
    CHECK_EQ(syp_init(-1, 1, 1 << 20, 0, NULL), SYP_EINVAL);
    CHECK_EQ(syp_init(1, 1, 1 << 20, 0, NULL), SYP_EINVAL);
    CHECK_EQ(syp_init(0, 1025, 1 << 20, 0, NULL), SYP_EINVAL);
    CHECK_EQ(syp_init(0, 1, 100, 0, NULL), SYP_EINVAL);
    CHECK_EQ(syp_init(0, 1, 1 << 20, 2 << 20, NULL), SYP_EINVAL);
    CHECK_HAS(syp_error_text(), "meta_size");
    CHECK_EQ(syp_init(0, 1, 1 << 20, 0, "nonsense"), SYP_EINVAL);
    CHECK_EQ(syp_init_config(NULL), SYP_EINVAL);
    c.size = 4;
    CHECK_EQ(syp_init_config(&c), SYP_EINVAL);
    struct {
        syp_config c;
        char more[64]; /* a program built with a later header */
    } newer = {.c = SYP_CONFIG_INIT};
    newer.c.size = sizeof newer;
    newer.c.rank = 0;
    newer.c.n_ranks = 1;
    CHECK_EQ(syp_init_config(&newer.c), SYP_EINVAL);
    CHECK_HAS(syp_error_text(), "SYP_CONFIG_INIT");
    CHECK_EQ(syp_last_error(NULL), SYP_EINVAL);
    CHECK_EQ(syp_last_error(&e), SYP_EINVAL);
    CHECK_EQ(syp_finalize(), SYP_ESTATE);
    CHECK_EQ(syp_barrier(NULL, NULL), SYP_ESTATE);
    CHECK_HAS(syp_error_text(), "call syp_init first");
    CHECK_EQ(syp_allreduce(&x, &x, 1, SYP_FLOAT32, SYP_SUM, NULL, NULL), SYP_ESTATE);
    CHECK_EQ(syp_broadcast(&x, 4, 0, NULL, NULL), SYP_ESTATE);
    CHECK_EQ(syp_comm_create(NULL, &zero, 1, &g), SYP_ESTATE);
    CHECK_EQ(syp_comm_rank(NULL), SYP_ESTATE);
    CHECK_EQ(syp_pool_query(&info), SYP_ESTATE);
    CHECK(syp_symm_malloc(10) == NULL && syp_symm_malloc_local(10) == NULL && syp_peer_ptr(&x, 0) == NULL && !syp_pool_base(0));
    CHECK_EQ(syp_symm_free(&x), SYP_ESTATE);
    CHECK_EQ(syp_rank(), -1);
    CHECK_EQ(syp_world_size(), 0);
    CHECK_EQ(syp_has(SYP_CAP_ATTACHED), 0);

    CHECK_EQ(attach(), SYP_OK);
    CHECK_EQ(attach(), SYP_OK); /* the same again */
    CHECK_EQ(syp_init(0, 1, 32 << 20, 16 << 20, NULL), SYP_ESTATE);
    CHECK_HAS(syp_error_text(), "local_mem_size 67108864, not 33554432");
    CHECK(syp_has(SYP_CAP_ATTACHED) && syp_has(SYP_CAP_ZERO_COPY) && syp_has(SYP_CAP_SAME_VA) && !syp_has(12345));
    CHECK_EQ(syp_version(), SYP_VERSION);
    syp_call bad = {sizeof bad, -1}, small = {1, 0};
    CHECK_EQ(syp_barrier(NULL, &bad), SYP_EINVAL);
    CHECK_EQ(syp_barrier(NULL, &small), SYP_EINVAL);
    CHECK_EQ(syp_barrier((syp_comm *)&x, NULL), SYP_ESTATE);
    CHECK_EQ(syp_comm_create(NULL, &zero, 1, NULL), SYP_EINVAL);
    CHECK_EQ(syp_comm_create(NULL, NULL, 1, &g), SYP_EINVAL);
    CHECK_EQ(syp_comm_create(NULL, &zero, 1, &g), SYP_OK);
    CHECK(syp_comm_size(g) == 1 && syp_comm_rank(g) == 0 && syp_barrier(g, NULL) == SYP_OK);
    CHECK_EQ(syp_comm_destroy(g), SYP_OK);
    CHECK_EQ(syp_comm_destroy(g), SYP_ESTATE);
    CHECK_EQ(syp_comm_destroy(SYP_COMM_WORLD), SYP_EINVAL);
    CHECK_EQ(syp_barrier(g, NULL), SYP_ESTATE);
    CHECK_EQ(syp_owner(&x, NULL), SYP_EINVAL);
    CHECK(syp_symm_malloc(0) == NULL && syp_symm_malloc(32 << 20) == NULL && syp_symm_aligned_alloc(3, 64) == NULL);
    CHECK(syp_symm_calloc(SIZE_MAX, 2) == NULL && syp_symm_malloc_local(0) == NULL);
    CHECK_EQ(syp_symm_free(&x), SYP_EFOREIGN);
    CHECK_EQ(syp_symm_free(NULL), SYP_OK);
    CHECK(syp_peer_ptr(&x, 0) == NULL && syp_peer_ptr(syp_pool_base(0), 1) == NULL);
    CHECK_EQ(syp_finalize(), SYP_OK);
    CHECK_EQ(syp_barrier(g, NULL), SYP_ESTATE);
    CHECK_STR(syp_strerror(SYP_ETIMEOUT), "SYP_ETIMEOUT");
    CHECK_STR(syp_strerror(12345), "unknown status");
}

static void *barriers(void *arg) {
    int rc;
    while ((rc = syp_barrier(NULL, NULL)) == SYP_OK || rc == SYP_EBUSY)
        ;
    *(int *)arg = rc;
    return NULL;
}

/* Finalize while another thread runs collectives: refused as busy, or done; the thread gets a clear code, nothing crashes. */
static void finalize_beside_collectives(void) {
    for (int i = 0; i < 30; i++) {
        int rc, last = 0;
        pthread_t t;
        CHECK_EQ(attach(), SYP_OK);
        pthread_create(&t, NULL, barriers, &last);
        while ((rc = syp_finalize()) == SYP_EBUSY)
            ;
        CHECK_EQ(rc, SYP_OK);
        pthread_join(t, NULL);
        CHECK_EQ(last, SYP_ESTATE);
    }
}

int main(void) {
    return check_main("api", (struct check_test[]){{"never_calls_malloc", never_calls_malloc},
                                                   {"memory", memory},
                                                   {"bad_frees", bad_frees},
                                                   {"scopes_and_walk", scopes_and_walk},
                                                   {"torch_entries", torch_entries},
                                                   {"misuse", misuse},
                                                   {"finalize_beside_collectives", finalize_beside_collectives},
                                                   {0}});
}
