/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attach and detach: one table, each step with its undo.  A failure at step n undoes n - 1 .. 0 and says what failed; the peers learn of it through the
 * star as long as it is open.  Detach runs the table backwards.
 */
#include "allocator/attach.h"
#include "allocator/process.h"
#include "pool/base/conf.h"
#include "pool/base/log.h"
#include "pool/base/memory_file.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "pool/base/text.h"
#include "bootstrap/cache_group.h"
#include "bootstrap/claim.h"
#include "bootstrap/hostid.h"
#include "collectives/reduce.h"

#include <stddef.h>
#include <string.h>

#define SMALLEST_POOL (64ull << 10)
#define LARGEST_POOL (1ull << 40)

/* Digest of everything that two ranks must have compiled alike to read each other's segments. */
static uint64_t layout_digest(void) {
    const uint64_t parts[] = {sizeof(struct control_head), offsetof(struct control_head, life), offsetof(struct control_head, notice_epoch),
                              sizeof(struct board), sizeof(struct comm_slot), sizeof(struct mail), sizeof(struct symm_call), sizeof(struct pair_line),
                              offsetof(struct board, napping), offsetof(struct board, cell), offsetof(struct board, line), PAIR_CELLS, PAIR_CHUNK,
                              offsetof(struct mail, data), offsetof(struct comm_slot, mail), COMM_SLOTS, SYMM_RING,
                              MAIL_DATA, MAX_WORLD, __BYTE_ORDER__};
    uint64_t h = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        h = (h ^ parts[i]) * 0x100000001b3ull;
    return h;
}

/* ------------------------------------------------------------------------------------------------ the steps */

/* Room for a part of each rank that may ever be there. */
static uint64_t staging_size(const struct world *w) {
    int most = (int)conf_int(CONF_MAX_WORLD) > w->who.n_ranks ? (int)conf_int(CONF_MAX_WORLD) : w->who.n_ranks;
    uint64_t asked = conf_size(CONF_STAGING_SIZE), least = coll_least_staging(most);
    return round_up(asked > least ? asked : least, os_page_size());
}

static int up_settings(struct world *w) {
    const syp_config *a = &w->asked;
    int rc = launch_detect(a->rank, a->n_ranks, a->addr, a->job, &w->who);
    if (rc != SYP_OK) return rc;
    if (a->listen_fd >= 0) w->who.listen_fd = a->listen_fd;
    w->local_mem_size = a->local_mem_size ? a->local_mem_size : conf_size(CONF_LOCAL_MEM_SIZE);
    w->meta_size = a->meta_size != SYP_META_DEFAULT ? a->meta_size : conf_size(CONF_META_SIZE);
    /* a default symmetric region must not make a small pool illegal */
    if (a->meta_size == SYP_META_DEFAULT && !conf_is_set(CONF_META_SIZE) && w->meta_size > w->local_mem_size / 2)
        w->meta_size = w->local_mem_size / 2;
    if (w->local_mem_size < SMALLEST_POOL || w->local_mem_size > LARGEST_POOL)
        return err_set(SYP_EINVAL, "init: local_mem_size is %llu bytes, outside 64 KiB .. 1 TiB", (unsigned long long)w->local_mem_size);
    if (w->meta_size > w->local_mem_size)
        return err_set(SYP_EINVAL, "init: meta_size is %llu bytes, larger than local_mem_size %llu: the symmetric region lies inside the pool",
                       (unsigned long long)w->meta_size, (unsigned long long)w->local_mem_size);
    if (a->join_timeout_ns < 0 || a->timeout_ns < 0)
        return err_set(SYP_EINVAL, "init: a negative timeout; 0 means the setting");
    int64_t join = a->join_timeout_ns ? a->join_timeout_ns : conf_int(CONF_JOIN_TIMEOUT);
    w->deadline = deadline_after(w->started, join);
    w->coll_conf = (struct coll_conf){.timeout_ns = a->timeout_ns ? a->timeout_ns : conf_int(CONF_TIMEOUT),
                                      .stall_ns = conf_int(CONF_STALL_WARNING),
                                      .spin_ns = conf_int(CONF_SPIN),
                                      .algorithm = (int)conf_int(CONF_COLL_ALGORITHM),
                                      .one_shot = conf_size(CONF_COLL_ONE_SHOT),
                                      .threads = (int)conf_int(CONF_COLL_THREADS),
                                      .chunk = conf_size(CONF_COLL_CHUNK),
                                      .staging = staging_size(w)};
    return reduce_choose(conf_str(CONF_KERNELS));
}

