/* SPDX-License-Identifier: Apache-2.0 */
/* Host memory: seals, commit, placement, import of hostile descriptors, and everything the kernel may refuse. */
#include "pool/backend.h"

#include "pool/addrmap.h"
#include "pool/base/conf.h"
#include "pool/base/log.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/fake_os.h"
#include "tests/support/ranks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1ull << 20)
#define LEN (8 * MIB)

static const struct backend_ops *const host = &backend_host;

static struct backend_request shared_request(int huge) {
    return (struct backend_request){.len = LEN, .shared = 1, .huge = huge, .name = "host test"};
}

static void create(struct backend_region *r, const struct backend_request *req) {
    if (CHECK(host->create(r, req, NULL) == SYP_OK)) return;
    fprintf(stderr, "create: %s\n", syp_error_text());
    exit(1);
}

static uint64_t file_bytes(int fd) {
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

/* ------------------------------------------------------------------------------------------------ log lines */

static char lines[4096];
static int n_lines;

static void keep_line(void *arg, int level, const char *text) {
    (void)arg;
    (void)level;
    n_lines++;
    snprintf(lines + strlen(lines), sizeof lines - strlen(lines), "%s\n", text);
}

static void listen_to(const char *level) {
    setenv("SYMPOOL_LOG", level, 1);
    conf_reset();
    log_start();
    syp_log_set(keep_line, NULL);
    lines[0] = 0;
    n_lines = 0;
}

/* --------------------------------------------------------------------------------------------- /sys by hand */

/* Answers reads of the files of transparent huge pages; everything else is real. */
static const char *sys_size_choice, *sys_choice; /* NULL = the file is not there */
static const char *sys_open;
static const struct os_ops *sys_below;

static int sys_open_read(const char *path) {
    if (!strstr(path, "/transparent_hugepage/")) return sys_below->open_read(path);
    sys_open = strstr(path, "hugepages-2048kB") ? sys_size_choice : sys_choice;
    return sys_open ? sys_below->open_read("/dev/null") : -ENOENT;
}

static int64_t sys_read(int fd, void *buf, size_t len) {
    if (!sys_open) return sys_below->read(fd, buf, len);
    size_t n = strlen(sys_open);
    memcpy(buf, sys_open, n);
    sys_open = NULL;
    return (int64_t)n;
}

static void sys_on(const char *size_choice, const char *choice) {
    static struct os_ops table;
    sys_size_choice = size_choice;
    sys_choice = choice;
    table = *os;
    table.open_read = sys_open_read;
    table.read = sys_read;
    sys_below = os_swap(&table);
}

static void sys_off(void) {
    os_swap(sys_below);
}

/* ---------------------------------------------------------------------------------------------------- tests */

/* The flags of the mapping that contains p in /proc/self/smaps hold this one ("dd" = not in core dumps). */
static int has_vm_flag(const void *p, const char *flag) {
    char line[512];
    int inside = 0, found = 0;
    FILE *f = fopen("/proc/self/smaps", "r");
    while (f && fgets(line, sizeof line, f)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2) inside = (uintptr_t)p >= from && (uintptr_t)p < to;
        if (inside && strncmp(line, "VmFlags:", 8) == 0 && strstr(line, flag)) found = 1;
    }
    if (f) fclose(f);
    return found;
}

/* Protection of the mapping that contains p ("rw-s"), and whether its line holds `name`. */
static void mapping_of(const void *p, char prot[5], int *named, const char *name) {
    char line[512];
    FILE *f = fopen("/proc/self/maps", "r");
    memcpy(prot, "none", 5);
    *named = 0;
    while (f && fgets(line, sizeof line, f)) {
        unsigned long from, to;
        char flags[5];
        if (sscanf(line, "%lx-%lx %4s", &from, &to, flags) != 3 || (uintptr_t)p < from || (uintptr_t)p >= to) continue;
        memcpy(prot, flags, 5);
        *named = strstr(line, name) != NULL;
    }
    if (f) fclose(f);
}

