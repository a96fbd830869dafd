/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Windows and segments without other processes: one rank, ranks as threads, system calls that fail, peers whose
 * segments are wrong.
 */
#include "bootstrap/fdpass.h"
#include "bootstrap/transport.h"
#include "pool/addrmap.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/fake_os.h"
#include "tests/support/local_world.h"
#include "tests/support/ranks.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t fresh_nonce(void) {
    static _Atomic uint64_t count;
    return ((uint64_t)getpid() << 32) + 1 + count++;
}

static uint64_t in_seconds(unsigned s) {
    return os->now() + s * NS_PER_S;
}

/* --------------------------------------------------------------------------------------------------- one rank */

static void one_rank(void) {
    fake_os_on();
    struct local_rank l = {0};
    struct roster roster;
    CHECK_EQ(local_roster(&roster, 1, fresh_nonce()), SYP_OK);
    if (!CHECK(local_up(&l, &roster, 0, in_seconds(10)) == SYP_OK)) fprintf(stderr, "%s\n", syp_error_text());
    struct peers *p = &l.peers;
    CHECK_EQ(p->data_stride, ADDRMAP_GRAIN);
    CHECK_EQ((uintptr_t)p->data_window % ADDRMAP_GRAIN, 0);
    CHECK_EQ(p->control_stride % (64 << 10), 0);
    CHECK_EQ(p->n_local, 1);
    CHECK(p->n_processors >= 1 && !p->crowded);
    CHECK(p->peer[0].control == p->self && p->peer[0].reach == REACH_LOADSTORE);
    CHECK(p->peer[0].data == l.region.mem.base);
    CHECK(p->self->magic == CONTROL_MAGIC && p->self->nonce == l.roster.nonce && p->self->pid == getpid());
    CHECK((const char *)peers_control_body(p, 0) == (char *)peers_own_body(p));
    memset(peers_own_body(p), 7, LOCAL_BODY);
    memset(p->peer[0].exchange, 7, LOCAL_EXCHANGE);
    CHECK(peers_window_digest(p) != 0);
    local_down(&l);
    local_down(&l);
    local_nothing_left();
    fake_os_off();
}

static void undo_takes_any_state(void) {
    struct peers p = {0};
    struct keeper k = {0};
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), before = count_open_fds();
    peers_unmap(&p);
    peers_close_segments(&p);
    peers_release(&p);
    keeper_stop(&k);
    peers_unmap(NULL);
    peers_close_segments(NULL);
    peers_release(NULL);
    keeper_stop(NULL);
    CHECK_EQ(count_open_fds(), before);
    struct roster roster;
    struct peers_layout layout = local_layout();
    CHECK_EQ(local_roster(&roster, 3, fresh_nonce()), SYP_OK);
    CHECK_EQ(peers_reserve(&p, &roster, 1, &layout), SYP_OK);
    CHECK_EQ(peers_map(&p, in_seconds(1)), SYP_ESTATE);
    peers_unmap(&p);
    peers_close_segments(&p);
    peers_release(&p);
    peers_release(&p);
    CHECK_EQ(count_open_fds(), before);
    roster_free(&roster);
    close(fd);
}

static void windows_fit_the_largest(void) {
    struct roster roster;
    struct peers p;
    struct peers_layout layout = local_layout();
    CHECK_EQ(local_roster(&roster, 3, fresh_nonce()), SYP_OK);
    roster.rank[2].data_len = ADDRMAP_GRAIN + 4096;
    roster.rank[1].host_index = 1;
    CHECK_EQ(peers_reserve(&p, &roster, 2, &layout), SYP_OK);
    CHECK_EQ(p.data_stride, 2 * ADDRMAP_GRAIN);
    CHECK_EQ((char *)peers_pool_place(&p) - p.data_window, (long)(4 * ADDRMAP_GRAIN));
    CHECK_EQ(p.n_local, 2);
    peers_release(&p);
    roster_free(&roster);
}

