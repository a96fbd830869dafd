/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text building and the parsers of settings.
 *
 * Invariants: t->len < t->cap and t->buf[t->len] == 0 after every call; no call allocates, locks, reads the locale or
 * makes a system call.  Must not know: what the texts are for.
 */
#include "pool/base/text.h"

#include <errno.h>
#include <string.h>

static void add_bytes(struct text *t, const char *s, size_t n) {
    size_t room = t->cap - 1 - t->len;
    if (n > room) n = room;
    memcpy(t->buf + t->len, s, n);
    t->len += n;
    t->buf[t->len] = 0;
}

static void add_fill(struct text *t, char c, size_t n) {
    while (n-- > 0 && t->len < t->cap - 1)
        add_bytes(t, &c, 1);
}

/* One conversion after its '%': what it asks for. */
struct conversion {
    int zero_fill;
    size_t width;
    size_t precision; /* SIZE_MAX = none */
    int longs;        /* 0 int, 1 long, 2 long long, 3 size_t */
    char type;
};

/* A va_list cannot be passed by address portably unless it sits in a struct. */
struct arguments {
    va_list ap;
};

/* sign: 0 or the character to put in front. */
static void add_number(struct text *t, const struct conversion *c, unsigned long long v, unsigned base, char sign) {
    char digits[24];
    size_t n = 0;
    do {
        digits[sizeof digits - ++n] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    size_t len = n + (sign != 0), fill = c->width > len ? c->width - len : 0;
    if (!c->zero_fill) add_fill(t, ' ', fill);
    if (sign) add_bytes(t, &sign, 1);
    if (c->zero_fill) add_fill(t, '0', fill);
    add_bytes(t, digits + sizeof digits - n, n);
}

static void add_signed(struct text *t, const struct conversion *c, struct arguments *a) {
    long long v = c->longs == 0   ? va_arg(a->ap, int)
                  : c->longs == 1 ? va_arg(a->ap, long)
                  : c->longs == 2 ? va_arg(a->ap, long long)
                                  : (long long)va_arg(a->ap, ptrdiff_t);
    unsigned long long magnitude = v < 0 ? 0ull - (unsigned long long)v : (unsigned long long)v;
    add_number(t, c, magnitude, 10, v < 0 ? '-' : 0);
}

static void add_unsigned(struct text *t, const struct conversion *c, struct arguments *a) {
    unsigned long long v = c->longs == 0   ? va_arg(a->ap, unsigned)
                           : c->longs == 1 ? va_arg(a->ap, unsigned long)
                           : c->longs == 2 ? va_arg(a->ap, unsigned long long)
                                           : va_arg(a->ap, size_t);
    add_number(t, c, v, c->type == 'x' ? 16 : 10, 0);
}

/* Exact, in the largest unit that needs at most two decimals: an error text must not hide the odd byte. */
static void add_size(struct text *t, unsigned long long v) {
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    unsigned i = sizeof unit / sizeof unit[0] - 1;
    while (i > 0 && ((v >> (10 * i)) == 0 || (v & ((1ull << (10 * i - 2)) - 1)) != 0))
        i--;
    static const char *const quarters[] = {"", ".25", ".5", ".75"};
    unsigned quarter = i > 0 ? (unsigned)(v >> (10 * i - 2)) & 3 : 0;
    text_addf(t, "%llu%s %s", v >> (10 * i), quarters[quarter], unit[i]);
}

static void add_string(struct text *t, const struct conversion *c, const char *s) {
    if (!s) s = "(null)";
    size_t n = c->precision == SIZE_MAX ? strlen(s) : strnlen(s, c->precision);
    if (c->width > n) add_fill(t, ' ', c->width - n);
    add_bytes(t, s, n);
}

/* Read flags, width, precision and length at f; returns the position of the type. */
static const char *read_conversion(const char *f, struct conversion *c, struct arguments *a) {
    *c = (struct conversion){.precision = SIZE_MAX};
    if (*f == '0') c->zero_fill = 1, f++;
    while (*f >= '0' && *f <= '9')
        c->width = c->width * 10 + (size_t)(*f++ - '0');
    if (*f == '.') {
        f++;
        if (*f == '*') {
            int n = va_arg(a->ap, int);
            c->precision = n < 0 ? SIZE_MAX : (size_t)n;
            f++;
        } else {
            c->precision = 0;
            while (*f >= '0' && *f <= '9')
                c->precision = c->precision * 10 + (size_t)(*f++ - '0');
        }
    }
    if (*f == 'z') {
        c->longs = 3, f++;
    } else {
        while (*f == 'l' && c->longs < 2)
            c->longs++, f++;
    }
    c->type = *f;
    return f;
}

void text_vaddf(struct text *t, const char *fmt, va_list ap) {
    struct arguments a;
    va_copy(a.ap, ap);
    t->buf[t->len] = 0;
    for (const char *f = fmt; *f; f++) {
        const char *percent = strchr(f, '%');
        size_t plain = percent ? (size_t)(percent - f) : strlen(f);
        add_bytes(t, f, plain);
        if (!percent) break;
        struct conversion c;
        f = read_conversion(percent + 1, &c, &a);
        switch (c.type) {
        case 's':
            add_string(t, &c, va_arg(a.ap, const char *));
            break;
        case 'c':
            add_bytes(t, &(char){(char)va_arg(a.ap, int)}, 1);
            break;
        case 'd':
            add_signed(t, &c, &a);
            break;
        case 'u':
        case 'x':
            add_unsigned(t, &c, &a);
            break;
        case 'p':
            add_bytes(t, "0x", 2);
            add_number(t, &c, (uintptr_t)va_arg(a.ap, void *), 16, 0);
            break;
        case 'B':
            add_size(t, va_arg(a.ap, unsigned long long));
            break;
        case '%':
            add_bytes(t, "%", 1);
            break;
        default:
            /* Not ours: the arguments that follow cannot be told apart any more, so show the rest as it stands. */
            add_bytes(t, percent, strlen(percent));
            va_end(a.ap);
            return;
        }
    }
    va_end(a.ap);
}

void text_addf(struct text *t, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    text_vaddf(t, fmt, ap);
    va_end(ap);
}

size_t text_format(char *buf, size_t cap, const char *fmt, ...) {
    struct text t = {buf, cap, 0};
    va_list ap;
    va_start(ap, fmt);
    text_vaddf(&t, fmt, ap);
    va_end(ap);
    return t.len;
}

void text_copy(char *dst, size_t cap, const char *src) {
    size_t n = strnlen(src, cap - 1);
    memcpy(dst, src, n);
    dst[n] = 0;
}

void text_add_ranks(struct text *t, const uint8_t *set, int n) {
    t->buf[t->len] = 0;
    const char *separator = "";
    for (int i = 0; i < n; i++) {
        if (!set[i]) continue;
        int last = i;
        while (last + 1 < n && set[last + 1])
            last++;
        /* two neighbours read better as "3, 4" than as "3-4" */
        if (last - i >= 2)
            text_addf(t, "%s%d-%d", separator, i, last);
        else
            last = i, text_addf(t, "%s%d", separator, i);
        separator = ", ";
        i = last;
    }
}

/* strerror may allocate (message catalogues), so the errors that our calls meet are listed here. */
void text_add_errno(struct text *t, int sys_errno) {
    static const struct {
        int value;
        const char *name, *meaning;
    } known[] = {
        {EPERM, "EPERM", "Operation not permitted"},
        {ENOENT, "ENOENT", "No such file or directory"},
        {ESRCH, "ESRCH", "No such process"},
        {EINTR, "EINTR", "Interrupted system call"},
        {EIO, "EIO", "Input/output error"},
        {ENXIO, "ENXIO", "No such device or address"},
        {EBADF, "EBADF", "Bad file descriptor"},
        {EAGAIN, "EAGAIN", "Resource temporarily unavailable"},
        {ENOMEM, "ENOMEM", "Cannot allocate memory"},
        {EACCES, "EACCES", "Permission denied"},
        {EFAULT, "EFAULT", "Bad address"},
        {EBUSY, "EBUSY", "Device or resource busy"},
        {EEXIST, "EEXIST", "File exists"},
        {ENODEV, "ENODEV", "No such device"},
        {ENOTDIR, "ENOTDIR", "Not a directory"},
        {EISDIR, "EISDIR", "Is a directory"},
        {EINVAL, "EINVAL", "Invalid argument"},
        {ENFILE, "ENFILE", "Too many open files in system"},
        {EMFILE, "EMFILE", "Too many open files"},
        {ENOTTY, "ENOTTY", "Inappropriate ioctl for device"},
        {EFBIG, "EFBIG", "File too large"},
        {ENOSPC, "ENOSPC", "No space left on device"},
        {ESPIPE, "ESPIPE", "Illegal seek"},
        {EROFS, "EROFS", "Read-only file system"},
        {EPIPE, "EPIPE", "Broken pipe"},
        {ENAMETOOLONG, "ENAMETOOLONG", "File name too long"},
        {ENOSYS, "ENOSYS", "Function not implemented"},
        {ELOOP, "ELOOP", "Too many levels of symbolic links"},
        {EPROTO, "EPROTO", "Protocol error"},
        {EOVERFLOW, "EOVERFLOW", "Value too large for defined data type"},
        {ENOTSOCK, "ENOTSOCK", "Socket operation on non-socket"},
        {EMSGSIZE, "EMSGSIZE", "Message too long"},
        {EPROTONOSUPPORT, "EPROTONOSUPPORT", "Protocol not supported"},
        {EOPNOTSUPP, "EOPNOTSUPP", "Operation not supported"},
        {EAFNOSUPPORT, "EAFNOSUPPORT", "Address family not supported by protocol"},
        {EADDRINUSE, "EADDRINUSE", "Address already in use"},
        {EADDRNOTAVAIL, "EADDRNOTAVAIL", "Cannot assign requested address"},
        {ENETDOWN, "ENETDOWN", "Network is down"},
        {ENETUNREACH, "ENETUNREACH", "Network is unreachable"},
        {ECONNABORTED, "ECONNABORTED", "Software caused connection abort"},
        {ECONNRESET, "ECONNRESET", "Connection reset by peer"},
        {ENOBUFS, "ENOBUFS", "No buffer space available"},
        {EISCONN, "EISCONN", "Transport endpoint is already connected"},
        {ENOTCONN, "ENOTCONN", "Transport endpoint is not connected"},
        {ETIMEDOUT, "ETIMEDOUT", "Connection timed out"},
        {ECONNREFUSED, "ECONNREFUSED", "Connection refused"},
        {EHOSTDOWN, "EHOSTDOWN", "Host is down"},
        {EHOSTUNREACH, "EHOSTUNREACH", "No route to host"},
        {EALREADY, "EALREADY", "Operation already in progress"},
        {EINPROGRESS, "EINPROGRESS", "Operation now in progress"},
        {EDQUOT, "EDQUOT", "Disk quota exceeded"},
        {EOWNERDEAD, "EOWNERDEAD", "Owner died"},
        {EHWPOISON, "EHWPOISON", "Memory page has hardware error"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].value == sys_errno) {
            text_addf(t, "%s (%s)", known[i].name, known[i].meaning);
            return;
        }
    }
    text_addf(t, "errno %d", sys_errno);
}

