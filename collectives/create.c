/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making groups: the members of the parent agree on a slot that is free on all new members, and on a first phase above every phase of theirs.
 *
 * Slots are offered by one thread of a rank at a time (slots_offer); whoever is not that thread says so, and the round is repeated.  Among threads
 * that make groups of different parents the one with the lower group id goes first, on every rank, so one of them always gets through: no member offers before
 * all have come, so nobody keeps a rank's turn while it waits for a thread that may be making another group.
 */
#include "collectives/pairs.h"
#include "collectives/request.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"

#include <string.h>

/* Is another thread of this rank offering slots just now?  And has it been so for the whole deadline? */
enum turn { MY_TURN = 0, NOT_YET = 1, TOO_LATE = 2 };

/* What the members of the parent tell each other, in one round. */
struct create_round {
    uint64_t free_slots[COMM_SLOTS / 64];
    uint64_t list_digest;
    uint64_t clock; /* above it the new group's phases may begin */
    uint32_t busy;  /* enum turn */
};
_Static_assert(sizeof(struct create_round) <= MAIL_DATA, "travels in the mail");

/* -------------------------------------------------------------------------------------------------- slots */

/* A member of the group that had the slot may still be inside its last operation, agreement or transfer, reading our mails, votes or lines or storing into our
 * staging area: then none of them may be reused. */
int slot_is_free_locked(const struct coll *k, int i) {
    const struct comm *c = &k->comm[i];
    if (c->in_use || c->hazard_len) return 0;
    for (int m = 0; c->pair && m < c->n; m++)
        if (load_relaxed(&c->pair[m].hazard)) return 0;
    for (int m = 0; c->member && m < c->n; m++)
        if ((comm_inside_of(c, m) & ~AGREEING) == c->id + 1 || pairs_needed_by(c, m)) return 0;
    return 1;
}

static int may_offer_locked(const struct coll *k, const struct comm *parent) {
    if (k->maker) return 0;
    for (int i = 0; i < COMM_SLOTS; i++) {
        const struct comm *other = &k->comm[i];
        if (other != parent && other->in_use && other->wants_slot && other->id < parent->id) return 0;
    }
    return 1;
}

int slots_offer(struct comm *parent, uint64_t free_slots[COMM_SLOTS / 64], uint64_t *clock) {
    struct coll *k = parent->coll;
    const struct board *own = peers_own_body(k->peers);
    memset(free_slots, 0, COMM_SLOTS / 8);
    *clock = 0;
    lock_take(&k->lock);
    parent->wants_slot = 1;
    int mine = may_offer_locked(k, parent);
    if (mine) k->maker = parent;
    for (int i = 0; mine && i < COMM_SLOTS; i++) {
        struct comm *c = &k->comm[i];
        uint64_t phase = slot_clock(&own->slot[i]);
        if (phase > *clock) *clock = phase;
        if (!c->in_use && c->hazard_len) (void)comm_release_hazard(c);
        if (!c->in_use) (void)pairs_hazards(c);
        if (slot_is_free_locked(k, i)) free_slots[i / 64] |= 1ull << (i % 64);
    }
    lock_drop(&k->lock);
    return mine;
}

void slots_done(struct comm *parent) {
    struct coll *k = parent->coll;
    lock_take(&k->lock);
    parent->wants_slot = 0;
    if (k->maker == parent) k->maker = NULL;
    lock_drop(&k->lock);
}

int comm_lowest_slot(const uint64_t slots[COMM_SLOTS / 64]) {
    for (int i = 0; i < COMM_SLOTS; i++)
        if (slots[i / 64] >> (i % 64) & 1) return i;
    return -1;
}

/* ------------------------------------------------------------------------------------------------- create */

static uint64_t list_digest(const int *ranks, int n) {
    uint64_t h = 0xcbf29ce484222325ull; /* FNV-1a */
    for (int i = 0; i < n; i++)
        h = (h ^ (uint64_t)(uint32_t)ranks[i]) * 0x100000001b3ull;
    return h;
}

static int check_list(const struct comm *parent, const int *ranks, int n) {
    if (!ranks || n < 1 || n > parent->n)
        return err_set(SYP_EINVAL, "comm_create: a list of %d ranks of a group of %d", n, parent->n);
    uint8_t seen[MAX_WORLD] = {0};
    for (int i = 0; i < n; i++) {
        if (ranks[i] < 0 || ranks[i] >= parent->n)
            return err_set(SYP_EINVAL, "comm_create: ranks[%d] is %d, outside 0 .. %d", i, ranks[i], parent->n - 1);
        if (seen[ranks[i]]++) return err_set(SYP_EINVAL, "comm_create: rank %d is listed twice", ranks[i]);
    }
    return SYP_OK;
}

/* The parent is taken; it stays taken, so that nobody's mail changes while it is read. */
static int exchange(struct comm *parent, struct request *r, const struct create_round *mine, int n, int error) {
    request_number(r, parent, OP_COMM_CREATE, 0, 0);
    r->step = request_meet;
    r->count = (uint64_t)n;
    r->error = error;
    r->data = mine;
    r->data_len = sizeof *mine;
    return request_drive(r);
}

static struct create_round round_of(const struct request *r, int member) {
    struct create_round his;
    memcpy(&his, request_mail(r, member), sizeof his);
    return his;
}

