/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agreement.  See agree.h for what it promises.
 *
 *   post the proposal -> (lead: gather, promise, accept, decide) or wait -> adopt the verdict of whoever decided
 *
 * A ballot is won in two steps, each "store own word, then read everybody's"; both sides sequentially consistent, so of two that compete at
 * least one sees the other.  promised: nobody with a higher ballot has begun.  accepted: the verdict is in the register, and still nobody has.
 * Whoever begins later finds it there and must propose it again.  Must not know: what a verdict is used for.
 */
#include "collectives/agree.h"
#include "collectives/request.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <string.h>

#define AWAKE_NS (200 * NS_PER_US)
#define SLICE (1 * NS_PER_MS)

struct agreement {
    struct comm *c;
    const struct proposal *mine;
    struct vote *own;
    uint64_t number, attempt;
    int give_up; /* the deadline has passed: 1 = members that have not come are treated as dead; 2 = and nobody else is waited for */
};

_Static_assert(sizeof(struct proposal) == PROPOSAL_WORDS * 8, "a proposal is its words");

/* --------------------------------------------------------------------------------------------------- records */

/* What member m has posted in this agreement; NULL = nothing yet, or not any more.  After reading words of it, ask again: the same answer says
 * that they are of this agreement. */
static const struct vote *vote_of(const struct agreement *a, int m) {
    const struct vote *v = comm_vote(a->c, m, a->number);
    if (!v || load_acquire((atom64 *)&v->number) != 2 * a->number) return NULL; /* both pair with vote_post */
    return load_acquire((atom64 *)&v->comm_id) == a->c->id ? v : NULL;
}

/* Its record serves a later agreement, or a later group in this slot: it has done without us.  Where those are that were excluded says nothing. */
static int has_gone_on(const struct agreement *a, int m) {
    const struct vote *v = a->c->member[m].excluded ? NULL : comm_vote(a->c, m, a->number);
    if (!v) return 0;
    uint64_t id = load_acquire((atom64 *)&v->comm_id); /* both pair with vote_post */
    return id > a->c->id || (id == a->c->id && load_acquire((atom64 *)&v->number) > 2 * a->number);
}

static int left_behind(const struct agreement *a) {
    int m = 0;
    while (m < a->c->n && !has_gone_on(a, m))
        m++;
    return m < a->c->n;
}

/* A second try of the same agreement keeps what this member has promised and accepted.  Else every word is stored with release behind the odd number,
 * so that a reader of the earlier agreement who sees a new word sees the number, too, when it looks again. */
static void vote_post(struct agreement *a) {
    struct vote *v = a->own;
    const uint64_t *words = (const uint64_t *)a->mine;
    if (!vote_of(a, a->c->me)) {
        store_relaxed(&v->number, 2 * a->number - 1);
        store_release(&v->comm_id, a->c->id); /* both pair with vote_of and has_gone_on */
        store_release(&v->promised, 0);
        store_release(&v->accepted, 0);
        store_release(&v->decided, 0);
    }
    for (int i = 0; i < PROPOSAL_WORDS; i++)
        store_relaxed(&v->proposal[i], words[i]);
    TEST_POINT("agree.post");
    store_seqcst(&v->number, 2 * a->number); /* pairs with vote_of */
    os->futex_wake(comm_word(&v->number), INT32_MAX);
    TEST_POINT("agree.posted");
}

/* Release and acquire: who reads a word that was written later sees so when it looks again at the word that pointed here. */
static void verdict_write(atom64 *to, const struct verdict *v) {
    const uint64_t head[5] = {(uint64_t)-v->code, (uint64_t)v->slot, v->flag, v->start, (uint64_t)v->kind};
    for (int i = 0; i < 5; i++)
        store_release(&to[i], head[i]);
    for (int i = 0; i < MAX_WORLD / 64; i++)
        store_release(&to[5 + i], v->excluded[i]);
}

/* Words of a peer: a nonsense slot is refused by whoever makes a group of it. */
static void verdict_read(const atom64 *from, struct verdict *v) {
    v->code = -(int)(load_acquire((atom64 *)&from[0]) & 0xff);
    v->slot = (int)(load_acquire((atom64 *)&from[1]) & (COMM_SLOTS - 1));
    v->flag = load_acquire((atom64 *)&from[2]);
    v->start = load_acquire((atom64 *)&from[3]);
    v->kind = (int)(load_acquire((atom64 *)&from[4]) & 0xff);
    for (int i = 0; i < MAX_WORLD / 64; i++)
        v->excluded[i] = load_acquire((atom64 *)&from[5 + i]);
}

/* ----------------------------------------------------------------------------------------------- the verdict */

