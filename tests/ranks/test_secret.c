/* SPDX-License-Identifier: Apache-2.0 */
/* The shared secret: who has it joins, who has not is refused with a reason, and no frame between them can be altered,
 * replayed or reflected without the join failing or the connection being dropped. */
#include "bootstrap/star.h"
#include "tests/ranks/scene.h"

#include <poll.h>
#include <sys/stat.h>

static char folder[] = "/tmp/sympool-secret-XXXXXX";

static const char *file_of(const char *name) {
    static char path[4][128];
    static int turn;
    char *p = path[turn++ & 3];
    snprintf(p, 128, "%s/%s", folder, name);
    return p;
}

/* A file of len bytes that differ from name to name. */
static void write_file(const char *name, size_t len, mode_t mode) {
    int fd = open(file_of(name), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    char bytes[64];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)('A' + (name[0] + (int)i) % 26);
    if (fd < 0 || write(fd, bytes, len) != (ssize_t)len) exit(1);
    close(fd);
    chmod(file_of(name), mode);
}

static void set_secret(const char *name) {
    if (name)
        setenv("SYMPOOL_SECRET_FILE", file_of(name), 1);
    else
        unsetenv("SYMPOOL_SECRET_FILE");
    conf_reset();
}

static void prepare(void) {
    const char *build = getenv("B");
    char dir[1024];
    snprintf(dir, sizeof dir, "%s/modules", build && *build ? build : "build");
    setenv("SYMPOOL_MODULE_DIR", dir, 1);
    if (!mkdtemp(folder)) exit(1);
    chmod(folder, 0755);
    write_file("good", 32, 0600);
    write_file("other", 32, 0600);
}

static void clean_up(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    if (system(command)) exit(1);
}

/* ------------------------------------------------------------------------------------------------ joins */

static void ranks_with_one_secret_join(void) {
    struct ranks r;
    set_secret("good");
    for (int k = 0; k < 8; k++) {
        int n = 2 + k;
        struct scene sc = k & 1 ? scene_at_port(n) : scene_of(n);
        snprintf(sc.job, sizeof sc.job, "secret-%d-%d", (int)getpid(), k);
        sc.skew_us = 3000;
        sc.after = speak; /* several frames per direction, some of them large */
        run_scene(&r, &sc, n, -1);
        all_joined(&r, n);
        ranks_free(&r);
    }
    struct scene alone = scene_of(1);
    run_scene(&r, &alone, 1, -1);
    all_joined(&r, 1);
    ranks_free(&r);
    set_secret(NULL);
}

/* ---------------------------------------------------------------------------------------------- refused */

struct secrets {
    const char *of[4]; /* file of each process, NULL = none */
    int world, at_port;
};

static struct secrets cast;

static int play_with_secret(struct ranks *r, int i, void *arg) {
    set_secret(cast.of[i]);
    return play(r, i, arg);
}

static void run_cast(struct ranks *r, const struct secrets *c, uint64_t timeout) {
    static int jobs;
    cast = *c;
    struct scene sc = c->at_port ? scene_at_port(c->world) : scene_of(c->world);
    snprintf(sc.job, sizeof sc.job, "cast-%d-%d", (int)getpid(), ++jobs);
    sc.timeout_ns = timeout;
    CHECK_EQ(ranks_start(r, c->world, MOST * sizeof(struct result), play_with_secret, &sc), 0);
    CHECK_EQ(ranks_wait(r, 60, -1), 0);
    for (int i = 0; i < c->world; i++)
        CHECK_EQ(result(r, i)->fds_left, 0);
}

