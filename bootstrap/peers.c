/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The windows of address space over all ranks' segments, this rank's own small segments, and the mapping of the peers'.
 *
 *   reserve -> (own pool opened at peers_pool_place) -> open_segments -> map; undone in reverse, from any state
 *
 * Invariants: a window is n strides long and every segment lies at rank * stride, so that an address of a peer is one
 * add.  Outside what is mapped, a window is inaccessible.  A peer's descriptor is mapped only after its seals and size
 * were checked, and its control head is copied field by field, then compared.  Must not know: what collectives keep in
 * the segments.
 */
#include "bootstrap/peers.h"

#include "bootstrap/crowd.h"
#include "bootstrap/fdpass.h"
#include "pool/addrmap.h"
#include "pool/base/arena.h"
#include "pool/base/headroom.h"
#include "pool/base/limits.h"
#include "pool/base/log.h"
#include "pool/base/memory_file.h"
#include "pool/base/status.h"
#include "pool/base/text.h"
#include "pool/topo/topo.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010 /* Linux 5.1 */
#endif

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define SMALL_GRAIN (64ull << 10) /* of control and exchange strides: a multiple of every page size */
#define SIZE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

/* --------------------------------------------------------------------------------------------------- windows */

static int reserve_window(const char *name, const char *what, int n, uint64_t stride, uint64_t align, char **out) {
    void *at = NULL;
    uint64_t len;
    int r = -ENOMEM;
    if (!__builtin_mul_overflow(stride, (uint64_t)n, &len)) r = os->reserve(name, len, align, &at);
    if (r >= 0) {
        *out = at;
        return SYP_OK;
    }
    err_sys(SYP_ENOMEM, -r, "reserve address space for the %s of %d ranks, %B each (lower SYMPOOL_LOCAL_MEM_SIZE?)", what, n,
            (unsigned long long)stride);
    return err_limits(r);
}

static void release_window(char **window, int n, uint64_t stride) {
    if (*window) (void)os->release(*window, stride * (uint64_t)n);
    *window = NULL;
}

/* Sizes of one rank as this build understands them; a difference would mean that the body is laid out differently over
 * there. */
static int check_sizes(const struct peers *p, const struct roster *roster, int rank) {
    const struct roster_entry *e = &roster->rank[rank];
    const struct peers_layout *layout = &p->layout;
    uint64_t control = sizeof(struct control_head) + layout->control_body;
    if (e->control_len == control && e->exchange_len == layout->exchange_len && e->data_len > 0) return SYP_OK;
    err_set(SYP_EJOIN,
            "reserve windows: rank %d has control, exchange and data segments of %llu, %llu and %llu bytes, rank %d "
            "%llu, %llu and more than 0; run one build with the same SYMPOOL_* on all ranks",
            rank, (unsigned long long)e->control_len, (unsigned long long)e->exchange_len,
            (unsigned long long)e->data_len, p->me, (unsigned long long)control,
            (unsigned long long)layout->exchange_len);
    return err_peer(rank, e->pid);
}

static int choose_strides(struct peers *p) {
    uint64_t data_len = p->layout.max_data_len;
    for (int r = 0; r < p->n; r++) {
        int rc = check_sizes(p, &p->roster, r);
        if (rc != SYP_OK) return rc;
        if (p->roster.rank[r].data_len > data_len) data_len = p->roster.rank[r].data_len;
        p->n_local += roster_same_host(&p->roster, r, p->me);
    }
    if (data_len > UINT64_MAX - ADDRMAP_GRAIN)
        return err_set(SYP_EJOIN, "reserve windows: the roster names a pool of %llu bytes",
                       (unsigned long long)data_len);
    p->data_stride = round_up(data_len, ADDRMAP_GRAIN);
    p->control_stride = round_up(sizeof(struct control_head) + p->layout.control_body, SMALL_GRAIN);
    p->exchange_stride = round_up(p->layout.exchange_len, SMALL_GRAIN);
    return SYP_OK;
}

