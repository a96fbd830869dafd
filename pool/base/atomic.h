/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Atomics with the memory order in the name, so that it can be read at the call; and the cache-line constants.
 * Every use site says which function it pairs with ("pairs with comm_post").
 */
#ifndef SYP_BASE_ATOMIC_H
#define SYP_BASE_ATOMIC_H

#include <stdatomic.h>
#include <stdint.h>

/* Flags of different writers lie on different lines; the adjacent-line prefetcher makes it pairs of 64. */
#define CACHE_LINE 128

typedef _Atomic uint32_t atom32;
typedef _Atomic uint64_t atom64;

#define load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define add_relaxed(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define or_relaxed(p, v) atomic_fetch_or_explicit((p), (v), memory_order_relaxed)
#define swap_acq_rel(p, v) atomic_exchange_explicit((p), (v), memory_order_acq_rel)
/* Sequentially consistent forms, for the store-then-load patterns (publish / look for sleepers). */
#define load_seqcst(p) atomic_load_explicit((p), memory_order_seq_cst)
#define store_seqcst(p, v) atomic_store_explicit((p), (v), memory_order_seq_cst)
#define cas_acquire(p, expected, desired)                                                                              \
    atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_acquire, memory_order_relaxed)
#define cas_acq_rel(p, expected, desired)                                                                              \
    atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_acq_rel, memory_order_acquire)

/* Bring a line here for writing, so that a store to it later does not wait. */
static inline void prefetch_write(const void *p) {
#if defined(__x86_64__)
    __asm__ __volatile__("prefetchw %0" ::"m"(*(const char *)p)); /* gcc would not choose it for the oldest processors, where it is a no-op */
#else
    __builtin_prefetch(p, 1);
#endif
}

/* Tell the processor that this is a spin loop. */
static inline void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#else
    __asm__ __volatile__("" ::: "memory");
#endif
}

#endif
