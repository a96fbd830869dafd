/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cells, staging areas, and the copies of a transfer.
 *
 * Everything of the other side is read once and checked.  It may have given up while we read: whoever gives up says so before it uses its buffers, cell or staging
 * area again, and we look after each copy, so what is then found in ours is never called data.  Copies are made in pieces, with a look after each.
 */
#include "collectives/transfer.h"
#include "bootstrap/transport.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <string.h>

#define PIECE (256ull << 10) /* copied between two looks */

/* --------------------------------------------------------------------------------------------------- cells */

int cell_take(struct transfer *t) {
    struct coll *k = t->c->coll;
    uint64_t used = load_relaxed(&k->cells);
    while (~used) {
        int lowest = __builtin_ctzll(~used);
        if (!cas_acq_rel(&k->cells, &used, used | 1ull << lowest)) continue; /* pairs with cell_drop */
        t->cell = lowest;
        return SYP_OK;
    }
    return err_set(SYP_ENOMEM, "%s on group %d: %d transfers of this rank are in progress; let some return first", t->call, t->c->slot, PAIR_CELLS);
}

void cell_drop(struct transfer *t) {
    if (t->cell < 0) return;
    atomic_fetch_and_explicit(&t->c->coll->cells, ~(1ull << t->cell), memory_order_release); /* pairs with cell_take */
    t->cell = -1;
}

int transfer_staging(struct transfer *t) {
    struct coll *k = t->c->coll;
    if (k->cell_ready[t->cell]) return SYP_OK;
    int rc = peers_commit_exchange(k->peers, coll_pair_staging(k->conf.staging, t->cell), 2 * PAIR_CHUNK);
    if (rc != SYP_OK) return err_prefix("%s on group %d: memory for a staging area (or use pool buffers)", t->call, t->c->slot);
    k->cell_ready[t->cell] = 1;
    stats_set(STAT_OVERHEAD, stats_read(STAT_OVERHEAD) + 2 * PAIR_CHUNK);
    return SYP_OK;
}

int cell_read(const struct transfer *t, unsigned cell, int at, uint64_t *words, int n) {
    const struct board *b = peers_control_body(t->c->coll->peers, t->c->rank[t->m]);
    if (!b || cell >= PAIR_CELLS) return 0;
    for (int i = 0; i < n; i++)
        words[i] = load_relaxed((atom64 *)&b->cell[cell].word[at + i]);
    return 1;
}

static void cell_write(const struct transfer *t, const uint64_t *words, int n) {
    struct pair_cell *cell = own_cell(t);
    for (int i = 0; i < n; i++)
        store_relaxed(&cell->word[i], words[i]); /* published by the step behind it */
}

/* Lengths, then the bytes of all buffers. */
static int write_data(const struct transfer *t, uint64_t *body) {
    char *at = (char *)(body + t->list.n);
    for (int i = 0; i < t->list.n; i++) {
        body[i] = t->list.lens[i];
        if (t->list.lens[i]) memcpy(at, t->list.bufs[i], t->list.lens[i]);
        at += t->list.lens[i];
    }
    return t->list.n + (int)((t->total + 7) / 8);
}

static int write_places(const struct transfer *t, uint64_t *body) {
    for (int i = 0; i < t->count; i++) {
        body[2 * i] = t->list.lens[t->first + i];
        body[2 * i + 1] = t->ours[i];
    }
    return 2 * t->count;
}

void transfer_write(struct transfer *t) {
    uint64_t words[CELL_WORDS];
    words[CELL_HEAD] = words[CELL_WORDS - 1] = 0;
    int n = t->mailed ? write_data(t, words + CELL_HEAD) : write_places(t, words + CELL_HEAD);
    words[0] = (uint64_t)t->list.n | (uint64_t)t->mailed << 32;
    words[1] = t->total;
    words[2] = t->digest;
    words[3] = (uint64_t)t->first | (uint64_t)t->count << 32;
    cell_write(t, words, CELL_HEAD + n);
}

/* -------------------------------------------------------------------------------------------------- places */

static uint64_t place_of(const struct transfer *t, int i) {
    const struct region *own = t->c->coll->peers->region;
    const void *p = t->list.bufs[i];
    uint64_t len = t->list.lens[i];
    if (len == 0) return AT_NONE;
    return region_contains(own, p) && len <= own->len - region_offset(own, p) ? region_offset(own, p) : AT_STAGED;
}

