/* SPDX-License-Identifier: Apache-2.0 */
/* A program that a rank starts inherits the rank's environment, but not its place: it stays private, at once, and the
 * job goes on.  This program starts itself anew for that. */
#include "allocator/sympool.h"
#include "pool/base/conf.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/stats.h"
#include "tests/support/check.h"
#include "tests/support/ranks.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *program;

/* The environment of a rank, as a launcher sets it. */
static void be_rank(struct ranks *r, int rank) {
    char text[32];
    snprintf(text, sizeof text, "%d", rank);
    setenv("SYMPOOL_RANK", text, 1);
    snprintf(text, sizeof text, "%d", r->n);
    setenv("SYMPOOL_WORLD_SIZE", text, 1);
    setenv("SYMPOOL_ADDR", r->addr, 1);
    setenv("SYMPOOL_LOCAL_MEM_SIZE", "8M", 1);
    setenv("SYMPOOL_META_SIZE", "1M", 1);
    if (rank == 0) {
        snprintf(text, sizeof text, "%d", r->listen_fd);
        setenv("SYMPOOL_LISTEN_FD", text, 1);
    }
    conf_reset();
}

/* What the exec'ed child does; its exit status is 0 when all is as promised. */
static int inherited(long holder) {
    char who[32];
    uint64_t start = os->now();
    snprintf(who, sizeof who, "process %ld ", holder);
    int rc = syp_init_env();
    struct syp_error e = *err_record();
    if (rc != SYP_ESTATE || e.peer_pid != holder || !strstr(e.text, who)) {
        fprintf(stderr, "code %d, pid %lld: %s\n", rc, (long long)e.peer_pid, e.text);
        return 2;
    }
    if (os->now() - start > NS_PER_S) return 3;
    char *p = syp_malloc(100000);
    if (!p) return 4;
    memset(p, 1, 100000);
    syp_free(p);
    if (syp_world_size() != 0 || stats_read(STAT_CLAIMS_REFUSED) != 1) return 5;
    return syp_init_env() == SYP_ESTATE ? 0 : 6; /* again */
}

/* Start this program anew; stderr goes to `log`. */
static pid_t start_inherited(pid_t holder, const char *log) {
    pid_t pid = fork();
    if (pid) return pid;
    char text[32];
    snprintf(text, sizeof text, "%d", (int)holder);
    setenv("TEST_CLAIM_HOLDER", text, 1);
    if (!freopen(log, "w", stderr)) _exit(9);
    execl(program, program, (char *)NULL);
    _exit(10);
}

static int rank_that_execs(struct ranks *r, int rank, void *arg) {
    char log[] = "/tmp/sympool-claim-XXXXXX";
    (void)arg;
    close(mkstemp(log));
    be_rank(r, rank);
    if (!CHECK(syp_init_env() == SYP_OK)) return 1;
    for (int k = 0; k < 3; k++) {
        int status = -1;
        pid_t child = start_inherited(getpid(), log);
        waitpid(child, &status, 0);
        CHECK_EQ(status, 0);
        CHECK_EQ(syp_barrier(SYP_COMM_WORLD, NULL), SYP_OK); /* the job is not disturbed */
    }
    char said[4096] = "";
    FILE *f = fopen(log, "r");
    size_t n = f ? fread(said, 1, sizeof said - 1, f) : 0;
    if (f) fclose(f);
    if (!CHECK(n == 0)) printf("the child said: %s\n", said); /* silently */
    CHECK_EQ(syp_finalize(), SYP_OK);
    unlink(log);
    return 0;
}

static void a_program_started_by_a_rank_stays_private(void) {
    struct ranks r;
    if (!CHECK(ranks_start(&r, 3, 0, rank_that_execs, NULL) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 60, -1), 0);
    ranks_free(&r);
}

/* A job by name: no address. */
static void be_rank_of_job(struct ranks *r, int rank, const char *job) {
    be_rank(r, rank);
    setenv("SYMPOOL_JOB", job, 1);
    unsetenv("SYMPOOL_ADDR");
    unsetenv("SYMPOOL_LISTEN_FD");
    conf_reset();
}

static int rank_that_lives(struct ranks *r, int rank, void *arg) {
    be_rank_of_job(r, rank, arg);
    if (!CHECK(syp_init_env() == SYP_OK)) {
        printf("rank %d: %s\n", rank, syp_error_text());
        return 1;
    }
    int status = -1;
    waitpid(start_inherited(getpid(), "/dev/null"), &status, 0);
    CHECK_EQ(status, 0); /* protected in its turn */
    CHECK_EQ(syp_finalize(), SYP_OK);
    return 0;
}

/* Attach, leave a child that keeps all descriptors, and die. */
static int rank_that_dies(struct ranks *r, int rank, void *arg) {
    be_rank_of_job(r, rank, arg);
    if (!CHECK(syp_init_env() == SYP_OK)) return 1;
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    ((pid_t *)r->shared)[rank] = child;
    (void)syp_barrier(SYP_COMM_WORLD, NULL);
    kill(getpid(), SIGKILL);
    return 0;
}

static void a_dead_holder_does_not_block_its_successor(void) {
    struct ranks r;
    char job[64];
    pid_t left[6];
    snprintf(job, sizeof job, "claim-%d", (int)getpid());
    for (int k = 0; k < 3; k++) { /* each time with children of the dead that keep their sockets */
        if (!CHECK(ranks_start(&r, 2, 4096, rank_that_dies, job) == 0)) return;
        ranks_wait(&r, 60, -1);
        for (int i = 0; i < 2; i++) {
            CHECK(r.status[i] != -1 && WIFSIGNALED(r.status[i]));
            left[2 * k + i] = ((pid_t *)r.shared)[i];
        }
        ranks_free(&r);
    }
    if (CHECK(ranks_start(&r, 2, 0, rank_that_lives, job) == 0)) {
        CHECK_EQ(ranks_wait(&r, 60, -1), 0);
        ranks_free(&r);
    }
    for (int i = 0; i < 6; i++)
        if (left[i] > 0) kill(left[i], SIGKILL);
}

static int rank_that_comes_back(struct ranks *r, int rank, void *arg) {
    for (int k = 0; k < 5; k++)
        if (rank_that_lives(r, rank, arg)) return 1;
    return 0;
}

static void finalize_gives_the_rank_back(void) {
    struct ranks r;
    char job[64];
    snprintf(job, sizeof job, "claim-again-%d", (int)getpid());
    if (!CHECK(ranks_start(&r, 3, 0, rank_that_comes_back, job) == 0)) return;
    CHECK_EQ(ranks_wait(&r, 60, -1), 0);
    ranks_free(&r);
}

int main(int argc, char **argv) {
    (void)argc;
    const char *holder = getenv("TEST_CLAIM_HOLDER");
    if (holder) return inherited(atol(holder));
    program = argv[0];
    return check_main("claim",
                      (struct check_test[]){
                          {"a_program_started_by_a_rank_stays_private", a_program_started_by_a_rank_stays_private},
                          {"a_dead_holder_does_not_block_its_successor", a_dead_holder_does_not_block_its_successor},
                          {"finalize_gives_the_rank_back", finalize_gives_the_rank_back},
                          {0}});
}
