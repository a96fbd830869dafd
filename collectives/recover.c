/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After a member failed: whose stores may still arrive, one view for those who live, and a working group of them.
 *
 * A straggler is a member that is still inside the group's last operation (its slot says so): it may store into our buffer until it has left it.  One
 * that is not inside looks, before its first store, whether anybody has given the group up, and finds that we have; so it never becomes one.
 */
#include "collectives/agree.h"
#include "collectives/pairs.h"
#include "collectives/queue.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "pool/heap.h"

#include <string.h>

/* ------------------------------------------------------------------------------------------------ buffers */

/* Flagged as dead is not enough: the kernel flags the keeper's end, and another thread of the process may run a little longer. */
uint64_t comm_inside_of(const struct comm *c, int m) {
    const struct comm_slot *slot = c->member[m].slot;
    uint64_t inside = m == c->me || !slot ? 0 : load_seqcst((atom64 *)&slot->inside); /* pairs with request_release and leave */
    if (!inside || !life_of(c->coll->peers, c->member[m].rank)) return inside;
    const struct roster_entry *e = &c->coll->peers->roster.rank[c->member[m].rank];
    return peers_process_lives(e) ? inside : 0;
}

/* First member of a broken group that may still store; n = none, and there will be none: a member that goes inside later finds that we gave up. */
static int straggler(struct comm *c) {
    int m = c->vacated ? c->n : 0;
    while (m < c->n && comm_inside_of(c, m) != c->id + 1)
        m++;
    c->vacated = m == c->n;
    return m;
}

int comm_add_hazard(struct comm *c, uint64_t off, uint64_t len) {
    c->hazard_len = len;
    return quarantine_add(&c->coll->peers->region->quarantine, c->id, off, len);
}

void comm_forget_hazard(struct comm *c) {
    if (!c->hazard_len) return;
    c->hazard_len = 0;
    quarantine_remove(&c->coll->peers->region->quarantine, c->id);
    heap_quarantine_release(c->coll->heap);
}

int comm_release_hazard(struct comm *c) {
    if (!c->hazard_len || straggler(c) < c->n) return c->hazard_len == 0;
    comm_forget_hazard(c);
    return 1;
}

int comm_take(struct comm *c, const char *call) {
    uint32_t idle = 0;
    if (cas_acquire(&c->busy, &idle, 1)) return SYP_OK; /* pairs with request_release */
    return err_set(SYP_EBUSY, "%s on group %d: another thread of this rank is inside an operation of this group", call, c->slot);
}

int comm_buffers_safe(struct comm *c) {
    int rc = comm_take(c, "comm_buffers_safe");
    if (rc != SYP_OK) return rc;
    int m = c->broken ? straggler(c) : c->n, pair = pairs_hazards(c);
    if (m == c->n) comm_forget_hazard(c);
    if (m == c->n && pair) m = pair - 1; /* of a transfer: it need not have broken the group */
    store_release(&c->busy, 0); /* pairs with request_take */
    if (m == c->n) return SYP_OK;
    int rank = c->member[m].rank, pid = c->coll->peers->roster.rank[rank].pid;
    char state[32];
    err_set(SYP_EBUSY, "buffers of group %d: rank %d (pid %d%s) has not left the operation that failed yet and may still store into them; wait until it "
                       "runs again or has died", c->slot, rank, pid, process_state(pid, state, sizeof state));
    return err_peer(rank, pid);
}

/* ----------------------------------------------------------------------------------------------- agreement */

/* Take a group that may be broken. */
static int enter(struct comm *c, int kind) {
    int rc = comm_take(c, op_name(kind));
    if (rc != SYP_OK) return err_operation(op_name(kind));
    if (!c->in_use)
        rc = err_set(SYP_ESTATE, "%s on group %d: the group was destroyed", op_name(kind), c->slot);
    else if (c->unreachable)
        rc = comm_refuse_unreachable(c, op_name(kind));
    else
        rc = comm_check_own_life(c, op_name(kind));
    if (rc != SYP_OK) {
        store_release(&c->busy, 0);
        return err_operation(op_name(kind));
    }
    c->began = os->now();
    store_relaxed(&c->own->inside, (c->id + 1) | AGREEING); /* published by the vote; pairs with comm_inside_of */
    return SYP_OK;
}

static uint64_t deadline_of(const struct comm *c, int64_t timeout_ns) {
    return deadline_after(os->now(), timeout_ns > 0 ? timeout_ns : c->coll->conf.timeout_ns);
}

