/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File descriptors between the ranks of one host.
 *
 *   leader:  listen -> accept, credentials, until all are connected -> rounds: GIVE from some, BATCH to all, take
 *   member:  connect (again and again until the leader listens) -> credentials -> GIVE -> BATCHes, each taken at once
 *   either:  failed -> GAVE_UP with the code and the rank that is at fault, so that the others blame the right one
 *
 * Rounds, so that the leader of many ranks keeps few descriptors open at a time: 64 ranks fit into a limit of 256.
 *
 * Invariants: nothing blocks but poll and sleep, both in slices under the deadline; every descriptor received is either
 * handed to take and closed, or closed; a message of a wrong size, magic, job or kind ends the exchange.  Must not
 * know: what the descriptors are.
 */
#include "bootstrap/fdpass.h"

#include "pool/base/arena.h"
#include "pool/base/limits.h"
#include "pool/base/log.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

#define FDPASS_MAGIC 0x53534150444650ull
#define BATCH_RANKS 16
#define BATCH_FDS (BATCH_RANKS * FDS_PER_RANK) /* well below the kernel's SCM_MAX_FD of 253 */
#define ROUND (BATCH_RANKS - 1)                /* ranks that give in one round; the first batch has the leader, too */
#define SLICE (4 * NS_PER_MS)                  /* how often a wait looks at processes and the deadline */
#define LAST_WORD (200 * NS_PER_MS)            /* after the deadline: for the leader to say who is at fault */
#define GRACE NS_PER_S                         /* how long a leader that failed stays to say so */

enum message_kind { GIVE = 1, BATCH = 2, GAVE_UP = 3 };

/* Between processes of one host and one build (the hello compares layouts): the struct as it is. */
struct message {
    uint64_t magic, nonce;
    int32_t kind;
    int32_t code; /* GAVE_UP: SYP_E* */
    int32_t n;    /* ranks that follow */
    int32_t rank[BATCH_RANKS];
};

/* One exchange as this rank sees it. */
struct exchange {
    const struct roster *roster;
    int me, leader, n_others;
    const int *mine;
    int (*take)(void *arg, int rank, const int fd[FDS_PER_RANK]);
    void *arg;
    uint64_t deadline;
    uint8_t done[MAX_WORLD]; /* leader: has given; member: was taken */
    int n_done;
};

static struct log_limit refusals = LOG_LIMIT(8);

/* -------------------------------------------------------------------------------------------------- helpers */

static int fd_error(int r, const char *what) {
    if (r == -EMFILE || r == -ENFILE || r == -ETOOMANYREFS)
        err_sys(SYP_ESYS, -r, "%s: too many open descriptors", what);
    else
        err_sys(SYP_ESYS, -r, "%s", what);
    return err_limits(r);
}

static const struct roster_entry *entry(const struct exchange *x, int rank) {
    return &x->roster->rank[rank];
}

static int expected(const struct exchange *x, int rank) {
    return rank >= 0 && rank < x->roster->n && rank != x->me && roster_same_host(x->roster, rank, x->me);
}

static int lost(const struct exchange *x, int rank, const char *observed) {
    int pid = entry(x, rank)->pid;
    err_set(SYP_EPEER, "exchange memory with rank %d (pid %d): %s", rank, pid, observed);
    return err_peer(rank, pid);
}

/* The process of the roster is not there any more, or its pid is another's by now. */
static int process_gone(const struct exchange *x, int rank) {
    uint64_t ticks;
    const struct roster_entry *e = entry(x, rank);
    if (os->process_alive(e->pid) == 0) return 1;
    return e->start_ticks && os->start_time(e->pid, &ticks) >= 0 && ticks != e->start_ticks;
}

/* The first rank among those still awaited whose process is gone, -1 = none. */
static int find_gone(const struct exchange *x) {
    for (int r = 0; r < x->roster->n; r++)
        if (expected(x, r) && !x->done[r] && process_gone(x, r)) return r;
    return -1;
}

static int expired(const struct exchange *x) {
    return deadline_left(os->now(), x->deadline) == 0;
}

static int too_late(const struct exchange *x, const char *waited_for) {
    uint8_t missing[MAX_WORLD] = {0};
    char ranks[256];
    struct text t = TEXT_INIT(ranks);
    int first = -1;
    for (int r = x->roster->n - 1; r >= 0; r--) {
        missing[r] = expected(x, r) && !x->done[r];
        if (missing[r]) first = r;
    }
    text_add_ranks(&t, missing, x->roster->n);
    err_set(SYP_EJOIN,
            "exchange memory with the ranks of this host: at the deadline %s rank %s; see those ranks' logs or "
            "raise SYMPOOL_JOIN_TIMEOUT",
            waited_for, ranks);
    return first < 0 ? SYP_EJOIN : err_peer(first, entry(x, first)->pid);
}

