/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer: the scheme by which vLLM reduces and gathers on processors (its csrc/cpu/shm.cpp as of 2026), expressed anew, one thread per
 * rank.
 *
 * Each rank has two halves of 1 MiB in shared memory, used in turn.  A chunk is written to the own half with non-temporal stores,
 * published by a fence and an 8-bit stamp; then every rank reads all others' halves with streaming loads and adds to what it has,
 * starting with its own data and going on with the next rank's, and keeps the result in its own memory.  Before a chunk overwrites a
 * half, a call of several chunks looks whether the others are that far; a call of one chunk need not.  Waits spin with a pause and
 * never yield.  256-bit registers, sums in fp32.
 */
#include <stdlib.h>
#include <string.h>

#include "tools/bench/bench.h"
#include "tools/bench/coll_impls.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <stdatomic.h>

#define HALF (1u << 20)
#define RANKS_MAX 8
#define STAMPS (64u << 10) /* bytes before the data */
#define VECTOR 64u
#define AVX2 __attribute__((target("avx2,f16c")))

struct stamps {
    _Alignas(128) _Atomic uint8_t current; /* the chunk the rank is at; release: the rank, acquire: the others */
    _Atomic uint8_t ready;                 /* the last one it has published; the same */
};

static struct {
    uint8_t *base;
    int rank, n;
    unsigned half;
} shm;

static struct stamps *stamps_of(int rank) {
    return (struct stamps *)(void *)shm.base + rank;
}

static uint8_t *half_of(int rank) {
    return shm.base + STAMPS + (size_t)rank * 2 * HALF + (shm.half & 1) * HALF;
}

static int after(int k) {
    return (shm.rank + k) % shm.n;
}

static void attach(void *memory, size_t len, int rank, int n) {
    if (len < STAMPS + 2ull * RANKS_MAX * HALF) die("vllm: shared memory too small");
    shm.base = memory;
    shm.rank = rank;
    shm.n = n;
    atomic_store_explicit(&stamps_of(rank)->current, 1, memory_order_release);
    memset(half_of(rank), 0, 2 * HALF);
}

static int does(int op, int type) {
    if (!__builtin_cpu_supports("avx2")) return 0; /* all that have it have f16c */
    return op == OP_ALLGATHER || (op == OP_ALLREDUCE && (type == TYPE_FP32 || type == TYPE_BF16 || type == TYPE_FP16));
}

/* ------------------------------------------------------------------------------------------------------- one chunk */

AVX2 static void copy_in(uint8_t *to, const uint8_t *from, size_t len) {
    size_t i = 0;
    for (; i + VECTOR <= len; i += VECTOR)
        for (size_t k = i; k < i + VECTOR; k += 32)
            _mm256_stream_si256((__m256i *)(void *)(to + k), _mm256_loadu_si256((const __m256i *)(const void *)(from + k)));
    if (i == len) return;
    _Alignas(VECTOR) uint8_t tail[VECTOR] = {0};
    memcpy(tail, from + i, len - i);
    for (size_t k = 0; k < VECTOR; k += 32)
        _mm256_stream_si256((__m256i *)(void *)(to + i + k), _mm256_load_si256((const __m256i *)(const void *)(tail + k)));
}

AVX2 static void copy_out(uint8_t *to, const uint8_t *from, size_t len) {
    size_t i = 0;
    for (; i + VECTOR <= len; i += VECTOR)
        for (size_t k = i; k < i + VECTOR; k += 32)
            _mm256_storeu_si256((__m256i *)(void *)(to + k), _mm256_stream_load_si256((const __m256i *)(const void *)(from + k)));
    memcpy(to + i, from + i, len - i);
}

/* Eight elements to fp32 and back.  A type is a constant of the caller. */
AVX2 static inline __m256 load8(const uint8_t *p, int type, int stream) {
    if (type == TYPE_FP32)
        return stream ? _mm256_castsi256_ps(_mm256_stream_load_si256((const __m256i *)(const void *)p))
                      : _mm256_loadu_ps((const float *)(const void *)p);
    const __m128i *h = (const __m128i *)(const void *)p;
    __m128i v = stream ? _mm_stream_load_si128((__m128i *)(uintptr_t)h) : _mm_loadu_si128(h);
    return type == TYPE_FP16 ? _mm256_cvtph_ps(v) : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

AVX2 static inline void store8(uint8_t *p, __m256 v, int type) {
    if (type == TYPE_FP32) {
        _mm256_storeu_ps((float *)(void *)p, v);
    } else if (type == TYPE_FP16) {
        _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    } else { /* bf16, to nearest even */
        __m256i bits = _mm256_castps_si256(v), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        bits = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
        __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(bits, bits), 0xd8);
        _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(packed));
    }
}

