/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Test points: named places where the check build can delay, kill or stop a rank.  In the shipped library they are nothing.  In the check build every
 * one that is linked in can be listed (point_list), so that "at every point" is a loop.
 */
#ifndef SYP_BASE_POINT_H
#define SYP_BASE_POINT_H

#ifdef SYP_TEST_POINTS
extern void (*test_point_hook)(const char *name); /* set before other threads start; NULL = nothing happens */
/* Distinct names of the points in this program, sorted.  Returns how many there are; at most cap are stored. */
int point_list(const char **names, int cap);
#define TEST_POINT(name)                                                                                               \
    do {                                                                                                               \
        static const char *const test_point_name __attribute__((section("syp_points"), used)) = (name);               \
        if (test_point_hook) test_point_hook(test_point_name);                                                         \
    } while (0)
#else
#define TEST_POINT(name) ((void)0)
#endif

#endif
