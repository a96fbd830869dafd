/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the hook of the test points lives; nothing in the shipped library.
 */
#include "pool/base/point.h"

#ifdef SYP_TEST_POINTS
void (*test_point_hook)(const char *name);
#else
/* A translation unit must declare something. */
typedef int no_test_points;
#endif