static void sealed(void) {
    struct backend_region r;
    struct backend_request req = shared_request(BACKEND_BASE_PAGES);
    struct stat st;
    char prot[5];
    int named;
    create(&r, &req);
    CHECK_EQ(r.len, LEN);
    CHECK_EQ(r.huge, BACKEND_BASE_PAGES);
    CHECK_EQ(r.bound, 0);
    CHECK_EQ((uintptr_t)r.base % ADDRMAP_GRAIN, 0);
    int seals = fcntl(r.fd, F_GET_SEALS);
    CHECK_EQ(seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    CHECK(ftruncate(r.fd, LEN / 2) == -1 && errno == EPERM);
    CHECK(ftruncate(r.fd, LEN * 2) == -1 && errno == EPERM);
    CHECK(fcntl(r.fd, F_ADD_SEALS, F_SEAL_WRITE) == -1);
    CHECK(fcntl(r.fd, F_GETFD) & FD_CLOEXEC);
    CHECK(fstat(r.fd, &st) == 0 && (uint64_t)st.st_size == LEN);
    mapping_of(r.base, prot, &named, "host test");
    CHECK_STR(prot, "rw-s");
    CHECK(named);
    CHECK_EQ(host->export_fd(&r), r.fd);
    int fd = r.fd;
    CHECK_EQ(host->destroy(&r), SYP_OK);
    CHECK_EQ(fcntl(fd, F_GETFD), -1);
    CHECK_EQ(host->destroy(&r), SYP_OK);
}

static void commits(void) {
    struct backend_region r;
    struct backend_request req = shared_request(BACKEND_BASE_PAGES);
    create(&r, &req);
    CHECK_EQ(file_bytes(r.fd), 0);
    CHECK_EQ(host->commit(&r, 2 * MIB, MIB), SYP_OK);
    CHECK_EQ(file_bytes(r.fd), MIB);
    CHECK_EQ(host->commit(&r, 2 * MIB, 2 * MIB), SYP_OK);
    CHECK_EQ(file_bytes(r.fd), 2 * MIB);
    memset(r.base + 2 * MIB, 7, 2 * MIB);
    CHECK_EQ(host->decommit(&r, 3 * MIB, MIB), SYP_OK);
    CHECK_EQ(file_bytes(r.fd), MIB);
    CHECK_EQ(r.base[3 * MIB - 1], 7);
    CHECK_EQ(r.base[3 * MIB], 0);
    host->destroy(&r);
}

/* Inside a reservation of the caller the place is used as it is, and is inaccessible and still reserved afterwards. */
static void inside_a_reservation(void) {
    struct backend_region r;
    struct backend_request req = shared_request(BACKEND_BASE_PAGES);
    void *window;
    char prot[5];
    int named;
    CHECK_EQ(os->reserve("window", 3 * LEN, ADDRMAP_GRAIN, &window), 0);
    for (req.shared = 0; req.shared <= 1; req.shared++) {
        CHECK_EQ(host->create(&r, &req, (char *)window + LEN), SYP_OK);
        CHECK(r.base == (char *)window + LEN);
        memset(r.base, 1, LEN);
        mapping_of((char *)window + LEN - 1, prot, &named, "");
        CHECK_STR(prot, "---p");
        mapping_of((char *)window + 2 * LEN, prot, &named, "");
        CHECK_STR(prot, "---p");
        CHECK_EQ(host->destroy(&r), SYP_OK);
        mapping_of((char *)window + LEN, prot, &named, "");
        CHECK_STR(prot, "---p");
    }
    CHECK_EQ(os->release(window, 3 * LEN), 0);
}

static int child_writes(char *word) {
    pid_t child = fork();
    if (child == 0) {
        int seen = *word;
        *word = 99;
        _exit(seen);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void private_is_copied_by_fork(void) {
    struct backend_region r;
    struct backend_request req = shared_request(BACKEND_BASE_PAGES);
    req.shared = 0;
    create(&r, &req);
    CHECK_EQ(r.fd, -1);
    CHECK_EQ((uintptr_t)r.base % ADDRMAP_GRAIN, 0);
    CHECK_EQ(host->commit(&r, 0, LEN), SYP_OK);
    r.base[5] = 42;
    CHECK_EQ(child_writes(r.base + 5), 42);
    CHECK_EQ(r.base[5], 42);
    CHECK_EQ(host->decommit(&r, 0, MIB), SYP_OK);
    CHECK_EQ(r.base[5], 0);
    CHECK_EQ(host->export_fd(&r), SYP_EUNSUPPORTED);
    host->destroy(&r);

    /* and the shared kind is not */
    req.shared = 1;
    create(&r, &req);
    r.base[5] = 42;
    CHECK_EQ(child_writes(r.base + 5), 42);
    CHECK_EQ(r.base[5], 99);
    host->destroy(&r);
}

static void bad_requests(void) {
    struct backend_region r;
    struct backend_request req = shared_request(BACKEND_BASE_PAGES);
    const uint64_t bad[] = {0, 1, LEN + 1, UINT64_MAX, UINT64_MAX << 12};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        req.len = bad[i];
        CHECK_EQ(host->create(&r, &req, NULL), SYP_EINVAL);
        CHECK(r.base == NULL && r.fd == -1);
    }
    req.huge = BACKEND_2M;
    req.len = 3 * MIB;
    CHECK_EQ(host->create(&r, &req, NULL), SYP_EINVAL);
    req.huge = BACKEND_BASE_PAGES;
    req.len = 1ull << 60; /* more than any address space */
    CHECK_EQ(host->create(&r, &req, NULL), SYP_ENOMEM);
    CHECK_HAS(syp_error_text(), "SYMPOOL_LOCAL_MEM_SIZE");
    CHECK_EQ(host->granularity(BACKEND_BASE_PAGES), os_page_size());
    CHECK_EQ(host->granularity(BACKEND_THP), 2 * MIB);
    CHECK_EQ(host->granularity(BACKEND_2M), 2 * MIB);
    CHECK_EQ(host->granularity(BACKEND_1G), 1024 * MIB);
    CHECK_EQ(host->caps() & (BACKEND_HOST_ACCESS | BACKEND_SHARE_FD | BACKEND_ASYNC),
             BACKEND_HOST_ACCESS | BACKEND_SHARE_FD);
}

/* ---------------------------------------------------------------------------------------------------- peers */

static void imports(void) {
    struct backend_region own, peer;
    struct backend_request req = shared_request(BACKEND_BASE_PAGES);
    void *window;
    char prot[5];
    int named;
    create(&own, &req);
    CHECK_EQ(os->reserve("window", LEN, ADDRMAP_GRAIN, &window), 0);
    int fd = dup(own.fd);
    CHECK_EQ(host->import_fd(&peer, fd, LEN, window), SYP_OK);
    CHECK(peer.base == window && peer.len == LEN && peer.fd == -1);
    close(fd);
    own.base[100] = 17;
    CHECK_EQ(peer.base[100], 17);
    peer.base[LEN - 1] = 18;
    CHECK_EQ(own.base[LEN - 1], 18);
    CHECK(has_vm_flag(peer.base, " dd"));
    CHECK(!has_vm_flag(own.base, " dd"));
    CHECK_EQ(host->unimport(&peer), SYP_OK);
    mapping_of(window, prot, &named, "");
    CHECK_STR(prot, "---p");
    CHECK_EQ(host->unimport(&peer), SYP_OK);
    CHECK_EQ(os->release(window, LEN), 0);

    CHECK_EQ(host->import_fd(&peer, own.fd, LEN, NULL), SYP_OK); /* a place of its own */
    CHECK_EQ(peer.base[100], 17);
    CHECK_EQ(host->unimport(&peer), SYP_OK);
    host->destroy(&own);
}

static int memory_file(uint64_t len, int seals) {
    int fd = (int)memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK_EQ(ftruncate(fd, (off_t)len), 0);
    if (seals) CHECK_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static void hostile_descriptors(void) {
    struct backend_region peer;
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    const struct {
        int fd;
        const char *why;
    } bad[] = {{memory_file(LEN, 0), "resized"},
               {memory_file(LEN, F_SEAL_SHRINK), "resized"},
               {memory_file(LEN, F_SEAL_GROW), "resized"},
               {memory_file(LEN / 2, F_SEAL_SHRINK | F_SEAL_GROW), "its file has 4194304"},
               {memory_file(LEN * 2, F_SEAL_SHRINK | F_SEAL_GROW), "its file has 16777216"},
               {open("/proc/self/exe", O_RDONLY | O_CLOEXEC), "no memory file"},
               {open("/", O_RDONLY | O_CLOEXEC | O_DIRECTORY), "no memory file"},
               {open("/dev/zero", O_RDWR | O_CLOEXEC), "no memory file"},
               {ends[0], "no memory file"},
               {-1, "EBADF"}};
    int mappings = count_mappings();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_EQ(host->import_fd(&peer, bad[i].fd, LEN, NULL), SYP_EINVAL);
        CHECK_HAS(syp_error_text(), bad[i].why);
        CHECK(peer.base == NULL);
    }
    CHECK_EQ(count_mappings(), mappings);
    /* sealed against every writer: it cannot be a pool, and that is an error, not a crash */
    int read_only = memory_file(LEN, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE);
    CHECK_EQ(host->import_fd(&peer, read_only, LEN, NULL), SYP_ESYS);
    CHECK_EQ(count_mappings(), mappings);
    close(read_only);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (bad[i].fd >= 0) close(bad[i].fd);
    close(ends[1]);
}

/* --------------------------------------------------------------------------------------------- large pages */

static void transparent_pages(void) {
    static const struct {
        const char *size_choice, *choice; /* of the two files in /sys */
        int granted;
    } cases[] = {{NULL, "always [madvise] never\n", 1},
                 {NULL, "[always] within_size advise never deny force\n", 1},
                 {NULL, "always within_size advise [never] deny force\n", 0},
                 {NULL, "always within_size advise never [deny] force\n", 0},
                 {"always [inherit] madvise never\n", "always [madvise] never\n", 1},
                 {"always [inherit] madvise never\n", "always madvise [never]\n", 0},
                 {"always inherit madvise [never]\n", "[always] madvise never\n", 0},
                 {"always inherit [advise] never\n", "always advise [never]\n", 1},
                 {NULL, NULL, 0},
                 {NULL, "garbage", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int shared = 0; shared <= 1; shared++) {
            struct backend_region r;
            struct backend_request req = shared_request(BACKEND_THP);
            req.shared = shared;
            listen_to("info");
            sys_on(cases[i].size_choice, cases[i].choice);
            create(&r, &req);
            sys_off();
            CHECK_EQ(r.huge, cases[i].granted ? BACKEND_THP : BACKEND_BASE_PAGES);
            CHECK_EQ(n_lines, cases[i].granted ? 0 : 1);
            if (!cases[i].granted) {
                CHECK_HAS(lines, shared ? "shmem_enabled" : "/enabled");
                CHECK_HAS(lines, "using base pages");
            }
            CHECK_EQ(host->commit(&r, 0, 2 * MIB), SYP_OK);
            if (shared) CHECK_EQ(file_bytes(r.fd), 2 * MIB);
            r.base[2 * MIB - 1] = 1;
            CHECK_EQ(host->decommit(&r, 0, 2 * MIB), SYP_OK);
            CHECK_EQ(r.base[2 * MIB - 1], 0);
            host->destroy(&r);
        }
    }
    syp_log_set(NULL, NULL);
}

/* A kernel without the advices, and a place that cannot hold a large page. */
static void transparent_pages_refused(void) {
    struct backend_region r;
    struct backend_request req = shared_request(BACKEND_THP);
    void *window;
    for (unsigned n = 1; n <= 2; n++) {
        listen_to("warn");
        sys_on(NULL, "[always] never");
        fake_os_on();
        fake_os_fail_op("advise", n, EINVAL);
        create(&r, &req);
        CHECK_STR(fake_os_last(), "advise");
        fake_os_off();
        sys_off();
        CHECK_EQ(r.huge, BACKEND_BASE_PAGES);
        CHECK_EQ(n_lines, 1);
        CHECK_HAS(lines, n == 1 ? "MADV_HUGEPAGE" : "Linux 5.14");
        CHECK_HAS(lines, "EINVAL");
        CHECK_EQ(host->commit(&r, 0, LEN), SYP_OK);
        CHECK_EQ(file_bytes(r.fd), LEN);
        host->destroy(&r);
    }
    listen_to("warn");
    sys_on(NULL, "[always] never");
    CHECK_EQ(os->reserve("window", 2 * LEN, ADDRMAP_GRAIN, &window), 0);
    CHECK_EQ(host->create(&r, &req, (char *)window + os_page_size()), SYP_OK);
    sys_off();
    CHECK_EQ(r.huge, BACKEND_BASE_PAGES);
    CHECK_EQ(n_lines, 1);
    CHECK_HAS(lines, "not aligned to 2 MiB");
    host->destroy(&r);
    CHECK_EQ(os->release(window, 2 * LEN), 0);
    syp_log_set(NULL, NULL);
}

static void hugetlb(void) {
    static const char *const steps[] = {"memfd", "file_resize", "file_seal", "map"};
    struct backend_region r;
    struct backend_request req = shared_request(BACKEND_2M);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        listen_to("warn");
        fake_os_on();
        fake_os_fail_op(steps[i], 1, ENOMEM);
        create(&r, &req);
        CHECK_EQ(r.huge, BACKEND_BASE_PAGES);
        CHECK_EQ(n_lines, 1);
        CHECK_HAS(lines, "2 MiB pages");
        CHECK_HAS(lines, "ENOMEM");
        CHECK_HAS(lines, "nr_hugepages");
        CHECK_EQ(fake_os_open_fds(), 1);
        CHECK_EQ(host->commit(&r, 0, LEN), SYP_OK);
        host->destroy(&r);
        CHECK_EQ(fake_os_open_fds(), 0);
        CHECK_EQ(fake_os_mapped_bytes(), 0);
        fake_os_off();
    }
    /* the machine itself: granted with huge pages set aside, else the fallback with its reason */
    for (req.huge = BACKEND_2M; req.huge <= BACKEND_1G; req.huge++) {
        req.len = host->granularity(req.huge);
        listen_to("warn");
        create(&r, &req);
        CHECK_EQ(n_lines, r.huge == BACKEND_BASE_PAGES);
        CHECK(r.huge == req.huge || strstr(lines, "nr_hugepages") != NULL);
        CHECK_EQ((uintptr_t)r.base % req.len, 0);
        CHECK_EQ(host->commit(&r, 0, 2 * MIB < req.len && r.huge ? req.len : 2 * MIB), SYP_OK);
        r.base[2 * MIB - 1] = 1;
        host->destroy(&r);
    }
    syp_log_set(NULL, NULL);
}

/* ---------------------------------------------------------------------------------------------- placement */

static void placement(void) {
    struct backend_region r;
    struct backend_request req = shared_request(BACKEND_BASE_PAGES);
    unsigned long nodes[16] = {1};
    req.nodes = nodes;
    req.max_node = 2;
    listen_to("info");
    fake_os_on();
    fake_os_fail_op("bind_memory", 1, EPERM);
    create(&r, &req);
    CHECK_EQ(r.bound, 0);
    CHECK_EQ(n_lines, 1);
    CHECK_HAS(lines, "EPERM");
    CHECK_HAS(lines, "SYMPOOL_NUMA");
    host->destroy(&r);
    /* before Linux 5.15 there is no MPOL_PREFERRED_MANY: one node it is */
    unsigned calls = fake_os_calls();
    create(&r, &req);
    int bound = r.bound;
    calls = fake_os_calls() - calls;
    host->destroy(&r);
    unsigned plain = fake_os_calls();
    fake_os_fail_op("bind_memory", 1, EINVAL);
    lines[0] = 0;
    create(&r, &req);
    CHECK_EQ(r.bound, bound);
    if (bound) CHECK_EQ(fake_os_calls() - plain, calls + 1);
    if (bound) CHECK_STR(lines, "");
    host->destroy(&r);
    fake_os_off();
    if (!bound) check_skip("this kernel has no mbind");
    syp_log_set(NULL, NULL);
}

/* ---------------------------------------------------------------------------------------- what may go wrong */

static void commit_refused(void) {
    static const struct {
        int error, code;
    } cases[] = {{ENOSPC, SYP_ENOMEM}, {ENOMEM, SYP_ENOMEM}, {EFAULT, SYP_ENOMEM}, {EPERM, SYP_ESYS}};
    struct backend_region r;
    struct backend_request req = shared_request(BACKEND_BASE_PAGES);
    create(&r, &req);
    fake_os_on();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake_os_fail_op("file_commit", 1, cases[i].error);
        CHECK_EQ(host->commit(&r, 2 * MIB, 4 * MIB), cases[i].code);
        CHECK_HAS(syp_error_text(), "commit 4 MiB at offset 2 MiB: fallocate: E");
        CHECK_HAS(syp_error_text(), "SYMPOOL_LOCAL_MEM_SIZE");
        CHECK_EQ(err_record()->sys_errno, cases[i].error);
        CHECK_EQ(host->commit(&r, 2 * MIB, 4 * MIB), SYP_OK); /* and again when there is memory */
    }
    /* no fallocate: through the mapping */
    static const int absent[] = {EOPNOTSUPP, ENOSYS};
    for (size_t i = 0; i < 2; i++) {
        CHECK_EQ(host->decommit(&r, 0, LEN), SYP_OK);
        fake_os_fail_op("file_commit", 1, absent[i]);
        CHECK_EQ(host->commit(&r, 0, MIB), SYP_OK);
        CHECK_EQ(file_bytes(r.fd), MIB);
    }
    fake_os_fail_op("file_punch", 1, EIO);
    CHECK_EQ(host->decommit(&r, 0, MIB), SYP_ESYS);
    CHECK_EQ(file_bytes(r.fd), MIB);
    host->destroy(&r);
    fake_os_off();

    sys_on(NULL, "[always]");
    req.huge = BACKEND_THP;
    create(&r, &req);
    sys_off();
    CHECK_EQ(r.huge, BACKEND_THP);
    fake_os_on();
    fake_os_fail_op("advise", 1, EFAULT);
    CHECK_EQ(host->commit(&r, 0, 2 * MIB), SYP_ENOMEM);
    CHECK_HAS(syp_error_text(), "MADV_POPULATE_WRITE");
    CHECK_EQ(file_bytes(r.fd), 0);
    host->destroy(&r);
    fake_os_off();
}

