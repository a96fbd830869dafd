/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stand-ins for the OS table: fault injection with bookkeeping, and the common mapping of ranks that are threads.
 *
 * Each is a table over the one that was in force when it was switched on.  Invariant: what the fake counts is what the
 * library asked for through the table; the common mapping really maps each segment once.
 */
#include "tests/support/fake_os.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* ---------------------------------------------------------------------------------------- fault injection */

static const struct os_ops *below; /* what the fake passes calls on to */

static pthread_mutex_t plan_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    unsigned calls;
    unsigned any_left, op_left; /* calls until the failure, 0 = none planned */
    int any_err, op_err;
    char op[32];
    const char *last;
} plan;

static atomic_long open_fds, mapped_bytes, threads;

enum { SPARED = 0, FAILABLE = 1 };

/* The error that this call must report, 0 = let it through. */
static int injected(const char *op, int failable) {
    int err = 0;
    pthread_mutex_lock(&plan_lock);
    if (failable) {
        plan.calls++;
        if (plan.any_left > 0 && --plan.any_left == 0) err = plan.any_err;
    }
    if (plan.op_left > 0 && strcmp(plan.op, op) == 0 && --plan.op_left == 0) err = plan.op_err;
    if (err) plan.last = op;
    pthread_mutex_unlock(&plan_lock);
    return err;
}

static long whole_pages(size_t len) {
    return (long)round_up(len, os_page_size());
}

