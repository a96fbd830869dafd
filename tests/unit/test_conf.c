/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool/base/conf: the table itself, reading, bad values, unknown keys, freezing, threads.
 */
#include "pool/base/conf.h"
#include "pool/base/log.h"
#include "tests/support/check.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static char lines[16384];

static void collect(void *arg, int level, const char *text) {
    (void)arg;
    (void)level;
    size_t len = strlen(lines);
    snprintf(lines + len, sizeof lines - len, "%s\n", text);
}

/* Start from an environment without our variables, with log lines collected. */
static void fresh(void) {
    for (int k = 0; k < CONF_N; k++)
        unsetenv(conf_entry((enum conf_key)k)->name);
    unsetenv("SYMPOOL_LOCAL_MEMSIZE");
    conf_reset();
    conf_freeze();
    lines[0] = 0;
    syp_log_set(collect, NULL);
}

static void defaults_are_in_their_own_grammar(void) {
    fresh();
    conf_reset();
    conf_freeze();
    CHECK_STR(lines, "");
    CHECK_EQ(conf_int(CONF_RANK), -1);
    CHECK_EQ(conf_size(CONF_LOCAL_MEM_SIZE), 1ull << 30);
    CHECK_EQ(conf_size(CONF_META_SIZE), 64ull << 20);
    CHECK_EQ(conf_int(CONF_JOIN_TIMEOUT), 30000000000ll);
    CHECK_EQ(conf_int(CONF_SPIN), 50000);
    CHECK_EQ(conf_int(CONF_LOG), SYP_LOG_WARN);
    CHECK_STR(conf_str(CONF_COMMIT), "lazy");
    CHECK(conf_str(CONF_ADDR) == NULL);
    /* setting each variable to its own default, minimum and maximum is accepted */
    for (int k = 0; k < CONF_N; k++) {
        const struct conf_entry *e = conf_entry((enum conf_key)k);
        const char *const values[] = {e->def, e->min, e->max};
        CHECK(strncmp(e->name, "SYMPOOL_", 8) == 0);
        CHECK(e->help && *e->help);
        if ((enum conf_key)k == CONF_LOG) continue; /* "off" would hide what this test looks for */
        for (int i = 0; i < 3; i++) {
            if (!values[i]) continue;
            setenv(e->name, values[i], 1);
            conf_reset();
            CHECK(conf_is_set((enum conf_key)k));
            CHECK_STR(conf_str((enum conf_key)k), values[i]);
        }
        unsetenv(e->name);
    }
    CHECK_STR(lines, "");
}

static void values_are_read(void) {
    fresh();
    setenv("SYMPOOL_RANK", "3", 1);
    setenv("SYMPOOL_LOCAL_MEM_SIZE", "3.1M", 1);
    setenv("SYMPOOL_TIMEOUT", "1.5", 1);
    setenv("SYMPOOL_HUGE", "THP", 1);
    setenv("SYMPOOL_ADDR", "127.0.0.1:4711", 1);
    setenv("SYMPOOL_JOB", "", 1);
    conf_reset();
    CHECK_EQ(conf_int(CONF_RANK), 3);
    CHECK_EQ(conf_size(CONF_LOCAL_MEM_SIZE), 3250586);
    CHECK_EQ(conf_int(CONF_TIMEOUT), 1500000000);
    CHECK_EQ(conf_int(CONF_HUGE), 1);
    CHECK_STR(conf_str(CONF_ADDR), "127.0.0.1:4711");
    CHECK(conf_is_set(CONF_ADDR));
    CHECK(conf_str(CONF_JOB) == NULL && !conf_is_set(CONF_JOB)); /* empty = not set */
    CHECK(!conf_is_set(CONF_WORLD_SIZE));
    CHECK_STR(lines, "");
}

static void flags_are_a_list_of_words(void) {
    static const struct {
        const char *value;
        int64_t bits;
    } table[] = {{"off", 0}, {"on", 31}, {"ON", 31}, {"guard", 1}, {"tools,Junk", 18}, {"junk,junk", 2}, {"", 0}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        fresh();
        setenv("SYMPOOL_DEBUG", table[i].value, 1);
        conf_reset();
        CHECK_EQ(conf_int(CONF_DEBUG), table[i].bits);
        CHECK_STR(lines, "");
    }
    unsetenv("SYMPOOL_DEBUG");
}

