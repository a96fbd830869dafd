/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups and operations of one attached rank.  All state is in struct coll, so that ranks can also be threads of one process.
 *
 * An operation is a request: a small state machine whose step function runs until it is complete or must wait for a member's phase.
 * A blocking call runs it to the end (request_run); a non-blocking one leaves it in the group's queue, whose first is stepped by whoever asks (queue.c).
 *
 *     request_begin -> step: post -> wait all posts -> check -> move data (phases) -> complete -> request_end
 */
#ifndef SYP_COLLECTIVES_COLL_H
#define SYP_COLLECTIVES_COLL_H

#include "bootstrap/life.h"
#include "bootstrap/peers.h"
#include "collectives/board.h"
#include "collectives/crew.h"
#include "pool/heap.h"
#include "pool/stats.h"
#include "pool/symm.h"

#include <stddef.h>

enum op_kind {
    OP_NONE = 0,
#define X(id, number, name) OP_##id = STATS_OP_##id,
    STATS_OP_LIST(X)
#undef X
};
const char *op_name(int kind);

/* How reductions work: SYMPOOL_COLL_ALGORITHM. */
enum coll_algorithm { COLL_AUTO, COLL_ONE_SHOT, COLL_PUSH, COLL_PULL };

struct coll_conf {
    int64_t timeout_ns; /* default deadline of an operation */
    int64_t stall_ns;   /* first warning about a slow member; 0 = never */
    int64_t spin_ns;    /* how long to spin before sleeping */
    uint64_t staging;   /* bytes of a staging area, one per rank and group, equal on all ranks; multiple of the page size */
    int threads;       /* of this rank for a large operation, 0 = by the processors */
    /* equal on all ranks, too: coll_conf_digest */
    int algorithm;      /* enum coll_algorithm */
    uint64_t one_shot;  /* COLL_AUTO: largest message that every member reduces as a whole */
    uint64_t chunk;     /* bytes staged at a time, at most half a staging area; 0 = that */
};
uint64_t coll_conf_digest(const struct coll_conf *conf);
/* The smallest staging area for so many ranks: a pair of cache lines for each in both halves. */
static inline uint64_t coll_least_staging(int n) { return 2 * CACHE_LINE * (uint64_t)n; }

/* What this rank knows of a member of a group. */
struct comm_member {
    int rank;                      /* in the world */
    int excluded;                  /* by the last agreement: died, left or given up */
    const struct comm_slot *slot;  /* its side of the group; own slot for ourselves */
    /* copied out of its mail of the running operation */
    struct mail_buffers at;
    uint64_t symm_calls;       /* only when they differ */
};

/* The seats of a part: the first is the leader's. */
struct tree_part {
    int first, end;
};

struct comm {
    struct coll *coll;
    int in_use;
    int ready;                 /* in use, all reached, not broken, no requests pending */
    int slot;                  /* 0 = world */
    int n, me;                 /* members; our number among them */
    int parts;                 /* more than TREE_ABOVE members: in so many parts, each with a leader (tree.h); else 0, and the next four are not used */
    int own_part;
    int *seat;                 /* n: the members, those that share a cache beside each other */
    struct tree_part *part;
    const struct tree_result *result; /* of member 0 */
    struct comm_member *member; /* n, map_alloc'ed */
    int *rank;                 /* n: the members' ranks in the world, in the same memory */
    struct comm_slot *own;
    uint64_t id;               /* slot | start phase << 8: never the same twice among ranks that could meet */
    uint64_t phase;            /* ours, as published */
    uint64_t sequence;         /* operations begun */
    struct mail_call call;     /* what our mail of the last of them says.  Read here: whoever reads its own mail must take the lines back from the others */
    uint64_t began;            /* when the running one did, if its time is taken for the statistics */
    uint64_t token;            /* what mail_call.token is made from */
    uint64_t halves;           /* rounds finished: the next one uses the other half of the staging area */
    uint64_t agreements;       /* agreements reached (agree.c) */
    uint64_t mail_max;         /* largest reduction that travels in the mails */
    int unreachable;           /* 1 + first member on another host; 0 = all are reached */
    int wants_slot;            /* its members are about to make a group of it; under coll.lock */
    uint64_t symm_agreed;      /* symmetric calls known to be equal on all members */
    atom32 busy;               /* 1 = a thread is inside an operation; acquire/release: request_take / request_release */
    int broken;                /* SYP_E* of the operation that broke the group */
    syp_error why;             /* its record */
    int vacated;               /* broken, and no member was inside it any more when this rank looked: recover.c */
    struct queue *queue;       /* requests (queue.c), once there was one; under busy, like the next two */
    int pending;               /* requests of the queue that have not ended */
    int begun;                 /* 1 = the first of them is in progress */
    uint64_t requests;         /* made so far, over all groups in this slot and all attaches: part of their handles */
    struct pair *pair;         /* n: what goes on with each member apart from the group's operations; pairs.h */
    atom32 pairs;              /* threads inside that; PAIRS_SHUT = destroyed.  acquire/release: pairs_enter, pairs_leave, pairs_shut */
    /* Bytes of this rank's pool that members may still store into after the operation that broke the group; len 0 = none. */
    uint64_t hazard_len;
};

