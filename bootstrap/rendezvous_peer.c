/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The side of every rank but 0: connect, say hello, wait for the verdict.
 *
 *   CONNECT <--refused, closed without a verdict-- HELLO --> VERDICT -> STAR, or the text of the rejection
 *
 * Invariants: retries end at the deadline; an answer that is no verdict ends the join 2 s after the first of its kind
 * (rank 0 may just be restarting); a verdict is believed only if it names this process under this rank.  Must not know:
 * what the memory is used for.
 */
#include "bootstrap/star.h"

#include "pool/base/arena.h"
#include "pool/base/conf.h"
#include "pool/base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#define RETRY_FIRST_NS (200 * NS_PER_US)
#define RETRY_MOST_NS (20 * NS_PER_MS)
#define ADDRESSES_MOST URL_ADDRS
#define CONNECT_NS NS_PER_S /* for one address of several to answer */
#define NO_VERDICT_NS (2 * NS_PER_S)

struct seeker {
    const struct launch *who;
    struct hello self;
    struct auth *auth; /* NULL = no secret */
    int greeted;       /* this connection: what follows is sealed, or there is no secret */
    uint64_t started, deadline;
    struct url_addr addr[ADDRESSES_MOST];
    int n_addr;
    char where[URL_TEXT]; /* of the address tried last */
    uint64_t random, backoff;
    unsigned tries;
    int last;           /* -errno of the last try that did not connect, 0 = none since a connection */
    uint64_t trouble;   /* time of the first answer that was no verdict; 0 = none */
    int stranger;       /* one of those answers was not sympool's */
    uint64_t connected; /* time of the last connection */
};

enum outcome { TRY_AGAIN, DONE }; /* DONE: joined, or failed with the record set */

/* ---------------------------------------------------------------------------------------------- addresses */

/* Port 0: the address that rank 0 wrote; the file may be absent, or of an earlier job, so it is read again at every
 * try. */
static int read_addr_file(struct seeker *k) {
    const char *path = conf_str(CONF_ADDR_FILE);
    char line[URL_TEXT + 64];
    struct url u;
    if (!path || !*path)
        return err_set(SYP_EINVAL,
                       "join: SYMPOOL_ADDR has port 0, so rank 0 chooses, but rank %d cannot know; set "
                       "SYMPOOL_ADDR_FILE on all ranks, or "
                       "a port",
                       k->who->rank);
    k->n_addr = 0;
    text_format(k->where, sizeof k->where, "the address in %s", path);
    int64_t n = os_read_file(path, line, sizeof line);
    if (n < 0) {
        k->last = (int)n;
        return SYP_OK;
    }
    line[strcspn(line, "\n")] = 0;
    if (url_parse(line, &u) || u.port == 0 || !u.numeric) return SYP_OK;
    n = url_resolve(&u, k->addr, ADDRESSES_MOST);
    k->n_addr = n > 0 ? (int)n : 0;
    return SYP_OK;
}

static int find_addresses(struct seeker *k) {
    if (!k->who->has_addr) {
        k->n_addr = 1;
        return meeting_place(k->who, &k->addr[0]);
    }
    if (k->who->addr.port == 0) return read_addr_file(k);
    k->n_addr = url_resolve_by(&k->who->addr, k->addr, ADDRESSES_MOST, k->deadline);
    return k->n_addr > 0 ? SYP_OK : k->n_addr;
}

/* ------------------------------------------------------------------------------------------------ connect */

/* A connect to a free local port can meet itself: both ends get the same address. */
static int met_itself(int fd) {
    struct sockaddr_storage a, b;
    socklen_t na = sizeof a, nb = sizeof b;
    char mine[URL_TEXT], other[URL_TEXT];
    if (os->socket_name(fd, 0, (struct sockaddr *)&a, &na) || os->socket_name(fd, 1, (struct sockaddr *)&b, &nb))
        return 0;
    url_text((struct sockaddr *)&a, na, mine, sizeof mine);
    url_text((struct sockaddr *)&b, nb, other, sizeof other);
    return strcmp(mine, other) == 0;
}

