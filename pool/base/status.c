/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The error record of a thread, and the public functions that read it.
 *
 * Invariant: a record's text is NUL-terminated at any time.  Arguments of err_* may point into the record's own text.
 * Must not know: what failed.
 */
#include "pool/base/status.h"
#include "pool/base/atomic.h"
#include "pool/base/text.h"
#include "pool/base/thread.h"

#include <string.h>

/* Rank of this process.  One writer (attach), readers anywhere; no other data hangs on it, hence relaxed. */
static _Atomic int process_rank = -1;

/* For threads that have no memory for a record: better a mixed-up text than none. */
static struct syp_error common = {.size = sizeof(struct syp_error), .rank = -1, .peer = -1};

struct syp_error *err_record(void) {
    struct thread *t = thread_self();
    return t ? &t->error : &common;
}

void err_set_rank(int rank) {
    store_relaxed(&process_rank, rank);
}

int err_rank(void) {
    return load_relaxed(&process_rank);
}

static int record(int code, int sys_errno, const char *text) {
    struct syp_error *e = err_record();
    *e = (struct syp_error){.size = sizeof *e, .code = code, .sys_errno = sys_errno, .rank = err_rank(), .peer = -1};
    text_copy(e->text, sizeof e->text, text);
    return code;
}

int err_set(int code, const char *fmt, ...) {
    char text[sizeof((struct syp_error *)0)->text];
    struct text t = TEXT_INIT(text);
    va_list ap;
    va_start(ap, fmt);
    text_vaddf(&t, fmt, ap);
    va_end(ap);
    return record(code, 0, text);
}

int err_sys(int code, int sys_errno, const char *fmt, ...) {
    char text[sizeof((struct syp_error *)0)->text];
    struct text t = TEXT_INIT(text);
    va_list ap;
    va_start(ap, fmt);
    text_vaddf(&t, fmt, ap);
    va_end(ap);
    /* callers pass what the OS table returned, which is negative */
    if (sys_errno < 0) sys_errno = -sys_errno;
    text_addf(&t, ": ");
    text_add_errno(&t, sys_errno);
    return record(code, sys_errno, text);
}

int err_operation(const char *operation) {
    struct syp_error *e = err_record();
    text_copy(e->operation, sizeof e->operation, operation);
    return e->code;
}

int err_peer(int rank, int64_t pid) {
    struct syp_error *e = err_record();
    e->peer = rank;
    e->peer_pid = pid;
    return e->code;
}

int err_sequence(uint64_t comm_id, uint64_t sequence) {
    struct syp_error *e = err_record();
    e->comm_id = comm_id;
    e->sequence = sequence;
    return e->code;
}

int err_prefix(const char *fmt, ...) {
    struct syp_error *e = err_record();
    char text[sizeof e->text];
    struct text t = TEXT_INIT(text);
    va_list ap;
    va_start(ap, fmt);
    text_vaddf(&t, fmt, ap);
    va_end(ap);
    text_addf(&t, ": %s", e->text);
    text_copy(e->text, sizeof e->text, text);
    return e->code;
}

int syp_last_error(syp_error *out) {
    if (!out) return err_set(SYP_EINVAL, "syp_last_error: out is NULL");
    size_t size = out->size, least = offsetof(syp_error, code) + sizeof out->code;
    if (size < least)
        return err_set(SYP_EINVAL,
                       "syp_last_error: out->size is %zu, at least %zu is needed; set it to sizeof(syp_error)", size,
                       least);
    if (size > sizeof *out) size = sizeof *out;
    memcpy(out, err_record(), size);
    memcpy(out, &size, sizeof size);
    /* an older, shorter record may end inside the text */
    if (size > offsetof(syp_error, text)) ((char *)out)[size - 1] = 0;
    return SYP_OK;
}

const char *syp_error_text(void) {
    return err_record()->text;
}

const char *syp_strerror(int code) {
    switch (code) {
    case SYP_OK:
        return "SYP_OK";
    case SYP_EINVAL:
        return "SYP_EINVAL";
    case SYP_ENOMEM:
        return "SYP_ENOMEM";
    case SYP_ESTATE:
        return "SYP_ESTATE";
    case SYP_EUNSUPPORTED:
        return "SYP_EUNSUPPORTED";
    case SYP_EREACH:
        return "SYP_EREACH";
    case SYP_ECANCELED:
        return "SYP_ECANCELED";
    case SYP_EBUSY:
        return "SYP_EBUSY";
    case SYP_EFOREIGN:
        return "SYP_EFOREIGN";
    case SYP_EMISMATCH:
        return "SYP_EMISMATCH";
    case SYP_EDIVERGED:
        return "SYP_EDIVERGED";
    case SYP_EPEER:
        return "SYP_EPEER";
    case SYP_ETIMEOUT:
        return "SYP_ETIMEOUT";
    case SYP_EABORTED:
        return "SYP_EABORTED";
    case SYP_EFORKED:
        return "SYP_EFORKED";
    case SYP_EJOIN:
        return "SYP_EJOIN";
    case SYP_ESYS:
        return "SYP_ESYS";
    default:
        return "unknown status";
    }
}
