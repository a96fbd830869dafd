/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the hook of the test points lives, and their list; nothing in the shipped library.
 */
#include "pool/base/point.h"

#ifdef SYP_TEST_POINTS
#include <string.h>

void (*test_point_hook)(const char *name);

/* The bounds of the section, by the linker. */
extern const char *const __start_syp_points[], *const __stop_syp_points[];

int point_list(const char **names, int cap) {
    int n = 0;
    const char *last = "";
    for (;;) { /* the smallest name above the last one */
        const char *next = NULL;
        for (const char *const *p = __start_syp_points; p < __stop_syp_points; p++)
            if (strcmp(*p, last) > 0 && (!next || strcmp(*p, next) < 0)) next = *p;
        if (!next) return n;
        if (n < cap) names[n] = next;
        n++;
        last = next;
    }
}
#else
/* A translation unit must declare something. */
typedef int no_test_points;
#endif
