/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Helper threads of this rank, among which a large operation is shared.
 *
 *   none --first crew_run--> started, asleep --crew_run--> at work --no work for a while--> asleep ... --crew_close--> none
 *
 * A job is so many parts, taken one at a time by whoever is free, the caller among them; so one that the helpers are too late for costs the
 * caller no wait.  What the parts do must not depend on who does them.  In a forked child there are no helpers; nothing here is used there.
 */
#ifndef SYP_COLLECTIVES_CREW_H
#define SYP_COLLECTIVES_CREW_H

#include "pool/base/atomic.h"

#include <stddef.h>

#define CREW_MOST 63

struct os_thread;

struct crew {
    int n;                  /* helpers wanted, 0 .. CREW_MOST */
    int started;            /* how many there are; by the owner of busy */
    atom32 busy;            /* 1 = a job is being done, or helpers started: others do theirs alone; acquire/release: crew_run */
    atom32 bell;            /* futex the helpers sleep on, one more with each job */
    atom32 asleep;          /* helpers that do; seq_cst against bell: crew_run and work */
    atom32 stop;            /* 1 = go home; release: crew_close.  acquire: work */
    _Alignas(CACHE_LINE) atom64 parts; /* number of the job << 32 | parts << 16 | next part; release: crew_run.  acquire: take_part */
    _Alignas(CACHE_LINE) atom32 done;  /* parts of the job that are; release: do_parts.  acquire: crew_run, which sleeps on it */
    atom32 waiting;         /* the caller sleeps on done; seq_cst against done: crew_run and do_parts */
    void (*run)(void *arg, unsigned part, unsigned parts); /* written before parts */
    void *arg;
    uint32_t job;
    struct os_thread *thread[CREW_MOST];
};

/* helpers: besides the caller.  No thread is started yet. */
void crew_open(struct crew *c, int helpers);
/* Ends the helpers; no crew_run is in progress. */
void crew_close(struct crew *c);
/* Call run(arg, 0 .. parts - 1, parts), each once, in any order and thread; all are done when it returns.  parts: 1 .. 65535. */
void crew_run(struct crew *c, void (*run)(void *arg, unsigned part, unsigned parts), void *arg, unsigned parts);

#endif
