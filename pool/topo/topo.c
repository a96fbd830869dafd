/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding and opening the placement module.
 *
 * Invariant: a table that was handed out stays valid: the module is never unloaded.  A module that is missing, cannot
 * be loaded or is of another version is a reason, never a failure. Must not know: hwloc, libnuma, what the answers are
 * used for.
 */
#include "pool/topo/topo.h"

#include "pool/base/conf.h"
#include "pool/base/log.h"
#include "pool/base/os.h"
#include "pool/base/text.h"

#include <dlfcn.h>
#include <string.h>

#define MODULE_NAME "sympool-topo.so"
#define PATH_CAP 4096

/* The module at path.  NULL: *why says what is wrong with it, and is left alone when it is not there. */
static const struct topo_ops *open_at(const char *path, const char **why) {
    int fd = os->open_read(path); /* dlopen would not tell "not there" from "cannot be loaded" */
    if (fd < 0) return NULL;
    (void)os->close(fd);
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!module) {
        const char *reason = dlerror();
        log_info("load %s: %s", path, reason ? reason : "no reason given");
        *why = MODULE_NAME " cannot be loaded (are libhwloc and libnuma installed?)";
        return NULL;
    }
    const struct topo_ops *ops = dlsym(module, "sympool_topo");
    if (ops && ops->abi == TOPO_ABI) {
        log_debug("placement by %s", path);
        return ops;
    }
    *why = ops ? MODULE_NAME " belongs to another version of the library" : MODULE_NAME " has no sympool_topo in it";
    log_info("load %s: interface %u wanted, %u found", path, TOPO_ABI, ops ? ops->abi : 0);
    return NULL;
}

/* Length of the folder part of the file this code was loaded from; 0 = not known. */
static int own_folder(const char **file) {
    Dl_info info;
    static const char mark = 0;
    if (!dladdr(&mark, &info) || !info.dli_fname) return 0;
    const char *slash = strrchr(info.dli_fname, '/');
    *file = info.dli_fname;
    return slash && slash - info.dli_fname < PATH_CAP ? (int)(slash - info.dli_fname) : 0;
}

const struct topo_ops *topo_open(const char *dir, const char **why) {
    static const char *const beside[] = {"modules", "sympool"};
    char path[PATH_CAP];
    const char *file = NULL;
    *why = MODULE_NAME " was not found (SYMPOOL_MODULE_DIR names its folder)";
    if (!dir) dir = conf_str(CONF_MODULE_DIR);
    if (dir && *dir) {
        text_format(path, sizeof path, "%s/%s", dir, MODULE_NAME);
        const struct topo_ops *ops = open_at(path, why);
        if (ops) return ops;
    }
    int len = own_folder(&file);
    for (size_t i = 0; len > 0 && i < sizeof beside / sizeof beside[0]; i++) {
        text_format(path, sizeof path, "%.*s/%s/%s", len, file, beside[i], MODULE_NAME);
        const struct topo_ops *ops = open_at(path, why);
        if (ops) return ops;
    }
    return NULL;
}
