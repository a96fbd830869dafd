/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing side of the statistics segment.  Before stats_open, and with SYMPOOL_STATS=off, everything goes to an in-process page
 * of the same layout, so that writers need no test.  Writers are lock-free, relaxed, and may go on while the segment is opened or closed: what they
 * write then lands in the old place.
 *
 * A thread adds to a shard of its own with a load and a store, as long as there are shards; all others share shard 0, where gauges
 * and peaks are too, with atomic adds.  So sums are exact.
 */
#ifndef SYP_POOL_STATS_H
#define SYP_POOL_STATS_H

#include "pool/base/thread.h"
#include "pool/stats_shared.h"

#include <stddef.h>

/* One list: id, name, kind, unit, help.  Append only. */
#define STATS_LIST(X)                                                                                                  \
    X(STAT_POOL_SIZE, "pool_size", STATS_GAUGE, STATS_UNIT_BYTES, "local_mem_size of this rank")                        \
    X(STAT_META_SIZE, "meta_size", STATS_GAUGE, STATS_UNIT_BYTES, "symmetric region of this rank")                      \
    X(STAT_SYMM_USED, "symm_used", STATS_GAUGE, STATS_UNIT_BYTES, "live bytes in the symmetric region")                 \
    X(STAT_SYMM_PEAK, "symm_peak", STATS_PEAK, STATS_UNIT_BYTES, "most live bytes in the symmetric region")             \
    X(STAT_HEAP_USED, "heap_used", STATS_GAUGE, STATS_UNIT_BYTES, "live bytes in the local heap")                       \
    X(STAT_HEAP_PEAK, "heap_peak", STATS_PEAK, STATS_UNIT_BYTES, "most live bytes in the local heap")                   \
    X(STAT_HEAP_CACHED, "heap_cached", STATS_GAUGE, STATS_UNIT_BYTES, "freed bytes kept for reuse")                     \
    X(STAT_COMMITTED, "committed", STATS_GAUGE, STATS_UNIT_BYTES, "physical memory asked for")                          \
    X(STAT_OVERHEAD, "overhead", STATS_GAUGE, STATS_UNIT_BYTES, "control and statistics segments, staging in use")       \
    X(STAT_ALLOCS, "allocs", STATS_COUNTER, STATS_UNIT_COUNT, "allocations served by the pool")                         \
    X(STAT_FREES, "frees", STATS_COUNTER, STATS_UNIT_COUNT, "blocks given back")                                        \
    X(STAT_ALLOC_FAILED, "alloc_failed", STATS_COUNTER, STATS_UNIT_COUNT, "allocations that failed")                    \
    X(STAT_CACHE_HITS, "cache_hits", STATS_COUNTER, STATS_UNIT_COUNT, "allocations served from the cache")              \
    X(STAT_CACHE_FLUSHES, "cache_flushes", STATS_COUNTER, STATS_UNIT_COUNT, "times the cache was emptied to make room") \
    X(STAT_BAD_FREES, "bad_frees", STATS_COUNTER, STATS_UNIT_COUNT, "foreign, interior and double frees")               \
    X(STAT_PRIVATE_ALLOCS, "private_allocs", STATS_COUNTER, STATS_UNIT_COUNT, "allocations served by private memory")   \
    X(STAT_SYMM_CALLS, "symm_calls", STATS_COUNTER, STATS_UNIT_COUNT, "symmetric allocations and frees")                \
    X(STAT_OPS, "collectives", STATS_COUNTER, STATS_UNIT_COUNT, "collectives completed")                                \
    X(STAT_OP_BYTES, "collective_bytes", STATS_COUNTER, STATS_UNIT_BYTES, "payload of completed collectives")           \
    X(STAT_ZERO_COPY, "zero_copy_ops", STATS_COUNTER, STATS_UNIT_COUNT, "collectives that moved no staged data")        \
    X(STAT_STAGED, "staged_ops", STATS_COUNTER, STATS_UNIT_COUNT, "collectives that went through staging")              \
    X(STAT_WAIT_NS, "wait_ns", STATS_COUNTER, STATS_UNIT_NS, "time spent asleep waiting for peers")                     \
    X(STAT_SLEEPS, "sleeps", STATS_COUNTER, STATS_UNIT_COUNT, "times a wait slept in the kernel")                       \
    X(STAT_LATE_WAKES, "late_wakes", STATS_COUNTER, STATS_UNIT_COUNT, "sleeps that ran out though the data was there")  \
    X(STAT_JOIN_NS, "join_ns", STATS_GAUGE, STATS_UNIT_NS, "time the attach took")                                    \
    X(STAT_JOIN_DROPPED, "join_dropped", STATS_COUNTER, STATS_UNIT_COUNT, "connections to rank 0 that were no ranks of the job") \
    X(STAT_CLAIMS_REFUSED, "claims_refused", STATS_COUNTER, STATS_UNIT_COUNT, "attaches refused since another process holds the rank")      \
    X(STAT_HEAP_DAMAGE, "heap_damage", STATS_COUNTER, STATS_UNIT_COUNT, "pieces of damage that the debug mode found")    \
    X(STAT_PURGED, "purged", STATS_COUNTER, STATS_UNIT_BYTES, "free memory given back to the system")                    \
    X(STAT_MAILED, "mailed_ops", STATS_COUNTER, STATS_UNIT_COUNT, "collectives whose data travelled with the first flag") \
    X(STAT_ONE_SHOT, "one_shot_ops", STATS_COUNTER, STATS_UNIT_COUNT, "larger reductions that every member did as a whole") \
    X(STAT_CROWDED, "crowded", STATS_GAUGE, STATS_UNIT_COUNT, "1 = ranks outnumber their processors: a wait yields at once")

