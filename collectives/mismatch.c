/* SPDX-License-Identifier: Apache-2.0 */
/* The members of a group called different things: a table for people of who asked what. */
#include "collectives/reduce.h"
#include "collectives/request.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <string.h>

/* What a member asked for, taken out of its mail once. */
struct asked {
    int kind, dtype, op, error, root;
    uint64_t count, total;
};

static struct asked asked_by(const struct request *r, int member) {
    const struct mail *mail = comm_mail_of(r->c, member);
    uint64_t what = mail->call.what;
    return (struct asked){.kind = (int)(what & 0xff),
                          .dtype = (int)(what >> 8 & 0xff),
                          .op = (int)(what >> 16 & 0xff),
                          .error = -(int)(what >> 24 & 0xff),
                          .root = (int)((uint32_t)(what >> 32) - 1),
                          .count = mail->count,
                          .total = mail->total};
}

static int same(const struct asked *a, const struct asked *b) {
    return a->kind == b->kind && a->dtype == b->dtype && a->op == b->op && a->error == b->error && a->root == b->root && a->count == b->count;
}

/* As a person would say it. */
static void describe(struct text *t, const struct asked *a) {
    unsigned long long count = a->count, total = a->total;
    if (a->error == SYP_ECANCELED) {
        text_addf(t, "cancelled %s", op_name(a->kind));
        return;
    }
    if (a->error) {
        text_addf(t, "called %s with a refused argument (%s)", op_name(a->kind), syp_strerror(a->error));
        return;
    }
    text_addf(t, "%s", op_name(a->kind));
    switch (a->kind) {
    case OP_ALLREDUCE:
    case OP_REDUCE:
    case OP_REDUCE_SCATTER:
        text_addf(t, " %s %s x %llu", reduce_op_name(a->op), reduce_dtype_name(a->dtype), count);
        break;
    case OP_REDUCE_SCATTERV:
        text_addf(t, " %s %s of %llu bytes in parts of list #%08llx", reduce_op_name(a->op), reduce_dtype_name(a->dtype), total, count & 0xffffffff);
        break;
    case OP_ALLGATHERV:
        text_addf(t, " of %llu bytes in parts of list #%08llx", total, count & 0xffffffff);
        break;
    case OP_ALLGATHER_ROWS:
        text_addf(t, " of %llu bytes in rows of another length or number (#%08llx)", total, count & 0xffffffff);
        break;
    case OP_ALLTOALLV:
    case OP_BARRIER:
    case OP_FINALIZE:
        break;
    case OP_SYMM_MALLOC:
        text_addf(t, " of %llu bytes aligned to %llu", count, 1ull << (a->root & 63));
        return;
    case OP_COMM_CREATE:
        text_addf(t, " of %llu ranks", count);
        return;
    default:
        text_addf(t, " of %llu bytes", count);
    }
    if (a->root >= 0) text_addf(t, a->kind == OP_BROADCAST || a->kind == OP_SCATTER ? " from member %d" : " to member %d", a->root);
}

int request_mismatch(struct request *r) {
    struct comm *c = r->c;
    if (r->error) return r->error; /* our own record says it better */
    char table[900];
    struct text t = TEXT_INIT(table);
    uint8_t told[MAX_WORLD] = {0}, group[MAX_WORLD];
    int blame = -1;
    for (int m = 0; m < c->n; m++) {
        if (told[m]) continue;
        struct asked asked = asked_by(r, m);
        memset(group, 0, sizeof group);
        int n_same = 0;
        for (int k = m; k < c->n; k++) {
            struct asked his = asked_by(r, k);
            if (told[k] || !same(&asked, &his)) continue;
            told[k] = 1;
            group[c->member[k].rank] = 1;
            n_same++;
        }
        if (blame < 0 || n_same * 2 <= c->n) blame = m;
        text_addf(&t, "%s%s ", m ? "; " : "", n_same == 1 ? "rank" : "ranks");
        text_add_ranks(&t, group, c->coll->peers->n);
        text_addf(&t, ": ");
        describe(&t, &asked);
    }
    err_set(SYP_EMISMATCH, "operation %llu on group %d: the members called different things: %s; nothing was done, the group "
                           "can be used further", (unsigned long long)r->sequence, c->slot, table);
    int rank = c->member[blame].rank;
    return err_peer(rank, c->coll->peers->roster.rank[rank].pid);
}
