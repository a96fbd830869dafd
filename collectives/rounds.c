/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine of the operations that move data.
 *
 *   small     everybody's data travels in the mails; each takes what it needs: one phase
 *   zero-copy every buffer that other members touch lies in its rank's pool: one round over the whole message
 *   staged    some do not: those members pass chunks through the two halves of their staging area, a round for each
 *
 *   base          mails: calls agreed, places of the buffers known, inputs of round 0 readable
 *   base + k + 1  this member has done its share of round k, and its input of round k + 1 is readable
 *
 * Operations with a fetch have two phases in each round, of which the second says that this member has fetched, and staged its next input.
 *
 * So a staged message costs one wait a round, and a member fills one half while others still read the other.  A half is filled again only after whoever
 * read it, or stored into it, has published that it is done: within an operation by the waits between its rounds; from one operation to the next because the
 * halves take turns across operations (comm.halves), and a member posts only after it is done with the operation before.  That is why the last
 * round of an operation needs no wait for those who only read our half.
 */
#include "collectives/post.h"
#include "collectives/request.h"
#include "collectives/tree.h"
#include "pool/base/os.h"
#include "pool/base/status.h"

#include <string.h>

enum { BEGIN, CHECK, SHARE, SHARED, FETCHED };

/* Where one of our buffers lies, as the others need to know. */
static uint64_t place_of(const struct request *r, const void *buf, uint64_t len) {
    uint64_t off;
    return !len ? AT_NONE : request_in_pool(r, buf, len, &off) ? off : AT_STAGED;
}

static void stage(struct request *r, uint64_t at, uint64_t round) {
    uint64_t left = r->units - at;
    if (r->at.send == AT_STAGED && left) r->moves->stage(r, at, left < r->chunk ? left : r->chunk, request_half(r, round));
}

#define PIPELINE 8            /* rounds that keep both ends of a pipeline busy */
#define SHORT_ROUND (32u << 10) /* what a wait between two rounds is little against */

/* Units of a staged round; the parts of a half begin at lines of their own where they are longer than that. */
static uint64_t staged_chunk(const struct request *r) {
    const struct coll_conf *conf = &r->c->coll->conf;
    uint64_t half = staging_half(r), most = r->pipelined ? r->total / PIPELINE : half;
    if (conf->chunk && conf->chunk < half && conf->chunk >= coll_least_staging(r->c->n)) half = conf->chunk;
    if (most < SHORT_ROUND) most = SHORT_ROUND;
    if (most < half) half = most;
    uint64_t part = half / r->parts;
    if (part > CACHE_LINE) part = round_down(part, CACHE_LINE);
    return part / r->unit;
}

void rounds_begin(struct request *r) {
    if (r->error || r->mailed || !r->units) return;
    r->at.send = r->send_len && r->always_staged ? AT_STAGED : place_of(r, r->send, r->send_len);
    r->at.recv = place_of(r, r->recv, r->recv_len);
    r->at.send_stride = r->send_stride;
    r->chunk = staged_chunk(r);
    if (r->at.send != AT_STAGED && r->at.recv != AT_STAGED) return;
    r->error = request_staging(r);
    if (!r->error) stage(r, 0, 0);
}

/* After the check: where everybody's buffers lie decides how it is done, equally on all members. */
static void plan(struct request *r) {
    struct comm *c = r->c;
    for (int m = 0; m < c->n; m++) {
        if (m == c->me)
            c->member[m].at = r->at;
        else
            memcpy(&c->member[m].at, request_mail(r, m), sizeof c->member[m].at);
        if (c->member[m].at.send == AT_STAGED || c->member[m].at.recv == AT_STAGED) r->staged_any = 1;
    }
    if (!r->staged_any) r->chunk = r->units;
}

static int is_last(const struct request *r) {
    return r->done + rounds_now(r) == r->units;
}

/* Behind our share of a round: whoever gives us the next input, and whoever was busy with our buffers. */
static enum whose whom_to_await(const struct request *r) {
    if (!is_last(r)) return r->readers > r->sources ? r->readers : r->sources;
    return r->at.send == AT_STAGED && r->at.recv == AT_NONE ? NOBODY : r->readers;
}

/* All shares of the round are done: the next one, or the end (1). */
static int next_round(struct request *r) {
    if (r->at.recv == AT_STAGED && r->moves->take) r->moves->take(r, request_half(r, r->round));
    r->done += rounds_now(r);
    r->round++;
    r->state = SHARE;
    if (r->done < r->units) return 0;
    r->c->halves += r->round;
    return 1;
}

/* A member that gave up may have changed its buffer while we read it. */
static int publish_share(struct request *r, int (*share)(struct request *r)) {
    int rc = wait_aborted(r);
    if (rc != SYP_OK) return rc;
    if ((rc = share(r)) != SYP_OK || (rc = wait_aborted(r)) != SYP_OK) return rc;
    TEST_POINT("rounds.shared");
    if (r->together)
        tree_publish(r->c);
    else
        comm_publish(r->c);
    return SYP_OK;
}

int rounds_step(struct request *r) {
    int rc;
    for (;;) switch (r->state) {
        case BEGIN:
            rounds_begin(r);
            request_post_moves(r);
            r->state = CHECK;
            break;
        case CHECK:
            if ((rc = request_check(r)) != SYP_OK) return rc;
            if (!r->units) return SYP_OK;
            if (r->mailed) {
                if (r->combined)
                    tree_take_result(r);
                else
                    r->moves->unpack(r);
                return SYP_OK;
            }
            plan(r);
            r->state = SHARE;
            break;
        case SHARE:
            TEST_POINT("rounds.share");
            prefetch_write(&comm_mail(r->c)->stamp); /* the members have seen it, and look again only when they have done their share */
            if (!r->moves->fetch) stage(r, r->done + rounds_now(r), r->round + 1);
            if ((rc = publish_share(r, r->moves->move)) != SYP_OK) return rc;
            r->state = SHARED;
            break;
        case SHARED:
            if (!request_these_at(r, r->moves->fetch ? EVERYBODY : whom_to_await(r), r->c->phase)) return REQUEST_BLOCKED;
            if (!r->moves->fetch) {
                if ((rc = wait_aborted(r)) != SYP_OK) return rc;
                if (next_round(r)) return SYP_OK;
                break;
            }
            stage(r, r->done + rounds_now(r), r->round + 1);
            if ((rc = publish_share(r, r->moves->fetch)) != SYP_OK) return rc;
            r->state = FETCHED;
            break;
        case FETCHED:
            if (!request_these_at(r, EVERYBODY, r->c->phase)) return REQUEST_BLOCKED;
            if ((rc = wait_aborted(r)) != SYP_OK) return rc;
            if (next_round(r)) return SYP_OK;
            break;
        }
}

int rounds_go(struct request *r) {
    plan(r);
    r->state = SHARE;
    r->step = rounds_step;
    return rounds_step(r);
}
