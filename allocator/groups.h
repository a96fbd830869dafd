/* SPDX-License-Identifier: Apache-2.0 */
/* From the handles and options of the C face to groups and deadlines. */
#ifndef SYP_ALLOCATOR_GROUPS_H
#define SYP_ALLOCATOR_GROUPS_H

#include "allocator/process.h"
#include "allocator/sympool.h"
#include "collectives/coll.h"

/* SYP_OK, or SYP_ESTATE, SYP_EFORKED with the record set.  call: name of the public function without syp_. */
int find_other_group(const char *call, const syp_comm *handle, struct comm **out);
static inline int find_group(const char *call, const syp_comm *handle, struct comm **out) {
    struct world *w = handle == SYP_COMM_WORLD ? process_world() : NULL;
    if (__builtin_expect(!w, 0)) return find_other_group(call, handle, out);
    *out = &w->coll.comm[WORLD_SLOT];
    return SYP_OK;
}
/* And the timeout; < 0: the options are not usable, which is refused where the other members learn of it. */
static inline int find_call(const char *call, const syp_comm *handle, const syp_call *options, struct comm **out, int64_t *timeout_ns) {
    *timeout_ns = 0;
    if (options) *timeout_ns = options->size < sizeof *options || options->timeout_ns < 0 ? -1 : options->timeout_ns;
    return find_group(call, handle, out);
}

#endif
