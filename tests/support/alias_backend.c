/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/alias_backend.h"
#include "pool/base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int map(char *at, uint64_t len, int fd, uint64_t off) {
    return mmap(at, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, (off_t)off) == MAP_FAILED ? -errno : 0;
}

int alias_map(char *at, int fd, uint64_t off, unsigned slabs) {
    int rc = 0;
    for (unsigned s = 0; s < slabs && rc == 0; s++) {
        for (unsigned k = 0; k < ALIAS_WINDOWS && rc == 0; k++, at += ALIAS_WINDOW)
            rc = map(at, ALIAS_WINDOW, fd, off);
        if (rc == 0) rc = map(at, ALIAS_TAIL, fd, off + ALIAS_WINDOW);
        at += ALIAS_TAIL;
        off += ALIAS_WINDOW + ALIAS_TAIL;
    }
    return rc ? rc : map(at, ALIAS_PAGE, fd, off);
}

/* ------------------------------------------------------------------------------------------------- backend */

/* Not BACKEND_HOST_ACCESS: its length must not be compared with the memory of the machine. */
static unsigned alias_caps(void) {
    return BACKEND_SHARE_FD;
}

static uint64_t alias_granularity(int huge) {
    (void)huge;
    return ALIAS_PAGE;
}

static int map_region(struct backend_region *r, int fd, uint64_t len, void *at) {
    *r = (struct backend_region){.base = at, .len = len, .fd = -1};
    if (len != ALIAS_REGION || !at)
        return err_set(SYP_EINVAL, "a region of windows has %llu bytes, not %llu", (unsigned long long)ALIAS_REGION, (unsigned long long)len);
    int rc = map(r->base, ALIAS_META, fd, 0);
    for (int i = 0; i < 2 && rc == 0; i++)
        rc = alias_map(r->base + ALIAS_AREA((unsigned)i), fd, ALIAS_META + (uint64_t)i * ALIAS_BYTES(ALIAS_SLABS), ALIAS_SLABS);
    return rc ? err_sys(SYP_ESYS, rc, "map a region of windows") : SYP_OK;
}

static int alias_create(struct backend_region *r, const struct backend_request *req, void *at) {
    int fd = memfd_create(req->name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)(ALIAS_META + 2 * ALIAS_BYTES(ALIAS_SLABS))) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return err_sys(SYP_ESYS, -errno, "file of a region of windows");
    int rc = map_region(r, fd, req->len, at);
    r->fd = fd;
    return rc;
}

static int alias_unimport(struct backend_region *r) {
    mmap(r->base, r->len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0); /* the caller's reservation again */
    return SYP_OK;
}

static int alias_destroy(struct backend_region *r) {
    close(r->fd);
    r->fd = -1;
    return alias_unimport(r);
}

/* Memory comes as it is touched. */
static int alias_commit(struct backend_region *r, uint64_t off, uint64_t len) {
    (void)r, (void)off, (void)len;
    return SYP_OK;
}

static int alias_make_private(struct backend_region *r) {
    (void)r;
    return -EOPNOTSUPP;
}

static int alias_export(const struct backend_region *r) {
    return r->fd;
}

static int alias_import(struct backend_region *r, int fd, uint64_t len, void *at) {
    return map_region(r, fd, len, at);
}

static int alias_event_record(void *stream, backend_event *out) {
    (void)stream;
    *out = 0;
    return SYP_OK;
}

static int alias_event_query(backend_event e) {
    (void)e;
    return 1;
}

const struct backend_ops alias_backend = {
    .name = "windows",
    .caps = alias_caps,
    .granularity = alias_granularity,
    .create = alias_create,
    .destroy = alias_destroy,
    .commit = alias_commit,
    .decommit = alias_commit,
    .make_private = alias_make_private,
    .export_fd = alias_export,
    .import_fd = alias_import,
    .unimport = alias_unimport,
    .event_record = alias_event_record,
    .event_query = alias_event_query,
};