/* All lists equal?  *busy: on some member another thread is offering slots.  Every member comes to the same. */
static int compare_rounds(struct comm *parent, const struct request *r, uint64_t digest, int *busy) {
    *busy = 0;
    for (int m = 0; m < parent->n; m++) {
        struct create_round his = round_of(r, m);
        int rank = parent->member[m].rank;
        if (his.busy) *busy = 1;
        if (his.busy == TOO_LATE) {
            err_set(SYP_EBUSY, "comm_create on group %d: on rank %d another thread has been making a group for the whole deadline", parent->slot, rank);
            return err_peer(rank, parent->coll->peers->roster.rank[rank].pid);
        }
        if (his.list_digest != digest)
            return err_set(SYP_EMISMATCH, "comm_create on group %d: rank %d gave another list of ranks", parent->slot, rank);
    }
    return SYP_OK;
}

/* The new group, from the offers of its members; every member of the parent comes to the same. */
static int take_slot(struct comm *parent, const struct request *r, const int *ranks, int n, struct comm **out) {
    uint64_t slots[COMM_SLOTS / 64], start = 0;
    int world[MAX_WORLD], member = 0;
    memset(slots, 0xff, sizeof slots);
    for (int i = 0; i < n; i++) {
        struct create_round his = round_of(r, ranks[i]);
        for (int w = 0; w < COMM_SLOTS / 64; w++)
            slots[w] &= his.free_slots[w];
        if (his.clock >= start) start = his.clock + 1;
        world[i] = parent->member[ranks[i]].rank;
        if (ranks[i] == parent->me) member = 1;
    }
    int slot = comm_lowest_slot(slots);
    if (slot < 0)
        return err_set(SYP_ENOMEM, "comm_create: no group slot is free on all %d members; a rank can be in %d groups: destroy one",
                       n, COMM_SLOTS);
    if (!member) return SYP_OK;
    struct coll *k = parent->coll;
    lock_take(&k->lock);
    int rc = comm_fill(k, slot, start, world, n);
    lock_drop(&k->lock);
    if (rc == SYP_OK) *out = &k->comm[slot];
    return rc;
}

/* comm_create with the parent taken.  refused: SYP_OK, or why our call is not legal. */
static int create(struct comm *parent, const int *ranks, int n, int refused, struct comm **out) {
    struct request r;
    int rc, busy, met = 0;
    uint64_t deadline = deadline_after(os->now(), parent->coll->conf.timeout_ns);
    do {
        struct create_round mine = {.list_digest = refused ? 0 : list_digest(ranks, n)};
        if (!met || !slots_offer(parent, mine.free_slots, &mine.clock)) mine.busy = os->now() < deadline ? NOT_YET : TOO_LATE;
        TEST_POINT("create.offer");
        rc = exchange(parent, &r, &mine, n, refused);
        if (rc == SYP_OK) rc = compare_rounds(parent, &r, mine.list_digest, &busy);
        if (rc == SYP_OK && !busy) rc = take_slot(parent, &r, ranks, n, out);
        if (rc != SYP_OK || !busy || !mine.busy) slots_done(parent);
        if (rc == SYP_OK && busy && met) os->sleep(50 * NS_PER_US); /* a shrink may be waiting for its turn: wait_to_offer */
        met = 1;
    } while (rc == SYP_OK && busy);
    return rc;
}

/* Ranks of several hosts have no group in common yet: those of one host make theirs among themselves.  list: out, in terms of the host's group. */
static int on_this_host(struct comm *world, const int *ranks, int n, int *list, struct comm **host) {
    struct coll *k = world->coll;
    *host = &k->comm[HOST_SLOT];
    for (int i = 0; i < n; i++) {
        int m = 0;
        while (m < (*host)->n && (*host)->rank[m] != ranks[i])
            m++;
        if (m < (*host)->n) {
            list[i] = m;
            continue;
        }
        err_set(SYP_EREACH, "comm_create: rank %d is on another host than rank %d; this version runs collectives inside one host: list ranks "
                            "of one host", ranks[i], k->peers->me);
        err_operation("comm_create");
        return err_peer(ranks[i], k->peers->roster.rank[ranks[i]].pid);
    }
    return SYP_OK;
}

/* refused: why the list is not legal; the record is set. */
static int create_of_list(struct comm *parent, const int *ranks, int n, int refused, struct comm **out) {
    int list[MAX_WORLD];
    if (out) *out = NULL;
    if (!out) refused = err_set(SYP_EINVAL, "comm_create: out is NULL");
    if (parent->slot == WORLD_SLOT && parent->unreachable && refused == SYP_OK) {
        int rc = on_this_host(parent, ranks, n, list, &parent);
        if (rc != SYP_OK) return rc;
        ranks = list;
    }
    syp_error why = *err_record();
    int rc = request_take(parent, OP_COMM_CREATE);
    if (rc != SYP_OK) return rc;
    if (refused) *err_record() = why;
    rc = create(parent, ranks, n, refused, out);
    request_release(parent);
    return rc;
}

int comm_create(struct comm *parent, const int *ranks, int n, struct comm **out) {
    return create_of_list(parent, ranks, n, check_list(parent, ranks, n), out);
}

int comm_split_strided(struct comm *parent, int start, int stride, int n, struct comm **out) {
    int list[MAX_WORLD];
    int64_t last = (int64_t)start + (int64_t)stride * (n - 1ll);
    if (n < 1 || n > parent->n || start < 0 || start >= parent->n || (stride == 0 && n > 1) || last < 0 || last >= parent->n) {
        int refused = err_set(SYP_EINVAL, "comm_split_strided: start %d, stride %d, n %d: not so many different ranks of a group of %d", start, stride, n,
                              parent->n);
        return create_of_list(parent, NULL, n, refused, out);
    }
    for (int i = 0; i < n; i++)
        list[i] = start + i * stride;
    return create_of_list(parent, list, n, SYP_OK, out);
}
