/* SPDX-License-Identifier: Apache-2.0 */
/* See shm_report.h.  Must not know: what was attempted. */
#include "allocator/compat/shm_report.h"
#include "allocator/sympool.h"
#include "pool/base/text.h"

#include <string.h>
#include <sys/auxv.h>
#include <time.h>
#include <unistd.h>

int shm_report(int code, const char *fmt, ...) {
    char line[1200];
    struct text t = TEXT_INIT(line);
    va_list ap;
    va_start(ap, fmt);
    text_vaddf(&t, fmt, ap);
    va_end(ap);
    syp_log(SYP_LOG_ERROR, line);
    return code;
}

const char *shm_environ(const char *name) {
    size_t len = strlen(name);
    if (getauxval(AT_SECURE)) return NULL;
    for (char **e = environ; e && *e; e++)
        if (strncmp(*e, name, len) == 0 && (*e)[len] == '=') return (*e)[len + 1] ? *e + len + 1 : NULL;
    return NULL;
}

uint64_t shm_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

void shm_sleep(uint64_t ns) {
    struct timespec t = {.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
    (void)nanosleep(&t, NULL);
}
