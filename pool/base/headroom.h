/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much memory may still be committed: the smallest (limit - usage) over the machine and all memory cgroups above this process.
 * fallocate beyond a cgroup's limit is no error, it is an OOM kill of this process or of a neighbour; so the limit is read first.
 *
 * What the kernel would drop before it kills (file cache) counts as free; swap does not, nor does memory.high, which slows down and
 * never kills.  Some memory is left over (SYMPOOL_MEMORY_MARGIN): between the look and the commit others take memory, too.
 */
#ifndef SYP_BASE_HEADROOM_H
#define SYP_BASE_HEADROOM_H

#include <stdint.h>

/* Read the settings, find the cgroups of this process.  Each time a region is opened; a forked child looks again by itself. */
void headroom_find(void);

/* SYP_OK; SYP_ENOMEM when `request` more bytes do not fit, the record naming cgroup, limit, usage and request.  left (may be
 * NULL): what would still be free after it, UINT64_MAX = no limit known or the check is off.  A few small files are read: for commits only. */
int headroom_check(uint64_t request, uint64_t *left);

#endif
