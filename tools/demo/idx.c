/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The idx format: two zero bytes, a type byte (8 = unsigned byte), the number of dimensions, then each dimension as a
 * 32-bit big-endian number, then the elements.  The files are input from outside: nothing they say is believed before
 * it is checked.
 */
#include "tools/demo/idx.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "allocator/sympool.h"

#define IDX_MAX_DIMS 3
#define IDX_MAX_SAMPLES 10000000
#define IDX_MAX_SIDE 4096
#define IDX_MAX_BYTES (1ull << 30)

/* Exactly len bytes, or -1 with the reason. */
static int read_exactly(gzFile f, const char *path, const char *what, void *buf, uint64_t len, char *err,
                        unsigned cap) {
    uint64_t done = 0;
    while (done < len) {
        uint64_t want = len - done < (1u << 24) ? len - done : 1u << 24;
        int got = gzread(f, (uint8_t *)buf + done, (unsigned)want);
        if (got < 0) {
            int code;
            snprintf(err, cap, "reading %s of %s", what, gzerror(f, &code)); /* zlib's text begins with the path */
            return -1;
        }
        if (got == 0) {
            snprintf(err, cap, "reading %s of %s: the file ends after %llu of %llu bytes", what, path,
                     (unsigned long long)done, (unsigned long long)len);
            return -1;
        }
        done += (uint64_t)got;
    }
    return 0;
}

static int read_header(gzFile f, const char *path, int n_dims, int *dims, char *err, unsigned cap) {
    uint8_t head[4 + 4 * IDX_MAX_DIMS];
    if (read_exactly(f, path, "the header", head, 4 + 4 * (uint64_t)n_dims, err, cap)) return -1;
    if (head[0] != 0 || head[1] != 0 || head[2] != 8 || head[3] != n_dims) {
        snprintf(err, cap,
                 "%s is not an idx file of unsigned bytes with %d dimensions: it begins with %02x %02x %02x %02x", path,
                 n_dims, head[0], head[1], head[2], head[3]);
        return -1;
    }
    for (int i = 0; i < n_dims; i++) {
        const uint8_t *p = head + 4 + 4 * i;
        uint32_t v = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
        uint32_t max = i == 0 ? IDX_MAX_SAMPLES : IDX_MAX_SIDE;
        if (v == 0 || v > max) {
            snprintf(err, cap, "%s: dimension %d is %u, not within 1 .. %u", path, i, v, max);
            return -1;
        }
        dims[i] = (int)v;
    }
    return 0;
}

/* The whole of one file as a block of syp_malloc; NULL with the reason. */
static uint8_t *load_file(const char *path, int n_dims, int *dims, uint64_t *len, char *err, unsigned cap) {
    errno = 0; /* which zlib leaves alone when it is short of memory */
    gzFile f = gzopen(path, "rb");
    if (!f) {
        snprintf(err, cap,
                 "opening %s: %s; the Debian package dataset-fashion-mnist has it, --data names another folder", path,
                 errno ? strerror(errno) : "out of memory");
        return NULL;
    }
    uint8_t *bytes = NULL;
    if (read_header(f, path, n_dims, dims, err, cap)) goto fail;
    *len = 1;
    for (int i = 0; i < n_dims; i++)
        *len *= (uint64_t)dims[i]; /* below 2^48 by the bounds above */
    if (*len > IDX_MAX_BYTES) {
        snprintf(err, cap, "%s: %llu bytes of elements, more than %llu", path, (unsigned long long)*len, IDX_MAX_BYTES);
        goto fail;
    }
    bytes = syp_malloc(*len);
    if (!bytes) {
        snprintf(err, cap, "memory for %s: %s", path, syp_error_text());
        goto fail;
    }
    if (read_exactly(f, path, "the elements", bytes, *len, err, cap)) goto fail;
    uint8_t more;
    if (gzread(f, &more, 1) != 0) { /* also where gzip's checksum is verified */
        snprintf(err, cap, "%s: damaged, or longer than its header says (%llu bytes)", path, (unsigned long long)*len);
        goto fail;
    }
    gzclose(f);
    return bytes;
fail:
    gzclose(f);
    syp_free(bytes);
    return NULL;
}

int idx_load(const char *dir, const char *name, int n_labels, struct idx_set *out, char *err, unsigned cap) {
    char path[PATH_MAX];
    int dims[IDX_MAX_DIMS];
    uint64_t len;
    memset(out, 0, sizeof *out);

    if (snprintf(path, sizeof path, "%s/%s-images-idx3-ubyte.gz", dir, name) >= (int)sizeof path) {
        snprintf(err, cap, "the name of the data folder is too long");
        return -1;
    }
    out->pixels = load_file(path, 3, dims, &len, err, cap);
    if (!out->pixels) return -1;
    out->n = dims[0];
    out->rows = dims[1];
    out->cols = dims[2];

    snprintf(path, sizeof path, "%s/%s-labels-idx1-ubyte.gz", dir, name); /* as long as the one above */
    out->labels = load_file(path, 1, dims, &len, err, cap);
    if (!out->labels) goto fail;
    if (dims[0] != out->n) {
        snprintf(err, cap, "%s has %d labels for %d images", path, dims[0], out->n);
        goto fail;
    }
    for (int i = 0; i < out->n; i++)
        if (out->labels[i] >= n_labels) {
            snprintf(err, cap, "%s: label %d is %d, not within 0 .. %d", path, i, out->labels[i], n_labels - 1);
            goto fail;
        }
    return 0;
fail:
    idx_free(out);
    return -1;
}

void idx_free(struct idx_set *set) {
    syp_free(set->pixels);
    syp_free(set->labels);
    memset(set, 0, sizeof *set);
}
