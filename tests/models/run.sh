#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The protocols of collectives/ as models (*.pml), searched completely by spin: the protocol holds, and every mutant of it is found.
# Under SYP_CHECK=long with more members.
cd "$(dirname "$0")" || exit 1
command -v spin >/dev/null || { echo "spin is not installed: sh tools/deps.sh"; exit 1; }
here=$PWD
work=$(mktemp -d) || exit 1
opt=-O0 # compiling takes longest
[ "${SYP_CHECK:-}" = long ] && opt=-O2
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0

# model holds|fails NAME DEFINES...
model() {
    expected=$1
    name=$2
    shift 2
    rm -f pan pan.* *.trail
    spin -a "$@" "$here/$name.pml" >spin.out 2>&1 && ${CC:-gcc} $opt -w -DSAFETY -o pan pan.c >>spin.out 2>&1 || {
        cat spin.out
        failed=1
        return
    }
    ./pan -m1000000 >pan.out 2>&1
    errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out)
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.out)
    why=$(sed -n 's/^pan:[0-9]*: \(.*\) (at depth.*/\1/p' pan.out | head -n 1)
    verdict=fails
    [ "$errors" = 0 ] && verdict=holds
    grep -q 'max search depth too small\|out of memory\|Search not completed' pan.out && [ "$verdict" = holds ] && verdict="was not searched to the end"
    if [ "$verdict" = "$expected" ]; then
        echo "ok    $name $*: $verdict${why:+ ($why)}, $states states"
    else
        echo "FAIL  $name $*: $verdict${why:+ ($why)}, expected: $expected"
        [ "$verdict" = fails ] && spin -t -p -g "$@" "$here/$name.pml" | tail -n 40
        failed=1
    fi
}

model holds wake -DN=2
for m in 1 2 3; do model fails wake -DN=2 -DMUTANT=$m; done
model holds posts
for m in 1 2 3; do model fails posts -DMUTANT=$m; done
for d in 0 1; do model holds death -DDEATH=$d; done
model fails death -DDEATH=0 -DMUTANT=1
model fails death -DDEATH=1 -DMUTANT=2
model fails death -DDEATH=0 -DMUTANT=3
model holds agree -DN=2 -DATTEMPTS=3
for m in 1 2 3; do model fails agree -DMUTANT=$m; done
if [ "${SYP_CHECK:-}" = long ]; then
    model holds wake -DN=3 -DROUNDS=2
    model holds posts -DN=4
    model holds agree -DN=3
    for d in 0 1; do model holds death -DN=4 -DDEATH=$d; done
fi
exit $failed
