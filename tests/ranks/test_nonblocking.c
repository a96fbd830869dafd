/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/*
 * Requests of non-blocking collectives, with ranks as threads on common mappings and as processes: results, order, mixtures with blocking calls over
 * overlapping groups, how many there may be, cancelling at every position, refusals.  How they end when the group does: test_requests_end.c.
 */
#include "collectives/queue.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/world_test.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

static struct comm *world_comm(struct world *w) {
    return &w->coll.comm[WORLD_SLOT];
}

static int start(struct comm *c, const struct call *call, uint64_t *id) {
    return queue_add(c, "test", call, 0, id);
}

static struct call sum_of(int32_t *send, int32_t *recv, size_t count) {
    return (struct call){.kind = OP_ALLREDUCE, .send = send, .recv = recv, .count = count, .dtype = SYP_INT32, .op = SYP_SUM};
}

/* ------------------------------------------------------------------------------------------------ programs */

/* One operation of a random program: what all members know of it. */
struct op {
    int kind, root;
    size_t count; /* of int32_t */
    int32_t salt;
};

/* And what this member does with it. */
struct doing {
    struct op op;
    uint64_t id;
    int32_t *send, *recv;
    char *block[2];
    int in_pool[2];
};

static struct op random_op(const struct comm *c, uint64_t *common) {
    static const size_t counts[] = {0, 1, 7, 200, 240, 241, 5000, 40000, 300000};
    uint64_t x = check_random(common);
    struct op op = {.root = (int)(x >> 8 & 0xff) % c->n, .salt = (int32_t)(x >> 40)};
    op.kind = (int[]){OP_ALLREDUCE, OP_BROADCAST, OP_REDUCE, OP_BARRIER}[x & 3];
    op.count = counts[(x >> 16 & 0xff) % (CHECK_SLOW_BUILD ? 8 : 9)];
    return op;
}

static int32_t value_of(int rank, const struct op *op, size_t i) {
    return (int32_t)((uint32_t)(rank + 1) * 1000003u + (uint32_t)i * 31u + (uint32_t)op->salt);
}

static int32_t *buffer(struct world *w, struct doing *d, int which, uint64_t *mine) {
    size_t len = d->op.count * 4 + 64;
    d->in_pool[which] = (int)(check_random(mine) >> 30 & 1);
    d->block[which] = d->in_pool[which] ? world_alloc(w, len) : malloc(len);
    return d->block[which] ? (int32_t *)(void *)(d->block[which] + (check_random(mine) >> 20 & 3) * 4) : NULL;
}

static struct call prepare(struct world *w, const struct comm *c, struct doing *d, uint64_t *mine) {
    d->recv = buffer(w, d, 1, mine);
    d->send = d->op.kind == OP_BROADCAST ? d->recv : buffer(w, d, 0, mine);
    for (size_t i = 0; i < d->op.count; i++)
        d->send[i] = value_of(c->me, &d->op, i);
    struct call call = {.kind = d->op.kind, .send = d->send, .recv = d->recv, .count = d->op.count, .root = d->op.root};
    if (d->op.kind == OP_BROADCAST) call.count *= 4;
    if (d->op.kind == OP_BARRIER) return (struct call){.kind = OP_BARRIER};
    if (d->op.kind != OP_BROADCAST) call.dtype = SYP_INT32, call.op = SYP_SUM;
    return call;
}

static int check_result(struct world *w, const struct comm *c, const struct doing *d) {
    const struct op *op = &d->op;
    int mine = op->kind == OP_ALLREDUCE || op->kind == OP_BROADCAST || (op->kind == OP_REDUCE && c->me == op->root);
    for (size_t i = 0; mine && i < op->count; i++) {
        uint32_t want = op->kind == OP_BROADCAST ? (uint32_t)value_of(op->root, op, i) : 0;
        for (int m = 0; op->kind != OP_BROADCAST && m < c->n; m++)
            want += (uint32_t)value_of(m, op, i);
        if ((uint32_t)d->recv[i] == want) continue;
        fprintf(stderr, "rank %d: %s of %zu: element %zu is %d\n", w->who.rank, op_name(op->kind), op->count, i, d->recv[i]);
        return 1;
    }
    for (int b = 0; b < 2; b++) {
        if (d->in_pool[b])
            world_free(w, d->block[b]);
        else
            free(d->block[b]);
    }
    return 0;
}