static void bad_rosters(void) {
    struct roster roster;
    struct peers p;
    struct peers_layout layout = local_layout();
    CHECK_EQ(local_roster(&roster, 3, fresh_nonce()), SYP_OK);
    CHECK_EQ(peers_reserve(&p, &roster, 3, &layout), SYP_EINVAL);
    CHECK_EQ(peers_reserve(&p, &roster, -1, &layout), SYP_EINVAL);
    roster.rank[1].control_len += 8;
    CHECK_EQ(peers_reserve(&p, &roster, 0, &layout), SYP_EJOIN);
    CHECK_HAS(syp_error_text(), "rank 1");
    CHECK_EQ(err_record()->peer, 1);
    roster.rank[1].control_len -= 8;
    roster.rank[2].exchange_len = 0;
    CHECK_EQ(peers_reserve(&p, &roster, 0, &layout), SYP_EJOIN);
    roster.rank[2].exchange_len = layout.exchange_len;
    roster.rank[2].data_len = UINT64_MAX - 5;
    CHECK_EQ(peers_reserve(&p, &roster, 0, &layout), SYP_EJOIN);
    roster.rank[2].data_len = 1ull << 62; /* the window overflows */
    CHECK_EQ(peers_reserve(&p, &roster, 0, &layout), SYP_ENOMEM);
    roster.rank[2].data_len = 1ull << 50; /* more than the machine has */
    CHECK_EQ(peers_reserve(&p, &roster, 0, &layout), SYP_ENOMEM);
    CHECK_HAS(syp_error_text(), "1024 TiB each");
    CHECK_HAS(syp_error_text(), "ulimit -v");
    CHECK_HAS(syp_error_text(), "SYMPOOL_LOCAL_MEM_SIZE");
    roster_free(&roster);
}

/* The figure of the limit is in the message.  (Sanitizers reserve terabytes: they would die first.) */
static void address_space_limit(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    check_skip("a limited address space kills sanitizers");
#else
    pid_t pid = fork();
    if (pid == 0) {
        struct roster roster;
        struct peers p;
        struct peers_layout layout = local_layout();
        struct rlimit limit = {1ull << 30, 1ull << 30};
        int ok = local_roster(&roster, 64, 1) == SYP_OK && setrlimit(RLIMIT_AS, &limit) == 0 &&
                 peers_reserve(&p, &roster, 0, &layout) == SYP_ENOMEM && strstr(syp_error_text(), "address space (ulimit -v) 1 GiB");
        if (!ok) fprintf(stderr, "%s\n", syp_error_text());
        _exit(!ok);
    }
    int status = -1;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
#endif
}

static void pool_must_fit_the_roster(void) {
    struct local_rank l = {0};
    struct roster roster;
    CHECK_EQ(local_roster(&roster, 1, fresh_nonce()), SYP_OK);
    roster.rank[0].data_len += 1 << 20;
    CHECK_EQ(local_open(&l, &roster, 0), SYP_EINVAL);
    CHECK_HAS(syp_error_text(), "the roster says");
    CHECK(l.peers.peer == NULL && l.roster.rank == NULL);
}

/* A kernel without F_SEAL_FUTURE_WRITE: what peers get cannot write. */
static void read_only_descriptor(void) {
    struct local_rank l = {0};
    struct roster roster;
    fake_os_on();
    CHECK_EQ(local_roster(&roster, 1, fresh_nonce()), SYP_OK);
    fake_os_fail_op("file_seal", 2, EINVAL); /* 1: the pool's */
    CHECK_EQ(local_open(&l, &roster, 0), SYP_OK);
    CHECK_EQ(fcntl(l.peers.control.fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, l.peers.control.fd, 0) == MAP_FAILED && errno == EACCES);
    CHECK(ftruncate(l.peers.control.fd, 0) != 0);
    memset(peers_own_body(&l.peers), 1, LOCAL_BODY);
    local_down(&l);
    CHECK_EQ(fake_os_open_fds(), 0);
    fake_os_off();
}