/* Descriptors that arrived in a message. */
static long received_fds(const struct msghdr *msg) {
    long n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR((struct msghdr *)(uintptr_t)msg, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            n += (long)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    return n;
}

#define OPENED(r) atomic_fetch_add(&open_fds, (r) >= 0)
#define CLOSED(r) atomic_fetch_sub(&open_fds, (r) >= 0)
#define GIVEN(r, len) atomic_fetch_add(&mapped_bytes, (r) >= 0 ? whole_pages(len) : 0)
#define TAKEN(r, len) atomic_fetch_sub(&mapped_bytes, (r) >= 0 ? whole_pages(len) : 0)
#define NOTHING(r) ((void)0)

/* X(result type, name, may it be failed, parameters, arguments, what to count with the result r) */
#define INT_OPS(X)                                                                                                     \
    X(int, memfd, FAILABLE, (const char *name, int huge_shift), (name, huge_shift), OPENED(r))                         \
    X(int, shm_file, FAILABLE, (void), (), OPENED(r))                                                                  \
    X(int, file_resize, FAILABLE, (int fd, uint64_t len), (fd, len), NOTHING(r))                                       \
    X(int, file_commit, FAILABLE, (int fd, uint64_t off, uint64_t len), (fd, off, len), NOTHING(r))                    \
    X(int, file_punch, FAILABLE, (int fd, uint64_t off, uint64_t len), (fd, off, len), NOTHING(r))                     \
    X(int, file_seal, FAILABLE, (int fd, int seals), (fd, seals), NOTHING(r))                                          \
    X(int, file_seals, FAILABLE, (int fd), (fd), NOTHING(r))                                                           \
    X(int, file_size, FAILABLE, (int fd, uint64_t *len), (fd, len), NOTHING(r))                                        \
    X(int, file_space, FAILABLE, (int fd, uint64_t *total, uint64_t *left), (fd, total, left), NOTHING(r))             \
    X(int, limit, SPARED, (int resource, uint64_t *out), (resource, out), NOTHING(r))                                  \
    X(int, reserve, FAILABLE, (const char *what, size_t len, size_t align, void **out), (what, len, align, out),       \
      GIVEN(r, len))                                                                                                   \
    X(int, release, SPARED, (void *addr, size_t len), (addr, len), TAKEN(r, len))                                      \
    X(int, map, FAILABLE, (void *addr, size_t len, int prot, int fd, uint64_t off, void **out),                        \
      (addr, len, prot, fd, off, out), addr ? 0 : GIVEN(r, len))                                                       \
    X(int, map_copy, FAILABLE, (void *addr, size_t len, int fd), (addr, len, fd), NOTHING(r))                         \
    X(int, unmap, SPARED, (void *addr, size_t len), (addr, len), TAKEN(r, len))                                        \
    X(int, advise, FAILABLE, (void *addr, size_t len, int advice), (addr, len, advice), NOTHING(r))                    \
    X(int, protect, FAILABLE, (void *addr, size_t len, int prot), (addr, len, prot), NOTHING(r))                       \
    X(int, bind_memory, FAILABLE, (void *addr, size_t len, int mode, const unsigned long *mask, unsigned long max),    \
      (addr, len, mode, mask, max), NOTHING(r))                                                                        \
    X(int, sleep, SPARED, (uint64_t ns), (ns), NOTHING(r))                                                             \
    X(int, futex_wait, SPARED, (const void *word, uint32_t expected, uint64_t timeout_ns),                             \
      (word, expected, timeout_ns), NOTHING(r))                                                                        \
    X(int, futex_wake, SPARED, (const void *word, int n), (word, n), NOTHING(r))                                       \
    X(int, fence_threads, FAILABLE, (void), (), NOTHING(r))                                                            \
    X(int, fence_ranks_join, FAILABLE, (void), (), NOTHING(r))                                                         \
    X(int, fence_ranks, SPARED, (void), (), NOTHING(r))                                                                \
    X(int, pid, SPARED, (void), (), NOTHING(r))                                                                        \
    X(int, tid, SPARED, (void), (), NOTHING(r))                                                                        \
    X(int, uid, SPARED, (void), (), NOTHING(r))                                                                        \
    X(int, process_alive, SPARED, (int pid), (pid), NOTHING(r))                                                        \
    X(int, thread_alive, SPARED, (int tid), (tid), NOTHING(r))                                                         \
    X(int, start_time, FAILABLE, (int pid, uint64_t *ticks), (pid, ticks), NOTHING(r))                                 \
    X(int, processors, SPARED, (uint64_t * mask, size_t words), (mask, words), NOTHING(r))                                                                 \
    X(int, thread_start, FAILABLE, (void *(*run)(void *), void *arg, struct os_thread **out), (run, arg, out),         \
      atomic_fetch_add(&threads, r >= 0))                                                                              \
    X(int, thread_join, SPARED, (struct os_thread * t), (t), atomic_fetch_sub(&threads, r >= 0))                       \
    X(int, thread_detach, SPARED, (struct os_thread * t), (t), atomic_fetch_sub(&threads, r >= 0))                     \
    X(int, robust_list, FAILABLE, (void *head, size_t len), (head, len), NOTHING(r))                                   \
    X(int, open_read, FAILABLE, (const char *path), (path), OPENED(r))                                                 \
    X(int, open_nofollow, FAILABLE, (const char *path), (path), OPENED(r))                                             \
    X(int, file_facts, FAILABLE, (int fd, struct os_file *out), (fd, out), NOTHING(r))                                 \
    X(int, open_create, FAILABLE, (const char *path, int mode), (path, mode), OPENED(r))                               \
    X(int, open_append, FAILABLE, (const char *path, int mode), (path, mode), OPENED(r))                               \
    X(int, rename, FAILABLE, (const char *from, const char *to), (from, to), NOTHING(r))                               \
    X(int64_t, read, FAILABLE, (int fd, void *buf, size_t len), (fd, buf, len), NOTHING(r))                            \
    X(int64_t, write, FAILABLE, (int fd, const void *buf, size_t len), (fd, buf, len), NOTHING(r))                     \
    X(int, close, SPARED, (int fd), (fd), CLOSED(r))                                                                   \
    X(int, random, FAILABLE, (void *buf, size_t len), (buf, len), NOTHING(r))                                          \
    X(int, socket, FAILABLE, (int family, int type), (family, type), OPENED(r))                                        \
    X(int, bind, FAILABLE, (int fd, const struct sockaddr *addr, socklen_t len), (fd, addr, len), NOTHING(r))          \
    X(int, listen, FAILABLE, (int fd, int backlog), (fd, backlog), NOTHING(r))                                         \
    X(int, accept, FAILABLE, (int fd, struct sockaddr *addr, socklen_t *len), (fd, addr, len), OPENED(r))              \
    X(int, connect, FAILABLE, (int fd, const struct sockaddr *addr, socklen_t len), (fd, addr, len), NOTHING(r))       \
    X(int, socket_error, FAILABLE, (int fd), (fd), NOTHING(r))                                                         \
    X(int, socket_option, FAILABLE, (int fd, int level, int option, int value), (fd, level, option, value),            \
      NOTHING(r))                                                                                                      \
    X(int, socket_name, FAILABLE, (int fd, int peer, struct sockaddr *addr, socklen_t *len), (fd, peer, addr, len),    \
      NOTHING(r))                                                                                                      \
    X(int, socket_cred, FAILABLE, (int fd, int *pid, int *uid), (fd, pid, uid), NOTHING(r))                            \
    X(int64_t, send, FAILABLE, (int fd, const struct msghdr *msg), (fd, msg), NOTHING(r))                              \
    X(int64_t, recv, FAILABLE, (int fd, struct msghdr *msg), (fd, msg),                                                \
      atomic_fetch_add(&open_fds, r >= 0 ? received_fds(msg) : 0))                                                     \
    X(int, poll, SPARED, (struct pollfd * fds, unsigned n, uint64_t timeout_ns), (fds, n, timeout_ns), NOTHING(r))     \
    X(int, set_cloexec, FAILABLE, (int fd), (fd), NOTHING(r))                                                          \
    X(int, set_nonblock, FAILABLE, (int fd), (fd), NOTHING(r))                                                         \
    X(int64_t, readlink, FAILABLE, (const char *path, char *buf, size_t cap), (path, buf, cap), NOTHING(r))

#define WRAPPER(type, op, failable, params, args, count)                                                               \
    static type fake_##op params {                                                                                     \
        int err = injected(#op, failable);                                                                             \
        if (err) return -err;                                                                                          \
        type r = below->op args;                                                                                       \
        (void)(count);                                                                                                 \
        return r;                                                                                                      \
    }
INT_OPS(WRAPPER)
#undef WRAPPER

static uint64_t fake_now(void) {
    return below->now();
}
static void fake_yield(void) {
    below->yield();
}

/* An operation that was added to os.h and forgotten here would be called through NULL. */
#define ONE(type, op, failable, params, args, count) +1
_Static_assert(sizeof(struct os_ops) == (2 INT_OPS(ONE)) * sizeof(void (*)(void)), "every operation has a wrapper");
#undef ONE

/* clang-format off */
static const struct os_ops fake = {
    .now = fake_now,
    .yield = fake_yield,
#define MEMBER(type, op, failable, params, args, count) .op = fake_##op,
    INT_OPS(MEMBER)
#undef MEMBER
};
/* clang-format on */

void fake_os_on(void) {
    memset(&plan, 0, sizeof plan);
    open_fds = mapped_bytes = threads = 0;
    below = os_swap(&fake);
}

void fake_os_off(void) {
    os_swap(below);
}

void fake_os_fail(unsigned n, int err) {
    pthread_mutex_lock(&plan_lock);
    plan.any_left = n;
    plan.any_err = err;
    pthread_mutex_unlock(&plan_lock);
}

static int is_op(const char *op) {
    static const char *const names[] = {
#define NAME(type, name, failable, params, args, count) #name,
        INT_OPS(NAME)
#undef NAME
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], op) == 0) return 1;
    return 0;
}

