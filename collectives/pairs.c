/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a group's pairs, what makes a call between two members pointless, and the buffers of failed transfers.
 *
 * A member that was stopped while it stored into a buffer of ours goes on when it wakes up.  We gave the direction up before (GIVEN_UP in our line), so it stops
 * after the piece that it copies, and publishes that it has; until then the buffers are in the quarantine, as those of a broken group are.
 */
#include "collectives/pairs.h"
#include "pool/base/arena.h"
#include "pool/base/os.h"
#include "pool/base/status.h"

#include <stddef.h>

/* ---------------------------------------------------------------------------------------------------- life */

/* Memory for the lines of a slot, as many as the largest group there had. */
static int commit_lines(struct coll *k, int slot, int n) {
    if (n <= k->lines_ready[slot]) return SYP_OK;
    uint64_t line = sizeof(struct pair_line), off = offsetof(struct board, line) + (uint64_t)slot * MAX_WORLD * line;
    int rc = peers_commit_control(k->peers, off, (uint64_t)n * line);
    if (rc != SYP_OK) return rc;
    stats_set(STAT_OVERHEAD, stats_read(STAT_OVERHEAD) + (uint64_t)(n - k->lines_ready[slot]) * line);
    k->lines_ready[slot] = (uint16_t)n;
    return SYP_OK;
}

struct pair *pairs_alloc(struct coll *k, int slot, int n) {
    return commit_lines(k, slot, n) == SYP_OK ? map_alloc((size_t)n * sizeof(struct pair)) : NULL;
}

void pairs_open(struct comm *c) {
    store_release(&c->own->lines_of, 0); /* before the lines change: pairs with pair_in_group after they were read */
    for (int m = 0; m < c->n; m++) {
        struct pair_line *line = pair_own_line(c, m);
        for (int i = 0; i < SYP_CHANNELS; i++)
            store_release(&line->notified[i], 0);
        store_release(&line->sent, 0);
        store_release(&line->received, 0);
    }
    store_release(&c->own->lines_of, c->id + 1); /* pairs with pair_in_group */
    store_release(&c->pairs, 0);                 /* pairs with pairs_enter */
}


int pairs_enter(struct comm *c, const char *call) {
    uint32_t inside = load_relaxed(&c->pairs);
    while (!(inside & PAIRS_SHUT))
        if (cas_acq_rel(&c->pairs, &inside, inside + 1)) { /* pairs with pairs_shut and pairs_open */
            (void)add_relaxed(&c->own->pairing, 1); /* published by our first step; pairs with pairs_needed_by */
            return SYP_OK;
        }
    return err_set(SYP_ESTATE, "%s on group %d: the group was destroyed", call, c->slot);
}

void pairs_leave(struct comm *c) {
    atomic_fetch_sub_explicit(&c->own->pairing, 1, memory_order_release); /* pairs with pairs_needed_by */
    atomic_fetch_sub_explicit(&c->pairs, 1, memory_order_release); /* pairs with pairs_shut */
}

int pairs_shut(struct comm *c) {
    uint32_t nobody = 0;
    return cas_acquire(&c->pairs, &nobody, PAIRS_SHUT) || nobody == PAIRS_SHUT; /* pairs with pairs_leave */
}

int pairs_needed_by(const struct comm *c, int m) {
    const struct comm_slot *slot = c->member[m].slot;
    if (m == c->me || !slot || !load_acquire((atom32 *)&slot->pairing) || !pair_in_group(c, m)) return 0; /* pairs with pairs_leave; it stays while it is inside */
    return !life_of(c->coll->peers, c->rank[m]) || peers_process_lives(&c->coll->peers->roster.rank[c->rank[m]]);
}

/* --------------------------------------------------------------------------------------- what makes it pointless */

/* The group was broken by member `by`, maybe this rank: its cause. */
static int broken_by(const struct comm *c, const char *call, int by) {
    const struct comm_slot *slot = c->member[by].slot;
    uint64_t why = load_relaxed((atom64 *)&slot->abort_why); /* ordered by the acquire of abort_group */
    int code = why_code(why), culprit = why_culprit(why), me = c->coll->peers->me, from = c->rank[by];
    if (code != SYP_EPEER && code != SYP_ETIMEOUT && by != c->me) code = SYP_EABORTED;
    if (culprit < 0 || culprit >= c->coll->peers->n) culprit = from;
    if (culprit == me) code = SYP_EABORTED;
    int pid = c->coll->peers->roster.rank[culprit].pid;
    if (code == SYP_EABORTED)
        err_set(code, "%s on group %d: rank %d has aborted, shrunk or given up the group", call, c->slot, from);
    else
        err_set(code, "%s on group %d: the group is broken, because rank %d (pid %d) %s", call, c->slot, culprit, pid,
                code == SYP_EPEER ? "died or left" : "did not arrive in time");
    err_sequence((uint64_t)c->slot, why >> 32);
    return err_peer(culprit, pid);
}

