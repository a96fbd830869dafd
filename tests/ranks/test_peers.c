/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks that are processes map each other's segments: what they can do with them, what they cannot, and what happens
 * when one of them is not what it should be.  The roster is made by hand from process ids on the shared page.
 */
#include "bootstrap/fdpass.h"
#include "bootstrap/transport.h"
#include "pool/base/log.h"
#include "pool/base/memory_file.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/fake_os.h"
#include "tests/support/local_world.h"
#include "tests/support/ranks.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MOST 8

struct board {
    _Atomic int pid[MOST], arrived[64], logged;
};

static uint64_t in_seconds(unsigned s) {
    return os->now() + s * NS_PER_S;
}

static void meet(struct ranks *r, int point) {
    struct board *b = r->shared;
    b->arrived[point]++;
    for (int i = 0; i < 60000 && b->arrived[point] < r->n; i++)
        usleep(1000);
}

/* Everybody's pid and the nonce that goes with this run; to be freed by local_down. */
static int meet_and_list(struct ranks *r, int rank, uint64_t run, struct roster *out) {
    struct board *b = r->shared;
    b->pid[rank] = (int)getpid();
    if (run == 0) meet(r, 0);
    if (local_roster(out, r->n, ((uint64_t)b->pid[0] << 32) + run + 1) != SYP_OK) return -1;
    for (int i = 0; i < r->n; i++) {
        out->rank[i].pid = b->pid[i];
        (void)os->start_time(b->pid[i], &out->rank[i].start_ticks);
    }
    return 0;
}

static void run_ranks(int n, int (*fn)(struct ranks *, int, void *), void *arg, int victim) {
    struct ranks r;
    if (!CHECK(ranks_start(&r, n, sizeof(struct board), fn, arg) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 60, victim), 0);
    ranks_free(&r);
}

/* ---------------------------------------------------------------------------------------------------- mapping */

static uint64_t word_of(int owner, int writer, int segment) {
    return 1000u * (unsigned)owner + 10u * (unsigned)writer + (unsigned)segment + 1;
}

static int map_everybody(struct ranks *r, int rank, void *arg) {
    struct local_rank l = {0};
    struct roster roster;
    (void)arg;
    if (meet_and_list(r, rank, 0, &roster) || local_up(&l, &roster, rank, in_seconds(30)) != SYP_OK) {
        fprintf(stderr, "rank %d: %s\n", rank, syp_error_text());
        return 1;
    }
    struct peers *p = &l.peers;
    memset(peers_own_body(p), 0x40 + rank, LOCAL_BODY);
    CHECK_EQ(region_commit(&l.region, 0, LOCAL_DATA), SYP_OK);
    meet(r, 1);
    for (int to = 0; to < r->n; to++)
        for (int seg = 0; seg < 2; seg++) {
            uint64_t word = word_of(to, rank, seg);
            CHECK_EQ(transport_shm.put(p, to, (enum transport_segment)seg, 64 * (uint64_t)rank, &word, sizeof word),
                     SYP_OK);
        }
    meet(r, 2);
    for (int owner = 0; owner < r->n; owner++) {
        CHECK(p->peer[owner].data == p->data_window + (uint64_t)owner * p->data_stride);
        CHECK_EQ(((const char *)peers_control_body(p, owner))[LOCAL_BODY - 1], 0x40 + owner);
        CHECK_EQ(p->peer[owner].control->pid, roster.rank[owner].pid);
        for (int writer = 0; writer < r->n; writer++)
            for (int seg = 0; seg < 2; seg++) {
                uint64_t word = 0;
                CHECK_EQ(
                    transport_shm.get(p, owner, (enum transport_segment)seg, 64 * (uint64_t)writer, &word, sizeof word),
                    SYP_OK);
                CHECK_EQ(word, word_of(owner, writer, seg));
            }
    }
    CHECK_EQ(p->n_local, r->n);
    CHECK_EQ(p->crowded, r->n > p->n_processors);
    meet(r, 3);
    local_down(&l);
    return 0;
}

static void four_ranks(void) {
    run_ranks(4, map_everybody, NULL, -1);
}
static void eight_ranks(void) {
    run_ranks(8, map_everybody, NULL, -1);
}

