/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending and receiving lists of buffers.  Nothing is buffered: a send waits for the receive that takes it.
 *
 *   sender                                        receiver
 *   cell: the list, and the data if it is small;  compares the list with its own
 *   step                                          step: TAKEN, the data is here: out of the cell, or straight out of buffers in the sender's pool
 *                                                    or REFUSED, and its list in its cell; the sender reads it, and answers with a step
 *                                                    or MOVE, and the places of its buffers in its cell; then it reads the sender's pool, as above
 *   stores into buffers in the receiver's pool;
 *   the rest through its staging area, a step for each chunk;              a step for each chunk taken
 *   step: all stored                              step: all is here
 *
 * Long lists go in batches, of as many buffers as a cell has room for.  Each side counts its steps in its line (board.h) and waits for the other's count, so both
 * know the state of the other at each moment, and one that comes first waits for the other's first step.
 *
 * Whoever cannot go on gives the direction up: GIVEN_UP in its line, which the other finds instead of the step it waits for.  Neither is used again.
 */
#include "collectives/request.h"
#include "collectives/transfer.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"

#define MOST_BUFFERS 1024

/* ------------------------------------------------------------------------------------------ steps of both sides */

static void publish(struct transfer *t) {
    struct pair_line *own = pair_own_line(t->c, t->m);
    TEST_POINT("transfer.step");
    store_release(t->direction == SENDING ? &own->sent : &own->received, ++t->way->mine); /* pairs with come */
    nap_ring(t->c->coll, t->c->rank[t->m]);
    TEST_POINT("transfer.stepped");
}

/* The other side's count, 0 while it is not in the group. */
static uint64_t his_count(const struct transfer *t) {
    const struct pair_line *his = pair_his_line(t->c, t->m);
    uint64_t steps = his ? load_acquire((atom64 *)his_steps(t, his)) : 0; /* pairs with publish and give_up */
    return his && pair_in_group(t->c, t->m) ? steps : 0;
}

/* Has the other side come to the awaited step?  SYP_OK; TRANSFER_BLOCKED; an error when it never will. */
static int come(struct transfer *t) {
    uint64_t steps = his_count(t);
    if ((steps & ~GIVEN_UP) >= t->awaited) {
        t->way->his = t->awaited;
        return SYP_OK;
    }
    return steps & GIVEN_UP ? transfer_given_up(t) : TRANSFER_BLOCKED;
}

/* Buffers of the next batch. */
static void next_batch(struct transfer *t) {
    int left = t->list.n - t->first;
    t->count = t->mailed || left < BATCH ? left : BATCH;
    transfer_places(t);
}

enum state { BEGIN, ANSWER, MOVING, STREAMING, LAST, NEXT };

/* ---------------------------------------------------------------------------------------------- the sender */

/* The receiver's list does not fit ours: take it out of its cell, and let it go on. */
static int refused(struct transfer *t, unsigned cell) {
    uint64_t words[CELL_HEAD + 16];
    if (!cell_read(t, cell, 0, words, CELL_HEAD + 16)) return transfer_corrupt(t, "cell", cell);
    int rc = transfer_mismatch(t, words[0], words[1], words + CELL_HEAD, 1, 16);
    publish(t);
    return rc;
}

/* The receiver has answered the batch. */
static int take_answer(struct transfer *t) {
    const struct pair_line *his = pair_his_line(t->c, t->m);
    uint32_t verdict = his ? load_relaxed((atom32 *)&his->verdict) : 0; /* ordered by the acquire of its step */
    switch (verdict & 0xff) {
    case TAKEN:
        t->state = NEXT;
        return SYP_OK;
    case REFUSED:
        return refused(t, verdict >> 8);
    case MOVE:
        if (t->mailed || !cell_read(t, verdict >> 8, CELL_HEAD, t->theirs, t->count)) break;
        transfer_plan(t);
        t->state = MOVING;
        return SYP_OK;
    default:
        break;
    }
    return transfer_corrupt(t, "verdict", verdict);
}

