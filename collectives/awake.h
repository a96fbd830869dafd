/* SPDX-License-Identifier: Apache-2.0 */
/* What the waits of a group's operations (wait.c) and those for one rank (nap.c) have in common: staying awake for a moment, and how long to sleep then. */
#ifndef SYP_COLLECTIVES_AWAKE_H
#define SYP_COLLECTIVES_AWAKE_H

#include "bootstrap/crowd.h"
#include "collectives/coll.h"
#include "pool/base/os.h"

#define SPINS_PER_LOOK 64 /* it is asked so often between two looks at the clock */
#define CROWDED_YIELDS_NS (200 * NS_PER_US)
#define FIRST_SLICE (1 * NS_PER_MS)
#define LAST_SLICE (8 * NS_PER_MS) /* bounds how late a death is seen: 20 ms is promised */

static inline uint64_t next_slice(uint64_t slice) { return slice * 2 < LAST_SLICE ? slice * 2 : LAST_SLICE; }

/*
 * Until ready(arg): 1; 0 = it is time to sleep.  Where ranks outnumber processors: crowded_spins questions, then yields for yields_ns.  Inline, so that the
 * question is no call.
 */
static inline __attribute__((always_inline)) int stay_awake(const struct coll *k, int (*ready)(void *arg), void *arg, int crowded_spins, uint64_t yields_ns) {
    uint64_t now, end = 0;
    if (load_relaxed(&k->peers->crowded)) { /* pairs with crowd.c */
        for (int i = 0; i < crowded_spins; i++) {
            if (ready(arg)) return 1;
            cpu_relax();
        }
        /* a yield may last as long as all others want to run */
        crowd_look(k->peers, now = os->now());
        for (end = now + yields_ns; os->now() < end;) {
            os->yield();
            if (ready(arg)) return 1;
        }
        return 0;
    }
    do {
        for (int i = 0; i < SPINS_PER_LOOK; i++) {
            if (ready(arg)) return 1;
            cpu_relax();
        }
        crowd_look(k->peers, now = os->now());
        if (!end) end = now + (uint64_t)k->conf.spin_ns;
        if (now >= end) return ready(arg);
        os->yield(); /* the scheduler may have put the awaited rank behind us on this very processor */
    } while (1);
}

#endif
