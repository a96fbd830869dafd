/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control segment of a rank: written by its owner only (sealed against writing through any later mapping), read by
 * every peer. Here its head: identity, life, notices of death.  The body behind it belongs to the collectives.
 *
 * Life word: a robust futex held by the keeper thread.
 *   LIFE_NONE (0)  --keeper started-->  tid | LIFE_WAITERS  --kernel, at death of the process-->  LIFE_DIED bit set
 *                                        \--orderly finalize or exit-->  LIFE_LEFT
 */
#ifndef SYP_BOOTSTRAP_CONTROL_H
#define SYP_BOOTSTRAP_CONTROL_H

#include "bootstrap/roster.h"
#include "pool/base/atomic.h"

#define CONTROL_MAGIC 0x4c5254434d5953ull
#define CONTROL_PROCESSORS 1024
#define LIFE_NONE 0u
#define LIFE_WAITERS 0x80000000u /* FUTEX_WAITERS: whoever sleeps on the word is woken at the death */
#define LIFE_DIED 0x40000000u    /* FUTEX_OWNER_DIED */
#define LIFE_LEFT 0x20000000u    /* not a tid: Linux tids stay below 2^22 */

struct control_head {
    uint64_t magic;
    uint64_t layout; /* digest of the layout, equal on all ranks (checked in hello) */
    uint64_t nonce;  /* job instance; written before the descriptors are sent */
    int32_t rank, pid;
    uint32_t generation;
    uint32_t body_off; /* of the collectives' part */
    atom64 processors[CONTROL_PROCESSORS / 64]; /* mask of those it may run on: first written before the descriptors are sent; crowd.h */

    _Alignas(CACHE_LINE) atom32 life; /* polled by peers with plain loads */
    uint32_t pad;
    void *robust_entry; /* the keeper's robust-list entry, walked by the kernel at the keeper's death */

    /* Notices: what this rank has found out.  dead[r] = 1 + reason; epoch counts notices, stored with release after
     * dead[] (pairs with life_look). */
    _Alignas(CACHE_LINE) atom64 notice_epoch;
    _Atomic uint8_t dead[MAX_WORLD];
};

enum life_reason { LIFE_REASON_DIED = 1, LIFE_REASON_LEFT = 2 };

#endif
