#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the shared object shows and asks for: exactly the functions of the public header, with the version SYMPOOL_0;
# libc alone; a glibc no newer than the README says; no executable stack, no text relocations, bound at load, never
# unloaded; at most 64 bytes of thread-local storage (a larger block of the static model fails dlopen into a program
# that has used up the surplus). And the archive defines no global name but syp_*.
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
so=$B/libsympool.so.0
archive=$B/libsympool.a
oldest_glibc=2.34
tls_max=64
failed=0
fail() {
    echo "FAIL symbols: $*"
    failed=1
}
export LC_ALL=C
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
for f in "$so" "$archive"; do
    [ -f "$f" ] || { fail "$f is not built"; exit 1; }
done

# declared: preprocessed with SYP_API left as it stands, one declaration a line, the name before the first parenthesis
sed '/define SYP_API/d' allocator/sympool.h | gcc -E -P -x c - | tr '\n' ' ' | grep -o 'SYP_API [^;{]*;' |
    sed 's/(.*//; s/.*[ *]//' | sort -u >"$work/declared"
nm -D --defined-only --with-symbol-versions "$so" | awk '$2 != "A" { print $3 }' >"$work/versioned"
sed 's/@.*//' "$work/versioned" | sort -u >"$work/exported"
[ -s "$work/declared" ] || fail "no declaration found in allocator/sympool.h"
for s in $(comm -23 "$work/declared" "$work/exported"); do fail "$s is declared but not exported"; done
for s in $(comm -13 "$work/declared" "$work/exported"); do fail "$s is exported but not declared"; done
for s in $(grep -v '@@SYMPOOL_0$' "$work/versioned"); do fail "$s does not have the version SYMPOOL_0"; done

nm -g --defined-only "$archive" | awk 'NF == 3 { print $3 }' | sort -u >"$work/archive"
for s in $(grep -v '^syp_' "$work/archive"); do fail "$archive defines the global name $s"; done
for s in $(comm -23 "$work/declared" "$work/archive"); do fail "$archive lacks $s"; done

readelf -dW "$so" >"$work/dynamic"
readelf -lW "$so" >"$work/segments"
for lib in $(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' "$work/dynamic"); do
    case $lib in
    libc.so.6 | ld-linux*) ;;
    *) fail "needs $lib" ;;
    esac
done
grep -q '(TEXTREL)\|FLAGS.*TEXTREL' "$work/dynamic" && fail "has text relocations"
grep -q '(FLAGS).*BIND_NOW\|(BIND_NOW)' "$work/dynamic" || fail "lacks BIND_NOW"
grep -q '(FLAGS_1).*NODELETE' "$work/dynamic" || fail "lacks NODELETE"
grep -q '(SONAME).*\[libsympool.so.0\]' "$work/dynamic" || fail "its soname is not libsympool.so.0"
awk '$1 == "GNU_STACK" { found = 1; if ($7 ~ /E/) bad = 1 } END { exit !found || bad }' "$work/segments" ||
    fail "asks for an executable stack"
tls=$(awk '$1 == "TLS" { print $6 }' "$work/segments")
tls=$((${tls:-0}))
[ "$tls" -le "$tls_max" ] || fail "has $tls bytes of thread-local storage, more than $tls_max"

readelf -VW "$so" | grep -q 'GLIBC_PRIVATE' && fail "uses private symbols of glibc"
glibc=$(readelf -VW "$so" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -Vu | tail -n 1)
[ "$(printf '%s\n%s\n' "$glibc" "$oldest_glibc" | sort -V | tail -n 1)" = "$oldest_glibc" ] ||
    fail "needs glibc $glibc, newer than $oldest_glibc"

shim=$B/libsympool-shm-compat.so.0
sed '/define SHM_API/d' allocator/compat/shm.h | gcc -E -P -x c - | tr '\n' ' ' | grep -o 'SHM_API [^;{]*;' |
    sed 's/(.*//; s/.*[ *]//; s/$/@@SYMPOOL_SHM_0/' | sort -u >"$work/shim_declared"
nm -D --defined-only --with-symbol-versions "$shim" | awk '$2 != "A" { print $3 }' | sort -u >"$work/shim_exported"
[ -s "$work/shim_declared" ] || fail "no declaration found in allocator/compat/shm.h"
diff "$work/shim_declared" "$work/shim_exported" >"$work/diff" || fail "$shim and its header differ: $(tr '\n' ' ' <"$work/diff")"
readelf -dW "$shim" >"$work/dynamic"
grep -q '(SONAME).*\[libsympool-shm-compat.so.0\]' "$work/dynamic" || fail "the soname of $shim is another"
needed=$(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' "$work/dynamic" | grep -v '^ld-linux' | tr '\n' ' ')
[ "$needed" = "libsympool.so.0 libc.so.6 " ] || fail "$shim needs $needed"
readelf -lW "$shim" | grep -q '^ *TLS ' && fail "$shim has thread-local storage"
glibc_shim=$(readelf -VW "$shim" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -Vu | tail -n 1)
[ "$(printf '%s\n%s\n' "$glibc_shim" "$oldest_glibc" | sort -V | tail -n 1)" = "$oldest_glibc" ] || fail "$shim needs glibc $glibc_shim"

[ $failed = 0 ] &&
    echo "ok symbols: $(wc -l <"$work/declared") functions, glibc $glibc, $tls bytes of thread-local storage"
exit $failed