/* A half of the staging area is free again when the receiver has taken the chunk before the last. */
static int stream(struct transfer *t) {
    if (t->chunk >= 2) {
        t->awaited = t->base + t->chunk - 1;
        int rc = come(t);
        if (rc != SYP_OK) return rc;
    }
    int rc = transfer_chunk(t);
    if (rc != SYP_OK) return rc;
    t->chunk++;
    publish(t);
    return SYP_OK;
}

static int send_step(struct transfer *t) {
    int rc = SYP_OK;
    while (rc == SYP_OK) {
        switch ((enum state)t->state) {
        case BEGIN:
            next_batch(t);
            transfer_write(t);
            store_relaxed(&pair_own_line(t->c, t->m)->send_cell, (uint32_t)t->cell);
            publish(t);
            t->awaited = t->way->his + 1;
            t->state = ANSWER;
            break;
        case ANSWER:
            rc = come(t);
            if (rc == SYP_OK) rc = take_answer(t);
            break;
        case MOVING:
            t->base = t->way->his;
            rc = transfer_push(t);
            t->state = STREAMING;
            break;
        case STREAMING:
            if (t->chunk < t->chunks) {
                rc = stream(t);
                break;
            }
            publish(t);
            t->awaited = t->base + t->chunks + 1;
            t->state = LAST;
            break;
        case LAST:
            rc = come(t);
            if (rc == SYP_OK) t->state = NEXT;
            break;
        case NEXT:
            t->first += t->count;
            if (t->first >= t->list.n) return SYP_OK;
            t->state = BEGIN;
        }
    }
    return rc;
}

/* -------------------------------------------------------------------------------------------- the receiver */

static void answer(struct transfer *t, enum answer answer) {
    store_relaxed(&pair_own_line(t->c, t->m)->verdict, (uint32_t)answer | (uint32_t)t->cell << 8); /* published by the step */
    publish(t);
}

static void refuse(struct transfer *t) {
    struct pair_cell *cell = own_cell(t);
    store_relaxed(&cell->word[0], (uint64_t)t->list.n);
    store_relaxed(&cell->word[1], t->total);
    for (int i = 0; i < t->list.n && i < 16; i++)
        store_relaxed(&cell->word[CELL_HEAD + i], t->list.lens[i]);
    answer(t, REFUSED);
    t->awaited = t->way->his + 1; /* it has read our list */
    t->state = LAST;
}

/* Its buffers of the batch, and ours for it, if it has to do something. */
static int compare_places(struct transfer *t, unsigned cell) {
    uint64_t body[CELL_BODY];
    int needed = 0;
    if (!cell_read(t, cell, CELL_HEAD, body, 2 * t->count)) return transfer_corrupt(t, "cell", cell);
    for (int i = 0; i < t->count; i++) {
        if (body[2 * i] != t->list.lens[t->first + i]) return transfer_corrupt(t, "length", body[2 * i]);
        t->theirs[i] = body[2 * i + 1];
        needed |= t->theirs[i] == AT_STAGED;
        store_relaxed(&own_cell(t)->word[CELL_HEAD + i], t->ours[i]);
    }
    transfer_plan(t);
    if (needed) {
        t->exposed = t->way->his + t->chunks + 1;
        answer(t, MOVE);
    }
    t->state = MOVING;
    return SYP_OK;
}

