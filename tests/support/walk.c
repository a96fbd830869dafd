/* SPDX-License-Identifier: Apache-2.0 */
/* See the header.  What all members draw comes from `common`, what a member decides alone from `mine`. */
#include "tests/support/walk.h"

#include "collectives/pairs.h"
#include "collectives/rma.h"
#include "pool/base/status.h"
#include "tests/support/check.h"

#include <sched.h>
#include <stdlib.h>

#define GROUPS 6
#define PARCEL 2048 /* bytes put at a time */
#define LISTS 4     /* buffers of a message */
#define MOST_DOING (QUEUE_LEN / 2) /* of a group, beside as many that were cancelled */

struct doing {
    struct op_case a;
    uint64_t id;
    int cancelled; /* by some member: nothing happens, and all others are told */
};

/* All ranks know all groups; those that are not members have no comm. */
struct party {
    int alive, n, rank[WALK_MEMBERS]; /* of the world */
    int notified; /* through its channels: lost with a member that leaves */
    struct comm *c;
    struct doing *doing[MOST_DOING];
    int n_doing;
};

struct walker {
    struct world *w;
    const struct walk *p;
    struct party party[GROUPS];
    uint64_t mine;
    int step;
    /* by world rank: parcels sent to, and taken from */
    uint64_t sent[WALK_MEMBERS], taken[WALK_MEMBERS];
};

static uint64_t draw(uint64_t *stream) {
    return check_random(stream) >> 16;
}

#define STEP_NEED(k, cond)                                                                                             \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fprintf(stderr, "rank %d, step %d of SEED=%llu: %s (line %d): %s\n", (k)->w->who.rank, (k)->step,             \
                    (unsigned long long)(k)->p->seed, #cond, __LINE__, syp_error_text());                                 \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

/* -------------------------------------------------------------------------------------------------- requests */

/* Ask for any request of the group, or wait for it; one that has ended leaves the list. */
static int ask(struct walker *k, struct party *g, int wait) {
    int done = 1, i = (int)(draw(&k->mine) % (uint64_t)g->n_doing);
    struct doing *d = g->doing[i];
    int rc = wait ? queue_wait(g->c, d->id) : queue_test(g->c, d->id, &done);
    if (!done) {
        STEP_NEED(k, rc == SYP_OK);
        return 0;
    }
    STEP_NEED(k, rc == (d->cancelled ? SYP_EMISMATCH : SYP_OK));
    STEP_NEED(k, d->cancelled ? op_case_untouched(&d->a) : op_case_exact(&d->a));
    g->doing[i] = g->doing[--g->n_doing];
    op_case_free(&d->a);
    free(d);
    return 0;
}

/* Until only group `but` has any, by asking alone, all groups in turn: nobody is waited for by name. */
static int finish_all_but(struct walker *k, const struct party *but) {
    for (int left = 1; left;) {
        left = 0;
        for (int g = 0; g < GROUPS; g++) {
            if (!k->party[g].n_doing) continue;
            if (&k->party[g] != but) left = 1;
            if (ask(k, &k->party[g], 0)) return 1;
        }
        if (left) sched_yield();
    }
    return 0;
}

static int add(struct walker *k, struct party *g, struct doing *d) {
    STEP_NEED(k, queue_add(g->c, "test", &d->a.call, 0, &d->id) == SYP_OK);
    g->doing[g->n_doing++] = d;
    return 0;
}

static int block(struct walker *k, struct party *g, struct doing *d) {
    if (finish_all_but(k, g)) return 1;
    while (g->n_doing > 1 && draw(&k->mine) & 1) /* the request, or those before it, are waited for */
        if (ask(k, g, 1)) return 1;
    STEP_NEED(k, coll_run(g->c, &d->a.call, 0) == SYP_OK);
    STEP_NEED(k, op_case_exact(&d->a));
    op_case_free(&d->a);
    free(d);
    while (g->n_doing) { /* it has completed them */
        int before = g->n_doing;
        if (ask(k, g, 0)) return 1;
        STEP_NEED(k, g->n_doing == before - 1);
    }
    return 0;
}

static struct doing *make(struct walker *k, struct party *g, int kind, size_t bytes, uint64_t common) {
    struct doing *d = calloc(1, sizeof *d);
    if (!d || op_case_make(&d->a, k->w, g->c, kind, bytes, common, draw(&k->mine)) == 0) return d;
    free(d);
    return NULL;
}

static int collective(struct walker *k, struct party *g, int kind, size_t bytes, uint64_t common) {
    struct doing *d = make(k, g, kind, bytes, common);
    STEP_NEED(k, d);
    if (g->n_doing == MOST_DOING || draw(&k->mine) % 3 == 0) return block(k, g, d);
    if (add(k, g, d)) return 1;
    while (g->n_doing && draw(&k->mine) % 3 == 0)
        if (ask(k, g, 0)) return 1;
    return 0;
}