static int finish_connect(int fd, uint64_t deadline) {
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        uint64_t left = deadline_left(os->now(), deadline);
        int n = os->poll(&p, 1, left);
        if (n > 0) return os->socket_error(fd);
        if (n < 0 && n != -EINTR) return n;
        if (!left) return -ETIMEDOUT;
    }
}

/* A connected descriptor, or -errno. */
static int connect_to(struct seeker *k, const struct url_addr *a) {
    int family = a->addr.ss_family;
    url_text((const struct sockaddr *)&a->addr, a->len, k->where, sizeof k->where);
    k->tries++;
    int fd = os->socket(family, SOCK_STREAM);
    if (fd < 0) return fd;
    /* The port this end is given must not be in rank 0's way when that comes to bind. */
    if (family != AF_UNIX) os->socket_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    int rc = os->connect(fd, (const struct sockaddr *)&a->addr, a->len);
    if (rc == -EINPROGRESS) {
        uint64_t soon = os->now() + CONNECT_NS;
        rc = finish_connect(fd, soon < k->deadline ? soon : k->deadline);
    }
    if (!rc && family != AF_UNIX && met_itself(fd)) rc = -ECONNREFUSED;
    if (rc) {
        os->close(fd);
        return rc;
    }
    if (family != AF_UNIX) os->socket_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    return fd;
}

/* ------------------------------------------------------------------------------------------------ verdict */

static int fail(enum outcome *o, int code) {
    *o = DONE;
    return code;
}

/* The connection brought no verdict: closed early, or by something else than sympool. */
static int no_verdict(struct seeker *k, int stranger, enum outcome *o) {
    uint64_t now = os->now();
    /* A connection that lasted was a real rank 0: what ends it is a new incident. */
    if (!k->trouble || now - k->connected >= NO_VERDICT_NS) k->trouble = now;
    k->stranger |= stranger;
    *o = TRY_AGAIN;
    if (now - k->trouble < NO_VERDICT_NS && now < k->deadline) return SYP_OK;
    *o = DONE;
    if (k->stranger)
        return err_set(SYP_EJOIN,
                       "join: something that is not sympool answered at %s; choose another port in SYMPOOL_ADDR",
                       k->where);
    return err_set(
        SYP_EJOIN,
        "join: %s accepts connections and closes them without a verdict; see rank 0's log, or choose another port in "
        "SYMPOOL_ADDR",
        k->where);
}

/* Like link_recv; -ETIMEDOUT a little after the deadline, since rank 0's verdict is then on its way. */
static int receive(struct seeker *k, int fd, void *buf, size_t len) {
    return link_recv(fd, buf, len, k->deadline + GRACE_NS);
}

static int silence(struct seeker *k, enum outcome *o) {
    char took[32];
    struct text t = TEXT_INIT(took);
    add_seconds(&t, os->now() - k->started);
    err_set(SYP_EJOIN,
            "join: no answer from rank 0 at %s in %s: connected, but no verdict came; look at what rank 0 does, "
            "whether sympool listens there, or "
            "raise SYMPOOL_JOIN_TIMEOUT",
            k->where, took);
    return fail(o, err_peer(0, 0));
}

/* The roster has this rank as it said itself; a byte that changed on its way shows here. */
static int same_self(const struct roster_entry *a, const struct roster_entry *b) {
    return a->rank == b->rank && a->pid == b->pid && a->uid == b->uid && a->start_ticks == b->start_ticks &&
           memcmp(a->host_id, b->host_id, sizeof a->host_id) == 0 && a->local_mem_size == b->local_mem_size &&
           a->meta_size == b->meta_size && a->data_len == b->data_len && a->control_len == b->control_len &&
           a->exchange_len == b->exchange_len;
}

