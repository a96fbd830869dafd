/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every operation is made of: taking the group, posting, comparing what the members asked for, finding their buffers.
 *
 * The check is part of every operation: each member sees all posts of the operation, so each reaches the same verdict, and the group stays in
 * step also after a refused call.
 */
#include "collectives/request.h"
#include "bootstrap/transport.h"
#include "collectives/reduce.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <string.h>

#define KIND_SHIFT 56

const char *op_name(int kind) {
    switch (kind) {
    case OP_BARRIER:
        return "barrier";
    case OP_BROADCAST:
        return "broadcast";
    case OP_ALLREDUCE:
        return "allreduce";
    case OP_SYMM_MALLOC:
        return "symm_malloc";
    case OP_COMM_CREATE:
        return "comm_create";
    case OP_FINALIZE:
        return "finalize";
    case OP_AGREE:
        return "comm_agree";
    case OP_SHRINK:
        return "comm_shrink";
    default:
        return "no operation";
    }
}

/* Why a group that this thread has just taken is of no use; SYP_OK = it is. */
static int unusable(struct comm *c, const char *call) {
    if (!c->in_use) return err_set(SYP_ESTATE, "%s on group %d: the group was destroyed", call, c->slot);
    if (c->unreachable) return comm_refuse_unreachable(c, call);
    if (load_relaxed(&c->own->abort_group) == c->id + 1) comm_aborted_here(c, c->sequence + 1); /* pairs with comm_abort */
    if (c->broken) {
        *err_record() = c->why;
        err_prefix("%s: group %d is broken", call, c->slot);
        return c->broken;
    }
    return comm_check_own_life(c, call);
}

int request_take(struct comm *c, int kind) {
    uint32_t idle = 0;
    if (!cas_acquire(&c->busy, &idle, 1)) { /* pairs with request_release */
        err_set(SYP_EBUSY, "%s on group %d: another thread of this rank is inside an operation of this group; use one group per "
                           "thread", op_name(kind), c->slot);
        return err_operation(op_name(kind));
    }
    int rc = unusable(c, op_name(kind));
    if (rc == SYP_OK) return SYP_OK;
    store_release(&c->busy, 0);
    return err_operation(op_name(kind));
}

void request_release(struct comm *c) {
    store_release(&c->own->inside, 0); /* pairs with comm_inside_of */
    store_release(&c->busy, 0);        /* pairs with request_take */
}

void request_number(struct request *r, struct comm *c, int kind, int64_t timeout_ns) {
    memset(r, 0, sizeof *r);
    r->c = c;
    r->kind = kind;
    r->sequence = ++c->sequence;
    store_relaxed(&c->own->inside, c->id + 1); /* published by the post; pairs with comm_inside_of */
    r->start = os->now();
    r->deadline = deadline_after(r->start, timeout_ns > 0 ? timeout_ns : c->coll->conf.timeout_ns);
    r->stall = (uint64_t)c->coll->conf.stall_ns;
    r->next_warning = r->stall ? r->start + r->stall : 0;
    if (timeout_ns < 0) /* posted, so that the other members learn that this call is no call */
        r->error = err_set(SYP_EINVAL, "%s: the syp_call is not usable: its size is too small or its timeout_ns negative", op_name(kind));
}

int request_begin(struct request *r, struct comm *c, int kind, int64_t timeout_ns) {
    int rc = request_take(c, kind);
    if (rc == SYP_OK) request_number(r, c, kind, timeout_ns);
    return rc;
}

/* Members that have not noticed yet, or are stopped, may go on storing into our buffer: what is freed of it must not be reused before they are out. */
static void quarantine_buffer(const struct request *r) {
    const struct comm_post *mine = &r->c->own->post[r->sequence & 1];
    if (r->pushed && mine->sequence == r->sequence && (mine->flags & POST_RECV_IN_POOL)) (void)comm_add_hazard(r->c, mine->recv_off, r->bytes);
}

int request_drive(struct request *r) {
    struct comm *c = r->c;
    stats_op_begin((unsigned)c->slot, (enum stats_op_kind)r->kind, r->sequence, r->bytes, r->start);
    int rc;
    while ((rc = r->step(r)) == REQUEST_BLOCKED && (rc = wait_for(r)) == SYP_OK)
        ;
    if (rc == SYP_OK) {
        stats_add(STAT_OPS, 1);
        stats_add(STAT_OP_BYTES, r->bytes);
        if (r->bytes) stats_add(r->staged_any ? STAT_STAGED : STAT_ZERO_COPY, 1);
    } else {
        err_operation(op_name(r->kind));
        err_sequence((uint64_t)c->slot, r->sequence);
        if (c->broken) {
            c->why = *err_record();
            quarantine_buffer(r);
        }
    }
    stats_op_end((unsigned)c->slot, rc, os->now());
    return rc;
}

