/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host memory: a sealed memory file that peers map, or private anonymous memory.
 *
 * Invariants: a shared region's file has its size and its seals before anybody else can see it; nothing is committed
 * before it is placed on its nodes; a refused commit leaves the region as it was.  What the kernel refuses beyond plain
 * memory (large pages, placement, exclusion from core dumps) is done without, and said in one line.  Nothing is logged
 * by commit and decommit, which run under locks. Must not know: blocks, peers, who decides on sizes.
 */
#include "pool/addrmap.h"
#include "pool/backend.h"
#include "pool/base/limits.h"
#include "pool/base/log.h"
#include "pool/base/memory_file.h"
#include "pool/base/status.h"
#include "pool/base/text.h"
#include "pool/topo/topo.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define SEALS_NEEDED (F_SEAL_SHRINK | F_SEAL_GROW) /* without them a peer could take the memory from under us: SIGBUS  \
                                                    */

#define THP_LEN (2ull << 20)
#define THP_DIR "/sys/kernel/mm/transparent_hugepage/"

/* Bits kept in backend_region.state. */
enum { OWN_RESERVATION = 1, BY_POPULATE = 2, COPIED_BY_FORK = 4 };

static int has_flag(const struct backend_region *r, unsigned flag) {
    return ((uintptr_t)r->state & flag) != 0;
}
static void set_flag(struct backend_region *r, unsigned flag) {
    r->state = (void *)((uintptr_t)r->state | flag);
}

static unsigned host_caps(void) {
    return BACKEND_HOST_ACCESS | BACKEND_SHARE_FD | BACKEND_HUGE;
}

static uint64_t host_granularity(int huge) {
    switch (huge) {
    case BACKEND_THP:
        return THP_LEN;
    case BACKEND_2M:
        return 2ull << 20;
    case BACKEND_1G:
        return 1ull << 30;
    default:
        return os_page_size();
    }
}

/* What the user can change, behind the text of the record just set. */
static int err_turn(const char *turn) {
    struct syp_error *e = err_record();
    struct text t = {e->text, sizeof e->text, strlen(e->text)};
    text_addf(&t, "; %s", turn);
    return e->code;
}

/* ---------------------------------------------------------------------------------------------------- place */

/* Whole grains, so that two regions never share one in the address map. */
static uint64_t reservation_len(uint64_t len) {
    return round_up(len, ADDRMAP_GRAIN);
}

static int claim_place(struct backend_region *r, const char *name, int huge, void *at) {
    void *base = at;
    uint64_t align = host_granularity(huge) > ADDRMAP_GRAIN ? host_granularity(huge) : ADDRMAP_GRAIN;
    if (!at) {
        int rc = os->reserve(name, reservation_len(r->len), align, &base);
        if (rc < 0) {
            err_sys(SYP_ENOMEM, rc, "reserve %B of address space for \"%s\"", (unsigned long long)r->len, name);
            err_limits(rc);
            return err_turn("lower SYMPOOL_LOCAL_MEM_SIZE or raise the address space limit (ulimit -v)");
        }
        set_flag(r, OWN_RESERVATION);
    }
    r->base = base;
    return SYP_OK;
}

/* Inside the caller's reservation the place becomes inaccessible again, and stays the caller's. */
static int leave_place(struct backend_region *r) {
    void *out;
    int rc = has_flag(r, OWN_RESERVATION) ? os->release(r->base, reservation_len(r->len))
                                          : os->map(r->base, r->len, PROT_NONE, -1, 0, &out);
    if (rc < 0) return err_sys(SYP_ESYS, rc, "unmap %B at %p", (unsigned long long)r->len, (void *)r->base);
    r->base = NULL;
    r->len = 0;
    r->state = NULL;
    return SYP_OK;
}

