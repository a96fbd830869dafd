/* SPDX-License-Identifier: Apache-2.0 */
/* See the header.  The honest ranks run on an OS table that watches what rank 0 asks memory for. */
#include "tests/support/hostile.h"

#include "pool/base/os.h"
#include "pool/base/status.h"
#include "tests/support/check.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

size_t hostile_hello(uint8_t *out, int rank, int world, const char *job) {
    struct hello h = {.library = SYP_VERSION,
                      .layout = 0xabc,
                      .rank = rank,
                      .n_ranks = world,
                      .page_size = 4096,
                      .settings = 5,
                      .staging_size = 1 << 20,
                      .patience_ns = 60 * NS_PER_S};
    h.self = (struct roster_entry){.rank = rank, .pid = os->pid(), .uid = (uint32_t)os->uid(), .start_ticks = 7,
                                   .local_mem_size = 1 << 24, .meta_size = 1 << 20, .data_len = 1 << 24, .control_len = 8192,
                                   .exchange_len = 1 << 20};
    snprintf(h.job, sizeof h.job, "%s", job);
    struct wire payload = {.buf = out + WIRE_HEAD, .cap = WIRE_HELLO_MAX}, head = {.buf = out, .cap = WIRE_HEAD};
    wire_put_hello(&payload, &h);
    wire_put_head(&head, &(struct wire_head){.type = WIRE_HELLO, .length = (uint32_t)payload.pos});
    return WIRE_HEAD + payload.pos;
}

int hostile_connect(const char *addr) {
    struct url u;
    struct url_addr a;
    if (url_parse(addr, &u) || url_resolve(&u, &a, 1) != 1) return -1;
    for (int i = 0; i < 1000; i++) {
        int fd = socket(a.addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) return -1;
        if (connect(fd, (struct sockaddr *)&a.addr, a.len) == 0) return fd;
        close(fd);
        usleep(1000);
    }
    return -1;
}

void hostile_say(int fd, const void *bytes, size_t len) {
    ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
    (void)n;
}

void hostile_reset(int fd) {
    struct linger hard = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
}

int hostile_closed(int fd, unsigned ms) {
    char bytes[256];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    for (uint64_t end = os_linux.now() + ms * NS_PER_MS; os_linux.now() < end;) {
        if (poll(&p, 1, 10) <= 0) continue;
        if (recv(fd, bytes, sizeof bytes, 0) <= 0) return 1;
    }
    return 0;
}

/* ------------------------------------------------------------------------------------------- honest ranks */

struct honest_threads {
    pthread_t thread[2];
    struct os_ops table;
    uint64_t deadline;
    _Atomic int listens;
};

static struct honest *watched; /* by rank 0's thread alone */
static _Thread_local int is_root;

static int watch_listen(int fd, int backlog) {
    int rc = os_linux.listen(fd, backlog);
    if (watched && is_root) watched->threads->listens = 1;
    return rc;
}

static int watch_map(void *addr, size_t len, int prot, int fd, uint64_t off, void **out) {
    if (watched && is_root && watched->threads->listens && len > watched->largest) watched->largest = len;
    return os_linux.map(addr, len, prot, fd, off, out);
}

static void join(struct honest *h, int rank) {
    struct launch l = {.rank = rank, .n_ranks = 2, .local_rank = -1, .local_size = -1, .source = "test", .listen_fd = -1, .has_addr = 1};
    uint8_t frame[HOSTILE_FRAME];
    size_t len = hostile_hello(frame, rank, 2, h->job);
    struct wire w = {.buf = frame + WIRE_HEAD, .cap = len - WIRE_HEAD};
    struct hello hello;
    struct roster roster;
    struct star *star;
    snprintf(l.job, sizeof l.job, "%s", h->job);
    if (wire_get_hello(&w, &hello) || url_parse(h->addr, &l.addr)) return;
    os->start_time(hello.self.pid, &hello.self.start_ticks);
    uint64_t start = os->now();
    h->rc[rank] = rendezvous_join(&l, &hello, h->threads->deadline, &roster, &star);
    h->took[rank] = os->now() - start;
    snprintf(h->text[rank], sizeof h->text[rank], "%s", h->rc[rank] ? syp_error_text() : "");
    if (h->rc[rank]) return;
    h->rc[rank] = star_barrier(star, os->now() + 5 * NS_PER_S);
    star_close(star);
    roster_free(&roster);
}

static void *root_thread(void *arg) {
    is_root = 1;
    join(arg, 0);
    return NULL;
}
static void *second_thread(void *arg) {
    join(arg, 1);
    return NULL;
}

void honest_begin(struct honest *h, const char *addr, uint64_t timeout_ns) {
    static unsigned count;
    struct honest_threads *t = calloc(1, sizeof *t);
    *h = (struct honest){.rc = {1, 1}, .threads = t};
    snprintf(h->addr, sizeof h->addr, "%s", addr);
    snprintf(h->job, sizeof h->job, "honest-%d-%u", (int)getpid(), count++);
    t->table = os_linux;
    t->table.listen = watch_listen;
    t->table.map = watch_map;
    t->deadline = os_linux.now() + timeout_ns;
    watched = h;
    os_swap(&t->table);
    pthread_create(&t->thread[0], NULL, root_thread, h);
    while (!t->listens && os_linux.now() < t->deadline)
        usleep(200);
}

void honest_second(struct honest *h) {
    pthread_create(&h->threads->thread[1], NULL, second_thread, h);
}

void honest_end(struct honest *h) {
    pthread_join(h->threads->thread[0], NULL);
    pthread_join(h->threads->thread[1], NULL);
    os_swap(&os_linux);
    watched = NULL;
    free(h->threads);
    h->threads = NULL;
}
