#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# sh tests/mutants/run.sh all|apply|COUNT [PART]
#
# Do the tests test?  Each mutant is one planted bug; the tests it names must fail with it.
#   all     every mutant (sanitizer builds are made as needed)     apply   only: can each still be planted?
#   COUNT   so many, chosen by seed (SEED=... replays), none of those that need a sanitizer
#   PART    only those whose name contains it
#
# tests/mutants/*.txt hold them, one paragraph each:
#   mutant NAME   what it breaks          file    the source
#   old    text that is in one line of the file, once; `at TEXT`: the first such line after the first line with TEXT
#   new    what stands there instead      san     sanitizer that has to see it: thread (optional)
#   tests  programs, in the order in which they are tried, as unit/test_x or unit/test_x:part-of-a-test's-name
#
# A copy of the tree and of the object files of $B is changed, rebuilt and tested.  Survived, cannot be planted, or does
# not compile: a failure.  The tests run with SEED=1 and reduced counts, so that a verdict repeats.
set -u
cd "$(dirname "$0")/../.." || exit 1
mode=${1:-}
part=${2:-}
B=${B:-build}
limit=30 # a hang is a kill, too
case $mode in
all | apply | [1-9] | [1-9][0-9]) ;;
*)
    echo "usage: sh tests/mutants/run.sh all|apply|COUNT [PART]" >&2
    exit 2
    ;;
esac
[ "$mode" = all ] && limit=60
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# One line per mutant: name, what, file, old, new, at, san, tests, separated by a control character.
US=$(printf '\037')
awk -v OFS="$US" -v part="$part" '
    function rest(s) { sub(/^[a-z]+ */, "", s); return s }
    function flush() { if (name != "" && index(name, part)) print name, what, file, old, new, at, san, tests; name = "" }
    /^mutant / { flush(); name = $2; what = rest($0); sub(/^[^ ]+ */, "", what); file = old = new = at = san = tests = "" }
    /^file / { file = $2 }   /^old / { old = rest($0) }   /^new / { new = rest($0) }   /^at / { at = rest($0) }
    /^san / { san = $2 }     /^tests / { tests = rest($0) }
    END { flush() }' tests/mutants/*.txt >"$work/list"
[ -s "$work/list" ] || { echo "no mutant${part:+ matches $part}"; exit 1; }

# plant FILE OLD NEW AT: the changed file on stdout; fails unless there is exactly one place.
plant() {
    OLD=$2 NEW=$3 AT=$4 awk '
        BEGIN { old = ENVIRON["OLD"]; new = ENVIRON["NEW"]; at = ENVIRON["AT"]; armed = at == "" }
        !armed && index($0, at) { armed = 1 }
        armed && (i = index($0, old)) && (at == "" || !n) { n++; $0 = substr($0, 1, i - 1) new substr($0, i + length(old)) }
        { print }
        END { exit n != 1 }' "$1"
}

total=0
bad=0
say() { # VERDICT SECONDS NAME WHAT
    printf '%-9s %3s s  %-22s %s\n' "$1" "$2" "$3" "$4"
}

# try NAME WHAT FILE OLD NEW AT SAN TESTS
try() {
    total=$((total + 1))
    started=$(date +%s)
    tree=$work/tree
    from=$B
    to=build
    [ -n "$7" ] && from=build/$7 && to=build/$7
    rm -rf "$tree"
    mkdir -p "$tree/$to"
    cp -a Makefile pool bootstrap collectives allocator tests tools "$tree/"
    cp -a "$from/tobj" "$B/modules" "$tree/$to/"
    plant "$3" "$4" "$5" "$6" >"$tree/$3"
    programs=$(for t in $8; do echo "$to/tests/${t%%:*}"; done)
    # shellcheck disable=SC2086 # a list of targets
    if ! (cd "$tree" && env -u CI -u MAKEFLAGS -u MAKELEVEL make -s Q= SAN="$7" B="$to" $programs) >"$work/log" 2>&1; then
        say UNBUILT $(($(date +%s) - started)) "$1" "does not compile"
        tail -n 20 "$work/log"
        bad=$((bad + 1))
        return
    fi
    for t in $8; do
        only=""
        case $t in *:*) only=${t#*:} ;; esac
        (cd "$tree" && unset SYP_CHECK && TSAN_OPTIONS="halt_on_error=1 exitcode=66" B=$to SEED=1 SYP_TEST_TIMEOUT=$((limit - 10)) ${only:+env ONLY="$only"} \
            sh -c 'echo $$ >"$1"; shift; exec timeout "$@"' sh "$work/group" -k 5 $limit "$to/tests/${t%%:*}") >"$work/log" 2>&1 </dev/null
        rc=$?
        kill -KILL -- "-$(cat "$work/group")" 2>/dev/null # what a broken test left behind: timeout leads a group of its own
        if [ $rc != 0 ] && { [ "$7" != thread ] || [ $rc = 66 ]; }; then
            by=$(sed -n 's/^ *Test: \(.*\) \.\.\.FAILED.*/\1/p' "$work/log" | head -n 1)
            say killed $(($(date +%s) - started)) "$1" "$2  [$t${by:+: $by}${7:+, $7}]"
            return
        fi
    done
    say SURVIVED $(($(date +%s) - started)) "$1" "$2  [$8]"
    bad=$((bad + 1))
}

# All of them must be plantable, whichever are run.
while IFS=$US read -r name what file old new at san tests; do
    for t in $tests; do [ -f "tests/${t%%:*}.c" ] || { echo "STALE: $name: there is no tests/${t%%:*}.c"; bad=$((bad + 1)); }; done
    if [ -z "$tests" ] || ! plant "$file" "$old" "$new" "$at" >/dev/null 2>&1; then
        echo "STALE: $name: not exactly one place in $file has: $old"
        bad=$((bad + 1))
        continue
    fi
    printf '%s\n' "$name$US$what$US$file$US$old$US$new$US$at$US$san$US$tests" >>"$work/good"
done <"$work/list"
[ "$mode" = apply ] && { echo "$(wc -l <"$work/list") mutants, $bad cannot be planted"; [ $bad = 0 ]; exit; }

case $mode in
all)
    for san in $(awk -F "$US" '$7 != "" { print $7 }' "$work/good" | sort -u); do
        env -u MAKEFLAGS -u MAKELEVEL make -s SAN="$san" B="build/$san" tests >"$work/log" 2>&1 || { tail -n 20 "$work/log"; exit 1; }
    done
    cp "$work/good" "$work/chosen"
    ;;
*)
    seed=${SEED:-$(date +%s)}
    echo "seed $seed"
    awk -F "$US" '$7 == ""' "$work/good" |
        awk -v seed="$seed" -v n="$mode" 'BEGIN { srand(seed) } { print rand() "\t" $0 }' | sort | head -n "$mode" | cut -f 2- >"$work/chosen"
    ;;
esac
while IFS=$US read -r name what file old new at san tests; do
    try "$name" "$what" "$file" "$old" "$new" "$at" "$san" "$tests"
done <"$work/chosen"
echo "$total mutants run, $bad bad, of $(wc -l <"$work/list")"
[ $bad = 0 ]
