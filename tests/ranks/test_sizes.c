/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes around every switch, in every mixture of buffers over the ranks: in the pool, outside, in place.  Buffers outside the pool lie between
 * pages without access, so that a byte read or written beside them ends the rank; those in the pool lie between canaries.  And where no byte may be
 * staged, there is no access to any rank's staging memory.
 */
#include "collectives/pairs.h"
#include "collectives/parts.h"
#include "collectives/rma.h"
#include "pool/base/conf.h"
#include "tests/support/cases.h"
#include "tests/support/check.h"
#include "tests/support/world_test.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u
#define SLACK (64u << 10) /* bytes looked at on either side of a buffer, as far as its room goes */
#define MARGIN 256u       /* of them always there, in the pool */
#define MIB ((size_t)1 << 20)

/* Small steps, so that few bytes make many rounds.  The one-shot limit is above what travels in a mail. */
#define STAGING "16K"
#define CHUNK 6144u
#define ONE_SHOT 5000u

static struct comm *world_comm(struct world *w) {
    return &w->coll.comm[0];
}

/* ------------------------------------------------------------------------------------------------- rooms */

/* Memory for a buffer, which may lie at first .. last. */
struct room {
    char *begin, *end, *first, *last;
};

enum { SEND, RECV };
struct rooms {
    struct world *w;
    struct room room[2][2]; /* [in the pool][SEND or RECV] */
    size_t len;
};

static int outside(struct room *r, size_t len) {
    len = (len + PAGE - 1) & ~(size_t)(PAGE - 1);
    char *p = mmap(NULL, len + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED || mprotect(p + PAGE, len, PROT_READ | PROT_WRITE) != 0) return 0;
    *r = (struct room){p + PAGE, p + PAGE + len, p + PAGE, p + PAGE + len};
    return 1;
}

static int inside(struct world *w, struct room *r, size_t len) {
    char *p = world_alloc(w, len + 2 * MARGIN);
    if (p) *r = (struct room){p, p + len + 2 * MARGIN, p + MARGIN, p + MARGIN + len};
    return p != NULL;
}

/* Equal on all ranks, at the same offsets: nothing else was allocated. */
static int rooms_make(struct world *w, struct rooms *r, size_t len) {
    r->w = w;
    r->len = len;
    for (int i = 0; i < 2; i++)
        NEED(w, outside(&r->room[0][i], len) && inside(w, &r->room[1][i], len));
    return 0;
}

static void rooms_free(struct rooms *r) {
    for (int i = 0; i < 2; i++) {
        munmap(r->room[0][i].begin - PAGE, (size_t)(r->room[0][i].end - r->room[0][i].begin) + 2 * PAGE);
        world_free(r->w, r->room[1][i].begin);
    }
}

/* A buffer in its room, and how far around it was filled. */
struct placed {
    char *at, *lo, *hi;
    size_t len;
};

/* At the beginning, at the very end, or odd bytes away from either; x says which. */
static struct placed place(const struct room *r, size_t len, uint64_t x) {
    size_t away = x & 1 ? 1 + (x >> 2) % 63 : 0;
    char *at = x & 2 ? r->first + away : r->last - len - away;
    struct placed p = {at, r->begin, r->end, len};
    if ((size_t)(at - p.lo) > SLACK) p.lo = at - SLACK;
    if ((size_t)(p.hi - at) > len + SLACK) p.hi = at + len + SLACK;
    memset(p.lo, UNTOUCHED, (size_t)(p.hi - p.lo));
    return p;
}

static int untouched(const char *from, const char *to) {
    while (from < to && *from == UNTOUCHED)
        from++;
    return from == to;
}

static int guarded(const struct placed *p) {
    return !p->at || (untouched(p->lo, p->at) && untouched(p->at + p->len, p->hi));
}

/* ------------------------------------------------------------------------------------------- collectives */

