/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host identity: a digest, since the roster compares and never shows it.  Must not know: the roster, sockets.
 */
#include "bootstrap/hostid.h"

#include "pool/base/conf.h"
#include "pool/base/os.h"

#include <string.h>

/* FNV-1a over two lanes that differ in start and order, closed with the finalizer of MurmurHash3. */
static void absorb(uint64_t id[2], const char *bytes, size_t len) {
    for (size_t i = 0; i < len; i++) {
        id[0] = (id[0] ^ (uint8_t)bytes[i]) * 0x100000001b3ull;
        id[1] = (id[1] ^ (uint8_t)bytes[len - 1 - i]) * 0x100000001b3ull;
    }
    id[0] = (id[0] ^ len) * 0x100000001b3ull;
    id[1] = (id[1] ^ ~(uint64_t)len) * 0x100000001b3ull;
}

static uint64_t finish(uint64_t x) {
    x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdull;
    x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ull;
    return x ^ (x >> 33);
}

void host_identity(uint64_t id[2]) {
    static const char *const namespaces[] = {"/proc/self/ns/pid", "/proc/self/ns/user", "/proc/self/ns/ipc",
                                             "/proc/self/ns/net"};
    char buf[128];
    id[0] = 0xcbf29ce484222325ull;
    id[1] = 0x84222325cbf29ce4ull;
    int64_t n = os_read_file("/proc/sys/kernel/random/boot_id", buf, sizeof buf);
    absorb(id, n > 0 ? buf : "unknown", n > 0 ? (size_t)n : 7);
    for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces; i++) {
        n = os->readlink(namespaces[i], buf, sizeof buf);
        absorb(id, n > 0 ? buf : "unknown", n > 0 ? (size_t)n : 7);
    }
    const char *text = conf_str(CONF_HOST_ID);
    if (text) absorb(id, text, strlen(text));
    id[0] = finish(id[0]);
    id[1] = finish(id[1]);
}
