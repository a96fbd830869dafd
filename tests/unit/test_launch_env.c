/* SPDX-License-Identifier: Apache-2.0 */
/* Who am I: every launcher alone, every pair of them, arguments and SYMPOOL_* over them, and what is refused. */
#include "bootstrap/launch_env.h"
#include "pool/base/conf.h"
#include "pool/base/status.h"
#include "tests/support/check.h"

#include <stdlib.h>
#include <unistd.h>

static const char *const variables[] = {"RANK",
                                        "WORLD_SIZE",
                                        "LOCAL_RANK",
                                        "LOCAL_WORLD_SIZE",
                                        "TORCHELASTIC_RUN_ID",
                                        "TORCHELASTIC_RESTART_COUNT",
                                        "MASTER_ADDR",
                                        "MASTER_PORT",
                                        "OMPI_COMM_WORLD_RANK",
                                        "OMPI_COMM_WORLD_SIZE",
                                        "OMPI_COMM_WORLD_LOCAL_RANK",
                                        "OMPI_COMM_WORLD_LOCAL_SIZE",
                                        "PMIX_NAMESPACE",
                                        "PMI_RANK",
                                        "PMI_SIZE",
                                        "MPI_LOCALRANKID",
                                        "MPI_LOCALNRANKS",
                                        "SLURM_PROCID",
                                        "SLURM_NTASKS",
                                        "SLURM_LOCALID",
                                        "SLURM_JOB_ID",
                                        "SLURM_STEP_ID",
                                        "SLURM_TASKS_PER_NODE",
                                        "SLURM_STEP_TASKS_PER_NODE",
                                        "SYMPOOL_RANK",
                                        "SYMPOOL_WORLD_SIZE",
                                        "SYMPOOL_LOCAL_RANK",
                                        "SYMPOOL_LOCAL_SIZE",
                                        "SYMPOOL_ADDR",
                                        "SYMPOOL_JOB",
                                        "SYMPOOL_LISTEN_FD"};

/* The environment is exactly the "NAME=value" words of env. */
static void environment(const char *env) {
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        unsetenv(variables[i]);
    char copy[2048];
    snprintf(copy, sizeof copy, "%s", env);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) {
        char *equals = strchr(word, '=');
        *equals = 0;
        setenv(word, equals + 1, 1);
    }
    conf_reset();
}

static int detect(const char *env, struct launch *l) {
    environment(env);
    return launch_detect(-1, -1, NULL, NULL, l);
}

#define TORCH                                                                                                          \
    "RANK=3 WORLD_SIZE=8 LOCAL_RANK=3 LOCAL_WORLD_SIZE=8 TORCHELASTIC_RUN_ID=none TORCHELASTIC_RESTART_COUNT=2 "       \
    "MASTER_ADDR=127.0.0.1 MASTER_PORT=29500"
#define OMPI                                                                                                           \
    "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=1 OMPI_COMM_WORLD_LOCAL_SIZE=4 "         \
    "PMIX_NAMESPACE=12345@0/1"
#define PMI "PMI_RANK=2 PMI_SIZE=5 MPI_LOCALRANKID=2 MPI_LOCALNRANKS=5"
#define SLURM "SLURM_PROCID=5 SLURM_NTASKS=6 SLURM_LOCALID=2 SLURM_JOB_ID=77 SLURM_STEP_ID=1 SLURM_TASKS_PER_NODE=3(x2)"
#define OWN "SYMPOOL_RANK=6 SYMPOOL_WORLD_SIZE=7 SYMPOOL_ADDR=tcp://127.0.0.1:3366 SYMPOOL_JOB=mine"