enum mode { IN_POOL = 0, RECV_OUTSIDE, SEND_OUTSIDE, OUTSIDE, IN_PLACE, IN_PLACE_OUTSIDE, MODES };

static int run_case(struct rooms *rooms, struct comm *c, const struct ask *a, enum mode mode, uint64_t x) {
    struct world *w = rooms->w;
    struct side s = case_side(a, c->me);
    struct placed out = {0}, in = {0};
    int in_place = mode >= IN_PLACE && s.in_place != SIZE_MAX && s.send_len && s.recv_len;
    int send_pool = mode != SEND_OUTSIDE && mode != OUTSIDE && mode != IN_PLACE_OUTSIDE;
    int recv_pool = mode != RECV_OUTSIDE && mode != OUTSIDE && mode != IN_PLACE_OUTSIDE;
    NEED(w, s.send_len + 64 <= rooms->len && s.recv_len + 64 <= rooms->len);
    if (!(in_place && s.send_len < s.recv_len)) out = place(&rooms->room[send_pool][SEND], s.send_len, x);
    if (!(in_place && s.send_len >= s.recv_len)) in = place(&rooms->room[recv_pool][RECV], s.recv_len, x >> 8);
    char *send = out.at ? out.at : in.at + s.in_place, *recv = in.at ? in.at : out.at + s.in_place;
    case_input(a, &s, c->me, send);
    NEED(w, case_run(c, a, &s, send, recv, x >> 16 & 1, x >> 17 & 1) == SYP_OK);
    NEED(w, case_right(a, &s, c->me, send, recv));
    NEED(w, guarded(&out) && guarded(&in));
    return 0;
}

static uint64_t own_of(uint64_t x, int me) {
    x = (x ^ (uint64_t)(me + 1) * 0xc2b2ae3d27d4eb4fu) * 0x9e3779b97f4a7c15u;
    return x ^ x >> 29;
}

/* mixture: the members' modes, as digits. */
static int one(struct rooms *rooms, int kind, size_t bytes, uint64_t *seed, uint64_t mixture) {
    struct comm *c = world_comm(rooms->w);
    struct ask a;
    case_draw(&a, kind, c->n, bytes, seed);
    uint64_t x = own_of(check_random(seed), c->me), mode = mixture;
    for (int m = 0; m < c->me; m++)
        mode /= MODES;
    int failed = run_case(rooms, c, &a, (enum mode)(mode % MODES), x);
    if (failed)
        fprintf(stderr, "rank %d: %s, n %d, about %zu bytes, mode %d, placed by 0x%llx\n", c->me, op_name(kind), c->n, bytes,
                (int)(mode % MODES), (unsigned long long)x);
    case_forget(&a);
    return failed;
}

static uint64_t mixtures_of(int n) {
    uint64_t k = 1;
    while (n--)
        k *= MODES;
    return k;
}

/* Around what travels in a mail, the one-shot limit, a chunk, of all parts and of one; three chunks and a tail. */
static int sizes_of(size_t n, size_t *list) {
    size_t around[] = {64, MAIL_DATA / n, MAIL_DATA, ONE_SHOT / n, ONE_SHOT, CHUNK / n / 64 * 64, CHUNK / n, CHUNK}, k = 0;
    list[k++] = 0;
    list[k++] = 1;
    for (size_t i = 0; i < sizeof around / sizeof around[0]; i++)
        for (int d = -2; d <= 2; d++) /* by a byte, and by an element of eight */
            list[k++] = around[i] + (size_t)(d == -2 ? -8 : d == 2 ? 8 : d);
    list[k++] = 3 * (CHUNK / n) + 17;
    list[k++] = 3 * CHUNK + 17;
    return (int)k;
}

