/* SPDX-License-Identifier: Apache-2.0 */
/* The join and the star under faults: ports of others, death at every stage, strangers on the line, refused system
 * calls. */
#include "tests/ranks/scene.h"

/* --------------------------------------------------------------------------------------- port not ours */

static int server_at(const char *addr, int backlog) {
    struct url u;
    struct url_addr a;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(url_parse(addr, &u) == 0 && url_resolve(&u, &a, 1) == 1);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    CHECK(bind(fd, (struct sockaddr *)&a.addr, a.len) == 0 && listen(fd, backlog) == 0);
    return fd;
}

/* A process that owns the port and answers every connection with `answer`, NULL = keeps silent. */
static pid_t foreign_server(int fd, const char *answer) {
    pid_t pid = fork();
    if (pid) return pid;
    for (;;) {
        int c = accept(fd, NULL, NULL);
        if (c >= 0 && answer) {
            if (*answer && write(c, answer, strlen(answer)) < 0) _exit(1);
            close(c);
        }
    }
}

static void port_in_use(void) {
    static const char *const answers[] = {"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "", NULL};
    static const char *const texts[] = {"not sympool answered at 127.0.0.1:", "without a verdict", "no verdict came"};
    for (int k = 0; k < 3; k++) {
        struct ranks r;
        struct scene sc = scene_at_port(3);
        sc.timeout_ns = 400 * NS_PER_MS;
        int fd = server_at(sc.addr, 64);
        pid_t pid = foreign_server(fd, answers[k]);
        run_scene(&r, &sc, 3, -1);
        CHECK_EQ(result(&r, 0)->rc, SYP_EJOIN);
        CHECK_HAS(result(&r, 0)->text, "port in use");
        CHECK_HAS(result(&r, 0)->text, "EADDRINUSE");
        for (int i = 1; i < 3; i++) {
            CHECK_EQ(result(&r, i)->rc, k == 1 && result(&r, i)->rc == SYP_EPEER ? SYP_EPEER : SYP_EJOIN);
            CHECK_HAS(result(&r, i)->text, texts[k]);
            CHECK(result(&r, i)->took < 5 * NS_PER_S);
        }
        ranks_free(&r);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        close(fd);
    }
}

static void address_of_another_host(void) {
    struct ranks r;
    struct scene sc = scene_of(2);
    snprintf(sc.addr, sizeof sc.addr, "192.0.2.1:3366"); /* TEST-NET-1: nobody has it */
    sc.timeout_ns = 300 * NS_PER_MS;
    run_scene(&r, &sc, 2, -1);
    all_got(&r, 2, -1, SYP_EJOIN, "192.0.2.1:3366");
    CHECK_HAS(result(&r, 0)->text, "not an address of this host");
    ranks_free(&r);
}

/* ----------------------------------------------------------------------------------------------- death */

static void a_rank_dies_after_its_hello(void) {
    struct ranks r;
    for (int k = 0; k < 4; k++) {
        struct scene sc = scene_at_port(5);
        sc.odd = 3;
        sc.odd_dies = 1;
        sc.skew_us = (unsigned)k * 1000;
        /* the last rank never comes, so that only the death can end the join */
        CHECK_EQ(ranks_start(&r, 4, MOST * sizeof(struct result), play, &sc), 0);
        CHECK_EQ(ranks_wait(&r, 60, 3), 0);
        char what[64];
        snprintf(what, sizeof what, "rank 3 (pid %d) died or gave up during the join", (int)result(&r, 3)->self);
        all_got(&r, 4, 3, SYP_EPEER, what);
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(result(&r, i)->peer, 3);
            CHECK_EQ(result(&r, i)->pid, result(&r, 3)->self);
            CHECK(result(&r, i)->took < 5 * NS_PER_S);
        }
        ranks_free(&r);
    }
}