/* The program closed our descriptors and opened files of its own under their numbers: those stay open. */
static void descriptors_closed_by_the_program(void) {
    struct local_rank l = {0};
    struct roster roster;
    CHECK_EQ(local_roster(&roster, 1, fresh_nonce()), SYP_OK);
    CHECK_EQ(local_open(&l, &roster, 0), SYP_OK);
    int control = l.peers.control.fd, exchange = l.peers.exchange.fd;
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    CHECK(dup3(null, control, O_CLOEXEC) == control && close(exchange) == 0);
    local_down(&l);
    CHECK(fcntl(control, F_GETFD) >= 0);
    close(control);
    close(null);
}

/* ------------------------------------------------------------------------------------------------- transport */

static void transport_ranges(void) {
    static char data[64], exchange[16];
    struct peer peer[3] = {
        {.data = data, .exchange = exchange, .data_len = 64, .exchange_len = 16, .reach = REACH_LOADSTORE}, {0}, {0}};
    struct peers p = {.n = 3, .me = 2, .peer = peer};
    const struct transport_ops *t = &transport_shm;
    char buf[64] = "0123456789abcdef";
    CHECK_EQ(t->reach(&p, 0), REACH_LOADSTORE);
    CHECK_EQ(t->reach(&p, 1), REACH_NONE);
    CHECK_EQ(t->reach(&p, -1), REACH_NONE);
    CHECK_EQ(t->reach(&p, 3), REACH_NONE);
    CHECK(t->address(&p, 0, SEGMENT_DATA, 0, 64) == data);
    CHECK(t->address(&p, 0, SEGMENT_DATA, 64, 0) == data + 64);
    CHECK(t->address(&p, 0, SEGMENT_EXCHANGE, 15, 1) == exchange + 15);
    static const struct {
        enum transport_segment seg;
        uint64_t off, len;
    } out[] = {{SEGMENT_DATA, 0, 65},         {SEGMENT_DATA, 64, 1},         {SEGMENT_DATA, 65, 0},
               {SEGMENT_DATA, UINT64_MAX, 1}, {SEGMENT_DATA, 1, UINT64_MAX}, {SEGMENT_DATA, UINT64_MAX, UINT64_MAX},
               {SEGMENT_EXCHANGE, 16, 1},     {SEGMENT_EXCHANGE, 0, 17},     {SEGMENT_DATA, UINT64_MAX - 7, 16}};
    for (size_t i = 0; i < sizeof out / sizeof out[0]; i++) {
        CHECK(t->address(&p, 0, out[i].seg, out[i].off, out[i].len) == NULL);
        CHECK_EQ(t->put(&p, 0, out[i].seg, out[i].off, buf, out[i].len), SYP_EINVAL);
        CHECK_EQ(t->get(&p, 0, out[i].seg, out[i].off, buf, out[i].len), SYP_EINVAL);
    }
    CHECK_EQ(t->put(&p, 1, SEGMENT_DATA, 0, buf, 1), SYP_EREACH);
    CHECK_EQ(t->get(&p, 3, SEGMENT_DATA, 0, buf, 1), SYP_EREACH);
    CHECK_EQ(t->put(&p, 0, SEGMENT_EXCHANGE, 3, buf, 13), SYP_OK);
    CHECK(memcmp(exchange,
                 "\0\0\0"
                 "0123456789abc",
                 16) == 0);
    CHECK_EQ(t->get(&p, 0, SEGMENT_EXCHANGE, 8, buf, 4), SYP_OK);
    CHECK(memcmp(buf, "5678", 4) == 0);
    CHECK_EQ(t->put(&p, 0, SEGMENT_DATA, 64, NULL, 0), SYP_OK);
}

/* ----------------------------------------------------------------------------------------------------- faults */

/* One failed call at a time, in whatever order the calls come: an error with a text, nothing left. */
static void every_call_fails(void) {
    static const int errors[] = {ENOMEM, EMFILE, EPERM};
    for (size_t e = 0; e < sizeof errors / sizeof errors[0]; e++) {
        unsigned k = 0, refused = 0;
        for (const char *failed = "";; k++) {
            struct local_rank l = {0};
            struct roster roster;
            fake_os_on();
            CHECK_EQ(local_roster(&roster, 1, fresh_nonce()), SYP_OK);
            fake_os_fail(k + 1, errors[e]);
            int rc = local_up(&l, &roster, 0, in_seconds(10));
            if (rc != SYP_OK) {
                refused++;
                CHECK(fake_os_last() != NULL && syp_error_text()[0] != 0);
            }
            failed = fake_os_last();
            fake_os_fail(0, 0); /* undoing is another test */
            local_down(&l);
            local_nothing_left();
            fake_os_off();
            if (!failed) break;
        }
        CHECK(k > 12 && refused > 8);
    }
}