/* ---------------------------------------------------------------------------------------------- one writer only */

/* What may be done with a descriptor that arrived. */
static int try_descriptors(void *arg, int rank, const int fd[FDS_PER_RANK]) {
    (void)arg;
    for (int i = 0; i < FDS_PER_RANK; i++) {
        uint64_t len = 0;
        CHECK(fcntl(fd[i], F_GETFD) & FD_CLOEXEC);
        CHECK_EQ(os->file_size(fd[i], &len), 0);
        CHECK(ftruncate(fd[i], 0) != 0 && errno == EPERM);
        CHECK(ftruncate(fd[i], (off_t)len + 4096) != 0 && errno == EPERM);
        if (i != 0) CHECK(fcntl(fd[i], F_ADD_SEALS, F_SEAL_WRITE) != 0 && errno == EPERM);
    }
    int control = fd[1];
    char path[64], byte = 1;
    CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, control, 0) == MAP_FAILED &&
          (errno == EPERM || errno == EACCES));
    CHECK(fallocate(control, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) != 0 && errno == EPERM);
    CHECK(pwrite(control, &byte, 1, 0) != 1 && errno == EPERM);
    snprintf(path, sizeof path, "/proc/self/fd/%d", control);
    int again = open(path, O_RDWR | O_CLOEXEC); /* opening it anew changes nothing */
    CHECK(again < 0 || mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0) == MAP_FAILED);
    if (again >= 0) close(again);
    void *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, control, 0);
    CHECK(p != MAP_FAILED && ((const struct control_head *)p)->rank == rank);
    CHECK(mprotect(p, 4096, PROT_READ | PROT_WRITE) != 0 && errno == EACCES);
    munmap(p, 4096);
    return SYP_OK;
}

static int keep_out(struct ranks *r, int rank, void *arg) {
    struct local_rank l = {0};
    struct roster roster;
    (void)arg;
    if (meet_and_list(r, rank, 0, &roster) || local_up(&l, &roster, rank, in_seconds(30)) != SYP_OK) return 1;
    meet(r, 5); /* the same name again: not before the first exchange is over */
    int mine[FDS_PER_RANK] = {l.region.mem.fd, l.peers.control.fd, l.peers.exchange.fd};
    CHECK_EQ(fdpass_exchange(&l.roster, rank, mine, try_descriptors, NULL, in_seconds(30)), SYP_OK);
    const struct control_head *peer = l.peers.peer[!rank].control;
    CHECK(mprotect((void *)(uintptr_t)peer, sizeof *peer, PROT_READ | PROT_WRITE) != 0 && errno == EACCES);
    store_release(&l.peers.self->notice_epoch, 5u + (unsigned)rank); /* the owner goes on writing */
    meet(r, 1);
    CHECK_EQ(load_acquire((atom64 *)(uintptr_t)&peer->notice_epoch), 5 + !rank);
    /* sleeping and waking work through the read-only mapping */
    CHECK_EQ(os->futex_wait(&peer->notice_epoch, 77, NS_PER_MS), -EAGAIN);
    CHECK_EQ(os->futex_wake(&peer->notice_epoch, 1), 0);
    meet(r, 2);
    local_down(&l);
    return 0;
}

static void one_writer(void) {
    run_ranks(2, keep_out, NULL, -1);
}

static void ignore_line(void *arg, int level, const char *text) {
    (void)arg, (void)level, (void)text;
}

static int old_kernel(struct ranks *r, int rank, void *arg) {
    struct local_rank l = {0};
    struct roster roster;
    (void)arg;
    if (meet_and_list(r, rank, 0, &roster)) return 1;
    fake_os_on();
    fake_os_fail_op("file_seal", 2, EINVAL); /* the pool's, then the control segment's */
    int rc = local_up(&l, &roster, rank, in_seconds(30));
    if (rc != SYP_OK) fprintf(stderr, "rank %d: %s\n", rank, syp_error_text());
    if (rc == SYP_OK) {
        const struct control_head *peer = l.peers.peer[!rank].control;
        CHECK_EQ(peer->rank, !rank);
        CHECK(mprotect((void *)(uintptr_t)peer, sizeof *peer, PROT_READ | PROT_WRITE) != 0 && errno == EACCES);
        meet(r, 1);
        local_down(&l);
    }
    fake_os_off();
    return rc != SYP_OK;
}