/* Some members take it back before it begins; if not all do, the others are told.  What follows makes it come to its end. */
static int cancelled(struct walker *k, struct party *g, size_t bytes, uint64_t common) {
    uint64_t x = draw(&common), who = x | x >> 8;
    if (g->n_doing > MOST_DOING - 2 && finish_all_but(k, NULL)) return 1;
    struct doing *d = make(k, g, OP_NONE, bytes, common);
    STEP_NEED(k, d);
    d->cancelled = (who & ((1u << g->n) - 1)) != 0;
    if (add(k, g, d)) return 1;
    if (who >> g->c->me & 1) {
        STEP_NEED(k, queue_cancel(g->c, d->id) == SYP_OK);
        STEP_NEED(k, op_case_untouched(&d->a));
        op_case_free(&d->a);
        free(d);
        g->n_doing--;
    }
    d = make(k, g, OP_BARRIER, 0, common);
    STEP_NEED(k, d);
    return add(k, g, d);
}

/* --------------------------------------------------------------------------------------------- between two */

static uint8_t parcel_byte(int from, int to, uint64_t number, size_t i) {
    return (uint8_t)(((uint32_t)i * 2654435761u + (uint32_t)number * 0x9e3779b1u + (uint32_t)(from * 8 + to) * 0x85ebca6bu) >> 24);
}

static void parcel_fill(char *at, size_t len, int from, int to, uint64_t number) {
    for (size_t i = 0; i < len; i++)
        at[i] = (char)parcel_byte(from, to, number, i);
}

static int parcel_right(const char *at, size_t len, int from, int to, uint64_t number) {
    for (size_t i = 0; i < len; i++)
        if ((uint8_t)at[i] != parcel_byte(from, to, number, i)) return 0;
    return 1;
}

/* A walk's box in each pool, by the world rank of the other side: parcels, words that say how many are there, words that say how many were taken. */
static char *parcel_of(const struct walk *p, int rank) { return p->box + (size_t)rank * PARCEL; }
static uint64_t *full_of(const struct walk *p, int rank) { return (uint64_t *)(void *)(p->box + WALK_MEMBERS * PARCEL + (size_t)rank * 128); }
static uint64_t *taken_of(const struct walk *p, int rank) { return full_of(p, rank) + 8; }

/* Each member gives a parcel to the one `shift` behind it: puts it there, or has it fetched. */
static int parcels(struct walker *k, struct party *g, uint64_t common) {
    const struct coll *coll = &k->w->coll;
    const struct walk *p = k->p;
    uint64_t x = draw(&common);
    int n = g->n, shift = (int)(x % (uint64_t)n), to = g->rank[(g->c->me + shift) % n], from = g->rank[(g->c->me + n - shift) % n], me = k->w->who.rank;
    size_t len = x >> 8 & 1 ? x >> 12 & 63 : x >> 12 & (PARCEL - 1);
    char out[PARCEL], in[PARCEL];
    if (finish_all_but(k, NULL)) return 1;
    STEP_NEED(k, signal_wait(coll, taken_of(p, to), SYP_EQ, k->sent[to], to, NULL, 0) == SYP_OK);
    uint64_t out_number = ++k->sent[to], in_number = ++k->taken[from], seen = 0;
    if (x >> 9 & 1) {
        parcel_fill(out, len, me, to, out_number);
        STEP_NEED(k, rma_put_signal(coll, parcel_of(p, me), out, len, full_of(p, me), out_number, to) == SYP_OK);
    } else { /* lies here for that one; ours towards `to` alone, since it was taken there */
        parcel_fill(parcel_of(p, to), len, me, to, out_number);
        STEP_NEED(k, x >> 10 & 1 ? signal_set(coll, "test", full_of(p, me), out_number, to) == SYP_OK : signal_add(coll, full_of(p, me), 1, to) == SYP_OK);
    }
    STEP_NEED(k, signal_wait(coll, full_of(p, from), SYP_GE, in_number, from, &seen, 0) == SYP_OK && seen == in_number);
    if (x >> 9 & 1)
        memcpy(in, parcel_of(p, from), len);
    else
        STEP_NEED(k, rma_get(coll, in, parcel_of(p, me), len, from) == SYP_OK);
    STEP_NEED(k, parcel_right(in, len, from, me, in_number));
    STEP_NEED(k, signal_set(coll, "test", taken_of(p, me), in_number, from) == SYP_OK);
    return 0;
}

