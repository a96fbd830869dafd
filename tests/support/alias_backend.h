/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stand-in for memory that the machine does not have: address ranges beyond 2^31 and 2^32 bytes over little memory.
 *
 * A slab is one window of ALIAS_WINDOW bytes mapped ALIAS_WINDOWS times in a row, and a tail that is there once.  So bytes of a slab are equal when
 * they are a window apart, and an operation can be exact only where that is true of its result, too: buffers are whole slabs, or begin at the same
 * distance from one.  The tail tells whether the end was reached.  The window does not divide 2^31 or 2^32, so that a place too near by that much is
 * another byte of the window.
 */
#ifndef TESTS_ALIAS_BACKEND_H
#define TESTS_ALIAS_BACKEND_H

#include "pool/backend.h"

#define ALIAS_PAGE ((uint64_t)4096)
#define ALIAS_WINDOW (((uint64_t)64 << 20) - ALIAS_PAGE)
#define ALIAS_WINDOWS 33u
#define ALIAS_TAIL (3 * ALIAS_PAGE)
#define ALIAS_SLAB (ALIAS_WINDOWS * ALIAS_WINDOW + ALIAS_TAIL)

/* So many slabs, and a page behind them: address space that they take, memory that is behind it. */
#define ALIAS_LEN(slabs) ((slabs)*ALIAS_SLAB + ALIAS_PAGE)
#define ALIAS_BYTES(slabs) ((slabs) * (ALIAS_WINDOW + ALIAS_TAIL) + ALIAS_PAGE)
/* Map them at `at`, inside a reservation, from byte `off` of the file on.  0 or -errno. */
int alias_map(char *at, int fd, uint64_t off, unsigned slabs);

/* A backend whose regions are ALIAS_META bytes of ordinary memory, then two areas of ALIAS_SLABS slabs; they have no other length. */
#define ALIAS_META ((uint64_t)64 << 10)
#define ALIAS_SLABS 4u
#define ALIAS_REGION (ALIAS_META + 2 * ALIAS_LEN(ALIAS_SLABS))
#define ALIAS_AREA(which) (ALIAS_META + (which)*ALIAS_LEN(ALIAS_SLABS)) /* where it begins */
extern const struct backend_ops alias_backend;

#endif
