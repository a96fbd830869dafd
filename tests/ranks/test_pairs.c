/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/*
 * Between two ranks: put and get, signals, channels, lists of buffers; with ranks as threads on common mappings, and as processes.
 */
#include "collectives/nap.h"
#include "collectives/pairs.h"
#include "collectives/rma.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "pool/quarantine.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"
#include "tests/support/world_test.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MS ((int64_t)NS_PER_MS)

static struct comm *world_comm(struct world *w) {
    return &w->coll.comm[0];
}

static int next_of(const struct comm *c) { return (c->me + 1) % c->n; }
static int before(const struct comm *c) { return (c->me + c->n - 1) % c->n; }

static inline uint8_t byte_of(int from, int to, uint64_t number, uint64_t at) {
    uint64_t x = (number * 64 + (uint64_t)from * 8 + (uint64_t)to) * 0xc2b2ae3d27d4eb4fu;
    return (uint8_t)((x >> 56) + at * 31 + (at >> 8) * 7 + (at >> 16));
}

/* Symmetric memory, as an offset that is equal on all. */
static char *symmetric(struct world *w, size_t len) {
    uint64_t off = coll_symm_alloc(&w->coll, len, 64, 0);
    return off == SPACE_NONE ? NULL : (char *)w->pool->region.mem.base + off;
}

/* -------------------------------------------------------------------------------------------- put, get, signals */

static int puts_and_gets(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w);
    const struct coll *k = &w->coll;
    static const size_t sizes[] = {0, 1, 7, 8, 63, 64, 65, 4097, 300000};
    char *box = symmetric(w, 300000 + 64), *answer = malloc(300000);
    uint64_t *full = (uint64_t *)(void *)symmetric(w, 64);
    NEED(w, box && full && answer);
    int to = next_of(c), from = before(c);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t n = sizes[i], shift = i % 5;
        for (size_t b = 0; b < n; b++)
            answer[b] = (char)byte_of(c->me, to, i, b);
        memset(box, 0x5a, 300000 + 64);
        NEED(w, coll_barrier(c, 0) == SYP_OK);
        NEED(w, rma_put_signal(k, box + shift, answer, n, full, i + 1, to) == SYP_OK);
        NEED(w, signal_wait(k, full, SYP_EQ, i + 1, from, NULL, 0) == SYP_OK);
        for (size_t b = 0; b < n; b++)
            NEED(w, (uint8_t)box[shift + b] == byte_of(from, c->me, i, b));
        NEED(w, (shift == 0 || box[shift - 1] == 0x5a) && box[shift + n] == 0x5a);
        memset(answer, 0, 300000);
        NEED(w, coll_barrier(c, 0) == SYP_OK);
        NEED(w, rma_get(k, answer, box + shift, n, from) == SYP_OK); /* what that one got from the rank before it */
        for (size_t b = 0; b < n; b++)
            NEED(w, (uint8_t)answer[b] == byte_of((from + c->n - 1) % c->n, from, i, b));
        NEED(w, coll_barrier(c, 0) == SYP_OK);
    }
    free(answer);
    return 0;
}

static int refused_places(struct world *w, void *arg) {
    (void)arg;
    const struct coll *k = &w->coll;
    const struct region *own = w->peers.region;
    char *end = (char *)own->mem.base + own->len, here[16] = {0};
    uint64_t *word = world_alloc(w, 64);
    int other = (w->who.rank + 1) % w->peers.n;
    NEED(w, rma_put(k, "put", end - 8, here, 9, other) == SYP_EINVAL && rma_put(k, "put", end, here, 1, other) == SYP_EINVAL);
    NEED(w, rma_put(k, "put", (char *)own->mem.base - 1, here, 1, other) == SYP_EINVAL && rma_put(k, "put", here, here, 1, other) == SYP_EINVAL);
    NEED(w, rma_put(k, "put", end - 8, here, UINT64_MAX, other) == SYP_EINVAL && rma_put(k, "put", word, NULL, 1, other) == SYP_EINVAL);
    NEED(w, rma_get(k, NULL, word, 1, other) == SYP_EINVAL && rma_get(k, here, end, 1, other) == SYP_EINVAL);
    NEED(w, rma_put(k, "put", word, here, 8, -1) == SYP_EINVAL && rma_put(k, "put", word, here, 8, w->peers.n) == SYP_EINVAL);
    NEED(w, rma_put(k, "put", NULL, NULL, 0, other) == SYP_OK && rma_get(k, NULL, NULL, 0, other) == SYP_OK);
    NEED(w, signal_set(k, "signal_set", (uint64_t *)(void *)((char *)word + 4), 1, other) == SYP_EINVAL);
    NEED(w, signal_add(k, (uint64_t *)(void *)here, 1, other) == SYP_EINVAL);
    NEED(w, signal_wait(k, word, 0, 1, -1, NULL, 0) == SYP_EINVAL && signal_wait(k, word, 7, 1, -1, NULL, 0) == SYP_EINVAL);
    NEED(w, signal_wait(k, word, SYP_EQ, 1, -2, NULL, 0) == SYP_EINVAL && signal_wait(k, word, SYP_EQ, 1, w->peers.n, NULL, 0) == SYP_EINVAL);
    NEED(w, signal_wait(k, (uint64_t *)(void *)here, SYP_EQ, 1, -1, NULL, 0) == SYP_EINVAL);
    NEED(w, signal_wait(k, word, SYP_EQ, 1, -1, NULL, -1) == SYP_EINVAL);
    return 0;
}

