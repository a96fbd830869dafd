/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strangers at rank 0's door while two honest ranks join: they cost the ranks nothing, get no memory, and are sent off; and the door is where
 * it was said to be, nowhere else.
 */
#include "pool/base/conf.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/hostile.h"
#include "tests/support/ranks.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A port that is free on all families just now. */
static unsigned free_port(void) {
    static unsigned count;
    for (;;) {
        unsigned port = 10000 + ((unsigned)getpid() * 131 + ++count) % 22000;
        struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
        int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), taken = bind(fd, (struct sockaddr *)&a, sizeof a);
        close(fd);
        if (!taken) return port;
    }
}

static const char *here(void) {
    static char addr[64];
    snprintf(addr, sizeof addr, "tcp://127.0.0.1:%u", free_port());
    return addr;
}

static void both_joined(const struct honest *h) {
    for (int i = 0; i < 2; i++)
        if (h->rc[i]) check_fail(__FILE__, __LINE__, "rank %d: %d: %s", i, h->rc[i], h->text[i]);
    CHECK_EQ(h->rc[0] | h->rc[1], 0);
    /* the roster goes out in a frame of its own, when all are there: bounded by the world, not by a stranger */
    CHECK(h->largest <= 64 << 10 || h->largest == round_up(WIRE_MAX, 4096));
}

/* ------------------------------------------------------------------------------------------ what they say */

static struct honest honest;

/* One stranger after another says this, closing the way `how` tells: 0 orderly, 1 by a reset, 2 left open until the end. */
static int open_ends[2048];
static int n_open;

static void stranger(const void *bytes, size_t len, int how) {
    int fd = hostile_connect(honest.addr);
    if (!CHECK(fd >= 0)) return;
    hostile_say(fd, bytes, len);
    if (how == 1)
        hostile_reset(fd);
    else if (how == 0 || n_open == (int)(sizeof open_ends / sizeof *open_ends))
        close(fd);
    else
        open_ends[n_open++] = fd;
}

static void begin(void) {
    n_open = 0;
    honest_begin(&honest, here(), 20 * NS_PER_S);
}

/* All that are left open see rank 0 hang up once the job has come together. */
static void end(void) {
    honest_second(&honest);
    honest_end(&honest);
    both_joined(&honest);
    for (int i = 0; i < n_open; i++) {
        if (!hostile_closed(open_ends[i], 3000)) check_fail(__FILE__, __LINE__, "stranger %d is still connected", i);
        close(open_ends[i]);
    }
}

static void other_protocols_are_sent_off(void) {
    static const struct {
        const char *bytes;
        size_t len;
    } words[] = {{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27},
                 {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11},
                 {"SSH-2.0-OpenSSH_9.2\r\n", 21},
                 {"", 0},
                 {"\0", 1},
                 {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 29}};
    uint64_t state = check_seed();
    begin();
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        for (int how = 0; how < 3; how++)
            stranger(words[i].bytes, words[i].len, how);
    for (int i = 0; i < 200; i++) {
        uint8_t noise[600];
        for (size_t k = 0; k < sizeof noise; k++)
            noise[k] = (uint8_t)check_random(&state);
        stranger(noise, check_random(&state) % sizeof noise, i % 3);
    }
    end();
}

static void half_a_hello_is_no_rank(void) {
    uint8_t frame[HOSTILE_FRAME];
    size_t whole = hostile_hello(frame, 1, 2, "another");
    for (int how = 0; how < 3; how++) {
        begin();
        for (size_t cut = 0; cut < whole; cut += check_count(3, 1))
            stranger(frame, cut, how);
        end();
    }
}

/* A lie in any word of a frame's head, about anything: length, type, flags, magic; the frame goes on as it says or not. */
static void lies_in_the_head_are_refused(void) {
    static const uint64_t values[] = {0, 1, 7, 27, WIRE_HELLO_MAX + 1, WIRE_MAX, WIRE_MAX + 1, 0x7fffffff, 0x80000000, 0xffffffff};
    static const struct {
        size_t at, len;
    } words[] = {{0, 4}, {4, 4}, {10, 2}, {12, 4}, {16, 4}};
    uint8_t frame[HOSTILE_FRAME], lie[HOSTILE_FRAME];
    size_t whole = hostile_hello(frame, 1, 2, "another");
    for (size_t w = 0; w < sizeof words / sizeof *words; w++) {
        begin();
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            memcpy(lie, frame, sizeof lie);
            memcpy(lie + words[w].at, &values[v], words[w].len);
            for (int how = 0; how < 3; how++)
                stranger(lie, whole, how);
        }
        end();
    }
}

