/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shared_create, shared_open, shared_close: nobody sees half a segment, nobody takes a dead process's for a living one's, nothing is left behind, and
 * nobody waits for ever.
 */
#include "allocator/compat/shm.h"
#include "allocator/sympool.h"
#include "pool/base/atomic.h"
#include "pool/base/conf.h"
#include "pool/base/os.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEN 100003u

static char last[1400];

static void listen_to(void *arg, int level, const char *text) {
    (void)arg;
    (void)level;
    snprintf(last, sizeof last, "%s", text);
}

/* A name of this run's own. */
static const char *own_name(void) {
    static char name[64];
    if (!name[0]) snprintf(name, sizeof name, "sympool_test_segment_%d", (int)getpid());
    syp_log_set(listen_to, NULL);
    return name;
}

static int name_exists(void) {
    char path[96];
    snprintf(path, sizeof path, "/dev/shm/%s", own_name());
    return access(path, F_OK) == 0;
}

static void wait_at_most(const char *time) {
    setenv("SYMPOOL_JOIN_TIMEOUT", time, 1);
    conf_reset();
}

static void reach(struct ranks *r, int stage) {
    (void)add_relaxed((atom32 *)r->shared + stage, 1u);
}

static int reached(struct ranks *r, int stage, uint32_t by) {
    for (uint64_t until = os->now() + 60 * NS_PER_S; os->now() < until; usleep(100))
        if (load_acquire((atom32 *)r->shared + stage) >= by) return 1;
    return check_fail(__FILE__, __LINE__, "the others did not come");
}

static void run(int n, int (*fn)(struct ranks *r, int rank, void *arg), void *arg) {
    struct ranks r;
    own_name();
    if (!CHECK(ranks_start(&r, n, 1 << 16, fn, arg) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 100, -1), 0);
    ranks_free(&r);
}

/* LEN bytes that say which. */
static const char *content(unsigned which) {
    static char bytes[LEN];
    for (unsigned i = 0; i < LEN; i++)
        bytes[i] = (char)(i * 31 + which);
    return bytes;
}

static int has_content(const struct SharedData *d, unsigned which) {
    return d->bytes && d->nbytes == LEN && memcmp(d->bytes, content(which), LEN) == 0;
}

/* --------------------------------------------------------------------------------------------- as it is meant */

/* Rank 0 creates, late or early, the others open; all share the bytes. */
static int share(struct ranks *r, int rank, void *arg) {
    int rounds = (int)check_count(50, 2000);
    (void)arg;
    for (int k = 0; k < rounds && !check_failures(); k++) {
        struct SharedData d;
        if (k % 3 == rank) usleep((useconds_t)(k * 37 % 300));
        if (rank == 0) {
            CHECK_EQ(shared_create(&d, own_name(), content((unsigned)k), LEN), 0);
            reached(r, 4 * k, 2);
            ((volatile char *)d.bytes)[7] = 99;
            reach(r, 4 * k + 1);
        } else {
            CHECK_EQ(shared_open(&d, own_name(), LEN), 0);
            CHECK(has_content(&d, (unsigned)k)); /* whole, as soon as it can be opened */
            reach(r, 4 * k);
            reached(r, 4 * k + 1, 1);
            CHECK(((volatile char *)d.bytes)[7] == 99);
        }
        reach(r, 4 * k + 2);
        reached(r, 4 * k + 2, 3);
        CHECK_EQ(shared_close(&d), 0);
        CHECK(d.descriptor == -1 && d.bytes == NULL);
        CHECK_EQ(shared_close(&d), 0);
        reach(r, 4 * k + 3);
        reached(r, 4 * k + 3, 3);
        if (rank == 0) CHECK(!name_exists());
    }
    return 0;
}

static void openers_see_a_segment_whole_however_they_race_with_its_creator(void) {
    run(3, share, NULL);
}

/* The source's own loop around shared_open. */
static int open_until_there(struct SharedData *d) {
    do {
        shared_open(d, own_name(), LEN);
    } while (d->descriptor == -1 && errno == ENOENT);
    return d->descriptor != -1;
}

static int open_in_the_sources_loop(struct ranks *r, int rank, void *arg) {
    struct SharedData d;
    (void)arg;
    (void)r;
    if (rank == 1) return !CHECK(open_until_there(&d)) || !CHECK(has_content(&d, 1));
    usleep(100000);
    CHECK_EQ(shared_create(&d, own_name(), content(1), LEN), 0);
    usleep(300000);
    return shared_close(&d);
}

static void opener_before_the_creator_waits_and_without_a_creator_gives_up_at_the_deadline(void) {
    struct SharedData d;
    run(2, open_in_the_sources_loop, NULL);
    wait_at_most("300ms");
    CHECK(!open_until_there(&d));
    CHECK_EQ(errno, ETIMEDOUT);
    CHECK_HAS(last, "no living process has made it");
    CHECK_EQ(shared_open(&d, own_name(), LEN), SYP_ETIMEOUT);
    CHECK(d.descriptor == -1 && d.bytes == NULL);
    wait_at_most("30s");
}