static uint64_t slice(const struct exchange *x) {
    uint64_t left = deadline_left(os->now(), x->deadline);
    return left < SLICE ? left : SLICE;
}

static void close_all(const int *fd, int n) {
    for (int i = 0; i < n; i++)
        (void)os->close(fd[i]);
}

static socklen_t exchange_address(const struct exchange *x, struct sockaddr_un *a) {
    *a = (struct sockaddr_un){.sun_family = AF_UNIX}; /* sun_path[0] = 0: abstract, gone with its owner */
    size_t n = text_format(a->sun_path + 1, sizeof a->sun_path - 1, "sympool-fd-%016llx-%u-%d",
                           (unsigned long long)x->roster->nonce, x->roster->epoch, x->leader);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
}

/* ------------------------------------------------------------------------------------------------- messages */

static struct message message_of(const struct exchange *x, enum message_kind kind) {
    return (struct message){.magic = FDPASS_MAGIC, .nonce = x->roster->nonce, .kind = (int32_t)kind};
}

/* 0 or -errno.  A reader that is behind, or too many descriptors under way for this user, are waited out up to the
 * deadline. */
static int send_message(const struct exchange *x, int fd, const struct message *m, const int *fds, int n_fds) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * BATCH_FDS)];
    struct iovec iov = {.iov_base = (void *)(uintptr_t)m, .iov_len = sizeof *m};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n_fds > 0) {
        size_t len = sizeof(int) * (size_t)n_fds;
        memset(control, 0, sizeof control);
        h.msg_control = control;
        h.msg_controllen = CMSG_SPACE(len);
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(len);
        memcpy(CMSG_DATA(c), fds, len);
    }
    for (;;) {
        int64_t n = os->send(fd, &h);
        if (n >= 0) return 0;
        if (n != -EAGAIN && n != -ETOOMANYREFS) return (int)n;
        if (expired(x)) return n == -EAGAIN ? -ETIMEDOUT : (int)n;
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        if (n == -EAGAIN)
            (void)os->poll(&p, 1, slice(x));
        else
            (void)os->sleep(NS_PER_MS);
    }
}

/* Descriptors that came with a message: how many, at most BATCH_FDS. */
static int collect_fds(struct msghdr *h, int *fds) {
    int n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        int got = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int i = 0; i < got && n < BATCH_FDS; i++, n++)
            memcpy(&fds[n], CMSG_DATA(c) + sizeof(int) * (size_t)i, sizeof(int));
    }
    return n;
}

/* 1 = a message with its descriptors (then the caller's), 0 = the other end closed, else -errno: -EAGAIN, -EPROTO (not
 * one of ours), -EMFILE (its descriptors did not fit). */
static int recv_message(const struct exchange *x, int fd, struct message *m, int *fds, int *n_fds) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * BATCH_FDS)];
    struct iovec iov = {.iov_base = m, .iov_len = sizeof *m};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    *n_fds = 0;
    int64_t n = os->recv(fd, &h);
    /* It closed without reading all we sent: the kernel says so once, before what it had sent itself. */
    if (n == -ECONNRESET) n = os->recv(fd, &h);
    if (n == -ECONNRESET) return 0;
    if (n < 0) return (int)n;
    *n_fds = collect_fds(&h, fds);
    int r = 1;
    if (n == 0 && *n_fds == 0) return 0; /* else an empty message, whose descriptors are here nevertheless */
    if (h.msg_flags & MSG_CTRUNC)
        r = -EMFILE;
    else if (n != (int64_t)sizeof *m || (h.msg_flags & MSG_TRUNC) || m->magic != FDPASS_MAGIC ||
             m->nonce != x->roster->nonce || m->n < 0 || m->n > BATCH_RANKS)
        r = -EPROTO;
    if (r < 0) {
        close_all(fds, *n_fds);
        *n_fds = 0;
    }
    return r;
}

static int bad_message(int r, const char *from, int pid) {
    if (r == -EPROTO)
        return err_set(SYP_EJOIN,
                       "exchange memory with %s (pid %d): a message of another protocol or job arrived; run one build "
                       "on all ranks",
                       from, pid);
    return fd_error(r, "receive descriptors of a rank of this host");
}

