/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures as people read them, and a table with columns as wide as their widest cell.
 */
#include "tools/stat/stat.h"

#include "allocator/sympool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void format_size(char *out, size_t cap, uint64_t bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t unit = 0;
    uint64_t scale = 1;
    while (unit < 6 && bytes / scale >= 1024) {
        scale *= 1024;
        unit++;
    }
    if (bytes % scale == 0)
        snprintf(out, cap, "%" PRIu64 " %s", bytes / scale, units[unit]);
    else
        snprintf(out, cap, "%.1f %s", (double)bytes / (double)scale, units[unit]);
}

void format_time(char *out, size_t cap, uint64_t ns) {
    uint64_t s = ns / 1000000000u;
    if (ns < 1000u)
        snprintf(out, cap, "%" PRIu64 " ns", ns);
    else if (ns < 1000000u)
        snprintf(out, cap, "%.1f us", (double)ns / 1e3);
    else if (s < 1)
        snprintf(out, cap, "%.1f ms", (double)ns / 1e6);
    else if (s < 60)
        snprintf(out, cap, "%.1f s", (double)ns / 1e9);
    else if (s < 3600)
        snprintf(out, cap, "%" PRIu64 " m %" PRIu64 " s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(out, cap, "%" PRIu64 " h %" PRIu64 " m", s / 3600, s / 60 % 60);
    else
        snprintf(out, cap, "%" PRIu64 " d %" PRIu64 " h", s / 86400, s / 3600 % 24);
}

void format_value(char *out, size_t cap, const struct entry *e) {
    if (e->unit == STATS_UNIT_BYTES)
        format_size(out, cap, e->value);
    else if (e->unit == STATS_UNIT_NS)
        format_time(out, cap, e->value);
    else
        snprintf(out, cap, "%" PRIu64, e->value);
}

const char *op_name(uint64_t kind) {
    switch (kind) {
    case STATS_OP_NONE:
        return "none";
#define X(id, number, name) case STATS_OP_##id: return name;
        STATS_OP_LIST(X)
#undef X
    default:
        return "unknown";
    }
}

const char *state_name(unsigned state) {
    switch (state) {
    case STATS_JOINING:
        return "joining";
    case STATS_ATTACHED:
        return "attached";
    case STATS_FINALIZING:
        return "finalizing";
    case STATS_DETACHED:
        return "detached";
    default:
        return "unknown";
    }
}

const char *kind_name(unsigned kind) {
    switch (kind) {
    case STATS_COUNTER:
        return "counter";
    case STATS_GAUGE:
        return "gauge";
    case STATS_PEAK:
        return "peak";
    default:
        return "unknown";
    }
}

const char *unit_name(unsigned unit) {
    switch (unit) {
    case STATS_UNIT_COUNT:
        return "count";
    case STATS_UNIT_BYTES:
        return "bytes";
    case STATS_UNIT_NS:
        return "ns";
    default:
        return "unknown";
    }
}

const char *result_name(uint64_t result) {
    switch (result) {
    case 0:
        return "SYP_OK";
    case -SYP_EINVAL:
        return "SYP_EINVAL";
    case -SYP_ENOMEM:
        return "SYP_ENOMEM";
    case -SYP_ESTATE:
        return "SYP_ESTATE";
    case -SYP_EUNSUPPORTED:
        return "SYP_EUNSUPPORTED";
    case -SYP_EBUSY:
        return "SYP_EBUSY";
    case -SYP_ECANCELED:
        return "SYP_ECANCELED";
    case -SYP_EFOREIGN:
        return "SYP_EFOREIGN";
    case -SYP_EMISMATCH:
        return "SYP_EMISMATCH";
    case -SYP_EDIVERGED:
        return "SYP_EDIVERGED";
    case -SYP_EPEER:
        return "SYP_EPEER";
    case -SYP_ETIMEOUT:
        return "SYP_ETIMEOUT";
    case -SYP_EABORTED:
        return "SYP_EABORTED";
    case -SYP_EFORKED:
        return "SYP_EFORKED";
    case -SYP_EJOIN:
        return "SYP_EJOIN";
    case -SYP_ESYS:
        return "SYP_ESYS";
    default:
        return "unknown status";
    }
}

const char *view_state(const struct view *v) {
    if (!v->alive) return "dead";
    switch (v->process_state) {
    case 'T':
    case 't':
        return "stopped";
    case 'Z':
    case 'X':
        return "ended";
    default:
        return state_name(v->state);
    }
}

uint64_t elapsed(uint64_t since, uint64_t now) {
    return now > since ? now - since : 0;
}

const struct op *view_op(const struct view *v) {
    const struct op *best = NULL;
    for (size_t i = 0; i < v->n_ops; i++) {
        const struct op *op = &v->ops[i];
        if (op->kind == STATS_OP_NONE) continue;
        int running = op->end_ns == 0, best_running = best != NULL && best->end_ns == 0;
        if (best == NULL || running > best_running || (running && best_running && op->start_ns < best->start_ns) ||
            (!running && !best_running && op->end_ns > best->end_ns))
            best = op;
    }
    return best;
}

/* " 12.3 s", or "" when nobody looked at the clock. */
static void format_since(char *out, size_t cap, uint64_t since, uint64_t now) {
    *out = 0;
    if (since <= STATS_NO_TIME || cap < 2) return;
    *out = ' ';
    format_time(out + 1, cap - 1, elapsed(since, now));
}

/* "allreduce #1042 4 MiB running 12.3 s, waits for rank 5" or "barrier #7 done 0.2 s ago" */
void format_op(char *out, size_t cap, const struct op *op, uint64_t now) {
    char size[32] = "", time[32], group[64] = "";
    if (op == NULL || op->kind == STATS_OP_NONE) {
        snprintf(out, cap, "-");
        return;
    }
    if (op->bytes != 0) {
        size[0] = ' ';
        format_size(size + 1, sizeof size - 1, op->bytes);
    }
    if (op->comm_id != 0) snprintf(group, sizeof group, " in group %" PRIx64, op->comm_id);
    format_since(time, sizeof time, op->end_ns == 0 ? op->start_ns : op->end_ns, now);
    int len = snprintf(out, cap, "%s #%" PRIu64 "%s%s ", op_name(op->kind), op->sequence, size, group);
    if (len < 0 || (size_t)len >= cap) return;
    out += len;
    cap -= (size_t)len;
    if (op->torn)
        snprintf(out, cap, "(changing)");
    else if (op->end_ns == 0 && op->waits_for >= 0)
        snprintf(out, cap, "running%s, waits for rank %" PRId64, time, op->waits_for);
    else if (op->end_ns == 0)
        snprintf(out, cap, "running%s", time);
    else if (op->result == 0)
        snprintf(out, cap, "done%s%s", time, *time ? " ago" : "");
    else
        snprintf(out, cap, "failed%s%s (%s)", time, *time ? " ago" : "", result_name(op->result));
}

void table_add(struct table *t, const char *cell) {
    t->cells = grow(t->cells, t->n_cells, &t->cap, sizeof t->cells[0]);
    char *copy = strdup(cell);
    if (copy == NULL) {
        fputs("sympool: out of memory\n", stderr);
        exit(EXIT_USAGE);
    }
    t->cells[t->n_cells++] = copy;
}

static int column_width(const struct table *t, size_t col) {
    size_t width = 0;
    for (size_t i = col; i < t->n_cells; i += t->n_cols) {
        size_t len = strlen(t->cells[i]);
        width = len > width ? len : width;
    }
    return (int)width;
}

void table_print(const struct table *t) {
    int widths[16];
    for (size_t col = 0; col < t->n_cols; col++)
        widths[col] = col + 1 < t->n_cols ? column_width(t, col) : 0;
    for (size_t i = 0; i < t->n_cells; i++) {
        size_t col = i % t->n_cols;
        printf("%-*s%s", widths[col], t->cells[i], col + 1 == t->n_cols ? "\n" : "  ");
    }
}
