/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that uses the library as programs do, for runs under limits and refused system calls: ranks are its children.
 *
 *     limits_host RANKS POOL BLOCK [together|in_turn]
 *
 * Each rank attaches, allocates BLOCK bytes and fills them (in_turn: one rank after the other), takes part in a barrier, an
 * all-reduce in the pool, one outside it and a broadcast, frees, leaves, and counts its descriptors.  Lines on standard output:
 *     rank 2 init: SYP_ENOMEM: text        a call that was refused
 *     rank 2 alive, 1 errors               it came to its end
 * Exit status: 0 nothing was refused, 3 something was, with a text, 1 anything else: a rank died, hung, left a descriptor
 * open, or computed something wrong.  With LIMITS_MAPS=N all but N of the mappings that the system allows are used up
 * before.  With SYMPOOL_RANK set it is that rank itself.  With LIMITS_LEAK descriptors are not counted.
 */
#include "allocator/sympool.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT 5000 /* beyond what travels inside a post */

static int rank, n_ranks, n_errors, n_wrong;

/* One write: the ranks share the pipe. */
static void say(const char *what, const char *text) {
    char line[1400];
    int n = snprintf(line, sizeof line, "rank %d %s%s\n", rank, what, text);
    if (n > (int)sizeof line - 1) n = (int)sizeof line - 1;
    if (write(1, line, (size_t)n) < 0) _exit(1);
}

static int held(const char *what, int ok) {
    if (ok) return 1;
    n_wrong++;
    say("WRONG ", what);
    return 0;
}

static int called(const char *what, int rc) {
    char head[64];
    if (rc == SYP_OK) return 1;
    n_errors++;
    snprintf(head, sizeof head, "%s: %s: ", what, syp_strerror(rc));
    say(head, syp_error_text());
    held("an error without a text", strlen(syp_error_text()) > 10 && strcmp(syp_strerror(rc), "unknown status") != 0);
    return 0;
}

static int last_code(void) {
    syp_error e = {.size = sizeof e};
    return syp_last_error(&e) == SYP_OK ? e.code : SYP_EINVAL;
}

/* One call, and none that the library makes: it may be told to fail. */
static int open_descriptors(void) {
    struct pollfd fds[256];
    struct rlimit most;
    int n = 0, count = 256;
    if (getrlimit(RLIMIT_NOFILE, &most) == 0 && most.rlim_cur < 256) count = (int)most.rlim_cur;
    for (int fd = 0; fd < count; fd++)
        fds[fd] = (struct pollfd){.fd = fd};
    if (poll(fds, (nfds_t)count, 0) < 0) return -1;
    for (int fd = 0; fd < count; fd++)
        n += !(fds[fd].revents & POLLNVAL);
    return n;
}

/* All ranks allocate, or each waits until those before it have. */
static char *allocate(size_t block, int in_turn) {
    char *p = NULL;
    for (int turn = 0; turn < (in_turn ? n_ranks : 1); turn++) {
        if (!in_turn || turn == rank) {
            p = syp_malloc(block);
            if (!p) called("malloc", last_code());
            if (p) memset(p, rank + 1, block);
        }
        if (in_turn) called("barrier of the turn", syp_barrier(SYP_COMM_WORLD, NULL));
    }
    return p;
}

static void collectives(float *inside) {
    static float outside[COUNT];
    if (!called("barrier", syp_barrier(SYP_COMM_WORLD, NULL))) return;
    for (int i = 0; i < COUNT; i++)
        outside[i] = 1;
    int ok = called("allreduce outside the pool", syp_allreduce(outside, outside, COUNT, SYP_FLOAT32, SYP_SUM, SYP_COMM_WORLD, NULL));
    if (ok) held("allreduce outside the pool", outside[COUNT - 1] == (float)n_ranks);
    float *at = inside ? inside : outside;
    for (int i = 0; i < COUNT; i++)
        at[i] = 2;
    ok = called("allreduce", syp_allreduce(at, at, COUNT, SYP_FLOAT32, SYP_SUM, SYP_COMM_WORLD, NULL));
    if (ok) held("allreduce", at[COUNT / 2] == 2 * (float)n_ranks);
    memset(outside, rank == 0 ? 7 : 1, sizeof outside);
    ok = called("broadcast", syp_broadcast(outside, sizeof outside, 0, SYP_COMM_WORLD, NULL));
    if (ok) held("broadcast", ((char *)outside)[sizeof outside - 1] == 7);
}

