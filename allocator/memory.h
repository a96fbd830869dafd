/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one way in and out of the pools for every face (C, PyTorch): which pool serves an allocation, and to which a pointer goes back.
 *
 * Decision, in order: innermost open scope of the thread (while attached) -> the job's pool (attached) -> private memory.
 */
#ifndef SYP_ALLOCATOR_MEMORY_H
#define SYP_ALLOCATOR_MEMORY_H

#include "allocator/process.h"

/* len > 0; align power of two.  NULL with the record set. */
void *memory_alloc(size_t len, size_t align, uint64_t stream);
/* p not NULL.  SYP_OK, or SYP_EFOREIGN with the record set and the bad free counted and logged. */
int memory_free(void *p);

#endif