#define MOST_GROUPS 4
struct program {
    struct comm *group[MOST_GROUPS];
    struct doing *doing[MOST_GROUPS];
    int n[MOST_GROUPS]; /* requests */
};

/* Ask for any request of group g, or wait for it; one that has ended leaves the list. */
static int ask(struct world *w, struct program *p, int g, int wait, uint64_t *mine) {
    struct comm *c = p->group[g];
    int done = 1, k = (int)(check_random(mine) % (uint64_t)p->n[g]);
    struct doing d = p->doing[g][k];
    NEED(w, (wait ? queue_wait(c, d.id) : queue_test(c, d.id, &done)) == SYP_OK);
    if (!done) return 0;
    p->doing[g][k] = p->doing[g][--p->n[g]];
    NEED(w, queue_test(c, d.id, &done) == SYP_ESTATE && !done && queue_wait(c, d.id) == SYP_ESTATE); /* no more */
    return check_result(w, c, &d);
}

/* Until only group `but` has any, by asking alone, all groups in turn. */
static int finish_all_but(struct world *w, struct program *p, int but, uint64_t *mine) {
    for (int left = 1; left;) {
        left = 0;
        for (int g = 0; g < MOST_GROUPS; g++) {
            if (!p->n[g]) continue;
            if (g != but) left = 1;
            if (ask(w, p, g, 0, mine)) return 1;
        }
        sched_yield();
    }
    return 0;
}

/* One more operation of group g.  This member alone chooses how it is called.  It blocks in one group only while it has no requests in others: they would
 * make no progress, and the ranks might wait for each other in a circle. */
static int one_more(struct world *w, struct program *p, int g, const struct op *op, uint64_t *mine) {
    struct comm *c = p->group[g];
    struct doing now = {.op = *op}, *d = &p->doing[g][p->n[g]];
    struct call call = prepare(w, c, &now, mine);
    if (p->n[g] < QUEUE_LEN && check_random(mine) >> 33 & 7) {
        NEED(w, start(c, &call, &now.id) == SYP_OK);
        *d = now;
        p->n[g]++;
        return 0;
    }
    if (finish_all_but(w, p, g, mine)) return 1;
    if (p->n[g] && check_random(mine) >> 33 & 1 && ask(w, p, g, 1, mine)) return 1;
    NEED(w, coll_run(c, &call, 0) == SYP_OK);
    for (int k = 0; k < p->n[g]; k++) { /* it has completed those before it */
        int done = 0;
        NEED(w, queue_test(c, p->doing[g][k].id, &done) == SYP_OK && done == 1);
        if (check_result(w, c, &p->doing[g][k])) return 1;
    }
    p->n[g] = 0;
    return check_result(w, c, &now);
}

/* Groups 1 .. 3 lack one rank in four each, and are in another order. */
static int make_groups(struct world *w, struct program *p) {
    int list[8], n_ranks = world_comm(w)->n;
    *p = (struct program){.group = {world_comm(w)}};
    for (int g = 0; g < MOST_GROUPS; g++) {
        int n = 0;
        for (int r = 0; r < n_ranks; r++)
            if (r % MOST_GROUPS != g) list[n++] = n_ranks - 1 - r;
        if (g && n) NEED(w, comm_create(world_comm(w), list, n, &p->group[g]) == SYP_OK);
        p->doing[g] = calloc(QUEUE_LEN + 1, sizeof **p->doing);
    }
    return 0;
}

