/* SPDX-License-Identifier: Apache-2.0 */
/* See the header.  One thread polls everything; what it does to a connection may hold the others up, which is part of the fault. */
#include "tests/support/proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAIRS 32
#define KEPT (64u << 10) /* of what passed, for replays */
#define MOMENT_US 1500

struct pair {
    int fd[2]; /* towards the member, towards rank 0; -1 = closed */
    size_t passed[2];
    uint8_t *kept; /* of the plan's way */
};

struct proxy {
    struct proxy_plan plan;
    struct sockaddr_in target;
    int listener, extra; /* extra: the connection of a replay */
    pthread_t thread;
    atomic_int stop, struck;
    struct pair pair[PAIRS];
    size_t most[2];
};

static void hang_up(struct pair *c, int reset) {
    struct linger hard = {1, 0};
    for (int i = 0; i < 2; i++) {
        if (c->fd[i] < 0) continue;
        if (reset) setsockopt(c->fd[i], SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        close(c->fd[i]);
        c->fd[i] = -1;
    }
    free(c->kept);
    c->kept = NULL;
}

static void push(int fd, const uint8_t *bytes, size_t len) {
    while (len) {
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n <= 0) return; /* the other side is gone: its reader will see it */
        bytes += n;
        len -= (size_t)n;
    }
}

static int connect_target(const struct proxy *p) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (const struct sockaddr *)&p->target, sizeof p->target) == 0) return fd;
    close(fd);
    return -1;
}

static void welcome(struct proxy *p) {
    int one = 1, fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    int other = connect_target(p);
    for (int i = 0; i < PAIRS && other >= 0; i++) {
        if (p->pair[i].fd[0] >= 0) continue;
        p->pair[i] = (struct pair){.fd = {fd, other}, .kept = malloc(KEPT)};
        return;
    }
    if (other >= 0) close(other);
    close(fd); /* as when nobody listens */
}

/* The fault strikes at byte `at` of these bytes, which begin at `from`. */
static int strikes(struct proxy *p, int way, size_t from, size_t len) {
    const struct proxy_plan *f = &p->plan;
    if (f->fault == PROXY_NONE || way != (int)f->way || p->struck) return 0;
    if (f->fault == PROXY_REPLAY || f->fault == PROXY_REFLECT) return f->at > from && f->at <= from + len;
    return f->at >= from && f->at < from + len;
}

/* What has come one way.  0 = the pair is over. */
static int pass(struct proxy *p, struct pair *c, int way) {
    uint8_t buf[16 << 10];
    const struct proxy_plan *f = &p->plan;
    int in = c->fd[way == TO_ROOT ? 0 : 1], out = c->fd[way == TO_ROOT ? 1 : 0], ours = way == (int)f->way;
    if (f->fault == PROXY_COALESCE && ours) usleep(MOMENT_US);
    ssize_t got = recv(in, buf, sizeof buf, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 1;
    if (got <= 0) {
        hang_up(c, got < 0);
        return 0;
    }
    size_t n = (size_t)got, from = c->passed[way];
    if (ours && from + n <= KEPT) memcpy(c->kept + from, buf, n);
    c->passed[way] += n;
    if (c->passed[way] > p->most[way]) p->most[way] = c->passed[way];
    if (f->fault == PROXY_DRIP && ours) {
        for (size_t i = 0; i < n; i++)
            push(out, buf + i, 1);
        return 1;
    }
    if (f->fault == PROXY_DELAY && ours) usleep(f->delay_us);
    if (!strikes(p, way, from, n)) {
        push(out, buf, n);
        return 1;
    }
    p->struck = 1;
    size_t at = f->at - from;
    if (f->fault == PROXY_ALTER) buf[at] ^= f->mask;
    push(out, buf, f->fault == PROXY_ALTER ? n : at);
    if (f->fault == PROXY_RESET) {
        usleep(MOMENT_US); /* what passed has arrived before the reset takes it away */
        hang_up(c, 1);
        return 0;
    }
    if (f->fault == PROXY_SPLIT) usleep(MOMENT_US);
    if (f->fault == PROXY_REFLECT) push(in, c->kept, f->at);
    if (f->fault == PROXY_REPLAY && (p->extra = connect_target(p)) >= 0) push(p->extra, c->kept, f->at);
    if (f->fault != PROXY_ALTER) push(out, buf + at, n - at);
    return 1;
}

static void *run(void *arg) {
    struct proxy *p = arg;
    while (!p->stop) {
        struct pollfd polls[1 + 2 * PAIRS] = {{.fd = p->listener, .events = POLLIN}};
        for (int i = 0; i < PAIRS; i++)
            for (int k = 0; k < 2; k++)
                polls[1 + 2 * i + k] = (struct pollfd){.fd = p->pair[i].fd[k], .events = POLLIN};
        if (poll(polls, 1 + 2 * PAIRS, 5) <= 0) continue;
        for (int i = 0; i < PAIRS; i++) {
            int open = p->pair[i].fd[0] >= 0;
            if (open && polls[1 + 2 * i].revents) open = pass(p, &p->pair[i], TO_ROOT);
            if (open && polls[2 + 2 * i].revents) pass(p, &p->pair[i], TO_MEMBER);
        }
        if (polls[0].revents) welcome(p);
    }
    return NULL;
}

struct proxy *proxy_start(const char *target, const struct proxy_plan *plan, char addr[64]) {
    struct proxy *p = calloc(1, sizeof *p);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    p->plan = *plan;
    p->extra = -1;
    p->target = a;
    p->target.sin_port = htons((uint16_t)atoi(strrchr(target, ':') + 1));
    for (int i = 0; i < PAIRS; i++)
        p->pair[i].fd[0] = p->pair[i].fd[1] = -1;
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(p->listener, (struct sockaddr *)&a, sizeof a) || listen(p->listener, 64) ||
        getsockname(p->listener, (struct sockaddr *)&a, &len) || pthread_create(&p->thread, NULL, run, p)) {
        perror("proxy");
        exit(1);
    }
    snprintf(addr, 64, "tcp://127.0.0.1:%u", (unsigned)ntohs(a.sin_port));
    return p;
}

int proxy_stop(struct proxy *p, size_t passed[2]) {
    p->stop = 1;
    pthread_join(p->thread, NULL);
    for (int i = 0; i < PAIRS; i++)
        hang_up(&p->pair[i], 0);
    if (p->extra >= 0) close(p->extra);
    close(p->listener);
    if (passed) memcpy(passed, p->most, sizeof p->most);
    int struck = p->struck;
    free(p);
    return struck;
}