/* Slots that are never created: the world, and, when it spans hosts, the ranks of this host. */
enum { WORLD_SLOT = 0, HOST_SLOT = 1 };

struct coll {
    struct peers *peers;
    struct symm *symm;
    struct heap *heap;
    struct coll_conf conf;
    int fences;                /* some rank of this host cannot fence_heavy: see fence.h */
    struct lock lock;          /* LOCK_COMM: in_use and wants_slot of comm[], maker */
    struct comm *maker;        /* the parent whose members are choosing a slot just now: one at a time, or two would choose the same */
    /* Part of this struct, and not cleared by coll_close, so that a late caller finds a busy group, not freed memory. */
    struct comm comm[COMM_SLOTS];
    struct crew crew;
    uint8_t result_ready[COMM_SLOTS];  /* 1 once struct tree_result of the slot has memory */
    uint8_t staging_ready[COMM_SLOTS]; /* 1 once the group's staging area has memory; used by the one thread inside the group */
    /* Between two ranks (pairs.h). */
    uint16_t lines_ready[COMM_SLOTS]; /* members whose lines in the slot have memory */
    atom64 cells;                     /* bits: in use by a transfer; acquire/release: cell_take, cell_drop */
    uint8_t cell_ready[PAIR_CELLS];   /* 1 once the cell's staging area has memory; used by the one thread that has the cell */
};

/*
 * What the control and exchange segments must hold.  The board has memory from the start up to the lines.  Exchange: the groups' staging areas at slot * staging,
 * then those of the transfers, then the bell; memory is committed when one is first used.
 */
#define PAIR_CHUNK (128ull << 10) /* half a staging area of a transfer: both halves and their copies fit into a second-level cache */
#define BELL_BYTES (64ull << 10)  /* a multiple of every page size */
static inline uint64_t coll_board_size(void) { return sizeof(struct board); }
static inline uint64_t coll_board_first(void) { return offsetof(struct board, line); }
static inline uint64_t coll_pair_staging(uint64_t staging, int cell) { return COMM_SLOTS * staging + (uint64_t)cell * 2 * PAIR_CHUNK; }
static inline uint64_t coll_bell(uint64_t staging) { return coll_pair_staging(staging, PAIR_CELLS); }
static inline uint64_t coll_exchange_size(uint64_t staging) { return coll_bell(staging) + BELL_BYTES; }

int coll_open(struct coll *c, struct peers *p, struct symm *s, struct heap *h, const struct coll_conf *conf);
void coll_close(struct coll *c);
/* Bytes of the groups' staging areas that have memory; of all of control and exchange segment. */
uint64_t coll_staging_bytes(const struct coll *c);
uint64_t coll_bytes(const struct coll *c);
/* Take every group for good, before finalize: SYP_OK, or SYP_EBUSY when a thread is inside an operation. */
int coll_claim(struct coll *c);

/* From the roster: c->fences. */
void coll_look_at_fences(struct coll *c);

/* Groups: comm.c; create.c */
int comm_create(struct comm *parent, const int *ranks, int n, struct comm **out);
/* Of the members start, start + stride ... of the parent. */
int comm_split_strided(struct comm *parent, int start, int stride, int n, struct comm **out);
int comm_destroy(struct comm *c);
/* An unused slot becomes a group.  ranks: world ranks of the members, this one among them.  start: above every phase of the slot. */
int comm_fill(struct coll *k, int slot, uint64_t start, const int *ranks, int n);
/* The mail of the operation begun last: ours, a member's. */
static inline struct mail *comm_mail(const struct comm *c) { return &c->own->mail[c->sequence & 1]; }
static inline const struct mail *comm_mail_of(const struct comm *c, int member) { return &c->member[member].slot->mail[c->sequence & 1]; }
/* Members that sleep on our mail: post.h. */
void comm_wake(const struct comm *c);
/* What a member waits for in another's slot, of mail `which`; what comm_slot.asleep holds of who sleeps on it; and the word itself. */
enum awaited { ON_STAMP, ON_UP, ON_ALL };
static inline uint64_t asleep_on(int rank, enum awaited on, int which) { return ((uint64_t)rank + 1) << 3 | (uint64_t)on << 1 | (uint64_t)which; }
static inline int asleep_rank(uint64_t asleep) { return (int)((uint32_t)(asleep >> 3) - 1); } /* whatever a damaged word says */
static inline const atom64 *slot_word(const struct comm_slot *slot, uint64_t on, int which) {
    return on == ON_UP ? &slot->tree[which].up : on == ON_ALL ? &slot->tree[which].all : &slot->mail[which].stamp;
}
/* The largest phase that this rank ever published in a slot. */
uint64_t slot_clock(const struct comm_slot *slot);
/* The futex word of a 64-bit atomic: its low half. */
const void *comm_word(const atom64 *word);
/* Is slot i free here, and none of its last members reads our records or stores into our staging area any more?  Under k->lock. */
int slot_is_free_locked(const struct coll *k, int i);
/* Board entry of a member for an agreement, NULL when it is not reached. */
const struct vote *comm_vote(const struct comm *c, int member, uint64_t number);