static int mixtures(struct world *w, void *arg) {
    uint64_t seed = *(uint64_t *)arg;
    struct comm *c = world_comm(w);
    struct rooms rooms;
    size_t list[64];
    int n_sizes = sizes_of((size_t)c->n, list);
    int kinds = w->coll.conf.algorithm == COLL_AUTO ? CASE_KINDS : 2; /* all-reduce and reduce have a choice */
    uint64_t most = mixtures_of(c->n), step = c->n < 4 ? 1 : check_count(7, 1), times = check_count(1, c->n < 4 ? (uint64_t)n_sizes : 4);
    NEED(w, w->coll.conf.chunk == CHUNK && w->coll.conf.one_shot == ONE_SHOT);
    if (rooms_make(w, &rooms, (size_t)c->n * (3 * CHUNK + 17) + 4096)) return 1;
    for (int k = 0; k < kinds; k++) {
        for (int i = 0; i < n_sizes; i++)
            if (one(&rooms, case_kinds[k], list[i], &seed, check_random(&seed) % most)) return 1;
        for (uint64_t mixture = check_random(&seed) % step; mixture < most; mixture += step)
            for (uint64_t i = 0, at = check_random(&seed); i < times; i++)
                if (one(&rooms, case_kinds[k], list[(at + i) % (uint64_t)n_sizes], &seed, mixture)) return 1;
    }
    rooms_free(&rooms);
    return 0;
}

static void setting(const char *name, const char *value) {
    if (value)
        setenv(name, value, 1);
    else
        unsetenv(name);
    conf_reset(); /* another test has had them read */
}

static void small_steps(int on) {
    char one_shot[16], chunk[16];
    snprintf(one_shot, sizeof one_shot, "%u", ONE_SHOT);
    snprintf(chunk, sizeof chunk, "%u", CHUNK);
    setting("SYMPOOL_STAGING_SIZE", on ? STAGING : NULL);
    setting("SYMPOOL_COLL_ONE_SHOT", on ? one_shot : NULL);
    setting("SYMPOOL_COLL_CHUNK", on ? chunk : NULL);
}

static void all_mixtures_at_all_switches(void) {
    static const char *const algorithms[] = {NULL, "pull", "push", "one-shot"};
    uint64_t seed = check_seed();
    small_steps(1);
    struct world_setup setup = {.timeout_ns = 100 * (int64_t)NS_PER_S, .seconds = (int)check_count(120, 1800)};
    for (int i = 0; i < 4; i++) {
        setting("SYMPOOL_COLL_ALGORITHM", algorithms[i]);
        for (int n = 2; n <= (i == 0 ? 4 : 3); n++)
            CHECK_EQ(worlds_as_processes(n, &setup, mixtures, &seed), 0);
    }
    setting("SYMPOOL_COLL_ALGORITHM", NULL);
    small_steps(0);
}

/* With the settings that everybody has. */
struct large {
    uint64_t seed;
    size_t around;
    int few;
};

static int large(struct world *w, void *arg) {
    const struct large *l = arg;
    uint64_t seed = l->seed;
    struct rooms rooms;
    size_t n = (size_t)world_comm(w)->n;
    uint64_t most = mixtures_of((int)n);
    if (rooms_make(w, &rooms, n * (l->around + 1) + 2 * PAGE)) return 1;
    for (int k = 0; k < CASE_KINDS; k++)
        for (size_t d = 0; d < 3; d++) {
            if (l->few && (case_kinds[k] != OP_ALLREDUCE || d == 1)) continue;
            if (one(&rooms, case_kinds[k], l->around + d - 1, &seed, d == 0 ? 0 : check_random(&seed) % most)) return 1;
        }
    if (l->few && one(&rooms, OP_BROADCAST, l->around + 1, &seed, OUTSIDE * (1 + MODES))) return 1;
    rooms_free(&rooms);
    return coll_barrier(world_comm(w), 0); /* finalize waits less long for those who still compare */
}

