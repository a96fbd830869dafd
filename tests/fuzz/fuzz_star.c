/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames on a stream, cut anywhere: as rank 0 reads its members (member_read), and both ends of the star's collectives.
 *
 *   input: part and whether the other ends wait for their turn, seed of the cuts, then the bytes of the stream (for rank 0: of two streams)
 */
#include "bootstrap/star.h"
#include "pool/base/status.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>

enum { READ, MEMBER, ROOT, N_PARTS };
#define FIRST_FD 1000
#define LINES 2

static struct line {
    const uint8_t *at;
    size_t left, later; /* bytes that have come; that its sender keeps until it is answered */
    int open;
} lines[LINES];
static uint64_t cuts;
static int take_turns;

static uint64_t cut(void) {
    cuts ^= cuts << 13;
    cuts ^= cuts >> 7;
    cuts ^= cuts << 17;
    return cuts;
}

/* An answer has gone out: the other end sends its next frame. */
static void go_on(struct line *l) {
    struct wire w = {.buf = (uint8_t *)(uintptr_t)l->at, .cap = l->later};
    struct wire_head h;
    int good = l->later >= WIRE_HEAD && wire_get_head(&w, &h, WIRE_MAX) == 0;
    size_t n = good && h.length <= l->later - WIRE_HEAD ? WIRE_HEAD + h.length : l->later;
    l->left = n;
    l->later -= n;
}

static int64_t hear(int fd, struct msghdr *m) {
    struct line *l = &lines[fd - FIRST_FD];
    MUST(fd >= FIRST_FD && fd < FIRST_FD + LINES && l->open && m->msg_iov[0].iov_len > 0);
    uint64_t c = cut();
    if (c % 4 == 0) return c % 8 ? -EAGAIN : -EINTR;
    size_t n = m->msg_iov[0].iov_len;
    if (c % 4 == 1 && n > 1) n = 1 + (c >> 8) % n;
    if (n > l->left) n = l->left;
    memcpy(m->msg_iov[0].iov_base, l->at, n);
    l->at += n;
    l->left -= n;
    return (int64_t)n;
}

static int64_t say(int fd, const struct msghdr *m) {
    struct line *l = &lines[fd - FIRST_FD];
    MUST(l->open);
    uint64_t c = cut();
    size_t n = 0;
    for (size_t i = 0; i < m->msg_iovlen; i++)
        n += m->msg_iov[i].iov_len;
    if (c % 8 == 0) return -EAGAIN;
    if (c % 8 == 1 && n) return (int64_t)(1 + (c >> 8) % n);
    if (!l->left && l->later) go_on(l);
    return (int64_t)n;
}

static int ready(struct pollfd *fds, unsigned n, uint64_t timeout) {
    int news = 0;
    for (unsigned i = 0; i < n; i++) {
        fds[i].revents = 0;
        if (fds[i].fd < 0) continue;
        const struct line *l = &lines[fds[i].fd - FIRST_FD];
        fds[i].revents = (short)(fds[i].events & (l->left || !take_turns ? POLLIN | POLLOUT : POLLOUT));
        news += fds[i].revents != 0;
    }
    fuzz_now += news ? NS_PER_MS : timeout;
    return news;
}

static int hang_up(int fd) {
    MUST(lines[fd - FIRST_FD].open);
    lines[fd - FIRST_FD].open = 0;
    return 0;
}

void fuzz_start(void) {
    fuzz_os.recv = hear;
    fuzz_os.send = say;
    fuzz_os.poll = ready;
    fuzz_os.close = hang_up;
}

static void add_frame(struct wire *w, int type, uint64_t sequence, const char *bytes, uint32_t len) {
    wire_put_head(w, &(struct wire_head){.type = (uint16_t)type, .length = len, .sequence = sequence});
    memcpy(w->buf + w->pos, bytes, len);
    w->pos += len;
}

void fuzz_seeds(void) {
    uint8_t buf[4096];
    struct notice lost = {.code = SYP_EPEER, .peer = 1, .pid = 4711, .text = "rank 1 died"};
    for (int part = 0; part < N_PARTS; part++)
        for (int k = 0; k < 3; k++) {
            struct wire w = {.buf = buf + 2, .cap = sizeof buf - 2};
            buf[0] = (uint8_t)(part + (part == ROOT ? N_PARTS : 0));
            buf[1] = (uint8_t)(k + 1);
            uint8_t told[NOTICE_MAX];
            size_t n = notice_put(told, &lost);
            unsigned steps = k ? 1 : part == ROOT ? 2 : 3; /* a broadcast says nothing to rank 0 */
            for (int line = 0; line < (part == ROOT ? LINES : 1); line++) {
                for (unsigned step = 1; step <= steps; step++)
                    add_frame(&w, WIRE_DATA, step, "0123456789abcdef01234567", step == 2 ? 0 : part == ROOT ? 8 : 24);
                if (k) add_frame(&w, k == 1 ? WIRE_LOST : WIRE_REJECT, 0, (const char *)told, (uint32_t)n);
            }
            (k ? fuzz_seed : fuzz_good_seed)(buf, 2 + w.pos);
        }
}