/* Becoming the one thread that offers free slots: bits and a phase above all of this rank's.  0 = another thread's turn. */
int slots_offer(struct comm *parent, uint64_t free_slots[COMM_SLOTS / 64], uint64_t *clock);
void slots_done(struct comm *parent);
/* What a member is inside of: comm id + 1, | AGREEING in an agreement; 0 = nothing, or its process is gone. */
uint64_t comm_inside_of(const struct comm *c, int member);
int comm_lowest_slot(const uint64_t slots[COMM_SLOTS / 64]); /* -1 = none */

/* Errors of a group as a whole, with the record set. */
int comm_refuse_unreachable(const struct comm *c, const char *call);
int comm_check_own_life(const struct comm *c, const char *call); /* SYP_OK, or SYP_EPEER: the others take this rank for dead */

/* When members fail (comm.c, recover.c) */
/* The group is over: remember and publish why, wake everybody.  Returns code, the calling thread's record is set. */
int comm_break(struct comm *c, int code, int culprit, uint64_t sequence);
/* This rank ends the group: SYP_EABORTED for all members, here with these words.  The thread's record is left alone. */
void comm_give_up(struct comm *c, const char *why);
/* From any thread, also while another is inside an operation. */
int comm_abort(struct comm *c);
/* The number of the first operation that this rank has not completed. */
static inline uint64_t comm_first_open(const struct comm *c) { return c->sequence + !c->begun; }
/* Take a group in whatever state it is: SYP_OK, or SYP_EBUSY when another thread is inside an operation.  Given back by a store to busy. */
int comm_take(struct comm *c, const char *call);
/* The thread that has the group finds that another one has aborted it.  sequence: of the first operation not completed. */
int comm_aborted_here(struct comm *c, uint64_t sequence);
/* SYP_OK: no member can store into this rank's buffers any more on account of this group's last operation; SYP_EBUSY naming one that can, or because
 * another thread is inside an operation. */
int comm_buffers_safe(struct comm *c);
/* The same for the library's own use: bytes of the pool that members may still store into are kept from reuse until then. */
int comm_add_hazard(struct comm *c, uint64_t off, uint64_t len);
int comm_release_hazard(struct comm *c); /* 1 = none is left */
void comm_forget_hazard(struct comm *c);
int comm_agree(struct comm *c, uint64_t *flag, int64_t timeout_ns);
int comm_shrink(struct comm *c, int give_up, int64_t timeout_ns, struct comm **out);
/* World ranks of members that the last agreement found gone; returns how many there are, or SYP_EBUSY as above. */
int comm_failed(struct comm *c, int *ranks, int cap);

/* Replacements (rejoin.c).  How the ranks speak before they have a world: every rank gives len bytes, all get them in rank order; len 0 = a barrier. */
struct coll_meeting {
    int (*allgather)(void *arg, const void *mine, size_t len, void *all);
    void *arg;
};
/* A rank is about to be unmapped: the groups it was in end here.  The groups are claimed. */
void coll_forget(struct coll *k, int rank, int pid);
/* Start a new world over all ranks of the peers, new ones included.  The groups are claimed.  SYP_OK, on all or on none (but for a death at the very
 * end); SYP_EDIVERGED, SYP_ENOMEM, what the meeting returns. */
int coll_rejoin(struct coll *k, int is_new, const struct coll_meeting *meeting);
/* Give the groups back after coll_claim. */
void coll_release(struct coll *k);
/* Memory for a slot's staging area: SYP_OK or SYP_ENOMEM. */
int coll_staging(struct coll *k, int slot);

/* Operations: call.h.  Beside them: */
/* Where all ranks that can meet do: the world, or the ranks of this host when it spans several. */
struct comm *coll_meeting(struct coll *c);
/* The barrier of finalize; the groups are claimed. */
int coll_finalize(struct comm *world, int64_t timeout_ns);
/* Agreed symmetric allocation over the world: offset, or SPACE_NONE with the record set. */
uint64_t coll_symm_alloc(struct coll *c, uint64_t len, uint64_t align, uint32_t scope);

#endif
