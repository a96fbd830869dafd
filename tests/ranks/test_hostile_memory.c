/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer that attacks with all that it has been given: the files behind the segments, every window it may write, its own control segment.  The others
 * neither crash nor hang, and what is theirs alone stays as it was.
 */
#include "pool/base/conf.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/world_test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------------------------- the files */

/* The call is refused with one of two errors. */
static int refused(const char *call, int64_t rc, int one, int other) {
    if (rc < 0 && (errno == one || errno == other)) return 1;
    fprintf(stderr, "%s: %lld, errno %d\n", call, (long long)rc, rc < 0 ? errno : 0);
    return 0;
}

static int attack_files(struct world *w, const int *fds) {
    static const char *const names[] = {"data", "control", "exchange"};
    struct peers *p = &w->peers;
    int failed = 0;
    for (int i = 0; i < 3; i++) {
        char path[64];
        uint64_t len = i == 0 ? p->peer[0].data_len : i == 1 ? p->roster.rank[0].control_len : p->peer[0].exchange_len;
        snprintf(path, sizeof path, "/proc/%d/fd/%d", p->roster.rank[0].pid, fds[i]);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0) continue; /* not even that is allowed: better still */
        failed += !refused(names[i], ftruncate(fd, 0), EPERM, EPERM);
        failed += !refused(names[i], ftruncate(fd, (off_t)(len * 2)), EPERM, EPERM);
        failed += !refused(names[i], fallocate(fd, 0, (off_t)len, 4096), EPERM, EPERM);
        if (i == 1) {
            failed += !refused("punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), EPERM, EPERM);
            failed += !refused("write", pwrite(fd, "x", 1, 0), EPERM, EPERM);
            void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            failed += !refused("map", at == MAP_FAILED ? -1 : 0, EPERM, EACCES);
        } else {
            /* it may write there, and so it may take the memory away: the owner finds zeros */
            (void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)len);
        }
        close(fd);
    }
    void *control = (void *)(uintptr_t)p->peer[0].control;
    failed += !refused("mprotect", mprotect(control, 4096, PROT_READ | PROT_WRITE), EACCES, EPERM);
    return failed;
}

static int files_of_a_rank(struct world *w, void *arg) {
    struct comm *c = &w->coll.comm[0];
    int fds[3] = {w->pool->region.mem.fd, w->peers.control.fd, w->peers.exchange.fd};
    (void)arg;
    char *mine = world_alloc(w, 1 << 20);
    memset(mine, 7, 1 << 20);
    NEED(w, coll_broadcast(c, fds, sizeof fds, 0, 0) == SYP_OK);
    if (w->who.rank == 1) NEED(w, attack_files(w, fds) == 0);
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    for (size_t i = 0; i < 1 << 20; i++) { /* no SIGBUS, all of it can be used again */
        if (mine[i] != 0 && mine[i] != 7) return 1;
        mine[i] = 1;
    }
    float x[5000], y[5000];
    for (int i = 0; i < 5000; i++)
        x[i] = (float)i;
    NEED(w, coll_allreduce(c, x, y, 5000, SYP_FLOAT32, SYP_SUM, 0) == SYP_OK && y[4999] == 2 * 4999);
    world_free(w, mine);
    return 0;
}

static void files_keep_their_size_and_their_one_writer(void) {
    CHECK_EQ(worlds_as_processes(2, NULL, files_of_a_rank, NULL), 0);
}

/* ---------------------------------------------------------------------------------------- windows that are shared */

static void scribble(uint64_t *state, char *at, uint64_t len) {
    uint64_t n = len < 4096 ? len : 4096, from = len > n ? check_random(state) % (len - n) : 0;
    for (uint64_t i = 0; i + 8 <= n; i += 8) {
        uint64_t x = check_random(state);
        memcpy(at + from + i, &x, 8);
    }
}

struct blocks {
    char *at[64];
    uint64_t state;
};

/* What a rank does with its allocator while others write into its pool. */
static int use_allocator(struct world *w, struct blocks *b) {
    for (int i = 0; i < 40; i++) {
        unsigned k = (unsigned)(check_random(&b->state) % 64);
        if (b->at[k]) world_free(w, b->at[k]);
        b->at[k] = world_alloc(w, 1 + check_random(&b->state) % 30000);
        if (!b->at[k]) return 1;
    }
    return heap_check(&w->pool->heap) != SYP_OK || symm_check(&w->pool->symm) != SYP_OK;
}

static int everybody_scribbles(struct world *w, void *arg) {
    const uint64_t *plan = arg; /* seed, trials */
    struct comm *c = &w->coll.comm[0];
    int other = !w->who.rank;
    struct blocks b = {.state = plan[0] + 1};
    uint64_t state = plan[0] * 77 + (uint64_t)w->who.rank + 1;
    static float x[3000], y[3000];
    for (uint64_t i = 0; i < plan[1]; i++) {
        scribble(&state, w->peers.peer[other].data, w->peers.peer[other].data_len);
        scribble(&state, w->peers.peer[other].exchange, w->coll.conf.staging); /* the world's; the rest has no memory yet */
        if (i % 8) continue;
        NEED(w, use_allocator(w, &b) == 0);
        NEED(w, coll_allreduce(c, x, y, i % 16 ? 3000 : 10, SYP_FLOAT32, SYP_SUM, 0) == SYP_OK); /* its result is anybody's guess */
        NEED(w, coll_broadcast(c, x, sizeof x, (int)(i / 8 % 2), 0) == SYP_OK);
        uint64_t off = coll_symm_alloc(&w->coll, 1 + i % 5000, 64, 0);
        NEED(w, off != SPACE_NONE);
        NEED(w, symm_free(&w->pool->symm, region_at(&w->pool->region, off)) == SYP_OK);
    }
    for (int k = 0; k < 64; k++)
        if (b.at[k]) world_free(w, b.at[k]);
    NEED(w, heap_check(&w->pool->heap) == SYP_OK);
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    return 0;
}

