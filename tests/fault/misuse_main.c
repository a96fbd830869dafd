/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The misuse matrix: every public function x every argument good or bad x every state of the process.  Each cell runs in a process of its own,
 * which must live, return within the deadline, and return what is documented, with a record that says what was called and what to do.
 */
#include "tests/fault/misuse.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define CELL_SECONDS 30
#define SHORT_NS 200000000

enum state { BEFORE, ATTACHED, AFTER, FORKED, BROKEN, STATES };
static const char *const state_names[STATES] = {"before init", "attached", "after finalize", "in a forked child", "on a broken group"};
static const char *const kind_names[KINDS] = {"good", "NULL or 0", "negative", "huge", "unaligned"};

static struct told {
    int entered, done;
    long result;
    syp_error record;
} *told;

/* ------------------------------------------------------------------------------------------------- arguments */

static void *the_block, *the_symm;
static syp_comm *the_comm;
static syp_request *the_request; /* of the world */
static _Alignas(16) char room[4096];

int make_int(enum kind k) { return (int[]){0, 0, -1, INT_MAX, 3}[k]; }
unsigned make_unsigned(enum kind k) { return (unsigned)make_int(k); }
size_t make_size(enum kind k) { return (size_t[]){8, 0, SIZE_MAX, (size_t)PTRDIFF_MAX + 1, 3}[k]; }
int64_t make_int64(enum kind k) { return (int64_t[]){0, 0, -1, INT64_MAX, 3}[k]; }
syp_dtype make_dtype(enum kind k) { return k == GOOD ? SYP_FLOAT32 : (syp_dtype)make_int(k); }
syp_op make_op(enum kind k) { return k == GOOD ? SYP_SUM : k == UNALIGNED ? (syp_op)77 : (syp_op)make_int(k); }
void *good_symmetric(void) { return the_symm; }
static int go_on(void *arg, const syp_block *block) { return arg == (void *)-5 && block == NULL; }
static void sink(void *arg, int level, const char *text) { (void)arg, (void)level, (void)text; }
int (*make_visit(enum kind k))(void *, const syp_block *) { return k == NULLED ? NULL : go_on; }
void (*make_sink(enum kind k))(void *, int, const char *) { return k == NULLED ? NULL : sink; }

const char *make_text(enum kind k) {
    static char long_text[5000];
    memset(long_text, 'a', sizeof long_text - 1);
    return (const char *[]){"127.0.0.1:0", NULL, "-1", long_text, ":::\xff"}[k];
}

void *make_pointer(enum kind k) {
    return (void *[]){the_block, NULL, (void *)-1, (void *)0x7ffffffff000, (char *)the_block + 1}[k];
}

void *make_buffer(enum kind k) {
    return k == NULLED ? NULL : k == UNALIGNED ? room + 1 : room;
}

void *other_buffer(void) { return room + 2048; }

size_t *make_list(enum kind k) {
    static size_t lists[KINDS][8];
    for (int i = 0; i < 8; i++)
        lists[k][i] = make_size(k);
    return k == NULLED ? NULL : lists[k];
}

size_t *no_offsets(void) {
    static size_t none[2];
    return none;
}

syp_comm *make_comm(enum kind k) {
    return (syp_comm *)(void *[]){the_comm, NULL, (void *)-1, (void *)0x7ffffffff000, (char *)the_comm + 1}[k];
}

syp_comm **make_comm_out(enum kind k) { return k == NULLED ? NULL : (syp_comm **)(void *)room; }
syp_request *make_request(enum kind k) {
    return (syp_request *)(void *[]){the_request, NULL, (void *)-1, (void *)0x7ffffffff000, (char *)the_request + 1}[k];
}
syp_request **make_request_out(enum kind k) { return k == NULLED ? NULL : (syp_request **)(void *)room; }
uint64_t *make_words(enum kind k) { return k == NULLED ? NULL : (uint64_t *)(void *)room; }
syp_pool_id make_id(enum kind k) { return (syp_pool_id){0, make_size(k)}; }

int *make_ranks(enum kind k) {
    static int list[4];
    list[0] = make_int(k);
    return k == NULLED ? NULL : list;
}
int *make_ints(enum kind k) { return make_ranks(k); }

