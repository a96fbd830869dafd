/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Debug mode of a heap (SYMPOOL_DEBUG): finds misuse of blocks by the program.  Every part is on its own.
 *
 *   guard       what is not part of a live block is inaccessible in this process: a block ends at the end of a page (as
 *               far as its alignment permits), the next page traps, and so does freed memory
 *   junk        new blocks are filled with 0xa5, freed ones with 0x5a; a freed byte that was changed is damage
 *   canary      64 known bytes behind each block, or up to the end of its page under guard; changed = damage
 *   quarantine  freed blocks are held back until SYMPOOL_DEBUG_QUARANTINE later bytes were freed
 *   tools       AddressSanitizer and valgrind, where the process runs under one, know which bytes are live
 *
 * Damage is a log line and the record of the calling thread, then by choice abort().  It is looked for at the free of the
 * block, when it leaves the quarantine, when its memory is used again, at every n-th call and by heap_check.
 * The other ranks reach a pool through mappings of their own: no guard stops them, the bytes tell.
 */
#ifndef SYP_POOL_DEBUG_H
#define SYP_POOL_DEBUG_H

#include "pool/heap.h"

/* In the order of SYMPOOL_DEBUG's words. */
enum debug_part { DEBUG_GUARD = 1, DEBUG_JUNK = 2, DEBUG_CANARY = 4, DEBUG_QUARANTINE = 8, DEBUG_TOOLS = 16 };

#define DEBUG_JUNK_NEW 0xa5
#define DEBUG_JUNK_FREED 0x5a
#define DEBUG_CANARY_LEN 64u

struct debug_conf {
    unsigned parts; /* enum debug_part */
    uint64_t hold;  /* bytes of the quarantine */
    uint64_t every; /* 0 = no check at every n-th call */
    int fatal;      /* 1 = abort on damage */
};

/* From the settings. */
void debug_conf_read(struct debug_conf *c);
/* Right after heap_init, before the first block.  SYP_OK; a part that this memory cannot have is left out, which one line says. */
void debug_start(struct heap *h, const struct debug_conf *c);
void debug_stop(struct heap *h);

void *debug_alloc(struct heap *h, const struct heap_want *want);
int debug_free(struct heap *h, void *p);
/* A freed block whose bytes somebody else may have changed rightfully: as if it had just been freed. */
void debug_wipe_locked(struct heap *h, uint32_t block);
/* Bytes around live blocks and in held ones: SYP_OK, or SYP_ESTATE with the first damage in the record. */
int debug_check_locked(struct heap *h);

#endif
