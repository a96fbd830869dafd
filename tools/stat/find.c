/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments on this host: descriptors of any process that lead to a memory file of the right name.  A forked child holds
 * its parent's, so a segment counts once (by inode), for the process that its head names: same pid in its own
 * namespace, same start time.  When only such a child is left, the rank is dead and its last figures are still there.
 */
#include "tools/stat/stat.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void *grow(void *array, size_t n, size_t *cap, size_t size) {
    if (n < *cap) return array;
    size_t want = *cap == 0 ? 64 : 2 * *cap;
    void *p = realloc(array, want * size);
    if (p == NULL) {
        fputs("sympool: out of memory\n", stderr);
        exit(EXIT_USAGE);
    }
    *cap = want;
    return p;
}

static int read_proc(pid_t pid, const char *file, char *text, size_t cap) {
    char path[48];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t got = read(fd, text, cap - 1);
    close(fd);
    if (got < 0) return -1;
    text[got] = '\0';
    return 0;
}

/* Its pid where it lives: the last one of the NSpid line. */
static int own_pid(pid_t pid) {
    char text[8192];
    if (read_proc(pid, "status", text, sizeof text) != 0) return (int)pid;
    char *line = strstr(text, "\nNSpid:");
    if (line == NULL) return (int)pid;
    line += strlen("\nNSpid:");
    line[strcspn(line, "\n")] = '\0';
    int last = (int)pid;
    for (char *p = line; *p != '\0';) {
        char *end;
        long value = strtol(p, &end, 10);
        if (end == p) break;
        last = (int)value;
        p = end;
    }
    return last;
}

/* Fields 3 and 22 of /proc/PID/stat; the name in field 2 may hold anything, so from its last parenthesis on. */
static int process_facts(pid_t pid, char *state, uint64_t *start_ticks) {
    char text[2048];
    unsigned long long ticks;
    if (read_proc(pid, "stat", text, sizeof text) != 0) return -1;
    const char *p = strrchr(text, ')');
    if (p == NULL) return -1;
    if (sscanf(p + 1, " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", state,
               &ticks) != 2)
        return -1;
    *start_ticks = ticks;
    return 0;
}

/* Is this holder of the segment the rank itself? */
static void claim(struct view *v, pid_t pid) {
    char state;
    uint64_t ticks;
    if (own_pid(pid) != v->owner_pid || process_facts(pid, &state, &ticks) != 0) return;
    if (v->start_ticks != 0 && v->start_ticks != ticks) return; /* a later process with the same number */
    v->pid = pid;
    v->alive = 1;
    v->process_state = state;
}

static struct view *known_view(struct scan *scan, const struct stat *st) {
    for (size_t i = 0; i < scan->n_views; i++)
        if (scan->views[i].dev == st->st_dev && scan->views[i].ino == st->st_ino) return &scan->views[i];
    return NULL;
}

static int known_problem(const struct scan *scan, const struct stat *st) {
    for (size_t i = 0; i < scan->n_problems; i++)
        if (scan->problems[i].dev == st->st_dev && scan->problems[i].ino == st->st_ino) return 1;
    return 0;
}

static void take_segment(struct scan *scan, pid_t pid, int number, int fd) {
    struct stat st;
    char why[160];
    if (fstat(fd, &st) != 0 || known_problem(scan, &st)) return;
    struct view *v = known_view(scan, &st);
    if (v != NULL) {
        if (!v->alive) claim(v, pid);
        return;
    }
    struct view fresh = {.dev = st.st_dev, .ino = st.st_ino, .process_state = '-'};
    if (segment_read(fd, &fresh, why, sizeof why) == 0) {
        fresh.pid = fresh.owner_pid;
        claim(&fresh, pid);
        scan->views = grow(scan->views, scan->n_views, &scan->cap_views, sizeof fresh);
        scan->views[scan->n_views++] = fresh;
        return;
    }
    struct problem p = {.pid = pid, .fd = number, .dev = st.st_dev, .ino = st.st_ino};
    snprintf(p.text, sizeof p.text, "%s", why);
    scan->problems = grow(scan->problems, scan->n_problems, &scan->cap_problems, sizeof p);
    scan->problems[scan->n_problems++] = p;
}

/* 1 when the process has segments that we may not open. */
static int scan_process(struct scan *scan, pid_t pid) {
    static const char name[] = "/memfd:" STATS_SEGMENT_NAME;
    char path[48], link[sizeof name + 16];
    int denied = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    if (dir == NULL) return errno == EACCES || errno == EPERM;
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        if (!isdigit((unsigned char)e->d_name[0])) continue;
        ssize_t len = readlinkat(dirfd(dir), e->d_name, link, sizeof link - 1);
        if (len < 0) {
            denied |= errno == EACCES || errno == EPERM;
            continue;
        }
        link[len] = '\0';
        if (strncmp(link, name, sizeof name - 1) != 0 || strcmp(link + sizeof name - 1, " (deleted)") != 0) continue;
        int fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0) {
            denied |= errno == EACCES || errno == EPERM;
            continue;
        }
        take_segment(scan, pid, atoi(e->d_name), fd);
        close(fd);
    }
    closedir(dir);
    return denied;
}

static int by_job_and_rank(const void *pa, const void *pb) {
    const struct view *a = pa, *b = pb;
    int c = strcmp(a->job, b->job);
    if (c != 0) return c;
    if (a->nonce != b->nonce) return a->nonce < b->nonce ? -1 : 1;
    if (a->rank != b->rank) return a->rank < b->rank ? -1 : 1;
    return a->pid < b->pid ? -1 : a->pid > b->pid;
}

void scan_host(struct scan *scan) {
    struct timespec t;
    *scan = (struct scan){0};
    DIR *dir = opendir("/proc");
    if (dir == NULL) {
        fprintf(stderr, "sympool: /proc: %s\n", strerror(errno));
        exit(EXIT_USAGE);
    }
    for (struct dirent *e; (e = readdir(dir)) != NULL;)
        if (isdigit((unsigned char)e->d_name[0])) scan->n_denied += scan_process(scan, (pid_t)atoi(e->d_name));
    closedir(dir);
    /* A rank that left its job and ended is no news, even if a child of it still holds the segment. */
    size_t kept = 0;
    for (size_t i = 0; i < scan->n_views; i++)
        if (scan->views[i].alive || scan->views[i].state != STATS_DETACHED) scan->views[kept++] = scan->views[i];
    scan->n_views = kept;
    if (kept > 0) qsort(scan->views, kept, sizeof scan->views[0], by_job_and_rank);
    clock_gettime(CLOCK_MONOTONIC, &t);
    scan->now_ns = (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}
