/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of non-blocking collectives.  See queue.h for their life.
 *
 * A handle is a number, not an address: place in the queue, group, and how many requests were made in that slot of groups before.  So one that has ended, or is of
 * an earlier attach, is recognised without reading what it might have pointed to.
 *
 * Must not know: what an operation does.
 */
#include "collectives/queue.h"
#include "pool/base/arena.h"
#include "pool/base/os.h"
#include "pool/base/status.h"

#include <string.h>

#define LOOK_EVERY (1 * NS_PER_MS) /* a test that finds nothing looks this often for deaths, aborts and the deadline */
#define SLOT_SHIFT 6
#define NUMBER_SHIFT 13
_Static_assert(QUEUE_LEN == 1 << SLOT_SHIFT && COMM_SLOTS == 1 << (NUMBER_SHIFT - SLOT_SHIFT), "parts of an id");

struct queued {
    uint64_t id; /* 0 = nobody holds it: free, or cancelled */
    int ended, result;
    int64_t timeout_ns;
    struct call call;
    struct request r;
    syp_error why; /* the record of its failure; while it runs, of why this rank's call is refused */
};

struct queue {
    uint64_t used;            /* bits of at[] */
    unsigned first;           /* index in order[] of the first that has not ended; comm.pending of them */
    uint8_t order[QUEUE_LEN]; /* a ring of indices of at[] */
    uint64_t next_look;       /* ns */
    struct queued at[QUEUE_LEN];
};

static struct queued *first_of(struct queue *k) {
    return &k->at[k->order[k->first]];
}

static void release(struct queue *k, struct queued *q) {
    q->id = 0;
    k->used &= ~(1ull << (q - k->at));
}

/* ------------------------------------------------------------------------------------------------ progress */

static void begin(struct comm *c, struct queued *q) {
    struct request *r = &q->r;
    request_number(r, c, q->call.kind, q->timeout_ns, 0);
    if (q->id) {
        call_setup(r, &q->call);
    } else { /* its buffers and lists are the caller's again */
        r->error = SYP_ECANCELED;
        r->step = request_meet;
    }
    if (r->error) q->why = *err_record();
    c->begun = 1;
    request_start(r);
}

static void end(struct comm *c, struct queued *q, int rc) {
    struct queue *k = c->queue;
    if (c->begun && load_relaxed(&c->own->inside) == c->id + 1) store_release(&c->own->inside, 0); /* pairs with comm_inside_of */
    c->begun = 0;
    k->first = (k->first + 1) % QUEUE_LEN;
    c->pending--;
    c->ready = c->pending == 0 && !c->unreachable && !c->broken;
    q->ended = 1;
    q->result = rc;
    if (rc != SYP_OK) q->why = *err_record();
    if (!q->id) release(k, q);
}

/* Blocked.  Is waiting pointless?  REQUEST_BLOCKED = no. */
static int glance(struct queue *k, struct request *r) {
    uint64_t now = os->now();
    request_clock(r);
    if (now < k->next_look) return REQUEST_BLOCKED;
    k->next_look = now + LOOK_EVERY;
    int rc = wait_look(r, now);
    return rc == SYP_OK ? REQUEST_BLOCKED : rc;
}

/* The running request, or the next one, as far as it goes: its result, or REQUEST_BLOCKED. */
static int run(struct comm *c, struct queued *q, uint64_t latest) {
    struct request *r = &q->r;
    int rc;
    if (!c->begun) {
        rc = request_unusable(c, op_name(q->call.kind));
        if (rc != SYP_OK) return err_operation(op_name(q->call.kind));
        begin(c, q);
    } else if (c->broken) { /* between two steps */
        *err_record() = c->why;
        return request_finish(r, c->broken);
    }
    if (r->error) *err_record() = q->why;
    if (latest && latest != UINT64_MAX) {
        request_clock(r);
        if (r->deadline > latest) r->deadline = latest;
    }
    while ((rc = r->step(r)) == REQUEST_BLOCKED && (rc = latest ? wait_for(r) : glance(c->queue, r)) == SYP_OK)
        ;
    if (rc != REQUEST_BLOCKED) return request_finish(r, rc);
    if (r->error) q->why = *err_record();
    return rc;
}

/* The running request waits for a member that has not come, and it is not time to ask why. */
static int still_blocked(const struct comm *c) {
    struct queue *k = c->queue;
    struct request *r = &first_of(k)->r;
    return c->begun && !c->broken && !wait_over(r) && os->now() < k->next_look;
}

/* Run requests: all, or up to `until`.  latest: 0 = without waiting; else none waits any longer. */
static void advance(struct comm *c, const struct queued *until, uint64_t latest) {
    if (!c->pending || (!latest && still_blocked(c))) return;
    syp_error before = *err_record();
    while (c->pending && !(until && until->ended)) {
        struct queued *q = first_of(c->queue);
        int rc = run(c, q, latest);
        if (rc == REQUEST_BLOCKED) break;
        end(c, q, rc);
    }
    *err_record() = before;
}

void queue_complete(struct comm *c, uint64_t latest) {
    advance(c, NULL, latest);
}

void queue_end(struct comm *c) {
    advance(c, NULL, 0);
}

/* ------------------------------------------------------------------------------------------------- requests */