/* Whole groups of 8 elements; the shared halves have room for the last one. */
AVX2 static inline void add_groups(uint8_t *own, size_t len, int type, size_t step) {
    const uint8_t *other[RANKS_MAX];
    for (int k = 1; k < shm.n; k++)
        other[k] = half_of(after(k));
#pragma GCC unroll 4
    for (size_t i = 0; i < len; i += step) {
        __m256 sum = load8(own + i, type, 0);
        for (int k = 1; k < shm.n; k++)
            sum = _mm256_add_ps(sum, load8(other[k] + i, type, 1));
        store8(own + i, sum, type);
    }
}

AVX2 static void add_others(uint8_t *own, size_t len, int type) {
    switch (type) {
    case TYPE_FP32: add_groups(own, len, TYPE_FP32, 32); break;
    case TYPE_BF16: add_groups(own, len, TYPE_BF16, 16); break;
    default: add_groups(own, len, TYPE_FP16, 16); break;
    }
}

/* Then the last few elements, by way of whole groups at the start of a small buffer. */
static void reduce_chunk(uint8_t *own, size_t len, int type) {
    size_t group = 8 * coll_types[type].size, whole = len / group * group;
    add_others(own, whole, type);
    if (whole == len) return;
    uint8_t tail[32] = {0};
    uint8_t *base = shm.base;
    memcpy(tail, own + whole, len - whole);
    shm.base += whole; /* the others' halves, as far along */
    add_others(tail, group, type);
    shm.base = base;
    memcpy(own + whole, tail, len - whole);
}

/* ------------------------------------------------------------------------------------------------------ operations */

static void publish(void) {
    struct stamps *own = stamps_of(shm.rank);
    _mm_mfence(); /* the non-temporal stores */
    atomic_store_explicit(&own->ready, atomic_load_explicit(&own->current, memory_order_relaxed), memory_order_release);
}

static void await_ready(void) {
    uint8_t mine = atomic_load_explicit(&stamps_of(shm.rank)->current, memory_order_relaxed), is;
    for (int k = 1; k < shm.n; k++)
        while ((is = atomic_load_explicit(&stamps_of(after(k))->ready, memory_order_acquire)) != mine && is != (uint8_t)(mine + 1))
            _mm_pause();
}

static void await_no_conflict(void) {
    uint8_t mine = atomic_load_explicit(&stamps_of(shm.rank)->current, memory_order_relaxed);
    for (int k = 1; k < shm.n; k++)
        while (mine == (uint8_t)(atomic_load_explicit(&stamps_of(after(k))->current, memory_order_acquire) + 2))
            _mm_pause();
}

static void next_chunk(void) {
    struct stamps *own = stamps_of(shm.rank);
    _mm_mfence();
    atomic_store_explicit(&own->current, (uint8_t)(atomic_load_explicit(&own->current, memory_order_relaxed) + 1), memory_order_release);
    shm.half++;
}

static void run(const struct coll_call *c) {
    for (size_t done = 0; done < c->bytes; done += HALF) {
        size_t len = c->bytes - done < HALF ? c->bytes - done : HALF;
        uint8_t *recv = c->recv;
        const uint8_t *send = c->send;
        if (c->bytes > HALF) await_no_conflict();
        copy_in(half_of(shm.rank), send + done, len);
        publish();
        if (c->op == OP_ALLGATHER) memcpy(recv + (size_t)shm.rank * c->bytes + done, send + done, len);
        await_ready();
        if (c->op == OP_ALLREDUCE) {
            reduce_chunk(recv + done, len, c->type);
        } else {
            for (int k = 1; k < shm.n; k++)
                copy_out(recv + (size_t)after(k) * c->bytes + done, half_of(after(k)), len);
        }
        next_chunk();
    }
}

const struct coll_impl coll_impl_vllm = {.name = "vllm", .does = does, .run = run, .share = attach};
#else
static int does_nothing(int op, int type) {
    (void)op;
    (void)type;
    return 0;
}

const struct coll_impl coll_impl_vllm = {.name = "vllm", .does = does_nothing};
#endif
