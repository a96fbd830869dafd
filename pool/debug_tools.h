/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What AddressSanitizer and valgrind are told of blocks.  AddressSanitizer: through weak references, which are NULL unless the
 * program was built with it.  Valgrind: client requests, a few instructions without effect outside of it; not there when its
 * headers were not there at build time.
 */
#ifndef SYP_POOL_DEBUG_TOOLS_H
#define SYP_POOL_DEBUG_TOOLS_H

#include <stddef.h>

#if defined(__has_include)
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#define TOOLS_VALGRIND 1
#endif
#endif
#ifndef TOOLS_VALGRIND
#define TOOLS_VALGRIND 0
#define VALGRIND_MALLOCLIKE_BLOCK(at, len, redzone, zeroed) (void)(at)
#define VALGRIND_FREELIKE_BLOCK(at, redzone) (void)(at)
#define VALGRIND_MAKE_MEM_NOACCESS(at, len) (void)(at)
#define VALGRIND_MAKE_MEM_UNDEFINED(at, len) (void)(at)
#define VALGRIND_DISABLE_ERROR_REPORTING (void)0
#define VALGRIND_ENABLE_ERROR_REPORTING (void)0
#endif

extern void __asan_poison_memory_region(void const volatile *at, size_t len) __attribute__((weak));
extern void __asan_unpoison_memory_region(void const volatile *at, size_t len) __attribute__((weak));

/* [at, at + len) may be read and written again, by us. */
static inline void tools_open(char *at, size_t len) {
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(at, len);
    VALGRIND_MAKE_MEM_UNDEFINED(at, len);
}

static inline void tools_shut(char *at, size_t len) {
    if (__asan_poison_memory_region) __asan_poison_memory_region(at, len);
    VALGRIND_MAKE_MEM_NOACCESS(at, len);
}

/* A block of len bytes at `at` inside [start, end), which was opened. */
static inline void tools_alloc(char *start, char *at, size_t len, char *end) {
    if (__asan_poison_memory_region) {
        __asan_poison_memory_region(start, (size_t)(at - start));
        __asan_poison_memory_region(at + len, (size_t)(end - at) - len);
    }
    VALGRIND_MAKE_MEM_NOACCESS(start, at - start);
    VALGRIND_MALLOCLIKE_BLOCK(at, len, 0, 0);
    VALGRIND_MAKE_MEM_NOACCESS(at + len, (size_t)(end - at) - len);
}

static inline void tools_free(char *at) {
    VALGRIND_FREELIKE_BLOCK(at, 0);
}

#endif
