/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits on memory, from /proc and the cgroup file systems.
 *
 * Invariants: a record of paths never changes once it was published, so readers need no lock and a forked child finds
 * it whole; what cannot be read limits nothing.  Nothing is logged and no lock is taken: commits run under locks.
 * Must not know: what is committed.
 */
#include "pool/base/headroom.h"

#include "pool/base/arena.h"
#include "pool/base/atomic.h"
#include "pool/base/conf.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <errno.h>
#include <string.h>

#define PATH_CAP 1024u
#define LINE_CAP 4096u
#define UNLIMITED (1ull << 62) /* version 1 has no word for it, but the largest number of whole pages */

/* The files of a level, in either version of the interface. */
struct interface {
    const char *fs, *limit, *usage, *stat_key[2];
};

enum { V1, V2, N_VERSIONS };
static const struct interface interfaces[N_VERSIONS] = {
    {"cgroup", "memory.limit_in_bytes", "memory.usage_in_bytes", {"\ntotal_inactive_file ", "\ntotal_active_file "}},
    {"cgroup2", "memory.max", "memory.current", {"\ninactive_file ", "\nactive_file "}},
};

/* Where this process is in a hierarchy: its directory as seen from here, and the part of it that is the mount point. */
struct place {
    size_t mount_len;
    char dir[PATH_CAP]; /* "" = not in such a hierarchy, or it cannot be seen */
};

struct paths {
    int off;
    uint64_t margin;
    struct place place[N_VERSIONS];
};

/* Release: headroom_find.  Acquire: headroom_check.  NULL = not looked yet. */
static _Atomic(const struct paths *) current;
static _Atomic int finder; /* pid; a child of fork may be in another cgroup.  Relaxed: a second look does no harm */

/* ---------------------------------------------------------------------------------------- lines of a file */

struct lines {
    int fd, error;
    size_t pos, len;
    char buf[LINE_CAP];
};

/* The next line without its end; NULL at the end of the file.  One longer than the buffer is passed over. */
static char *next_line(struct lines *l) {
    int too_long = 0;
    for (;;) {
        char *end = memchr(l->buf + l->pos, '\n', l->len - l->pos);
        if (end) {
            char *line = l->buf + l->pos;
            *end = 0;
            l->pos = (size_t)(end - l->buf) + 1;
            if (!too_long) return line;
            too_long = 0;
            continue;
        }
        memmove(l->buf, l->buf + l->pos, l->len - l->pos);
        l->len -= l->pos;
        l->pos = 0;
        if (l->len == sizeof l->buf) {
            too_long = 1;
            l->len = 0;
        }
        int64_t n = os->read(l->fd, l->buf + l->len, sizeof l->buf - l->len);
        if (n < 0) l->error = (int)n;
        if (n <= 0) return NULL;
        l->len += (size_t)n;
    }
}

static int each_line(const char *path, void (*see)(char *line, void *arg), void *arg) {
    struct lines l = {.fd = os->open_read(path)};
    if (l.fd < 0) return l.fd;
    for (char *line = next_line(&l); line; line = next_line(&l))
        see(line, arg);
    (void)os->close(l.fd);
    return l.error;
}

/* Cuts *rest at the next `end`; returns what was before it. */
static char *field(char **rest, char end) {
    char *start = *rest, *at = strchr(start, end);
    *rest = at ? at + 1 : start + strlen(start);
    if (at) *at = 0;
    return start;
}

/* One of a list "a,b,c". */
static int listed(const char *list, const char *name) {
    size_t len = strlen(name);
    for (const char *at = list; *at; at += strcspn(at, ","), at += *at == ',')
        if (strncmp(at, name, len) == 0 && (at[len] == ',' || at[len] == 0)) return 1;
    return 0;
}

/* ------------------------------------------------------------------------------------------ finding the paths */

struct search {
    char member[N_VERSIONS][PATH_CAP]; /* from /proc/self/cgroup; "" = none */
    size_t root_len[N_VERSIONS];       /* of the mount chosen so far */
    struct paths *found;
};

/* "4:memory:/a/b" or "0::/a/b" */
static void see_member(char *line, void *arg) {
    struct search *s = arg;
    char *number = field(&line, ':'), *controllers = field(&line, ':');
    int version = listed(controllers, "memory") ? V1 : strcmp(number, "0") == 0 && !*controllers ? V2 : N_VERSIONS;
    if (version < N_VERSIONS && strlen(line) < PATH_CAP) text_copy(s->member[version], PATH_CAP, line);
}