/* The sender's list has come. */
static int take_list(struct transfer *t) {
    const struct pair_line *his = pair_his_line(t->c, t->m);
    unsigned cell = his ? load_relaxed((atom32 *)&his->send_cell) : PAIR_CELLS; /* ordered by the acquire of its step */
    uint64_t head[CELL_HEAD];
    if (!cell_read(t, cell, 0, head, CELL_HEAD)) return transfer_corrupt(t, "cell", cell);
    uint64_t n = head[0] & UINT32_MAX;
    if (n != (uint64_t)t->list.n || head[1] != t->total || head[2] != t->digest) {
        int mailed = head[0] >> 32 != 0;
        uint64_t lens[2 * 16];
        cell_read(t, cell, CELL_HEAD, lens, 2 * 16);
        t->rc = transfer_mismatch(t, n, head[1], lens, mailed ? 1 : 2, 16);
        t->why = *err_record();
        refuse(t);
        return transfer_still(t);
    }
    if (head[0] >> 32 != (uint64_t)t->mailed || head[3] != ((uint64_t)t->first | (uint64_t)t->count << 32)) return transfer_corrupt(t, "batch", head[3]);
    if (!t->mailed) return compare_places(t, cell);
    int rc = transfer_unpack(t, cell);
    if (rc != SYP_OK) return rc;
    answer(t, TAKEN);
    t->state = NEXT;
    return SYP_OK;
}

/* Chunks, and the step behind them; then everything is here. */
static int drain(struct transfer *t) {
    t->awaited = t->way->his + 1;
    int rc = come(t);
    if (rc != SYP_OK) return rc;
    if (t->chunk < t->chunks) {
        rc = transfer_chunk(t);
        if (rc != SYP_OK) return rc;
        t->chunk++;
    } else {
        t->exposed = 0;
        t->state = NEXT;
    }
    publish(t);
    return SYP_OK;
}

static int recv_step(struct transfer *t) {
    int rc = SYP_OK;
    while (rc == SYP_OK) {
        switch ((enum state)t->state) {
        case BEGIN:
            next_batch(t);
            t->awaited = t->way->his + 1;
            t->state = ANSWER;
            break;
        case ANSWER:
            rc = come(t);
            if (rc == SYP_OK) rc = take_list(t);
            break;
        case MOVING:
            rc = transfer_pull(t);
            t->state = STREAMING;
            if (rc == SYP_OK && !t->exposed) {
                answer(t, TAKEN);
                t->state = NEXT;
            }
            break;
        case STREAMING:
            rc = drain(t);
            break;
        case LAST:
            rc = come(t);
            if (rc != SYP_OK) break;
            *err_record() = t->why;
            return t->rc;
        case NEXT:
            t->first += t->count;
            if (t->first >= t->list.n) return SYP_OK;
            t->state = BEGIN;
        }
    }
    return rc;
}

/* ------------------------------------------------------------------------------------------- begin and end */

static int check_list(struct transfer *t, int both) {
    const struct buffers *l = &t->list;
    int sending = t->direction == SENDING;
    const char *n = !both ? "n" : sending ? "n_send" : "n_recv", *bufs = !both ? "bufs" : sending ? "send_bufs" : "recv_bufs";
    const char *lens = !both ? "lens" : sending ? "send_lens" : "recv_lens";
    if (l->n < 0 || l->n > MOST_BUFFERS) return err_set(SYP_EINVAL, "%s on group %d: %s is %d, outside 0 .. %d", t->call, t->c->slot, n, l->n, MOST_BUFFERS);
    if (l->n && (!l->bufs || !l->lens)) return err_set(SYP_EINVAL, "%s on group %d: %s is NULL", t->call, t->c->slot, l->bufs ? lens : bufs);
    for (int i = 0; i < l->n; i++) {
        if (l->lens[i] > INT64_MAX || __builtin_add_overflow(t->total, l->lens[i], &t->total) || t->total > INT64_MAX)
            return err_set(SYP_EINVAL, "%s on group %d: %s[%d] is %llu: more than there is memory", t->call, t->c->slot, lens, i, (unsigned long long)l->lens[i]);
        if (l->lens[i] && !l->bufs[i])
            return err_set(SYP_EINVAL, "%s on group %d: %s[%d] is NULL, and %s[%d] %llu", t->call, t->c->slot, bufs, i, lens, i, (unsigned long long)l->lens[i]);
        t->digest = (t->digest ^ l->lens[i]) * 0x100000001b3ull;
        t->digest ^= t->digest >> 29;
    }
    t->mailed = (uint64_t)l->n + (t->total + 7) / 8 <= CELL_BODY;
    return SYP_OK;
}

