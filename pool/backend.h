/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kind of memory a pool is made of, as one table per kind.  Host memory (backend_host.c) is built in; device memory comes
 * as modules with the same table.  Offsets count from the start of the region.  Calls return 0 or a SYP_E* code with the
 * error record set.
 *
 * Life of a region: open -> create (address + size known, nothing committed) -> commit chunks -> export one fd to peers -> they import
 * it -> unimport / destroy -> close.
 */
#ifndef SYP_POOL_BACKEND_H
#define SYP_POOL_BACKEND_H

#include "allocator/sympool.h"
#include "pool/base/os.h"

enum backend_caps {
    BACKEND_HOST_ACCESS = 1 << 0, /* the processor may load and store it */
    BACKEND_SHARE_FD = 1 << 1,    /* export gives a file descriptor that peers of this host can import */
    BACKEND_ASYNC = 1 << 2,       /* copy_async and reduce_async run behind the caller; events tell when */
    BACKEND_HUGE = 1 << 3         /* regions may have pages larger than the base page; backend_region.huge says what was granted */
};

/* Page sizes, in the order of SYMPOOL_HUGE. */
enum backend_huge { BACKEND_BASE_PAGES = 0, BACKEND_THP, BACKEND_2M, BACKEND_1G };

/* What a region is created with. */
struct backend_request {
    uint64_t len;          /* multiple of the granularity */
    int shared;            /* 1: peers will import it.  0: private to this process, copied on write by fork */
    int huge;              /* enum backend_huge */
    int huge_required;     /* SYP_ENOMEM when they cannot be had, instead of a log line */
    const unsigned long *nodes; /* NUMA nodes as a bit mask for mbind, NULL = unbound */
    unsigned long max_node;
    const char *name;      /* shows in /proc/PID/maps */
};

/* One region of this process, or one imported from a peer.  Owned by the caller, filled by the backend. */
struct backend_region {
    char *base;   /* where the processor (or device) sees it */
    uint64_t len;
    int fd;       /* -1 = private */
    int huge;     /* granted, enum backend_huge */
    int bound;    /* 1 = NUMA placement applied */
    void *state;  /* the backend's own */
};

/* A point in the order of a stream.  The host backend's are done as soon as they are recorded. */
typedef uint64_t backend_event;

struct backend_ops {
    const char *name; /* "host" */
    /* Bits of enum backend_caps that this backend can have at all. */
    unsigned (*caps)(void);
    /* Smallest unit of commit for the page size asked for, bytes, power of two. */
    uint64_t (*granularity)(int huge);
    /* at: address inside a reservation of the caller, NULL = reserve by itself. */
    int (*create)(struct backend_region *r, const struct backend_request *req, void *at);
    int (*destroy)(struct backend_region *r);
    /* Physical memory for [off, off + len), multiples of the granularity; SYP_ENOMEM with limit and request in the text. */
    int (*commit)(struct backend_region *r, uint64_t off, uint64_t len);
    int (*decommit)(struct backend_region *r, uint64_t off, uint64_t len);
    /* A shared region whose peers are gone: from now on copied on write by fork, as private memory is.  0 or -errno; no record, no log. */
    int (*make_private)(struct backend_region *r);
    /* The fd peers import; stays the region's. */
    int (*export_fd)(const struct backend_region *r);
    /* Map a peer's region at `at` (inside a reservation).  The fd stays the caller's, is checked (size, seals) and may be closed after.
     * A file that cannot be sealed at all (memory_file.h) passes: whether its owner may have one is for the caller to know. */
    int (*import_fd)(struct backend_region *r, int fd, uint64_t len, void *at);
    int (*unimport)(struct backend_region *r);
    /* Queued on a stream; stream NULL = done on return.  Host: always done on return. */
    int (*copy_async)(void *dst, const void *src, size_t len, void *stream);
    /* NULL when the processor does the arithmetic (BACKEND_HOST_ACCESS). */
    int (*reduce_async)(void *dst, const void *const *src, int n, size_t count, syp_dtype dtype, syp_op op, void *stream);
    int (*event_record)(void *stream, backend_event *out);
    int (*event_query)(backend_event e); /* 1 done, 0 pending, < 0 error */
    int (*event_wait)(backend_event e, uint64_t deadline);
};

extern const struct backend_ops backend_host;

#endif
