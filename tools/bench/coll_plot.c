/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives, in the first process: the results as an SVG picture.  A row of panels for each operation and number of ranks; in it,
 * for each mode, latency and bandwidth against size, both axes logarithmic.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "tools/bench/coll_run.h"

#define PANEL_W 380.0
#define PANEL_H 270.0
#define LEFT 58.0 /* margins inside a panel */
#define RIGHT 12.0
#define TOP 34.0
#define BOTTOM 40.0
#define HEAD 74.0 /* title and legend */
#define LETTER 7.4 /* of the legend, about */
#define DECADES_MAX 4 /* of bandwidth: what is slower lies below the panel */
#define EDGE 16.0

static const struct style {
    const char *impl, *colour;
    double width;
} styles[] = {
    {"pool", "#0b4f8a", 2.6},        {"outside", "#23a0c7", 2.6},     {"openmpi", "#e07b22", 1.4}, {"openmpi-sm", "#c9a227", 1.4},
    {"openmpi-ucx", "#8c510a", 1.4}, {"mpich", "#8e44ad", 1.4},       {"gloo", "#8d8d8d", 1.4},    {"vllm", "#c0392b", 1.4},
    {"memcpy", "#2e8b57", 1.4},
};
enum { N_STYLES = sizeof styles / sizeof styles[0], LIMIT = N_STYLES };

struct plot {
    FILE *f;
    const struct coll_options *o;
    const struct coll_results *all;
};

/* One panel: where it is, and what the ends of its axes are (logarithms: of 2 for sizes, of 10 for values). */
struct panel {
    enum coll_op op;
    enum coll_mode mode;
    int n, bandwidth;
    double x, y, low_x, high_x, low_y, high_y;
};

/* us, or GB/s */
static double value(const struct panel *p, const struct coll_result *r, double ns) {
    return p->bandwidth ? (double)r->bytes / ns : ns / 1e3;
}

static int belongs(const struct panel *p, const struct coll_result *r) {
    return r->op == p->op && r->mode == p->mode && r->n == p->n && r->bytes > 0 && r->median > 0;
}

static double at_x(const struct panel *p, double size) {
    return p->x + LEFT + (log2(size) - p->low_x) / (p->high_x - p->low_x) * (PANEL_W - LEFT - RIGHT);
}

static double at_y(const struct panel *p, double v) {
    return p->y + PANEL_H - BOTTOM - (log10(v) - p->low_y) / (p->high_y - p->low_y) * (PANEL_H - TOP - BOTTOM);
}

/* Ends of the axes from the data; 0 when there is none. */
static int scale(const struct plot *s, struct panel *p) {
    p->low_x = p->low_y = INFINITY;
    p->high_x = p->high_y = -INFINITY;
    for (size_t i = 0; i < s->all->n; i++) {
        const struct coll_result *r = &s->all->row[i];
        if (!belongs(p, r)) continue;
        double ends[2] = {log10(value(p, r, r->median)), r->limit > 0 ? log10(value(p, r, r->limit)) : log10(value(p, r, r->median))};
        for (int k = 0; k < 2; k++) {
            p->low_y = fmin(p->low_y, ends[k]);
            p->high_y = fmax(p->high_y, ends[k]);
        }
        p->low_x = fmin(p->low_x, log2((double)r->bytes));
        p->high_x = fmax(p->high_x, log2((double)r->bytes));
    }
    if (!isfinite(p->low_x)) return 0;
    if (p->high_x - p->low_x < 1) p->high_x += 1;
    p->low_y = floor(p->low_y * 2 - 0.2) / 2;
    p->high_y = ceil(p->high_y * 2 + 0.2) / 2;
    if (p->bandwidth && p->low_y < p->high_y - DECADES_MAX) p->low_y = p->high_y - DECADES_MAX;
    return 1;
}

static void size_label(double size, char *out, size_t cap) {
    if (size < 1024)
        snprintf(out, cap, "%.0f", size);
    else if (size < 1048576)
        snprintf(out, cap, "%.0fK", size / 1024);
    else
        snprintf(out, cap, "%.0fM", size / 1048576);
}

