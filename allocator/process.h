/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this process is: attached or not, or the forked child of an attached one.  Every public call starts here.
 *
 *   COLD --syp_init--> ATTACHING --> ATTACHED --syp_finalize--> DETACHING --> COLD
 *   any state --fork--> the child is FORKED for good if the parent was attached, else as the parent was
 */
#ifndef SYP_ALLOCATOR_PROCESS_H
#define SYP_ALLOCATOR_PROCESS_H

#include "allocator/attach.h"

/* The world while attached and not in a forked child, else NULL.  A few loads. */
struct world *process_world(void);
/* 1 in a forked child of an attached process. */
int process_forked(void);
/* SYP_OK and *out = the world; or SYP_ESTATE / SYP_EFORKED with the record naming `call`. */
int process_need(const char *call, struct world **out);
/* 0, or SYP_EFORKED with the record naming `call`. */
int process_usable(const char *call);

/* fork.c: called before the first state that a fork could damage exists. */
void fork_guard(void);
/* fork.c: 1 once in a child after a fork that no handler saw (raw clone). */
int fork_noticed(void);
/* process.c: what the child does; consistent = the handlers ran. */
void process_after_fork(int consistent);

#endif
