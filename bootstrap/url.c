/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of the rendezvous: strict parsing, look-up, and text for messages.
 *
 * Invariant: what url_parse accepts, url_resolve can hand to bind and connect unchanged.  Must not know: sockets,
 * settings.
 */
#include "bootstrap/url.h"

#include "pool/base/arena.h"
#include "pool/base/atomic.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

static int refuse(const char *text, const char *why) {
    return err_set(SYP_EINVAL, "address \"%s\": %s; give tcp://ip:port, tcp://[v6]:port, ip:port or host:port", text,
                   why);
}

static int is_digit(char c) {
    return c >= '0' && c <= '9';
}
static int is_alnum(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Take "scheme://" away.  only6: tcp6 was said, only4: tcp4. */
static const char *skip_scheme(const char *p, int *only6, int *only4) {
    *only6 = *only4 = 0;
    if (strncmp(p, "tcp://", 6) == 0) return p + 6;
    *only6 = strncmp(p, "tcp6://", 7) == 0;
    *only4 = strncmp(p, "tcp4://", 7) == 0;
    if (*only6 || *only4) return p + 7;
    return strstr(p, "://") ? NULL : p;
}

static int parse_port(const char *text, const char *p, uint16_t *out) {
    uint64_t port;
    if (!*p) return refuse(text, "no port after the colon");
    if (strlen(p) > 5 || text_to_u64(p, &port) || port > 65535)
        return refuse(text, "the port is not a number from 0 to 65535");
    *out = (uint16_t)port;
    return SYP_OK;
}

/* "[v6]" or "[v6%scope]"; *end is left behind the bracket. */
static int parse_bracket(const char *text, const char *p, struct url *out, const char **end) {
    const char *close = strchr(p, ']');
    if (!close) return refuse(text, "\"[\" without \"]\"");
    const char *percent = memchr(p, '%', (size_t)(close - p));
    const char *host_end = percent ? percent : close;
    size_t n = (size_t)(host_end - p);
    if (n == 0 || n >= INET6_ADDRSTRLEN) return refuse(text, "no IPv6 address between the brackets");
    memcpy(out->host, p, n);
    out->host[n] = 0;
    if (percent) {
        size_t m = (size_t)(close - percent - 1);
        if (m == 0 || m >= sizeof out->scope) return refuse(text, "the scope after \"%\" must have 1 to 31 characters");
        for (size_t i = 0; i < m; i++)
            if (!is_alnum(percent[1 + i]) && !strchr("._-", percent[1 + i]))
                return refuse(text, "the scope after \"%\" has a character that no interface name has");
        memcpy(out->scope, percent + 1, m);
        out->scope[m] = 0;
    }
    struct in6_addr a6;
    if (inet_pton(AF_INET6, out->host, &a6) != 1) return refuse(text, "no IPv6 address between the brackets");
    out->numeric = 6;
    *end = close + 1;
    return SYP_OK;
}

/* A host name by RFC 1123, with "_" let through since name servers do. */
static const char *bad_name(const char *host, size_t n) {
    size_t label = 0;
    int letters = 0;
    for (size_t i = 0; i < n; i++) {
        char c = host[i];
        if (c == '.') {
            if (label == 0) return "the host name has an empty part";
            label = 0;
            continue;
        }
        if (!is_alnum(c) && c != '-' && c != '_') return "the host name has a character that no name has";
        if (c == '-' && label == 0) return "a part of the host name starts with \"-\"";
        if (++label > 63) return "a part of the host name is longer than 63 characters";
        if (!is_digit(c)) letters = 1;
    }
    return letters ? NULL : "digits and dots, but not an IPv4 address";
}

static int parse_host(const char *text, const char *p, size_t n, struct url *out) {
    if (n == 0) return refuse(text, "no host before the port");
    if (memchr(p, ':', n)) return refuse(text, "an IPv6 address needs brackets");
    if (n > 253) return refuse(text, "the host name is longer than 253 characters");
    memcpy(out->host, p, n);
    out->host[n] = 0;
    struct in_addr a4;
    if (inet_pton(AF_INET, out->host, &a4) == 1) {
        out->numeric = 4;
        return SYP_OK;
    }
    const char *bad = bad_name(p, n);
    return bad ? refuse(text, bad) : SYP_OK;
}

int url_parse(const char *text, struct url *out) {
    memset(out, 0, sizeof *out);
    if (!text || !*text) return err_set(SYP_EINVAL, "address: empty; give tcp://ip:port");
    size_t len = strlen(text);
    if (len > 320) return err_set(SYP_EINVAL, "address: %zu characters, more than any host and port have", len);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] <= ' ' || (unsigned char)text[i] >= 127)
            return refuse(text, "blank or unprintable character");
    int only6, only4, rc;
    const char *p = skip_scheme(text, &only6, &only4);
    if (!p) return refuse(text, "only the scheme tcp is known");
    if (strchr(p, '@')) return refuse(text, "user names are not accepted");
    if (strchr(p, '/') || strchr(p, '?') || strchr(p, '#')) return refuse(text, "paths are not accepted");
    const char *port = NULL;
    if (*p == '[') {
        rc = parse_bracket(text, p + 1, out, &port);
        if (rc) return rc;
        if (*port != ':') return refuse(text, *port ? "something other than \":port\" after \"]\"" : "no port");
    } else {
        port = strrchr(p, ':');
        if (!port) return refuse(text, "no port");
        rc = parse_host(text, p, (size_t)(port - p), out);
        if (rc) return rc;
    }
    if ((only6 && out->numeric == 4) || (only4 && out->numeric == 6))
        return refuse(text, "the address is not of the family that the scheme names");
    return parse_port(text, port + 1, &out->port);
}

