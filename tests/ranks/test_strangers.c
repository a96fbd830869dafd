/* SPDX-License-Identifier: Apache-2.0 */
/* The join among strangers and under limits: crowds of silent connections, where rank 0 listens, many ranks with few
 * descriptors, a missing rank, restarts of rank 0, every order of arrival. */
#include "bootstrap/star.h"
#include "pool/stats.h"
#include "tests/ranks/scene.h"
#include <poll.h>
#include <sys/resource.h>

/* ------------------------------------------------------------------------------------------------ crowds */

static void connect_silently(const struct scene *sc, int n) {
    struct url u;
    struct url_addr a;
    if (url_parse(sc->addr, &u) || url_resolve(&u, &a, 1) != 1) _exit(1);
    for (int i = 0, tries = 0; i < n && tries < 5000; tries++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(fd, (struct sockaddr *)&a.addr, a.len) == 0) {
            i++; /* kept open, and silent */
        } else {
            close(fd);
            usleep(200); /* rank 0 does not listen yet */
        }
    }
}

/* The last process is the crowd; the ranks but 0 come when it is there. */
static int crowd_size;

static int play_in_a_crowd(struct ranks *r, int i, void *arg) {
    const struct scene *sc = arg;
    _Atomic int *there = (_Atomic int *)((char *)r->shared + MOST * sizeof(struct result));
    if (i == sc->world) {
        connect_silently(sc, crowd_size);
        *there = 1;
        for (int k = 0; k < 20000 && *there <= sc->world; k++)
            usleep(1000);
        return 0;
    }
    while (i != 0 && !*there)
        usleep(500);
    int rc = play(r, i, arg);
    /* all but those that could wait at a time were dropped to make room, and counted */
    if (i == 0 && crowd_size) CHECK(stats_read(STAT_JOIN_DROPPED) >= (uint64_t)(crowd_size - 4 * sc->world));
    (*there)++;
    return rc;
}

static uint64_t slowest_join(int world, int crowd) {
    struct ranks r;
    struct scene sc = scene_at_port(world);
    uint64_t most = 0;
    crowd_size = crowd;
    CHECK_EQ(ranks_start(&r, world + 1, MOST * sizeof(struct result) + 64, play_in_a_crowd, &sc), 0);
    CHECK_EQ(ranks_wait(&r, 60, -1), 0);
    all_joined(&r, world);
    for (int i = 1; i < world; i++) /* rank 0 has waited for the crowd, too */
        if (result(&r, i)->took > most) most = result(&r, i)->took;
    ranks_free(&r);
    return most;
}

static void a_thousand_silent_connections_delay_nobody(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < 1100) {
        check_skip("fewer than 1,100 descriptors allowed");
        return;
    }
    for (int k = 0; k < 3; k++) {
        uint64_t alone = slowest_join(4, 0), crowded = slowest_join(4, 1000);
        printf("4 ranks join in %.1f ms, beside 1,000 silent connections in %.1f ms\n", (double)alone / 1e6,
               (double)crowded / 1e6);
        CHECK(crowded < alone + 100 * NS_PER_MS);
    }
}

/* A hello in bytes that come too slowly: 2 s are for all of them together. */
static int play_beside_a_slow_one(struct ranks *r, int i, void *arg) {
    const struct scene *sc = arg;
    _Atomic uint64_t *dropped_after = (_Atomic uint64_t *)(void *)((char *)r->shared + MOST * sizeof(struct result));
    if (i == 1) {
        while (!*dropped_after)
            usleep(1000);
    }
    if (i < 2) return play(r, i, arg);
    uint8_t frame[WIRE_HEAD];
    struct url u;
    struct url_addr a;
    int fd = -1;
    head_put(frame, WIRE_HELLO, 100, 0, 0);
    CHECK(url_parse(sc->addr, &u) == 0 && url_resolve(&u, &a, 1) == 1);
    for (int k = 0; k < 5000 && fd < 0; k++) {
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(fd, (struct sockaddr *)&a.addr, a.len) == 0) break;
        close(fd);
        fd = -1;
        usleep(1000);
    }
    uint64_t start = os->now();
    struct pollfd p = {.fd = fd, .events = POLLIN};
    for (size_t at = 0; at < WIRE_HEAD && poll(&p, 1, 100) == 0; at++)
        send(fd, frame + at, 1, MSG_NOSIGNAL);
    *dropped_after = os->now() - start;
    return 0;
}

