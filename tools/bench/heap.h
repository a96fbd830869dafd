/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two sides of the heap's measurement say to each other: the first process (heap.c) asks, one worker per allocator
 * (heap_work.c) answers, one question at a time, so that samples of all allocators alternate in one run.
 */
#ifndef BENCH_HEAP_H
#define BENCH_HEAP_H

#include <stdint.h>

enum heap_kind {
    HEAP_OPEN,   /* be ours or malloc's; tells which object provides it */
    HEAP_PAIRS,  /* count pairs of allocation and release of `bytes` */
    HEAP_TOUCH,  /* writing one byte into each page of one block, count times: what touched pairs cannot beat */
    HEAP_MUTEX,  /* count pairs of lock and unlock of a mutex nobody else wants */
    HEAP_CROSS,  /* count blocks allocated by one thread and released by another */
    HEAP_REPLAY, /* trace number `trace`, every page of every block touched; at most once per worker */
};

struct heap_ask {
    int kind, ours, touch, trace;
    uint64_t bytes, count;
};

struct heap_answer {
    double ns, faults;          /* per pair, block or touching */
    uint64_t peak, live;        /* HEAP_REPLAY: memory taken from the system at most, bytes asked for at most */
    char provider[200];         /* HEAP_OPEN */
};

/* Traces, compiled in (trace.c). */
struct trace {
    const char *name, *text, *end;
};
extern const struct trace traces[];
extern const int n_traces;

/* Play it with these two; returns the most bytes that were live at a time. */
uint64_t trace_replay(const struct trace *t, void *(*alloc)(size_t), void (*release)(void *));

#endif