int peers_reserve(struct peers *p, const struct roster *roster, int me, const struct peers_layout *layout) {
    memset(p, 0, sizeof *p);
    p->control.fd = p->exchange.fd = -1;
    if (roster->n < 1 || roster->n > MAX_WORLD || me < 0 || me >= roster->n)
        return err_set(SYP_EINVAL, "reserve windows: rank %d of %d; the world has 1 to %d ranks", me, roster->n,
                       MAX_WORLD);
    p->roster = *roster;
    p->n = roster->n;
    p->me = me;
    p->layout = *layout;
    p->cap = layout->max_ranks > p->n ? layout->max_ranks : p->n;
    int rc = choose_strides(p);
    if (rc == SYP_OK) {
        p->peer = map_alloc(sizeof *p->peer * (size_t)p->cap);
        if (!p->peer) rc = err_set(SYP_ENOMEM, "reserve windows: no memory for the table of %d ranks", p->n);
    }
    if (rc == SYP_OK)
        rc = reserve_window("sympool data", "pools", p->cap, p->data_stride, ADDRMAP_GRAIN, &p->data_window);
    if (rc == SYP_OK)
        rc = reserve_window("sympool control", "control segments", p->cap, p->control_stride, SMALL_GRAIN,
                            &p->control_window);
    if (rc == SYP_OK)
        rc = reserve_window("sympool exchange", "exchange segments", p->cap, p->exchange_stride, SMALL_GRAIN,
                            &p->exchange_window);
    if (rc != SYP_OK) peers_release(p);
    return rc;
}

void *peers_pool_place(const struct peers *p) {
    return p->data_window + (uint64_t)p->me * p->data_stride;
}

void peers_release(struct peers *p) {
    if (!p || !p->peer) {
        if (p) p->n = 0;
        return;
    }
    peers_close_segments(p);
    release_window(&p->data_window, p->cap, p->data_stride);
    release_window(&p->control_window, p->cap, p->control_stride);
    release_window(&p->exchange_window, p->cap, p->exchange_stride);
    map_free(p->peer, sizeof *p->peer * (size_t)p->cap);
    p->peer = NULL;
    p->n = 0;
}

/* Memory inside a window becomes inaccessible again.  Should the system refuse (its number of mappings is limited), the
 * release of the window takes it away. */
static void unmap_inside(void *at, uint64_t len) {
    void *out;
    (void)os->map(at, len, PROT_NONE, -1, 0, &out);
}

/* ---------------------------------------------------------------------------------------------- own segments */

/* Memory for a part of it: by the mapping when the program has closed our descriptor, or the file system cannot. */
static int commit_segment(const struct segment *s, uint64_t off, uint64_t len, int is_ours) {
    int rc = headroom_check(len, NULL);
    if (rc != SYP_OK) return rc;
    const char *call = "fallocate";
    int r = is_ours ? os->file_commit(s->fd, off, len) : -EBADF;
    if (r == -EBADF || r == -EOPNOTSUPP || r == -ENOSYS) {
        call = "madvise(MADV_POPULATE_WRITE)";
        r = os->advise((char *)s->base + off, len, MADV_POPULATE_WRITE);
    }
    if (r >= 0) return SYP_OK;
    rc = err_sys(SYP_ENOMEM, -r, "commit %B: %s", (unsigned long long)len, call);
    (void)memory_file_say_space(s->fd);
    return rc;
}

/* Make, size, map and remember; what was done so far is in *s, for drop_segment. */
static int make_segment(struct segment *s, const char *name, uint64_t len, char *at, uint64_t commit, const struct peers_layout *layout) {
    const char *call;
    int r = memory_file_open(name, 0, &call);
    if (r < 0) {
        err_sys(SYP_ESYS, -r, "make the memory file %s: %s", name, call);
        return err_limits(r);
    }
    s->fd = r;
    s->len = len;
    r = os->file_resize(s->fd, len);
    if (r < 0) {
        err_sys(SYP_ESYS, -r, "size the memory file %s to %B", name, (unsigned long long)len);
        return err_limits(r);
    }
    void *out;
    r = os->map(at, len, PROT_READ | PROT_WRITE, s->fd, 0, &out);
    if (r < 0) {
        err_sys(SYP_ENOMEM, -r, "map %B of %s", (unsigned long long)len, name);
        return err_limits(r);
    }
    s->base = at;
    if (layout->nodes) (void)topo_bind(at, len, layout->nodes, layout->max_node); /* why it was refused is said of the pool */
    int rc = commit ? commit_segment(s, 0, commit, 1) : SYP_OK;
    if (rc != SYP_OK) return err_prefix("%s", name);
    return SYP_OK;
}

/* sealed: it was completed, so that what is ours can be told from what is not. */
static void drop_segment(struct segment *s, int sealed) {
    if (s->base) unmap_inside(s->base, s->len);
    if (s->fd >= 0 && (!sealed || memory_file_is_ours(s->fd, s->len, SIZE_SEALS))) (void)os->close(s->fd);
    *s = (struct segment){.fd = -1};
}

