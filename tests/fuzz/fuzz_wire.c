/* SPDX-License-Identifier: Apache-2.0 */
/* Heads and payloads of frames: what the readers accept, the writers make again byte for byte. */
#include "bootstrap/wire.h"
#include "pool/base/status.h"
#include "tests/fuzz/fuzz.h"

enum { HEAD, HELLO, ROSTER, NOTICE, N_PARTS };

void fuzz_start(void) {
}

static struct roster_entry someone(int rank) {
    return (struct roster_entry){.rank = rank,
                                 .pid = 4711 + rank,
                                 .uid = 1000,
                                 .start_ticks = 123456,
                                 .host_id = {7, (uint64_t)rank / 2},
                                 .local_mem_size = 1 << 24,
                                 .meta_size = 1 << 20,
                                 .data_len = 1 << 24,
                                 .control_len = 8192,
                                 .exchange_len = 1 << 20,
                                 .host_index = rank / 2,
                                 .addr = "127.0.0.1:41234"};
}

void fuzz_seeds(void) {
    uint8_t buf[2048];
    struct wire w = {.buf = buf + 1, .cap = sizeof buf - 1};
    buf[0] = HEAD;
    wire_put_head(&w, &(struct wire_head){.type = WIRE_DATA, .length = 300, .sequence = 3});
    fuzz_good_seed(buf, 1 + w.pos);
    buf[0] = HELLO;
    w.pos = 0;
    struct hello h = {.library = SYP_VERSION, .layout = 0xabc, .rank = 1, .n_ranks = 4, .job = "job-1", .self = someone(1),
                      .page_size = 4096, .settings = 5, .staging_size = 1 << 20, .patience_ns = 30 * NS_PER_S};
    for (int back = 0; back < 2; back++) { /* a new rank, one that comes back to its job */
        w.pos = 0;
        wire_put_hello(&w, &h);
        fuzz_good_seed(buf, 1 + w.pos);
        h.member_of = 99;
        h.epoch = 2;
        h.self.generation = 1;
    }
    for (int n = 1; n <= 5; n += 2) {
        struct roster_entry rank[5];
        for (int i = 0; i < n; i++) {
            rank[i] = someone(i);
            rank[i].generation = 1 + (unsigned)i % 2;
        }
        struct roster r = {.n = n, .n_hosts = (n + 1) / 2, .nonce = 99, .epoch = 2, .rank = rank};
        buf[0] = ROSTER;
        w.pos = 0;
        wire_put_roster(&w, &r);
        fuzz_good_seed(buf, 1 + w.pos);
    }
    struct notice n = {.code = SYP_EPEER, .peer = 2, .pid = 4713, .text = "rank 2 died"};
    buf[0] = NOTICE;
    w.pos = 0;
    wire_put_notice(&w, &n);
    fuzz_good_seed(buf, 1 + w.pos);
}

/* The same bytes as were read, except where a notice's text was made printable. */
static void same(const struct wire *read, const struct wire *written, int but_text) {
    MUST(!written->bad && written->pos == read->pos);
    size_t compared = but_text ? 18 : read->pos;
    MUST(memcmp(read->buf, written->buf, compared) == 0);
    fuzz_ok = 1;
}

static void read_head(struct wire *w, struct wire *again) {
    struct wire_head h;
    uint32_t most = w->cap % 2 ? WIRE_HELLO_MAX : WIRE_MAX;
    if (wire_get_head(w, &h, most)) return;
    MUST(h.length <= most && h.type >= WIRE_HELLO && h.type <= WIRE_GREET && w->pos == WIRE_HEAD);
    wire_put_head(again, &h);
    same(w, again, 0);
}

static void read_hello(struct wire *w, struct wire *again) {
    struct hello h;
    if (wire_get_hello(w, &h)) return;
    MUST(h.rank >= 0 && h.rank < h.n_ranks && h.n_ranks <= MAX_WORLD && h.self.rank == h.rank && wire_job_ok(h.job));
    MUST(h.self.meta_size <= h.self.local_mem_size);
    wire_put_hello(again, &h);
    same(w, again, 0);
}

static void read_roster(struct wire *w, struct wire *again) {
    struct roster r;
    long before = fuzz_pieces;
    fuzz_largest = 0;
    int rc = wire_get_roster(w, &r);
    if (rc) {
        MUST(r.rank == NULL && fuzz_pieces == before && fuzz_largest <= 4096 + 4 * w->cap);
        return;
    }
    MUST(r.n >= 1 && r.n <= MAX_WORLD && r.nonce && r.n_hosts >= 1 && r.n_hosts <= r.n);
    for (int i = 0; i < r.n; i++)
        MUST(r.rank[i].rank == i && r.rank[i].host_index >= 0 && r.rank[i].host_index < r.n_hosts);
    wire_put_roster(again, &r);
    same(w, again, 0);
    roster_free(&r);
    MUST(fuzz_pieces == before);
}

static void read_notice(struct wire *w, struct wire *again) {
    struct notice n;
    if (wire_get_notice(w, &n)) return;
    MUST(n.code < 0 && n.peer >= -1 && n.peer < MAX_WORLD);
    for (const char *p = n.text; *p; p++)
        MUST((unsigned char)*p >= ' ' && *p != 127);
    wire_put_notice(again, &n);
    same(w, again, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    static void (*const part[N_PARTS])(struct wire *, struct wire *) = {read_head, read_hello, read_roster, read_notice};
    static uint8_t out[64 << 10];
    if (len < 1 || len > sizeof out) return 0;
    uint8_t *exact = malloc(len - 1 ? len - 1 : 1); /* a step beyond is seen */
    memcpy(exact, data + 1, len - 1);
    struct wire w = {.buf = exact, .cap = len - 1}, again = {.buf = out, .cap = sizeof out};
    part[data[0] % N_PARTS](&w, &again);
    free(exact);
    return 0;
}