/* Every second page of a large mapping is made different, until the system refuses; then `spare` mappings are given back. */
static void use_up_mappings(long spare) {
    const size_t page = 4096, n = 200000;
    char *at = mmap(NULL, 2 * n * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    size_t i = 0;
    if (at == MAP_FAILED) exit(2);
    while (i < n && mprotect(at + 2 * i * page, page, PROT_READ) == 0)
        i++;
    for (long k = 0; k < spare / 2 && i > 0; k++)
        mprotect(at + 2 * --i * page, page, PROT_NONE);
}

static int run_rank(const char *pool, const char *block, int in_turn) {
    syp_config conf = SYP_CONFIG_INIT;
    size_t len = (size_t)strtoull(block, NULL, 10);
    conf.rank = rank;
    conf.n_ranks = n_ranks;
    conf.local_mem_size = strtoull(pool, NULL, 10);
    conf.meta_size = 0;
    if (getenv("LIMITS_MAPS")) use_up_mappings(atol(getenv("LIMITS_MAPS")));
    int before = open_descriptors();
    if (called("init", syp_init_config(&conf))) {
        char *p = allocate(len, in_turn);
        float *buffer = syp_malloc(COUNT * sizeof *buffer);
        collectives(buffer);
        syp_free(buffer);
        for (size_t i = 0; p && i < len; i += 4096)
            if (p[i] != (char)(rank + 1)) held("content of the block", (i = len, 0));
        syp_free(p);
        called("check", syp_check());
        called("finalize", syp_finalize());
    }
    char *own = syp_malloc(100000); /* private memory goes on */
    if (own) own[99999] = 1;
    else called("malloc after the job", last_code());
    syp_free(own);
    if (!getenv("LIMITS_LEAK")) held("descriptors are left open", open_descriptors() == before);
    char tail[40];
    snprintf(tail, sizeof tail, "%d errors", n_errors);
    say("alive, ", tail);
    return n_wrong ? 1 : n_errors ? 3 : 0;
}

int main(int argc, char **argv) {
    int status, worst = 0;
    pid_t children[64];
    if (argc < 4 || (n_ranks = atoi(argv[1])) < 1 || n_ranks > 64) {
        fprintf(stderr, "usage: limits_host RANKS POOL BLOCK [together|in_turn]\n");
        return 2;
    }
    if (!getenv("SYMPOOL_JOB")) {
        char job[32];
        snprintf(job, sizeof job, "limits-%d", (int)getpid());
        setenv("SYMPOOL_JOB", job, 1);
    }
    if (getenv("SYMPOOL_RANK")) {
        rank = atoi(getenv("SYMPOOL_RANK"));
        alarm(60);
        return run_rank(argv[2], argv[3], 0);
    }
    for (rank = 0; rank < n_ranks; rank++) {
        children[rank] = fork();
        if (children[rank] == 0) {
            alarm(60);
            _exit(run_rank(argv[2], argv[3], argc > 4 && strcmp(argv[4], "in_turn") == 0));
        }
        if (children[rank] < 0) perror("limits_host: fork");
    }
    for (rank = 0; rank < n_ranks; rank++) {
        if (children[rank] < 0 || waitpid(children[rank], &status, 0) != children[rank]) return 1;
        int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
        if (WIFSIGNALED(status)) {
            char signal_name[32];
            snprintf(signal_name, sizeof signal_name, "%d%s", WTERMSIG(status), WTERMSIG(status) == SIGALRM ? " (hung)" : "");
            say("DIED of signal ", signal_name);
        }
        if (code != 0 && code != 3) worst = 1;
        else if (code == 3 && worst == 0) worst = 3;
    }
    return worst;
}