static int up_log(struct world *w) {
    if (!w->process) return SYP_OK;
    err_set_rank(w->who.rank);
    log_start();
    log_info("rank %d of %d (from %s), job \"%s\"", w->who.rank, w->who.n_ranks, w->who.source, w->who.job);
    return SYP_OK;
}

static void down_log(struct world *w) {
    if (w->process) err_set_rank(-1);
}

/* Before anything is published or waited for: a program that merely inherited this rank must disturb nobody. */
static int up_claim(struct world *w) {
    int rc = w->process ? claim_look(&w->who) : SYP_OK;
    if (rc != SYP_OK) stats_add(STAT_CLAIMS_REFUSED, 1);
    return rc;
}

static int up_stats(struct world *w) {
    if (!w->process) return SYP_OK;
    struct stats_identity who = {.rank = w->who.rank, .world = w->who.n_ranks, .local_rank = w->who.local_rank, .job = w->who.job,
                                 .host = NULL, .backend = w->backend->name};
    return stats_open((int)conf_int(CONF_STATS), &who);
}

static void down_stats(struct world *w) {
    if (!w->process) return;
    stats_set_state(STATS_DETACHED);
    stats_close();
}

/* One NUMA node: nothing to place, and loading the topology would cost more than the rest of the attach. */
static int several_nodes(void) {
    char online[64];
    int64_t n = os_read_file("/sys/devices/system/node/online", online, sizeof online);
    return n > 0 && !(online[0] == '0' && (online[1] == '\n' || online[1] == 0));
}

static void place_pool(struct world *w) {
    const char *why = NULL;
    if (!w->process || conf_int(CONF_NUMA) != 0 || !several_nodes()) return;
    const struct topo_ops *topo = topo_open(conf_str(CONF_MODULE_DIR), &why);
    if (topo && topo->place(NULL, w->who.local_rank, w->who.local_size, &w->place, &why) == 0 && w->place.n_nodes > 1) {
        w->placed = 1;
        log_info("pool placed on %s", w->place.text);
    } else if (why) {
        log_info("pool not placed on a NUMA node: %s", why);
    }
}

static int up_backend(struct world *w) {
    place_pool(w);
    w->region_conf = (struct region_conf){.backend = w->backend,
                                          .len = w->local_mem_size,
                                          .meta = w->meta_size,
                                          .shared = 1,
                                          .huge = (int)conf_int(CONF_HUGE),
                                          .huge_required = conf_int(CONF_HUGE_REQUIRED) == 1,
                                          .commit_full = conf_int(CONF_COMMIT) == 1,
                                          .chunk = conf_size(CONF_COMMIT_CHUNK),
                                          .nodes = w->placed ? w->place.nodes : NULL,
                                          .max_node = w->place.max_node,
                                          .name = "sympool pool"};
    return SYP_OK;
}

