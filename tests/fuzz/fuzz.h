/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz targets share.  A target is one file fuzz_NAME.c: it feeds the bytes it is given to the real parser
 * functions, without sockets, on an OS table that it fakes, and MUST()s what holds for every input.  Its seeds are made
 * by the library's own writers: FUZZ_SEEDS=FOLDER build/fuzz/NAME writes them and exits.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include "pool/base/os.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the target. */
void fuzz_start(void); /* once, before the first input */
void fuzz_seeds(void); /* calls fuzz_seed for each */

void fuzz_seed(const void *bytes, size_t len);
/* The same for an input in which nothing is wrong: the target sets fuzz_ok where all of it was accepted, or the seed leads nowhere. */
void fuzz_good_seed(const void *bytes, size_t len);
extern int fuzz_ok;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define MUST(cond)                                                                                                     \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #cond);                                  \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* The input as numbers; zeros when it is used up. */
struct input {
    const uint8_t *at;
    size_t left;
};
uint64_t input_number(struct input *in, unsigned bytes); /* little-endian */
size_t input_bytes(struct input *in, void *out, size_t len); /* how many there were */

/*
 * An OS table to change and to put in force with os_swap: log lines go nowhere, time passes by itself (1 us per look, and
 * what is slept), anonymous memory is the sanitizer's malloc, so that a step beyond it is seen.
 */
extern struct os_ops fuzz_os;
extern uint64_t fuzz_now;
extern size_t fuzz_largest; /* bytes of the largest piece of memory asked for since it was set to 0 */
extern long fuzz_pieces;    /* pieces of memory not given back */

#endif