/* Ranks with pools of different sizes: what lies in one only is refused. */
static int uneven_pools(struct world *w, void *arg) {
    (void)arg;
    const struct region *own = w->peers.region;
    int other = 1 - w->who.rank;
    uint64_t his = w->peers.peer[other].data_len;
    char one = 1;
    NEED(w, own->len != his);
    if (own->len > his) {
        NEED(w, rma_put(&w->coll, "put", (char *)own->mem.base + his - 1, &one, 2, other) == SYP_EINVAL);
        NEED(w, rma_put(&w->coll, "put", (char *)own->mem.base + his, &one, 1, other) == SYP_EINVAL);
    }
    return coll_barrier(world_comm(w), 0);
}

static int adding(struct world *w, void *arg) {
    uint64_t rounds = *(uint64_t *)arg, seen = 0;
    const struct coll *k = &w->coll;
    struct comm *c = world_comm(w);
    uint64_t *sum = (uint64_t *)(void *)symmetric(w, 64);
    NEED(w, sum != NULL);
    *sum = 0;
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    for (uint64_t i = 0; i < rounds; i++)
        NEED(w, signal_add(k, sum, 1 + (uint64_t)c->me, (int)(i % (uint64_t)c->n)) == SYP_OK);
    uint64_t all = rounds / (uint64_t)c->n * (uint64_t)(c->n * (c->n + 1) / 2);
    NEED(w, signal_wait(k, sum, SYP_GE, all, -1, &seen, 0) == SYP_OK && seen == all);
    NEED(w, signal_wait(k, sum, SYP_GT, all, -1, &seen, 30 * MS) == SYP_ETIMEOUT && seen == all);
    return 0;
}

static int comparisons(struct world *w, void *arg) {
    (void)arg;
    const struct coll *k = &w->coll;
    uint64_t *word = world_alloc(w, 64);
    static const struct {
        int cmp;
        uint64_t value;
        int holds;
    } row[] = {{SYP_EQ, 5, 1}, {SYP_EQ, 4, 0}, {SYP_NE, 4, 1}, {SYP_NE, 5, 0}, {SYP_GT, 4, 1}, {SYP_GT, 5, 0},          {SYP_GE, 5, 1},
               {SYP_GE, 6, 0}, {SYP_LT, 6, 1}, {SYP_LT, 5, 0}, {SYP_LE, 5, 1}, {SYP_LE, 4, 0}, {SYP_LT, UINT64_MAX, 1}, {SYP_GT, UINT64_MAX, 0}};
    *word = 5;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        uint64_t seen = 0;
        NEED(w, signal_wait(k, word, row[i].cmp, row[i].value, -1, &seen, 2 * MS) == (row[i].holds ? SYP_OK : SYP_ETIMEOUT) && seen == 5);
    }
    return 0;
}

/* The setter comes when the waiter sleeps, in the middle of its third slice: the wake-up is the bell's, not the end of a slice.  A setter that loses its
 * processor between the two may be late for one. */
static int sleepers(struct world *w, void *arg) {
    (void)arg;
    const struct coll *k = &w->coll;
    struct comm *c = world_comm(w);
    uint64_t *ball = (uint64_t *)(void *)symmetric(w, 64), late = stats_read(STAT_LATE_WAKES);
    NEED(w, ball != NULL);
    for (uint64_t i = 1; i <= 20; i++) {
        if (c->me == 0) os->sleep(5 * NS_PER_MS);
        if (c->me == 0) NEED(w, signal_set(k, "signal_set", ball, i, 1) == SYP_OK);
        NEED(w, signal_wait(k, ball, SYP_GE, i, 1 - c->me, NULL, 0) == SYP_OK);
        if (c->me == 1) NEED(w, signal_set(k, "signal_set", ball, i, 0) == SYP_OK);
    }
    NEED(w, stats_read(STAT_LATE_WAKES) <= late + 5);
    return 0;
}

