/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines.
 *
 * Invariants: a line is one write; errno is kept; no lock, so that a line can be written in a forked child whatever the
 * other threads of the parent were doing.  The log file is opened for each line (lines are rare) and never kept:
 * programs close descriptors that they do not know.  Must not know: who logs.
 */
#include "pool/base/log.h"
#include "pool/base/arena.h"
#include "pool/base/atomic.h"
#include "pool/base/conf.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <stdarg.h>

#define LINE_MAX_LEN 2048
#define PATH_MAX_LEN 1024

/* Level in force and whether the settings name a file.  Written by log_start; plain values, hence relaxed. */
static _Atomic int level_wanted = SYP_LOG_WARN;
static _Atomic int use_file;
static struct log_limit file_refused = LOG_LIMIT(1);

/* A callback and its argument go together: readers get both through one pointer.  Records are never freed. */
struct sink {
    struct sink *next;
    void (*fn)(void *arg, int level, const char *text);
    void *arg;
};
static _Atomic(struct sink *) sinks;   /* all that were ever set */
static _Atomic(struct sink *) current; /* NULL = stderr or file */

void log_start(void) {
    store_relaxed(&level_wanted, (int)conf_int(CONF_LOG));
    store_relaxed(&use_file, conf_str(CONF_LOG_FILE) != NULL);
}

int log_enabled(int level) {
    return level <= load_relaxed(&level_wanted);
}

/* %p and %r of the file name.  A process without a rank writes "none". */
static void expand_path(const char *pattern, char *path, size_t cap) {
    struct text t = {path, cap, 0};
    text_addf(&t, "%s", "");
    for (const char *c = pattern; *c; c++) {
        if (c[0] == '%' && c[1] == 'p') {
            text_addf(&t, "%d", os->pid());
            c++;
        } else if (c[0] == '%' && c[1] == 'r') {
            if (err_rank() >= 0)
                text_addf(&t, "%d", err_rank());
            else
                text_addf(&t, "none");
            c++;
        } else {
            text_addf(&t, "%c", *c);
        }
    }
}

/* 1 = written. */
static int write_to_file(const char *line, size_t len) {
    const char *pattern = conf_str(CONF_LOG_FILE);
    char path[PATH_MAX_LEN];
    if (!pattern) return 0;
    expand_path(pattern, path, sizeof path);
    int fd = os->open_append(path, 0644);
    if (fd >= 0) {
        int64_t n = os->write(fd, line, len);
        (void)os->close(fd);
        if (n >= 0) return 1;
        fd = (int)n;
    }
    /* said on stderr: the limit is used up before the line is written, so this does not come back here twice */
    if (load_relaxed(&file_refused.said) < file_refused.most) {
        char why[96];
        struct text t = TEXT_INIT(why);
        text_add_errno(&t, -fd);
        log_warn_limited(&file_refused, "write log file %s: %s; set SYMPOOL_LOG_FILE; logging to stderr", path, why);
    }
    return 0;
}

static void line_out(int level, struct text *t) {
    /* one line each: a text that came from elsewhere must not forge a second one */
    for (size_t i = 0; i < t->len; i++)
        if ((unsigned char)t->buf[i] < 0x20) t->buf[i] = ' ';
    const struct sink *s = load_acquire(&current); /* pairs with the release in syp_log_set */
    if (s) {
        s->fn(s->arg, level, t->buf);
        return;
    }
    if (t->len == t->cap - 1) t->len--;
    t->buf[t->len++] = '\n';
    if (load_relaxed(&use_file) && write_to_file(t->buf, t->len)) return;
    (void)os->write(2, t->buf, t->len);
}

static void log_line(int level, const char *fmt, va_list ap) {
    static const char *const names[] = {"", "error", "warning", "info", "debug"};
    if (!log_enabled(level)) return;
    char line[LINE_MAX_LEN];
    struct text t = TEXT_INIT(line);
    text_addf(&t, "sympool: ");
    if (err_rank() >= 0) text_addf(&t, "rank %d ", err_rank());
    text_addf(&t, "(pid %d): %s: ", os->pid(), names[level]);
    text_vaddf(&t, fmt, ap);
    line_out(level, &t);
}

#define LOG_BODY(level)                                                                                                \
    va_list ap;                                                                                                        \
    va_start(ap, fmt);                                                                                                 \
    log_line((level), fmt, ap);                                                                                        \
    va_end(ap)

void log_error(const char *fmt, ...) {
    LOG_BODY(SYP_LOG_ERROR);
}
void log_warn(const char *fmt, ...) {
    LOG_BODY(SYP_LOG_WARN);
}
void log_info(const char *fmt, ...) {
    LOG_BODY(SYP_LOG_INFO);
}
void log_debug(const char *fmt, ...) {
    LOG_BODY(SYP_LOG_DEBUG);
}

static void log_text(int level, const char *fmt, ...) {
    LOG_BODY(level);
}

void syp_log(int level, const char *text) {
    if (level < SYP_LOG_ERROR || level > SYP_LOG_DEBUG) level = SYP_LOG_ERROR;
    log_text(level, "%s", text ? text : "");
}

/* One of the first lines: which, from 1; 0 = they are used up. */
static unsigned first_lines(struct log_limit *limit) {
    if (load_relaxed(&limit->said) >= limit->most) return 0; /* keeps the count from wrapping around */
    unsigned n = add_relaxed(&limit->said, 1u);
    return n < limit->most ? n + 1 : 0;
}

/* The one line of a second: 1, and how many were left out before it. */
static int line_of_second(struct log_limit *limit, unsigned *left_out) {
    uint64_t now = os->now(), next = load_relaxed(&limit->next); /* plain figures: relaxed */
    if (now < next || !cas_acq_rel(&limit->next, &next, now + NS_PER_S)) {
        add_relaxed(&limit->left_out, 1u);
        return 0;
    }
    *left_out = swap_acq_rel(&limit->left_out, 0u);
    return 1;
}

void log_warn_limited(struct log_limit *limit, const char *fmt, ...) {
    unsigned n = first_lines(limit), left_out = 0;
    if (n == 0 && (!limit->for_ever || !line_of_second(limit, &left_out))) return;
    LOG_BODY(SYP_LOG_WARN);
    if (left_out) log_warn("%u lines of this kind were left out", left_out);
    if (n != limit->most) return;
    if (limit->for_ever) {
        store_relaxed(&limit->next, os->now() + NS_PER_S);
        log_warn("the last line was of a kind that was now given %u times; from now on one a second", limit->most);
    } else {
        log_warn("the last line was of a kind that was now given %u times; it is not repeated", limit->most);
    }
}

void syp_log_set(void (*fn)(void *arg, int level, const char *text), void *arg) {
    if (!fn) {
        store_release(&current, NULL);
        return;
    }
    struct sink *s = load_acquire(&sinks); /* pairs with the swap below */
    while (s && (s->fn != fn || s->arg != arg))
        s = s->next;
    if (!s) {
        s = arena_alloc(sizeof *s);
        if (!s) return;
        s->fn = fn;
        s->arg = arg;
        s->next = load_acquire(&sinks);
        while (!cas_acq_rel(&sinks, &s->next, s)) {
        }
    }
    store_release(&current, s); /* pairs with line_out */
}
