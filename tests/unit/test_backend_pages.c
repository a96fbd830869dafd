/* SPDX-License-Identifier: Apache-2.0 */
/* Host memory on large pages and NUMA nodes: what is asked for, and what happens when it cannot be had. */
#include "tests/unit/backend_test.h"

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

static void required_pages_that_cannot_be_had_are_an_error(void) {
    struct backend_region r;
    struct backend_request req = shared_request(BACKEND_THP);
    void *window;
    req.huge_required = 1;
    CHECK_EQ(os->reserve("window", LEN, ADDRMAP_GRAIN, &window), 0);
    for (int inside = 0; inside <= 1; inside++) {
        for (req.shared = 0; req.shared <= 1; req.shared++) {
            listen_to("warn");
            sys_on(NULL, "always [never]");
            fake_os_on();
            CHECK_EQ(host->create(&r, &req, inside ? window : NULL), SYP_ENOMEM);
            CHECK_HAS(syp_error_text(), "SYMPOOL_HUGE_REQUIRED");
            CHECK(r.base == NULL && r.fd == -1);
            CHECK_EQ(fake_os_open_fds(), 0);
            CHECK_EQ(fake_os_mapped_bytes(), 0);
            fake_os_off();
            sys_off();
            CHECK_EQ(n_lines, 1);
            sys_on(NULL, "[always] never");
            create(&r, &req);
            sys_off();
            CHECK_EQ(r.huge, BACKEND_THP);
            host->destroy(&r);
        }
    }
    CHECK_EQ(os->release(window, LEN), 0);
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

int main(void) {
    return check_main("backend_pages", (struct check_test[]){{"transparent_pages", transparent_pages},
                                               {"transparent_pages_refused", transparent_pages_refused},
                                               {"hugetlb", hugetlb},
                                               {"required_pages_that_cannot_be_had_are_an_error", required_pages_that_cannot_be_had_are_an_error},
                                               {"placement", placement},
                                               {0}});
}
