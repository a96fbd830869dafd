/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives, in the first process: the results as tables for people, as two columns like the OSU benchmarks', as JSON and as CSV.
 */
#include <math.h>
#include <string.h>

#include "tools/bench/coll_run.h"

#define COLUMNS_MAX 12

static const char method[] =
    "a rank per processor (rank modulo processors when there are more); every implementation has the same loops, buffers at a page + "
    "64 bytes, all-reduce and broadcast in place, the root rotates; a few samples of one, then of the next, in rotating order, 50 "
    "turns, the others' ranks asleep meanwhile; a sample's time is the slowest rank's from a common start: all have arrived, then "
    "start at the same tick of the processors' synchronous counter. hot: operations back to back, as OSU measures, a sample is their "
    "mean; fresh: all inputs rewritten before and results read and compared after each operation, both untimed; from each sample the "
    "median of the same with no operation at all is subtracted; loop: writing, operation and reading timed together, less the median "
    "of the same loop without the operation: it also charges what the operation does to the caches its caller needs; with more ranks "
    "than processors, where a common start means nothing, fresh is measured so. Every fresh result is compared, and one of each size "
    "with every element different";
static const char limit[] =
    "line: one-way latency of a cache line between ranks 0 and 1 (yield: between two ranks that share a processor and yield it); "
    "copy: the faster of memcpy and a non-temporal copy of n bytes in all ranks at once, in the same mode, source and destination "
    "rewritten before; both in our ranks, in turns with the rest; /limit = time / the larger of line (yield) and k copies, k = ranks "
    "for allgather and alltoall, (ranks + 1) / 2 for reduce-scatter, else 1; /best = time / the fastest peer's";

void coll_print_method(const struct coll_run *r) {
    static char peers[2048];
    char name[32];
    size_t used = 0;
    peers[0] = 0;
    for (int i = TEAM_OURS + 1; i < N_TEAMS && used < sizeof peers - 400; i++) {
        if (!(r->o->teams >> i & 1)) continue;
        const struct team *t = &r->team[i];
        used += (size_t)snprintf(peers + used, sizeof peers - used, "%s%s%s%s", used ? ", " : "", t->name,
                                 t->present ? "" : " NOT MEASURED: ", t->present ? "" : t->why);
    }
    if (!used) snprintf(peers, sizeof peers, "none asked for");
    if (r->o->osu) {
        printf("# peers: %s\n", peers);
        return;
    }
    snprintf(name, sizeof name, "coll-%d", r->n);
    report_section(name, method, peers, limit);
}

/* --------------------------------------------------------------------------------------------------------- for people */

static void size_text(uint64_t bytes, char *out, size_t cap) {
    if (bytes < 1024)
        snprintf(out, cap, "%llu", (unsigned long long)bytes);
    else if (bytes < 1u << 20)
        snprintf(out, cap, "%lluK", (unsigned long long)bytes >> 10);
    else
        snprintf(out, cap, "%lluM", (unsigned long long)bytes >> 20);
}

static void cell(double v, const char *name) {
    if (name)
        printf(" %9s", name);
    else if (isnan(v))
        printf(" %9s", "-");
    else
        printf(v < 10 ? " %9.3f" : v < 100 ? " %9.2f" : v < 1000 ? " %9.1f" : " %9.0f", v);
}

static void ratio(double v, const char *name) {
    if (name)
        printf(" %6s", name);
    else if (isfinite(v))
        printf(v < 10 ? " %6.2f" : v < 100 ? " %6.1f" : " %6.0f", v);
    else
        printf(" %6s", "-");
}

/* The columns of a table: who was measured at any size. */
static int columns_of(const struct coll_results *all, size_t from, enum coll_mode mode, const struct coll_result **column) {
    int n = 0;
    for (size_t i = from; i < all->n; i++) {
        const struct coll_result *r = &all->row[i];
        int known = r->mode != mode;
        for (int k = 0; k < n; k++)
            known |= strcmp(column[k]->impl, r->impl) == 0;
        if (!known && n < COLUMNS_MAX) column[n++] = r;
    }
    return n;
}

static const struct coll_result *result_of(const struct coll_results *all, size_t from, const struct coll_result *column, uint64_t bytes) {
    for (size_t i = from; i < all->n; i++) {
        const struct coll_result *r = &all->row[i];
        if (r->mode == column->mode && r->bytes == bytes && strcmp(r->impl, column->impl) == 0) return r;
    }
    return NULL;
}

