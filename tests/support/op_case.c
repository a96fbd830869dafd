/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/op_case.h"

#include "tests/support/check.h"

#include <stdlib.h>

#define GUARD 64u

static int block_make(struct op_case *a, int which, size_t len, int in_pool, size_t shift) {
    struct case_block *b = &a->block[which];
    b->len = len;
    b->in_pool = in_pool;
    b->memory = in_pool ? world_alloc(a->w, len + 3 * GUARD) : malloc(len + 3 * GUARD);
    if (!b->memory) return 1;
    memset(b->memory, UNTOUCHED, len + 3 * GUARD);
    b->at = b->memory + GUARD + shift;
    return 0;
}

static void draw(struct op_case *a, int kind, int n, size_t bytes, uint64_t *seed) {
    uint64_t x = check_random(seed) >> 36;
    if (kind == OP_NONE) {
        kind = x % 14 < CASE_KINDS ? case_kinds[x % 14] : x % 14 == CASE_KINDS ? OP_BARRIER : OP_ALLREDUCE;
        bytes /= kind == OP_ALLREDUCE || kind == OP_REDUCE || kind == OP_BROADCAST ? 1 : (size_t)n;
    }
    case_draw(&a->ask, kind, n, bytes, seed);
}

int op_case_make(struct op_case *a, struct world *w, const struct comm *c, int kind, size_t bytes, uint64_t common, uint64_t where) {
    uint64_t seed = common | 1;
    memset(a, 0, sizeof *a);
    a->w = w;
    a->me = c->me;
    for (int i = 0; i < 3; i++)
        (void)check_random(&seed);
    draw(a, kind, c->n, bytes, &seed);
    a->side = case_side(&a->ask, a->me);
    const struct side *s = &a->side;
    int in_place = (where & BUFFERS_IN_PLACE) && s->in_place != SIZE_MAX && s->send_len && s->recv_len;
    if (!(in_place && s->send_len < s->recv_len) && block_make(a, 0, s->send_len, (where & SEND_IN_POOL) != 0, where >> 8 & 15)) return 1;
    if (!(in_place && s->send_len >= s->recv_len) && block_make(a, 1, s->recv_len, (where & RECV_IN_POOL) != 0, where >> 12 & 15)) return 1;
    a->send = a->block[0].memory ? a->block[0].at : a->block[1].at + s->in_place;
    a->recv = a->block[1].memory ? a->block[1].at : a->block[0].at + s->in_place;
    case_input(&a->ask, s, a->me, a->send);
    a->call = case_call(&a->ask, s, a->me, a->send, a->recv, !(where >> 16 & 1), !(where >> 17 & 1));
    return 0;
}

void op_case_free(struct op_case *a) {
    for (int i = 0; i < 2; i++) {
        if (a->block[i].memory && a->block[i].in_pool)
            world_free(a->w, a->block[i].memory);
        else
            free(a->block[i].memory);
        a->block[i].memory = NULL;
    }
    case_forget(&a->ask);
}

/* -------------------------------------------------------------------------------------------------- results */

static int guards_hold(const struct op_case *a) {
    for (int i = 0; i < 2; i++) {
        const struct case_block *b = &a->block[i];
        const char *end = b->memory ? b->memory + b->len + 3 * GUARD : NULL;
        for (const char *p = b->memory; p < end; p = p + 1 == b->at ? b->at + b->len : p + 1)
            if (*p != UNTOUCHED) {
                fprintf(stderr, "rank %d: %s of %zu: byte %td from the start of a buffer of %zu is written\n", a->w->who.rank, op_name(a->call.kind),
                        a->call.count, p - b->at, b->len);
                return 0;
            }
    }
    return 1;
}

int op_case_exact(const struct op_case *a) {
    return case_right(&a->ask, &a->side, a->me, a->send, a->recv) && guards_hold(a);
}

/* A block as op_case_make made it. */
static int block_untouched(const struct op_case *a, const struct case_block *b) {
    size_t len = b->len + 3 * GUARD;
    char *was = malloc(len);
    if (!was) return 0;
    memset(was, UNTOUCHED, len);
    if (a->send >= b->memory && a->send < b->memory + len) case_input(&a->ask, &a->side, a->me, was + (a->send - b->memory));
    int same = memcmp(was, b->memory, len) == 0;
    if (!same) fprintf(stderr, "rank %d: %s of %zu: a buffer of %zu has changed\n", a->w->who.rank, op_name(a->call.kind), a->call.count, b->len);
    free(was);
    return same;
}

int op_case_untouched(const struct op_case *a) {
    for (int i = 0; i < 2; i++)
        if (a->block[i].memory && !block_untouched(a, &a->block[i])) return 0;
    return 1;
}