static void another_secret_is_refused_and_named(void) {
    for (int at_port = 0; at_port < 2; at_port++) {
        struct ranks r;
        struct secrets c = {.of = {"good", "good", "other"}, .world = 3, .at_port = at_port};
        run_cast(&r, &c, 600 * NS_PER_MS);
        all_got(&r, 3, -1, SYP_EJOIN, "another secret");
        CHECK(result(&r, 2)->took < 400 * NS_PER_MS); /* told at once */
        CHECK_HAS(result(&r, 2)->text, "SYMPOOL_SECRET_FILE");
        for (int i = 0; i < 2; i++) /* they cannot believe who it says it is */
            CHECK_HAS(result(&r, i)->text, "missing: 2");
        ranks_free(&r);
        struct secrets turned = {.of = {"other", "good", "good"}, .world = 3, .at_port = at_port};
        run_cast(&r, &turned, 600 * NS_PER_MS);
        all_got(&r, 3, -1, SYP_EJOIN, "another secret");
        ranks_free(&r);
    }
}

static void no_secret_beside_a_secret_is_refused(void) {
    for (int at_port = 0; at_port < 2; at_port++) {
        struct ranks r;
        struct secrets c = {.of = {"good", "good", NULL}, .world = 3, .at_port = at_port};
        run_cast(&r, &c, 600 * NS_PER_MS);
        all_got(&r, 3, -1, SYP_EJOIN, "it has no secret, rank 0 has one");
        CHECK(result(&r, 2)->took < 400 * NS_PER_MS);
        ranks_free(&r);
        struct secrets turned = {.of = {NULL, NULL, "good"}, .world = 3, .at_port = at_port};
        run_cast(&r, &turned, 5 * NS_PER_S);
        all_got(&r, 3, -1, SYP_EJOIN, "it has a secret, rank 0 has none");
        for (int i = 0; i < 3; i++)
            CHECK(result(&r, i)->took < 2 * NS_PER_S); /* nobody waits for the deadline */
        ranks_free(&r);
    }
}

static int socket_at(const char *addr, int listening) {
    struct url u;
    struct url_addr a;
    int one = 1;
    if (url_parse(addr, &u) || url_resolve(&u, &a, 1) != 1) _exit(1);
    for (int k = 0; k < 2000; k++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (listening && bind(fd, (struct sockaddr *)&a.addr, a.len) == 0 && listen(fd, 64) == 0) return fd;
        if (!listening && connect(fd, (struct sockaddr *)&a.addr, a.len) == 0) return fd;
        close(fd);
        usleep(500);
    }
    _exit(2);
}

/* A stranger that knows the protocol but not the secret: it greets and says a hello that is not sealed, or sealed with
 * nothing.  Rank 1 comes when it has its answer. */
static int play_beside_an_impostor(struct ranks *r, int i, void *arg) {
    const struct scene *sc = arg;
    _Atomic int *answered = (_Atomic int *)(void *)((char *)r->shared + MOST * sizeof(struct result));
    for (int k = 0; i == 1 && k < 10000 && !*answered; k++)
        usleep(500);
    if (i < 2) return play(r, i, arg);
    uint8_t nothing[WIRE_MAC] = {0};
    for (int sealed = 0; sealed < 2; sealed++) {
        uint8_t frame[WIRE_HEAD + WIRE_HELLO_MAX], answer[2048];
        struct wire w = {.buf = frame + WIRE_HEAD, .cap = WIRE_HELLO_MAX};
        struct hello h = hello_of(1, 2);
        int fd = socket_at(sc->addr, 0);
        head_put(frame, WIRE_GREET, WIRE_NONCE, 0, 0);
        memset(frame + WIRE_HEAD, 7, WIRE_NONCE);
        CHECK_EQ(send(fd, frame, WIRE_HEAD + WIRE_NONCE, MSG_NOSIGNAL), WIRE_HEAD + WIRE_NONCE);
        CHECK_EQ(recv(fd, answer, sizeof answer, 0), WIRE_HEAD + WIRE_NONCE);
        wire_put_hello(&w, &h);
        head_put(frame, WIRE_HELLO, w.pos, 0, sealed);
        send(fd, frame, WIRE_HEAD + w.pos, MSG_NOSIGNAL);
        if (sealed) send(fd, nothing, sizeof nothing, MSG_NOSIGNAL);
        CHECK(recv(fd, answer, sizeof answer, 0) > WIRE_HEAD);
        CHECK_EQ(answer[10], WIRE_REJECT);
        close(fd);
    }
    *answered = 1;
    return 0;
}