static void one_sided(void) {
    uint64_t rounds = check_count(800, 80000);
    for (int n = 1; n <= 3; n++)
        CHECK_EQ(worlds_as_threads(n, NULL, puts_and_gets, NULL), 0);
    CHECK_EQ(worlds_as_processes(3, NULL, puts_and_gets, NULL), 0);
    CHECK_EQ(worlds_as_threads(2, NULL, refused_places, NULL), 0);
    CHECK_EQ(worlds_as_threads(1, NULL, comparisons, NULL), 0);
    CHECK_EQ(worlds_as_processes(2, &(struct world_setup){.uneven = 1 << 20}, uneven_pools, NULL), 0);
    CHECK_EQ(worlds_as_threads(8, NULL, adding, &rounds), 0);
    CHECK_EQ(worlds_as_processes(8, NULL, adding, &rounds), 0);
    CHECK_EQ(worlds_as_processes(2, NULL, sleepers, NULL), 0);
}

/* ------------------------------------------------------------------------------------------------- channels */

static int channels_count(struct world *w, void *arg) {
    uint64_t seed = *(uint64_t *)arg;
    struct comm *c = world_comm(w), *g = NULL;
    int all[8];
    for (int m = 0; m < c->n; m++)
        all[m] = c->n - 1 - m;
    NEED(w, comm_create(c, all, c->n, &g) == SYP_OK);
    enum { ROUNDS = 200 };
    uint64_t (*full)[ROUNDS][4] = (uint64_t(*)[ROUNDS][4])(void *)symmetric(w, (size_t)c->n * sizeof *full); /* of each sender, never written twice */
    NEED(w, full != NULL);
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t x = check_random(&seed);
        struct comm *in = x & 1 ? g : c;
        int channel = (int)(x >> 8 & 3), times = 1 + (int)(x >> 16 & 3);
        int to = (in->me + 1 + (int)(x >> 24 & 1)) % in->n, from = (in->me + 2 * in->n - 1 - (int)(x >> 24 & 1)) % in->n;
        for (int i = 0; i < times; i++) {
            /* what was put before is seen by whoever has seen the notification */
            uint64_t value = (uint64_t)round << 8 | (uint64_t)i;
            NEED(w, rma_put(&w->coll, "put", &full[in->rank[in->me]][round][i], &value, 8, in->rank[to]) == SYP_OK);
            NEED(w, channel_notify(in, to, channel) == SYP_OK);
        }
        for (int i = 0; i < times; i++) {
            NEED(w, channel_wait(in, from, channel, 0) == SYP_OK);
            NEED(w, full[in->rank[from]][round][i] == ((uint64_t)round << 8 | (uint64_t)i));
        }
    }
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    for (int i = 0; i < SYP_CHANNELS; i++)
        NEED(w, channel_wait(c, before(c), i, 2 * MS) == SYP_ETIMEOUT && channel_wait(g, next_of(g), i, 2 * MS) == SYP_ETIMEOUT);
    return comm_destroy(g);
}

/* Notifications that nobody waited for, and messages, are over with their group; the next one takes the same slot. */
static int slots_are_clean(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w), *g = NULL;
    int both[2] = {0, 1}, slot = -1;
    for (int round = 0; round < 20; round++) {
        NEED(w, comm_create(c, both, 2, &g) == SYP_OK);
        NEED(w, slot < 0 || slot == g->slot);
        slot = g->slot;
        NEED(w, channel_wait(g, 1 - g->me, 2, MS) == SYP_ETIMEOUT);
        NEED(w, coll_barrier(c, 0) == SYP_OK);
        for (int i = 0; i < 3; i++)
            NEED(w, channel_notify(g, 1 - g->me, 2) == SYP_OK);
        char out[8] = "message", in[8] = "";
        const struct buffers send = {(void *[]){out}, (size_t[]){8}, 1, 1 - g->me}, recv = {(void *[]){in}, (size_t[]){8}, 1, 1 - g->me};
        NEED(w, coll_sendrecv(g, &send, &recv, 0) == SYP_OK && strcmp(in, out) == 0);
        if (round % 2) NEED(w, coll_recv(g, &recv, MS) == SYP_ETIMEOUT); /* nor is a direction that was given up */
        NEED(w, coll_barrier(c, 0) == SYP_OK);
        NEED(w, comm_destroy(g) == SYP_OK);
        NEED(w, channel_notify(g, 1 - g->me, 2) == SYP_ESTATE);
        NEED(w, coll_barrier(c, 0) == SYP_OK);
    }
    return 0;
}