static int random_program(struct world *w, void *arg) {
    uint64_t common = *(uint64_t *)arg, mine = common ^ (0x9e3779b97f4a7c15u * (uint64_t)(w->who.rank + 1));
    struct program p;
    if (make_groups(w, &p)) return 1;
    for (int i = 0; i < (int)check_count(40, 1000); i++) {
        uint64_t x = check_random(&common);
        int g = (int)(x >> 20 & 3), n = (int)(x >> 24 & 7);
        for (int k = 0; k < n; k++) {
            uint64_t op_seed = check_random(&common);
            if (!p.group[g]) continue;
            struct op op = random_op(p.group[g], &op_seed);
            if (one_more(w, &p, g, &op, &mine)) return 1;
            while (p.n[g] && check_random(&mine) >> 33 & 1)
                if (ask(w, &p, g, 0, &mine)) return 1;
        }
    }
    if (finish_all_but(w, &p, -1, &mine)) return 1;
    for (int g = 0; g < MOST_GROUPS; g++) {
        if (g && p.group[g]) NEED(w, comm_destroy(p.group[g]) == SYP_OK);
        free(p.doing[g]);
    }
    return 0;
}

static void random_mixtures_give_exact_results(void) {
    uint64_t seed = check_seed();
    for (int n = 1; n <= (int)check_count(4, 8); n++) {
        CHECK_EQ(worlds_as_threads(n, NULL, random_program, &seed), 0);
        delays_on(seed, 9);
        CHECK_EQ(worlds_as_threads(n, NULL, random_program, &seed), 0);
        delays_off();
    }
    CHECK_EQ(worlds_as_processes(3, NULL, random_program, &seed), 0);
    CHECK_EQ(worlds_as_processes(4, NULL, random_program, &seed), 0);
}

/* ------------------------------------------------------------------------------------------------ progress */

/* An agreement has records of its own, and leaves requests alone. */
static int meet(struct world *w, struct comm *c) {
    uint64_t flags = 3;
    NEED(w, comm_agree(c, &flags, 0) == SYP_OK && flags == 3);
    return 0;
}

/* While a member has not come, a test says so at once, and the rank counts as inside the operation; but its thread is free. */
static int in_progress(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w);
    uint64_t id = 0, second = 0;
    int32_t x = c->me + 1, y = 1;
    int done = 1;
    const struct call sum = sum_of(&x, &x, 1), other = sum_of(&y, &y, 1);
    NEED(w, start(c, &sum, &id) == SYP_OK && start(c, &other, &second) == SYP_OK);
    NEED(w, load_relaxed(&c->own->inside) == 0); /* making a request begins nothing */
    if (c->me == 1) {
        NEED(w, queue_test(c, second, &done) == SYP_OK && done == 0);
        NEED(w, load_relaxed(&c->own->inside) == c->id + 1 && load_relaxed(&c->busy) == 0);
    }
    if (meet(w, c)) return 1; /* the others begin now */
    NEED(w, queue_wait(c, second) == SYP_OK && y == c->n); /* and those before it */
    NEED(w, load_relaxed(&c->own->inside) == 0);
    NEED(w, queue_test(c, id, &done) == SYP_OK && done == 1 && x == c->n * (c->n + 1) / 2);
    return 0;
}

static void a_test_returns_at_once(void) {
    CHECK_EQ(worlds_as_threads(2, NULL, in_progress, NULL), 0);
    CHECK_EQ(worlds_as_processes(3, NULL, in_progress, NULL), 0);
}

/* Requests in progress and not begun go on after an agreement as if there had been none. */
static int agree_between(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w);
    uint64_t id = 0;
    int32_t x = 1;
    int done = 0;
    const struct call sum = sum_of(&x, &x, 1);
    NEED(w, start(c, &sum, &id) == SYP_OK);
    if (c->me == 1) NEED(w, queue_test(c, id, &done) == SYP_OK && !done);
    for (int i = 0; i < 3; i++) {
        if (meet(w, c)) return 1;
        NEED(w, load_relaxed(&c->own->inside) == (c->me == 1 ? c->id + 1 : 0));
    }
    NEED(w, queue_wait(c, id) == SYP_OK && x == c->n);
    return 0;
}