static void a_hello_without_the_proof_is_refused(void) {
    struct ranks r;
    struct scene sc = scene_at_port(2);
    set_secret("good");
    CHECK_EQ(ranks_start(&r, 3, MOST * sizeof(struct result) + 64, play_beside_an_impostor, &sc), 0);
    CHECK_EQ(ranks_wait(&r, 60, -1), 0);
    all_joined(&r, 2);
    ranks_free(&r);
    set_secret(NULL);
}

/* ------------------------------------------------------------------------------------------------- files */

static int join_alone_with(const char *path, char *text, size_t cap) {
    struct launch l = {.n_ranks = 1, .local_rank = -1, .local_size = -1, .source = "test", .listen_fd = -1};
    struct hello h = hello_of(0, 1);
    struct roster roster;
    struct star *s;
    static int warm;
    setenv("SYMPOOL_SECRET_FILE", path, 1);
    conf_reset();
    int fds = count_open_fds(), maps = count_mappings();
    int rc = rendezvous_join(&l, &h, os->now() + NS_PER_S, &roster, &s);
    snprintf(text, cap, "%s", err_record()->text);
    if (rc == SYP_OK) {
        star_close(s);
        roster_free(&roster);
    }
    CHECK_EQ(count_open_fds(), fds);
    CHECK(warm == 0 || count_mappings() <= maps); /* the first call opens the module, which stays */
    warm = 1;
    set_secret(NULL);
    return rc;
}

static void bad_files_are_refused(void) {
    static const struct {
        const char *name;
        size_t len;
        mode_t mode;
        const char *says;
    } file[] = {
        {"empty", 0, 0600, "is empty"},
        {"short", 31, 0600, "too short: it has 31 bytes"},
        {"long", 33, 0600, "too long: it has 33"},
        {"group", 32, 0640, "has mode 0640"},
        {"world", 32, 0644, "has mode 0644"},
        {"write", 32, 0602, "has mode 0602"},
    };
    char text[1024];
    CHECK_EQ(join_alone_with(file_of("good"), text, sizeof text), SYP_OK);
    for (size_t i = 0; i < sizeof file / sizeof *file; i++) {
        write_file(file[i].name, file[i].len, file[i].mode);
        CHECK_EQ(join_alone_with(file_of(file[i].name), text, sizeof text), SYP_EINVAL);
        CHECK_HAS(text, file[i].says);
        CHECK_HAS(text, file_of(file[i].name));
        char bytes[64] = {0};
        for (int k = 0; k < 6; k++) /* six of its bytes in a row would be no accident */
            bytes[k] = (char)('A' + (file[i].name[0] + k) % 26);
        CHECK(strstr(text, bytes) == NULL);
    }
    CHECK_EQ(symlink(file_of("good"), file_of("link")), 0);
    CHECK_EQ(join_alone_with(file_of("link"), text, sizeof text), SYP_EINVAL);
    CHECK_HAS(text, "is a symbolic link");
    CHECK_EQ(mkfifo(file_of("fifo"), 0600), 0);
    CHECK_EQ(join_alone_with(file_of("fifo"), text, sizeof text), SYP_EINVAL);
    CHECK_HAS(text, "not a regular file");
    CHECK_EQ(join_alone_with(folder, text, sizeof text), SYP_EINVAL);
    CHECK_HAS(text, "not a regular file");
    CHECK_EQ(join_alone_with(file_of("absent"), text, sizeof text), SYP_ESYS);
    CHECK_HAS(text, "ENOENT");
}

