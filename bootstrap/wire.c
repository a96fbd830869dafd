/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames: fixed little-endian fields through a bounded cursor.
 *
 * Invariants: no read or write past the cursor's end; nothing is allocated before the length was checked; every field
 * that is used as an index, a count or a size later is range-checked here.  Must not know: sockets, states of the join.
 */
#include "bootstrap/wire.h"

#include "bootstrap/cache_group.h"
#include "pool/base/arena.h"
#include "pool/base/status.h"

#include <string.h>

/* No length in a hello or a roster may exceed this, so that sums of two and products with 1,024 cannot overflow. */
#define LENGTH_MAX (1ull << 46)
/* Bytes of a roster entry without its address text. */
#define ENTRY_FIXED 98u

static uint8_t *take(struct wire *w, size_t n) {
    if (w->bad || n > w->cap - w->pos) {
        w->bad = 1;
        return NULL;
    }
    uint8_t *p = w->buf + w->pos;
    w->pos += n;
    return p;
}

static void put(struct wire *w, uint64_t v, size_t n) {
    uint8_t *p = take(w, n);
    for (size_t i = 0; p && i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get(struct wire *w, size_t n) {
    const uint8_t *p = take(w, n);
    uint64_t v = 0;
    for (size_t i = 0; p && i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

void wire_put_u16(struct wire *w, uint16_t v) {
    put(w, v, 2);
}
void wire_put_u32(struct wire *w, uint32_t v) {
    put(w, v, 4);
}
void wire_put_u64(struct wire *w, uint64_t v) {
    put(w, v, 8);
}
uint16_t wire_get_u16(struct wire *w) {
    return (uint16_t)get(w, 2);
}
uint32_t wire_get_u32(struct wire *w) {
    return (uint32_t)get(w, 4);
}
uint64_t wire_get_u64(struct wire *w) {
    return get(w, 8);
}

static void put_i32(struct wire *w, int32_t v) {
    put(w, (uint32_t)v, 4);
}
static int32_t get_i32(struct wire *w) {
    return (int32_t)wire_get_u32(w);
}

void wire_put_text(struct wire *w, const char *s) {
    size_t n = strlen(s);
    if (n > UINT16_MAX) w->bad = 1;
    wire_put_u16(w, (uint16_t)n);
    uint8_t *p = take(w, n);
    if (p) memcpy(p, s, n);
}

void wire_get_text(struct wire *w, char *out, size_t cap) {
    size_t n = wire_get_u16(w);
    out[0] = 0;
    if (n >= cap) w->bad = 1;
    const uint8_t *p = take(w, n);
    if (!p) return;
    if (memchr(p, 0, n)) {
        w->bad = 1;
        return;
    }
    memcpy(out, p, n);
    out[n] = 0;
}

void wire_put_head(struct wire *w, const struct wire_head *h) {
    wire_put_u64(w, WIRE_MAGIC);
    wire_put_u16(w, WIRE_VERSION);
    wire_put_u16(w, h->type);
    wire_put_u32(w, h->flags);
    wire_put_u32(w, h->length);
    wire_put_u64(w, h->sequence);
}

int wire_get_head(struct wire *w, struct wire_head *h, uint32_t most) {
    uint64_t magic = wire_get_u64(w);
    uint16_t version = wire_get_u16(w);
    h->type = wire_get_u16(w);
    h->flags = wire_get_u32(w);
    h->length = wire_get_u32(w);
    h->sequence = wire_get_u64(w);
    if (w->bad) return err_set(SYP_EJOIN, "frame: cut within its head");
    if (magic != WIRE_MAGIC) return err_set(SYP_EJOIN, "frame: not sent by sympool");
    if (version != WIRE_VERSION)
        return err_set(SYP_EJOIN, "frame: wire version %u, this library speaks %u; use one sympool on all ranks",
                       version, WIRE_VERSION);
    if (h->type < WIRE_HELLO || h->type > WIRE_GREET) return err_set(SYP_EJOIN, "frame: unknown type %u", h->type);
    if (h->flags & ~WIRE_SEALED) return err_set(SYP_EJOIN, "frame: unknown flags 0x%x", h->flags);
    if (h->length > most || h->length > WIRE_MAX)
        return err_set(SYP_EJOIN, "frame: length %u, at most %u are accepted here", h->length,
                       most < WIRE_MAX ? most : WIRE_MAX);
    if (h->sequence && h->type != WIRE_DATA)
        return err_set(SYP_EJOIN, "frame: type %u has a sequence number, which only data has", h->type);
    return 0;
}

void wire_put_greet(struct wire *w, const uint8_t nonce[WIRE_NONCE]) {
    uint8_t *p = take(w, WIRE_NONCE);
    if (p) memcpy(p, nonce, WIRE_NONCE);
}

int wire_get_greet(struct wire *w, uint8_t nonce[WIRE_NONCE]) {
    const uint8_t *p = take(w, WIRE_NONCE);
    if (!p || w->pos != w->cap) return err_set(SYP_EJOIN, "greeting: not %u bytes", WIRE_NONCE);
    memcpy(nonce, p, WIRE_NONCE);
    return 0;
}

int wire_job_ok(const char *job) {
    for (const char *p = job; *p; p++) {
        int letter = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9');
        if (!letter && !strchr("._:-", *p)) return 0;
    }
    return 1;
}

/* The part of an entry that a rank knows of itself. */
static void put_self(struct wire *w, const struct roster_entry *e) {
    put_i32(w, e->rank);
    put_i32(w, e->pid);
    wire_put_u32(w, e->uid);
    wire_put_u64(w, e->start_ticks);
    wire_put_u64(w, e->host_id[0]);
    wire_put_u64(w, e->host_id[1]);
    wire_put_u64(w, e->local_mem_size);
    wire_put_u64(w, e->meta_size);
    wire_put_u64(w, e->data_len);
    wire_put_u64(w, e->control_len);
    wire_put_u64(w, e->exchange_len);
    wire_put_u32(w, e->flags);
    put_i32(w, e->cache_group);
}

static const char *get_self(struct wire *w, struct roster_entry *e) {
    e->rank = get_i32(w);
    e->pid = get_i32(w);
    e->uid = wire_get_u32(w);
    e->start_ticks = wire_get_u64(w);
    e->host_id[0] = wire_get_u64(w);
    e->host_id[1] = wire_get_u64(w);
    e->local_mem_size = wire_get_u64(w);
    e->meta_size = wire_get_u64(w);
    e->data_len = wire_get_u64(w);
    e->control_len = wire_get_u64(w);
    e->exchange_len = wire_get_u64(w);
    e->flags = wire_get_u32(w);
    e->cache_group = get_i32(w);
    if (w->bad) return "cut short";
    if (e->rank < 0 || e->rank >= MAX_WORLD) return "rank out of range";
    if (e->pid <= 0) return "process id out of range";
    if (e->local_mem_size > LENGTH_MAX || e->data_len > LENGTH_MAX || e->control_len > LENGTH_MAX ||
        e->exchange_len > LENGTH_MAX)
        return "a length out of range";
    if (e->flags & ~ROSTER_FLAGS) return "unknown flags";
    if (e->cache_group < NO_CACHE_GROUP) return "cache group out of range";
    if (e->meta_size > e->local_mem_size) return "meta_size above local_mem_size";
    return NULL;
}

void wire_put_hello(struct wire *w, const struct hello *h) {
    wire_put_u32(w, h->library);
    wire_put_u64(w, h->layout);
    put_i32(w, h->rank);
    put_i32(w, h->n_ranks);
    wire_put_text(w, h->job);
    put_self(w, &h->self);
    wire_put_u32(w, h->page_size);
    wire_put_u64(w, h->settings);
    wire_put_u64(w, h->staging_size);
    wire_put_u64(w, h->member_of);
    wire_put_u32(w, h->epoch);
    wire_put_u32(w, h->self.generation);
    wire_put_u64(w, h->patience_ns);
}

int wire_get_hello(struct wire *w, struct hello *h) {
    memset(h, 0, sizeof *h);
    h->library = wire_get_u32(w);
    h->layout = wire_get_u64(w);
    h->rank = get_i32(w);
    h->n_ranks = get_i32(w);
    wire_get_text(w, h->job, sizeof h->job);
    const char *wrong = get_self(w, &h->self);
    h->page_size = wire_get_u32(w);
    h->settings = wire_get_u64(w);
    h->staging_size = wire_get_u64(w);
    h->member_of = wire_get_u64(w);
    h->epoch = wire_get_u32(w);
    h->self.generation = wire_get_u32(w);
    h->patience_ns = wire_get_u64(w);
    if (w->bad)
        wrong = "cut short, or a text too long";
    else if (w->pos != w->cap)
        wrong = "trailing bytes";
    else if (!wrong && (h->n_ranks < 1 || h->n_ranks > MAX_WORLD))
        wrong = "world size out of range";
    else if (!wrong && (h->rank < 0 || h->rank >= h->n_ranks))
        wrong = "rank out of range";
    else if (!wrong && h->self.rank != h->rank)
        wrong = "two different ranks in it";
    else if (!wrong && ((h->member_of == 0) != (h->epoch == 0) || (h->epoch == 0) != (h->self.generation == 0) || h->self.generation > h->epoch))
        wrong = "half a member of a job";
    else if (!wrong && !wire_job_ok(h->job))
        wrong = "job name with characters that no job has";
    return wrong ? err_set(SYP_EJOIN, "hello: %s", wrong) : 0;
}

void wire_put_notice(struct wire *w, const struct notice *n) {
    put_i32(w, n->code);
    put_i32(w, n->peer);
    wire_put_u64(w, (uint64_t)n->pid);
    wire_put_text(w, n->text);
}

int wire_get_notice(struct wire *w, struct notice *n) {
    n->code = get_i32(w);
    n->peer = get_i32(w);
    n->pid = (int64_t)wire_get_u64(w);
    wire_get_text(w, n->text, sizeof n->text);
    if (w->bad || w->pos != w->cap) return err_set(SYP_EJOIN, "notice: cut short or too long");
    if (n->code != SYP_EJOIN && n->code != SYP_EPEER && n->code != SYP_ETIMEOUT) /* it becomes the caller's own */
        return err_set(SYP_EJOIN, "notice: %d is no error that ranks tell each other", n->code);
    if (!n->text[0]) return err_set(SYP_EJOIN, "notice: it says nothing");
    if (n->peer < -1 || n->peer >= MAX_WORLD) return err_set(SYP_EJOIN, "notice: rank out of range");
    for (char *p = n->text; *p; p++) /* it goes into a log */
        if ((unsigned char)*p < ' ' || *p == 127) *p = '?';
    return 0;
}

void wire_put_roster(struct wire *w, const struct roster *r) {
    put_i32(w, r->n);
    put_i32(w, r->n_hosts);
    wire_put_u64(w, r->nonce);
    wire_put_u32(w, r->epoch);
    for (int i = 0; i < r->n; i++) {
        put_self(w, &r->rank[i]);
        wire_put_u32(w, r->rank[i].generation);
        put_i32(w, r->rank[i].host_index);
        wire_put_text(w, r->rank[i].addr);
    }
}

static const char *get_entry(struct wire *w, struct roster_entry *e, int rank, uint32_t epoch, int *hosts_seen) {
    const char *wrong = get_self(w, e);
    e->generation = wire_get_u32(w);
    e->host_index = get_i32(w);
    wire_get_text(w, e->addr, sizeof e->addr);
    if (w->bad) return "cut short, or a text too long";
    if (wrong) return wrong;
    if (e->rank != rank) return "ranks out of order";
    if (e->generation == 0 || e->generation > epoch) return "generation out of range";
    if (e->host_index < 0 || e->host_index > *hosts_seen) return "host numbers out of order";
    if (e->host_index == *hosts_seen) (*hosts_seen)++;
    return NULL;
}

int wire_get_roster(struct wire *w, struct roster *out) {
    memset(out, 0, sizeof *out);
    int n = get_i32(w), n_hosts = get_i32(w), hosts_seen = 0;
    uint64_t nonce = wire_get_u64(w);
    uint32_t epoch = wire_get_u32(w);
    if (w->bad) return err_set(SYP_EJOIN, "roster: cut short");
    if (n < 1 || n > MAX_WORLD || (size_t)n * ENTRY_FIXED > w->cap - w->pos)
        return err_set(SYP_EJOIN, "roster: world size out of range");
    if (nonce == 0 || epoch == 0) return err_set(SYP_EJOIN, "roster: no job nonce, or no epoch");
    struct roster_entry *rank = map_alloc((size_t)n * sizeof *rank);
    if (!rank) return err_set(SYP_ENOMEM, "roster: no memory for %d ranks", n);
    const char *wrong = NULL;
    for (int i = 0; i < n && !wrong; i++)
        wrong = get_entry(w, &rank[i], i, epoch, &hosts_seen);
    if (!wrong && hosts_seen != n_hosts) wrong = "wrong number of hosts";
    if (!wrong && w->pos != w->cap) wrong = "trailing bytes";
    if (wrong) {
        map_free(rank, (size_t)n * sizeof *rank);
        return err_set(SYP_EJOIN, "roster: %s", wrong);
    }
    *out = (struct roster){.n = n, .n_hosts = n_hosts, .nonce = nonce, .epoch = epoch, .rank = rank};
    return 0;
}

void roster_free(struct roster *r) {
    if (r->rank) map_free(r->rank, (size_t)r->n * sizeof *r->rank);
    memset(r, 0, sizeof *r);
}
