/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The OS table of Linux.
 *
 * Invariants: every call leaves errno as it was and reports -errno; every descriptor is close-on-exec from birth. Calls
 * that glibc learned late are made by number, so that the library runs on older ones.  Must not know: why it is called.
 */
#include "pool/base/os.h"
#include "pool/base/arena.h"
#include "pool/base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <linux/memfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

/* Result of a call, or -errno; errno is kept. */
#define SYS(call)                                                                                                      \
    __extension__({                                                                                                    \
        int sys_saved = errno;                                                                                         \
        long sys_result = (long)(call);                                                                                \
        if (sys_result < 0) sys_result = -errno;                                                                       \
        errno = sys_saved;                                                                                             \
        sys_result;                                                                                                    \
    })

/* The same, repeated when a signal interrupted it. */
#define SYS_RETRY(call)                                                                                                \
    __extension__({                                                                                                    \
        long retry_result;                                                                                             \
        do {                                                                                                           \
            retry_result = SYS(call);                                                                                  \
        } while (retry_result == -EINTR);                                                                              \
        retry_result;                                                                                                  \
    })

const struct os_ops *os = &os_linux;

const struct os_ops *os_swap(const struct os_ops *table) {
    const struct os_ops *old = os;
    os = table;
    return old;
}

size_t os_page_size(void) {
    static _Atomic size_t cached; /* the same value from every writer: relaxed */
    size_t size = atomic_load_explicit(&cached, memory_order_relaxed);
    if (!size) {
        size = (size_t)sysconf(_SC_PAGESIZE);
        atomic_store_explicit(&cached, size, memory_order_relaxed);
    }
    return size;
}

int64_t os_read_file(const char *path, char *buf, size_t cap) {
    int fd = os->open_read(path);
    if (fd < 0) return fd;
    size_t len = 0;
    int64_t n = 0;
    while (len < cap - 1 && (n = os->read(fd, buf + len, cap - 1 - len)) > 0)
        len += (size_t)n;
    (void)os->close(fd);
    buf[len] = 0;
    return n < 0 ? n : (int64_t)len;
}

/* ------------------------------------------------------------------------------------------- memory files */

static int linux_random(void *buf, size_t len) {
    for (size_t done = 0; done < len;) {
        long n = SYS_RETRY(syscall(SYS_getrandom, (char *)buf + done, len - done, 0u));
        if (n < 0) return (int)n;
        done += (size_t)n;
    }
    return 0;
}

static int linux_memfd(const char *name, int huge_shift) {
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    if (huge_shift) flags |= MFD_HUGETLB | (unsigned)huge_shift << MFD_HUGE_SHIFT;
    long fd = SYS(syscall(SYS_memfd_create, name, flags | MFD_NOEXEC_SEAL));
    if (fd == -EINVAL) fd = SYS(syscall(SYS_memfd_create, name, flags)); /* before Linux 6.3 */
    return (int)fd;
}

/* The name is there for the time between two calls only; a process killed between them leaves an empty file. */
static int linux_shm_file(void) {
    uint64_t random[2];
    char path[64];
    int r = linux_random(random, sizeof random);
    if (r < 0) return r;
    text_format(path, sizeof path, "/dev/shm/sympool.%016llx%016llx", (unsigned long long)random[0], (unsigned long long)random[1]);
    int fd = (int)SYS_RETRY(open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (fd >= 0) (void)SYS(unlink(path));
    return fd;
}

static int linux_limit(int resource, uint64_t *out) {
    struct rlimit l;
    int r = (int)SYS(getrlimit((__rlimit_resource_t)resource, &l));
    if (r >= 0) *out = l.rlim_cur == RLIM_INFINITY ? UINT64_MAX : (uint64_t)l.rlim_cur;
    return r;
}

/* Beyond RLIMIT_FSIZE the kernel would send SIGXFSZ, also for a memory file, and end the program. */
static int linux_file_resize(int fd, uint64_t len) {
    uint64_t most;
    if (linux_limit(RLIMIT_FSIZE, &most) >= 0 && len > most) return -EFBIG;
    return (int)SYS_RETRY(ftruncate(fd, (off_t)len));
}

/* An interrupted fallocate of a memory file undoes all it did: under a profiler's timer a large one would never end: halve the step. */
static int linux_file_commit(int fd, uint64_t off, uint64_t len) {
    const uint64_t least = 2u << 20;
    uint64_t step = len;
    for (uint64_t done = 0; done < len;) {
        uint64_t n = len - done < step ? len - done : step;
        long r = SYS(fallocate(fd, 0, (off_t)(off + done), (off_t)n));
        if (r == 0)
            done += n;
        else if (r != -EINTR)
            return (int)r;
        else if (step / 2 >= least)
            step = round_up(step / 2, least);
    }
    return 0;
}

static int linux_file_punch(int fd, uint64_t off, uint64_t len) {
    return (int)SYS_RETRY(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len));
}

