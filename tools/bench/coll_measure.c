/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives, in the first process: one operation and size, measured with all implementations and with what the machine can do, in turns.
 *
 * Everybody gets a few samples, then the next one does, in an order that rotates, 50 times over, so that all see the same phases of the
 * machine.  A pilot decides how many operations a sample and how many samples a turn has; a slow implementation has its turn less often.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench/coll_run.h"

#define TURNS 50
#define SAMPLE_NS 20000.0         /* a sample of several operations lasts about so long */
#define SAMPLE_SHARED_NS 500000.0 /* where ranks share processors, which do not start together */
#define COUNT_MAX 2000
#define SAMPLES_LEAST 15 /* whatever they cost, and fewer of what takes longer than SLOW_NS */
#define SAMPLES_LEAST_SLOW 3
#define SLOW_NS 2e6
#define LINE_TURNS 100
#define TRIES 20 /* for samples that are lacking at the end */
#define WARM_MAX 100
#define PILOTS 4
#define QUICK_NS 1e5

enum kind { KIND_HOT, KIND_FRESH, KIND_LOOP, KIND_BARE, N_KINDS };
static const enum coll_what kind_does[N_KINDS] = {DO_HOT, DO_FRESH, DO_LOOP, DO_BARE};

struct series {
    double *ns;
    int n, want, count, warm;
};

/* What has its turns: an implementation with its buffers, or a measurement of the machine. */
struct lane {
    const char *name;
    struct team *team;
    enum coll_what what; /* DO_HOT: an operation, by its series; else that measurement, in series[0] */
    enum coll_op op;
    int in_pool, plain, is_peer, is_limit;
    struct series series[N_KINDS];
};

struct cell {
    struct coll_run *run;
    enum coll_op op;
    uint64_t bytes;
    struct lane lane[LANES_MAX];
    int n_lanes;
    double overhead; /* of a common start, an empty operation and the clock: in each fresh sample */
};

double coll_copies(enum coll_op op, int n) {
    switch (op) {
    case OP_BARRIER: return 0;
    case OP_ALLGATHER:
    case OP_ALLTOALL: return n;
    case OP_REDUCE_SCATTER: return (n + 1) / 2.0; /* n blocks read, one written */
    default: return 1;
    }
}

struct coll_result *coll_results_add(struct coll_results *all) {
    if (all->n == all->room) {
        all->room = all->room ? 2 * all->room : 256;
        all->row = realloc(all->row, all->room * sizeof *all->row);
        if (!all->row) die("no memory for the results");
    }
    struct coll_result *r = &all->row[all->n++];
    *r = (struct coll_result){.in_pool = -1};
    return r;
}

static int turns(const struct coll_run *r) {
    return r->o->samples < TURNS ? r->o->samples : TURNS;
}

static int shares_processors(const struct coll_run *r) {
    return r->n > processors();
}

/* ------------------------------------------------------------------------------------------------------ who takes part */

static int does(const struct coll_run *r, enum team_id id, enum coll_op op) {
    const struct team *t = &r->team[id];
    return t->present && team_measures(id, op) && (t->board->does[op] >> r->o->type & 1);
}

static struct lane *add_lane(struct cell *c, const char *name, struct team *team, enum coll_op op) {
    struct lane *l = &c->lane[c->n_lanes++];
    *l = (struct lane){.name = name, .team = team, .what = DO_HOT, .op = op};
    return l;
}

static struct lane *add_limit(struct cell *c, const char *name, enum coll_what what, enum coll_op op) {
    struct lane *l = add_lane(c, name, &c->run->team[TEAM_OURS], op);
    l->what = what;
    l->is_limit = 1;
    return l;
}

