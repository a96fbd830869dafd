/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory files of this process: memfd; where that is refused (seccomp, an old kernel), a file of /dev/shm that is created
 * under a random name and unlinked at once.  Such a file cannot be sealed: its seals are F_SEAL_SEAL alone, and a peer of the
 * same user could resize it.
 */
#ifndef SYP_BASE_MEMORY_FILE_H
#define SYP_BASE_MEMORY_FILE_H

#include <stdint.h>

/* Find out which kind this process gets; each attach does it before it says to the peers which.  1 = files of /dev/shm. */
int memory_file_probe(void);
/* A new empty file, huge_shift as for os->memfd: descriptor or -errno.  *call (may be NULL): which call was refused. */
int memory_file_open(const char *name, int huge_shift, const char **call);
/* Seal it, if it can be sealed: 0 or -errno.  -EPERM from a file that cannot is no error. */
int memory_file_seal(int fd, int seals);
/* 1 = these seals are those of a file that cannot be sealed. */
int memory_file_unsealable(int seals);
/* 1 = fd is still our file of this length that was sealed so.  Programs close descriptors they do not know, and the number may
 * since name a file of theirs. */
int memory_file_is_ours(int fd, uint64_t len, int seals);
/* "; /dev/shm has ..., raise it" behind the text of the record just set, when fd is a file of /dev/shm.  1 = it was. */
int memory_file_say_space(int fd);

#endif
