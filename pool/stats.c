/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing side of the statistics.
 *
 * Invariants: `current` always points to a complete segment, and memory it ever pointed to stays mapped (writable) for
 * the life of the process, so a writer that was delayed across stats_close writes into a page nobody reads, never into
 * a hole.  Sums are exact: a shard above 0 belongs to one thread record, and a record to one living thread (measured:
 * load and store 0.7 ns, an atomic add 5, on a line that two threads use 11). Must not know: what is counted.
 */
#include "pool/stats.h"

#include "pool/base/arena.h"
#include "pool/base/atomic.h"
#include "pool/base/log.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/base/text.h"
#include "pool/base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/* Of each kind: short operations, long ones. */
enum {
#define X(id, number, name) +1
    STATS_KINDS = 0 STATS_OP_LIST(X),
#undef X
    STATS_HISTS = 2 * STATS_KINDS
};

struct segment {
    struct stats_head head;
    _Alignas(64) struct stats_entry entries[STATS_N];
    _Alignas(CACHE_LINE) struct stats_op ops[STATS_OPS];
    _Alignas(CACHE_LINE) struct stats_hist hists[STATS_HISTS];
    struct stats_shard shards[STATS_SHARDS];
};
_Static_assert(sizeof(struct stats_head) % 8 == 0 && sizeof(struct stats_entry) % 8 == 0, "the tool reads whole words");
_Static_assert(_Alignof(struct segment) == CACHE_LINE, "shards lie on lines of their own");

/* One stats_open, newest on top. */
struct opened {
    struct opened *below;
    struct segment *segment; /* written while this is on top */
    struct segment *mapped;  /* place of a published segment, kept for the next use; NULL = never had one */
    unsigned number;         /* of the place */
    int fd;                  /* -1 = not published */
};

static struct segment process_page;
static struct opened *top, *spare; /* one thread at a time, as stats.h says */
static unsigned n_places;
/* Release in make_current; acquire in writers and readers, which then see a complete segment. */
static _Atomic(struct segment *) current = &process_page;
_Atomic(struct stats_shard *) stats_shards = process_page.shards;
static atom32 next_shard = 1; /* not given to a thread yet; relaxed: only the number counts */

static uint64_t segment_len(void) {
    return round_up(sizeof(struct segment), os_page_size());
}

static struct segment *segment_now(void) {
    return load_acquire(&current);
} /* pairs with make_current */

static void make_current(void) {
    struct segment *s = top ? top->segment : &process_page;
    store_release(&current, s);
    store_release(&stats_shards, s->shards);
}

/* ----------------------------------------------------------------------------------------------------- life */

static void fill_entries(struct segment *s) {
    static const struct {
        const char *name, *help;
        uint8_t kind, unit;
    } list[STATS_N] = {
#define X(id, name, kind, unit, help) [id] = {name, help, kind, unit},
        STATS_LIST(X)
#undef X
    };
    for (unsigned i = 0; i < STATS_N; i++) {
        struct stats_entry *e = &s->entries[i];
        text_copy(e->name, sizeof e->name, list[i].name);
        text_copy(e->help, sizeof e->help, list[i].help);
        e->kind = list[i].kind;
        e->unit = list[i].unit;
        e->slot = (uint16_t)i;
    }
}

/* What agrees about a broken group looks at the clock anyway. */
static uint32_t counted_every(unsigned kind) {
    return kind == STATS_OP_AGREE || kind == STATS_OP_SHRINK ? 1 : STATS_SAMPLED;
}

static void fill_hists(struct segment *s) {
    for (unsigned i = 0; i < STATS_HISTS; i++) {
        struct stats_hist *h = &s->hists[i];
        h->kind = 1 + i / 2;
        h->every = i % 2 ? 1 : counted_every(h->kind);
        h->least_bytes = i % 2 ? STATS_LONG : 0;
        h->below_bytes = i % 2 ? 0 : STATS_LONG;
    }
}

static void fill_head(struct segment *s, uint64_t total, const struct stats_identity *who) {
    struct stats_head *h = &s->head;
    struct utsname machine;
    h->version = STATS_VERSION;
    h->head_size = sizeof *h;
    h->total_size = total;
    h->n_entries = STATS_N;
    h->entry_size = sizeof(struct stats_entry);
    h->entries_off = offsetof(struct segment, entries);
    h->n_ops = STATS_OPS;
    h->op_size = sizeof(struct stats_op);
    h->ops_off = offsetof(struct segment, ops);
    h->n_hists = STATS_HISTS;
    h->hist_size = sizeof(struct stats_hist);
    h->hists_off = offsetof(struct segment, hists);
    h->n_shards = STATS_SHARDS;
    h->n_slots = STATS_N;
    h->shards_off = offsetof(struct segment, shards);
    h->shard_stride = sizeof(struct stats_shard);
    h->pid = os->pid();
    h->rank = who->rank;
    h->world = who->world;
    h->local_rank = who->local_rank;
    h->attach_ns = os->now();
    if (os->start_time(h->pid, &h->start_ticks) < 0) h->start_ticks = 0;
    text_copy(h->job, sizeof h->job, who->job ? who->job : "");
    text_copy(h->host, sizeof h->host, who->host ? who->host : uname(&machine) == 0 ? machine.nodename : "");
    text_copy(h->backend, sizeof h->backend, who->backend ? who->backend : "");
    store_relaxed(&h->state, STATS_JOINING); /* the magic number below says that all is there */
}

