/* SPDX-License-Identifier: Apache-2.0 */
/* See the header. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <sanitizer/asan_interface.h>

#define SPARE_MOST (1u << 20)

int LLVMFuzzerInitialize(int *argc, char ***argv);

uint64_t fuzz_now = 1;
int fuzz_ok;
size_t fuzz_largest;
long fuzz_pieces;

static uint64_t now(void) {
    return fuzz_now += NS_PER_US;
}

static int sleep_at_once(uint64_t ns) {
    fuzz_now += ns;
    return 0;
}

static void yield_at_once(void) {
    fuzz_now += NS_PER_US;
}

static int64_t write_nowhere(int fd, const void *buf, size_t len) {
    (void)fd, (void)buf;
    return (int64_t)len;
}

/*
 * Pieces that were given back, for reuse by the next request of the same length: fresh ones cost more than most executions.  Nobody may
 * touch them meanwhile.
 */
static struct piece {
    void *at;
    size_t len;
} spare[16];

static void *spare_take(size_t len) {
    for (size_t i = 0; i < sizeof spare / sizeof *spare; i++) {
        void *at = spare[i].at;
        if (!at || spare[i].len != len) continue;
        spare[i].at = NULL;
        ASAN_UNPOISON_MEMORY_REGION(at, len);
        return memset(at, 0, len);
    }
    return NULL;
}

static int spare_keep(void *at, size_t len) {
    for (size_t i = 0; i < sizeof spare / sizeof *spare; i++) {
        if (spare[i].at) continue;
        ASAN_POISON_MEMORY_REGION(at, len);
        spare[i] = (struct piece){at, len};
        return 1;
    }
    return 0;
}

static int map_from_heap(void *addr, size_t len, int prot, int fd, uint64_t off, void **out) {
    (void)prot, (void)off;
    MUST(addr == NULL && fd == -1);
    if (len > fuzz_largest) fuzz_largest = len;
    *out = spare_take(len);
    if (!*out) *out = calloc(1, len);
    fuzz_pieces += *out != NULL;
    return *out ? 0 : -ENOMEM;
}

static int unmap_to_heap(void *addr, size_t len) {
    if (len > SPARE_MOST || !spare_keep(addr, len)) free(addr);
    fuzz_pieces--;
    return 0;
}

struct os_ops fuzz_os;

uint64_t input_number(struct input *in, unsigned bytes) {
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes && in->left; i++, in->at++, in->left--)
        v |= (uint64_t)*in->at << (8 * i);
    return v;
}

size_t input_bytes(struct input *in, void *out, size_t len) {
    size_t n = len < in->left ? len : in->left;
    memcpy(out, in->at, n);
    memset((char *)out + n, 0, len - n);
    in->at += n;
    in->left -= n;
    return n;
}

static const char *seeds_at;

void fuzz_seed(const void *bytes, size_t len) {
    static unsigned count;
    char path[4096];
    snprintf(path, sizeof path, "%s/seed-%03u", seeds_at, count++);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, len, f) != len || fclose(f)) {
        fprintf(stderr, "cannot write %s\n", path);
        exit(1);
    }
}

void fuzz_good_seed(const void *bytes, size_t len) {
    fuzz_seed(bytes, len);
    fuzz_ok = 0;
    (void)LLVMFuzzerTestOneInput(bytes, len);
    MUST(fuzz_ok);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    fuzz_os = os_linux;
    fuzz_os.now = now;
    fuzz_os.sleep = sleep_at_once;
    fuzz_os.yield = yield_at_once;
    fuzz_os.write = write_nowhere;
    fuzz_os.map = map_from_heap;
    fuzz_os.unmap = unmap_to_heap;
    os_swap(&fuzz_os);
    fuzz_start();
    seeds_at = getenv("FUZZ_SEEDS");
    if (seeds_at) {
        fuzz_seeds();
        exit(0);
    }
    return 0;
}