static void choose_lanes(struct cell *c) {
    struct coll_run *r = c->run;
    int no_buffers = coll_ops[c->op].recv == BLOCKS_NONE;
    for (int in_pool = 1; in_pool >= 0; in_pool--)
        if (does(r, TEAM_OURS, c->op) && (no_buffers ? in_pool : (int)(r->o->buffers >> in_pool & 1)))
            add_lane(c, no_buffers ? "sympool" : in_pool ? "pool" : "outside", &r->team[TEAM_OURS], c->op)->in_pool = in_pool;
    if (coll_ops[c->op].one_sided && does(r, TEAM_OURS, c->op)) {
        struct lane *l = add_lane(c, "memcpy", &r->team[TEAM_OURS], c->op);
        l->plain = l->in_pool = l->is_peer = 1;
    }
    for (int id = TEAM_OURS + 1; id < N_TEAMS; id++)
        if (does(r, (enum team_id)id, c->op)) add_lane(c, r->team[id].name, &r->team[id], c->op)->is_peer = 1;
    add_limit(c, "line", DO_LINE, OP_NOTHING);
    add_limit(c, "probe", DO_PROBE, OP_NOTHING);
    if (shares_processors(r))
        add_limit(c, "yield", DO_YIELD, OP_NOTHING);
    else
        add_limit(c, "nothing", DO_HOT, OP_NOTHING);
    if (c->bytes) {
        add_limit(c, "memcpy", DO_HOT, OP_COPY);
        add_limit(c, "copy nt", DO_HOT, OP_COPY_NT);
    }
}

/* ------------------------------------------------------------------------------------------------------------- samples */

static struct coll_command command(const struct cell *c, const struct lane *l, enum coll_what what) {
    return (struct coll_command){.what = what, .op = l->op, .type = c->run->o->type, .in_pool = l->in_pool, .plain = l->plain,
                                 .bytes = l->op == OP_NOTHING ? 0 : c->bytes, .warm = 1, .samples = 1, .count = 1};
}

/* The slowest rank's time of each sample to out; returns how many there are: those for which a rank came late are left out. */
static int slowest(const struct board *b, int samples, double *out) {
    int n = 0;
    for (int s = 0; s < samples; s++) {
        double worst = 0;
        for (int r = 0; r < b->n && !isnan(worst); r++)
            if (!(b->sample[r][s] <= worst)) worst = b->sample[r][s]; /* also NAN */
        if (!isnan(worst)) out[n++] = worst;
    }
    return n;
}

/* What an operation takes about, ns: the least of a few samples, so that one that was interrupted does not count. */
static double pilot(struct cell *c, struct lane *l, enum coll_what what) {
    struct coll_command q = command(c, l, what);
    double least = INFINITY, ns;
    int pilots = c->run->o->samples < PILOTS ? c->run->o->samples : PILOTS;
    for (int tries = 0; tries < 2 * pilots; tries++) {
        if (tries >= pilots && least > QUICK_NS) break;
        if (least > SLOW_NS && least < INFINITY) break;
        q.count = tries < pilots ? 2 : 50; /* the start, which counts for little then */
        if (!l->team->present || !team_ask(l->team, &q)) return INFINITY;
        if (slowest(l->team->board, 1, &ns) && ns < least) least = ns;
    }
    return least > 1 ? least : 1;
}

static void plan(const struct cell *c, struct series *s, double each_ns, int several, int at_most) {
    const struct coll_options *o = c->run->o;
    double count = several ? (shares_processors(c->run) ? SAMPLE_SHARED_NS : SAMPLE_NS) / each_ns : 1;
    int least = each_ns > SLOW_NS ? SAMPLES_LEAST_SLOW : SAMPLES_LEAST;
    s->count = count > COUNT_MAX ? COUNT_MAX : count < 1 ? 1 : (int)count;
    double want = o->budget_ns / (each_ns * s->count + 1000);
    s->want = want > at_most ? at_most : want < least ? least : (int)want;
    if (s->want > o->samples) s->want = o->samples;
    s->warm = each_ns > SLOW_NS ? !shares_processors(c->run) : s->count > 2 ? (s->count < WARM_MAX ? s->count : WARM_MAX) : 2;
    s->ns = calloc((size_t)s->want + 1, sizeof *s->ns);
    if (!s->ns) die("no memory for %d samples", s->want);
}