/* Last: a reader that meets the file half made sees no magic number.  Pairs with the acquire in the tool. */
static void show(struct segment *s) {
    __atomic_store_n(&s->head.magic, STATS_MAGIC, __ATOMIC_RELEASE);
}

/* The descriptor stays writable for nobody: our mapping is the last one that may write. */
static int seal(int fd) {
    int rc = os->file_seal(fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE);
    return rc == -EINVAL ? os->file_seal(fd, F_SEAL_SHRINK | F_SEAL_GROW) : rc; /* before Linux 5.1 */
}

/* A memory file mapped at a place that is kept for ever.  0, or -errno with the step that was refused. */
static int publish(struct opened *o, const struct stats_identity *who, const char **step) {
    uint64_t len = segment_len();
    void *out;
    int rc = 0;
    if (!o->mapped) {
        char name[40];
        text_format(name, sizeof name, "%s %u", STATS_SEGMENT_NAME, o->number);
        *step = "reserve address space";
        rc = os->reserve(name, len, os_page_size(), &out);
        if (rc < 0) return rc;
        o->mapped = out;
    }
    *step = "memfd_create";
    int fd = os->memfd(STATS_SEGMENT_NAME, 0);
    if (fd < 0) return fd;
    *step = "ftruncate";
    rc = os->file_resize(fd, len);
    if (rc >= 0) {
        *step = "fallocate";
        rc = os->file_commit(fd, 0, len);
    }
    if (rc >= 0) {
        *step = "mmap";
        rc = os->map(o->mapped, len, PROT_READ | PROT_WRITE, fd, 0, &out);
    }
    if (rc >= 0) {
        *step = "seal";
        rc = seal(fd);
    }
    if (rc < 0) {
        (void)os->close(fd);
        return rc;
    }
    fill_entries(o->mapped);
    fill_hists(o->mapped);
    fill_head(o->mapped, len, who);
    show(o->mapped);
    o->segment = o->mapped;
    o->fd = fd;
    return 0;
}

static struct opened *take_spare(void) {
    struct opened *o = spare;
    if (o) {
        spare = o->below;
    } else {
        o = arena_alloc(sizeof *o);
        if (!o) return NULL;
        o->number = n_places++;
    }
    o->segment = &process_page;
    o->fd = -1;
    return o;
}

/* The page of this process starts afresh, as a published segment does. */
static void clear_process_page(const struct stats_identity *who) {
    for (unsigned i = 0; i < STATS_SHARDS; i++)
        for (unsigned k = 0; k < STATS_N; k++)
            store_relaxed(&process_page.shards[i].value[k], 0);
    for (unsigned i = 0; i < STATS_OPS; i++)
        stats_op_group(i, 0, 0);
    for (unsigned i = 0; i < STATS_HISTS; i++) {
        store_relaxed(&process_page.hists[i].max_ns, 0);
        for (unsigned k = 0; k < STATS_BUCKETS; k++)
            store_relaxed(&process_page.hists[i].bucket[k], 0);
    }
    fill_head(&process_page, sizeof process_page, who);
}

int stats_open(int want_publish, const struct stats_identity *who) {
    const char *step = "memory for its record";
    struct opened *o = take_spare();
    int rc = !o ? -ENOMEM : want_publish ? publish(o, who, &step) : 0;
    if (rc < 0) {
        char why[96];
        struct text t = TEXT_INIT(why);
        text_add_errno(&t, -rc);
        log_warn(
            "publish statistics: %s: %s; the sympool tool will not see this process; SYMPOOL_STATS=off does not ask",
            step, why);
    }
    if (!o) return SYP_OK; /* stays with what is current */
    o->below = top;
    top = o;
    make_current();
    if (o->segment == &process_page) clear_process_page(who);
    return SYP_OK;
}

/* Programs close descriptors they do not know: only a file of our size and seals is ours to close. */
static void close_file(int fd) {
    uint64_t len;
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW;
    int have = os->file_seals(fd);
    if (have == -EBADF || have == -EINVAL || (have >= 0 && (have & seals) != seals)) return;
    if (os->file_size(fd, &len) == 0 && len != segment_len()) return;
    (void)os->close(fd);
}

void stats_close(void) {
    struct opened *o = top;
    if (!o) return;
    top = o->below;
    make_current();
    if (o->fd >= 0) close_file(o->fd);
    o->fd = -1;
    o->below = spare;
    spare = o;
}

/* -------------------------------------------------------------------------------------------------- writing */

/* Head words that change while readers look: the readers are other processes. */
void stats_set_state(enum stats_state state) {
    store_release(&segment_now()->head.state, (uint32_t)state);
}

void stats_set_job(uint64_t nonce) {
    __atomic_store_n(&segment_now()->head.job_nonce, nonce, __ATOMIC_RELAXED);
}

