/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations and types, one row each.
 */
#include <string.h>

#include "tools/bench/bench.h"
#include "tools/bench/coll.h"

const struct coll_op_info coll_ops[OP_NOTHING + 1] = {
    [OP_ALLREDUCE] = {"allreduce", BLOCKS_ONE, BLOCKS_ONE, .in_place = 1, .reduces = 1},
    [OP_REDUCE] = {"reduce", BLOCKS_ONE, BLOCKS_ONE, .root_receives = 1, .reduces = 1},
    [OP_REDUCE_SCATTER] = {"reduce-scatter", BLOCKS_ALL, BLOCKS_ONE, .reduces = 1},
    [OP_ALLGATHER] = {"allgather", BLOCKS_ONE, BLOCKS_ALL, .in_place = 0},
    [OP_BROADCAST] = {"broadcast", BLOCKS_ONE, BLOCKS_ONE, .in_place = 1, .root_sends = 1},
    [OP_GATHER] = {"gather", BLOCKS_ONE, BLOCKS_ALL, .root_receives = 1},
    [OP_SCATTER] = {"scatter", BLOCKS_ALL, BLOCKS_ONE, .root_sends = 1},
    [OP_ALLTOALL] = {"alltoall", BLOCKS_ALL, BLOCKS_ALL, .in_place = 0},
    [OP_BARRIER] = {"barrier", BLOCKS_NONE, BLOCKS_NONE, .in_place = 0},
    [OP_PUT] = {"put", BLOCKS_ONE, BLOCKS_ONE, .one_sided = 1},
    [OP_GET] = {"get", BLOCKS_ONE, BLOCKS_ONE, .one_sided = 1},
    [OP_COPY] = {"memcpy", BLOCKS_ONE, BLOCKS_ONE, .in_place = 0},
    [OP_COPY_NT] = {"non-temporal copy", BLOCKS_ONE, BLOCKS_ONE, .in_place = 0},
    [OP_NOTHING] = {"nothing", BLOCKS_NONE, BLOCKS_NONE, .in_place = 0},
};

const struct coll_type_info coll_types[N_TYPES] = {
    [TYPE_FP32] = {"fp32", 4}, [TYPE_FP64] = {"fp64", 8}, [TYPE_FP16] = {"fp16", 2}, [TYPE_BF16] = {"bf16", 2}, [TYPE_I8] = {"i8", 1},
    [TYPE_U8] = {"u8", 1},     [TYPE_I32] = {"i32", 4},   [TYPE_U32] = {"u32", 4},   [TYPE_I64] = {"i64", 8},   [TYPE_U64] = {"u64", 8},
};

size_t coll_blocks_of(enum coll_blocks blocks, int n) {
    return blocks == BLOCKS_NONE ? 0 : blocks == BLOCKS_ONE ? 1 : (size_t)n;
}

size_t coll_size_of(int type) {
    return coll_types[type].size;
}

void coll_encode(int type, int value, void *out) {
    float single = (float)value;
    double twice = value;
    uint64_t whole = (uint64_t)value; /* little-endian: its first bytes are the smaller integers */
    uint32_t bits;
    uint16_t half;
    memcpy(&bits, &single, sizeof bits);
    switch (type) {
    case TYPE_FP32: memcpy(out, &single, 4); return;
    case TYPE_FP64: memcpy(out, &twice, 8); return;
    case TYPE_BF16:
        half = (uint16_t)(bits >> 16);
        memcpy(out, &half, 2);
        return;
    case TYPE_FP16: /* normal numbers: the exponent's bias is 15 instead of 127 */
        half = bits ? (uint16_t)((bits >> 13) - ((127 - 15) << 10)) : 0;
        memcpy(out, &half, 2);
        return;
    default: memcpy(out, &whole, coll_types[type].size); return;
    }
}

void coll_fail(const struct coll_call *call, const char *impl, const char *why) {
    die("%s, rank %d of %d: %s of %zu bytes of %s: %s", impl, call->rank, call->n, coll_ops[call->op].name, call->bytes,
        coll_types[call->type].name, why);
}
