/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The star after the join: small collectives through rank 0.
 *
 * Invariants: every wait is a poll under the deadline; rank 0 never waits for one member while another has something to
 * say; a frame that was begun is finished or the connection is closed, so that frames never interleave.  Must not know:
 * how the connections came about.
 */
#include "bootstrap/star.h"

#include "pool/base/arena.h"
#include "pool/base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------- links */

int64_t link_send_some(int fd, const void *buf, size_t len) {
    struct iovec v = {(void *)(uintptr_t)buf, len};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    return os->send(fd, &m);
}

int64_t link_recv_some(int fd, void *buf, size_t len) {
    struct iovec v = {buf, len};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    int64_t n = os->recv(fd, &m);
    return n == 0 ? -EPIPE : n;
}

/* Wait for an event on one descriptor: 0 or -ETIMEDOUT. */
static int await(int fd, short events, uint64_t deadline) {
    for (;;) {
        struct pollfd p = {.fd = fd, .events = events};
        uint64_t left = deadline_left(os->now(), deadline);
        int n = os->poll(&p, 1, left);
        if (n > 0) return 0;
        if (n < 0 && n != -EINTR) return n;
        if (left == 0) return -ETIMEDOUT;
    }
}

static int passing(int64_t n) {
    return n == -EAGAIN || n == -EINTR || n == -ENOBUFS;
}

int link_send(int fd, const void *buf, size_t len, uint64_t deadline) {
    for (size_t at = 0; at < len;) {
        int64_t n = link_send_some(fd, (const char *)buf + at, len - at);
        if (n > 0)
            at += (size_t)n;
        else if (!passing(n))
            return n ? (int)n : -EPIPE;
        else if ((n = await(fd, POLLOUT, deadline)) != 0)
            return (int)n;
    }
    return 0;
}

int link_recv(int fd, void *buf, size_t len, uint64_t deadline) {
    for (size_t at = 0; at < len;) {
        int64_t n = link_recv_some(fd, (char *)buf + at, len - at);
        if (n > 0)
            at += (size_t)n;
        else if (!passing(n))
            return (int)n;
        else if ((n = await(fd, POLLIN, deadline)) != 0)
            return (int)n;
    }
    return 0;
}

/* ------------------------------------------------------------------------------------------------ notices */

void add_seconds(struct text *t, uint64_t ns) {
    uint64_t tenths = (ns + NS_PER_S / 20) / (NS_PER_S / 10);
    text_addf(t, "%llu.%u s", (unsigned long long)(tenths / 10), (unsigned)(tenths % 10));
}

void notice_set(struct notice *n, int code, int peer, int64_t pid, const char *fmt, ...) {
    struct text t = TEXT_INIT(n->text);
    va_list ap;
    va_start(ap, fmt);
    text_vaddf(&t, fmt, ap);
    va_end(ap);
    n->text[t.len] = 0;
    n->code = code;
    n->peer = peer;
    n->pid = pid;
}

int notice_raise(const struct notice *n) {
    err_set(n->code, "%s", n->text);
    return err_peer(n->peer, n->pid);
}

size_t notice_put(uint8_t buf[NOTICE_MAX], const struct notice *n) {
    struct wire w = {.buf = buf, .cap = NOTICE_MAX};
    wire_put_notice(&w, n);
    return w.pos;
}

void head_put(uint8_t head[WIRE_HEAD], enum wire_type type, size_t len, uint64_t sequence, int sealed) {
    struct wire w = {.buf = head, .cap = WIRE_HEAD};
    struct wire_head h = {
        .type = (uint16_t)type, .flags = sealed ? WIRE_SEALED : 0, .length = (uint32_t)len, .sequence = sequence};
    wire_put_head(&w, &h);
}

/* ------------------------------------------------------------------------------------------------ members */

static int session_of(const struct star *s, const struct member *m) {
    return (int)(m - s->member);
}

/* A complete frame is in m->in: 1, or -EBADMSG. */
static int check_seal(struct star *s, struct member *m, const struct wire_head *h) {
    int sealed = h->flags & WIRE_SEALED ? 1 : 0, wanted = s->auth && m->greeted;
    const uint8_t *payload = m->in + WIRE_HEAD;
    if (sealed != wanted)
        err_set(SYP_EJOIN, wanted ? "frame: it lacks the proof that its sender knows the secret"
                                  : "frame: it carries a proof of a secret, where none was agreed on");
    else if (sealed && !auth_check(s->auth, session_of(s, m), m->in, payload, h->length, payload + h->length))
        err_set(SYP_EJOIN, "frame: its sender has another secret, or it was altered on its way");
    else
        return 1;
    return -EBADMSG;
}

