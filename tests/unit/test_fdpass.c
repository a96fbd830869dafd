/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors between ranks that are threads: many of them, too few descriptors, deadlines, and members that break the
 * protocol.
 */
#include "bootstrap/fdpass.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/local_world.h"
#include "tests/support/ranks.h"

#include <fcntl.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static uint64_t fresh_nonce(void) {
    static _Atomic uint64_t count;
    return ((uint64_t)getpid() << 32) + 1 + count++;
}

static uint64_t in_seconds(unsigned s) {
    return os->now() + s * NS_PER_S;
}

#define MANY 72 /* three batches of descriptors */
struct many {
    struct roster roster;
    uint64_t deadline;
};

/* Rank r's three files have sizes that say whose and which they are. */
struct taken {
    int me, n;
    uint8_t seen[MANY];
};

static int take_many(void *arg, int rank, const int fd[FDS_PER_RANK]) {
    struct taken *t = arg;
    CHECK(rank != t->me && !t->seen[rank]);
    t->seen[rank] = 1;
    t->n++;
    for (int i = 0; i < FDS_PER_RANK; i++) {
        uint64_t len = 0;
        CHECK(os->file_size(fd[i], &len) == 0 && len == (uint64_t)(1 + rank * FDS_PER_RANK + i));
        CHECK(fcntl(fd[i], F_GETFD) & FD_CLOEXEC);
    }
    return SYP_OK;
}

static int many_rank(int rank, int n, void *arg) {
    struct many *m = arg;
    struct taken t = {.me = rank};
    int fd[FDS_PER_RANK];
    for (int i = 0; i < FDS_PER_RANK; i++) {
        fd[i] = os->memfd("many", 0);
        if (fd[i] < 0 || os->file_resize(fd[i], (uint64_t)(1 + rank * FDS_PER_RANK + i)) < 0) return 1;
    }
    int rc = fdpass_exchange(&m->roster, rank, fd, take_many, &t, m->deadline);
    if (rc != SYP_OK) fprintf(stderr, "rank %d: %s\n", rank, syp_error_text());
    for (int i = 0; i < FDS_PER_RANK; i++)
        close(fd[i]);
    return rc != SYP_OK || t.n != n - 1;
}

static void many_ranks(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < 16384) {
        check_skip("fewer than 16,384 descriptors allowed");
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    struct many m = {.deadline = in_seconds(60)};
    int before = count_open_fds();
    CHECK_EQ(local_roster(&m.roster, MANY, fresh_nonce()), SYP_OK);
    CHECK_EQ(ranks_as_threads(MANY, many_rank, &m), 0);
    CHECK_EQ(count_open_fds(), before);
    roster_free(&m.roster);
}

/* Too few descriptors for what arrives: an error that names the limit, nothing left. */
static int starved_rank(struct ranks *r, int rank, void *arg) {
    struct many m = {.deadline = in_seconds(20)};
    (void)arg;
    _Atomic int *pid = r->shared;
    pid[rank] = (int)getpid();
    for (int i = 0; i < r->n; i++)
        while (!pid[i])
            usleep(100);
    if (local_roster(&m.roster, r->n, 1) != SYP_OK) return 1;
    for (int i = 0; i < r->n; i++)
        m.roster.rank[i].pid = pid[i];
    m.roster.nonce = (uint64_t)pid[0] << 32 | 1;
    struct taken t = {.me = rank};
    int fd[FDS_PER_RANK], before = 0;
    for (int i = 0; i < FDS_PER_RANK; i++) {
        fd[i] = os->memfd("many", 0);
        os->file_resize(fd[i], (uint64_t)(1 + rank * FDS_PER_RANK + i));
    }
    before = count_open_fds();
    if (rank == 1) {
        struct rlimit limit = {(rlim_t)fd[2] + 5, (rlim_t)fd[2] + 5};
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    int rc = fdpass_exchange(&m.roster, rank, fd, take_many, &t, m.deadline);
    CHECK_EQ(count_open_fds(), before);
    if (rank == 1) {
        CHECK_EQ(rc, SYP_ESYS);
        CHECK_HAS(syp_error_text(), "ulimit -n");
    }
    return 0;
}

static void descriptor_limit(void) {
    struct ranks r;
    CHECK_EQ(ranks_start(&r, 4, 4096, starved_rank, NULL), 0);
    CHECK_EQ(ranks_wait(&r, 60, -1), 0);
    ranks_free(&r);
}

/* ------------------------------------------------------------------------------------------- raw conversations */

struct talk {
    uint64_t nonce;
    int len, n_fds;
    uint64_t magic;
    int kind, rank;
    int code;
    const char *said;
};

static int nothing_to_take(void *arg, int rank, const int fd[FDS_PER_RANK]) {
    (void)arg, (void)rank, (void)fd;
    return SYP_OK;
}

static int connect_to_leader(uint64_t nonce) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int n = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "sympool-fd-%016llx-1-0", (unsigned long long)nonce);
    for (int i = 0; i < 10000; i++) {
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (connect(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) ==
            0)
            return fd;
        close(fd);
        usleep(1000);
    }
    return -1;
}