/* A program that closes every descriptor, and then opens a file of its own under the same number. */
static void descriptor_taken_away(void) {
    const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    for (int reused = 0; reused <= 2; reused++) { /* 2: by a file that is sealed as ours is, of another size */
        struct backend_region r;
        struct backend_request req = shared_request(BACKEND_BASE_PAGES);
        create(&r, &req);
        int number = r.fd, keep = dup(number), other = memory_file(MIB, reused == 2 ? all : 0);
        CHECK_EQ(host->commit(&r, 0, MIB), SYP_OK);
        close(number);
        if (reused) CHECK_EQ(dup2(other, number), number);
        CHECK_EQ(host->commit(&r, MIB, 3 * MIB), SYP_OK);
        CHECK_EQ(file_bytes(keep), 4 * MIB);
        CHECK_EQ(host->decommit(&r, 0, MIB), SYP_OK);
        CHECK_EQ(file_bytes(keep), 3 * MIB);
        CHECK_EQ(file_bytes(other), 0);
        CHECK_EQ(host->export_fd(&r), SYP_ESTATE);
        CHECK_HAS(syp_error_text(), "descriptor");
        CHECK_EQ(host->destroy(&r), SYP_OK);
        CHECK_EQ(fcntl(number, F_GETFD) >= 0, reused != 0);
        if (reused) close(number);
        close(keep);
        close(other);
    }
}