static void an_agreement_leaves_requests_alone(void) {
    CHECK_EQ(worlds_as_threads(3, NULL, agree_between, NULL), 0);
}

static int room(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w);
    uint64_t id[QUEUE_LEN + 1] = {0};
    int32_t x[QUEUE_LEN];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < QUEUE_LEN; i++) {
            const struct call sum = sum_of(&x[i], &x[i], 1);
            x[i] = i;
            NEED(w, start(c, &sum, &id[i]) == SYP_OK);
        }
        id[QUEUE_LEN] = 77;
        NEED(w, start(c, &(struct call){.kind = OP_BARRIER}, &id[QUEUE_LEN]) == SYP_ENOMEM && id[QUEUE_LEN] == 77);
        NEED(w, strstr(syp_error_text(), "64 requests"));
        NEED(w, queue_cancel(c, id[QUEUE_LEN - 1]) == SYP_OK); /* the others have yet to hear of it */
        NEED(w, start(c, &(struct call){.kind = OP_BARRIER}, &id[QUEUE_LEN]) == SYP_ENOMEM);
        for (int i = QUEUE_LEN - 2; i >= 0; i--)
            NEED(w, queue_wait(c, id[i]) == SYP_OK && x[i] == i * c->n);
        NEED(w, coll_barrier(c, 0) == SYP_OK && x[QUEUE_LEN - 1] == QUEUE_LEN - 1);
    }
    return 0;
}

static void a_group_has_room_for_64(void) {
    CHECK_EQ(worlds_as_threads(2, NULL, room, NULL), 0);
}

/* -------------------------------------------------------------------------------------------------- cancel */

#define LINE 5
struct cancels {
    int at;       /* which of LINE */
    unsigned who; /* bits of members */
};

static int cancel_one(struct world *w, void *arg) {
    const struct cancels *plan = arg;
    struct comm *c = world_comm(w);
    int mine = plan->who >> c->me & 1, done = 1;
    uint64_t id[LINE] = {0};
    static const size_t counts[LINE] = {1, 5000, 30, 300, 70000};
    int32_t *x[LINE];
    for (int i = 0; i < LINE; i++) {
        x[i] = i % 2 ? malloc(counts[i] * 4) : world_alloc(w, counts[i] * 4);
        for (size_t k = 0; k < counts[i]; k++)
            x[i][k] = i + 1;
        const struct call sum = sum_of(x[i], x[i], counts[i]);
        NEED(w, start(c, &sum, &id[i]) == SYP_OK);
    }
    if (mine) {
        uint64_t gone = id[plan->at];
        NEED(w, queue_cancel(c, gone) == SYP_OK);
        NEED(w, queue_test(c, gone, &done) == SYP_ESTATE && queue_cancel(c, gone) == SYP_ESTATE && queue_wait(c, gone) == SYP_ESTATE);
    }
    for (int i = LINE - 1; i >= 0; i--) {
        if (i == plan->at && mine) continue;
        err_set(SYP_EINVAL, "of something else");
        int rc = queue_wait(c, id[i]);
        NEED(w, rc == (i == plan->at ? SYP_EMISMATCH : SYP_OK));
        if (rc == SYP_OK) NEED(w, strstr(syp_error_text(), "something else")); /* success leaves the record alone */
        if (rc != SYP_OK) NEED(w, strstr(syp_error_text(), "cancelled allreduce") && err_record()->sequence == (uint64_t)plan->at + 1);
    }
    NEED(w, coll_barrier(c, 0) == SYP_OK); /* the group is as good as before, also when the last one was cancelled */
    for (int i = 0; i < LINE; i++) {
        int32_t want = (i == plan->at ? 1 : c->n) * (i + 1);
        for (size_t k = 0; k < counts[i]; k++)
            NEED(w, x[i][k] == want);
        if (i % 2)
            free(x[i]);
        else
            world_free(w, x[i]);
    }
    return 0;
}

