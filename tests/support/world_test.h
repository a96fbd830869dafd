/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attached ranks for the tests of everything above the bootstrap: as threads of this process on common mappings (so that ThreadSanitizer sees
 * races between ranks), or as processes.
 */
#ifndef TESTS_WORLD_TEST_H
#define TESTS_WORLD_TEST_H

#include "allocator/attach.h"
#include "tests/support/ops.h"

#include <stdio.h>

/* In a rank's function: say which condition failed on which rank, with the error record, and fail. */
#define NEED(w, cond)                                                                                                  \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fprintf(stderr, "rank %d: %s (line %d): %s\n", (w)->who.rank, #cond, __LINE__, syp_error_text());            \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

struct world_setup {
    uint64_t local_mem_size, meta_size; /* 0 = 64 MiB, 16 MiB */
    uint64_t uneven;                    /* each rank has so much more than the one before it */
    int no_meta;                        /* 1 = meta_size really 0 */
    int64_t timeout_ns;                 /* 0 = 20 s */
    int seconds;                        /* then processes that still run are killed; 0 = 120 */
    const struct backend_ops *backend;  /* NULL = host memory */
};

/* A struct world, zero, for free(). */
struct world *world_new(void);

/* fn runs in every rank with an attached world, which is detached afterwards (a failure of either counts).  Returns the number of
 * ranks that failed or were killed without being the victim (-1 = none is meant to die). */
int worlds_as_threads(int n, const struct world_setup *setup, int (*fn)(struct world *w, void *arg), void *arg);
int worlds_as_processes(int n, const struct world_setup *setup, int (*fn)(struct world *w, void *arg), void *arg);

/* Delays at every test point, from a random stream per thread: none, a spin, a yield, or a sleep of up to 200 us (in about 1 of `rarity` points).
 * 0 = off. */
void delays_on(uint64_t seed, unsigned rarity);
void delays_off(void);

/* Memory of the rank: in its pool (heap part) or outside. */
void *world_alloc(struct world *w, size_t len);
void world_free(struct world *w, void *p);

#endif
