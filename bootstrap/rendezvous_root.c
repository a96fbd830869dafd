/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rank 0's side of the join: one non-blocking loop over the listener and all connections.
 *
 *   LISTEN -> COLLECT -> VERDICT -> STAR (all agreed) or LINGER (they did not; latecomers are told, too)
 *
 * Invariants: nothing a connection does or leaves undone delays another; a connection holds at most MEMBER_IN bytes and
 * says hello within 2 s; at most 4 x world connections wait to say hello, then the oldest is dropped.  Must not know:
 * what the memory is used for.
 */
#include "bootstrap/star.h"

#include "pool/base/conf.h"
#include "pool/base/log.h"
#include "pool/base/status.h"
#include "pool/base/arena.h"
#include "pool/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

/* A burst of strangers must not overflow it: the kernel would make a rank behind them wait a second. */
#define BACKLOG 4096

#define IN_USE_NS NS_PER_S /* how long an address that is in use is tried again */

struct root {
    const struct launch *who;
    struct hello self;
    struct star *s;
    int listener;
    int adopted; /* the listener is the caller's */
    char where[URL_TEXT];
    uint64_t started;
    uint64_t swept;        /* when the backlog of an adopted listener had been taken in */
    uint64_t deadline;     /* of the least patient rank that has said hello */
    uint64_t settle;       /* when a disagreement becomes the verdict; 0 = none */
    uint8_t in[MAX_WORLD]; /* ranks that have said hello */
    int n_in, n_silent;
    uint64_t instance;     /* nonce of the job whose members come back; 0 = all are new so far */
    unsigned dropped;      /* connections that were not ranks of this job */
    char turned_away[200]; /* the last one that meant to join and may not, for the message about missing ones */
    struct notice verdict; /* code 0 = not decided or joined */
    int decided;
    uint8_t payload[NOTICE_MAX]; /* the rejection, for those who are told late */
    size_t payload_len;
};

static struct log_limit dropped_lines = LOG_LIMIT(3);

/* ------------------------------------------------------------------------------------------------ listen */

static int listen_failed(struct root *r, int rc, const char *what) {
    if (rc == -EADDRINUSE)
        return err_sys(
            SYP_EJOIN, rc,
            "rank 0 listens on %s: port in use by another process; stop it, or choose another port in SYMPOOL_ADDR",
            r->where);
    if (rc == -EADDRNOTAVAIL)
        return err_sys(SYP_EJOIN, rc,
                       "rank 0 listens on %s: not an address of this host; set SYMPOOL_ADDR to one that is", r->where);
    return err_sys(SYP_EJOIN, rc, "rank 0 listens on %s: %s refused; check SYMPOOL_ADDR", r->where, what);
}

static int open_listener(struct root *r, const struct url_addr *a) {
    int family = a->addr.ss_family;
    url_text((const struct sockaddr *)&a->addr, a->len, r->where, sizeof r->where);
    int fd = os->socket(family, SOCK_STREAM);
    if (fd < 0) return listen_failed(r, fd, "socket");
    int rc = 0;
    const char *what = "bind";
    if (family != AF_UNIX) rc = os->socket_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (!rc && family == AF_INET6) rc = os->socket_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (!rc) rc = os->bind(fd, (const struct sockaddr *)&a->addr, a->len);
    if (!rc) {
        what = "listen";
        rc = os->listen(fd, BACKLOG);
    }
    if (rc) {
        os->close(fd);
        listen_failed(r, rc, what);
        return rc;
    }
    r->listener = fd;
    return 0;
}

/* An inherited listening socket.  It stays the caller's: see rendezvous.h. */
static int adopt_listener(struct root *r) {
    struct sockaddr_storage a;
    socklen_t len = sizeof a;
    int fd = r->who->listen_fd;
    int rc = os->socket_name(fd, 0, (struct sockaddr *)&a, &len);
    if (!rc) rc = os->set_cloexec(fd);
    if (!rc) rc = os->set_nonblock(fd);
    if (rc) return err_sys(SYP_EINVAL, rc, "descriptor %d of SYMPOOL_LISTEN_FD: not a socket", fd);
    /* Its connections inherit this: or they would keep a replacement of this rank from the address for a minute. */
    if (a.ss_family != AF_UNIX) (void)os->socket_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    url_text((const struct sockaddr *)&a, len, r->where, sizeof r->where);
    r->listener = fd;
    r->adopted = 1;
    return SYP_OK;
}

