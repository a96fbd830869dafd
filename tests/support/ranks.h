/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks as processes: run fn(rank, n, arg) in n forked children (the parent must not be attached) and collect what
 * became of them. Each child's exit status is fn's result (0 = ok), or 100 when a CHECK failed in it.  Children that
 * outlive the watchdog are killed and count as hung.  A shared anonymous page (ranks_shared) lets the children tell the
 * parent and each other things.
 */
#ifndef TESTS_RANKS_H
#define TESTS_RANKS_H

#include "allocator/sympool.h"

#include <stddef.h>
#include <sys/types.h>

#define RANKS_MAX 256

struct ranks {
    int n;
    pid_t pid[RANKS_MAX];
    int status[RANKS_MAX]; /* wait status; -1 = hung and killed */
    void *shared;          /* ranks_shared bytes, zero at start */
    size_t shared_len;
    char addr[64]; /* tcp://127.0.0.1:PORT, free when ranks_start chose it */
    int listen_fd; /* listening on addr; rank 0 adopts it */
};

/* Start; the shared area is at least shared_len bytes. */
int ranks_start(struct ranks *r, int n, size_t shared_len, int (*fn)(struct ranks *r, int rank, void *arg), void *arg);
/* A new process for a rank that has ended; its fn gets the rank as the first one did.  0 = started. */
int ranks_replace(struct ranks *r, int rank, int (*fn)(struct ranks *r, int rank, void *arg), void *arg);
/* What such a rank asks for to meet the others at r->addr. */
syp_config ranks_config(const struct ranks *r, int rank, uint64_t local_mem_size, uint64_t meta_size);
/* Wait for all, at most `seconds`; returns the number of children that did not exit with 0 (killed on purpose: not
 * counted when `victim` is that rank). */
int ranks_wait(struct ranks *r, int seconds, int victim);
void ranks_free(struct ranks *r);

/* Threads instead of processes: fn runs in n threads; returns the number that did not return 0.  For use with
 * common_os_on. */
int ranks_as_threads(int n, int (*fn)(int rank, int n, void *arg), void *arg);

/* Things left behind by this process and its children: entries of /dev/shm and open descriptors; for before/after
 * comparison. */
int count_open_fds(void);
int count_shm_entries(void);
int count_threads(void);
/* Once there are so many, or after a second: a thread that was joined stays in /proc for a moment. */
int count_threads_until(int expected);
int count_mappings(void);

#endif
