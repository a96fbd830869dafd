/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words of the tree: tree.h says what for.
 *
 * What makes them safe to read is what makes the mails safe.  A leader writes tree[s & 1] of operation s + 2 only after its part has posted s + 2, so all
 * members have posted s + 1 and are done with s.  And nobody reads a member's words or calls without having looked whether that member has given the group up,
 * after having said that it is inside: see wait_aborted.
 *
 * `up` of an operation's later phase may come before a slow leader has looked at the first one's; up_differs stays, so nothing is lost.
 */
#include "collectives/tree.h"
#include "collectives/post.h"
#include "pool/base/os.h"
#include "pool/base/status.h"

#include <string.h>

static int leader_of(const struct comm *c, int part) { return c->seat[c->part[part].first]; }

static const struct tree_part *own_part(const struct comm *c) { return &c->part[c->own_part]; }

static struct tree_mark *own_mark(const struct comm *c) { return &c->own->tree[c->sequence & 1]; }

static const struct tree_mark *mark_of(const struct comm *c, int member) { return &c->member[member].slot->tree[c->sequence & 1]; }

static int up_reached(const struct comm *c, int leader, uint64_t target) {
    return load_acquire((atom64 *)&mark_of(c, leader)->up) >= target; /* pairs with tree_store */
}

int tree_memory(struct coll *k, int slot) {
    if (k->result_ready[slot]) return SYP_OK;
    int rc = peers_commit_control(k->peers, offsetof(struct board, result) + (uint64_t)slot * sizeof(struct tree_result), sizeof(struct tree_result));
    if (rc != SYP_OK) return rc;
    k->result_ready[slot] = 1;
    stats_set(STAT_OVERHEAD, stats_read(STAT_OVERHEAD) + sizeof(struct tree_result));
    return SYP_OK;
}

/* -------------------------------------------------------------------------------------------------- arranging */

static int32_t cache_of(const struct comm *c, int member) { return c->coll->peers->roster.rank[c->rank[member]].cache_group; }

/* Of a part.  Larger ones make their leader slow, more of them make everybody slow. */
static int part_most(int n) { return n <= 256 ? 16 : 32; }

/* The seats first .. end - 1 share a cache: in parts of their own, but for a few that fit beside the few before them. */
static void add_parts(struct comm *c, int first, int end) {
    int most = part_most(c->n), len = end - first, pieces = (len + most - 1) / most;
    struct tree_part *last = c->parts ? &c->part[c->parts - 1] : NULL;
    int before = last ? last->end - last->first : most;
    if (before < most / 2 && before + len <= most) {
        last->end = end;
        return;
    }
    for (int i = 0; i < pieces; i++)
        c->part[c->parts++] = (struct tree_part){first + len * i / pieces, first + len * (i + 1) / pieces};
}

size_t tree_table_bytes(int n) { return n <= TREE_ABOVE ? 0 : (size_t)n * (sizeof(int) + sizeof(struct tree_part)); }

void tree_arrange(struct comm *c, void *table) {
    int seats = 0;
    c->parts = c->own_part = 0;
    if (c->n <= TREE_ABOVE) return;
    c->part = table;
    c->seat = (int *)(c->part + c->n);
    for (int m = 0; m < c->n; m++) {
        int first = 0, begin = seats;
        while (cache_of(c, first) != cache_of(c, m))
            first++;
        if (first < m) continue; /* it has its seat, beside that one */
        for (int i = m; i < c->n; i++)
            if (cache_of(c, i) == cache_of(c, m)) c->seat[seats++] = i;
        add_parts(c, begin, seats);
    }
    for (int p = 0; p < c->parts; p++)
        for (int i = c->part[p].first; i < c->part[p].end; i++)
            if (c->seat[i] == c->me) c->own_part = p;
}

/* -------------------------------------------------------------------------------------------------- publishing */

void tree_publish(struct comm *c) {
    if (!c->parts) {
        comm_publish(c);
        return;
    }
    int leader = leader_of(c, c->own_part);
    comm_publish_to(c, leader, leader + (leader != c->me));
}

/* As comm_publish. */
static void tree_store(struct comm *c, enum awaited on, uint64_t target) {
    int which = (int)(c->sequence & 1), wake = 0;
    atom64 *word = (atom64 *)slot_word(c->own, on, which);
    uint64_t sleeper = asleep_on(c->coll->peers->me, on, which);
    TEST_POINT("tree.publish");
    store_release(word, target); /* pairs with up_reached and tree_over, and through the fences with wait_sleep */
    fence_light(c->coll);
    for (int m = 0; m < c->n; m++)
        wake |= load_relaxed((atom64 *)&c->member[m].slot->asleep) == sleeper;
    if (wake) os->futex_wake(comm_word(word), INT32_MAX);
    TEST_POINT("tree.published");
}

/* --------------------------------------------------------------------------------------------------- comparing */

static int has_given_up(const struct comm *c, int member) {
    return load_acquire((atom64 *)&c->member[member].slot->abort_group) > c->id; /* pairs with announce_break */
}

