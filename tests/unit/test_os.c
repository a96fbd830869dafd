/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool/base/os: the Linux table keeps its contract: -errno, errno untouched, close-on-exec, interruptions.
 */
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "tests/support/check.h"
#include "tests/support/fake_os.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int is_cloexec(int fd) {
    return (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
}
static int is_nonblocking(int fd) {
    return (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0;
}

static void memory_files(void) {
    uint64_t len = 0;
    errno = 55;
    int fd = os->memfd("sympool.test", 0);
    if (!CHECK(fd >= 0)) return;
    CHECK(is_cloexec(fd));
    CHECK_EQ(os->file_resize(fd, 4 << 20), 0);
    CHECK_EQ(os->file_size(fd, &len), 0);
    CHECK_EQ(len, 4 << 20);
    CHECK_EQ(os->file_commit(fd, 0, 1 << 20), 0);
    char *p = NULL;
    CHECK_EQ(os->map(NULL, 4 << 20, PROT_READ | PROT_WRITE, fd, 0, (void **)&p), 0);
    memset(p, 7, 1 << 20);
    CHECK_EQ(os->file_punch(fd, 0, 1 << 20), 0);
    CHECK_EQ(p[0], 0);
    CHECK_EQ(os->unmap(p, 4 << 20), 0);
    CHECK((os->file_seals(fd) & F_SEAL_SEAL) == 0);
    CHECK_EQ(os->file_seal(fd, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    CHECK((os->file_seals(fd) & (F_SEAL_SHRINK | F_SEAL_GROW)) == (F_SEAL_SHRINK | F_SEAL_GROW));
    CHECK_EQ(os->file_resize(fd, 8 << 20), -EPERM);
    CHECK_EQ(os->close(fd), 0);
    CHECK_EQ(os->close(fd), -EBADF);
    CHECK_EQ(os->file_size(fd, &len), -EBADF);
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    CHECK_EQ(os->file_size(ends[0], &len), -EINVAL);
    close(ends[0]);
    close(ends[1]);
    fd = os->memfd("sympool.huge", 21); /* granted or refused, but never something else */
    CHECK(fd >= 0 || fd == -ENOSYS || fd == -ENODEV || fd == -EINVAL || fd == -ENOENT);
    if (fd >= 0) os->close(fd);
    CHECK_EQ(errno, 55);
}

static void reservations(void) {
    static const size_t aligns[] = {4096, 65536, 2 << 20, 1 << 30};
    for (size_t i = 0; i < sizeof aligns / sizeof aligns[0]; i++) {
        char *p = NULL, *q = NULL;
        CHECK_EQ(os->reserve("test", 12345, aligns[i], (void **)&p), 0);
        CHECK_EQ((uintptr_t)p % aligns[i], 0);
        CHECK_EQ(os->map(p, os_page_size(), PROT_READ | PROT_WRITE, -1, 0, (void **)&q), 0);
        CHECK(p == q);
        memset(p, 1, os_page_size());
        CHECK_EQ(os->release(p, 12345), 0);
        CHECK_EQ(msync(p, os_page_size(), MS_ASYNC), -1); /* nothing is mapped there any more */
        CHECK_EQ(errno, ENOMEM);
    }
    /* as much as a large job needs, whatever the memory of this machine; a limit on address space is obeyed */
    void *p = NULL;
    int r = os->reserve("test", 1ull << 42, 2 << 20, &p);
    CHECK(r == 0 || r == -ENOMEM);
    if (r == 0) CHECK_EQ(os->release(p, 1ull << 42), 0);
    CHECK_EQ(os->reserve("test", SIZE_MAX - 5, 2 << 20, &p), -EINVAL);
    CHECK_EQ(os->reserve("test", SIZE_MAX / 2, 4096, &p), -ENOMEM);
    CHECK_EQ(os->reserve("test", 0, 4096, &p), -EINVAL);
    CHECK_EQ(os->map(NULL, 4096, PROT_READ, 9999, 0, &p), -EBADF);
    CHECK(is_pow2(os_page_size()));
}

static void nothing_left_of_reservations(void) {
    /* over-allocation is trimmed: mapped lines do not pile up */
    char before[64], after[64];
    void *p[64];
    for (int round = 0; round < 2; round++) {
        char *count = round ? after : before;
        FILE *f = fopen("/proc/self/maps", "r");
        int lines = 0, c;
        while (f && (c = getc(f)) != EOF)
            lines += c == '\n';
        if (f) fclose(f);
        snprintf(count, sizeof before, "%d", lines);
        if (round) break;
        for (int i = 0; i < 64; i++)
            CHECK_EQ(os->reserve("test", 1 << 20, 2 << 20, &p[i]), 0);
        for (int i = 0; i < 64; i++)
            CHECK_EQ(os->release(p[i], 1 << 20), 0);
    }
    CHECK(atoi(after) <= atoi(before) + 4);
}

static void time_goes_on(void) {
    uint64_t t = os->now();
    CHECK_EQ(os->sleep(2 * NS_PER_MS), 0);
    CHECK(os->now() - t >= 2 * NS_PER_MS);
    CHECK_EQ(deadline_left(10, 5), 0);
    CHECK_EQ(deadline_left(5, 10), 5);
    os->yield();
}

static uint32_t word = 3;
static void *waker(void *arg) {
    (void)arg;
    os->sleep(5 * NS_PER_MS);
    __atomic_store_n(&word, 4, __ATOMIC_SEQ_CST);
    os->futex_wake(&word, 1);
    return NULL;
}

static void futexes(void) {
    errno = 66;
    CHECK_EQ(os->futex_wait(&word, 2, NS_PER_S), -EAGAIN);
    uint64_t t = os->now();
    CHECK_EQ(os->futex_wait(&word, 3, 3 * NS_PER_MS), -ETIMEDOUT);
    CHECK(os->now() - t >= 3 * NS_PER_MS);
    CHECK_EQ(os->futex_wake(&word, 1), 0);
    CHECK_EQ(errno, 66);
    struct os_thread *thread = NULL;
    CHECK_EQ(os->thread_start(waker, NULL, &thread), 0);
    int r = os->futex_wait(&word, 3, 100 * NS_PER_S);
    CHECK(r == 0 || r == -EAGAIN);
    CHECK_EQ(os->thread_join(thread), 0);
    CHECK_EQ(__atomic_load_n(&word, __ATOMIC_SEQ_CST), 4);
}

static atomic_int interruptions;
static void on_signal(int number) {
    (void)number;
    interruptions++;
}

/* Waits come back with -EINTR; the commit of a large file ends, whatever a profiler's timer does. */
static void interrupted(void) {
    struct sigaction action = {.sa_handler = on_signal}, old; /* no SA_RESTART */
    sigaction(SIGVTALRM, &action, &old);
    fflush(stdout);
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        for (;;) {
            usleep(500);
            kill(parent, SIGVTALRM);
        }
    }
    int fd = os->memfd("sympool.test", 0);
    CHECK_EQ(os->file_resize(fd, 64 << 20), 0);
    CHECK_EQ(os->file_commit(fd, 0, 64 << 20), 0);
    CHECK_EQ(os->futex_wait(&word, 4, 100 * NS_PER_S), -EINTR);
    struct pollfd none = {.fd = -1};
    CHECK_EQ(os->poll(&none, 1, 100 * NS_PER_S), -EINTR);
    CHECK_EQ(os->sleep(100 * NS_PER_S), -EINTR);
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    /* a read is repeated: the byte comes after several interruptions */
    int before = interruptions;
    pid_t writer = fork();
    if (writer == 0) {
        usleep(20000);
        _exit(write(ends[1], "x", 1) != 1);
    }
    char c = 0;
    CHECK_EQ(os->read(ends[0], &c, 1), 1);
    CHECK(interruptions > before);
    kill(child, SIGKILL);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
    }
    while (waitpid(writer, NULL, 0) < 0 && errno == EINTR) {
    }
    sigaction(SIGVTALRM, &old, NULL);
    close(ends[0]);
    close(ends[1]);
    os->close(fd);
}

static void processes(void) {
    uint64_t mine = 0, theirs = 0;
    CHECK_EQ(os->pid(), getpid());
    CHECK_EQ(os->tid(), getpid());
    CHECK_EQ(os->uid(), (int)getuid());
    CHECK_EQ(os->process_alive(getpid()), 1);
    CHECK_EQ(os->process_alive(1), 1); /* of somebody else, perhaps */
    CHECK_EQ(os->process_alive(0), -EINVAL);
    CHECK_EQ(os->process_alive(-1), -EINVAL);
    CHECK_EQ(os->start_time(getpid(), &mine), 0);
    CHECK(mine > 0);
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        char c;
        close(ends[1]);
        /* a name made to deceive */
        int fd = open("/proc/self/comm", O_WRONLY);
        if (write(fd, "x) Z 1 (", 8) < 0) _exit(2);
        _exit(read(ends[0], &c, 1) != 0);
    }
    close(ends[0]);
    os->sleep(20 * NS_PER_MS);
    CHECK_EQ(os->process_alive(child), 1);
    CHECK_EQ(os->start_time(child, &theirs), 0);
    CHECK(theirs >= mine && theirs < mine + 100000000);
    close(ends[1]);
    for (int i = 0; i < 500 && os->process_alive(child) != 0; i++)
        os->sleep(10 * NS_PER_MS);
    CHECK_EQ(os->process_alive(child), 0); /* a zombie by now */
    CHECK_EQ(waitpid(child, NULL, 0), child);
    CHECK_EQ(os->process_alive(child), 0);
    CHECK(os->start_time(child, &theirs) < 0);
    CHECK_EQ(os->start_time(0, &theirs), -EINVAL);
    cpu_set_t set;
    CHECK_EQ(sched_getaffinity(0, sizeof set, &set), 0);
    uint64_t mask[CPU_SETSIZE / 64];
    CHECK_EQ(os->processors(NULL, 0), CPU_COUNT(&set));
    CHECK_EQ(os->processors(mask, CPU_SETSIZE / 64), CPU_COUNT(&set));
    CHECK(memcmp(mask, &set, sizeof mask) == 0);
}