static void around(size_t size, int few) {
    struct large l = {check_seed(), size, few};
    for (int n = 2; n <= (int)check_count(2, 4); n++) {
        struct world_setup setup = {.local_mem_size = 2 * (size_t)n * size + 32 * MIB, .timeout_ns = 100 * (int64_t)NS_PER_S,
                                    .seconds = (int)check_count(120, 1800)};
        CHECK_EQ(worlds_as_processes(n, &setup, large, &l), 0);
    }
}

static void around_1_mib(void) {
    around(MIB, 0);
}

/* Above it results are stored past the caches; of all parts of two, and of one. */
static void around_the_switch_to_streaming(void) {
    int few = check_count(1, 0) == 1;
    around(STREAM_ABOVE, few);
    if (!few) around(STREAM_ABOVE / 2, 0);
}

static void around_32_mib(void) {
    around(32 * MIB, check_count(1, 0) == 1);
}

/* --------------------------------------------------------------------------------------- between two ranks */

static char byte_of(int from, uint64_t number, size_t at) {
    uint64_t x = (at + 1) * 0x9e3779b97f4a7c15u ^ number * 0xff51afd7ed558ccdu ^ (uint64_t)(from + 1) * 0xc2b2ae3d27d4eb4fu;
    return (char)(x >> 29);
}

static void fill(const struct placed *p, int from, uint64_t number) {
    for (size_t i = 0; i < p->len; i++)
        p->at[i] = byte_of(from, number, i);
}

static int filled(const struct placed *p, int from, uint64_t number) {
    size_t i = 0;
    while (i < p->len && p->at[i] == byte_of(from, number, i))
        i++;
    return i == p->len && guarded(p);
}

/* What travels in a cell with one buffer and with two, a piece of a copy, a half of a staging area. */
static const size_t pair_sizes[] = {0, 1, 63, 64, 65, 975, 976, 977, 983, 984, 985, 991, 992, 993,
                                    PAIR_CHUNK - 1, PAIR_CHUNK, PAIR_CHUNK + 1, 2 * PAIR_CHUNK - 1, 2 * PAIR_CHUNK + 1, 3 * PAIR_CHUNK + 17,
                                    MIB - 1, MIB, MIB + 1, 32 * MIB - 1, 32 * MIB + 1};
enum { PAIR_SIZES = sizeof pair_sizes / sizeof pair_sizes[0] };

/* To the next, from the one before: one buffer, or two of which the second is in the other kind of memory.  x: kinds and places here. */
static int transfer(struct rooms *rooms, size_t len, int two, uint64_t number, uint64_t x) {
    struct world *w = rooms->w;
    struct comm *c = world_comm(w);
    int from = (c->me + c->n - 1) % c->n, send_pool = (int)(x & 1), recv_pool = (int)(x >> 1 & 1), n = two ? 2 : 1;
    size_t first = two ? len / 3 : len, lens[2] = {first, len - first};
    struct placed out[2], in[2];
    void *outs[2], *ins[2];
    for (int i = 0; i < n; i++) {
        out[i] = place(&rooms->room[send_pool ^ i][SEND], lens[i], x >> (8 + 16 * i));
        in[i] = place(&rooms->room[recv_pool ^ i][RECV], lens[i], x >> (16 + 16 * i));
        fill(&out[i], c->me, number + (uint64_t)i);
        outs[i] = out[i].at;
        ins[i] = in[i].at;
    }
    const struct buffers send = {outs, lens, n, (c->me + 1) % c->n}, recv = {ins, lens, n, from};
    NEED(w, coll_sendrecv(c, &send, &recv, 0) == SYP_OK);
    for (int i = 0; i < n; i++)
        NEED(w, filled(&out[i], c->me, number + (uint64_t)i) && filled(&in[i], from, number + (uint64_t)i));
    return 0;
}

