/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output of the ranks: whole lines, prefixed with the rank, from their pipes to our stdout and stderr.
 *
 * Nothing is lost: while a sink has much waiting its sources are not read, so that the ranks wait in write().  Nothing
 * here waits: a reader that has stopped must not keep us from signals and deadlines.  When the reader of a sink goes
 * away, the pipes that feed it are closed, so that the ranks see what they would have seen without us: SIGPIPE.
 */
#include "tools/run/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SINK_FULL (256 * 1024) /* bytes waiting above which sources are not read */
#define LINE_LONGEST (1 << 20) /* a longer line is cut in pieces of this size */
#define READ_SIZE (64 * 1024)

/* Room for more bytes at the end of a growing buffer. */
static void reserve(char **buf, size_t *cap, size_t len, size_t more) {
    size_t want = *cap == 0 ? 4096 : *cap;
    while (want < len + more)
        want *= 2;
    if (want == *cap) return;
    char *p = realloc(*buf, want);
    if (p == NULL) {
        fputs("sympool-run: out of memory for the ranks' output\n", stderr);
        exit(EXIT_ERROR); /* the guard ends the ranks */
    }
    *buf = p;
    *cap = want;
}

static void sink_add(struct sink *s, const char *data, size_t len) {
    if (s->fd < 0 || len == 0) return;
    if (s->start > 0 && s->end + len > s->cap) {
        memmove(s->buf, s->buf + s->start, s->end - s->start);
        s->end -= s->start;
        s->start = 0;
    }
    reserve(&s->buf, &s->cap, s->end, len);
    memcpy(s->buf + s->end, data, len);
    s->end += len;
}

static void source_close(struct source *src) {
    if (src->fd >= 0) close(src->fd);
    src->fd = -1;
}

/* Nobody reads any more, or the disk is full: the ranks get to know by their next write. */
static void sink_break(struct output *o, struct sink *s, int error) {
    close(s->fd);
    s->fd = -1;
    s->start = s->end = 0;
    for (int i = 0; i < o->n_sources; i++)
        if (o->sources[i].sink == s) source_close(&o->sources[i]);
    if (error == EPIPE || error == ECONNRESET) return;
    o->failed = 1;
    output_message(o, "writing to %s: %s", s->name, strerror(error));
}

static void sink_flush(struct output *o, struct sink *s) {
    while (s->fd >= 0 && s->start < s->end) {
        const char *p = s->buf + s->start;
        size_t len = s->end - s->start;
        ssize_t wrote = s->is_socket ? send(s->fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL) : write(s->fd, p, len);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (wrote < 0)
            sink_break(o, s, errno);
        else
            s->start += (size_t)wrote;
    }
    s->start = s->end = 0;
}

/*
 * A descriptor whose writes do not wait.  The flag belongs to the open file, which others share, so a pipe or a
 * terminal is opened again; where that is not allowed its writes may wait.  Files do not wait, sockets are told per
 * call.
 */
static void sink_open(struct sink *s, int fd, const char *name) {
    struct stat st;
    char path[32];
    *s = (struct sink){.fd = -1, .name = name};
    if (fstat(fd, &st) != 0) return;
    s->is_socket = S_ISSOCK(st.st_mode);
    if (S_ISFIFO(st.st_mode) || isatty(fd)) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        s->fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    }
    if (s->fd < 0) s->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

