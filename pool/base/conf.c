/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The settings: read from the environment into a snapshot, then frozen.
 *
 * Invariants: a published snapshot is not written while it is in force; texts are copies, so a later setenv does not
 * change or invalidate them.  There are two snapshots, used in turn, and a new one is made only when the environment's
 * SYMPOOL_* text changed: a string from conf_str stays valid until the second change.  Must not know: what a setting
 * does.
 */
#include "pool/base/conf.h"
#include "pool/base/atomic.h"
#include "pool/base/lock.h"
#include "pool/base/log.h"
#include "pool/base/text.h"

#include <string.h>
#include <sys/auxv.h>

extern char **environ;

#define PREFIX "SYMPOOL_"
#define PREFIX_LEN (sizeof PREFIX - 1)
#define VALUE_MAX_LEN 1024 /* of one value, NUL included */
#define TEXTS_LEN 8192     /* of all values together */
#define NAME_MAX_LEN 64    /* of an unknown key, as far as it is compared */

static const struct conf_entry entries[CONF_N] = {
#define CONF(key, name, kind, def, min, max, choices, help) {name, kind, def, min, max, choices, help},
#include "pool/base/conf_table.h"
#undef CONF
};

static const uint8_t name_len[CONF_N] = {
#define CONF(key, name, kind, def, min, max, choices, help) sizeof(name) - 1,
#include "pool/base/conf_table.h"
#undef CONF
};

struct snapshot {
    uint64_t digest; /* of the SYMPOOL_* text it was made from */
    size_t used;     /* bytes of texts */
    struct {
        int64_t number; /* sizes as their bit pattern */
        const char *text;
        int is_set;
    } value[CONF_N];
    char texts[TEXTS_LEN];
};

static struct snapshot snapshots[2];
/* In force, NULL = read again.  Release in freeze pairs with the acquire in every getter. */
static _Atomic(const struct snapshot *) frozen;
/* Guards the making of a snapshot; latest: the last one made, also after conf_reset. */
static struct lock freeze_lock = LOCK_INIT(LOCK_LEAF);
static struct snapshot *latest;

const struct conf_entry *conf_entry(enum conf_key key) {
    return &entries[key];
}

/* A set-user-ID program must not be steered by its caller's environment. */
static char **environment(void) {
    static char *none[] = {NULL};
    return environ && !getauxval(AT_SECURE) ? environ : none;
}

const char *conf_environ(const char *name) {
    for (char **e = environment(); *e; e++) {
        size_t n = 0;
        while (name[n] && (*e)[n] == name[n])
            n++;
        if (!name[n] && (*e)[n] == '=') return *e + n + 1;
    }
    return NULL;
}

/* Number of the setting of this name; CONF_N = there is none. */
static int key_of(const char *name, size_t len) {
    int key = 0;
    while (key < CONF_N && (name_len[key] != len || memcmp(entries[key].name, name, len) != 0))
        key++;
    return key;
}

static uint64_t environment_digest(void) {
    uint64_t h = 14695981039346656037ull; /* FNV-1a */
    for (char **e = environment(); *e; e++) {
        if (strncmp(*e, PREFIX, PREFIX_LEN) != 0) continue;
        /* the NUL is part of it, so that two variables cannot pass for one */
        for (const char *c = *e;; c++) {
            h = (h ^ (unsigned char)*c) * 1099511628211ull;
            if (!*c) break;
        }
    }
    return h;
}

/* Index of `text` among "lazy|full", in either case of letters; -1 = none of them. */
static int choice_index(const char *choices, const char *text, size_t len) {
    int index = 0;
    for (const char *c = choices;; index++) {
        size_t n = strcspn(c, "|");
        if (n == len && strncasecmp(c, text, len) == 0) return index;
        if (!c[n]) return -1;
        c += n + 1;
    }
}

static int choice_count(const char *choices) {
    int n = 1;
    for (const char *c = choices; *c; c++)
        n += *c == '|';
    return n;
}

