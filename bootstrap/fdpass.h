/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File descriptors between the ranks of one host, over an abstract AF_UNIX socket (SOCK_SEQPACKET: a message arrives
 * whole) named by the job's nonce and the leader's rank. The lowest rank of a host is its leader: the others connect,
 * give their descriptors, and get everybody's in batches. Both sides check SO_PEERCRED: same uid, and the pid the
 * roster names; another's connection is refused and logged.  Received descriptors are close-on-exec.
 */
#ifndef SYP_BOOTSTRAP_FDPASS_H
#define SYP_BOOTSTRAP_FDPASS_H

#include "bootstrap/roster.h"

#define FDS_PER_RANK 3 /* data, control, exchange */

/*
 * mine: this rank's descriptors (stay the caller's).  take is called once for every other rank of this host, in any
 * order, with that rank's descriptors, which it must not keep (they are closed after it returns); a non-zero return
 * stops and is returned. SYP_OK; SYP_EJOIN (deadline with the missing ranks, or a peer that breaks the protocol);
 * SYP_EPEER (a rank went away); SYP_ENOMEM; SYP_ESYS.  A leader that fails tells the members why.  Blocks up to the
 * absolute deadline.
 */
int fdpass_exchange(const struct roster *roster, int me, const int mine[FDS_PER_RANK],
                    int (*take)(void *arg, int rank, const int fd[FDS_PER_RANK]), void *arg, uint64_t deadline);

#endif