static void knows_each_launcher(void) {
    char pmi_job[64] = "";
    /* the first process of a pid namespace has a parent without a number there */
    if (getppid() > 0) snprintf(pmi_job, sizeof pmi_job, "pmi-%d", (int)getppid());
    const struct {
        const char *env, *source, *job;
        int rank, n, local_rank, local_size, restart;
    } t[] = {
        {"", "none", "", 0, 1, -1, -1, 0},
        {TORCH, "torchrun", "none:29500", 3, 8, 3, 8, 2},
        {OMPI, "Open MPI", "12345_0_1", 1, 4, 1, 4, 0},
        {PMI, "PMI", pmi_job, 2, 5, 2, 5, 0},
        {SLURM, "Slurm", "slurm-77.1", 5, 6, 2, 3, 0},
        {"SLURM_PROCID=0 SLURM_NTASKS=2 SLURM_JOB_ID=9 SLURM_TASKS_PER_NODE=2", "Slurm", "slurm-9.batch", 0, 2, -1, 2,
         0},
        {"SLURM_PROCID=0 SLURM_NTASKS=5 SLURM_STEP_TASKS_PER_NODE=2,3 SLURM_TASKS_PER_NODE=5", "Slurm", "", 0, 5, -1,
         -1, 0},
        {"RANK=0 WORLD_SIZE=2 MASTER_PORT=5", "torchrun", "torch:5", 0, 2, -1, -1, 0},
        {"RANK=0 WORLD_SIZE=2", "torchrun", "", 0, 2, -1, -1, 0},
        {OWN, "SYMPOOL_*", "mine", 6, 7, -1, -1, 0},
        {"SYMPOOL_WORLD_SIZE=1", "SYMPOOL_*", "", 0, 1, -1, -1, 0},
        {"SLURM_NTASKS=4 SLURM_JOB_ID=3", "none", "", 0, 1, -1, -1, 0}, /* an allocation without srun */
        {"WORLD_SIZE=4 MASTER_ADDR=x", "none", "", 0, 1, -1, -1, 0},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct launch l;
        if (!CHECK(detect(t[i].env, &l) == SYP_OK)) {
            printf("%s: %s\n", t[i].env, err_record()->text);
            continue;
        }
        CHECK_STR(l.source, t[i].source);
        CHECK_STR(l.job, t[i].job);
        CHECK_EQ(l.rank, t[i].rank);
        CHECK_EQ(l.n_ranks, t[i].n);
        CHECK_EQ(l.local_rank, t[i].local_rank);
        CHECK_EQ(l.local_size, t[i].local_size);
        CHECK_EQ(l.restart, t[i].restart);
        CHECK_EQ(l.listen_fd, -1);
    }
}

/* Every subset of the sources: the first in the order wins. */
static void innermost_wins(void) {
    static const char *const env[] = {OWN, TORCH, OMPI, PMI, SLURM}, *const source[] = {"SYMPOOL_*", "torchrun",
                                                                                        "Open MPI", "PMI", "Slurm"};
    static const int rank[] = {6, 3, 1, 2, 5};
    for (unsigned set = 1; set < 32; set++) {
        char all[2048] = "";
        int first = -1;
        for (int i = 0; i < 5; i++) {
            if (!(set >> i & 1)) continue;
            strcat(all, env[i]);
            strcat(all, " ");
            if (first < 0) first = i;
        }
        struct launch l;
        CHECK_EQ(detect(all, &l), SYP_OK);
        CHECK_STR(l.source, source[first]);
        CHECK_EQ(l.rank, rank[first]);
    }
}

static void passes_over_incomplete_ones(void) {
    struct launch l;
    CHECK_EQ(detect("RANK=3 " OMPI, &l), SYP_OK);
    CHECK_STR(l.source, "Open MPI");
    CHECK_EQ(detect("RANK=abc WORLD_SIZE=2 " SLURM, &l), SYP_OK);
    CHECK_STR(l.source, "Slurm");
}

