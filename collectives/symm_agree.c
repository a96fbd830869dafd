/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Agreed symmetric allocation: every rank tries, all tell each other the result, and all keep the block or all give it back.
 */
#include "collectives/request.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <string.h>

/* What a rank tells about its attempt. */
struct attempt {
    uint64_t off;   /* SPACE_NONE = failed */
    int32_t status; /* SYP_OK, SYP_ENOMEM, SYP_EBUSY */
    int32_t sys_errno;
};
_Static_assert(sizeof(struct attempt) <= MAIL_DATA, "travels in the mail");

/* All attempts side by side: SYP_OK when every rank has the same offset. */
static int verdict(const struct request *r, uint64_t len, uint64_t *off) {
    struct comm *c = r->c;
    struct attempt first, his;
    memcpy(&first, request_mail(r, 0), sizeof first);
    for (int m = 0; m < c->n; m++) {
        memcpy(&his, request_mail(r, m), sizeof his);
        int rank = c->member[m].rank;
        if (his.status == SYP_EBUSY) {
            err_set(SYP_EBUSY, "symm_malloc of %B: on rank %d a straggler of a broken operation may still write there; call "
                               "syp_comm_buffers_safe on every rank, then allocate again; no rank got the block",
                    (unsigned long long)len, rank);
            return err_peer(rank, c->coll->peers->roster.rank[rank].pid);
        }
        if (his.status != SYP_OK) {
            char why[80] = "";
            struct text t = TEXT_INIT(why);
            if (his.sys_errno) text_add_errno(&t, his.sys_errno);
            err_set(SYP_ENOMEM, "symm_malloc of %B: rank %d has no memory for it%s%s; raise SYMPOOL_META_SIZE or free symmetric blocks; "
                                "no rank got the block", (unsigned long long)len, rank, why[0] ? ": " : "", why);
            return err_peer(rank, c->coll->peers->roster.rank[rank].pid);
        }
        if (his.off != first.off) {
            err_set(SYP_EDIVERGED, "symm_malloc of %B: the block would lie at offset %llu on rank %d and at %llu on rank %d: the "
                                   "symmetric regions differ", (unsigned long long)len, (unsigned long long)first.off,
                    c->member[0].rank, (unsigned long long)his.off, rank);
            return err_peer(rank, c->coll->peers->roster.rank[rank].pid);
        }
    }
    *off = first.off;
    return SYP_OK;
}

uint64_t coll_symm_alloc(struct coll *c, uint64_t len, uint64_t align, uint32_t scope) {
    struct request r;
    int rc = request_begin(&r, &c->comm[0], OP_SYMM_MALLOC, 0);
    if (rc != SYP_OK) return SPACE_NONE;
    struct attempt mine = {SPACE_NONE, SYP_OK, 0};
    if (len == 0 || len > PTRDIFF_MAX || !is_pow2(align) || align > (1ull << 30)) {
        r.error = err_set(SYP_EINVAL, "symm_malloc: %llu bytes aligned to %llu; lengths are 1 .. PTRDIFF_MAX, alignments powers of two up "
                                      "to 1 GiB", (unsigned long long)len, (unsigned long long)align);
    } else {
        mine.off = symm_try(c->symm, len, align);
        if (mine.off == SPACE_NONE) {
            mine.status = err_record()->code == SYP_EBUSY ? SYP_EBUSY : SYP_ENOMEM;
            mine.sys_errno = err_record()->sys_errno;
        }
    }
    TEST_POINT("symm.tried");
    r.step = request_meet;
    r.count = len;
    r.root = is_pow2(align) ? __builtin_ctzll(align) : -1;
    r.data = &mine;
    r.data_len = sizeof mine;
    rc = request_drive(&r);
    uint64_t off = SPACE_NONE;
    if (rc == SYP_OK) rc = verdict(&r, len, &off);
    if (rc != SYP_OK) {
        err_operation("symm_malloc");
        err_sequence(0, r.sequence);
        if (mine.off != SPACE_NONE) symm_undo(c->symm, mine.off);
        off = SPACE_NONE;
    } else {
        symm_keep(c->symm, off, len, align, scope);
    }
    request_release(&c->comm[0]);
    return off;
}
