#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# SYMPOOL_DEBUG=tools: AddressSanitizer and valgrind see an overrun by one byte and a write after free in pool memory, which
# they cannot see without it: in private memory, and in the pool of an attached process.
set -u
B=$(cd "${B:-build}" && pwd) || exit 1
CC=${CC:-gcc}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
failed=0
cat >"$dir/bug.c" <<'END'
#include "allocator/sympool.h"
#include <string.h>
/* bug overrun|after|none private|pool */
int main(int argc, char **argv) {
    if (argc < 3) return 2;
    if (strcmp(argv[2], "pool") == 0 && syp_init(0, 1, 64 << 20, 1 << 20, NULL) != SYP_OK) return 3;
    volatile char *p = syp_malloc(100);
    for (int i = 0; i < 100; i++)
        p[i] = 1;
    if (strcmp(argv[1], "overrun") == 0) p[100] = 1;
    syp_free((void *)p);
    if (strcmp(argv[1], "after") == 0) p[10] = 1;
    p = syp_calloc(10, 1000);
    int sum = 0;
    for (int i = 0; i < 10000; i++)
        sum += p[i];
    return sum ? 4 : 0;
}
END
say() { # ok|FAIL NAME
    echo "$1 $2"
    [ "$1" = ok ] && return
    failed=1
    cat "$dir/out"
}
# expect NAME yes|no PATTERN ENVIRONMENT COMMAND...
expect() {
    name=$1 seen=$2 pattern=$3 env=$4
    shift 4
    env $env "$@" >"$dir/out" 2>&1
    grep -q "$pattern" "$dir/out" && was=yes || was=no
    if [ "$was" = "$seen" ]; then say ok "$name"; else say FAIL "$name"; fi
}

$CC -g -fsanitize=address -I. "$dir/bug.c" -o "$dir/asan" -L"$B" -lsympool -Wl,-rpath,"$B" || exit 1
$CC -g -I. "$dir/bug.c" -o "$dir/plain" -L"$B" -lsympool -Wl,-rpath,"$B" || exit 1
for where in private pool; do
    for bug in overrun after; do
        expect "AddressSanitizer sees $bug, $where" yes "use-after-poison" SYMPOOL_DEBUG=tools "$dir/asan" $bug $where
        expect "and does not without, $where" no "AddressSanitizer" SYMPOOL_DEBUG=off "$dir/asan" $bug $where
        expect "valgrind sees $bug, $where" yes "Invalid write of size 1" SYMPOOL_DEBUG=tools valgrind "$dir/plain" $bug $where
        expect "and does not without, $where" yes "ERROR SUMMARY: 0 errors" SYMPOOL_DEBUG=off valgrind "$dir/plain" $bug $where
    done
    expect "AddressSanitizer sees nothing in a correct program, $where" no "AddressSanitizer" SYMPOOL_DEBUG=on "$dir/asan" none $where
    expect "nor does valgrind, $where" yes "ERROR SUMMARY: 0 errors" SYMPOOL_DEBUG=on valgrind "$dir/plain" none $where
done
SYMPOOL_DEBUG=tools valgrind "$dir/plain" overrun private >"$dir/out" 2>&1
grep -q "0 bytes after a block of size 100 alloc'd" "$dir/out" && say ok "valgrind names the block" || say FAIL "valgrind names the block"

# Peers write into guarded blocks through mappings of their own; the owner looks at every tenth call.
expect "collectives on debug blocks" no "heap damage\|FAILED" "SYMPOOL_DEBUG=on SYMPOOL_DEBUG_CHECK=10 ONLY=agreement" \
    "$B/tests/ranks/test_symmetry"
expect "and random ones, in many groups" yes " 0 failed" "SYP_CHECK= SYMPOOL_DEBUG=on SYMPOOL_DEBUG_CHECK=10 ONLY=random_programs" "$B/tests/ranks/test_coll"
exit $failed
