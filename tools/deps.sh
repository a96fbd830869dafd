#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sh tools/deps.sh [heavy|abi|bench]
# The lists of Debian packages that building and testing need.  Installs what is missing, and says so.
# heavy: instead those that only the full tests need.   abi: those of them that compare binary interfaces.
# bench: those of them that `make bench` compares with.
set -eu

# build: compiler, topology module, tools, demo data.   test: unit tests, models, checks.
PACKAGES="
gcc make binutils libc6-dev
libhwloc-dev libnuma-dev libsodium-dev libjansson-dev zlib1g-dev dataset-fashion-mnist
libcunit1-dev libseccomp-dev g++ pkg-config valgrind clang libclang-rt-14-dev spin strace python3 man-db procps iproute2 util-linux
gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
"
PACKAGES_ABI="abigail-tools"
PACKAGES_BENCH="libjemalloc2 libmimalloc2.0 libtcmalloc-minimal4 openmpi-bin libopenmpi-dev mpich libmpich-dev libgloo-dev"
PACKAGES_HEAVY="$PACKAGES_ABI $PACKAGES_BENCH python3-numpy python3-torch"

case ${1:-} in
"") ;;
heavy) PACKAGES=$PACKAGES_HEAVY ;;
abi) PACKAGES=$PACKAGES_ABI ;;
bench) PACKAGES=$PACKAGES_BENCH ;;
*)
    echo "usage: sh tools/deps.sh [heavy|abi|bench]" >&2
    exit 2
    ;;
esac

missing=""
for p in $PACKAGES; do
    case "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)" in
    installed) ;;
    *) missing="$missing $p" ;;
    esac
done
[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "sympool: this is not a Debian system; install the equivalents of:$missing" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    sudo=""
elif command -v sudo >/dev/null 2>&1; then
    sudo="sudo"
else
    echo "sympool: missing packages:$missing" >&2
    echo "sympool: not root and no sudo: ask an administrator to run: apt-get install$missing" >&2
    exit 1
fi
echo "sympool: installing missing Debian packages:$missing"
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing
