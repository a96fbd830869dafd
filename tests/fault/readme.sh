#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The README's C example: installed somewhere else, compiled through pkg-config, also against the static library, run with 3 ranks.
set -u
B=${B:-build}
CC=${CC:-gcc}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
failed=0
check() { # NAME COMMAND...
    name=$1
    shift
    if "$@" >"$dir/out" 2>&1; then
        echo "ok $name"
    else
        echo "FAIL $name"
        cat "$dir/out"
        failed=1
    fi
}

awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' README.md >"$dir/example.c"
check "example has at most 20 lines" test "$(wc -l <"$dir/example.c")" -gt 5 -a "$(wc -l <"$dir/example.c")" -le 20
check install make install PREFIX="$dir/inst" B="$B"
PKG_CONFIG_PATH=$dir/inst/lib/pkgconfig
export PKG_CONFIG_PATH
flags=$(pkg-config --cflags --libs sympool) || failed=1
# shellcheck disable=SC2086
check "compile with pkg-config" $CC -Wall -Wextra -Werror "$dir/example.c" -o "$dir/example" $flags -Wl,-rpath,"$dir/inst/lib"
check "run with 3 ranks" "$dir/inst/bin/sympool-run" -n 3 "$dir/example"
cp "$dir/out" "$dir/sums"
check "every rank has the sum" test "$(grep -c 'of 3: 3, neighbour has 3' "$dir/sums")" = 3
check "compile against the static library" $CC "$dir/example.c" -I "$dir/inst/include" -o "$dir/static" "$dir/inst/lib/libsympool.a"
check "run it" "$dir/inst/bin/sympool-run" -n 2 "$dir/static"
check "installed bench finds the library" "$dir/inst/bin/sympool-bench" --help
for page in man1/sympool.1 man1/sympool-run.1 man1/sympool-bench.1 man7/sympool.7; do
    check "man page $page" man -l --warnings "$dir/inst/share/man/$page"
done
exit $failed