static int calls_as_we(const struct comm *c, int member) {
    return !mail_calls_differ(&comm_mail_of(c, member)->call, &c->call);
}

/* Each member on these seats is still with us and asks for the same as we.  If one is not, nothing more of them is read here. */
static int all_as_we(const struct comm *c, int first, int end) {
    fence_light(c->coll); /* as in wait_aborted */
    for (int i = first; i < end; i++)
        if (has_given_up(c, c->seat[i]) || !calls_as_we(c, c->seat[i])) return 0;
    return 1;
}

/* Every part is with us and asks for the same as we: as its leader says, or as we see. */
static int parts_agree(const struct comm *c, uint64_t target) {
    for (int p = 0; p < c->parts; p++) {
        int leader = leader_of(c, p), first = c->part[p].first, told = up_reached(c, leader, target);
        if (!all_as_we(c, first, told ? first + 1 : c->part[p].end)) return 0;
        if (told && load_relaxed((atom64 *)&mark_of(c, leader)->up_differs) == target) return 0;
    }
    return 1;
}

int tree_agrees(const struct request *r) {
    const struct comm *c = r->c;
    if (r->all_seen >= r->base || has_given_up(c, c->me)) return 0;
    if (!r->combined) return parts_agree(c, r->base) && (r->root < 0 || r->root >= c->n || !has_given_up(c, r->root));
    return all_as_we(c, 0, 1) /* member 0 */ && load_relaxed((atom64 *)&mark_of(c, 0)->all_differs) != r->base;
}

/* ----------------------------------------------------------------------------------------------------- waiting */

static int awaits(struct request *r, enum awaited on, int member, uint64_t target) {
    r->wait_one = 0;
    r->wait_on = on;
    r->wait_member = member;
    r->wait_target = target;
    return 0;
}

/* Our part has come. */
static int own_part_at(struct request *r, uint64_t target) {
    struct comm *c = r->c;
    struct tree_mark *mark = own_mark(c);
    const struct tree_part *part = own_part(c);
    if (load_relaxed(&mark->up) >= target) return 1;
    for (; part->first + r->cursor < part->end; r->cursor++) {
        int member = c->seat[part->first + r->cursor];
        if (!wait_reached(c, member, target)) return awaits(r, ON_STAMP, member, target);
    }
    r->cursor = 0;
    if (target == r->base && !all_as_we(c, part->first, part->end)) store_relaxed(&mark->up_differs, target); /* ordered by up */
    tree_store(c, ON_UP, target);
    return 1;
}

int tree_over(struct request *r) {
    const struct comm *c = r->c;
    if (r->all_seen >= r->wait_target) return 1;
    if (r->wait_on == ON_ALL) return load_acquire((atom64 *)&mark_of(c, 0)->all) >= r->wait_target; /* pairs with tree_store */
    if (up_reached(c, r->wait_member, r->wait_target)) return 1;
    if (!load_relaxed(&c->coll->peers->crowded)) return 0; /* pairs with crowd.c */
    const struct tree_part *part = &c->part[r->cursor];
    while (part->first + r->part_seen < part->end && wait_reached(c, c->seat[part->first + r->part_seen], r->wait_target))
        r->part_seen++;
    return part->first + r->part_seen == part->end;
}

/* Every part has come. */
static int parts_at(struct request *r, uint64_t target) {
    struct comm *c = r->c;
    for (; r->cursor < c->parts; r->cursor++, r->part_seen = 0) {
        (void)awaits(r, ON_UP, leader_of(c, r->cursor), target);
        if (!tree_over(r)) return 0;
    }
    r->cursor = 0;
    return 1;
}

/* Member 0, of the mails' data. */
static void combine_for_all(struct request *r, uint64_t target) {
    struct comm *c = r->c;
    struct tree_mark *mark = own_mark(c);
    if (load_relaxed(&mark->all) >= target) return;
    int agreed = r->all_seen < target && parts_agree(c, target);
    if (agreed && !r->error && (agreed = all_as_we(c, 0, c->n))) /* once more, because everybody's data is read */
        r->moves->combine(r, (uint8_t *)c->result->data[c->sequence & 1]);
    if (!agreed) store_relaxed(&mark->all_differs, target); /* ordered by all */
    tree_store(c, ON_ALL, target);
}

int tree_all_at(struct request *r, uint64_t target) {
    struct comm *c = r->c;
    if (leader_of(c, c->own_part) == c->me && r->all_seen < target && !own_part_at(r, target)) return 0;
    if (r->combined && c->me != 0) {
        (void)awaits(r, ON_ALL, 0, target);
        return tree_over(r);
    }
    if (!parts_at(r, target)) return 0;
    if (r->combined) combine_for_all(r, target);
    return 1;
}

int tree_look(struct request *r) {
    struct comm *c = r->c;
    for (int m = 0; m < c->n; m++)
        if (!wait_reached(c, m, r->wait_target)) return 0;
    r->all_seen = r->wait_target;
    r->cursor = r->part_seen = 0;
    return 1;
}

void tree_take_result(struct request *r) {
    memcpy(r->recv, r->c->result->data[r->c->sequence & 1], r->total);
}
