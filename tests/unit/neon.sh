#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The kernels for 64-bit Arm: built by the cross compiler with the Makefile's own flags, and their tests run in an emulator.
set -eu
cd "$(dirname "$0")/../.."
out=${B:-build}/arm64
mkdir -p "$out"
flags=$(make -s --no-print-directory CI=1 SAN= CFLAGS= --eval='print-flags: ; @echo $(BASE)' print-flags)
parts="collectives/reduce collectives/reduce_scalar collectives/reduce_neon collectives/copy tests/support/check
pool/base/status pool/base/text pool/base/thread pool/base/arena pool/base/point pool/base/os_linux"
# shellcheck disable=SC2086 # words
for part in $parts tests/unit/test_reduce tests/unit/test_copy; do
    mkdir -p "$out/${part%/*}"
    echo "$part.c -o $out/$part.o"
done | xargs -P 2 -n 3 aarch64-linux-gnu-gcc $flags -DSYP_TEST_POINTS -isystem tests/support/fake_cunit -c
for test in reduce copy; do
    # shellcheck disable=SC2086,SC2046 # words
    aarch64-linux-gnu-gcc -static -o "$out/test_$test" $(printf "$out/%s.o " $parts tests/unit/test_$test) -lm
    qemu-aarch64-static "$out/test_$test"
done
