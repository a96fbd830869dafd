/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The join: a star around rank 0.  Rank 0 listens (given address only, an inherited listening socket, or the abstract
 * unix socket of (uid, job, restart) when there is no address), the others connect and retry until the deadline.  Rank
 * 0's loop is non-blocking: a connection that stays silent or sends garbage costs nobody anything and is dropped after
 * 2 s.  When all have said hello, or at the deadline, or as soon as they cannot agree, rank 0 sends one verdict to
 * every rank it can reach: the roster, or the list of all disagreements.
 *
 * With SYMPOOL_SECRET_FILE both ends of every connection prove that they know the secret, and every frame from the hello
 * to the end of the star is authenticated: see auth.h.
 *
 * The star then serves three small collectives (allgather, barrier, broadcast) for the rest of the attach; a rank that
 * goes away is told to all (SYP_EPEER).  Closed at the end of the attach.
 *
 *   rank 0:  LISTEN -> COLLECT -> VERDICT -> STAR        others:  CONNECT -> HELLO -> VERDICT -> STAR
 */
#ifndef SYP_BOOTSTRAP_RENDEZVOUS_H
#define SYP_BOOTSTRAP_RENDEZVOUS_H

#include "bootstrap/launch_env.h"
#include "bootstrap/roster.h"
#include "bootstrap/wire.h"

struct star; /* opaque: connections of rank 0, or the one to rank 0 */

/*
 * Join.  self: this rank's hello, complete but for addresses.  deadline: absolute.  roster: filled on success.
 * SYP_OK; SYP_EJOIN (verdict text, the same on every rank); SYP_EPEER (a rank died after its hello); SYP_ESYS,
 * SYP_EINVAL, SYP_ENOMEM. Port 0: rank 0 logs the address it chose (info) and writes it to SYMPOOL_ADDR_FILE, where the
 * others look for it. who->listen_fd stays the caller's and stays open, so that a later join of the same process can
 * use it again.
 */
int rendezvous_join(const struct launch *who, const struct hello *self, uint64_t deadline, struct roster *roster,
                    struct star **out);

/* All star calls: collective over the world, in the same order on every rank.  SYP_OK; SYP_EPEER, SYP_ETIMEOUT (rank 0
 * names who is behind), what another rank passed to star_abort (SYP_EJOIN), SYP_ENOMEM.  After a failure every later
 * call on s fails alike. */
/* Every rank gives len bytes (same len, <= 1,024); all: n * len bytes in rank order.  len 0: a barrier. */
int star_allgather(struct star *s, const void *mine, size_t len, void *all, uint64_t deadline);
int star_barrier(struct star *s, uint64_t deadline);
/* Rank 0 speaks: its buf reaches every rank's buf; same len on every rank, at most 256 MiB. */
int star_broadcast(struct star *s, void *buf, size_t len, uint64_t deadline);
/* Tell all that this rank gives the attach up, for the reason in the error record: their next star call fails with
 * SYP_EJOIN naming this rank, or with the record's own code where that is SYP_EPEER, SYP_ETIMEOUT or SYP_EJOIN.  The
 * record stays as it is. */
void star_abort(struct star *s);
void star_close(struct star *s);

#endif