static int take_roster(struct seeker *k, int fd, uint8_t *payload, uint32_t len, struct roster *roster,
                       struct star **out) {
    struct wire w = {.buf = payload, .cap = len};
    int rc = wire_get_roster(&w, roster);
    if (rc) return rc;
    const struct roster_entry *me = &roster->rank[k->who->rank < roster->n ? k->who->rank : 0];
    if ((k->self.member_of && roster->nonce != k->self.member_of) || roster->n != k->who->n_ranks ||
        !same_self(me, &k->self.self))
        return err_set(SYP_EJOIN, "join: the roster from %s is not this job's; choose another address in SYMPOOL_ADDR",
                       k->where);
    struct star *s = star_new(roster->n, k->who->rank, 0, k->auth);
    k->auth = NULL;
    if (!s) return err_set(SYP_ENOMEM, "join: no memory for the connection to rank 0");
    s->fd = fd;
    s->root_pid = roster->rank[0].pid;
    *out = s;
    return SYP_OK;
}

/* A frame of rank 0. */
struct answer {
    struct wire_head h;
    uint8_t head[WIRE_HEAD];
    uint8_t *payload; /* map_alloc'ed, room bytes; NULL = none came */
    size_t room;
};

/* What ends the wait for an answer, from what link_recv returned. */
static int no_answer(struct seeker *k, int rc, enum outcome *o) {
    return rc == -ETIMEDOUT ? silence(k, o) : no_verdict(k, 0, o);
}

/* Read one frame.  *o is DONE or TRY_AGAIN, and payload NULL, when none came; the code says why. */
static int read_answer(struct seeker *k, int fd, struct answer *a, enum outcome *o) {
    struct wire w = {.buf = a->head, .cap = sizeof a->head}, magic = w;
    a->payload = NULL;
    int rc = receive(k, fd, a->head, sizeof a->head);
    if (rc) return no_answer(k, rc, o);
    if (wire_get_u64(&magic) != WIRE_MAGIC) return no_verdict(k, 1, o);
    if (wire_get_head(&w, &a->h, WIRE_MAX)) {
        err_prefix("join: answer from %s", k->where);
        return fail(o, SYP_EJOIN);
    }
    a->room = a->h.length + WIRE_MAC;
    uint8_t *payload = map_alloc(a->room);
    if (!payload) return fail(o, err_set(SYP_ENOMEM, "join: no memory for a verdict of %u bytes", a->h.length));
    rc = receive(k, fd, payload, a->h.length + (a->h.flags & WIRE_SEALED ? WIRE_MAC : 0));
    if (!rc) {
        a->payload = payload;
        return SYP_OK;
    }
    map_free(payload, a->room);
    return no_answer(k, rc, o);
}

/* An answer that anybody may have given, where a holder of the secret was expected. */
static int not_proven(const struct seeker *k, const struct answer *a) {
    struct wire p = {.buf = a->payload, .cap = a->h.length};
    struct notice n;
    if (a->h.type == WIRE_REJECT && wire_get_notice(&p, &n) == 0)
        return err_set(SYP_EJOIN, "join: %s refused this rank, without a proof of the secret: %s", k->where, n.text);
    return err_set(SYP_EJOIN,
                   "join: the answer from %s lacks the proof of the secret of SYMPOOL_SECRET_FILE; give all ranks the "
                   "same file",
                   k->where);
}

/* Is it from a holder of the secret?  SYP_OK, also when there is no secret. */
static int check_proof(struct seeker *k, const struct answer *a) {
    int sealed = a->h.flags & WIRE_SEALED ? 1 : 0;
    if (!k->auth)
        return sealed ? err_set(SYP_EJOIN, "join: answer from %s: it carries a proof of a secret, this rank has none",
                                k->where)
                      : SYP_OK;
    if (!sealed) return not_proven(k, a);
    if (auth_check(k->auth, 0, a->head, a->payload, a->h.length, a->payload + a->h.length)) return SYP_OK;
    return err_set(SYP_EJOIN,
                   "join: the answer from %s does not prove the secret of SYMPOOL_SECRET_FILE: rank 0 has another one, "
                   "or the answer was altered on its way",
                   k->where);
}

