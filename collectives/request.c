/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every operation is made of: taking the group, posting, comparing what the members asked for, finding their buffers.
 *
 * The check is part of every operation: each member sees all mails of the operation, so each reaches the same verdict, and the group stays in
 * step also after a refused call.
 */
#include "collectives/request.h"
#include "bootstrap/crowd.h"
#include "bootstrap/transport.h"
#include "collectives/post.h"
#include "collectives/queue.h"
#include "collectives/tree.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"

#include <string.h>

const char *op_name(int kind) {
    switch (kind) {
#define X(id, number, name) case OP_##id: return name;
        STATS_OP_LIST(X)
#undef X
    default:
        return "no operation";
    }
}

int request_unusable(struct comm *c, const char *call) {
    if (!c->in_use) return err_set(SYP_ESTATE, "%s on group %d: the group was destroyed", call, c->slot);
    if (c->unreachable) return comm_refuse_unreachable(c, call);
    if (load_relaxed(&c->own->abort_group) == c->id + 1) comm_aborted_here(c, comm_first_open(c)); /* pairs with comm_abort */
    if (c->broken) {
        *err_record() = c->why;
        err_prefix("%s: group %d is broken", call, c->slot);
        return c->broken;
    }
    return comm_check_own_life(c, call);
}

int request_take_slowly(struct comm *c, int kind) {
    int rc = request_unusable(c, op_name(kind));
    if (rc == SYP_OK && c->pending) {
        queue_complete(c, UINT64_MAX);
        rc = request_unusable(c, op_name(kind));
    }
    if (rc == SYP_OK) return SYP_OK;
    store_release(&c->busy, 0);
    return err_operation(op_name(kind));
}

int request_taken_already(const struct comm *c, int kind) {
    err_set(SYP_EBUSY, "%s on group %d: another thread of this rank is inside an operation of this group; use one group per "
                       "thread", op_name(kind), c->slot);
    return err_operation(op_name(kind));
}

void request_number(struct request *r, struct comm *c, int kind, int64_t timeout_ns, int posted) {
    memset(r, 0, sizeof *r);
    r->c = c;
    r->kind = kind;
    r->root = -1;
    r->at = (struct mail_buffers){AT_NONE, AT_NONE, 0};
    r->sequence = posted ? c->sequence : comm_begin(c);
    r->base = c->phase;
    r->posted = (uint8_t)posted;
    r->timeout_ns = timeout_ns;
    if (timeout_ns < 0) /* posted, so that the other members learn that this call is no call */
        r->error = err_set(SYP_EINVAL, "%s: the syp_call is not usable: its size is too small or its timeout_ns negative", op_name(kind));
}

void request_clock(struct request *r) {
    if (r->start) return;
    const struct coll_conf *conf = &r->c->coll->conf;
    r->start = os->now();
    r->deadline = deadline_after(r->start, r->timeout_ns > 0 ? r->timeout_ns : conf->timeout_ns);
    r->stall = (uint64_t)conf->stall_ns;
    r->next_warning = r->stall ? r->start + r->stall : 0;
    stats_op_started((unsigned)r->c->slot, r->start);
}

int request_begin(struct request *r, struct comm *c, int kind, int64_t timeout_ns) {
    int rc = request_take(c, kind);
    if (rc == SYP_OK) request_number(r, c, kind, timeout_ns, 0);
    return rc;
}

/* Members that have not noticed yet, or are stopped, may go on storing into our buffer: what is freed of it must not be reused before they are out. */
static void quarantine_buffer(const struct request *r) {
    if (r->pushed && r->at.recv < AT_NONE) (void)comm_add_hazard(r->c, r->at.recv, r->recv_len);
}

static void count_done(const struct request *r) {
    stats_add(STAT_OPS, 1);
    if (!r->total) return;
    stats_add(STAT_OP_BYTES, r->total);
    stats_add(r->mailed ? STAT_MAILED : r->staged_any ? STAT_STAGED : STAT_ZERO_COPY, 1);
    if (r->one_shot && !r->mailed) stats_add(STAT_ONE_SHOT, 1);
}

void comm_sample_begin(struct comm *c) {
    c->began = os->now();
}

void comm_sample_end(const struct comm *c, int kind, uint64_t bytes) {
    uint64_t now = os->now();
    stats_latency((enum stats_op_kind)kind, bytes, now - c->began);
    crowd_look(c->coll->peers, now); /* also a rank that never waits is to tell where it may run */
}

/* Of a blocking call; how long a non-blocking one takes is up to the program that tests it. */
static void count_latency(const struct request *r, uint64_t now) {
    if (r->c->begun) return;
    if (r->total >= STATS_LONG)
        stats_latency((enum stats_op_kind)r->kind, r->total, now - r->start);
    else if (stats_sampled(r->sequence))
        comm_sample_end(r->c, r->kind, r->total);
}

void request_start(struct request *r) {
    stats_op_begin((unsigned)r->c->slot, (enum stats_op_kind)r->kind, r->sequence, r->total, 0);
    if (r->total >= STATS_LONG) request_clock(r);
}

