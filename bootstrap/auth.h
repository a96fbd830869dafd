/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The optional secret of a job.  Both ends of a connection send a nonce; from secret, direction and both nonces each
 * direction gets a key of its own, and every later frame carries a MAC over its number on the connection, its head and
 * its payload.  So a frame that was altered, replayed, reflected, reordered or taken from another connection is
 * recognised.  The MAC itself is the module's (sympool-auth.so); without the module there is no way to use a secret,
 * and no silent way around it.
 */
#ifndef SYP_BOOTSTRAP_AUTH_H
#define SYP_BOOTSTRAP_AUTH_H

#include "bootstrap/wire.h"

#define SECRET_LEN 32u

enum auth_role { AUTH_ROOT, AUTH_RANK };

struct auth; /* the secret and the keys: out of core dumps and forked children, wiped at the end */

/* Read the secret for up to `sessions` connections.  path NULL or "": *out is NULL, SYP_OK.  Else SYP_OK; SYP_EINVAL
 * (the file is not what it must be: regular, owner this user or root, no rights for group and others, 32 bytes);
 * SYP_EUNSUPPORTED (the module is missing); SYP_ESYS, SYP_ENOMEM.  No text ever holds a byte of the secret. */
int auth_open(const char *path, int sessions, struct auth **out);
void auth_close(struct auth *a); /* NULL is fine */

/* Begin a connection: a fresh nonce of this end.  0 or -errno. */
int auth_nonce(struct auth *a, int session, uint8_t mine[WIRE_NONCE]);
/* The other end's nonce has come: make the keys. */
void auth_begin(struct auth *a, int session, enum auth_role me, const uint8_t theirs[WIRE_NONCE]);
/* MAC of the next frame sent; the frame must then be sent as the next one. */
void auth_seal(struct auth *a, int session, const void *head, const void *payload, size_t len, uint8_t mac[WIRE_MAC]);
/* 1 = the next frame of the other end, as it was sent; 0 = not. */
int auth_check(struct auth *a, int session, const void *head, const void *payload, size_t len,
               const uint8_t mac[WIRE_MAC]);

#endif