int request_run(struct request *r) {
    int rc = request_drive(r);
    request_release(r->c);
    return rc;
}

/* ------------------------------------------------------------------------------------------------ posting */

void request_post(struct request *r) {
    struct comm *c = r->c;
    struct comm_post *post = &c->own->post[r->sequence & 1];
    post->comm_id = c->id;
    post->sequence = r->sequence;
    post->kind = (uint32_t)r->kind;
    post->error = r->error;
    post->dtype = r->dtype;
    post->op = r->op;
    post->root = r->root;
    post->count = r->count;
    post->flags = 0;
    post->send_off = post->recv_off = 0;
    if (!r->error && r->count && r->kind != OP_SYMM_MALLOC && r->kind != OP_COMM_CREATE) {
        if (request_in_pool(r, r->send, r->bytes, &post->send_off)) post->flags |= POST_SEND_IN_POOL;
        if (request_in_pool(r, r->recv, r->bytes, &post->recv_off)) post->flags |= POST_RECV_IN_POOL;
    }
    symm_position(c->coll->symm, &post->symm_calls, &post->symm_digest);
    if (r->payload_len) memcpy(post->payload, r->payload, r->payload_len);
    store_relaxed(&c->own->current, r->sequence | (uint64_t)r->kind << KIND_SHIFT); /* read by describe_behind */
    comm_publish(c);
}

const uint8_t *request_payload(const struct request *r, int member) {
    return r->c->member[member].slot->post[r->sequence & 1].payload;
}