int request_finish(struct request *r, int rc) {
    struct comm *c = r->c;
    uint64_t now = r->start ? os->now() : STATS_NO_TIME;
    if (rc == SYP_OK) {
        count_done(r);
        count_latency(r, now);
    } else {
        err_operation(op_name(r->kind));
        err_sequence((uint64_t)c->slot, r->sequence);
        if (c->broken) {
            c->why = *err_record();
            quarantine_buffer(r);
        }
    }
    stats_op_end((unsigned)c->slot, rc, now);
    return rc;
}

int request_drive(struct request *r) {
    int rc;
    request_start(r);
    while ((rc = r->step(r)) == REQUEST_BLOCKED && (rc = wait_for(r)) == SYP_OK)
        ;
    return request_finish(r, rc);
}

int request_run(struct request *r) {
    int rc = request_drive(r);
    request_release(r->c);
    return rc;
}

/* ------------------------------------------------------------------------------------------------ posting */

static struct mail *address(const struct request *r) {
    return post_address(r->c, mail_what(r->kind, r->dtype, r->op, r->error, r->root), r->count, r->total);
}

static void deliver(struct request *r) {
    post_note(r->c, r->kind);
    tree_publish(r->c);
    post_prepare_next(r->c, sizeof r->at);
    r->base = r->c->phase;
}

void request_post(struct request *r, const void *data, size_t len) {
    if (r->posted) return;
    struct mail *mail = address(r);
    if (len) memcpy(mail->data, data, len);
    deliver(r);
}

void request_post_moves(struct request *r) {
    if (r->posted) return;
    struct mail *mail = address(r);
    if (!r->error && r->mailed)
        r->moves->pack(r, mail->data);
    else
        memcpy(mail->data, &r->at, sizeof r->at);
    deliver(r);
}

int request_all_at(struct request *r, uint64_t target) {
    struct comm *c = r->c;
    while (r->cursor < c->n) {
        if (r->cursor != c->me && !wait_reached(c, r->cursor, target)) {
            r->wait_one = 0;
            r->wait_on = ON_STAMP;
            r->wait_member = r->cursor;
            r->wait_target = target;
            return 0;
        }
        r->cursor++;
    }
    r->cursor = 0;
    return 1;
}

int request_one_at(struct request *r, int member, uint64_t target) {
    if (member == r->c->me || wait_reached(r->c, member, target)) return 1;
    r->wait_one = 1;
    r->wait_on = ON_STAMP;
    r->wait_member = member;
    r->wait_target = target;
    return 0;
}

int request_these_at(struct request *r, enum whose who, uint64_t target) {
    if (r->together && r->c->parts) return tree_all_at(r, target);
    return who == EVERYBODY ? request_all_at(r, target) : who == THE_ROOT ? request_one_at(r, r->root, target) : 1;
}

/* ----------------------------------------------------------------------------------------------- the check */

/* A member destroyed the group (its slot serves another one), or its mail is nonsense. */
static int stale_mail(struct request *r, int member, const struct mail *mail) {
    if (mail->comm_id == r->c->id) return request_corrupt(r, member, "sequence", mail->sequence);
    int rank = r->c->member[member].rank;
    err_set(SYP_EPEER, "%s %llu on group %d: rank %d has destroyed this group", op_name(r->kind),
            (unsigned long long)r->sequence, r->c->slot, rank);
    err_peer(rank, r->c->coll->peers->roster.rank[rank].pid);
    return comm_break(r->c, SYP_EPEER, rank, r->sequence);
}

enum verdict { ALL_THE_SAME, CALLS_DIFFER = 1, SYMM_DIFFERS = 2 };

/* What differs, or an error (< 0). */
static int look_closely(struct request *r) {
    struct comm *c = r->c;
    const struct mail *mine = comm_mail(c);
    int verdict = ALL_THE_SAME, finalizing = 0;
    for (int m = 0; m < c->n; m++) {
        const struct mail *his = comm_mail_of(c, m);
        if (his->comm_id != c->id || his->sequence != r->sequence) return stale_mail(r, m, his);
        if (his->call.what != mine->call.what || his->count != mine->count) verdict |= CALLS_DIFFER;
        if ((his->call.token ^ mail_token(his->count)) != (mine->call.token ^ mail_token(mine->count))) verdict |= SYMM_DIFFERS;
        if ((his->call.what & 0xff) == OP_FINALIZE) finalizing = 1;
        c->member[m].symm_calls = his->symm_calls;
    }
    if (finalizing) verdict &= ~SYMM_DIFFERS; /* nobody will use the region any more */
    return verdict;
}

static int all_the_same(struct request *r) {
    r->c->symm_agreed = comm_mail(r->c)->symm_calls;
    return r->error ? CALLS_DIFFER : ALL_THE_SAME;
}

static int compare_mails(struct request *r) {
    struct comm *c = r->c;
    uint64_t differs = 0;
    for (int m = 0; m < c->n; m++)
        if (m != c->me) differs |= mail_calls_differ(&comm_mail_of(c, m)->call, &c->call);
    if (__builtin_expect(differs != 0, 0)) return look_closely(r);
    return all_the_same(r);
}