static void bind_place(struct backend_region *r, const struct backend_request *req) {
    if (!req->nodes) return;
    int rc = topo_bind(r->base, r->len, req->nodes, req->max_node);
    r->bound = rc >= 0;
    if (r->bound) return;
    char why[96];
    struct text t = TEXT_INIT(why);
    text_add_errno(&t, -rc);
    log_info("place %B of \"%s\" on its NUMA nodes: mbind: %s; the kernel chooses (SYMPOOL_NUMA=off does not ask)",
             (unsigned long long)r->len, req->name, why);
}

/* ---------------------------------------------------------------------------------------------- large pages */

static void say_base_pages(const struct backend_request *req, const char *what, int error, const char *turn) {
    char why[96];
    struct text t = TEXT_INIT(why);
    text_add_errno(&t, -error);
    log_warn("\"%s\" of %B: %s: %s; using base pages; %s", req->name, (unsigned long long)req->len, what, why, turn);
}

/* The word in brackets of a sysfs choice ("always [madvise] never"); 0 when the file is not there. */
static int sysfs_choice(const char *path, char *choice, size_t cap) {
    char line[128];
    if (os_read_file(path, line, sizeof line) <= 0) return 0;
    const char *open = strchr(line, '['), *end = open ? strchr(open, ']') : NULL;
    if (!end) return 0;
    text_format(choice, cap, "%.*s", (int)(end - open - 1), open + 1);
    return 1;
}

/* What the system's policy says of memory that is advised MADV_HUGEPAGE.  1 = it may have large pages; 0 with the
 * setting named. */
static int thp_allowed(int shared, const char **setting, char *choice, size_t cap) {
    const char *size_file = shared ? THP_DIR "hugepages-2048kB/shmem_enabled" : THP_DIR "hugepages-2048kB/enabled";
    const char *file = shared ? THP_DIR "shmem_enabled" : THP_DIR "enabled";
    *setting = size_file; /* since Linux 6.8 / 6.11, and most often "inherit" */
    if (!sysfs_choice(size_file, choice, cap) || strcmp(choice, "inherit") == 0) {
        *setting = file;
        if (!sysfs_choice(file, choice, cap)) text_copy(choice, cap, "absent");
    }
    return strcmp(choice, "never") != 0 && strcmp(choice, "deny") != 0 && strcmp(choice, "absent") != 0;
}

/* Ask for transparent huge pages on a region that is mapped already. */
static void ask_thp(struct backend_region *r, const struct backend_request *req) {
    char choice[24];
    const char *setting;
    if ((uintptr_t)r->base % THP_LEN) {
        log_warn("\"%s\" of %B: its place %p is not aligned to %B; using base pages", req->name,
                 (unsigned long long)req->len, (void *)r->base, THP_LEN);
        return;
    }
    if (!thp_allowed(req->shared, &setting, choice, sizeof choice)) {
        log_warn("\"%s\" of %B: no transparent huge pages: %s is \"%s\"; using base pages; write \"advise\" (shared) "
                 "or \"madvise\" "
                 "(private) to that file, or set SYMPOOL_HUGE=none",
                 req->name, (unsigned long long)req->len, setting, choice);
        return;
    }
    int rc = os->advise(r->base, r->len, MADV_HUGEPAGE);
    if (rc < 0) {
        say_base_pages(req, "madvise(MADV_HUGEPAGE)", rc, "set SYMPOOL_HUGE=none");
        return;
    }
    /* fallocate would commit small pages.  With length 0 the kernel only says whether it knows the advice. */
    rc = req->shared ? os->advise(r->base, 0, MADV_POPULATE_WRITE) : 0;
    if (rc < 0) {
        say_base_pages(req, "madvise(MADV_POPULATE_WRITE)", rc, "transparent huge pages need Linux 5.14");
        return;
    }
    if (req->shared) set_flag(r, BY_POPULATE);
    r->huge = BACKEND_THP;
}

/* ----------------------------------------------------------------------------------------------------- life */

