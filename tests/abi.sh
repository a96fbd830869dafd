#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# sh tests/abi.sh check|baseline
#
# The binary interface of $B/libsympool.so.0 beside the one committed in tests/abi/sympool.abi.  Functions may be added, and fields at the
# end of the structs that say their own size (tests/abi/allowed.ini); anything else is a failure.  check also plants changes in copies
# of the tree, to see that they are found.  baseline writes the committed file anew: at a release, or with a change that is meant.
set -u
cd "$(dirname "$0")/.." || exit 1
B=${B:-build}
committed=tests/abi/sympool.abi
for tool in abidw abidiff; do
    command -v $tool >/dev/null || { echo "FAIL abi: $tool is not installed: sh tools/deps.sh abi"; exit 1; }
done
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failed=0

# dump SO HEADER: what the public header shows of it
dump() {
    rm -rf "$work/include"
    mkdir "$work/include" && cp "$2" "$work/include/"
    abidw --exported-interfaces-only --drop-private-types --headers-dir "$work/include" --no-show-locs --no-corpus-path --no-comp-dir-path \
        --no-architecture --no-elf-needed "$1"
}

# compare NEW: 0 = compatible
compare() {
    abidiff --no-added-syms --harmless --suppressions tests/abi/allowed.ini "$committed" "$1" >"$work/report" 2>&1
}

# planted yes|no WHAT SED-EXPRESSION: is the change of the header found?
planted() {
    tree=$work/tree
    rm -rf "$tree"
    mkdir "$tree"
    cp -a Makefile pool bootstrap collectives allocator tests tools "$tree/"
    sed -i "$3" "$tree/allocator/sympool.h" "$tree"/allocator/*.c "$tree"/pool/*.c "$tree"/pool/base/*.c
    if cmp -s allocator/sympool.h "$tree/allocator/sympool.h" ||
        ! (cd "$tree" && env -u CI -u MAKEFLAGS -u MAKELEVEL make -j"$(nproc)" -s Q= B=build CFLAGS="-O0 -w" build/libsympool.so.0) >"$work/log" 2>&1; then
        echo "FAIL abi: cannot plant: $2"
        tail -n 5 "$work/log"
        failed=1
        return
    fi
    dump "$tree/build/libsympool.so.0" "$tree/allocator/sympool.h" >"$work/new.abi" 2>"$work/log"
    found=no
    compare "$work/new.abi" || found=yes
    [ $found = "$1" ] && { echo "ok   planted: $2: found: $found"; return; }
    echo "FAIL abi: planted: $2: found: $found"
    head -n 20 "$work/report"
    failed=1
}

case ${1:-} in
baseline)
    dump "$B/libsympool.so.0" allocator/sympool.h >"$work/new.abi" && cp "$work/new.abi" $committed && echo "wrote $committed"
    ;;
check)
    dump "$B/libsympool.so.0" allocator/sympool.h >"$work/new.abi" || exit 1
    if compare "$work/new.abi"; then
        echo "ok   $B/libsympool.so.0 is compatible with $committed"
    else
        echo "FAIL abi: $B/libsympool.so.0 is not compatible with $committed"
        cat "$work/report"
        failed=1
    fi
    planted yes "a function is gone" 's/\bsyp_usable_size\b/syp_block_size/g'
    planted yes "a parameter changed its type" 's/syp_realloc(void \*p, size_t len)/syp_realloc(void *p, int len)/'
    planted yes "a field was put in the middle of a struct" '/^typedef struct syp_location {/,/^}/s/^\( *\)int rank;/\1int32_t zone;\n&/'
    planted yes "a constant changed its value" 's/\bSYP_SUM = 1\b/SYP_SUM = 7/; s/\bSYP_SUM = 0\b/SYP_SUM = 7/'
    planted yes "a field was added at the end of a struct that does not say its size" 's/^} syp_pool_id;/    uint64_t more;\n&/'
    planted no "a function was added" 's/^SYP_API size_t syp_usable_size(const void \*p);/&\nSYP_API size_t syp_extra(const void *p);/; s/^size_t syp_usable_size(const void \*p) {/size_t syp_extra(const void *p) {\n    return p != 0;\n}\n\n&/'
    planted no "a field was added at the end of a struct that says its size" '/^typedef struct syp_pool_info {/,/^}/s/^} syp_pool_info;/    uint64_t more;\n&/'
    exit $failed
    ;;
*)
    echo "usage: sh tests/abi.sh check|baseline" >&2
    exit 2
    ;;
esac