void output_open(struct output *o, int n_ranks) {
    struct stat a, b;
    *o = (struct output){.messages = &o->err};
    sink_open(&o->out, 1, "stdout");
    sink_open(&o->err, 2, "stderr");
    /* One file for both (2>&1): one sink, or lines of the two would be cut by each other. */
    if (fstat(1, &a) == 0 && fstat(2, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino) o->messages = &o->out;
    o->sources = calloc(2 * (size_t)n_ranks, sizeof o->sources[0]);
}

int output_add(struct output *o, int rank, int fd, int to_stderr) {
    struct sink *s = to_stderr ? o->messages : &o->out;
    if (o->sources == NULL || fcntl(fd, F_SETFL, O_NONBLOCK) != 0) return -1;
    o->sources[o->n_sources++] = (struct source){.fd = fd, .rank = rank, .sink = s};
    return 0;
}

static void begin_line(struct source *src) {
    char tag[24];
    int len = snprintf(tag, sizeof tag, "[%d] ", src->rank);
    sink_add(src->sink, tag, (size_t)len);
}

/* The unfinished line, with a line end of ours. */
static void cut_line(struct source *src) {
    if (src->len == 0) return;
    begin_line(src);
    sink_add(src->sink, src->line, src->len);
    sink_add(src->sink, "\n", 1);
    src->len = 0;
}

static void feed(struct source *src, const char *data, size_t len) {
    while (len > 0) {
        const char *nl = memchr(data, '\n', len);
        size_t piece = nl != NULL ? (size_t)(nl - data) + 1 : len;
        if (nl != NULL) {
            begin_line(src);
            sink_add(src->sink, src->line, src->len);
            sink_add(src->sink, data, piece);
            src->len = 0;
        } else {
            reserve(&src->line, &src->cap, src->len, piece);
            memcpy(src->line + src->len, data, piece);
            src->len += piece;
            if (src->len >= LINE_LONGEST) cut_line(src);
        }
        data += piece;
        len -= piece;
    }
}

/* One read.  1: there may be more, 0: nothing now, or the end. */
static int source_read(struct source *src) {
    char buf[READ_SIZE];
    ssize_t got = read(src->fd, buf, sizeof buf);
    if (got > 0) {
        feed(src, buf, (size_t)got);
        return 1;
    }
    if (got < 0 && errno == EINTR) return 1;
    if (got < 0 && errno == EAGAIN) return 0;
    cut_line(src);
    source_close(src);
    return 0;
}

int output_poll_set(const struct output *o, struct pollfd *fds) {
    int n = 0;
    const struct sink *sinks[2] = {&o->out, &o->err};
    for (int i = 0; i < 2; i++)
        fds[n++] = (struct pollfd){.fd = sinks[i]->start < sinks[i]->end ? sinks[i]->fd : -1, .events = POLLOUT};
    for (int i = 0; i < o->n_sources; i++) {
        const struct source *src = &o->sources[i];
        int full = src->sink->end - src->sink->start >= SINK_FULL;
        fds[n++] = (struct pollfd){.fd = full ? -1 : src->fd, .events = POLLIN};
    }
    return n;
}

void output_service(struct output *o, const struct pollfd *fds) {
    for (int i = 0; i < o->n_sources; i++) {
        struct source *src = &o->sources[i];
        if (fds[2 + i].fd < 0 || fds[2 + i].revents == 0 || src->fd < 0) continue;
        if (src->sink->end - src->sink->start >= SINK_FULL) output_flush(o);
        if (src->fd >= 0 && src->sink->end - src->sink->start < SINK_FULL) source_read(src);
    }
    output_flush(o);
}

void output_drain(struct output *o) {
    for (int i = 0; i < o->n_sources; i++) {
        struct source *src = &o->sources[i];
        /* Everything that wrote has ended; a pipe that somebody holds all the same (a daemon) is read as far as it is
         * filled. */
        for (size_t rounds = 0; src->fd >= 0 && rounds < 1024 && source_read(src); rounds++)
            output_flush(o);
        cut_line(src);
        source_close(src);
        free(src->line);
        src->line = NULL;
        src->cap = 0;
    }
    output_flush(o);
}

int output_pending(const struct output *o) {
    return o->out.start < o->out.end || o->err.start < o->err.end;
}

void output_flush(struct output *o) {
    sink_flush(o, &o->out);
    sink_flush(o, &o->err);
}

void output_message(struct output *o, const char *fmt, ...) {
    char text[1024] = "sympool-run: ";
    size_t len = strlen(text);
    va_list ap;
    va_start(ap, fmt);
    int wrote = vsnprintf(text + len, sizeof text - len - 1, fmt, ap);
    va_end(ap);
    if (wrote > 0) len += (size_t)wrote < sizeof text - len - 1 ? (size_t)wrote : sizeof text - len - 2;
    text[len++] = '\n';
    sink_add(o->messages, text, len);
    sink_flush(o, o->messages);
}

void output_close(struct output *o) {
    free(o->sources);
    free(o->out.buf);
    free(o->err.buf);
    if (o->out.fd >= 0) close(o->out.fd);
    if (o->err.fd >= 0) close(o->err.fd);
}