/* A sealed memory file at r->base.  0, or -errno with the step that was refused; nothing is left then. */
static int back_by_file(struct backend_region *r, const struct backend_request *req, int huge, const char **step) {
    int shift = huge == BACKEND_2M ? 21 : huge == BACKEND_1G ? 30 : 0;
    void *out;
    int fd = memory_file_open(req->name, shift, step);
    if (fd < 0) return fd;
    *step = "ftruncate";
    int rc = os->file_resize(fd, r->len);
    if (rc >= 0) {
        *step = "seal against resizing";
        rc = memory_file_seal(fd, SEALS);
    }
    if (rc >= 0) {
        *step = "mmap"; /* hugetlb: the kernel sets the pages aside here, all or nothing */
        rc = os->map(r->base, r->len, PROT_READ | PROT_WRITE, fd, 0, &out);
    }
    if (rc < 0) {
        (void)os->close(fd);
        return rc;
    }
    r->fd = fd;
    r->huge = huge;
    return 0;
}

static int create_shared(struct backend_region *r, const struct backend_request *req) {
    const char *step;
    int rc = -EINVAL;
    if (req->huge == BACKEND_2M || req->huge == BACKEND_1G) {
        rc = back_by_file(r, req, req->huge, &step);
        if (rc < 0) {
            char what[64];
            text_format(what, sizeof what, "%B pages: %s", (unsigned long long)host_granularity(req->huge), step);
            say_base_pages(
                req, what, rc,
                req->huge == BACKEND_2M
                    ? "raise /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages or set SYMPOOL_HUGE=none"
                    : "raise /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages or set SYMPOOL_HUGE=none");
        }
    }
    if (rc < 0) rc = back_by_file(r, req, BACKEND_BASE_PAGES, &step);
    if (rc < 0) {
        err_sys(rc == -ENOMEM || rc == -ENOSPC ? SYP_ENOMEM : SYP_ESYS, rc, "create shared memory \"%s\" of %B: %s",
                req->name, (unsigned long long)r->len, step);
        err_limits(rc);
        return err_turn("lower SYMPOOL_LOCAL_MEM_SIZE, or let the process call it (seccomp, ulimit -n, ulimit -v)");
    }
    if (req->huge == BACKEND_THP) ask_thp(r, req);
    return SYP_OK;
}

/* It stays inaccessible until it is committed: writable, all of it would count against RLIMIT_DATA and, without
 * overcommit, against the memory of the machine, and the program's own malloc would find nothing left. Never hugetlb:
 * after fork, a write that finds no free large page kills the writer. */
static int create_private(struct backend_region *r, const struct backend_request *req) {
    if (req->huge != BACKEND_BASE_PAGES) ask_thp(r, req);
    return SYP_OK;
}

static int host_create(struct backend_region *r, const struct backend_request *req, void *at) {
    memset(r, 0, sizeof *r);
    r->fd = -1;
    if (req->len == 0 || req->len > PTRDIFF_MAX || req->len % host_granularity(req->huge))
        return err_set(SYP_EINVAL, "create \"%s\": %llu bytes are not a multiple of the page size %llu", req->name,
                       (unsigned long long)req->len, (unsigned long long)host_granularity(req->huge));
    r->len = req->len;
    int rc = claim_place(r, req->name, req->huge, at);
    if (rc != SYP_OK) return rc;
    rc = req->shared ? create_shared(r, req) : create_private(r, req);
    if (rc == SYP_OK && req->huge_required && r->huge != req->huge)
        rc = err_set(SYP_ENOMEM, "create \"%s\" of %B: the large pages asked for cannot be had (the log says why); set SYMPOOL_HUGE=none or "
                                 "SYMPOOL_HUGE_REQUIRED=off", req->name, (unsigned long long)r->len);
    if (rc == SYP_OK) {
        bind_place(r, req);
        return SYP_OK;
    }
    syp_error why = *err_record();
    if (r->fd >= 0) (void)os->close(r->fd);
    (void)leave_place(r); /* a place of the caller's is inaccessible again */
    *err_record() = why;
    memset(r, 0, sizeof *r);
    r->fd = -1;
    return rc;
}

