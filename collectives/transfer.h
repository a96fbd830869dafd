/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One side of a transfer of a list of buffers: its state, its cell and staging area, moving its bytes.  Which steps there are is sendrecv.c's.
 */
#ifndef SYP_COLLECTIVES_TRANSFER_H
#define SYP_COLLECTIVES_TRANSFER_H

#include "collectives/nap.h"
#include "collectives/pairs.h"

#define TRANSFER_BLOCKED 1 /* of a step: the other side is to move first */

#define CELL_HEAD 4 /* words: n | mailed << 32, total, digest, first | count << 32 */
#define CELL_BODY (CELL_WORDS - CELL_HEAD)
#define BATCH (CELL_BODY / 2) /* buffers at a time, when the data does not travel in the cell: place and length of each */
enum answer { TAKEN = 1, MOVE = 2, REFUSED = 3 };

struct transfer {
    struct comm *c;
    const char *call;
    enum direction direction;
    int m; /* the other member */
    struct pair_way *way;
    struct buffers list;
    uint64_t total, digest;
    int mailed;  /* the data travels in the cell */
    int cell;    /* -1 = none */
    int state;   /* sendrecv.c's */
    int over;    /* 1 = `rc` is the result */
    int rc;
    syp_error why;
    uint64_t awaited; /* step of the other side */
    /* the batch: buffers first .. first + count - 1 */
    int first, count;
    uint64_t ours[BATCH], theirs[BATCH]; /* offset in the pool, AT_STAGED, AT_NONE: no bytes */
    uint64_t staged;                     /* bytes of it that are in neither pool, and pass through the sender's staging area, packed */
    uint64_t chunk, chunks;              /* of those: done, in all */
    int entry;                           /* where the next chunk begins: buffer of the batch, byte of it */
    uint64_t at;
    uint64_t base;    /* sender: steps of the receiver when the batch was answered; its chunks are counted from there */
    uint64_t exposed; /* receiver: the sender may store into our buffers until it has published so many steps; 0 = no */
};

/* A cell: SYP_OK or SYP_ENOMEM.  And its staging area. */
int cell_take(struct transfer *t);
void cell_drop(struct transfer *t);
int transfer_staging(struct transfer *t);

/* The other side's cell and the own one, as words. */
static inline struct pair_cell *own_cell(const struct transfer *t) {
    return &((struct board *)peers_own_body(t->c->coll->peers))->cell[t->cell];
}
/* n words of a cell of member m, from word `at` on; 0 when there is no such cell. */
int cell_read(const struct transfer *t, unsigned cell, int at, uint64_t *words, int n);

/* The sender's cell: what it sends, with the data or with the places of a batch. */
void transfer_write(struct transfer *t);
/* 1 = some buffer of the list does not lie in this rank's pool. */
int transfer_is_outside(const struct transfer *t);
/* Places of our buffers of the batch. */
void transfer_places(struct transfer *t);
/* With the places of both sides: what passes through staging. */
void transfer_plan(struct transfer *t);

/* Copies.  SYP_OK; what transfer_given_up says; SYP_EPEER, the other side published a place that cannot be. */
int transfer_push(struct transfer *t);  /* sender: into buffers of the receiver's pool */
int transfer_pull(struct transfer *t);  /* receiver: out of buffers in the sender's pool */
int transfer_chunk(struct transfer *t); /* the next chunk: the sender into, the receiver out of, the staging area */
int transfer_unpack(struct transfer *t, unsigned cell); /* receiver: out of the sender's cell */

/* Has the other side given up?  Behind copies from its memory: then they may be anything.  SYP_OK, or: */
int transfer_still(const struct transfer *t);
/* The error of a transfer that the other side gave up: SYP_EABORTED; SYP_EPEER or SYP_ETIMEOUT with the third rank that made it do so. */
int transfer_given_up(const struct transfer *t);
int transfer_corrupt(const struct transfer *t, const char *field, uint64_t value);

/* Both lists differ: SYP_EMISMATCH.  lens: the first of the other's, stride words apart, known of them. */
int transfer_mismatch(const struct transfer *t, uint64_t his_n, uint64_t his_total, const uint64_t *lens, int stride, int known);

/* The other side's steps towards us. */
static inline const atom64 *his_steps(const struct transfer *t, const struct pair_line *his) {
    return t->direction == SENDING ? &his->received : &his->sent;
}

#endif
