/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of the module sympool-auth.so (libsodium), exported as `sympool_auth`.
 */
#ifndef SYP_BOOTSTRAP_AUTH_MODULE_H
#define SYP_BOOTSTRAP_AUTH_MODULE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define AUTH_ABI 1u
#define AUTH_KEY 32u
#define AUTH_MAC 32u

struct auth_ops {
    unsigned abi; /* AUTH_ABI */
    int (*start)(void); /* once per process or more often; 0, or -1 = no usable source of randomness */
    /* HMAC-SHA512-256 of the parts, one behind the other. */
    void (*mac)(const uint8_t key[AUTH_KEY], const struct iovec *part, int n, uint8_t out[AUTH_MAC]);
    int (*equal)(const uint8_t a[AUTH_MAC], const uint8_t b[AUTH_MAC]); /* 1 = equal; takes as long either way */
    void (*wipe)(void *p, size_t len); /* never optimised away */
};

#endif
