/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The join itself, both sides, against a script of strangers and ranks: connections come, say a hello that was altered or
 * anything at all, in pieces, close, reset, stay silent.
 *
 *   input: part, world, seed of the cuts; rank 0: orders of two bytes and their bytes, one or more per poll (see next_order);
 *          others: what rank 0 answers (see answer_of)
 */
#include "bootstrap/star.h"
#include "pool/base/status.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <netinet/in.h>

#define LISTENER 50
#define FIRST_FD 1000
#define CONNS 40
#define STREAM 700

struct conn {
    uint8_t bytes[STREAM];
    size_t len, come, at; /* in all, arrived, read */
    int open, ended;      /* at our side; at the other: 1 closed, 2 reset */
};
static struct conn conns[CONNS];
static int n_conns, n_accepted, listening, accept_error;
static struct input script;
static uint64_t cuts;
static int world, as_root;

static uint64_t cut(void) {
    cuts ^= cuts << 13;
    cuts ^= cuts >> 7;
    cuts ^= cuts << 17;
    return cuts;
}

static struct hello hello_of(int rank) {
    struct hello h = {.library = SYP_VERSION,
                      .layout = 0xabc,
                      .rank = rank,
                      .n_ranks = world,
                      .job = "job-1",
                      .page_size = 4096,
                      .settings = 5,
                      .staging_size = 1 << 20,
                      .patience_ns = 5 * NS_PER_S};
    h.self = (struct roster_entry){.rank = rank, .pid = 4711 + rank, .uid = 1000, .start_ticks = 9, .local_mem_size = 1 << 24,
                                   .meta_size = 1 << 20, .data_len = 1 << 24, .control_len = 8192, .exchange_len = 1 << 20};
    return h;
}

static size_t hello_frame(uint8_t *out, size_t cap, const struct hello *h) {
    struct wire payload = {.buf = out + WIRE_HEAD, .cap = cap - WIRE_HEAD}, head = {.buf = out, .cap = WIRE_HEAD};
    wire_put_hello(&payload, h);
    wire_put_head(&head, &(struct wire_head){.type = WIRE_HELLO, .length = (uint32_t)payload.pos});
    return WIRE_HEAD + payload.pos;
}

enum { OF_THIS_JOB, OF_ANOTHER_JOB, ANYTHING, COMES_BACK };

/* The hello of a rank, of one of its doubles (another pid), of another job, of one that was in the job before; each is written once. */
static void say_hello(struct conn *c, int rank, int twin, int kind) {
    static struct conn said[5][4][4][4];
    struct conn *s = &said[world][rank - 1][twin][kind];
    if (!s->len) {
        struct hello h = hello_of(rank);
        h.self.pid += twin * 100;
        if (kind == OF_ANOTHER_JOB) strcpy(h.job, "job-2");
        if (kind == COMES_BACK) h.member_of = 5, h.epoch = 2, h.self.generation = 1;
        s->len = hello_frame(s->bytes, sizeof s->bytes, &h);
    }
    *c = *s;
}

static void new_conn(unsigned how) {
    if (n_conns == CONNS) return;
    struct conn *c = &conns[n_conns++];
    if ((how >> 2 & 3) == ANYTHING) {
        memset(c, 0, sizeof *c);
        c->len = input_bytes(&script, c->bytes, input_number(&script, 1) * 2);
    } else {
        say_hello(c, 1 + (int)(how & 3) % (world - 1), how >> 6 & 3, how >> 2 & 3);
    }
    if (how & 16) c->come = c->len;
}

/* 1 = the next one comes at once. */
static int next_order(void) {
    unsigned byte = (unsigned)input_number(&script, 1), order = byte % 8, how = (unsigned)input_number(&script, 1);
    int more = byte >> 3 & 3;
    struct conn *c = n_conns ? &conns[how % (unsigned)n_conns] : NULL;
    if (order == 0) new_conn(how);
    if (order == 6) fuzz_now += how * 10 * NS_PER_MS;
    if (order == 7) accept_error = how % 3 == 0 ? -ECONNABORTED : how % 3 == 1 ? -EMFILE : -ENOMEM;
    if (!c) return more;
    if (order == 1) c->come += 1 + (size_t)input_number(&script, 1);
    if (order == 2) c->come = c->len;
    if (order == 3) c->ended = 1;
    if (order == 4) c->ended = 2;
    if (order == 5) c->bytes[input_number(&script, 2) % STREAM] ^= (uint8_t)input_number(&script, 1);
    if (c->come > c->len) c->come = c->len;
    return more;
}

static void what_comes(void) {
    if (!script.left) fuzz_now += NS_PER_S;
    while (script.left && next_order()) {
    }
}

/* ---------------------------------------------------------------------------------------------- the table */

static int new_socket(int family, int type) {
    (void)type;
    MUST(family == AF_INET);
    if (as_root) return LISTENER;
    conns[0].open++;
    conns[0].at = 0;
    return FIRST_FD;
}

