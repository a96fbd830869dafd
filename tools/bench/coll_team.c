/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives, in the first process: starts the ranks of each implementation and keeps them, asleep while others are measured.
 * Ours and vLLM's scheme are this program; MPI's and gloo's are programs beside it, built where the packages are.  A peer that is
 * missing, or fails, is named and left out; the measurement goes on.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <dirent.h>

#include "tools/bench/coll_run.h"

#define ARGS_MAX 32
#define ANSWER_NS 120000000000ll
#define LEAVE_NS 10000000000ll

/* worker: a program beside this one, sympool-bench-WORKER; NULL: this program in a role.  launcher: NULL: the ranks are started here. */
static const struct {
    const char *name, *worker, *package, *launcher[12];
} kinds[N_TEAMS] = {
    [TEAM_OURS] = {"sympool", NULL, NULL, {NULL}},
    [TEAM_OPENMPI] = {"openmpi", "openmpi", "libopenmpi-dev", {"mpirun.openmpi", NULL}},
    [TEAM_OPENMPI_SM] = {"openmpi-sm", "openmpi", "libopenmpi-dev", {"mpirun.openmpi", "--mca", "coll_sm_priority", "100", NULL}},
    [TEAM_OPENMPI_UCX] = {"openmpi-ucx", "openmpi", "libopenmpi-dev",
                          {"mpirun.openmpi", "--mca", "pml", "ucx", "--mca", "opal_common_ucx_tls", "any", "--mca",
                           "opal_common_ucx_devices", "any", NULL}},
    [TEAM_MPICH] = {"mpich", "mpich", "libmpich-dev", {"mpiexec.mpich", NULL}},
    [TEAM_GLOO] = {"gloo", "gloo", "libgloo-dev", {NULL}},
    [TEAM_VLLM] = {"vllm", NULL, NULL, {NULL}},
};

const char *team_name(enum team_id id) {
    return kinds[id].name;
}

int team_measures(enum team_id id, enum coll_op op) {
    if (id != TEAM_OPENMPI_SM) return 1;
    return op == OP_ALLREDUCE || op == OP_BROADCAST || op == OP_BARRIER || op == OP_REDUCE;
}

/* ------------------------------------------------------------------------------------------------------- the end */

static void absent(struct team *t, const char *why) {
    t->present = 0;
    snprintf(t->why, sizeof t->why, "%s", why);
}

/* The last line that the ranks or their launcher wrote that has a letter in it. */
static void last_words(const struct team *t, char *out, size_t cap) {
    char text[8192];
    off_t len = lseek(t->log, 0, SEEK_END);
    ssize_t got = pread(t->log, text, sizeof text - 1, len > (off_t)sizeof text - 1 ? len - (off_t)(sizeof text - 1) : 0);
    snprintf(out, cap, "%s", "no message");
    if (got <= 0) return;
    text[got] = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        if (strpbrk(line, "abcdefghijklmnopqrstuvwxyz")) snprintf(out, cap, "%s", line);
    for (char *c = out; *c; c++) /* it goes into JSON and tables */
        if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ') *c = ' ';
}

static int has_ended(pid_t pid) {
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid == pid;
}

/* All its processes run, and there is time left. */
static int alive(void *arg) {
    struct team *t = arg;
    if (now_ns() > t->deadline) return 0;
    for (int i = 0; i < t->n_pid; i++)
        if (has_ended(t->pid[i])) return 0;
    for (int i = 0; i < t->job.n; i++)
        if (has_ended(t->job.pid[i])) return 0;
    return 1;
}

static void remove_folder(const char *path) {
    DIR *d = path[0] ? opendir(path) : NULL;
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.') unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    rmdir(path);
}

/* Launchers are asked to end their ranks, then killed. */
static void reap(struct team *t, int64_t patience) {
    int64_t asked = now_ns() + patience, killed = asked + LEAVE_NS;
    int sent = 0;
    for (int i = 0; i < t->n_pid; i++)
        while (!has_ended(t->pid[i])) {
            int64_t now = now_ns();
            if ((sent == 0 && now > asked) || (sent == 1 && now > killed)) {
                for (int k = i; k < t->n_pid; k++)
                    kill(t->pid[k], sent ? SIGKILL : SIGTERM);
                sent++;
            }
            usleep(1000);
        }
    for (int i = 0; i < t->n_pid; i++)
        waitpid(t->pid[i], NULL, 0);
    t->n_pid = 0;
}

static void release(struct team *t) {
    remove_folder(t->folder);
    if (t->board) board_close(t->board, t->board_fd);
    if (t->log >= 0) close(t->log);
    t->board = NULL;
    t->log = -1;
}

static void failed(struct team *t, const char *what) {
    char words[140], why[sizeof t->why];
    if (t->id == TEAM_OURS) die("sympool: the ranks failed: %s", what);
    if (t->log >= 0)
        last_words(t, words, sizeof words);
    else
        snprintf(words, sizeof words, "see above");
    snprintf(why, sizeof why, "%.40s: %s", what, words);
    absent(t, why);
    for (int i = 0; i < t->job.n; i++) {
        kill(t->job.pid[i], SIGKILL);
        waitpid(t->job.pid[i], NULL, 0);
    }
    t->job.n = 0;
    reap(t, 0);
    release(t);
}

