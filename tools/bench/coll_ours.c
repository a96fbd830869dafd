/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our own operations.  The pool's memory is symmetric, so that put and get can reach the peer's.
 */
#include <string.h>

#include "allocator/sympool.h"
#include "tools/bench/bench.h"
#include "tools/bench/coll_impls.h"

static const syp_dtype dtype_of[N_TYPES] = {
    [TYPE_FP32] = SYP_FLOAT32, [TYPE_FP64] = SYP_FLOAT64, [TYPE_FP16] = SYP_FLOAT16, [TYPE_BF16] = SYP_BFLOAT16, [TYPE_I8] = SYP_INT8,
    [TYPE_U8] = SYP_UINT8,     [TYPE_I32] = SYP_INT32,    [TYPE_U32] = SYP_UINT32,   [TYPE_I64] = SYP_INT64,     [TYPE_U64] = SYP_UINT64,
};

static size_t count(const struct coll_call *c) {
    return c->bytes / coll_types[c->type].size;
}

static int allreduce(const struct coll_call *c) {
    return syp_allreduce(c->send, c->recv, count(c), dtype_of[c->type], SYP_SUM, SYP_COMM_WORLD, NULL);
}

static int reduce(const struct coll_call *c) {
    return syp_reduce(c->send, c->recv, count(c), dtype_of[c->type], SYP_SUM, c->root, SYP_COMM_WORLD, NULL);
}

static int reduce_scatter(const struct coll_call *c) {
    return syp_reduce_scatter(c->send, c->recv, count(c), dtype_of[c->type], SYP_SUM, SYP_COMM_WORLD, NULL);
}

static int allgather(const struct coll_call *c) {
    return syp_allgather(c->send, c->recv, c->bytes, SYP_COMM_WORLD, NULL);
}

static int broadcast(const struct coll_call *c) {
    return syp_broadcast(c->recv, c->bytes, c->root, SYP_COMM_WORLD, NULL);
}

static int gather(const struct coll_call *c) {
    return syp_gather(c->send, c->recv, c->bytes, c->root, SYP_COMM_WORLD, NULL);
}

static int scatter(const struct coll_call *c) {
    return syp_scatter(c->send, c->recv, c->bytes, c->root, SYP_COMM_WORLD, NULL);
}

static int alltoall(const struct coll_call *c) {
    return syp_alltoall(c->send, c->recv, c->bytes, SYP_COMM_WORLD, NULL);
}

static int barrier(const struct coll_call *c) {
    (void)c;
    return syp_barrier(SYP_COMM_WORLD, NULL);
}

static int put(const struct coll_call *c) {
    return syp_put(c->recv, c->send, c->bytes, (c->rank + 1) % c->n);
}

static int get(const struct coll_call *c) {
    return syp_get(c->recv, c->send, c->bytes, (c->rank + 1) % c->n);
}

static int (*const functions[N_OPS])(const struct coll_call *) = {
    [OP_ALLREDUCE] = allreduce, [OP_REDUCE] = reduce, [OP_REDUCE_SCATTER] = reduce_scatter, [OP_ALLGATHER] = allgather,
    [OP_BROADCAST] = broadcast, [OP_GATHER] = gather, [OP_SCATTER] = scatter,               [OP_ALLTOALL] = alltoall,
    [OP_BARRIER] = barrier,     [OP_PUT] = put,       [OP_GET] = get,
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
        must(functions[c->op](c), coll_ops[c->op].name);
}

static int does(int op, int type) {
    (void)op; /* all of them */
    (void)type;
    return 1;
}

static void *pool(size_t len) {
    return must_have(syp_symm_malloc(len), "a buffer");
}

const struct coll_impl coll_impl_ours = {.name = "sympool", .does = does, .run = run, .pool = pool};
