/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer's control segment as hostile bytes, while this rank runs operations: head, life word, notices, ring of symmetric calls, mails,
 * phases, aborts, lines and cells.
 *
 * Three ranks lie in this process's memory; this rank is number 1.  Whenever it looks at the clock or passes a test point, the others
 * either answer in kind (they mirror this rank's side, as ranks that make the same call would) or one word of theirs is altered.
 *
 *   input: per operation its number, the number of alterations and how many occasions pass before; then those: {whose and width, place 2,
 *          value}
 */
#include "bootstrap/control.h"
#include "collectives/pairs.h"
#include "collectives/post.h"
#include "collectives/request.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "pool/scope.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/ops.h"

#include <errno.h>

#define N 3
#define ME 1
#define DATA_LEN (64u << 10)
#define META_LEN (16u << 10)
#define STAGING 4096u
#define SLOTS_TOUCHED 4 /* of the board: groups that an input can make */
#define RING_TOUCHED 16
#define CELLS_TOUCHED 2
#define LONG 1100
#define PATIENCE NS_PER_MS

struct side {
    struct control_head head;
    struct board board;
};
static struct side *side[N];
static char *data_of[N], *exchange_of[N];
static struct peers peers;
static struct peer peer[N];
static struct roster_entry entry[N];
static struct region region;
static _Atomic uint64_t region_bits[DATA_LEN / 4096 / 64 + 1];
static struct symm symm;
static struct heap heap;
static struct coll coll;
static struct input script;
static int alterations_due; /* before the peers answer again */
static int occasions;       /* that pass before the first alteration */
static unsigned looks;      /* of the running operation at the clock */
static int peers_answer;    /* 0: they are silent */

static int commit_nothing(struct backend_region *r, uint64_t off, uint64_t len) {
    (void)r;
    MUST(off <= DATA_LEN && len <= DATA_LEN - off);
    return SYP_OK;
}
static unsigned no_caps(void) {
    return BACKEND_HOST_ACCESS;
}
static int event_at_once(void *stream, backend_event *out) {
    (void)stream;
    *out = 0;
    return SYP_OK;
}
static int event_done(backend_event e) {
    (void)e;
    return 1;
}
static const struct backend_ops backend = {
    .name = "fuzz", .caps = no_caps, .commit = commit_nothing, .event_record = event_at_once, .event_query = event_done};

/* The others do what this rank does.  Only what this rank changed, or an alteration did, is copied again. */
static struct {
    uint64_t calls, phase[SLOTS_TOUCHED], current[SLOTS_TOUCHED], vote[SLOTS_TOUCHED][2];
    int valid;
} mirrored;

/* A rank that broadcasts says where its buffer lies; this rank, which does not, says that it has none. */
static void answer_as_root(struct mail *his, int r) {
    struct mail_buffers at = {AT_STAGED, AT_NONE, 0};
    if (his->call.what == mail_what(OP_BROADCAST, 0, 0, SYP_OK, r) && his->total > MAIL_DATA) memcpy(his->data, &at, sizeof at);
}

static void mirror_slot(int s) {
    const struct comm_slot *mine = &side[ME]->board.slot[s];
    uint64_t phase = slot_clock(mine), current = load_relaxed((atom64 *)&mine->current);
    if (mirrored.valid && mirrored.phase[s] == phase && mirrored.current[s] == current) return;
    mirrored.phase[s] = phase;
    mirrored.current[s] = current;
    for (int r = 0; r < N; r += 2) {
        struct comm_slot *his = &side[r]->board.slot[s];
        memcpy((void *)his->mail, (const void *)mine->mail, sizeof his->mail);
        answer_as_root(&his->mail[0], r);
        answer_as_root(&his->mail[1], r);
        store_relaxed(&his->current, current);
        store_relaxed(&his->lines_of, load_relaxed((atom64 *)&mine->lines_of));
    }
}

/* Of transfers that go both ways at once, with the same lists. */
static void mirror_pairs(void) {
    for (int r = 0; r < N; r += 2) {
        for (int s = 0; s < SLOTS_TOUCHED; s++)
            memcpy((void *)&side[r]->board.line[s][ME], (const void *)&side[ME]->board.line[s][r], sizeof(struct pair_line));
        memcpy((void *)side[r]->board.cell, (const void *)side[ME]->board.cell, CELLS_TOUCHED * sizeof(struct pair_cell));
    }
}

static void mirror_vote(int s, int i) {
    const struct vote *mine = &side[ME]->board.vote[s][i];
    uint64_t number = load_relaxed((atom64 *)&mine->number);
    if (mirrored.valid && mirrored.vote[s][i] == number) return;
    mirrored.vote[s][i] = number;
    for (int r = 0; r < N; r += 2)
        memcpy((void *)&side[r]->board.vote[s][i], (const void *)mine, offsetof(struct vote, promised));
}

static void mirror(void) {
    if (!mirrored.valid || mirrored.calls != load_relaxed(&symm.calls)) {
        for (int r = 0; r < N; r += 2)
            memcpy((void *)side[r]->board.ring, (const void *)side[ME]->board.ring, RING_TOUCHED * sizeof(struct symm_call));
        mirrored.calls = load_relaxed(&symm.calls);
    }
    mirror_pairs();
    for (int s = 0; s < SLOTS_TOUCHED; s++) {
        mirror_slot(s);
        mirror_vote(s, 0);
        mirror_vote(s, 1);
    }
    mirrored.valid = 1;
}

/* Regions of a peer's segment that this library reads, one after the other. */
static void alter(void) {
    unsigned how = (unsigned)input_number(&script, 1), width = 1u << (how >> 2 & 3);
    struct side *s = side[how & 1 ? 2 : 0];
    size_t at = input_number(&script, 2);
    uint64_t value = input_number(&script, width);
    mirrored.valid = 0;
    const struct {
        void *base;
        size_t len;
    } part[] = {{&s->board.slot[0], SLOTS_TOUCHED * sizeof(struct comm_slot)},
                {&s->board.ring[0], RING_TOUCHED * sizeof(struct symm_call)},
                {&s->board.vote[0], SLOTS_TOUCHED * 2 * sizeof(struct vote)},
                {&s->head.life, 4},
                {&s->head.notice_epoch, 8 + 8},
                {&s->board.line[0][ME], sizeof(struct pair_line)},
                {&s->board.cell[0], CELLS_TOUCHED * sizeof(struct pair_cell)},
                {(void *)&s->board.napping, 4}};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        if (at < part[i].len) {
            memcpy((char *)part[i].base + at, &value, width < part[i].len - at ? width : part[i].len - at);
            return;
        }
        at -= part[i].len;
    }
    data_of[how & 1 ? 2 : 0][at % DATA_LEN] = (char)value; /* and of its pool, which nobody may trust either */
}