/* 1 = the process at the other end is this user's and the roster's (any rank of this host, or `rank` only when >= 0).
 */
static int credentials_fit(const struct exchange *x, int fd, int rank, int *pid) {
    int uid = -1;
    *pid = -1;
    int r = os->socket_cred(fd, pid, &uid);
    if (r < 0 || uid != os->uid()) return 0;
    for (int i = 0; i < x->roster->n; i++)
        if (expected(x, i) && (rank < 0 || rank == i) && entry(x, i)->pid == *pid) return 1;
    return 0;
}

/* --------------------------------------------------------------------------------------------------- leader */

struct conn {
    int fd, pid;
    int rank; /* -1 until it has given */
    int open; /* got[] is */
    int got[FDS_PER_RANK];
};

struct leader {
    struct exchange *x;
    int listen_fd;
    int n;               /* connections */
    int from, to;        /* those that are heard in this round; none while not all are connected */
    struct conn *conn;   /* room for n_others */
    struct pollfd *poll; /* room for 1 + n_others */
};

static int leader_listen(struct leader *l) {
    struct sockaddr_un a;
    socklen_t len = exchange_address(l->x, &a);
    int fd = os->socket(AF_UNIX, SOCK_SEQPACKET);
    if (fd < 0) return fd_error(fd, "open the socket that passes descriptors");
    l->listen_fd = fd;
    int r = os->bind(fd, (const struct sockaddr *)&a, len);
    if (r == -EADDRINUSE)
        return err_set(
            SYP_EJOIN,
            "pass descriptors over the abstract socket %s: another process holds the name; look it up with ss -xp",
            a.sun_path + 1);
    if (r >= 0) r = os->listen(fd, l->x->n_others);
    return r < 0 ? fd_error(r, "listen on the socket that passes descriptors") : SYP_OK;
}

/* Everybody who knocks: ranks of this host stay, others are turned away. */
static int leader_accept(struct leader *l) {
    for (;;) {
        int pid, fd = os->accept(l->listen_fd, NULL, NULL);
        if (fd == -EAGAIN) return SYP_OK;
        if (fd == -ECONNABORTED) continue;
        if (fd < 0) return fd_error(fd, "accept a rank of this host");
        if (!credentials_fit(l->x, fd, -1, &pid) || l->n == l->x->n_others) {
            log_warn_limited(
                &refusals,
                "pass descriptors: refused a connection of process %d, which is not an awaited rank of this job", pid);
            (void)os->close(fd);
            continue;
        }
        l->conn[l->n++] = (struct conn){.fd = fd, .pid = pid, .rank = -1};
    }
}

/* The rank a connection belongs to, as far as can be told. */
static int conn_rank(const struct leader *l, const struct conn *c) {
    if (c->rank >= 0) return c->rank;
    for (int r = 0; r < l->x->roster->n; r++)
        if (expected(l->x, r) && !l->x->done[r] && entry(l->x, r)->pid == c->pid) return r;
    return -1;
}

static int member_gave_up(const struct exchange *x, const struct conn *c, int code) {
    if (code == SYP_EJOIN) { /* it ran into its deadline: the ranks still missing are the cause */
        too_late(x, "nothing had come from");
        return err_prefix("process %d gave up", c->pid);
    }
    return err_set(SYP_EJOIN, "exchange memory with the ranks of this host: process %d gave up with %s; see its log",
                   c->pid, syp_strerror(code));
}

/* Something to read from a member: what it gives, or its end. */
static int leader_hear(struct leader *l, struct conn *c) {
    struct exchange *x = l->x;
    struct message m;
    int fds[BATCH_FDS], n_fds;
    int r = recv_message(x, c->fd, &m, fds, &n_fds);
    if (r == -EAGAIN) return SYP_OK;
    if (r == 0) {
        int rank = conn_rank(l, c);
        if (rank >= 0) return lost(x, rank, "it closed the connection before the exchange was over");
        return err_set(SYP_EJOIN, "exchange memory with process %d: it closed a connection too many", c->pid);
    }
    if (r < 0) return bad_message(r, "a rank of this host", c->pid);
    if (m.kind == GAVE_UP && n_fds == 0) return member_gave_up(x, c, m.code);
    int rank = m.kind == GIVE && m.n == 1 && n_fds == FDS_PER_RANK && c->rank < 0 ? m.rank[0] : -1;
    if (!expected(x, rank) || x->done[rank] || entry(x, rank)->pid != c->pid) {
        close_all(fds, n_fds);
        return err_set(SYP_EJOIN,
                       "exchange memory with process %d: it gave %d descriptors as rank %d, which the roster does not "
                       "await from it",
                       c->pid, n_fds, (int)m.rank[0]);
    }
    memcpy(c->got, fds, sizeof c->got);
    c->open = 1;
    c->rank = rank;
    x->done[rank] = 1;
    x->n_done++;
    return SYP_OK;
}