/* One row; all NULL: the heading. */
static void table_row(const struct coll_result *const *column, const struct coll_result *const *row, int n, uint64_t bytes, int heading) {
    static const struct coll_result none = {.median = NAN, .p99 = NAN, .best = NAN, .limit = NAN, .line = NAN, .yield = NAN, .copy = NAN};
    const struct coll_result *some = &none; /* ours, where there is one */
    char text[24];
    size_text(bytes, text, sizeof text);
    printf("%6s", heading ? "bytes" : text);
    for (int k = 0; k < n; k++) {
        const struct coll_result *r = !heading && row[k] ? row[k] : &none;
        if (r != &none && some == &none) some = r;
        if (column[k]->is_peer) continue;
        printf("  ");
        cell(r->median / 1e3, heading ? column[k]->impl : NULL);
        cell(r->p99 / 1e3, heading ? "p99" : NULL);
        ratio(r->median / r->best, heading ? "/best" : NULL);
        ratio(r->median / r->limit, heading ? "/limit" : NULL);
    }
    printf("  ");
    for (int k = 0; k < n; k++) {
        if (!column[k]->is_peer) continue;
        if (heading) printf(" %*s", strlen(column[k]->impl) > 9 ? 11 : 9, column[k]->impl);
        else if (strlen(column[k]->impl) > 9) printf("  ");
        if (!heading) cell(row[k] ? row[k]->median / 1e3 : NAN, NULL);
    }
    printf("  ");
    int shared = isfinite(column[0]->yield);
    cell((shared ? some->yield : some->line) / 1e3, heading ? (shared ? "yield" : "line") : NULL);
    cell(some->copy / 1e3, heading ? "copy" : NULL);
    printf(heading ? "  samples\n" : "  %d x %d\n", some->samples, some->count);
}

static void print_table(const struct coll_run *r, size_t from, enum coll_mode mode) {
    const struct coll_result *column[COLUMNS_MAX], *row[COLUMNS_MAX];
    const struct coll_results *all = r->results;
    int n = columns_of(all, from, mode, column);
    uint64_t last = UINT64_MAX;
    if (!n) return;
    printf("\n%s, %s, %d ranks, %s: microseconds per operation, medians\n", coll_ops[column[0]->op].name, coll_types[r->o->type].name, r->n,
           coll_mode_names[mode]);
    table_row(column, NULL, n, 0, 1);
    for (size_t i = from; i < all->n; i++) {
        if (all->row[i].mode != mode || all->row[i].bytes == last) continue;
        last = all->row[i].bytes;
        for (int k = 0; k < n; k++)
            row[k] = result_of(all, from, column[k], last);
        table_row(column, row, n, last, 0);
    }
}

/* ---------------------------------------------------------------------------------------------------- for programs */

static void print_osu(const struct coll_run *r, size_t from, enum coll_mode mode) {
    const struct coll_result *column[COLUMNS_MAX];
    const struct coll_results *all = r->results;
    int n = columns_of(all, from, mode, column);
    for (int k = 0; k < n; k++) {
        printf("\n# %s, %s, %s, %d ranks, %s\n# Size       Latency (us)\n", column[k]->impl, coll_ops[column[k]->op].name,
               coll_types[r->o->type].name, r->n, coll_mode_names[mode]);
        for (size_t i = from; i < all->n; i++)
            if (all->row[i].mode == mode && strcmp(all->row[i].impl, column[k]->impl) == 0 && all->row[i].median > 0)
                printf("%-10llu %14.3f\n", (unsigned long long)all->row[i].bytes, all->row[i].median / 1e3);
    }
}

static const char *buffers_of(const struct coll_result *r) {
    return r->in_pool < 0 ? "-" : r->in_pool ? "pool" : "outside";
}

static const char *impl_of(const struct coll_result *r) {
    return r->in_pool < 0 ? r->impl : "sympool";
}

static void print_json(const struct coll_run *run, size_t from) {
    for (size_t i = from; i < run->results->n; i++) {
        const struct coll_result *r = &run->results->row[i];
        struct field row[] = {
            {"operation", UNIT_TEXT, 0, coll_ops[r->op].name},
            {"type", UNIT_TEXT, 0, coll_types[run->o->type].name},
            {"ranks", UNIT_COUNT, r->n, NULL},
            {"mode", UNIT_TEXT, 0, coll_mode_names[r->mode]},
            {"size", UNIT_BYTES, (double)r->bytes, NULL},
            {"impl", UNIT_TEXT, 0, impl_of(r)},
            {"buffers", UNIT_TEXT, 0, buffers_of(r)},
            {"median", UNIT_NS, r->median, NULL},
            {"p99", UNIT_NS, r->p99, NULL},
            {"low", UNIT_NS, r->low, NULL},
            {"samples", UNIT_COUNT, r->samples, NULL},
            {"count", UNIT_COUNT, r->count, NULL},
            {"best_peer", UNIT_TEXT, 0, r->best_name ? r->best_name : "-"},
            {"of_best", UNIT_RATIO, r->median / r->best, NULL},
            {"line", UNIT_NS, r->line, NULL},
            {"yield", UNIT_NS, r->yield, NULL},
            {"copy", UNIT_NS, r->copy, NULL},
            {"limit", UNIT_NS, r->limit, NULL},
            {"of_limit", UNIT_RATIO, r->median / r->limit, NULL},
        };
        report_row(row, (int)(sizeof row / sizeof row[0]));
    }
}

void coll_csv_start(FILE *f) {
    fputs("operation,type,ranks,mode,bytes,impl,buffers,median_ns,p99_ns,low_ns,samples,count,best_peer,of_best,line_ns,yield_ns,"
          "copy_ns,limit_ns,of_limit\n",
          f);
}

