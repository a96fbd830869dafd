/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives for CPU tensor parallelism under the names that SGLang's and DeepSpeed's CPU kernels use (csrc/cpu shm.h), on sympool.
 * Link with libsympool-shm-compat and compile with the directory of this file (pkg-config sympool-shm-compat).
 *
 * A tensor is given by a pointer and an element type here; its elements are contiguous.
 *
 *     #include <shm.h>
 *     #include <stdio.h>
 *     #include <stdlib.h>
 *
 *     int main(void) {
 *         int size = atoi(getenv("WORLD_SIZE")), rank = atoi(getenv("RANK"));
 *         float x[2][3], all[2][12];
 *         if (shm_initialize(size, rank, "127.0.0.1", "29500") != 0 || size > 4) return 1;
 *         for (int i = 0; i < 6; i++)
 *             x[i / 3][i % 3] = (float)rank;
 *         all_reduce_outer_loop(x, 6, sizeof x, SHM_FLOAT32);
 *         all_gather(all, x, 1, 6, sizeof x, SHM_FLOAT32, (int64_t[]){2, 3}, 2);
 *         printf("rank %d: sum %g, last of the gathered %g\n", rank, x[0][0], ((float *)all)[6 * size - 1]);
 *         return 0;
 *     }
 *
 * Results.  Where the source returns nothing, these return 0 or a negative SYP_E* code of <sympool.h>, so that callers of a void function lose
 * nothing.  Every failure is one error line in sympool's log (standard error, SYMPOOL_LOG_FILE or syp_log_set; a group that stays broken: one a
 * second), what sympool itself refused is in syp_error_text(), too.  Nothing exits, and nothing waits without a deadline.  After a failed
 * collective the result is unspecified, and:
 *   SYP_EINVAL, SYP_EMISMATCH      this call was wrong on some rank; every rank got an error, the next call works
 *   SYP_EPEER, SYP_ETIMEOUT, SYP_EABORTED  a rank died, did not come (SYMPOOL_TIMEOUT, 300 s) or gave up: every later call fails at once
 *
 * Threads: one collective at a time per process (SYP_EBUSY otherwise); everything else from any thread.
 */
#ifndef SYMPOOL_COMPAT_SHM_H
#define SYMPOOL_COMPAT_SHM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SHM_API __attribute__((visibility("default")))
#else
#define SHM_API
#endif

/* The source's element types.  They are values of syp_dtype of <sympool.h>, and its other types work as well. */
enum { SHM_FLOAT32 = 2, SHM_FLOAT16 = 3, SHM_BFLOAT16 = 4 };

/*
 * Become rank `rank` of `size` ranks of this host, which meet by (user, addr_string, port_string, size).  Neither is an address here: nothing is bound
 * or connected to, they only name the job, so the values of MASTER_ADDR and MASTER_PORT can be given as they are.  NULL = "".
 *
 * An attached process (syp_init) goes on in the world it has, when size and rank agree.  Otherwise this call attaches, with the settings of
 * SYMPOOL_*; collectives need no pool to speak of, they move data through SYMPOOL_STAGING_SIZE bytes per rank.  When SYMPOOL_JOB or SYMPOOL_ADDR is
 * set (sympool-run does), they say where the ranks meet.  Jobs that differ in size are different jobs; two alike at the same time are not: a rank
 * that a living process holds is refused, by name of the process.
 *
 * Returns 0, also when called again with the same arguments.  SYP_EINVAL: size or rank.  SYP_ESTATE: called before, or attached, with other
 * arguments; or the rank is held.  SYP_EJOIN and others as syp_init: the ranks did not come together within SYMPOOL_JOIN_TIMEOUT (30 s), with the reason.
 */
SHM_API int shm_initialize(int size, int rank, const char *addr_string, const char *port_string);

/*
 * Replace data by the sum over all ranks.  numel: elements; data_size: their bytes (checked against dtype); 0 elements are legal.  Summed in rank order,
 * 16-bit types in binary32: same bits on every rank, for any size.
 */
SHM_API int all_reduce_outer_loop(void *data, size_t numel, size_t data_size, int dtype);

/*
 * Join the ranks' tensors along dimension `dim`, in rank order: result has data's sizes, but sizes[dim] times the number of ranks.
 * sizes: n_dims of them, equal on all ranks.  dim: 0 .. n_dims - 1, or from the end, -n_dims .. -1.  numel, data_size: of data (checked).  result must not
 * overlap data.  The whole call is one operation, whatever the number of rows.
 */
SHM_API int all_gather(void *result, const void *data, int dim, size_t numel, size_t data_size, int dtype, const int64_t *sizes, int n_dims);

/* A shared segment, mapped.  Set by shared_create and shared_open; on failure descriptor is -1 and bytes NULL. */
struct SharedData {
    const char *name; /* the caller's */
    int descriptor;
    void *bytes;
    size_t nbytes;
};

/*
 * Make the segment `name` of nbytes bytes, with the content `bytes` (NULL = zeros), for processes of the same user.  It appears complete or not at
 * all: whoever opens it sees size and content.  Exclusive: a segment of that name whose creator lives is SYP_EBUSY, naming the process; what a
 * crashed creator left is replaced.  The name is gone as soon as every other rank has opened it (created after shm_initialize), or else at the
 * creator's shared_close; mappings stay.
 * name: 1 .. 255 characters without '/', one at the start is ignored.  Returns 0, SYP_EINVAL, SYP_EBUSY, SYP_ENOMEM (no room), SYP_ESYS.
 */
SHM_API int shared_create(struct SharedData *data, const char *name, const void *bytes, size_t nbytes);

/*
 * Map the segment `name`, waiting for its creator up to SYMPOOL_JOIN_TIMEOUT (30 s).  Returns 0; SYP_ETIMEOUT (errno ETIMEDOUT, never ENOENT: a loop
 * "until not ENOENT" around it ends); SYP_EINVAL, also when it has another size; SYP_ESYS.
 */
SHM_API int shared_open(struct SharedData *data, const char *name, size_t nbytes);

/* Unmap; by the creator: remove the name if it is still there.  Already closed: nothing.  Returns 0 or SYP_EINVAL (NULL). */
SHM_API int shared_close(struct SharedData *data);

#ifdef __cplusplus
}
#endif
#endif
