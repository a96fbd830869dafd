/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory files and their fallback.
 *
 * Invariant: within one attach all files of a process are of one kind, the one its peers were told.  Must not know:
 * what the files are for.
 */
#include "pool/base/memory_file.h"

#include "pool/base/atomic.h"
#include "pool/base/log.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* Written by attach before it opens files; no other data hangs on it, hence relaxed. */
static _Atomic int by_name;

static int is_refused(int r) {
    return r == -ENOSYS || r == -EPERM || r == -EACCES;
}

int memory_file_probe(void) {
    int fd = os->memfd("sympool.probe", 0);
    if (fd >= 0) (void)os->close(fd);
    if (is_refused(fd) && !load_relaxed(&by_name)) {
        char why[96];
        struct text t = TEXT_INIT(why);
        text_add_errno(&t, -fd);
        log_warn("memfd_create: %s; using unlinked files in /dev/shm, which cannot be sealed: their size is limited by that file system, "
                 "and a process of the same user could resize them; let the process call memfd_create (seccomp)",
                 why);
    }
    store_relaxed(&by_name, is_refused(fd));
    return is_refused(fd);
}

int memory_file_open(const char *name, int huge_shift, const char **call) {
    const char *dummy;
    if (!call) call = &dummy;
    *call = "memfd_create";
    if (!load_relaxed(&by_name)) return os->memfd(name, huge_shift);
    if (huge_shift) return -ENOSYS;
    *call = "create a file in /dev/shm";
    int fd = os->shm_file();
    if (fd < 0) return fd;
    *call = "look at the file created in /dev/shm (a tmpfs must be mounted there)";
    int seals = os->file_seals(fd);
    if (seals >= 0) return fd;
    (void)os->close(fd);
    return seals;
}

int memory_file_unsealable(int seals) {
    return seals == F_SEAL_SEAL;
}

int memory_file_seal(int fd, int seals) {
    int rc = os->file_seal(fd, seals);
    return rc == -EPERM && memory_file_unsealable(os->file_seals(fd)) ? 0 : rc;
}

int memory_file_is_ours(int fd, uint64_t len, int seals) {
    uint64_t size;
    int have = os->file_seals(fd);
    if (have == -EBADF || have == -EINVAL) return 0;
    if (have >= 0 && (have & seals) != seals && !memory_file_unsealable(have)) return 0;
    int rc = os->file_size(fd, &size);
    return rc != -EINVAL && (rc < 0 || size == len);
}

int memory_file_say_space(int fd) {
    uint64_t total, left;
    if (fd < 0 || !memory_file_unsealable(os->file_seals(fd)) || os->file_space(fd, &total, &left) < 0) return 0;
    struct syp_error *e = err_record();
    struct text t = {e->text, sizeof e->text, strlen(e->text)};
    text_addf(&t, "; /dev/shm has %B, %B free: raise it (docker run --shm-size, mount -o remount,size=), or let the process call memfd_create",
              (unsigned long long)total, (unsigned long long)left);
    return 1;
}