static void rank_0_dies(void) {
    struct ranks r;
    struct scene sc = scene_at_port(3);
    struct {
        struct scene sc;
    } arg = {sc};
    arg.sc.timeout_ns = 10 * NS_PER_S;
    /* rank 0 waits for rank 2, which is not started; then it is killed */
    CHECK_EQ(ranks_start(&r, 2, MOST * sizeof(struct result), play, &arg.sc), 0);
    usleep(50000);
    kill(r.pid[0], SIGKILL);
    CHECK_EQ(ranks_wait(&r, 60, 0), 0);
    CHECK_EQ(result(&r, 1)->rc, SYP_EPEER);
    CHECK_EQ(result(&r, 1)->peer, 0);
    CHECK(result(&r, 1)->took < 8 * NS_PER_S);
    ranks_free(&r);
}

static void rank_0_is_restarted(void) {
    struct ranks first, second;
    struct scene sc = scene_at_port(3);
    CHECK_EQ(ranks_start(&first, 2, MOST * sizeof(struct result), play, &sc), 0);
    usleep(50000);
    kill(first.pid[0], SIGKILL);
    siginfo_t info;
    waitid(P_PID, (id_t)first.pid[0], &info, WEXITED | WNOWAIT); /* its port is free then, as for any supervisor */
    struct scene again = sc; /* processes 0 and 2; the one in between is of the first start */
    again.odd = 1;
    again.odd_absent = 1;
    CHECK_EQ(ranks_start(&second, 3, MOST * sizeof(struct result), play, &again), 0);
    CHECK_EQ(ranks_wait(&first, 60, 0), 0);
    CHECK_EQ(ranks_wait(&second, 60, -1), 0);
    CHECK_EQ(result(&first, 1)->rc, SYP_OK);
    CHECK_EQ(result(&second, 0)->rc, SYP_OK);
    CHECK_EQ(result(&second, 2)->rc, SYP_OK);
    CHECK_EQ(result(&first, 1)->nonce, result(&second, 0)->nonce);
    ranks_free(&first);
    ranks_free(&second);
}

/* ------------------------------------------------------------------------------------------- strangers */

/* A connection to rank 0; when the job has come together there is none any more, and no more to do. */
static int knock(const struct scene *sc) {
    static int met;
    struct url u;
    struct url_addr a;
    url_parse(sc->addr, &u);
    url_resolve(&u, &a, 1);
    for (int k = 0; k < 400 && !(met && k); k++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(fd, (struct sockaddr *)&a.addr, a.len) == 0) {
            met = 1;
            return fd;
        }
        close(fd);
        usleep(200);
    }
    _exit(0);
}

static void say(int fd, const void *bytes, size_t len) {
    ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
    (void)n; /* the other side may have closed already: that is what is tested */
}

/* Garbage, requests of other protocols, half frames, lies about lengths, resets, and many silent ones; all kept open to
 * the end. */