/* Has the member given this group up? */
static int has_broken(const struct comm *c, int m) {
    const struct comm_slot *slot = c->member[m].slot;
    return slot && load_acquire((atom64 *)&slot->abort_group) == c->id + 1; /* pairs with announce_break */
}

int pair_usable(const struct comm *c, const char *call, const char *name, int m) {
    if (m < 0 || m >= c->n) return err_set(SYP_EINVAL, "%s on group %d: %s is %d, outside 0 .. %d", call, c->slot, name, m, c->n - 1);
    if (__builtin_expect(has_broken(c, c->me), 0)) return broken_by(c, call, c->me);
    int rank = c->rank[m], pid = c->coll->peers->roster.rank[rank].pid;
    if (!c->member[m].slot) {
        err_set(SYP_EREACH, "%s on group %d: rank %d is on another host, and this version does not send to other hosts", call, c->slot, rank);
        return err_peer(rank, pid);
    }
    if (__builtin_expect(has_broken(c, m), 0)) return broken_by(c, call, m);
    return comm_check_own_life(c, call);
}

int pair_look(const struct comm *c, const char *call, int m) {
    for (int i = 0; i < c->n; i++)
        if (has_broken(c, i)) return broken_by(c, call, i);
    const struct comm_slot *slot = c->member[m].slot;
    int rank = c->rank[m];
    if (!slot || load_relaxed((atom64 *)&slot->lines_of) > c->id + 1) { /* ids of a slot only grow */
        err_set(SYP_EPEER, "%s on group %d: rank %d has destroyed this group", call, c->slot, rank);
        return err_peer(rank, c->coll->peers->roster.rank[rank].pid);
    }
    return comm_check_own_life(c, call);
}

int pair_gone(const struct comm *c, const char *call, int m) {
    const struct peers *p = c->coll->peers;
    int rank = c->rank[m], reason;
    if (life_look(p, &rank, 1, &reason) < 0) return SYP_OK;
    int pid = p->roster.rank[rank].pid;
    life_publish(p, rank, reason);
    err_set(SYP_EPEER, "%s on group %d: rank %d (pid %d) %s", call, c->slot, rank, pid, reason == LIFE_REASON_LEFT ? "has left the job" : "died");
    return err_peer(rank, pid);
}

/* ------------------------------------------------------------------------------------------------- hazards */

/* Above every group's id. */
static uint64_t quarantine_id(const struct pair *p) {
    return (uint64_t)(uintptr_t)p | 1ull << 63;
}

void pair_add_hazard(struct comm *c, int m, uint64_t steps, uint64_t off, uint64_t len) {
    struct pair *p = &c->pair[m];
    (void)quarantine_add(&c->coll->peers->region->quarantine, quarantine_id(p), off, len); /* full: then nothing is reused */
    store_release(&p->hazard, steps); /* pairs with pairs_hazards */
}

static void forget(struct comm *c, struct pair *p) {
    quarantine_remove(&c->coll->peers->region->quarantine, quarantine_id(p));
    heap_quarantine_release(c->coll->heap);
}

/* The member has stored everything, or has noticed; has left the group, or is no more (flagged as dead is not enough: comm_inside_of). */
static int pair_hazard_over(const struct comm *c, int m, uint64_t steps) {
    const struct pair_line *his = pair_his_line(c, m);
    if (!his) return 1;
    uint64_t sent = load_acquire((atom64 *)&his->sent); /* pairs with publish and give_up of sendrecv.c */
    if (sent & GIVEN_UP || sent >= steps || !pair_in_group(c, m)) return 1;
    return life_of(c->coll->peers, c->rank[m]) && !peers_process_lives(&c->coll->peers->roster.rank[c->rank[m]]);
}

int pairs_hazards(struct comm *c) {
    int first = 0;
    for (int m = 0; c->pair && m < c->n; m++) {
        uint64_t steps = load_acquire(&c->pair[m].hazard); /* pairs with pair_add_hazard */
        if (!steps) continue;
        if (!pair_hazard_over(c, m, steps))
            first = first ? first : m + 1;
        else if (cas_acq_rel(&c->pair[m].hazard, &steps, 0)) /* another thread may have been first */
            forget(c, &c->pair[m]);
    }
    return first;
}

void pairs_free(struct comm *c) {
    if (!c->pair) return;
    for (int m = 0; m < c->n; m++)
        if (load_relaxed(&c->pair[m].hazard)) forget(c, &c->pair[m]); /* at a rejoin, or at the end: whoever could store is gone */
    map_free(c->pair, (size_t)c->n * sizeof *c->pair);
    c->pair = NULL;
}