static void a_file_of_another_user_is_refused(void) {
    char text[1024];
    write_file("their", 32, 0600);
    if (chown(file_of("their"), 12345, (gid_t)-1)) {
        check_skip("only root can give a file to another user");
        return;
    }
    CHECK_EQ(join_alone_with(file_of("their"), text, sizeof text), SYP_EINVAL);
    CHECK_HAS(text, "belongs to user 12345");
}

static void without_the_module_there_is_no_way(void) {
    char text[1024], *dir = strdup(getenv("SYMPOOL_MODULE_DIR"));
    setenv("SYMPOOL_MODULE_DIR", folder, 1);
    CHECK_EQ(join_alone_with(file_of("good"), text, sizeof text), SYP_EUNSUPPORTED);
    CHECK_HAS(text, "sympool-auth.so was not found");
    CHECK_HAS(text, "SYMPOOL_SECRET_FILE");
    setenv("SYMPOOL_MODULE_DIR", dir, 1);
    free(dir);
    CHECK_EQ(join_alone_with(file_of("good"), text, sizeof text), SYP_OK);
}

/* ---------------------------------------------------------------------------------------- in the middle */

/* A man in the middle of rank 1's first connection: it listens at the address that rank 1 is given and passes
 * everything on, but for one changed byte. */
static struct middle {
    int to_root; /* direction of the change */
    size_t at;   /* byte of that direction */
    uint8_t flip;
    char listen[64], root[64];
} middle;

/* Pass on what has come; `done` counts the bytes of this direction.  0 = that side has closed. */
static int pass_on(int from, int to, int altering, size_t *done) {
    uint8_t buf[1 << 16];
    ssize_t n = recv(from, buf, sizeof buf, 0);
    if (n <= 0) return 0;
    if (altering && middle.at >= *done && middle.at < *done + (size_t)n) buf[middle.at - *done] ^= middle.flip;
    *done += (size_t)n;
    return send(to, buf, (size_t)n, MSG_NOSIGNAL) == n;
}

static void be_in_the_middle(void) {
    int listener = socket_at(middle.listen, 1);
    for (int first = 1;; first = 0) {
        int a = accept(listener, NULL, NULL), b = socket_at(middle.root, 0);
        size_t up = 0, down = 0;
        for (int going = 1; going;) {
            struct pollfd p[2] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
            poll(p, 2, -1);
            if (p[0].revents) going = pass_on(a, b, first && middle.to_root, &up);
            if (going && p[1].revents) going = pass_on(b, a, first && !middle.to_root, &down);
        }
        close(a);
        close(b);
    }
}

/* After the join: what an attach does with the star.  Whoever gets through has got the right bytes. */
static void some_frames(struct star *s, const struct roster *roster, int rank, struct result *res) {
    uint64_t mine = 7 + (uint64_t)rank, all[8] = {0}, deadline = os->now() + NS_PER_S / 4;
    int rc = star_allgather(s, &mine, sizeof mine, all, deadline);
    for (int i = 0; rc == SYP_OK && i < roster->n; i++)
        CHECK_EQ(all[i], 7 + i);
    if (rc == SYP_OK) rc = star_barrier(s, deadline);
    keep_error(res, rc);
}

static int play_around(struct ranks *r, int i, void *arg) {
    struct scene sc = *(struct scene *)arg;
    if (i == 2) be_in_the_middle();
    if (i == 1) snprintf(sc.addr, sizeof sc.addr, "%s", middle.listen);
    return play(r, i, &sc);
}

/* 1 = both ranks have joined and gone through the star. */
static int join_through(struct ranks *r, uint64_t timeout) {
    struct scene sc = scene_at_port(2);
    snprintf(middle.root, sizeof middle.root, "%s", sc.addr);
    free_port(middle.listen);
    sc.timeout_ns = timeout;
    sc.after = some_frames;
    CHECK_EQ(ranks_start(r, 3, MOST * sizeof(struct result), play_around, &sc), 0);
    for (int k = 0; k < 20000 && !(result(r, 0)->done && result(r, 1)->done); k++)
        usleep(500);
    kill(r->pid[2], SIGKILL);
    CHECK_EQ(ranks_wait(r, 30, 2), 0);
    return result(r, 0)->rc == SYP_OK && result(r, 1)->rc == SYP_OK;
}

