/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shm_initialize, all_reduce_outer_loop and all_gather: names and arguments of the source, the work is sympool's.
 *
 * An argument that is wrong on this rank only must not leave the others waiting: the call is still made, with an operation that sympool refuses, and so
 * every rank learns of it (refuse).  Must not know: how anything is done in sympool; this is a program's view of it.
 */
#include "allocator/compat/shm.h"
#include "allocator/compat/shm_report.h"
#include "allocator/sympool.h"
#include "pool/base/text.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define DYING_NS (2 * NS_PER_S) /* how long a killed process of the job before may take to be gone */

_Static_assert((int)SHM_FLOAT32 == SYP_FLOAT32 && (int)SHM_FLOAT16 == SYP_FLOAT16 && (int)SHM_BFLOAT16 == SYP_BFLOAT16,
               "the header promises syp_dtype's values");

/* ------------------------------------------------------------------------------------------------- the job */

/* Digest of the name under which this process was initialised, 0 = it was not; relaxed: it stands for itself. */
static _Atomic uint64_t job_digest;

static uint64_t absorb(uint64_t h, const char *text) {
    for (const char *p = text; *p; p++)
        h = (h ^ (uint8_t)*p) * 0x100000001b3ull;
    return (h ^ 0xff) * 0x100000001b3ull; /* the end counts, too */
}