int member_read(struct star *s, struct member *m, uint32_t most, struct wire_head *h) {
    for (;;) {
        size_t want = WIRE_HEAD;
        if (m->have >= WIRE_HEAD) {
            struct wire w = {.buf = m->in, .cap = WIRE_HEAD};
            if (wire_get_head(&w, h, most)) return -EPROTO;
            want += h->length + (h->flags & WIRE_SEALED ? WIRE_MAC : 0);
            if (m->have == want) {
                m->have = 0;
                return check_seal(s, m, h);
            }
        }
        int64_t n = link_recv_some(m->fd, m->in + m->have, want - m->have);
        if (n <= 0) return passing(n) ? 0 : (int)n;
        m->have += (uint32_t)n;
    }
}

void member_close(struct member *m, enum member_state state) {
    if (m->fd >= 0) os->close(m->fd);
    m->fd = -1;
    m->state = state;
}

void star_tell_start(struct star *s) {
    for (int i = 0; i < s->used; i++) {
        s->member[i].told = 0;
        s->member[i].sealed = 0;
        s->member[i].sent = 0;
    }
}

struct frame {
    uint8_t head[WIRE_HEAD];
    const void *payload;
    size_t len;
};

static struct frame frame_of(const struct star *s, enum wire_type type, const void *payload, size_t len) {
    struct frame f = {.payload = payload, .len = len};
    head_put(f.head, type, len, type == WIRE_DATA ? s->sequence : 0, s->auth != NULL);
    return f;
}

/* As much of a frame as goes, `sent` bytes of which are sent already: what link_send_some returns. */
static int64_t send_rest(const struct member *m, const struct frame *f, int sealed) {
    struct iovec part[3] = {{(void *)(uintptr_t)f->head, WIRE_HEAD},
                            {(void *)(uintptr_t)f->payload, f->len},
                            {(void *)(uintptr_t)m->mac, sealed ? WIRE_MAC : 0}};
    struct msghdr msg = {.msg_iov = part, .msg_iovlen = 3};
    for (size_t skip = m->sent; skip > 0 || msg.msg_iov->iov_len == 0;) {
        size_t n = skip < msg.msg_iov->iov_len ? skip : msg.msg_iov->iov_len;
        msg.msg_iov->iov_base = (char *)msg.msg_iov->iov_base + n;
        msg.msg_iov->iov_len -= n;
        skip -= n;
        if (msg.msg_iov->iov_len) break;
        msg.msg_iov++;
        msg.msg_iovlen--;
    }
    return os->send(m->fd, &msg);
}

/* Push as much as one member takes; 1 = it needs more time. */
static int tell_one(struct star *s, struct member *m, const struct frame *f) {
    int sealed = s->auth != NULL;
    size_t len = WIRE_HEAD + f->len + (sealed ? WIRE_MAC : 0);
    if (sealed && !m->sealed) auth_seal(s->auth, session_of(s, m), f->head, f->payload, f->len, m->mac);
    m->sealed = 1;
    while (m->sent < len) {
        int64_t n = send_rest(m, f, sealed);
        if (passing(n)) return 1;
        if (n <= 0) {
            member_close(m, MEMBER_GONE);
            return 0;
        }
        m->sent += (size_t)n;
    }
    m->told = 1;
    return 0;
}

void member_tell(struct star *s, struct member *m, enum wire_type type, const void *payload, size_t len) {
    struct frame f = frame_of(s, type, payload, len);
    m->sealed = 0;
    m->sent = 0;
    tell_one(s, m, &f);
}

int star_tell(struct star *s, enum wire_type type, const void *payload, size_t len, uint64_t deadline) {
    struct frame f = frame_of(s, type, payload, len);
    for (;;) {
        unsigned waiting = 0;
        for (int i = 0; i < s->used; i++) {
            struct member *m = &s->member[i];
            if (m->state == MEMBER_SAID && !m->told && tell_one(s, m, &f))
                s->polls[waiting++] = (struct pollfd){.fd = m->fd, .events = POLLOUT};
        }
        if (!waiting) return 0;
        uint64_t left = deadline_left(os->now(), deadline);
        if (!left) return -ETIMEDOUT;
        int n = os->poll(s->polls, waiting, left);
        if (n < 0 && n != -EINTR) return n;
    }
}

