/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one place where an operation of a group waits for its members; waits for one rank are nap.c's.
 *
 *   spin    (every rank has a processor: up to SYMPOOL_SPIN, with a yield now and then; ranks outnumber the processors: a few pauses)
 *   yield   (when crowded: a pure spin would burn the time slice of the rank we wait for)
 *   sleep   futex on the awaited stamp, in slices of 1 ms doubling to 8; after each slice look at life, aborts and the deadline
 *
 * A sleeper announces whose stamp it sleeps on (slot->asleep) before it looks at the stamp a last time; a publisher stores the stamp before it looks
 * for sleepers; both have a fence between (fence.h), so one of the two sees the other, and the kernel compares the word once more.  A lost
 * wake-up is therefore impossible, and the statistics would show it (late_wakes).
 *
 * No wait is for ever: every request has a deadline.  A member that is gone matters only if it has not reached the target; then the operation cannot
 * complete, and the group is broken for all (comm_break).
 */
#include "collectives/awake.h"
#include "collectives/fence.h"
#include "collectives/request.h"
#include "collectives/tree.h"
#include "pool/base/log.h"
#include "pool/base/os.h"
#include "pool/base/point.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <errno.h>
#include <string.h>

#define CROWDED_SPINS 5
#define LEADERS_TIME (10 * NS_PER_MS) /* which leaders of the tree have to tell; then everybody looks for itself */

int wait_over(struct request *r) {
    return r->wait_on == ON_STAMP ? wait_reached(r->c, r->wait_member, r->wait_target) : tree_over(r);
}

/* A core dump delays every sign of a death, so it is worth telling. */
static int dumps_core(int pid) {
    char path[48], status[4096];
    text_format(path, sizeof path, "/proc/%d/status", pid);
    return os_read_file(path, status, sizeof status) > 0 && strstr(status, "CoreDumping:\t1") != NULL;
}

const char *process_state(int pid, char *buf, size_t cap) {
    char path[48], stat[256];
    const char *say = "", *p = stat;
    text_format(path, sizeof path, "/proc/%d/stat", pid);
    if (os_read_file(path, stat, sizeof stat) <= 0) {
        say = ", not visible";
    } else {
        for (const char *q = stat; *q; q++)
            if (*q == ')') p = q;
        char state = p[0] && p[1] ? p[2] : 0;
        say = dumps_core(pid) ? ", dumping core" : state == 'T' ? ", stopped" : state == 't' ? ", held by a debugger" : "";
    }
    text_copy(buf, cap, say);
    return buf;
}

/* The one member that is waited for may itself wait for others, which have published less than it: the phase that they have not reached; 0 = there are none. */
static uint64_t held_up_at(const struct request *r) {
    uint64_t his = load_acquire((atom64 *)&comm_mail_of(r->c, r->wait_member)->stamp); /* pairs with comm_publish */
    for (int m = 0; m < r->c->n; m++)
        if (m != r->c->me && !wait_reached(r->c, m, his)) return his;
    return 0;
}

/* "rank 3 (pid 4711, stopped) has not entered it (last: barrier 41)" for every member that is behind; returns the first one. */
static int describe_behind(const struct request *r, struct text *t) {
    char state[32];
    int first = -1, said = 0;
    if (r->wait_one && wait_reached(r->c, r->wait_member, r->wait_target)) return first;
    uint64_t held_up = r->wait_one ? held_up_at(r) : 0;
    for (int m = 0; m < r->c->n; m++) {
        const struct comm_member *member = &r->c->member[m];
        if (m == r->c->me || wait_reached(r->c, m, held_up ? held_up : r->wait_target)) continue;
        if (r->wait_one && !held_up && m != r->wait_member) continue;
        if (first < 0) first = m;
        if (said++ == 8) {
            text_addf(t, " and others");
            break;
        }
        int pid = r->c->coll->peers->roster.rank[member->rank].pid;
        uint64_t current = load_relaxed((atom64 *)&member->slot->current); /* pairs with post_note */
        uint64_t sequence = current & ((1ull << 56) - 1);
        text_addf(t, "%srank %d (pid %d%s) ", said > 1 ? "; " : "", member->rank, pid, process_state(pid, state, sizeof state));
        if (sequence >= r->sequence)
            text_addf(t, "is inside it and has not finished its part");
        else if (sequence == 0)
            text_addf(t, "has not entered any operation of this group yet");
        else
            text_addf(t, "has not entered it (last entered: %s %llu)", op_name((int)(current >> 56)),
                      (unsigned long long)sequence);
    }
    return first;
}