/* Append s with what a job's name cannot have replaced; 1 = it was as it is. */
static int add_name(struct text *t, const char *s, const char *legal) {
    int whole = 1;
    for (; *s; s++) {
        int ok = (*s >= '0' && *s <= '9') || (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || strchr(legal, *s);
        text_addf(t, "%c", ok ? *s : '_');
        whole &= ok;
    }
    return whole;
}

/* "shm-127.0.0.1:29500-4"; what does not fit, or has other characters, is told apart by a digest at its end.  Returns the digest. */
static uint64_t name_job(char out[64], int size, const char *addr, const char *port) {
    char whole[256], number[16];
    struct text t = TEXT_INIT(whole);
    text_format(number, sizeof number, "%d", size);
    uint64_t digest = absorb(absorb(absorb(0xcbf29ce484222325ull, addr), port), number);
    text_addf(&t, "shm-");
    int fits = add_name(&t, addr, "._:-");
    text_addf(&t, ":");
    fits &= add_name(&t, port, "._-");
    text_addf(&t, "-%s", number);
    if (fits && t.len < 64)
        text_copy(out, 64, whole);
    else
        text_format(out, 64, "%.*s-%08x%08x", 46, whole, (unsigned)(digest >> 32), (unsigned)digest);
    return digest ? digest : 1;
}

/* A rank of a killed job is held until the kernel has closed its descriptors: a restart at once must not fail for that. */
static int join(int size, int rank, const char *job) {
    syp_config config = SYP_CONFIG_INIT;
    uint64_t until = shm_now() + DYING_NS;
    config.rank = rank;
    config.n_ranks = size;
    config.job = shm_environ("SYMPOOL_JOB") ? NULL : job; /* a launcher of sympool's own knows better */
    for (;;) {
        int rc = syp_init_config(&config);
        if (rc != SYP_ESTATE || syp_world_size() > 0 || shm_now() >= until) return rc;
        shm_sleep(20 * NS_PER_MS);
    }
}

int shm_initialize(int size, int rank, const char *addr_string, const char *port_string) {
    const char *addr = addr_string ? addr_string : "", *port = port_string ? port_string : "";
    char job[64], call[160];
    uint64_t digest = name_job(job, size, addr, port);
    text_format(call, sizeof call, "shm_initialize(%d, %d, \"%.*s\", \"%.*s\")", size, rank, 60, addr, 20, port);
    if (size < 1 || rank < 0 || rank >= size)
        return shm_report(SYP_EINVAL, "%s: the size must be at least 1, and the rank 0 to size - 1", call);
    if (syp_world_size() == 0) {
        int rc = join(size, rank, job);
        if (rc != SYP_OK) return shm_report(rc, "%s: %s", call, syp_error_text());
        atomic_store_explicit(&job_digest, digest, memory_order_relaxed);
        return SYP_OK;
    }
    if (syp_world_size() != size || syp_rank() != rank)
        return shm_report(SYP_ESTATE, "%s: this process is rank %d of %d already; call it with these, or syp_finalize before", call, syp_rank(),
                          syp_world_size());
    uint64_t before = 0;
    if (!atomic_compare_exchange_strong_explicit(&job_digest, &before, digest, memory_order_relaxed, memory_order_relaxed) && before != digest)
        return shm_report(SYP_ESTATE, "%s: it was called with another address or port before; there is one job per process", call);
    return SYP_OK;
}

/* -------------------------------------------------------------------------------------------- collectives */

/* Bytes of an element, 0 = no type that sympool knows. */
static size_t element_size(int dtype) {
    static const uint8_t size[] = {[SYP_FLOAT64] = 8, [SYP_FLOAT32] = 4, [SYP_FLOAT16] = 2, [SYP_BFLOAT16] = 2, [SYP_INT32] = 4,
                                   [SYP_INT64] = 8,   [SYP_INT8] = 1,    [SYP_UINT8] = 1,   [SYP_UINT32] = 4,   [SYP_UINT64] = 8};
    return dtype > 0 && (size_t)dtype < sizeof size ? size[dtype] : 0;
}

/* The line about a failed collective.  A broken group says the same at every later call, perhaps to somebody who does not listen: one line a second. */
static int report_failure(int code, const char *call) {
    static _Atomic uint64_t next_line; /* ns; a figure: relaxed */
    int broken = code == SYP_EPEER || code == SYP_ETIMEOUT || code == SYP_EABORTED;
    uint64_t now = shm_now();
    if (broken && now < atomic_load_explicit(&next_line, memory_order_relaxed)) return code;
    if (broken) atomic_store_explicit(&next_line, now + NS_PER_S, memory_order_relaxed);
    return shm_report(code, "%s: %s", call, syp_error_text());
}

static int finished(int rc, const char *call) {
    return rc == SYP_OK ? rc : report_failure(rc, call);
}

/* Why this rank's call is not made is said already; tell the others, by an operation of no type. */
static int refuse(int said) {
    int rc = syp_allreduce(NULL, NULL, 0, (syp_dtype)0, SYP_SUM, SYP_COMM_WORLD, NULL);
    return rc == SYP_EINVAL ? said : report_failure(rc, "a refused call");
}

int all_reduce_outer_loop(void *data, size_t numel, size_t data_size, int dtype) {
    size_t unit = element_size(dtype), len;
    if (unit && (__builtin_mul_overflow(numel, unit, &len) || len != data_size))
        return refuse(shm_report(SYP_EINVAL, "all_reduce_outer_loop: %zu elements of %zu bytes (type %d) are not %zu bytes", numel, unit, dtype, data_size));
    /* an unknown type is refused there, on every rank */
    return finished(syp_allreduce(data, data, numel, (syp_dtype)dtype, SYP_SUM, SYP_COMM_WORLD, NULL), "all_reduce_outer_loop");
}

/* rows: product of the sizes before dim; row: bytes from dim on.  SYP_OK, or SYP_EINVAL after the line. */
static int measure(const int64_t *sizes, int n_dims, int dim, size_t numel, size_t data_size, int dtype, size_t *rows, size_t *row) {
    size_t unit = element_size(dtype), len;
    if (unit == 0) return shm_report(SYP_EINVAL, "all_gather: %d is no element type (syp_dtype)", dtype);
    if (!sizes || n_dims < 1 || dim < -n_dims || dim >= n_dims)
        return shm_report(SYP_EINVAL, "all_gather: dim %d of %d dimensions%s; it must be -%d to %d", dim, n_dims, sizes ? "" : " (sizes NULL)", n_dims,
                          n_dims - 1);
    int first = dim < 0 ? dim + n_dims : dim, over = 0;
    *rows = 1;
    *row = unit;
    for (int d = 0; d < n_dims; d++) {
        if (sizes[d] < 0) return shm_report(SYP_EINVAL, "all_gather: size %lld in dimension %d", (long long)sizes[d], d);
        size_t *product = d < first ? rows : row;
        over |= __builtin_mul_overflow(*product, (size_t)sizes[d], product);
    }
    over |= __builtin_mul_overflow(*rows, *row, &len);
    if (over || len != data_size || data_size != numel * unit)
        return shm_report(SYP_EINVAL, "all_gather: %zu elements of %zu bytes (type %d), %zu bytes, and the product of the %d sizes do not agree", numel,
                          unit, dtype, data_size, n_dims);
    return SYP_OK;
}

int all_gather(void *result, const void *data, int dim, size_t numel, size_t data_size, int dtype, const int64_t *sizes, int n_dims) {
    size_t rows, row;
    int rc = measure(sizes, n_dims, dim, numel, data_size, dtype, &rows, &row);
    if (rc != SYP_OK) return refuse(rc);
    return finished(syp_allgather_rows(data, result, rows, row, 0, 0, SYP_COMM_WORLD, NULL), "all_gather");
}
