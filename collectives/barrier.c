/* SPDX-License-Identifier: Apache-2.0 */
/* Barrier: one phase, everybody waits for everybody.  Its check is the one every operation makes.  The barrier of finalize is the same. */
#include "collectives/queue.h"
#include "pool/base/os.h"
#include "pool/base/status.h"

void setup_barrier(struct request *r, const struct call *call) {
    (void)call;
    r->step = request_meet;
    r->few_mails = 1;
}

int coll_finalize(struct comm *world, int64_t timeout_ns) {
    struct request r;
    uint64_t deadline = deadline_after(os->now(), timeout_ns);
    if (queue_leave(world, deadline)) timeout_ns = (int64_t)deadline_left(os->now(), deadline) + 1;
    if (world->broken) {
        *err_record() = world->why;
        return world->broken;
    }
    request_number(&r, world, OP_FINALIZE, timeout_ns, 0);
    r.step = request_meet;
    r.few_mails = 1;
    return request_drive(&r);
}