struct pair {
    uint64_t nonce, deadline;
    _Atomic int rc[2];
};

static int pair_rank(int rank, int n, void *arg) {
    struct pair *pair = arg;
    struct local_rank l = {0};
    struct roster roster;
    int rc = local_roster(&roster, n, pair->nonce);
    if (rc == SYP_OK) rc = local_up(&l, &roster, rank, pair->deadline);
    if (rc == SYP_OK) CHECK(((volatile const struct control_head *)l.peers.peer[!rank].control)->rank == !rank);
    pair->rc[rank] = rc;
    if (rc != SYP_OK) CHECK(syp_error_text()[0] != 0);
    if (rc == SYP_OK) fake_os_fail(0, 0); /* undoing is another test */
    local_down(&l);
    return 0;
}

struct undoing {
    uint64_t nonce;
    unsigned k; /* the call that fails */
    atom32 up, done; /* ranks that are up; 1 = rank 0 has undone */
};

/* Undoing goes on when a call refuses: what stays mapped goes with its window. */
static int undoing_rank(int rank, int n, void *arg) {
    struct undoing *m = arg;
    struct local_rank l = {0};
    struct roster roster;
    int rc = local_roster(&roster, n, m->nonce);
    if (rc == SYP_OK) rc = local_up(&l, &roster, rank, in_seconds(10));
    add_relaxed(&m->up, 1);
    if (rc != SYP_OK) return 1;
    /* one rank at a time: the fault must not hit the other one's work */
    while (rank == 0 ? load_acquire(&m->up) < 2 : load_acquire(&m->done) == 0)
        os->yield();
    keeper_stop(&l.keeper);
    if (rank == 0) fake_os_fail(m->k, ENOMEM);
    peers_unmap(&l.peers);
    peers_close_segments(&l.peers);
    if (rank == 0) fake_os_fail(0, 0);
    store_release(&m->done, 1);
    local_down(&l);
    return 0;
}

static void undoing_fails(void) {
    for (unsigned k = 1; k <= 8; k++) {
        struct undoing m = {.nonce = fresh_nonce(), .k = k};
        fake_os_on();
        CHECK_EQ(ranks_as_threads(2, undoing_rank, &m), 0);
        CHECK(fake_os_last() != NULL);
        local_nothing_left();
        fake_os_off();
    }
}

static void every_call_fails_between_two(void) {
    unsigned k = 0, refused = 0;
    for (int injected = 1; injected; k++) {
        struct pair pair = {.nonce = fresh_nonce()};
        common_os_on();
        fake_os_on();
        fake_os_fail(k + 1, k % 2 ? EMFILE : ENOMEM);
        pair.deadline = os->now() + 60 * NS_PER_MS; /* a rank that failed before it connected is waited for */
        CHECK_EQ(ranks_as_threads(2, pair_rank, &pair), 0);
        injected = fake_os_last() != NULL;
        refused += pair.rc[0] != SYP_OK || pair.rc[1] != SYP_OK;
        local_nothing_left();
        fake_os_off();
        common_os_off();
    }
    CHECK(k > 40 && refused > 20);
}

/* -------------------------------------------------------------------------------------------- wrong segments */

/* A member that is wrong in one way; the leader says which. */
struct wrong {
    const char *name;
    void (*spoil)(struct local_rank *l);
    int code;         /* 1 = any failure: the backend's */
    const char *said; /* by rank 0 */
    uint64_t nonce;
};

static void spoil_magic(struct local_rank *l) {
    l->peers.self->magic++;
}
static void spoil_layout(struct local_rank *l) {
    l->peers.self->layout++;
}
static void spoil_nonce(struct local_rank *l) {
    l->peers.self->nonce++;
}
static void spoil_rank(struct local_rank *l) {
    l->peers.self->rank = 7;
}
static void spoil_pid(struct local_rank *l) {
    l->peers.self->pid = 77777;
}
static void spoil_generation(struct local_rank *l) {
    l->peers.self->generation = 9;
}
static void spoil_body(struct local_rank *l) {
    l->peers.self->body_off = 64;
}