/* "guard,junk" to bits; one unknown word spoils the list. */
static int parse_flags(const char *choices, const char *text, int64_t *out) {
    *out = 0;
    if (strcasecmp(text, "off") == 0) return 0;
    if (strcasecmp(text, "on") == 0) {
        *out = (INT64_C(1) << choice_count(choices)) - 1;
        return 0;
    }
    for (const char *word = text;; word++) {
        size_t len = strcspn(word, ",");
        int index = choice_index(choices, word, len);
        if (index < 0) return -1;
        *out |= INT64_C(1) << index;
        word += len;
        if (!*word) return 0;
    }
}

/* Text to number, without the bounds; -1 = not in the grammar. */
static int parse_number(enum conf_kind kind, const char *text, int64_t *out) {
    uint64_t size;
    if (kind == CONF_INT) return text_to_i64(text, out);
    if (kind == CONF_DURATION && (strcasecmp(text, "off") == 0 || strcmp(text, "-1") == 0)) return *out = -1, 0;
    if (kind == CONF_DURATION) return text_to_duration(text, out);
    if (text_to_size(text, &size)) return -1;
    *out = (int64_t)size;
    return 0;
}

static int below(enum conf_kind kind, int64_t a, int64_t b) {
    return kind == CONF_SIZE ? (uint64_t)a < (uint64_t)b : a < b;
}

/* 0, or -1 when the text does not parse or is out of range. */
static int parse_value(const struct conf_entry *e, const char *text, int64_t *out) {
    int64_t bound;
    *out = 0;
    if (strlen(text) >= VALUE_MAX_LEN) return -1;
    if (e->kind == CONF_STRING) return 0;
    if (e->kind == CONF_ENUM) return (*out = choice_index(e->choices, text, strlen(text))) < 0 ? -1 : 0;
    if (e->kind == CONF_FLAGS) return parse_flags(e->choices, text, out);
    if (parse_number(e->kind, text, out)) return -1;
    if (e->min && !parse_number(e->kind, e->min, &bound) && below(e->kind, *out, bound)) return -1;
    if (e->max && !parse_number(e->kind, e->max, &bound) && below(e->kind, bound, *out)) return -1;
    return 0;
}

static const char *snapshot_copy(struct snapshot *s, const char *text) {
    size_t len = strlen(text) + 1;
    if (len > sizeof s->texts - s->used) return NULL;
    char *copy = s->texts + s->used;
    memcpy(copy, text, len);
    s->used += len;
    return copy;
}

/* An empty variable counts as one that is not set. */
static void read_value(struct snapshot *s, enum conf_key key, const char *text) {
    const struct conf_entry *e = &entries[key];
    s->value[key].is_set = 0;
    if (text && *text && parse_value(e, text, &s->value[key].number) == 0) {
        s->value[key].text = snapshot_copy(s, text);
        if (s->value[key].text) {
            s->value[key].is_set = 1;
            return;
        }
    }
    s->value[key].text = e->def;
    s->value[key].number = 0;
    if (e->def) (void)parse_value(e, e->def, &s->value[key].number);
}

/* In one pass over the environment, which may be long; of two variables of one name the first counts, as in getenv. */
static void read_values(struct snapshot *s) {
    const char *text[CONF_N] = {NULL};
    for (char **v = environment(); *v; v++) {
        if (strncmp(*v, PREFIX, PREFIX_LEN) != 0) continue;
        size_t len = strcspn(*v, "=");
        int key = (*v)[len] ? key_of(*v, len) : CONF_N;
        if (key < CONF_N && !text[key]) text[key] = *v + len + 1;
    }
    for (int k = 0; k < CONF_N; k++)
        read_value(s, (enum conf_key)k, text[k]);
}

/* What must be changed for a into b, one letter at a time; `most` when it is that or more. */
static unsigned edit_distance(const char *a, size_t la, const char *b, size_t lb, unsigned most) {
    unsigned row[NAME_MAX_LEN + 1];
    if ((la < lb ? lb - la : la - lb) >= most) return most;
    for (unsigned j = 0; j <= lb; j++)
        row[j] = j;
    for (unsigned i = 1; i <= la; i++) {
        unsigned diagonal = row[0], least = i;
        row[0] = i;
        for (unsigned j = 1; j <= lb; j++) {
            unsigned best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
            if (best < least) least = best;
        }
        if (least >= most) return most; /* the rows below are not smaller */
    }
    return row[lb] < most ? row[lb] : most;
}

