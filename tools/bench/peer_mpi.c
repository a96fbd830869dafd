/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer's ranks: any MPI.  Started by its launcher with the path of the board as argument; built once with each MPI's compiler, so that
 * sympool-bench itself knows none.
 */
#if __has_include(<mpi.h>)
#include <mpi.h>

#include <stdio.h>
#include <string.h>

#include "tools/bench/bench.h"
#include "tools/bench/coll.h"

static MPI_Datatype type_of(int type) {
    switch (type) {
    case TYPE_FP32: return MPI_FLOAT;
    case TYPE_FP64: return MPI_DOUBLE;
    case TYPE_I8: return MPI_INT8_T;
    case TYPE_U8: return MPI_UINT8_T;
    case TYPE_I32: return MPI_INT32_T;
    case TYPE_U32: return MPI_UINT32_T;
    case TYPE_I64: return MPI_INT64_T;
    case TYPE_U64: return MPI_UINT64_T;
    default: return MPI_DATATYPE_NULL; /* no 16-bit floats */
    }
}

static int does(int op, int type) {
    if (op == OP_PUT || op == OP_GET) return 0;
    return !coll_ops[op].reduces || type_of(type) != MPI_DATATYPE_NULL;
}

/* What moves bytes is given whole elements, too: some algorithms are chosen by the element's size. */
static void run(const struct coll_call *c) {
    MPI_Datatype type = type_of(c->type);
    MPI_Comm comm = MPI_COMM_WORLD;
    int n = (int)(c->bytes / coll_size_of(c->type)), err = MPI_SUCCESS;
    if (type == MPI_DATATYPE_NULL) {
        type = MPI_BYTE;
        n = (int)c->bytes;
    }
    switch (c->op) {
    case OP_ALLREDUCE: err = MPI_Allreduce(MPI_IN_PLACE, c->recv, n, type, MPI_SUM, comm); break;
    case OP_REDUCE: err = MPI_Reduce(c->send, c->recv, n, type, MPI_SUM, c->root, comm); break;
    case OP_REDUCE_SCATTER: err = MPI_Reduce_scatter_block(c->send, c->recv, n, type, MPI_SUM, comm); break;
    case OP_ALLGATHER: err = MPI_Allgather(c->send, n, type, c->recv, n, type, comm); break;
    case OP_BROADCAST: err = MPI_Bcast(c->recv, n, type, c->root, comm); break;
    case OP_GATHER: err = MPI_Gather(c->send, n, type, c->recv, n, type, c->root, comm); break;
    case OP_SCATTER: err = MPI_Scatter(c->send, n, type, c->recv, n, type, c->root, comm); break;
    case OP_ALLTOALL: err = MPI_Alltoall(c->send, n, type, c->recv, n, type, comm); break;
    case OP_BARRIER: err = MPI_Barrier(comm); break;
    default: break;
    }
    if (err != MPI_SUCCESS) coll_fail(c, "mpi", "the operation failed");
}

int main(int argc, char **argv) {
    static const struct coll_impl impl = {.name = "mpi", .does = does, .run = run};
    int rank;
    if (MPI_Init(&argc, &argv) != MPI_SUCCESS || MPI_Comm_rank(MPI_COMM_WORLD, &rank) != MPI_SUCCESS) die("MPI_Init failed");
    if (argc != 2) die("%s: started by sympool-bench only", argv[0]);
    coll_worker(argv[1], rank, &impl);
    MPI_Finalize();
    return 0;
}
#endif
typedef int peer_mpi_is_not_empty; /* where there is no MPI: something for compilers that check every file */