/* Into the next one's pool, and out of it. */
static int put_and_get(struct rooms *rooms, size_t len, uint64_t number, uint64_t common, uint64_t x) {
    struct world *w = rooms->w;
    struct comm *c = world_comm(w);
    int from = (c->me + c->n - 1) % c->n, to = (c->me + 1) % c->n;
    struct placed box = place(&rooms->room[1][RECV], len, common), mine = place(&rooms->room[x & 1][SEND], len, x >> 8);
    fill(&mine, c->me, number);
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    NEED(w, rma_put(&w->coll, "put", box.at, mine.at, len, to) == SYP_OK);
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    NEED(w, filled(&box, from, number) && filled(&mine, c->me, number));
    mine = place(&rooms->room[x >> 1 & 1][SEND], len, x >> 16);
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    NEED(w, rma_get(&w->coll, mine.at, box.at, len, to) == SYP_OK);
    NEED(w, filled(&mine, c->me, number));
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    NEED(w, filled(&box, from, number));
    return 0;
}

static int pairs(struct world *w, void *arg) {
    uint64_t seed = *(uint64_t *)arg;
    struct comm *c = world_comm(w);
    struct rooms rooms;
    if (rooms_make(w, &rooms, 33 * MIB)) return 1;
    for (uint64_t i = 0; i < PAIR_SIZES; i++)
        for (uint64_t kinds = 0; kinds < 8; kinds++) {
            uint64_t common = check_random(&seed), x = own_of(common, c->me) & ~(uint64_t)3, number = 2 * (i * 8 + kinds);
            int few = c->n > 2 || kinds % 4 == 1 || kinds % 4 == 2;
            if (check_count(1, 0) && few && pair_sizes[i] > (c->n > 2 ? 4 * PAIR_CHUNK : 2 * MIB)) continue;
            /* both bits from everybody, so that all mixtures of a sender with its receiver are met, and mixed rings now and then */
            x |= common >> 60 ? kinds & 3 : own_of(common, c->me) >> 60 & 3;
            if (transfer(&rooms, pair_sizes[i], kinds >= 4, number, x) ||
                (kinds < 4 && put_and_get(&rooms, pair_sizes[i], number + 1, common, x))) {
                fprintf(stderr, "rank %d: %zu bytes, kinds %llu, placed by 0x%llx\n", c->me, pair_sizes[i], (unsigned long long)kinds,
                        (unsigned long long)x);
                return 1;
            }
        }
    rooms_free(&rooms);
    return 0;
}

static void between_two_ranks(void) {
    uint64_t seed = check_seed();
    struct world_setup setup = {.local_mem_size = 90 * MIB, .timeout_ns = 100 * (int64_t)NS_PER_S, .seconds = (int)check_count(120, 1800)};
    for (int n = 2; n <= 4; n++)
        CHECK_EQ(worlds_as_processes(n, &setup, pairs, &seed), 0);
}

/* -------------------------------------------------------------------------------- without any staging memory */

/* No access to what all ranks have for staging, of groups and of transfers, as this one sees it; the bell behind it stays. */
static int bolt(struct world *w) {
    size_t len = coll_bell(w->coll.conf.staging);
    struct comm *c = world_comm(w);
    NEED(w, mprotect(w->peers.exchange.base, len, PROT_NONE) == 0);
    for (int m = 0; m < c->n; m++)
        if (m != c->me) NEED(w, mprotect(w->peers.peer[m].exchange, len, PROT_NONE) == 0);
    return 0;
}

/* Every part has so many bytes that it does not travel in a mail. */
static int all_long(const struct ask *a) {
    if (a->call.kind == OP_ALLGATHER_ROWS) return a->call.rows != 0;
    for (int i = 0; i < (a->call.kind == OP_ALLTOALLV ? a->n * a->n : a->n); i++)
        if (a->lens[i] * a->size <= MAIL_DATA) return 0;
    return 1;
}