static void warn_unknown(const char *key, size_t len) {
    const char *nearest = NULL;
    size_t compared = len < NAME_MAX_LEN ? len : NAME_MAX_LEN, tail = compared - PREFIX_LEN;
    unsigned least = (unsigned)tail / 2 + 1; /* a name of which more than half differs is no help */
    for (int k = 0; k < CONF_N; k++) {
        unsigned d = edit_distance(key + PREFIX_LEN, tail, entries[k].name + PREFIX_LEN, name_len[k] - PREFIX_LEN, least);
        if (d < least) least = d, nearest = entries[k].name;
    }
    log_warn("%.*s is no setting of this version and is ignored%s%s", (int)compared, key, nearest ? "; the nearest is " : "",
             nearest ? nearest : "");
}

static void warn_bad_value(const struct conf_entry *e, const char *text) {
    char range[128];
    struct text t = TEXT_INIT(range);
    switch (e->kind) {
    case CONF_INT:
        text_addf(&t, "a whole number, %s to %s", e->min, e->max);
        break;
    case CONF_SIZE:
        text_addf(&t, "a size such as 512M, %s to %s", e->min, e->max);
        break;
    case CONF_DURATION:
        text_addf(&t, "a time such as 30s or 50us, %s to %s", e->min, e->max);
        break;
    case CONF_ENUM:
        text_addf(&t, "one of %s", e->choices);
        break;
    case CONF_FLAGS:
        text_addf(&t, "off, on or a comma list of %s", e->choices);
        break;
    case CONF_STRING:
        text_addf(&t, "a text of at most %d bytes", VALUE_MAX_LEN - 1);
        break;
    }
    log_warn("%s=%.*s is not usable: expected %s; using %s", e->name, 128, text, range, e->def ? e->def : "none");
}

/* Say what is wrong with the environment; reads it again, so that no text has to be kept and no lock is held. */
static void report(const struct snapshot *s) {
    for (char **v = environment(); *v; v++) {
        if (strncmp(*v, PREFIX, PREFIX_LEN) != 0) continue;
        size_t len = strcspn(*v, "=");
        int key = key_of(*v, len);
        const char *text = (*v)[len] ? *v + len + 1 : "";
        if (key == CONF_N)
            warn_unknown(*v, len);
        else if (*text && !s->value[key].is_set)
            warn_bad_value(&entries[key], text);
    }
}

/* Makes or finds the snapshot and puts it in force; `changed`: its problems were not reported yet. */
static const struct snapshot *freeze(int *changed) {
    lock_take(&freeze_lock);
    const struct snapshot *s = load_acquire(&frozen);
    *changed = 0;
    if (!s) {
        uint64_t digest = environment_digest();
        if (!latest || latest->digest != digest) {
            latest = latest == &snapshots[0] ? &snapshots[1] : &snapshots[0];
            latest->digest = digest;
            latest->used = 0;
            read_values(latest);
            *changed = 1;
        }
        s = latest;
        store_release(&frozen, s); /* pairs with snapshot() */
    }
    lock_drop(&freeze_lock);
    return s;
}

static const struct snapshot *snapshot(void) {
    const struct snapshot *s = load_acquire(&frozen); /* pairs with freeze */
    if (__builtin_expect(s != NULL, 1)) return s;
    int changed;
    s = freeze(&changed);
    if (changed) {
        log_start(); /* the level decides whether the report is wanted; it finds the snapshot in force */
        report(s);
    }
    return s;
}

void conf_freeze(void) {
    (void)snapshot();
}

void conf_reset(void) {
    store_release(&frozen, NULL); /* pairs with snapshot() */
}

void conf_after_fork(void) {
    lock_reset(&freeze_lock);
}

int64_t conf_int(enum conf_key key) {
    return snapshot()->value[key].number;
}

uint64_t conf_size(enum conf_key key) {
    return (uint64_t)snapshot()->value[key].number;
}

const char *conf_str(enum conf_key key) {
    return snapshot()->value[key].text;
}

int conf_is_set(enum conf_key key) {
    return snapshot()->value[key].is_set;
}
