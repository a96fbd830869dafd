/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups: their life in slots of the boards, publishing a phase, breaking.
 *
 *   unused -> in use (world: coll_open; others: create.c, recover.c) -> broken (comm_break) -> unused (comm_destroy, coll_close)
 *
 * A group's first phase is above every phase that its slot ever had on any member, so nobody can mistake it for an earlier user of the slot.
 */
#include "collectives/fence.h"
#include "collectives/nap.h"
#include "collectives/pairs.h"
#include "collectives/queue.h"
#include "collectives/request.h"
#include "collectives/tree.h"
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

int comm_refuse_unreachable(const struct comm *c, const char *call) {
    int rank = c->rank[c->unreachable - 1];
    err_set(SYP_EREACH, "%s on group %d: rank %d is on another host; this version joins ranks across hosts but runs collectives inside one: make a "
                        "group of the ranks of one host", call, c->slot, rank);
    return err_peer(rank, c->coll->peers->roster.rank[rank].pid);
}

/* Something has ended the keeper thread alone: the kernel has flagged the word. */
int comm_check_own_life(const struct comm *c, const char *call) {
    const struct peers *p = c->coll->peers;
    if (__builtin_expect((load_relaxed(&p->self->life) & LIFE_DIED) == 0, 1)) return SYP_OK; /* pairs with hold_life */
    err_set(SYP_EPEER, "%s on group %d: the keeper thread of this rank has ended, so the other ranks take it for dead; call syp_finalize, then join again",
            call, c->slot);
    return err_peer(p->me, os->pid());
}

const void *comm_word(const atom64 *word) {
    return (const char *)word + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0);
}

const struct vote *comm_vote(const struct comm *c, int member, uint64_t number) {
    const struct board *b = c->member[member].slot ? board_of(c->coll, c->rank[member]) : NULL; /* NULL also when it was replaced */
    return b ? &b->vote[c->slot][number & 1] : NULL;
}

/* c->member, c->rank, and what the tree needs, one behind the other. */
static size_t table_bytes(int n) {
    return (size_t)n * (sizeof(struct comm_member) + sizeof(int)) + tree_table_bytes(n);
}

static void free_members(struct comm *c) {
    if (c->member) map_free(c->member, table_bytes(c->n));
    c->member = NULL;
    pairs_free(c);
}

uint64_t slot_clock(const struct comm_slot *slot) {
    uint64_t a = load_relaxed((atom64 *)&slot->mail[0].stamp), b = load_relaxed((atom64 *)&slot->mail[1].stamp);
    return a > b ? a : b;
}

