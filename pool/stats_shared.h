/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layout of the statistics segment: the one thing the library and the `sympool` tool share.  One memfd per attached process, named
 * "sympool.stats", found through /proc/PID/fd, mapped read-only by the reader, who validates every offset against the
 * file's size and trusts nothing.
 *
 *   [stats_head][entries: stats_entry x n_entries][ops: stats_op x n_ops][hists: stats_hist x n_hists]
 *   [shards: n_shards x shard_stride bytes of u64]
 *
 * Counters are sums over shards; gauges are in shard 0.  Entries are append-only and described by name, the head grows at its end only, so old
 * readers read new segments and the other way round.  All values native-endian; the segment never leaves the host.
 */
#ifndef SYP_POOL_STATS_SHARED_H
#define SYP_POOL_STATS_SHARED_H

#include <stddef.h>
#include <stdint.h>

#define STATS_MAGIC 0x54415453504d5953ull /* "SYMPSTAT" little-endian */
#define STATS_VERSION 1u
#define STATS_SEGMENT_NAME "sympool.stats"

enum stats_state { STATS_JOINING = 1, STATS_ATTACHED = 2, STATS_FINALIZING = 3, STATS_DETACHED = 4 };
enum stats_unit { STATS_UNIT_COUNT = 1, STATS_UNIT_BYTES = 2, STATS_UNIT_NS = 3 };
enum stats_kind { STATS_COUNTER = 1, STATS_GAUGE = 2, STATS_PEAK = 3 };

struct stats_head {
    uint64_t magic;
    uint32_t version;
    uint32_t head_size;    /* sizeof(struct stats_head) of the writer */
    uint64_t total_size;   /* of the file */
    uint32_t n_entries, entry_size;
    uint64_t entries_off;
    uint32_t n_ops, op_size;
    uint64_t ops_off;
    uint32_t n_shards, n_slots;
    uint64_t shards_off, shard_stride;
    int32_t pid, rank, world, local_rank;
    uint64_t start_ticks;  /* process start time, field 22 of /proc/PID/stat */
    uint64_t attach_ns;    /* CLOCK_MONOTONIC when the attach began */
    uint64_t job_nonce;    /* equal on all ranks of one job instance; 0 until joined */
    char job[64];
    char host[64];
    char backend[16];
    _Atomic uint32_t state; /* enum stats_state */
    uint32_t pad;
    /* behind the first version's head; readers take for 0 what head_size does not cover */
    uint32_t n_hists, hist_size;
    uint64_t hists_off;
};
#define STATS_HEAD_LEAST offsetof(struct stats_head, n_hists)

struct stats_entry {
    char name[40];  /* "heap_used" */
    uint8_t kind, unit;
    uint16_t slot;  /* index into each shard */
    uint32_t pad;
    char help[80];
};

/* Current or last operation of one group.  Written by one thread at a time; `turn` is odd while it is being written. */
struct stats_op {
    _Atomic uint64_t turn;
    _Atomic uint64_t comm_id;   /* 0 = world, valid when n_members > 0 */
    _Atomic uint64_t n_members; /* 0 = slot unused */
    _Atomic uint64_t kind;      /* enum stats_op_kind */
    _Atomic uint64_t sequence;
    _Atomic uint64_t bytes;
    _Atomic uint64_t start_ns, end_ns; /* start 0 = a moment ago; end 0 = running, STATS_NO_TIME = ended */
    _Atomic uint64_t waits_for; /* rank waited for + 1, 0 = none */
    _Atomic uint64_t result;    /* of the last one: 0 or -SYP_E* */
};

/*
 * How long operations of one kind and size took on this rank, from the call to its return: bucket i counts 2^i to 2^(i+1) - 1 ns, bucket 0 also 0, the
 * last one all that is longer.  Words are added to atomically and never taken back, so a reader needs no lock.
 */
#define STATS_BUCKETS 40u
struct stats_hist {
    uint32_t kind;        /* enum stats_op_kind */
    uint32_t every;       /* one operation in so many is counted */
    uint64_t least_bytes; /* of operations of so many bytes and more */
    uint64_t below_bytes; /* and fewer than these; 0 = no bound */
    _Atomic uint64_t max_ns;
    _Atomic uint64_t bucket[STATS_BUCKETS];
};

/* Kinds of operations: id, number, name.  Numbers are fixed. */
#define STATS_OP_LIST(X)                            \
    X(BARRIER, 1, "barrier")                        \
    X(BROADCAST, 2, "broadcast")                    \
    X(ALLREDUCE, 3, "allreduce")                    \
    X(SYMM_MALLOC, 4, "symm_malloc")                \
    X(COMM_CREATE, 5, "comm_create")                \
    X(FINALIZE, 6, "finalize")                      \
    X(AGREE, 7, "comm_agree")                       \
    X(SHRINK, 8, "comm_shrink")                     \
    X(REDUCE, 9, "reduce")                          \
    X(REDUCE_SCATTER, 10, "reduce_scatter")         \
    X(REDUCE_SCATTERV, 11, "reduce_scatterv")       \
    X(ALLGATHER, 12, "allgather")                   \
    X(ALLGATHERV, 13, "allgatherv")                 \
    X(ALLGATHER_ROWS, 14, "allgather_rows")         \
    X(GATHER, 15, "gather")                         \
    X(SCATTER, 16, "scatter")                       \
    X(ALLTOALL, 17, "alltoall")                     \
    X(ALLTOALLV, 18, "alltoallv")

enum stats_op_kind {
    STATS_OP_NONE = 0,
#define X(id, number, name) STATS_OP_##id = number,
    STATS_OP_LIST(X)
#undef X
};

#define STATS_NO_TIME 1u /* short operations do not look at the clock */
#define STATS_SAMPLED 64u /* of short operations, one in so many does */
#define STATS_LONG (64u << 10) /* bytes; all operations from here on do: it takes 50 ns */
#define STATS_OPS 128u   /* one per group slot */
#define STATS_SHARDS 16u

#endif
