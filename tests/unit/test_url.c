/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses: what is accepted and as what, what is refused and why, and that no input reads past its end. */
#include "bootstrap/url.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

static const struct {
    const char *text, *host, *scope;
    int port, numeric;
} good[] = {
    {"tcp://1.2.3.4:3366", "1.2.3.4", "", 3366, 4},
    {"1.2.3.4:3366", "1.2.3.4", "", 3366, 4},
    {"127.0.0.1:0", "127.0.0.1", "", 0, 4},
    {"0.0.0.0:65535", "0.0.0.0", "", 65535, 4},
    {"tcp4://1.2.3.4:1", "1.2.3.4", "", 1, 4},
    {"tcp://[::1]:3366", "::1", "", 3366, 6},
    {"[::1]:3366", "::1", "", 3366, 6},
    {"tcp6://[::1]:3366", "::1", "", 3366, 6},
    {"[fe80::1%eth0]:3366", "fe80::1", "eth0", 3366, 6},
    {"tcp://[fe80::1%lo]:1", "fe80::1", "lo", 1, 6},
    {"[0:0:0:0:0:0:0:1]:29500", "0:0:0:0:0:0:0:1", "", 29500, 6},
    {"[::ffff:1.2.3.4]:7", "::ffff:1.2.3.4", "", 7, 6},
    {"host:3366", "host", "", 3366, 0},
    {"tcp://node-07.cluster.example:9", "node-07.cluster.example", "", 9, 0},
    {"tcp://my_node:9", "my_node", "", 9, 0},
    {"localhost:00080", "localhost", "", 80, 0},
    {"host.:1", "host.", "", 1, 0},
};

static const struct {
    const char *text, *why;
} bad[] = {
    {"", "empty"},
    {"tcp://", "no port"},
    {"1.2.3.4", "no port"},
    {"tcp://1.2.3.4", "no port"},
    {"1.2.3.4:", "no port"},
    {"[::1]", "no port"},
    {"[::1]:", "no port"},
    {"1.2.3.4:65536", "port"},
    {"1.2.3.4:-1", "port"},
    {"1.2.3.4:+1", "port"},
    {"1.2.3.4:1x", "port"},
    {"1.2.3.4:0x50", "port"},
    {"1.2.3.4:999999999999999999999", "port"},
    {"1.2.3.4:000080", "port"},
    {"tcp://:3366", "no host"},
    {":3366", "no host"},
    {"::1:3366", "brackets"},
    {"fe80::1:3366", "brackets"},
    {"[::1:3366", "without"},
    {"[]:1", "IPv6"},
    {"[1.2.3.4]:1", "IPv6"},
    {"[::g]:1", "IPv6"},
    {"[::1%]:1", "scope"},
    {"[::1%eth 0]:1", "blank"},
    {"[::1%eth(0)]:1", "scope"},
    {"[::1%0123456789012345678901234567890123456789]:1", "scope"},
    {"[::1]x:1", "after \"]\""},
    {"udp://1.2.3.4:1", "scheme"},
    {"http://1.2.3.4:80", "scheme"},
    {"tcp://tcp://1.2.3.4:1", "paths"},
    {"TCP://1.2.3.4:1", "scheme"},
    {"user@1.2.3.4:1", "user"},
    {"tcp://user:secret@1.2.3.4:1", "user"},
    {"tcp://1.2.3.4:1/", "path"},
    {"tcp://1.2.3.4:1/path", "path"},
    {"tcp://1.2.3.4:1?a=b", "path"},
    {"tcp://1.2.3.4:1#f", "path"},
    {" 1.2.3.4:1", "blank"},
    {"1.2.3.4:1 ", "blank"},
    {"1.2.3.4:1\n", "blank"},
    {"1.2.3.4\t:1", "blank"},
    {"h\xc3\xb6st:1", "unprintable"},
    {"1.2.3:1", "not an IPv4"},
    {"1.2.3.256:1", "not an IPv4"},
    {"1.2.3.4.5:1", "not an IPv4"},
    {"01.2.3.4:1", "not an IPv4"},
    {"-host:1", "starts with"},
    {"a..b:1", "empty part"},
    {".host:1", "empty part"},
    {"ho$t:1", "character"},
    {"tcp6://1.2.3.4:1", "family"},
    {"tcp4://[::1]:1", "family"},
};