static void warn_if_any(const struct url_addr *a, const char *where) {
    static const struct in6_addr any6 = IN6ADDR_ANY_INIT;
    const struct sockaddr_in *a4 = (const struct sockaddr_in *)&a->addr;
    const struct sockaddr_in6 *a6 = (const struct sockaddr_in6 *)&a->addr;
    if ((a->addr.ss_family == AF_INET && a4->sin_addr.s_addr == INADDR_ANY) ||
        (a->addr.ss_family == AF_INET6 && memcmp(&a6->sin6_addr, &any6, sizeof any6) == 0))
        log_warn("rank 0 listens on %s, that is, on every interface of this host, as SYMPOOL_ADDR asks; give one "
                 "address to narrow it",
                 where);
}

/* Where others can read the port that was chosen: complete at once or not there. */
static int publish(const char *path, const char *where) {
    char tmp[4096], line[URL_TEXT + 16];
    if (strlen(path) > sizeof tmp - 32) return err_set(SYP_EINVAL, "SYMPOOL_ADDR_FILE: the path is too long");
    text_format(tmp, sizeof tmp, "%s.%d.tmp", path, os->pid());
    size_t len = text_format(line, sizeof line, "tcp://%s\n", where);
    int fd = os->open_create(tmp, 0600);
    if (fd < 0) return err_sys(SYP_ESYS, fd, "SYMPOOL_ADDR_FILE: create %s", tmp);
    int64_t n = os->write(fd, line, len);
    os->close(fd);
    if (n != (int64_t)len) return err_sys(SYP_ESYS, n < 0 ? (int)n : -ENOSPC, "SYMPOOL_ADDR_FILE: write %s", tmp);
    int rc = os->rename(tmp, path);
    return rc ? err_sys(SYP_ESYS, rc, "SYMPOOL_ADDR_FILE: rename %s to %s", tmp, path) : SYP_OK;
}

/* The first of the addresses that is one of this host's. */
static int open_any(struct root *r, const struct url_addr *a, int n) {
    int rc = -EADDRNOTAVAIL;
    for (int i = 0; i < n && rc == -EADDRNOTAVAIL; i++) {
        rc = open_listener(r, &a[i]);
        if (rc == 0) warn_if_any(&a[i], r->where);
    }
    return rc;
}

static int start_listening(struct root *r) {
    if (r->who->listen_fd >= 0) return adopt_listener(r);
    struct url_addr a[URL_ADDRS];
    int n = 1;
    if (r->who->has_addr)
        n = url_resolve_by(&r->who->addr, a, URL_ADDRS, r->deadline);
    else if (meeting_place(r->who, &a[0]))
        return SYP_EINVAL;
    if (n < 0) return n;
    int rc = open_any(r, a, n);
    /* the process that this one replaces may still be on its way out */
    for (uint64_t end = r->started + IN_USE_NS; rc == -EADDRINUSE && os->now() < end && os->now() < r->deadline; rc = open_any(r, a, n))
        os->sleep(10 * NS_PER_MS);
    if (rc) return SYP_EJOIN;
    if (!r->who->has_addr || r->who->addr.port != 0) return SYP_OK;
    struct sockaddr_storage bound;
    socklen_t len = sizeof bound;
    rc = os->socket_name(r->listener, 0, (struct sockaddr *)&bound, &len);
    if (rc) return err_sys(SYP_ESYS, rc, "rank 0 asks for the port that was chosen");
    url_text((const struct sockaddr *)&bound, len, r->where, sizeof r->where);
    log_info("rank 0 listens on tcp://%s", r->where);
    const char *path = conf_str(CONF_ADDR_FILE);
    return path && *path ? publish(path, r->where) : SYP_OK;
}