static void *wait_for_end_of_file(void *arg) {
    char c;
    _exit(read(*(int *)arg, &c, 1) != 0);
}

/* A process whose first thread ended looks like a zombie, and is none. */
static void process_without_its_first_thread(void) {
    int ends[2], status = -1;
    CHECK_EQ(pipe(ends), 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        pthread_t id;
        close(ends[1]);
        if (pthread_create(&id, NULL, wait_for_end_of_file, &ends[0]) != 0) _exit(2);
        syscall(SYS_exit, 0);
    }
    close(ends[0]);
    os->sleep(50 * NS_PER_MS);
    CHECK_EQ(os->process_alive(child), 1);
    close(ends[1]);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    CHECK_EQ(os->process_alive(child), 0);
}

static atomic_int tid_seen;
static sigset_t mask_seen;
static void *look_around(void *arg) {
    pthread_sigmask(SIG_SETMASK, NULL, &mask_seen);
    tid_seen = os->tid();
    *(int *)arg = os->thread_alive(os->tid());
    return NULL;
}

static void threads(void) {
    struct os_thread *t = NULL;
    sigset_t before, after;
    int alive = 0;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    CHECK_EQ(os->thread_start(look_around, &alive, &t), 0);
    CHECK_EQ(os->thread_join(t), 0);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    CHECK_EQ(memcmp(&before, &after, 8), 0);
    for (int s = 1; s < 32; s++)
        if (s != SIGKILL && s != SIGSTOP) CHECK_EQ(sigismember(&mask_seen, s), 1);
    CHECK_EQ(alive, 1);
    CHECK_EQ(os->thread_alive(os->tid()), 1);
    for (int i = 0; i < 500 && os->thread_alive(tid_seen); i++)
        os->sleep(10 * NS_PER_MS);
    CHECK_EQ(os->thread_alive(tid_seen), 0);
    CHECK_EQ(os->thread_alive(1), getpid() == 1); /* lives, but is not ours */
}

