/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the ranks of this host send each other: descriptors with a message, and behind them files and the heads of control segments.
 * Every descriptor that arrives is closed; what is mapped was checked.
 *
 *   input: side, number of others, then per message: how many descriptors, which alterations; what the files say; the head's alterations
 */
#include "bootstrap/control.h"
#include "bootstrap/fdpass.h"
#include "bootstrap/peers.h"
#include "pool/base/status.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define MOST 4
#define FIRST_FD 1000
#define FIRST_FILE 2000
#define MOST_FILES 512
#define MAGIC 0x53534150444650ull
#define BODY 4096u
#define EXCHANGE (64u << 10)
#define DATA_LEN (1u << 20)
#define NONCE 77u
#define UID 1000
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

/* fdpass.c keeps its struct to itself; this is what it looks like on the line. */
struct message {
    uint64_t magic, nonce;
    int32_t kind, code, n, rank[32]; /* as many as fit */
};

static struct input script;
static int me, world, conns, conn_open[MOST + 1], n_files, file_open[MOST_FILES], own_files;
static char *windows[3];
static struct peers peers;
static struct region region;

/* ------------------------------------------------------------------------------------------- files and memory */

static int is_peer_file(int fd) {
    return fd >= FIRST_FILE + own_files;
}

static int new_file(void) {
    MUST(n_files < MOST_FILES);
    file_open[n_files] = 1;
    return FIRST_FILE + n_files++;
}

static int make_file(const char *name, int huge) {
    (void)name, (void)huge;
    own_files++;
    return new_file();
}

static int resize(int fd, uint64_t len) {
    (void)fd, (void)len;
    return 0;
}
static int commit(int fd, uint64_t off, uint64_t len) {
    (void)fd, (void)off, (void)len;
    return 0;
}
static int seal(int fd, int seals) {
    (void)fd, (void)seals;
    return 0;
}

static int seals_of(int fd) {
    if (!is_peer_file(fd)) return SEALS;
    unsigned how = (unsigned)input_number(&script, 1);
    return how == 1 ? -EINVAL : how == 2 ? 0 : how == 3 ? F_SEAL_GROW : how == 4 ? SEALS : SEALS | F_SEAL_FUTURE_WRITE;
}

static uint64_t control_len(void) {
    return sizeof(struct control_head) + BODY;
}

static int size_of(int fd, uint64_t *len) {
    int what = (fd - FIRST_FILE) % FDS_PER_RANK;
    *len = what == 0 ? DATA_LEN : what == 1 ? control_len() : EXCHANGE;
    unsigned how = is_peer_file(fd) ? (unsigned)input_number(&script, 1) : 0;
    if (how == 1) return -EINVAL;
    if (how == 2) *len = input_number(&script, 8);
    return 0;
}