int text_to_u64(const char *s, uint64_t *out) {
    uint64_t v = 0;
    const char *p = s;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v)) return -1;
    }
    if (p == s || *p) return -1;
    *out = v;
    return 0;
}

int text_to_i64(const char *s, int64_t *out) {
    uint64_t v;
    int negative = *s == '-';
    if (text_to_u64(s + negative, &v)) return -1;
    if (v > (uint64_t)INT64_MAX + (uint64_t)negative) return -1;
    *out = negative ? (int64_t)(0 - v) : (int64_t)v;
    return 0;
}

/* A decimal number: whole + part / scale; `more` = digits other than 0 follow that part does not hold. */
struct decimal {
    uint64_t whole, part, scale;
    int more;
};

/* Returns where the number ends, NULL when there is none.  A dot needs a digit behind it. */
static const char *read_decimal(const char *s, struct decimal *d) {
    *d = (struct decimal){0, 0, 1, 0};
    const char *p = s;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(d->whole, 10u, &d->whole)) return NULL;
        if (__builtin_add_overflow(d->whole, (uint64_t)(*p - '0'), &d->whole)) return NULL;
    }
    if (*p != '.') return p == s ? NULL : p;
    const char *dot = p++;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (d->scale < 1000000000000000000ull) {
            d->part = d->part * 10 + (uint64_t)(*p - '0');
            d->scale *= 10;
        } else if (*p != '0') {
            d->more = 1;
        }
    }
    return p == dot + 1 ? NULL : p;
}

