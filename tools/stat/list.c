/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `sympool list`: one line for each rank on this host.
 */
#include "tools/stat/stat.h"

#include <stdio.h>

static void size_cell(char *out, size_t cap, const struct entry *e) {
    if (e == NULL)
        snprintf(out, cap, "-");
    else
        format_size(out, cap, e->value);
}

static void pool_cell(char *out, size_t cap, const struct view *v) {
    char used[32] = "-", total[32];
    const struct entry *heap = view_entry(v, "heap_used"), *symm = view_entry(v, "symm_used");
    if (heap != NULL || symm != NULL)
        format_size(used, sizeof used, (heap != NULL ? heap->value : 0) + (symm != NULL ? symm->value : 0));
    size_cell(total, sizeof total, view_entry(v, "pool_size"));
    snprintf(out, cap, "%s / %s", used, total);
}

void print_list(const struct scan *scan) {
    static const char *const titles[] = {"JOB", "RANK", "PID", "ALIVE", "STATE", "UP", "POOL", "SYMM", "OPERATION"};
    struct table t = {.n_cols = sizeof titles / sizeof titles[0]};
    if (scan->n_views == 0) {
        puts("no sympool jobs on this host");
        return;
    }
    for (size_t i = 0; i < t.n_cols; i++)
        table_add(&t, titles[i]);
    for (size_t i = 0; i < scan->n_views; i++) {
        const struct view *v = &scan->views[i];
        char text[256];
        table_add(&t, v->job);
        snprintf(text, sizeof text, "%d/%d", v->rank, v->world);
        table_add(&t, text);
        snprintf(text, sizeof text, "%d", (int)v->pid);
        table_add(&t, text);
        table_add(&t, v->alive ? "yes" : "no");
        table_add(&t, view_state(v));
        format_time(text, sizeof text, elapsed(v->attach_ns, scan->now_ns));
        table_add(&t, v->alive ? text : "-");
        pool_cell(text, sizeof text, v);
        table_add(&t, text);
        size_cell(text, sizeof text, view_entry(v, "symm_used"));
        table_add(&t, text);
        format_op(text, sizeof text, view_op(v), scan->now_ns);
        table_add(&t, text);
    }
    table_print(&t);
}