static int linux_file_seal(int fd, int seals) {
    return (int)SYS(fcntl(fd, F_ADD_SEALS, seals));
}

static int linux_file_seals(int fd) {
    return (int)SYS(fcntl(fd, F_GET_SEALS));
}

static int linux_file_size(int fd, uint64_t *len) {
    struct stat st;
    long r = SYS(fstat(fd, &st));
    if (r < 0) return (int)r;
    if (!S_ISREG(st.st_mode)) return -EINVAL;
    *len = (uint64_t)st.st_size;
    return 0;
}

static int linux_file_space(int fd, uint64_t *total, uint64_t *left) {
    struct statfs s;
    long r = SYS(fstatfs(fd, &s));
    if (r < 0) return (int)r;
    *total = (uint64_t)s.f_blocks * (uint64_t)s.f_bsize;
    *left = (uint64_t)s.f_bavail * (uint64_t)s.f_bsize;
    return 0;
}

/* ------------------------------------------------------------------------------------------ address space */

static int map_raw(void *addr, size_t len, int prot, int flags, int fd, uint64_t off, void **out) {
    int saved = errno, r = 0;
    void *p = mmap(addr, len, prot, flags, fd, (off_t)off);
    if (p == MAP_FAILED)
        r = -errno;
    else
        *out = p;
    errno = saved;
    return r;
}

static int linux_unmap(void *addr, size_t len) {
    return (int)SYS(munmap(addr, len));
}

static int linux_reserve(const char *what, size_t len, size_t align, void **out) {
    (void)what;
    size_t page = os_page_size(), extra = align > page ? align - page : 0, whole;
    void *p = NULL;
    len = round_up(len, page);
    if (len == 0 || __builtin_add_overflow(len, extra, &whole)) return -EINVAL;
    int r = map_raw(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, &p);
    if (r < 0) return r;
    size_t head = (size_t)(round_up((uintptr_t)p, align) - (uintptr_t)p);
    if (head) (void)linux_unmap(p, head);
    if (extra - head) (void)linux_unmap((char *)p + head + len, extra - head);
    *out = (char *)p + head;
    return 0;
}

/* A reservation of private memory is committed later and on purpose, so it does not count against the system's limit now. */
static int linux_map(void *addr, size_t len, int prot, int fd, uint64_t off, void **out) {
    int flags = fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
    if (addr) flags |= fd >= 0 ? MAP_FIXED : MAP_FIXED | MAP_NORESERVE;
    return map_raw(addr, len, prot, flags, fd, off, out);
}

static int linux_protect(void *addr, size_t len, int prot) {
    return (int)SYS(mprotect(addr, len, prot));
}

static int linux_map_copy(void *addr, size_t len, int fd) {
    void *out;
    return map_raw(addr, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, 0, &out);
}

static int linux_advise(void *addr, size_t len, int advice) {
    return (int)SYS_RETRY(madvise(addr, len, advice));
}

static int linux_bind_memory(void *addr, size_t len, int mode, const unsigned long *mask, unsigned long max_node) {
    return (int)SYS(syscall(SYS_mbind, addr, len, mode, mask, max_node, 0u));
}

/* --------------------------------------------------------------------------------------- time and waiting */

static struct timespec time_span(uint64_t ns) {
    const uint64_t most = 1000000000ull * NS_PER_S; /* 31 years: what the kernel takes everywhere */
    if (ns > most) ns = most;
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

static uint64_t linux_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static int linux_sleep(uint64_t ns) {
    struct timespec t = time_span(ns);
    return -clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL); /* returns the error, errno is not touched */
}

static void linux_yield(void) {
    (void)SYS(sched_yield());
}

