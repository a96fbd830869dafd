/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The settings: one table, CONF_TABLE in conf_table.h: name, kind, default, range, help.  Values come from SYMPOOL_<NAME> in the
 * environment, read once with secure_getenv semantics and by walking environ (no getenv lock, no malloc), then frozen
 * until conf_reset().  A value that does not parse or is out of range: warning naming the value, the range and the default, and
 * the default is used.  An unknown SYMPOOL_* key: warning with the nearest name, if one is near.
 */
#ifndef SYP_BASE_CONF_H
#define SYP_BASE_CONF_H

#include <stddef.h>
#include <stdint.h>

enum conf_kind { CONF_INT, CONF_SIZE, CONF_DURATION, CONF_ENUM, CONF_FLAGS, CONF_STRING };

enum conf_key {
#define CONF(key, name, kind, def, min, max, choices, help) key,
#include "pool/base/conf_table.h"
#undef CONF
    CONF_N
};

struct conf_entry {
    const char *name; /* with the SYMPOOL_ prefix */
    enum conf_kind kind;
    const char *def;    /* as text, in the kind's grammar */
    const char *min, *max; /* as text; NULL = no bound; CONF_STRING: unused */
    /* CONF_ENUM: "lazy|full"; the value is the index.  CONF_FLAGS: the words of a comma list, bit 0 first; "off" = 0, "on" = all */
    const char *choices;
    const char *help;
};

const struct conf_entry *conf_entry(enum conf_key key);

/* Read the environment now if it was not read yet.  Idempotent, called by every getter. */
void conf_freeze(void);
/* Forget the values: the next getter reads the environment again (each attach does this once). */
void conf_reset(void);
/* In the forked child: usable again, whatever another thread of the parent was doing. */
void conf_after_fork(void);

int64_t conf_int(enum conf_key key);     /* CONF_INT, CONF_ENUM (index of the choice), CONF_FLAGS (bits), CONF_DURATION (ns; "off" = -1, where the
                                           * least value of the setting is "off") */
uint64_t conf_size(enum conf_key key);   /* CONF_SIZE */
/* CONF_STRING, NULL = not set and no default; any kind: its text.  Valid until the second conf_reset that found the settings changed. */
const char *conf_str(enum conf_key key);
int conf_is_set(enum conf_key key);      /* 1 if the environment gave a usable value */

/* Value of any variable of the environment (launchers' too), NULL when absent or when the process is AT_SECURE.  Own walk. */
const char *conf_environ(const char *name);

#endif
