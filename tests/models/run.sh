#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The protocols of collectives/ as models (*.pml), searched completely by spin: the protocol holds, and every mutant of it is found.
# Under SYP_CHECK=long with more members, rounds and operations.
cd "$(dirname "$0")" || exit 1
command -v spin >/dev/null || { echo "spin is not installed: sh tools/deps.sh"; exit 1; }
here=$PWD
work=$(mktemp -d) || exit 1
opt=-O0 memory=1900 # compiling takes longest
[ "${SYP_CHECK:-}" = long ] && opt=-O2 memory=7000 # 62 million states
trap 'rm -rf "$work"' EXIT

# search EXPECTED NAME MUTANT DEFINES...: of ./pan.
search() {
    expected=$1
    name=$2
    mutant=$3
    shift 3
    MUTANT=$mutant ./pan -w20 -m200000 >pan.out 2>&1
    errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out)
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.out)
    why=$(sed -n 's/^pan:[0-9]*: \(.*\) (at depth.*/\1/p' pan.out | head -n 1 | cut -c 1-80)
    verdict=fails
    [ "$errors" = 0 ] && verdict=holds
    [ "$verdict" = holds ] && grep -q 'max search depth too small\|out of memory\|Search not completed' pan.out &&
        verdict="was not searched to the end"
    if [ "$verdict" = "$expected" ]; then
        echo "ok    $name $* mutant $mutant: $verdict${why:+ ($why)}, $states states"
    else
        echo "FAIL  $name $* mutant $mutant: $verdict${why:+ ($why)}, expected: $expected"
        [ "$verdict" = fails ] && cp "$here/$name.pml" . && mv mutants.pml.trail "$name.pml.trail" &&
            spin -t -p -g -DMUTANT="$mutant" "$@" "$name.pml" | tail -n 40
        : >"$work/failed"
    fi
}

# Compiling takes longest: so one program has all mutants, and is told which one to search.
check() {
    name=$1
    mutants=$2
    shift 2
    cd "$(mktemp -d "$work/XXXXXX")" || exit 1
    printf 'byte mutant = 77;\n#include "%s"\n' "$here/$name.pml" >mutants.pml
    if spin -a -DMUTANT=mutant "$@" mutants.pml >spin.out 2>&1 && grep -q 'now.mutant = 77;' pan.c &&
        sed -i 's/now.mutant = 77;/now.mutant = atoi(getenv("MUTANT"));/' pan.c &&
        ${CC:-gcc} $opt -w -DSAFETY -DMEMLIM=$memory -o pan pan.c >>spin.out 2>&1; then
        search holds "$name" 0 "$@"
        for m in $mutants; do search fails "$name" "$m" "$@"; done
    else
        cat spin.out
        : >"$work/failed"
    fi
}

# model NAME MUTANTS DEFINES...: it holds, each of these mutants fails.  Two at a time.
started=0
model() {
    check "$@" >"$work/out.$started" 2>&1 &
    started=$((started + 1))
    [ $((started % 2)) = 1 ] || finish
}
finish() {
    wait
    cat "$work"/out.* 2>/dev/null
    rm -f "$work"/out.*
}

model wake "1 2 3 4 5" -DFENCES=0
model wake "1 2 3 4 5" -DFENCES=1
model mailbox "1 2 3 4" -DN=2
model mailbox "" -DN=3 -DOPERATIONS=3
model slot "1 2 3 4 5 6"
model agree "1 2 3" -DATTEMPTS=3
model death "1 3" -DDEATH=0
model death "2 4" -DDEATH=1
model rounds "1 3 4 10 11" -DROUNDS=2 -DSTAGED=3
model rounds "2 5 6 7 9" -DROUNDS=1 -DSTAGED=0 -DTROUBLE=1
model rounds "8" -DROUNDS=1 -DSTAGED=1 -DTROUBLE=2
model rounds "" -DROUNDS=1 -DSTAGED=0 -DTROUBLE=3
model rounds "" -DROUNDS=1 -DSTAGED=1 -DOPERATIONS=3
model rounds "" -DN=3 -DROUNDS=1 -DSTAGED=1 -DOPERATIONS=1 -DTROUBLE=1
model tree "1 2 3 4 6" -DCROWDED=0
model tree "5" -DCROWDED=0 -DDEATH=1 -DOPERATIONS=1
model tree "" -DOPERATIONS=1
model giveup "1 2 3 4 5 6" -DFENCES=0
model giveup "1 2 3 4 5 6" -DFENCES=1
model giveup "" -DDEATH=1
model giveup "" -DENOUGH=1 -DOPERATIONS=2
model giveup "" -DENOUGH=2 -DOPERATIONS=2

if [ "${SYP_CHECK:-}" = long ]; then
    for f in 0 1; do
        model wake "" -DN=3 -DROUNDS=2 -DFENCES=$f
        for e in 0 1 2; do model giveup "" -DN=3 -DFENCES=$f -DENOUGH=$e; done
    done
    model giveup "" -DN=3 -DDEATH=1
    model mailbox "" -DN=2 -DOPERATIONS=6
    for s in 0 1 3; do
        model rounds "" -DROUNDS=3 -DSTAGED=$s
        for t in 1 2 3; do model rounds "" -DROUNDS=2 -DSTAGED=$s -DTROUBLE=$t; done
        for e in 1 2; do model rounds "" -DROUNDS=2 -DSTAGED=$s -DTROUBLE=1 -DENOUGH=$e; done
    done
    for s in 0 5 7; do
        model rounds "" -DN=3 -DROUNDS=2 -DSTAGED=$s -DOPERATIONS=1
        for t in 1 2 3; do model rounds "" -DN=3 -DROUNDS=1 -DSTAGED=$s -DOPERATIONS=1 -DTROUBLE=$t; done
    done
    model rounds "" -DN=3 -DROUNDS=1 -DSTAGED=7
    model agree "" -DN=3
    model tree ""
    model tree "" -DCROWDED=0 -DOPERATIONS=3
    model tree "" -DCROWDED=0 -DDEATH=1
    for d in 0 1; do model death "" -DN=4 -DDEATH=$d; done
fi
finish
[ ! -e "$work/failed" ]
