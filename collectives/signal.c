/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals.  The word is stored with release, after whatever was put before; the waiter's load acquires it.  Setters ring the bell of the word's rank; stores of the
 * program's own into a word are seen when the slice of a sleeper ends.
 */
#include "collectives/nap.h"
#include "collectives/rma.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"

static int refuse_odd(const char *call, const void *signal) {
    err_set(SYP_EINVAL, "%s: signal is %p, which is not 8-byte aligned", call, signal);
    return err_operation(call);
}

static atom64 *word_of(const struct coll *k, const char *call, const uint64_t *signal, int rank) {
    char *there = rma_place(k, call, "signal", signal, sizeof *signal, rank);
    if (there && (uintptr_t)there % sizeof *signal) {
        refuse_odd(call, signal);
        there = NULL;
    }
    return (atom64 *)(void *)there;
}

int signal_set(const struct coll *k, const char *call, uint64_t *signal, uint64_t value, int rank) {
    atom64 *word = word_of(k, call, signal, rank);
    if (!word) return err_record()->code;
    store_release(word, value); /* pairs with compare */
    TEST_POINT("signal.set");
    nap_ring(k, rank);
    return SYP_OK;
}

int signal_add(const struct coll *k, uint64_t *signal, uint64_t value, int rank) {
    atom64 *word = word_of(k, "signal_add", signal, rank);
    if (!word) return err_record()->code;
    atomic_fetch_add_explicit(word, value, memory_order_acq_rel); /* pairs with compare; acquire: who waits sees what all adders before had put */
    TEST_POINT("signal.set");
    nap_ring(k, rank);
    return SYP_OK;
}

int rma_put_signal(const struct coll *k, void *dst, const void *src, uint64_t len, uint64_t *signal, uint64_t value, int rank) {
    static const char call[] = "put_signal";
    if (!word_of(k, call, signal, rank)) return err_record()->code; /* nothing is put before all is known to be legal */
    int rc = rma_put(k, call, dst, src, len, rank);
    TEST_POINT("signal.put");
    return rc == SYP_OK ? signal_set(k, call, signal, value, rank) : rc;
}

/* ---------------------------------------------------------------------------------------------------- wait */

struct waiter {
    const struct coll *k;
    const atom64 *word;
    uint64_t value, seen;
    int cmp, from;
    struct nap nap;
};

static int compare(void *arg) {
    struct waiter *w = arg;
    uint64_t x = w->seen = load_acquire((atom64 *)w->word); /* pairs with signal_set, signal_add */
    switch (w->cmp) {
    case SYP_EQ:
        return x == w->value;
    case SYP_NE:
        return x != w->value;
    case SYP_GT:
        return x > w->value;
    case SYP_GE:
        return x >= w->value;
    case SYP_LT:
        return x < w->value;
    default:
        return x <= w->value;
    }
}

static int look_for_deaths(struct waiter *w) {
    const struct peers *p = w->k->peers;
    int all[MAX_WORLD], n = 0, reason;
    if (w->from >= 0)
        all[n++] = w->from;
    else
        while (n < p->n)
            all[n] = n, n++;
    int rank = life_look(p, all, n, &reason);
    if (rank < 0 || compare(w)) return SYP_OK; /* what it stored before it died is visible now */
    int pid = p->roster.rank[rank].pid;
    life_publish(p, rank, reason);
    err_set(SYP_EPEER, "signal_wait: rank %d (pid %d) %s; the signal is %llu", rank, pid, reason == LIFE_REASON_LEFT ? "has left the job" : "died",
            (unsigned long long)w->seen);
    return err_peer(rank, pid);
}

static int look(void *arg, uint64_t now) {
    struct waiter *w = arg;
    static const char *const sign[] = {"", "equal to", "other than", "above", "at least", "below", "at most"};
    int rc = look_for_deaths(w);
    if (rc == SYP_OK) rc = comm_check_own_life(&w->k->comm[WORLD_SLOT], "signal_wait");
    if (rc != SYP_OK || now < w->nap.deadline || compare(w)) return rc;
    err_set(SYP_ETIMEOUT, "signal_wait: after %llu ms the signal is %llu, not %s %llu", (unsigned long long)((now - w->nap.start) / NS_PER_MS),
            (unsigned long long)w->seen, sign[w->cmp], (unsigned long long)w->value);
    return w->from >= 0 ? err_peer(w->from, w->k->peers->roster.rank[w->from].pid) : SYP_ETIMEOUT;
}

static int check(const struct coll *k, const uint64_t *signal, int cmp, int from, int64_t timeout_ns) {
    const struct region *own = k->peers->region;
    if (!region_contains(own, signal) || own->len - region_offset(own, signal) < sizeof *signal)
        return err_set(SYP_EINVAL, "signal_wait: signal is %p, not inside this rank's pool", (const void *)signal);
    if ((uintptr_t)signal % sizeof *signal) return refuse_odd("signal_wait", signal);
    if (cmp < SYP_EQ || cmp > SYP_LE) return err_set(SYP_EINVAL, "signal_wait: cmp is %d, not one of SYP_EQ .. SYP_LE", cmp);
    if (from < -1 || from >= k->peers->n)
        return err_set(SYP_EINVAL, "signal_wait: from is %d, outside -1 .. %d", from, k->peers->n - 1);
    if (timeout_ns < 0)
        return err_set(SYP_EINVAL, "signal_wait: call is not a usable syp_call: its size is too small or its timeout_ns negative");
    if (from < 0 || k->peers->peer[from].reach == REACH_LOADSTORE) return SYP_OK;
    err_set(SYP_EREACH, "signal_wait: from is rank %d, which is on another host and cannot set a signal here", from);
    return err_peer(from, k->peers->roster.rank[from].pid);
}

int signal_wait(const struct coll *k, const uint64_t *signal, int cmp, uint64_t value, int from, uint64_t *seen, int64_t timeout_ns) {
    struct waiter w = {.k = k, .word = (const atom64 *)(const void *)signal, .value = value, .cmp = cmp, .from = from};
    w.nap = (struct nap){.k = k, .ready = compare, .look = look, .arg = &w, .timeout_ns = timeout_ns};
    int rc = check(k, signal, cmp, from, timeout_ns);
    if (rc == SYP_OK) {
        rc = nap(&w.nap);
        if (seen) *seen = w.seen;
    }
    return rc == SYP_OK ? rc : err_operation("signal_wait");
}