static int leader_poll(struct leader *l) {
    int polled = l->n; /* those accepted meanwhile come next time */
    l->poll[0] = (struct pollfd){.fd = l->listen_fd, .events = POLLIN};
    for (int i = 0; i < polled; i++) /* outside its round only the end of a connection is news */
        l->poll[1 + i] = (struct pollfd){.fd = l->conn[i].fd, .events = i >= l->from && i < l->to ? POLLIN : 0};
    int ready = os->poll(l->poll, 1 + (unsigned)polled, slice(l->x)), rc = SYP_OK;
    if (ready < 0) return ready == -EINTR ? SYP_OK : fd_error(ready, "wait for the ranks of this host");
    for (int i = 0; i < polled && rc == SYP_OK; i++)
        if (l->poll[1 + i].revents) rc = leader_hear(l, &l->conn[i]);
    if (rc == SYP_OK && l->poll[0].revents) rc = leader_accept(l);
    return rc;
}

/* At the deadline: who is connected is not missing, though nothing of it was read yet. */
static int leader_too_late(struct leader *l) {
    struct exchange *x = l->x;
    for (int i = 0; i < l->n; i++) {
        struct message m;
        int fds[BATCH_FDS], n_fds, r = l->conn[i].rank < 0 ? recv_message(x, l->conn[i].fd, &m, fds, &n_fds) : 0;
        if (r != 1) continue;
        close_all(fds, n_fds);
        if (m.kind == GIVE && expected(x, m.rank[0])) x->done[m.rank[0]] = 1;
    }
    return too_late(x, "nothing had come from");
}

/* Everybody of this round has given, or, outside of rounds, everybody is connected. */
static int complete(const struct leader *l) {
    for (int i = l->from; i < l->to; i++)
        if (l->conn[i].rank < 0) return 0;
    return l->n == l->x->n_others;
}

static int leader_collect(struct leader *l) {
    struct exchange *x = l->x;
    uint64_t look_at = os->now() + SLICE;
    while (!complete(l)) {
        int rc = leader_poll(l);
        if (rc != SYP_OK) return rc;
        if (complete(l)) break;
        if (expired(x)) return leader_too_late(l);
        if (os->now() < look_at) continue;
        int gone = find_gone(x);
        if (gone >= 0) return lost(x, gone, "its process is gone");
        look_at = os->now() + SLICE;
    }
    return SYP_OK;
}

/* This round's descriptors, in the first one the leader's too, to one member. */
static int leader_serve(struct leader *l, const struct conn *to) {
    struct exchange *x = l->x;
    struct message m = message_of(x, BATCH);
    int fds[BATCH_FDS];
    for (int i = l->from == 0 ? -1 : l->from; i < l->to; i++) { /* -1: the leader's own */
        const struct conn *from = i < 0 ? NULL : &l->conn[i];
        if (from == to) continue;
        m.rank[m.n] = from ? from->rank : x->me;
        memcpy(fds + m.n * FDS_PER_RANK, from ? from->got : x->mine, sizeof(int) * FDS_PER_RANK);
        m.n++;
    }
    if (m.n == 0) return SYP_OK;
    int r = send_message(x, to->fd, &m, fds, m.n * FDS_PER_RANK);
    if (r == -EPIPE || r == -ECONNRESET)
        return lost(x, conn_rank(l, to), "it closed the connection before the exchange was over");
    if (r == -ETIMEDOUT)
        return err_set(SYP_EJOIN, "pass descriptors to process %d: it read nothing until the deadline", to->pid);
    return r < 0 ? fd_error(r, "pass descriptors to the ranks of this host") : SYP_OK;
}

static void leader_close_round(struct leader *l) {
    for (int i = 0; i < l->n; i++) {
        if (l->conn[i].open) close_all(l->conn[i].got, FDS_PER_RANK);
        l->conn[i].open = 0;
    }
}