/* Bytes that a rank and rank 0 send each other: greeting, hello or roster, an allgather, a barrier. */
#define GREET_LEN (WIRE_HEAD + WIRE_NONCE)
#define SEAL_LEN (WIRE_HEAD + WIRE_MAC)

static size_t hello_len(void) {
    uint8_t buf[WIRE_HELLO_MAX];
    struct hello h = hello_of(1, 2);
    struct wire w = {.buf = buf, .cap = sizeof buf};
    wire_put_hello(&w, &h);
    return w.pos + SEAL_LEN;
}

static size_t roster_len(void) { /* the addresses, at least 11 characters each, are not counted in full */
    return SEAL_LEN + 16 + 2 * (90 + 11);
}

static void the_middle_alone_changes_nothing(void) {
    struct ranks r;
    set_secret("good");
    middle = (struct middle){.flip = 0};
    if (!CHECK(join_through(&r, 5 * NS_PER_S))) printf("%s; %s\n", result(&r, 0)->text, result(&r, 1)->text);
    ranks_free(&r);
    set_secret(NULL);
}

/* Both ranks fail, with a reason; only where rank 0 drops the connection before it has taken the hello may the rank
 * come again, over a connection that is clean. */
static void an_altered_byte_never_joins(void) {
    uint64_t state = check_seed();
    set_secret("good");
    for (int to_root = 0; to_root < 2; to_root++) {
        size_t first = GREET_LEN + (to_root ? hello_len() : roster_len());
        size_t len = first + SEAL_LEN + (to_root ? 8 : 16) + SEAL_LEN, step = check_count(19, 1);
        for (size_t at = check_random(&state) % step; at < len; at += step) {
            struct ranks r;
            middle = (struct middle){.to_root = to_root, .at = at, .flip = (uint8_t)(1u << (check_random(&state) % 8))};
            int joined = join_through(&r, 400 * NS_PER_MS);
            if (joined && !CHECK(at < (to_root ? first : GREET_LEN)))
                printf("byte %zu %s rank 0, bit 0x%x\n", at, to_root ? "to" : "from", middle.flip);
            for (int i = 0; i < 2 && !joined; i++) {
                CHECK(result(&r, i)->done);
                CHECK(result(&r, i)->took < 3 * NS_PER_S);
                if (result(&r, i)->rc != SYP_OK) CHECK(strlen(result(&r, i)->text) > 20);
            }
            /* the last frame may reach one of them before the other finds out */
            if (!joined && at < len - SEAL_LEN) CHECK(result(&r, 0)->rc != SYP_OK && result(&r, 1)->rc != SYP_OK);
            ranks_free(&r);
        }
    }
    set_secret(NULL);
}

int main(void) {
    prepare();
    int rc = check_main(
        "secret", (struct check_test[]){{"ranks_with_one_secret_join", ranks_with_one_secret_join},
                                        {"another_secret_is_refused_and_named", another_secret_is_refused_and_named},
                                        {"no_secret_beside_a_secret_is_refused", no_secret_beside_a_secret_is_refused},
                                        {"a_hello_without_the_proof_is_refused", a_hello_without_the_proof_is_refused},
                                        {"bad_files_are_refused", bad_files_are_refused},
                                        {"a_file_of_another_user_is_refused", a_file_of_another_user_is_refused},
                                        {"without_the_module_there_is_no_way", without_the_module_there_is_no_way},
                                        {"the_middle_alone_changes_nothing", the_middle_alone_changes_nothing},
                                        {"an_altered_byte_never_joins", an_altered_byte_never_joins},
                                        {0}});
    clean_up();
    return rc;
}
