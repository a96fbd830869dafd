/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scene: n real processes join; process i plays the rank that the scene gives it and leaves what it got in the shared
 * page.
 */
#ifndef TESTS_SCENE_H
#define TESTS_SCENE_H

#include "bootstrap/hostid.h"
#include "bootstrap/rendezvous.h"
#include "pool/base/conf.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/fake_os.h"
#include "tests/support/ranks.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST 64

struct result {
    int rc, code, peer;
    int64_t pid, self;
    uint64_t nonce, took;
    int fds_left, done, refused;
    char text[1024];
};

struct scene {
    char addr[64]; /* "" = by job */
    char job[64];
    char other_job; /* process i != 0 with this letter in its job: see odd */
    int world;
    int restart, listen_fd;
    uint64_t timeout_ns;
    unsigned skew_us; /* random pause before the join, up to this */
    uint64_t seed;
    int odd; /* the process that differs in the fields below; -1 = none */
    int odd_rank, odd_world, odd_absent, odd_dies;
    uint64_t odd_meta, odd_staging, odd_settings, odd_layout;
    uint32_t odd_library;
    int fail_process, fail_errno; /* this process's fail_call-th system call is refused */
    unsigned fail_call;           /* 0 = none */
    int hosts;                    /* > 1: processes pretend to be on that many hosts */
    void (*after)(struct star *s, const struct roster *r, int rank, struct result *res);
    void (*stranger)(const struct scene *sc); /* what the last process does instead of a rank */
};

static inline struct scene scene_of(int world) {
    struct scene sc = {.world = world,
                       .listen_fd = -1,
                       .timeout_ns = 20 * NS_PER_S,
                       .odd = -1,
                       .odd_rank = -1,
                       .odd_world = -1,
                       .odd_meta = UINT64_MAX,
                       .odd_staging = UINT64_MAX};
    return sc;
}

/* A port of 127.0.0.1 that is free, below those that the kernel gives away by itself: nobody else takes it before rank
 * 0 does. */
static inline void free_port(char addr[64]) {
    static unsigned count;
    for (;;) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        unsigned port = 10000 + ((unsigned)getpid() * 131 + ++count) % 22000;
        a.sin_port = htons((uint16_t)port);
        int fd = socket(AF_INET, SOCK_STREAM, 0), taken = bind(fd, (struct sockaddr *)&a, sizeof a);
        close(fd);
        snprintf(addr, 64, "tcp://127.0.0.1:%u", port);
        if (!taken) return;
    }
}

static inline struct scene scene_at_port(int world) {
    struct scene sc = scene_of(world);
    free_port(sc.addr);
    return sc;
}

static inline struct hello hello_of(int rank, int world) {
    struct hello h = {.library = SYP_VERSION,
                      .layout = 0xabc,
                      .rank = rank,
                      .n_ranks = world,
                      .page_size = 4096,
                      .settings = 5,
                      .staging_size = 1 << 20};
    h.self = (struct roster_entry){.rank = rank,
                                   .pid = os->pid(),
                                   .uid = (uint32_t)os->uid(),
                                   .local_mem_size = 1 << 24,
                                   .meta_size = 1048576,
                                   .data_len = 1 << 24,
                                   .control_len = 8192,
                                   .exchange_len = 1 << 20};
    os->start_time(h.self.pid, &h.self.start_ticks);
    host_identity(h.self.host_id);
    return h;
}

static inline struct hello odd_hello(const struct scene *sc, int i, int rank) {
    struct hello h = hello_of(rank, sc->world);
    if (sc->hosts > 1) h.self.host_id[0] = 1000 + (uint64_t)(i % sc->hosts);
    if (i != sc->odd) return h;
    if (sc->odd_world >= 0) h.n_ranks = sc->odd_world;
    if (sc->odd_meta != UINT64_MAX) h.self.meta_size = sc->odd_meta;
    if (sc->odd_staging != UINT64_MAX) h.staging_size = sc->odd_staging;
    if (sc->odd_settings) h.settings = sc->odd_settings;
    if (sc->odd_layout) h.layout = sc->odd_layout;
    if (sc->odd_library) h.library = sc->odd_library;
    return h;
}