/* --------------------------------------------------------------------------------------------- connections */

static void drop(struct root *r, struct member *m, const char *why) {
    r->dropped++;
    stats_add(STAT_JOIN_DROPPED, 1);
    r->n_silent--;
    log_warn_limited(&dropped_lines, "join at %s: dropped a connection from %s: %s", r->where, m->addr, why);
    member_close(m, MEMBER_FREE);
}

static void drop_oldest(struct root *r) {
    struct member *oldest = NULL;
    for (int i = 0; i < r->s->used; i++) {
        struct member *m = &r->s->member[i];
        if (m->state != MEMBER_SILENT) continue;
        /* one that has greeted is more likely a rank */
        if (!oldest || m->greeted < oldest->greeted || (m->greeted == oldest->greeted && m->since < oldest->since))
            oldest = m;
    }
    if (oldest) drop(r, oldest, "silent, and too many others are");
}

static struct member *free_place(struct star *s) {
    for (int i = 0; i < s->used; i++)
        if (s->member[i].state == MEMBER_FREE) return &s->member[i];
    return s->used < s->cap ? &s->member[s->used++] : NULL;
}

/* A rank of another job came to this address: it is told so, and this job goes on. */
static void turn_away(struct root *r, struct member *m, const struct hello *h, const char *which) {
    struct notice n = {0};
    uint8_t payload[NOTICE_MAX];
    char whose[120];
    text_format(whose, sizeof whose, "%sjob \"%s\"", which, h->job);
    notice_set(&n, SYP_EJOIN, h->rank, h->self.pid,
               "join: rank 0 at %s belongs to job \"%s\", rank %d (pid %d) to %s; give every job its "
               "own SYMPOOL_ADDR",
               r->where, r->who->job, h->rank, h->self.pid, whose);
    member_tell(r->s, m, WIRE_REJECT, payload, notice_put(payload, &n));
    text_format(r->turned_away, sizeof r->turned_away, "rank %d (pid %d) of %s was turned away", h->rank, h->self.pid,
                whose);
    drop(r, m, "rank of another job");
}

/* A process that stays, but with another version's frames: it can never join. */
static int other_version(const struct member *m, unsigned *version) {
    struct wire w = {.buf = (uint8_t *)(uintptr_t)m->in, .cap = m->have};
    int ours = wire_get_u64(&w) == WIRE_MAGIC;
    *version = wire_get_u16(&w);
    return !w.bad && ours && *version != WIRE_VERSION;
}

static void decide(struct root *r) {
    r->decided = 1;
    r->payload_len = notice_put(r->payload, &r->verdict);
}

/* The backlog of an adopted listener may hold the farewell of an earlier join: a process that still lives and has
 * closed its connection. */
static int of_earlier_join(const struct root *r, const struct member *m) {
    const struct roster_entry *e = &m->hello.self;
    uint64_t ticks;
    return r->adopted && m->since <= r->swept && memcmp(e->host_id, r->self.self.host_id, sizeof e->host_id) == 0 &&
           os->process_alive(e->pid) == 1 && os->start_time(e->pid, &ticks) == 0 && ticks == e->start_ticks;
}

/* A rank that said hello cannot be reached any more. */
static void died(struct root *r, struct member *m) {
    if (!r->decided && of_earlier_join(r, m) && m->hello.rank < r->s->n) {
        r->in[m->hello.rank] = 0;
        r->n_in--;
        member_close(m, MEMBER_FREE);
        return;
    }
    member_close(m, MEMBER_GONE);
    if (r->decided) return;
    notice_set(&r->verdict, SYP_EPEER, m->hello.rank, m->hello.self.pid,
               "join: rank %d (pid %d) died or gave up during the join; see its own log", m->hello.rank,
               m->hello.self.pid);
    decide(r);
}