/* A sender that has yet to see that its message was taken is held, and so is one that has yet to see a notification.  The other member has done its part, leaves the group
 * and makes others: not in the slot whose lines those two still read. */
static _Thread_local const char *held_at;
static atom32 held, let_go;

static void hold_there(const char *point) {
    if (!held_at || strcmp(point, held_at)) return;
    held_at = NULL;
    store_release(&held, 1);
    for (uint64_t end = os->now() + 20 * NS_PER_S; !load_acquire(&let_go) && os->now() < end;)
        os->sleep(NS_PER_MS);
}

static int taken_and_left(struct world *w, void *arg) {
    const int waits = *(const int *)arg;
    struct comm *c = world_comm(w), *g = NULL, *alone = NULL, *next[3] = {NULL};
    int both[2] = {0, 1}, zero[1] = {0};
    char byte = 1;
    const struct buffers one = {(void *[]){&byte}, (size_t[]){1}, 1, 1 - c->me};
    NEED(w, comm_create(c, both, 2, &g) == SYP_OK);
    for (int r = 0; r < 2; r++) {
        struct comm *single = NULL;
        NEED(w, comm_create(c, &r, 1, &single) == SYP_OK);
        if (r == c->me) alone = single;
    }
    if (c->me == 0) {
        held_at = waits ? "nap.sleep" : "transfer.stepped";
        NEED(w, (waits ? channel_wait(g, 1, 0, 0) : coll_send(g, &one, 0)) == SYP_OK);
    } else {
        while (!load_acquire(&held))
            os->sleep(NS_PER_MS);
        NEED(w, (waits ? channel_notify(g, 0, 0) : coll_recv(g, &one, 0)) == SYP_OK && comm_destroy(g) == SYP_OK);
        for (int i = 0; i < 3; i++)
            NEED(w, comm_create(alone, zero, 1, &next[i]) == SYP_OK && next[i] != g); /* handles are slots */
        store_release(&let_go, 1);
    }
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    if (c->me == 0) return comm_destroy(g);
    NEED(w, comm_create(alone, zero, 1, &g) == SYP_OK); /* free again */
    return 0;
}

static void a_slot_is_not_reused_while_a_partner_reads_what_was_done(void) {
    for (int waits = 0; waits < 2; waits++) {
        store_relaxed(&held, 0);
        store_relaxed(&let_go, 0);
        test_point_hook = hold_there;
        CHECK_EQ(worlds_as_threads(2, NULL, taken_and_left, &waits), 0);
        test_point_hook = NULL;
    }
}

static void channels(void) {
    uint64_t seed = check_seed();
    for (int n = 1; n <= 4; n++)
        CHECK_EQ(worlds_as_threads(n, NULL, channels_count, &seed), 0);
    delays_on(seed, 3);
    CHECK_EQ(worlds_as_threads(3, NULL, channels_count, &seed), 0);
    delays_off();
    CHECK_EQ(worlds_as_processes(4, NULL, channels_count, &seed), 0);
    CHECK_EQ(worlds_as_threads(2, NULL, slots_are_clean, NULL), 0);
    CHECK_EQ(worlds_as_processes(2, NULL, slots_are_clean, NULL), 0);
}

/* ----------------------------------------------------------------------------------------- lists of buffers */

#define MOST 1024
#define GUARD 16

/* A list of buffers, each in the pool or not, between guards. */
struct list {
    void *buf[MOST];
    size_t len[MOST];
    char *at[MOST];
    uint8_t in_pool[MOST];
    int n;
};

static int list_make(struct world *w, struct list *l, int n, const size_t *len, uint64_t places) {
    l->n = n;
    for (int i = 0; i < n; i++) {
        l->in_pool[i] = (uint8_t)(places >> (i & 31) & 1);
        l->len[i] = len[i];
        l->at[i] = l->in_pool[i] ? world_alloc(w, len[i] + 2 * GUARD) : malloc(len[i] + 2 * GUARD);
        if (!l->at[i]) return 1;
        memset(l->at[i], 0x5a, len[i] + 2 * GUARD);
        l->buf[i] = len[i] || i & 1 ? l->at[i] + GUARD + (i & 3) : NULL;
    }
    return 0;
}