static void without_future_write(void) {
    run_ranks(2, old_kernel, NULL, -1);
}

/* memfd refused on rank 1 only, or everywhere: files of /dev/shm, taken because the roster says so. */
static int with_files_of_dev_shm(struct ranks *r, int rank, void *arg) {
    struct local_rank l = {0};
    struct roster roster;
    int everywhere = arg != NULL;
    if (meet_and_list(r, rank, 0, &roster)) return 1;
    for (int i = 0; i < roster.n; i++)
        roster.rank[i].flags = everywhere || i == 1 ? ROSTER_UNSEALED : 0;
    syp_log_set(ignore_line, NULL);
    fake_os_on();
    if (everywhere || rank == 1) fake_os_fail_op("memfd", 1, EPERM);
    CHECK_EQ(memory_file_probe(), everywhere || rank == 1);
    int rc = local_up(&l, &roster, rank, in_seconds(30));
    if (rc != SYP_OK) fprintf(stderr, "rank %d: %s\n", rank, syp_error_text());
    if (rc == SYP_OK) {
        const struct control_head *peer = l.peers.peer[!rank].control;
        CHECK_EQ(peer->rank, !rank);
        CHECK(mprotect((void *)(uintptr_t)peer, sizeof *peer, PROT_READ | PROT_WRITE) != 0 && errno == EACCES);
        CHECK_EQ(region_commit(&l.region, 0, LOCAL_DATA), SYP_OK);
        CHECK_EQ(peers_commit_exchange(&l.peers, 0, LOCAL_EXCHANGE), SYP_OK);
        memset(l.region.mem.base, rank + 1, LOCAL_DATA);
        meet(r, 1);
        CHECK_EQ(l.peers.peer[!rank].data[LOCAL_DATA - 1], 2 - rank);
        meet(r, 2);
        local_down(&l);
        CHECK_EQ(fake_os_open_fds(), 0);
    }
    fake_os_off();
    return rc != SYP_OK;
}

static void without_memfd(void) {
    static int yes;
    run_ranks(2, with_files_of_dev_shm, NULL, -1);
    run_ranks(2, with_files_of_dev_shm, &yes, -1);
}

/* ------------------------------------------------------------------------------------------- those who do not belong
 */

static struct board *log_board;

static void count_line(void *arg, int level, const char *text) {
    (void)arg, (void)level;
    if (strstr(text, "refused a connection")) log_board->logged++;
}

/* The last process is in no roster, but knows the name and talks to the leader first. */
static int stranger(struct ranks *r, int rank, void *arg) {
    struct board *b = r->shared;
    struct local_rank l = {0};
    struct roster roster;
    int last = r->n - 1;
    (void)arg;
    log_board = b;
    if (meet_and_list(r, rank, 0, &roster)) return 1;
    if (rank == last) {
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        int n = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "sympool-fd-%016llx-1-0",
                         (unsigned long long)roster.nonce),
            fd = -1, ok = -1;
        if (getuid() == 0 && setuid(65534) != 0) return 1;
        for (int i = 0; i < 30000 && ok != 0; i++) {
            fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
            ok =
                connect(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n));
            if (ok != 0) usleep(1000);
            if (ok != 0) close(fd);
        }
        char byte;
        CHECK_EQ(ok, 0);
        CHECK(recv(fd, &byte, 1, 0) <= 0);
        meet(r, 1);
        return 0;
    }
    roster.n = last;
    if (rank == 0) syp_log_set(count_line, NULL);
    if (rank == 1) /* not before the stranger was there */
        for (int i = 0; i < 30000 && b->logged == 0; i++)
            usleep(1000);
    int rc = local_up(&l, &roster, rank, in_seconds(30));
    if (rc != SYP_OK) fprintf(stderr, "rank %d: %s\n", rank, syp_error_text());
    if (rank == 0) CHECK_EQ(b->logged, 1);
    meet(r, 1);
    if (rc == SYP_OK) local_down(&l);
    return rc != SYP_OK;
}

