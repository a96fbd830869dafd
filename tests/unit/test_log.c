/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool/base/log: levels, prefix, callback, file, closed and broken stderr, limits.
 */
#include "pool/base/conf.h"
#include "pool/base/log.h"
#include "pool/base/status.h"
#include "tests/support/check.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char lines[16384];
static int last_level;
static unsigned n_lines;

static void collect(void *arg, int level, const char *text) {
    last_level = level;
    n_lines++;
    size_t len = strlen(lines);
    snprintf(lines + len, sizeof lines - len, "%s%s\n", arg ? (const char *)arg : "", text);
}

static void fresh(const char *level) {
    setenv("SYMPOOL_LOG", level, 1);
    unsetenv("SYMPOOL_LOG_FILE");
    conf_reset();
    log_start();
    err_set_rank(-1);
    lines[0] = 0;
    n_lines = 0;
    syp_log_set(collect, NULL);
}

static void levels(void) {
    static const char *const names[] = {"off", "error", "warn", "info", "debug"};
    for (int level = 0; level <= 4; level++) {
        fresh(names[level]);
        log_error("e");
        log_warn("w");
        log_info("i");
        log_debug("d");
        CHECK_EQ(n_lines, level);
        if (level) CHECK_EQ(last_level, level);
        for (int l = 1; l <= 4; l++)
            CHECK_EQ(log_enabled(l), l <= level);
    }
}

/* syp_log, for libraries on top: the same lines. */
static void line_of_another_library(void) {
    fresh("warn");
    syp_log(SYP_LOG_WARN, "100%s of it");
    CHECK_HAS(lines, "): warning: 100%s of it\n");
    CHECK_EQ(last_level, SYP_LOG_WARN);
    syp_log(SYP_LOG_INFO, "not asked for");
    CHECK_EQ(n_lines, 1);
    syp_log(SYP_LOG_ERROR, NULL);
    syp_log(0, "no level");
    CHECK_HAS(lines, "error: no level");
    syp_log(77, "no level either");
    CHECK_EQ(last_level, SYP_LOG_ERROR);
    CHECK_EQ(n_lines, 4);
}

static void prefix_and_errno(void) {
    char want[128];
    fresh("warn");
    errno = 77;
    log_warn("pool of %d is %s", 7, "full");
    CHECK_EQ(errno, 77);
    snprintf(want, sizeof want, "sympool: (pid %d): warning: pool of 7 is full\n", (int)getpid());
    CHECK_STR(lines, want);
    CHECK_EQ(last_level, SYP_LOG_WARN);
    err_set_rank(2);
    lines[0] = 0;
    log_error("bad");
    snprintf(want, sizeof want, "sympool: rank 2 (pid %d): error: bad\n", (int)getpid());
    CHECK_STR(lines, want);
    /* a second line cannot be forged */
    lines[0] = 0;
    log_warn("job \"%s\"", "a\nsympool: error: forged");
    CHECK_EQ(strcspn(lines, "\n"), strlen(lines) - 1);
}

static void callback_with_its_argument(void) {
    fresh("warn");
    syp_log_set(collect, "A:");
    log_warn("one");
    syp_log_set(collect, "B:");
    log_warn("two");
    syp_log_set(collect, "A:");
    log_warn("three");
    CHECK(strncmp(lines, "A:sympool", 9) == 0);
    CHECK_HAS(lines, "one\nB:sympool");
    CHECK_HAS(lines, "two\nA:sympool");
}

/* Run fn with descriptor 2 being `fd`; the message of a failing check must not go there, so nothing is checked inside.
 */
static void with_stderr(int fd, void (*fn)(void)) {
    int saved = dup(2);
    if (fd >= 0)
        dup2(fd, 2);
    else
        close(2);
    fn();
    dup2(saved, 2);
    close(saved);
}

static void two_lines(void) {
    log_warn("first");
    char longer[5000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    log_warn("%s", longer);
}

static void to_stderr(void) {
    int ends[2];
    char got[8192];
    CHECK_EQ(pipe(ends), 0);
    fresh("warn");
    syp_log_set(NULL, NULL);
    with_stderr(ends[1], two_lines);
    close(ends[1]);
    size_t len = 0;
    for (ssize_t n; (n = read(ends[0], got + len, sizeof got - 1 - len)) > 0;)
        len += (size_t)n;
    got[len] = 0;
    close(ends[0]);
    CHECK_HAS(got, "warning: first\n");
    CHECK_EQ(got[len - 1], '\n'); /* also when it was cut */
    char *second = strchr(got, '\n') + 1;
    CHECK_EQ(strlen(second), 2047);
    CHECK_EQ(strcspn(second, "\n"), 2046);
}

static void closed_and_broken_stderr(void) {
    int ends[2];
    sigset_t pending;
    fresh("warn");
    syp_log_set(NULL, NULL);
    errno = 5;
    with_stderr(-1, two_lines);
    CHECK_EQ(pipe(ends), 0);
    close(ends[0]);
    /* SIGPIPE would end the program */
    with_stderr(ends[1], two_lines);
    close(ends[1]);
    sigpending(&pending);
    CHECK(!sigismember(&pending, SIGPIPE));
}

static long read_whole(const char *path, char *buf, size_t cap) {
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, cap - 1);
    buf[n > 0 ? n : 0] = 0;
    if (fd >= 0) close(fd);
    return (long)n;
}

