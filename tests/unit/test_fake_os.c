/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/support/fake_os: the stand-ins themselves, since other tests trust them.
 */
#include "tests/support/fake_os.h"
#include "tests/support/check.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

static void passes_on_when_nothing_is_planned(void) {
    const struct os_ops *before = os;
    fake_os_on();
    CHECK(os != before);
    int fd = os->memfd("t", 0);
    CHECK(fd >= 0);
    CHECK_EQ(os->file_resize(fd, 8192), 0);
    CHECK_EQ(fake_os_calls(), 2);
    CHECK_EQ(fake_os_open_fds(), 1);
    os->close(fd);
    CHECK(os->now() > 0 && os->pid() == getpid() && os->processors(NULL, 0) > 0);
    os->yield();
    CHECK_EQ(fake_os_calls(), 2); /* releasing, time and identity do not count */
    CHECK_EQ(fake_os_open_fds(), 0);
    CHECK(fake_os_last() == NULL);
    fake_os_off();
    CHECK(os == before);
}

static void the_nth_call_fails_once(void) {
    fake_os_on();
    for (unsigned n = 1; n <= 3; n++) {
        fake_os_fail(n, ENOSPC);
        int fd = os->memfd("t", 0);
        CHECK_EQ(fd < 0, n == 1);
        if (fd >= 0) {
            CHECK_EQ(os->file_resize(fd, 4096), n == 2 ? -ENOSPC : 0);
            CHECK_EQ(os->sleep(1), 0);
            CHECK_EQ(os->file_commit(fd, 0, 4096), n == 3 ? -ENOSPC : 0);
            CHECK_EQ(os->close(fd), 0);
        }
        CHECK_STR(fake_os_last(), n == 1 ? "memfd" : n == 2 ? "file_resize" : "file_commit");
    }
    /* a plan that was not reached can be taken back */
    fake_os_fail(1, EIO);
    fake_os_fail(0, 0);
    CHECK_EQ(os->random(&(int){0}, 4), 0);
    CHECK_EQ(fake_os_open_fds(), 0);
    fake_os_off();
}

static void one_operation_fails(void) {
    uint32_t word = 1;
    fake_os_on();
    fake_os_fail_op("close", 2, EIO);
    int a = os->memfd("a", 0), b = os->memfd("b", 0);
    CHECK_EQ(os->close(a), 0);
    CHECK_EQ(os->close(b), -EIO);
    CHECK_EQ(fake_os_open_fds(), 1);
    CHECK_EQ(os->close(b), 0);
    fake_os_fail_op("futex_wait", 1, EINTR); /* spared otherwise, but it can be asked for by name */
    CHECK_EQ(os->futex_wait(&word, 2, 1), -EINTR);
    CHECK_EQ(os->futex_wait(&word, 2, 1), -EAGAIN);
    CHECK_STR(fake_os_last(), "futex_wait");
    CHECK_EQ(fake_os_open_fds(), 0);
    fake_os_off();
}

static void *nothing(void *arg) {
    return arg;
}

static void leaks_are_counted(void) {
    void *p = NULL, *q = NULL;
    struct os_thread *t = NULL;
    fake_os_on();
    CHECK_EQ(os->reserve("r", 10000, 4096, &p), 0);
    CHECK_EQ(os->map(p, 4096, PROT_READ, -1, 0, &q), 0); /* inside a reservation: counted already */
    CHECK_EQ(fake_os_mapped_bytes(), 12288);
    CHECK_EQ(os->map(NULL, 5000, PROT_READ, -1, 0, &q), 0);
    CHECK_EQ(fake_os_mapped_bytes(), 12288 + 8192);
    os->unmap(q, 5000);
    os->release(p, 10000);
    CHECK_EQ(fake_os_mapped_bytes(), 0);
    fake_os_fail_op("reserve", 1, ENOMEM);
    CHECK_EQ(os->reserve("r", 10000, 4096, &p), -ENOMEM);
    CHECK_EQ(fake_os_mapped_bytes(), 0);
    CHECK_EQ(os->thread_start(nothing, NULL, &t), 0);
    CHECK_EQ(fake_os_threads(), 1);
    os->thread_join(t);
    CHECK_EQ(fake_os_threads(), 0);
    CHECK_EQ(fake_os_mapped_bytes(), 0);
    fake_os_fail_op("thread_start", 1, EAGAIN);
    CHECK_EQ(os->thread_start(nothing, NULL, &t), -EAGAIN);
    CHECK_EQ(fake_os_threads(), 0);
    fake_os_off();
}