static void list_free(struct world *w, struct list *l) {
    for (int i = 0; i < l->n; i++) {
        if (l->in_pool[i])
            world_free(w, l->at[i]);
        else
            free(l->at[i]);
    }
}

static void list_fill(struct list *l, int from, int to, uint64_t number) {
    for (int i = 0; i < l->n; i++)
        for (size_t b = 0; b < l->len[i]; b++)
            ((uint8_t *)l->buf[i])[b] = byte_of(from, to, number * MOST + (uint64_t)i, b);
}

static int list_right(const struct list *l, int from, int to, uint64_t number) {
    for (int i = 0; i < l->n; i++) {
        size_t skew = GUARD + (size_t)(i & 3);
        for (size_t b = 0; b < l->len[i]; b++)
            if (((uint8_t *)l->buf[i])[b] != byte_of(from, to, number * MOST + (uint64_t)i, b)) return 0;
        for (size_t b = 0; b < 2 * GUARD; b++)
            if (l->at[i][b < skew ? b : b + l->len[i]] != 0x5a) return 0;
    }
    return 1;
}

static struct buffers as_buffers(const struct list *l, int member) {
    return (struct buffers){l->buf, l->len, l->n, member};
}

/* What all know of a message: numbers and lengths of buffers, from a common random stream. */
static int shape(uint64_t *seed, size_t *len) {
    uint64_t x = check_random(seed);
    static const size_t around[] = {0, 1, 8, 975, 976, 991, 992, 993, 1000, 4096, PAIR_CHUNK - 1, PAIR_CHUNK, PAIR_CHUNK + 1, 2 * PAIR_CHUNK + 7, 3 * PAIR_CHUNK,
                                    700001};
    static const int numbers[] = {0, 1, 1, 2, 3, 7, 61, 62, 63, 124, 125, 300, 1023, 1024};
    int n = numbers[x % (sizeof numbers / sizeof numbers[0])];
    if (x >> 40 & 3 && n > 7) n = (int)(x >> 20 & 7); /* long lists are rarer */
    for (int i = 0; i < n; i++) {
        uint64_t y = check_random(seed);
        len[i] = n > 8 ? (y & 3 ? y >> 8 & 127 : y >> 8 & 4095) : y & 1 ? around[(y >> 8) % (sizeof around / sizeof around[0])] : y >> 8 & 0xffff;
    }
    return n;
}

struct program {
    uint64_t seed;
    int rounds;
};

/* In each round every member sends to one and receives from one, in a random group; in pairs by send and recv, or both at once. */
static int random_program(struct world *w, void *arg) {
    const struct program *p = arg;
    struct comm *c = world_comm(w), *group[3] = {c, NULL, NULL};
    int list[8];
    for (int m = 0; m < c->n; m++)
        list[m] = c->n - 1 - m;
    NEED(w, comm_create(c, list, c->n, &group[1]) == SYP_OK);
    for (int m = 0; m < c->n / 2 + 1; m++)
        list[m] = m;
    NEED(w, comm_create(c, list, c->n / 2 + 1, &group[2]) == SYP_OK);
    uint64_t common = p->seed, own = p->seed * 31 + (uint64_t)c->me + 1;
    struct list *out = calloc(1, sizeof *out), *in = calloc(1, sizeof *in);
    size_t *len = calloc(8, MOST * sizeof *len);
    for (int round = 0; round < p->rounds; round++) {
        uint64_t x = check_random(&common), places = check_random(&own) | check_random(&own) << 32, number = (uint64_t)round;
        struct comm *g = group[x % 3];
        int n[8], shift = (int)(x >> 8 & 7), kind = (int)(x >> 16 & 3);
        for (int m = 0; m < c->n; m++)
            n[m] = shape(&common, len + m * MOST);
        if (x >> 24 & 1) places = x >> 25 & 1 ? 0 : UINT64_MAX;
        if (!g) continue;
        int to = (g->me + shift) % g->n, from = (g->me + 8 * g->n - shift) % g->n, from_rank = g->rank[from], me = g->rank[g->me];
        NEED(w, list_make(w, out, n[me], len + me * MOST, places) == 0 && list_make(w, in, n[from_rank], len + from_rank * MOST, places >> 17) == 0);
        list_fill(out, me, g->rank[to], number);
        const struct buffers send = as_buffers(out, to), recv = as_buffers(in, from);
        if (kind == 0 && to != g->me && g->n % 2 == 0 && shift % 2) { /* by send and recv, the even ones first send */
            if (g->me % 2 == 0) NEED(w, coll_send(g, &send, 0) == SYP_OK);
            NEED(w, coll_recv(g, &recv, 0) == SYP_OK);
            if (g->me % 2) NEED(w, coll_send(g, &send, 0) == SYP_OK);
        } else {
            NEED(w, coll_sendrecv(g, &send, &recv, 0) == SYP_OK);
        }
        if (!list_right(in, from_rank, me, number) || !list_right(out, me, g->rank[to], number)) {
            fprintf(stderr, "rank %d: round %d, from %d: wrong bytes\n", me, round, from_rank);
            return 1;
        }
        list_free(w, out);
        list_free(w, in);
        if (kind == 3) NEED(w, coll_barrier(g, 0) == SYP_OK);
    }
    free(len);
    free(in);
    free(out);
    return 0;
}