/* The frames that come out are those of the stream, whatever the cuts. */
static void read_frames(void) {
    static struct star s; /* without a secret: a sealed frame is refused when it is complete */
    static struct member m;
    const uint8_t *expect = lines[0].at, *end = expect + lines[0].left;
    m = (struct member){.state = MEMBER_SAID, .fd = FIRST_FD};
    for (;;) {
        struct wire_head h, wanted;
        struct wire w = {.buf = (uint8_t *)(uintptr_t)expect, .cap = (size_t)(end - expect)};
        int rc = member_read(&s, &m, STAR_GIVE_MAX, &h);
        if (rc == 0) continue;
        int whole = w.cap >= WIRE_HEAD;
        int good = whole && wire_get_head(&w, &wanted, STAR_GIVE_MAX) == 0;
        size_t len = good ? WIRE_HEAD + wanted.length + (wanted.flags & WIRE_SEALED ? WIRE_MAC : 0) : WIRE_HEAD;
        if (rc != 1) {
            MUST(rc == (whole && !good ? -EPROTO : good && w.cap >= len ? -EBADMSG : -EPIPE));
            MUST(rc != -EBADMSG || (wanted.flags & WIRE_SEALED));
            return;
        }
        MUST(good && h.type == wanted.type && h.length == wanted.length && h.sequence == wanted.sequence);
        MUST(memcmp(m.in, expect, WIRE_HEAD + h.length) == 0);
        fuzz_ok = 1;
        expect += WIRE_HEAD + h.length;
    }
}

/* What rank 0 took for a member's share is that member's first frame, of the length that was asked for. */
static void check_share(const uint8_t *stream, size_t len, const uint8_t *share, size_t wanted) {
    struct wire w = {.buf = (uint8_t *)(uintptr_t)stream, .cap = len};
    struct wire_head h;
    MUST(wire_get_head(&w, &h, STAR_GIVE_MAX) == 0 && h.type == WIRE_DATA && h.sequence == 1 && h.length == wanted);
    MUST(memcmp(stream + WIRE_HEAD, share, wanted) == 0);
}

/* Three collectives; after a failure each later one fails alike. */
static void collectives(struct star *s, int n) {
    uint64_t deadline = fuzz_now + NS_PER_S;
    uint8_t mine[8] = "rank -> ", all[3 * 8] = {0};
    struct line start[LINES];
    memcpy(start, lines, sizeof start);
    int first = star_allgather(s, mine, sizeof mine, all, deadline);
    for (int i = 0; i < LINES && s->me == 0 && !first; i++)
        check_share(start[i].at, start[i].left + start[i].later, all + (unsigned)(i + 1) * sizeof mine, sizeof mine);
    int second = star_barrier(s, deadline);
    uint8_t word[24];
    memset(word, 7, sizeof word);
    int third = star_broadcast(s, word, sizeof word, deadline);
    MUST(n == 3 && first <= 0 && second <= 0 && third <= 0);
    MUST(!first || (second == first && third == first));
    MUST(!second || third == second);
    fuzz_ok = !third;
    if (third) MUST(err_record()->code == third && err_record()->text[0]);
    star_abort(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len) {
    if (len < 2) return 0;
    int part = data[0] % N_PARTS;
    take_turns = part == ROOT && data[0] / N_PARTS % 2;
    cuts = 0x9e3779b97f4a7c15ull * (1 + (uint64_t)data[1]);
    data += 2, len -= 2;
    size_t half = part == ROOT ? len / 2 : len;
    for (int i = 0; i < LINES; i++) {
        lines[i] = (struct line){.at = i ? data + half : data, .left = i ? len - half : half, .open = 1};
        if (!take_turns) continue;
        lines[i].later = lines[i].left;
        go_on(&lines[i]);
    }
    long before = fuzz_pieces;
    if (part == READ) {
        read_frames();
        return 0;
    }
    struct star *s = star_new(3, part == ROOT ? 0 : 1, part == ROOT ? LINES : 0, NULL);
    if (part == MEMBER) {
        s->fd = FIRST_FD;
        s->root_pid = 4711;
    } else {
        s->used = LINES;
        for (int i = 0; i < LINES; i++) {
            s->member[i] = (struct member){.state = MEMBER_SAID, .fd = FIRST_FD + i, .hello = {.rank = i + 1}};
            s->member[i].hello.self.pid = 4712 + i;
            s->of_rank[i + 1] = i;
        }
    }
    collectives(s, 3);
    star_close(s);
    MUST(fuzz_pieces == before && !lines[0].open && (part == MEMBER || !lines[1].open));
    return 0;
}