static int zero_copy_case(struct rooms *rooms, int kind, size_t bytes, enum mode mode, uint64_t *seed) {
    struct world *w = rooms->w;
    struct comm *c = world_comm(w);
    struct ask a;
    for (case_draw(&a, kind, c->n, bytes, seed); !all_long(&a); case_draw(&a, kind, c->n, bytes, seed))
        case_forget(&a);
    uint64_t before = stats_read(STAT_ZERO_COPY), other = stats_read(STAT_STAGED) + stats_read(STAT_MAILED);
    if (run_case(rooms, c, &a, mode, own_of(check_random(seed), c->me))) return 1;
    NEED(w, stats_read(STAT_ZERO_COPY) == before + 1 && stats_read(STAT_STAGED) + stats_read(STAT_MAILED) == other);
    case_forget(&a);
    return 0;
}

static int without_staging(struct world *w, void *arg) {
    uint64_t seed = *(uint64_t *)arg;
    const size_t sizes[] = {100001, MIB + 1, 5 * MIB + 3};
    struct comm *c = world_comm(w);
    struct rooms rooms;
    if (rooms_make(w, &rooms, 24 * MIB) || bolt(w)) return 1;
    for (int k = 0; k < CASE_KINDS; k++)
        for (size_t i = 0; i < (c->n == 2 ? 2 : 1) + check_count(0, 1); i++) {
            int pushed = case_kinds[k] == OP_ALLREDUCE || case_kinds[k] == OP_REDUCE; /* others store into its receive buffer */
            if (zero_copy_case(&rooms, case_kinds[k], sizes[i], IN_POOL, &seed)) return 1;
            if (zero_copy_case(&rooms, case_kinds[k], sizes[i], IN_PLACE, &seed)) return 1;
            if (!pushed && zero_copy_case(&rooms, case_kinds[k], sizes[i], RECV_OUTSIDE, &seed)) return 1;
        }
    for (uint64_t kinds = 1; kinds < 4; kinds++) /* a pool on one side is enough */
        for (size_t i = 0; i < (c->n == 2 ? 2 : 1) + check_count(0, 1); i++) {
            uint64_t common = check_random(&seed);
            if (transfer(&rooms, sizes[i], 0, i, (own_of(common, c->me) & ~(uint64_t)3) | kinds)) return 1;
            if (put_and_get(&rooms, sizes[i], i, common, (own_of(common, c->me) & ~(uint64_t)3) | kinds)) return 1;
        }
    NEED(w, !w->coll.staging_ready[WORLD_SLOT]);
    rooms_free(&rooms);
    return 0;
}

static void end_here(int signal_number) {
    (void)signal_number;
    _exit(9);
}

/* The bolt holds: whoever stages anything does not get past it, and the other one hears of it. */
static int staged_all_the_same(struct world *w, void *arg) {
    struct rooms rooms;
    uint64_t seed = 1;
    signal(SIGSEGV, end_here);
    if (rooms_make(w, &rooms, 24 * MIB) || bolt(w)) _exit(1);
    if (*(int *)arg) return transfer(&rooms, MIB, 0, 1, 0);
    return one(&rooms, OP_ALLREDUCE, MIB, &seed, OUTSIDE * (1 + MODES));
}

static void pool_buffers_need_no_staging(void) {
    uint64_t seed = check_seed();
    struct world_setup setup = {.local_mem_size = 80 * MIB};
    for (int n = 2; n <= 4; n++)
        CHECK_EQ(worlds_as_processes(n, &setup, without_staging, &seed), 0);
    for (int pair = 0; pair < 2; pair++)
        CHECK_EQ(worlds_as_processes(2, &setup, staged_all_the_same, &pair), 2);
}

int main(void) {
    return check_main("sizes", (struct check_test[]){{"all_mixtures_at_all_switches", all_mixtures_at_all_switches},
                                                     {"around_1_mib", around_1_mib},
                                                     {"around_the_switch_to_streaming", around_the_switch_to_streaming},
                                                     {"around_32_mib", around_32_mib},
                                                     {"between_two_ranks", between_two_ranks},
                                                     {"pool_buffers_need_no_staging", pool_buffers_need_no_staging},
                                                     {0}});
}