/* Fail each call in turn: the region is there (with less) or it is not and nothing is left; never anything between. */
static void every_call_fails(void) {
    static const int errors[] = {ENOMEM, EPERM, ENOSYS};
    unsigned long nodes[16] = {1};
    syp_log_set(keep_line, NULL);
    for (int huge = BACKEND_BASE_PAGES; huge <= BACKEND_2M; huge++) {
        for (int shared = 0; shared <= 1; shared++) {
            for (size_t e = 0; e < sizeof errors / sizeof errors[0]; e++) {
                unsigned refused = 0, n = 0;
                int failed;
                do {
                    struct backend_region r, peer;
                    struct backend_request req = {LEN, shared, huge, nodes, 2, "sweep"};
                    lines[0] = 0;
                    sys_on(NULL, "[always] never");
                    fake_os_on();
                    fake_os_fail(++n, errors[e]);
                    int rc = host->create(&r, &req, NULL);
                    if (rc == SYP_OK) {
                        rc = host->commit(&r, 0, 2 * MIB);
                        if (rc == SYP_OK) r.base[0] = 1;
                        if (rc == SYP_OK && shared) rc = host->import_fd(&peer, r.fd, LEN, NULL);
                        if (rc == SYP_OK && shared) rc = host->unimport(&peer);
                        if (rc == SYP_OK) rc = host->decommit(&r, 0, 2 * MIB);
                        int gone = host->destroy(&r);
                        CHECK_EQ(gone, SYP_OK);
                    }
                    if (rc != SYP_OK) {
                        refused++;
                        CHECK_EQ(err_record()->sys_errno, errors[e]);
                    }
                    failed = fake_os_last() != NULL;
                    CHECK_EQ(fake_os_open_fds(), 0);
                    CHECK_EQ(fake_os_mapped_bytes(), 0);
                    fake_os_off();
                    sys_off();
                } while (failed && n < 100);
                CHECK(refused >= (shared ? 4 : 2) && refused < n && n < 100);
            }
        }
    }
    syp_log_set(NULL, NULL);
}