static int window(const char *what, size_t len, size_t align, void **out) {
    int i = strstr(what, "data") ? 0 : strstr(what, "control") ? 1 : 2;
    (void)align;
    if (!windows[i]) {
        windows[i] = mmap(NULL, MOST * (256ull << 20), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        MUST(windows[i] != MAP_FAILED);
    }
    MUST(len <= MOST * (256ull << 20));
    *out = windows[i];
    return 0;
}

static int window_back(void *at, size_t len) {
    (void)at, (void)len;
    return 0;
}

/* A peer's control segment: sound, but for the alterations. */
static void fill_control(struct control_head *c, int rank) {
    const struct control_head *own = peers.self;
    c->magic = CONTROL_MAGIC;
    c->layout = own->layout;
    c->nonce = NONCE;
    c->rank = rank;
    c->pid = 4711 + rank;
    c->generation = 1;
    c->body_off = sizeof *c;
    memset(c->processors, 0xff, sizeof c->processors);
    for (unsigned n = (unsigned)input_number(&script, 1) % 4; n; n--) {
        size_t at = input_number(&script, 1) % 64;
        ((uint8_t *)c)[at] ^= (uint8_t)input_number(&script, 1);
    }
}

static int (*map_heap)(void *addr, size_t len, int prot, int fd, uint64_t off, void **out);

static int map_file(void *addr, size_t len, int prot, int fd, uint64_t off, void **out) {
    if (!addr && fd < 0) return map_heap(addr, len, prot, fd, off, out);
    if (!addr) { /* the look whether a control segment can be written */
        if (input_number(&script, 1) % 2) return -EACCES;
        return map_heap(NULL, len, prot, -1, 0, out);
    }
    *out = addr;
    if (prot == PROT_NONE || fd < 0) return 0;
    MUST(file_open[fd - FIRST_FILE]);
    uint64_t stride = peers.control_stride;
    int rank = stride ? (int)((uint64_t)((char *)addr - windows[1]) / stride) : 0;
    if ((char *)addr >= windows[1] && (char *)addr < windows[1] + stride * (uint64_t)world && is_peer_file(fd)) {
        MUST(prot == PROT_READ && len == control_len());
        fill_control(addr, rank);
    }
    return 0;
}

static int advise(void *at, size_t len, int advice) {
    (void)at, (void)len, (void)advice;
    return 0;
}

static int import_file(struct backend_region *r, int fd, uint64_t len, void *at) {
    MUST(file_open[fd - FIRST_FILE] && len == DATA_LEN);
    if (input_number(&script, 1) == 1) return err_set(SYP_EJOIN, "import: refused");
    *r = (struct backend_region){.base = at, .len = len, .fd = -1};
    return SYP_OK;
}
static int unimport(struct backend_region *r) {
    MUST(r->base);
    return SYP_OK;
}
static const struct backend_ops backend = {.name = "fuzz", .import_fd = import_file, .unimport = unimport};

/* --------------------------------------------------------------------------------------------------- sockets */

static int new_socket(int family, int type) {
    MUST(family == AF_UNIX && type == SOCK_SEQPACKET);
    conn_open[MOST]++; /* the listener, or a member's connection */
    return FIRST_FD + MOST;
}

static int done(int fd, const struct sockaddr *a, socklen_t len) {
    (void)fd, (void)a, (void)len;
    return 0;
}
static int start_to_listen(int fd, int backlog) {
    (void)fd, (void)backlog;
    return 0;
}

static int take_in(int fd, struct sockaddr *a, socklen_t *len) {
    (void)fd, (void)a, (void)len;
    if (conns == world - 1) return -EAGAIN;
    conn_open[conns] = 1;
    return FIRST_FD + conns++;
}

static int credentials(int fd, int *pid, int *uid) {
    unsigned how = (unsigned)input_number(&script, 1);
    *pid = fd == FIRST_FD + MOST ? 4711 : 4712 + fd - FIRST_FD;
    *uid = UID;
    if (how == 1) *pid += 1;
    if (how == 2) *uid += 1;
    return how == 3 ? -EINVAL : 0;
}

static int64_t hear(int fd, struct msghdr *h) {
    struct message m = {.magic = MAGIC, .nonce = NONCE, .kind = me == 0 ? 1 : 2, .n = me == 0 ? 1 : world - 1};
    unsigned how = (unsigned)input_number(&script, 1);
    int n_fds = m.n * FDS_PER_RANK, next = 0;
    size_t whole = h->msg_iov[0].iov_len, len = whole;
    MUST(conn_open[fd - FIRST_FD] && whole <= sizeof m);
    if (how == 1) return -EAGAIN;
    if (how == 2) h->msg_controllen = 0;
    if (how == 2) return 0;
    if (how == 3) return -ECONNRESET;
    for (int r = 0; r < world; r++)
        if (r != me) m.rank[next++] = r;
    if (me == 0) m.rank[0] = fd - FIRST_FD + 1;
    if (how & 8) n_fds = (int)input_number(&script, 1) % 100;
    for (unsigned n = how >> 4; n; n--) {
        size_t at = input_number(&script, 1) % 64;
        ((uint8_t *)&m)[at] ^= (uint8_t)input_number(&script, 1);
    }
    if (how == 4) len = input_number(&script, 1) % whole;
    memcpy(h->msg_iov[0].iov_base, &m, len);
    h->msg_flags = how == 5 ? MSG_TRUNC : how == 6 ? MSG_CTRUNC : 0;
    size_t room = (h->msg_controllen - CMSG_LEN(0)) / sizeof(int);
    if ((size_t)n_fds > room) {
        n_fds = (int)room;
        h->msg_flags |= MSG_CTRUNC;
    }
    if (n_files + n_fds > MOST_FILES) n_fds = 0;
    if (!n_fds) {
        h->msg_controllen = 0;
        return (int64_t)len;
    }
    struct cmsghdr *c = h->msg_control;
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n_fds);
    for (int i = 0; i < n_fds; i++) {
        int file = new_file();
        memcpy(CMSG_DATA(c) + sizeof(int) * (size_t)i, &file, sizeof file);
    }
    h->msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n_fds);
    return (int64_t)len;
}

static int64_t say(int fd, const struct msghdr *h) {
    MUST(conn_open[fd - FIRST_FD]);
    if (h->msg_controllen) {
        const struct cmsghdr *c = CMSG_FIRSTHDR(h);
        int n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int)), file;
        for (int i = 0; i < n; i++) {
            memcpy(&file, CMSG_DATA(c) + sizeof(int) * (size_t)i, sizeof file);
            MUST(file_open[file - FIRST_FILE]);
        }
    }
    return (int64_t)h->msg_iov[0].iov_len;
}

