/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shared_create, shared_open, shared_close: named segments of /dev/shm.
 *
 * A file gets its name when it is complete (made without one, then linked), so no opener sees a size or content that is not final.  The creator holds a
 * lock on its open file as long as it lives; the kernel takes it back however the creator ends.  A name whose file nobody holds is what a crash left:
 * openers wait past it, the next creator removes it.  Behind the data, in a page of its own, lies what the openers must know.
 *
 * Must not know: collectives.
 */
#include "allocator/compat/shm.h"
#include "allocator/compat/shm_report.h"
#include "allocator/sympool.h"
#include "pool/base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER "/dev/shm/"
#define NAME_LEN 255
#define MAX_RANKS 1024
#define SEGMENT_MAGIC 0x31746e656d676573ull /* "segment1" */
#define CREATE_NS (2 * NS_PER_S)            /* how long a killed creator may take to be gone */

struct tail {
    uint64_t magic, nbytes;
    int32_t pid;              /* creator */
    int32_t n_ranks;          /* of the creator's world, 0 = it had none */
    char path[sizeof FOLDER + NAME_LEN];
    _Atomic uint64_t opened[MAX_RANKS / 64]; /* a bit for each rank that has it mapped, the creator's included; each sets its own */
};

static size_t page_size(void) {
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Bytes of the data in whole pages, where the tail begins; 0 = too many. */
static size_t data_len(size_t nbytes) {
    size_t page = page_size();
    return nbytes > (size_t)INT64_MAX - 2 * page ? 0 : (nbytes + page - 1) / page * page;
}

static void *map_file(int fd, size_t nbytes) {
    return mmap(NULL, data_len(nbytes) + page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

static struct tail *tail_of(void *bytes, size_t nbytes) {
    return (struct tail *)(void *)((char *)bytes + data_len(nbytes));
}

static int report_errno(int code, const char *call, const char *name, const char *what, int sys_errno) {
    char why[96];
    struct text t = TEXT_INIT(why);
    text_add_errno(&t, sys_errno);
    shm_report(code, "%s(\"%s\"): %s: %s", call, name, what, why);
    errno = sys_errno;
    return code;
}

/* Arguments of both, and data as it is after a failure. */
static int check(struct SharedData *data, const char *call, const char *name, size_t nbytes, char path[sizeof FOLDER + NAME_LEN]) {
    errno = EINVAL;
    if (!data) return shm_report(SYP_EINVAL, "%s: data is NULL", call);
    *data = (struct SharedData){.name = name, .descriptor = -1};
    const char *plain = name ? name + (name[0] == '/') : "";
    if (!*plain || strlen(plain) > NAME_LEN || strchr(plain, '/') || strcmp(plain, ".") == 0 || strcmp(plain, "..") == 0)
        return shm_report(SYP_EINVAL, "%s: the name \"%s\" must have 1 to %d characters without '/'", call, name ? name : "(NULL)", NAME_LEN);
    if (nbytes == 0 || data_len(nbytes) == 0) return shm_report(SYP_EINVAL, "%s(\"%s\"): %zu bytes", call, name, nbytes);
    text_format(path, sizeof FOLDER + NAME_LEN, FOLDER "%s", plain);
    return SYP_OK;
}

/* ------------------------------------------------------------------------------------------------- the lock */

/* Take the creator's lock, unless another open file has it. */
static int take_lock(int fd) {
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_SETLK, &l) == 0;
}

/* 1 = another open file than this one has the lock: its creator lives. */
static int is_held(int fd) {
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

static int is_file_of(int fd, const char *path) {
    struct stat file, named;
    return fstat(fd, &file) == 0 && lstat(path, &named) == 0 && file.st_dev == named.st_dev && file.st_ino == named.st_ino;
}

/* Somebody's segment has the name: remove it if its creator is gone.  0 = the name may be free now; else the creator's pid, -1 = not known. */
static int clear_name(const char *path) {
    struct stat st;
    struct tail t;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW), holder = -1;
    if (fd < 0) return errno == ENOENT ? 0 : -1;
    if (fstat(fd, &st) == 0 && st.st_uid == geteuid() && take_lock(fd)) {
        holder = 0;
        if (is_file_of(fd, path)) (void)unlink(path); /* with its lock in our hands, no other can be at this */
    } else if (st.st_size > (off_t)page_size() && pread(fd, &t, sizeof t, st.st_size - (off_t)page_size()) == (ssize_t)sizeof t &&
               t.magic == SEGMENT_MAGIC) {
        holder = t.pid;
    }
    (void)close(fd);
    return holder;
}

/* --------------------------------------------------------------------------------------------------- create */

/* A file without a name, with memory, content and lock.  SYP_OK, or the code after the line. */
static int make_file(struct SharedData *data, const char *path, const void *bytes, size_t nbytes) {
    int fd = open(FOLDER, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), no;
    if (fd < 0) return report_errno(SYP_ESYS, "shared_create", data->name, "a file of " FOLDER, errno);
    if ((no = posix_fallocate(fd, 0, (off_t)(data_len(nbytes) + page_size()))) != 0) {
        (void)close(fd);
        return report_errno(no == ENOSPC ? SYP_ENOMEM : SYP_ESYS, "shared_create", data->name, "room in " FOLDER, no);
    }
    void *map = map_file(fd, nbytes);
    if (map == MAP_FAILED || !take_lock(fd)) {
        no = errno;
        if (map != MAP_FAILED) (void)munmap(map, data_len(nbytes) + page_size());
        (void)close(fd);
        return report_errno(SYP_ESYS, "shared_create", data->name, "map and lock the file", no);
    }
    struct tail *t = tail_of(map, nbytes);
    int rank = syp_rank();
    *t = (struct tail){.magic = SEGMENT_MAGIC, .nbytes = nbytes, .pid = getpid(), .n_ranks = syp_world_size()};
    text_copy(t->path, sizeof t->path, path);
    if (rank >= 0) atomic_init(&t->opened[rank / 64], 1ull << rank % 64);
    if (bytes) memcpy(map, bytes, nbytes);
    data->descriptor = fd;
    data->bytes = map;
    data->nbytes = nbytes;
    return SYP_OK;
}

/* Give the file its name.  0; else an errno, and *holder where that is EEXIST. */
static int link_file(int fd, const char *path, int *holder) {
    char self[40];
    uint64_t until = shm_now() + CREATE_NS;
    text_format(self, sizeof self, "/proc/self/fd/%d", fd);
    while (linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) != 0) {
        if (errno != EEXIST) return errno;
        *holder = clear_name(path);
        if (*holder == 0) continue;
        if (shm_now() >= until) return EEXIST;
        shm_sleep(NS_PER_MS);
    }
    return 0;
}

int shared_create(struct SharedData *data, const char *name, const void *bytes, size_t nbytes) {
    char path[sizeof FOLDER + NAME_LEN];
    int holder = -1, rc = check(data, "shared_create", name, nbytes, path);
    if (rc == SYP_OK) rc = make_file(data, path, bytes, nbytes);
    if (rc != SYP_OK) return rc;
    int no = syp_world_size() == 1 ? 0 : link_file(data->descriptor, path, &holder); /* alone in the world: nobody will look for it */
    if (no == 0) return SYP_OK;
    (void)shared_close(data);
    if (no != EEXIST) return report_errno(SYP_ESYS, "shared_create", name, "link the file", no);
    errno = EEXIST;
    return shm_report(SYP_EBUSY, "shared_create(\"%s\"): process %d has a segment of this name; end it, or use another name", name, holder);
}

/* ----------------------------------------------------------------------------------------------------- open */

static uint64_t open_deadline(void) {
    const char *s = shm_environ("SYMPOOL_JOIN_TIMEOUT");
    int64_t ns;
    if (!s || text_to_duration(s, &ns) != 0 || ns <= 0) ns = 30 * (int64_t)NS_PER_S;
    return shm_now() + (uint64_t)ns;
}

/* The last rank of the creator's world that opens the segment removes its name. */
static void note_opened(int fd, struct tail *t) {
    int rank = syp_rank(), n = t->n_ranks, opened = 0;
    if (rank < 0 || rank >= MAX_RANKS || n != syp_world_size()) return;
    atomic_fetch_or_explicit(&t->opened[rank / 64], 1ull << rank % 64, memory_order_acq_rel); /* with itself: the last sees all others' bits */
    for (int i = 0; i < MAX_RANKS / 64; i++)
        opened += __builtin_popcountll(atomic_load_explicit(&t->opened[i], memory_order_acquire));
    t->path[sizeof t->path - 1] = 0;
    if (opened == n && is_file_of(fd, t->path)) (void)unlink(t->path);
}

/* One look.  SYP_OK; SYP_ETIMEOUT: not there yet; else the code after the line. */
static int try_open(struct SharedData *data, const char *path, size_t nbytes) {
    struct stat st;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW), no = errno;
    if (fd < 0) return no == ENOENT ? SYP_ETIMEOUT : report_errno(SYP_ESYS, "shared_open", data->name, "open", no);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || !is_held(fd)) {
        (void)close(fd);
        return SYP_ETIMEOUT; /* not a segment of ours, or left by a crash */
    }
    uint64_t len = data_len(nbytes) + page_size();
    void *map = (uint64_t)st.st_size == len ? map_file(fd, nbytes) : NULL;
    no = errno;
    if (map && map != MAP_FAILED && tail_of(map, nbytes)->magic == SEGMENT_MAGIC && tail_of(map, nbytes)->nbytes == nbytes) {
        note_opened(fd, tail_of(map, nbytes));
        data->descriptor = fd;
        data->bytes = map;
        data->nbytes = nbytes;
        return SYP_OK;
    }
    if (map && map != MAP_FAILED) (void)munmap(map, len);
    (void)close(fd);
    if (map == MAP_FAILED) return report_errno(SYP_ESYS, "shared_open", data->name, "map", no);
    errno = EINVAL;
    return shm_report(SYP_EINVAL, "shared_open(\"%s\"): it does not have the %zu bytes asked for, but a file of %lld", data->name, nbytes,
                      (long long)st.st_size);
}