int transfer_is_outside(const struct transfer *t) {
    int i = 0;
    while (i < t->list.n && place_of(t, i) != AT_STAGED)
        i++;
    return i < t->list.n;
}

void transfer_places(struct transfer *t) {
    for (int i = 0; i < t->count && !t->mailed; i++)
        t->ours[i] = place_of(t, t->first + i);
}

/* Neither side's buffer is in its pool. */
static int is_staged(const struct transfer *t, int i) {
    return t->ours[i] == AT_STAGED && t->theirs[i] == AT_STAGED;
}

void transfer_plan(struct transfer *t) {
    t->staged = t->chunk = t->at = 0;
    t->entry = 0;
    for (int i = 0; i < t->count; i++)
        if (is_staged(t, i)) t->staged += t->list.lens[t->first + i];
    t->chunks = (t->staged + PAIR_CHUNK - 1) / PAIR_CHUNK;
}

/* Buffer i of the batch in the other's pool. */
static char *his_buffer(const struct transfer *t, int i) {
    return transport_shm.address(t->c->coll->peers, t->c->rank[t->m], SEGMENT_DATA, t->theirs[i], t->list.lens[t->first + i]);
}

/* -------------------------------------------------------------------------------------------------- copies */

/* Because of a third rank that died or did not come: that is our cause, too. */
int transfer_given_up(const struct transfer *t) {
    const struct pair_line *his = pair_his_line(t->c, t->m);
    const struct peers *p = t->c->coll->peers;
    int rank = t->c->rank[t->m], pid = p->roster.rank[rank].pid, sending = t->direction == SENDING;
    uint32_t why = !his ? 0 : load_relaxed((atom32 *)(sending ? &his->receive_why : &his->send_why)); /* ordered by the acquire of its steps */
    int code = why_code(why), culprit = why_culprit(why);
    if ((code != SYP_EPEER && code != SYP_ETIMEOUT) || culprit < 0 || culprit >= p->n || culprit == p->me || culprit == rank) {
        err_set(SYP_EABORTED, "%s %llu on group %d: rank %d (pid %d) has given up %s rank %d (%s)", t->call, (unsigned long long)t->way->number, t->c->slot,
                rank, pid, sending ? "receiving from" : "sending to", p->me, syp_strerror(code));
        return err_peer(rank, pid);
    }
    err_set(code, "%s %llu on group %d: rank %d (pid %d) has given up %s rank %d because rank %d (pid %d) %s", t->call, (unsigned long long)t->way->number,
            t->c->slot, rank, pid, sending ? "receiving from" : "sending to", p->me, culprit, p->roster.rank[culprit].pid,
            code == SYP_EPEER ? "died or left" : "did not arrive in time");
    return err_peer(culprit, p->roster.rank[culprit].pid);
}

int transfer_corrupt(const struct transfer *t, const char *field, uint64_t value) {
    int rank = t->c->rank[t->m];
    err_set(SYP_EPEER, "%s %llu on group %d: rank %d published %s %llu, which cannot be: its control data is damaged", t->call,
            (unsigned long long)t->way->number, t->c->slot, rank, field, (unsigned long long)value);
    return err_peer(rank, t->c->coll->peers->roster.rank[rank].pid);
}

int transfer_still(const struct transfer *t) {
    const struct pair_line *his = pair_his_line(t->c, t->m);
    fence_loads(); /* what was copied; pairs with the fence of give_up */
    if (!his) return transfer_given_up(t);
    return load_acquire((atom64 *)his_steps(t, his)) & GIVEN_UP ? transfer_given_up(t) : SYP_OK; /* pairs with give_up */
}

static int copy(const struct transfer *t, char *dst, const char *src, uint64_t len) {
    int rc = transfer_still(t);
    for (uint64_t at = 0; at < len && rc == SYP_OK; at += PIECE) {
        TEST_POINT("transfer.piece");
        memcpy(dst + at, src + at, len - at < PIECE ? len - at : PIECE);
        rc = transfer_still(t);
    }
    return rc;
}

int transfer_push(struct transfer *t) {
    int rc = SYP_OK;
    for (int i = 0; i < t->count && rc == SYP_OK; i++) {
        if (t->ours[i] != AT_STAGED || t->theirs[i] == AT_STAGED) continue;
        char *dst = his_buffer(t, i);
        if (!dst) return transfer_corrupt(t, "receive offset", t->theirs[i]);
        rc = copy(t, dst, t->list.bufs[t->first + i], t->list.lens[t->first + i]);
    }
    return rc;
}