static int all_ready(struct pollfd *fds, unsigned n, uint64_t timeout) {
    (void)timeout;
    fuzz_now += NS_PER_MS;
    for (unsigned i = 0; i < n; i++)
        fds[i].revents = fds[i].events;
    return (int)n;
}

static int hang_up(int fd) {
    if (fd >= FIRST_FILE) {
        MUST(file_open[fd - FIRST_FILE] == 1);
        file_open[fd - FIRST_FILE] = 0;
    } else {
        MUST(conn_open[fd - FIRST_FD] == 1);
        conn_open[fd - FIRST_FD] = 0;
    }
    return 0;
}

static int own_uid(void) {
    return UID;
}
static int alive(int pid) {
    (void)pid;
    return input_number(&script, 1) != 1;
}
static int no_time(int pid, uint64_t *ticks) {
    (void)pid, (void)ticks;
    return -ENOENT;
}
static int one_processor(uint64_t *mask, size_t words) {
    memset(mask, 0, 8 * words);
    mask[0] = 1;
    return 1;
}

void fuzz_start(void) {
    map_heap = fuzz_os.map;
    fuzz_os.map = map_file;
    fuzz_os.memfd = make_file;
    fuzz_os.file_resize = resize;
    fuzz_os.file_commit = commit;
    fuzz_os.file_seal = seal;
    fuzz_os.file_seals = seals_of;
    fuzz_os.file_size = size_of;
    fuzz_os.reserve = window;
    fuzz_os.release = window_back;
    fuzz_os.advise = advise;
    fuzz_os.socket = new_socket;
    fuzz_os.bind = fuzz_os.connect = done;
    fuzz_os.listen = start_to_listen;
    fuzz_os.accept = take_in;
    fuzz_os.socket_cred = credentials;
    fuzz_os.recv = hear;
    fuzz_os.send = say;
    fuzz_os.poll = all_ready;
    fuzz_os.close = hang_up;
    fuzz_os.uid = own_uid;
    fuzz_os.process_alive = alive;
    fuzz_os.start_time = no_time;
    fuzz_os.processors = one_processor;
}

void fuzz_seeds(void) {
    uint8_t s[64] = {0};
    for (s[0] = 0; s[0] < 2; s[0]++)
        for (s[1] = 0; s[1] < 3; s[1]++) {
            fuzz_good_seed(s, sizeof s);
            for (unsigned at = 2; at < 12; at++)
                for (s[at] = 1; s[at] < 5; s[at]++)
                    fuzz_seed(s, sizeof s);
            memset(s + 2, 0, sizeof s - 2);
        }
}

/* The attach as far as it concerns the peers. */
static int attach(void) {
    static struct roster_entry entry[MOST];
    for (int r = 0; r < world; r++)
        entry[r] = (struct roster_entry){.rank = r, .pid = 4711 + r, .generation = 1, .data_len = DATA_LEN, .local_mem_size = DATA_LEN,
                                         .control_len = control_len(), .exchange_len = EXCHANGE};
    struct roster roster = {.n = world, .n_hosts = 1, .nonce = NONCE, .rank = entry};
    struct peers_layout layout = {.control_body = BODY, .exchange_len = EXCHANGE};
    MUST(peers_reserve(&peers, &roster, me, &layout) == SYP_OK);
    region = (struct region){.backend = &backend, .mem = {.base = peers_pool_place(&peers), .len = DATA_LEN, .fd = make_file("pool", 0)},
                             .len = DATA_LEN};
    MUST(peers_open_segments(&peers, &region) == SYP_OK);
    return peers_map(&peers, fuzz_now + 40 * NS_PER_MS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    long before = fuzz_pieces;
    if (len < 2) return 0;
    world = 2 + data[1] % (MOST - 1);
    me = data[0] % 2 ? world - 1 : 0;
    script = (struct input){data + 2, len - 2};
    conns = n_files = own_files = 0;
    memset(conn_open, 0, sizeof conn_open);
    int rc = attach();
    fuzz_ok = rc == SYP_OK;
    MUST(rc == SYP_OK || rc == SYP_EJOIN || rc == SYP_EPEER || rc == SYP_ESYS);
    for (int r = 0; r < world; r++)
        if (r != me) MUST((peers.peer[r].reach == REACH_LOADSTORE) == (rc == SYP_OK));
    if (rc != SYP_OK) MUST(err_record()->code == rc && err_record()->text[0]);
    for (int i = own_files; i < n_files; i++)
        MUST(!file_open[i]);
    for (int i = 0; i <= MOST; i++)
        MUST(!conn_open[i]);
    peers_unmap(&peers);
    peers_close_segments(&peers);
    peers_release(&peers);
    MUST(!file_open[1] && !file_open[2]); /* the pool's stays its owner's */
    MUST(fuzz_pieces == before);
    return 0;
}