static long address_space_pages(void) {
    char buf[256];
    long size = 0;
    CHECK(os_read_file("/proc/self/statm", buf, sizeof buf) > 0);
    CHECK_EQ(sscanf(buf, "%ld", &size), 1);
    return size;
}

static void thousand_threads_leave_nothing(void) {
    uint64_t n = check_count(1000, 10000);
    long before = 0;
    fake_os_on();
    for (uint64_t i = 0; i < n + 50; i++) {
        struct os_thread *t;
        int alive;
        if (i == 50) before = address_space_pages();
        int r = os->thread_start(look_around, &alive, &t);
        CHECK_EQ(r, 0);
        if (r) break;
        os->thread_join(t);
    }
    CHECK_EQ(fake_os_mapped_bytes(), 0);
    CHECK_EQ(fake_os_threads(), 0);
    fake_os_off();
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CHECK(address_space_pages() - before < 512);
#else
    (void)before;
#endif
}

static void files(void) {
    char dir[] = "/tmp/sympool-test-XXXXXX", a[64], b[64], buf[64];
    CHECK(mkdtemp(dir) != NULL);
    snprintf(a, sizeof a, "%s/a", dir);
    snprintf(b, sizeof b, "%s/b", dir);
    CHECK_EQ(os->open_read(a), -ENOENT);
    CHECK_EQ(os_read_file(a, buf, sizeof buf), -ENOENT);
    int fd = os->open_create(a, 0600);
    CHECK(fd >= 0 && is_cloexec(fd));
    CHECK_EQ(os->write(fd, "hello\n", 6), 6);
    os->close(fd);
    fd = os->open_append(a, 0600);
    CHECK(fd >= 0 && is_cloexec(fd));
    CHECK_EQ(os->write(fd, "world\n", 6), 6);
    os->close(fd);
    CHECK_EQ(os_read_file(a, buf, sizeof buf), 12);
    CHECK_STR(buf, "hello\nworld\n");
    CHECK_EQ(os_read_file(a, buf, 4), 3);
    CHECK_STR(buf, "hel");
    fd = os->open_create(a, 0600);
    os->close(fd);
    CHECK_EQ(os_read_file(a, buf, sizeof buf), 0);
    CHECK_STR(buf, "");
    CHECK_EQ(os->rename(a, b), 0);
    CHECK_EQ(os->rename(a, b), -ENOENT);
    CHECK_EQ(symlink(b, a), 0);
    CHECK_EQ(os->open_create(a, 0600), -ELOOP);
    CHECK_EQ(os->open_append(a, 0600), -ELOOP);
    CHECK_EQ(os_read_file(dir, buf, sizeof buf), -EISDIR);
    unlink(a);
    unlink(b);
    CHECK_EQ(rmdir(dir), 0);
    unsigned char r[64] = {0};
    unsigned set = 0;
    CHECK_EQ(os->random(r, sizeof r), 0);
    for (size_t i = 0; i < sizeof r; i++)
        set += (unsigned)__builtin_popcount(r[i]);
    CHECK(set > 128 && set < 384);
}