/* The name goes when the last rank has opened, long before the end. */
static int share_in_a_world(struct ranks *r, int rank, void *arg) {
    struct SharedData d, again;
    (void)arg;
    if (!CHECK(shm_initialize(r->n, rank, "", own_name()) == 0)) return 1;
    if (rank == 0) CHECK_EQ(shared_create(&d, own_name(), NULL, LEN), 0);
    CHECK_EQ(syp_barrier(SYP_COMM_WORLD, NULL), 0);
    if (rank == 1) CHECK_EQ(shared_open(&d, own_name(), LEN), 0);
    if (rank == 1) CHECK_EQ(shared_open(&again, own_name(), LEN), 0); /* twice by one rank is not by two */
    CHECK_EQ(syp_barrier(SYP_COMM_WORLD, NULL), 0);
    CHECK(name_exists());
    CHECK_EQ(syp_barrier(SYP_COMM_WORLD, NULL), 0);
    if (rank == 2) CHECK_EQ(shared_open(&d, own_name(), LEN), 0);
    CHECK_EQ(syp_barrier(SYP_COMM_WORLD, NULL), 0);
    CHECK(!name_exists());
    if (rank == 2) ((char *)d.bytes)[LEN - 1] = 7;
    CHECK_EQ(syp_barrier(SYP_COMM_WORLD, NULL), 0);
    CHECK_EQ(((char *)d.bytes)[LEN - 1], 7);
    if (rank == 0) kill(getpid(), SIGKILL); /* nothing is left all the same */
    return 0;
}

static void name_is_gone_when_all_ranks_have_opened_it(void) {
    struct ranks r;
    own_name();
    if (!CHECK(ranks_start(&r, 3, 0, share_in_a_world, NULL) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 100, 0), 0);
    ranks_free(&r);
    CHECK(!name_exists());
}

static void opening_ones_own_segment_and_closing_it_leaves_the_name(void) {
    struct SharedData mine, other;
    CHECK_EQ(shared_create(&mine, own_name(), content(3), LEN), 0);
    CHECK_EQ(shared_open(&other, own_name(), LEN), 0);
    CHECK_EQ(shared_close(&other), 0);
    CHECK(name_exists());
    CHECK_EQ(shared_open(&other, own_name(), LEN), 0);
    CHECK_EQ(shared_close(&mine), 0);
    CHECK(!name_exists());
    CHECK(has_content(&other, 3));
    CHECK_EQ(shared_close(&other), 0);
}

/* ------------------------------------------------------------------------------------------------- after a crash */

static int create_and_wait(struct ranks *r, int rank, void *arg) {
    struct SharedData d;
    (void)rank;
    (void)arg;
    CHECK_EQ(shared_create(&d, own_name(), content(1), LEN), 0);
    reach(r, 0);
    pause();
    return 0;
}

static void what_a_crash_left_is_not_opened_and_is_replaced_at_once(void) {
    for (uint64_t i = 0; i < check_count(5, 100); i++) {
        struct ranks r;
        struct SharedData d, old;
        own_name();
        if (!CHECK(ranks_start(&r, 1, 4096, create_and_wait, NULL) == 0)) return;
        reached(&r, 0, 1);
        CHECK_EQ(shared_open(&old, own_name(), LEN), 0); /* of the living */
        kill(r.pid[0], SIGKILL);
        if (i % 2) {
            waitpid(r.pid[0], NULL, 0);
            r.pid[0] = 0;
            CHECK(name_exists());
            wait_at_most("50ms");
            CHECK_EQ(shared_open(&d, own_name(), LEN), SYP_ETIMEOUT);
            wait_at_most("30s");
        }
        CHECK_EQ(shared_create(&d, own_name(), content(2), LEN), 0); /* also while the dead is still dying */
        CHECK(has_content(&d, 2));
        CHECK(has_content(&old, 1));
        CHECK_EQ(shared_close(&old), 0); /* not the name of the new one */
        CHECK(name_exists());
        CHECK_EQ(shared_open(&old, own_name(), LEN), 0);
        CHECK(has_content(&old, 2));
        CHECK_EQ(shared_close(&d), 0);
        CHECK_EQ(shared_close(&old), 0);
        CHECK(!name_exists());
        if (r.pid[0]) (void)ranks_wait(&r, 10, 0);
        ranks_free(&r);
    }
}