static int leader_round(struct leader *l) {
    struct exchange *x = l->x;
    int rc = leader_collect(l);
    for (int i = 0; i < l->n && rc == SYP_OK; i++)
        rc = leader_serve(l, &l->conn[i]);
    for (int i = l->from; i < l->to && rc == SYP_OK; i++)
        rc = x->take(x->arg, l->conn[i].rank, l->conn[i].got);
    if (rc == SYP_OK) leader_close_round(l);
    return rc;
}

/* Every other rank has connected or is gone. */
static int all_accounted_for(const struct leader *l) {
    for (int r = 0; r < l->x->roster->n; r++) {
        int here = !expected(l->x, r);
        for (int i = 0; i < l->n && !here; i++)
            here = l->conn[i].pid == entry(l->x, r)->pid;
        if (!here && !process_gone(l->x, r)) return 0;
    }
    return 1;
}

/* Tell the members whose fault it was, also those that are about to connect: they would knock until the deadline.  The
 * record stays. */
static void leader_give_up(struct leader *l) {
    struct syp_error why = *err_record();
    struct message m = message_of(l->x, GAVE_UP);
    m.code = why.code;
    m.n = why.peer >= 0;
    m.rank[0] = why.peer;
    uint64_t left = deadline_left(os->now(), l->x->deadline), end = os->now() + (left < GRACE ? left : GRACE);
    l->x->deadline = 0; /* whoever does not read is not waited for */
    for (int told = 0; l->listen_fd >= 0;) {
        (void)leader_accept(l);
        for (; told < l->n; told++)
            (void)send_message(l->x, l->conn[told].fd, &m, NULL, 0);
        if (all_accounted_for(l) || os->now() >= end) break;
        (void)os->sleep(GRACE / 100);
    }
    *err_record() = why;
}

static int leader_run(struct exchange *x) {
    struct leader l = {.x = x, .listen_fd = -1};
    size_t conn_len = sizeof *l.conn * (size_t)x->n_others, poll_len = sizeof *l.poll * (size_t)(1 + x->n_others);
    l.conn = map_alloc(conn_len);
    l.poll = map_alloc(poll_len);
    int rc = l.conn && l.poll
                 ? leader_listen(&l)
                 : err_set(SYP_ENOMEM, "pass descriptors among %d ranks: no memory for the table", x->n_others + 1);
    if (rc == SYP_OK) rc = leader_collect(&l);
    while (rc == SYP_OK && l.to < l.n) {
        l.from = l.to;
        l.to = l.from + ROUND < l.n ? l.from + ROUND : l.n;
        rc = leader_round(&l);
    }
    if (rc != SYP_OK) leader_give_up(&l);
    leader_close_round(&l);
    for (int i = 0; i < l.n; i++)
        (void)os->close(l.conn[i].fd);
    if (l.listen_fd >= 0) (void)os->close(l.listen_fd);
    if (l.conn) map_free(l.conn, conn_len);
    if (l.poll) map_free(l.poll, poll_len);
    return rc;
}

/* --------------------------------------------------------------------------------------------------- member */

/* One attempt.  *fd: the connection, -1 = the leader does not listen yet. */
static int member_try(struct exchange *x, int *fd) {
    struct sockaddr_un a;
    socklen_t len = exchange_address(x, &a);
    int pid, s = os->socket(AF_UNIX, SOCK_SEQPACKET);
    *fd = -1;
    if (s < 0) return fd_error(s, "open the socket that passes descriptors");
    int r = os->connect(s, (const struct sockaddr *)&a, len);
    if (r >= 0 && credentials_fit(x, s, x->leader, &pid)) {
        *fd = s;
        return SYP_OK;
    }
    (void)os->close(s);
    if (r >= 0)
        log_warn_limited(&refusals,
                         "pass descriptors: process %d listens on the socket of rank %d (pid %d); not trusted", pid,
                         x->leader, entry(x, x->leader)->pid);
    else if (r != -ECONNREFUSED && r != -EAGAIN) /* not there yet; its queue is full */
        return fd_error(r, "connect to the rank that passes descriptors");
    return SYP_OK;
}

static int member_connect(struct exchange *x, int *fd) {
    uint64_t pause = NS_PER_MS;
    for (;;) {
        int rc = member_try(x, fd);
        if (rc != SYP_OK || *fd >= 0) return rc;
        if (process_gone(x, x->leader)) return lost(x, x->leader, "its process is gone");
        if (expired(x)) return too_late(x, "no connection had been possible to the lowest rank, missing was");
        (void)os->sleep(pause < slice(x) ? pause : slice(x));
        if (pause < SLICE) pause *= 2;
    }
}