/* The right descriptors are put back by wrong_rank. */
static void replace(int *fd, int by) {
    *fd = by;
}
static void spoil_control_device(struct local_rank *l) {
    replace(&l->peers.control.fd, os->open_read("/dev/zero"));
}
/* A folder in place of each of the three. */
static void spoil_data_folder(struct local_rank *l) {
    replace(&l->region.mem.fd, os->open_read("/"));
}
static void spoil_control_folder(struct local_rank *l) {
    replace(&l->peers.control.fd, os->open_read("/"));
}
static void spoil_exchange_folder(struct local_rank *l) {
    replace(&l->peers.exchange.fd, os->open_read("/"));
}
static void spoil_exchange_device(struct local_rank *l) {
    replace(&l->peers.exchange.fd, os->open_read("/dev/zero"));
}
static void spoil_data_file(struct local_rank *l) {
    replace(&l->region.mem.fd, os->open_read("/proc/self/exe"));
}
static void spoil_control_seals(struct local_rank *l) {
    replace(&l->peers.control.fd, os->memfd("wrong", 0));
    os->file_resize(l->peers.control.fd, l->peers.control.len);
}
static void spoil_control_writable(struct local_rank *l) {
    spoil_control_seals(l);
    os->file_seal(l->peers.control.fd, F_SEAL_SHRINK | F_SEAL_GROW);
}
static void spoil_control_size(struct local_rank *l) {
    replace(&l->peers.control.fd, os->memfd("wrong", 0));
    os->file_resize(l->peers.control.fd, 64);
    os->file_seal(l->peers.control.fd, F_SEAL_SHRINK | F_SEAL_GROW | 0x10);
}
static void spoil_exchange_seals(struct local_rank *l) {
    replace(&l->peers.exchange.fd, os->memfd("wrong", 0));
    os->file_resize(l->peers.exchange.fd, l->peers.exchange.len);
}
static void spoil_exchange_size(struct local_rank *l) {
    replace(&l->peers.exchange.fd, os->memfd("wrong", 0));
    os->file_seal(l->peers.exchange.fd, F_SEAL_SHRINK | F_SEAL_GROW);
}
static void spoil_data_seals(struct local_rank *l) {
    replace(&l->region.mem.fd, os->memfd("wrong", 0));
    os->file_resize(l->region.mem.fd, l->region.len);
}
static void spoil_data_size(struct local_rank *l) {
    replace(&l->region.mem.fd, os->memfd("wrong", 0));
    os->file_resize(l->region.mem.fd, l->region.len + 4096);
    os->file_seal(l->region.mem.fd, F_SEAL_SHRINK | F_SEAL_GROW);
}

/* A file of /dev/shm, which cannot be sealed, from a rank that did not say it has only such. */
static int unsealable(uint64_t len) {
    int fd = os->shm_file();
    CHECK(fd >= 0 && os->file_resize(fd, len) == 0);
    return fd;
}
static void spoil_control_unsealable(struct local_rank *l) {
    replace(&l->peers.control.fd, unsealable(l->peers.control.len));
}
static void spoil_exchange_unsealable(struct local_rank *l) {
    replace(&l->peers.exchange.fd, unsealable(l->peers.exchange.len));
}
static void spoil_data_unsealable(struct local_rank *l) {
    replace(&l->region.mem.fd, unsealable(l->region.len));
}

