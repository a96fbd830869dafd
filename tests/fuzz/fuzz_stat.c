/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The statistics segment as the tool reads it, from memory as long as the file.  The tool's files are a part of this one, so that the
 * reader can be called without a file, and because the library has functions of the same names.
 *
 *   input: alterations {place 3 bytes, width, value 8 bytes} of a sound segment; or, when the first byte is odd, the segment
 */
#include <time.h>
static int no_pause(const void *a, void *b);
#define nanosleep(a, b) no_pause(a, b)
#include "tools/stat/segment.c"
#undef nanosleep
#include "tools/stat/format.c"
#include "tools/stat/hist.c"

#include "tests/fuzz/fuzz.h"

static int no_pause(const void *a, void *b) {
    (void)a, (void)b;
    return 0;
}

/* Of find.c, for tables, which are not made here. */
void *grow(void *array, size_t n, size_t *cap, size_t size) {
    (void)n, (void)cap, (void)size;
    return array;
}

#define ENTRIES 4u
#define OPS 3u
#define HISTS 2u
#define SHARDS 2u
#define SLOTS 4u
#define TOTAL (sizeof(struct stats_head) + ENTRIES * sizeof(struct stats_entry) + OPS * sizeof(struct stats_op) + HISTS * sizeof(struct stats_hist) + \
               SHARDS * SLOTS * 8)

static uint8_t sound[TOTAL];

void fuzz_start(void) {
    struct stats_head h = {.magic = STATS_MAGIC, .version = STATS_VERSION, .head_size = sizeof h, .total_size = TOTAL,
                           .n_entries = ENTRIES, .entry_size = sizeof(struct stats_entry), .entries_off = sizeof h,
                           .n_ops = OPS, .op_size = sizeof(struct stats_op), .n_shards = SHARDS, .n_slots = SLOTS,
                           .shard_stride = SLOTS * 8, .pid = 4711, .rank = 1, .world = 4, .local_rank = 1, .start_ticks = 99,
                           .attach_ns = 5, .job_nonce = 77, .job = "job", .host = "host", .backend = "host",
                           .state = STATS_ATTACHED};
    h.ops_off = h.entries_off + ENTRIES * sizeof(struct stats_entry);
    h.hists_off = h.ops_off + OPS * sizeof(struct stats_op);
    h.n_hists = HISTS;
    h.hist_size = sizeof(struct stats_hist);
    h.shards_off = h.hists_off + HISTS * sizeof(struct stats_hist);
    memcpy(sound, (const void *)&h, sizeof h);
    for (unsigned i = 0; i < ENTRIES; i++) {
        struct stats_entry e = {.name = "heap_used", .kind = (uint8_t)(1 + i % 3), .unit = (uint8_t)(1 + i % 3), .slot = (uint16_t)i,
                                .help = "bytes"};
        memcpy(sound + h.entries_off + i * sizeof e, &e, sizeof e);
    }
    for (unsigned i = 0; i < OPS; i++) {
        struct stats_op op = {.turn = 2 * i, .n_members = 4, .kind = 1 + i, .sequence = 9, .bytes = 100, .start_ns = 5};
        memcpy(sound + h.ops_off + i * sizeof op, (const void *)&op, sizeof op);
    }
    for (unsigned i = 0; i < HISTS; i++) {
        struct stats_hist hist = {.kind = 3, .every = 64, .least_bytes = 65536 * i, .max_ns = 1500, .bucket = {[9] = 1, [10] = i, [39] = 1}};
        memcpy(sound + h.hists_off + i * sizeof hist, (const void *)&hist, sizeof hist);
    }
}

void fuzz_seeds(void) {
    uint8_t whole[1 + TOTAL] = {1};
    memcpy(whole + 1, sound, TOTAL);
    fuzz_good_seed(whole, sizeof whole);
    static const uint16_t at[] = {8, 16, 24, 28, 32, 40, 44, 48, 56, 60, 64, 72, 80};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        uint8_t one[13] = {0, (uint8_t)at[i], (uint8_t)(at[i] >> 8), 0, 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
        fuzz_seed(one, sizeof one);
    }
}

/* Everything the tool prints of it. */
static void show(const struct view *v) {
    char text[256];
    MUST(v->rank >= 0 && v->rank < v->world && v->owner_pid > 0);
    MUST(strlen(v->job) <= 64 && strlen(v->host) <= 64 && strlen(v->backend) <= 16);
    for (const char *p = v->job; *p; p++)
        MUST(*p >= ' ' && *p < 127);
    for (size_t i = 0; i < v->n_entries; i++) {
        format_value(text, sizeof text, &v->entries[i]);
        MUST(kind_name(v->entries[i].kind) && unit_name(v->entries[i].unit));
    }
    for (size_t i = 0; i < v->n_ops; i++) {
        format_op(text, sizeof text, &v->ops[i], 1000000);
        MUST(op_name(v->ops[i].kind) && result_name(v->ops[i].result));
    }
    for (size_t i = 0; i < v->n_hists; i++) {
        const struct hist *h = &v->hists[i];
        uint64_t last = 0;
        for (unsigned percent = 0; percent <= 100; percent += 10) {
            uint64_t ns = hist_percentile(h, percent);
            MUST(ns >= last && ns <= h->max_ns);
            last = ns;
        }
        format_range(text, sizeof text, h);
        MUST(h->count > 0);
    }
    MUST(state_name(v->state) && view_state(v));
    (void)view_op(v);
    (void)view_entry(v, "heap_used");
    fuzz_ok = 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    if (len < 1 || len > 4096) return 0;
    struct input in = {data + 1, len - 1};
    size_t size = data[0] % 2 ? len - 1 : TOTAL;
    if (data[0] % 4 == 2) size = TOTAL - 8 * (data[0] / 4); /* shorter than it says */
    if (size < STATS_HEAD_LEAST) return 0;         /* open_segment refuses those */
    uint8_t *bytes = malloc(size);
    if (data[0] % 2)
        memcpy(bytes, data + 1, size);
    else
        memcpy(bytes, sound, size);
    while (data[0] % 2 == 0 && in.left) {
        size_t at = input_number(&in, 3) % size, width = 1ull << input_number(&in, 1) % 4;
        uint64_t value = input_number(&in, 8);
        memcpy(bytes + at, &value, width < size - at ? width : size - at);
    }
    struct segment s = {.base = bytes, .size = size};
    struct view v = {0};
    char why[160] = "";
    if (read_all(&s, &v, why, sizeof why) == 0)
        show(&v);
    else
        MUST(why[0] && strlen(why) < sizeof why);
    free(v.entries);
    free(v.ops);
    free(v.hists);
    free(bytes);
    return 0;
}
