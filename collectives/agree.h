/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One verdict for all members that live, on a group that may be broken: the ground under syp_comm_agree and syp_comm_shrink.
 *
 * Members post proposals; the lowest member that lives gathers them and proposes a verdict, by Paxos over registers that outlive their writers
 * (Gafni and Lamport, "Disk Paxos", 2003, with the boards as the one disk).  So no two members ever hold different verdicts, whoever dies, stops
 * or is wrongly given up, and at whatever moment.  Deaths and deadlines only decide how long it takes.
 */
#ifndef SYP_COLLECTIVES_AGREE_H
#define SYP_COLLECTIVES_AGREE_H

#include "collectives/coll.h"

struct proposal {
    uint64_t kind; /* OP_AGREE, OP_SHRINK; different ones are a mismatch */
    uint64_t flag; /* the verdict has the bitwise and of all */
    uint64_t clock; /* above every phase of this member */
    uint64_t free_slots[COMM_SLOTS / 64];
};

struct verdict {
    int kind; /* of the proposals */
    int code; /* SYP_OK; SYP_EMISMATCH: different kinds; SYP_ENOMEM: no slot is free on all that stay */
    int slot;
    uint64_t flag, start; /* slot and start: of a group of those who stay */
    uint64_t excluded[MAX_WORLD / 64]; /* members that died, left or were given up */
};

/*
 * Reach the next verdict of the group, which this thread has taken.  give_up: a member that has not come at the deadline is treated as dead, in
 * this and every later agreement; else it is SYP_ETIMEOUT (kind OP_SHRINK: SYP_EBUSY) naming it, and the same agreement can be tried again.  A try that
 * timed out may be part of the verdict all the same: the next one gets that, and it is SYP_EMISMATCH if it was of another kind.
 * SYP_OK: *out is what every other member gets, its code included, and the group's members are marked excluded accordingly.  SYP_EABORTED: the
 * others have given this rank up.
 */
int agree_run(struct comm *c, const struct proposal *mine, int give_up, uint64_t deadline, struct verdict *out);

static inline int is_excluded(const struct verdict *v, int member) {
    return (int)(v->excluded[member / 64] >> (member % 64) & 1);
}

#endif