int request_all_at(struct request *r, uint64_t target) {
    struct comm *c = r->c;
    while (r->cursor < c->n) {
        if (r->cursor != c->me && !wait_reached(c->member[r->cursor].slot, target)) {
            r->wait_one = 0;
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
    if (member == r->c->me || wait_reached(r->c->member[member].slot, target)) return 1;
    r->wait_one = 1;
    r->wait_member = member;
    r->wait_target = target;
    return 0;
}

/* ----------------------------------------------------------------------------------------------- the check */

/* What was asked, as a person would say it. */
static void describe_post(struct text *t, const struct comm_post *p) {
    if (p->error) {
        text_addf(t, "called %s with a refused argument (%s)", op_name((int)p->kind), syp_strerror(p->error));
        return;
    }
    text_addf(t, "%s", op_name((int)p->kind));
    if (p->kind == OP_ALLREDUCE)
        text_addf(t, " %s %s x %llu", reduce_op_name(p->op), reduce_dtype_name(p->dtype), (unsigned long long)p->count);
    else if (p->kind == OP_BROADCAST)
        text_addf(t, " of %llu bytes from member %d", (unsigned long long)p->count, p->root);
    else if (p->kind == OP_SYMM_MALLOC)
        text_addf(t, " of %llu bytes aligned to %llu", (unsigned long long)p->count, 1ull << (p->root & 63));
    else if (p->kind == OP_COMM_CREATE)
        text_addf(t, " of %llu ranks", (unsigned long long)p->count);
}

static int same_call(const struct comm_post *a, const struct comm_post *b) {
    return a->kind == b->kind && a->error == b->error && a->dtype == b->dtype && a->op == b->op && a->root == b->root &&
           a->count == b->count;
}

/* The members disagree: who asked what, equal ones together. */
static int mismatch(struct request *r) {
    struct comm *c = r->c;
    if (r->error) return r->error; /* our own record says it better */
    char table[900];
    struct text t = TEXT_INIT(table);
    uint8_t told[MAX_WORLD] = {0}, group[MAX_WORLD];
    int blame = -1;
    for (int m = 0; m < c->n; m++) {
        if (told[m]) continue;
        const struct comm_post *p = &c->member[m].slot->post[r->sequence & 1];
        memset(group, 0, sizeof group);
        int n_same = 0;
        for (int k = m; k < c->n; k++) {
            if (told[k] || !same_call(p, &c->member[k].slot->post[r->sequence & 1])) continue;
            told[k] = 1;
            group[c->member[k].rank] = 1;
            n_same++;
        }
        if (blame < 0 || n_same * 2 <= c->n) blame = m;
        text_addf(&t, "%s%s ", m ? "; " : "", n_same == 1 ? "rank" : "ranks");
        text_add_ranks(&t, group, c->coll->peers->n);
        text_addf(&t, ": ");
        describe_post(&t, p);
    }
    err_set(SYP_EMISMATCH, "operation %llu on group %d: the members called different things: %s; nothing was done, the group "
                           "can be used further", (unsigned long long)r->sequence, c->slot, table);
    int rank = c->member[blame].rank;
    return err_peer(rank, c->coll->peers->roster.rank[rank].pid);
}

/* A member destroyed the group (its slot serves another one), or its post is nonsense. */
static int stale_post(struct request *r, int member, const struct comm_post *p) {
    if (p->comm_id == r->c->id) return request_corrupt(r, member, "sequence", p->sequence);
    int rank = r->c->member[member].rank;
    err_set(SYP_EPEER, "%s %llu on group %d: rank %d has destroyed this group", op_name(r->kind),
            (unsigned long long)r->sequence, r->c->slot, rank);
    err_peer(rank, r->c->coll->peers->roster.rank[rank].pid);
    return comm_break(r->c, SYP_EPEER, rank, r->sequence);
}

/* Copy what we need out of the posts; 1 = all asked the same, 0 = not, < 0 error. */
static int compare_posts(struct request *r, int *symm_differs) {
    struct comm *c = r->c;
    const struct comm_post *mine = &c->own->post[r->sequence & 1];
    int same = 1, finalizing = 0;
    *symm_differs = 0;
    r->staged_any = 0;
    for (int m = 0; m < c->n; m++) {
        const struct comm_post *p = &c->member[m].slot->post[r->sequence & 1];
        if (p->comm_id != c->id || p->sequence != r->sequence) return stale_post(r, m, p);
        if (!same_call(p, mine) || p->error) same = 0;
        if (p->kind == OP_FINALIZE) finalizing = 1;
        c->member[m].flags = p->flags;
        c->member[m].send_off = p->send_off;
        c->member[m].recv_off = p->recv_off;
        c->member[m].symm_calls = p->symm_calls;
        c->member[m].symm_digest = p->symm_digest;
        if (p->symm_calls != mine->symm_calls || p->symm_digest != mine->symm_digest) *symm_differs = 1;
        if ((p->flags & (POST_SEND_IN_POOL | POST_RECV_IN_POOL)) != (POST_SEND_IN_POOL | POST_RECV_IN_POOL))
            r->staged_any = 1;
    }
    if (finalizing) *symm_differs = 0; /* nobody will use the region any more */
    return same;
}

enum { CHECK_POSTS, CHECK_SYMM };

int request_check(struct request *r) {
    struct comm *c = r->c;
    if (!request_all_at(r, c->phase)) return REQUEST_BLOCKED;
    int gave_up = wait_aborted(r); /* we may be the one who is too late */
    if (gave_up != SYP_OK) return gave_up;
    if (r->check_state == CHECK_POSTS) {
        int symm_differs;
        int same = compare_posts(r, &symm_differs);
        if (same < 0) return same;
        if (!symm_differs) {
            c->symm_agreed = c->member[0].symm_calls;
            return same ? SYP_OK : mismatch(r);
        }
        /* Rare: read the members' rings, and hold everybody until all have read, or a fast one might overwrite its ring meanwhile. */
        r->error = r->error ? r->error : same ? SYP_OK : mismatch(r);
        int verdict = request_symm_verdict(r);
        if (verdict != SYP_OK) r->error = verdict;
        r->check_state = CHECK_SYMM;
        comm_publish(c);
        if (!request_all_at(r, c->phase)) return REQUEST_BLOCKED;
    }
    return r->error;
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

char *request_source(const struct request *r, int member, uint64_t user_at, uint64_t round_at, uint64_t len) {
    const struct comm_member *m = &r->c->member[member];
    const struct peers *p = r->c->coll->peers;
    if (m->flags & POST_SEND_IN_POOL)
        return transport_shm.address(p, m->rank, SEGMENT_DATA, m->send_off + user_at, len);
    return transport_shm.address(p, m->rank, SEGMENT_EXCHANGE, staging_off(r->c) + round_at, len);
}

char *request_target(const struct request *r, int member, uint64_t user_at, uint64_t round_at, uint64_t len) {
    const struct comm_member *m = &r->c->member[member];
    const struct peers *p = r->c->coll->peers;
    if (m->flags & POST_RECV_IN_POOL)
        return transport_shm.address(p, m->rank, SEGMENT_DATA, m->recv_off + user_at, len);
    return transport_shm.address(p, m->rank, SEGMENT_EXCHANGE, staging_off(r->c) + round_at, len);
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