/* -------------------------------------------------------------------------------------------------- star */

static size_t member_bytes(int cap) {
    return (size_t)cap * sizeof(struct member);
}
static size_t poll_bytes(int cap) {
    return (size_t)(cap + 1) * sizeof(struct pollfd);
}

struct star *star_new(int n, int me, int cap, struct auth *auth) {
    struct star *s = map_alloc(sizeof *s);
    if (!s) {
        auth_close(auth);
        return NULL;
    }
    *s = (struct star){.n = n, .me = me, .cap = cap, .fd = -1, .auth = auth};
    if (cap) {
        s->member = map_alloc(member_bytes(cap));
        s->polls = map_alloc(poll_bytes(cap));
        if (!s->member || !s->polls) {
            star_close(s);
            return NULL;
        }
    }
    return s;
}

void star_close(struct star *s) {
    if (!s) return;
    for (int i = 0; i < s->used; i++)
        if (s->member[i].fd >= 0) os->close(s->member[i].fd);
    if (s->fd >= 0) os->close(s->fd);
    if (s->member) map_free(s->member, member_bytes(s->cap));
    if (s->polls) map_free(s->polls, poll_bytes(s->cap));
    auth_close(s->auth);
    map_free(s, sizeof *s);
}

/* Rank 0 has found out that the attach cannot succeed: tell everybody, once.  Short of a full socket buffer this does
 * not wait. */
static int lose(struct star *s) {
    uint8_t payload[NOTICE_MAX];
    size_t len = notice_put(payload, &s->lost);
    star_tell_start(s);
    star_tell(s, WIRE_LOST, payload, len, os->now() + GRACE_NS);
    return notice_raise(&s->lost);
}

static int lose_member(struct star *s, int rank) {
    const struct member *m = &s->member[s->of_rank[rank]];
    notice_set(&s->lost, SYP_EPEER, rank, m->hello.self.pid,
               "attach: rank %d (pid %d) died or gave up; see its own log", rank, m->hello.self.pid);
    return lose(s);
}

/* One member has something to say while rank 0 gathers.  1: it arrived; 0: not yet; < 0: the star is lost. */
static int hear(struct star *s, int rank, void *give, size_t len, int arrived) {
    struct member *m = &s->member[s->of_rank[rank]];
    struct wire_head h;
    int rc = m->fd < 0 ? -EPIPE : member_read(s, m, STAR_GIVE_MAX, &h);
    if (rc == 0) return 0;
    if (rc == 1 && h.type == WIRE_DATA && h.sequence == s->sequence && h.length == len && !arrived) {
        if (len) memcpy(give, m->in + WIRE_HEAD, len);
        return 1;
    }
    struct wire w = {.buf = m->in + WIRE_HEAD, .cap = rc == 1 ? h.length : 0};
    if (rc == 1 && h.type == WIRE_LOST && wire_get_notice(&w, &s->lost) == 0) {
        lose(s);
        return -1;
    }
    if (rc == -EBADMSG) {
        notice_set(&s->lost, SYP_EJOIN, rank, m->hello.self.pid,
                   "attach: what came from rank %d (pid %d) was altered on its way: it does not carry the proof of the "
                   "secret",
                   rank, m->hello.self.pid);
        lose(s);
        return -1;
    }
    if (rc == 1 || rc == -EPROTO) {
        notice_set(
            &s->lost, SYP_EJOIN, rank, m->hello.self.pid,
            "attach: rank %d (pid %d) is at another step than rank 0; use one sympool and the same calls on all ranks",
            rank, m->hello.self.pid);
        lose(s);
        return -1;
    }
    lose_member(s, rank);
    return -1;
}

static int lose_late(struct star *s, const uint8_t *arrived) {
    uint8_t late[MAX_WORLD] = {0};
    int first = -1;
    for (int r = s->n - 1; r > 0; r--)
        if (!arrived[r]) late[first = r] = 1;
    struct text t = TEXT_INIT(s->lost.text);
    text_addf(&t, "attach: the deadline passed while rank 0 waited for ranks ");
    text_add_ranks(&t, late, s->n);
    text_addf(&t, "; look at what they do, or raise SYMPOOL_JOIN_TIMEOUT");
    s->lost.code = SYP_ETIMEOUT;
    s->lost.peer = first;
    s->lost.pid = first < 0 ? 0 : s->member[s->of_rank[first]].hello.self.pid;
    return lose(s);
}