static void meanwhile(void) {
    if (peers_answer) mirror();
    if (occasions > 0) {
        occasions--;
        return;
    }
    for (; alterations_due && script.left; alterations_due--) {
        alter();
        if (alterations_due % 4 == 0) {
            alterations_due--;
            break; /* the rest at the next occasion */
        }
    }
}

/* The longer an operation goes on, the faster time passes: a wait for a second is not thousands of looks. */
static void pass(uint64_t ns) {
    unsigned doublings = looks < 32 ? 0 : (looks - 32) / 4;
    looks++;
    fuzz_now += ns + (50 * NS_PER_US << (doublings < 13 ? doublings : 13));
}

static uint64_t now_meanwhile(void) {
    meanwhile();
    pass(0);
    return fuzz_now;
}

static void yield_meanwhile(void) {
    meanwhile();
    pass(0);
}

static int sleep_meanwhile(uint64_t ns) {
    meanwhile();
    pass(ns);
    return 0;
}

static int futex_meanwhile(const void *word, uint32_t expected, uint64_t timeout) {
    (void)word, (void)expected;
    meanwhile();
    pass(timeout);
    return -ETIMEDOUT;
}

static int wake_in_a_segment(const void *word, int n) {
    (void)n;
    int in_one = 0;
    for (int r = 0; r < N; r++) {
        in_one |= (const char *)word >= (char *)side[r] && (const char *)word < (char *)(side[r] + 1);
        in_one |= word == (void *)(exchange_of[r] + coll_bell(STAGING));
    }
    MUST(in_one);
    return 0;
}

static void at_point(const char *name) {
    (void)name;
    if (alterations_due % 2) meanwhile();
}

static int no_file(const char *path) {
    (void)path;
    return -ENOENT;
}