static void accepts(void) {
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct url u;
        int rc = url_parse(good[i].text, &u);
        if (!CHECK(rc == SYP_OK)) {
            printf("refused: %s: %s\n", good[i].text, err_record()->text);
            continue;
        }
        CHECK_STR(u.host, good[i].host);
        CHECK_STR(u.scope, good[i].scope);
        CHECK_EQ(u.port, good[i].port);
        CHECK_EQ(u.numeric, good[i].numeric);
    }
}

static void refuses(void) {
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct url u;
        CHECK_EQ(url_parse(bad[i].text, &u), SYP_EINVAL);
        CHECK_HAS(err_record()->text, bad[i].why);
        CHECK_EQ(err_record()->code, SYP_EINVAL);
    }
    struct url u;
    CHECK_EQ(url_parse(NULL, &u), SYP_EINVAL);
}

static void bounds_names(void) {
    char text[400];
    struct url u;
    for (size_t n = 1; n < 390; n++) {
        for (size_t i = 0; i < n; i++)
            text[i] = i % 60 == 59 ? '.' : 'a';
        strcpy(text + n, ":1");
        int rc = url_parse(text, &u);
        if (n <= 253)
            CHECK_EQ(rc, SYP_OK);
        else
            CHECK_EQ(rc, SYP_EINVAL);
    }
    memset(text, 'a', 64);
    strcpy(text + 64, ":1");
    CHECK_EQ(url_parse(text, &u), SYP_EINVAL);
    CHECK_HAS(err_record()->text, "63 characters");
}

/* Good addresses with a few bytes changed: never a crash, and what is accepted can be resolved or is a name. */
static void survives_noise(void) {
    uint64_t state = check_seed(), tries = check_count(200000, 5000000);
    for (uint64_t i = 0; i < tries; i++) {
        const char *base = good[check_random(&state) % (sizeof good / sizeof *good)].text;
        size_t len = strlen(base);
        char *text = malloc(len + 1); /* exact size, so that a sanitizer sees a read past the end */
        memcpy(text, base, len + 1);
        for (int k = 0; k < 3; k++)
            text[check_random(&state) % len] = (char)check_random(&state);
        struct url u;
        if (url_parse(text, &u) == SYP_OK && u.numeric && !u.scope[0]) {
            struct url_addr a;
            if (url_resolve(&u, &a, 1) != 1) CHECK(0);
        }
        free(text);
    }
    CHECK(1);
}

static void resolves(void) {
    static const struct {
        const char *text, *back;
    } t[] = {{"tcp://127.0.0.1:3366", "127.0.0.1:3366"},
             {"[::1]:80", "[::1]:80"},
             {"0.0.0.0:0", "0.0.0.0:0"},
             {"[::ffff:1.2.3.4]:9", "[::ffff:1.2.3.4]:9"}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct url u;
        struct url_addr a;
        char buf[URL_TEXT];
        CHECK_EQ(url_parse(t[i].text, &u), SYP_OK);
        CHECK_EQ(url_resolve(&u, &a, 1), 1);
        url_text((struct sockaddr *)&a.addr, a.len, buf, sizeof buf);
        CHECK_STR(buf, t[i].back);
    }
    struct url u;
    struct url_addr a[8];
    CHECK_EQ(url_parse("localhost:3366", &u), SYP_OK);
    int n = url_resolve(&u, a, 8);
    CHECK(n >= 1);
    for (int i = 0; i < n; i++)
        CHECK(a[i].addr.ss_family == AF_INET || a[i].addr.ss_family == AF_INET6);
    CHECK_EQ(url_parse("no-such-host.invalid:3366", &u), SYP_OK);
    CHECK_EQ(url_resolve(&u, a, 8), SYP_EJOIN);
    CHECK_HAS(err_record()->text, "no-such-host.invalid");
    CHECK_EQ(url_parse("[fe80::1%no-such-if]:1", &u), SYP_OK);
    CHECK_EQ(url_resolve(&u, a, 8), SYP_EJOIN);
}

