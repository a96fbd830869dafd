/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool/base/status: the error record, its public readers, and the names of the codes.
 */
#include "pool/base/status.h"
#include "tests/support/check.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

static void a_record_is_complete(void) {
    syp_error e = {.size = sizeof e};
    err_set_rank(2);
    errno = 99;
    CHECK_EQ(err_set(SYP_ETIMEOUT, "all-reduce %d: rank %d did not come; set SYMPOOL_TIMEOUT", 7, 5), SYP_ETIMEOUT);
    CHECK_EQ(err_operation("allreduce"), SYP_ETIMEOUT);
    CHECK_EQ(err_peer(5, 4711), SYP_ETIMEOUT);
    CHECK_EQ(err_sequence(3, 7), SYP_ETIMEOUT);
    CHECK_EQ(errno, 99);
    CHECK_EQ(syp_last_error(&e), SYP_OK);
    CHECK_EQ(e.size, sizeof e);
    CHECK_EQ(e.code, SYP_ETIMEOUT);
    CHECK_EQ(e.rank, 2);
    CHECK_EQ(e.peer, 5);
    CHECK_EQ(e.peer_pid, 4711);
    CHECK_EQ(e.comm_id, 3);
    CHECK_EQ(e.sequence, 7);
    CHECK_EQ(e.sys_errno, 0);
    CHECK_STR(e.operation, "allreduce");
    CHECK_STR(e.text, "all-reduce 7: rank 5 did not come; set SYMPOOL_TIMEOUT");
    CHECK_STR(syp_error_text(), e.text);

    /* the next one starts from nothing */
    err_set_rank(-1);
    CHECK_EQ(err_sys(SYP_ESYS, ENOSPC, "commit %B of the pool", 4096ull), SYP_ESYS);
    e.size = sizeof e;
    CHECK_EQ(syp_last_error(&e), SYP_OK);
    CHECK_EQ(e.code, SYP_ESYS);
    CHECK_EQ(e.sys_errno, ENOSPC);
    CHECK_EQ(e.rank, -1);
    CHECK_EQ(e.peer, -1);
    CHECK_EQ(e.peer_pid, 0);
    CHECK_EQ(e.sequence, 0);
    CHECK_STR(e.operation, "");
    CHECK_STR(e.text, "commit 4 KiB of the pool: ENOSPC (No space left on device)");
    /* the OS table's sign is understood as well */
    err_sys(SYP_ESYS, -ENOMEM, "x");
    e.size = sizeof e;
    syp_last_error(&e);
    CHECK_EQ(e.sys_errno, ENOMEM);
    CHECK_STR(e.text, "x: ENOMEM (Cannot allocate memory)");
}

static void prefixes_and_cuts(void) {
    err_set(SYP_ENOMEM, "no room");
    CHECK_EQ(err_prefix("attach rank %d", 3), SYP_ENOMEM);
    CHECK_STR(syp_error_text(), "attach rank 3: no room");
    /* the text may be its own argument */
    CHECK_EQ(err_set(SYP_EJOIN, "join: %s", syp_error_text()), SYP_EJOIN);
    CHECK_STR(syp_error_text(), "join: attach rank 3: no room");
    char longer[3000];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    err_set(SYP_EINVAL, "%s", longer);
    CHECK_EQ(strlen(syp_error_text()), 1023);
    err_prefix("b");
    CHECK_EQ(strlen(syp_error_text()), 1023);
    CHECK_EQ(strncmp(syp_error_text(), "b: aaa", 6), 0);
    err_operation("a_name_that_is_longer_than_the_field");
    CHECK_STR(err_record()->operation, "a_name_that_is_longer_t");
}

static void older_and_newer_callers(void) {
    struct {
        syp_error e;
        char behind[64];
    } newer, old;
    err_set(SYP_EFOREIGN, "free %p: not a block", (void *)16);
    CHECK_EQ(syp_last_error(NULL), SYP_EINVAL);
    CHECK_HAS(syp_error_text(), "out is NULL");
    err_set(SYP_EFOREIGN, "a text");
    memset(&old, 0x55, sizeof old);
    for (size_t size = offsetof(syp_error, code) + sizeof(int); size <= sizeof(syp_error); size++) {
        memset(&old, 0x55, sizeof old);
        old.e.size = size;
        CHECK_EQ(syp_last_error(&old.e), SYP_OK);
        CHECK_EQ(old.e.code, SYP_EFOREIGN);
        CHECK_EQ(old.e.size, size);
        CHECK_EQ(((unsigned char *)&old)[size], 0x55);
        if (size > offsetof(syp_error, text)) CHECK(memchr(old.e.text, 0, size - offsetof(syp_error, text)) != NULL);
    }
    memset(&newer, 0x55, sizeof newer);
    newer.e.size = sizeof newer;
    CHECK_EQ(syp_last_error(&newer.e), SYP_OK);
    CHECK_EQ(newer.e.size, sizeof(syp_error)); /* what was filled */
    CHECK_STR(newer.e.text, "a text");
    CHECK_EQ(newer.behind[0], 0x55);
    newer.e.size = offsetof(syp_error, code) + sizeof(int) - 1;
    CHECK_EQ(syp_last_error(&newer.e), SYP_EINVAL);
    CHECK_HAS(syp_error_text(), "out->size is 11, at least 12");
}

static void *another_thread(void *arg) {
    syp_error e = {.size = sizeof e};
    long bad = 0;
    (void)arg;
    bad += syp_last_error(&e) != SYP_OK || e.code != SYP_OK || e.peer != -1 || e.rank != -1;
    bad += strcmp(syp_error_text(), "") != 0;
    err_set(SYP_EBUSY, "of the other thread");
    bad += strcmp(syp_error_text(), "of the other thread") != 0;
    return (void *)bad;
}

static void each_thread_has_its_own(void) {
    pthread_t id;
    void *bad;
    err_set(SYP_EINVAL, "of this thread");
    CHECK_EQ(pthread_create(&id, NULL, another_thread, NULL), 0);
    pthread_join(id, &bad);
    CHECK_EQ((long)bad, 0);
    CHECK_STR(syp_error_text(), "of this thread");
}

static void names(void) {
    static const int codes[] = {SYP_OK,       SYP_EINVAL,   SYP_ENOMEM,    SYP_ESTATE,    SYP_EUNSUPPORTED,
                                SYP_EBUSY,    SYP_EFOREIGN, SYP_EMISMATCH, SYP_EDIVERGED, SYP_EPEER,
                                SYP_ETIMEOUT, SYP_EABORTED, SYP_EFORKED,   SYP_EJOIN,     SYP_ESYS,
                                SYP_EREACH,   SYP_ECANCELED};
    CHECK_STR(syp_strerror(SYP_OK), "SYP_OK");
    CHECK_STR(syp_strerror(SYP_ETIMEOUT), "SYP_ETIMEOUT");
    CHECK_STR(syp_strerror(-999), "unknown status");
    CHECK_STR(syp_strerror(1), "unknown status");
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        CHECK(strncmp(syp_strerror(codes[i]), "SYP_", 4) == 0);
        for (size_t k = 0; k < i; k++)
            CHECK(strcmp(syp_strerror(codes[i]), syp_strerror(codes[k])) != 0);
    }
}

int main(void) {
    return check_main("status", (struct check_test[]){{"a_record_is_complete", a_record_is_complete},
                                                      {"prefixes_and_cuts", prefixes_and_cuts},
                                                      {"older_and_newer_callers", older_and_newer_callers},
                                                      {"each_thread_has_its_own", each_thread_has_its_own},
                                                      {"names", names},
                                                      {0}});
}