static void cancelled_requests_are_mismatches_elsewhere(void) {
    for (int at = 0; at < LINE; at++)
        for (unsigned who = 1; who < 8; who += 2) {
            struct cancels plan = {at, who};
            CHECK_EQ(worlds_as_threads(3, NULL, cancel_one, &plan), 0);
            if (at == 1) CHECK_EQ(worlds_as_processes(3, NULL, cancel_one, &plan), 0);
        }
}

static int cancel_too_late(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w);
    uint64_t id = 0, second = 0;
    int32_t x = 1;
    int done = 1;
    const struct call sum = sum_of(&x, &x, 1);
    NEED(w, start(c, &sum, &id) == SYP_OK && start(c, &(struct call){.kind = OP_BARRIER}, &second) == SYP_OK);
    if (c->me == 0) {
        NEED(w, queue_test(c, id, &done) == SYP_OK && !done);
        NEED(w, queue_cancel(c, id) == SYP_EBUSY && strstr(syp_error_text(), "has begun"));
    }
    if (meet(w, c)) return 1;
    NEED(w, queue_wait(c, second) == SYP_OK);
    NEED(w, queue_cancel(c, id) == SYP_EBUSY && strstr(syp_error_text(), "has ended"));
    NEED(w, queue_wait(c, id) == SYP_OK && x == c->n);
    return 0;
}

static void what_has_begun_is_not_cancelled(void) {
    CHECK_EQ(worlds_as_threads(2, NULL, cancel_too_late, NULL), 0);
}

/* ------------------------------------------------------------------------------------------------- refusals */

/* What is wrong with a call is told when it ends, to all, in words of the rank whose call it was; whatever fails in the thread meanwhile. */
static int refused(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w);
    uint64_t id[4] = {0};
    int32_t x[5000] = {0};
    int mine = c->me == 1, done = 1;
    const struct call wrong[4] = {sum_of(x, mine ? x + 1 : x, 16), sum_of(x, x, mine ? 5000 : 4999),
                                  {.kind = OP_BROADCAST, .recv = x, .count = 8, .root = mine ? 9 : 0},
                                  {.kind = OP_REDUCE, .send = x, .recv = x, .count = 5000, .dtype = SYP_INT32, .op = SYP_SUM, .root = 2}};
    for (int i = 0; i < 4; i++)
        NEED(w, queue_add(c, "test", &wrong[i], i == 3 && mine ? -1 : 0, &id[i]) == SYP_OK);
    if (mine) NEED(w, queue_test(c, id[0], &done) == SYP_OK && !done); /* refused here, and the others do not know yet */
    if (meet(w, c)) return 1;
    for (int i = 3; i >= 0; i--) {
        err_set(SYP_ESYS, "of something else");
        NEED(w, queue_wait(c, id[i]) == (mine && i != 1 ? SYP_EINVAL : SYP_EMISMATCH));
        NEED(w, err_record()->sequence == (uint64_t)i + 1 && strcmp(err_record()->operation, op_name(wrong[i].kind)) == 0);
        NEED(w, strstr(syp_error_text(), (const char *[]){"overlap", "x 5000", "root is 9", "syp_call"}[i]) ||
                    (!mine && strstr(syp_error_text(), "refused argument")));
    }
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    return 0;
}

static void a_refused_request_tells_when_it_ends(void) {
    CHECK_EQ(worlds_as_threads(3, NULL, refused, NULL), 0);
}