static void said_hello(struct root *r, struct member *m, uint32_t len) {
    struct wire w = {.buf = m->in + WIRE_HEAD, .cap = len};
    struct hello h;
    if (wire_get_hello(&w, &h)) {
        drop(r, m, err_record()->text);
        return;
    }
    if (h.job[0] && r->self.job[0] && strcmp(h.job, r->self.job) != 0) {
        turn_away(r, m, &h, "");
        return;
    }
    if (h.member_of && r->instance && h.member_of != r->instance) {
        turn_away(r, m, &h, "another instance of ");
        return;
    }
    if (h.member_of) r->instance = h.member_of;
    m->state = MEMBER_SAID;
    m->hello = h;
    r->n_silent--;
    uint64_t now = os->now();
    if (h.patience_ns < deadline_left(now, r->deadline)) r->deadline = now + h.patience_ns;
    int fatal = disagrees(&r->self, &h) || r->in[h.rank];
    if (h.rank < r->s->n && !r->in[h.rank]) r->n_in++;
    r->in[h.rank] = 1;
    if (fatal && !r->settle) r->settle = now + SETTLE_NS;
}

/* To a connection that has no keys, so without a seal: a rank with a secret takes it as "not proven". */
static void tell_stranger(const struct member *m, const struct notice *n) {
    uint8_t frame[WIRE_HEAD + NOTICE_MAX];
    size_t len = notice_put(frame + WIRE_HEAD, n);
    head_put(frame, WIRE_REJECT, len, 0, 0);
    link_send_some(m->fd, frame, WIRE_HEAD + len);
}

/* It speaks like a rank, but may not join.  With a secret that decides nothing, or anybody could end the join; without,
 * it does. */
static void refuse(struct root *r, struct member *m, const struct notice *n, const char *why) {
    if (!r->decided && !r->s->auth) {
        r->verdict = *n;
        decide(r);
    }
    tell_stranger(m, r->decided ? &r->verdict : n);
    text_format(r->turned_away, sizeof r->turned_away, "a process at %s was refused: %s", m->addr, why);
    drop(r, m, why);
}

static void refuse_version(struct root *r, struct member *m, unsigned version) {
    struct notice n;
    notice_set(&n, SYP_EJOIN, -1, 0,
               "join: the process at %s speaks wire version %u, rank 0 speaks %u; install one version for all ranks",
               m->addr, version, WIRE_VERSION);
    refuse(r, m, &n, "another wire version");
}

static void refuse_secret(struct root *r, struct member *m, const char *why) {
    struct notice n;
    notice_set(
        &n, SYP_EJOIN, -1, 0,
        "join: rank 0 at %s refused the process at %s: %s; give all ranks of the job the same SYMPOOL_SECRET_FILE, "
        "or none",
        r->where, m->addr, why);
    refuse(r, m, &n, why);
}

/* The other end's nonce: answer with an own one. */
static void greet(struct root *r, struct member *m, uint32_t len) {
    struct wire in = {.buf = m->in + WIRE_HEAD, .cap = len};
    uint8_t theirs[WIRE_NONCE], frame[WIRE_HEAD + WIRE_NONCE];
    int session = (int)(m - r->s->member);
    head_put(frame, WIRE_GREET, WIRE_NONCE, 0, 0);
    if (wire_get_greet(&in, theirs)) {
        drop(r, m, err_record()->text);
        return;
    }
    if (!r->s->auth) {
        refuse_secret(r, m, "it has a secret, rank 0 has none");
        return;
    }
    int rc = auth_nonce(r->s->auth, session, frame + WIRE_HEAD);
    if (rc || link_send_some(m->fd, frame, sizeof frame) != sizeof frame) {
        drop(r, m, rc ? "no random number for it" : "it does not take a greeting");
        return;
    }
    auth_begin(r->s->auth, session, AUTH_ROOT, theirs);
    m->greeted = 1;
}

/* A complete, well-formed frame of a connection that has not said hello. */
static void take_first(struct root *r, struct member *m, const struct wire_head *h) {
    int secret = r->s->auth != NULL;
    if (h->type == WIRE_HELLO && m->greeted == secret)
        said_hello(r, m, h->length);
    else if (h->type == WIRE_HELLO)
        refuse_secret(r, m, "it has no secret, rank 0 has one");
    else if (h->type == WIRE_GREET && !m->greeted)
        greet(r, m, h->length);
    else
        drop(r, m, "first frame is not a hello");
}