static int channels(struct walker *k, struct party *g, uint64_t common) {
    uint64_t x = draw(&common);
    int n = g->n, shift = (int)(x % (uint64_t)n), channel = (int)(x >> 8 & 3), times = 1 + (int)(x >> 12 & 3);
    g->notified = 1;
    for (int i = 0; i < times; i++) /* that never blocks */
        STEP_NEED(k, channel_notify(g->c, (g->c->me + shift) % n, channel) == SYP_OK);
    if (finish_all_but(k, NULL)) return 1;
    for (int i = 0; i < times; i++)
        STEP_NEED(k, channel_wait(g->c, (g->c->me + n - shift) % n, channel, 0) == SYP_OK);
    return 0;
}

struct message {
    void *buf[LISTS];
    size_t len[LISTS];
    int n, in_pool[LISTS];
};

static int message_make(struct walker *k, struct message *m, uint64_t shape) {
    m->n = (int)(draw(&shape) % (LISTS + 1));
    for (int i = 0; i < m->n; i++) {
        uint64_t x = draw(&shape);
        m->len[i] = x % 50 == 0 ? x >> 8 & 0x3ffff : x % 8 == 0 ? x >> 8 & 0x1fff : x >> 8 & 0xff;
        if (m->len[i] > k->p->largest) m->len[i] = k->p->largest;
        m->in_pool[i] = (int)(draw(&k->mine) & 1);
        m->buf[i] = m->in_pool[i] ? world_alloc(k->w, m->len[i] + 1) : malloc(m->len[i] + 1);
        STEP_NEED(k, m->buf[i]);
        ((char *)m->buf[i])[m->len[i]] = 0x5a;
    }
    return 0;
}

static void message_fill(struct message *m, int from, int to, uint64_t number) {
    for (int i = 0; i < m->n; i++)
        parcel_fill(m->buf[i], m->len[i], from, to, number + (uint64_t)i);
}

static int message_right(const struct message *m, int from, int to, uint64_t number) {
    for (int i = 0; i < m->n; i++)
        if (!parcel_right(m->buf[i], m->len[i], from, to, number + (uint64_t)i) || ((char *)m->buf[i])[m->len[i]] != 0x5a) return 0;
    return 1;
}

static void message_free(struct walker *k, struct message *m) {
    for (int i = 0; i < m->n; i++)
        if (m->in_pool[i])
            world_free(k->w, m->buf[i]);
        else
            free(m->buf[i]);
}

/* In a ring, or in couples of which one sends and the other receives first. */
static int messages(struct walker *k, struct party *g, uint64_t common) {
    uint64_t x = draw(&common), shape = common;
    int n = g->n, me = g->c->me, shift = (int)(x % (uint64_t)n), couples = x >> 8 & 1, to = (me + shift) % n, from = (me + n - shift) % n;
    struct message out = {.n = 0}, in = {.n = 0};
    if (couples) to = from = me ^ 1;
    if (finish_all_but(k, NULL)) return 1;
    if (to >= n) return 0; /* the odd one */
    if (message_make(k, &out, shape * (uint64_t)(2 * me + 1) | 1) || message_make(k, &in, shape * (uint64_t)(2 * from + 1) | 1)) return 1;
    message_fill(&out, me, to, x);
    const struct buffers send = {out.buf, out.len, out.n, to}, recv = {in.buf, in.len, in.n, from};
    if (couples && me & 1) STEP_NEED(k, coll_recv(g->c, &recv, 0) == SYP_OK && coll_send(g->c, &send, 0) == SYP_OK);
    if (couples && !(me & 1)) STEP_NEED(k, coll_send(g->c, &send, 0) == SYP_OK && coll_recv(g->c, &recv, 0) == SYP_OK);
    if (!couples) STEP_NEED(k, coll_sendrecv(g->c, &send, &recv, 0) == SYP_OK);
    STEP_NEED(k, message_right(&in, from, me, x) && message_right(&out, me, to, x));
    message_free(k, &out);
    message_free(k, &in);
    return 0;
}

/* -------------------------------------------------------------------------------------------------- groups */

static int agree(struct walker *k, struct party *g, uint64_t common) {
    uint64_t want = UINT64_MAX, mine = 0;
    for (int m = 0; m < g->n; m++) {
        uint64_t x = draw(&common) | draw(&common);
        if (m == g->c->me) mine = x;
        want &= x;
    }
    if (finish_all_but(k, NULL)) return 1;
    STEP_NEED(k, comm_agree(g->c, &mine, 0) == SYP_OK && mine == want);
    return 0;
}

