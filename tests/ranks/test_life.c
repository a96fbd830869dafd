/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who lives: notices by hand, the keeper's ends, ranks as threads, and processes that are killed, stopped, replaced by
 * exec, or leave. Latencies are printed, and held against a bound only a hang would pass.
 */
#include "bootstrap/life.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/fake_os.h"
#include "tests/support/local_world.h"
#include "tests/support/ranks.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST 8
#define HANG (20 * NS_PER_S)

static uint64_t in_seconds(unsigned s) {
    return os->now() + s * NS_PER_S;
}

/* ---------------------------------------------------------------------------------------------------- notices */

static void notices_spread(void) {
    static struct control_head head[4];
    struct peer peer[5] = {
        {.control = &head[0]}, {.control = &head[1]}, {.control = &head[2]}, {.control = &head[3]}, {0}};
    struct peers p[4];
    const int all[5] = {0, 1, 2, 3, 4}, some[2] = {0, 1};
    int reason = 9;
    memset(head, 0, sizeof head);
    for (int r = 0; r < 4; r++)
        p[r] = (struct peers){.n = 5, .me = r, .peer = peer, .self = &head[r]};
    CHECK_EQ(life_look(&p[0], all, 5, &reason), -1);
    CHECK_EQ(reason, 0);
    CHECK_EQ(life_of(&p[0], 4), 0); /* not reached: not known here */

    life_publish(&p[1], 4, LIFE_REASON_DIED);
    life_publish(&p[1], 4, LIFE_REASON_DIED);
    life_publish(&p[1], 4, LIFE_REASON_LEFT); /* the first stands */
    CHECK_EQ(head[1].notice_epoch, 1);
    CHECK_EQ(head[1].dead[4], 1 + LIFE_REASON_DIED);
    CHECK_EQ(life_look(&p[0], all, 5, &reason), 4);
    CHECK_EQ(reason, LIFE_REASON_DIED);
    CHECK_EQ(life_look(&p[1], all, 5, &reason), 4);               /* its own notice */
    CHECK_EQ(life_look(&p[0], some, 2, &reason), -1);             /* not of the members asked for */
    CHECK_EQ(life_look(&p[2], (int[]){0, 2, 4}, 3, &reason), -1); /* not by a member */

    life_publish(&p[2], 0, LIFE_REASON_LEFT);
    life_publish(&p[2], 3, LIFE_REASON_LEFT);
    CHECK_EQ(head[2].notice_epoch, 2);
    CHECK_EQ(life_look(&p[0], (int[]){0, 2}, 2, &reason), -1); /* nobody is told that he is dead himself */
    CHECK_EQ(life_look(&p[1], (int[]){1, 2, 3}, 3, &reason), 3);
    CHECK_EQ(reason, LIFE_REASON_LEFT);

    head[3].life = 1234 | LIFE_WAITERS | LIFE_DIED; /* what the kernel says comes first */
    CHECK_EQ(life_look(&p[0], all, 5, &reason), 3);
    CHECK_EQ(reason, LIFE_REASON_DIED);
    CHECK_EQ(life_look(&p[3], (int[]){3}, 1, &reason), -1);
    head[3].life = LIFE_LEFT;
    CHECK_EQ(life_of(&p[0], 3), LIFE_REASON_LEFT);
    head[3].life = 1234 | LIFE_WAITERS;
    CHECK_EQ(life_of(&p[0], 3), 0);

    head[1].dead[3] = 200; /* garbage of a peer */
    CHECK_EQ(life_look(&p[0], (int[]){1, 3}, 2, &reason), 3);
    CHECK_EQ(reason, LIFE_REASON_DIED);
    life_publish(&p[0], 5, LIFE_REASON_DIED);
    life_publish(&p[0], -1, LIFE_REASON_DIED);
    CHECK_EQ(head[0].notice_epoch, 0);
}

/* ------------------------------------------------------------------------------------------------ the keeper */