static int way_take(struct transfer *t) {
    uint32_t idle = 0;
    if (cas_acquire(&t->way->busy, &idle, 1)) return SYP_OK; /* pairs with way_drop */
    return err_set(SYP_EBUSY, "%s on group %d: another thread of this rank %s rank %d", t->call, t->c->slot,
                   t->direction == SENDING ? "sends to" : "receives from", t->c->rank[t->m]);
}

static void way_drop(struct transfer *t) {
    cell_drop(t);
    store_release(&t->way->busy, 0); /* pairs with way_take */
}

/* Nothing is published yet.  On an error nothing is left. */
static int begin(struct transfer *t, struct comm *c, const char *call, enum direction direction, const struct buffers *list, int both) {
    *t = (struct transfer){.c = c, .call = call, .direction = direction, .list = *list, .m = list->member, .cell = -1};
    int rc = pair_usable(c, call, direction == SENDING ? "to" : "from", t->m);
    if (rc == SYP_OK) rc = check_list(t, both);
    if (rc != SYP_OK) return rc;
    t->way = &c->pair[t->m].way[direction];
    rc = way_take(t);
    if (rc != SYP_OK) return rc;
    if (t->way->broken) { /* the other direction of a call of both goes on */
        t->rc = err_set(SYP_EABORTED, "%s on group %d: an earlier transfer %s rank %d did not complete (%s); make a new group to go on with it", call, c->slot,
                        direction == SENDING ? "to" : "from", c->rank[t->m], syp_strerror(t->way->broken));
        err_operation(call);
        t->why = *err_record();
        t->over = 1;
        return SYP_OK;
    }
    rc = cell_take(t);
    if (rc == SYP_OK && direction == SENDING && !t->mailed && transfer_is_outside(t)) rc = transfer_staging(t);
    if (rc == SYP_OK)
        t->way->number++;
    else
        way_drop(t);
    return rc;
}

/* Buffers that the sender may still store into are not handed out again before it has noticed. */
static void quarantine(struct transfer *t) {
    for (int i = 0; i < t->count; i++)
        if (t->theirs[i] == AT_STAGED && t->ours[i] < AT_NONE) pair_add_hazard(t->c, t->m, t->exposed, t->ours[i], t->list.lens[t->first + i]);
}

/* The transfer cannot be completed: tell the other side, for good. */
static void give_up(struct transfer *t, int rc) {
    struct pair_line *own = pair_own_line(t->c, t->m);
    int sending = t->direction == SENDING;
    t->way->broken = rc;
    store_relaxed(sending ? &own->send_why : &own->receive_why, why_of(rc, t->why.peer));
    TEST_POINT("transfer.give_up");
    store_release(sending ? &own->sent : &own->received, t->way->mine | GIVEN_UP); /* pairs with come */
    fence_heavy(t->c->coll); /* before the buffers are the caller's again: pairs with transfer_still */
    nap_ring(t->c->coll, t->c->rank[t->m]);
    if (!sending && t->exposed) quarantine(t);
}

static void finish(struct transfer *t, int rc) {
    t->over = 1;
    t->rc = rc;
    if (rc == SYP_OK) return;
    err_operation(t->call);
    err_sequence((uint64_t)t->c->slot, t->way->number);
    t->why = *err_record();
    if (rc != SYP_EMISMATCH) give_up(t, rc);
}

/* --------------------------------------------------------------------------------------------- both at once */

struct both {
    struct transfer t[2];
    int n;
    struct nap nap;
};

static int may_go_on(const struct transfer *t) {
    uint64_t steps = his_count(t);
    return (steps & ~GIVEN_UP) >= t->awaited || steps & GIVEN_UP;
}

static int ready(void *arg) {
    const struct both *b = arg;
    for (int i = 0; i < b->n; i++)
        if (!b->t[i].over && may_go_on(&b->t[i])) return 1;
    return 0;
}