int shared_open(struct SharedData *data, const char *name, size_t nbytes) {
    char path[sizeof FOLDER + NAME_LEN];
    int rc = check(data, "shared_open", name, nbytes, path);
    if (rc != SYP_OK) return rc;
    uint64_t until = open_deadline(), pause = NS_PER_MS / 10;
    while ((rc = try_open(data, path, nbytes)) == SYP_ETIMEOUT && shm_now() < until) {
        shm_sleep(pause);
        if (pause < 4 * NS_PER_MS) pause *= 2;
    }
    if (rc != SYP_ETIMEOUT) return rc;
    errno = ETIMEDOUT;
    return shm_report(rc, "shared_open(\"%s\"): no living process has made it; see whether the creator runs, or raise SYMPOOL_JOIN_TIMEOUT", name);
}

/* ---------------------------------------------------------------------------------------------------- close */

int shared_close(struct SharedData *data) {
    if (!data) return shm_report(SYP_EINVAL, "shared_close: data is NULL");
    if (data->descriptor < 0) return SYP_OK;
    if (data->bytes) {
        struct tail *t = tail_of(data->bytes, data->nbytes);
        t->path[sizeof t->path - 1] = 0;
        /* nobody else holds it: this is the creator, or the creator is gone */
        if (!is_held(data->descriptor) && is_file_of(data->descriptor, t->path)) (void)unlink(t->path);
        (void)munmap(data->bytes, data_len(data->nbytes) + page_size());
    }
    (void)close(data->descriptor);
    data->descriptor = -1;
    data->bytes = NULL;
    return SYP_OK;
}
