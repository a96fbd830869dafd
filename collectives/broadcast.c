/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Broadcast.  Small: the data travels in the root's post.  In the root's pool: everybody copies from where it lies.  Else the root moves it
 * through its staging area, one chunk per round.
 *
 *   round k:  root's phase 2k+1: the chunk is there      others' phase 2k+2: copied
 *
 * The first phase of round 0 is the post, which everybody waits for; later only the root waits for the others and they for the root.
 */
#include "collectives/request.h"
#include "pool/base/point.h"
#include "pool/base/status.h"

#include <stdint.h>
#include <string.h>

enum { BC_START, BC_CHECK, BC_ROUND, BC_COPY, BC_COPIED, BC_NEXT };

static uint64_t round_len(const struct request *r) {
    uint64_t left = r->count - r->done;
    return left < r->chunk ? left : r->chunk;
}

/* The root's data of this round is readable: take it. */
static int take_chunk(struct request *r) {
    uint64_t len = round_len(r);
    const char *from = request_source(r, r->root, r->done, 0, len);
    if (!from) return request_corrupt(r, r->root, "offset", r->c->member[r->root].send_off);
    memcpy((char *)r->recv + r->done, from, len);
    return SYP_OK;
}

/* After the check: small messages are in the post; else plan the rounds. */
static int plan(struct request *r) {
    struct comm *c = r->c;
    if (r->count <= POST_PAYLOAD) {
        if (c->me != r->root && r->count) memcpy(r->recv, request_payload(r, r->root), r->count);
        r->staged_any = 0;
        return 1;
    }
    int in_pool = (c->member[r->root].flags & POST_SEND_IN_POOL) != 0;
    r->staged_any = !in_pool;
    r->chunk = in_pool ? r->count : c->coll->conf.staging;
    return 0;
}

static void root_fill(struct request *r) {
    memcpy(r->staging, (const char *)r->send + r->done, round_len(r));
}

/* Before the post the root must have its first chunk in place; whether that is needed depends on its own buffer alone. */
static void start(struct request *r) {
    uint64_t off;
    if (r->c->me != r->root || r->error) return;
    if (r->count <= POST_PAYLOAD) {
        if (r->count) memcpy(r->payload, r->send, r->count);
        r->payload_len = (unsigned)r->count;
    } else if (!request_in_pool(r, r->send, r->count, &off)) {
        r->chunk = r->c->coll->conf.staging;
        r->error = request_staging(r);
        if (!r->error) root_fill(r);
    }
}

static int broadcast_step(struct request *r) {
    struct comm *c = r->c;
    int rc;
    for (;;) switch (r->state) {
        case BC_START:
            start(r);
            request_post(r);
            r->state = BC_CHECK;
            break;
        case BC_CHECK:
            if ((rc = request_check(r)) != SYP_OK) return rc;
            if (plan(r)) return SYP_OK;
            r->state = BC_COPY;
            break;
        case BC_ROUND: /* the root has put the next chunk there */
            if (c->me != r->root && !request_one_at(r, r->root, c->phase)) return REQUEST_BLOCKED;
            r->state = BC_COPY;
            break;
        case BC_COPY:
            /* a root that gave up may have changed its buffer while we read it */
            if (c->me != r->root && ((rc = take_chunk(r)) != SYP_OK || (rc = wait_aborted(r)) != SYP_OK)) return rc;
            TEST_POINT("broadcast.copied");
            comm_publish(c);
            r->state = BC_COPIED;
            break;
        case BC_COPIED: /* the root must not touch its buffer before all have copied */
            if (c->me == r->root && !request_all_at(r, c->phase)) return REQUEST_BLOCKED;
            r->done += round_len(r);
            if (r->done == r->count) return SYP_OK;
            r->state = BC_NEXT;
            break;
        case BC_NEXT:
            if (c->me == r->root) root_fill(r);
            comm_publish(c);
            r->state = BC_ROUND;
            break;
        }
}

int coll_broadcast(struct comm *c, void *buf, size_t len, int root, int64_t timeout_ns) {
    struct request r;
    int rc = request_begin(&r, c, OP_BROADCAST, timeout_ns);
    if (rc != SYP_OK) return rc;
    r.step = broadcast_step;
    r.send = r.recv = buf;
    r.count = r.bytes = len;
    r.root = root;
    if (r.error)
        r.bytes = 0;
    else if (root < 0 || root >= c->n)
        r.error = err_set(SYP_EINVAL, "broadcast: root is %d, outside 0 .. %d", root, c->n - 1);
    else if (len && !buf)
        r.error = err_set(SYP_EINVAL, "broadcast: buf is NULL for %llu bytes", (unsigned long long)len);
    else if (len > PTRDIFF_MAX)
        r.error = err_set(SYP_EINVAL, "broadcast: length %llu is above PTRDIFF_MAX", (unsigned long long)len);
    return request_run(&r);
}
