/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which ranks share a last-level cache: what one of them says to another need not leave that cache.
 */
#ifndef SYP_BOOTSTRAP_CACHE_GROUP_H
#define SYP_BOOTSTRAP_CACHE_GROUP_H

#include <stdint.h>

#define NO_CACHE_GROUP (-1)

/* The first of the processors whose third-level cache holds all those that the calling thread may run on; NO_CACHE_GROUP when no cache does, or nobody tells. */
int32_t cache_group(void);

#endif
