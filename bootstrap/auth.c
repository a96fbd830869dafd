/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The secret: reading it, keys of connections, MACs.
 *
 *   key(direction) = MAC(secret, "sympool 1" direction nonce-of-the-rank nonce-of-rank-0)
 *   mac(frame)     = MAC(key(direction), number head payload)
 *
 * Invariant: secret and keys lie in one mapping that is wiped before it is given back, and nowhere else.  Must not
 * know: sockets, what frames mean.
 */
#include "bootstrap/auth.h"

#include "bootstrap/auth/auth_module.h"
#include "pool/base/arena.h"
#include "pool/base/module.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define MODULE_NAME "sympool-auth.so"

_Static_assert(SECRET_LEN == AUTH_KEY && WIRE_MAC == AUTH_MAC, "the wire carries the module's sizes");

struct session {
    uint8_t nonce[WIRE_NONCE];
    uint8_t out[AUTH_KEY], in[AUTH_KEY];
    uint64_t n_out, n_in; /* frames so far */
};

struct auth {
    size_t len; /* of this mapping */
    const struct auth_ops *ops;
    uint8_t secret[SECRET_LEN];
    struct session session[];
};

static const struct auth_ops *open_module(void) {
    enum module_fault fault;
    const struct auth_ops *ops = module_open(NULL, MODULE_NAME, "sympool_auth", AUTH_ABI, &fault);
    static const char *const reason[] = {
        [MODULE_FINE] = "",
        [MODULE_ABSENT] = "was not found; install it, or set SYMPOOL_MODULE_DIR to its folder",
        [MODULE_UNLOADABLE] = "cannot be loaded; install libsodium",
        [MODULE_NO_TABLE] = "has no sympool_auth in it; install sympool anew",
        [MODULE_OTHER_VERSION] = "belongs to another version of the library; install sympool anew",
    };
    if (!ops)
        err_set(SYP_EUNSUPPORTED, "join: SYMPOOL_SECRET_FILE is set, but the module " MODULE_NAME " %s", reason[fault]);
    else if (ops->start()) {
        err_set(SYP_EUNSUPPORTED, "join: SYMPOOL_SECRET_FILE is set, but libsodium does not start on this machine");
        ops = NULL;
    }
    return ops;
}

static int refuse(const char *path, const char *why) {
    return err_set(SYP_EINVAL,
                   "join: secret file %s %s; it must be a regular file of %u bytes that only its owner may read", path,
                   why, SECRET_LEN);
}

static int check_file(const char *path, int fd) {
    struct os_file f;
    char why[96];
    int rc = os->file_facts(fd, &f);
    if (rc) return err_sys(SYP_ESYS, rc, "join: secret file %s: fstat", path);
    if (!f.regular) return refuse(path, "is not a regular file");
    if (f.owner != f.self && f.owner != 0) {
        text_format(why, sizeof why, "belongs to user %d, this process runs as user %d", f.owner, f.self);
        return refuse(path, why);
    }
    if (f.mode & 077) {
        text_format(why, sizeof why, "has mode 0%u%u%u, so that others have rights to it", f.mode >> 6 & 7,
                    f.mode >> 3 & 7, f.mode & 7);
        return refuse(path, why);
    }
    if (f.len == 0) return refuse(path, "is empty");
    if (f.len == SECRET_LEN) return SYP_OK;
    text_format(why, sizeof why, "is too %s: it has %llu bytes", f.len < SECRET_LEN ? "short" : "long",
                (unsigned long long)f.len);
    return refuse(path, why);
}

static int read_secret(const char *path, uint8_t secret[SECRET_LEN]) {
    int fd = os->open_nofollow(path);
    if (fd == -ELOOP) return refuse(path, "is a symbolic link");
    if (fd < 0) return err_sys(SYP_ESYS, fd, "join: open secret file %s; check SYMPOOL_SECRET_FILE", path);
    int rc = check_file(path, fd);
    size_t at = 0;
    while (!rc && at < SECRET_LEN) {
        int64_t n = os->read(fd, secret + at, SECRET_LEN - at);
        if (n < 0)
            rc = err_sys(SYP_ESYS, (int)n, "join: read secret file %s", path);
        else if (n == 0)
            rc = refuse(path, "became shorter while it was read");
        else
            at += (size_t)n;
    }
    (void)os->close(fd);
    return rc;
}

