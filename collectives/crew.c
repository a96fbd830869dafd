/* SPDX-License-Identifier: Apache-2.0 */
#include "collectives/crew.h"
#include "pool/base/log.h"
#include "pool/base/os.h"

#include <string.h>

#define LINGER_NS (50 * NS_PER_US) /* a helper looks for the next job so long before it sleeps: waking one takes 30 us */
#define LOOKS 64                   /* between two looks at the clock */
#define PATIENCE_NS NS_PER_MS      /* a sleeping caller looks again */

/* The next part of the job that is on, 1 = taken.  Who has one knows run and arg: the job cannot end before it is done. */
static int take_part(struct crew *c, unsigned *part, unsigned *parts) {
    uint64_t seen = load_acquire(&c->parts); /* pairs with crew_run */
    do {
        *part = (unsigned)(seen & 0xffff);
        *parts = (unsigned)(seen >> 16 & 0xffff);
        if (*part >= *parts) return 0;
    } while (!cas_acq_rel(&c->parts, &seen, seen + 1));
    return 1;
}

static void do_parts(struct crew *c) {
    unsigned part, parts;
    while (take_part(c, &part, &parts)) {
        c->run(c->arg, part, parts);
        /* seq_cst: before the look whether the caller sleeps */
        uint32_t done = atomic_fetch_add_explicit(&c->done, 1, memory_order_seq_cst) + 1; /* pairs with crew_run */
        if (done == parts && load_seqcst(&c->waiting)) os->futex_wake(&c->done, 1);
    }
}

/* Until there may be a new job: 1, or 0 = go home. */
static int await_bell(struct crew *c, uint32_t heard) {
    uint64_t end = os->now() + LINGER_NS;
    for (unsigned i = 1; load_acquire(&c->bell) == heard && !load_acquire(&c->stop); i++) {
        cpu_relax();
        if (i % LOOKS) continue;
        if (os->now() < end) {
            os->yield();
            continue;
        }
        atomic_fetch_add_explicit(&c->asleep, 1, memory_order_seq_cst);
        if (load_seqcst(&c->bell) == heard) (void)os->futex_wait(&c->bell, heard, NS_PER_S);
        atomic_fetch_sub_explicit(&c->asleep, 1, memory_order_relaxed);
    }
    return !load_acquire(&c->stop);
}

static void *work(void *arg) {
    struct crew *c = arg;
    uint32_t heard = 0;
    while (await_bell(c, heard)) {
        heard = load_acquire(&c->bell);
        do_parts(c);
    }
    return NULL;
}

void crew_open(struct crew *c, int helpers) {
    memset(c, 0, sizeof *c);
    c->n = helpers < 0 ? 0 : helpers > CREW_MOST ? CREW_MOST : helpers;
}

void crew_close(struct crew *c) {
    store_release(&c->stop, 1); /* pairs with await_bell */
    atomic_fetch_add_explicit(&c->bell, 1, memory_order_seq_cst);
    if (c->started) (void)os->futex_wake(&c->bell, CREW_MOST);
    for (int i = 0; i < c->started; i++)
        (void)os->thread_join(c->thread[i]);
    c->n = c->started = 0;
}

static void start(struct crew *c) {
    while (c->started < c->n) {
        int rc = os->thread_start(work, c, &c->thread[c->started]);
        if (rc < 0) {
            log_warn("start helper thread %d of %d for collectives: errno %d; going on with %d; SYMPOOL_COLL_THREADS asks for fewer", c->started + 1, c->n,
                     -rc, c->started);
            c->n = c->started;
            return;
        }
        c->started++;
    }
}

/* All parts are taken; those that others took may not be done yet. */
static void await_parts(struct crew *c, unsigned parts) {
    for (unsigned i = 1; load_acquire(&c->done) != parts; i++) { /* pairs with do_parts */
        cpu_relax();
        if (i % LOOKS) continue;
        if (i < 16 * LOOKS) {
            os->yield();
            continue;
        }
        store_seqcst(&c->waiting, 1);
        uint32_t done = load_seqcst(&c->done);
        if (done != parts) (void)os->futex_wait(&c->done, done, PATIENCE_NS);
        store_relaxed(&c->waiting, 0);
    }
}

void crew_run(struct crew *c, void (*run)(void *arg, unsigned part, unsigned parts), void *arg, unsigned parts) {
    uint32_t idle = 0;
    if (c->n == 0 || parts < 2 || !cas_acquire(&c->busy, &idle, 1)) { /* pairs with the release below */
        for (unsigned i = 0; i < parts; i++)
            run(arg, i, parts);
        return;
    }
    if (c->started < c->n) start(c);
    c->run = run;
    c->arg = arg;
    store_relaxed(&c->done, 0);
    store_release(&c->parts, (uint64_t)++c->job << 32 | (uint64_t)parts << 16);       /* pairs with take_part */
    atomic_fetch_add_explicit(&c->bell, 1, memory_order_seq_cst);                     /* before the look who sleeps: pairs with await_bell */
    if (load_seqcst(&c->asleep)) (void)os->futex_wake(&c->bell, CREW_MOST);
    do_parts(c);
    await_parts(c, parts);
    store_release(&c->busy, 0);
}