static void lists(void) {
    struct program p = {check_seed(), (int)check_count(120, 5000) / (CHECK_SLOW_BUILD ? 4 : 1)};
    for (int n = 1; n <= (int)check_count(4, 8); n++)
        CHECK_EQ(worlds_as_threads(n, NULL, random_program, &p), 0);
    delays_on(p.seed, 4);
    for (int n = 2; n <= (int)check_count(3, 8); n++)
        CHECK_EQ(worlds_as_threads(n, NULL, random_program, &p), 0);
    delays_off();
    for (int n = 2; n <= (int)check_count(4, 8); n += 2)
        CHECK_EQ(worlds_as_processes(n, NULL, random_program, &p), 0);
}

/* Data that lies in a pool on one side passes through no staging area: there are no steps for chunks, and what is in the area stays. */
static int is_zero_copy(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w);
    static char outside[1 << 20];
    char *pool = world_alloc(w, sizeof outside), *area = w->peers.exchange_window + coll_pair_staging(w->coll_conf.staging, 0);
    const struct pair_line *line = pair_own_line(c, 1 - c->me);
    uint64_t before_it = 0;
    for (int round = 0; round < 4; round++) { /* at first both outside: proves that this looks at the right place */
        void *out = round & 1 ? pool : outside, *in = round & 2 ? pool : outside;
        const struct buffers send = {&out, (size_t[]){sizeof outside}, 1, 1}, recv = {&in, (size_t[]){sizeof outside}, 1, 0};
        memset(out, 0x30 + round, sizeof outside);
        NEED(w, (c->me == 0 ? coll_send(c, &send, 0) : coll_recv(c, &recv, 0)) == SYP_OK);
        uint64_t steps = load_relaxed(&line->sent) + load_relaxed(&line->received);
        NEED(w, c->me == 0 || *(char *)in == 0x30 + round);
        NEED(w, area[0] == 0x30 && steps - before_it == (round == 0 ? 10 : round & 1 ? 1 : 2));
        before_it = steps;
        NEED(w, coll_barrier(c, 0) == SYP_OK);
    }
    return 0;
}

static void zero_copy(void) {
    CHECK_EQ(worlds_as_processes(2, NULL, is_zero_copy, NULL), 0);
}

/* ------------------------------------------------------------------------------------------------- failures */

static int mismatches(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w);
    static const struct {
        int n_send, n_recv;
        size_t send[3], recv[3];
        const char *sent, *received;
    } row[] = {{1, 1, {8}, {9}, "1 buffers of 8 bytes: 8", "1 buffers of 9 bytes: 9"},
               {2, 3, {5, 7}, {5, 7, 0}, "2 buffers of 12 bytes: 5, 7", "3 buffers of 12 bytes: 5, 7, 0"},
               {2, 2, {4000, 1}, {1, 4000}, "2 buffers of 4001 bytes: 4000, 1", "2 buffers of 4001 bytes: 1, 4000"},
               {0, 1, {0}, {3000}, "0 buffers of 0 bytes", "1 buffers of 3000 bytes: 3000"}};
    static _Thread_local char room[4096], same[8];
    void *bufs[3] = {room, room, room}, *small = same;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        const struct buffers send = {bufs, row[i].send, row[i].n_send, 1}, recv = {bufs, row[i].recv, row[i].n_recv, 0};
        memset(room, 0x5a, sizeof room);
        NEED(w, (c->me == 0 ? coll_send(c, &send, 0) : coll_recv(c, &recv, 0)) == SYP_EMISMATCH);
        NEED(w, strstr(syp_error_text(), row[i].sent) && strstr(syp_error_text(), row[i].received));
        for (size_t b = 0; b < sizeof room; b++)
            NEED(w, room[b] == 0x5a);
        const struct buffers next = {&small, (size_t[]){8}, 1, 1 - c->me}; /* the two are in step */
        memset(same, c->me == 0 ? (int)i + 1 : 0, sizeof same);
        NEED(w, (c->me == 0 ? coll_send(c, &next, 0) : coll_recv(c, &next, 0)) == SYP_OK && same[7] == (int)i + 1);
    }
    return 0;
}