int transfer_pull(struct transfer *t) {
    int rc = SYP_OK;
    for (int i = 0; i < t->count && rc == SYP_OK; i++) {
        if (t->ours[i] == AT_NONE || t->theirs[i] == AT_STAGED) continue;
        const char *src = his_buffer(t, i);
        if (!src) return transfer_corrupt(t, "send offset", t->theirs[i]);
        rc = copy(t, t->list.bufs[t->first + i], src, t->list.lens[t->first + i]);
    }
    return rc;
}

/* Half of the sender's staging area that holds the chunk. */
static char *half_of(const struct transfer *t, unsigned cell) {
    const struct coll *k = t->c->coll;
    int sender = t->direction == SENDING ? k->peers->me : t->c->rank[t->m];
    if (cell >= PAIR_CELLS) return NULL;
    return transport_shm.address(k->peers, sender, SEGMENT_EXCHANGE, coll_pair_staging(k->conf.staging, (int)cell) + (t->chunk & 1) * PAIR_CHUNK, PAIR_CHUNK);
}

int transfer_chunk(struct transfer *t) {
    const struct pair_line *his = pair_his_line(t->c, t->m);
    unsigned cell = t->direction == SENDING ? (unsigned)t->cell : his ? load_relaxed((atom32 *)&his->send_cell) : PAIR_CELLS;
    char *half = half_of(t, cell);
    if (!half) return transfer_corrupt(t, "cell", cell);
    uint64_t left = t->staged - t->chunk * PAIR_CHUNK, room = left < PAIR_CHUNK ? left : PAIR_CHUNK;
    TEST_POINT("transfer.chunk");
    while (room) {
        uint64_t len = t->list.lens[t->first + t->entry] - t->at;
        if (!is_staged(t, t->entry) || len == 0) {
            t->entry++;
            t->at = 0;
            continue;
        }
        char *buf = (char *)t->list.bufs[t->first + t->entry] + t->at;
        if (len > room) len = room;
        memcpy(t->direction == SENDING ? half : buf, t->direction == SENDING ? buf : half, len);
        t->at += len;
        half += len;
        room -= len;
    }
    return transfer_still(t);
}

int transfer_unpack(struct transfer *t, unsigned cell) {
    uint64_t data[CELL_BODY];
    const char *at = (const char *)data;
    if (!cell_read(t, cell, CELL_HEAD + t->list.n, data, (int)((t->total + 7) / 8))) return transfer_corrupt(t, "cell", cell);
    for (int i = 0; i < t->list.n; i++) {
        if (t->list.lens[i]) memcpy(t->list.bufs[i], at, t->list.lens[i]);
        at += t->list.lens[i];
    }
    return transfer_still(t);
}

/* ------------------------------------------------------------------------------------------------ mismatch */

static void say_list(struct text *t, uint64_t n, uint64_t total, const uint64_t *lens, int stride, uint64_t known) {
    text_addf(t, "%llu buffers of %llu bytes", (unsigned long long)n, (unsigned long long)total);
    for (uint64_t i = 0; i < n && i < known; i++) {
        if (i == 12) {
            text_addf(t, " ...");
            break;
        }
        text_addf(t, "%s %llu", i ? "," : ":", (unsigned long long)lens[i * (uint64_t)stride]);
    }
}

int transfer_mismatch(const struct transfer *t, uint64_t his_n, uint64_t his_total, const uint64_t *lens, int stride, int known) {
    char list[2][340];
    struct text mine = TEXT_INIT(list[0]), his = TEXT_INIT(list[1]);
    uint64_t own[16];
    int rank = t->c->rank[t->m], me = t->c->coll->peers->me, sending = t->direction == SENDING;
    for (int i = 0; i < t->list.n && i < 16; i++)
        own[i] = t->list.lens[i];
    say_list(&mine, (uint64_t)t->list.n, t->total, own, 1, 16);
    say_list(&his, his_n, his_total, lens, stride, (uint64_t)known);
    err_set(SYP_EMISMATCH, "%s %llu on group %d: rank %d sends %s; rank %d receives %s; nothing was moved, the two can go on", t->call,
            (unsigned long long)t->way->number, t->c->slot, sending ? me : rank, sending ? list[0] : list[1], sending ? rank : me,
            sending ? list[1] : list[0]);
    return err_peer(rank, t->c->coll->peers->roster.rank[rank].pid);
}
