/* SPDX-License-Identifier: Apache-2.0 */
/* Between the table that misuse_gen.py makes and the program that runs it (misuse_main.c): makers of good and bad arguments, and the table's form. */
#ifndef TESTS_MISUSE_H
#define TESTS_MISUSE_H

#include "allocator/sympool.h"

enum kind { GOOD, NULLED, NEGATIVE, HUGE, UNALIGNED, KINDS };

enum returns { RETURNS_NOTHING, RETURNS_STATUS, RETURNS_FIGURE, RETURNS_MEMORY, RETURNS_TEXT, RETURNS_SIZE, RETURNS_AMOUNT };
enum { ANYWHERE = 1, ON_BROKEN = 2, PRIVATE_ALLOCATION = 4, WAITS = 8 };

#define MOST_PARAMETERS 10
struct entry {
    const char *name;
    long (*call)(const enum kind *k);
    enum returns returns;
    int n_parameters;
    const char *parameter[MOST_PARAMETERS], *said[MOST_PARAMETERS]; /* names in the header, and in texts */
    const char *codes; /* documented, each followed by a blank */
    unsigned flags;
    long unattached; /* RETURNS_FIGURE */
};
extern const struct entry entries[];
extern const int n_entries;

int make_int(enum kind k);
unsigned make_unsigned(enum kind k);
size_t make_size(enum kind k);
int64_t make_int64(enum kind k);
const char *make_text(enum kind k);
void *make_pointer(enum kind k); /* never to be dereferenced */
void *make_buffer(enum kind k);  /* to be read and written */
void *good_symmetric(void);
void *other_buffer(void); /* where a collective is not in place */
size_t *make_list(enum kind k);  /* of one member, or of some buffers */
size_t *no_offsets(void);
syp_comm *make_comm(enum kind k);
syp_comm **make_comm_out(enum kind k);
syp_request *make_request(enum kind k);
syp_request **make_request_out(enum kind k);
int *make_ranks(enum kind k);
int *make_ints(enum kind k);
uint64_t *make_words(enum kind k);
void *const *make_buffers(enum kind k);
const void *const *make_const_buffers(enum kind k);
syp_dtype make_dtype(enum kind k);
syp_op make_op(enum kind k);
syp_pool_id make_id(enum kind k);
syp_config *make_config(enum kind k);
syp_call *make_call(enum kind k);
syp_scope_attr *make_attr(enum kind k);
syp_error *make_error(enum kind k);
syp_location *make_location(enum kind k);
syp_pool_info *make_info(enum kind k);
int (*make_visit(enum kind k))(void *arg, const syp_block *block);
void (*make_sink(enum kind k))(void *arg, int level, const char *text);

#endif
