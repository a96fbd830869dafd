/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The collectives' part of a rank's control segment: what this rank posts for its peers to read.  Only the owner writes it; peers map
 * it read-only, copy every word once and check it.
 *
 * One slot per group.  The slot has a clock: a 64-bit number that only grows, over all groups that ever use the slot, one more at each phase of each
 * operation.  Operation number s publishes its phases as the stamp of mail[s & 1]; every wait of the library is "that member's stamp >= target", so no
 * interleaving of operations can confuse two of them and nothing is ever reset.
 *
 * The first phase of an operation carries the call's parameters and, when they are small, the data itself: they lie in the lines of the stamp, so that one
 * transfer of a line brings everything.  Two mails suffice: a member begins operation s + 2 only after it saw every other member's first stamp of s + 1,
 * which that member stores after it has done with s.
 *
 * Agreements among the survivors have records of their own (struct vote), because they work on a broken group, too.  What goes on between two members
 * has its own as well (struct pair_line), because it takes no part in the group's operations.
 */
#ifndef SYP_COLLECTIVES_BOARD_H
#define SYP_COLLECTIVES_BOARD_H

#include "allocator/sympool.h"
#include "bootstrap/roster.h"
#include "pool/base/atomic.h"
#include "pool/symm.h"

#define COMM_SLOTS 128
#define MAIL_BYTES 4224
#define MAIL_HEAD 24 /* so that 40 bytes of data share its cache line */
#define MAIL_TAIL 40
#define MAIL_DATA (MAIL_BYTES - MAIL_HEAD - MAIL_TAIL) /* bytes that travel with the first phase: 4 KiB take less time so than in two phases without a copy */
#define MAIL_READERS 4                                 /* so many members reduce as much as a mail holds; more of them, each of which reads all mails, this: */
#define MAIL_REDUCED 2048

/* The members ask for the same if and only if these words are equal (but for 1 in 2^64, of symmetric calls that differ). */
struct mail_call {
    uint64_t what;  /* kind | dtype << 8 | op << 16 | -error << 24 | root + 1 << 32: mail_what */
    uint64_t token; /* of the group, the count and the symmetric calls made so far: mail_token */
};

/* 0 = they ask for the same. */
static inline uint64_t mail_calls_differ(const struct mail_call *a, const struct mail_call *b) { return (a->what ^ b->what) | (a->token ^ b->token); }

/* Plain memory but for the stamp: written before its release, read after its acquire. */
struct mail {
    _Alignas(CACHE_LINE) atom64 stamp; /* release: comm_publish.  acquire: wait_reached */
    struct mail_call call;
    uint8_t data[MAIL_DATA]; /* small payload, or struct mail_buffers */
    /* read only when the calls differ; count: elements, or bytes, or a digest of a list of them */
    uint64_t comm_id, sequence, symm_calls, total, count;
};
_Static_assert(sizeof(struct mail) == MAIL_BYTES, "head, data, tail");

/* Where a member's buffers lie: offset in its data segment, or one of these. */
#define AT_STAGED UINT64_MAX       /* outside its pool */
#define AT_NONE (UINT64_MAX - 1)   /* no other member reads, or writes, it in this operation */
struct mail_buffers {
    uint64_t send, recv;
    uint64_t send_stride; /* bytes from row to row of send */
};

/*
 * What a leader says for others in a group of more than TREE_ABOVE members (tree.c).  All are phases, and only grow.  Of operation s: tree[s & 1], for the
 * reasons for which there are two mails.
 */
struct tree_mark {
    _Alignas(CACHE_LINE) atom64 up; /* the members that this one leads have reached it; release: tree_store.  acquire: up_reached */
    atom64 up_differs;              /* their calls at it may differ: look at the mails; ordered by up */
    atom64 all;                     /* of member 0: every member has, and tree_result is there; release: tree_store.  acquire: tree_over */
    atom64 all_differs;             /* likewise; ordered by all */
};

/* Why a member gave up: a group (abort_why) or a transfer (send_why, receive_why). */
static inline uint32_t why_of(int code, int culprit) { return (uint32_t)-code | (uint32_t)(culprit + 1) << 8; }
static inline int why_code(uint64_t why) { return -(int)(why & 0xff); }
static inline int why_culprit(uint64_t why) { return (int)(why >> 8 & 0xffffff) - 1; }