/* Before Linux 5.1 nothing forbids later writable mappings: then the peers get a descriptor that cannot write. */
static int replace_by_read_only(struct segment *s) {
    char path[32];
    text_format(path, sizeof path, "/proc/self/fd/%d", s->fd);
    int fd = os->open_read(path);
    if (fd < 0)
        return err_sys(SYP_ESYS, -fd, "open the control segment read-only through %s (/proc must be mounted)", path);
    (void)os->close(s->fd);
    s->fd = fd;
    log_info("the control segment cannot be sealed against writing: peers get read-only descriptors of it");
    return SYP_OK;
}

static int seal_control(struct segment *s) {
    int r = os->file_seal(s->fd, SIZE_SEALS | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL);
    if (r >= 0) return SYP_OK;
    if (r == -EINVAL || r == -EPERM) r = memory_file_seal(s->fd, SIZE_SEALS | F_SEAL_SEAL);
    if (r >= 0) return replace_by_read_only(s);
    return err_sys(SYP_ESYS, -r, "seal the control segment");
}

/* Of everything that says where things lie in a control segment. */
static uint64_t layout_digest(const struct peers *p) {
    const uint64_t part[] = {sizeof(struct control_head),
                             offsetof(struct control_head, life),
                             offsetof(struct control_head, notice_epoch),
                             offsetof(struct control_head, dead),
                             p->roster.rank[p->me].control_len,
                             p->roster.rank[p->me].exchange_len};
    uint64_t h = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < sizeof part / sizeof part[0]; i++)
        h = (h ^ part[i]) * 0x100000001b3ull;
    return h;
}

static void fill_head(struct peers *p) {
    const struct roster_entry *e = &p->roster.rank[p->me];
    struct control_head *c = p->control.base;
    c->magic = CONTROL_MAGIC;
    c->layout = layout_digest(p);
    c->nonce = p->roster.nonce;
    c->rank = p->me;
    c->pid = e->pid;
    c->generation = e->generation;
    c->body_off = sizeof *c;
    crowd_publish(c);
    p->self = c;
}

int peers_open_segments(struct peers *p, struct region *own) {
    const struct roster_entry *e = &p->roster.rank[p->me];
    uint64_t me = (uint64_t)p->me;
    if (own->len != e->data_len || (void *)own->mem.base != peers_pool_place(p))
        return err_set(SYP_EINVAL, "open segments: the pool has %llu bytes at %p, the roster says %llu at %p",
                       (unsigned long long)own->len, (void *)own->mem.base, (unsigned long long)e->data_len,
                       peers_pool_place(p));
    uint64_t first = p->layout.control_first ? sizeof(struct control_head) + p->layout.control_first : e->control_len;
    int rc = make_segment(&p->control, "sympool.control", e->control_len, p->control_window + me * p->control_stride, first, &p->layout);
    if (rc == SYP_OK) {
        fill_head(p);
        rc = seal_control(&p->control);
    }
    if (rc == SYP_OK)
        rc = make_segment(&p->exchange, "sympool.exchange", e->exchange_len,
                          p->exchange_window + me * p->exchange_stride, 0, &p->layout);
    if (rc == SYP_OK) {
        int r = memory_file_seal(p->exchange.fd, SIZE_SEALS | F_SEAL_SEAL);
        if (r < 0) rc = err_sys(SYP_ESYS, -r, "seal the exchange segment");
    }
    if (rc != SYP_OK) {
        peers_close_segments(p);
        return rc;
    }
    p->region = own;
    p->peer[p->me] = (struct peer){.control = p->self,
                                   .data = own->mem.base,
                                   .exchange = p->exchange.base,
                                   .data_len = own->len,
                                   .exchange_len = p->exchange.len,
                                   .reach = REACH_LOADSTORE};
    return SYP_OK;
}

void peers_close_segments(struct peers *p) {
    if (!p || !p->peer) return;
    peers_unmap(p);
    drop_segment(&p->exchange, p->region != NULL);
    drop_segment(&p->control, p->region != NULL);
    p->peer[p->me] = (struct peer){0};
    p->self = NULL;
    p->region = NULL;
}

/* -------------------------------------------------------------------------------------------------- the peers */