enum stats_id {
#define X(id, name, kind, unit, help) id,
    STATS_LIST(X)
#undef X
    STATS_N
};

struct stats_identity {
    int rank, world, local_rank;
    const char *job;
    const char *host;
    const char *backend;
};

/* Create the segment (publish = 0: in-process page only, zeroed).  Several may be open in tests; the last one opened is written, and
 * closing it makes the one before current.  One thread at a time opens and closes.  who->host NULL: the machine's name.
 * SYP_OK always: without memory for the segment the in-process page is used, which one warning says.  stats_close is also
 * what a forked child calls: its writes then stay its own. */
int stats_open(int publish, const struct stats_identity *who);
void stats_close(void);
void stats_set_state(enum stats_state state);
void stats_set_job(uint64_t nonce);
uint64_t stats_overhead(void); /* bytes of the segment, 0 = in-process */

struct stats_shard {
    _Alignas(CACHE_LINE) atom64 value[STATS_N];
};
/* Those of the segment in force.  Release in make_current (stats.c); acquire in writers and readers. */
extern _Atomic(struct stats_shard *) stats_shards;

void stats_add_first(enum stats_id id, uint64_t n); /* stats_add of a thread without a shard */

/* In a shard of the calling thread alone. */
static inline void stats_raise_own(struct stats_shard *own, enum stats_id id, uint64_t n) {
    store_relaxed(&own->value[id], load_relaxed(&own->value[id]) + n);
}
static inline void stats_bump(struct stats_shard *own, enum stats_id id) { stats_raise_own(own, id, 1); }

/* The calling thread's shard, NULL when it has none yet. */
static inline struct stats_shard *stats_own(void) {
    const struct thread *t = thread_own;
    return __builtin_expect(t != NULL && t->shard != 0, 1) ? &load_acquire(&stats_shards)[t->shard] : NULL;
}

/* Counter.  The values pair with the loads of stats_read and the tool: sums only. */
static inline void stats_add(enum stats_id id, uint64_t n) {
    struct stats_shard *own = stats_own();
    if (own)
        stats_raise_own(own, id, n);
    else
        stats_add_first(id, n);
}

/* Gauge: the last store wins. */
static inline void stats_set(enum stats_id id, uint64_t v) {
    store_relaxed(&load_acquire(&stats_shards)[0].value[id], v);
}
void stats_raise(enum stats_id id, uint64_t v); /* peak: stored when larger */
uint64_t stats_read(enum stats_id id);          /* sum over shards */

/* One slot per group, 0 .. STATS_OPS - 1.  n_members 0 = slot free again. */
void stats_op_group(unsigned slot, uint64_t comm_id, uint64_t n_members);
void stats_op_begin(unsigned slot, enum stats_op_kind kind, uint64_t sequence, uint64_t bytes, uint64_t now);
void stats_op_started(unsigned slot, uint64_t now); /* when that was not known at stats_op_begin (0) */
void stats_op_waits(unsigned slot, int rank);       /* -1 = nobody */
/* All of it at once, of an operation that ended well before anybody looked at the clock. */
void stats_op_quick(unsigned slot, enum stats_op_kind kind, uint64_t sequence, uint64_t bytes);
/* now: may be STATS_NO_TIME. */
void stats_op_end(unsigned slot, int result, uint64_t now);

/* Is the time of this operation of a group taken, though it is a short one?  One in STATS_SAMPLED is, as if by chance: programs repeat patterns of operations,
 * and of a pattern of two every 64th would show one only.  (One multiplication is not enough: along some steps its values come in a few places.) */
static inline int stats_sampled(uint64_t sequence) {
    uint64_t h = sequence * 0x9e3779b97f4a7c15ull;
    return (h ^ h >> 29) * 0x9e3779b97f4a7c15ull < UINT64_MAX / STATS_SAMPLED;
}
/* An operation whose time was taken has ended well. */
void stats_latency(enum stats_op_kind kind, uint64_t bytes, uint64_t ns);

#endif
