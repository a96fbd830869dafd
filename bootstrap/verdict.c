/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the ranks disagree about, in words: a pure function of the hellos that rank 0 has.
 *
 *   "rank 2 has meta_size 0, ranks 0, 1, 3 have 1048576; give all ranks the same SYMPOOL_META_SIZE"
 *
 * Must not know: connections, deadlines.
 */
#include "bootstrap/star.h"

#include <string.h>

#define GROUPS_SHOWN 4

/* Fields that must be equal on all ranks, the most telling first. */
static uint64_t get_world(const struct hello *h) {
    return (uint64_t)h->n_ranks;
}
static uint64_t get_library(const struct hello *h) {
    return h->library;
}
static uint64_t get_layout(const struct hello *h) {
    return h->layout;
}
static uint64_t get_page(const struct hello *h) {
    return h->page_size;
}
static uint64_t get_meta(const struct hello *h) {
    return h->self.meta_size;
}
static uint64_t get_staging(const struct hello *h) {
    return h->staging_size;
}
static uint64_t get_settings(const struct hello *h) {
    return h->settings;
}

static const struct field {
    uint64_t (*get)(const struct hello *h);
    const char *one, *many; /* verb for one rank and for several, with the noun */
    const char *one_short, *many_short;
    int hex;
    const char *turn;
} fields[] = {
    {get_world, "says world size", "say world size", "says", "say", 0,
     "start all ranks with the same SYMPOOL_WORLD_SIZE"},
    {get_library, "runs sympool version", "run sympool version", "runs", "run", 0, "install one version for all ranks"},
    {get_layout, "has memory layout", "have memory layout", "has", "have", 1, "install one build for all ranks"},
    {get_page, "has page size", "have page size", "has", "have", 0, "run all ranks on machines with one page size"},
    {get_meta, "has meta_size", "have meta_size", "has", "have", 0, "give all ranks the same SYMPOOL_META_SIZE"},
    {get_staging, "has staging_size", "have staging_size", "has", "have", 0,
     "give all ranks the same SYMPOOL_STAGING_SIZE"},
    {get_settings, "has settings digest", "have settings digest", "has", "have", 1,
     "give all ranks the same SYMPOOL_COLL_* environment"},
};
#define N_FIELDS (sizeof fields / sizeof *fields)

int disagrees(const struct hello *mine, const struct hello *h) {
    for (size_t i = 0; i < N_FIELDS; i++)
        if (fields[i].get(mine) != fields[i].get(h)) return 1;
    return 0;
}

/* Hello number i: 0 is rank 0's own, then the members'; NULL = none there. */
static const struct hello *hello_at(const struct star *s, const struct hello *mine, int i) {
    if (i == 0) return mine;
    const struct member *m = &s->member[i - 1];
    return m->state == MEMBER_SAID || m->state == MEMBER_GONE ? &m->hello : NULL;
}

struct group {
    uint64_t value;
    int count;
    int first; /* hello number */
};

/* Distinct values of a field with their counts, the rarest first: those are the ranks to look at.  Returns how many
 * there are, at most `most`. */
static int group_values(const struct star *s, const struct hello *mine, const struct field *f, struct group *g,
                        int most) {
    int n = 0;
    for (int i = 0; i <= s->used; i++) {
        const struct hello *h = hello_at(s, mine, i);
        if (!h) continue;
        int k = 0;
        while (k < n && g[k].value != f->get(h))
            k++;
        if (k == n && n < most) g[n++] = (struct group){f->get(h), 0, i};
        if (k < n) g[k].count++;
    }
    for (int i = 1; i < n; i++) /* in a tie rank 0's value goes last */
        for (int k = i; k > 0 && (g[k].count < g[k - 1].count || (g[k].count == g[k - 1].count && g[k - 1].first == 0));
             k--) {
            struct group swap = g[k];
            g[k] = g[k - 1];
            g[k - 1] = swap;
        }
    return n;
}

static void add_group(struct text *t, const struct star *s, const struct hello *mine, const struct field *f,
                      const struct group *g, int first) {
    uint8_t set[MAX_WORLD] = {0};
    int n = 0;
    for (int i = 0; i <= s->used; i++) {
        const struct hello *h = hello_at(s, mine, i);
        if (!h || f->get(h) != g->value) continue;
        n += !set[h->rank];
        set[h->rank] = 1;
    }
    text_addf(t, "%s%s ", first ? "" : ", ", n == 1 ? "rank" : "ranks");
    text_add_ranks(t, set, MAX_WORLD);
    text_addf(t, " %s ", n == 1 ? (first ? f->one : f->one_short) : (first ? f->many : f->many_short));
    text_addf(t, f->hex ? "%016llx" : "%llu", (unsigned long long)g->value);
}

static void blame(const struct hello *h, int *peer, int64_t *pid) {
    if (*peer >= 0) return;
    *peer = h->rank;
    *pid = h->self.pid;
}

static void add_field(struct text *t, const struct star *s, const struct hello *mine, const struct field *f, int *peer,
                      int64_t *pid) {
    struct group g[GROUPS_SHOWN + 1];
    int n = group_values(s, mine, f, g, GROUPS_SHOWN + 1);
    if (n < 2) return;
    text_addf(t, "%s", t->len ? "; " : "");
    for (int k = 0; k < n && k < GROUPS_SHOWN; k++)
        add_group(t, s, mine, f, &g[k], k == 0);
    text_addf(t, "%s; %s", n > GROUPS_SHOWN ? " and so on" : "", f->turn);
    blame(hello_at(s, mine, g[0].first), peer, pid);
}

static void add_duplicates(struct text *t, const struct star *s, const struct hello *mine, int *peer, int64_t *pid) {
    uint8_t seen[MAX_WORLD] = {0};
    for (int i = 0; i <= s->used; i++) {
        const struct hello *h = hello_at(s, mine, i);
        if (!h || seen[h->rank]) continue;
        seen[h->rank] = 1;
        int times = 1;
        for (int k = i + 1; k <= s->used; k++) {
            const struct hello *other = hello_at(s, mine, k);
            times += other && other->rank == h->rank;
        }
        if (times == 1) continue;
        text_addf(t, "%srank %d joined %s, from %s (pid %d)", t->len ? "; " : "", h->rank,
                  times == 2 ? "twice" : "several times", i ? s->member[i - 1].addr : "rank 0's own host", h->self.pid);
        for (int k = i + 1; k <= s->used; k++) {
            const struct hello *other = hello_at(s, mine, k);
            if (other && other->rank == h->rank)
                text_addf(t, " and %s (pid %d)", s->member[k - 1].addr, other->self.pid);
        }
        text_addf(t, "; start each rank once, with a SYMPOOL_RANK of its own");
        blame(h, peer, pid);
    }
}

void disagreements(struct text *t, const struct star *s, const struct hello *mine, int *peer, int64_t *pid) {
    struct text list = *t;
    size_t start = t->len;
    list.buf += start;
    list.cap -= start;
    list.len = 0;
    *peer = -1;
    *pid = 0;
    add_duplicates(&list, s, mine, peer, pid);
    for (size_t i = 0; i < N_FIELDS; i++) {
        int settings_explained = fields[i].get == get_settings && list.len;
        if (!settings_explained) add_field(&list, s, mine, &fields[i], peer, pid);
    }
    t->len = start + list.len;
}