/* Given up inside the caller's reservation, the memory must not stay behind unnoticed. */
static void destroy_refused(void) {
    struct backend_region r;
    struct backend_request req = shared_request(BACKEND_BASE_PAGES);
    void *window;
    CHECK_EQ(os->reserve("window", LEN, ADDRMAP_GRAIN, &window), 0);
    CHECK_EQ(host->create(&r, &req, window), SYP_OK);
    fake_os_on();
    fake_os_fail_op("map", 1, ENOMEM);
    CHECK_EQ(host->destroy(&r), SYP_ESYS);
    CHECK_HAS(syp_error_text(), "unmap 8 MiB");
    fake_os_off();
    CHECK_EQ(host->destroy(&r), SYP_OK);
    CHECK_EQ(os->release(window, LEN), 0);
}

static void streams(void) {
    char from[100], to[100] = {0};
    backend_event e = 77;
    memset(from, 5, sizeof from);
    CHECK_EQ(host->copy_async(to, from, sizeof to, NULL), SYP_OK);
    CHECK_EQ(memcmp(from, to, sizeof to), 0);
    CHECK_EQ(host->event_record((void *)(uintptr_t)3, &e), SYP_OK);
    CHECK_EQ(host->event_query(e), 1);
    CHECK_EQ(host->event_wait(e, 0), SYP_OK);
    CHECK(host->reduce_async == NULL);
    CHECK_STR(host->name, "host");
}

int main(void) {
    return check_main("backend_host", (struct check_test[]){{"sealed", sealed},
                                                            {"commits", commits},
                                                            {"inside_a_reservation", inside_a_reservation},
                                                            {"private_is_copied_by_fork", private_is_copied_by_fork},
                                                            {"bad_requests", bad_requests},
                                                            {"imports", imports},
                                                            {"hostile_descriptors", hostile_descriptors},
                                                            {"transparent_pages", transparent_pages},
                                                            {"transparent_pages_refused", transparent_pages_refused},
                                                            {"hugetlb", hugetlb},
                                                            {"placement", placement},
                                                            {"commit_refused", commit_refused},
                                                            {"descriptor_taken_away", descriptor_taken_away},
                                                            {"every_call_fails", every_call_fails},
                                                            {"destroy_refused", destroy_refused},
                                                            {"streams", streams},
                                                            {0}});
}