static int distrust(const struct peers *p, int rank, const char *what, uint64_t found, uint64_t wanted) {
    int pid = p->roster.rank[rank].pid;
    const char *fmt = "map the memory of rank %d (pid %d): its %s is %llu, expected %llu; run one build on all ranks";
    if (wanted >> 48) /* a digest or a magic */
        fmt = "map the memory of rank %d (pid %d): its %s is 0x%llx, expected 0x%llx; run one build on all ranks";
    err_set(SYP_EJOIN, fmt, rank, pid, what, (unsigned long long)found, (unsigned long long)wanted);
    return err_peer(rank, pid);
}

static int check_file(const struct peers *p, int rank, int fd, const char *size_name, const char *seal_name,
                      uint64_t len) {
    uint64_t found = 0;
    int seals = os->file_seals(fd);
    int r = seals < 0 ? seals : os->file_size(fd, &found);
    if (r < 0) {
        err_sys(SYP_EJOIN, -r, "map the memory of rank %d: a descriptor it sent is no memory file", rank);
        return err_peer(rank, p->roster.rank[rank].pid);
    }
    int excused = (p->roster.rank[rank].flags & ROSTER_UNSEALED) && memory_file_unsealable(seals);
    if ((seals & SIZE_SEALS) != SIZE_SEALS && !excused) return distrust(p, rank, seal_name, (uint64_t)seals, SIZE_SEALS);
    return found == len ? SYP_OK : distrust(p, rank, size_name, found, len);
}

/* Nobody but the owner may be able to write it: sealed so, or a descriptor that refuses. */
static int check_single_writer(const struct peers *p, int rank, int fd, uint64_t len) {
    void *out;
    int seals = os->file_seals(fd);
    if (seals >= 0 && (seals & F_SEAL_FUTURE_WRITE)) return SYP_OK;
    int r = os->map(NULL, len, PROT_READ | PROT_WRITE, fd, 0, &out);
    if (r == -EACCES || r == -EPERM) return SYP_OK;
    if (r >= 0) (void)os->unmap(out, len);
    return distrust(p, rank, "control segment's seal against writing", 0, F_SEAL_FUTURE_WRITE);
}

static int map_small(const struct peers *p, int rank, const char *what, void *at, uint64_t len, int prot, int fd) {
    void *out;
    int r = os->map(at, len, prot, fd, 0, &out);
    if (r >= 0) return SYP_OK;
    err_sys(SYP_ENOMEM, -r, "map the %s segment of rank %d, %B", what, rank, (unsigned long long)len);
    err_limits(r);
    return err_peer(rank, p->roster.rank[rank].pid);
}

/* The head as the peer wrote it before it sent the descriptor; each word is read once. */
static int check_head(const struct peers *p, int rank, const struct control_head *c) {
    const struct roster_entry *e = &p->roster.rank[rank];
    const struct {
        const char *name;
        uint64_t found, wanted;
    } field[] = {
        {"control magic", *(const volatile uint64_t *)&c->magic, CONTROL_MAGIC},
        {"control layout", *(const volatile uint64_t *)&c->layout, layout_digest(p)},
        {"job nonce", *(const volatile uint64_t *)&c->nonce, p->roster.nonce},
        {"rank", (uint32_t) * (const volatile int32_t *)&c->rank, (uint32_t)rank},
        {"process id", (uint32_t) * (const volatile int32_t *)&c->pid, (uint32_t)e->pid},
        {"generation", *(const volatile uint32_t *)&c->generation, e->generation},
        {"control body offset", *(const volatile uint32_t *)&c->body_off, sizeof *c},
    };
    for (size_t i = 0; i < sizeof field / sizeof field[0]; i++)
        if (field[i].found != field[i].wanted) return distrust(p, rank, field[i].name, field[i].found, field[i].wanted);
    return SYP_OK;
}

/* Other ranks' memory has no place in this process's core dump (the backend sees to the data).  Refused: the dump is
 * larger, nothing else. */
static void keep_out_of_dumps(void *at, uint64_t len) {
    int r = os->advise(at, round_up(len, os_page_size()), MADV_DONTDUMP);
    if (r < 0) log_debug("keep memory of a peer out of core dumps: refused with errno %d", -r);
}

