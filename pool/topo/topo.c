/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening the placement module.
 *
 * Invariant: a module that is missing, cannot be loaded or is of another version is a reason, never a failure.  Must not
 * know: hwloc, libnuma, what the answers are used for.
 */
#include "pool/topo/topo.h"

#include "pool/base/module.h"

#define MODULE_NAME "sympool-topo.so"

const struct topo_ops *topo_open(const char *dir, const char **why) {
    static const char *const reason[] = {
        [MODULE_FINE] = "",
        [MODULE_ABSENT] = MODULE_NAME " was not found (SYMPOOL_MODULE_DIR names its folder)",
        [MODULE_UNLOADABLE] = MODULE_NAME " cannot be loaded (are libhwloc and libnuma installed?)",
        [MODULE_NO_TABLE] = MODULE_NAME " has no sympool_topo in it",
        [MODULE_OTHER_VERSION] = MODULE_NAME " belongs to another version of the library",
    };
    enum module_fault fault;
    const struct topo_ops *ops = module_open(dir, MODULE_NAME, "sympool_topo", TOPO_ABI, &fault);
    *why = reason[fault];
    return ops;
}