static int close_none(int fd) {
    MUST(fd >= 0);
    return 0;
}

static int commit_at_once(void *at, size_t len, int advice) {
    (void)at, (void)len, (void)advice;
    return 0;
}

static int nobody(int pid) {
    (void)pid;
    return 1;
}

void fuzz_start(void) {
    fuzz_os.now = now_meanwhile;
    fuzz_os.yield = yield_meanwhile;
    fuzz_os.sleep = sleep_meanwhile;
    fuzz_os.futex_wait = futex_meanwhile;
    fuzz_os.futex_wake = wake_in_a_segment;
    fuzz_os.advise = commit_at_once;
    fuzz_os.open_read = no_file;
    fuzz_os.close = close_none;
    fuzz_os.process_alive = nobody;
    test_point_hook = at_point;
    for (int r = 0; r < N; r++) {
        side[r] = aligned_alloc(128, round_up(sizeof *side[r], 128));
        memset((void *)side[r], 0, sizeof *side[r]);
        data_of[r] = aligned_alloc(64, DATA_LEN);
        memset(data_of[r], 0, DATA_LEN);
        exchange_of[r] = calloc(1, coll_exchange_size(STAGING));
        peer[r] = (struct peer){.control = &side[r]->head, .data = data_of[r], .exchange = exchange_of[r], .data_len = DATA_LEN,
                                .exchange_len = coll_exchange_size(STAGING), .reach = REACH_LOADSTORE};
        entry[r] = (struct roster_entry){.rank = r, .pid = 4711 + r, .generation = 1};
    }
    region = (struct region){.backend = &backend, .mem = {.base = data_of[ME], .len = DATA_LEN, .fd = -1}, .len = DATA_LEN,
                             .meta = META_LEN, .chunk = 4096, .n_chunks = DATA_LEN / 4096};
    region.bits = region_bits;
    region.lock.rank = LOCK_REGION;
    peers = (struct peers){.n = N, .me = ME, .roster = {.n = N, .n_hosts = 1, .nonce = 1, .rank = entry}, .peer = peer,
                           .self = &side[ME]->head, .region = &region, .n_local = N, .n_processors = 1, .crowded = 1,
                           .control = {.base = side[ME], .len = sizeof *side[ME], .fd = -1}, .exchange = {.base = exchange_of[ME], .len = coll_exchange_size(STAGING), .fd = -1}};
}

enum { BARRIER, REDUCE_SMALL, REDUCE_POOL, REDUCE_OUTSIDE, SPREAD_SMALL, SPREAD_PEER, SPREAD_ME, SYMM, SYMM_FREE_ONE, GROUP, IN_GROUP,
       END_GROUP, SILENCE, AGREE, SHRINK, ABORT, LIST_SMALL, LIST_POOL, LIST_OUTSIDE, LIST_LONG, CHANNEL, N_ORDERS };