static void axes(const struct plot *s, const struct panel *p) {
    double left = p->x + LEFT, right = p->x + PANEL_W - RIGHT, top = p->y + TOP, bottom = p->y + PANEL_H - BOTTOM;
    for (double e = floor(p->low_y); e <= p->high_y; e++)
        for (int k = 1; k < 10; k++) {
            double v = k * pow(10, e), lg = log10(v);
            if (lg < p->low_y - 1e-9 || lg > p->high_y + 1e-9) continue;
            fprintf(s->f, "<line class='%s' x1='%.1f' x2='%.1f' y1='%.1f' y2='%.1f'/>\n", k == 1 ? "major" : "minor", left, right,
                    at_y(p, v), at_y(p, v));
            if (k == 1) fprintf(s->f, "<text class='tick' text-anchor='end' x='%.1f' y='%.1f'>%g</text>\n", left - 5, at_y(p, v) + 3.5, v);
        }
    double step = p->high_x - p->low_x > 12 ? 4 : p->high_x - p->low_x > 6 ? 2 : 1;
    for (double e = ceil(p->low_x / step) * step; e <= p->high_x + 1e-9; e += step) {
        char label[16];
        size_label(exp2(e), label, sizeof label);
        fprintf(s->f, "<line class='minor' x1='%.1f' x2='%.1f' y1='%.1f' y2='%.1f'/>\n", at_x(p, exp2(e)), at_x(p, exp2(e)), top, bottom);
        fprintf(s->f, "<text class='tick' text-anchor='middle' x='%.1f' y='%.1f'>%s</text>\n", at_x(p, exp2(e)), bottom + 14, label);
    }
    fprintf(s->f, "<rect class='frame' x='%.1f' y='%.1f' width='%.1f' height='%.1f'/>\n", left, top, right - left, bottom - top);
    fprintf(s->f, "<text class='axis' text-anchor='middle' x='%.1f' y='%.1f'>bytes%s</text>\n", (left + right) / 2, bottom + 30,
            coll_ops[p->op].recv == BLOCKS_ALL || coll_ops[p->op].send == BLOCKS_ALL ? " per block" : "");
    fprintf(s->f, "<text class='axis' text-anchor='middle' transform='translate(%.1f %.1f) rotate(-90)'>%s</text>\n", p->x + 14,
            (top + bottom) / 2, p->bandwidth ? "bandwidth, GB/s" : "time, \xc2\xb5s");
    fprintf(s->f, "<text class='name' x='%.1f' y='%.1f'>%s, %d ranks, %s</text>\n", left, p->y + TOP - 9, coll_ops[p->op].name, p->n,
            coll_mode_names[p->mode]);
}

/* style LIMIT: what the machine allows, which all rows of a size have. */
static void curve(const struct plot *s, const struct panel *p, int style) {
    uint64_t last = 0;
    int points = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1 && (style == LIMIT || points == 0)) break;
        for (size_t i = 0; i < s->all->n; i++) {
            const struct coll_result *r = &s->all->row[i];
            if (!belongs(p, r) || (style != LIMIT && strcmp(r->impl, styles[style].impl) != 0)) continue;
            if (style == LIMIT && (r->bytes == last || !(r->limit > 0))) continue;
            last = r->bytes;
            double x = at_x(p, (double)r->bytes), y = at_y(p, value(p, r, style == LIMIT ? r->limit : r->median));
            if (pass == 1) {
                fprintf(s->f, "<circle cx='%.1f' cy='%.1f' r='%.1f' fill='%s'/>\n", x, y, styles[style].width, styles[style].colour);
                continue;
            }
            if (points++ == 0)
                fprintf(s->f, "<polyline fill='none' stroke='%s' stroke-width='%.1f'%s points='",
                        style == LIMIT ? "#222222" : styles[style].colour, style == LIMIT ? 1.2 : styles[style].width,
                        style == LIMIT ? " stroke-dasharray='5 4'" : "");
            fprintf(s->f, "%.1f,%.1f ", x, y);
        }
        if (pass == 0 && points) fputs("'/>\n", s->f);
    }
}

static void draw_panel(const struct plot *s, struct panel *p) {
    if (!scale(s, p)) return;
    axes(s, p);
    fprintf(s->f, "<clipPath id='at%.0f-%.0f'><rect x='%.1f' y='%.1f' width='%.1f' height='%.1f'/></clipPath>\n", p->x, p->y,
            p->x + LEFT - 3, p->y + TOP, PANEL_W - LEFT - RIGHT + 6, PANEL_H - TOP - BOTTOM);
    fprintf(s->f, "<g clip-path='url(#at%.0f-%.0f)'>\n", p->x, p->y);
    curve(s, p, LIMIT);
    for (int style = N_STYLES - 1; style >= 0; style--) /* ours on top */
        curve(s, p, style);
    fputs("</g>\n", s->f);
}