static void hear_silent(struct root *r, struct member *m) {
    struct wire_head h;
    unsigned version;
    int rc = member_read(r->s, m, WIRE_HELLO_MAX, &h);
    if (rc == 0) return;
    if (rc == 1)
        take_first(r, m, &h);
    else if (rc == -EBADMSG)
        refuse_secret(r, m, "it has another secret, or its hello was altered on its way");
    else if (rc == -EPROTO && other_version(m, &version))
        refuse_version(r, m, version);
    else
        drop(r, m, rc == -EPROTO ? err_record()->text : "closed before its hello was complete");
}

static void welcome(struct root *r, int fd, const struct sockaddr *a, socklen_t len) {
    int pid, uid;
    if (a->sa_family == AF_UNIX && (os->socket_cred(fd, &pid, &uid) || uid != os->uid())) {
        r->dropped++;
        os->close(fd);
        return;
    }
    if (a->sa_family != AF_UNIX) {
        os->socket_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        os->socket_option(fd, SOL_SOCKET, SO_REUSEADDR, 1); /* one that was made before the listener had it; see adopt_listener */
    }
    if (r->n_silent >= 4 * r->s->n) drop_oldest(r);
    struct member *m = free_place(r->s);
    if (!m) { /* every place is a rank that said hello: more of them than the world and its doubles need */
        r->dropped++;
        os->close(fd);
        return;
    }
    m->state = MEMBER_SILENT;
    m->fd = fd;
    m->have = 0;
    m->greeted = 0;
    m->told = 0;
    m->sealed = 0;
    m->sent = 0;
    m->since = os->now();
    url_text(a, len, m->addr, sizeof m->addr);
    r->n_silent++;
    hear_silent(r, m); /* its hello is mostly there already, and must not be dropped as silent */
}

/* Everything that waits in the backlog.  SYP_OK, or the listener is not one. */
static int accept_all(struct root *r) {
    for (;;) {
        struct sockaddr_storage a = {0};
        socklen_t len = sizeof a;
        int fd = os->accept(r->listener, (struct sockaddr *)&a, &len);
        if (fd >= 0) {
            welcome(r, fd, (struct sockaddr *)&a, len);
            continue;
        }
        if (fd == -EAGAIN) return SYP_OK;
        if (fd == -EINVAL || fd == -EOPNOTSUPP || fd == -ENOTSOCK || fd == -EBADF)
            return err_sys(SYP_EINVAL, fd, "rank 0 accepts at %s: not a listening socket; check SYMPOOL_LISTEN_FD",
                           r->where);
        if (fd == -EMFILE || fd == -ENFILE || fd == -ENOBUFS || fd == -ENOMEM) {
            if (!r->n_silent)
                return err_sys(SYP_EJOIN, fd, "rank 0 accepts at %s; raise the limit on open files", r->where);
            drop_oldest(r);
        } /* else: that one connection has failed (ECONNABORTED and the like) */
    }
}

/* After its hello a rank is silent until the verdict: whatever comes is its end, or garbage. */
static void hear_said(struct root *r, struct member *m) {
    char byte;
    int64_t n = link_recv_some(m->fd, &byte, 1);
    if (n != -EAGAIN && n != -EINTR) died(r, m);
}

/* --------------------------------------------------------------------------------------------------- loop */