static void csv_number(FILE *f, double v, const char *after) {
    if (isfinite(v))
        fprintf(f, "%.6g%s", v, after);
    else
        fputs(after, f);
}

void coll_csv_rows(FILE *f, const struct coll_options *o, const struct coll_results *all, size_t from) {
    for (size_t i = from; i < all->n; i++) {
        const struct coll_result *r = &all->row[i];
        fprintf(f, "%s,%s,%d,%s,%llu,%s,%s,", coll_ops[r->op].name, coll_types[o->type].name, r->n, coll_mode_names[r->mode],
                (unsigned long long)r->bytes, impl_of(r), buffers_of(r));
        csv_number(f, r->median, ",");
        csv_number(f, r->p99, ",");
        csv_number(f, r->low, ",");
        fprintf(f, "%d,%d,%s,", r->samples, r->count, r->best_name ? r->best_name : "");
        csv_number(f, r->median / r->best, ",");
        csv_number(f, r->line, ",");
        csv_number(f, r->yield, ",");
        csv_number(f, r->copy, ",");
        csv_number(f, r->limit, ",");
        csv_number(f, r->median / r->limit, "\n");
    }
}

void coll_print_tables(const struct coll_run *r, size_t from) {
    if (r->o->json) {
        print_json(r, from);
        return;
    }
    for (int mode = 0; mode < N_MODES; mode++) {
        if (r->o->osu)
            print_osu(r, from, (enum coll_mode)mode);
        else
            print_table(r, from, (enum coll_mode)mode);
    }
    fflush(stdout);
}

/* Peers that were there at the start. */
static void print_failed(const struct coll_run *r) {
    for (int i = 0; i < N_TEAMS; i++) {
        const struct team *t = &r->team[i];
        if (!t->started || t->present) continue;
        if (!r->o->json) printf("\n%s%s FAILED in the course of the run: %s\n", r->o->osu ? "# " : "  ", t->name, t->why);
        struct field row[] = {{"operation", UNIT_TEXT, 0, "failed"}, {"impl", UNIT_TEXT, 0, t->name}, {"why", UNIT_TEXT, 0, t->why}};
        if (r->o->json) report_row(row, 3);
    }
}

void coll_print_machine(const struct coll_run *r) {
    const struct coll_machine *m = &r->machine;
    double foreign = m->busy - m->own;
    print_failed(r);
    if (r->o->json) {
        struct field row[] = {
            {"operation", UNIT_TEXT, 0, "machine"},
            {"ranks", UNIT_COUNT, r->n, NULL},
            {"line", UNIT_NS, m->line, NULL},
            {"yield", UNIT_NS, m->yield, NULL},
            {"clock_offset", UNIT_NS, m->clock_offset, NULL},
            {"memcpy_per_s", UNIT_BYTES, m->copy_rate, NULL},
            {"copy_nt_per_s", UNIT_BYTES, m->copy_nt_rate, NULL},
            {"probe_write", UNIT_NS, m->probe_write[0], NULL},
            {"probe_write_low", UNIT_NS, m->probe_write[1], NULL},
            {"probe_write_high", UNIT_NS, m->probe_write[2], NULL},
            {"probe_read", UNIT_NS, m->probe_read[0], NULL},
            {"probe_read_low", UNIT_NS, m->probe_read[1], NULL},
            {"probe_read_high", UNIT_NS, m->probe_read[2], NULL},
            {"elapsed", UNIT_NS, m->seconds * 1e9, NULL},
            {"foreign", UNIT_NS, foreign * 1e9, NULL},
            {"stolen", UNIT_NS, m->stolen * 1e9, NULL},
        };
        report_row(row, (int)(sizeof row / sizeof row[0]));
        return;
    }
    const char *mark = r->o->osu ? "# " : "  ";
    printf("\n%smachine, %d ranks: line %.1f ns one-way", mark, r->n, m->line);
    if (isfinite(m->yield)) printf(", yield %.2f us one-way", m->yield / 1e3);
    if (isfinite(m->copy_rate))
        printf("; 64 MiB in all ranks at once: memcpy %.1f GB/s, non-temporal %.1f GB/s", m->copy_rate / 1e9, m->copy_nt_rate / 1e9);
    printf("\n%s64 KiB rewritten that the other had read: %.1f us (%.1f to %.1f in the course of the run), read by the other: %.1f us "
           "(%.1f to %.1f)\n",
           mark, m->probe_write[0] / 1e3, m->probe_write[1] / 1e3, m->probe_write[2] / 1e3, m->probe_read[0] / 1e3,
           m->probe_read[1] / 1e3, m->probe_read[2] / 1e3);
    printf("%sprocessors in %.1f s: others used %.1f s (%.1f %%), the host took %.1f s; clock: %s, %.0f ns apart at most\n", mark,
           m->seconds, foreign, 100 * foreign / (m->seconds * processors()), m->stolen,
           m->tsc ? "the processors' counter" : "clock_gettime", fabs(m->clock_offset));
}