/* Read the verdict.  The descriptor goes into *out on success and stays the caller's otherwise. */
static int take_verdict(struct seeker *k, int fd, struct roster *roster, struct star **out, enum outcome *o) {
    struct answer a;
    int rc = read_answer(k, fd, &a, o);
    if (!a.payload) return rc;
    struct wire p = {.buf = a.payload, .cap = a.h.length};
    struct notice n;
    *o = DONE;
    rc = check_proof(k, &a);
    if (!rc && a.h.type == WIRE_ROSTER)
        rc = take_roster(k, fd, a.payload, a.h.length, roster, out);
    else if (!rc && a.h.type == WIRE_REJECT)
        rc = wire_get_notice(&p, &n) ? SYP_EJOIN : notice_raise(&n);
    else if (!rc)
        rc = err_set(SYP_EJOIN, "join: answer from %s: frame of type %u instead of a verdict", k->where, a.h.type);
    map_free(a.payload, a.room);
    return rc;
}

/* Exchange nonces and make the keys. */
static int greet(struct seeker *k, int fd, enum outcome *o) {
    uint8_t frame[WIRE_HEAD + WIRE_NONCE], theirs[WIRE_NONCE];
    struct answer a;
    head_put(frame, WIRE_GREET, WIRE_NONCE, 0, 0);
    int rc = auth_nonce(k->auth, 0, frame + WIRE_HEAD);
    if (rc) return fail(o, err_sys(SYP_ESYS, rc, "join: random number for the proof of the secret"));
    if (link_send(fd, frame, sizeof frame, k->deadline) == -ETIMEDOUT) return silence(k, o);
    rc = read_answer(k, fd, &a, o);
    if (!a.payload) return rc;
    struct wire p = {.buf = a.payload, .cap = a.h.length};
    if (a.h.type != WIRE_GREET || a.h.flags & WIRE_SEALED)
        rc = not_proven(k, &a);
    else if (wire_get_greet(&p, theirs))
        rc = SYP_EJOIN;
    if (!rc) {
        auth_begin(k->auth, 0, AUTH_RANK, theirs);
        k->greeted = 1;
    }
    map_free(a.payload, a.room);
    return rc ? fail(o, rc) : SYP_OK;
}

/* The abstract name may be held by anybody: descriptors are only passed within one user. */
static int check_owner(struct seeker *k, int fd) {
    int pid, uid;
    int rc = os->socket_cred(fd, &pid, &uid);
    if (rc) return err_sys(SYP_ESYS, rc, "join: owner of %s", k->where);
    if (uid != os->uid())
        return err_set(SYP_EJOIN, "join: %s is held by user %d (pid %d), this is user %d; choose another SYMPOOL_JOB",
                       k->where, uid, pid, os->uid());
    return SYP_OK;
}

/* One connection from hello to verdict. */
static int speak(struct seeker *k, int fd, int family, struct roster *roster, struct star **out, enum outcome *o) {
    uint8_t frame[WIRE_HEAD + WIRE_HELLO_MAX + WIRE_MAC], *payload = frame + WIRE_HEAD;
    struct wire w = {.buf = payload, .cap = WIRE_HELLO_MAX};
    int sealed = k->auth != NULL;
    int rc = family == AF_UNIX ? check_owner(k, fd) : SYP_OK;
    if (rc) return fail(o, rc);
    *o = TRY_AGAIN;
    k->greeted = !sealed;
    if (sealed) rc = greet(k, fd, o);
    if (rc || !k->greeted) return rc;
    k->self.patience_ns = deadline_left(os->now(), k->deadline);
    wire_put_hello(&w, &k->self);
    head_put(frame, WIRE_HELLO, w.pos, 0, sealed);
    if (sealed) auth_seal(k->auth, 0, frame, payload, w.pos, payload + w.pos);
    rc = link_send(fd, frame, WIRE_HEAD + w.pos + (sealed ? WIRE_MAC : 0), k->deadline);
    if (rc == -ETIMEDOUT) return silence(k, o);
    /* When the send was refused the verdict may still be there to read. */
    return take_verdict(k, fd, roster, out, o);
}