/* What an own member would send, with the fields of the case; magic OTHER_JOB: with another job's nonce. */
#define MAGIC 0x53534150444650ull
#define OTHER_JOB 0ull
static void say(int fd, const struct talk *t) {
    struct {
        uint64_t magic, nonce;
        int32_t kind, code, n, rank[16];
    } m = {t->magic == OTHER_JOB ? MAGIC : t->magic, t->nonce + (t->magic == OTHER_JOB), t->kind, 0, 1, {t->rank}};
    char control[CMSG_SPACE(sizeof(int) * 200)] = {0};
    char big[4096] = {0};
    memcpy(big, &m, sizeof m);
    struct iovec iov = {big, t->len == -1 ? sizeof m : t->len < 0 ? 0 : (size_t)t->len};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    if (t->n_fds) {
        h.msg_control = control;
        h.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)t->n_fds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)t->n_fds);
        for (int i = 0; i < t->n_fds; i++)
            memcpy(CMSG_DATA(c) + sizeof(int) * (size_t)i, &fd, sizeof fd);
    }
    CHECK(sendmsg(fd, &h, 0) >= 0);
}

static int talking_rank(int rank, int n, void *arg) {
    const struct talk *t = arg;
    if (rank == 1) {
        int fd = connect_to_leader(t->nonce);
        if (fd < 0) return 1;
        if (t->len) say(fd, t);
        if (t->code == SYP_EPEER) {
            close(fd);
            return 0;
        }
        char answer[512]; /* that the leader gives up is told before it closes */
        int heard = (int)recv(fd, answer, sizeof answer, 0);
        if (heard < 0) heard = (int)recv(fd, answer, sizeof answer, 0);
        close(fd);
        return heard <= 0;
    }
    struct roster roster;
    int mine[FDS_PER_RANK] = {0, 1, 2};
    if (local_roster(&roster, n, t->nonce) != SYP_OK) return 1;
    int rc = fdpass_exchange(&roster, 0, mine, nothing_to_take, NULL, in_seconds(10));
    int ok = rc == t->code && strstr(syp_error_text(), t->said);
    if (!ok) fprintf(stderr, "%s: %d: %s\n", t->said, rc, syp_error_text());
    roster_free(&roster);
    return !ok;
}

static void bad_talk(void) {
    const struct talk talks[] = {
        {0, -1, 3, MAGIC + 1, 1, 1, SYP_EJOIN, "another protocol"},
        {0, 10, 3, MAGIC, 1, 1, SYP_EJOIN, "another protocol"},
        {0, 3000, 3, MAGIC, 1, 1, SYP_EJOIN, "another protocol"},
        {0, -1, 2, MAGIC, 1, 1, SYP_EJOIN, "gave 2 descriptors"},
        {0, -1, 0, MAGIC, 1, 1, SYP_EJOIN, "gave 0 descriptors"},
        {0, -1, 97, MAGIC, 1, 1, SYP_ESYS, "ulimit -n"}, /* cut by the kernel */
        {0, -1, 3, MAGIC, 2, 1, SYP_EJOIN, "does not await"},
        {0, -1, 3, MAGIC, 1, 0, SYP_EJOIN, "as rank 0"},
        {0, -1, 3, MAGIC, 1, 5, SYP_EJOIN, "as rank 5"},
        {0, -1, 3, MAGIC, 1, -4, SYP_EJOIN, "as rank -4"},
        {0, -1, 3, OTHER_JOB, 1, 1, SYP_EJOIN, "another protocol or job"},
        {0, -2, 3, MAGIC, 1, 1, SYP_EJOIN, "another protocol"}, /* no bytes at all, but descriptors */
        {0, 0, 0, MAGIC, 1, 1, SYP_EPEER, "closed the connection"},
    };
    for (size_t i = 0; i < sizeof talks / sizeof talks[0]; i++) {
        struct talk t = talks[i];
        int before = count_open_fds();
        t.nonce = fresh_nonce();
        CHECK_EQ(ranks_as_threads(2, talking_rank, &t), 0);
        CHECK_EQ(count_open_fds(), before);
    }
}

