/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank that kills or stops itself at a test point, as a signal from outside would at that very place.
 */
#ifndef TESTS_STRIKE_H
#define TESTS_STRIKE_H

#include "pool/base/atomic.h"

/* In the victim: send `signal` to itself at the passage number `after` (1 = next) of the point; the time is left in *when just before.  One strike at
 * a time per process. */
void strike_at(const char *point, int after, int signal, atom64 *when);

#endif
