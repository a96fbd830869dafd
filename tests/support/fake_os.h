/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stand-ins for the OS table.
 *
 * Fault injection: fake_os_fail(n, err) makes the n-th call from now (1 = next) of any function of the table that can fail return
 * -err, once; fake_os_fail_op does so for calls of one function only, named as in os.h.  fake_os_calls() counts.  fake_os_last() names the call that
 * was failed.  Calls that only release (unmap, release, close) and waiting, time and identity calls are counted but never failed by
 * fake_os_fail.  With the fake on, descriptors and mapped bytes are counted, so that a test can ask whether anything was left.
 *
 * Common mapping: with common_os_on(), ranks that are threads of one process share one mapping per segment: `reserve` with the same
 * name and length returns the same address (reference-counted), and `map` of a file already mapped at that place is a no-op that ignores
 * a weaker protection.  ThreadSanitizer is blind across two mappings of one file; so a race is seen only this way.
 * The two can be combined (faults on top).
 */
#ifndef TESTS_FAKE_OS_H
#define TESTS_FAKE_OS_H

#include "pool/base/os.h"

void fake_os_on(void);
void fake_os_off(void);
void fake_os_fail(unsigned n, int err);
void fake_os_fail_op(const char *op, unsigned n, int err);
unsigned fake_os_calls(void);       /* failable calls since fake_os_on */
const char *fake_os_last(void);     /* operation failed last, NULL = none yet */
long fake_os_open_fds(void);        /* opened minus closed through the table since fake_os_on */
long fake_os_mapped_bytes(void);    /* reserved + mapped minus given back since fake_os_on */
long fake_os_threads(void);         /* started minus joined */

void common_os_on(void);
void common_os_off(void);

#endif