#define AGREEING (1ull << 63) /* above every id */

struct comm_slot {
    _Alignas(CACHE_LINE) atom64 abort_group; /* comm id this rank gave up, + 1; release after abort_why.  pairs with wait_aborted */
    atom64 abort_why;                        /* why_of | sequence << 32: of the first operation that this rank has not completed */
    atom64 lines_of;                         /* comm id + 1 whose lines are in board.line[slot]; release: pairs_open.  pairs with pair_his_line */
    _Alignas(CACHE_LINE) atom64 current;     /* sequence | kind << 56, for messages about who is behind */
    atom64 inside;                           /* comm id + 1 while in an operation, | AGREEING in an agreement; release at its end: inside_of */
    atom32 pairing;                          /* threads inside calls with one other member; release: pairs_leave.  pairs with pairs_needed_by */
    _Alignas(CACHE_LINE) atom64 asleep;      /* what this member sleeps on: asleep_on; 0 = awake.  wait_sleep against comm_publish and tree_store */
    struct mail mail[2];
    struct tree_mark tree[2];
};

/* In a group of more than TREE_ABOVE members: what member 0 has combined of all mails.  Ordered by its tree_mark.all. */
struct tree_result {
    _Alignas(CACHE_LINE) uint8_t data[2][MAIL_REDUCED];
};

/*
 * This member's part in an agreement of the group (agree.c).  Written by its owner alone, and still there after the owner's death.  The owner uses
 * it again two agreements later.  Then every member that still counts has this one behind it; one that was given up meanwhile finds by
 * comm_id and number, which only grow, that the record is another's now.
 */
#define PROPOSAL_WORDS 5
#define VERDICT_WORDS (5 + MAX_WORLD / 64)
struct vote {
    _Alignas(CACHE_LINE) atom64 number; /* of the agreement, doubled; 1 less = being prepared.  release: vote_post.  acquire: vote_of */
    atom64 comm_id;                     /* release, behind a number of this group; likewise */
    atom64 proposal[PROPOSAL_WORDS];
    atom64 promised; /* highest ballot this member began; seq_cst against the same word of the others: propose */
    atom64 accepted; /* ballot << 1 | which verdict it is for, 0 = none; seq_cst likewise */
    atom64 decided;  /* 1 + which verdict is final, 0 = none; release: decide.  acquire: adopt */
    atom64 verdict[2][VERDICT_WORDS];
};

/*
 * From one member to another, and back: what the first has done for the second.  sent and received count the steps of the transfers of that direction, see
 * sendrecv.c.  Written by its owner alone, so the two sides of a transfer have one each: the sender's `sent`, the receiver's `received`.
 */
struct pair_line {
    atom64 notified[SYP_CHANNELS]; /* release: channel_notify.  acquire: channel_wait */
    atom64 sent, received;         /* steps; GIVEN_UP | steps once this direction is no more.  release: publish, give_up.  acquire: arrived, come */
    atom32 send_cell;              /* of the step that begins a message */
    atom32 verdict;                /* of the step that answers it: enum verdict | cell << 8 */
    atom32 send_why, receive_why;  /* behind GIVEN_UP: why_of */
};
#define GIVEN_UP (1ull << 63)

/* A message, or what its receiver answers; belongs to a transfer while that goes on.  Words are relaxed atomics: whoever was given up may still read them. */
#define PAIR_CELLS 64 /* transfers of a rank at once */
#define CELL_WORDS 128
struct pair_cell {
    _Alignas(CACHE_LINE) atom64 word[CELL_WORDS];
};

struct board {
    struct symm_call ring[SYMM_RING]; /* this rank's symmetric calls */
    struct comm_slot slot[COMM_SLOTS];
    struct vote vote[COMM_SLOTS][2]; /* of agreement k: [k & 1]; a slow member may still read the last one */
    _Alignas(CACHE_LINE) atom32 napping; /* threads of this rank asleep on its bell; nap_sleep against nap_ring */
    struct pair_cell cell[PAIR_CELLS];
    /* Of the group in each slot, towards each member: memory for as many as it has, from pairs_open on.  Behind the rest, because of that. */
    struct pair_line line[COMM_SLOTS][MAX_WORLD];
    struct tree_result result[COMM_SLOTS]; /* memory where this rank is member 0 of a large group */
};

#endif