/* Numbers that are no requests, in groups that are and that are not. */
static int strange_ids(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w);
    uint64_t id = 0, seed = 5, x;
    int done = 1;
    NEED(w, start(c, &(struct call){.kind = OP_BARRIER}, &id) == SYP_OK);
    for (int i = 0; i < 2000; i++) {
        x = i < 64 ? id ^ 1ull << i : check_random(&seed);
        struct comm *of = queue_group(&w->coll, x);
        NEED(w, queue_wait(of, x) == SYP_ESTATE && queue_test(of, x, &done) == SYP_ESTATE && !done && queue_cancel(of, x) == SYP_ESTATE);
    }
    NEED(w, queue_wait(c, id) == SYP_OK);
    NEED(w, queue_wait(c, id) == SYP_ESTATE && start(c, &(struct call){.kind = OP_BARRIER}, &x) == SYP_OK && x != id);
    NEED(w, queue_wait(c, id) == SYP_ESTATE && queue_wait(c, x) == SYP_OK); /* the same place, another request */
    return 0;
}

static void numbers_that_are_no_requests_are_refused(void) {
    CHECK_EQ(worlds_as_threads(2, NULL, strange_ids, NULL), 0);
}

/* ------------------------------------------------------------------------------------------------- threads */

struct waiting {
    struct comm *c;
    uint64_t id;
    int rc;
};

static void *wait_there(void *arg) {
    struct waiting *t = arg;
    t->rc = queue_wait(t->c, t->id);
    return NULL;
}

/* Another thread is inside a wait: everything else of the group is busy, and harms nothing.  A request is whoever's waits for it. */
static int second_thread(struct world *w, void *arg) {
    struct comm *c = world_comm(w);
    struct waiting t = {.c = c, .rc = 1};
    uint64_t id = 0, other = 9;
    int done = 1;
    pthread_t thread;
    NEED(w, start(c, &(struct call){.kind = OP_BARRIER}, &t.id) == SYP_OK && start(c, &(struct call){.kind = OP_BARRIER}, &id) == SYP_OK);
    if (c->me == 0) {
        NEED(w, pthread_create(&thread, NULL, wait_there, &t) == 0);
        while (load_acquire(&c->own->inside) == 0)
            sched_yield();
        NEED(w, start(c, &(struct call){.kind = OP_BARRIER}, &other) == SYP_EBUSY && other == 9);
        NEED(w, queue_test(c, id, &done) == SYP_EBUSY && !done && queue_wait(c, id) == SYP_EBUSY && queue_cancel(c, id) == SYP_EBUSY);
        NEED(w, coll_barrier(c, 0) == SYP_EBUSY && comm_destroy(c) == SYP_EBUSY);
        store_release((atom32 *)arg, 1);
        pthread_join(thread, NULL);
        NEED(w, t.rc == SYP_OK);
    } else {
        while (!load_acquire((atom32 *)arg))
            sched_yield();
        NEED(w, queue_wait(c, t.id) == SYP_OK);
    }
    NEED(w, queue_wait(c, id) == SYP_OK);
    return 0;
}

static void a_second_thread_is_told(void) {
    atom32 tried = 0;
    CHECK_EQ(worlds_as_threads(2, NULL, second_thread, &tried), 0);
}

int main(void) {
    return check_main("nonblocking",
                      (struct check_test[]){{"random mixtures give exact results", random_mixtures_give_exact_results},
                                            {"a test returns at once", a_test_returns_at_once},
                                            {"an agreement leaves requests alone", an_agreement_leaves_requests_alone},
                                            {"a group has room for 64", a_group_has_room_for_64},
                                            {"cancelled requests are mismatches elsewhere", cancelled_requests_are_mismatches_elsewhere},
                                            {"what has begun is not cancelled", what_has_begun_is_not_cancelled},
                                            {"a refused request tells when it ends", a_refused_request_tells_when_it_ends},
                                            {"numbers that are no requests are refused", numbers_that_are_no_requests_are_refused},
                                            {"a second thread is told", a_second_thread_is_told},
                                            {0}});
}