static const struct wrong wrongs[] = {
    {"magic", spoil_magic, SYP_EJOIN, "control magic", 0},
    {"layout", spoil_layout, SYP_EJOIN, "control layout", 0},
    {"nonce", spoil_nonce, SYP_EJOIN, "job nonce", 0},
    {"rank", spoil_rank, SYP_EJOIN, "rank is 7, expected 1", 0},
    {"pid", spoil_pid, SYP_EJOIN, "process id is 77777", 0},
    {"generation", spoil_generation, SYP_EJOIN, "generation is 9, expected 1", 0},
    {"body", spoil_body, SYP_EJOIN, "body offset is 64", 0},
    {"control device", spoil_control_device, SYP_EJOIN, "no memory file", 0},
    {"control seals", spoil_control_seals, SYP_EJOIN, "control segment's seals", 0},
    {"control writable", spoil_control_writable, SYP_EJOIN, "seal against writing", 0},
    {"control size", spoil_control_size, SYP_EJOIN, "control segment's size is 64", 0},
    {"exchange seals", spoil_exchange_seals, SYP_EJOIN, "exchange segment's seals", 0},
    {"exchange size", spoil_exchange_size, SYP_EJOIN, "exchange segment's size is 0", 0},
    {"data seals", spoil_data_seals, 1, "rank 1", 0},
    {"data size", spoil_data_size, SYP_EJOIN, "rank 1", 0},
    {"data folder", spoil_data_folder, SYP_EJOIN, "rank 1", 0},
    {"data file", spoil_data_file, SYP_EJOIN, "rank 1", 0},
    {"control folder", spoil_control_folder, SYP_EJOIN, "no memory file", 0},
    {"exchange folder", spoil_exchange_folder, SYP_EJOIN, "no memory file", 0},
    {"exchange device", spoil_exchange_device, SYP_EJOIN, "no memory file", 0},
    {"control unsealable", spoil_control_unsealable, SYP_EJOIN, "control segment's seals", 0},
    {"exchange unsealable", spoil_exchange_unsealable, SYP_EJOIN, "exchange segment's seals", 0},
    {"data unsealable", spoil_data_unsealable, SYP_EJOIN, "pool's seals", 0},
};

static int wrong_rank(int rank, int n, void *arg) {
    const struct wrong *w = arg;
    struct local_rank l = {0};
    struct roster roster;
    if (local_roster(&roster, n, w->nonce) != SYP_OK || local_open(&l, &roster, rank) != SYP_OK) return 1;
    int *fd[FDS_PER_RANK] = {&l.region.mem.fd, &l.peers.control.fd, &l.peers.exchange.fd}, saved[FDS_PER_RANK];
    for (int i = 0; i < FDS_PER_RANK; i++)
        saved[i] = *fd[i];
    if (rank == 1) w->spoil(&l);
    int rc = peers_map(&l.peers, in_seconds(10));
    for (int i = 0; i < FDS_PER_RANK; i++) {
        if (*fd[i] != saved[i]) os->close(*fd[i]);
        *fd[i] = saved[i];
    }
    int ok = rank == 1 || ((w->code == 1 ? rc != SYP_OK : rc == w->code) && strstr(syp_error_text(), w->said) &&
                           err_record()->peer == 1);
    if (!ok) fprintf(stderr, "%s: %d: %s\n", w->name, rc, syp_error_text());
    local_down(&l);
    return !ok;
}

static void wrong_segments(void) {
    for (size_t i = 0; i < sizeof wrongs / sizeof wrongs[0]; i++) {
        struct wrong w = wrongs[i];
        w.nonce = fresh_nonce();
        fake_os_on();
        CHECK_EQ(ranks_as_threads(2, wrong_rank, &w), 0);
        local_nothing_left();
        fake_os_off();
    }
}

int main(void) {
    return check_main("peers",
                      (struct check_test[]){{"one rank", one_rank},
                                            {"undo takes any state", undo_takes_any_state},
                                            {"windows fit the largest", windows_fit_the_largest},
                                            {"bad rosters", bad_rosters},
                                            {"address space limit", address_space_limit},
                                            {"pool must fit the roster", pool_must_fit_the_roster},
                                            {"read-only descriptor", read_only_descriptor},
                                            {"descriptors closed by the program", descriptors_closed_by_the_program},
                                            {"transport ranges", transport_ranges},
                                            {"every call fails", every_call_fails},
                                            {"every call fails between two", every_call_fails_between_two},
                                            {"undoing fails", undoing_fails},
                                            {"wrong segments", wrong_segments},
                                            {0}});
}