/* number * unit, rounded up; -1 on overflow. */
static int scale_decimal(const struct decimal *d, uint64_t unit, uint64_t *out) {
    unsigned __int128 part = (unsigned __int128)d->part * unit;
    uint64_t rest = (uint64_t)((part + d->scale - 1) / d->scale), whole;
    /* digits beyond the 18th only matter when the rest came out even */
    if (d->more && part % d->scale == 0) rest++;
    if (__builtin_mul_overflow(d->whole, unit, &whole) || __builtin_add_overflow(whole, rest, out)) return -1;
    return 0;
}

int text_to_size(const char *s, uint64_t *out) {
    struct decimal d;
    const char *p = read_decimal(s, &d);
    if (!p) return -1;
    unsigned shift = 0;
    switch (*p | 0x20) {
    case 'k':
        shift = 10;
        break;
    case 'm':
        shift = 20;
        break;
    case 'g':
        shift = 30;
        break;
    case 't':
        shift = 40;
        break;
    default:
        break;
    }
    if (shift) {
        p++;
        if ((p[0] == 'i' || p[0] == 'I') && (p[1] == 'b' || p[1] == 'B'))
            p += 2;
        else if (p[0] == 'b' || p[0] == 'B')
            p++;
    }
    if (*p) return -1;
    return scale_decimal(&d, 1ull << shift, out);
}

int text_to_duration(const char *s, int64_t *out) {
    static const struct {
        const char *name;
        uint64_t ns;
    } units[] = {{"", 1000000000},  {"ns", 1},          {"us", 1000},        {"ms", 1000000},
                 {"s", 1000000000}, {"m", 60000000000}, {"h", 3600000000000}};
    struct decimal d;
    const char *p = read_decimal(s, &d);
    if (!p) return -1;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(p, units[i].name) != 0) continue;
        uint64_t ns;
        if (scale_decimal(&d, units[i].ns, &ns) || ns > INT64_MAX) return -1;
        *out = (int64_t)ns;
        return 0;
    }
    return -1;
}