/* Sleep until something happens, at most until `until`; then look at every connection that has news. */
static int turn(struct root *r, uint64_t until) {
    struct star *s = r->s;
    int used = s->used;
    uint64_t now = os->now();
    s->polls[used] = (struct pollfd){.fd = r->listener, .events = POLLIN};
    for (int i = 0; i < used; i++) {
        s->polls[i] = (struct pollfd){.fd = s->member[i].fd, .events = POLLIN};
        if (s->member[i].state == MEMBER_SILENT && s->member[i].since + HANDSHAKE_NS < until)
            until = s->member[i].since + HANDSHAKE_NS;
    }
    int n = os->poll(s->polls, (unsigned)used + 1, deadline_left(now, until));
    if (n < 0 && n != -EINTR) return err_sys(SYP_ESYS, n, "rank 0 polls at %s", r->where);
    int knock = n > 0 && s->polls[used].revents;
    for (int i = 0; i < used && n > 0; i++) {
        if (!s->polls[i].revents) continue;
        if (s->member[i].state == MEMBER_SILENT)
            hear_silent(r, &s->member[i]);
        else if (s->member[i].state == MEMBER_SAID)
            hear_said(r, &s->member[i]);
    }
    now = os->now();
    for (int i = 0; i < used; i++)
        if (s->member[i].state == MEMBER_SILENT && now >= s->member[i].since + HANDSHAKE_NS)
            drop(r, &s->member[i], "no hello within 2 s");
    return knock ? accept_all(r) : SYP_OK;
}

static void missing(struct root *r) {
    struct text t = TEXT_INIT(r->verdict.text);
    uint8_t out[MAX_WORLD] = {0};
    r->verdict.peer = -1;
    for (int i = r->s->n - 1; i > 0; i--)
        if (!r->in[i]) out[r->verdict.peer = i] = 1;
    r->verdict.code = SYP_EJOIN;
    text_addf(&t, "join at %s: %d of %d ranks joined in ", r->where, r->n_in, r->s->n);
    add_seconds(&t, os->now() - r->started);
    text_addf(&t, "; missing: ");
    text_add_ranks(&t, out, r->s->n);
    if (r->turned_away[0]) text_addf(&t, "; %s", r->turned_away);
    if (r->dropped) text_addf(&t, "; %u connections were dropped that were no ranks of this job", r->dropped);
    text_addf(&t, "; start them with the same address and job, or raise SYMPOOL_JOIN_TIMEOUT");
    decide(r);
}

static void disagreed(struct root *r) {
    struct text t = TEXT_INIT(r->verdict.text);
    text_addf(&t, "join at %s: ", r->where);
    disagreements(&t, r->s, &r->self, &r->verdict.peer, &r->verdict.pid);
    r->verdict.code = SYP_EJOIN;
    decide(r);
}

/* Until everybody is there or they cannot agree.  SYP_OK: see r->verdict. */
static int collect(struct root *r) {
    int rc = accept_all(r);
    r->swept = os->now();
    while (!rc && !r->decided) {
        int all_in = r->n_in == r->s->n;
        uint64_t now = os->now();
        if (r->settle && (all_in || now >= r->settle || now >= r->deadline))
            disagreed(r);
        else if (all_in)
            break;
        else if (now >= r->deadline)
            missing(r);
        else
            rc = turn(r, r->settle && r->settle < r->deadline ? r->settle : r->deadline);
    }
    return rc;
}

/* The rejection goes to all at once, then for a moment to those who come late. */
static int reject(struct root *r) {
    uint64_t now = os->now(), end = now + LINGER_NS;
    star_tell_start(r->s);
    for (;;) {
        star_tell(r->s, WIRE_REJECT, r->payload, r->payload_len, now + LINGER_NS / 10);
        now = os->now();
        if (r->n_in == r->s->n || now >= end) break;
        if (turn(r, end)) break;
    }
    return notice_raise(&r->verdict);
}

/* ------------------------------------------------------------------------------------------------ joined */

