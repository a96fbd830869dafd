/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups: their life in slots of the boards, publishing a phase, breaking.
 *
 * A group's slot number and first phase are agreed by its parent's members: the lowest slot that is free on every member, and a phase above
 * every member's clock of that slot.  So a group's phases are larger than anything an earlier user of the slot ever waited for.
 */
#include "collectives/request.h"
#include "pool/base/arena.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"

#include <errno.h>
#include <string.h>

static struct board *own_board(const struct coll *c) {
    return peers_own_body(c->peers);
}

static const struct board *board_of(const struct coll *c, int rank) {
    return rank == c->peers->me ? own_board(c) : peers_control_body(c->peers, rank);
}

/* The futex word of a phase: its low half, which changes with every publish. */
static const void *phase_word(const struct comm_slot *slot) {
    return (const char *)&slot->phase + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0);
}

/* A member that cannot be reached by load and store: every operation of the group says so. */
static void refuse_unreachable(struct comm *c, int rank) {
    err_set(SYP_EUNSUPPORTED, "rank %d is on another host; this version joins ranks across hosts but runs collectives inside one",
            rank);
    c->broken = err_peer(rank, c->coll->peers->roster.rank[rank].pid);
    c->why = *err_record();
}

static void free_members(struct comm *c) {
    if (c->member) map_free(c->member, (size_t)c->n * (sizeof *c->member + sizeof *c->rank));
    c->member = NULL;
}

/* Fill an unused struct comm.  ranks: world ranks of the members, me among them. */
static int comm_fill(struct coll *k, struct comm *c, int slot, uint64_t start, const int *ranks, int n) {
    struct comm_member *member = map_alloc((size_t)n * (sizeof *member + sizeof *c->rank));
    free_members(c);
    if (!member) return err_set(SYP_ENOMEM, "comm_create: no memory for a group of %d members", n);
    c->coll = k;
    c->slot = slot;
    c->n = n;
    c->member = member;
    c->rank = (int *)(member + n);
    c->own = &own_board(k)->slot[slot];
    c->id = (uint64_t)slot | start << 8;
    c->phase = start;
    store_seqcst(&c->own->phase, start); /* so that ids and clocks never repeat, also of a group that is not used */
    c->sequence = 0;
    c->symm_agreed = 0;
    c->broken = 0;
    store_relaxed(&c->own->inside, 0);
    for (int m = 0; m < n; m++) {
        const struct board *b = board_of(k, ranks[m]);
        member[m].rank = c->rank[m] = ranks[m];
        member[m].slot = b ? &b->slot[slot] : NULL;
        if (ranks[m] == k->peers->me) c->me = m;
        if (!b && !c->broken) refuse_unreachable(c, ranks[m]);
    }
    store_relaxed(&c->own->current, 0);
    c->in_use = 1;
    stats_op_group((unsigned)slot, (uint64_t)slot, (uint64_t)n);
    return SYP_OK;
}

/* The table of members stays until the slot is used again: see lingering. */
static void comm_clear(struct comm *c) {
    c->in_use = 0;
    stats_op_group((unsigned)c->slot, 0, 0);
}

/* ------------------------------------------------------------------------------------------------ the world */

int coll_open(struct coll *c, struct peers *p, struct symm *s, const struct coll_conf *conf) {
    c->lock = (struct lock)LOCK_INIT(LOCK_COMM);
    c->peers = p;
    c->symm = s;
    c->conf = *conf;
    memset(c->staging_ready, 0, sizeof c->staging_ready);
    int *ranks = map_alloc((size_t)p->n * sizeof *ranks);
    if (!ranks) return err_set(SYP_ENOMEM, "no memory for the group of %d ranks", p->n);
    for (int r = 0; r < p->n; r++)
        ranks[r] = r;
    int rc = comm_fill(c, &c->comm[0], 0, 0, ranks, p->n);
    map_free(ranks, (size_t)p->n * sizeof *ranks);
    for (int i = 0; rc == SYP_OK && i < COMM_SLOTS; i++)
        store_release(&c->comm[i].busy, 0); /* pairs with request_take */
    return rc;
}

void coll_close(struct coll *c) {
    for (int i = 0; i < COMM_SLOTS; i++) {
        if (c->comm[i].in_use) comm_clear(&c->comm[i]);
        free_members(&c->comm[i]);
    }
}

