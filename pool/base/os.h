/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole contract with the operating system, as one table.  Nothing else in the library makes a system call that can fail
 * or wait.  Calls return >= 0, or -errno; errno itself is left alone.  Calls retry EINTR where the call can simply
 * be repeated (open, close is never repeated); waits (poll, futex_wait) return -EINTR to their caller, which looks at its deadline.
 *
 * Tests swap the table (os_swap) to inject failures at the n-th call, to fake a topology, or to let ranks that
 * are threads of one process share one mapping per segment.
 */
#ifndef SYP_BASE_OS_H
#define SYP_BASE_OS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

struct pollfd;
struct os_thread; /* a thread started by us; opaque */

struct os_file {
    unsigned mode;   /* permission bits */
    int regular;     /* 1 = a regular file */
    int owner, self; /* user ids: of the file, and the effective one of this process */
    uint64_t len;
};

struct os_ops {
    /* memory files: all close-on-exec.  huge_shift: 0, 21 (2 MiB), 30 (1 GiB) = hugetlb.  Sealing allowed, not executable where known. */
    int (*memfd)(const char *name, int huge_shift);
    int (*shm_file)(void); /* in /dev/shm, O_EXCL under a random name, mode 0600, unlinked at once */
    int (*file_resize)(int fd, uint64_t len); /* -EFBIG beyond RLIMIT_FSIZE, without SIGXFSZ */
    int (*file_commit)(int fd, uint64_t off, uint64_t len); /* fallocate: memory or -ENOSPC now, never SIGBUS later */
    int (*file_punch)(int fd, uint64_t off, uint64_t len);  /* give the memory back, keep the size */
    int (*file_seal)(int fd, int seals);                    /* F_ADD_SEALS */
    int (*file_seals)(int fd);                              /* F_GET_SEALS, >= 0 */
    int (*file_size)(int fd, uint64_t *len);                /* -EINVAL when not a regular file */
    int (*file_space)(int fd, uint64_t *total, uint64_t *left); /* of its file system */

    /* address space.  reserve: len bytes of PROT_NONE aligned to align (power of two >= page); `what` names the use (tests
     * key on it).  map: fixed inside a reservation (addr != NULL) or anywhere (addr NULL).  fd -1: private anonymous. */
    int (*reserve)(const char *what, size_t len, size_t align, void **out);
    int (*release)(void *addr, size_t len); /* a reservation, with whatever is mapped inside */
    int (*map)(void *addr, size_t len, int prot, int fd, uint64_t off, void **out);
    int (*map_copy)(void *addr, size_t len, int fd); /* over what is mapped there: a view of the file, copied on write */
    int (*unmap)(void *addr, size_t len); /* something mapped with addr NULL */
    int (*advise)(void *addr, size_t len, int advice);
    int (*protect)(void *addr, size_t len, int prot); /* mprotect */
    int (*bind_memory)(void *addr, size_t len, int mode, const unsigned long *mask, unsigned long max_node); /* mbind */

    /* time and waiting */
    uint64_t (*now)(void); /* CLOCK_MONOTONIC, ns; cannot fail */
    int (*sleep)(uint64_t ns);
    void (*yield)(void);
    int (*futex_wait)(const void *word, uint32_t expected, uint64_t timeout_ns); /* shared; 0, -EAGAIN, -ETIMEDOUT, -EINTR */
    int (*futex_wake)(const void *word, int n);                                  /* shared */
    /* A full fence in every running thread of this process; the first call may take 10 ms (the kernel gets ready). */
    int (*fence_threads)(void);
    /* The same in every running thread of every process of this host that has called fence_ranks_join, this one among them. */
    int (*fence_ranks_join)(void);
    int (*fence_ranks)(void);