enum { CHECK_CALLS, CHECK_SYMM };

/* The first phase of an operation, and that of the symmetric check, are awaited by all. */
static int all_met(struct request *r) {
    return r->c->parts ? tree_all_at(r, r->c->phase) : request_all_at(r, r->c->phase);
}

int request_check(struct request *r) {
    struct comm *c = r->c;
    if (!all_met(r)) return REQUEST_BLOCKED;
    int agreed = c->parts && r->check_state == CHECK_CALLS && tree_agrees(r);
    r->combined = r->combined && agreed;
    if (!agreed || !(r->few_mails || r->combined)) { /* tree_agrees has looked at as many as matter to those */
        int gave_up = wait_aborted(r); /* we may be the one who is too late */
        if (gave_up != SYP_OK) return gave_up;
    }
    if (r->check_state == CHECK_CALLS) {
        int verdict = agreed ? all_the_same(r) : compare_mails(r);
        if (__builtin_expect(verdict == ALL_THE_SAME, 1)) return SYP_OK;
        if (verdict < 0) return verdict;
        if (!(verdict & SYMM_DIFFERS)) return request_mismatch(r);
        /* Rare: read the members' rings, and hold everybody until all have read, or a fast one might overwrite its ring meanwhile. */
        r->error = verdict & CALLS_DIFFER ? request_mismatch(r) : r->error;
        int diverged = request_symm_verdict(r);
        if (diverged != SYP_OK) r->error = diverged;
        r->check_state = CHECK_SYMM;
        tree_publish(c);
        r->base = c->phase;
        if (!all_met(r)) return REQUEST_BLOCKED;
    }
    return r->error;
}

int request_meet(struct request *r) {
    if (r->state == 0) {
        request_post(r, r->data, r->data_len);
        r->state = 1;
    }
    return request_check(r);
}

/* ------------------------------------------------------------------------------------------------- buffers */

int request_in_pool(const struct request *r, const void *p, uint64_t len, uint64_t *off) {
    const struct region *own = r->c->coll->peers->region;
    if (!p || !region_contains(own, p)) return 0;
    *off = region_offset(own, p);
    return len <= own->len - *off;
}

/* Where a group's staging area begins in every rank's exchange segment. */
static uint64_t staging_off(const struct comm *c) {
    return (uint64_t)c->slot * c->coll->conf.staging;
}

/* A member's buffer, or its half of the running round. */
static char *place(const struct request *r, int rank, uint64_t off, uint64_t at, uint64_t staged_at, uint64_t len) {
    const struct peers *p = r->c->coll->peers;
    if (off != AT_STAGED) return off + at < off ? NULL : transport_shm.address(p, rank, SEGMENT_DATA, off + at, len);
    return transport_shm.address(p, rank, SEGMENT_EXCHANGE, staging_off(r->c) + half_of(r, r->round) + staged_at, len);
}

char *request_source(const struct request *r, int member, uint64_t at, uint64_t staged_at, uint64_t len) {
    const struct comm_member *m = &r->c->member[member];
    if (member == r->c->me) return (char *)r->send + at;
    return place(r, m->rank, m->at.send, at, staged_at, len);
}

char *request_target(const struct request *r, int member, uint64_t at, uint64_t staged_at, uint64_t len) {
    const struct comm_member *m = &r->c->member[member];
    if (member == r->c->me) return (char *)r->recv + at;
    return place(r, m->rank, m->at.recv, at, staged_at, len);
}

int request_corrupt(struct request *r, int member, const char *field, uint64_t value) {
    int rank = r->c->member[member].rank;
    err_set(SYP_EPEER, "%s %llu on group %d: rank %d published %s %llu, which cannot be: its control data is damaged",
            op_name(r->kind), (unsigned long long)r->sequence, r->c->slot, rank, field, (unsigned long long)value);
    err_peer(rank, r->c->coll->peers->roster.rank[rank].pid);
    return comm_break(r->c, SYP_EPEER, rank, r->sequence);
}

int coll_staging(struct coll *k, int slot) {
    uint64_t at = (uint64_t)slot * k->conf.staging;
    if (k->staging_ready[slot]) return SYP_OK;
    int rc = peers_commit_exchange(k->peers, at, k->conf.staging);
    if (rc != SYP_OK) return err_prefix("memory for a staging area (lower SYMPOOL_STAGING_SIZE or use pool buffers)");
    k->staging_ready[slot] = 1;
    stats_set(STAT_OVERHEAD, stats_read(STAT_OVERHEAD) + k->conf.staging);
    return SYP_OK;
}

int request_staging(struct request *r) {
    int rc = coll_staging(r->c->coll, r->c->slot);
    if (rc != SYP_OK) return err_prefix("%s", op_name(r->kind));
    r->staging = (char *)r->c->coll->peers->exchange.base + staging_off(r->c);
    return SYP_OK;
}