static int give_up_timeout(struct request *r, uint64_t now) {
    char who[700];
    struct text t = TEXT_INIT(who);
    int m = describe_behind(r, &t);
    if (m < 0) return SYP_OK; /* it arrived at the last moment */
    int rank = r->c->member[m].rank;
    err_set(SYP_ETIMEOUT, "%s %llu on group %d: not complete after %llu ms: %s; raise SYMPOOL_TIMEOUT if that is legal",
            op_name(r->kind), (unsigned long long)r->sequence, r->c->slot,
            (unsigned long long)((now - r->start) / NS_PER_MS), who);
    err_peer(rank, r->c->coll->peers->roster.rank[rank].pid);
    return comm_break(r->c, SYP_ETIMEOUT, rank, r->sequence);
}

static int give_up_gone(struct request *r, int member, int reason) {
    int rank = r->c->member[member].rank;
    int pid = r->c->coll->peers->roster.rank[rank].pid;
    life_publish(r->c->coll->peers, rank, reason);
    err_set(SYP_EPEER, "%s %llu on group %d: rank %d (pid %d) %s; the group is broken: the other ranks get the same error",
            op_name(r->kind), (unsigned long long)r->sequence, r->c->slot, rank, pid,
            reason == LIFE_REASON_LEFT ? "has left the job" : "died");
    err_peer(rank, pid);
    return comm_break(r->c, SYP_EPEER, rank, r->sequence);
}

/* Another member gave the group up: take over its cause. */
static int give_up_aborted(struct request *r, int member) {
    uint64_t why = load_relaxed((atom64 *)&r->c->member[member].slot->abort_why); /* ordered by the acquire of abort_group */
    int code = why_code(why), culprit = why_culprit(why);
    int from = r->c->member[member].rank, me = r->c->coll->peers->me;
    if (load_relaxed((atom64 *)&r->c->member[member].slot->abort_group) != r->c->id + 1) code = SYP_EABORTED, culprit = from; /* of a later group */
    if ((code != SYP_EPEER && code != SYP_ETIMEOUT) || culprit == me) code = SYP_EABORTED;
    if (culprit < 0 || culprit >= r->c->coll->peers->n) culprit = from;
    int pid = r->c->coll->peers->roster.rank[culprit].pid;
    if (why_code(why) == SYP_EABORTED && culprit == from)
        err_set(code, "%s %llu on group %d: rank %d (pid %d) has aborted or shrunk the group", op_name(r->kind), (unsigned long long)r->sequence,
                r->c->slot, from, pid);
    else
        err_set(code, "%s %llu on group %d: rank %d gave the group up in operation %llu because rank %d (pid %d) %s",
                op_name(r->kind), (unsigned long long)r->sequence, r->c->slot, from, (unsigned long long)(why >> 32), culprit, pid,
                code == SYP_EPEER                            ? "died or left"
                : why_code(why) == SYP_EABORTED    ? "has aborted or shrunk it"
                : culprit == me                              ? "(this one) was too late"
                                                             : "did not arrive in time");
    err_peer(culprit, pid);
    return comm_break(r->c, code, culprit, r->sequence);
}

/* First member from `from` on that is gone, by the kernel's word or another member's notice; n = none. */
static int next_gone(const struct comm *c, int from, int *reason) {
    int rank = life_look(c->coll->peers, c->rank + from, c->n - from, reason);
    int m = from;
    while (m < c->n && (rank < 0 || c->rank[m] != rank))
        m++;
    return m;
}

/* Whoever gave up in a later operation has completed this one, so everything it needs is there or in the memory of the dead: it completes here, too.
 * That is what makes survivors agree about which operation was the last. */
static int finished_ours(const struct request *r, int member) {
    uint64_t why = load_relaxed((atom64 *)&r->c->member[member].slot->abort_why); /* ordered by the acquire of abort_group */
    return (int32_t)((uint32_t)(why >> 32) - (uint32_t)r->sequence) > 0;
}

