#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# sh tests/run.sh quick|long|plain|asan|ubsan|tsan [PART]
#
# Runs, one at a time since many are sensitive to timing, whatever is there of: tools/checks/*.sh, the programs test_*
# of tests/{unit,ranks,fault} as built in $B, tests/{unit,ranks,fault,fuzz}/*.sh, the models and a few of the mutants.
# long: full counts, all mutants and the binary interface: three hours on two processors.  The matrix of compilers and sanitizers takes as long: make check-matrix.
# plain: the programs alone.  The sanitizer modes: the programs alone, without those of tests/fault; tsan only those
# whose source has the line "/* tsan: yes */".  PART: only those whose name contains it.
#
# Each has a time limit, and its output in $B/log.  One line each: result, seconds, name, seeds; the end of the log
# when it failed.  Except in quick mode a table follows: result, tests, checks, seconds, seeds.  The last line is
# "N passed, N failed, N skipped": passed and failed count programs, skipped counts the tests inside them that said
# "SKIP: why".  In long mode a skip is a failure unless its reason contains "no hardware".
set -u
cd "$(dirname "$0")/.." || exit 1

mode=${1:-}
part=${2:-}
case $mode in
quick) limit=300 ;;
long | plain | asan | ubsan | tsan) limit=3600 ;;
*)
    echo "usage: sh tests/run.sh quick|long|plain|asan|ubsan|tsan [PART]" >&2
    exit 2
    ;;
esac
B=${B:-build}
export B
[ "$mode" = long ] && export SYP_CHECK=long
# The test programs' own watchdog speaks first: it knows where they hang.
export SYP_TEST_TIMEOUT=$((limit - 20))
export ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1:abort_on_error=0"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
export TSAN_OPTIONS="halt_on_error=0:exitcode=66"

passed=0
failed=0
skipped=0
failures=""
skips=$(mktemp) || exit 1
rows=$(mktemp) || exit 1
trap 'rm -f "$skips" "$rows"' EXIT
trap 'exit 130' INT TERM

# run NAME COMMAND...
run() {
    name=$1
    shift
    log=$B/log/$name.log
    mkdir -p "${log%/*}"
    started=$(date +%s%N)
    timeout -k 10 "$limit" "$@" >"$log" 2>&1 </dev/null
    rc=$?
    ms=$((($(date +%s%N) - started) / 1000000))
    time=$(printf '%d.%02d s' $((ms / 1000)) $((ms % 1000 / 10)))

    why=""
    case $rc in
    0) ;;
    124) why="still running after $limit s" ;;
    *) if [ "$rc" -gt 128 ]; then why="ended by signal $((rc - 128))"; else why="exit status $rc"; fi ;;
    esac
    n_skips=$(grep -c '^ *SKIP: ' "$log")
    skipped=$((skipped + n_skips))
    grep '^ *SKIP: ' "$log" | sed "s|^ *SKIP: |$name: |" >>"$skips"
    if [ "$mode" = long ] && grep '^ *SKIP: ' "$log" | grep -qv 'no hardware'; then
        why="${why:+$why; }skipped something although the full run was asked for"
    fi

    seeds=$(sed -n 's/.*SEED=\([0-9]*\)$/seed \1/p; s/^ *\(seed .*\)/\1/p' "$log" | sort -u | head -n 4 | tr '\n' ' ')
    counts=$(sed -n 's/^.*: \([0-9]* tests\), \([0-9]* checks\), .*/\1 \2/p' "$log" | tail -n 1)
    printf '%s|%s|%s|%s|%s\n' "$([ -z "$why" ] && echo ok || echo FAIL)" "$time" "$name" "${counts:--}" "$seeds" >>"$rows"
    [ "$n_skips" -gt 0 ] && seeds="$seeds$n_skips skipped"
    if [ -z "$why" ]; then
        passed=$((passed + 1))
        printf 'ok    %9s  %s  %s\n' "$time" "$name" "$seeds"
    else
        failed=$((failed + 1))
        failures="$failures $name"
        printf 'FAIL  %9s  %s  %s: %s\n' "$time" "$name" "$seeds" "$why"
        echo "----- last lines of $log"
        tail -n 40 "$log"
        echo "-----"
    fi
}

wanted() {
    case $1 in
    *"$part"*) return 0 ;;
    esac
    return 1
}

scripts() { # FOLDER
    for script in "$1"/*.sh; do
        [ -f "$script" ] || continue
        name=${script#tests/}
        wanted "$name" && run "$name" sh "$script"
    done
}

# The sources say which programs there are: one that was not built is a failure, a left-over binary is not run.
programs() { # FOLDER
    for source in tests/"$1"/test_*.c; do
        [ -f "$source" ] || continue
        name=$1/$(basename "$source" .c)
        wanted "$name" || continue
        if [ "$mode" = tsan ] && ! grep -q '/\* tsan: yes \*/' "$source"; then continue; fi
        run "$name" "$B/tests/$name"
    done
}

case $mode in
quick | long)
    scripts tools/checks
    programs unit
    scripts tests/unit
    programs ranks
    scripts tests/ranks
    programs fault
    scripts tests/fault
    scripts tests/fuzz
    wanted models && run models sh tests/models/run.sh
    ;;
esac
case $mode in
quick)
    wanted mutants && run mutants sh tests/mutants/run.sh 4
    ;;
long)
    limit=10800
    wanted abi && run abi sh tests/abi.sh check
    wanted mutants && run mutants sh tests/mutants/run.sh all
    ;;
plain)
    programs unit
    programs ranks
    programs fault
    ;;
asan | ubsan | tsan)
    programs unit
    programs ranks
    ;;
esac

if [ "$mode" != quick ]; then
    echo "summary:"
    awk -F '|' '{ printf "  %-4s %11s  %-30s %-26s %s\n", $1, $2, $3, $4, $5 }' "$rows"
fi
if [ -s "$skips" ]; then
    echo "skipped:"
    sed 's/^/  /' "$skips"
fi
[ -n "$failures" ] && echo "failed:$failures"
if [ $((passed + failed)) = 0 ]; then
    echo "nothing to run${part:+ matches $part}"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