/* Programs close descriptors they do not know (daemons, test harnesses), and the number may since name a file of
 * theirs. */
static int file_is_ours(const struct backend_region *r) {
    return memory_file_is_ours(r->fd, r->len, SEALS);
}

static int host_destroy(struct backend_region *r) {
    int fd = r->fd;
    if (!r->base) return SYP_OK;
    int close_it = fd >= 0 && file_is_ours(r);
    int rc = leave_place(r);
    if (close_it) (void)os->close(fd);
    r->fd = -1;
    return rc;
}

/* -------------------------------------------------------------------------------------------------- commit */

static int refuse_commit(const struct backend_region *r, uint64_t off, uint64_t len, const char *call, int error) {
    int no_memory = error == -ENOSPC || error == -ENOMEM || error == -EFAULT;
    err_sys(no_memory ? SYP_ENOMEM : SYP_ESYS, error, "commit %B at offset %B: %s", (unsigned long long)len,
            (unsigned long long)off, call);
    if (r->fd < 0) err_limits(error);
    if (no_memory && memory_file_say_space(r->fd)) return err_record()->code;
    if (r->huge == BACKEND_2M || r->huge == BACKEND_1G)
        return err_turn("raise nr_hugepages under /sys/kernel/mm/hugepages, or set SYMPOOL_HUGE=none");
    return err_turn("free memory on this machine or raise the limit of its container, or lower SYMPOOL_LOCAL_MEM_SIZE");
}

static int host_commit(struct backend_region *r, uint64_t off, uint64_t len) {
    const char *call = "fallocate";
    int rc = -EBADF;
    if (r->fd < 0) { /* pages come as they are touched */
        rc = os->protect(r->base + off, len, PROT_READ | PROT_WRITE);
        return rc < 0 ? refuse_commit(r, off, len, "mprotect", rc) : SYP_OK;
    }
    if (!has_flag(r, BY_POPULATE) && file_is_ours(r)) rc = os->file_commit(r->fd, off, len);
    /* also for a file system without fallocate, and when the program closed our descriptor: the mapping is still there
     */
    if (rc == -EBADF || rc == -EOPNOTSUPP || rc == -ENOSYS) {
        call = "madvise(MADV_POPULATE_WRITE)";
        rc = os->advise(r->base + off, len, MADV_POPULATE_WRITE);
    }
    return rc < 0 ? refuse_commit(r, off, len, call, rc) : SYP_OK;
}

static int host_decommit(struct backend_region *r, uint64_t off, uint64_t len) {
    int rc = -EBADF;
    if (r->fd < 0 || has_flag(r, COPIED_BY_FORK)) /* the file's pages may be those of a child's live blocks */
        rc = os->advise(r->base + off, len, MADV_DONTNEED);
    else if (file_is_ours(r))
        rc = os->file_punch(r->fd, off, len);
    if (rc == -EBADF) rc = os->advise(r->base + off, len, MADV_REMOVE); /* descriptor closed by the program */
    if (rc < 0)
        return err_sys(SYP_ESYS, rc, "give back %B at offset %B", (unsigned long long)len, (unsigned long long)off);
    return SYP_OK;
}

/* Large pages stay shared: a writer that finds no free one for its copy is killed. */
static int host_make_private(struct backend_region *r) {
    if (r->fd < 0) return 0;
    if (r->huge == BACKEND_2M || r->huge == BACKEND_1G) return -EOPNOTSUPP;
    int rc = file_is_ours(r) ? os->map_copy(r->base, r->len, r->fd) : -EBADF;
    if (rc >= 0) set_flag(r, COPIED_BY_FORK);
    return rc;
}

/* --------------------------------------------------------------------------------------------------- peers */

static int host_export(const struct backend_region *r) {
    if (r->fd < 0)
        return err_set(SYP_EUNSUPPORTED, "export %B of private memory: it has no file", (unsigned long long)r->len);
    if (!file_is_ours(r))
        return err_set(
            SYP_ESTATE,
            "export %B: descriptor %d is not the pool's file any more; the program closed descriptors it did not open",
            (unsigned long long)r->len, r->fd);
    return r->fd;
}