/* Spreads the bits of an id (the finaliser of splitmix64). */
static uint64_t token_of(uint64_t id) {
    uint64_t x = (id ^ (id >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

#define CLOCK_MAX (1ull << 55) /* no slot counts that far, and a clock above it would wrap the id of the group */
int comm_fill(struct coll *k, int slot, uint64_t start, const int *ranks, int n) {
    struct comm *c = &k->comm[slot];
    if (start && (start >= CLOCK_MAX || start <= slot_clock(&own_board(k)->slot[slot])))
        return err_set(SYP_EPEER, "make group %d: its members' clocks say that it begins at %llu, which cannot be: the control data of one of them "
                                  "is damaged", slot, (unsigned long long)start);
    int rc = ranks[0] == k->peers->me && n > TREE_ABOVE ? tree_memory(k, slot) : SYP_OK;
    if (rc != SYP_OK) return rc;
    struct comm_member *member = map_alloc(table_bytes(n));
    struct pair *pair = member ? pairs_alloc(k, slot, n) : NULL;
    if (!pair) {
        if (member) map_free(member, table_bytes(n));
        return err_set(SYP_ENOMEM, "comm_create: no memory for a group of %d members", n);
    }
    free_members(c);
    c->coll = k;
    c->mail_max = k->conf.algorithm == COLL_PUSH || k->conf.algorithm == COLL_PULL ? 0 : n <= MAIL_READERS ? MAIL_DATA : MAIL_REDUCED;
    if (c->slot != slot) c->slot = slot; /* written once: late callers read it, too */
    c->n = n;
    c->member = member;
    c->pair = pair;
    c->rank = (int *)(member + n);
    c->own = &own_board(k)->slot[slot];
    c->id = (uint64_t)slot | start << 8;
    c->phase = start;
    c->token = token_of(c->id);
    store_release(&c->own->mail[0].stamp, start); /* so that ids and clocks never repeat, also of a group that is not used */
    store_release(&c->own->mail[1].stamp, start);
    c->sequence = c->agreements = c->symm_agreed = c->halves = 0;
    c->broken = c->vacated = c->unreachable = c->wants_slot = 0;
    c->hazard_len = 0;
    store_relaxed(&c->own->inside, 0);
    for (int m = 0; m < n; m++) {
        const struct board *b = board_of(k, ranks[m]);
        member[m].rank = c->rank[m] = ranks[m];
        member[m].slot = b ? &b->slot[slot] : NULL;
        if (ranks[m] == k->peers->me) c->me = m;
        if (m == 0) c->result = b ? &b->result[slot] : NULL;
        if (!b && !c->unreachable) c->unreachable = m + 1;
    }
    tree_arrange(c, c->rank + n);
    store_relaxed(&c->own->current, 0);
    pairs_open(c);
    c->in_use = 1;
    c->ready = !c->unreachable;
    stats_op_group((unsigned)slot, (uint64_t)slot, (uint64_t)n);
    return SYP_OK;
}

/* The table of members stays until the slot is used again: see slot_is_free_locked. */
static void comm_clear(struct comm *c) {
    c->in_use = c->ready = 0;
    stats_op_group((unsigned)c->slot, 0, 0);
}

/* ------------------------------------------------------------------------------------------------ the world */

uint64_t coll_conf_digest(const struct coll_conf *conf) {
    return token_of(token_of(token_of((uint64_t)conf->algorithm) ^ conf->one_shot) ^ conf->chunk);
}

void coll_look_at_fences(struct coll *c) {
    const struct peers *p = c->peers;
    c->fences = 0;
    for (int r = 0; r < p->n; r++)
        if (roster_same_host(&p->roster, r, p->me) && (p->roster.rank[r].flags & ROSTER_FENCES)) c->fences = 1;
}

/* All ranks, or those of this host, as a group in `slot`. */
static int open_group(struct coll *c, int slot, int same_host) {
    int ranks[MAX_WORLD], n = 0;
    for (int r = 0; r < c->peers->n; r++)
        if (!same_host || roster_same_host(&c->peers->roster, r, c->peers->me)) ranks[n++] = r;
    return comm_fill(c, slot, 0, ranks, n);
}

#define MOST_THREADS 8 /* by default: memory is the limit then */
static int helpers_of(const struct coll *c) {
    int share = c->peers->n_local ? c->peers->n_processors / c->peers->n_local : 1, own = os->processors(NULL, 0);
    if (c->conf.threads) return c->conf.threads - 1;
    if (share > own) share = own;
    return (share < 1 ? 1 : share < MOST_THREADS ? share : MOST_THREADS) - 1;
}

int coll_open(struct coll *c, struct peers *p, struct symm *s, struct heap *h, const struct coll_conf *conf) {
    c->lock = (struct lock)LOCK_INIT(LOCK_COMM);
    c->maker = NULL;
    c->peers = p;
    c->symm = s;
    c->heap = h;
    c->conf = *conf;
    coll_look_at_fences(c);
    crew_open(&c->crew, helpers_of(c));
    memset(c->staging_ready, 0, sizeof c->staging_ready);
    memset(c->cell_ready, 0, sizeof c->cell_ready);
    memset(c->lines_ready, 0, sizeof c->lines_ready);
    memset(c->result_ready, 0, sizeof c->result_ready);
    store_relaxed(&c->cells, 0);
    int rc = nap_open(c);
    if (rc == SYP_OK) rc = open_group(c, WORLD_SLOT, 0);
    if (rc == SYP_OK && c->comm[WORLD_SLOT].unreachable) rc = open_group(c, HOST_SLOT, 1);
    for (int i = 0; rc == SYP_OK && i < COMM_SLOTS; i++)
        store_release(&c->comm[i].busy, 0); /* pairs with request_take */
    return rc;
}

struct comm *coll_meeting(struct coll *c) {
    return &c->comm[c->comm[WORLD_SLOT].unreachable ? HOST_SLOT : WORLD_SLOT];
}

void coll_close(struct coll *c) {
    crew_close(&c->crew);
    for (int i = 0; i < COMM_SLOTS; i++) {
        struct comm *g = &c->comm[i];
        if (g->in_use) comm_clear(g);
        queue_free(g);
        comm_forget_hazard(g); /* the peers' mappings of the pool outlive us; the pool does not */
        free_members(g);
    }
}

uint64_t coll_staging_bytes(const struct coll *c) {
    uint64_t n = 0;
    for (int i = 0; i < COMM_SLOTS; i++)
        n += c->staging_ready[i];
    return n * c->conf.staging;
}

uint64_t coll_bytes(const struct coll *c) {
    uint64_t n = sizeof(struct control_head) + coll_board_first() + os_page_size() + coll_staging_bytes(c); /* the page is the bell's */
    for (int i = 0; i < COMM_SLOTS; i++)
        n += c->lines_ready[i] * sizeof(struct pair_line) + c->result_ready[i] * sizeof(struct tree_result);
    for (int i = 0; i < PAIR_CELLS; i++)
        n += c->cell_ready[i] * 2 * PAIR_CHUNK;
    return n;
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

void coll_release(struct coll *c) {
    for (int i = 0; i < COMM_SLOTS; i++)
        store_release(&c->comm[i].busy, 0); /* pairs with request_take */
}

/* ----------------------------------------------------------------------------------------- publish and break */

void comm_wake(const struct comm *c) {
    os->futex_wake(comm_word(&comm_mail(c)->stamp), INT32_MAX);
}

/* Tell the members, and wake every one wherever it sleeps: on our mail, or on another member's. */
static void announce_break(struct comm *c, int code, int culprit, uint64_t sequence) {
    uint64_t why = why_of(code, culprit) | sequence << 32;
    store_relaxed(&c->own->abort_why, why);
    TEST_POINT("break");
    store_release(&c->own->abort_group, c->id + 1); /* pairs with wait_aborted */
    fence_heavy(c->coll);                           /* before anybody looks who is inside (stragglers), and before the sleepers are read */
    for (int m = 0; m < c->n; m++) {
        const struct comm_slot *slot = c->member[m].slot;
        if (!slot) continue;
        nap_ring(c->coll, c->rank[m]); /* what two members do between them ends, too */
        uint64_t on = load_relaxed((atom64 *)&slot->asleep); /* pairs with wait_sleep */
        int rank = asleep_rank(on);
        if (rank < 0 || rank >= c->coll->peers->n) continue;
        const struct board *b = board_of(c->coll, rank);
        if (b) os->futex_wake(comm_word(slot_word(&b->slot[c->slot], on >> 1 & 3, (int)(on & 1))), INT32_MAX);
    }
    TEST_POINT("broken");
}

int comm_break(struct comm *c, int code, int culprit, uint64_t sequence) {
    if (c->broken) return code;
    c->broken = code;
    c->ready = 0;
    announce_break(c, code, culprit, sequence);
    return code;
}

int comm_aborted_here(struct comm *c, uint64_t sequence) {
    if (c->broken) return c->broken;
    int me = c->coll->peers->me;
    err_set(SYP_EABORTED, "group %d was aborted by this rank (syp_comm_abort)", c->slot);
    err_peer(me, os->pid());
    c->why = *err_record();
    return comm_break(c, SYP_EABORTED, me, sequence);
}

void comm_give_up(struct comm *c, const char *why) {
    if (!c->broken) {
        syp_error before = *err_record();
        err_set(SYP_EABORTED, "group %d %s", c->slot, why);
        c->why = *err_record();
        *err_record() = before;
        comm_break(c, SYP_EABORTED, c->coll->peers->me, comm_first_open(c));
    }
    queue_end(c);
}

int comm_abort(struct comm *c) {
    uint32_t idle = 0;
    if (!cas_acquire(&c->busy, &idle, 1)) { /* pairs with request_release; the thread inside will find it: wait_aborted */
        /* the operation it is in; the bits above 32 are not of interest */
        announce_break(c, SYP_EABORTED, c->coll->peers->me, load_relaxed(&c->own->current));
        return SYP_OK;
    }
    syp_error before = *err_record(); /* success leaves the record alone */
    comm_aborted_here(c, comm_first_open(c));
    *err_record() = before;
    queue_end(c);
    store_release(&c->busy, 0); /* pairs with request_take */
    return SYP_OK;
}

/* ----------------------------------------------------------------------------------------------- destroy */

int comm_destroy(struct comm *c) {
    uint32_t idle = 0;
    if (!cas_acquire(&c->busy, &idle, 1)) /* pairs with request_release */
        return err_set(SYP_EBUSY, "comm_destroy: a thread is inside an operation of group %d", c->slot);
    int rc = pairs_shut(c) ? SYP_OK : err_set(SYP_EBUSY, "comm_destroy: a thread is inside a send, recv or channel call of group %d", c->slot);
    if (rc == SYP_OK && (rc = queue_close(c)) != SYP_OK) store_release(&c->pairs, 0); /* pairs with pairs_enter */
    if (rc != SYP_OK) {
        store_release(&c->busy, 0);
        return rc;
    }
    struct coll *k = c->coll;
    (void)comm_release_hazard(c); /* not safe yet: tried again when the slot is wanted */
    lock_take(&k->lock);
    comm_clear(c);
    store_release(&c->busy, 0);
    lock_drop(&k->lock);
    return SYP_OK;
}
