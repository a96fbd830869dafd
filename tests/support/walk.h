/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random programs: every rank walks one random list of steps that all have in common, and takes part where it is a member.
 *
 * Steps: all collectives, blocking or as requests (tested, waited for, cancelled), as each member likes; lists between two members; put and get with signals;
 * channels; agreements; groups made of groups, in part by strides, and destroyed.  Each result is compared byte by byte.
 *
 * Why it cannot deadlock by itself: a member blocks only while it has no requests in other groups than the one it blocks in, and all take the steps in one order.
 */
#ifndef TESTS_WALK_H
#define TESTS_WALK_H

#include "tests/support/op_case.h"

#define WALK_MEMBERS 8 /* ranks, at most */
#define WALK_BOX (WALK_MEMBERS * (2048 + 2 * 64)) /* bytes; a multiple of 64 */

struct walk {
    uint64_t seed;
    int steps;
    size_t largest; /* bytes of an operation */
    char *box;      /* WALK_BOX bytes at the same offset of every member's pool, for this walk alone; NULL = no puts, gets and signals */
};

/* Collective over root, whose members it leaves with nothing pending.  0 = everything was exact; else it is said. */
int walk_run(struct world *w, struct comm *root, const struct walk *p);

#endif
