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

static int leader_of(const struct comm *c, int member) { return member - member % c->tree; }

static int part_end(const struct comm *c, int leader) { return leader + c->tree < c->n ? leader + c->tree : c->n; }

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

/* -------------------------------------------------------------------------------------------------- publishing */

void tree_publish(struct comm *c) {
    if (!c->tree) {
        comm_publish(c);
        return;
    }
    int leader = leader_of(c, c->me);
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
    return !mail_calls_differ(&comm_mail_of(c, member)->call, &comm_mail(c)->call);
}

/* Each of these members is still with us and asks for the same as we.  If one is not, nothing more of them is read here. */
static int all_as_we(const struct comm *c, int first, int end) {
    fence_light(c->coll); /* as in wait_aborted */
    for (int m = first; m < end; m++)
        if (has_given_up(c, m) || !calls_as_we(c, m)) return 0;
    return 1;
}

/* Every part is with us and asks for the same as we: as its leader says, or as we see. */
static int parts_agree(const struct comm *c, uint64_t target) {
    for (int m = 0; m < c->n; m += c->tree) {
        int told = up_reached(c, m, target);
        if (!all_as_we(c, m, told ? m + 1 : part_end(c, m))) return 0;
        if (told && load_relaxed((atom64 *)&mark_of(c, m)->up_differs) == target) return 0;
    }
    return 1;
}

int tree_agrees(const struct request *r) {
    const struct comm *c = r->c;
    if (r->all_seen >= r->base || has_given_up(c, c->me)) return 0;
    if (!r->combined) return parts_agree(c, r->base) && (r->root < 0 || r->root >= c->n || !has_given_up(c, r->root));
    return all_as_we(c, 0, 1) && load_relaxed((atom64 *)&mark_of(c, 0)->all_differs) != r->base;
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
    int end = part_end(c, c->me);
    if (load_relaxed(&mark->up) >= target) return 1;
    for (; r->cursor < end - c->me; r->cursor++)
        if (!wait_reached(c, c->me + r->cursor, target)) return awaits(r, ON_STAMP, c->me + r->cursor, target);
    r->cursor = 0;
    if (target == r->base && !all_as_we(c, c->me, end)) store_relaxed(&mark->up_differs, target); /* ordered by up */
    tree_store(c, ON_UP, target);
    return 1;
}

int tree_over(struct request *r) {
    const struct comm *c = r->c;
    int end = part_end(c, r->wait_member);
    if (r->all_seen >= r->wait_target) return 1;
    if (r->wait_on == ON_ALL) return load_acquire((atom64 *)&mark_of(c, 0)->all) >= r->wait_target; /* pairs with tree_store */
    if (up_reached(c, r->wait_member, r->wait_target)) return 1;
    if (!load_relaxed(&c->coll->peers->crowded)) return 0; /* pairs with crowd.c */
    while (r->wait_member + r->part_seen < end && wait_reached(c, r->wait_member + r->part_seen, r->wait_target))
        r->part_seen++;
    return r->wait_member + r->part_seen == end;
}

/* Every part has come. */
static int parts_at(struct request *r, uint64_t target) {
    struct comm *c = r->c;
    for (; r->cursor < c->n; r->cursor += c->tree, r->part_seen = 0) {
        (void)awaits(r, ON_UP, r->cursor, target);
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
    if (leader_of(c, c->me) == c->me && r->all_seen < target && !own_part_at(r, target)) return 0;
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
