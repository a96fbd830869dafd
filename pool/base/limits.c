/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which limit belongs to which errno.  Must not know: what was refused.
 */
#include "pool/base/limits.h"

#include "pool/base/os.h"
#include "pool/base/status.h"
#include "pool/base/text.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

static void add_limit(struct text *t, const char *what, int resource, int bytes) {
    uint64_t n;
    if (os->limit(resource, &n) < 0)
        text_addf(t, "%s unknown", what);
    else if (n == UINT64_MAX)
        text_addf(t, "%s unlimited", what);
    else
        text_addf(t, bytes ? "%s %B" : "%s %llu", what, (unsigned long long)n);
}

static void add_file(struct text *t, const char *what, const char *path) {
    char value[32];
    if (os_read_file(path, value, sizeof value) <= 0) return;
    value[strcspn(value, "\n")] = 0;
    text_addf(t, "%s %s", what, value);
}

int err_limits(int sys_errno) {
    struct syp_error *e = err_record();
    struct text t = {e->text, sizeof e->text, strlen(e->text)};
    switch (sys_errno < 0 ? -sys_errno : sys_errno) {
    case ENOMEM:
        add_limit(&t, "; limits: address space (ulimit -v)", RLIMIT_AS, 1);
        add_limit(&t, ", data (ulimit -d)", RLIMIT_DATA, 1);
        add_file(&t, ", mappings (vm.max_map_count)", "/proc/sys/vm/max_map_count");
        add_file(&t, ", vm.overcommit_memory", "/proc/sys/vm/overcommit_memory");
        break;
    case EMFILE:
    case ETOOMANYREFS:
        add_limit(&t, "; limit: open files (ulimit -n)", RLIMIT_NOFILE, 0);
        break;
    case ENFILE:
        add_file(&t, "; limit: open files of the machine (fs.file-max)", "/proc/sys/fs/file-max");
        break;
    case EFBIG:
        add_limit(&t, "; limit: file size (ulimit -f)", RLIMIT_FSIZE, 1);
        break;
    case EAGAIN:
        add_limit(&t, "; limits: processes (ulimit -u)", RLIMIT_NPROC, 0);
        text_addf(&t, ", pids.max of the cgroup");
        break;
    default:
        break;
    }
    return e->code;
}