uint64_t coll_staging_bytes(const struct coll *c) {
    uint64_t n = 0;
    for (int i = 0; i < COMM_SLOTS; i++)
        n += c->staging_ready[i];
    return n * c->conf.staging;
}

int coll_claim(struct coll *c) {
    lock_take(&c->lock); /* no group is made meanwhile */
    for (int i = 0; i < COMM_SLOTS; i++) {
        uint32_t idle = 0;
        if (cas_acquire(&c->comm[i].busy, &idle, 1)) continue; /* pairs with request_release */
        while (i-- > 0)
            store_release(&c->comm[i].busy, 0);
        lock_drop(&c->lock);
        return err_set(SYP_EBUSY, "a thread of this rank is inside a collective; let it return first");
    }
    lock_drop(&c->lock);
    return SYP_OK;
}

/* ----------------------------------------------------------------------------------------- publish and break */

void comm_publish(struct comm *c) {
    TEST_POINT("publish");
    store_seqcst(&c->own->phase, ++c->phase); /* pairs with wait_reached and wait_sleep */
    uint64_t me = (uint64_t)c->coll->peers->me + 1;
    int wake = 0;
    for (int m = 0; m < c->n; m++) {
        const struct comm_slot *slot = c->member[m].slot;
        if (slot && load_seqcst((atom64 *)&slot->asleep) == me) wake = 1;
    }
    if (wake) os->futex_wake(phase_word(c->own), INT32_MAX);
    TEST_POINT("published");
}

int comm_break(struct comm *c, int code, int culprit, uint64_t sequence) {
    if (c->broken) return code;
    c->broken = code;
    uint64_t why = (uint64_t)(uint32_t)-code | (uint64_t)(uint32_t)(culprit + 1) << 8 | sequence << 32;
    store_relaxed(&c->own->abort_why, why);
    store_release(&c->own->abort_group, c->id + 1); /* pairs with wait_aborted */
    atomic_thread_fence(memory_order_seq_cst);      /* before the caller touches its buffers again, and before the sleepers are read */
    /* Wake every member wherever it sleeps: on our phase, or on another member's. */
    for (int m = 0; m < c->n; m++) {
        const struct comm_slot *slot = c->member[m].slot;
        if (!slot) continue;
        uint64_t on = load_seqcst((atom64 *)&slot->asleep); /* pairs with wait_sleep */
        if (on == 0 || on > (uint64_t)c->coll->peers->n) continue;
        const struct board *b = board_of(c->coll, (int)on - 1);
        if (b) os->futex_wake(phase_word(&b->slot[c->slot]), INT32_MAX);
    }
    return code;
}

/* ------------------------------------------------------------------------------------------ create, destroy */

/* What the members of the parent tell each other: free slots first, then their clock of the chosen slot. */
struct create_round {
    uint64_t free_slots[COMM_SLOTS / 64];
    uint64_t list_digest;
    uint64_t clock;
};
_Static_assert(sizeof(struct create_round) <= POST_PAYLOAD, "travels inside the post");

static int exchange_step(struct request *r) {
    if (r->state == 0) {
        request_post(r);
        r->state = 1;
    }
    return request_check(r);
}

/* The parent is taken; it stays taken, so that nobody's post changes while the payloads are read. */
static int create_exchange(struct comm *parent, struct request *r, const struct create_round *mine, int n, int error) {
    request_number(r, parent, OP_COMM_CREATE, 0);
    r->step = exchange_step;
    r->count = (uint64_t)n;
    r->error = error;
    memcpy(r->payload, mine, sizeof *mine);
    r->payload_len = sizeof *mine;
    return request_drive(r);
}

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

/* Is a member of the group that had this slot still inside its last operation, reading our posts?  Then they must not be overwritten. */
static int lingering(const struct comm *c) {
    for (int m = 0; c->member && m < c->n; m++) {
        const struct comm_slot *slot = c->member[m].slot;
        if (m == c->me || !slot || life_of(c->coll->peers, c->member[m].rank)) continue;
        if (load_acquire((atom64 *)&slot->inside) == c->id + 1) return 1; /* pairs with request_release */
    }
    return 0;
}

