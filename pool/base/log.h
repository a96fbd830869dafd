/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines: built in a stack buffer, one write(2) to stderr (or the callback), no stdio, no malloc.  "sympool: rank 2 (pid
 * 4711): warning: text".  Never called with a heap lock held.  Level from SYMPOOL_LOG (default warn); SYMPOOL_LOG_FILE
 * redirects (%p = pid, %r = rank).  A closed stderr is not an error.
 */
#ifndef SYP_BASE_LOG_H
#define SYP_BASE_LOG_H

#include "allocator/sympool.h"

/* Read level and file from the settings.  Before that: warnings and errors to stderr. */
void log_start(void);

void log_error(const char *fmt, ...);
void log_warn(const char *fmt, ...);
void log_info(const char *fmt, ...);
void log_debug(const char *fmt, ...);

/* 1 if lines of this level are wanted (SYP_LOG_*). */
int log_enabled(int level);

/* A place that may say the same thing for ever says it `most` times at all, then once that it goes quiet. */
struct log_limit {
    _Atomic unsigned said;
    unsigned most;
};
#define LOG_LIMIT(n) {0, (n)}
void log_warn_limited(struct log_limit *limit, const char *fmt, ...);

#endif
