/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text building without stdio and without malloc: a bounded buffer and a small printf.  Usable anywhere, also inside malloc
 * and in a forked child.  Output that does not fit is cut and always NUL-terminated.
 */
#ifndef SYP_BASE_TEXT_H
#define SYP_BASE_TEXT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct text {
    char *buf;
    size_t cap; /* bytes of buf, > 0 */
    size_t len; /* without the NUL; stays < cap */
};

#define TEXT_INIT(array) {(array), sizeof(array), 0}

/* Append.  Conversions: %s %.*s %c %d %u %x %ld %lu %lx %lld %llu %llx %zu %zx %zd %p %% and a width with 0-fill (%08x).
 * Besides: %B takes a uint64_t (as unsigned long long) and prints bytes as people say them ("4 KiB", "1.5 GiB", "4097 B"). */
void text_addf(struct text *t, const char *fmt, ...);
void text_vaddf(struct text *t, const char *fmt, va_list ap);

/* snprintf's contract with the conversions above: returns the length written (not the length wanted). */
size_t text_format(char *buf, size_t cap, const char *fmt, ...);

/* Copy a string into a fixed array, cut and NUL-terminated. */
void text_copy(char *dst, size_t cap, const char *src);

/* "0, 1, 3-7": append a list of numbers as ranges.  set: n bytes, non-zero = member. */
void text_add_ranks(struct text *t, const uint8_t *set, int n);

/* Append the system's name and text of an errno: "ENOSPC (No space left on device)". */
void text_add_errno(struct text *t, int sys_errno);

/* Whole-string parsers; return 0, or -1 on anything else than exactly one number (sign, blanks, trailing bytes, overflow). */
int text_to_u64(const char *s, uint64_t *out);
int text_to_i64(const char *s, int64_t *out);
/* Sizes in the OpenSHMEM grammar: non-negative integer or decimal fraction, one suffix k m g t (base 1024, either case, an
 * optional B or iB after it): "512M", ".5g", "3.1M" = 3250586 (rounded up), "64KiB". */
int text_to_size(const char *s, uint64_t *out);
/* Durations: a number, fraction allowed, with ns us ms s m h; plain number = seconds.  Result in ns. */
int text_to_duration(const char *s, int64_t *out);

#endif