/* A peer's descriptor may be anything: it is looked at before it is mapped. */
static int check_import(int fd, uint64_t len) {
    uint64_t size = 0;
    int seals = os->file_seals(fd);
    if (seals < 0)
        return err_sys(SYP_EINVAL, seals, "import a pool of %B: its descriptor is no memory file",
                       (unsigned long long)len);
    if ((seals & SEALS_NEEDED) != SEALS_NEEDED && !memory_file_unsealable(seals))
        return err_set(SYP_EINVAL, "import a pool of %B: its file can still be resized (seals 0x%x, needed 0x%x)",
                       (unsigned long long)len, (unsigned)seals, (unsigned)SEALS_NEEDED);
    int rc = os->file_size(fd, &size);
    if (rc < 0) return err_sys(SYP_EINVAL, rc, "import a pool of %B: size of its file", (unsigned long long)len);
    if (size != len || len == 0 || len > PTRDIFF_MAX)
        return err_set(SYP_EINVAL, "import a pool of %llu bytes: its file has %llu", (unsigned long long)len,
                       (unsigned long long)size);
    return SYP_OK;
}

static int host_import(struct backend_region *r, int fd, uint64_t len, void *at) {
    void *out;
    memset(r, 0, sizeof *r);
    r->fd = -1;
    int rc = check_import(fd, len);
    if (rc != SYP_OK) return rc;
    r->len = len;
    rc = claim_place(r, "sympool peer", BACKEND_BASE_PAGES, at);
    if (rc != SYP_OK) return rc;
    rc = os->map(r->base, len, PROT_READ | PROT_WRITE, fd, 0, &out);
    if (rc < 0) {
        if (has_flag(r, OWN_RESERVATION)) (void)os->release(r->base, reservation_len(len));
        memset(r, 0, sizeof *r);
        r->fd = -1;
        err_sys(SYP_ESYS, rc, "map a peer's pool of %B", (unsigned long long)len);
        err_limits(rc);
        return err_turn("lower SYMPOOL_LOCAL_MEM_SIZE or raise ulimit -v and vm.max_map_count");
    }
    rc = os->advise(r->base, len, MADV_DONTDUMP);
    if (rc < 0) {
        static struct log_limit once = LOG_LIMIT(1);
        char why[96];
        struct text t = TEXT_INIT(why);
        text_add_errno(&t, -rc);
        log_warn_limited(&once, "exclude a peer's pool of %B from core dumps: %s; core dumps hold it too",
                         (unsigned long long)len, why);
    }
    return SYP_OK;
}

static int host_unimport(struct backend_region *r) {
    return r->base ? leave_place(r) : SYP_OK;
}

/* -------------------------------------------------------------------------------- streams: always done already */

static int host_copy(void *dst, const void *src, size_t len, void *stream) {
    (void)stream;
    memcpy(dst, src, len);
    return SYP_OK;
}

static int host_event_record(void *stream, backend_event *out) {
    (void)stream;
    *out = 0;
    return SYP_OK;
}

static int host_event_query(backend_event e) {
    (void)e;
    return 1;
}

static int host_event_wait(backend_event e, uint64_t deadline) {
    (void)e;
    (void)deadline;
    return SYP_OK;
}

const struct backend_ops backend_host = {
    .name = "host",
    .caps = host_caps,
    .granularity = host_granularity,
    .create = host_create,
    .destroy = host_destroy,
    .commit = host_commit,
    .decommit = host_decommit,
    .make_private = host_make_private,
    .export_fd = host_export,
    .import_fd = host_import,
    .unimport = host_unimport,
    .copy_async = host_copy,
    .reduce_async = NULL,
    .event_record = host_event_record,
    .event_query = host_event_query,
    .event_wait = host_event_wait,
};
