/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C face of what happens between two ranks.  These calls take no group, which is what keeps finalize away from a collective; so each is counted as inside the
 * library instead.
 */
#include "allocator/groups.h"
#include "allocator/sympool.h"
#include "collectives/pairs.h"
#include "collectives/rma.h"
#include "pool/base/status.h"

#define INSIDE(call, w)                                                                                                \
    struct world *w;                                                                                                   \
    int rc = process_enter(call, &w);                                                                                  \
    if (rc != SYP_OK) return rc

static int leave(int rc) {
    process_leave();
    return rc;
}

int syp_put(void *dst, const void *src, size_t len, int rank) {
    INSIDE("put", w);
    return leave(rma_put(&w->coll, "put", dst, src, len, rank));
}

int syp_get(void *dst, const void *src, size_t len, int rank) {
    INSIDE("get", w);
    return leave(rma_get(&w->coll, dst, src, len, rank));
}

int syp_signal_set(uint64_t *signal, uint64_t value, int rank) {
    INSIDE("signal_set", w);
    return leave(signal_set(&w->coll, "signal_set", signal, value, rank));
}

int syp_signal_add(uint64_t *signal, uint64_t value, int rank) {
    INSIDE("signal_add", w);
    return leave(signal_add(&w->coll, signal, value, rank));
}

int syp_put_signal(void *dst, const void *src, size_t len, uint64_t *signal, uint64_t value, int rank) {
    INSIDE("put_signal", w);
    return leave(rma_put_signal(&w->coll, dst, src, len, signal, value, rank));
}

int syp_signal_wait(const uint64_t *signal, int cmp, uint64_t value, int from, uint64_t *seen, const syp_call *call) {
    INSIDE("signal_wait", w);
    int64_t timeout = !call ? 0 : call->size < sizeof *call || call->timeout_ns < 0 ? -1 : call->timeout_ns;
    return leave(signal_wait(&w->coll, signal, cmp, value, from, seen, timeout));
}

int syp_channel_notify(syp_comm *comm, int to, int channel) {
    struct comm *c = NULL;
    int64_t timeout;
    INSIDE("channel_notify", w);
    rc = find_call("channel_notify", comm, NULL, &c, &timeout);
    return leave(rc == SYP_OK ? channel_notify(c, to, channel) : rc);
}

int syp_channel_wait(syp_comm *comm, int from, int channel, const syp_call *call) {
    struct comm *c = NULL;
    int64_t timeout;
    INSIDE("channel_wait", w);
    rc = find_call("channel_wait", comm, call, &c, &timeout);
    return leave(rc == SYP_OK ? channel_wait(c, from, channel, timeout) : rc);
}

int syp_send(const void *const *bufs, const size_t *lens, int n, int to, syp_comm *comm, const syp_call *call) {
    struct comm *c = NULL;
    int64_t timeout;
    INSIDE("send", w);
    rc = find_call("send", comm, call, &c, &timeout);
    const struct buffers send = {(void *const *)(uintptr_t)bufs, lens, n, to};
    return leave(rc == SYP_OK ? coll_send(c, &send, timeout) : rc);
}

int syp_recv(void *const *bufs, const size_t *lens, int n, int from, syp_comm *comm, const syp_call *call) {
    struct comm *c = NULL;
    int64_t timeout;
    INSIDE("recv", w);
    rc = find_call("recv", comm, call, &c, &timeout);
    const struct buffers recv = {bufs, lens, n, from};
    return leave(rc == SYP_OK ? coll_recv(c, &recv, timeout) : rc);
}

int syp_sendrecv(const void *const *send_bufs, const size_t *send_lens, int n_send, int to, void *const *recv_bufs, const size_t *recv_lens, int n_recv,
                 int from, syp_comm *comm, const syp_call *call) {
    struct comm *c = NULL;
    int64_t timeout;
    INSIDE("sendrecv", w);
    rc = find_call("sendrecv", comm, call, &c, &timeout);
    const struct buffers send = {(void *const *)(uintptr_t)send_bufs, send_lens, n_send, to}, recv = {recv_bufs, recv_lens, n_recv, from};
    return leave(rc == SYP_OK ? coll_sendrecv(c, &send, &recv, timeout) : rc);
}
