#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The misuse matrix, made from the public header and run on the library as it is shipped: see misuse_gen.py and misuse_main.c.
# Run from the top of the repository; B = build folder, CC = compiler, ONLY = part of a function's name.
set -u
B=${B:-build}
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
for name in $(env | sed -n 's/^\(SYMPOOL_[A-Z_]*\)=.*/\1/p'); do unset "$name"; done
export PYTHONDONTWRITEBYTECODE=1

python3 tests/fault/misuse_gen.py allocator/sympool.h >"$T/table.c" || { echo "FAIL misuse: the header was not understood"; exit 1; }
${CC:-gcc} -std=c11 -D_GNU_SOURCE -I. -O1 -g -Wall -Wextra -Werror -o "$T/misuse" "$T/table.c" tests/fault/misuse_main.c \
    "$B/libsympool.so.0" -Wl,-rpath,"$(cd "$B" && pwd)" || exit 1

# A function of a type that nobody taught it must not be left out in silence.
{ cat allocator/sympool.h; printf 'SYP_API int syp_new(struct stat *x);\n'; } >"$T/new.h"
if python3 tests/fault/misuse_gen.py "$T/new.h" >/dev/null 2>&1; then
    echo "FAIL misuse: a parameter of unknown type was accepted"
    exit 1
fi
"$T/misuse" "${ONLY:-}"
