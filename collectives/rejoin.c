/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world made whole again: ranks that died have been replaced, and members and replacements meet once, over whatever carried their join.
 *
 *   tell (who is new, clocks, symmetric position) -> the new ones get the symmetric region's state from the lowest old one -> all start a new world group
 *
 * Every step's outcome is seen by all, so all start or none does.  Must not know: sockets; how the ranks found each other.
 */
#include "collectives/queue.h"
#include "collectives/request.h"
#include "bootstrap/transport.h"
#include "pool/base/point.h"
#include "pool/base/status.h"

#include <string.h>

/* What a rank tells when all are mapped. */
struct arrival {
    uint64_t is_new;
    uint64_t clock; /* above every phase of its slots */
    uint64_t calls, digest;
};

/* Outcome of one piece of the transfer, of donor or receiver. */
struct piece {
    uint64_t n;    /* words in the donor's staging area */
    uint64_t last; /* 1 = no more */
    int64_t code;  /* SYP_OK, or why this rank cannot go on */
};

struct rejoin {
    struct coll *k;
    const struct coll_meeting *meeting;
    int donor;
    struct arrival all[MAX_WORLD];
};

void coll_forget(struct coll *k, int rank, int pid) {
    lock_take(&k->lock);
    for (int i = 0; i < COMM_SLOTS; i++) {
        struct comm *c = &k->comm[i];
        for (int m = 0; c->member && m < c->n; m++) {
            if (c->rank[m] != rank) continue;
            if (c->in_use && !c->broken) {
                err_set(SYP_EPEER, "rank %d (pid %d) died and was replaced; groups it was in have ended: make new ones", rank, pid);
                err_peer(rank, pid);
                c->why = *err_record();
                comm_break(c, SYP_EPEER, rank, comm_first_open(c));
                queue_end(c);
            }
            c->member[m].slot = NULL; /* what will lie there is another process's */
            c->member[m].excluded = 1;
        }
    }
    lock_drop(&k->lock);
}

static int gather(struct rejoin *j, const void *mine, size_t len, void *all) {
    return j->meeting->allgather(j->meeting->arg, mine, len, all);
}

static int tell(struct rejoin *j, int is_new) {
    struct coll *k = j->k;
    const struct board *own = peers_own_body(k->peers);
    struct arrival mine = {.is_new = (uint64_t)is_new};
    symm_position(k->symm, &mine.calls, &mine.digest);
    for (int i = 0; i < COMM_SLOTS; i++) {
        uint64_t phase = slot_clock(&own->slot[i]);
        if (phase > mine.clock) mine.clock = phase;
    }
    int rc = gather(j, &mine, sizeof mine, j->all);
    if (rc != SYP_OK) return rc;
    j->donor = -1;
    for (int r = 0; r < k->peers->n; r++) {
        if (j->all[r].is_new) continue;
        if (j->donor < 0) j->donor = r;
        const struct arrival *first = &j->all[j->donor];
        if (j->all[r].calls == first->calls && j->all[r].digest == first->digest) continue;
        err_set(SYP_EDIVERGED, "rejoin: rank %d has made %llu symmetric calls and rank %d %llu, or not the same ones; the symmetric regions of those who "
                               "stayed must be equal", j->donor, (unsigned long long)first->calls, r, (unsigned long long)j->all[r].calls);
        return err_peer(r, k->peers->roster.rank[r].pid);
    }
    if (j->donor >= 0) return SYP_OK;
    return err_set(SYP_ESTATE, "rejoin: every rank is new");
}

/* The donor's part of one piece: words into its staging area. */
static struct piece give(struct rejoin *j, uint32_t *cursor) {
    struct coll *k = j->k;
    struct piece p = {.last = 1};
    if (k->peers->me != j->donor) return p;
    p.code = coll_staging(k, WORLD_SLOT);
    if (p.code != SYP_OK) return p;
    p.n = symm_list(k->symm, cursor, k->peers->exchange.base, k->conf.staging / sizeof(uint64_t));
    p.last = *cursor == 0;
    uint64_t calls, digest;
    symm_position(k->symm, &calls, &digest);
    if (calls != j->all[j->donor].calls)
        p.code = err_set(SYP_EDIVERGED, "rejoin: symmetric calls were made on rank %d meanwhile", j->donor);
    return p;
}