/* Interface of a scope: a name or a number; 0 = there is none.  (getaddrinfo takes one for link-local addresses only.)
 */
static uint32_t scope_index(const char *scope) {
    uint64_t n;
    if (text_to_u64(scope, &n) == 0) return n <= UINT32_MAX ? (uint32_t)n : 0;
    return if_nametoindex(scope);
}

static int resolve_number(const struct url *u, struct url_addr *out) {
    memset(out, 0, sizeof *out);
    if (u->numeric == 4) {
        struct sockaddr_in *a = (struct sockaddr_in *)&out->addr;
        a->sin_family = AF_INET;
        a->sin_port = htons(u->port);
        out->len = sizeof *a;
        return inet_pton(AF_INET, u->host, &a->sin_addr) == 1;
    }
    struct sockaddr_in6 *a = (struct sockaddr_in6 *)&out->addr;
    a->sin6_family = AF_INET6;
    a->sin6_port = htons(u->port);
    out->len = sizeof *a;
    if (u->scope[0] && !(a->sin6_scope_id = scope_index(u->scope))) return 0;
    return inet_pton(AF_INET6, u->host, &a->sin6_addr) == 1;
}

int url_resolve(const struct url *u, struct url_addr *out, int most) {
    if (u->numeric) {
        if (resolve_number(u, out)) return 1;
        return err_set(SYP_EJOIN, "address [%s%%%s]: this host has no interface \"%s\"; check SYMPOOL_ADDR", u->host,
                       u->scope, u->scope);
    }
    char port[8];
    text_format(port, sizeof port, "%u", (unsigned)u->port);
    struct addrinfo want = {.ai_socktype = SOCK_STREAM, .ai_protocol = IPPROTO_TCP, .ai_flags = AI_NUMERICSERV},
                    *list = NULL;
    int rc = getaddrinfo(u->host, port, &want, &list);
    if (rc)
        return err_set(SYP_EJOIN, "look-up of host \"%s\": %s; check the name in SYMPOOL_ADDR", u->host,
                       gai_strerror(rc));
    int n = 0;
    for (struct addrinfo *a = list; a && n < most; a = a->ai_next) {
        if ((a->ai_family != AF_INET && a->ai_family != AF_INET6) || a->ai_addrlen > sizeof out->addr) continue;
        memcpy(&out[n].addr, a->ai_addr, a->ai_addrlen);
        out[n++].len = a->ai_addrlen;
    }
    freeaddrinfo(list);
    return n ? n
             : err_set(SYP_EJOIN, "look-up of host \"%s\": no internet address; check the name in SYMPOOL_ADDR",
                       u->host);
}

