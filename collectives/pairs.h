/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What two members of a group do between them: channels (channel.c) and transfers of lists of buffers (sendrecv.c).  Neither takes the group: its operations go
 * on in other threads, and so do those with other members.
 *
 * The counters lie in lines (board.h), one for each other member, in the segment of the one who writes them.  So nobody else can spoil them, and a table of groups
 * x members needs memory only for the groups and members that there are.  A line belongs to the group that lines_of names: it is zeroed before that, so nothing
 * leaks from one group of a slot to the next, and whoever looks at another's line looks at lines_of afterwards.
 */
#ifndef SYP_COLLECTIVES_PAIRS_H
#define SYP_COLLECTIVES_PAIRS_H

#include "collectives/coll.h"

enum direction { SENDING = 0, RECEIVING = 1 };

/* One direction of a pair, as this rank knows it.  Used by the thread that has `busy`. */
struct pair_way {
    atom32 busy; /* 1 = a thread is in a transfer; acquire/release: way_take, way_drop */
    int broken;  /* SYP_E* of the transfer that did not complete */
    uint64_t number;     /* transfers begun */
    uint64_t mine, his;  /* steps: published, and seen of the other side's */
};

struct pair {
    struct pair_way way[2];        /* by enum direction */
    atom64 heard[SYP_CHANNELS];    /* notifications waited for; one waiter at a time */
    /* Until the member has published so many steps it may store into buffers of a transfer that failed here; 0 = none.  Set by who has the way, release;
     * taken back by whoever finds that it is over: pair_hazard_over. */
    atom64 hazard;
};

#define PAIRS_SHUT 0x80000000u

/* Life of a group's pairs; all but the first from comm.c only. */
struct pair *pairs_alloc(struct coll *k, int slot, int n); /* also memory for the lines; NULL: none */
void pairs_open(struct comm *c);
void pairs_free(struct comm *c);
int pairs_shut(struct comm *c); /* 1 = nobody is inside, and nobody will be */

/* Around every call: SYP_OK, or SYP_ESTATE when the group was destroyed. */
int pairs_enter(struct comm *c, const char *call);
void pairs_leave(struct comm *c);

/* Member m is inside such a call of this group, and may read our lines to see that we have done our part: they must stay although we have left the group. */
int pairs_needed_by(const struct comm *c, int m);

/* Members that may still store into this rank's pool: 1 + the first, 0 = none.  What is over is released. */
int pairs_hazards(struct comm *c);
/* [off, off + len) of this rank's pool is a buffer of a failed transfer from member m, which may store into it until it has published `steps`. */
void pair_add_hazard(struct comm *c, int m, uint64_t steps, uint64_t off, uint64_t len);

static inline struct pair_line *pair_own_line(const struct comm *c, int m) {
    return &((struct board *)peers_own_body(c->coll->peers))->line[c->slot][m];
}

/* Does the member's line belong to this group?  To be asked before it is touched (it may have no memory yet), and again after it was read. */
static inline int pair_in_group(const struct comm *c, int m) {
    const struct comm_slot *slot = c->member[m].slot;
    return slot && load_acquire((atom64 *)&slot->lines_of) == c->id + 1; /* pairs with pairs_open */
}

/* The member's line towards this rank; NULL while it has not come to this group, or has left it. */
static inline const struct pair_line *pair_his_line(const struct comm *c, int m) {
    if (!pair_in_group(c, m)) return NULL;
    const struct board *b = peers_control_body(c->coll->peers, c->rank[m]);
    return b ? &b->line[c->slot][c->me] : NULL;
}

/* Why a call with member m is pointless, as far as that can be told at once: `name` is m's argument.  SYP_OK = it is not. */
int pair_usable(const struct comm *c, const char *call, const char *name, int m);
/* The same for one that waits, after a fruitless slice: also when another member has broken the group, or m has destroyed it. */
int pair_look(const struct comm *c, const char *call, int m);
/* Member m has died or left: SYP_EPEER, else SYP_OK. */
int pair_gone(const struct comm *c, const char *call, int m);

/* Channels: channel.c */
int channel_notify(struct comm *c, int to, int channel);
int channel_wait(struct comm *c, int from, int channel, int64_t timeout_ns);

/* Lists of buffers.  timeout_ns: 0 = the default, < 0 = refused. */
struct buffers {
    void *const *bufs; /* not written to when sent */
    const size_t *lens;
    int n;
    int member; /* to whom, or from whom */
};
int coll_send(struct comm *c, const struct buffers *send, int64_t timeout_ns);
int coll_recv(struct comm *c, const struct buffers *recv, int64_t timeout_ns);
int coll_sendrecv(struct comm *c, const struct buffers *send, const struct buffers *recv, int64_t timeout_ns);

#endif
