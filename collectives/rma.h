/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One-sided access to another rank's pool, and signals: words in pools that one rank sets and another waits for.  A remote place is given as the address of the same
 * offset in the own pool; all errors have their record set.
 */
#ifndef SYP_COLLECTIVES_RMA_H
#define SYP_COLLECTIVES_RMA_H

#include "collectives/coll.h"

int rma_put(const struct coll *k, const char *call, void *dst, const void *src, uint64_t len, int rank);
int rma_get(const struct coll *k, void *dst, const void *src, uint64_t len, int rank);

/*
 * Where `at` of this rank's pool lies in rank's: NULL, with the record set, when the rank is not one that is reached and lives, or the range is not inside both pools.
 * name: of the argument, for the record.  Bytes 0: any address.
 */
char *rma_place(const struct coll *k, const char *call, const char *name, const void *at, uint64_t len, int rank);

int signal_set(const struct coll *k, const char *call, uint64_t *signal, uint64_t value, int rank);
int signal_add(const struct coll *k, uint64_t *signal, uint64_t value, int rank);
int signal_wait(const struct coll *k, const uint64_t *signal, int cmp, uint64_t value, int from, uint64_t *seen, int64_t timeout_ns);
int rma_put_signal(const struct coll *k, void *dst, const void *src, uint64_t len, uint64_t *signal, uint64_t value, int rank);

#endif
