/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The collectives' part of a rank's control segment: what this rank posts for its peers to read.  Only the owner writes it; peers map
 * it read-only, copy every word once and check it.
 *
 * One slot per group.  `phase` is the slot's clock: a 64-bit number that only grows, over all groups that ever use the slot; every wait of
 * the library is "that member's phase >= target", so no interleaving of operations can confuse two of them and nothing is ever reset.
 *
 * Agreements among the survivors have records of their own (struct vote), because they work on a broken group, too.
 *
 * An operation of sequence s posts its parameters in post[s & 1], then advances the phase.  Two posts suffice: a member posts s + 2 only after
 * it saw every other member's post of s + 1, which that member makes after it has done with post s.
 */
#ifndef SYP_COLLECTIVES_BOARD_H
#define SYP_COLLECTIVES_BOARD_H

#include "bootstrap/roster.h"
#include "pool/base/atomic.h"
#include "pool/symm.h"

#define COMM_SLOTS 128
#define POST_PAYLOAD 128 /* bytes that travel inside the post */

enum post_flags { POST_SEND_IN_POOL = 1, POST_RECV_IN_POOL = 2 };

/* Plain memory: written before the phase's release, read after its acquire. */
struct comm_post {
    uint64_t comm_id, sequence;
    uint32_t kind;       /* enum op_kind */
    int32_t error;       /* SYP_OK, or why this member's call was refused at its side */
    int32_t dtype, op;
    int32_t root;
    uint32_t flags;      /* enum post_flags */
    uint64_t count;
    uint64_t send_off, recv_off; /* in the data segment, when in the pool */
    uint64_t symm_calls, symm_digest;
    _Alignas(16) uint8_t payload[POST_PAYLOAD];
};

#define AGREEING (1ull << 63) /* above every id */

struct comm_slot {
    _Alignas(CACHE_LINE) atom64 phase; /* release: comm_publish.  acquire: wait_reached */
    atom64 current;                    /* sequence | kind << 56, for messages about who is behind */
    atom64 inside;                     /* comm id + 1 while in an operation, | AGREEING in an agreement; release at its end: inside_of */
    atom64 abort_group;                /* comm id this rank gave up, + 1; release after abort_why.  pairs with wait_aborted */
    atom64 abort_why;                  /* -code | culprit + 1 << 8 | sequence << 32: of the first operation that this rank has not completed */
    _Alignas(CACHE_LINE) atom64 asleep; /* rank whose phase this member sleeps on, + 1; 0 = awake.  seq_cst on both sides: wait_sleep / comm_publish */
    _Alignas(CACHE_LINE) struct comm_post post[2];
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

struct board {
    struct symm_call ring[SYMM_RING]; /* this rank's symmetric calls */
    struct comm_slot slot[COMM_SLOTS];
    struct vote vote[COMM_SLOTS][2]; /* of agreement k: [k & 1]; a slow member may still read the last one */
};

#endif