static int done(int fd, const struct sockaddr *a, socklen_t len) {
    (void)fd, (void)a, (void)len;
    return 0;
}

static int start_to_listen(int fd, int backlog) {
    MUST(fd == LISTENER && backlog > 0);
    listening = 1;
    fuzz_largest = 0;
    return 0;
}

static int take_in(int fd, struct sockaddr *a, socklen_t *len) {
    MUST(fd == LISTENER);
    int error = accept_error;
    accept_error = 0;
    if (error) return error;
    if (n_accepted == n_conns) return -EAGAIN;
    struct sockaddr_in in = {.sin_family = AF_INET};
    memcpy(a, &in, sizeof in);
    *len = sizeof in;
    conns[n_accepted].open = 1;
    return FIRST_FD + n_accepted++;
}

static int no_name(int fd, int peer, struct sockaddr *a, socklen_t *len) {
    (void)fd, (void)peer, (void)a, (void)len;
    return -EINVAL;
}

static int no_option(int fd, int level, int option, int value) {
    (void)fd, (void)level, (void)option, (void)value;
    return 0;
}

static struct conn *conn_at(int fd) {
    MUST(fd >= FIRST_FD && fd < FIRST_FD + CONNS && conns[fd - FIRST_FD].open == 1);
    return &conns[fd - FIRST_FD];
}

static int hang_up(int fd) {
    if (fd == LISTENER) {
        MUST(listening);
        listening = 0;
        return 0;
    }
    conn_at(fd)->open = 0;
    return 0;
}

static int64_t hear(int fd, struct msghdr *m) {
    struct conn *c = conn_at(fd);
    size_t n = m->msg_iov[0].iov_len, left = c->come - c->at;
    uint64_t r = cut();
    if (left == 0) return c->ended == 1 ? 0 : c->ended == 2 ? -ECONNRESET : -EAGAIN;
    if (r % 8 == 0) return -EINTR;
    if (r % 4 == 1) n = 1 + (r >> 8) % n;
    if (n > left) n = left;
    memcpy(m->msg_iov[0].iov_base, c->bytes + c->at, n);
    c->at += n;
    return (int64_t)n;
}

static int64_t say(int fd, const struct msghdr *m) {
    size_t n = 0;
    if (conn_at(fd)->ended == 2) return -ECONNRESET;
    for (size_t i = 0; i < m->msg_iovlen; i++)
        n += m->msg_iov[i].iov_len;
    return cut() % 8 ? (int64_t)n : -EAGAIN;
}

static int wait_for_news(struct pollfd *fds, unsigned n, uint64_t timeout) {
    int news = 0;
    (void)timeout;
    fuzz_now += NS_PER_MS;
    if (as_root) what_comes();
    for (unsigned i = 0; i < n; i++) {
        fds[i].revents = 0;
        if (fds[i].fd == LISTENER)
            fds[i].revents = n_accepted < n_conns || accept_error ? POLLIN : 0;
        else if (fds[i].fd >= 0) {
            const struct conn *c = conn_at(fds[i].fd);
            fds[i].revents = (short)((fds[i].events & POLLOUT) | (c->come > c->at || c->ended ? fds[i].events & POLLIN : 0));
        }
        news += fds[i].revents != 0;
    }
    return news;
}

static int same_random(void *buf, size_t len) {
    memset(buf, 7, len);
    return (int)len;
}

void fuzz_start(void) {
    fuzz_os.socket = new_socket;
    fuzz_os.bind = fuzz_os.connect = done;
    fuzz_os.listen = start_to_listen;
    fuzz_os.accept = take_in;
    fuzz_os.socket_name = no_name;
    fuzz_os.socket_option = no_option;
    fuzz_os.close = hang_up;
    fuzz_os.recv = hear;
    fuzz_os.send = say;
    fuzz_os.poll = wait_for_news;
    fuzz_os.random = same_random;
}

/* ------------------------------------------------------------------------------------------------- seeds */

void fuzz_seeds(void) {
    enum { GOOD = 6 };
    static const uint8_t scripts[][24] = {
        {0, 0, 1, 0, 16, 2, 0},                                         /* two ranks */
        {0, 1, 3, 0, 16, 0, 17, 0, 18},                                 /* three */
        {0, 1, 5, 0, 0, 0, 1, 1, 0, 50, 1, 1, 20, 2, 0, 2, 1},          /* in pieces */
        {1, 0, 1, 0}, {1, 1, 5, 0}, {1, 2, 9, 0},                       /* the other side */
        {0, 1, 3, 0, 28, 0, 29},                                        /* ranks that were in the job before */
        {0, 0, 7, 0, 16 | 4, 0, 16, 2, 0},                              /* another job */
        {0, 1, 9, 0, 16, 0, 16 | 64, 0, 17},                            /* a double */
        {0, 0, 2, 0, 8 | 16, 9, 'G', 'E', 'T', ' ', '/', 0, 16},        /* HTTP */
        {0, 1, 2, 0, 16, 3, 0, 6, 200, 0, 17},                          /* one dies */
        {0, 0, 4, 0, 0, 5, 0, 8, 0, 3, 2, 0},                           /* another version */
        {0, 0, 4, 0, 0, 5, 0, 60, 0, 1, 2, 0},                          /* altered hello */
        {1, 1, 3, 1}, {1, 0, 5, 0, 30, 0, 1}, {1, 0, 5, 2, 8, 'H', 'T', 'T', 'P'},
    };
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++)
        (i < GOOD ? fuzz_good_seed : fuzz_seed)(scripts[i], i < GOOD && scripts[i][0] ? 4 : sizeof scripts[i]);
}