/* ------------------------------------------------------------------------------------------------------ the start */

static void start_inside(struct team *t, int n, const char *board) {
    char pool[24], symm[24];
    uint64_t mib = 2 + ((t->board->send_len + t->board->recv_len) >> 20);
    snprintf(symm, sizeof symm, "%lluM", (unsigned long long)(t->id == TEAM_OURS ? mib : 0));
    snprintf(pool, sizeof pool, "%lluM", (unsigned long long)(t->id == TEAM_OURS ? mib + 2 : 1));
    setenv("BENCH_COLL_BOARD", board, 1);
    job_start(&t->job, "coll", n, pool, symm);
    unsetenv("BENCH_COLL_BOARD");
    job_release(&t->job);
}

static void beside(const char *worker, char *out, size_t cap) {
    ssize_t len = readlink("/proc/self/exe", out, cap - 1);
    if (len < 0) die("/proc/self/exe: %s", strerror(errno));
    out[len] = 0;
    char *slash = strrchr(out, '/');
    size_t at = slash ? (size_t)(slash + 1 - out) : 0;
    snprintf(out + at, cap - at, "sympool-bench-%s", worker);
}

static pid_t start_program(const struct team *t, char **argv) {
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) die("fork for %s: %s", t->name, strerror(errno));
    if (pid > 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(127);
    /* Open MPI's options; nobody else reads them. */
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 1);
    setenv("OMPI_MCA_hwloc_base_binding_policy", "none", 1);
    if (t->board->n > t->board->processors) setenv("OMPI_MCA_mpi_yield_when_idle", "1", 1);
    if (dup2(t->log, 1) < 0 || dup2(t->log, 2) < 0) _exit(127);
    execvp(argv[0], argv);
    dprintf(2, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

static void start_launcher(struct team *t, int n, char *worker, char *board) {
    char *argv[ARGS_MAX], ranks[16];
    int k = 0;
    snprintf(ranks, sizeof ranks, "%d", n);
    for (const char *const *a = kinds[t->id].launcher; *a; a++)
        argv[k++] = (char *)(uintptr_t)*a;
    argv[k++] = (char[]){"-n"};
    argv[k++] = ranks;
    argv[k++] = worker;
    argv[k++] = board;
    argv[k] = NULL;
    t->pid[t->n_pid++] = start_program(t, argv);
}

/* Ranks that are told who they are by arguments. */
static void start_ranks(struct team *t, int n, char *worker, char *board) {
    const char *tmp = getenv("TMPDIR");
    snprintf(t->folder, sizeof t->folder, "%.40s/sympool-bench-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(t->folder)) die("%s: %s", t->folder, strerror(errno));
    for (int r = 0; r < n; r++) {
        char rank[16], ranks[16];
        snprintf(rank, sizeof rank, "%d", r);
        snprintf(ranks, sizeof ranks, "%d", n);
        char *argv[] = {worker, board, rank, ranks, t->folder, NULL};
        t->pid[t->n_pid++] = start_program(t, argv);
    }
}

void team_start(struct team *t, enum team_id id, int n, uint64_t send_len, uint64_t recv_len) {
    char worker[PATH_MAX] = "", board[64], why[sizeof t->why];
    memset(t, 0, sizeof *t);
    t->id = id;
    t->name = kinds[id].name;
    t->log = -1;
    if (kinds[id].worker) {
        beside(kinds[id].worker, worker, sizeof worker);
        snprintf(why, sizeof why, "sympool-bench-%s is not there (make bench builds it where %s is installed)", kinds[id].worker,
                 kinds[id].package);
        if (access(worker, X_OK)) {
            absent(t, why);
            return;
        }
    }
    t->board = board_create(t->name, n, &t->board_fd);
    t->board->send_len = send_len;
    t->board->recv_len = recv_len;
    board_path(t->board_fd, board, sizeof board);
    t->present = 1;
    t->deadline = now_ns() + ANSWER_NS;
    fflush(NULL);
    if (!kinds[id].worker) {
        start_inside(t, n, board);
    } else {
        t->log = memfd_create("sympool-bench-log", MFD_CLOEXEC);
        if (t->log < 0) die("memory for the messages of %s: %s", t->name, strerror(errno));
        if (kinds[id].launcher[0])
            start_launcher(t, n, worker, board);
        else
            start_ranks(t, n, worker, board);
    }
    if (!board_wait_open(t->board, alive, t)) failed(t, "did not start");
    t->started = t->present;
    remove_folder(t->folder); /* they have met */
    t->folder[0] = 0;
}

int team_ask(struct team *t, const struct coll_command *c) {
    t->deadline = now_ns() + ANSWER_NS;
    if (board_ask(t->board, c, alive, t)) return 1;
    failed(t, "did not answer");
    return 0;
}

void team_end(struct team *t) {
    if (!t->present || !team_ask(t, &(struct coll_command){.what = DO_QUIT})) return;
    if (t->job.n) job_end(&t->job);
    reap(t, LEAVE_NS);
    release(t);
    t->present = 0;
}