/* Pointers are not read before they are judged by themselves, so the list is sound and what is in it is not. */
void *const *make_buffers(enum kind k) {
    static void *list[KINDS][8];
    for (int i = 0; i < 8; i++)
        list[k][i] = k == GOOD ? room + 64 * i : k == UNALIGNED ? room + 64 * i + 1 : NULL;
    return k == NULLED ? NULL : list[k];
}

const void *const *make_const_buffers(enum kind k) { return (const void *const *)make_buffers(k); }

/* A struct with a size: absent, too small, too large, at an odd address.  given: the good one. */
static void *sized(enum kind k, const void *given, size_t size) {
    size_t said = k == NEGATIVE ? 0 : k == HUGE ? SIZE_MAX : size;
    char *at = room + 1024 + (k == UNALIGNED);
    memcpy(at, given, size);
    memcpy(at, &said, sizeof said);
    return k == NULLED ? NULL : at;
}
#define SIZED(type, ...)                                                                                               \
    type good = {__VA_ARGS__};                                                                                         \
    return sized(k, &good, sizeof good)
syp_call *make_call(enum kind k) { SIZED(syp_call, .size = sizeof good, .timeout_ns = SHORT_NS); }
syp_scope_attr *make_attr(enum kind k) { SIZED(syp_scope_attr, .size = sizeof good, .kind = SYP_SCOPE_HEAP); }
syp_error *make_error(enum kind k) { SIZED(syp_error, .size = sizeof good); }
syp_location *make_location(enum kind k) { SIZED(syp_location, .size = sizeof good); }
syp_pool_info *make_info(enum kind k) { SIZED(syp_pool_info, .size = sizeof good); }
syp_config *make_config(enum kind k) {
    syp_config good = SYP_CONFIG_INIT;
    good.rank = 0;
    good.n_ranks = 1;
    good.local_mem_size = 1 << 20;
    return sized(k, &good, sizeof good);
}

/* ---------------------------------------------------------------------------------------------------- states */

static void need(int held, const char *what) {
    if (held) return;
    fprintf(stderr, "cannot enter the state: %s: %s\n", what, syp_error_text());
    _exit(3);
}

static int join(int rank, int n, const char *job) {
    syp_config c = SYP_CONFIG_INIT;
    c.rank = rank;
    c.n_ranks = n;
    c.local_mem_size = 1 << 20;
    c.meta_size = 1 << 16;
    c.job = job;
    c.join_timeout_ns = 20000000000;
    c.timeout_ns = 10000000000;
    return syp_init_config(&c);
}