static void bad_values_fall_back(void) {
    static const struct {
        const char *name, *value, *part;
    } table[] = {
        {"SYMPOOL_RANK", "two", "SYMPOOL_RANK=two is not usable: expected a whole number, -1 to 1023; using -1"},
        {"SYMPOOL_RANK", "1024", "SYMPOOL_RANK=1024 is not usable"},
        {"SYMPOOL_RANK", "-2", "SYMPOOL_RANK=-2 is not usable"},
        {"SYMPOOL_LOCAL_MEM_SIZE", "1Q", "expected a size such as 512M, 64K to 1T; using 1G"},
        {"SYMPOOL_LOCAL_MEM_SIZE", "65535", "64K to 1T"},
        {"SYMPOOL_LOCAL_MEM_SIZE", "2T", "64K to 1T"},
        {"SYMPOOL_LOCAL_MEM_SIZE", "16777215T", "64K to 1T"},
        {"SYMPOOL_TIMEOUT", "soon", "expected a time such as 30s or 50us, 1ms to 24h; using 300s"},
        {"SYMPOOL_TIMEOUT", "0", "1ms to 24h"},
        {"SYMPOOL_COMMIT", "later", "expected one of lazy|full; using lazy"},
        {"SYMPOOL_COMMIT", "lazy|full", "one of lazy|full"},
        {"SYMPOOL_COMMIT", "laz", "one of lazy|full"},
        {"SYMPOOL_DEBUG", "guard,jun", "SYMPOOL_DEBUG=guard,jun is not usable: expected off, on or a comma list of guard|"},
        {"SYMPOOL_DEBUG", "guard,", "comma list of guard|"},
        {"SYMPOOL_DEBUG", ",guard", "comma list of guard|"},
        {"SYMPOOL_DEBUG", "guard|junk", "comma list of guard|"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        fresh();
        setenv(table[i].name, table[i].value, 1);
        conf_reset();
        CHECK_EQ(conf_int(CONF_RANK), -1);
        CHECK_EQ(conf_size(CONF_LOCAL_MEM_SIZE), 1ull << 30);
        CHECK_EQ(conf_int(CONF_TIMEOUT), 300000000000ll);
        CHECK_EQ(conf_int(CONF_COMMIT), 0);
        CHECK_EQ(conf_int(CONF_DEBUG), 0);
        CHECK_HAS(lines, table[i].part);
        CHECK_HAS(lines, "warning");
        unsetenv(table[i].name);
    }
    /* a text that is too long */
    fresh();
    char *text = malloc(100001);
    memset(text, 'x', 100000);
    text[100000] = 0;
    setenv("SYMPOOL_JOB", text, 1);
    conf_reset();
    CHECK(conf_str(CONF_JOB) == NULL);
    CHECK_HAS(lines, "expected a text of at most 1023 bytes; using none");
    CHECK(strlen(lines) < 500);
    unsetenv("SYMPOOL_JOB");
    free(text);
}

/* Many long texts: those that find no room are refused with a warning, none is cut. */
static void texts_have_room_or_are_refused(void) {
    fresh();
    char text[1024];
    memset(text, 'y', sizeof text - 1);
    text[sizeof text - 1] = 0;
    int n = 0, set = 0;
    for (int k = 0; k < CONF_N; k++) {
        if (conf_entry((enum conf_key)k)->kind != CONF_STRING) continue;
        /* the log file would be written to */
        if ((enum conf_key)k == CONF_LOG_FILE) continue;
        setenv(conf_entry((enum conf_key)k)->name, text, 1);
        n++;
    }
    conf_reset();
    for (int k = 0; k < CONF_N; k++) {
        if (!conf_is_set((enum conf_key)k)) continue;
        set++;
        CHECK_STR(conf_str((enum conf_key)k), text);
    }
    CHECK(set > 0);
    CHECK_EQ(set == n, lines[0] == 0);
    fresh();
}

static void unknown_keys_name_the_nearest(void) {
    fresh();
    setenv("SYMPOOL_LOCAL_MEMSIZE", "1G", 1);
    conf_reset();
    conf_freeze();
    CHECK_HAS(
        lines,
        "SYMPOOL_LOCAL_MEMSIZE is no setting of this version and is ignored; the nearest is SYMPOOL_LOCAL_MEM_SIZE");
    lines[0] = 0;
    /* the same environment again is not reported again */
    conf_reset();
    conf_freeze();
    CHECK_STR(lines, "");
    unsetenv("SYMPOOL_LOCAL_MEMSIZE");
    setenv("SYMPOOL_RNAK", "1", 1);
    conf_reset();
    conf_freeze();
    CHECK_HAS(lines, "the nearest is SYMPOOL_RANK");
    unsetenv("SYMPOOL_RNAK");
    /* longer than what is compared */
    char key[300] = "SYMPOOL_TIMEOUT_";
    memset(key + strlen(key), 'Z', 200);
    setenv(key, "1", 1);
    lines[0] = 0;
    conf_reset();
    conf_freeze();
    CHECK_HAS(lines, "is no setting");
    CHECK(!strstr(lines, "nearest")); /* a name that has little in common is no help */
    unsetenv(key);
    /* the first of two variables of one name counts, as in getenv */
    extern char **environ;
    char *twice[] = {(char *)(uintptr_t) "SYMPOOL_RANK=3", (char *)(uintptr_t) "SYMPOOL_RANK=4", NULL}, **kept = environ;
    environ = twice;
    conf_reset();
    CHECK_EQ(conf_int(CONF_RANK), 3);
    environ = kept;
    conf_reset();
    /* the level is read before the report is made */
    setenv("SYMPOOL_RNAK", "1", 1);
    setenv("SYMPOOL_LOG", "error", 1);
    lines[0] = 0;
    conf_reset();
    conf_freeze();
    CHECK_STR(lines, "");
    unsetenv("SYMPOOL_RNAK");
    fresh();
}

static void frozen_until_reset(void) {
    fresh();
    setenv("SYMPOOL_JOB", "first", 1);
    conf_reset();
    const char *kept = conf_str(CONF_JOB);
    CHECK_STR(kept, "first");
    setenv("SYMPOOL_JOB", "second, and longer than before", 1);
    CHECK_STR(conf_str(CONF_JOB), "first");
    conf_reset();
    CHECK_STR(conf_str(CONF_JOB), "second, and longer than before");
    CHECK_STR(kept, "first"); /* one generation later it is still there */
    conf_reset();
    CHECK_STR(kept, "first"); /* nothing changed: no new generation */
    fresh();
}

static void any_variable(void) {
    fresh();
    setenv("OTHER_RANK", "5", 1);
    setenv("OTHER_RANK_LIST", "6", 1);
    CHECK_STR(conf_environ("OTHER_RANK"), "5");
    CHECK(conf_environ("OTHER_RAN") == NULL);
    CHECK(conf_environ("OTHER_RANKS") == NULL);
    unsetenv("OTHER_RANK");
    unsetenv("OTHER_RANK_LIST");
    CHECK(conf_environ("OTHER_RANK") == NULL);
}

static void no_environment(void) {
    fresh();
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        clearenv(); /* environ is NULL from here on */
        conf_reset();
        _exit(conf_int(CONF_RANK) == -1 && !conf_environ("PATH") ? 0 : 1);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
}

static void *read_all(void *arg) {
    long bad = 0;
    (void)arg;
    for (uint64_t i = check_count(2000, 50000); i > 0; i--) {
        if (i % 7 == 0) conf_reset();
        bad += conf_int(CONF_RANK) != 4 || conf_size(CONF_META_SIZE) != 1 << 20 ||
               strcmp(conf_str(CONF_JOB), "threads") != 0;
    }
    return (void *)bad;
}

static void threads_read_and_reset(void) {
    fresh();
    setenv("SYMPOOL_RANK", "4", 1);
    setenv("SYMPOOL_META_SIZE", "1M", 1);
    setenv("SYMPOOL_JOB", "threads", 1);
    conf_reset();
    pthread_t id[4];
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&id[i], NULL, read_all, NULL), 0);
    for (int i = 0; i < 4; i++) {
        void *bad;
        pthread_join(id[i], &bad);
        CHECK_EQ((long)bad, 0);
    }
    fresh();
}

int main(void) {
    return check_main("conf",
                      (struct check_test[]){{"defaults_are_in_their_own_grammar", defaults_are_in_their_own_grammar},
                                            {"values_are_read", values_are_read},
                                            {"flags_are_a_list_of_words", flags_are_a_list_of_words},
                                            {"bad_values_fall_back", bad_values_fall_back},
                                            {"texts_have_room_or_are_refused", texts_have_room_or_are_refused},
                                            {"unknown_keys_name_the_nearest", unknown_keys_name_the_nearest},
                                            {"frozen_until_reset", frozen_until_reset},
                                            {"any_variable", any_variable},
                                            {"no_environment", no_environment},
                                            {"threads_read_and_reset", threads_read_and_reset},
                                            {0}});
}