/* Blanks and backslashes are written as \040. */
static void unescape(char *s) {
    char *to = s;
    for (; *s; s++, to++) {
        int octal = s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' && s[3] <= '7';
        *to = octal ? (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0')) : *s;
        if (octal) s += 3;
    }
    *to = 0;
}

/* What of `member` lies below the root of a mount; NULL = it lies elsewhere.  A mount made in a cgroup namespace above
 * this one shows a root of "/..": its top is above this process, the way down is not known. */
static const char *below(const char *member, const char *root) {
    size_t len = strlen(root);
    if (strncmp(root, "/..", 3) == 0) return strncmp(member, "/..", 3) == 0 ? NULL : "";
    if (strncmp(member, "/..", 3) == 0) return NULL; /* outside the namespace of this process */
    if (strcmp(root, "/") == 0) return strcmp(member, "/") == 0 ? "" : member;
    if (strncmp(member, root, len) != 0 || (member[len] != '/' && member[len] != 0)) return NULL;
    return member + len;
}

/* "36 35 98:0 /root /mount/point rw,noatime master:1 - cgroup cgroup rw,memory".  The mount that shows most of the
 * hierarchy is taken. */
static void see_mount(char *line, void *arg) {
    struct search *s = arg;
    for (int i = 0; i < 3; i++)
        (void)field(&line, ' ');
    char *root = field(&line, ' '), *point = field(&line, ' '), *dash = strstr(line, " - ");
    if (!dash) return;
    line = dash + 3;
    char *fs = field(&line, ' ');
    (void)field(&line, ' ');
    int version = strcmp(fs, interfaces[V2].fs) == 0 ? V2 : V1;
    if (version == V1 && (strcmp(fs, interfaces[V1].fs) != 0 || !listed(line, "memory"))) return;
    unescape(root);
    unescape(point);
    const char *rest = s->member[version][0] ? below(s->member[version], root) : NULL;
    struct place *p = &s->found->place[version];
    if (!rest || strlen(point) + strlen(rest) >= PATH_CAP) return;
    if (p->dir[0] && strlen(root) >= s->root_len[version]) return;
    s->root_len[version] = strlen(root);
    p->mount_len = strlen(point);
    text_format(p->dir, sizeof p->dir, "%s%s", point, rest);
}

/* Up one level, by cutting dir; 0 at the mount point. */
static int go_up(char *dir, size_t mount_len) {
    char *slash = strrchr(dir, '/');
    if (!slash || (size_t)(slash - dir) < mount_len) return 0;
    *slash = 0;
    return 1;
}

static int look_for_paths(struct search *s) {
    int rc = each_line("/proc/self/cgroup", see_member, s);
    return rc < 0 ? rc : each_line("/proc/self/mountinfo", see_mount, s);
}

static void find(int off, uint64_t margin) {
    const struct paths *old = load_acquire(&current); /* pairs with the store below */
    struct search s;
    struct paths p;
    memset(&p, 0, sizeof p);
    memset(&s, 0, sizeof s);
    s.found = &p;
    p.off = off;
    p.margin = margin;
    store_relaxed(&finder, os->pid());
    int rc = off ? 0 : look_for_paths(&s);
    if (rc < 0 && rc != -ENOENT && old && !old->off) return; /* no descriptor left, say: what was found before holds */
    if (old && memcmp(old, &p, sizeof p) == 0) return;
    struct paths *keep = arena_alloc(sizeof p); /* readers may still use the old one: it stays */
    if (!keep) return;
    *keep = p;
    store_release(&current, keep); /* pairs with headroom_check */
}

void headroom_find(void) {
    find(conf_int(CONF_MEMORY_CHECK) == 0, conf_size(CONF_MEMORY_MARGIN));
}

/* ---------------------------------------------------------------------------------------------- reading them */

/* The number in a file: -1 = none ("max", absent, refused). */
static int read_number(const char *dir, const char *name, uint64_t *out) {
    char path[PATH_CAP + 32], digits[32];
    text_format(path, sizeof path, "%s/%s", dir, name);
    if (os_read_file(path, digits, sizeof digits) <= 0) return -1;
    digits[strcspn(digits, "\n")] = 0;
    return text_to_u64(digits, out);
}

/* The number behind a key such as "\nMemAvailable:", blanks between, 0 = not there. */
static uint64_t number_after(const char *text, const char *key) {
    const char *at = strstr(text, key);
    uint64_t n = 0;
    if (!at) return 0;
    at += strlen(key);
    at += strspn(at, " ");
    char digits[24];
    text_format(digits, sizeof digits, "%.*s", (int)strspn(at, "0123456789"), at);
    return text_to_u64(digits, &n) ? 0 : n;
}

/* File cache, which the kernel drops before it kills.  Memory of pools is on other lists. */
static uint64_t droppable(const char *dir, const struct interface *in) {
    char path[PATH_CAP + 32], text[8192];
    text_format(path, sizeof path, "%s/memory.stat", dir);
    text[0] = '\n'; /* so that every key starts a line */
    if (os_read_file(path, text + 1, sizeof text - 1) <= 0) return 0;
    return number_after(text, in->stat_key[0]) + number_after(text, in->stat_key[1]);
}

struct need {
    uint64_t request, margin, left;
};

/* 1 = the need fits below the limit; *left is the smallest so far. */
static int fits(struct need *n, uint64_t available) {
    if (available < n->margin || available - n->margin < n->request) return 0;
    uint64_t left = available - n->margin - n->request;
    if (left < n->left) n->left = left;
    return 1;
}

static int check_level(struct need *n, const char *dir, const struct interface *in) {
    uint64_t limit, usage;
    if (read_number(dir, in->limit, &limit) || limit >= UNLIMITED || read_number(dir, in->usage, &usage)) return SYP_OK;
    if (fits(n, limit > usage ? limit - usage : 0)) return SYP_OK;
    uint64_t cache = droppable(dir, in); /* last: it is the long file */
    if (cache > usage) cache = usage;
    uint64_t used = usage - cache;
    if (fits(n, limit > used ? limit - used : 0)) return SYP_OK;
    return err_set(SYP_ENOMEM,
                   "memory cgroup %s: limit %B, in use %B (%B of it droppable cache), requested %B, kept free %B; more would be "
                   "an OOM kill; raise %s, use less memory, or set SYMPOOL_MEMORY_CHECK=off",
                   dir, (unsigned long long)limit, (unsigned long long)usage, (unsigned long long)cache,
                   (unsigned long long)n->request, (unsigned long long)n->margin, in->limit);
}

static int check_cgroups(struct need *n, const struct paths *p) {
    for (int version = 0; version < N_VERSIONS; version++) {
        char dir[PATH_CAP];
        const struct place *at = &p->place[version];
        if (!at->dir[0]) continue;
        memcpy(dir, at->dir, sizeof dir);
        do {
            int rc = check_level(n, dir, &interfaces[version]);
            if (rc != SYP_OK) return rc;
        } while (go_up(dir, at->mount_len));
    }
    return SYP_OK;
}

static int check_machine(struct need *n) {
    char text[4096];
    text[0] = '\n';
    if (os_read_file("/proc/meminfo", text + 1, sizeof text - 1) <= 0) return SYP_OK;
    uint64_t total = number_after(text, "\nMemTotal:") << 10, available = number_after(text, "\nMemAvailable:") << 10;
    if (total == 0 || !strstr(text, "\nMemAvailable:") || fits(n, available)) return SYP_OK;
    return err_set(SYP_ENOMEM,
                   "this machine: memory %B, available %B, requested %B, kept free %B; more would be an OOM kill; free memory, lower "
                   "SYMPOOL_LOCAL_MEM_SIZE, or set SYMPOOL_MEMORY_CHECK=off",
                   (unsigned long long)total, (unsigned long long)available, (unsigned long long)n->request,
                   (unsigned long long)n->margin);
}

int headroom_check(uint64_t request, uint64_t *left) {
    struct need n = {.request = request, .left = UINT64_MAX};
    const struct paths *p = load_acquire(&current); /* pairs with find */
    if (left) *left = UINT64_MAX;
    if (!p || p->off) return SYP_OK;
    if (load_relaxed(&finder) != os->pid()) {
        find(p->off, p->margin);
        p = load_acquire(&current); /* pairs with find */
    }
    n.margin = p->margin;
    int rc = check_cgroups(&n, p);
    if (rc == SYP_OK) rc = check_machine(&n);
    if (left && rc == SYP_OK) *left = n.left;
    return rc;
}