uint64_t stats_overhead(void) {
    return segment_now() == &process_page ? 0 : segment_len();
}

/* A shard for this thread if one is left; it stays with the thread's record (thread.h). */
void stats_add_first(enum stats_id id, uint64_t n) {
    struct thread *t = thread_self();
    if (t && load_relaxed(&next_shard) < STATS_SHARDS) {
        uint32_t number = add_relaxed(&next_shard, 1u);
        if (number < STATS_SHARDS) {
            t->shard = number;
            stats_add(id, n);
            return;
        }
    }
    (void)add_relaxed(&load_acquire(&stats_shards)[0].value[id], n);
}

static void raise_to(atom64 *peak, uint64_t v) {
    uint64_t seen = load_relaxed(peak);
    while (seen < v &&
           !atomic_compare_exchange_weak_explicit(peak, &seen, v, memory_order_relaxed, memory_order_relaxed)) {
    }
}

void stats_raise(enum stats_id id, uint64_t v) {
    raise_to(&segment_now()->shards[0].value[id], v);
}

uint64_t stats_read(enum stats_id id) {
    struct segment *s = segment_now();
    uint64_t sum = 0; /* gauges and peaks are zero in all shards but the first */
    for (unsigned i = 0; i < STATS_SHARDS; i++)
        sum += load_relaxed(&s->shards[i].value[id]);
    return sum;
}

/* ----------------------------------------------------------------------------------------------- operations */

/* Readers take a slot as valid when `turn` is even and unchanged around their loads.  The fields are stored with
 * release, so that whoever sees a new field sees the odd turn; the even one is stored last.  Pairs with the tool's read
 * of an operation. */
static struct stats_op *op_write(unsigned slot) {
    if (slot >= STATS_OPS) return NULL;
    struct stats_op *op = &segment_now()->ops[slot];
    store_relaxed(&op->turn, load_relaxed(&op->turn) | 1);
    return op;
}

static void op_written(struct stats_op *op) {
    store_release(&op->turn, load_relaxed(&op->turn) + 1);
}

void stats_op_group(unsigned slot, uint64_t comm_id, uint64_t n_members) {
    struct stats_op *op = op_write(slot);
    if (!op) return;
    store_release(&op->comm_id, comm_id);
    store_release(&op->n_members, n_members);
    store_release(&op->kind, STATS_OP_NONE);
    store_release(&op->sequence, 0);
    store_release(&op->bytes, 0);
    store_release(&op->start_ns, 0);
    store_release(&op->end_ns, 0);
    store_release(&op->waits_for, 0);
    store_release(&op->result, 0);
    op_written(op);
}

void stats_op_quick(unsigned slot, enum stats_op_kind kind, uint64_t sequence, uint64_t bytes) {
    struct stats_op *op = op_write(slot);
    if (!op) return;
    store_release(&op->kind, (uint64_t)kind);
    store_release(&op->sequence, sequence);
    store_release(&op->bytes, bytes);
    store_release(&op->start_ns, 0);
    store_release(&op->end_ns, STATS_NO_TIME);
    store_release(&op->waits_for, 0);
    store_release(&op->result, 0);
    op_written(op);
}

void stats_op_begin(unsigned slot, enum stats_op_kind kind, uint64_t sequence, uint64_t bytes, uint64_t now) {
    struct stats_op *op = op_write(slot);
    if (!op) return;
    store_release(&op->kind, (uint64_t)kind);
    store_release(&op->sequence, sequence);
    store_release(&op->bytes, bytes);
    store_release(&op->start_ns, now);
    store_release(&op->end_ns, 0);
    store_release(&op->waits_for, 0);
    store_release(&op->result, 0);
    op_written(op);
}

void stats_op_started(unsigned slot, uint64_t now) {
    if (slot < STATS_OPS) store_relaxed(&segment_now()->ops[slot].start_ns, now); /* likewise */
}

void stats_op_waits(unsigned slot, int rank) {
    if (slot < STATS_OPS) /* one word, at every look of a wait: it needs no turn */
        store_relaxed(&segment_now()->ops[slot].waits_for, rank < 0 ? 0 : (uint64_t)rank + 1);
}

void stats_op_end(unsigned slot, int result, uint64_t now) {
    struct stats_op *op = op_write(slot);
    if (!op) return;
    store_release(&op->waits_for, 0);
    store_release(&op->result, result < 0 ? (uint64_t)-result : 0);
    store_release(&op->end_ns, now);
    op_written(op);
}

/* Threads may be in operations of different groups at once, hence the atomic adds.  The words pair with the tool's loads: sums only. */
void stats_latency(enum stats_op_kind kind, uint64_t bytes, uint64_t ns) {
    unsigned at = 2 * ((unsigned)kind - 1) + (bytes >= STATS_LONG), bucket = 63 - (unsigned)__builtin_clzll(ns | 1);
    if (kind == STATS_OP_NONE || at >= STATS_HISTS) return;
    struct stats_hist *h = &segment_now()->hists[at];
    (void)add_relaxed(&h->bucket[bucket < STATS_BUCKETS ? bucket : STATS_BUCKETS - 1], 1);
    raise_to(&h->max_ns, ns);
}
