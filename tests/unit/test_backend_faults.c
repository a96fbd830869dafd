/* SPDX-License-Identifier: Apache-2.0 */
/* Host memory when calls are refused and descriptors are taken away. */
#include "tests/unit/backend_test.h"

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
                    struct backend_request req = {LEN, shared, huge, 0, nodes, 2, "sweep"};
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

int main(void) {
    return check_main("backend_faults", (struct check_test[]){{"commit_refused", commit_refused},
                                                {"descriptor_taken_away", descriptor_taken_away},
                                                {"every_call_fails", every_call_fails},
                                                {"destroy_refused", destroy_refused},
                                                {0}});
}
