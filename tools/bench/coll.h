/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives: what an implementation of them (ours, or a peer's in a program of its own, perhaps C++) and the loops that time it
 * say to each other.  Knows no implementation, and nothing of how ranks are started or timed.
 */
#ifndef BENCH_COLL_H
#define BENCH_COLL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define COLL_RANKS_MAX 64

enum coll_op {
    OP_ALLREDUCE,
    OP_REDUCE,
    OP_REDUCE_SCATTER,
    OP_ALLGATHER,
    OP_BROADCAST,
    OP_GATHER,
    OP_SCATTER,
    OP_ALLTOALL,
    OP_BARRIER,
    OP_PUT,
    OP_GET,
    N_OPS,
    /* What the machine can do, timed by the same loops. */
    OP_COPY = N_OPS, /* memcpy of the rank's own memory */
    OP_COPY_NT,      /* the same with non-temporal stores */
    OP_NOTHING
};

enum coll_type { TYPE_FP32, TYPE_FP64, TYPE_FP16, TYPE_BF16, TYPE_I8, TYPE_U8, TYPE_I32, TYPE_U32, TYPE_I64, TYPE_U64, N_TYPES };

/* How many blocks of the operation's size a buffer has. */
enum coll_blocks { BLOCKS_NONE, BLOCKS_ONE, BLOCKS_ALL /* one for each rank */ };

struct coll_op_info {
    const char *name;
    enum coll_blocks send, recv;
    int in_place;                  /* send is recv */
    int root_sends, root_receives; /* only the root has input, output; the root rotates */
    int reduces;                   /* the sum over the ranks; the others move blocks */
    int one_sided;                 /* the result is there only after a barrier */
};
extern const struct coll_op_info coll_ops[OP_NOTHING + 1];
extern const struct coll_type_info {
    const char *name;
    size_t size;
} coll_types[N_TYPES];

size_t coll_blocks_of(enum coll_blocks blocks, int n);
/* A small whole number in the type; a sum of such numbers below 256 is exact in all of them, integers wrap. */
size_t coll_size_of(int type);
void coll_encode(int type, int value, void *out);

/* One operation.  bytes: of one block. */
struct coll_call {
    int op, type, root, rank, n;
    int plain; /* put, get: by memcpy through the peer's address, instead of by the implementation's function */
    size_t bytes;
    void *send, *recv;
};

struct coll_impl {
    const char *name;
    int (*does)(int op, int type);
    /* The whole operation, complete for this rank when it returns; ends the process when it fails. */
    void (*run)(const struct coll_call *call);
    /* Memory that the implementation treats better than any; NULL: there is none. */
    void *(*pool)(size_t len);
    /* Called once with memory that all ranks share, zero at first; NULL: not needed. */
    void (*share)(void *memory, size_t len, int rank, int n);
};

/* In a rank: serve the measurement whose board has this path until it says that all is done. */
void coll_worker(const char *board_path, int rank, const struct coll_impl *impl);
/* Print "sympool-bench: ..." and end with status 1. */
void coll_fail(const struct coll_call *call, const char *impl, const char *why);

#ifdef __cplusplus
}
#endif
#endif