static void resolves_a_scope(void) {
    struct url u;
    struct url_addr a;
    CHECK_EQ(url_parse("[fe80::1%lo]:5", &u), SYP_OK);
    if (url_resolve(&u, &a, 1) != 1) {
        check_skip("no interface \"lo\" here");
        return;
    }
    CHECK_EQ(a.addr.ss_family, AF_INET6);
    CHECK(((struct sockaddr_in6 *)&a.addr)->sin6_scope_id != 0);
    char buf[URL_TEXT];
    url_text((struct sockaddr *)&a.addr, a.len, buf, sizeof buf); /* it is published so: it must lead back */
    CHECK_STR(buf, "[fe80::1%lo]:5");
    CHECK(url_parse("[::1%lo]:5", &u) == SYP_OK && url_resolve(&u, &a, 1) == 1);
    CHECK(url_parse("[::1%1]:5", &u) == SYP_OK && url_resolve(&u, &a, 1) == 1);
    CHECK_EQ(((struct sockaddr_in6 *)&a.addr)->sin6_scope_id, 1);
    CHECK(url_parse("[::1%0]:5", &u) == SYP_OK && url_resolve(&u, &a, 1) == SYP_EJOIN);
}

/* A resolver that the test can stop.  It stands before libc's. */
static _Atomic int resolver_hangs;
int getaddrinfo(const char *name, const char *service, const struct addrinfo *want, struct addrinfo **out) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    while (resolver_hangs)
        usleep(1000);
    return real(name, service, want, out);
}

static void a_resolver_that_hangs_is_left_behind(void) {
    struct url u;
    struct url_addr a[URL_ADDRS];
    int threads = count_threads(), maps;
    CHECK_EQ(url_parse("localhost:3366", &u), SYP_OK);
    CHECK(url_resolve_by(&u, a, URL_ADDRS, os->now() + 10 * NS_PER_S) >= 1);
    CHECK(((struct sockaddr *)&a[0].addr)->sa_family != 0);
    CHECK_EQ(url_resolve_by(&u, a, 1, os->now() + 10 * NS_PER_S), 1);
    CHECK_EQ(count_threads(), threads);
    maps = count_mappings();
    resolver_hangs = 1;
    uint64_t start = os->now();
    CHECK_EQ(url_resolve_by(&u, a, URL_ADDRS, start + 50 * NS_PER_MS), SYP_EJOIN);
    CHECK(os->now() - start < NS_PER_S);
    CHECK_HAS(err_record()->text, "no answer before the deadline");
    CHECK_HAS(err_record()->text, "localhost");
    CHECK_EQ(count_threads(), threads + 1);
    resolver_hangs = 0;
    CHECK_EQ(count_threads_until(threads), threads); /* it ended, and took what was its with it */
    CHECK(count_mappings() <= maps + 2); /* a stack that the C library keeps */
    CHECK_EQ(url_parse("no-such-host.invalid:3366", &u), SYP_OK);
    CHECK_EQ(url_resolve_by(&u, a, URL_ADDRS, os->now() + 60 * NS_PER_S), SYP_EJOIN);
    CHECK_HAS(err_record()->text, "no-such-host.invalid");
}

static void shows_unix_names(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char buf[URL_TEXT], small[6];
    memcpy(a.sun_path, "\0sympool-0-job-1", 16);
    url_text((struct sockaddr *)&a, offsetof(struct sockaddr_un, sun_path) + 16, buf, sizeof buf);
    CHECK_STR(buf, "@sympool-0-job-1");
    url_text((struct sockaddr *)&a, offsetof(struct sockaddr_un, sun_path), buf, sizeof buf);
    CHECK_STR(buf, "a unix socket");
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(65535), .sin_addr.s_addr = htonl(0x7f000001)};
    url_text((struct sockaddr *)&in, sizeof in, small, sizeof small);
    CHECK_EQ(strlen(small), 5);
}

int main(void) {
    return check_main("url", (struct check_test[]){{"accepts", accepts},
                                                   {"refuses", refuses},
                                                   {"bounds_names", bounds_names},
                                                   {"survives_noise", survives_noise},
                                                   {"resolves", resolves},
                                                   {"resolves_a_scope", resolves_a_scope},
                                                   {"a_resolver_that_hangs_is_left_behind", a_resolver_that_hangs_is_left_behind},
                                                   {"shows_unix_names", shows_unix_names},
                                                   {0}});
}
