/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same as `list` and `show`, for programs.  Schema version 1: keys may be added; a key that changes its meaning or
 * goes away makes it version 2.  64-bit identifiers are strings of hexadecimal digits, since many readers keep numbers
 * as doubles.
 */
#include "tools/stat/stat.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define SCHEMA_VERSION 1

static json_t *number(uint64_t v) {
    return v <= INT64_MAX ? json_integer((json_int_t)v) : json_real((double)v);
}

static json_t *seconds(uint64_t ns) {
    return json_real((double)ns / 1e9);
}

static json_t *hex(uint64_t v) {
    char text[20];
    snprintf(text, sizeof text, "%016" PRIx64, v);
    return json_string(text);
}

static json_t *figure(const struct view *v, const char *name) {
    const struct entry *e = view_entry(v, name);
    return e != NULL ? number(e->value) : json_null();
}

static json_t *pool_used(const struct view *v) {
    const struct entry *heap = view_entry(v, "heap_used"), *symm = view_entry(v, "symm_used");
    if (heap == NULL && symm == NULL) return json_null();
    return number((heap != NULL ? heap->value : 0) + (symm != NULL ? symm->value : 0));
}

static json_t *operation(const struct op *op, uint64_t now) {
    if (op == NULL) return json_null();
    json_t *o = json_object();
    int running = op->end_ns == 0;
    json_object_set_new(o, "group", hex(op->comm_id));
    json_object_set_new(o, "members", number(op->n_members));
    json_object_set_new(o, "operation", json_string(op_name(op->kind)));
    json_object_set_new(o, "kind", number(op->kind));
    json_object_set_new(o, "sequence", number(op->sequence));
    json_object_set_new(o, "bytes", number(op->bytes));
    json_object_set_new(o, "running", json_boolean(op->kind != STATS_OP_NONE && running));
    json_object_set_new(o, "running_s",
                        running && op->kind != STATS_OP_NONE && op->start_ns ? seconds(elapsed(op->start_ns, now)) : json_null());
    json_object_set_new(o, "ended_ago_s", op->end_ns <= STATS_NO_TIME ? json_null() : seconds(elapsed(op->end_ns, now)));
    json_object_set_new(o, "waits_for", op->waits_for >= 0 ? json_integer(op->waits_for) : json_null());
    json_object_set_new(o, "result", running ? json_null() : json_string(result_name(op->result)));
    json_object_set_new(o, "torn", json_boolean(op->torn));
    return o;
}

