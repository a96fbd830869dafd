/* SPDX-License-Identifier: Apache-2.0 */
/* The C face of groups: handles and options are checked here, everything else below. */
#include "allocator/groups.h"
#include "allocator/process.h"
#include "pool/base/status.h"

/* Handles are entries of the world's group table, so a stale or foreign one is recognised without being read. */
int find_other_group(const char *call, const syp_comm *handle, struct comm **out) {
    struct world *w;
    int rc = process_need(call, &w);
    if (rc != SYP_OK) return rc;
    uintptr_t at = (uintptr_t)handle - (uintptr_t)w->coll.comm;
    if (handle == SYP_COMM_WORLD) {
        *out = &w->coll.comm[0];
        return SYP_OK;
    }
    if (at >= COMM_SLOTS * sizeof(struct comm) || at % sizeof(struct comm) || !w->coll.comm[at / sizeof(struct comm)].in_use) {
        err_set(SYP_ESTATE, "%s: %p is not a group of this attach (destroyed, or from before a finalize)", call, (const void *)handle);
        return err_operation(call);
    }
    *out = &w->coll.comm[at / sizeof(struct comm)];
    return SYP_OK;
}

#define CALL_UNUSABLE "the syp_call is not usable: its size is too small or its timeout_ns negative"

int syp_comm_create(syp_comm *parent, const int *ranks, int n, syp_comm **out) {
    struct comm *p = NULL, *made = NULL;
    int rc = find_group("comm_create", parent, &p);
    if (rc != SYP_OK) return rc;
    rc = comm_create(p, ranks, n, out ? &made : NULL);
    if (out) *out = (syp_comm *)made;
    if (rc != SYP_OK) err_operation("comm_create");
    return rc;
}

int syp_comm_split_strided(syp_comm *parent, int start, int stride, int n, syp_comm **out) {
    struct comm *p = NULL, *made = NULL;
    int rc = find_group("comm_split_strided", parent, &p);
    if (rc != SYP_OK) return rc;
    rc = comm_split_strided(p, start, stride, n, out ? &made : NULL);
    if (out) *out = (syp_comm *)made;
    if (rc != SYP_OK) err_operation("comm_split_strided");
    return rc;
}

int syp_comm_destroy(syp_comm *comm) {
    struct comm *c = NULL;
    int rc = find_group("comm_destroy", comm, &c);
    if (rc != SYP_OK) return rc;
    rc = c->slot == 0 ? err_set(SYP_EINVAL, "comm_destroy: the world group ends with syp_finalize") : comm_destroy(c);
    if (rc != SYP_OK) err_operation("comm_destroy");
    return rc;
}

int syp_comm_abort(syp_comm *comm) {
    struct comm *c = NULL;
    int rc = find_group("comm_abort", comm, &c);
    return rc == SYP_OK ? comm_abort(c) : rc;
}

int syp_comm_buffers_safe(syp_comm *comm) {
    struct comm *c = NULL;
    int rc = find_group("comm_buffers_safe", comm, &c);
    if (rc == SYP_OK && (rc = comm_buffers_safe(c)) != SYP_OK) err_operation("comm_buffers_safe");
    return rc;
}

int syp_comm_agree(syp_comm *comm, uint64_t *flags, const syp_call *call) {
    struct comm *c = NULL;
    int64_t timeout;
    int rc = find_call("comm_agree", comm, call, &c, &timeout);
    if (rc == SYP_OK && (!flags || timeout < 0)) {
        rc = err_set(SYP_EINVAL, "comm_agree: %s", flags ? CALL_UNUSABLE : "flags is NULL");
        err_operation("comm_agree");
    }
    return rc == SYP_OK ? comm_agree(c, flags, timeout) : rc;
}

int syp_comm_failed(syp_comm *comm, int *ranks, int n) {
    struct comm *c = NULL;
    int rc = find_group("comm_failed", comm, &c);
    if (rc == SYP_OK && (n < 0 || (n && !ranks))) {
        rc = err_set(SYP_EINVAL, "comm_failed: room for %d ranks at %p", n, (void *)ranks);
        err_operation("comm_failed");
    }
    return rc == SYP_OK ? comm_failed(c, ranks, n) : rc;
}

int syp_comm_shrink(syp_comm *comm, unsigned flags, const syp_call *call, syp_comm **out) {
    struct comm *c = NULL, *made = NULL;
    int64_t timeout;
    if (out) *out = NULL;
    int rc = find_call("comm_shrink", comm, call, &c, &timeout);
    if (rc == SYP_OK && (!out || timeout < 0 || (flags & ~(unsigned)SYP_SHRINK_GIVE_UP))) {
        rc = !out          ? err_set(SYP_EINVAL, "comm_shrink: out is NULL")
             : timeout < 0 ? err_set(SYP_EINVAL, "comm_shrink: %s", CALL_UNUSABLE)
                           : err_set(SYP_EINVAL, "comm_shrink: flags 0x%x; SYP_SHRINK_GIVE_UP is the only one", flags);
        err_operation("comm_shrink");
    }
    if (rc != SYP_OK) return rc;
    rc = comm_shrink(c, (flags & SYP_SHRINK_GIVE_UP) != 0, timeout, &made);
    *out = (syp_comm *)made;
    return rc;
}

int syp_comm_rank(const syp_comm *comm) {
    struct comm *c = NULL;
    int rc = find_group("comm_rank", comm, &c);
    return rc == SYP_OK ? c->me : rc;
}

int syp_comm_size(const syp_comm *comm) {
    struct comm *c = NULL;
    int rc = find_group("comm_size", comm, &c);
    return rc == SYP_OK ? c->n : rc;
}