static void nuisance(const struct scene *sc) {
    uint8_t frame[WIRE_HEAD + WIRE_HELLO_MAX];
    struct hello h = hello_of(1, sc->world);
    struct wire payload = {.buf = frame + WIRE_HEAD, .cap = WIRE_HELLO_MAX}, head = {.buf = frame, .cap = WIRE_HEAD};
    wire_put_hello(&payload, &h);
    struct wire_head wh = {.type = WIRE_HELLO, .length = (uint32_t)payload.pos};
    wire_put_head(&head, &wh);
    size_t whole = WIRE_HEAD + payload.pos;
    say(knock(sc), "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
    say(knock(sc), "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
    say(knock(sc), "\0", 1);
    close(knock(sc));
    for (size_t cut = 1; cut < whole; cut += 9) { /* half a hello: closed, reset, or left hanging */
        int fd = knock(sc);
        say(fd, frame, cut);
        struct linger reset = {1, 0};
        if (cut % 3 == 0) setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        if (cut % 3 != 1) close(fd);
    }
    static const uint32_t lies[] = {0, WIRE_HELLO_MAX + 1, WIRE_MAX, 1u << 31, UINT32_MAX};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        uint8_t lie[sizeof frame];
        memcpy(lie, frame, sizeof lie);
        struct wire w = {.buf = lie + 16, .cap = 4};
        wire_put_u32(&w, lies[i]);
        say(knock(sc), lie, whole);
    }
    for (uint8_t type = 0; type < 9; type++) {
        uint8_t other[sizeof frame];
        memcpy(other, frame, sizeof other);
        other[10] = type;
        if (type != WIRE_HELLO) say(knock(sc), other, whole);
    }
    for (int i = 0; i < 50; i++)
        knock(sc);
}

static void strangers_cost_nobody_anything(void) {
    struct ranks r;
    for (int k = 0; k < 4; k++) {
        struct scene sc = scene_at_port(3);
        sc.stranger = nuisance;
        sc.skew_us = (unsigned)k * 30000; /* so that ranks come before, between and after the strangers */
        sc.after = speak;
        run_scene(&r, &sc, 4, -1);
        all_joined(&r, 3);
        ranks_free(&r);
    }
}

/* Every byte of a hello by itself. */
static void drips(const struct scene *sc) {
    struct hello h = hello_of(2, sc->world);
    h.patience_ns = sc->timeout_ns;
    uint8_t frame[WIRE_HEAD + WIRE_HELLO_MAX];
    struct wire payload = {.buf = frame + WIRE_HEAD, .cap = WIRE_HELLO_MAX}, head = {.buf = frame, .cap = WIRE_HEAD};
    wire_put_hello(&payload, &h);
    struct wire_head wh = {.type = WIRE_HELLO, .length = (uint32_t)payload.pos};
    wire_put_head(&head, &wh);
    int fd = knock(sc), one = 1;
    setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof one);
    for (size_t i = 0; i < WIRE_HEAD + payload.pos; i++) {
        say(fd, frame + i, 1);
        usleep(200);
    }
    char byte;
    if (recv(fd, &byte, 1, 0) != 1) _exit(1); /* the verdict */
    pause();
}

static void a_hello_in_single_bytes_is_one(void) {
    struct ranks r;
    struct scene sc = scene_at_port(3);
    /* process 2 is not a rank of ours: it talks by hand */
    sc.odd = 2;
    sc.odd_absent = 1;
    pid_t pid = fork();
    if (pid == 0) {
        drips(&sc);
        _exit(0);
    }
    CHECK_EQ(ranks_start(&r, 3, MOST * sizeof(struct result), play, &sc), 0);
    CHECK_EQ(ranks_wait(&r, 60, -1), 0);
    all_joined(&r, 2);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    ranks_free(&r);
}

/* Rank 0 itself answers a hello of another wire version, and all are told. */
static void other_version(const struct scene *sc) {
    uint8_t frame[WIRE_HEAD] = {0};
    struct wire w = {.buf = frame, .cap = sizeof frame};
    wire_put_u64(&w, WIRE_MAGIC);
    wire_put_u16(&w, WIRE_VERSION + 1);
    int fd = knock(sc);
    say(fd, frame, sizeof frame);
    char answer[64];
    if (recv(fd, answer, sizeof answer, 0) <= 0) _exit(1);
}

static void another_wire_version_is_named(void) {
    struct ranks r;
    struct scene sc = scene_at_port(3);
    sc.stranger = other_version;
    sc.odd = 2;
    sc.odd_absent = 1;
    sc.timeout_ns = 5 * NS_PER_S;
    run_scene(&r, &sc, 4, -1);
    all_got(&r, 2, -1, SYP_EJOIN, "speaks wire version 2, rank 0 speaks 1");
    ranks_free(&r);
}

/* ---------------------------------------------------------------------------------------- after the join */