void fuzz_seeds(void) {
    for (int op = 0; op < N_ORDERS; op++) {
        uint8_t s[2 * 5] = {(uint8_t)op, 0, GROUP, 0, (uint8_t)op, 0, SYMM, 0, BARRIER, 0};
        (op < IN_GROUP || op >= LIST_SMALL ? fuzz_good_seed : fuzz_seed)(s, sizeof s);
        size_t clock = offsetof(struct comm_slot, mail[op & 1].data) + 24; /* of a second group: create_round in comm.c */
        uint8_t g[] = {GROUP, 0, IN_GROUP, 0, END_GROUP, 0, GROUP, (uint8_t)(1 + 16 * op), 3 << 2, (uint8_t)clock, (uint8_t)(clock >> 8),
                       0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, IN_GROUP, 0};
        fuzz_seed(g, sizeof g);
        g[8] |= 1; /* the other one, and a clock that is behind */
        memset(g + 11, 0, 8);
        fuzz_seed(g, sizeof g);
        size_t votes = SLOTS_TOUCHED * sizeof(struct comm_slot) + RING_TOUCHED * sizeof(struct symm_call);
        for (size_t at = votes; (op == AGREE || op == SHRINK) && at < votes + 2 * sizeof(struct vote); at += 8) {
            uint8_t v[] = {(uint8_t)op, 1 + 16 * 2, 3 << 2, (uint8_t)at, (uint8_t)(at >> 8), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                           (uint8_t)op, 0};
            fuzz_seed(v, sizeof v);
            v[12] = v[11] = v[10] = v[9] = 0;
            fuzz_seed(v, sizeof v);
        }
        size_t line = votes + SLOTS_TOUCHED * 2 * sizeof(struct vote) + 4 + 16;
        for (size_t at = line; op >= LIST_SMALL && at < line + sizeof(struct pair_line) + 2 * sizeof(struct pair_cell); at += 4) {
            if (at > line + sizeof(struct pair_line) + 64 && at % 160) continue;
            for (unsigned later = 1; later < 8; later += 2) {
                uint8_t v[] = {(uint8_t)op, (uint8_t)(1 + 16 * later), 3 << 2 | 1, (uint8_t)at, (uint8_t)(at >> 8), 3, 0, 0, 0, 0xff, 0, 0, 0, (uint8_t)op, 0};
                fuzz_seed(v, sizeof v);
            }
        }
        for (size_t at = 0; at < sizeof(struct comm_slot); at += 8) { /* every word of the world's slot, of every operation */
            uint8_t a[] = {(uint8_t)op, 1, 3 << 2, (uint8_t)at, (uint8_t)(at >> 8), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                           (uint8_t)op, 0};
            fuzz_seed(a, sizeof a);
            for (unsigned later = 1; later < (op == GROUP ? 16 : 6); later += op == GROUP ? 1 : 2) {
                a[1] = (uint8_t)(1 + 16 * later);
                fuzz_seed(a, sizeof a);
            }
        }
    }
}

static int expected_of(int rc) {
    return rc == SYP_OK || rc == SYP_EPEER || rc == SYP_ETIMEOUT || rc == SYP_EMISMATCH || rc == SYP_EABORTED || rc == SYP_EDIVERGED ||
           rc == SYP_ESTATE || rc == SYP_ENOMEM || rc == SYP_EBUSY;
}

struct play {
    struct comm *group;
    uint64_t off[8];
    int n_off;
};

/* A list that the other one takes, while it sends the same. */
static int exchange(struct comm *c, char *out, char *in, size_t each, int n) {
    static void *outs[100], *ins[100];
    static size_t lens[100];
    for (int i = 0; i < n; i++) {
        outs[i] = out + (size_t)i * each;
        ins[i] = in + (size_t)i * each;
        lens[i] = each;
    }
    const struct buffers send = {outs, lens, n, 2}, recv = {ins, lens, n, 2};
    return coll_sendrecv(c, &send, &recv, PATIENCE);
}

static int operate(struct play *p, unsigned op) {
    static char list_out[300000], list_in[300000];
    static float outside[LONG], result[LONG]; /* more than a staging area holds */
    float *in_pool = (float *)(void *)(data_of[ME] + META_LEN);
    struct comm *world = &coll.comm[0];
    int all[N] = {0, 1, 2};
    uint64_t off, flag = 5;
    int rc;
    switch (op) {
    case BARRIER:
        return coll_barrier(world, PATIENCE);
    case REDUCE_SMALL:
        return coll_allreduce(world, outside, result, 7, SYP_FLOAT32, SYP_SUM, PATIENCE);
    case REDUCE_POOL:
        return coll_allreduce(world, in_pool, in_pool + LONG, 100, SYP_INT32, SYP_MAX, PATIENCE);
    case REDUCE_OUTSIDE:
        return coll_allreduce(world, outside, result, LONG, SYP_FLOAT32, SYP_SUM, PATIENCE);
    case SPREAD_SMALL:
        return coll_broadcast(world, result, 100, 0, PATIENCE);
    case SPREAD_PEER:
        return coll_broadcast(world, result, sizeof result, 2, PATIENCE);
    case SPREAD_ME:
        return coll_broadcast(world, outside, sizeof outside, ME, PATIENCE);
    case SYMM:
        off = coll_symm_alloc(&coll, 256, 64, 0);
        if (off != SPACE_NONE && p->n_off < 8) p->off[p->n_off++] = off;
        return off == SPACE_NONE ? err_record()->code : SYP_OK;
    case SYMM_FREE_ONE:
        return p->n_off ? symm_free(&symm, region_at(&region, p->off[--p->n_off])) : SYP_OK;
    case GROUP:
        return p->group ? SYP_OK : comm_create(world, all, N, &p->group);
    case IN_GROUP:
        return p->group ? coll_allreduce(p->group, outside, result, 100, SYP_FLOAT32, SYP_MIN, PATIENCE) : SYP_OK;
    case END_GROUP:
        if (!p->group) return SYP_OK;
        (void)comm_destroy(p->group);
        p->group = NULL;
        return SYP_OK;
    case AGREE:
        return comm_agree(p->group ? p->group : world, &flag, PATIENCE);
    case SHRINK:
        /* the shrunk group takes the place of the one that inputs make */
        return comm_shrink(world, (int)(p->n_off & 1), PATIENCE, &p->group);
    case ABORT:
        return comm_abort(world);
    case LIST_SMALL:
        return exchange(world, list_out, list_in, 100, 3);
    case LIST_POOL:
        return exchange(world, (char *)in_pool, (char *)in_pool + LONG * 4, LONG * 4, 1);
    case LIST_OUTSIDE:
        return exchange(world, list_out, list_in, 300000, 1);
    case LIST_LONG:
        return exchange(world, list_out, p->n_off & 1 ? (char *)in_pool : list_in, 100, 100);
    case CHANNEL:
        rc = channel_notify(world, 2, 1);
        return rc == SYP_OK ? channel_wait(world, 2, 1, PATIENCE) : rc;
    default:
        peers_answer = 0;
        return SYP_OK;
    }
}