/* Rank 0: all members' bytes into all[].  Members that have arrived are watched too: they may die while the rest is
 * waited for. */
static int gather(struct star *s, size_t len, uint8_t *all, uint64_t deadline) {
    uint8_t arrived[MAX_WORLD] = {1};
    for (int r = 1; r < s->n; r++) {
        const struct member *m = &s->member[s->of_rank[r]];
        if (m->state == MEMBER_GONE) return lose_member(s, r);
        s->polls[r - 1] = (struct pollfd){.fd = m->fd, .events = POLLIN};
    }
    for (int n = 1; n < s->n;) {
        uint64_t left = deadline_left(os->now(), deadline);
        int rc = os->poll(s->polls, (unsigned)s->n - 1, left);
        for (int r = 1; r < s->n && rc > 0; r++) {
            if (!s->polls[r - 1].revents) continue;
            int heard = hear(s, r, all + (size_t)r * len, len, arrived[r]);
            if (heard < 0) return s->lost.code;
            if (heard > 0) arrived[r] = 1;
            n += heard;
        }
        if (n < s->n && !left) return lose_late(s, arrived);
    }
    return SYP_OK;
}

/* Rank 0: bytes to all, in frames of at most WIRE_MAX. */
static int spread(struct star *s, const uint8_t *bytes, size_t len, uint64_t deadline) {
    size_t at = 0;
    do {
        size_t part = len - at < WIRE_MAX ? len - at : WIRE_MAX;
        star_tell_start(s);
        int rc = star_tell(s, WIRE_DATA, bytes + at, part, deadline);
        if (rc) {
            uint8_t took[MAX_WORLD] = {1};
            for (int r = 1; r < s->n; r++)
                took[r] = (uint8_t)s->member[s->of_rank[r]].told;
            for (int r = 1; r < s->n; r++) /* in the middle of a frame: no notice can follow */
                if (!took[r]) member_close(&s->member[s->of_rank[r]], MEMBER_GONE);
            return lose_late(s, took);
        }
        at += part;
    } while (at < len);
    for (int r = 1; r < s->n; r++)
        if (s->member[s->of_rank[r]].state == MEMBER_GONE) return lose_member(s, r);
    return SYP_OK;
}

/* ------------------------------------------------------------------------------------ the others' side */

static int root_gone(struct star *s, int rc) {
    if (rc == -ETIMEDOUT)
        notice_set(&s->lost, SYP_ETIMEOUT, 0, s->root_pid,
                   "attach: the deadline passed while waiting for rank 0 (pid %lld); look at what it does, or raise "
                   "SYMPOOL_JOIN_TIMEOUT",
                   (long long)s->root_pid);
    else
        notice_set(&s->lost, SYP_EPEER, 0, s->root_pid, "attach: rank 0 (pid %lld) died or gave up; see its own log",
                   (long long)s->root_pid);
    return notice_raise(&s->lost);
}

static int lost_here(struct star *s, const char *fmt) {
    notice_set(&s->lost, SYP_EJOIN, 0, s->root_pid, fmt, s->me);
    return notice_raise(&s->lost);
}

static int altered(struct star *s) {
    return lost_here(s,
                     "attach: what came from rank 0 to rank %d was altered on its way: it does not carry the proof of "
                     "the secret");
}

/* The payload of a frame and its seal. */
static int take_payload(struct star *s, const uint8_t *head, void *payload, size_t len, uint64_t deadline) {
    uint8_t mac[WIRE_MAC];
    int rc = link_recv(s->fd, payload, len, deadline);
    if (!rc && s->auth) rc = link_recv(s->fd, mac, sizeof mac, deadline);
    if (rc) return root_gone(s, rc);
    return s->auth && !auth_check(s->auth, 0, head, payload, len, mac) ? altered(s) : SYP_OK;
}

/* A notice of rank 0 that stands where data was expected. */
static int take_notice(struct star *s, const uint8_t *head, uint32_t len, uint64_t deadline) {
    uint8_t buf[NOTICE_MAX];
    if (len > sizeof buf) return root_gone(s, -EPROTO);
    int rc = take_payload(s, head, buf, len, deadline);
    if (rc) return rc;
    struct wire w = {.buf = buf, .cap = len};
    if (wire_get_notice(&w, &s->lost)) return root_gone(s, -EPROTO);
    return notice_raise(&s->lost);
}

/* Bytes from rank 0, as spread() sends them.  Waits a little past the deadline: rank 0's own clock decides, and its
 * text is better. */
