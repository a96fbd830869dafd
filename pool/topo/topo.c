/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening the placement module, and placing memory as it says.
 *
 * Invariant: a module that is missing, cannot be loaded or is of another version is a reason, never a failure.  Must not
 * know: hwloc, libnuma, what the answers are used for.
 */
#include "pool/topo/topo.h"

#include "pool/base/module.h"
#include "pool/base/os.h"

#include <errno.h>
#include <linux/mempolicy.h>

#define MODULE_NAME "sympool-topo.so"
/* An enumerator in new kernel headers, absent from those before Linux 5.15. */
#define PREFERRED_MANY 5

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

int topo_bind(void *at, size_t len, const unsigned long *nodes, unsigned long max_node) {
    int rc = os->bind_memory(at, len, PREFERRED_MANY, nodes, max_node);
    if (rc == -EINVAL) rc = os->bind_memory(at, len, MPOL_PREFERRED, nodes, max_node); /* before Linux 5.15: one node, the first of the mask */
    return rc;
}