static int fill_roster(struct root *r, struct roster *out) {
    int n = r->s->n;
    out->n = n;
    out->n_hosts = 0;
    out->nonce = r->instance;
    out->rank = map_alloc((size_t)n * sizeof *out->rank);
    if (!out->rank) return err_set(SYP_ENOMEM, "join: no memory for a roster of %d ranks", n);
    out->rank[0] = r->self.self;
    text_copy(out->rank[0].addr, sizeof out->rank[0].addr, r->where);
    for (int i = 0; i < r->s->used; i++) {
        const struct member *m = &r->s->member[i];
        if (m->state != MEMBER_SAID) continue;
        out->rank[m->hello.rank] = m->hello.self;
        text_copy(out->rank[m->hello.rank].addr, sizeof out->rank[0].addr, m->addr);
        r->s->of_rank[m->hello.rank] = i;
    }
    out->epoch = 1 + r->self.epoch;
    for (int i = 0; i < r->s->used; i++) {
        const struct member *m = &r->s->member[i];
        if (m->state == MEMBER_SAID && m->hello.epoch >= out->epoch) out->epoch = m->hello.epoch + 1;
    }
    for (int i = 0; i < n; i++) {
        struct roster_entry *e = &out->rank[i];
        if (!e->generation) e->generation = out->epoch;
        e->host_index = -1;
        for (int k = 0; k < i && e->host_index < 0; k++)
            if (memcmp(out->rank[k].host_id, e->host_id, sizeof e->host_id) == 0)
                e->host_index = out->rank[k].host_index;
        if (e->host_index < 0) e->host_index = out->n_hosts++;
    }
    int rc = 0;
    while (rc >= 0 && out->nonce == 0)
        rc = os->random(&out->nonce, sizeof out->nonce);
    return rc < 0 ? err_sys(SYP_ESYS, rc, "join: random number for the job") : SYP_OK;
}

static int announce(struct root *r, struct roster *roster) {
    int rc = fill_roster(r, roster);
    if (rc) return rc;
    uint8_t *payload = map_alloc(WIRE_MAX);
    if (!payload) return err_set(SYP_ENOMEM, "join: no memory to send a roster of %d ranks", r->s->n);
    struct wire w = {.buf = payload, .cap = WIRE_MAX};
    wire_put_roster(&w, roster);
    star_tell_start(r->s);
    rc = star_tell(r->s, WIRE_ROSTER, payload, w.pos, r->deadline + GRACE_NS);
    map_free(payload, WIRE_MAX);
    return rc ? err_set(SYP_EJOIN,
                        "join at %s: a rank did not take the roster before the deadline; raise SYMPOOL_JOIN_TIMEOUT",
                        r->where)
              : SYP_OK;
}

/* Whoever is connected without having said hello is no rank of this job: all of those have. */
static void send_strangers_off(struct root *r) {
    for (int i = 0; i < r->s->used; i++)
        if (r->s->member[i].state == MEMBER_SILENT) drop(r, &r->s->member[i], "the job is complete");
}

/* Rank 0 itself has failed: the others need not wait for the deadline. */
static void give_up(struct root *r) {
    notice_set(&r->verdict, SYP_EJOIN, 0, os->pid(), "join at %s: rank 0 (pid %d) could not go on: %s", r->where,
               os->pid(), err_record()->text);
    decide(r);
    star_tell_start(r->s);
    star_tell(r->s, WIRE_REJECT, r->payload, r->payload_len, os->now() + LINGER_NS / 10);
}

int root_join(const struct launch *who, const struct hello *self, uint64_t deadline, struct auth *auth,
              struct roster *roster, struct star **out) {
    struct root r = {
        .who = who, .self = *self, .listener = -1, .started = os->now(), .deadline = deadline, .in = {1}, .n_in = 1,
        .instance = self->member_of};
    r.s = star_new(who->n_ranks, 0, JOIN_PLACES(who->n_ranks), auth);
    if (!r.s) return err_set(SYP_ENOMEM, "join: no memory for the connections of %d ranks", who->n_ranks);
    int rc = start_listening(&r);
    if (!rc) {
        rc = collect(&r);
        if (!rc && r.decided)
            rc = reject(&r);
        else if (rc)
            give_up(&r);
    }
    if (!rc) {
        send_strangers_off(&r);
        rc = announce(&r, roster);
    }
    if (r.listener >= 0 && !r.adopted) os->close(r.listener);
    if (rc) {
        roster_free(roster);
        star_close(r.s);
        return rc;
    }
    *out = r.s;
    return SYP_OK;
}