static inline struct launch launch_of(const struct scene *sc, int i, int rank) {
    struct launch l = {.rank = rank,
                       .n_ranks = sc->world,
                       .local_rank = -1,
                       .local_size = -1,
                       .restart = sc->restart,
                       .source = "test",
                       .listen_fd = rank == 0 ? sc->listen_fd : -1};
    if (i == sc->odd && sc->odd_world >= 0) l.n_ranks = sc->odd_world;
    snprintf(l.job, sizeof l.job, "%s", sc->job);
    if (i == sc->odd && sc->other_job) l.job[0] = sc->other_job;
    if (sc->addr[0]) {
        l.has_addr = 1;
        if (url_parse(sc->addr, &l.addr)) CHECK(0);
    }
    return l;
}

/* Says hello as rank `rank` and is killed before any verdict. */
static inline void say_hello_and_die(const struct scene *sc, int rank) {
    struct launch l = launch_of(sc, rank, rank);
    struct hello h = hello_of(rank, sc->world);
    h.patience_ns = sc->timeout_ns;
    struct url_addr a;
    if (url_resolve(&l.addr, &a, 1) != 1) _exit(1);
    uint8_t frame[WIRE_HEAD + WIRE_HELLO_MAX];
    struct wire payload = {.buf = frame + WIRE_HEAD, .cap = WIRE_HELLO_MAX}, head = {.buf = frame, .cap = WIRE_HEAD};
    wire_put_hello(&payload, &h);
    struct wire_head wh = {.type = WIRE_HELLO, .length = (uint32_t)payload.pos};
    wire_put_head(&head, &wh);
    for (;;) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&a.addr, a.len) == 0 && send(fd, frame, WIRE_HEAD + payload.pos, 0) > 0)
            break;
        close(fd);
        usleep(500);
    }
    usleep(20000);
    kill(getpid(), SIGKILL);
}

static inline void keep_error(struct result *res, int rc) {
    const struct syp_error *e = err_record();
    res->rc = rc;
    res->code = e->code;
    res->peer = e->peer;
    res->pid = e->peer_pid;
    memcpy(res->text, e->text, sizeof res->text);
}

static inline int play(struct ranks *r, int i, void *arg) {
    const struct scene *sc = arg;
    struct result *res = (struct result *)r->shared + i;
    int rank = i == sc->odd && sc->odd_rank >= 0 ? sc->odd_rank : i;
    res->self = os->pid();
    if (i == sc->odd && sc->odd_absent) return 0;
    if (i == sc->world && sc->stranger) {
        sc->stranger(sc);
        return 0;
    }
    uint64_t state = sc->seed * 1000 + (uint64_t)i + 1;
    if (sc->skew_us) usleep((useconds_t)(check_random(&state) % sc->skew_us));
    if (i == sc->odd && sc->odd_dies) say_hello_and_die(sc, rank);
    struct launch l = launch_of(sc, i, rank);
    struct hello h = odd_hello(sc, i, rank);
    struct roster roster;
    struct star *s;
    int fds = count_open_fds(), faulty = sc->fail_call && i == sc->fail_process;
    if (faulty) {
        fake_os_on();
        fake_os_fail(sc->fail_call, sc->fail_errno);
    }
    uint64_t start = os->now();
    int rc = rendezvous_join(&l, &h, start + sc->timeout_ns, &roster, &s);
    res->took = os->now() - start;
    keep_error(res, rc);
    if (rc == SYP_OK) {
        res->nonce = roster.nonce;
        CHECK_EQ(roster.n, sc->world);
        CHECK_EQ(roster.rank[rank].pid, os->pid());
        CHECK(roster.nonce != 0);
        for (int k = 0; k < roster.n; k++) {
            CHECK_EQ(roster.rank[k].rank, k);
            CHECK_EQ(roster.rank[k].generation, 1);
            CHECK_EQ(roster.rank[k].host_index, sc->hosts > 1 ? k % sc->hosts : 0);
        }
        if (sc->after) sc->after(s, &roster, rank, res);
        star_close(s);
        roster_free(&roster);
    } else {
        CHECK(s == NULL && roster.rank == NULL);
    }
    if (faulty) {
        CHECK_EQ(fake_os_open_fds(), 0);
        res->refused = fake_os_last() != NULL;
        fake_os_off();
    }
    res->fds_left = count_open_fds() - fds;
    res->done = 1;
    return 0;
}

