/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Test points: named places where the check build can delay, kill or stop a rank.  In the shipped library they are nothing.
 */
#ifndef SYP_BASE_POINT_H
#define SYP_BASE_POINT_H

#ifdef SYP_TEST_POINTS
extern void (*test_point_hook)(const char *name); /* set before other threads start; NULL = nothing happens */
#define TEST_POINT(name)                                                                                               \
    do {                                                                                                               \
        if (test_point_hook) test_point_hook(name);                                                                    \
    } while (0)
#else
#define TEST_POINT(name) ((void)0)
#endif

#endif
