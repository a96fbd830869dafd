#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The public headers compile alone, twice included, as C99, C11 and C++17, under strict warnings, with gcc and clang.
cd "$(dirname "$0")/../.." || exit 1
failed=0
n=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
printf '#include "allocator/sympool.h"\n#include "allocator/sympool.h"\n' | tee "$work/alone.c" >"$work/alone.cc"
# The initialiser is a macro, which nothing else here would expand.
echo 'syp_config initial_config(void); syp_config initial_config(void) { syp_config c = SYP_CONFIG_INIT; return c; }' |
    tee -a "$work/alone.c" >>"$work/alone.cc"

compile() {
    n=$((n + 1))
    "$@" -pedantic-errors -Wall -Wextra -Wshadow -Wundef -Werror -I. -fsyntax-only 2>"$work/err" && return
    failed=1
    echo "FAIL header: $*"
    cat "$work/err"
}
printf '#include "allocator/compat/shm.h"\n#include "allocator/compat/shm.h"\n' | tee "$work/shm.c" >"$work/shm.cc"
echo 'int is_float(int t); int is_float(int t) { return t == SHM_FLOAT32; }' | tee -a "$work/shm.c" >>"$work/shm.cc"
for header in alone shm; do
    for cc in gcc clang; do
        compile $cc -std=c99 "$work/$header.c"
        compile $cc -std=c11 -Wconversion "$work/$header.c"
    done
    for cxx in g++ clang++; do
        compile $cxx -std=c++17 -Wold-style-cast "$work/$header.cc"
    done
done
[ $failed = 0 ] && echo "ok header: $n compilations"
exit $failed