static void segment_of_a_living_process_is_not_replaced(void) {
    struct ranks r;
    struct SharedData d;
    char who[32];
    own_name();
    if (!CHECK(ranks_start(&r, 1, 4096, create_and_wait, NULL) == 0)) return;
    reached(&r, 0, 1);
    CHECK_EQ(shared_create(&d, own_name(), NULL, LEN), SYP_EBUSY);
    CHECK_EQ(errno, EEXIST);
    CHECK(d.descriptor == -1 && d.bytes == NULL);
    snprintf(who, sizeof who, "process %d ", (int)r.pid[0]);
    CHECK_HAS(last, who);
    CHECK_EQ(shared_open(&d, own_name(), LEN), 0);
    CHECK(has_content(&d, 1));
    kill(r.pid[0], SIGKILL);
    (void)ranks_wait(&r, 10, 0);
    ranks_free(&r);
    CHECK_EQ(shared_close(&d), 0); /* its creator is gone: then the name goes, too */
    CHECK(!name_exists());
}

static int create_if_possible(struct ranks *r, int rank, void *arg) {
    struct SharedData d;
    (void)rank;
    (void)arg;
    reach(r, 0);
    reached(r, 0, 4);
    int rc = shared_create(&d, own_name(), NULL, LEN);
    reach(r, rc == 0 ? 1 : rc == SYP_EBUSY ? 2 : 3);
    reached(r, 2, 3); /* the one that has it keeps it so long */
    CHECK_EQ(load_acquire((atom32 *)r->shared + 1), 1);
    return shared_close(&d);
}

static void of_creators_that_race_one_wins(void) {
    run(4, create_if_possible, NULL);
}

/* ---------------------------------------------------------------------------------------------------- arguments */

static void wrong_arguments_are_errors_and_leave_nothing(void) {
    struct SharedData d, mine;
    char longest[300], bad[][8] = {"", "/", ".", "..", "a/b", "//a"};
    int before = count_shm_entries(), fds = count_open_fds();
    own_name();
    memset(longest, 'n', sizeof longest);
    longest[256] = 0;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_EQ(shared_create(&d, bad[i], NULL, LEN), SYP_EINVAL);
        CHECK_EQ(shared_open(&d, bad[i], LEN), SYP_EINVAL);
    }
    CHECK_EQ(shared_create(&d, longest, NULL, LEN), SYP_EINVAL);
    CHECK_EQ(shared_create(&d, NULL, NULL, LEN), SYP_EINVAL);
    CHECK_EQ(shared_create(NULL, own_name(), NULL, LEN), SYP_EINVAL);
    CHECK_EQ(shared_open(NULL, own_name(), LEN), SYP_EINVAL);
    CHECK_EQ(shared_close(NULL), SYP_EINVAL);
    CHECK_EQ(shared_create(&d, own_name(), NULL, 0), SYP_EINVAL);
    CHECK_EQ(shared_create(&d, own_name(), NULL, SIZE_MAX), SYP_EINVAL);
    CHECK_EQ(shared_create(&d, own_name(), NULL, (size_t)1 << 50), SYP_ENOMEM); /* no /dev/shm has that */
    CHECK_HAS(last, "ENOSPC");
    longest[255] = 0;
    CHECK_EQ(shared_create(&d, longest, NULL, 1), 0);
    CHECK_EQ(shared_close(&d), 0);
    CHECK_EQ(shared_create(&mine, own_name(), NULL, LEN), 0);
    for (size_t len = 1; len < 4 * LEN; len += LEN - 1) /* smaller, by one, larger: at once, not at the first access */
        CHECK_EQ(shared_open(&d, own_name(), len == LEN ? LEN - 1 : len), SYP_EINVAL);
    CHECK_HAS(last, "bytes asked for");
    CHECK_EQ(shared_close(&mine), 0);
    CHECK_EQ(count_shm_entries(), before);
    CHECK_EQ(count_open_fds(), fds);
}

int main(void) {
    static const struct check_test tests[] = {
        {"openers_see_a_segment_whole_however_they_race_with_its_creator", openers_see_a_segment_whole_however_they_race_with_its_creator},
        {"opener_before_the_creator_waits_and_without_a_creator_gives_up_at_the_deadline",
         opener_before_the_creator_waits_and_without_a_creator_gives_up_at_the_deadline},
        {"name_is_gone_when_all_ranks_have_opened_it", name_is_gone_when_all_ranks_have_opened_it},
        {"opening_ones_own_segment_and_closing_it_leaves_the_name", opening_ones_own_segment_and_closing_it_leaves_the_name},
        {"what_a_crash_left_is_not_opened_and_is_replaced_at_once", what_a_crash_left_is_not_opened_and_is_replaced_at_once},
        {"segment_of_a_living_process_is_not_replaced", segment_of_a_living_process_is_not_replaced},
        {"of_creators_that_race_one_wins", of_creators_that_race_one_wins},
        {"wrong_arguments_are_errors_and_leave_nothing", wrong_arguments_are_errors_and_leave_nothing},
        {0},
    };
    return check_main("shm_segment", tests);
}