static int map_peer_control(struct peers *p, int rank, int fd) {
    uint64_t len = p->roster.rank[rank].control_len;
    char *at = p->control_window + (uint64_t)rank * p->control_stride;
    int rc = check_file(p, rank, fd, "control segment's size", "control segment's seals", len);
    if (rc == SYP_OK) rc = check_single_writer(p, rank, fd, len);
    if (rc == SYP_OK) rc = map_small(p, rank, "control", at, len, PROT_READ, fd);
    if (rc != SYP_OK) return rc;
    p->peer[rank].control = (const struct control_head *)(const void *)at;
    keep_out_of_dumps(at, len);
    return check_head(p, rank, p->peer[rank].control);
}

static int map_peer_exchange(struct peers *p, int rank, int fd) {
    uint64_t len = p->roster.rank[rank].exchange_len;
    char *at = p->exchange_window + (uint64_t)rank * p->exchange_stride;
    int rc = check_file(p, rank, fd, "exchange segment's size", "exchange segment's seals", len);
    if (rc == SYP_OK) rc = map_small(p, rank, "exchange", at, len, PROT_READ | PROT_WRITE, fd);
    if (rc != SYP_OK) return rc;
    p->peer[rank].exchange = at;
    p->peer[rank].exchange_len = len;
    keep_out_of_dumps(at, len);
    return SYP_OK;
}

static void unmap_peer(struct peers *p, int rank) {
    struct peer *peer = &p->peer[rank];
    if (peer->data) (void)p->region->backend->unimport(&peer->imported);
    if (peer->control) unmap_inside((void *)(uintptr_t)peer->control, sizeof(struct control_head) + p->layout.control_body);
    if (peer->exchange) unmap_inside(peer->exchange, peer->exchange_len);
    *peer = (struct peer){0};
}

static int map_peer_data(struct peers *p, int rank, int fd) {
    struct peer *peer = &p->peer[rank];
    uint64_t len = p->roster.rank[rank].data_len;
    if (!(p->roster.rank[rank].flags & ROSTER_UNSEALED) && memory_file_unsealable(os->file_seals(fd)))
        return distrust(p, rank, "pool's seals", F_SEAL_SEAL, SIZE_SEALS);
    int rc = p->region->backend->import_fd(&peer->imported, fd, len, p->data_window + (uint64_t)rank * p->data_stride);
    if (rc != SYP_OK) {
        err_prefix("map the pool of rank %d (pid %d)", rank, p->roster.rank[rank].pid);
        if (rc == SYP_EINVAL) err_record()->code = SYP_EJOIN; /* not our caller's argument: the peer's file */
        return err_peer(rank, p->roster.rank[rank].pid);
    }
    peer->data = peer->imported.base;
    peer->data_len = len;
    return SYP_OK;
}

static int take_peer(void *arg, int rank, const int fd[FDS_PER_RANK]) {
    struct peers *p = arg;
    if (p->peer[rank].reach == REACH_LOADSTORE) return SYP_OK; /* the process that is mapped already */
    unmap_peer(p, rank);                                       /* what a failed try has left */
    int rc = map_peer_data(p, rank, fd[0]);
    if (rc == SYP_OK) rc = map_peer_control(p, rank, fd[1]);
    if (rc == SYP_OK) rc = map_peer_exchange(p, rank, fd[2]);
    if (rc == SYP_OK) p->peer[rank].reach = REACH_LOADSTORE;
    return rc;
}

static int exchange(struct peers *p, uint64_t deadline) {
    const int mine[FDS_PER_RANK] = {p->region->mem.fd, p->control.fd, p->exchange.fd};
    int rc = fdpass_exchange(&p->roster, p->me, mine, take_peer, p, deadline);
    if (rc == SYP_OK) crowd_count(p);
    return rc;
}

int peers_map(struct peers *p, uint64_t deadline) {
    if (!p->self || !p->region) return err_set(SYP_ESTATE, "map the peers: this rank's own segments are not open");
    int rc = exchange(p, deadline);
    if (rc != SYP_OK) {
        struct syp_error why = *err_record(); /* the undo may fail at something, too */
        peers_unmap(p);
        *err_record() = why;
    }
    return rc;
}

/* ------------------------------------------------------------------------------------------------- later ranks */

int peers_process_lives(const struct roster_entry *e) {
    uint64_t ticks;
    return os->process_alive(e->pid) == 1 && os->start_time(e->pid, &ticks) == 0 && ticks == e->start_ticks;
}

int peers_same_process(const struct peers *p, const struct roster *roster, int rank) {
    if (rank >= p->n || rank >= roster->n) return 0;
    const struct roster_entry *was = &p->roster.rank[rank], *is = &roster->rank[rank];
    return was->pid == is->pid && was->start_ticks == is->start_ticks && was->generation == is->generation;
}

