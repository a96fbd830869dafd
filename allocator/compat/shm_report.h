/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of libsympool-shm-compat share: the error line, and the little they ask the system themselves, since the
 * library's own parts are not visible from outside it.
 */
#ifndef SYP_COMPAT_SHM_REPORT_H
#define SYP_COMPAT_SHM_REPORT_H

#include <stdint.h>

/* Log one error line, for callers that look at no result, and return code. */
int shm_report(int code, const char *fmt, ...);

/* A variable of the environment; NULL when it is not set, is empty, or must not be trusted (a set-user-ID program). */
const char *shm_environ(const char *name);

/* CLOCK_MONOTONIC, ns. */
uint64_t shm_now(void);
void shm_sleep(uint64_t ns);

#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

#endif