static void stranger_is_refused(void) {
    run_ranks(4, stranger, NULL, -1);
}

enum death { BEFORE_CONNECT, AFTER_GIVING };

static int take_nothing(void *arg, int rank, const int fd[FDS_PER_RANK]) {
    (void)arg, (void)rank, (void)fd;
    return SYP_OK;
}

/* A fake send that kills its process once the message is out. */
static int64_t send_and_die(int fd, const struct msghdr *msg) {
    (void)os_linux.send(fd, msg);
    kill(getpid(), SIGKILL);
    return 0;
}

static int one_dies(struct ranks *r, int rank, void *arg) {
    const int *how = arg; /* {victim, enum death} */
    struct roster roster;
    int mine[FDS_PER_RANK] = {0, 1, 2}, before = count_open_fds();
    if (meet_and_list(r, rank, 0, &roster)) return 1;
    if (rank == how[0]) {
        if (how[1] == BEFORE_CONNECT) kill(getpid(), SIGKILL);
        static struct os_ops dying;
        dying = os_linux;
        dying.send = send_and_die;
        os_swap(&dying);
    }
    uint64_t start = os->now();
    int rc = fdpass_exchange(&roster, rank, mine, take_nothing, NULL, in_seconds(30));
    uint64_t took = os->now() - start;
    CHECK_EQ(count_open_fds(), before);
    CHECK(took < 15 * NS_PER_S); /* not the deadline */
    if (rc != SYP_OK) {
        CHECK_EQ(rc, SYP_EPEER);
        CHECK_EQ(err_record()->peer, how[0]);
        CHECK_EQ(err_record()->peer_pid, roster.rank[how[0]].pid);
    }
    /* who has everything before the victim is missed may be content */
    if (how[1] == BEFORE_CONNECT) CHECK_EQ(rc, SYP_EPEER);
    roster_free(&roster);
    return 0;
}

static void deaths_during_the_exchange(void) {
    for (int victim = 0; victim < 3; victim++)
        for (int how = BEFORE_CONNECT; how <= AFTER_GIVING; how++) {
            int arg[2] = {victim, how};
            run_ranks(4, one_dies, arg, victim);
        }
}

/* ---------------------------------------------------------------------------------------------------- leftovers */

static int many_times(struct ranks *r, int rank, void *arg) {
    uint64_t cycles = *(uint64_t *)arg;
    int fds = 0, threads = 0, mappings = 0;
    for (uint64_t i = 0; i <= cycles; i++) {
        struct local_rank l = {0};
        struct roster roster;
        if (meet_and_list(r, rank, i, &roster) || local_up(&l, &roster, rank, in_seconds(30)) != SYP_OK) {
            fprintf(stderr, "rank %d, cycle %llu: %s\n", rank, (unsigned long long)i, syp_error_text());
            return 1;
        }
        *(volatile char *)l.peers.peer[!rank].exchange = 1;
        local_down(&l);
        if (i > 0) continue; /* the first makes what stays: a stack in reserve, a page of the arena */
        fds = count_open_fds();
        threads = count_threads();
        mappings = count_mappings();
    }
    CHECK_EQ(count_open_fds(), fds);
    CHECK_EQ(count_threads_until(threads), threads);
    CHECK(count_mappings() <= mappings + (int)(cycles / 2)); /* sanitizers add some, a leak one for each cycle */
    return 0;
}

static void open_and_close(void) {
    uint64_t cycles = check_count(200, 2000);
    int shm = count_shm_entries();
    run_ranks(2, many_times, &cycles, -1);
    CHECK_EQ(count_shm_entries(), shm);
}

int main(void) {
    return check_main("peers of other processes",
                      (struct check_test[]){{"four ranks", four_ranks},
                                            {"eight ranks", eight_ranks},
                                            {"one writer", one_writer},
                                            {"without F_SEAL_FUTURE_WRITE", without_future_write},
                                            {"without memfd", without_memfd},
                                            {"stranger is refused", stranger_is_refused},
                                            {"deaths during the exchange", deaths_during_the_exchange},
                                            {"open and close", open_and_close},
                                            {0}});
}