    /* processes and threads */
    int (*pid)(void);
    int (*tid)(void);
    int (*uid)(void);
    int (*process_alive)(int pid); /* 1, 0 (a zombie too), or -errno when it cannot be told */
    int (*thread_alive)(int tid);  /* of this process: 1 or 0 */
    int (*start_time)(int pid, uint64_t *ticks); /* field 22 of /proc/PID/stat */
    /* Number of processors this process may run on, >= 1; mask (NULL = not wanted): one bit each, beyond 64 * words folded back. */
    int (*processors)(uint64_t *mask, size_t words);
    int (*thread_start)(void *(*run)(void *), void *arg, struct os_thread **out); /* all signals blocked, small stack */
    int (*thread_join)(struct os_thread *t);
    int (*thread_detach)(struct os_thread *t); /* nobody will join it */
    int (*robust_list)(void *head, size_t len); /* set_robust_list of the calling thread */
    int (*limit)(int resource, uint64_t *out);  /* soft limit RLIMIT_*; UINT64_MAX = none */

    /* files and sockets: all close-on-exec, sockets non-blocking */
    int (*open_read)(const char *path);
    int (*open_nofollow)(const char *path); /* for reading; -ELOOP when its last part is a symbolic link; never waits */
    int (*file_facts)(int fd, struct os_file *out);
    int (*open_create)(const char *path, int mode); /* O_CREAT|O_TRUNC|O_WRONLY|O_NOFOLLOW */
    int (*open_append)(const char *path, int mode); /* O_CREAT|O_APPEND|O_WRONLY|O_NOFOLLOW */
    int (*rename)(const char *from, const char *to);
    int64_t (*read)(int fd, void *buf, size_t len);
    int64_t (*write)(int fd, const void *buf, size_t len); /* -EPIPE without SIGPIPE, -EFBIG without SIGXFSZ */
    int (*close)(int fd);
    int (*random)(void *buf, size_t len);
    int (*socket)(int family, int type);
    int (*bind)(int fd, const struct sockaddr *addr, socklen_t len);
    int (*listen)(int fd, int backlog);
    int (*accept)(int fd, struct sockaddr *addr, socklen_t *len);
    int (*connect)(int fd, const struct sockaddr *addr, socklen_t len); /* -EINPROGRESS: poll for POLLOUT, then socket_error */
    int (*socket_error)(int fd);                                        /* SO_ERROR as 0 or -errno */
    int (*socket_option)(int fd, int level, int option, int value);
    int (*socket_name)(int fd, int peer, struct sockaddr *addr, socklen_t *len); /* getsockname / getpeername */
    int (*socket_cred)(int fd, int *pid, int *uid);                              /* SO_PEERCRED */
    int64_t (*send)(int fd, const struct msghdr *msg);                           /* MSG_NOSIGNAL | MSG_DONTWAIT */
    int64_t (*recv)(int fd, struct msghdr *msg);                                 /* MSG_CMSG_CLOEXEC | MSG_DONTWAIT */
    int (*poll)(struct pollfd *fds, unsigned n, uint64_t timeout_ns);
    int (*set_cloexec)(int fd);
    int (*set_nonblock)(int fd);
    int64_t (*readlink)(const char *path, char *buf, size_t cap); /* bytes written, no NUL */
};

/* The table in force; never NULL. */
extern const struct os_ops *os;

/* The real one, and the swap for tests: returns the table that was in force. */
extern const struct os_ops os_linux;
const struct os_ops *os_swap(const struct os_ops *table);

/* Base page size, cached. */
size_t os_page_size(void);

/* Deadlines: absolute times of os->now().  NS_PER_* for readable sums. */
#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull
static inline uint64_t deadline_after(uint64_t now, int64_t ns) { return now + (uint64_t)ns; }
static inline uint64_t deadline_left(uint64_t now, uint64_t deadline) { return now >= deadline ? 0 : deadline - now; }

/* Read a small file whole: returns bytes read (NUL added, <= cap - 1) or -errno. */
int64_t os_read_file(const char *path, char *buf, size_t cap);

/* Rounding.  align: power of two. */
static inline uint64_t round_up(uint64_t n, uint64_t align) { return (n + align - 1) & ~(align - 1); }
static inline uint64_t round_down(uint64_t n, uint64_t align) { return n & ~(align - 1); }
static inline int is_pow2(uint64_t n) { return n != 0 && (n & (n - 1)) == 0; }

#endif
