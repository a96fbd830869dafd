/* SPDX-License-Identifier: Apache-2.0 */
/* Host memory: seals, commit, reservations, fork, streams, and the import of hostile descriptors. */
#include "tests/unit/backend_test.h"

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
        mapping_of(r.base, prot, &named, "");
        CHECK_STR(prot, req.shared ? "rw-s" : "---p");
        CHECK_EQ(host->commit(&r, 0, LEN), SYP_OK);
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
                                              {"streams", streams},
                                              {0}});
}
