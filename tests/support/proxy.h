/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fault between a rank and rank 0: a TCP proxy on 127.0.0.1, in a thread of the test, that does one thing to the bytes of one direction and
 * otherwise passes them on.  Bytes are counted from 0 per connection and direction.  The fault strikes once, in the first connection that
 * gets so far; later connections pass.
 */
#ifndef TESTS_PROXY_H
#define TESTS_PROXY_H

#include <stddef.h>
#include <stdint.h>

enum proxy_fault {
    PROXY_NONE,
    PROXY_SPLIT,    /* byte `at` and what follows arrive a moment later */
    PROXY_DRIP,     /* every byte by itself */
    PROXY_COALESCE, /* nothing passes before the sender has been silent for a moment */
    PROXY_DELAY,    /* everything arrives delay_us later */
    PROXY_RESET,    /* `at` bytes pass, then both ends see a reset */
    PROXY_ALTER,    /* byte `at` is changed by xor with mask */
    PROXY_REPLAY,   /* after `at` bytes, all of them once more, on a connection of its own that stays open */
    PROXY_REFLECT   /* after `at` bytes, all of them go back to the sender too */
};
enum proxy_way { TO_ROOT = 0, TO_MEMBER = 1 };

struct proxy_plan {
    enum proxy_fault fault;
    enum proxy_way way;
    size_t at;
    uint8_t mask;
    unsigned delay_us;
};

struct proxy; /* opaque */

/* Listens on a port of its own; target: "tcp://127.0.0.1:PORT", need not listen yet.  addr: out, where to connect. */
struct proxy *proxy_start(const char *target, const struct proxy_plan *plan, char addr[64]);
/* Ends all connections.  passed (NULL = not wanted): most bytes that went each way in one connection.  1 = the fault struck. */
int proxy_stop(struct proxy *p, size_t passed[2]);

#endif