static void random_bytes_in_every_shared_window_harm_nobody(void) {
    uint64_t plan[2] = {check_seed(), check_count(800, 10000)};
    struct world_setup setup = {.local_mem_size = 16 << 20, .meta_size = 4 << 20};
    CHECK_EQ(worlds_as_processes(2, &setup, everybody_scribbles, plan), 0);
}

/* --------------------------------------------------------------------------------------------- a rank's own segment */

static void leave_at_once(int sig) {
    (void)sig;
    _exit(0);
}

static void *play_along(void *arg) {
    struct world *w = arg;
    static float x[3000], y[3000];
    for (int i = 0; i < 1000; i++) {
        (void)coll_barrier(&w->coll.comm[0], 50 * (int64_t)NS_PER_MS);
        (void)coll_allreduce(&w->coll.comm[0], x, y, 3000, SYP_FLOAT32, SYP_SUM, 50 * (int64_t)NS_PER_MS);
    }
    return NULL;
}

/* The attacker takes part and meanwhile writes into its own control segment; what becomes of it does not matter. */
static int attack_with_own_control(struct world *w, uint64_t seed) {
    static const int deadly[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGALRM};
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
        signal(deadly[i], leave_at_once);
    pthread_t t;
    pthread_create(&t, NULL, play_along, w);
    char *control = (char *)w->peers.self;
    uint64_t len = w->peers.control.len, state = seed | 1, end = os->now() + 150 * NS_PER_MS;
    /* mostly where the world's slot and the ring lie, which is what the others read; now and then anywhere */
    uint64_t slot = sizeof(struct control_head) + offsetof(struct board, slot);
    while (os->now() < end) {
        uint64_t x = check_random(&state), how = x % 8, at;
        struct mail *mail = &((struct board *)peers_own_body(&w->peers))->slot[0].mail[x >> 8 & 1];
        if (x >> 9 & 1) { /* buffers that lie anywhere */
            struct mail_buffers *buffers = (struct mail_buffers *)(void *)mail->data;
            buffers->send = buffers->recv = check_random(&state) >> (x >> 10 & 31);
            if (x >> 16 & 15) continue;
        }
        at = how < 5 ? slot + (x >> 8) % sizeof(struct comm_slot) : how < 7 ? sizeof(struct control_head) + (x >> 8) % 4096 : (x >> 8) % len;
        uint64_t value = how % 2 ? check_random(&state) : check_random(&state) % 512;
        memcpy(control + at, &value, at + 8 <= len ? 8 : 1);
        if (x >> 40 & 1) usleep((useconds_t)(x >> 42 & 127));
    }
    _exit(0);
}

static int known(int rc) {
    return rc == SYP_OK || rc == SYP_EPEER || rc == SYP_ETIMEOUT || rc == SYP_EMISMATCH || rc == SYP_EDIVERGED || rc == SYP_EABORTED;
}

static int survive(struct world *w, void *arg) {
    uint64_t seed = *(const uint64_t *)arg;
    struct comm *c = &w->coll.comm[0];
    static float x[3000], y[3000];
    if (w->who.rank == 2) return attack_with_own_control(w, seed);
    uint64_t end = os->now() + NS_PER_S;
    int rc = SYP_OK;
    float *in_pool = world_alloc(w, sizeof x);
    for (int i = 0; os->now() < end && (rc == SYP_OK || rc == SYP_EMISMATCH || rc == SYP_EDIVERGED); i++) {
        uint64_t start = os->now();
        rc = i % 3 == 0 ? coll_barrier(c, 300 * (int64_t)NS_PER_MS)
                        : coll_allreduce(c, i % 3 == 1 ? x : in_pool, i % 3 == 1 ? y : in_pool, 3000, SYP_FLOAT32, SYP_SUM, 300 * (int64_t)NS_PER_MS);
        NEED(w, known(rc));
        NEED(w, os->now() - start < 3 * NS_PER_S);
        if (rc != SYP_OK) NEED(w, err_record()->code == rc && err_record()->text[0]);
    }
    NEED(w, rc != SYP_OK); /* it was killed at the latest */
    NEED(w, heap_check(&w->pool->heap) == SYP_OK && symm_check(&w->pool->symm) == SYP_OK);
    world_free(w, in_pool);
    (void)world_detach(w); /* its barrier cannot succeed */
    return 0;
}

static void a_control_segment_of_random_bytes_ends_in_a_clear_error(void) {
    uint64_t seed = check_seed(), n = check_count(12, 300);
    struct world_setup setup = {.local_mem_size = 4 << 20, .meta_size = 1 << 20, .timeout_ns = NS_PER_S};
    for (uint64_t i = 0; i < n; i++) {
        uint64_t one = seed + i;
        if (worlds_as_processes(3, &setup, survive, &one)) check_fail(__FILE__, __LINE__, "seed %llu", (unsigned long long)one);
    }
}

int main(void) {
    conf_freeze();
    return check_main("hostile memory",
                      (struct check_test[]){
                          {"files keep their size and their one writer", files_keep_their_size_and_their_one_writer},
                          {"random bytes in every shared window harm nobody", random_bytes_in_every_shared_window_harm_nobody},
                          {"a control segment of random bytes ends in a clear error", a_control_segment_of_random_bytes_ends_in_a_clear_error},
                          {0}});
}