/* ------------------------------------------------------------------------------------------------- sides */

static struct launch launch_of(int rank) {
    struct launch l = {.rank = rank, .n_ranks = world, .local_rank = -1, .local_size = -1, .job = "job-1", .source = "test",
                       .listen_fd = -1, .has_addr = 1};
    MUST(url_parse("127.0.0.1:3366", &l.addr) == SYP_OK);
    return l;
}

static void check_result(int rc, const struct roster *r, const struct star *s) {
    fuzz_ok = rc == SYP_OK;
    if (rc == SYP_OK) {
        MUST(s && r->n == world && r->nonce && r->rank[0].rank == 0);
    } else {
        MUST(!s && !r->rank && rc == err_record()->code && err_record()->text[0]);
        MUST(rc == SYP_EJOIN || rc == SYP_EPEER || rc == SYP_ETIMEOUT);
    }
}

static void be_root(void) {
    struct launch l = launch_of(0);
    struct hello h = hello_of(0);
    struct roster r = {0};
    struct star *s = NULL;
    int rc = root_join(&l, &h, fuzz_now + 5 * NS_PER_S, NULL, &r, &s);
    check_result(rc, &r, s);
    /* memory for the roster's frame only when as many ranks have come as there are */
    MUST(fuzz_largest <= 64 << 10 || n_accepted >= world - 1);
    for (int i = 1; i < world && rc == SYP_OK; i++)
        MUST(r.rank[i].rank == i);
    roster_free(&r);
    star_close(s);
    MUST(!listening);
}

/* What rank 0 answers: 0 the roster, 1 a rejection, 2 anything; then alterations of three bytes. */
static void answer_of(struct conn *c) {
    struct wire payload = {.buf = c->bytes + WIRE_HEAD, .cap = sizeof c->bytes - WIRE_HEAD},
                head = {.buf = c->bytes, .cap = WIRE_HEAD};
    unsigned what = (unsigned)input_number(&script, 1) % 3;
    struct roster_entry rank[8];
    if (what == 2) {
        c->len = input_bytes(&script, c->bytes, input_number(&script, 2) % STREAM);
        return;
    }
    for (int i = 0; i < world; i++) {
        rank[i] = hello_of(i).self;
        rank[i].generation = 1;
        strcpy(rank[i].addr, "127.0.0.1:1");
    }
    struct roster r = {.n = world, .n_hosts = 1, .nonce = 5, .epoch = 2, .rank = rank};
    struct notice n = {.code = SYP_EJOIN, .peer = 2, .pid = 4713, .text = "join: rank 2 has another layout"};
    if (what == 0)
        wire_put_roster(&payload, &r);
    else
        wire_put_notice(&payload, &n);
    wire_put_head(&head, &(struct wire_head){.type = what == 0 ? WIRE_ROSTER : WIRE_REJECT, .length = (uint32_t)payload.pos});
    c->len = WIRE_HEAD + payload.pos;
    while (script.left >= 3)
        c->bytes[input_number(&script, 2) % STREAM] ^= (uint8_t)input_number(&script, 1);
}

static void be_peer(void) {
    struct launch l = launch_of(1);
    struct hello h = hello_of(1);
    struct roster r = {0};
    struct star *s = NULL;
    struct conn *c = &conns[0];
    memset(c, 0, sizeof *c);
    answer_of(c);
    c->come = c->len;
    c->ended = 1;
    fuzz_largest = 0;
    int rc = peer_join(&l, &h, fuzz_now + 100 * NS_PER_MS, NULL, &r, &s);
    check_result(rc, &r, s);
    MUST(fuzz_largest <= WIRE_MAX + 4096);
    if (rc == SYP_OK) MUST(r.rank[1].pid == h.self.pid && r.rank[1].start_ticks == h.self.start_ticks);
    roster_free(&r);
    star_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    if (len < 3) return 0;
    as_root = data[0] % 2 == 0;
    world = 2 + data[1] % 3;
    cuts = 0x9e3779b97f4a7c15ull * (1 + (uint64_t)data[2]);
    script = (struct input){data + 3, len - 3};
    n_conns = n_accepted = listening = accept_error = 0;
    long before = fuzz_pieces;
    if (as_root)
        be_root();
    else
        be_peer();
    for (int i = 0; i < n_accepted; i++)
        MUST(!conns[i].open);
    MUST(fuzz_pieces == before && (as_root || !conns[0].open));
    return 0;
}
