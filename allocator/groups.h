/* SPDX-License-Identifier: Apache-2.0 */
/* From the handles and options of the C face to groups and deadlines. */
#ifndef SYP_ALLOCATOR_GROUPS_H
#define SYP_ALLOCATOR_GROUPS_H

#include "allocator/sympool.h"
#include "collectives/coll.h"

/* SYP_OK, or SYP_ESTATE, SYP_EFORKED with the record set.  call: name of the public function without syp_. */
int find_group(const char *call, const syp_comm *handle, struct comm **out);
/* And the timeout; < 0: the options are not usable, which is refused where the other members learn of it. */
int find_call(const char *call, const syp_comm *handle, const syp_call *options, struct comm **out, int64_t *timeout_ns);

#endif