static int receive(struct star *s, uint8_t *bytes, size_t len, uint64_t deadline) {
    size_t at = 0;
    deadline += GRACE_NS;
    do {
        uint8_t head[WIRE_HEAD];
        struct wire w = {.buf = head, .cap = sizeof head};
        struct wire_head h;
        int rc = link_recv(s->fd, head, sizeof head, deadline);
        if (rc) return root_gone(s, rc);
        if (wire_get_head(&w, &h, WIRE_MAX))
            return s->auth ? altered(s) : lost_here(s, "attach: what rank 0 sent to rank %d is no frame of sympool");
        if ((h.flags & WIRE_SEALED ? 1 : 0) != (s->auth != NULL)) return altered(s);
        if (h.type == WIRE_LOST) return take_notice(s, head, h.length, deadline);
        if (h.type != WIRE_DATA || h.sequence != s->sequence || h.length > len - at || (h.length == 0 && len))
            return lost_here(
                s, "attach: rank 0 is at another step than rank %d; use one sympool and the same calls on all ranks");
        rc = take_payload(s, head, bytes + at, h.length, deadline);
        if (rc) return rc;
        at += h.length;
    } while (at < len);
    return SYP_OK;
}

/* One frame to rank 0, sealed where there is a secret: as link_send. */
static int send_root(struct star *s, enum wire_type type, const void *payload, size_t len, uint64_t deadline) {
    uint8_t frame[MEMBER_IN];
    int sealed = s->auth != NULL;
    head_put(frame, type, len, type == WIRE_DATA ? s->sequence : 0, sealed);
    if (len) memcpy(frame + WIRE_HEAD, payload, len);
    if (sealed) auth_seal(s->auth, 0, frame, frame + WIRE_HEAD, len, frame + WIRE_HEAD + len);
    return link_send(s->fd, frame, WIRE_HEAD + len + (sealed ? WIRE_MAC : 0), deadline);
}

static int give(struct star *s, const void *mine, size_t len, uint64_t deadline) {
    int rc = send_root(s, WIRE_DATA, mine, len, deadline);
    /* A closed connection may still hold rank 0's last word. */
    return rc == -ETIMEDOUT ? root_gone(s, rc) : SYP_OK;
}

/* ------------------------------------------------------------------------------------------- collectives */

int star_allgather(struct star *s, const void *mine, size_t len, void *all, uint64_t deadline) {
    if (len > STAR_GIVE_MAX) return err_set(SYP_EINVAL, "attach: %zu bytes given, at most %u", len, STAR_GIVE_MAX);
    if (s->lost.code) return notice_raise(&s->lost);
    s->sequence++;
    if (s->me == 0) {
        if (len) memcpy(all, mine, len);
        int rc = gather(s, len, all, deadline);
        return rc ? rc : spread(s, all, len * (size_t)s->n, deadline);
    }
    int rc = give(s, mine, len, deadline);
    return rc ? rc : receive(s, all, len * (size_t)s->n, deadline);
}

int star_barrier(struct star *s, uint64_t deadline) {
    uint8_t nothing[1] = {0};
    return star_allgather(s, nothing, 0, nothing, deadline);
}

int star_broadcast(struct star *s, void *buf, size_t len, uint64_t deadline) {
    if (s->lost.code) return notice_raise(&s->lost);
    s->sequence++;
    return s->me == 0 ? spread(s, buf, len, deadline) : receive(s, buf, len, deadline);
}

void star_abort(struct star *s) {
    if (s->lost.code) return; /* everybody knows already */
    const struct syp_error *e = err_record();
    int passed_on = e->code == SYP_EPEER || e->code == SYP_ETIMEOUT || e->code == SYP_EJOIN;
    int blame = passed_on && e->peer >= 0 && e->peer < s->n;
    notice_set(&s->lost, passed_on ? e->code : SYP_EJOIN, blame ? e->peer : s->me, blame ? e->peer_pid : os->pid(),
               "rank %d (pid %d) could not attach: %s (%s)", s->me, os->pid(), e->text, syp_strerror(e->code));
    uint8_t payload[NOTICE_MAX];
    size_t len = notice_put(payload, &s->lost);
    uint64_t deadline = os->now() + GRACE_NS;
    if (s->me == 0) {
        star_tell_start(s);
        star_tell(s, WIRE_LOST, payload, len, deadline);
    } else {
        send_root(s, WIRE_LOST, payload, len, deadline);
    }
}
