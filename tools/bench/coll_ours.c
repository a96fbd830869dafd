/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our own operations.  The pool's memory is symmetric, so that put and get can reach the peer's.
 */
#include <string.h>

#include "allocator/sympool.h"
#include "tools/bench/bench.h"
#include "tools/bench/coll_impls.h"

/* 0: this version of the library does not reduce it */
static const int dtype_of[N_TYPES] = {
    [TYPE_FP32] = SYP_FLOAT32, [TYPE_FP64] = SYP_FLOAT64, [TYPE_I32] = SYP_INT32, [TYPE_I64] = SYP_INT64,
};

static void allreduce(const struct coll_call *c) {
    must(syp_allreduce(c->send, c->recv, c->bytes / coll_types[c->type].size, (syp_dtype)dtype_of[c->type], SYP_SUM, SYP_COMM_WORLD, NULL),
         "allreduce");
}

static void broadcast(const struct coll_call *c) {
    must(syp_broadcast(c->recv, c->bytes, c->root, SYP_COMM_WORLD, NULL), "broadcast");
}

static void barrier(const struct coll_call *c) {
    (void)c;
    must(syp_barrier(SYP_COMM_WORLD, NULL), "barrier");
}

static void (*const functions[N_OPS])(const struct coll_call *) = {
    [OP_ALLREDUCE] = allreduce,
    [OP_BROADCAST] = broadcast,
    [OP_BARRIER] = barrier,
};

/* What put and get cannot beat: the program copies by itself, knowing the peer's address. */
static void plain(const struct coll_call *c) {
    static const void *of[2]; /* addresses whose peers' are known */
    static void *peers[2];
    int get = c->op == OP_GET;
    const void *ours = get ? c->send : c->recv;
    if (of[get] != ours) {
        peers[get] = must_have(syp_peer_ptr(ours, (c->rank + 1) % c->n), "the peer's buffer");
        of[get] = ours;
    }
    memcpy(get ? c->recv : peers[get], get ? peers[get] : c->send, c->bytes);
}

static void run(const struct coll_call *c) {
    if (c->plain)
        plain(c);
    else
        functions[c->op](c);
}

static int does(int op, int type) {
    return functions[op] != NULL && (!coll_ops[op].reduces || dtype_of[type]);
}

static void *pool(size_t len) {
    return must_have(syp_symm_malloc(len), "a buffer");
}

const struct coll_impl coll_impl_ours = {.name = "sympool", .does = does, .run = run, .pool = pool};