static void free_slots(struct coll *k, uint64_t *bits) {
    memset(bits, 0, COMM_SLOTS / 8);
    lock_take(&k->lock);
    for (int i = 0; i < COMM_SLOTS; i++)
        if (!k->comm[i].in_use && !lingering(&k->comm[i])) bits[i / 64] |= 1ull << (i % 64);
    lock_drop(&k->lock);
}

/* Lowest slot free on all new members, from their payloads; -1 = none. */
static int common_slot(const struct request *r, const int *ranks, int n) {
    uint64_t all[COMM_SLOTS / 64];
    memset(all, 0xff, sizeof all);
    for (int i = 0; i < n; i++) {
        struct create_round his;
        memcpy(&his, request_payload(r, ranks[i]), sizeof his);
        for (int w = 0; w < COMM_SLOTS / 64; w++)
            all[w] &= his.free_slots[w];
    }
    for (int i = 0; i < COMM_SLOTS; i++)
        if (all[i / 64] >> (i % 64) & 1) return i;
    return -1;
}

static int lists_agree(struct comm *parent, const struct request *r, uint64_t digest) {
    for (int m = 0; m < parent->n; m++) {
        struct create_round his;
        memcpy(&his, request_payload(r, m), sizeof his);
        if (his.list_digest != digest)
            return err_set(SYP_EMISMATCH, "comm_create on group %d: rank %d gave another list of ranks", parent->slot,
                           parent->member[m].rank);
    }
    return SYP_OK;
}

/* comm_create with the parent taken.  refused: SYP_OK, or why our call is not legal. */
static int create(struct comm *parent, const int *ranks, int n, int refused, struct comm **out) {
    struct coll *k = parent->coll;
    struct create_round mine = {0};
    struct request r;
    mine.list_digest = refused ? 0 : list_digest(ranks, n);
    free_slots(k, mine.free_slots);
    int rc = create_exchange(parent, &r, &mine, n, refused);
    if (rc == SYP_OK) rc = lists_agree(parent, &r, mine.list_digest);
    if (rc != SYP_OK) return rc;
    int slot = common_slot(&r, ranks, n);
    if (slot < 0)
        return err_set(SYP_ENOMEM, "comm_create: no group slot is free on all %d members; a rank can be in %d groups: destroy one",
                       n, COMM_SLOTS);
    mine.clock = load_relaxed(&own_board(k)->slot[slot].phase);
    rc = create_exchange(parent, &r, &mine, n, SYP_OK);
    if (rc != SYP_OK) return rc;
    uint64_t start = 0;
    int world[MAX_WORLD], member = 0;
    for (int i = 0; i < n; i++) {
        struct create_round his;
        memcpy(&his, request_payload(&r, ranks[i]), sizeof his);
        if (his.clock >= start) start = his.clock + 1;
        world[i] = parent->member[ranks[i]].rank;
        if (ranks[i] == parent->me) member = 1;
    }
    if (!member) return SYP_OK;
    lock_take(&k->lock);
    struct comm *c = &k->comm[slot];
    rc = c->in_use ? SYP_EBUSY : comm_fill(k, c, slot, start, world, n);
    lock_drop(&k->lock);
    if (rc == SYP_EBUSY)
        return err_set(SYP_EBUSY, "comm_create: another thread of this rank took slot %d at the same time", slot);
    if (rc == SYP_OK) *out = c;
    return rc;
}

int comm_create(struct comm *parent, const int *ranks, int n, struct comm **out) {
    if (out) *out = NULL;
    int rc = request_take(parent, OP_COMM_CREATE);
    if (rc != SYP_OK) return rc;
    int refused = out ? check_list(parent, ranks, n) : err_set(SYP_EINVAL, "comm_create: out is NULL");
    rc = create(parent, ranks, n, refused, out);
    request_release(parent);
    return rc;
}

int comm_destroy(struct comm *c) {
    uint32_t idle = 0;
    if (!cas_acquire(&c->busy, &idle, 1)) /* pairs with request_release */
        return err_set(SYP_EBUSY, "comm_destroy: a thread is inside an operation of group %d", c->slot);
    struct coll *k = c->coll;
    lock_take(&k->lock);
    comm_clear(c);
    store_release(&c->busy, 0);
    lock_drop(&k->lock);
    return SYP_OK;
}