static void plan_lane(struct cell *c, struct lane *l) {
    unsigned modes = c->run->o->modes;
    int shared = shares_processors(c->run), wants_loop = shared ? modes >> MODE_FRESH & 1 : modes >> MODE_LOOP & 1;
    if (l->what != DO_HOT) {
        l->series[0] = (struct series){.want = turns(c->run), .count = l->what == DO_PROBE ? 1 : LINE_TURNS};
        l->series[0].ns = calloc(TURNS, sizeof(double));
        l->series[1].ns = calloc(TURNS, sizeof(double));
        if (!l->series[0].ns || !l->series[1].ns) die("no memory for %d samples", TURNS);
        return;
    }
    if (!l->is_limit) {
        struct coll_command q = command(c, l, DO_VERIFY);
        if (!team_ask(l->team, &q)) return;
    }
    double ns = pilot(c, l, DO_HOT);
    if (modes >> MODE_HOT & 1 && l->op != OP_NOTHING) plan(c, &l->series[KIND_HOT], ns, 1, c->run->o->samples);
    if (!(modes & ~(1u << MODE_HOT))) return;
    double loop_ns = ns > SLOW_NS || coll_ops[l->op].one_sided ? 3 * ns : pilot(c, l, DO_LOOP);
    if (!shared && (modes >> MODE_FRESH & 1 || l->op == OP_NOTHING)) plan(c, &l->series[KIND_FRESH], loop_ns, 0, c->run->o->samples);
    if (wants_loop && !coll_ops[l->op].one_sided && l->op != OP_NOTHING)
        for (int k = KIND_LOOP; k <= KIND_BARE; k++)
            plan(c, &l->series[k], loop_ns, 1, shared ? c->run->o->samples : 2 * TURNS);
}

/* Measurements of the machine.  Of the probe's three the first one warms up, and the reader's row goes to the second series. */
static void take_limit(struct cell *c, struct lane *l) {
    struct series *s = &l->series[0], *reader = &l->series[1];
    struct coll_command q = command(c, l, l->what);
    const struct board *b = l->team->board;
    q.warm = 0;
    q.count = s->count;
    q.samples = l->what == DO_PROBE ? 3 : 1;
    if (!team_ask(l->team, &q)) return;
    if (l->what != DO_PROBE) {
        s->ns[s->n++] = b->sample[0][0];
        return;
    }
    s->ns[s->n++] = (b->sample[0][1] + b->sample[0][2]) / 2;
    reader->ns[reader->n++] = (b->sample[1][1] + b->sample[1][2]) / 2;
}

/* The lane's samples of this turn, and those that earlier ones lack because a rank came late to the start. */
static void take_turn(struct cell *c, struct lane *l, int turn) {
    int n = turns(c->run), last = turn == n - 1;
    if (l->what != DO_HOT) {
        take_limit(c, l);
        return;
    }
    for (int k = 0; k < N_KINDS; k++) {
        struct series *s = &l->series[k];
        for (int tries = 0; tries < (last ? TRIES : 1); tries++) {
            int due = (int)((int64_t)s->want * (turn + 1) / n) - s->n;
            if (due <= 0) break;
            struct coll_command q = command(c, l, kind_does[k]);
            q.samples = due > COLL_SAMPLES_MAX ? COLL_SAMPLES_MAX : due;
            q.count = s->count;
            q.warm = s->warm;
            if (!l->team->present || !team_ask(l->team, &q)) return;
            s->n += slowest(l->team->board, q.samples, s->ns + s->n);
        }
    }
}

/* ------------------------------------------------------------------------------------------------------------- results */

static double middle(const struct series *s) {
    return s->n ? median(s->ns, (size_t)s->n) : NAN;
}

static const struct lane *find(const struct cell *c, enum coll_what what, enum coll_op op) {
    for (int i = 0; i < c->n_lanes; i++)
        if (c->lane[i].is_limit && c->lane[i].what == what && c->lane[i].op == op) return &c->lane[i];
    return NULL;
}

/* The series of a mode, made from those that were taken: what a start costs is subtracted, or the loop without the operation. */
static struct series of_mode(const struct cell *c, const struct lane *l, enum coll_mode mode) {
    struct series s = l->series[KIND_HOT];
    if (mode == MODE_HOT) return s;
    if (mode == MODE_FRESH && !shares_processors(c->run)) {
        s = l->series[KIND_FRESH];
        for (int i = 0; i < s.n; i++)
            s.ns[i] = s.ns[i] > c->overhead ? s.ns[i] - c->overhead : 0;
        return s;
    }
    const struct series *bare = &l->series[KIND_BARE];
    s = l->series[KIND_LOOP];
    double without = bare->n ? median(bare->ns, (size_t)bare->n) : 0;
    for (int i = 0; i < s.n; i++)
        s.ns[i] = s.ns[i] > without ? s.ns[i] - without : 0;
    return s;
}