static int was_measured(const struct coll_results *all, const char *impl) {
    for (size_t i = 0; i < all->n; i++)
        if (strcmp(all->row[i].impl, impl) == 0 && all->row[i].bytes) return 1;
    return 0;
}

static void legend(const struct plot *s) {
    double x = EDGE + LEFT;
    for (int i = 0; i <= N_STYLES; i++) {
        if (i < N_STYLES && !was_measured(s->all, styles[i].impl)) continue;
        fprintf(s->f, "<line x1='%.1f' x2='%.1f' y1='56' y2='56' stroke='%s' stroke-width='%.1f'%s/>\n", x, x + 22,
                i == LIMIT ? "#222222" : styles[i].colour, i == LIMIT ? 1.2 : styles[i].width, i == LIMIT ? " stroke-dasharray='5 4'" : "");
        const char *name = i == LIMIT ? "what the machine allows" : styles[i].impl, *ours = i < 2 ? "sympool, " : "";
        fprintf(s->f, "<text class='key' x='%.1f' y='60'>%s%s</text>\n", x + 28, ours, name);
        x += 50 + LETTER * (double)(strlen(ours) + strlen(name));
    }
}

/* Rows: operations and ranks of which there is data with sizes. */
static int has_row(const struct coll_results *all, enum coll_op op, int n) {
    for (size_t i = 0; i < all->n; i++)
        if (all->row[i].op == op && all->row[i].n == n && all->row[i].bytes) return 1;
    return 0;
}

static void draw_rows(const struct plot *s, int rows_before, int *rows) {
    *rows = rows_before;
    for (int op = 0; op < N_OPS; op++)
        for (int k = 0; k < s->o->n_ranks; k++) {
            int columns = 0;
            if (!has_row(s->all, (enum coll_op)op, s->o->ranks[k])) continue;
            for (int mode = 0; mode < N_MODES; mode++)
                for (int bandwidth = 0; bandwidth < 2 && s->o->modes >> mode & 1; bandwidth++) {
                    struct panel p = {.op = (enum coll_op)op, .mode = (enum coll_mode)mode, .n = s->o->ranks[k], .bandwidth = bandwidth,
                                      .x = EDGE + columns++ * PANEL_W, .y = HEAD + *rows * PANEL_H};
                    if (s->f) draw_panel(s, &p);
                }
            ++*rows;
        }
}

void coll_plot(const char *path, const struct coll_options *o, const struct coll_results *all) {
    int rows, modes = 0;
    struct plot s = {NULL, o, all};
    draw_rows(&s, 0, &rows); /* counts them */
    for (int mode = 0; mode < N_MODES; mode++)
        modes += (int)(o->modes >> mode & 1);
    double w = fmax(2 * EDGE + 2 * modes * PANEL_W, 1180), h = HEAD + rows * PANEL_H + EDGE;
    s.f = fopen(path, "w");
    if (!s.f) die("%s: %s", path, strerror(errno));
    fprintf(s.f,
            "<svg xmlns='http://www.w3.org/2000/svg' width='%.0f' height='%.0f' viewBox='0 0 %.0f %.0f' "
            "font-family='DejaVu Sans, Helvetica, Arial, sans-serif'>\n"
            "<style>.tick{font-size:10px;fill:#444}.axis{font-size:11px;fill:#222}.name{font-size:12px;font-weight:bold;fill:#111}"
            ".key{font-size:12px;fill:#111}.title{font-size:16px;font-weight:bold;fill:#111}.minor{stroke:#ececec;stroke-width:1}"
            ".major{stroke:#cccccc;stroke-width:1}.frame{fill:none;stroke:#555;stroke-width:1}</style>\n"
            "<rect width='100%%' height='100%%' fill='white'/>\n",
            w, h, w, h);
    fprintf(s.f, "<text class='title' x='%.0f' y='30'>sympool-bench coll: medians, %s, all implementations in one run, in turns</text>\n",
            EDGE + LEFT, coll_types[o->type].name);
    legend(&s);
    draw_rows(&s, 0, &rows);
    fputs("</svg>\n", s.f);
    if (ferror(s.f) | fclose(s.f)) die("%s: writing failed", path);
}