static void second_dies(struct star *s, const struct roster *roster, int rank, struct result *res) {
    (void)roster;
    uint64_t deadline = os->now() + 10 * NS_PER_S;
    CHECK_EQ(star_barrier(s, deadline), SYP_OK);
    if (rank == 2) kill(getpid(), SIGKILL);
    keep_error(res, star_barrier(s, deadline));
    CHECK_EQ(star_barrier(s, deadline), res->rc); /* and so for ever */
    CHECK_EQ(star_broadcast(s, res, 0, deadline), res->rc);
}

static void death_after_the_join_is_told_to_all(void) {
    struct ranks r;
    struct scene sc = scene_at_port(4);
    sc.after = second_dies;
    run_scene(&r, &sc, 4, 2);
    all_got(&r, 4, 2, SYP_EPEER, "rank 2 (pid ");
    for (int i = 0; i < 4; i++)
        if (i != 2) CHECK_EQ(result(&r, i)->pid, result(&r, 2)->self);
    ranks_free(&r);
}

static void zero_dies(struct star *s, const struct roster *roster, int rank, struct result *res) {
    (void)roster;
    if (rank == 0) kill(getpid(), SIGKILL);
    keep_error(res, star_barrier(s, os->now() + 10 * NS_PER_S));
}

static void death_of_rank_0_is_seen_by_all(void) {
    struct ranks r;
    struct scene sc = scene_at_port(4);
    sc.after = zero_dies;
    run_scene(&r, &sc, 4, 0);
    all_got(&r, 4, 0, SYP_EPEER, "rank 0 (pid ");
    ranks_free(&r);
}

static int quitter;

static void gives_up(struct star *s, const struct roster *roster, int rank, struct result *res) {
    (void)roster;
    uint64_t deadline = os->now() + 10 * NS_PER_S;
    CHECK_EQ(star_barrier(s, deadline), SYP_OK);
    if (rank == quitter) {
        int code = err_set(SYP_ENOMEM, "no room for the pool");
        star_abort(s);
        keep_error(res, code);
    } else {
        keep_error(res, star_barrier(s, deadline));
    }
}

static void giving_up_is_told_to_all(void) {
    struct ranks r;
    for (quitter = 0; quitter < 3; quitter++) {
        struct scene sc = scene_at_port(3);
        sc.after = gives_up;
        run_scene(&r, &sc, 3, -1);
        char what[128];
        snprintf(what, sizeof what, "rank %d (pid %d) could not attach: no room for the pool (SYP_ENOMEM)", quitter,
                 (int)result(&r, quitter)->self);
        all_got(&r, 3, quitter, SYP_EJOIN, what);
        CHECK_EQ(result(&r, quitter)->code, SYP_ENOMEM);
        CHECK_STR(result(&r, quitter)->text, "no room for the pool");
        for (int i = 0; i < 3; i++)
            if (i != quitter) CHECK_EQ(result(&r, i)->peer, quitter);
        ranks_free(&r);
    }
}

static void stays_away(struct star *s, const struct roster *roster, int rank, struct result *res) {
    (void)roster;
    CHECK_EQ(star_barrier(s, os->now() + 10 * NS_PER_S), SYP_OK);
    if (rank == 1 || rank == 3)
        usleep(700000);
    else
        keep_error(res, star_barrier(s, os->now() + 200 * NS_PER_MS));
}

static void the_deadline_names_who_is_late(void) {
    struct ranks r;
    struct scene sc = scene_at_port(5);
    sc.after = stays_away;
    run_scene(&r, &sc, 5, -1);
    for (int i = 0; i < 5; i += 2) {
        CHECK_EQ(result(&r, i)->rc, SYP_ETIMEOUT);
        CHECK_HAS(result(&r, i)->text, "waited for ranks 1, 3");
        CHECK_EQ(result(&r, i)->peer, 1);
    }
    ranks_free(&r);
}

