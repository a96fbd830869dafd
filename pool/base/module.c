/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding and opening modules.
 *
 * Invariant: a table that was handed out stays valid: no module is ever unloaded.  Must not know: what modules do, and
 * whether one that is missing matters.
 */
#include "pool/base/module.h"

#include "pool/base/conf.h"
#include "pool/base/log.h"
#include "pool/base/os.h"
#include "pool/base/text.h"

#include <dlfcn.h>
#include <string.h>

#define PATH_CAP 4096

struct want {
    const char *name, *symbol;
    unsigned abi;
};

/* The module at path.  NULL: *fault says what is wrong with it, and is left alone when it is not there. */
static const void *open_at(const struct want *w, const char *path, enum module_fault *fault) {
    int fd = os->open_read(path); /* dlopen would not tell "not there" from "cannot be loaded" */
    if (fd < 0) return NULL;
    (void)os->close(fd);
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!module) {
        const char *reason = dlerror();
        log_info("load %s: %s", path, reason ? reason : "no reason given");
        *fault = MODULE_UNLOADABLE;
        return NULL;
    }
    const unsigned *table = dlsym(module, w->symbol);
    if (table && *table == w->abi) {
        log_debug("opened %s", path);
        return table;
    }
    *fault = table ? MODULE_OTHER_VERSION : MODULE_NO_TABLE;
    log_info("load %s: interface %u wanted, %u found", path, w->abi, table ? *table : 0);
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

const void *module_open(const char *dir, const char *name, const char *symbol, unsigned abi, enum module_fault *fault) {
    static const char *const beside[] = {"modules", "sympool"};
    const struct want w = {name, symbol, abi};
    char path[PATH_CAP];
    const char *file = NULL;
    const void *table = NULL;
    *fault = MODULE_ABSENT;
    if (!dir) dir = conf_str(CONF_MODULE_DIR);
    if (dir && *dir) {
        text_format(path, sizeof path, "%s/%s", dir, name);
        table = open_at(&w, path, fault);
    }
    int len = own_folder(&file);
    for (size_t i = 0; !table && len > 0 && i < sizeof beside / sizeof beside[0]; i++) {
        text_format(path, sizeof path, "%.*s/%s/%s", len, file, beside[i], name);
        table = open_at(&w, path, fault);
    }
    if (table) *fault = MODULE_FINE;
    return table;
}