/* A hello of another job, sent again and again, from many connections at once, then with what rank 0 answered. */
static void replayed_hellos_of_another_job_change_nothing(void) {
    uint8_t frame[2 * HOSTILE_FRAME], answer[1024];
    size_t whole = hostile_hello(frame, 1, 2, "another");
    memcpy(frame + whole, frame, whole);
    begin();
    for (int i = 0; i < 60; i++)
        stranger(frame, whole * (size_t)(1 + i % 2), i % 3);
    int fd = hostile_connect(honest.addr);
    hostile_say(fd, frame, whole);
    ssize_t n = recv(fd, answer, sizeof answer, 0);
    close(fd);
    CHECK(n > WIRE_HEAD && memmem(answer, (size_t)n, "belongs to job", 14) != NULL);
    for (int how = 0; how < 3; how++)
        stranger(answer, n > 0 ? (size_t)n : 0, how); /* its own words come back */
    end();
}

/* --------------------------------------------------------------------------------------------- how many they are */

static _Atomic int scanning;

static void *scan(void *arg) {
    (void)arg;
    for (unsigned i = 0; scanning; i++) {
        int fd = hostile_connect(honest.addr);
        if (fd < 0) break;
        if (i % 2)
            hostile_reset(fd);
        else
            close(fd);
    }
    return NULL;
}

/* How long rank 1 takes to join, with so many silent connections and a port scan. */
static uint64_t join_time(int silent) {
    pthread_t scanner;
    begin();
    scanning = silent > 0;
    if (silent) pthread_create(&scanner, NULL, scan, NULL);
    for (int i = 0; i < silent; i++)
        stranger("", 0, 2);
    honest_second(&honest);
    honest_end(&honest);
    scanning = 0;
    if (silent) pthread_join(scanner, NULL);
    both_joined(&honest);
    for (int i = 0; i < n_open; i++)
        close(open_ends[i]);
    return honest.took[1];
}

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void a_thousand_silent_connections_cost_no_time(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < 4096) {
        check_skip("fewer than 4,096 descriptors allowed");
        return;
    }
    uint64_t plain[32], crowd[32], n = check_count(5, 25);
    for (uint64_t i = 0; i < n; i++) {
        plain[i] = join_time(0);
        crowd[i] = join_time(1000);
    }
    qsort(plain, n, sizeof *plain, by_size);
    qsort(crowd, n, sizeof *crowd, by_size);
    printf("  join: median %.1f ms alone, %.1f ms among 1,000 silent connections and a scan\n", (double)plain[n / 2] / 1e6,
           (double)crowd[n / 2] / 1e6);
    CHECK(crowd[n / 2] <= plain[n / 2] + 100 * NS_PER_MS);
}

/* ------------------------------------------------------------------------------------------------ the door */

/* Is this socket one of ours? */
static int ours(unsigned long inode) {
    char path[64], want[64], link[128];
    snprintf(want, sizeof want, "socket:[%lu]", inode);
    for (int fd = 0; fd < 256; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, link, sizeof link - 1);
        if (n > 0 && (size_t)n == strlen(want) && memcmp(link, want, (size_t)n) == 0) return 1;
    }
    return 0;
}

/* Local ends, as /proc prints them, of this process's listening sockets of one family; returns how many. */
static int listening(const char *table, char out[4][48]) {
    char line[512], local[64], remote[64];
    unsigned state;
    unsigned long inode;
    int n = 0;
    FILE *f = fopen(table, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, " %*d: %63s %63s %x %*s %*s %*s %*u %*u %lu", local, remote, &state, &inode) == 4 && state == 10 && n < 4 && ours(inode))
            snprintf(out[n++], 48, "%.47s", local);
    if (f) fclose(f);
    return n;
}

/* want4, want6: what /proc says of the address, NULL = no socket of that family. */
static void listens_at(const char *host, const char *want4, const char *want6) {
    char addr[64], four[4][48], six[4][48], port[16];
    unsigned number = free_port();
    snprintf(addr, sizeof addr, "tcp://%s:%u", host, number);
    snprintf(port, sizeof port, ":%04X", number);
    honest_begin(&honest, addr, 20 * NS_PER_S);
    int n4 = listening("/proc/self/net/tcp", four), n6 = listening("/proc/self/net/tcp6", six);
    honest_second(&honest);
    honest_end(&honest);
    both_joined(&honest);
    CHECK_EQ(n4 + n6, 1);
    if (n4) CHECK(want4 && strncmp(four[0], want4, 8) == 0 && strcmp(four[0] + 8, port) == 0);
    if (n6) CHECK(want6 && strncmp(six[0], want6, 32) == 0 && strcmp(six[0] + 32, port) == 0);
}

static int have_ipv6(void) {
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int have = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0;
    if (fd >= 0) close(fd);
    return have;
}

static void listens_at_the_address_given_and_nowhere_else(void) {
    static const char lo4[] = "0100007F", lo6[] = "00000000000000000000000001000000";
    listens_at("127.0.0.1", lo4, NULL);
    listens_at("127.0.0.2", "0200007F", NULL);
    listens_at("localhost", lo4, lo6);
    if (!have_ipv6()) {
        check_skip("no IPv6 on the loopback of this machine");
        return;
    }
    listens_at("[::1]", NULL, lo6);
    listens_at("[::1%lo]", NULL, lo6);
}