static int too_late(const struct transfer *t, uint64_t waited) {
    char state[32];
    int rank = t->c->rank[t->m], pid = t->c->coll->peers->roster.rank[rank].pid, sending = t->direction == SENDING;
    int met = t->state != ANSWER || t->first > 0;
    err_set(SYP_ETIMEOUT, "%s %llu on group %d: not complete after %llu ms: rank %d (pid %d%s) %s; raise SYMPOOL_TIMEOUT if that is legal", t->call,
            (unsigned long long)t->way->number, t->c->slot, (unsigned long long)(waited / NS_PER_MS), rank, pid, process_state(pid, state, sizeof state),
            met       ? "is inside it and has not finished its part"
            : sending ? "has not called the receive that takes it"
                      : "has not called the send");
    return err_peer(rank, pid);
}

/* Each direction by itself: when one fails the other still may complete. */
static int look(void *arg, uint64_t now) {
    struct both *b = arg;
    int ended = 0;
    for (int i = 0; i < b->n; i++) {
        struct transfer *t = &b->t[i];
        if (t->over) continue;
        int rc = pair_look(t->c, t->call, t->m);
        if (rc == SYP_OK) rc = pair_gone(t->c, t->call, t->m);
        if (rc == SYP_OK && now >= b->nap.deadline) rc = too_late(t, now - b->nap.start);
        if (rc == SYP_OK || may_go_on(t)) continue; /* what it did before counts */
        finish(t, rc);
        ended = 1;
    }
    return ended;
}

static int run(struct both *b) {
    for (;;) {
        int open = 0;
        for (int i = 0; i < b->n; i++) {
            struct transfer *t = &b->t[i];
            if (t->over) continue;
            int rc = t->direction == SENDING ? send_step(t) : recv_step(t);
            if (rc == TRANSFER_BLOCKED)
                open++;
            else
                finish(t, rc);
        }
        if (!open) break;
        (void)nap(&b->nap);
    }
    int rc = SYP_OK;
    for (int i = 0; i < b->n; i++) {
        way_drop(&b->t[i]);
        if (rc == SYP_OK && (rc = b->t[i].rc) != SYP_OK) *err_record() = b->t[i].why;
    }
    return rc;
}

static int transfer(struct comm *c, const char *call, const struct buffers *send, const struct buffers *recv, int64_t timeout_ns) {
    struct both b = {.n = 0};
    int rc = pairs_enter(c, call);
    if (rc != SYP_OK) return err_operation(call);
    if (timeout_ns < 0)
        rc = err_set(SYP_EINVAL, "%s on group %d: call is not a usable syp_call: its size is too small or its timeout_ns negative", call, c->slot);
    if (rc == SYP_OK && send && (rc = begin(&b.t[b.n], c, call, SENDING, send, recv != NULL)) == SYP_OK) b.n++;
    if (rc == SYP_OK && recv && (rc = begin(&b.t[b.n], c, call, RECEIVING, recv, send != NULL)) == SYP_OK) b.n++;
    if (rc != SYP_OK) {
        err_operation(call);
        if (b.n) {
            b.t[0].way->number -= !b.t[0].over;
            way_drop(&b.t[0]);
        }
    } else {
        b.nap = (struct nap){.k = c->coll, .ready = ready, .look = look, .arg = &b, .timeout_ns = timeout_ns};
        rc = run(&b);
    }
    pairs_leave(c);
    return rc;
}

int coll_send(struct comm *c, const struct buffers *send, int64_t timeout_ns) {
    return transfer(c, "send", send, NULL, timeout_ns);
}

int coll_recv(struct comm *c, const struct buffers *recv, int64_t timeout_ns) {
    return transfer(c, "recv", NULL, recv, timeout_ns);
}

int coll_sendrecv(struct comm *c, const struct buffers *send, const struct buffers *recv, int64_t timeout_ns) {
    return transfer(c, "sendrecv", send, recv, timeout_ns);
}
