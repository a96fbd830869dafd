/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which host this is, as far as sharing memory goes: two processes with the same identity run under one kernel and in
 * the same pid, user, ipc and net namespaces, so that they can pass descriptors and watch each other.
 */
#ifndef SYP_BOOTSTRAP_HOSTID_H
#define SYP_BOOTSTRAP_HOSTID_H

#include <stdint.h>

/* 128-bit digest of the boot id and the namespaces, and of SYMPOOL_HOST_ID where it is set; what cannot be read counts as "unknown". */
void host_identity(uint64_t id[2]);

#endif
