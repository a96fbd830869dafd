/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runner of a test program: CUnit in one suite, a seed, counts, a watchdog.
 *
 * Invariants: CUnit is entered by one thread at a time (it keeps its records without a lock), so checks work in any
 * thread.  The watchdog is an alarm, not a thread: tests fork, count threads, and run under ThreadSanitizer.
 */
#include "tests/support/check.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *suite_name = "?", *test_name = "-";
static long timeout_s = 300;
static unsigned n_skipped;
/* CUnit's records, and the count of failures that a forked child asks for. */
static pthread_mutex_t cunit = PTHREAD_MUTEX_INITIALIZER;
static unsigned n_failed;

/* gdb shows where every thread stands; without it the kernel's names of their waits must do. */
static void dump_stacks(void) {
    char pid[16];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(2, 1);
        execlp("gdb", "gdb", "-q", "-batch", "-p", pid, "-ex", "thread apply all bt", (char *)NULL);
        execl("/bin/sh", "sh", "-c", "for t in /proc/$0/task/*; do echo \"$t: $(cat $t/wchan)\"; done", pid,
              (char *)NULL);
        _exit(127);
    }
    if (child < 0) return;
    for (int i = 0; i < 300 && waitpid(child, NULL, WNOHANG) == 0; i++)
        nanosleep(&(struct timespec){0, 100000000}, NULL);
}

static void on_alarm(int signal_number) {
    char text[256];
    (void)signal_number;
    int n = snprintf(text, sizeof text, "%s: %s: still running after %ld s; stacks follow\n", suite_name, test_name,
                     timeout_s);
    if (write(2, text, (size_t)n) == n) dump_stacks();
    _exit(124);
}

static void start_watchdog(void) {
    const char *text = getenv("SYP_TEST_TIMEOUT");
    if (text && atol(text) > 0) timeout_s = atol(text);
    signal(SIGALRM, on_alarm);
    alarm((unsigned)timeout_s);
}

/* CUnit runs tests without an argument: the one being run is found through this. */
static const struct check_test *next_tests[256];
static unsigned n_tests, next_test;

static void run_next(void) {
    const struct check_test *t = next_tests[next_test++];
    test_name = t->name;
    t->run();
}

int check_main(const char *suite, const struct check_test *tests) {
    const char *only = getenv("ONLY");
    suite_name = suite;
    setvbuf(stdout, NULL, _IOLBF, 0);
    start_watchdog();
    if (CU_initialize_registry() != CUE_SUCCESS) return 1;
    CU_pSuite s = CU_add_suite(suite, NULL, NULL);
    for (; s && tests->name; tests++) {
        if (only && !strstr(tests->name, only)) continue;
        if (n_tests == sizeof next_tests / sizeof next_tests[0] || !CU_add_test(s, tests->name, run_next)) {
            fprintf(stderr, "%s: cannot add test %s: %s\n", suite, tests->name, CU_get_error_msg());
            return 1;
        }
        next_tests[n_tests++] = tests;
    }
    if (!s || n_tests == 0) {
        fprintf(stderr, "%s: no test to run\n", suite);
        return 1;
    }
    CU_basic_set_mode(CU_BRM_VERBOSE);
    CU_ErrorCode e = CU_basic_run_tests();
    unsigned failed = CU_get_number_of_failures(), asserts = CU_get_number_of_asserts();
    int ran_all = next_test == n_tests;
    CU_cleanup_registry();
    printf("%s: %u tests, %u checks, %u failed, %u skipped\n", suite, n_tests, asserts, failed, n_skipped);
    return e == CUE_SUCCESS && failed == 0 && ran_all ? 0 : 1;
}

uint64_t check_seed(void) {
    static uint64_t seed;
    if (seed) return seed;
    const char *text = getenv("SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    seed = (uint64_t)now.tv_sec * 1000003u ^ (uint64_t)now.tv_nsec ^ (uint64_t)getpid();
    if (text) seed = strtoull(text, NULL, 0);
    if (!seed) seed = 1;
    printf("  SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

uint64_t check_count(uint64_t quick, uint64_t full) {
    const char *mode = getenv("SYP_CHECK");
    return mode && strcmp(mode, "long") == 0 ? full : quick;
}

void check_skip(const char *why) {
    n_skipped++;
    printf("  SKIP: %s: %s: %s\n", suite_name, test_name, why);
}

int check_fail(const char *file, int line, const char *fmt, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    /* at once as well: a forked child or a program that crashes later never reaches CUnit's summary */
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, test_name, text);
    pthread_mutex_lock(&cunit);
    n_failed++;
    CU_assertImplementation(CU_FALSE, (unsigned)line, text, file, "", CU_FALSE);
    pthread_mutex_unlock(&cunit);
    return 0;
}

int check_pass(void) {
    pthread_mutex_lock(&cunit);
    CU_assertImplementation(CU_TRUE, 0, "", "", "", CU_FALSE);
    pthread_mutex_unlock(&cunit);
    return 1;
}

unsigned check_failures(void) {
    pthread_mutex_lock(&cunit);
    unsigned n = n_failed;
    pthread_mutex_unlock(&cunit);
    return n;
}