static int take(struct rejoin *j, const struct piece *given, int is_new) {
    const struct coll *k = j->k;
    if (!is_new) return SYP_OK;
    const struct arrival *donor = &j->all[j->donor];
    const uint64_t *words = transport_shm.address(k->peers, j->donor, SEGMENT_EXCHANGE, 0, given->n * sizeof *words);
    if (given->n > k->conf.staging / sizeof *words || !words)
        return err_set(SYP_EPEER, "rejoin: rank %d gives %llu words of state, which cannot be", j->donor, (unsigned long long)given->n);
    int rc = symm_restore(k->symm, words, given->n);
    const struct board *board = peers_control_body(k->peers, j->donor);
    return rc == SYP_OK && given->last ? symm_restored(k->symm, donor->calls, donor->digest, board->ring) : rc;
}

/* First rank that cannot go on: its code is everybody's. */
static int all_well(const struct rejoin *j, const struct piece *all, int mine) {
    for (int r = 0; r < j->k->peers->n; r++) {
        if (all[r].code == SYP_OK || mine != SYP_OK) continue;
        err_set((int)all[r].code, "rejoin: rank %d could not take over the symmetric region (%s); see its own log", r, syp_strerror((int)all[r].code));
        return err_peer(r, j->k->peers->roster.rank[r].pid);
    }
    return mine;
}

/* The board of the donor is far larger than a star's message, so the words travel through its staging area, piece by piece. */
static int hand_over(struct rejoin *j, int is_new) {
    struct piece all[MAX_WORLD], given;
    uint32_t cursor = 0;
    do {
        struct piece mine = give(j, &cursor);
        TEST_POINT("rejoin.give");
        int rc = gather(j, &mine, sizeof mine, all);
        if (rc == SYP_OK) rc = all_well(j, all, (int)mine.code);
        if (rc != SYP_OK) return rc;
        given = all[j->donor];
        mine.code = take(j, &given, is_new);
        rc = gather(j, &mine, sizeof mine, all);
        if (rc == SYP_OK) rc = all_well(j, all, (int)mine.code);
        if (rc != SYP_OK) return rc;
    } while (!given.last);
    return SYP_OK;
}

int coll_rejoin(struct coll *k, int is_new, const struct coll_meeting *meeting) {
    struct rejoin j = {.k = k, .meeting = meeting};
    int ranks[MAX_WORLD], any_new = 0;
    uint64_t start = 0;
    int rc = tell(&j, is_new);
    if (rc != SYP_OK) return rc;
    for (int r = 0; r < k->peers->n; r++) {
        ranks[r] = r;
        any_new |= j.all[r].is_new != 0;
        if (j.all[r].clock >= start) start = j.all[r].clock + 1;
        store_relaxed(&k->peers->self->dead[r], 0); /* notices of those who were replaced; the barrier below orders it */
    }
    if (any_new) rc = hand_over(&j, is_new);
    if (rc != SYP_OK) return rc;
    coll_look_at_fences(k);
    struct comm *world = &k->comm[WORLD_SLOT];
    if (world->pending) comm_give_up(world, "was followed by another one (syp_rejoin)");
    comm_forget_hazard(world); /* all have left the old world's operations, or are gone */
    rc = comm_fill(k, WORLD_SLOT, start, ranks, k->peers->n);
    if (rc != SYP_OK) { /* this rank's leaving the meeting ends it for all */
        world->why = *err_record();
        return comm_break(world, rc, -1, world->sequence + 1);
    }
    world->symm_agreed = j.all[j.donor].calls;
    TEST_POINT("rejoin.meet");
    rc = gather(&j, NULL, 0, NULL);
    if (rc != SYP_OK) {
        world->why = *err_record();
        comm_break(world, rc, -1, 0);
    }
    TEST_POINT("rejoin.done");
    return rc;
}