int wait_aborted(struct request *r) {
    struct comm *c = r->c;
    /* What was read of the members' data, before the look; and our "inside" before it, or a member that gives up might neither see us inside nor be
     * seen.  Both pair with announce_break. */
    fence_light(c->coll);
    for (int m = 0; m < c->n; m++) {
        uint64_t gave_up = load_acquire((atom64 *)&c->member[m].slot->abort_group); /* pairs with announce_break */
        /* ids of a slot only grow: a larger one is of a group that this member went on to */
        if (gave_up <= c->id || (gave_up == c->id + 1 && finished_ours(r, m))) continue;
        return m == c->me ? comm_aborted_here(c, r->sequence) : give_up_aborted(r, m);
    }
    return SYP_OK;
}

int wait_look(struct request *r, uint64_t now) {
    struct comm *c = r->c;
    int rc = wait_aborted(r);
    if (rc != SYP_OK) return rc;
    int reason = 0, gone = 0;
    for (int m = next_gone(c, 0, &reason); m < c->n; m = next_gone(c, m + 1, &reason)) {
        if (r->wait_one && m != r->wait_member) continue;
        /* looked at after its death was seen: what it stored before dying is visible now */
        if (wait_reached(c, m, r->wait_target)) {
            gone = 1;
            continue;
        }
        rc = wait_aborted(r); /* it may have learnt of another one's death first, and told */
        return rc != SYP_OK ? rc : give_up_gone(r, m, reason);
    }
    if (c->parts && !r->wait_one && (gone || now >= r->start + LEADERS_TIME || now >= r->deadline) && tree_look(r)) return SYP_OK;
    if ((rc = comm_check_own_life(c, op_name(r->kind))) != SYP_OK) return comm_break(c, rc, c->coll->peers->me, r->sequence);
    if (now >= r->deadline) return give_up_timeout(r, now);
    if (r->next_warning && now >= r->next_warning) {
        char who[700];
        struct text t = TEXT_INIT(who);
        if (describe_behind(r, &t) >= 0)
            log_warn("%s %llu on group %d waits since %llu ms: %s", op_name(r->kind), (unsigned long long)r->sequence,
                     c->slot, (unsigned long long)((now - r->start) / NS_PER_MS), who);
        r->stall *= 2;
        r->next_warning = now + r->stall;
    }
    return SYP_OK;
}

/* A turn of everybody takes so long. */
static uint64_t yields_ns(const struct comm *c) {
    return (uint64_t)(c->parts ? c->n / 8 : 1) * (uint64_t)CROWDED_YIELDS_NS;
}

static int over(void *r) {
    return wait_over(r);
}

/* One slice asleep on the awaited word.  Returns the time after it. */
static uint64_t wait_sleep(struct request *r, uint64_t now, uint64_t slice) {
    struct comm *c = r->c;
    const struct comm_member *m = &c->member[r->wait_member];
    uint64_t left = deadline_left(now, r->deadline);
    if (slice > left) slice = left;
    if (slice == 0) return now;
    TEST_POINT("wait.sleep");
    int which = (int)(c->sequence & 1);
    const atom64 *word = slot_word(m->slot, r->wait_on, which);
    store_relaxed(&c->own->asleep, asleep_on(m->rank, r->wait_on, which));
    fence_heavy(c->coll); /* pairs with comm_publish, tree_store and announce_break */
    uint64_t seen = load_relaxed((atom64 *)word);
    int rc = 0;
    if (seen < r->wait_target) rc = os->futex_wait(comm_word(word), (uint32_t)seen, slice);
    store_relaxed(&c->own->asleep, 0);
    uint64_t after = os->now();
    crowd_look(c->coll->peers, after);
    stats_add(STAT_SLEEPS, 1);
    stats_add(STAT_WAIT_NS, after - now);
    if (rc == -ETIMEDOUT && wait_over(r) && left > slice) stats_add(STAT_LATE_WAKES, 1);
    return after;
}

int wait_for(struct request *r) {
    struct comm *c = r->c;
    if (stay_awake(c->coll, over, r, CROWDED_SPINS, yields_ns(c))) return SYP_OK;
    request_clock(r);
    stats_op_waits((unsigned)c->slot, c->member[r->wait_member].rank);
    uint64_t now = os->now(), slice = FIRST_SLICE;
    int rc = wait_look(r, now);
    while (rc == SYP_OK && !wait_over(r)) {
        now = wait_sleep(r, now, slice);
        if (wait_over(r)) break;
        slice = next_slice(slice);
        rc = wait_look(r, now);
    }
    stats_op_waits((unsigned)c->slot, -1);
    return rc;
}
