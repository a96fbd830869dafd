/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `sympool show`: every figure of the chosen ranks, the groups they are in, and how long their operations take.
 */
#include "tools/stat/stat.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int same_job(const struct view *a, const struct view *b) {
    return strcmp(a->job, b->job) == 0 && a->nonce == b->nonce;
}

static void print_job(const struct scan *scan, const struct view *v) {
    int here = 0;
    for (size_t i = 0; i < scan->n_views; i++)
        here += same_job(&scan->views[i], v);
    printf("job %s: %d rank%s, %d on this host\n", v->job, v->world, v->world == 1 ? "" : "s", here);
}

static void print_figures(const struct view *v) {
    struct table t = {.n_cols = 4};
    for (size_t i = 0; i < v->n_entries; i++) {
        const struct entry *e = &v->entries[i];
        char text[64] = "  ";
        snprintf(text + 2, sizeof text - 2, "%s", e->name);
        table_add(&t, text);
        format_value(text, sizeof text, e);
        table_add(&t, text);
        table_add(&t, kind_name(e->kind));
        table_add(&t, e->help);
    }
    table_print(&t);
}

static void print_groups(const struct view *v, uint64_t now) {
    struct table t = {.n_cols = 3};
    for (size_t i = 0; i < v->n_ops; i++) {
        struct op op = v->ops[i];
        char text[256];
        if (op.comm_id == 0)
            snprintf(text, sizeof text, "  group world");
        else
            snprintf(text, sizeof text, "  group %" PRIx64, op.comm_id);
        table_add(&t, text);
        snprintf(text, sizeof text, "%" PRIu64 " rank%s", op.n_members, op.n_members == 1 ? "" : "s");
        table_add(&t, text);
        op.comm_id = 0; /* said already */
        format_op(text, sizeof text, &op, now);
        table_add(&t, text);
    }
    table_print(&t);
}

static void print_latencies(const struct view *v) {
    static const char *const titles[] = {"  LATENCY", "BYTES", "COUNTED", "ONE IN", "P50", "P90", "P99", "MAX"};
    static const unsigned percents[] = {50, 90, 99};
    struct table t = {.n_cols = sizeof titles / sizeof titles[0]};
    if (v->n_hists == 0) return;
    for (size_t i = 0; i < t.n_cols; i++)
        table_add(&t, titles[i]);
    for (size_t i = 0; i < v->n_hists; i++) {
        const struct hist *h = &v->hists[i];
        char text[64];
        snprintf(text, sizeof text, "  %s", op_name(h->kind));
        table_add(&t, text);
        format_range(text, sizeof text, h);
        table_add(&t, text);
        snprintf(text, sizeof text, "%" PRIu64, h->count);
        table_add(&t, text);
        snprintf(text, sizeof text, "%" PRIu64, h->every);
        table_add(&t, text);
        for (size_t k = 0; k < sizeof percents / sizeof percents[0]; k++) {
            format_time(text, sizeof text, hist_percentile(h, percents[k]));
            table_add(&t, text);
        }
        format_time(text, sizeof text, h->max_ns);
        table_add(&t, text);
    }
    table_print(&t);
}

void print_show(const struct scan *scan, const struct view *const *chosen, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const struct view *v = chosen[i];
        char up[32];
        if (i == 0 || !same_job(chosen[i - 1], v)) print_job(scan, v);
        format_time(up, sizeof up, elapsed(v->attach_ns, scan->now_ns));
        printf("\nrank %d: pid %d, %s, up %s", v->rank, (int)v->pid, view_state(v), v->alive ? up : "-");
        if (v->alive && strcmp(view_state(v), state_name(v->state)) != 0) printf(", %s", state_name(v->state));
        if (v->host[0] != '\0') printf(", host %s", v->host);
        if (v->backend[0] != '\0') printf(", backend %s", v->backend);
        putchar('\n');
        print_figures(v);
        print_groups(v, scan->now_ns);
        print_latencies(v);
    }
}
