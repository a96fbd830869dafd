/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Modules: shared objects with what needs more than libc, opened at attach when it is wanted and never unloaded.  A
 * module exports one symbol, a table whose first member is an `unsigned` with the version of its interface.
 */
#ifndef SYP_BASE_MODULE_H
#define SYP_BASE_MODULE_H

enum module_fault { MODULE_FINE, MODULE_ABSENT, MODULE_UNLOADABLE, MODULE_NO_TABLE, MODULE_OTHER_VERSION };

/* Look for name in dir (NULL = SYMPOOL_MODULE_DIR), then beside the library (modules/), then in its installed place
 * (sympool/ beside the library).  Returns the table, or NULL with *fault; details are lines at level info. */
const void *module_open(const char *dir, const char *name, const char *symbol, unsigned abi, enum module_fault *fault);

#endif