struct comm *queue_group(struct coll *k, uint64_t id) {
    return &k->comm[id >> SLOT_SHIFT & (COMM_SLOTS - 1)];
}

static int make(struct comm *c, const char *name, struct queued **out) {
    if (!c->in_use) return err_set(SYP_ESTATE, "%s on group %d: the group was destroyed", name, c->slot);
    if (!c->queue) c->queue = map_alloc(sizeof *c->queue);
    if (!c->queue) return err_set(SYP_ENOMEM, "%s on group %d: no memory for its first request", name, c->slot);
    struct queue *k = c->queue;
    if (k->used == UINT64_MAX)
        return err_set(SYP_ENOMEM, "%s on group %d: it has %d requests that have not ended, and room for no more; call syp_wait, or a blocking operation "
                                   "if they were cancelled", name, c->slot, QUEUE_LEN);
    int i = __builtin_ctzll(~k->used);
    k->used |= 1ull << i;
    k->order[(k->first + (unsigned)c->pending++) % QUEUE_LEN] = (uint8_t)i;
    c->ready = 0; /* a blocking call completes it first */
    *out = &k->at[i];
    (*out)->id = ++c->requests << NUMBER_SHIFT | (uint64_t)c->slot << SLOT_SHIFT | (uint64_t)i;
    (*out)->ended = 0;
    return SYP_OK;
}

int queue_add(struct comm *c, const char *name, const struct call *call, int64_t timeout_ns, uint64_t *id) {
    struct queued *q = NULL;
    int rc = comm_take(c, name);
    if (rc != SYP_OK) return rc;
    rc = make(c, name, &q);
    if (rc == SYP_OK) {
        q->call = *call;
        q->timeout_ns = timeout_ns;
        *id = q->id;
    }
    store_release(&c->busy, 0); /* pairs with request_take */
    return rc;
}

/* Take the group, find the request. */
static int find(struct comm *c, const char *name, uint64_t id, struct queued **out) {
    int rc = comm_take(c, name);
    if (rc != SYP_OK) return rc;
    *out = c->queue ? &c->queue->at[id % QUEUE_LEN] : NULL;
    if (*out && (*out)->id == id) return SYP_OK;
    store_release(&c->busy, 0); /* pairs with request_take */
    return err_set(SYP_ESTATE, "%s: %p is not a request of this attach (ended, cancelled, or its group is gone)", name, (void *)(uintptr_t)id);
}

/* The request is no more. */
static int tell(struct comm *c, struct queued *q) {
    int rc = q->result;
    if (rc != SYP_OK) *err_record() = q->why;
    release(c->queue, q);
    return rc;
}

int queue_test(struct comm *c, uint64_t id, int *done) {
    struct queued *q;
    *done = 0;
    int rc = find(c, "test", id, &q);
    if (rc != SYP_OK) return err_operation("test");
    if (!q->ended) advance(c, NULL, 0);
    *done = q->ended;
    if (q->ended) rc = tell(c, q);
    store_release(&c->busy, 0); /* pairs with request_take */
    return rc;
}

int queue_wait(struct comm *c, uint64_t id) {
    struct queued *q;
    int rc = find(c, "wait", id, &q);
    if (rc != SYP_OK) return err_operation("wait");
    if (!q->ended) advance(c, q, UINT64_MAX);
    rc = tell(c, q);
    store_release(&c->busy, 0); /* pairs with request_take */
    return rc;
}

int queue_cancel(struct comm *c, uint64_t id) {
    struct queued *q;
    int rc = find(c, "cancel", id, &q);
    if (rc != SYP_OK) return err_operation("cancel");
    if (q->ended || (c->begun && q == first_of(c->queue))) {
        err_set(SYP_EBUSY, "cancel: %s of group %d has %s on this rank; syp_wait tells its result", op_name(q->call.kind), c->slot,
                q->ended ? "ended" : "begun");
        rc = err_operation("cancel");
    } else {
        q->id = 0; /* stays in the queue until its turn */
    }
    store_release(&c->busy, 0); /* pairs with request_take */
    return rc;
}

/* ------------------------------------------------------------------------------------- when the group ends */

int queue_close(struct comm *c) {
    int held = 0;
    for (int i = 0; c->queue && i < QUEUE_LEN; i++)
        held += c->queue->at[i].id != 0;
    if (held && !c->broken)
        return err_set(SYP_EBUSY, "comm_destroy: group %d has %d requests that have not been waited for", c->slot, held);
    /* cancelled ones: members that did not cancel must not wait for them */
    if (c->pending) comm_give_up(c, "was destroyed by this rank");
    queue_free(c);
    return SYP_OK;
}

int queue_leave(struct comm *world, uint64_t latest) {
    struct coll *k = world->coll;
    int any = world->pending != 0;
    for (int i = 0; i < COMM_SLOTS; i++)
        if (k->comm[i].pending && &k->comm[i] != world) comm_give_up(&k->comm[i], "was left by this rank (syp_finalize)");
    queue_complete(world, latest);
    return any;
}

void queue_free(struct comm *c) {
    if (c->queue) map_free(c->queue, sizeof *c->queue);
    c->queue = NULL;
    c->pending = c->begun = 0;
}