static void a_slow_hello_is_dropped_after_two_seconds(void) {
    struct ranks r;
    struct scene sc = scene_at_port(2);
    CHECK_EQ(ranks_start(&r, 3, MOST * sizeof(struct result) + 64, play_beside_a_slow_one, &sc), 0);
    CHECK_EQ(ranks_wait(&r, 60, -1), 0);
    uint64_t after = *(uint64_t *)(void *)((char *)r.shared + MOST * sizeof(struct result));
    all_joined(&r, 2);
    if (!CHECK(after >= 1900 * NS_PER_MS && after <= 2400 * NS_PER_MS)) printf("after %.2f s\n", (double)after / 1e9);
    ranks_free(&r);
}

/* -------------------------------------------------------------------------------------------- where it listens */

/* Listening sockets of this process, from /proc/net/tcp and tcp6 by the inodes of its descriptors. */
static int listening(char *where, size_t cap) {
    static const char *const tables[] = {"/proc/self/net/tcp", "/proc/self/net/tcp6"};
    int n = 0;
    for (int fd = 3; fd < 100; fd++) {
        char link[64], name[64] = "";
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        unsigned long inode;
        if (readlink(link, name, sizeof name - 1) < 0 || sscanf(name, "socket:[%lu]", &inode) != 1) continue;
        for (int k = 0; k < 2; k++) {
            FILE *f = fopen(tables[k], "r");
            char line[512], local[64];
            unsigned state;
            unsigned long this;
            while (f && fgets(line, sizeof line, f))
                if (sscanf(line, " %*d: %63s %*s %x %*s %*s %*s %*d %*d %lu", local, &state, &this) == 3 &&
                    state == 10 && this == inode) {
                    snprintf(where, cap, "%s", local);
                    n++;
                }
            if (f) fclose(f);
        }
    }
    return n;
}

struct watched { /* in the shared page, behind the results */
    _Atomic int stop, most;
    char where[64];
};

static void *watch(void *arg) {
    struct watched *w = arg;
    while (!w->stop) {
        int n = listening(w->where, sizeof w->where);
        if (n > w->most) w->most = n;
        usleep(500);
    }
    return NULL;
}

/* Rank 0 watches itself while it waits for rank 1, which comes when something was seen. */
static int play_watched(struct ranks *r, int i, void *arg) {
    struct os_thread *t = NULL;
    struct watched *w = (struct watched *)(void *)((char *)r->shared + MOST * sizeof(struct result));
    close(r->listen_fd);
    for (int k = 0; i == 1 && k < 5000 && !w->most; k++)
        usleep(1000);
    if (i == 1) usleep(5000);
    if (i == 0) CHECK_EQ(os->thread_start(watch, w, &t), 0);
    int rc = play(r, i, arg);
    if (i == 0) {
        char after[64];
        w->stop = 1;
        os->thread_join(t);
        char *text = ((struct result *)r->shared)[0].text;
        snprintf(text, 200, "%d %s", w->most, w->where);
        CHECK_EQ(listening(after, sizeof after), 0); /* and not any longer than the join */
    }
    return rc;
}

