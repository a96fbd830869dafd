/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recorded sequences of allocations, replayed.  How they were recorded: traces/record.py.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "tools/bench/bench.h"
#include "tools/bench/heap.h"

#define PAGE 4096u

/* The file as it is, between two symbols. */
#define EMBED(symbol, file)                                                                                            \
    __asm__(".section .rodata\n" #symbol ":\n.incbin \"tools/bench/traces/" file "\"\n" #symbol "_end:\n.byte 0\n"     \
            ".previous\n");                                                                                            \
    extern const char symbol[], symbol##_end[]

EMBED(trace_numpy_train, "numpy-train.trace");
EMBED(trace_numpy_serve, "numpy-serve.trace");

const struct trace traces[] = {
    {"numpy-train", trace_numpy_train, trace_numpy_train_end},
    {"numpy-serve", trace_numpy_serve, trace_numpy_serve_end},
};
const int n_traces = sizeof traces / sizeof traces[0];

struct block {
    char *at;
    uint64_t len;
};

/* Not from the allocator that is measured. */
static struct block *table(size_t n) {
    void *p = mmap(NULL, n * sizeof(struct block), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) die("memory for %zu blocks of a trace", n);
    return p;
}

uint64_t trace_replay(const struct trace *t, void *(*alloc)(size_t), void (*release)(void *)) {
    size_t n = 0, cap = (size_t)(t->end - t->text) / 2;
    struct block *blocks = table(cap);
    uint64_t live = 0, most = 0;
    const char *next = t->text;
    while (next < t->end) {
        char what = *next, *behind;
        uint64_t value = strtoull(next + 1, &behind, 10);
        next = behind + 1; /* the line's end */
        if (what == '+') {
            struct block *b = &blocks[n++];
            b->len = value;
            b->at = must_have(alloc(value), "a block of a trace");
            for (uint64_t off = 0; off < value; off += PAGE)
                *(volatile char *)(b->at + off) = 1;
            live += value;
            if (live > most) most = live;
        } else if (what == '-' && value < n && blocks[value].at) {
            live -= blocks[value].len;
            release(blocks[value].at);
            blocks[value].at = NULL;
        } else {
            die("trace %s is damaged at byte %zu", t->name, (size_t)(next - t->text));
        }
    }
    for (size_t i = 0; i < n; i++)
        if (blocks[i].at) release(blocks[i].at);
    munmap(blocks, cap * sizeof *blocks);
    return most;
}
