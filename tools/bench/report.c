/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Output: tables for people, or one JSON object with the same content.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "allocator/sympool.h"
#include "tools/bench/bench.h"

static struct {
    int json;
    int n_sections, n_rows;
    char columns[512]; /* names of the row printed last */
} report;

void must(int status, const char *what) {
    if (status != SYP_OK) die("rank %d: %s: %s: %s", syp_rank(), what, syp_strerror(status), syp_error_text());
}

void *must_have(void *p, const char *what) {
    if (!p) die("rank %d: memory for %s: %s", syp_rank(), what, syp_error_text());
    return p;
}

/* Processor model of /proc/cpuinfo, "unknown" elsewhere. */
static void cpu_model(char *out, size_t cap) {
    snprintf(out, cap, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (!f) return;
    char line[256];
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "model name", 10) != 0) continue;
        const char *value = strchr(line, ':');
        if (!value) continue;
        snprintf(out, cap, "%.*s", (int)strcspn(value + 1, "\n"), value + 1 + (value[1] == ' '));
        out[strcspn(out, "\n\"\\")] = 0; /* also nothing that JSON would have to quote */
        break;
    }
    fclose(f);
}

int report_is_json(void) {
    return report.json;
}

void report_start(int json) {
    struct utsname u;
    char model[128];
    report.json = json;
    cpu_model(model, sizeof model);
    if (uname(&u)) die("uname failed");
    int v = syp_version();
    if (json)
        printf("{\"program\": \"sympool-bench\", \"version\": \"%d.%d.%d\", \"processors\": %d, \"model\": \"%s\", "
               "\"kernel\": "
               "\"%s\",\n \"sections\": [",
               v / 10000, v / 100 % 100, v % 100, processors(), model, u.release);
    else
        printf("sympool %d.%d.%d on %d processors (%s), Linux %s\n"
               "Compare ratios: absolute times change with the machine and the hour.\n",
               v / 10000, v / 100 % 100, v % 100, processors(), model, u.release);
}

void report_section(const char *name, const char *method, const char *peers, const char *limit) {
    if (report.json)
        printf("%s%s\n  {\"name\": \"%s\", \"method\": \"%s\", \"peers\": \"%s\", \"limit\": \"%s\", \"rows\": [",
               report.n_sections ? "\n  ]}" : "", report.n_sections ? "," : "", name, method, peers, limit);
    else
        printf("\n%s\n  method: %s\n  peers:  %s\n  limit:  %s\n", name, method, peers, limit);
    report.n_sections++;
    report.n_rows = 0;
    report.columns[0] = 0;
    fflush(stdout);
}

static const char *json_suffix(enum unit unit) {
    return unit == UNIT_NS ? "_ns" : unit == UNIT_BYTES ? "_bytes" : "";
}

static void row_json(const struct field *fields, int n) {
    printf("%s\n    {", report.n_rows ? "," : "");
    for (int i = 0; i < n; i++) {
        printf("%s\"%s%s\": ", i ? ", " : "", fields[i].name, json_suffix(fields[i].unit));
        if (fields[i].unit == UNIT_TEXT)
            printf("\"%s\"", fields[i].text);
        else if (isfinite(fields[i].value))
            printf("%.*g", fields[i].unit == UNIT_BYTES ? 15 : 6, fields[i].value);
        else
            printf("null"); /* JSON has no infinity */
    }
    printf("}");
}

static void cell(const struct field *f, char *out, size_t cap) {
    double v = f->value;
    if (f->unit != UNIT_TEXT && !isfinite(v)) {
        snprintf(out, cap, "-"); /* not measured */
        return;
    }
    switch (f->unit) {
    case UNIT_NS:
        if (v < 1e3)
            snprintf(out, cap, v < 100 ? "%.1f ns" : "%.0f ns", v);
        else if (v < 1e6)
            snprintf(out, cap, "%.2f us", v / 1e3);
        else
            snprintf(out, cap, "%.2f ms", v / 1e6);
        break;
    case UNIT_BYTES:
        if (v < 1024)
            snprintf(out, cap, "%.0f B", v);
        else if (v < 1048576)
            snprintf(out, cap, "%.0f KiB", v / 1024);
        else
            snprintf(out, cap, "%.0f MiB", v / 1048576);
        break;
    case UNIT_COUNT:
        snprintf(out, cap, "%.6g", v);
        break;
    case UNIT_RATIO:
        snprintf(out, cap, v < 10 ? "%.2f" : "%.0f", v);
        break;
    case UNIT_TEXT:
        snprintf(out, cap, "%s", f->text);
        break;
    }
}

static void row_text(const struct field *fields, int n) {
    char columns[sizeof report.columns] = "";
    size_t used = 0;
    for (int i = 0; i < n && used < sizeof columns; i++)
        used += (size_t)snprintf(columns + used, sizeof columns - used, "  %*s", fields[i].unit == UNIT_TEXT ? -16 : 14,
                                 fields[i].name);
    if (strcmp(columns, report.columns) != 0) {
        printf("\n%s\n", columns);
        memcpy(report.columns, columns, sizeof columns);
    }
    for (int i = 0; i < n; i++) {
        char text[64];
        cell(&fields[i], text, sizeof text);
        printf("  %*s", fields[i].unit == UNIT_TEXT ? -16 : 14, text);
    }
    printf("\n");
}

void report_row(const struct field *fields, int n) {
    if (report.json)
        row_json(fields, n);
    else
        row_text(fields, n);
    report.n_rows++;
    fflush(stdout);
}

void report_end(void) {
    if (report.json) printf("%s]}\n", report.n_sections ? "\n  ]}\n" : "");
    if (fflush(stdout) || ferror(stdout)) die("writing the results failed");
}