/* ---------------------------------------------------------------------------------- look-up with a deadline */

enum lookup_state { LOOKING = 0, FOUND = 1, LEFT_BEHIND = 2 };

struct lookup {
    struct url url;
    struct url_addr addr[URL_ADDRS];
    int rc;                 /* of url_resolve */
    struct syp_error error; /* with rc < 0: records are per thread */
    atom32 state;           /* FOUND by the thread, or LEFT_BEHIND by the caller: who comes second frees this */
};

static void *look_up(void *arg) {
    struct lookup *l = arg;
    uint32_t seen = LOOKING;
    l->rc = url_resolve(&l->url, l->addr, URL_ADDRS);
    if (l->rc < 0) l->error = *err_record();
    if (cas_acq_rel(&l->state, &seen, FOUND)) /* pairs with url_resolve_by */
        (void)os->futex_wake(&l->state, 1);
    else
        map_free(l, sizeof *l);
    return NULL;
}

int url_resolve_by(const struct url *u, struct url_addr *out, int most, uint64_t deadline) {
    if (u->numeric) return url_resolve(u, out, most);
    struct os_thread *thread;
    struct lookup *l = map_alloc(sizeof *l);
    if (!l) return err_set(SYP_ENOMEM, "look-up of host \"%s\": no memory", u->host);
    l->url = *u;
    int rc = os->thread_start(look_up, l, &thread);
    if (rc < 0) {
        map_free(l, sizeof *l);
        return err_sys(SYP_ESYS, rc, "look-up of host \"%s\": start a thread (limits on threads: ulimit -u)", u->host);
    }
    uint64_t left;
    while (load_acquire(&l->state) == LOOKING &&
           (left = deadline_left(os->now(), deadline)) > 0) /* pairs with look_up */
        (void)os->futex_wait(&l->state, LOOKING, left);
    uint32_t seen = LOOKING;
    if (cas_acq_rel(&l->state, &seen, LEFT_BEHIND)) { /* pairs with look_up, which frees l */
        (void)os->thread_detach(thread);
        return err_set(SYP_EJOIN,
                       "look-up of host \"%s\": the resolver gave no answer before the deadline; put a number into "
                       "SYMPOOL_ADDR, or mend the resolver",
                       u->host);
    }
    (void)os->thread_join(thread);
    rc = l->rc < most ? l->rc : most;
    if (rc > 0) memcpy(out, l->addr, (size_t)rc * sizeof *out);
    if (rc < 0) *err_record() = l->error;
    map_free(l, sizeof *l);
    return rc;
}

void url_text(const struct sockaddr *addr, socklen_t len, char *buf, size_t cap) {
    char host[INET6_ADDRSTRLEN] = "?";
    if (addr->sa_family == AF_INET) {
        const struct sockaddr_in *a = (const struct sockaddr_in *)addr;
        inet_ntop(AF_INET, &a->sin_addr, host, sizeof host);
        text_format(buf, cap, "%s:%u", host, (unsigned)ntohs(a->sin_port));
    } else if (addr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *a = (const struct sockaddr_in6 *)addr;
        inet_ntop(AF_INET6, &a->sin6_addr, host, sizeof host);
        char scope[IF_NAMESIZE + 1] = "";
        if (a->sin6_scope_id && if_indextoname(a->sin6_scope_id, scope + 1)) scope[0] = '%';
        text_format(buf, cap, "[%s%s]:%u", host, scope, (unsigned)ntohs(a->sin6_port));
    } else if (addr->sa_family == AF_UNIX && len > offsetof(struct sockaddr_un, sun_path) + 1) {
        const struct sockaddr_un *a = (const struct sockaddr_un *)addr;
        text_format(buf, cap, "@%.*s", (int)(len - offsetof(struct sockaddr_un, sun_path) - 1), a->sun_path + 1);
    } else {
        text_copy(buf, cap, addr->sa_family == AF_UNIX ? "a unix socket" : "an unknown address");
    }
}