/* Nobody comes: each wait ends in its time, and breaks that direction of that pair alone. */
static int deadlines(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w);
    char out[2000] = "x", in[2000];
    void *o = out, *i = in;
    size_t len = sizeof out;
    const struct buffers send = {&o, &len, 1, 1 - c->me}, recv = {&i, &len, 1, 1 - c->me};
    int64_t limit = 400 * MS;
    if (c->me == 0) {
        uint64_t began = os->now();
        NEED(w, coll_send(c, &send, limit) == SYP_ETIMEOUT && err_record()->peer == 1 && strstr(syp_error_text(), "has not called the receive"));
        uint64_t took = os->now() - began;
        NEED(w, took >= (uint64_t)limit / 2 && (took <= (uint64_t)limit * 12 / 10 || CHECK_SLOW_BUILD));
        NEED(w, coll_send(c, &send, 0) == SYP_EABORTED);
        began = os->now();
        NEED(w, channel_wait(c, 1, 0, limit) == SYP_ETIMEOUT && err_record()->peer == 1);
        took = os->now() - began;
        NEED(w, took >= (uint64_t)limit / 2 && (took <= (uint64_t)limit * 12 / 10 || CHECK_SLOW_BUILD));
    }
    NEED(w, coll_barrier(c, 0) == SYP_OK); /* the group is not broken */
    if (c->me == 1) NEED(w, coll_recv(c, &recv, 0) == SYP_EABORTED && err_record()->peer == 0);
    for (int k = 0; k < 3; k++) /* the other direction goes on */
        NEED(w, (c->me == 1 ? coll_send(c, &send, 0) : coll_recv(c, &recv, 0)) == SYP_OK);
    /* at once: one direction fails, the other is done */
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    if (c->me == 1)
        NEED(w, coll_sendrecv(c, &send, &recv, 0) == SYP_EABORTED);
    else
        NEED(w, coll_recv(c, &recv, 0) == SYP_OK);
    NEED(w, coll_barrier(c, 0) == SYP_OK);
    return 0;
}

static int aborts(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w), *g = NULL;
    int all[3] = {0, 1, 2};
    char in[8];
    void *i = in;
    const struct buffers recv = {&i, (size_t[]){8}, 1, 1};
    NEED(w, comm_create(c, all, 3, &g) == SYP_OK);
    if (g->me == 0) NEED(w, coll_recv(g, &recv, 0) == SYP_EABORTED && err_record()->peer == 2);
    if (g->me == 1) NEED(w, channel_wait(g, 0, 1, 0) == SYP_EABORTED);
    if (g->me == 2) {
        os->sleep(30 * NS_PER_MS);
        NEED(w, comm_abort(g) == SYP_OK);
        NEED(w, coll_recv(g, &recv, 0) == SYP_EABORTED && channel_notify(g, 0, 0) == SYP_EABORTED);
    }
    return coll_barrier(c, 0);
}

struct second_thread {
    struct world *w;
    struct comm *c;
    int rc;
};

static void *receive_late(void *arg) {
    struct second_thread *s = arg;
    char in[8];
    void *i = in;
    const struct buffers recv = {&i, (size_t[]){8}, 1, 1 - s->c->me};
    s->rc = coll_recv(s->c, &recv, 0);
    return NULL;
}

