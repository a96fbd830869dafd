#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# sh tests/matrix.sh [PART]
#
# The programs of tests/ as built by each compiler, at each level, with each sanitizer; reduced counts, no suppressions.
# One line each, and the log of what failed.  PART: only the rows whose name contains it.
set -u
cd "$(dirname "$0")/.." || exit 1
part=${1:-}
failed=0
rows=0

# row COMPILER LEVEL MODE: MODE as for tests/run.sh
row() {
    name=$1$2-$3
    case $name in *"$part"*) ;; *) return ;; esac
    rows=$((rows + 1))
    case $3 in asan) san=address ;; ubsan) san=undefined ;; tsan) san=thread ;; *) san= ;; esac
    case $2 in *lto) flags="-O3 -flto=auto" ;; *) flags=$2 ;; esac
    B=build/matrix/$name
    log=build/matrix/$name.log
    mkdir -p "$B"
    started=$(date +%s)
    verdict=ok
    env -u MAKEFLAGS -u MAKELEVEL CI=1 make -j"$(nproc)" -s CC="$1" AR="$([ "$1" = gcc ] && echo gcc-ar || echo ar)" \
        CFLAGS="$flags" SAN=$san B="$B" tests modules >"$log" 2>&1 || verdict="does not build"
    built=$(date +%s)
    if [ "$verdict" = ok ]; then CC=$1 B=$B sh tests/run.sh "$3" >>"$log" 2>&1 || verdict="fails"; fi
    printf '%-5s %-18s built in %3s s, run in %4s s: %s\n' "$([ "$verdict" = ok ] && echo ok || echo FAIL)" "$name" \
        $((built - started)) $(($(date +%s) - built)) "$(tail -n 1 "$log")"
    [ "$verdict" = ok ] && return
    failed=$((failed + 1))
    grep -n '^FAIL\|error:\|warning:' "$log" | head -n 20
    sed -n '/^FAIL/,/^-----$/p' "$log" | head -n 60
}

for compiler in gcc clang; do
    for level in -O0 -O3; do
        for mode in plain asan ubsan tsan; do row $compiler $level $mode; done
    done
    [ $compiler = gcc ] && row gcc -O3-lto plain # each program is optimised with the whole library: minutes
done
echo "matrix: $rows rows, $failed failed"
[ $failed = 0 ] && [ $rows -gt 0 ]