static int leave(struct comm *c, int kind, int rc) {
    if (rc != SYP_OK) {
        err_operation(op_name(kind));
        err_sequence((uint64_t)c->slot, c->agreements + (rc == SYP_EBUSY || rc == SYP_ETIMEOUT));
    }
    uint64_t now = os->now();
    if (rc == SYP_OK) stats_latency((enum stats_op_kind)kind, 0, now - c->began);
    stats_op_end((unsigned)c->slot, rc, now);
    store_release(&c->own->inside, c->begun ? c->id + 1 : 0); /* pairs with comm_inside_of */
    store_release(&c->busy, 0);        /* pairs with request_take */
    return rc;
}

static int different_calls(const struct comm *c, int kind) {
    return err_set(SYP_EMISMATCH, "%s on group %d: other members called %s; all must call the same", op_name(kind), c->slot,
                   op_name(kind == OP_AGREE ? OP_SHRINK : OP_AGREE));
}

int comm_agree(struct comm *c, uint64_t *flag, int64_t timeout_ns) {
    int rc = enter(c, OP_AGREE);
    if (rc != SYP_OK) return rc;
    stats_op_begin((unsigned)c->slot, (enum stats_op_kind)OP_AGREE, c->agreements + 1, 0, c->began);
    struct proposal mine = {.kind = OP_AGREE, .flag = *flag};
    struct verdict v;
    rc = agree_run(c, &mine, 0, deadline_of(c, timeout_ns), &v);
    if (rc == SYP_OK && v.code != SYP_OK) rc = different_calls(c, OP_AGREE);
    if (rc == SYP_OK) *flag = v.flag;
    return leave(c, OP_AGREE, rc);
}

int comm_failed(struct comm *c, int *ranks, int cap) {
    int n = 0, rc = comm_take(c, "comm_failed");
    if (rc != SYP_OK) return rc;
    for (int m = 0; m < c->n; m++) {
        if (!c->member[m].excluded) continue;
        if (n < cap) ranks[n] = c->member[m].rank;
        n++;
    }
    store_release(&c->busy, 0); /* pairs with request_take */
    return n;
}

/* -------------------------------------------------------------------------------------------------- shrink */

/* Of those that stay: the same list on all of them. */
static int survivors_group(struct comm *c, const struct verdict *v, struct comm **out) {
    struct coll *k = c->coll;
    int world[MAX_WORLD], n = 0;
    for (int m = 0; m < c->n; m++)
        if (!is_excluded(v, m)) world[n++] = c->rank[m];
    const struct board *own = peers_own_body(k->peers);
    lock_take(&k->lock);
    int used = !slot_is_free_locked(k, v->slot) || slot_clock(&own->slot[v->slot]) >= v->start;
    int rc = used
                 ? err_set(SYP_EBUSY, "shrink on group %d: its new slot %d was used between two tries; shrink again", c->slot, v->slot)
                 : comm_fill(k, v->slot, v->start, world, n);
    lock_drop(&k->lock);
    if (rc == SYP_OK) *out = &k->comm[v->slot];
    return rc;
}

static int wait_to_offer(struct comm *c, struct proposal *mine, uint64_t deadline) {
    while (!slots_offer(c, mine->free_slots, &mine->clock)) {
        if (os->now() >= deadline) {
            slots_done(c);
            return err_set(SYP_EBUSY, "shrink on group %d: another thread of this rank is making a group", c->slot);
        }
        os->sleep(50 * NS_PER_US);
    }
    return SYP_OK;
}

int comm_shrink(struct comm *c, int give_up, int64_t timeout_ns, struct comm **out) {
    *out = NULL;
    int rc = enter(c, OP_SHRINK);
    if (rc != SYP_OK) return rc;
    uint64_t deadline = deadline_of(c, timeout_ns);
    stats_op_begin((unsigned)c->slot, (enum stats_op_kind)OP_SHRINK, c->agreements + 1, 0, c->began);
    comm_give_up(c, "was shrunk by this rank"); /* members that are inside an operation of it get its end, and come here, too */
    TEST_POINT("shrink");
    struct proposal mine = {.kind = OP_SHRINK};
    struct verdict v;
    rc = wait_to_offer(c, &mine, deadline);
    if (rc == SYP_OK) {
        rc = agree_run(c, &mine, give_up, deadline, &v);
        if (rc == SYP_OK && v.code == SYP_EMISMATCH) rc = different_calls(c, OP_SHRINK);
        if (rc == SYP_OK && v.code != SYP_OK)
            rc = err_set(SYP_ENOMEM, "shrink on group %d: no group slot is free on all survivors; a rank can be in %d groups: destroy one", c->slot,
                         COMM_SLOTS);
        if (rc == SYP_OK) rc = survivors_group(c, &v, out);
        slots_done(c);
    }
    TEST_POINT("shrunk");
    return leave(c, OP_SHRINK, rc);
}
