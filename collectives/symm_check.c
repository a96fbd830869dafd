/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The proof of symmetry: members compare the digests of their symmetric calls at the smallest number of calls any of them has made.
 * A difference is everybody's error, naming the first diverging call.  Being ahead is legal, except at a barrier of the world.
 */
#include "collectives/request.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <string.h>

static const struct symm_call *ring_of(const struct comm *c, int member) {
    const struct coll *k = c->coll;
    int rank = c->member[member].rank;
    const struct board *b = rank == k->peers->me ? peers_own_body(k->peers) : peers_control_body(k->peers, rank);
    return b->ring;
}

/* Do all members agree at call `number`?  1 yes, 0 no, -1 some ring does not reach back that far. */
static int agree_at(const struct comm *c, uint64_t number) {
    struct symm_record first, other;
    if (!symm_read_call(ring_of(c, 0), number, &first)) return -1;
    for (int m = 1; m < c->n; m++) {
        if (!symm_read_call(ring_of(c, m), number, &other)) return -1;
        if (other.digest != first.digest) return 0;
    }
    return 1;
}

/* First call at which the members differ, in (agreed, last]; 0 when it is older than the rings. */
static uint64_t first_difference(const struct comm *c, uint64_t agreed, uint64_t last) {
    uint64_t low = agreed, high = last; /* low: equal (or unknown); high: different */
    uint64_t oldest = last > SYMM_RING - 1 ? last - (SYMM_RING - 1) : 1;
    if (low + 1 < oldest) low = oldest - 1;
    while (high - low > 1) {
        uint64_t mid = low + (high - low) / 2;
        if (agree_at(c, mid) == 1)
            low = mid;
        else
            high = mid;
    }
    /* the step from low to high is the first difference only if low is known to be equal */
    if (low == agreed || low == 0 || agree_at(c, low) == 1) return high;
    return 0;
}

static void describe_call(struct text *t, const struct symm_record *r) {
    if (r->kind == SYMM_FREE)
        text_addf(t, "freed the block at offset %llu", (unsigned long long)r->size);
    else
        text_addf(t, "asked %llu bytes%s", (unsigned long long)r->size, r->failed ? " and got none" : "");
    if (r->kind == SYMM_ALLOC && r->align_log2 > 6) text_addf(t, " aligned to %llu", 1ull << (r->align_log2 & 63));
}

static int same_call(const struct symm_record *a, const struct symm_record *b) {
    return a->kind == b->kind && a->size == b->size && a->align_log2 == b->align_log2 && a->failed == b->failed;
}

static int diverged(struct request *r, uint64_t number) {
    struct comm *c = r->c;
    char table[900];
    struct text t = TEXT_INIT(table);
    uint8_t told[MAX_WORLD] = {0}, group[MAX_WORLD];
    int blame = 0;
    for (int m = 0; m < c->n; m++) {
        struct symm_record mine, his;
        if (told[m] || !symm_read_call(ring_of(c, m), number, &mine)) continue;
        memset(group, 0, sizeof group);
        int n_same = 0;
        for (int k = m; k < c->n; k++) {
            if (told[k] || !symm_read_call(ring_of(c, k), number, &his) || !same_call(&mine, &his)) continue;
            told[k] = 1;
            group[c->member[k].rank] = 1;
            n_same++;
        }
        if (n_same * 2 < c->n) blame = m;
        text_addf(&t, "%s%s ", t.len ? "; " : "", n_same == 1 ? "rank" : "ranks");
        text_add_ranks(&t, group, c->coll->peers->n);
        text_addf(&t, " ");
        describe_call(&t, &mine);
    }
    err_set(SYP_EDIVERGED, "%s %llu on group %d: the symmetric allocations of the ranks differ at symmetric call %llu: %s; every rank "
                           "must make the same symmetric calls in the same order",
            op_name(r->kind), (unsigned long long)r->sequence, c->slot, (unsigned long long)number, table);
    int rank = c->member[blame].rank;
    return err_peer(rank, c->coll->peers->roster.rank[rank].pid);
}

/* A barrier of the world is where nobody may be ahead. */
static int behind_at_barrier(struct request *r, uint64_t least) {
    struct comm *c = r->c;
    uint8_t behind[MAX_WORLD] = {0};
    int blame = -1, ahead = -1;
    for (int m = 0; m < c->n; m++) {
        if (c->member[m].symm_calls == least) {
            behind[c->member[m].rank] = 1;
            if (blame < 0) blame = m;
        } else {
            ahead = m;
        }
    }
    char who[200], what[120] = "";
    struct text t = TEXT_INIT(who), w = TEXT_INIT(what);
    text_add_ranks(&t, behind, c->coll->peers->n);
    struct symm_record extra;
    if (symm_read_call(ring_of(c, ahead), least + 1, &extra)) {
        text_addf(&w, ", which rank %d made: it ", c->member[ahead].rank);
        describe_call(&w, &extra);
    }
    err_set(SYP_EDIVERGED, "barrier %llu on the world: of symmetric calls, rank(s) %s made %llu, rank %d made %llu; missing is call "
                           "%llu%s",
            (unsigned long long)r->sequence, who, (unsigned long long)least, c->member[ahead].rank,
            (unsigned long long)c->member[ahead].symm_calls, (unsigned long long)(least + 1), what);
    int rank = c->member[blame].rank;
    return err_peer(rank, c->coll->peers->roster.rank[rank].pid);
}

int request_symm_verdict(struct request *r) {
    struct comm *c = r->c;
    uint64_t least = UINT64_MAX, most = 0;
    for (int m = 0; m < c->n; m++) {
        if (c->member[m].symm_calls < least) least = c->member[m].symm_calls;
        if (c->member[m].symm_calls > most) most = c->member[m].symm_calls;
    }
    if (least > c->symm_agreed) {
        int agree = agree_at(c, least);
        if (agree == 0) {
            uint64_t number = first_difference(c, c->symm_agreed, least);
            if (number) return diverged(r, number);
            return err_set(SYP_EDIVERGED, "%s %llu on group %d: the symmetric allocations of the ranks differ somewhere before call "
                                          "%llu, longer ago than is recorded",
                           op_name(r->kind), (unsigned long long)r->sequence, c->slot, (unsigned long long)(least - SYMM_RING + 2));
        }
        if (agree == 1) c->symm_agreed = least;
    }
    if (least != most && c->slot == 0 && r->kind == OP_BARRIER) return behind_at_barrier(r, least);
    return SYP_OK;
}