static struct control_head *own_head(void) {
    void *p = mmap(NULL, sizeof(struct control_head), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void keeper_ends(void) {
    struct control_head *c = own_head();
    struct keeper k;
    CHECK_EQ(keeper_start(&k, c), SYP_OK);
    keeper_stop(&k); /* with the first thread ThreadSanitizer starts one of its own */
    memset(c, 0, sizeof *c);
    int threads = count_threads();
    CHECK_EQ(keeper_start(&k, c), SYP_OK);
    uint32_t word = load_acquire(&c->life);
    CHECK((word & LIFE_WAITERS) && !(word & (LIFE_DIED | LIFE_LEFT)) && (word & 0x1fffffff) > 0 &&
          (word & 0x1fffffff) != (uint32_t)os->tid());
    CHECK_EQ(count_threads(), threads + 1);
    keeper_stop(&k);
    CHECK_EQ(load_acquire(&c->life), LIFE_LEFT);
    keeper_stop(&k);
    keeper_vanish(&k);
    CHECK_EQ(load_acquire(&c->life), LIFE_LEFT);

    memset(c, 0, sizeof *c);
    CHECK_EQ(keeper_start(&k, c), SYP_OK);
    keeper_vanish(&k);
    CHECK(load_acquire(&c->life) & LIFE_DIED);
    keeper_stop(&k);
    CHECK(load_acquire(&c->life) & LIFE_DIED);

    for (uint64_t i = check_count(200, 2000); i > 0; i--) {
        memset(c, 0, sizeof *c);
        CHECK_EQ(keeper_start(&k, c), SYP_OK);
        if (i & 1)
            keeper_vanish(&k);
        else
            keeper_stop(&k);
        CHECK_EQ(load_acquire(&c->life) & (LIFE_DIED | LIFE_LEFT), i & 1 ? LIFE_DIED : LIFE_LEFT);
    }
    CHECK_EQ(count_threads_until(threads), threads);
    munmap(c, sizeof *c);
}

static void keeper_refused(void) {
    struct control_head *c = own_head();
    struct keeper k;
    fake_os_on();
    fake_os_fail_op("thread_start", 1, EAGAIN);
    CHECK_EQ(keeper_start(&k, c), SYP_ESYS);
    CHECK_HAS(syp_error_text(), "keeper thread");
    CHECK_EQ(err_record()->sys_errno, EAGAIN);
    keeper_stop(&k);
    fake_os_fail_op("robust_list", 1, ENOSYS);
    CHECK_EQ(keeper_start(&k, c), SYP_ESYS);
    CHECK_HAS(syp_error_text(), "set_robust_list");
    CHECK_EQ(fake_os_threads(), 0);
    CHECK_EQ(load_acquire(&c->life), LIFE_NONE);
    keeper_stop(&k);
    CHECK_EQ(keeper_start(&k, c), SYP_OK);
    keeper_stop(&k);
    CHECK_EQ(fake_os_threads(), 0);
    fake_os_off();
    munmap(c, sizeof *c);
}

/* -------------------------------------------------------------------------------------------- ranks as threads */

struct thread_job {
    uint64_t nonce;
    _Atomic int up, seen;
};

static int look_until_gone(const struct peers *p, int expected_rank, int expected_reason) {
    int all[MOST], reason = 0, gone = -1;
    for (int r = 0; r < p->n; r++)
        all[r] = r;
    uint64_t end = os->now() + HANG;
    while ((gone = life_look(p, all, p->n, &reason)) < 0 && os->now() < end)
        sched_yield();
    CHECK_EQ(gone, expected_rank);
    CHECK_EQ(reason, expected_reason);
    return gone == expected_rank;
}

static int thread_rank(int rank, int n, void *arg) {
    struct thread_job *job = arg;
    struct local_rank l = {0};
    struct roster roster;
    if (local_roster(&roster, n, job->nonce) != SYP_OK || local_up(&l, &roster, rank, in_seconds(30)) != SYP_OK) {
        fprintf(stderr, "rank %d: %s\n", rank, syp_error_text());
        return 1;
    }
    job->up++;
    while (job->up < n)
        sched_yield();
    int reason;
    int alive = life_look(&l.peers, (int[]){0, 1, 2, 3}, n, &reason);
    CHECK(alive == -1 || alive == 2);
    if (rank == 2) {
        keeper_vanish(&l.keeper);
    } else {
        look_until_gone(&l.peers, 2, LIFE_REASON_DIED);
        life_publish(&l.peers, 2, LIFE_REASON_DIED);
    }
    job->seen++;
    while (job->seen < n)
        sched_yield(); /* or some would be seen leaving */
    local_down(&l);
    return 0;
}

static void threads_as_ranks(void) {
    static struct thread_job job;
    for (int i = 0; i < 10; i++) {
        job.nonce = (uint64_t)getpid() << 32 | (unsigned)(i + 1);
        job.up = job.seen = 0;
        common_os_on();
        fake_os_on();
        CHECK_EQ(ranks_as_threads(4, thread_rank, &job), 0);
        local_nothing_left();
        fake_os_off();
        common_os_off();
    }
}

/* -------------------------------------------------------------------------------------------------- processes */

enum end { END_KILL, END_LEAVE, END_EXIT, END_EXEC, END_STOP };

struct death {
    enum end how;
    size_t touched; /* bytes the victim has in memory */
};

struct board {
    _Atomic int pid[MOST], up, seen;
    _Atomic uint64_t struck_at, seen_at[MOST];
};

static void until(_Atomic int *what, int value) {
    for (uint64_t end = os->now() + HANG; *what < value && os->now() < end;)
        usleep(200);
}

static _Noreturn void die(struct board *b, struct local_rank *l, enum end how) {
    if (how == END_KILL || how == END_STOP)
        for (;;)
            pause();
    usleep(2000);
    b->struck_at = os->now();
    if (how == END_EXEC) execl("/bin/sleep", "sleep", "1", (char *)NULL);
    if (how == END_LEAVE) {
        keeper_stop(&l->keeper);
        until(&b->seen, 1);
    }
    _exit(0);
}

static void strike(struct board *b, int victim, enum end how) {
    if (how != END_KILL) return;
    usleep(2000); /* the others look by now */
    b->struck_at = os->now();
    kill(b->pid[victim], SIGKILL);
}

static void watch_stopped(const struct peers *p, int rank, int victim, struct ranks *r) {
    struct board *b = r->shared;
    int reason;
    if (rank == 0) kill(b->pid[victim], SIGSTOP);
    for (int i = 0; i < 200; i++) {
        CHECK_EQ(life_of(p, victim), 0);
        CHECK_EQ(life_look(p, (int[]){0, 1, 2}, 3, &reason), -1);
        usleep(1000);
    }
    b->seen++;
    until(&b->seen, 2);
    if (rank == 0) kill(b->pid[victim], SIGCONT);
    usleep(20000);
    CHECK_EQ(life_of(p, victim), 0);
    b->seen++;
    until(&b->seen, 4);
    if (rank == 0) kill(b->pid[victim], SIGKILL);
    look_until_gone(p, victim, LIFE_REASON_DIED);
    b->seen++;
    until(&b->seen, 6); /* or one would be seen leaving */
}

static void watch(const struct peers *p, int rank, int victim, enum end how, struct ranks *r) {
    struct board *b = r->shared;
    uint64_t end = os->now() + HANG;
    if (rank == 0) strike(b, victim, how);
    while (life_of(p, victim) == 0 && os->now() < end)
        sched_yield();
    b->seen_at[rank] = os->now();
    CHECK_EQ(life_of(p, victim), how == END_LEAVE ? LIFE_REASON_LEFT : LIFE_REASON_DIED);
    life_publish(p, victim, life_of(p, victim));
    b->seen++;
    until(&b->seen, r->n - 1);
}

static int mortal(struct ranks *r, int rank, void *arg) {
    const struct death *d = arg;
    struct board *b = r->shared;
    struct local_rank l = {0};
    struct roster roster;
    int victim = r->n - 1;
    b->pid[rank] = (int)getpid();
    for (int i = 0; i < r->n; i++)
        while (!b->pid[i])
            usleep(100);
    if (local_roster(&roster, r->n, (uint64_t)b->pid[0] << 32 | 1) != SYP_OK) return 1;
    for (int i = 0; i < r->n; i++)
        roster.rank[i].pid = b->pid[i];
    if (rank == victim && d->touched) {
        char *p = mmap(NULL, d->touched, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return 1;
        for (size_t i = 0; i < d->touched; i += 4096)
            ((volatile char *)p)[i] = 1;
    }
    if (local_up(&l, &roster, rank, in_seconds(60)) != SYP_OK) {
        fprintf(stderr, "rank %d: %s\n", rank, syp_error_text());
        return 1;
    }
    b->up++;
    until(&b->up, r->n);
    if (rank == victim) die(b, &l, d->how);
    if (d->how == END_STOP)
        watch_stopped(&l.peers, rank, victim, r);
    else
        watch(&l.peers, rank, victim, d->how, r);
    local_down(&l);
    return 0;
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* n deaths, each seen by all survivors of `ranks`; prints how long it took them. */
static void deaths(const char *name, struct death d, int ranks, unsigned n) {
    uint64_t took[1000];
    unsigned count = 0;
    for (unsigned i = 0; i < n; i++) {
        struct ranks r;
        if (!CHECK(ranks_start(&r, ranks, sizeof(struct board), mortal, &d) == 0)) return;
        CHECK_EQ(ranks_wait(&r, 60, d.how == END_KILL || d.how == END_STOP ? ranks - 1 : -1), 0);
        struct board *b = r.shared;
        for (int s = 0; s < ranks - 1 && count < 1000; s++)
            if (b->seen_at[s] && b->struck_at) took[count++] = b->seen_at[s] - b->struck_at;
        ranks_free(&r);
    }
    if (count == 0) return;
    qsort(took, count, sizeof took[0], by_value);
    printf("  %s: %u survivors saw it after p50 %.0f us, p99 %.0f us, worst %.0f us\n", name, count,
           (double)took[count / 2] / 1e3, (double)took[(size_t)count * 99 / 100] / 1e3, (double)took[count - 1] / 1e3);
    CHECK(took[count - 1] < HANG);
}

static void killed(void) {
    deaths("SIGKILL", (struct death){END_KILL, 0}, 4, 50);
}

static void killed_large(void) {
    deaths("SIGKILL with 512 MiB touched", (struct death){END_KILL, 512u << 20}, 3, (unsigned)check_count(3, 50));
}

static void leaves(void) {
    deaths("orderly end", (struct death){END_LEAVE, 0}, 4, 5);
}

static void exits(void) {
    deaths("exit without a word", (struct death){END_EXIT, 0}, 4, 5);
}

static void execs(void) {
    deaths("exec", (struct death){END_EXEC, 0}, 3, 3);
}

static void stopped(void) {
    deaths("stop", (struct death){END_STOP, 0}, 3, 1);
}

int main(void) {
    return check_main("life", (struct check_test[]){{"notices spread", notices_spread},
                                                    {"keeper ends", keeper_ends},
                                                    {"keeper refused", keeper_refused},
                                                    {"threads as ranks", threads_as_ranks},
                                                    {"killed", killed},
                                                    {"killed with 512 MiB", killed_large},
                                                    {"leaves", leaves},
                                                    {"exits", exits},
                                                    {"exec is a death", execs},
                                                    {"stopped is not dead", stopped},
                                                    {0}});
}