/* The leader failed: pass on what it knows. */
static int member_told(const struct exchange *x, const struct message *m) {
    if (m->code == SYP_EPEER && m->n == 1 && expected(x, m->rank[0]))
        return lost(x, m->rank[0], "the lowest rank of this host found it gone");
    int because = m->n == 1 && m->rank[0] >= 0 && m->rank[0] < x->roster->n ? m->rank[0] : x->leader;
    char of[40] = "";
    if (because != x->leader) text_format(of, sizeof of, " on account of rank %d", because);
    err_set(SYP_EJOIN, "exchange memory with the ranks of this host: rank %d (pid %d) gave up%s with %s; see its log",
            x->leader, entry(x, x->leader)->pid, of, syp_strerror(m->code));
    return err_peer(because, entry(x, because)->pid);
}

static int member_take(struct exchange *x, const struct message *m, const int *fds, int n_fds) {
    if (m->kind != BATCH || n_fds != m->n * FDS_PER_RANK)
        return bad_message(-EPROTO, "the lowest rank of this host", entry(x, x->leader)->pid);
    for (int i = 0; i < m->n; i++) {
        int rank = m->rank[i];
        if (!expected(x, rank) || x->done[rank])
            return err_set(SYP_EJOIN,
                           "exchange memory with the ranks of this host: rank %d passed descriptors of rank %d, which "
                           "was not awaited",
                           x->leader, rank);
        int rc = x->take(x->arg, rank, fds + i * FDS_PER_RANK);
        if (rc != SYP_OK) return rc;
        x->done[rank] = 1;
        x->n_done++;
    }
    return SYP_OK;
}

static int member_receive(struct exchange *x, int fd) {
    while (x->n_done < x->n_others) {
        struct message m;
        int fds[BATCH_FDS], n_fds;
        int r = recv_message(x, fd, &m, fds, &n_fds), rc;
        if (r == 0) return lost(x, x->leader, "it closed the connection before the exchange was over");
        if (r < 0 && r != -EAGAIN) return bad_message(r, "the lowest rank of this host", entry(x, x->leader)->pid);
        if (r == 1) {
            rc = m.kind == GAVE_UP ? member_told(x, &m) : member_take(x, &m, fds, n_fds);
            close_all(fds, n_fds);
            if (rc != SYP_OK) return rc;
            continue;
        }
        if (os->now() >= x->deadline + LAST_WORD) return too_late(x, "nothing had come of");
        struct pollfd p = {.fd = fd, .events = POLLIN};
        r = os->poll(&p, 1, expired(x) ? SLICE : slice(x));
        if (r < 0 && r != -EINTR) return fd_error(r, "wait for the rank that passes descriptors");
    }
    return SYP_OK;
}

/* Tell the leader, so that it does not take this rank for the cause; the record stays. */
static void member_give_up(struct exchange *x, int fd) {
    struct syp_error why = *err_record();
    struct message m = message_of(x, GAVE_UP);
    m.code = why.code;
    x->deadline = 0;
    (void)send_message(x, fd, &m, NULL, 0);
    *err_record() = why;
}

static int member_run(struct exchange *x) {
    int fd;
    int rc = member_connect(x, &fd);
    if (rc != SYP_OK) return rc;
    struct message m = message_of(x, GIVE);
    m.n = 1;
    m.rank[0] = x->me;
    int r = send_message(x, fd, &m, x->mine, FDS_PER_RANK);
    /* a leader that failed has said why before it closed */
    if (r < 0 && r != -EPIPE && r != -ECONNRESET)
        rc = fd_error(r, "give descriptors to the lowest rank of this host");
    else
        rc = member_receive(x, fd);
    if (rc != SYP_OK) member_give_up(x, fd);
    (void)os->close(fd);
    return rc;
}

int fdpass_exchange(const struct roster *roster, int me, const int mine[FDS_PER_RANK],
                    int (*take)(void *arg, int rank, const int fd[FDS_PER_RANK]), void *arg, uint64_t deadline) {
    struct exchange x = {
        .roster = roster, .me = me, .leader = me, .mine = mine, .take = take, .arg = arg, .deadline = deadline};
    for (int r = 0; r < roster->n; r++) {
        if (!expected(&x, r)) continue;
        x.n_others++;
        if (r < x.leader) x.leader = r;
    }
    if (x.n_others == 0) return SYP_OK;
    return x.leader == me ? leader_run(&x) : member_run(&x);
}
