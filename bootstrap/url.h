/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of the rendezvous.  Parsing is pure (no look-up, no allocation) and strict: "tcp://1.2.3.4:3366", "tcp://[::1]:3366",
 * "[fe80::1%eth0]:3366", "host:3366", "1.2.3.4:3366", "tcp6://[::1]:3366".  Refused with the reason in the record (SYP_EINVAL): user info, paths,
 * blanks, other schemes, a missing or bad port (0 .. 65535), an IPv6 address without brackets, names over 253 characters, trailing bytes.
 */
#ifndef SYP_BOOTSTRAP_URL_H
#define SYP_BOOTSTRAP_URL_H

#include <stdint.h>
#include <sys/socket.h>

struct url {
    char host[256];  /* without brackets and scope */
    char scope[32];  /* "%eth0" without the %, "" = none */
    uint16_t port;   /* 0 = rank 0 chooses */
    int numeric;     /* 4, 6, or 0 for a name */
};

int url_parse(const char *text, struct url *out);

/* Resolve to socket addresses, at most `most`; returns how many (>= 1) or SYP_EJOIN with the record set.  Names: getaddrinfo (the one
 * place that may call the host's malloc: it runs inside syp_init only, never inside an allocation). */
struct url_addr {
    struct sockaddr_storage addr;
    socklen_t len;
};
int url_resolve(const struct url *u, struct url_addr *out, int most);

/* The same, but a resolver that hangs is left behind at the deadline, in a thread that ends when the resolver does.  Also SYP_ESYS (no
 * thread), SYP_ENOMEM. */
#define URL_ADDRS 8
int url_resolve_by(const struct url *u, struct url_addr *out, int most, uint64_t deadline);

/* "127.0.0.1:3366" or "[::1]:3366", for messages. */
#define URL_TEXT 80
void url_text(const struct sockaddr *addr, socklen_t len, char *buf, size_t cap);

#endif
