/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of non-blocking collectives: the queue of a group.
 *
 *   made (queue_add) -> begun, when those before it have ended -> ended -> told (queue_wait, queue_test): no more
 *                    -> cancelled: no more for the caller; when its turn comes, the other members are told, as of a call that was refused
 *
 * The first request that has not ended is the running one; it is stepped by whoever is inside a call of the group, and never by anybody else.  While none is,
 * this rank counts as inside that operation all the same (comm_slot.inside).
 */
#ifndef SYP_COLLECTIVES_QUEUE_H
#define SYP_COLLECTIVES_QUEUE_H

#include "collectives/call.h"

enum { QUEUE_LEN = 64 };

/* Add a request; it is not begun.  *id: never 0, and never the same twice in a process.  SYP_OK, SYP_EBUSY, SYP_ESTATE, SYP_ENOMEM (no room). */
int queue_add(struct comm *c, const char *name, const struct call *call, int64_t timeout_ns, uint64_t *id);
/* The group that a request of this id would be of.  Any id will do. */
struct comm *queue_group(struct coll *k, uint64_t id);
/* As the public functions. */
int queue_test(struct comm *c, uint64_t id, int *done);
int queue_wait(struct comm *c, uint64_t id);
int queue_cancel(struct comm *c, uint64_t id);

/* For those who have taken the group.  Each leaves the thread's error record alone. */

/* Run all requests to their ends, none for longer than until `latest`. */
void queue_complete(struct comm *c, uint64_t latest);
/* The group has broken: so have its requests. */
void queue_end(struct comm *c);
/* The group is about to be destroyed: SYP_EBUSY when somebody has yet to be told how a request ended, unless the group is broken. */
int queue_close(struct comm *c);
/* This rank is about to leave the job, with all groups taken: requests of `world` are completed, the other groups that have any are given up.  1 = there were
 * some in the world. */
int queue_leave(struct comm *world, uint64_t latest);
void queue_free(struct comm *c);

#endif