/* A stopped member with full buffers must not keep the others from their data. */
static void stops(struct star *s, const struct roster *roster, int rank, struct result *res) {
    size_t len = 8 << 20;
    uint8_t *buf = calloc(1, len);
    (void)roster;
    CHECK_EQ(star_barrier(s, os->now() + 10 * NS_PER_S), SYP_OK);
    if (rank == 1)
        usleep(900000);
    else {
        uint64_t start = os->now();
        int rc = star_broadcast(s, buf, len, start + 400 * NS_PER_MS);
        keep_error(res, rc);
        res->took = os->now() - start;
    }
    free(buf);
}

static void a_stopped_rank_blocks_only_itself(void) {
    struct ranks r;
    struct scene sc = scene_at_port(3);
    sc.after = stops;
    run_scene(&r, &sc, 3, -1);
    CHECK_EQ(result(&r, 0)->rc, SYP_ETIMEOUT);
    CHECK_HAS(result(&r, 0)->text, "ranks 1;");
    CHECK(result(&r, 0)->took < 5 * NS_PER_S);
    CHECK(result(&r, 2)->rc == SYP_OK || result(&r, 2)->rc == SYP_ETIMEOUT);
    ranks_free(&r);
}

/* Each system call of each side refused once: it joins all the same or all fail in time, and nothing is left open. */
static void any_call_may_be_refused(void) {
    static const int errors[] = {EMFILE, ENOMEM, EINTR, ECONNABORTED, EACCES};
    uint64_t step = check_count(3, 1);
    for (int side = 0; side < 2; side++) {
        int refused = 1;
        for (unsigned call = 1; refused && call < 200; call += (unsigned)step) {
            struct ranks r;
            struct scene sc = scene_at_port(3);
            sc.timeout_ns = 150 * NS_PER_MS;
            sc.fail_process = side;
            sc.fail_call = call;
            sc.fail_errno = errors[(call / step) % 5];
            run_scene(&r, &sc, 3, -1);
            refused = result(&r, side)->refused;
            int joined = 0;
            for (int i = 0; i < 3; i++) {
                CHECK_EQ(result(&r, i)->done, 1);
                CHECK(result(&r, i)->took < 5 * NS_PER_S);
                joined += result(&r, i)->rc == SYP_OK;
                if (result(&r, i)->rc) CHECK(result(&r, i)->text[0] != 0);
            }
            if (!refused) CHECK_EQ(joined, 3);
            ranks_free(&r);
        }
        CHECK_EQ(refused, 0); /* the last run was one without a fault */
    }
}

static void leaves_nothing(void) {
    int fds = count_open_fds();
    struct ranks r;
    struct scene sc = scene_at_port(1);
    run_scene(&r, &sc, 1, -1);
    all_joined(&r, 1);
    ranks_free(&r);
    CHECK_EQ(count_open_fds(), fds);
}

int main(void) {
    return check_main("rendezvous_faults",
                      (struct check_test[]){
                          {"port_in_use", port_in_use},
                          {"address_of_another_host", address_of_another_host},
                          {"a_rank_dies_after_its_hello", a_rank_dies_after_its_hello},
                          {"rank_0_dies", rank_0_dies},
                          {"rank_0_is_restarted", rank_0_is_restarted},
                          {"strangers_cost_nobody_anything", strangers_cost_nobody_anything},
                          {"a_hello_in_single_bytes_is_one", a_hello_in_single_bytes_is_one},
                          {"another_wire_version_is_named", another_wire_version_is_named},
                          {"death_after_the_join_is_told_to_all", death_after_the_join_is_told_to_all},
                          {"death_of_rank_0_is_seen_by_all", death_of_rank_0_is_seen_by_all},
                          {"giving_up_is_told_to_all", giving_up_is_told_to_all},
                          {"the_deadline_names_who_is_late", the_deadline_names_who_is_late},
                          {"a_stopped_rank_blocks_only_itself", a_stopped_rank_blocks_only_itself},
                          {"any_call_may_be_refused", any_call_may_be_refused},
                          {"leaves_nothing", leaves_nothing},
                          {0},
                      });
}