/* A descriptor that arrives in a message counts as opened. */
static void received_descriptors_are_counted(void) {
    int pair[2], fd = os->memfd("t", 0), arrived = -1;
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    char byte = 'x', control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec vec = {&byte, 1};
    struct msghdr msg = {.msg_iov = &vec, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    fake_os_on();
    CHECK_EQ(os->send(pair[0], &msg), 1);
    CHECK_EQ(fake_os_open_fds(), 0);
    msg.msg_controllen = sizeof control;
    CHECK_EQ(os->recv(pair[1], &msg), 1);
    CHECK_EQ(fake_os_open_fds(), 1);
    memcpy(&arrived, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof arrived);
    CHECK_EQ(os->close(arrived), 0);
    CHECK_EQ(fake_os_open_fds(), 0);
    fake_os_off();
    os->close(fd);
    close(pair[0]);
    close(pair[1]);
}

static int file_of(size_t len) {
    int fd = os->memfd("segment", 0);
    CHECK_EQ(os->file_resize(fd, len), 0);
    return fd;
}

static void reservations_are_common(void) {
    const struct os_ops *before = os;
    void *a = NULL, *b = NULL, *c = NULL, *d = NULL, *m = NULL;
    common_os_on();
    CHECK_EQ(os->reserve("pools", 1 << 20, 4096, &a), 0);
    CHECK_EQ(os->reserve("pools", 1 << 20, 4096, &b), 0);
    CHECK_EQ(os->reserve("pools", 2 << 20, 4096, &c), 0);
    CHECK_EQ(os->reserve("others", 1 << 20, 4096, &d), 0);
    CHECK(a == b && a != c && a != d && c != d);

    /* two ranks map the same file at the same place: once, with the stronger protection */
    int fd = file_of(65536), reader = dup(fd);
    char *p = (char *)a + 65536;
    CHECK_EQ(os->map(p, 65536, PROT_READ, reader, 0, &m), 0);
    CHECK_EQ(os->map(p, 65536, PROT_READ | PROT_WRITE, fd, 0, &m), 0);
    CHECK(m == p);
    p[5] = 42;
    CHECK_EQ(os->map(p, 65536, PROT_READ, reader, 0, &m), 0);
    p[6] = 43; /* still writable */
    CHECK_EQ(p[5], 42);
    /* one rank gives it up, the others keep it */
    CHECK_EQ(os->map(p, 65536, PROT_NONE, -1, 0, &m), 0);
    CHECK_EQ(os->map(p, 65536, PROT_NONE, -1, 0, &m), 0);
    CHECK_EQ(p[6], 43);
    CHECK_EQ(os->map(p, 65536, PROT_NONE, -1, 0, &m), 0);
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    CHECK_EQ(os->write(ends[1], p, 1), -EFAULT); /* gone with the last one */
    close(ends[0]);
    close(ends[1]);

    CHECK_EQ(os->map(p, 65536, PROT_READ | PROT_WRITE, fd, 0, &m), 0);
    CHECK_EQ(os->release(a, 1 << 20), 0);
    CHECK_EQ(p[6], 43);
    CHECK_EQ(os->release(b, 1 << 20), 0);
    CHECK_EQ(msync((char *)a, 4096, MS_ASYNC), -1); /* really unmapped with the last reference */
    CHECK_EQ(os->release(c, 2 << 20), 0);
    CHECK_EQ(os->release(d, 1 << 20), 0);
    os->close(fd);
    os->close(reader);
    common_os_off();
    CHECK(os == before);
}

static void files_anywhere_are_common(void) {
    void *a = NULL, *b = NULL, *c = NULL, *x = NULL, *y = NULL;
    common_os_on();
    int fd = file_of(8192), other = file_of(8192);
    CHECK_EQ(os->map(NULL, 8192, PROT_READ | PROT_WRITE, fd, 0, &a), 0);
    CHECK_EQ(os->map(NULL, 8192, PROT_READ, fd, 0, &b), 0);
    CHECK_EQ(os->map(NULL, 8192, PROT_READ, other, 0, &c), 0);
    CHECK(a == b && a != c);
    ((char *)a)[0] = 9;
    CHECK_EQ(os->unmap(a, 8192), 0);
    CHECK_EQ(((char *)b)[0], 9);
    CHECK_EQ(os->unmap(b, 8192), 0);
    CHECK_EQ(msync(b, 8192, MS_ASYNC), -1);
    CHECK_EQ(os->unmap(c, 8192), 0);
    /* anonymous memory is nobody else's */
    CHECK_EQ(os->map(NULL, 4096, PROT_READ | PROT_WRITE, -1, 0, &x), 0);
    CHECK_EQ(os->map(NULL, 4096, PROT_READ | PROT_WRITE, -1, 0, &y), 0);
    CHECK(x != y);
    os->unmap(x, 4096);
    os->unmap(y, 4096);
    os->close(fd);
    os->close(other);
    common_os_off();
}

static int shared_fd;

static void *one_rank(void *arg) {
    (void)arg;
    long bad = 0;
    for (int i = 0; i < 200; i++) {
        void *base = NULL, *m = NULL;
        bad += os->reserve("of all", 1 << 20, 4096, &base) != 0;
        bad += os->map(base, 65536, PROT_READ | PROT_WRITE, shared_fd, 0, &m) != 0;
        __atomic_fetch_add((int *)m, 1, __ATOMIC_RELAXED);
        bad += os->release(base, 1 << 20) != 0;
    }
    return (void *)bad;
}

static void threads_and_faults_on_top(void) {
    common_os_on();
    fake_os_on();
    shared_fd = file_of(65536);
    pthread_t id[4];
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&id[i], NULL, one_rank, NULL), 0);
    for (int i = 0; i < 4; i++) {
        void *bad;
        pthread_join(id[i], &bad);
        CHECK_EQ((long)bad, 0);
    }
    int *m = NULL;
    CHECK_EQ(os->map(NULL, 4096, PROT_READ, shared_fd, 0, (void **)&m), 0);
    CHECK_EQ(*m, 800);
    os->unmap(m, 4096);
    fake_os_fail_op("reserve", 1, ENOMEM);
    CHECK_EQ(os->reserve("of all", 4096, 4096, (void **)&m), -ENOMEM);
    os->close(shared_fd);
    CHECK_EQ(fake_os_mapped_bytes(), 0);
    CHECK_EQ(fake_os_open_fds(), 0);
    fake_os_off();
    common_os_off();
}

int main(void) {
    return check_main("fake_os",
                      (struct check_test[]){{"passes_on_when_nothing_is_planned", passes_on_when_nothing_is_planned},
                                            {"the_nth_call_fails_once", the_nth_call_fails_once},
                                            {"one_operation_fails", one_operation_fails},
                                            {"leaks_are_counted", leaks_are_counted},
                                            {"received_descriptors_are_counted", received_descriptors_are_counted},
                                            {"reservations_are_common", reservations_are_common},
                                            {"files_anywhere_are_common", files_anywhere_are_common},
                                            {"threads_and_faults_on_top", threads_and_faults_on_top},
                                            {0}});
}