/* Not to be waited for: dead, gone, given up earlier or now. */
static int is_out(const struct agreement *a, int m) {
    const struct comm_member *member = &a->c->member[m];
    if (m == a->c->me) return 0;
    return member->excluded || !member->slot || life_of(a->c->coll->peers, member->rank) != 0;
}

/* First member whose proposal is still needed; n = none. */
static int first_missing(const struct agreement *a) {
    int m = 0;
    while (m < a->c->n && (is_out(a, m) || vote_of(a, m)))
        m++;
    return m;
}

/* The lowest member that may be expected to act. */
static int leader(const struct agreement *a) {
    int m = 0;
    while (m < a->c->me && (is_out(a, m) || a->give_up == 2 || (a->give_up && !vote_of(a, m))))
        m++;
    return m;
}

/* From the proposals of all that are not out. */
static void judge(const struct agreement *a, struct verdict *out) {
    uint64_t slots[COMM_SLOTS / 64];
    memset(slots, 0xff, sizeof slots);
    memset(out, 0, sizeof *out);
    out->kind = (int)a->mine->kind;
    out->flag = UINT64_MAX;
    for (int m = 0; m < a->c->n; m++) {
        const struct vote *v = vote_of(a, m);
        if (!v || is_out(a, m)) {
            out->excluded[m / 64] |= 1ull << (m % 64);
            continue;
        }
        struct proposal p;
        uint64_t *words = (uint64_t *)&p;
        for (int i = 0; i < PROPOSAL_WORDS; i++)
            words[i] = load_relaxed((atom64 *)&v->proposal[i]);
        if (p.kind != a->mine->kind) out->code = SYP_EMISMATCH;
        out->flag &= p.flag;
        if (p.clock >= out->start) out->start = p.clock + 1;
        for (int i = 0; i < COMM_SLOTS / 64; i++)
            slots[i] &= p.free_slots[i];
    }
    out->slot = comm_lowest_slot(slots);
    if (out->slot >= 0) return;
    out->slot = 0;
    if (a->mine->kind == OP_SHRINK && out->code == SYP_OK) out->code = SYP_ENOMEM;
}

/* Has anybody begun a higher ballot?  Returns the highest promised, above all ballots when a record is gone; *accepted: the highest accepted, and *v its
 * verdict. */
static uint64_t look_around(const struct agreement *a, uint64_t *accepted, struct verdict *v) {
    uint64_t highest = 0;
    *accepted = 0;
    for (int m = 0; m < a->c->n; m++) {
        const struct vote *his = vote_of(a, m);
        if (!his) continue;
        uint64_t promised = load_seqcst((atom64 *)&his->promised); /* pairs with propose */
        if (promised > highest) highest = promised;
        uint64_t seen = load_seqcst((atom64 *)&his->accepted), again; /* pairs with propose */
        if (seen >> 1 <= *accepted) continue;
        do { /* its owner writes the two verdicts in turn: unchanged means that the one we read was complete */
            again = seen;
            verdict_read(his->verdict[seen & 1], v);
            seen = load_seqcst((atom64 *)&his->accepted);
        } while (seen != again);
        *accepted = seen >> 1;
    }
    return left_behind(a) ? UINT64_MAX : highest;
}

/* Final, here too: it outlives whoever decided it first. */
static void decide(struct vote *own, uint64_t which) {
    store_release(&own->decided, 1 + which); /* pairs with adopt */
    os->futex_wake(comm_word(&own->decided), INT32_MAX);
}

/* One ballot.  Lost ones are tried again by whoever leads then. */
static void propose(struct agreement *a) {
    struct vote *own = a->own;
    struct verdict v, earlier;
    uint64_t accepted, n = (uint64_t)a->c->n;
    judge(a, &v);
    uint64_t highest = look_around(a, &accepted, &earlier);
    if (highest == UINT64_MAX) return;
    if (highest / n >= a->attempt) a->attempt = highest / n + 1;
    uint64_t ballot = a->attempt * n + (uint64_t)a->c->me;
    TEST_POINT("agree.promise");
    store_seqcst(&own->promised, ballot); /* pairs with look_around */
    if (look_around(a, &accepted, &earlier) > ballot) return;
    const struct verdict *choice = accepted ? &earlier : &v;
    uint64_t which = !(load_relaxed(&own->accepted) & 1);
    verdict_write(own->verdict[which], choice);
    store_seqcst(&own->accepted, ballot << 1 | which); /* pairs with look_around */
    TEST_POINT("agree.accept");
    if (look_around(a, &accepted, &earlier) > ballot) return;
    decide(own, which);
    TEST_POINT("agree.decided");
}

/* Has anybody decided?  1 = *out is the verdict. */
static int adopt(const struct agreement *a, struct verdict *out) {
    for (int m = 0; m < a->c->n; m++) {
        const struct vote *v = vote_of(a, m);
        uint64_t decided = v ? load_acquire((atom64 *)&v->decided) : 0; /* pairs with propose */
        if (!decided) continue;
        verdict_read(v->verdict[(decided - 1) & 1], out);
        if (vote_of(a, m)) return 1;
    }
    return 0;
}

