/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sympool-auth.so: authentication of frames by libsodium.  Linked into nothing; opened by bootstrap/auth.c.  Must not
 * know: frames, files, sockets.
 */
#include "bootstrap/auth/auth_module.h"

#include <sodium.h>

_Static_assert(AUTH_KEY == crypto_auth_hmacsha512256_KEYBYTES && AUTH_MAC == crypto_auth_hmacsha512256_BYTES,
               "sizes of HMAC-SHA512-256");

static int start(void) {
    return sodium_init() < 0 ? -1 : 0;
}

static void mac(const uint8_t key[AUTH_KEY], const struct iovec *part, int n, uint8_t out[AUTH_MAC]) {
    crypto_auth_hmacsha512256_state state;
    crypto_auth_hmacsha512256_init(&state, key, AUTH_KEY);
    for (int i = 0; i < n; i++)
        crypto_auth_hmacsha512256_update(&state, part[i].iov_base, part[i].iov_len);
    crypto_auth_hmacsha512256_final(&state, out);
    sodium_memzero(&state, sizeof state);
}

static int equal(const uint8_t a[AUTH_MAC], const uint8_t b[AUTH_MAC]) {
    return crypto_verify_32(a, b) == 0;
}

__attribute__((visibility("default"))) const struct auth_ops sympool_auth = {
    .abi = AUTH_ABI, .start = start, .mac = mac, .equal = equal, .wipe = sodium_memzero};