/* Two threads of a rank on one direction of a pair, and a group that is destroyed under a thread: refused, and nothing else happens. */
static int two_threads(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w), *g = NULL;
    int both[2] = {0, 1};
    char text[8] = "hello";
    void *t = text;
    const struct buffers one = {&t, (size_t[]){8}, 1, 1 - c->me};
    NEED(w, comm_create(c, both, 2, &g) == SYP_OK);
    if (c->me == 1) {
        struct second_thread s = {w, g, 1};
        pthread_t id;
        NEED(w, pthread_create(&id, NULL, receive_late, &s) == 0);
        while (!load_acquire(&g->pair[0].way[RECEIVING].busy))
            os->sleep(NS_PER_MS);
        NEED(w, coll_recv(g, &one, 0) == SYP_EBUSY && comm_destroy(g) == SYP_EBUSY);
        NEED(w, coll_barrier(g, 0) == SYP_OK); /* operations of the group go on meanwhile */
        pthread_join(id, NULL);
        NEED(w, s.rc == SYP_OK);
    } else {
        NEED(w, coll_barrier(g, 0) == SYP_OK);
        NEED(w, coll_send(g, &one, 0) == SYP_OK);
    }
    NEED(w, coll_barrier(c, 0) == SYP_OK && comm_destroy(g) == SYP_OK);
    NEED(w, coll_send(g, &one, 0) == SYP_ESTATE);
    return 0;
}

static void failures(void) {
    CHECK_EQ(worlds_as_threads(2, NULL, mismatches, NULL), 0);
    CHECK_EQ(worlds_as_processes(2, NULL, mismatches, NULL), 0);
    CHECK_EQ(worlds_as_processes(2, NULL, deadlines, NULL), 0);
    CHECK_EQ(worlds_as_threads(2, NULL, deadlines, NULL), 0);
    CHECK_EQ(worlds_as_threads(3, NULL, aborts, NULL), 0);
    CHECK_EQ(worlds_as_threads(2, NULL, two_threads, NULL), 0);
}

/* ----------------------------------------------------------------------------------- stopped while it stores */

#define HELD (1u << 20)

static atom32 *stopped_now; /* shared: 1 = about to stop, 2 = the receiver has seen all */

static void stop_at_piece(const char *point) {
    static int passed;
    if (strcmp(point, "transfer.piece") != 0 || ++passed != 2) return;
    store_release(stopped_now, 1);
    kill(getpid(), SIGSTOP);
}

/* Rank 0 is stopped while it stores into a buffer of rank 1's pool, which rank 1 then frees: nobody gets those bytes before rank 0 has noticed. */
static int stopped_sender(struct world *w, void *arg) {
    (void)arg;
    struct comm *c = world_comm(w);
    char *pool = world_alloc(w, HELD), *outside = malloc(HELD);
    void *o = outside, *i = pool;
    size_t len = HELD;
    const struct buffers send = {&o, &len, 1, 1}, recv = {&i, &len, 1, 0};
    memset(outside, 0x77, HELD);
    if (c->me == 0) {
        test_point_hook = stop_at_piece;
        int rc = coll_send(c, &send, 0);
        test_point_hook = NULL;
        NEED(w, rc == SYP_EABORTED && err_record()->peer == 1);
    } else {
        int pid = w->peers.roster.rank[0].pid;
        NEED(w, coll_recv(c, &recv, 100 * MS) == SYP_ETIMEOUT && strstr(syp_error_text(), "stopped"));
        NEED(w, load_acquire(stopped_now) == 1);
        NEED(w, comm_buffers_safe(c) == SYP_EBUSY && err_record()->peer == 0);
        world_free(w, pool);
        char *mine[64];
        int n = 0;
        while (n < 64 && (mine[n] = world_alloc(w, HELD)) != NULL)
            memset(mine[n++], 0x11, HELD);
        NEED(w, n > 8);
        kill(pid, SIGCONT);
        while (comm_buffers_safe(c) != SYP_OK)
            os->sleep(NS_PER_MS);
        for (int k = 0; k < n; k++) {
            NEED(w, mine[k][0] == 0x11 && memcmp(mine[k], mine[k] + 1, HELD - 1) == 0);
            world_free(w, mine[k]);
        }
        NEED(w, !quarantine_any(&w->peers.region->quarantine) && w->pool->heap.parked_bytes == 0);
    }
    free(outside);
    return coll_barrier(c, 0);
}

static void straggler(void) {
    stopped_now = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK_EQ(worlds_as_processes(2, NULL, stopped_sender, NULL), 0);
    munmap((void *)stopped_now, 4096);
}

int main(void) {
    return check_main("pairs", (struct check_test[]){{"one-sided", one_sided},
                                                     {"a_slot_is_not_reused_while_a_partner_reads_what_was_done", a_slot_is_not_reused_while_a_partner_reads_what_was_done},
                                                     {"channels", channels},
                                                     {"lists", lists},
                                                     {"zero copy", zero_copy},
                                                     {"failures", failures},
                                                     {"straggler", straggler},
                                                     {0}});
}
