/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of host memory share: a request, log lines kept, and a stand-in for the files of large pages in /sys. */
#ifndef TESTS_UNIT_BACKEND_TEST_H
#define TESTS_UNIT_BACKEND_TEST_H

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

static inline struct backend_request shared_request(int huge) {
    return (struct backend_request){.len = LEN, .shared = 1, .huge = huge, .name = "host test"};
}

static inline void create(struct backend_region *r, const struct backend_request *req) {
    if (CHECK(host->create(r, req, NULL) == SYP_OK)) return;
    fprintf(stderr, "create: %s\n", syp_error_text());
    exit(1);
}

static inline uint64_t file_bytes(int fd) {
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

/* ------------------------------------------------------------------------------------------------ log lines */

static char lines[4096];
static int n_lines;

static inline void keep_line(void *arg, int level, const char *text) {
    (void)arg;
    (void)level;
    n_lines++;
    snprintf(lines + strlen(lines), sizeof lines - strlen(lines), "%s\n", text);
}

static inline void listen_to(const char *level) {
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

static inline int sys_open_read(const char *path) {
    if (!strstr(path, "/transparent_hugepage/")) return sys_below->open_read(path);
    sys_open = strstr(path, "hugepages-2048kB") ? sys_size_choice : sys_choice;
    return sys_open ? sys_below->open_read("/dev/null") : -ENOENT;
}

static inline int64_t sys_read(int fd, void *buf, size_t len) {
    if (!sys_open) return sys_below->read(fd, buf, len);
    size_t n = strlen(sys_open);
    memcpy(buf, sys_open, n);
    sys_open = NULL;
    return (int64_t)n;
}

static inline void sys_on(const char *size_choice, const char *choice) {
    static struct os_ops table;
    sys_size_choice = size_choice;
    sys_choice = choice;
    table = *os;
    table.open_read = sys_open_read;
    table.read = sys_read;
    sys_below = os_swap(&table);
}

static inline void sys_off(void) {
    os_swap(sys_below);
}

/* A memory file with these seals, a stranger's. */
static inline int memory_file(uint64_t len, int seals) {
    int fd = (int)memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK_EQ(ftruncate(fd, (off_t)len), 0);
    if (seals) CHECK_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

#endif