/* ------------------------------------------------------------------------------------------------- retry */

static int unreachable(struct seeker *k) {
    char took[32];
    struct text t = TEXT_INIT(took);
    add_seconds(&t, os->now() - k->started);
    err_sys(SYP_EJOIN, k->last ? k->last : -ECONNREFUSED,
            "join: no answer from rank 0 at %s in %s and %u tries; start rank 0, check SYMPOOL_ADDR and SYMPOOL_JOB, "
            "or raise SYMPOOL_JOIN_TIMEOUT",
            k->where, took, k->tries);
    return err_peer(0, 0);
}

/* Rank 0 was there, took the hello, is gone, and has not come back. */
static int root_died(struct seeker *k) {
    err_sys(SYP_EPEER, k->last, "join: rank 0 at %s died or gave up during the join; see its own log", k->where);
    return err_peer(0, 0);
}

static void back_off(struct seeker *k) {
    uint64_t left = deadline_left(os->now(), k->deadline);
    k->random ^= k->random << 13; /* jitter, so that many ranks do not knock at once */
    k->random ^= k->random >> 7;
    k->random ^= k->random << 17;
    uint64_t pause = k->backoff - k->random % (k->backoff / 4);
    os->sleep(pause < left ? pause : left);
    k->backoff += k->backoff / 2;
    if (k->backoff > RETRY_MOST_NS) k->backoff = RETRY_MOST_NS;
}

/* Errors of this host: trying again cannot help. */
static int hopeless(int rc) {
    return rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM || rc == -EACCES || rc == -EPERM || rc == -EAFNOSUPPORT ||
           rc == -EINVAL;
}

/* Every address once.  DONE through *o. */
static int try_all(struct seeker *k, struct roster *roster, struct star **out, enum outcome *o) {
    for (int i = 0; i < k->n_addr; i++) {
        int fd = connect_to(k, &k->addr[i]);
        if (fd < 0) {
            k->last = fd;
            if (hopeless(fd)) return fail(o, err_sys(SYP_EJOIN, fd, "join: connect to %s", k->where));
            continue;
        }
        k->connected = os->now();
        int rc = speak(k, fd, k->addr[i].addr.ss_family, roster, out, o);
        if (!*out) os->close(fd);
        if (*o == DONE) return rc;
    }
    return SYP_OK;
}

int peer_join(const struct launch *who, const struct hello *self, uint64_t deadline, struct auth *auth,
              struct roster *roster, struct star **out) {
    struct seeker k = {
        .who = who, .self = *self, .auth = auth, .started = os->now(), .deadline = deadline, .backoff = RETRY_FIRST_NS};
    k.random = k.started ^ ((uint64_t)(unsigned)os->tid() << 32) ^ 0x9e3779b97f4a7c15ull;
    int rc = find_addresses(&k);
    while (!rc) {
        enum outcome o = TRY_AGAIN;
        rc = try_all(&k, roster, out, &o);
        if (o == DONE) break;
        uint64_t now = os->now();
        if (k.trouble && !k.stranger && now - k.trouble >= NO_VERDICT_NS)
            rc = root_died(&k);
        else if (now >= deadline)
            rc = k.trouble && !k.stranger ? root_died(&k) : unreachable(&k);
        else {
            back_off(&k);
            if (who->has_addr && who->addr.port == 0) rc = read_addr_file(&k);
        }
    }
    auth_close(k.auth);
    if (rc) roster_free(roster);
    return rc;
}