static int late_rank(int rank, int n, void *arg) {
    struct many *m = arg;
    int mine[FDS_PER_RANK] = {0, 1, 2};
    (void)n;
    if (rank == 2) return 0; /* never comes */
    int rc = fdpass_exchange(&m->roster, rank, mine, nothing_to_take, NULL, m->deadline);
    int ok = rc == SYP_EJOIN && (rank != 0 || strstr(syp_error_text(), "nothing had come from rank 2;"));
    if (!ok) fprintf(stderr, "rank %d: %d: %s\n", rank, rc, syp_error_text());
    return !ok;
}

static void deadline_names_the_missing(void) {
    struct many m = {.deadline = os->now() + 200 * NS_PER_MS};
    int before = count_open_fds();
    CHECK_EQ(local_roster(&m.roster, 3, fresh_nonce()), SYP_OK);
    CHECK_EQ(ranks_as_threads(3, late_rank, &m), 0);
    CHECK_EQ(count_open_fds(), before);
    roster_free(&m.roster);
}

/* Credentials that are wrong in one thing: nothing is given to such a process, nothing taken from it. */
static int wrong_by_uid, wrong_by_pid;

static int wrong_cred(int fd, int *pid, int *uid) {
    int r = os_linux.socket_cred(fd, pid, uid);
    *pid += wrong_by_pid;
    *uid += wrong_by_uid;
    return r;
}

static int take_never(void *arg, int rank, const int fd[FDS_PER_RANK]) {
    (void)arg, (void)fd;
    CHECK(rank < 0);
    return SYP_OK;
}

static int distrusting_rank(int rank, int n, void *arg) {
    struct many *m = arg;
    int mine[FDS_PER_RANK] = {0, 1, 2};
    (void)n;
    /* not even listened to: both wait for somebody else until the deadline */
    return fdpass_exchange(&m->roster, rank, mine, take_never, NULL, m->deadline) != SYP_EJOIN ||
           !strstr(syp_error_text(), "at the deadline");
}

static void wrong_credentials(void) {
    struct os_ops table = os_linux;
    table.socket_cred = wrong_cred;
    for (int i = 0; i < 2; i++) {
        struct many m = {.deadline = os->now() + 100 * NS_PER_MS};
        int before = count_open_fds();
        wrong_by_uid = i == 0;
        wrong_by_pid = i == 1;
        CHECK_EQ(local_roster(&m.roster, 2, fresh_nonce()), SYP_OK);
        os_swap(&table);
        CHECK_EQ(ranks_as_threads(2, distrusting_rank, &m), 0);
        os_swap(&os_linux);
        CHECK_EQ(count_open_fds(), before);
        roster_free(&m.roster);
    }
}

/* Somebody has the leader's name already. */
static void taken_name(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct roster roster;
    int mine[FDS_PER_RANK] = {0, 1, 2}, before = count_open_fds();
    CHECK_EQ(local_roster(&roster, 2, fresh_nonce()), SYP_OK);
    int n = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "sympool-fd-%016llx-1-0", (unsigned long long)roster.nonce);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    CHECK_EQ(bind(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)), 0);
    CHECK_EQ(fdpass_exchange(&roster, 0, mine, nothing_to_take, NULL, in_seconds(5)), SYP_EJOIN);
    CHECK_HAS(syp_error_text(), "another process holds the name");
    close(fd);
    CHECK_EQ(count_open_fds(), before);
    roster_free(&roster);
}

int main(void) {
    return check_main("descriptor passing",
                      (struct check_test[]){{"many ranks", many_ranks},
                                            {"descriptor limit", descriptor_limit},
                                            {"bad talk", bad_talk},
                                            {"deadline names the missing", deadline_names_the_missing},
                                            {"wrong credentials", wrong_credentials},
                                            {"taken name", taken_name},
                                            {0}});
}