/* Run a scene of `processes` processes; every one must have come back without a descriptor more. */
static inline int run_scene(struct ranks *r, struct scene *sc, int processes, int victim) {
    static uint64_t runs;
    sc->seed = ++runs;
    CHECK_EQ(ranks_start(r, processes, MOST * sizeof(struct result), play, sc), 0);
    int failed = ranks_wait(r, 60, victim);
    CHECK_EQ(failed, 0);
    for (int i = 0; i < processes; i++)
        if (((struct result *)r->shared)[i].done) CHECK_EQ(((struct result *)r->shared)[i].fds_left, 0);
    return failed;
}

static inline const struct result *result(const struct ranks *r, int i) {
    return (const struct result *)r->shared + i;
}

/* All processes but `except` failed with this code and a text that has `part`. */
static inline void all_got(const struct ranks *r, int processes, int except, int code, const char *part) {
    for (int i = 0; i < processes; i++) {
        if (i == except) continue;
        CHECK_EQ(result(r, i)->rc, code);
        CHECK_EQ(result(r, i)->code, code);
        CHECK_HAS(result(r, i)->text, part);
    }
}

static inline void all_joined(const struct ranks *r, int n) {
    for (int i = 0; i < n; i++) {
        if (!CHECK(result(r, i)->rc == SYP_OK)) printf("process %d: %s\n", i, result(r, i)->text);
        CHECK_EQ(result(r, i)->nonce, result(r, 0)->nonce);
        CHECK_EQ(result(r, i)->code, SYP_OK); /* nor a trace of strangers in the error record */
    }
}

/* Every collective of the star, at several sizes. */
static inline void speak(struct star *s, const struct roster *roster, int rank, struct result *res) {
    uint64_t deadline = os->now() + 10 * NS_PER_S;
    int n = roster->n;
    (void)res;
    for (size_t len = 0; len <= 1024; len = len ? len * 4 : 1) {
        uint8_t mine[1024], *all = malloc((size_t)n * len + 1);
        memset(mine, rank + 1, sizeof mine);
        CHECK_EQ(star_allgather(s, mine, len, all, deadline), SYP_OK);
        for (int k = 0; k < n; k++)
            for (size_t b = 0; b < len; b++)
                if (all[(size_t)k * len + b] != (uint8_t)(k + 1)) CHECK(0);
        free(all);
        CHECK_EQ(star_barrier(s, deadline), SYP_OK);
    }
    size_t big = 700000; /* more than one frame, more than a socket buffer */
    uint8_t *buf = malloc(big);
    for (size_t b = 0; b < big; b++)
        buf[b] = rank == 0 ? (uint8_t)(b * 7) : 0;
    CHECK_EQ(star_broadcast(s, buf, big, deadline), SYP_OK);
    for (size_t b = 0; b < big; b++)
        if (buf[b] != (uint8_t)(b * 7)) {
            CHECK(0);
            break;
        }
    CHECK_EQ(star_broadcast(s, buf, 0, deadline), SYP_OK);
    CHECK_EQ(star_allgather(s, buf, 1025, buf, deadline), SYP_EINVAL);
    CHECK_EQ(star_barrier(s, deadline), SYP_OK);
    free(buf);
}

#endif
