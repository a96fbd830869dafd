#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every source file compiles without a warning under the Makefile's own flags, with gcc and with clang, the library
# also with its test points, as the tests are built.  Syntax only: what needs the optimiser to be seen, the build itself
# reports as an error (CI=1).
cd "$(dirname "$0")/../.." || exit 1
flags=$(make -s --no-print-directory CI=1 SAN= CFLAGS= --eval='print-flags: ; @echo $(BASE)' print-flags) || exit 1
case " $flags " in
*" -Wconversion "*" -Werror "*) ;;
*)
    echo "FAIL warnings: the Makefile's flags lack -Wconversion or -Werror: $flags"
    exit 1
    ;;
esac
library=$(find pool bootstrap collectives allocator -name '*.c' | sort)
tools=$(find tools -name '*.c' | sort)
tests=$(find tests -name '*.c' | sort)
if [ -z "$library" ]; then
    echo "FAIL warnings: no source file found"
    exit 1
fi
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
failed=0

# syntax FILES COMMAND...
syntax() {
    files=$1
    shift
    echo "$files" | xargs -P 2 -n 6 "$@" -fsyntax-only >"$log" 2>&1 && return
    failed=1
    echo "FAIL warnings: $1"
    cat "$log"
}
# shellcheck disable=SC2086  # the flags are words
for cc in gcc clang; do
    command -v $cc >"$log" || { echo "FAIL warnings: no $cc"; failed=1; continue; }
    syntax "$library
$tools" $cc $flags
    syntax "$library
$tests" $cc $flags -DSYP_TEST_POINTS
done
[ $failed = 0 ] && echo "ok warnings: $(echo "$library
$tools
$tests" | grep -c .) files with gcc and clang"
exit $failed