/* A group of some members of another one, in some order; or every second or third of them, in one direction or the other. */
static int found(struct walker *k, struct party *g, const struct party *of, uint64_t common) {
    uint64_t x = draw(&common);
    int list[WALK_MEMBERS], stride = (int)((x >> 8) % 3) + 1, first = 0;
    *g = (struct party){.alive = 1};
    if (x & 1) {
        first = x >> 1 & 1 ? of->n - 1 : 0;
        stride = x >> 1 & 1 ? -stride : stride;
        for (int m = first; m >= 0 && m < of->n; m += stride)
            list[g->n++] = m;
    } else {
        for (int m = 0; m < of->n; m++)
            if (draw(&common) % 3 || (m == of->n - 1 && g->n == 0)) list[g->n++] = m;
        for (int i = g->n - 1; i > 0; i--) {
            int j = (int)(draw(&common) % (uint64_t)(i + 1)), was = list[i];
            list[i] = list[j];
            list[j] = was;
        }
    }
    int mine = 0;
    for (int i = 0; i < g->n; i++) {
        g->rank[i] = of->rank[list[i]];
        mine |= g->rank[i] == k->w->who.rank;
    }
    if (!of->c) return 0;
    if (finish_all_but(k, NULL)) return 1;
    if (x & 1)
        STEP_NEED(k, comm_split_strided(of->c, first, stride, g->n, &g->c) == SYP_OK);
    else
        STEP_NEED(k, comm_create(of->c, list, g->n, &g->c) == SYP_OK);
    STEP_NEED(k, (g->c != NULL) == mine && (!mine || g->rank[g->c->me] == k->w->who.rank));
    return 0;
}

static int leave(struct walker *k, struct party *g) {
    g->alive = 0;
    if (!g->c) return 0;
    if (finish_all_but(k, NULL)) return 1;
    if (g->notified) STEP_NEED(k, coll_barrier(g->c, 0) == SYP_OK);
    STEP_NEED(k, comm_destroy(g->c) == SYP_OK);
    return 0;
}

/* ----------------------------------------------------------------------------------------------- the walk */

static size_t size(const struct walk *p, uint64_t x) {
    static const size_t special[] = {0, 1, 8, 63, 64, 65, MAIL_DATA - 1, MAIL_DATA, MAIL_DATA + 1, 4095, 4096, 4097};
    uint64_t y = x >> 8;
    switch (x & 63) {
    case 0: return y % (p->largest + 1);
    case 1:
    case 2: return y % (p->largest / 8 + 1);
    case 3 ... 9: return special[y % (sizeof special / sizeof special[0])];
    case 10 ... 20: return y & 0xfff;
    default: return y & 0xff;
    }
}

static int step(struct walker *k, uint64_t common) {
    uint64_t x = draw(&common);
    int which = (int)(x % GROUPS), kind = (int)((x >> 8) % 100);
    struct party *g = &k->party[which];
    size_t bytes = size(k->p, draw(&common));
    if (!g->alive) { /* the place of a group that will be */
        struct party *of = &k->party[(x >> 20) % GROUPS];
        return found(k, g, of->alive ? of : &k->party[0], common);
    }
    if (kind < 3 && which) return leave(k, g);
    if (!g->c) return 0;
    if (kind < 6) return agree(k, g, common);
    if (kind < 11) return channels(k, g, common);
    if (kind < 19) return messages(k, g, common);
    if (kind < 27 && k->p->box) return parcels(k, g, common);
    if (kind < 31) return cancelled(k, g, bytes, common);
    return collective(k, g, OP_NONE, bytes, common);
}

static int begin(struct walker *k, struct comm *root) {
    struct party *world = &k->party[0];
    *world = (struct party){.alive = 1, .n = root->n, .c = root};
    for (int m = 0; m < root->n; m++)
        world->rank[m] = root->rank[m];
    if (k->p->box) memset(k->p->box, 0, WALK_BOX);
    STEP_NEED(k, coll_barrier(root, 0) == SYP_OK);
    return 0;
}

static int end(struct walker *k) {
    if (finish_all_but(k, NULL)) return 1;
    for (int g = 1; g < GROUPS; g++)
        if (k->party[g].alive && leave(k, &k->party[g])) return 1;
    STEP_NEED(k, coll_barrier(k->party[0].c, 0) == SYP_OK);
    return 0;
}

int walk_run(struct world *w, struct comm *root, const struct walk *p) {
    struct walker *k = calloc(1, sizeof *k);
    uint64_t common = p->seed * 0x9e3779b97f4a7c15u | 1;
    if (!k) return 1;
    k->w = w;
    k->p = p;
    k->mine = common ^ (0xc2b2ae3d27d4eb4fu * (uint64_t)(w->who.rank + 1));
    int rc = begin(k, root);
    for (; !rc && k->step < p->steps; k->step++)
        rc = step(k, check_random(&common));
    if (!rc) rc = end(k);
    free(k);
    return rc;
}
