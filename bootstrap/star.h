/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the rendezvous: connections of rank 0 to the members, or of a member to rank 0.  Not for other folders'
 * eyes.
 */
#ifndef SYP_BOOTSTRAP_STAR_H
#define SYP_BOOTSTRAP_STAR_H

#include "bootstrap/auth.h"
#include "bootstrap/rendezvous.h"
#include "pool/base/os.h"
#include "pool/base/text.h"

#include <poll.h>

#define STAR_GIVE_MAX 1024u /* bytes a rank may give to an allgather */
#define MEMBER_IN                                                                                                      \
    (WIRE_HEAD + STAR_GIVE_MAX + WIRE_MAC)  /* all a member may have in flight to rank 0; holds a hello and a notice */
#define HANDSHAKE_NS (2 * NS_PER_S)         /* for a connection to say hello */
#define SETTLE_NS (200 * NS_PER_MS)         /* after a disagreement: for the others to arrive and be told */
#define LINGER_NS (100 * NS_PER_MS)         /* after a failure: for latecomers to be told */
#define NOTICE_MAX (18u + WIRE_NOTICE_TEXT) /* payload of a notice */
#define GRACE_NS (200 * NS_PER_MS)          /* after the deadline: for rank 0's verdict to arrive */

/*
 * State of a connection at rank 0:
 *   SILENT  --complete, valid hello-->  SAID  --connection lost-->  GONE
 *      \--closed, garbage, 2 s over-->  the place in the table is free again
 */
enum member_state { MEMBER_FREE, MEMBER_SILENT, MEMBER_SAID, MEMBER_GONE };

struct member {
    enum member_state state;
    int fd;        /* -1 in FREE and GONE */
    int greeted;   /* with a secret: the nonces are exchanged, what follows is sealed */
    int told;      /* has all of what star_tell sent last */
    int sealed;    /* `mac` is of what star_tell is sending */
    uint32_t have; /* bytes in `in` */
    size_t sent;   /* bytes of what star_tell is sending */
    uint8_t mac[WIRE_MAC];
    uint64_t since;     /* of the accept */
    struct hello hello; /* from SAID on */
    char addr[80];
    uint8_t in[MEMBER_IN];
};

struct star {
    int n, me;
    /* rank 0 */
    struct member *member; /* cap places, of which `used` were ever used */
    int used, cap;
    struct pollfd *polls;   /* cap + 1 */
    int of_rank[MAX_WORLD]; /* place of each rank, once joined */
    /* the others */
    int fd;
    int64_t root_pid;
    /* both */
    struct auth *auth;  /* NULL = no secret; session = place of the member, 0 for the others */
    uint64_t sequence;  /* of the last collective begun */
    struct notice lost; /* code 0 = all well; else why every later call fails */
};

/* auth: owned by the star from now on, also when it cannot be made. */
struct star *star_new(int n, int me, int cap, struct auth *auth);

/* A connection without waiting.  > 0 bytes moved, -EAGAIN, -EPIPE = closed by the other side, other -errno. */
int64_t link_send_some(int fd, const void *buf, size_t len);
int64_t link_recv_some(int fd, void *buf, size_t len);
/* All of it, up to the deadline: 0, -ETIMEDOUT, or as above. */
int link_send(int fd, const void *buf, size_t len, uint64_t deadline);
int link_recv(int fd, void *buf, size_t len, uint64_t deadline);

/* Read on at rank 0.  1: a frame is complete, head in *h, payload behind WIRE_HEAD in m->in; have = 0 again.  0: not
 * yet.  < 0: as link_recv_some, or with the record set: -EPROTO, and -EBADMSG (with a secret: not sealed, or altered).
 */
int member_read(struct star *s, struct member *m, uint32_t most, struct wire_head *h);
void member_close(struct member *m, enum member_state state);

/* Send a frame to every member that said hello and was not told yet; nobody waits for a slow one.  0, or -ETIMEDOUT; a
 * member whose connection fails becomes GONE. */
int star_tell(struct star *s, enum wire_type type, const void *payload, size_t len, uint64_t deadline);
void star_tell_start(struct star *s);
/* A frame to one of them, as much as goes without waiting; used for a last word. */
void member_tell(struct star *s, struct member *m, enum wire_type type, const void *payload, size_t len);
/* A notice as a payload.  Returns its length. */
size_t notice_put(uint8_t buf[NOTICE_MAX], const struct notice *n);
/* Put a notice into the error record; returns its code. */
int notice_raise(const struct notice *n);
void notice_set(struct notice *n, int code, int peer, int64_t pid, const char *fmt, ...);

/* "12.3 s" */
void add_seconds(struct text *t, uint64_t ns);

/* What rank 0 found out about the hellos so far: appends all disagreements to t ("" = none); peer: the first rank to
 * blame. */
void disagreements(struct text *t, const struct star *s, const struct hello *mine, int *peer, int64_t *pid);
/* 1 if h alone disagrees with rank 0's. */
int disagrees(const struct hello *mine, const struct hello *h);

/* The two sides of the join.  auth: NULL = no secret; theirs from the call on. */
#define JOIN_PLACES(n_ranks) (6 * (n_ranks) + 16) /* connections that rank 0 keeps at a time */
int root_join(const struct launch *who, const struct hello *self, uint64_t deadline, struct auth *auth,
              struct roster *roster, struct star **out);
int peer_join(const struct launch *who, const struct hello *self, uint64_t deadline, struct auth *auth,
              struct roster *roster, struct star **out);
/* A head; sealed: with WIRE_SEALED. */
void head_put(uint8_t head[WIRE_HEAD], enum wire_type type, size_t len, uint64_t sequence, int sealed);
/* Abstract unix address of (uid, job, restart); SYP_EINVAL when the job has no name. */
int meeting_place(const struct launch *who, struct url_addr *out);

#endif