static void listens_where_told_and_nowhere_else(void) {
    static const struct {
        const char *form, *seen;
    } t[] = {{"tcp://127.0.0.1:%s", "1 0100007F:%04X"},
             {"tcp://127.0.0.5:%s", "1 0500007F:%04X"},
             {"tcp://[::1]:%s", "1 00000000000000000000000001000000:%04X"}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct ranks r;
        struct scene sc = scene_at_port(2);
        char port[8], seen[80];
        snprintf(port, sizeof port, "%s", strrchr(sc.addr, ':') + 1);
        snprintf(sc.addr, sizeof sc.addr, t[i].form, port);
        snprintf(seen, sizeof seen, t[i].seen, (unsigned)atoi(port));
        CHECK_EQ(ranks_start(&r, 2, MOST * sizeof(struct result) + sizeof(struct watched), play_watched, &sc), 0);
        CHECK_EQ(ranks_wait(&r, 60, -1), 0);
        CHECK_EQ(result(&r, 0)->rc, SYP_OK);
        CHECK_STR(result(&r, 0)->text, seen);
        ranks_free(&r);
    }
}

/* ------------------------------------------------------------------------------------------------ limits */

static int limited_rank(struct ranks *r, int rank, void *arg) {
    struct rlimit limit = {256, 256};
    (void)arg;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    if (getuid() == 0) CHECK_EQ(setresuid(65534, 65534, 65534), 0);
    syp_config c = ranks_config(r, rank, 1 << 20, 1 << 18);
    if (!CHECK(syp_init_config(&c) == SYP_OK)) {
        fprintf(stderr, "rank %d: %s\n", rank, syp_error_text());
        return 1;
    }
    CHECK_EQ(syp_barrier(SYP_COMM_WORLD, NULL), SYP_OK);
    CHECK_EQ(syp_finalize(), SYP_OK);
    return 0;
}

static void many_ranks_of_an_ordinary_user_need_few_descriptors(void) {
    struct ranks r;
    if (!CHECK(ranks_start(&r, 64, 0, limited_rank, NULL) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 120, -1), 0);
    ranks_free(&r);
}

/* -------------------------------------------------------------------------------------- arrivals and absences */

static void a_missing_rank_is_named_in_time(void) {
    uint64_t state = check_seed();
    for (int world = 2; world <= 16; world += (int)check_count(7, 1)) {
        struct ranks r;
        struct scene sc = scene_at_port(world);
        char text[64];
        sc.odd = 1 + (int)(check_random(&state) % (unsigned)(world - 1));
        sc.odd_absent = 1;
        sc.timeout_ns = 1500 * NS_PER_MS; /* rank 0 stays 100 ms longer, for those who come late */
        snprintf(text, sizeof text, "%d of %d ranks joined", world - 1, world);
        run_scene(&r, &sc, world, -1);
        all_got(&r, world, sc.odd, SYP_EJOIN, text);
        snprintf(text, sizeof text, "missing: %d;", sc.odd);
        all_got(&r, world, sc.odd, SYP_EJOIN, text);
        for (int i = 0; i < world; i++) /* each counts from its own start */
            if (i != sc.odd) CHECK(result(&r, i)->took >= 1350 * NS_PER_MS && result(&r, i)->took <= 1650 * NS_PER_MS);
        ranks_free(&r);
    }
}

/* Rank i comes at its place in the order, 20 ms behind the one before. */
static int order[4];

static int play_in_order(struct ranks *r, int i, void *arg) {
    for (int k = 0; k < 4; k++)
        if (order[k] == i) usleep((useconds_t)k * 20000);
    return play(r, i, arg);
}

static void every_order_of_arrival_joins(void) {
    for (int p = 0; p < 24; p++) {
        int left[4] = {0, 1, 2, 3}, code = p;
        for (int k = 0; k < 4; k++) { /* the p-th permutation */
            int pick = code % (4 - k);
            code /= 4 - k;
            order[k] = left[pick];
            for (int m = pick; m < 3 - k; m++)
                left[m] = left[m + 1];
        }
        struct ranks r;
        struct scene sc = p & 1 ? scene_at_port(4) : scene_of(4);
        snprintf(sc.job, sizeof sc.job, "order-%d-%d", (int)getpid(), p);
        CHECK_EQ(ranks_start(&r, 4, MOST * sizeof(struct result), play_in_order, &sc), 0);
        CHECK_EQ(ranks_wait(&r, 60, -1), 0);
        all_joined(&r, 4);
        ranks_free(&r);
    }
}

