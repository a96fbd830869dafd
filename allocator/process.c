/* SPDX-License-Identifier: Apache-2.0 */
#include "allocator/process.h"
#include "allocator/sympool.h"
#include "pool/base/conf.h"
#include "pool/base/log.h"
#include "pool/base/status.h"
#include "pool/base/thread.h"
#include "pool/scope.h"

#include <string.h>

enum { COLD, ATTACHING, ATTACHED, DETACHING };

static struct world the_world = {.process = 1};
static atom32 state;  /* acquire/release: claim, settle */
atom32 process_is_child;
static atom32 inside; /* threads between enter and leave; seq_cst against state: process_enter_quietly, process_quiesce */
/* Of the_world, for readers that do not enter.  Release: settle.  acquire: process_pool. */
_Atomic(struct pool *) process_job_pool;
_Atomic(struct world *) process_job_world;
static atom32 job_ranks;


int process_usable(const char *call) {
    if (!process_forked()) return SYP_OK;
    err_set(SYP_EFORKED, "%s: this process is a forked child of rank %d and has no part in the job; call sympool "
                         "from the parent, or exec a program of its own", call, the_world.who.rank);
    return err_operation(call);
}

int process_need(const char *call, struct world **out) {
    int rc = process_usable(call);
    if (rc != SYP_OK) return rc;
    *out = process_world();
    if (*out) return SYP_OK;
    err_set(SYP_ESTATE, "%s: this process is not attached; call syp_init first", call);
    return err_operation(call);
}

struct world *process_enter_quietly(void) {
    if (process_forked()) return NULL;                           /* first: it may clear the count */
    atomic_fetch_add_explicit(&inside, 1, memory_order_seq_cst); /* counted before the state is read: pairs with process_quiesce */
    if (load_seqcst(&state) == ATTACHED) return &the_world;
    process_leave();
    return NULL;
}

int process_enter(const char *call, struct world **out) {
    int rc = SYP_OK;
    while ((*out = process_enter_quietly()) == NULL && (rc = process_need(call, out)) == SYP_OK) {
    } /* another thread has attached between the two */
    return rc;
}

void process_leave(void) {
    atomic_fetch_sub_explicit(&inside, 1, memory_order_release); /* pairs with process_quiesce */
}

int process_quiesce(int64_t timeout_ns) {
    uint64_t deadline = deadline_after(os->now(), timeout_ns);
    while (load_seqcst(&inside) != 0) { /* the state was changed before: later callers go away again */
        if (deadline_left(os->now(), deadline) == 0)
            return err_set(SYP_EBUSY, "another thread of this process is inside a call of sympool; let it return first");
        os->sleep(20 * NS_PER_US);
    }
    return SYP_OK;
}

void process_after_fork(int consistent) {
    uint32_t was = load_relaxed(&state);
    fork_guard(); /* the guard page is the parent's no more */
    fork_reset();
    copies_release(); /* a program may do as it likes with another copy in a child */
    conf_after_fork();
    thread_after_fork();
    addrmap_after_fork();
    scope_after_fork();
    pools_after_fork(consistent);
    store_relaxed(&inside, 0); /* those threads are the parent's */
    if (was == COLD) return;
    store_relaxed(&process_is_child, 1);
    store_relaxed(&process_job_pool, NULL);
    store_relaxed(&process_job_world, NULL);
    scope_clear();
    stats_close(); /* the segment is the parent's; ours is only a mapping of it */
}

/* ---------------------------------------------------------------------------------------- init and finalize */

/* Become the one thread that attaches or detaches; waits while another one does.  Returns the state found. */
static uint32_t claim(uint32_t from, uint32_t to) {
    for (;;) {
        uint32_t seen = from;
        if (cas_acq_rel(&state, &seen, to)) { /* pairs with settle */
            store_release(&process_job_pool, NULL);
            store_release(&process_job_world, NULL);
            return from;
        }
        if (seen == COLD || seen == ATTACHED) return seen;
        os->sleep(NS_PER_MS);
    }
}

static void settle(uint32_t to) {
    store_release(&process_job_pool, to == ATTACHED ? the_world.pool : NULL);  /* pairs with process_pool */
    store_release(&process_job_world, to == ATTACHED ? &the_world : NULL);     /* pairs with process_world */
    store_release(&state, to);                                                /* pairs with claim */
}

/* Read as much as the caller's struct has; what is beyond keeps its default. */
static int read_config(const syp_config *given, syp_config *out) {
    *out = (syp_config)SYP_CONFIG_INIT;
    if (!given) return err_set(SYP_EINVAL, "init: config is NULL");
    if (given->size < offsetof(syp_config, local_mem_size) || given->size > sizeof(syp_config))
        return err_set(SYP_EINVAL, "init: config->size is %zu, this library knows up to %zu; start from SYP_CONFIG_INIT", given->size,
                       sizeof(syp_config));
    memcpy(out, given, given->size);
    if (out->rank < -1 || out->n_ranks < -1 || out->n_ranks == 0 || out->n_ranks > MAX_WORLD ||
        (out->n_ranks > 0 && out->rank >= out->n_ranks))
        return err_set(SYP_EINVAL, "init: rank %d of %d ranks; ranks are 0 .. n_ranks - 1, at most %d of them", out->rank, out->n_ranks,
                       MAX_WORLD);
    return SYP_OK;
}

