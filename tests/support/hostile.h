/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stranger at rank 0's door, and two honest ranks (threads of this process) that join meanwhile.
 */
#ifndef TESTS_HOSTILE_H
#define TESTS_HOSTILE_H

#include "bootstrap/rendezvous.h"

#include <stddef.h>
#include <stdint.h>

/* A sound hello of `rank` as a frame.  Returns its length, at most HOSTILE_FRAME. */
#define HOSTILE_FRAME (WIRE_HEAD + WIRE_HELLO_MAX)
size_t hostile_hello(uint8_t *out, int rank, int world, const char *job);
/* Connects ("tcp://..."), waiting for a listener at most a second; -1. */
int hostile_connect(const char *addr);
/* What may be sent is sent; a refusal is no error. */
void hostile_say(int fd, const void *bytes, size_t len);
/* Closes so that the other side sees a reset. */
void hostile_reset(int fd);
/* Waits until the other side has closed: 1, or 0 after `ms`. */
int hostile_closed(int fd, unsigned ms);

/* Ranks 0 and 1 of a job at addr.  Rank 0 begins at once, rank 1 with honest_second; honest_end waits for both. */
struct honest {
    char addr[64], job[64];
    int rc[2];
    uint64_t took[2];     /* of each rank's join */
    size_t largest;       /* bytes of the largest piece of memory that rank 0 asked for since it listened */
    char text[2][512];
    struct honest_threads *threads;
};
void honest_begin(struct honest *h, const char *addr, uint64_t timeout_ns);
void honest_second(struct honest *h);
void honest_end(struct honest *h);

#endif