static struct hello make_hello(const struct world *w) {
    struct hello h = {.library = SYP_VERSION,
                      .layout = layout_digest(),
                      .rank = w->who.rank,
                      .n_ranks = w->who.n_ranks,
                      .page_size = (uint32_t)os_page_size(),
                      .settings = coll_conf_digest(&w->coll_conf),
                      .staging_size = w->coll_conf.staging};
    text_copy(h.job, sizeof h.job, w->who.job);
    struct roster_entry *self = &h.self;
    region_round(&w->region_conf, &self->data_len, &self->meta_size);
    self->local_mem_size = self->data_len;
    self->rank = w->who.rank;
    self->pid = os->pid();
    self->uid = (uint32_t)os->uid();
    if (memory_file_probe()) self->flags |= ROSTER_UNSEALED;
    if (os->fence_ranks_join() < 0) self->flags |= ROSTER_FENCES;
    self->cache_group = cache_group();
    self->control_len = sizeof(struct control_head) + coll_board_size();
    self->exchange_len = coll_exchange_size(w->coll_conf.staging);
    os->start_time(self->pid, &self->start_ticks);
    host_identity(self->host_id);
    return h;
}

static int up_join(struct world *w) {
    struct hello h = make_hello(w);
    TEST_POINT("attach.join");
    int rc = rendezvous_join(&w->who, &h, w->deadline, &w->roster, &w->star);
    TEST_POINT("attach.joined");
    if (rc == SYP_OK && w->process) stats_set_job(w->roster.nonce);
    return rc;
}

static void down_join(struct world *w) {
    star_close(w->star);
    w->star = NULL;
    roster_free(&w->roster);
}

static int up_windows(struct world *w) {
    struct peers_layout layout = {.control_body = coll_board_size(),
                                  .control_first = coll_board_first(),
                                  .exchange_len = coll_exchange_size(w->coll_conf.staging),
                                  .max_data_len = round_up(conf_size(CONF_MAX_LOCAL_MEM_SIZE), os_page_size()),
                                  .max_ranks = (int)conf_int(CONF_MAX_WORLD),
                                  .nodes = w->placed ? w->place.nodes : NULL,
                                  .max_node = w->place.max_node};
    return peers_reserve(&w->peers, &w->roster, w->who.rank, &layout);
}

static void down_windows(struct world *w) {
    peers_release(&w->peers);
}

static int up_pool(struct world *w) {
    w->pool = pool_new();
    if (!w->pool) return SYP_ENOMEM;
    w->pool->shared = 1;
    w->pool->rank = w->who.rank;
    w->region_conf.at = peers_pool_place(&w->peers);
    int rc = pool_open(w->pool, &w->region_conf, (int)conf_int(CONF_CACHE), w->process);
    if (rc != SYP_OK) {
        store_release(&w->pool->state, POOL_FREE); /* nothing was opened; pairs with pool_new */
        w->pool = NULL;
    }
    return rc;
}

/* Live blocks keep their memory: then the pool takes the address window with it. */
static void down_pool(struct world *w) {
    w->pool->window = w->peers.data_window;
    w->pool->window_len = w->peers.data_stride * (uint64_t)w->peers.cap;
    w->peers.data_window = NULL;
    pool_retire(w->pool);
    w->pool = NULL;
}

static int up_segments(struct world *w) {
    int rc = peers_open_segments(&w->peers, &w->pool->region);
    if (rc != SYP_OK) return rc;
    TEST_POINT("attach.segments");
    struct board *board = peers_own_body(&w->peers);
    rc = symm_init(&w->pool->symm, &w->pool->region, board->ring);
    if (rc != SYP_OK) peers_close_segments(&w->peers);
    purge_init(&w->pool->symm.purge, w->pool->heap.purge.after); /* the rest of the heap's changes already: a late caller of the pool before may use it */
    return rc;
}

static void down_segments(struct world *w) {
    symm_fini(&w->pool->symm);
    peers_close_segments(&w->peers);
}

static int up_life(struct world *w) {
    int rc = keeper_start(&w->keeper, w->peers.self);
    TEST_POINT("attach.keeper");
    return rc;
}

static void down_life(struct world *w) {
    keeper_stop(&w->keeper);
}