/* Rank 0 is killed when k ranks have said hello, and started anew, with those that had not come yet. */
static int had_come;

static int play_the_rest(struct ranks *r, int i, void *arg) {
    return i >= 1 && i <= had_come ? 0 : play(r, i, arg);
}

static void rank_0_killed_after_k_hellos_is_replaced(void) {
    int rounds = (int)check_count(3, 50);
    for (int round = 0; round < rounds; round++)
        for (had_come = 0; had_come < 4; had_come++) {
            struct ranks old, again;
            struct scene sc = scene_at_port(5);
            siginfo_t info;
            CHECK_EQ(ranks_start(&old, had_come + 1, MOST * sizeof(struct result), play, &sc), 0);
            usleep(15000 + (useconds_t)(round % 5) * 3000);
            kill(old.pid[0], SIGKILL);
            waitid(P_PID, (id_t)old.pid[0], &info, WEXITED | WNOWAIT); /* its port is free then */
            CHECK_EQ(ranks_start(&again, 5, MOST * sizeof(struct result), play_the_rest, &sc), 0);
            CHECK_EQ(ranks_wait(&old, 60, 0), 0);
            CHECK_EQ(ranks_wait(&again, 60, -1), 0);
            for (int i = 0; i < 5; i++) {
                const struct result *res = i >= 1 && i <= had_come ? result(&old, i) : result(&again, i);
                if (!CHECK(res->rc == SYP_OK)) printf("rank %d: %s\n", i, res->text);
                CHECK_EQ(res->nonce, result(&again, 0)->nonce);
            }
            ranks_free(&again);
            ranks_free(&old);
        }
}

/* ------------------------------------------------------------------------------------------------ versions */

static void another_build_is_named_on_every_rank(void) {
    static const struct {
        uint32_t library;
        uint64_t layout;
        const char *says;
    } odd[] = {{SYP_VERSION + 1, 0, "rank 2 runs sympool version"},
               {0, 0xdef, "rank 2 has memory layout 0000000000000def"}};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        for (int world = 3; world <= 8; world += 5) {
            struct ranks r;
            struct scene sc = scene_at_port(world);
            sc.odd = 2;
            sc.odd_library = odd[i].library;
            sc.odd_layout = odd[i].layout;
            run_scene(&r, &sc, world, -1);
            all_got(&r, world, -1, SYP_EJOIN, odd[i].says); /* the odd one, too */
            all_got(&r, world, -1, SYP_EJOIN, i ? "one build" : "one version");
            for (int k = 0; k < world; k++)
                CHECK_EQ(result(&r, k)->peer, 2);
            ranks_free(&r);
        }
}

int main(void) {
    return check_main("strangers",
                      (struct check_test[]){
                          {"a_thousand_silent_connections_delay_nobody", a_thousand_silent_connections_delay_nobody},
                          {"a_slow_hello_is_dropped_after_two_seconds", a_slow_hello_is_dropped_after_two_seconds},
            {"listens_where_told_and_nowhere_else", listens_where_told_and_nowhere_else},
                          {"many_ranks_of_an_ordinary_user_need_few_descriptors",
                           many_ranks_of_an_ordinary_user_need_few_descriptors},
                          {"a_missing_rank_is_named_in_time", a_missing_rank_is_named_in_time},
                          {"every_order_of_arrival_joins", every_order_of_arrival_joins},
                          {"rank_0_killed_after_k_hellos_is_replaced", rank_0_killed_after_k_hellos_is_replaced},
                          {"another_build_is_named_on_every_rank", another_build_is_named_on_every_rank},
                          {0}});
}