/* Both ranks of the job that is to be broken; only rank 0 comes back. */
static void join_and_break(void) {
    char job[32];
    int both[2] = {0, 1};
    snprintf(job, sizeof job, "misuse-%d", (int)getpid());
    pid_t pid = fork();
    if (pid == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
    need(join(pid == 0, 2, job) == SYP_OK, "join of 2");
    the_symm = syp_symm_malloc(64);
    need(the_symm && syp_comm_create(NULL, both, 2, &the_comm) == SYP_OK && syp_barrier(NULL, NULL) == SYP_OK, "use of 2");
    if (pid == 0) kill(getpid(), SIGKILL);
    need(waitpid(pid, NULL, 0) == pid, "end of rank 1");
    need(syp_ibarrier(NULL, NULL, &the_request) == SYP_OK, "request");
    need(syp_barrier(the_comm, NULL) == SYP_EPEER && syp_barrier(NULL, NULL) == SYP_EPEER, "breaking the groups");
}

static void enter(enum state s) {
    int self = 0;
    if (s == BROKEN) join_and_break();
    if (s == ATTACHED || s == AFTER || s == FORKED) {
        need(join(0, 1, NULL) == SYP_OK, "join of 1");
        the_symm = syp_symm_malloc(64);
        need(the_symm && syp_comm_create(NULL, &self, 1, &the_comm) == SYP_OK && syp_ibarrier(NULL, NULL, &the_request) == SYP_OK, "group");
    }
    if (s == AFTER) need(syp_finalize() == SYP_OK, "finalize");
    if (s == FORKED) {
        the_block = syp_malloc(100);
        pid_t pid = fork();
        if (pid > 0) { /* a cell that kills the child must be seen */
            int status = -1;
            waitpid(pid, &status, 0);
            if (WIFSIGNALED(status)) kill(getpid(), WTERMSIG(status));
            _exit(WEXITSTATUS(status));
        }
        alarm(CELL_SECONDS);
        return;
    }
    the_block = syp_malloc(100);
    need(the_block != NULL, "malloc");
}

/* ---------------------------------------------------------------------------------------------------- verdict */

static int cells, wrong;

static void complain(const struct entry *e, enum state s, int parameter, enum kind k, const char *what) {
    if (++wrong > 200) return;
    printf("FAIL %s %s", e->name, state_names[s]);
    if (parameter >= 0) printf(", %s %s", e->parameter[parameter], kind_names[k]);
    printf(": %s (result %ld, record %s of %s: %.300s)\n", what, told->result, syp_strerror(told->record.code), told->record.operation,
           told->record.text);
}

static int is_documented(const struct entry *e, int code) {
    char word[40];
    snprintf(word, sizeof word, "%s ", syp_strerror(code));
    return strstr(e->codes, word) != NULL;
}

/* What the documents say of the function in this state, when all its arguments are good. */
static const char *judge_state(const struct entry *e, enum state s, int code) {
    int attached_only = strstr(e->codes, "SYP_ESTATE ") != NULL && !(e->flags & ANYWHERE);
    int reports = e->returns == RETURNS_STATUS || e->returns == RETURNS_AMOUNT || (e->returns == RETURNS_MEMORY && !(e->flags & PRIVATE_ALLOCATION));
    int is_record = strcmp(e->name, "syp_last_error") == 0;
    if (!reports) return NULL;
    if (s == FORKED) return is_record || code == SYP_EFORKED ? NULL : "a forked child gets SYP_EFORKED";
    if ((s == BEFORE || s == AFTER) && attached_only) return code == SYP_ESTATE ? NULL : "without a job it is SYP_ESTATE";
    if (s == ATTACHED && strcmp(e->name, "syp_scope_end") == 0) return code == SYP_ESTATE ? NULL : "no scope is open: SYP_ESTATE";
    if (s == BROKEN && strstr(e->codes, "SYP_EPEER ") && !(e->flags & ON_BROKEN) && strcmp(e->name, "syp_symm_malloc_local") != 0)
        return code == SYP_EPEER ? NULL : "on a broken group it is SYP_EPEER";
    if (s == ATTACHED && (e->flags & WAITS)) return code == SYP_ETIMEOUT ? NULL : "nobody comes: SYP_ETIMEOUT";
    if ((s == ATTACHED || s == BEFORE || s == AFTER) && code < 0 &&
        !(s == ATTACHED && strncmp(e->name, "syp_init", 8) == 0)) /* with other arguments: SYP_ESTATE */
        return "good arguments were refused";
    return NULL;
}

/* The record of a failure: the call, and what to do. */
static const char *judge_record(const struct entry *e, enum state s, int code) {
    const char *name = strncmp(e->name, "syp_init", 8) == 0 ? "init" : e->name + 4;
    const syp_error *r = &told->record;
    if (strcmp(e->name, "syp_last_error") == 0) return NULL;
    if (s == BROKEN && strcmp(r->operation, "barrier") == 0) name = "barrier"; /* what syp_wait and syp_test tell is the operation's */
    if (r->code != code) return "the record has another code";
    if (strncmp(r->operation, name, strlen(name) < sizeof r->operation ? strlen(name) : sizeof r->operation - 1) != 0 &&
        strncmp(name, r->operation, strlen(r->operation)) != 0)
        return "the record names another call";
    if (r->operation[0] == 0 || strlen(r->text) < 20) return "the record says too little";
    if (code == SYP_EFORKED && !strstr(r->text, "forked child")) return "the text does not say forked child";
    if (code == SYP_ESTATE && s != ATTACHED && s != BROKEN && !strstr(r->text, "not attached")) return "the text does not say not attached";
    if (code == SYP_EPEER && !strstr(r->text, "rank 1")) return "the text does not name the rank that is gone";
    return NULL;
}

static int failed_memory(const struct entry *e) {
    return e->returns == RETURNS_MEMORY && told->result == 0 && told->record.code != SYP_OK;
}

static void judge(const struct entry *e, enum state s, int parameter, enum kind k, int status) {
    const char *what = NULL;
    int code = e->returns == RETURNS_STATUS || (e->returns == RETURNS_AMOUNT && told->result < 0) ? (int)told->result : failed_memory(e) ? told->record.code : SYP_OK;
    if (WIFSIGNALED(status))
        what = WTERMSIG(status) == SIGALRM ? "it hangs" : strsignal(WTERMSIG(status));
    else if (!told->done)
        what = told->entered ? "it ended the process" : "the state could not be entered";
    else if (e->returns == RETURNS_TEXT && told->result == 0)
        what = "text that is NULL";
    else if (e->returns == RETURNS_FIGURE && told->result < -1)
        what = "not a documented figure";
    else if (e->returns == RETURNS_FIGURE && e->unattached != 0 && s != ATTACHED && s != BROKEN && told->result != e->unattached)
        what = "not the figure of a process without a job";
    else if (e->returns == RETURNS_STATUS && code > 0 && s != BROKEN && strcmp(e->name, "syp_comm_size") != 0 &&
             strcmp(e->name, "syp_comm_failed") != 0)
        what = "neither SYP_OK nor an error";
    else if (code < 0 && code != SYP_EFORKED && !is_documented(e, code) && e->returns != RETURNS_MEMORY)
        what = "a code that is not documented";
    else if (code < 0)
        what = judge_record(e, s, code);
    if (!what && parameter < 0) what = judge_state(e, s, code);
    if (!what && s == FORKED && e->returns == RETURNS_STATUS && strcmp(e->name, "syp_last_error") != 0 && code != SYP_EFORKED)
        what = "a forked child gets SYP_EFORKED, whatever the arguments";
    /* The text of a bad argument names it. */
    if (!what && parameter >= 0 && code == SYP_EINVAL && !strstr(told->record.text, e->said[parameter]))
        what = "the text does not name the argument";
    cells++;
    if (what) complain(e, s, parameter, k, what);
}

static void run_cell(const struct entry *e, enum state s, int parameter, enum kind k) {
    enum kind kinds[MOST_PARAMETERS] = {GOOD};
    int status = -1;
    if (parameter >= 0) kinds[parameter] = k;
    memset(told, 0, sizeof *told);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(CELL_SECONDS);
        enter(s);
        syp_error before = {.size = sizeof before}, now = before;
        told->entered = 1;
        syp_log_set(sink, NULL);
        if (s != FORKED) syp_free((void *)16); /* a record that is not the call's */
        syp_last_error(&before);
        told->result = e->call(kinds);
        syp_last_error(&now);
        if (memcmp(&before, &now, sizeof now) != 0) told->record = now;
        syp_free(syp_malloc(1000)); /* the library goes on */
        told->done = 1;
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) perror("fork");
    judge(e, s, parameter, k, status);
}

int main(int argc, char **argv) {
    const char *only = argc > 1 ? argv[1] : "";
    setenv("SYMPOOL_JOIN_TIMEOUT", "300ms", 1); /* cells that ask for ranks that do not come */
    setenv("SYMPOOL_LOG", "error", 1);
    told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (told == MAP_FAILED) return 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < n_entries; i++) {
        const struct entry *e = &entries[i];
        if (!strstr(e->name, only)) continue;
        for (int s = 0; s < STATES; s++) {
            run_cell(e, (enum state)s, -1, GOOD);
            for (int p = 0; p < e->n_parameters; p++)
                for (int k = NULLED; k < KINDS; k++)
                    run_cell(e, (enum state)s, p, (enum kind)k);
        }
    }
    printf("%d functions, %d cells, %d wrong\n", n_entries, cells, wrong);
    return wrong != 0 || cells == 0;
}