/* --------------------------------------------------------------------------------------------------- waiting */

/* Nothing to do until somebody posts, decides or dies: be awake for a moment, then sleep on the likeliest word. */
static void pause_for(const struct agreement *a, uint64_t since, uint64_t now, uint64_t deadline) {
    if (now - since < AWAKE_NS) {
        os->yield();
        return;
    }
    uint64_t left = deadline_left(now, deadline), slice = left < SLICE ? left : SLICE;
    int m = leader(a), lead = m == a->c->me;
    if (lead) m = first_missing(a);
    const struct vote *v = m < a->c->n ? comm_vote(a->c, m, a->number) : NULL;
    const atom64 *word = !v ? NULL : lead || load_acquire((atom64 *)&v->number) != 2 * a->number ? &v->number : &v->decided;
    if (word)
        (void)os->futex_wait(comm_word(word), (uint32_t)load_seqcst((atom64 *)word), slice ? slice : 1);
    else
        os->yield();
}

/* Ballots end when nobody else has begun a higher one; a number that cannot be exceeded was made by nobody. */
static int outbid(const struct agreement *a) {
    return err_set(SYP_EPEER, "%s %llu on group %d: the ballots of the members do not come to an end: the control data of one of them is damaged",
                   op_name((int)a->mine->kind), (unsigned long long)a->number, a->c->slot);
}

/* Who keeps us waiting, and for how long. */
static int too_late(const struct agreement *a, uint64_t start, uint64_t now) {
    int m = first_missing(a);
    if (m == a->c->n) m = leader(a);
    int rank = a->c->member[m].rank, pid = a->c->coll->peers->roster.rank[rank].pid;
    int shrink = a->mine->kind == OP_SHRINK;
    char state[32];
    err_set(shrink ? SYP_EBUSY : SYP_ETIMEOUT,
            "%s %llu on group %d: rank %d (pid %d%s) lives and has not %s it in %llu ms; %s", op_name((int)a->mine->kind),
            (unsigned long long)a->number, a->c->slot, rank, pid, process_state(pid, state, sizeof state), vote_of(a, m) ? "finished" : "called",
            (unsigned long long)((now - start) / NS_PER_MS),
            shrink ? "call again, or pass SYP_SHRINK_GIVE_UP to go on without it" : "call again, or shrink the group without it");
    return err_peer(rank, pid);
}

static int expelled(const struct agreement *a) {
    return err_set(SYP_EABORTED, "%s %llu on group %d: the other members have given this rank up, because it did not come in time; they go on "
                                 "without it", op_name((int)a->mine->kind), (unsigned long long)a->number, a->c->slot);
}

int agree_run(struct comm *c, const struct proposal *mine, int give_up, uint64_t deadline, struct verdict *out) {
    struct agreement a = {.c = c, .mine = mine, .number = c->agreements + 1, .attempt = 1};
    uint64_t start = os->now(), now = start;
    if (c->member[c->me].excluded) return expelled(&a);
    a.own = (struct vote *)(uintptr_t)comm_vote(c, c->me, a.number);
    vote_post(&a);
    while (!adopt(&a, out)) {
        /* once more: what was decided with us is there until we have read it */
        if (left_behind(&a) && !adopt(&a, out)) return expelled(&a);
        int lead = leader(&a) == c->me && (a.give_up || first_missing(&a) == c->n);
        if (lead) propose(&a);
        if (load_relaxed(&a.own->decided)) continue;
        now = os->now();
        int last = !give_up || a.give_up == 2;
        if (lead && last && now >= deadline + NS_PER_S) return outbid(&a);
        if (!lead && last && now >= deadline) return too_late(&a, start, now);
        if (!last && now >= deadline) {
            a.give_up++;
            deadline = now + NS_PER_S; /* for whoever leads then */
        }
        if (lead)
            os->sleep((uint64_t)(c->me + 1) * 50 * NS_PER_US); /* two that compete fall out of step */
        else
            pause_for(&a, start, now, deadline);
    }
    if (!load_relaxed(&a.own->decided)) {
        uint64_t which = !(load_relaxed(&a.own->accepted) & 1);
        verdict_write(a.own->verdict[which], out);
        decide(a.own, which);
    }
    if (out->kind != (int)mine->kind) out->code = SYP_EMISMATCH; /* of an earlier try of ours */
    c->agreements++;
    for (int m = 0; m < c->n; m++)
        c->member[m].excluded = is_excluded(out, m);
    return c->member[c->me].excluded ? expelled(&a) : SYP_OK;
}
