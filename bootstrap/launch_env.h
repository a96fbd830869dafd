/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who am I: rank, world size and address from the arguments, else SYMPOOL_*, else the innermost launcher's variables:
 * torchrun (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, TORCHELASTIC_RUN_ID, TORCHELASTIC_RESTART_COUNT,
 * MASTER_ADDR), Open MPI (OMPI_COMM_WORLD_*, PMIX_NAMESPACE), PMI (PMI_RANK, PMI_SIZE, MPI_LOCALRANKID,
 * MPI_LOCALNRANKS), Slurm (SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, SLURM_JOB_ID, SLURM_STEP_ID); else one rank.  In
 * that order the first complete one wins; other complete ones that differ are one info line.  SYP_EINVAL only where
 * explicit arguments contradict SYMPOOL_*, or where the chosen source is incomplete (a rank without a size) or
 * inconsistent (rank >= size). MASTER_PORT is torch's own: never bound and never connected to, only a part of the job's
 * name.
 *
 * What is not given by the source that gave the rank is taken from a launcher that names the same rank and size: job,
 * restart, local rank.
 */
#ifndef SYP_BOOTSTRAP_LAUNCH_ENV_H
#define SYP_BOOTSTRAP_LAUNCH_ENV_H

#include "bootstrap/url.h"

struct launch {
    int rank, n_ranks;
    int local_rank, local_size; /* -1 = unknown */
    int restart;                /* count of restarts, 0 = first */
    char job[64];               /* "" = none known */
    const char *source;         /* "arguments", "SYMPOOL_*", "torchrun", "Open MPI", "PMI", "Slurm", "none" */
    int has_addr;
    struct url addr;
    int listen_fd; /* -1 = none */
};

/* rank, n_ranks: -1 = not given.  addr, job: NULL = not given.  SYP_OK or SYP_EINVAL with the record set. */
int launch_detect(int rank, int n_ranks, const char *addr, const char *job, struct launch *out);

#endif
