#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The protocols of collectives/ as models (*.pml), searched completely by spin: the protocol holds, and every mutant of it is found.
# Under SYP_CHECK=long with more members, rounds and operations.
cd "$(dirname "$0")" || exit 1
command -v spin >/dev/null || { echo "spin is not installed: sh tools/deps.sh"; exit 1; }
here=$PWD
work=$(mktemp -d) || exit 1
opt=-O0 # compiling takes longest
[ "${SYP_CHECK:-}" = long ] && opt=-O2
trap 'rm -rf "$work"' EXIT

# check holds|fails NAME DEFINES...
check() {
    expected=$1
    name=$2
    shift 2
    cd "$(mktemp -d "$work/XXXXXX")" || exit 1
    if spin -a "$@" "$here/$name.pml" >spin.out 2>&1 && ${CC:-gcc} $opt -w -DSAFETY -DMEMLIM=1900 -o pan pan.c >>spin.out 2>&1; then
        ./pan -w20 -m200000 >pan.out 2>&1
    else
        cat spin.out
        : >"$work/failed"
        return
    fi
    errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out)
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.out)
    why=$(sed -n 's/^pan:[0-9]*: \(.*\) (at depth.*/\1/p' pan.out | head -n 1 | cut -c 1-80)
    verdict=fails
    [ "$errors" = 0 ] && verdict=holds
    [ "$verdict" = holds ] && grep -q 'max search depth too small\|out of memory\|Search not completed' pan.out &&
        verdict="was not searched to the end"
    if [ "$verdict" = "$expected" ]; then
        echo "ok    $name $*: $verdict${why:+ ($why)}, $states states"
    else
        [ "$verdict" = fails ] && spin -t -p -g "$@" "$here/$name.pml" >trail.out
        echo "FAIL  $name $*: $verdict${why:+ ($why)}, expected: $expected"
        [ "$verdict" = fails ] && tail -n 40 trail.out
        : >"$work/failed"
    fi
}

# Two at a time.
started=0
model() {
    check "$@" &
    started=$((started + 1))
    [ $((started % 2)) = 1 ] || wait
}

for f in 0 1; do
    model holds wake -DFENCES=$f
    model fails wake -DFENCES=$f -DMUTANT=1
done
for m in 2 3 4 5; do model fails wake -DMUTANT=$m; done

model holds mailbox -DN=2
model holds mailbox -DN=3 -DOPERATIONS=3
for m in 1 2 3 4; do model fails mailbox -DN=2 -DMUTANT=$m; done

model holds slot
for m in 1 2 3 4 5; do model fails slot -DMUTANT=$m; done

model holds rounds -DROUNDS=2
model holds rounds -DROUNDS=1 -DOPERATIONS=3 -DSTAGED=1
for m in 1 3 4 10 11; do model fails rounds -DROUNDS=2 -DMUTANT=$m; done
model fails rounds -DROUNDS=1 -DSTAGED=0 -DMUTANT=2
for t in 1 2 3; do model holds rounds -DROUNDS=1 -DSTAGED=0 -DTROUBLE=$t; done
for m in 5 6 7 9; do model fails rounds -DROUNDS=2 -DSTAGED=0 -DTROUBLE=1 -DMUTANT=$m; done
model fails rounds -DROUNDS=2 -DTROUBLE=2 -DMUTANT=8
model holds rounds -DN=3 -DROUNDS=1 -DOPERATIONS=1 -DSTAGED=1 -DTROUBLE=1

for f in 0 1; do
    model holds giveup -DFENCES=$f -DOPERATIONS=2
    model fails giveup -DFENCES=$f -DMUTANT=1
done
model holds giveup -DDEATH=1
for e in 1 2; do model holds giveup -DENOUGH=$e; done
for m in 2 3 4 5 6; do model fails giveup -DMUTANT=$m; done

for d in 0 1; do model holds death -DDEATH=$d; done
model fails death -DDEATH=0 -DMUTANT=1
model fails death -DDEATH=1 -DMUTANT=2
model fails death -DDEATH=0 -DMUTANT=3
model fails death -DDEATH=1 -DMUTANT=4

model holds agree -DN=2 -DATTEMPTS=3
for m in 1 2 3; do model fails agree -DMUTANT=$m; done

if [ "${SYP_CHECK:-}" = long ]; then
    for f in 0 1; do
        model holds wake -DN=3 -DROUNDS=2 -DFENCES=$f
        for e in 0 1 2; do model holds giveup -DN=3 -DFENCES=$f -DENOUGH=$e; done
    done
    model holds giveup -DN=3 -DDEATH=1
    model holds mailbox -DN=2 -DOPERATIONS=6
    for s in 0 1 3; do
        model holds rounds -DROUNDS=3 -DSTAGED=$s
        for t in 1 2 3; do model holds rounds -DROUNDS=2 -DSTAGED=$s -DTROUBLE=$t; done
        for e in 1 2; do model holds rounds -DROUNDS=2 -DSTAGED=$s -DTROUBLE=1 -DENOUGH=$e; done
    done
    for s in 0 5 7; do
        model holds rounds -DN=3 -DROUNDS=1 -DSTAGED=$s
        for t in 1 2 3; do model holds rounds -DN=3 -DROUNDS=1 -DOPERATIONS=1 -DSTAGED=$s -DTROUBLE=$t; done
        model holds rounds -DN=3 -DROUNDS=2 -DOPERATIONS=1 -DSTAGED=$s
    done
    model holds agree -DN=3
    for d in 0 1; do model holds death -DN=4 -DDEATH=$d; done
fi
wait
[ ! -e "$work/failed" ]