void fake_os_fail_op(const char *op, unsigned n, int err) {
    if (!is_op(op)) {
        fprintf(stderr, "fake_os_fail_op: no operation \"%s\"\n", op);
        abort();
    }
    pthread_mutex_lock(&plan_lock);
    snprintf(plan.op, sizeof plan.op, "%s", op);
    plan.op_left = n;
    plan.op_err = err;
    pthread_mutex_unlock(&plan_lock);
}

unsigned fake_os_calls(void) {
    pthread_mutex_lock(&plan_lock);
    unsigned n = plan.calls;
    pthread_mutex_unlock(&plan_lock);
    return n;
}

const char *fake_os_last(void) {
    pthread_mutex_lock(&plan_lock);
    const char *last = plan.last;
    pthread_mutex_unlock(&plan_lock);
    return last;
}

long fake_os_open_fds(void) {
    return open_fds;
}
long fake_os_mapped_bytes(void) {
    return mapped_bytes;
}
long fake_os_threads(void) {
    return threads;
}

/* ----------------------------------------------------------------------------------------- common mapping */

static const struct os_ops *common_below;
static struct os_ops common;
static pthread_mutex_t common_lock = PTHREAD_MUTEX_INITIALIZER;

/* A named reservation, and a mapped piece of a file; refs 0 = entry unused. */
static struct reservation {
    char what[64];
    size_t len;
    char *addr;
    unsigned refs;
} reservations[1024];

static struct piece {
    dev_t dev;
    ino_t ino;
    uint64_t off;
    size_t len;
    char *addr;
    int prot;
    int anywhere; /* mapped with addr NULL */
    unsigned refs;
} pieces[16384];

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void common_full(const char *what) {
    fprintf(stderr, "common mapping: table of %s is full\n", what);
    abort();
}

static struct reservation *free_reservation(void) {
    for (size_t i = 0; i < COUNT(reservations); i++)
        if (reservations[i].refs == 0) return &reservations[i];
    common_full("reservations");
    return NULL;
}

static struct piece *free_piece(void) {
    for (size_t i = 0; i < COUNT(pieces); i++)
        if (pieces[i].refs == 0) return &pieces[i];
    common_full("mappings");
    return NULL;
}

