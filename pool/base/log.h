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

/* A place that may say the same thing for ever: LOG_LIMIT says it n times at all, then once that it goes quiet; LOG_RATE n times, then once
 * a second, with the number of lines left out. */
struct log_limit {
    _Atomic unsigned said;
    unsigned most;
    int for_ever;              /* 1 = LOG_RATE */
    _Atomic unsigned left_out; /* since the last line */
    _Atomic uint64_t next;     /* ns: no line before */
};
#define LOG_LIMIT(n) {.most = (n)}
#define LOG_RATE(n) {.most = (n), .for_ever = 1}
void log_warn_limited(struct log_limit *limit, const char *fmt, ...);

#endif