static void reset(void) {
    for (int r = 0; r < N; r++) {
        memset((void *)&side[r]->head.life, 0, sizeof side[r]->head.life);
        store_relaxed(&side[r]->head.notice_epoch, 0);
        memset((void *)side[r]->head.dead, 0, 16);
        memset((void *)side[r]->board.ring, 0, RING_TOUCHED * sizeof(struct symm_call));
        memset((void *)side[r]->board.vote, 0, SLOTS_TOUCHED * 2 * sizeof(struct vote));
        memset((void *)side[r]->board.slot, 0, SLOTS_TOUCHED * sizeof(struct comm_slot));
        memset((void *)side[r]->board.cell, 0, CELLS_TOUCHED * sizeof(struct pair_cell));
        for (int s = 0; s < SLOTS_TOUCHED; s++)
            memset((void *)side[r]->board.line[s], 0, N * sizeof(struct pair_line));
        store_relaxed(&side[r]->board.napping, 0);
    }
    peers_answer = 1;
    mirrored.valid = 0;
    alterations_due = 0;
    struct coll_conf conf = {.timeout_ns = PATIENCE, .stall_ns = PATIENCE / 2, .spin_ns = 0, .staging = STAGING};
    MUST(heap_init(&heap, &region, 1) == SYP_OK);
    MUST(symm_init(&symm, &region, side[ME]->board.ring) == SYP_OK);
    MUST(coll_open(&coll, &peers, &symm, &heap, &conf) == SYP_OK);
    memset(coll.staging_ready, 1, sizeof coll.staging_ready); /* there is no file to commit */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    struct play p = {0};
    long before = fuzz_pieces;
    script = (struct input){data, len};
    reset();
    uint64_t phase[SLOTS_TOUCHED] = {0};
    for (int k = 0; k < 8 && script.left; k++) {
        unsigned op = (unsigned)input_number(&script, 1) % N_ORDERS;
        unsigned when = (unsigned)input_number(&script, 1);
        alterations_due = (int)(when % 16);
        occasions = (int)(when / 16);
        looks = 0;
        uint64_t start = fuzz_now;
        int rc = operate(&p, op);
        fuzz_ok = rc == SYP_OK;
        MUST(expected_of(rc));
        MUST(fuzz_now - start < 20 * PATIENCE + 5 * NS_PER_S);
        if (rc != SYP_OK) MUST(err_record()->code == rc && err_record()->text[0]);
        for (int s = 0; s < SLOTS_TOUCHED; s++) { /* a clock of ours never goes back, whatever the others say theirs is */
            uint64_t at = slot_clock(&side[ME]->board.slot[s]);
            MUST(at >= phase[s]);
            phase[s] = at;
        }
    }
    coll_close(&coll);
    MUST(symm_check(&symm) == SYP_OK);
    symm_fini(&symm);
    MUST(heap_check(&heap) == SYP_OK);
    heap_fini(&heap);
    MUST(fuzz_pieces == before);
    return 0;
}
