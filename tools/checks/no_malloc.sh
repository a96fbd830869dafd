#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the library's objects must not call: the malloc family (we are the allocator), stdio and its formatting,
# getenv; and, outside the files named here, abort, and what allocates behind our back: the resolver, the dynamic loader,
# threads.
cd "$(dirname "$0")/../.." || exit 1
obj=${B:-build}/obj
work=$(mktemp) || exit 1
trap 'rm -f "$work"' EXIT

# Only objects whose source is still there.
for o in $(find "$obj/pool" "$obj/bootstrap" "$obj/collectives" "$obj/allocator" -name '*.o' 2>/dev/null | sort); do
    source=${o#"$obj/"}
    [ -f "${source%.o}.c" ] || continue
    nm -u "$o" | sed "s|^ *[Uwv] *|${source} |; s/@.*//"
    echo "$source"
done >"$work"

awk '
BEGIN {
    split("malloc calloc realloc reallocarray free cfree posix_memalign aligned_alloc memalign valloc pvalloc " \
          "strdup strndup " \
          "__strdup __strndup asprintf vasprintf getline getdelim open_memstream scandir opendir realpath " \
          "printf vprintf fprintf vfprintf sprintf vsprintf snprintf vsnprintf dprintf vdprintf " \
          "puts putchar fputs fputc putc " \
          "fwrite fread fgets fopen fdopen fclose fflush perror scanf sscanf fscanf stdout stderr stdin " \
          "getenv secure_getenv __secure_getenv setenv putenv unsetenv syslog setlocale exit _exit", list, " ")
    for (i in list) never[list[i]] = 1
    split("getaddrinfo freeaddrinfo gai_strerror", list, " ")
    for (i in list) only[list[i]] = "bootstrap/url.o"
    split("dlopen dlsym dlvsym dlclose dlerror dladdr dladdr1", list, " ")
    for (i in list) only[list[i]] = "pool/base/module.o"
    only["abort"] = "pool/debug.o" # heap damage, by SYMPOOL_DEBUG_DAMAGE
    only["pthread_create"] = "pool/base/os_linux.o"
}
NF == 1 { objects++; next }
{
    name = $2
    plain = name
    if (sub(/^__/, "", plain)) sub(/_chk$/, "", plain) # the fortified forms
    if (name in never || plain in never) { print "FAIL no_malloc: " $1 " calls " name; failed = 1 }
    else if (name in only && only[name] != $1) {
        print "FAIL no_malloc: " $1 " calls " name ", which only " only[name] " may"
        failed = 1
    }
}
END {
    if (!objects) { print "FAIL no_malloc: no objects found"; failed = 1 }
    if (!failed) print "ok no_malloc: " objects " objects"
    exit failed
}' "$work"
