/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses: whatever is accepted fits its fields, and a number survives the way through a socket address and back. */
#include "bootstrap/url.h"
#include "pool/base/status.h"
#include "tests/fuzz/fuzz.h"

void fuzz_start(void) {
}

void fuzz_seeds(void) {
    static const char *const seeds[] = {
        "tcp://127.0.0.1:3366", "tcp://[::1]:0",       "[fe80::1%eth0]:65535", "host.example:1",   "1.2.3.4:99",
        "tcp6://[::ffff:1.2.3.4]:5", "tcp4://10.0.0.1:7", "user@host:1",        "host:65536",       "tcp://[::1%]:1",
        "http://host:80/",      "..:1",                "-a:1",                 "a_b-c.d1.e2:00080"};
    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++)
        (i < 5 ? fuzz_good_seed : fuzz_seed)(seeds[i], strlen(seeds[i]));
}

/* A number as text of its own, parsed again: the same address. */
static void there_and_back(const struct url *u) {
    struct url_addr a, b;
    struct url again;
    char text[URL_TEXT];
    MUST(url_resolve(u, &a, 1) == 1);
    url_text((const struct sockaddr *)&a.addr, a.len, text, sizeof text);
    MUST(url_parse(text, &again) == SYP_OK);
    MUST(again.numeric == u->numeric && again.port == u->port && !again.scope[0]);
    MUST(url_resolve(&again, &b, 1) == 1 && a.len == b.len && memcmp(&a.addr, &b.addr, a.len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    struct url u;
    char *text = malloc(len + 1); /* exactly as long as the text: a step beyond is seen */
    memcpy(text, data, len);
    text[len] = 0;
    int rc = url_parse(text, &u);
    MUST(rc == SYP_OK || rc == SYP_EINVAL);
    if (rc == SYP_OK) {
        MUST(u.host[0] && memchr(u.host, 0, sizeof u.host) && memchr(u.scope, 0, sizeof u.scope));
        MUST(strlen(text) <= 320 && strstr(text, u.host));
        fuzz_ok = 1;
        if (u.numeric && !u.scope[0]) there_and_back(&u);
    }
    free(text);
    return 0;
}