/* Everybody has everybody's segments. */
static int meet_mapped(struct world *w) {
    uint64_t mine = peers_window_digest(&w->peers), all[MAX_WORLD];
    int rc = star_allgather(w->star, &mine, sizeof mine, all, w->deadline);
    w->same_va = rc == SYP_OK;
    for (int r = 0; r < w->peers.n && w->same_va; r++)
        if (all[r] != mine) w->same_va = 0;
    return rc;
}

static int up_peers(struct world *w) {
    TEST_POINT("attach.map");
    int rc = peers_map(&w->peers, w->deadline);
    if (rc != SYP_OK) return rc;
    TEST_POINT("attach.mapped");
    rc = meet_mapped(w);
    if (rc != SYP_OK) peers_unmap(&w->peers);
    return rc;
}

static void down_peers(struct world *w) {
    peers_unmap(&w->peers);
}

static int up_groups(struct world *w) {
    return coll_open(&w->coll, &w->peers, &w->pool->symm, &w->pool->heap, &w->coll_conf);
}

static void down_groups(struct world *w) {
    coll_close(&w->coll);
}

static int star_meeting(void *arg, const void *mine, size_t len, void *all) {
    struct world *w = arg;
    return star_allgather(w->star, mine, len, all, w->deadline);
}

/* The job was there before: this process takes the place of one that died, or is one more. */
static int up_takeover(struct world *w) {
    const struct coll_meeting meeting = {star_meeting, w};
    return w->roster.epoch > 1 ? coll_rejoin(&w->coll, 1, &meeting) : SYP_OK;
}

static int map_peer_addresses(struct world *w) {
    for (int r = 0; r < w->peers.n; r++) {
        const struct peer *p = &w->peers.peer[r];
        if (r == w->peers.me || !p->data) continue;
        struct addr_range range = {(uintptr_t)p->data, p->data_len, RANGE_PEER, r, w};
        int rc = addrmap_add(&range);
        if (rc != SYP_OK) return rc;
    }
    return SYP_OK;
}

static void down_addresses(struct world *w) {
    if (!w->process) return;
    for (int r = 0; r < w->peers.n; r++)
        if (r != w->peers.me && w->peers.peer[r].data) addrmap_remove((uintptr_t)w->peers.peer[r].data);
}

static int up_addresses(struct world *w) {
    if (!w->process) return SYP_OK;
    int rc = map_peer_addresses(w);
    if (rc != SYP_OK) down_addresses(w);
    return rc;
}

static int up_hold(struct world *w) {
    w->claim_fd = w->process ? claim_hold(&w->who) : -1;
    return SYP_OK;
}

static void down_hold(struct world *w) {
    if (w->claim_fd >= 0) os->close(w->claim_fd);
    w->claim_fd = -1;
}

static void publish_figures(struct world *w) {
    if (!w->process) return;
    stats_set(STAT_POOL_SIZE, w->pool->region.len);
    stats_set(STAT_META_SIZE, w->pool->region.meta);
    stats_set(STAT_OVERHEAD, stats_overhead() + coll_bytes(&w->coll)); /* what gets memory later is added then */
    stats_set(STAT_JOIN_NS, os->now() - w->started);
    stats_set_state(STATS_ATTACHED);
}

static const struct step {
    const char *name; /* "what failed" in messages */
    int (*up)(struct world *w);
    void (*down)(struct world *w);
} steps[] = {
    {"reading the settings", up_settings, NULL},
    {"starting the log", up_log, down_log},
    {"claiming the rank", up_claim, NULL},
    {"publishing statistics", up_stats, down_stats},
    {"opening the memory backend", up_backend, NULL},
    {"joining the ranks", up_join, down_join},
    {"reserving address space", up_windows, down_windows},
    {"reserving the pool", up_pool, down_pool},
    {"making the control segments", up_segments, down_segments},
    {"starting the keeper thread", up_life, down_life},
    {"mapping the peers", up_peers, down_peers},
    {"opening the world group", up_groups, down_groups},
    {"taking over a place in the job", up_takeover, NULL},
    {"entering the address map", up_addresses, down_addresses},
    {"holding the claim on the rank", up_hold, down_hold},
};
#define N_STEPS ((int)(sizeof steps / sizeof steps[0]))