/* A unix socket named in the abstract space: everything the rendezvous uses. */
static void sockets(void) {
    struct sockaddr_un addr = {.sun_family = AF_UNIX}, got;
    socklen_t len = sizeof addr, got_len = sizeof got;
    snprintf(addr.sun_path + 1, sizeof addr.sun_path - 1, "sympool-test-%d", (int)getpid());
    int listener = os->socket(AF_UNIX, SOCK_STREAM), pid = 0, uid = -1;
    CHECK(is_cloexec(listener) && is_nonblocking(listener));
    CHECK_EQ(os->bind(listener, (struct sockaddr *)&addr, len), 0);
    CHECK_EQ(os->listen(listener, 4), 0);
    CHECK_EQ(os->accept(listener, NULL, NULL), -EAGAIN);
    int client = os->socket(AF_UNIX, SOCK_STREAM);
    CHECK_EQ(os->connect(client, (struct sockaddr *)&addr, len), 0);
    int server = os->accept(listener, NULL, NULL);
    CHECK(is_cloexec(server) && is_nonblocking(server));
    CHECK_EQ(os->socket_error(client), 0);
    CHECK_EQ(os->socket_option(client, SOL_SOCKET, SO_SNDBUF, 65536), 0);
    CHECK_EQ(os->socket_option(client, SOL_SOCKET, 9999, 1), -ENOPROTOOPT);
    CHECK_EQ(os->socket_cred(server, &pid, &uid), 0);
    CHECK_EQ(pid, getpid());
    CHECK_EQ(uid, (int)getuid());
    CHECK_EQ(os->socket_name(listener, 0, (struct sockaddr *)&got, &got_len), 0);
    CHECK_EQ(memcmp(got.sun_path, addr.sun_path, 20), 0);
    CHECK_EQ(os->socket_name(listener, 1, (struct sockaddr *)&got, &got_len), -ENOTCONN);

    /* bytes and a descriptor */
    char byte = 'x', in = 0, control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec out_vec = {&byte, 1}, in_vec = {&in, 1};
    struct msghdr out = {
        .msg_iov = &out_vec, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&out);
    int fd = os->memfd("passed", 0), arrived = -1;
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    struct msghdr msg = {.msg_iov = &in_vec, .msg_iovlen = 1};
    CHECK_EQ(os->recv(server, &msg), -EAGAIN);
    CHECK_EQ(os->send(client, &out), 1);
    struct pollfd p = {.fd = server, .events = POLLIN};
    CHECK_EQ(os->poll(&p, 1, NS_PER_S), 1);
    memset(control, 0, sizeof control);
    msg.msg_control = control;
    msg.msg_controllen = sizeof control;
    CHECK_EQ(os->recv(server, &msg), 1);
    CHECK_EQ(in, 'x');
    c = CMSG_FIRSTHDR(&msg);
    if (CHECK(c && c->cmsg_type == SCM_RIGHTS)) memcpy(&arrived, CMSG_DATA(c), sizeof arrived);
    CHECK(arrived >= 0 && is_cloexec(arrived));
    CHECK_EQ(os->poll(&p, 1, NS_PER_MS), 0);

    /* the other end is gone: an error, not SIGPIPE */
    os->close(server);
    out.msg_control = NULL;
    out.msg_controllen = 0;
    CHECK_EQ(os->send(client, &out), -EPIPE);
    CHECK_EQ(os->write(client, "x", 1), -EPIPE);
    os->close(listener);
    server = os->socket(AF_UNIX, SOCK_STREAM);
    CHECK_EQ(os->connect(server, (struct sockaddr *)&addr, len), -ECONNREFUSED);
    os->close(server);
    os->close(client);
    os->close(fd);
    os->close(arrived);
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    CHECK_EQ(os->set_cloexec(ends[0]), 0);
    CHECK_EQ(os->set_nonblock(ends[0]), 0);
    CHECK(is_cloexec(ends[0]) && is_nonblocking(ends[0]) && !is_cloexec(ends[1]));
    close(ends[0]);
    close(ends[1]);
    CHECK_EQ(os->set_cloexec(ends[0]), -EBADF);
    CHECK_EQ(os->set_nonblock(ends[0]), -EBADF);
}

static const char *point_seen;
static void on_point(const char *name) {
    point_seen = name;
}

static void test_points(void) {
    TEST_POINT("before");
    CHECK(point_seen == NULL);
    test_point_hook = on_point;
    TEST_POINT("here");
    CHECK_STR(point_seen, "here");
    test_point_hook = NULL;
}

int main(void) {
    return check_main("os",
                      (struct check_test[]){{"memory_files", memory_files},
                                            {"reservations", reservations},
                                            {"nothing_left_of_reservations", nothing_left_of_reservations},
                                            {"time_goes_on", time_goes_on},
                                            {"futexes", futexes},
                                            {"interrupted", interrupted},
                                            {"processes", processes},
                                            {"process_without_its_first_thread", process_without_its_first_thread},
                                            {"threads", threads},
                                            {"thousand_threads_leave_nothing", thousand_threads_leave_nothing},
                                            {"files", files},
                                            {"sockets", sockets},
                                            {"test_points", test_points},
                                            {0}});
}
