/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer's ranks: gloo over TCP on the loopback, as torch.distributed uses it on one host.  Arguments: path of the board, rank, number
 * of ranks, and a folder through which the ranks find each other.
 */
#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/alltoall.h>
#include <gloo/barrier.h>
#include <gloo/broadcast.h>
#include <gloo/gather.h>
#include <gloo/math.h>
#include <gloo/reduce.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/scatter.h>
#include <gloo/transport/tcp/device.h>

#include <cstdlib>
#include <exception>

#include "tools/bench/coll.h"

namespace {

std::shared_ptr<gloo::rendezvous::Context> context;
uint32_t tag;

using Function = void (*)(void *, const void *, const void *, size_t);

Function sum_of(int type) {
    switch (type) {
    case TYPE_FP32: return &gloo::sum<float>;
    case TYPE_FP64: return &gloo::sum<double>;
    case TYPE_FP16: return &gloo::sum<gloo::float16>;
    case TYPE_I8: return &gloo::sum<int8_t>;
    case TYPE_U8: return &gloo::sum<uint8_t>;
    case TYPE_I32: return &gloo::sum<int32_t>;
    case TYPE_I64: return &gloo::sum<int64_t>;
    case TYPE_U64: return &gloo::sum<uint64_t>;
    default: return nullptr;
    }
}

int does(int op, int type) {
    if (op == OP_PUT || op == OP_GET || op == OP_REDUCE_SCATTER) return 0;
    return !coll_ops[op].reduces || sum_of(type) != nullptr;
}

template <typename T> void reduction(const coll_call *c) {
    T *send = static_cast<T *>(c->send), *recv = static_cast<T *>(c->recv);
    size_t n = c->bytes / sizeof(T);
    if (c->op == OP_ALLREDUCE) {
        gloo::AllreduceOptions o(context);
        o.setOutput(recv, n);
        o.setReduceFunction(sum_of(c->type));
        o.setTag(tag++);
        gloo::allreduce(o);
    } else {
        gloo::ReduceOptions o(context);
        o.setInput(send, n);
        o.setOutput(recv, n);
        o.setReduceFunction(sum_of(c->type));
        o.setRoot(c->root);
        o.setTag(tag++);
        gloo::reduce(o);
    }
}

/* Elements of the right size; what they mean, the function knows. */
void reduce_by_size(const coll_call *c) {
    switch (coll_types[c->type].size) {
    case 1: reduction<uint8_t>(c); break;
    case 2: reduction<uint16_t>(c); break;
    case 4: reduction<uint32_t>(c); break;
    default: reduction<uint64_t>(c); break;
    }
}

void move(const coll_call *c) {
    char *send = static_cast<char *>(c->send), *recv = static_cast<char *>(c->recv);
    size_t n = static_cast<size_t>(c->n);
    if (c->op == OP_ALLGATHER) {
        gloo::AllgatherOptions o(context);
        o.setInput(send, c->bytes);
        o.setOutput(recv, n * c->bytes);
        o.setTag(tag++);
        gloo::allgather(o);
    } else if (c->op == OP_BROADCAST) {
        gloo::BroadcastOptions o(context);
        o.setOutput(recv, c->bytes);
        o.setRoot(c->root);
        o.setTag(tag++);
        gloo::broadcast(o);
    } else if (c->op == OP_GATHER) {
        gloo::GatherOptions o(context);
        o.setInput(send, c->bytes);
        if (c->rank == c->root) o.setOutput(recv, n * c->bytes);
        o.setRoot(c->root);
        o.setTag(tag++);
        gloo::gather(o);
    } else if (c->op == OP_SCATTER) {
        gloo::ScatterOptions o(context);
        std::vector<char *> inputs;
        for (size_t r = 0; r < n; r++)
            inputs.push_back(send + r * c->bytes);
        if (c->rank == c->root) o.setInputs(inputs, c->bytes);
        o.setOutput(recv, c->bytes);
        o.setRoot(c->root);
        o.setTag(tag++);
        gloo::scatter(o);
    } else {
        gloo::AlltoallOptions o(context);
        o.setInput(send, n * c->bytes);
        o.setOutput(recv, n * c->bytes);
        o.setTag(tag++);
        gloo::alltoall(o);
    }
}

void run(const coll_call *c) {
    try {
        if (c->op == OP_BARRIER) {
            gloo::BarrierOptions o(context);
            o.setTag(tag++);
            gloo::barrier(o);
        } else if (coll_ops[c->op].reduces) {
            reduce_by_size(c);
        } else {
            move(c);
        }
    } catch (const std::exception &e) {
        coll_fail(c, "gloo", e.what());
    }
}

} // namespace

int main(int argc, char **argv) {
    coll_call start = {};
    start.op = OP_BARRIER;
    if (argc != 5) coll_fail(&start, "gloo", "started by sympool-bench only");
    int rank = std::atoi(argv[2]), n = std::atoi(argv[3]);
    start.rank = rank;
    start.n = n;
    try {
        gloo::transport::tcp::attr where("127.0.0.1");
        auto device = gloo::transport::tcp::CreateDevice(where);
        gloo::rendezvous::FileStore store(argv[4]);
        context = std::make_shared<gloo::rendezvous::Context>(rank, n);
        context->connectFullMesh(store, device);
    } catch (const std::exception &e) {
        coll_fail(&start, "gloo", e.what());
    }
    coll_impl impl = {};
    impl.name = "gloo";
    impl.does = does;
    impl.run = run;
    coll_worker(argv[1], rank, &impl);
    context.reset();
    return 0;
}