static int linux_futex_wait(const void *word, uint32_t expected, uint64_t timeout_ns) {
    struct timespec t = time_span(timeout_ns);
    return (int)SYS(syscall(SYS_futex, word, FUTEX_WAIT, expected, &t, NULL, 0));
}

static int linux_futex_wake(const void *word, int n) {
    return (int)SYS(syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0));
}

static int linux_fence_threads(void) {
    int rc = (int)SYS(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
    if (rc != -EPERM) return rc;
    rc = (int)SYS(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
    return rc < 0 ? rc : (int)SYS(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
}

static int linux_fence_ranks_join(void) {
    return (int)SYS(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0));
}

static int linux_fence_ranks(void) {
    return (int)SYS(syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0));
}

/* ---------------------------------------------------------------------------------- processes and threads */

static int linux_pid(void) {
    return (int)getpid();
}
static int linux_tid(void) {
    return (int)syscall(SYS_gettid);
}
static int linux_uid(void) {
    return (int)getuid();
}

/* What follows the name in /proc/PID/stat (the name may hold blanks and parentheses); NULL when it cannot be read. */
static const char *stat_after_name(int pid, char *buf, size_t cap, int64_t *error) {
    char path[32];
    text_format(path, sizeof path, "/proc/%d/stat", pid);
    *error = os_read_file(path, buf, cap);
    if (*error < 0) return NULL;
    const char *end = strrchr(buf, ')');
    *error = -EPROTO;
    return end && end[1] == ' ' ? end + 2 : NULL;
}

/* A later field as a number; state: field 3, where stat_after_name points. */
static int stat_number(const char *state, int field, uint64_t *out) {
    for (int i = 3; i < field; i++) {
        state = strchr(state, ' ');
        if (!state) return -EPROTO;
        state++;
    }
    char digits[24];
    text_format(digits, sizeof digits, "%.*s", (int)strspn(state, "0123456789"), state);
    return text_to_u64(digits, out) ? -EPROTO : 0;
}

/* A zombie answers kill(pid, 0), but it will never do anything again; unless it is only the first of several threads that ended. */
static int linux_process_alive(int pid) {
    char buf[1024];
    int64_t error;
    uint64_t n_threads;
    if (pid <= 0) return -EINVAL;
    long r = SYS(kill(pid, 0));
    if (r == -ESRCH) return 0;
    if (r < 0 && r != -EPERM) return (int)r;
    const char *state = stat_after_name(pid, buf, sizeof buf, &error);
    if (!state) return error != -ESRCH;
    if (*state != 'Z' && *state != 'X') return 1;
    return stat_number(state, 20, &n_threads) == 0 && n_threads > 1;
}

static int linux_thread_alive(int tid) {
    return SYS(syscall(SYS_tgkill, getpid(), tid, 0)) != -ESRCH;
}

static int linux_start_time(int pid, uint64_t *ticks) {
    char buf[1024];
    int64_t error;
    if (pid <= 0) return -EINVAL;
    const char *state = stat_after_name(pid, buf, sizeof buf, &error);
    return state ? stat_number(state, 22, ticks) : (int)error;
}

/* By number: glibc's wrapper wants a mask as large as the kernel's, and a fixed cpu_set_t is not on large machines. */
static int linux_processors(uint64_t *mask, size_t words) {
    uint64_t all[8192 / 64] = {0};
    long n = SYS(syscall(SYS_sched_getaffinity, 0, sizeof all, all));
    int count = 0;
    if (mask) memset(mask, 0, words * sizeof *mask);
    for (size_t i = 0; n > 0 && i < (size_t)n / sizeof all[0]; i++) {
        count += __builtin_popcountll(all[i]);
        if (mask) mask[i % words] |= all[i];
    }
    return count > 0 ? count : 1;
}

struct os_thread {
    pthread_t id;
};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_LEN (1u << 20)
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define STACK_LEN (1u << 20)
#endif
#endif
#ifndef STACK_LEN
/* glibc takes the static TLS of all libraries out of it: the minimum would do only in small programs. */
#define STACK_LEN (256u << 10)
#endif

static int create_thread(pthread_t *id, void *(*run)(void *), void *arg) {
    pthread_attr_t attr;
    sigset_t all, old;
    int r = pthread_attr_init(&attr);
    if (r) return -r;
    r = pthread_attr_setstacksize(&attr, STACK_LEN);
    if (r == 0) {
        /* inherited by the new thread: a program's signals are for its own threads */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        r = pthread_create(id, &attr, run, arg);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    pthread_attr_destroy(&attr);
    return -r;
}

static int linux_thread_start(void *(*run)(void *), void *arg, struct os_thread **out) {
    int saved = errno;
    struct os_thread *t = map_alloc(sizeof *t);
    if (!t) return -ENOMEM;
    int r = create_thread(&t->id, run, arg);
    errno = saved;
    if (r < 0)
        map_free(t, sizeof *t);
    else
        *out = t;
    return r;
}

static int linux_thread_join(struct os_thread *t) {
    int r = -pthread_join(t->id, NULL);
    if (r == 0) map_free(t, sizeof *t);
    return r;
}

static int linux_thread_detach(struct os_thread *t) {
    int r = -pthread_detach(t->id);
    if (r == 0) map_free(t, sizeof *t);
    return r;
}

static int linux_robust_list(void *head, size_t len) {
    return (int)SYS(syscall(SYS_set_robust_list, head, len));
}

/* -------------------------------------------------------------------------------------- files and sockets */

static int linux_open_read(const char *path) {
    return (int)SYS_RETRY(open(path, O_RDONLY | O_CLOEXEC));
}

static int linux_open_nofollow(const char *path) {
    return (int)SYS_RETRY(open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
}

static int linux_file_facts(int fd, struct os_file *out) {
    struct stat st;
    long r = SYS(fstat(fd, &st));
    if (r < 0) return (int)r;
    *out = (struct os_file){.mode = st.st_mode & 07777,
                            .regular = S_ISREG(st.st_mode),
                            .owner = (int)st.st_uid,
                            .self = (int)geteuid(),
                            .len = (uint64_t)st.st_size};
    return 0;
}

static int linux_open_create(const char *path, int mode) {
    return (int)SYS_RETRY(open(path, O_CREAT | O_TRUNC | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, (mode_t)mode));
}

static int linux_open_append(const char *path, int mode) {
    return (int)SYS_RETRY(open(path, O_CREAT | O_APPEND | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, (mode_t)mode));
}

static int linux_rename(const char *from, const char *to) {
    return (int)SYS(rename(from, to));
}

static int64_t linux_read(int fd, void *buf, size_t len) {
    return SYS_RETRY(read(fd, buf, len));
}

/* A reader that went away, or a log at the limit of file sizes, must not end the program: SIGPIPE and SIGXFSZ are held
 * back, and taken away if this write raised them. */
static int64_t linux_write(int fd, const void *buf, size_t len) {
    sigset_t held, raised, old, pending;
    sigemptyset(&held);
    sigaddset(&held, SIGPIPE);
    sigaddset(&held, SIGXFSZ);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &held, &old);
    int64_t n = SYS_RETRY(write(fd, buf, len));
    int signal = n == -EPIPE ? SIGPIPE : n == -EFBIG ? SIGXFSZ : 0;
    if (signal && !sigismember(&pending, signal)) {
        sigemptyset(&raised);
        sigaddset(&raised, signal);
        (void)SYS_RETRY(sigtimedwait(&raised, NULL, &(struct timespec){0, 0}));
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return n;
}

/* Never repeated: Linux has closed the descriptor also when it reports EINTR, and the number may be another file's by
 * now. */
static int linux_close(int fd) {
    long r = SYS(close(fd));
    return r == -EINTR ? 0 : (int)r;
}

static int linux_socket(int family, int type) {
    return (int)SYS(socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

static int linux_bind(int fd, const struct sockaddr *addr, socklen_t len) {
    return (int)SYS(bind(fd, addr, len));
}

static int linux_listen(int fd, int backlog) {
    return (int)SYS(listen(fd, backlog));
}

static int linux_accept(int fd, struct sockaddr *addr, socklen_t *len) {
    return (int)SYS_RETRY(accept4(fd, addr, len, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

static int linux_connect(int fd, const struct sockaddr *addr, socklen_t len) {
    int r = (int)SYS(connect(fd, addr, len));
    return r == -EINTR ? -EINPROGRESS : r; /* goes on in the background, as POSIX has it */
}

static int linux_socket_error(int fd) {
    int error = 0;
    socklen_t len = sizeof error;
    int r = (int)SYS(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
    return r < 0 ? r : -error;
}

static int linux_socket_option(int fd, int level, int option, int value) {
    return (int)SYS(setsockopt(fd, level, option, &value, sizeof value));
}

static int linux_socket_name(int fd, int peer, struct sockaddr *addr, socklen_t *len) {
    return (int)(peer ? SYS(getpeername(fd, addr, len)) : SYS(getsockname(fd, addr, len)));
}

static int linux_socket_cred(int fd, int *pid, int *uid) {
    struct ucred cred;
    socklen_t len = sizeof cred;
    int r = (int)SYS(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len));
    if (r < 0) return r;
    *pid = (int)cred.pid;
    *uid = (int)cred.uid;
    return 0;
}

static int64_t linux_send(int fd, const struct msghdr *msg) {
    return SYS_RETRY(sendmsg(fd, msg, MSG_NOSIGNAL | MSG_DONTWAIT));
}

static int64_t linux_recv(int fd, struct msghdr *msg) {
    return SYS_RETRY(recvmsg(fd, msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT));
}

static int linux_poll(struct pollfd *fds, unsigned n, uint64_t timeout_ns) {
    struct timespec t = time_span(timeout_ns);
    return (int)SYS(ppoll(fds, n, &t, NULL));
}

static int linux_set_cloexec(int fd) {
    int flags = (int)SYS(fcntl(fd, F_GETFD));
    return flags < 0 ? flags : (int)SYS(fcntl(fd, F_SETFD, flags | FD_CLOEXEC));
}

static int linux_set_nonblock(int fd) {
    int flags = (int)SYS(fcntl(fd, F_GETFL));
    return flags < 0 ? flags : (int)SYS(fcntl(fd, F_SETFL, flags | O_NONBLOCK));
}

static int64_t linux_readlink(const char *path, char *buf, size_t cap) {
    return SYS(readlink(path, buf, cap));
}

const struct os_ops os_linux = {
    .memfd = linux_memfd,
    .shm_file = linux_shm_file,
    .file_resize = linux_file_resize,
    .file_commit = linux_file_commit,
    .file_punch = linux_file_punch,
    .file_seal = linux_file_seal,
    .file_seals = linux_file_seals,
    .file_size = linux_file_size,
    .file_space = linux_file_space,
    .reserve = linux_reserve,
    .release = linux_unmap,
    .map = linux_map,
    .map_copy = linux_map_copy,
    .unmap = linux_unmap,
    .advise = linux_advise,
    .protect = linux_protect,
    .bind_memory = linux_bind_memory,
    .now = linux_now,
    .sleep = linux_sleep,
    .yield = linux_yield,
    .futex_wait = linux_futex_wait,
    .futex_wake = linux_futex_wake,
    .fence_threads = linux_fence_threads,
    .fence_ranks_join = linux_fence_ranks_join,
    .fence_ranks = linux_fence_ranks,
    .pid = linux_pid,
    .tid = linux_tid,
    .uid = linux_uid,
    .process_alive = linux_process_alive,
    .thread_alive = linux_thread_alive,
    .start_time = linux_start_time,
    .processors = linux_processors,
    .thread_start = linux_thread_start,
    .thread_join = linux_thread_join,
    .thread_detach = linux_thread_detach,
    .robust_list = linux_robust_list,
    .limit = linux_limit,
    .open_read = linux_open_read,
    .open_nofollow = linux_open_nofollow,
    .file_facts = linux_file_facts,
    .open_create = linux_open_create,
    .open_append = linux_open_append,
    .rename = linux_rename,
    .read = linux_read,
    .write = linux_write,
    .close = linux_close,
    .random = linux_random,
    .socket = linux_socket,
    .bind = linux_bind,
    .listen = linux_listen,
    .accept = linux_accept,
    .connect = linux_connect,
    .socket_error = linux_socket_error,
    .socket_option = linux_socket_option,
    .socket_name = linux_socket_name,
    .socket_cred = linux_socket_cred,
    .send = linux_send,
    .recv = linux_recv,
    .poll = linux_poll,
    .set_cloexec = linux_set_cloexec,
    .set_nonblock = linux_set_nonblock,
    .readlink = linux_readlink,
};
