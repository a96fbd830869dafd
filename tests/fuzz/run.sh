#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# sh tests/fuzz/run.sh [TARGET...]
#
# Runs each fuzz target of $B/fuzz (make fuzzers) FUZZ_RUNS times (default 20,000; with SYP_CHECK=long 10,000,000), from the seeds that it
# writes itself and whatever an earlier run found in $B/fuzz/corpus.  SEED=n replays.  An input that fails is left in $B/fuzz/found and
# named.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
runs=20000
[ "${SYP_CHECK:-}" = long ] && runs=10000000
[ -n "${FUZZ_RUNS:-}" ] && runs=$FUZZ_RUNS
seed=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
echo "seed $seed"
# A small quarantine stays in the processor's cache; nothing that an execution frees lives on into the next thousand.
export ASAN_OPTIONS="detect_leaks=0:abort_on_error=0:allocator_may_return_null=1:quarantine_size_mb=4"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
unset SYMPOOL_LOG SYMPOOL_LOG_FILE

[ $# -gt 0 ] || set -- $(for f in tests/fuzz/fuzz_*.c; do basename "$f" .c | sed 's/^fuzz_//'; done)
mkdir -p "$B/fuzz/found"

# Bytes of the longest input: what a target can make use of.
longest() { # TARGET
    case $1 in
    board | join) echo 256 ;;
    peers) echo 512 ;;
    url | star | env) echo 1024 ;;
    *) echo 2048 ;;
    esac
}

failed=0
for target in "$@"; do
    program=$B/fuzz/$target
    if [ ! -x "$program" ]; then
        echo "FAIL fuzz $target: $program was not built (make fuzzers)"
        failed=1
        continue
    fi
    corpus=$B/fuzz/corpus/$target
    log=$B/fuzz/$target.log
    mkdir -p "$corpus"
    if FUZZ_SEEDS=$corpus "$program" >"$log" 2>&1 &&
        "$program" -runs="$runs" -seed="$seed" -max_len="$(longest "$target")" -reload=0 -timeout=20 -rss_limit_mb=1024 -print_final_stats=1 \
            -artifact_prefix="$B/fuzz/found/$target-" "$corpus" >"$log" 2>&1; then
        count=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        found=$(sed -n 's/.*DONE *\(cov: [0-9]* ft: [0-9]*\) .*/\1/p' "$log")
        if [ "${count:-0}" -ge "$runs" ]; then
            echo "ok fuzz $target: $count executions, $(sed -n 's/^stat::average_exec_per_sec: *//p' "$log") a second, $found"
        else
            echo "FAIL fuzz $target: ${count:-no} executions of $runs; see $log"
            failed=1
        fi
    else
        echo "FAIL fuzz $target: see $log"
        tail -n 30 "$log"
        failed=1
    fi
done
exit $failed
