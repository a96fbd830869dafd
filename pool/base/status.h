/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calling thread's last-error record: every function that fails fills it, at the place that knows most, and passes
 * the code up unchanged.  Text: "what was attempted: what was observed; what to turn".
 */
#ifndef SYP_BASE_STATUS_H
#define SYP_BASE_STATUS_H

#include "allocator/sympool.h"

#include <stdarg.h>

/* Start a new record: code and text.  Returns code, so that `return err_set(...)` reads well.  Conversions: see text.h. */
int err_set(int code, const char *fmt, ...);

/* As err_set, for a refused system call: appends ": ENOSPC (No space left on device)" and keeps the errno. */
int err_sys(int code, int sys_errno, const char *fmt, ...);

/* Details of the record just set.  Each returns the record's code. */
int err_operation(const char *operation);
int err_peer(int rank, int64_t pid);
int err_sequence(uint64_t comm_id, uint64_t sequence);

/* Put "prefix: " before the text of the record just set: an upper layer says what was attempted. */
int err_prefix(const char *fmt, ...);

/* The record itself; never NULL (a thread without memory for one shares a common record). */
struct syp_error *err_record(void);

/* This process's rank for the record and the log prefix; -1 = not attached.  One value per process. */
void err_set_rank(int rank);
int err_rank(void);

#endif