/* ---------------------------------------------------------------------------------------- network namespaces */

/* Loopback up in a namespace of this process's own: 0, or errno. */
static int own_network(void) {
    struct ifreq r = {.ifr_name = "lo"};
    if (unshare(CLONE_NEWNET)) return errno;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int rc = ioctl(fd, SIOCGIFFLAGS, &r) ? errno : 0;
    r.ifr_flags |= IFF_UP;
    if (!rc && ioctl(fd, SIOCSIFFLAGS, &r)) rc = errno;
    close(fd);
    return rc;
}

static void joins_inside_a_network_namespace(void) {
    pid_t pid = fork();
    if (pid == 0) {
        int rc = own_network();
        if (rc) _exit(rc == EPERM ? 77 : 1);
        honest_begin(&honest, "tcp://127.0.0.1:3366", 10 * NS_PER_S);
        honest_second(&honest);
        honest_end(&honest);
        if (honest.rc[0] || honest.rc[1]) fprintf(stderr, "%s\n%s\n", honest.text[0], honest.text[1]);
        _exit(honest.rc[0] || honest.rc[1]);
    }
    int status;
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        check_skip("no permission to make a network namespace");
        return;
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* One rank in each of two namespaces, with a cable between them (made by ip of iproute2). */
static int lay_cable(int second) {
    char line[512];
    snprintf(line, sizeof line,
             "ip link add syp0 type veth peer name syp1 2>/dev/null && ip link set syp1 netns %d && ip addr add 192.0.2.1/30 dev syp0 && "
             "ip link set syp0 up && nsenter -t %d -n ip addr add 192.0.2.2/30 dev syp1 && nsenter -t %d -n ip link set syp1 up",
             second, second, second);
    return system(line);
}

struct pair_result {
    _Atomic int ready, second, rc[2];
    char text[2][400];
};

static int pair_rank(struct ranks *r, int rank, void *arg) {
    struct pair_result *p = r->shared;
    (void)arg;
    if (own_network()) {
        p->ready = -1;
        return 0;
    }
    if (rank == 1) {
        p->second = (int)getpid();
        p->ready = 1;
        while (p->ready == 1)
            usleep(1000);
    } else {
        while (!p->ready)
            usleep(1000);
        if (p->ready < 0) return 0;
        p->ready = lay_cable(p->second) == 0 ? 2 : -2;
    }
    if (p->ready < 0) return 0;
    struct launch l = {.rank = rank, .n_ranks = 2, .local_rank = -1, .local_size = -1, .source = "test", .listen_fd = -1, .has_addr = 1};
    uint8_t frame[HOSTILE_FRAME];
    struct hello h;
    struct roster roster;
    struct star *star;
    struct wire w = {.buf = frame + WIRE_HEAD};
    w.cap = hostile_hello(frame, rank, 2, "") - WIRE_HEAD;
    if (wire_get_hello(&w, &h) || url_parse("tcp://192.0.2.1:3366", &l.addr)) return 1;
    h.self.host_id[0] = (uint64_t)rank;
    int rc = rendezvous_join(&l, &h, os->now() + 10 * NS_PER_S, &roster, &star);
    p->rc[rank] = rc;
    snprintf(p->text[rank], sizeof p->text[rank], "%s", syp_error_text());
    if (rc) return 1;
    rc = roster.n_hosts == 2 ? star_barrier(star, os->now() + 5 * NS_PER_S) : 1;
    star_close(star);
    roster_free(&roster);
    return rc != 0;
}

static void joins_between_two_network_namespaces(void) {
    struct ranks r;
    CHECK_EQ(ranks_start(&r, 2, sizeof(struct pair_result), pair_rank, NULL), 0);
    struct pair_result *p = r.shared;
    int failed = ranks_wait(&r, 60, -1);
    if (p->ready < 0)
        check_skip(p->ready == -1 ? "no permission to make a network namespace"
                                  : "no cable between two network namespaces: ip is missing, or the kernel has no veth");
    else
        CHECK_EQ(failed, 0);
    if (failed && p->ready > 0) fprintf(stderr, "%s\n%s\n", p->text[0], p->text[1]);
    ranks_free(&r);
}

int main(void) {
    conf_freeze();
    return check_main("hostile join",
                      (struct check_test[]){
                          {"other protocols are sent off", other_protocols_are_sent_off},
                          {"half a hello is no rank", half_a_hello_is_no_rank},
                          {"lies in the head are refused", lies_in_the_head_are_refused},
                          {"replayed hellos of another job change nothing", replayed_hellos_of_another_job_change_nothing},
                          {"a thousand silent connections cost no time", a_thousand_silent_connections_cost_no_time},
                          {"listens at the address given and nowhere else", listens_at_the_address_given_and_nowhere_else},
                          {"joins inside a network namespace", joins_inside_a_network_namespace},
                          {"joins between two network namespaces", joins_between_two_network_namespaces},
                          {0}});
}