int world_step_count(void) {
    return N_STEPS;
}

const char *world_step_name(int step) {
    return step >= 0 && step < N_STEPS ? steps[step].name : NULL;
}

static void undo(struct world *w) {
    while (w->steps > 0) {
        const struct step *s = &steps[--w->steps];
        if (s->down) s->down(w);
    }
}

int world_attach(struct world *w, const syp_config *asked) {
    int process = w->process;
    const struct backend_ops *backend = w->backend;
    memset(w, 0, offsetof(struct world, coll));
    w->process = process;
    w->backend = backend ? backend : &backend_host;
    w->asked = *asked;
    w->started = os->now();
    for (; w->steps < N_STEPS; w->steps++) {
        const struct step *s = &steps[w->steps];
        int rc = s->up(w);
        if (rc == SYP_OK) continue;
        err_prefix("init: %s", s->name);
        err_operation("init");
        syp_error why = *err_record(); /* the undo may fail at something, too */
        if (w->star) star_abort(w->star);
        undo(w);
        *err_record() = why;
        return rc;
    }
    star_close(w->star);
    w->star = NULL;
    w->asked.addr = w->asked.job = NULL;
    publish_figures(w);
    return SYP_OK;
}

/* ------------------------------------------------------------------------------------------------- rejoin */

static int is_same(const struct world *w, const struct roster *now, int rank) {
    return peers_same_process(&w->peers, now, rank);
}

/* Ranks that are other processes now leave the groups and the address map before their memory goes. */
static int renew_peers(struct world *w, const struct roster *now) {
    int rc = peers_check_roster(&w->peers, now, w->deadline);
    if (rc != SYP_OK) {
        struct roster refused = *now;
        roster_free(&refused);
        return rc;
    }
    struct roster before = w->roster;
    down_addresses(w); /* the peers'; this rank's own pool stays known */
    for (int r = 0; r < before.n; r++)
        if (!is_same(w, now, r)) coll_forget(&w->coll, r, before.rank[r].pid);
    TEST_POINT("rejoin.renew");
    w->roster = *now;
    rc = peers_renew(&w->peers, now, w->deadline);
    roster_free(&before);
    int mapped = w->process ? map_peer_addresses(w) : SYP_OK;
    return rc != SYP_OK ? rc : mapped;
}

/* With all groups claimed. */
static int rejoin(struct world *w, int n_ranks) {
    struct hello h = make_hello(w);
    struct launch who = w->who;
    struct roster now;
    const struct coll_meeting meeting = {star_meeting, w};
    const struct comm *world = &w->coll.comm[WORLD_SLOT];
    int rc = comm_check_own_life(world, "rejoin");
    if (rc == SYP_OK && world->unreachable) rc = comm_refuse_unreachable(world, "rejoin");
    if (rc != SYP_OK) return rc;
    h.member_of = w->roster.nonce;
    h.epoch = w->roster.epoch;
    h.self.generation = w->roster.rank[w->peers.me].generation;
    h.n_ranks = who.n_ranks = n_ranks;
    TEST_POINT("rejoin.join");
    rc = rendezvous_join(&who, &h, w->deadline, &now, &w->star);
    if (rc == SYP_OK) rc = renew_peers(w, &now);
    if (rc == SYP_OK) rc = meet_mapped(w);
    if (rc == SYP_OK) rc = coll_rejoin(&w->coll, 0, &meeting);
    if (rc == SYP_OK) w->who.n_ranks = n_ranks;
    if (rc != SYP_OK && w->star) star_abort(w->star);
    star_close(w->star);
    w->star = NULL;
    return rc;
}