static void copy_limit(const struct cell *c, enum coll_mode mode, double *copy) {
    *copy = NAN;
    for (int op = OP_COPY; op <= OP_COPY_NT; op++) {
        const struct lane *l = find(c, DO_HOT, (enum coll_op)op);
        if (!l) continue;
        struct series s = of_mode(c, l, mode);
        double ns = middle(&s);
        if (!(*copy <= ns)) *copy = ns;
    }
}

static void add_result(struct cell *c, const struct lane *l, enum coll_mode mode, const struct coll_result *common) {
    struct series s = of_mode(c, l, mode);
    if (s.n == 0) return;
    struct coll_result *r = coll_results_add(c->run->results);
    *r = *common;
    r->impl = l->name;
    r->is_peer = l->is_peer;
    r->in_pool = l->is_peer || coll_ops[c->op].recv == BLOCKS_NONE ? -1 : l->in_pool;
    r->median = middle(&s); /* sorted now */
    r->low = s.ns[0];
    r->p99 = s.ns[(s.n * 99 + 99) / 100 - 1];
    r->samples = s.n;
    r->count = s.count;
    if (r->median <= 0) r->median = r->p99 = r->low = NAN; /* lost in the noise of what is subtracted */
}

/* All lanes in one mode, and how each stands to the best peer. */
static void conclude(struct cell *c, enum coll_mode mode) {
    struct coll_run *r = c->run;
    const struct lane *yield = find(c, DO_YIELD, OP_NOTHING);
    struct coll_result common = {.op = c->op, .mode = mode, .n = r->n, .bytes = c->bytes, .best = NAN, .limit = NAN, .copy = NAN};
    common.line = middle(&find(c, DO_LINE, OP_NOTHING)->series[0]);
    common.yield = yield ? middle(&yield->series[0]) : NAN;
    copy_limit(c, mode, &common.copy);
    common.limit = yield ? common.yield : common.line;
    if (common.copy * coll_copies(c->op, r->n) > common.limit) common.limit = common.copy * coll_copies(c->op, r->n);
    size_t from = r->results->n;
    for (int i = 0; i < c->n_lanes; i++)
        if (!c->lane[i].is_limit) add_result(c, &c->lane[i], mode, &common);
    for (size_t i = from; i < r->results->n; i++) {
        const struct coll_result *peer = &r->results->row[i];
        if (!peer->is_peer || isnan(peer->median) || common.best <= peer->median) continue;
        common.best = peer->median;
        common.best_name = peer->impl;
    }
    for (size_t i = from; i < r->results->n; i++) {
        r->results->row[i].best = common.best;
        r->results->row[i].best_name = common.best_name;
    }
}

static void note_cell(struct cell *c) {
    struct coll_run *r = c->run;
    const struct lane *probe = find(c, DO_PROBE, OP_NOTHING), *yield = find(c, DO_YIELD, OP_NOTHING);
    if (r->cells == r->cells_max) return;
    r->lines[r->cells] = middle(&find(c, DO_LINE, OP_NOTHING)->series[0]);
    r->yields[r->cells] = yield ? middle(&yield->series[0]) : NAN;
    r->probe_writes[r->cells] = middle(&probe->series[0]);
    r->probe_reads[r->cells] = middle(&probe->series[1]);
    r->cells++;
}

void coll_measure(struct coll_run *r, enum coll_op op, uint64_t bytes) {
    static struct cell c;
    memset(&c, 0, sizeof c);
    c.run = r;
    c.op = op;
    c.bytes = bytes;
    choose_lanes(&c);
    for (int i = 0; i < c.n_lanes; i++)
        plan_lane(&c, &c.lane[i]);
    for (int turn = 0; turn < turns(r); turn++)
        for (int i = 0; i < c.n_lanes; i++)
            take_turn(&c, &c.lane[(i + turn) % c.n_lanes], turn);
    const struct lane *nothing = find(&c, DO_HOT, OP_NOTHING);
    if (nothing && nothing->series[KIND_FRESH].n) c.overhead = middle(&nothing->series[KIND_FRESH]);
    note_cell(&c);
    for (int mode = 0; mode < N_MODES; mode++)
        if (r->o->modes >> mode & 1 && !(mode == MODE_LOOP && shares_processors(r))) conclude(&c, (enum coll_mode)mode);
    for (int i = 0; i < c.n_lanes; i++)
        for (int k = 0; k < N_KINDS; k++)
            free(c.lane[i].series[k].ns);
}
