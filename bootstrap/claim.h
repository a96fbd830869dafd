/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank is claimed once per job.  A program that an attached process starts inherits its rank's environment; without
 * the claim it would knock at the job, or wait for it, under a rank that is taken.  The claim is an abstract unix socket
 * named after user, job, restart, address and rank, held from the end of the attach to the detach; it goes with the
 * process.  Ranks that meet during the join are none of its business: the join names duplicates itself.
 */
#ifndef SYP_BOOTSTRAP_CLAIM_H
#define SYP_BOOTSTRAP_CLAIM_H

#include "bootstrap/launch_env.h"

/* SYP_OK, or SYP_ESTATE: a living process of this user holds the rank; the record's peer is the rank, with that pid. */
int claim_look(const struct launch *who);
/* Hold the claim: a descriptor, or -1 = this process cannot be protected (one line at level info). */
int claim_hold(const struct launch *who);

#endif