int syp_init_config(const syp_config *config) {
    syp_config asked;
    int rc = process_usable("init");
    if (rc == SYP_OK) rc = read_config(config, &asked);
    if (rc != SYP_OK) {
        err_operation("init");
        return rc;
    }
    while (claim(COLD, ATTACHING) == ATTACHED) {
        struct world *w = process_enter_quietly();
        if (!w) continue; /* another thread has begun to finalize */
        rc = world_same(w, &asked);
        process_leave();
        if (rc != SYP_OK) err_operation("init");
        return rc;
    }
    fork_guard();
    conf_reset();
    rc = copies_claim();
    if (rc == SYP_OK) {
        rc = world_attach(&the_world, &asked);
        if (rc != SYP_OK) copies_release();
    } else {
        err_operation("init");
    }
    if (rc == SYP_OK) store_relaxed(&job_ranks, (uint32_t)the_world.who.n_ranks); /* settle publishes it */
    settle(rc == SYP_OK ? ATTACHED : COLD);
    if (rc != SYP_OK) log_info("%s", syp_error_text());
    return rc;
}

int syp_init(int rank, int n_ranks, uint64_t local_mem_size, uint64_t meta_size, const char *ip_port) {
    syp_config c = SYP_CONFIG_INIT;
    if (rank < 0 || n_ranks < 1) {
        int rc = process_usable("init");
        if (rc != SYP_OK) return rc;
        err_set(SYP_EINVAL, "init: rank %d of %d ranks; ranks are 0 .. n_ranks - 1 (the environment is asked by syp_init_env)", rank, n_ranks);
        return err_operation("init");
    }
    c.rank = rank;
    c.n_ranks = n_ranks;
    c.local_mem_size = local_mem_size;
    c.meta_size = meta_size;
    c.addr = ip_port;
    return syp_init_config(&c);
}

int syp_init_env(void) {
    syp_config c = SYP_CONFIG_INIT;
    return syp_init_config(&c);
}

int syp_finalize(void) {
    int rc = process_usable("finalize");
    if (rc != SYP_OK) return rc;
    if (claim(ATTACHED, DETACHING) != ATTACHED) {
        err_set(SYP_ESTATE, "finalize: this process is not attached");
        return err_operation("finalize");
    }
    rc = world_detach(&the_world);
    if (rc != SYP_EBUSY) copies_release();
    settle(rc == SYP_EBUSY ? ATTACHED : COLD);
    if (rc != SYP_EBUSY) scope_clear();
    return rc;
}

int syp_rejoin(int n_ranks, const syp_call *call) {
    int rc = process_usable("rejoin");
    if (rc != SYP_OK) return rc;
    if (n_ranks < 0 || (call && (call->size < sizeof *call || call->timeout_ns < 0))) {
        err_set(SYP_EINVAL, "rejoin: n_ranks is %d, or call is a syp_call whose size is too small or timeout_ns negative", n_ranks);
        return err_operation("rejoin");
    }
    if (claim(ATTACHED, DETACHING) != ATTACHED) {
        err_set(SYP_ESTATE, "rejoin: this process is not attached; call syp_init first");
        return err_operation("rejoin");
    }
    rc = world_rejoin(&the_world, n_ranks, call ? call->timeout_ns : 0);
    store_relaxed(&job_ranks, (uint32_t)the_world.who.n_ranks); /* settle publishes it */
    settle(ATTACHED);
    return rc;
}

/* ------------------------------------------------------------------------------------------------- queries */

int syp_rank(void) {
    return process_world() ? err_rank() : -1;
}

int syp_world_size(void) {
    return process_world() ? (int)load_relaxed(&job_ranks) : 0;
}

int syp_version(void) {
    return SYP_VERSION;
}

static int all_reachable(const struct world *w) {
    for (int r = 0; r < w->peers.n; r++)
        if (w->peers.peer[r].reach != REACH_LOADSTORE) return 0;
    return 1;
}

static int has(const struct world *w, int capability) {
    switch (capability) {
    case SYP_CAP_ATTACHED:
        return 1;
    case SYP_CAP_HUGE_PAGES:
        return w->pool->region.mem.huge != 0;
    case SYP_CAP_NUMA:
        return w->pool->region.mem.bound != 0;
    case SYP_CAP_SAME_VA:
        return w->same_va;
    case SYP_CAP_ZERO_COPY:
        return all_reachable(w);
    case SYP_CAP_STATS:
        return stats_overhead() != 0;
    default:
        return 0;
    }
}

int syp_has(int capability) {
    const struct world *w = process_enter_quietly();
    if (!w) return 0;
    int yes = has(w, capability);
    process_leave();
    return yes;
}