int auth_open(const char *path, int sessions, struct auth **out) {
    *out = NULL;
    if (!path || !*path) return SYP_OK;
    const struct auth_ops *ops = open_module();
    if (!ops) return SYP_EUNSUPPORTED;
    size_t len = round_up(sizeof(struct auth) + (size_t)sessions * sizeof(struct session), os_page_size());
    struct auth *a = map_alloc(len);
    if (!a) return err_set(SYP_ENOMEM, "join: no memory for the keys of %d connections", sessions);
    a->len = len;
    a->ops = ops;
    int rc = os->advise(a, len, MADV_DONTDUMP);
    rc = rc ? err_sys(SYP_ESYS, rc, "join: keep the secret out of core dumps") : read_secret(path, a->secret);
    (void)os->advise(a, len, MADV_WIPEONFORK); /* an old kernel has none; a child is this program, too */
    if (rc)
        auth_close(a);
    else
        *out = a;
    return rc;
}

void auth_close(struct auth *a) {
    if (!a) return;
    size_t len = a->len;
    a->ops->wipe(a, len);
    map_free(a, len);
}

int auth_nonce(struct auth *a, int session, uint8_t mine[WIRE_NONCE]) {
    struct session *s = &a->session[session];
    int rc = os->random(s->nonce, sizeof s->nonce);
    if (rc < 0) return rc;
    memcpy(mine, s->nonce, sizeof s->nonce);
    return 0;
}

static void make_key(const struct auth *a, const char *direction, const uint8_t *rank, const uint8_t *root,
                     uint8_t key[AUTH_KEY]) {
    static const char purpose[] = "sympool 1";
    const struct iovec part[] = {{(void *)(uintptr_t)purpose, sizeof purpose},
                                 {(void *)(uintptr_t)direction, strlen(direction) + 1},
                                 {(void *)(uintptr_t)rank, WIRE_NONCE},
                                 {(void *)(uintptr_t)root, WIRE_NONCE}};
    a->ops->mac(a->secret, part, 4, key);
}

void auth_begin(struct auth *a, int session, enum auth_role me, const uint8_t theirs[WIRE_NONCE]) {
    struct session *s = &a->session[session];
    const uint8_t *rank = me == AUTH_RANK ? s->nonce : theirs, *root = me == AUTH_RANK ? theirs : s->nonce;
    make_key(a, "to rank 0", rank, root, me == AUTH_RANK ? s->out : s->in);
    make_key(a, "from rank 0", rank, root, me == AUTH_RANK ? s->in : s->out);
    s->n_out = s->n_in = 0;
}

static void frame_mac(const struct auth *a, const uint8_t key[AUTH_KEY], uint64_t number, const void *head,
                      const void *payload, size_t len, uint8_t mac[WIRE_MAC]) {
    uint8_t n[8];
    struct wire w = {.buf = n, .cap = sizeof n};
    wire_put_u64(&w, number);
    const struct iovec part[] = {
        {n, sizeof n}, {(void *)(uintptr_t)head, WIRE_HEAD}, {(void *)(uintptr_t)payload, len}};
    a->ops->mac(key, part, 3, mac);
}

void auth_seal(struct auth *a, int session, const void *head, const void *payload, size_t len, uint8_t mac[WIRE_MAC]) {
    struct session *s = &a->session[session];
    frame_mac(a, s->out, s->n_out++, head, payload, len, mac);
}

int auth_check(struct auth *a, int session, const void *head, const void *payload, size_t len,
               const uint8_t mac[WIRE_MAC]) {
    struct session *s = &a->session[session];
    uint8_t wanted[WIRE_MAC];
    frame_mac(a, s->in, s->n_in++, head, payload, len, wanted);
    int fine = a->ops->equal(wanted, mac);
    a->ops->wipe(wanted, sizeof wanted);
    return fine;
}