static json_t *figures(const struct view *v) {
    json_t *list = json_array();
    for (size_t i = 0; i < v->n_entries; i++) {
        const struct entry *e = &v->entries[i];
        json_t *o = json_object();
        json_object_set_new(o, "name", json_string(e->name));
        json_object_set_new(o, "kind", json_string(kind_name(e->kind)));
        json_object_set_new(o, "unit", json_string(unit_name(e->unit)));
        json_object_set_new(o, "value", number(e->value));
        json_object_set_new(o, "help", json_string(e->help));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *groups(const struct view *v, uint64_t now) {
    json_t *list = json_array();
    for (size_t i = 0; i < v->n_ops; i++)
        json_array_append_new(list, operation(&v->ops[i], now));
    return list;
}

static json_t *latencies(const struct view *v) {
    json_t *list = json_array();
    for (size_t i = 0; i < v->n_hists; i++) {
        const struct hist *h = &v->hists[i];
        json_t *o = json_object(), *buckets = json_array();
        json_object_set_new(o, "operation", json_string(op_name(h->kind)));
        json_object_set_new(o, "kind", number(h->kind));
        json_object_set_new(o, "least_bytes", number(h->least_bytes));
        json_object_set_new(o, "below_bytes", h->below_bytes ? number(h->below_bytes) : json_null());
        json_object_set_new(o, "counted_one_in", number(h->every));
        json_object_set_new(o, "count", number(h->count));
        json_object_set_new(o, "p50_s", seconds(hist_percentile(h, 50)));
        json_object_set_new(o, "p90_s", seconds(hist_percentile(h, 90)));
        json_object_set_new(o, "p99_s", seconds(hist_percentile(h, 99)));
        json_object_set_new(o, "max_s", seconds(h->max_ns));
        for (unsigned k = 0; k < STATS_BUCKETS; k++) {
            if (h->bucket[k] == 0) continue;
            json_t *b = json_object();
            json_object_set_new(b, "below_s", k + 1 < STATS_BUCKETS ? seconds(hist_bucket_end(k)) : json_null());
            json_object_set_new(b, "count", number(h->bucket[k]));
            json_array_append_new(buckets, b);
        }
        json_object_set_new(o, "buckets", buckets);
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *rank(const struct view *v, uint64_t now, int everything) {
    char letter[2] = {v->process_state, '\0'};
    json_t *o = json_object();
    json_object_set_new(o, "rank", json_integer(v->rank));
    json_object_set_new(o, "local_rank", json_integer(v->local_rank));
    json_object_set_new(o, "pid", json_integer(v->pid));
    json_object_set_new(o, "alive", json_boolean(v->alive));
    json_object_set_new(o, "process_state", v->alive ? json_string(letter) : json_null());
    json_object_set_new(o, "stopped", json_boolean(v->process_state == 'T' || v->process_state == 't'));
    json_object_set_new(o, "state", json_string(state_name(v->state)));
    json_object_set_new(o, "uptime_s", v->alive ? seconds(elapsed(v->attach_ns, now)) : json_null());
    json_object_set_new(o, "host", json_string(v->host));
    json_object_set_new(o, "backend", json_string(v->backend));
    json_object_set_new(o, "pool_size", figure(v, "pool_size"));
    json_object_set_new(o, "pool_used", pool_used(v));
    json_object_set_new(o, "symm_used", figure(v, "symm_used"));
    json_object_set_new(o, "operation", operation(view_op(v), now));
    if (!everything) return o;
    json_object_set_new(o, "figures", figures(v));
    json_object_set_new(o, "groups", groups(v, now));
    json_object_set_new(o, "latencies", latencies(v));
    return o;
}

static json_t *jobs(const struct scan *scan, const struct view *const *chosen, size_t n, int everything) {
    json_t *list = json_array(), *ranks = NULL;
    for (size_t i = 0; i < n; i++) {
        const struct view *v = chosen[i];
        if (i == 0 || strcmp(chosen[i - 1]->job, v->job) != 0 || chosen[i - 1]->nonce != v->nonce) {
            json_t *job = json_object();
            ranks = json_array();
            json_object_set_new(job, "job", json_string(v->job));
            json_object_set_new(job, "instance", hex(v->nonce));
            json_object_set_new(job, "world_size", json_integer(v->world));
            json_object_set_new(job, "ranks", ranks);
            json_array_append_new(list, job);
        }
        json_array_append_new(ranks, rank(v, scan->now_ns, everything));
    }
    return list;
}

void print_json(const struct scan *scan, const struct view *const *chosen, size_t n, int everything) {
    json_t *root = json_object(), *errors = json_array();
    for (size_t i = 0; i < scan->n_problems; i++) {
        json_t *o = json_object();
        json_object_set_new(o, "pid", json_integer(scan->problems[i].pid));
        json_object_set_new(o, "fd", json_integer(scan->problems[i].fd));
        json_object_set_new(o, "error", json_string(scan->problems[i].text));
        json_array_append_new(errors, o);
    }
    json_object_set_new(root, "schema_version", json_integer(SCHEMA_VERSION));
    json_object_set_new(root, "jobs", jobs(scan, chosen, n, everything));
    json_object_set_new(root, "unreadable", errors);
    json_object_set_new(root, "processes_not_readable", json_integer(scan->n_denied));
    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(12)); /* main.c looks whether stdout took it */
    putchar('\n');
    json_decref(root);
}
