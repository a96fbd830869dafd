/* SPDX-License-Identifier: Apache-2.0 */
/* tsan: yes */
/* Helper threads: every part once, whoever is late; several callers; an end in every state. */
#include "collectives/crew.h"
#include "pool/base/os.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"
#include "tests/support/world_test.h"

#include <errno.h>
#include <pthread.h>

#define PARTS 1000

struct tally {
    unsigned times[PARTS]; /* plain: each part is one thread's */
    atom32 sum;
};

static void count(void *arg, unsigned part, unsigned parts) {
    struct tally *t = arg;
    CHECK(part < parts);
    t->times[part]++;
    add_relaxed(&t->sum, 1u);
}

static void one_job(struct crew *c, unsigned parts) {
    static _Thread_local struct tally t;
    memset(&t, 0, sizeof t);
    crew_run(c, count, &t, parts);
    unsigned wrong = 0;
    for (unsigned i = 0; i < PARTS; i++)
        wrong += t.times[i] != (i < parts);
    CHECK_EQ(wrong, 0);
    CHECK_EQ(load_relaxed(&t.sum), parts);
}

static void every_part_is_done_once(void) {
    uint64_t state = check_seed();
    struct crew first; /* a sanitizer starts a thread of its own with the first one */
    crew_open(&first, 1);
    one_job(&first, 2);
    crew_close(&first);
    for (int helpers = 0; helpers <= 4; helpers++) {
        struct crew c;
        crew_open(&c, helpers);
        int before = count_threads();
        for (uint64_t i = 0; i < check_count(300, 20000); i++) {
            one_job(&c, 1 + (unsigned)(check_random(&state) % PARTS));
            if (check_random(&state) % 100 == 0) os->sleep(200 * NS_PER_US); /* they fall asleep */
        }
        CHECK_EQ(count_threads(), before + helpers);
        crew_close(&c);
        CHECK_EQ(count_threads_until(before), before);
    }
}

static void late_helpers_do_no_harm(void) {
    struct crew c;
    crew_open(&c, 3);
    delays_on(check_seed(), 4);
    for (uint64_t i = 0; i < check_count(200, 5000); i++)
        one_job(&c, 1 + (unsigned)(i % 7));
    delays_off();
    crew_close(&c);
}

static struct crew shared;
static void *caller(void *arg) {
    for (uint64_t i = 0; i < check_count(200, 5000); i++)
        one_job(&shared, 1 + (unsigned)(i % 50));
    return arg;
}

static void callers_beside_each_other_are_served(void) {
    pthread_t id[3];
    crew_open(&shared, 2);
    for (int i = 0; i < 3; i++)
        pthread_create(&id[i], NULL, caller, NULL);
    for (int i = 0; i < 3; i++)
        pthread_join(id[i], NULL);
    crew_close(&shared);
}

static int started;
static int second_refused(void *(*run)(void *), void *arg, struct os_thread **out) {
    return ++started > 1 ? -EAGAIN : os_linux.thread_start(run, arg, out);
}

static void without_threads_the_work_is_done(void) {
    struct os_ops table = *os;
    struct crew c;
    table.thread_start = second_refused;
    const struct os_ops *old = os_swap(&table);
    crew_open(&c, 4);
    one_job(&c, 20);
    one_job(&c, 20);
    CHECK_EQ(c.started, 1);
    crew_close(&c);
    os_swap(old);
    crew_open(&c, 2); /* never used */
    crew_close(&c);
}

int main(void) {
    return check_main("crew", (struct check_test[]){{"every part", every_part_is_done_once},
                                                    {"late helpers", late_helpers_do_no_harm},
                                                    {"several callers", callers_beside_each_other_are_served},
                                                    {"refused threads", without_threads_the_work_is_done},
                                                    {0}});
}
