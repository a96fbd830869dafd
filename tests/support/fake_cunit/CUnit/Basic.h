/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stand-in for the few calls of CUnit that check.c makes, for machines for which there is no CUnit: tests cross-built for another
 * processor.  One suite; counts, prints, and nothing else.
 */
#ifndef TESTS_FAKE_CUNIT_BASIC_H
#define TESTS_FAKE_CUNIT_BASIC_H

#include <stdio.h>

typedef enum { CUE_SUCCESS } CU_ErrorCode;
typedef int *CU_pSuite;
typedef void (*CU_TestFunc)(void);
enum { CU_FALSE, CU_TRUE, CU_BRM_VERBOSE };

static struct {
    const char *name[256];
    CU_TestFunc run[256];
    unsigned tests, asserts, failures;
} fake_cunit;

static inline CU_ErrorCode CU_initialize_registry(void) { return CUE_SUCCESS; }
static inline void CU_cleanup_registry(void) {}
static inline const char *CU_get_error_msg(void) { return "too many tests"; }
static inline void CU_basic_set_mode(int mode) { (void)mode; }
static inline unsigned CU_get_number_of_failures(void) { return fake_cunit.failures; }
static inline unsigned CU_get_number_of_asserts(void) { return fake_cunit.asserts; }

static inline CU_pSuite CU_add_suite(const char *name, void *init, void *cleanup) {
    static int suite;
    (void)init, (void)cleanup;
    printf("Suite: %s (without CUnit)\n", name);
    return &suite;
}

static inline int CU_add_test(CU_pSuite s, const char *name, CU_TestFunc run) {
    (void)s;
    if (fake_cunit.tests == 256) return 0;
    fake_cunit.name[fake_cunit.tests] = name;
    fake_cunit.run[fake_cunit.tests++] = run;
    return 1;
}

static inline CU_ErrorCode CU_basic_run_tests(void) {
    for (unsigned i = 0; i < fake_cunit.tests; i++) {
        unsigned before = fake_cunit.failures;
        printf("  Test: %s ...\n", fake_cunit.name[i]);
        fake_cunit.run[i]();
        printf("%s\n", fake_cunit.failures == before ? "passed" : "FAILED");
    }
    return CUE_SUCCESS;
}

static inline int CU_assertImplementation(int held, unsigned line, const char *text, const char *file, const char *function, int fatal) {
    (void)line, (void)text, (void)file, (void)function, (void)fatal;
    fake_cunit.asserts++;
    fake_cunit.failures += !held;
    return held;
}

#endif