static void to_a_file(void) {
    char dir[] = "/tmp/sympool-test-XXXXXX", pattern[128], path[160], got[4096], name[64];
    CHECK(mkdtemp(dir) != NULL);
    fresh("info");
    syp_log_set(NULL, NULL);
    snprintf(pattern, sizeof pattern, "%s/log.%%p.%%r.%%x", dir);
    setenv("SYMPOOL_LOG_FILE", pattern, 1);
    conf_reset();
    log_start();
    snprintf(name, sizeof name, "%s/log.%d.none.%%x", dir, (int)getpid());
    CHECK_EQ(access(name, F_OK), -1); /* nothing said, no file */
    log_info("before");
    CHECK(read_whole(name, got, sizeof got) > 0);
    CHECK_HAS(got, "info: before\n");
    err_set_rank(3);
    log_info("one");
    log_info("two");
    snprintf(path, sizeof path, "%s/log.%d.3.%%x", dir, (int)getpid());
    CHECK(read_whole(path, got, sizeof got) > 0);
    CHECK_HAS(got, "rank 3 (pid ");
    CHECK_HAS(got, "one\nsympool: rank 3");
    CHECK_HAS(got, "two\n");
    unlink(path);
    unlink(name);

    /* a child has its own */
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        log_info("child");
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, NULL, 0) == child);
    snprintf(path, sizeof path, "%s/log.%d.3.%%x", dir, (int)child);
    CHECK(read_whole(path, got, sizeof got) > 0);
    CHECK_HAS(got, "child");
    unlink(path);
    CHECK_EQ(rmdir(dir), 0);
    fresh("warn");
}

/* In a child: the refusal is said once per process.  got: what arrived on stderr instead. */
static void two_lines_to_refused_file(const char *path, char *got, size_t cap) {
    int ends[2];
    fflush(stdout);
    CHECK_EQ(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        fresh("warn");
        syp_log_set(NULL, NULL);
        dup2(ends[1], 2);
        setenv("SYMPOOL_LOG_FILE", path, 1);
        conf_reset();
        log_start();
        log_warn("first");
        log_warn("second");
        _exit(0);
    }
    close(ends[1]);
    size_t len = 0;
    for (ssize_t n; (n = read(ends[0], got + len, cap - 1 - len)) > 0;)
        len += (size_t)n;
    got[len] = 0;
    close(ends[0]);
    CHECK(child > 0 && waitpid(child, NULL, 0) == child);
}

static void file_that_cannot_be_written(void) {
    char got[8192];
    two_lines_to_refused_file("/nowhere/at/all", got, sizeof got);
    CHECK_HAS(got, "first\n");
    CHECK_HAS(got, "second\n");
    CHECK_HAS(got, "SYMPOOL_LOG_FILE");
    char *said = strstr(got, "/nowhere/at/all: ENOENT");
    CHECK(said != NULL);
    if (said) CHECK(strstr(said + 1, "/nowhere/at/all: ENOENT") == NULL);
}

/* The name may lie in a directory that others write. */
static void link_is_not_followed(void) {
    char dir[] = "/tmp/sympool-test-XXXXXX", link_name[128], target[128], got[8192];
    CHECK(mkdtemp(dir) != NULL);
    snprintf(link_name, sizeof link_name, "%s/link", dir);
    snprintf(target, sizeof target, "%s/target", dir);
    CHECK_EQ(symlink(target, link_name), 0);
    two_lines_to_refused_file(link_name, got, sizeof got);
    CHECK_HAS(got, "ELOOP");
    CHECK_HAS(got, "second\n");
    CHECK_EQ(access(target, F_OK), -1);
    unlink(link_name);
    CHECK_EQ(rmdir(dir), 0);
}

static void limits(void) {
    static struct log_limit limit = LOG_LIMIT(3);
    fresh("warn");
    for (int i = 0; i < 10; i++)
        log_warn_limited(&limit, "again %d", i);
    CHECK_HAS(lines, "again 2\n");
    CHECK(strstr(lines, "again 3") == NULL);
    CHECK_EQ(n_lines, 4);
    CHECK_HAS(lines, "it is not repeated");
}

static atomic_uint thread_lines;
static void count_line(void *arg, int level, const char *text) {
    (void)level;
    if (strstr(text, arg)) atomic_fetch_add(&thread_lines, 1);
}

static struct log_limit shared_limit = LOG_LIMIT(10);

static void *log_much(void *arg) {
    (void)arg;
    for (int i = 0; i < 500; i++) {
        log_warn("line %d", i);
        log_warn_limited(&shared_limit, "line of all");
        syp_log_set(count_line, i % 2 ? "line" : "sympool");
    }
    return NULL;
}

static void threads(void) {
    fresh("warn");
    syp_log_set(count_line, "line");
    pthread_t id[4];
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&id[i], NULL, log_much, NULL), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(id[i], NULL);
    CHECK_EQ(atomic_load(&thread_lines), 4 * 500 + 11);
}

int main(void) {
    return check_main("log", (struct check_test[]){{"levels", levels},
                                                   {"line_of_another_library", line_of_another_library},
                                                   {"prefix_and_errno", prefix_and_errno},
                                                   {"callback_with_its_argument", callback_with_its_argument},
                                                   {"to_stderr", to_stderr},
                                                   {"closed_and_broken_stderr", closed_and_broken_stderr},
                                                   {"to_a_file", to_a_file},
                                                   {"file_that_cannot_be_written", file_that_cannot_be_written},
                                                   {"link_is_not_followed", link_is_not_followed},
                                                   {"limits", limits},
                                                   {"threads", threads},
                                                   {0}});
}