/* Orderly, or by an attach that failed, maybe the same process has come back since: it unmapped our memory before it said so. */
static int has_left(const struct peers *p, const struct roster *roster, int rank) {
    const struct roster_entry *was = &p->roster.rank[rank], *is = &roster->rank[rank];
    const struct control_head *c = p->peer[rank].control;
    if (c && (load_acquire((atom32 *)&c->life) & LIFE_LEFT)) return 1; /* pairs with keeper_run */
    return !c && was->pid == is->pid && was->start_ticks == is->start_ticks;
}

/* A process that is dying is waited for; one that lives would go on storing into memory that we had lost sight of. */
static int wait_gone(const struct peers *p, const struct roster *roster, int rank, uint64_t deadline) {
    const struct roster_entry *e = &p->roster.rank[rank];
    if (has_left(p, roster, rank)) return SYP_OK;
    while (peers_process_lives(e)) {
        const struct control_head *c = p->peer[rank].control;
        int dying = !c || (load_acquire((atom32 *)&c->life) & LIFE_DIED); /* by the kernel; one that was never mapped may be, too */
        if (!dying || os->now() >= deadline) {
            err_set(SYP_EBUSY, "rejoin: a replacement of rank %d has come, but its former process (pid %d) still lives; end that first", rank, e->pid);
            return err_peer(rank, e->pid);
        }
        os->sleep(NS_PER_MS);
    }
    return SYP_OK;
}

int peers_check_roster(const struct peers *p, const struct roster *roster, uint64_t deadline) {
    if (roster->n > p->cap)
        return err_set(SYP_EINVAL, "rejoin: %d ranks, but rank %d has address space for %d; set SYMPOOL_MAX_WORLD on all ranks", roster->n, p->me,
                       p->cap);
    for (int r = 0; r < roster->n; r++) {
        if (peers_same_process(p, roster, r)) continue;
        int rc = check_sizes(p, roster, r);
        if (rc == SYP_OK && r < p->n) rc = wait_gone(p, roster, r, deadline);
        if (rc != SYP_OK) return rc;
        if (roster->rank[r].data_len <= p->data_stride) continue;
        err_set(SYP_EINVAL, "rejoin: the pool of rank %d has %B, rank %d has address space for %B each; set SYMPOOL_MAX_LOCAL_MEM_SIZE on all ranks, or "
                            "give the replacement the size of the rank it replaces", r, (unsigned long long)roster->rank[r].data_len, p->me,
                (unsigned long long)p->data_stride);
        return err_peer(r, roster->rank[r].pid);
    }
    return SYP_OK;
}

int peers_renew(struct peers *p, const struct roster *roster, uint64_t deadline) {
    for (int r = 0; r < p->n; r++) /* also those beyond the new roster, of a rejoin that failed */
        if (!peers_same_process(p, roster, r)) unmap_peer(p, r);
    p->roster = *roster;
    p->n = roster->n;
    p->n_local = 0;
    for (int r = 0; r < p->n; r++)
        p->n_local += roster_same_host(&p->roster, r, p->me);
    return exchange(p, deadline);
}

/* Of whole pages, which is how the mapping is asked. */
static int commit_part(const struct segment *s, uint64_t off, uint64_t len) {
    uint64_t begin = round_down(off, os_page_size()), end = round_up(off + len, os_page_size());
    if (end > s->len) end = s->len;
    return commit_segment(s, begin, end - begin, memory_file_is_ours(s->fd, s->len, SIZE_SEALS));
}

int peers_commit_exchange(const struct peers *p, uint64_t off, uint64_t len) {
    return commit_part(&p->exchange, off, len);
}

int peers_commit_control(const struct peers *p, uint64_t off, uint64_t len) {
    return commit_part(&p->control, sizeof(struct control_head) + off, len);
}

void peers_unmap(struct peers *p) {
    if (!p || !p->peer || !p->region) return;
    for (int r = 0; r < p->n; r++)
        if (r != p->me) unmap_peer(p, r);
}

uint64_t peers_window_digest(const struct peers *p) {
    const uint64_t part[] = {(uintptr_t)p->data_window,     p->data_stride,
                             (uintptr_t)p->control_window,  p->control_stride,
                             (uintptr_t)p->exchange_window, p->exchange_stride};
    uint64_t h = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < sizeof part / sizeof part[0]; i++)
        h = (h ^ part[i]) * 0x100000001b3ull;
    return h;
}