static int common_reserve_locked(const char *what, size_t len, size_t align, void **out) {
    for (size_t i = 0; i < COUNT(reservations); i++) {
        struct reservation *v = &reservations[i];
        if (v->refs == 0 || v->len != len || strcmp(v->what, what) != 0) continue;
        v->refs++;
        *out = v->addr;
        return 0;
    }
    int r = common_below->reserve(what, len, align, out);
    if (r < 0) return r;
    struct reservation *v = free_reservation();
    snprintf(v->what, sizeof v->what, "%s", what);
    v->len = len;
    v->addr = *out;
    v->refs = 1;
    return r;
}

static int common_release_locked(void *addr, size_t len) {
    struct reservation *v = NULL;
    for (size_t i = 0; i < COUNT(reservations); i++)
        if (reservations[i].refs > 0 && reservations[i].addr == addr) v = &reservations[i];
    if (v && --v->refs > 0) return 0;
    for (size_t i = 0; i < COUNT(pieces); i++)
        if (pieces[i].refs > 0 && !pieces[i].anywhere && (uintptr_t)pieces[i].addr - (uintptr_t)addr < len)
            pieces[i].refs = 0;
    return common_below->release(addr, len);
}

/* The piece of this file at this place (addr NULL: anywhere), NULL when it is not mapped. */
static struct piece *find_piece(const struct stat *st, uint64_t off, size_t len, const void *addr) {
    for (size_t i = 0; i < COUNT(pieces); i++) {
        struct piece *p = &pieces[i];
        if (p->refs > 0 && p->dev == st->st_dev && p->ino == st->st_ino && p->off == off && p->len == len &&
            (addr ? p->addr == addr : p->anywhere))
            return p;
    }
    return NULL;
}

static int common_map_file(void *addr, size_t len, int prot, int fd, uint64_t off, void **out) {
    struct stat st;
    if (fstat(fd, &st) != 0) return -EBADF;
    struct piece *p = find_piece(&st, off, len, addr);
    if (!p) {
        int r = common_below->map(addr, len, prot, fd, off, out);
        if (r < 0) return r;
        p = free_piece();
        *p = (struct piece){st.st_dev, st.st_ino, off, len, *out, prot, addr == NULL, 1};
        return r;
    }
    if ((p->prot | prot) != p->prot) {
        /* The first one could do less: map the same bytes again over it, through the descriptor that may do more. */
        int r = common_below->map(p->addr, len, p->prot | prot, fd, off, out);
        if (r < 0) return r;
        p->prot |= prot;
    }
    p->refs++;
    *out = p->addr;
    return 0;
}

static int common_map_locked(void *addr, size_t len, int prot, int fd, uint64_t off, void **out) {
    if (fd >= 0) return common_map_file(addr, len, prot, fd, off, out);
    /* Inaccessible memory over a file's piece is how one rank gives it up inside a reservation: the others keep it. */
    for (size_t i = 0; addr && prot == PROT_NONE && i < COUNT(pieces); i++) {
        struct piece *p = &pieces[i];
        if (p->refs == 0 || p->anywhere || p->addr != addr || p->len != len) continue;
        if (--p->refs == 0) break;
        *out = addr;
        return 0;
    }
    return common_below->map(addr, len, prot, fd, off, out);
}

static int common_unmap_locked(void *addr, size_t len) {
    for (size_t i = 0; i < COUNT(pieces); i++) {
        struct piece *p = &pieces[i];
        if (p->refs == 0 || !p->anywhere || p->addr != addr) continue;
        if (--p->refs > 0) return 0;
        break;
    }
    return common_below->unmap(addr, len);
}

static int common_reserve(const char *what, size_t len, size_t align, void **out) {
    pthread_mutex_lock(&common_lock);
    int r = common_reserve_locked(what, len, align, out);
    pthread_mutex_unlock(&common_lock);
    return r;
}

static int common_release(void *addr, size_t len) {
    pthread_mutex_lock(&common_lock);
    int r = common_release_locked(addr, len);
    pthread_mutex_unlock(&common_lock);
    return r;
}

static int common_map(void *addr, size_t len, int prot, int fd, uint64_t off, void **out) {
    pthread_mutex_lock(&common_lock);
    int r = common_map_locked(addr, len, prot, fd, off, out);
    pthread_mutex_unlock(&common_lock);
    return r;
}

static int common_unmap(void *addr, size_t len) {
    pthread_mutex_lock(&common_lock);
    int r = common_unmap_locked(addr, len);
    pthread_mutex_unlock(&common_lock);
    return r;
}

void common_os_on(void) {
    memset(reservations, 0, sizeof reservations);
    memset(pieces, 0, sizeof pieces);
    common_below = os;
    common = *os;
    common.reserve = common_reserve;
    common.release = common_release;
    common.map = common_map;
    common.unmap = common_unmap;
    os_swap(&common);
}

void common_os_off(void) {
    os_swap(common_below);
}
