/* SPDX-License-Identifier: Apache-2.0 */
/* Channels: counters of notifications, which only grow; the waiter remembers how many it has had. */
#include "collectives/nap.h"
#include "collectives/pairs.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"

static int check(const struct comm *c, const char *call, const char *name, int m, int channel) {
    int rc = pair_usable(c, call, name, m);
    if (rc != SYP_OK || (channel >= 0 && channel < SYP_CHANNELS)) return rc;
    return err_set(SYP_EINVAL, "%s on group %d: channel is %d, outside 0 .. %d", call, c->slot, channel, SYP_CHANNELS - 1);
}

int channel_notify(struct comm *c, int to, int channel) {
    static const char call[] = "channel_notify";
    int rc = pairs_enter(c, call);
    if (rc != SYP_OK) return err_operation(call);
    rc = check(c, call, "to", to, channel);
    if (rc == SYP_OK) rc = pair_gone(c, call, to);
    if (rc == SYP_OK) {
        /* release: what was put before; pairs with heard_more.  Several threads may notify. */
        atomic_fetch_add_explicit(&pair_own_line(c, to)->notified[channel], 1, memory_order_release);
        TEST_POINT("channel.notify");
        nap_ring(c->coll, c->rank[to]);
    }
    pairs_leave(c);
    return rc == SYP_OK ? rc : err_operation(call);
}

struct listener {
    struct comm *c;
    int from, channel;
    uint64_t target;
    struct nap nap;
};

static int heard_more(void *arg) {
    const struct listener *l = arg;
    const struct pair_line *his = pair_his_line(l->c, l->from);
    return his && load_acquire((atom64 *)&his->notified[l->channel]) >= l->target && pair_in_group(l->c, l->from); /* pairs with channel_notify */
}

static int look(void *arg, uint64_t now) {
    struct listener *l = arg;
    static const char call[] = "channel_wait";
    int rc = pair_look(l->c, call, l->from);
    if (rc == SYP_OK) rc = pair_gone(l->c, call, l->from);
    if (rc != SYP_OK || now < l->nap.deadline) return rc == SYP_EPEER && heard_more(l) ? SYP_OK : rc; /* what it did before it died counts */
    if (heard_more(l)) return SYP_OK;
    int rank = l->c->rank[l->from];
    err_set(SYP_ETIMEOUT, "channel_wait on group %d: after %llu ms rank %d has not given notification %llu of channel %d", l->c->slot,
            (unsigned long long)((now - l->nap.start) / NS_PER_MS), rank, (unsigned long long)l->target, l->channel);
    return err_peer(rank, l->c->coll->peers->roster.rank[rank].pid);
}

int channel_wait(struct comm *c, int from, int channel, int64_t timeout_ns) {
    static const char call[] = "channel_wait";
    int rc = pairs_enter(c, call);
    if (rc != SYP_OK) return err_operation(call);
    rc = check(c, call, "from", from, channel);
    if (rc == SYP_OK && timeout_ns < 0)
        rc = err_set(SYP_EINVAL, "%s: call is not a usable syp_call: its size is too small or its timeout_ns negative", call);
    if (rc == SYP_OK) {
        atom64 *heard = &c->pair[from].heard[channel];
        struct listener l = {.c = c, .from = from, .channel = channel, .target = load_relaxed(heard) + 1};
        l.nap = (struct nap){.k = c->coll, .ready = heard_more, .look = look, .arg = &l, .timeout_ns = timeout_ns};
        rc = nap(&l.nap);
        if (rc == SYP_OK) store_relaxed(heard, l.target);
    }
    pairs_leave(c);
    return rc == SYP_OK ? rc : err_operation(call);
}