int world_rejoin(struct world *w, int n_ranks, int64_t timeout_ns) {
    int rc = SYP_OK;
    if (n_ranks == 0) n_ranks = w->who.n_ranks;
    if (n_ranks < w->who.n_ranks || n_ranks > w->peers.cap)
        rc = err_set(SYP_EINVAL, "rejoin: %d ranks; this job has %d and address space for %d (SYMPOOL_MAX_WORLD)", n_ranks, w->who.n_ranks,
                     w->peers.cap);
    else
        rc = coll_claim(&w->coll);
    if (rc == SYP_OK && w->process && (rc = process_quiesce(conf_int(CONF_FINALIZE_TIMEOUT))) != SYP_OK) coll_release(&w->coll);
    if (rc == SYP_OK) {
        w->deadline = deadline_after(os->now(), timeout_ns ? timeout_ns : conf_int(CONF_JOIN_TIMEOUT));
        rc = rejoin(w, n_ranks);
        coll_release(&w->coll);
        if (rc != SYP_OK) err_prefix("rejoin");
    }
    return rc == SYP_OK ? rc : err_operation("rejoin");
}

int world_detach(struct world *w) {
    if (coll_claim(&w->coll) != SYP_OK) {
        err_prefix("finalize");
        return err_operation("finalize");
    }
    if (w->process && process_quiesce(conf_int(CONF_FINALIZE_TIMEOUT)) != SYP_OK) {
        coll_release(&w->coll);
        err_prefix("finalize");
        return err_operation("finalize");
    }
    if (w->process) stats_set_state(STATS_FINALIZING);
    int rc = coll_finalize(coll_meeting(&w->coll), conf_int(CONF_FINALIZE_TIMEOUT));
    syp_error why = *err_record();
    TEST_POINT("finalize.met");
    undo(w);
    if (rc == SYP_OK) return rc;
    *err_record() = why;
    if (strncmp(why.text, "finalize", 8) != 0) err_prefix("finalize"); /* the world was broken before */
    return err_operation("finalize");
}

void world_vanish(struct world *w) {
    keeper_vanish(&w->keeper);
    undo(w);
}

int world_same(const struct world *w, const syp_config *asked) {
    char list[400] = "";
    struct text t = TEXT_INIT(list);
    if (asked->rank >= 0 && asked->rank != w->who.rank) text_addf(&t, " rank %d, not %d;", w->who.rank, asked->rank);
    if (asked->n_ranks >= 0 && asked->n_ranks != w->who.n_ranks)
        text_addf(&t, " %d ranks, not %d;", w->who.n_ranks, asked->n_ranks);
    if (asked->local_mem_size && asked->local_mem_size != w->local_mem_size)
        text_addf(&t, " local_mem_size %llu, not %llu;", (unsigned long long)w->local_mem_size, (unsigned long long)asked->local_mem_size);
    if (asked->meta_size != SYP_META_DEFAULT && asked->meta_size != w->meta_size)
        text_addf(&t, " meta_size %llu, not %llu;", (unsigned long long)w->meta_size, (unsigned long long)asked->meta_size);
    struct url u;
    int rc = asked->addr ? url_parse(asked->addr, &u) : SYP_OK;
    if (rc != SYP_OK) return rc;
    if (asked->addr && w->who.has_addr &&
        (strcmp(u.host, w->who.addr.host) != 0 || (u.port && u.port != w->who.addr.port)))
        text_addf(&t, " address %s:%d, not %s;", w->who.addr.host, (int)w->who.addr.port, asked->addr);
    if (asked->job && strcmp(asked->job, w->who.job) != 0) text_addf(&t, " job \"%s\", not \"%s\";", w->who.job, asked->job);
    if (!list[0]) return SYP_OK;
    return err_set(SYP_ESTATE, "init: already attached with%s call syp_finalize first", list);
}