static void refuses(void) {
    static const struct {
        const char *env, *why;
    } t[] = {
        {"RANK=3", "WORLD_SIZE is not set"},
        {"RANK=x WORLD_SIZE=2", "RANK is \"x\""},
        {"RANK=-1 WORLD_SIZE=2", "RANK is \"-1\""},
        {"RANK=1 WORLD_SIZE=99999999999", "WORLD_SIZE is \"99999999999\""},
        {"OMPI_COMM_WORLD_RANK=1", "OMPI_COMM_WORLD_SIZE"},
        {"PMI_RANK=0", "PMI_SIZE"},
        {"SLURM_PROCID=0", "SLURM_NTASKS"},
        {"RANK=2 WORLD_SIZE=2", "0 to 1"},
        {"RANK=0 WORLD_SIZE=0", "1 to 1024"},
        {"RANK=0 WORLD_SIZE=1025", "1 to 1024"},
        {"SYMPOOL_RANK=2", "SYMPOOL_WORLD_SIZE"},
        {"SYMPOOL_WORLD_SIZE=2", "SYMPOOL_RANK"},
        {"SYMPOOL_RANK=2 SYMPOOL_WORLD_SIZE=2", "0 to 1"},
        {"SYMPOOL_ADDR=nonsense", "SYMPOOL_ADDR"},
        {"SYMPOOL_JOB=a/b", "SYMPOOL_JOB"},
        {"SYMPOOL_JOB=0123456789012345678901234567890123456789012345678901234567890123", "63 characters"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct launch l;
        CHECK_EQ(detect(t[i].env, &l), SYP_EINVAL);
        CHECK_HAS(err_record()->text, t[i].why);
    }
}

static void arguments_come_first(void) {
    struct launch l;
    environment(TORCH);
    CHECK_EQ(launch_detect(1, 2, "tcp://[::1]:5", "given", &l), SYP_OK);
    CHECK_STR(l.source, "arguments");
    CHECK_EQ(l.rank, 1);
    CHECK_EQ(l.n_ranks, 2);
    CHECK_STR(l.job, "given");
    CHECK_EQ(l.has_addr, 1);
    CHECK_EQ(l.addr.port, 5);
    CHECK_EQ(l.local_rank, -1); /* torchrun speaks of another rank */
    CHECK_EQ(l.restart, 0);
    /* the same rank: the launcher adds what it knows */
    CHECK_EQ(launch_detect(3, 8, NULL, NULL, &l), SYP_OK);
    CHECK_STR(l.source, "arguments");
    CHECK_STR(l.job, "none:29500");
    CHECK_EQ(l.local_rank, 3);
    CHECK_EQ(l.restart, 2);
    CHECK_EQ(l.has_addr, 0); /* MASTER_ADDR and MASTER_PORT are torch's */
    /* one part from each */
    environment("SYMPOOL_WORLD_SIZE=4 SYMPOOL_LOCAL_RANK=1 SYMPOOL_LOCAL_SIZE=2 SYMPOOL_LISTEN_FD=9 " OMPI);
    CHECK_EQ(launch_detect(0, -1, NULL, NULL, &l), SYP_OK);
    CHECK_EQ(l.n_ranks, 4);
    CHECK_EQ(l.local_rank, 1);
    CHECK_EQ(l.local_size, 2);
    CHECK_EQ(l.listen_fd, 9);
    CHECK_EQ(launch_detect(1, -1, NULL, NULL, &l), SYP_OK);
    CHECK_EQ(l.listen_fd, -1); /* rank 0's alone */
}

static void arguments_must_not_contradict(void) {
    struct launch l;
    environment(OWN);
    CHECK_EQ(launch_detect(6, 7, "127.0.0.1:3366", "mine", &l), SYP_OK);
    CHECK_EQ(launch_detect(5, 7, NULL, NULL, &l), SYP_EINVAL);
    CHECK_HAS(err_record()->text, "SYMPOOL_RANK is 6");
    CHECK_EQ(launch_detect(6, 8, NULL, NULL, &l), SYP_EINVAL);
    CHECK_HAS(err_record()->text, "SYMPOOL_WORLD_SIZE is 7");
    CHECK_EQ(launch_detect(6, 7, "127.0.0.1:3367", NULL, &l), SYP_EINVAL);
    CHECK_HAS(err_record()->text, "SYMPOOL_ADDR");
    CHECK_EQ(launch_detect(6, 7, NULL, "other", &l), SYP_EINVAL);
    CHECK_HAS(err_record()->text, "SYMPOOL_JOB");
    environment("");
    CHECK_EQ(launch_detect(-2, 2, NULL, NULL, &l), SYP_EINVAL);
    CHECK_EQ(launch_detect(0, -2, NULL, NULL, &l), SYP_EINVAL);
    CHECK_EQ(launch_detect(0, 0, NULL, NULL, &l), SYP_EINVAL);
    CHECK_EQ(launch_detect(0, 1025, NULL, NULL, &l), SYP_EINVAL);
    CHECK_EQ(launch_detect(2, 2, NULL, NULL, &l), SYP_EINVAL);
    CHECK_EQ(launch_detect(1, -1, NULL, NULL, &l), SYP_EINVAL);
    CHECK_EQ(launch_detect(0, 2, "1.2.3.4", NULL, &l), SYP_EINVAL);
    CHECK_EQ(launch_detect(0, 2, NULL, "blank here", &l), SYP_EINVAL);
    CHECK_EQ(launch_detect(1023, 1024, NULL, NULL, &l), SYP_OK);
}

static void names_stay_within_bounds(void) {
    char env[400], one[64], two[64];
    struct launch l;
    for (int i = 0; i < 2; i++) {
        snprintf(env, sizeof env, "RANK=0 WORLD_SIZE=2 TORCHELASTIC_RUN_ID=%0200d", i);
        CHECK_EQ(detect(env, &l), SYP_OK);
        CHECK(strlen(l.job) == 63);
        strcpy(i ? two : one, l.job);
    }
    CHECK(strcmp(one, two) != 0); /* cut, but still told apart */
}

/* A parent in another host's proxy has another number: with an address the name must not part the ranks. */
static void pmi_name_is_for_one_host_only(void) {
    struct launch l;
    CHECK_EQ(detect(PMI " SYMPOOL_ADDR=127.0.0.1:5", &l), SYP_OK);
    CHECK_STR(l.job, "");
}

int main(void) {
    return check_main("launch_env",
                      (struct check_test[]){{"knows_each_launcher", knows_each_launcher},
                                            {"innermost_wins", innermost_wins},
                                            {"passes_over_incomplete_ones", passes_over_incomplete_ones},
                                            {"refuses", refuses},
                                            {"arguments_come_first", arguments_come_first},
                                            {"arguments_must_not_contradict", arguments_must_not_contradict},
                                            {"names_stay_within_bounds", names_stay_within_bounds},
                                            {"pmi_name_is_for_one_host_only", pmi_name_is_for_one_host_only},
                                            {0}});
}
