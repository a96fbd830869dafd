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
 * So a staged message costs one wait a round, and a member fills one half while others still read the other.  A half is filled again only after whoever
 * read it, or stored into it, has published that it is done.
 */
#include "collectives/post.h"
#include "collectives/request.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"

#include <string.h>

enum { BEGIN, CHECK, SHARE, SHARED };

/* Where one of our buffers lies, as the others need to know. */
static uint64_t place_of(const struct request *r, const void *buf, uint64_t len) {
    uint64_t off;
    return !len ? AT_NONE : request_in_pool(r, buf, len, &off) ? off : AT_STAGED;
}

static void stage(struct request *r, uint64_t at, uint64_t round) {
    uint64_t left = r->units - at;
    if (r->at.send == AT_STAGED && left) r->moves->stage(r, at, left < r->chunk ? left : r->chunk, request_half(r, round));
}

/* Before the post: the first input, if ours is staged.  Depends on our own buffers alone. */
static void begin(struct request *r) {
    if (r->error || r->mailed || !r->units) return;
    r->at.send = place_of(r, r->send, r->send_len);
    r->at.recv = place_of(r, r->recv, r->recv_len);
    r->at.send_stride = r->send_stride;
    r->chunk = staging_half(r) / (r->parts * r->unit);
    if (r->at.send != AT_STAGED && r->at.recv != AT_STAGED) return;
    r->error = request_staging(r);
    if (!r->error) stage(r, 0, 0);
}

/* After the check: where everybody's buffers lie decides how it is done, equally on all members. */
static void plan(struct request *r) {
    struct comm *c = r->c;
    for (int m = 0; m < c->n; m++) {
        memcpy(&c->member[m].at, request_mail(r, m), sizeof c->member[m].at);
        if (c->member[m].at.send == AT_STAGED || c->member[m].at.recv == AT_STAGED) r->staged_any = 1;
    }
    if (!r->staged_any) r->chunk = r->units;
}

/* Behind our share of a round: whoever gives us the next input, and whoever was busy with our buffers. */
static enum whose whom_to_await(const struct request *r, int last) {
    return last || r->readers > r->sources ? r->readers : r->sources;
}

int rounds_step(struct request *r) {
    int rc;
    for (;;) switch (r->state) {
        case BEGIN:
            begin(r);
            request_post_moves(r);
            r->state = CHECK;
            break;
        case CHECK:
            if ((rc = request_check(r)) != SYP_OK) return rc;
            if (!r->units) return SYP_OK;
            if (r->mailed) {
                r->moves->unpack(r);
                return SYP_OK;
            }
            plan(r);
            r->state = SHARE;
            break;
        case SHARE:
            TEST_POINT("rounds.share");
            if ((rc = wait_aborted(r)) != SYP_OK) return rc;
            stage(r, r->done + rounds_now(r), r->round + 1);
            if ((rc = r->moves->move(r)) != SYP_OK) return rc;
            TEST_POINT("rounds.shared");
            comm_publish(r->c);
            r->state = SHARED;
            break;
        case SHARED:
            if (!request_these_at(r, whom_to_await(r, r->done + rounds_now(r) == r->units), r->c->phase)) return REQUEST_BLOCKED;
            /* a member that gave up may have changed its buffer while we read it */
            if ((rc = wait_aborted(r)) != SYP_OK) return rc;
            if (r->at.recv == AT_STAGED) r->moves->take(r, request_half(r, r->round));
            r->done += rounds_now(r);
            r->round++;
            if (r->done == r->units) return SYP_OK;
            r->state = SHARE;
            break;
        }
}
