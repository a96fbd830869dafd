#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# sh tests/fuzz/run.sh [TARGET...]
#
# Runs each fuzz target of $B/fuzz (make fuzzers) FUZZ_RUNS times (default 20,000; with SYP_CHECK=long 10,000,000 or 400 s), from the
# seeds that it writes itself and whatever an earlier run found in $B/fuzz/corpus.  SEED=n replays.  An input that fails is left
# in $B/fuzz/found and named.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
runs=20000
seconds=0 # no limit
if [ "${SYP_CHECK:-}" = long ]; then
    runs=10000000
    seconds=400 # of each target, so that all of them fit into the time of one script; the line says how many it was
fi
[ -n "${FUZZ_RUNS:-}" ] && runs=$FUZZ_RUNS
seed=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
echo "seed $seed"
export ASAN_OPTIONS="detect_leaks=0:abort_on_error=0:allocator_may_return_null=1"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
unset SYMPOOL_LOG SYMPOOL_LOG_FILE

[ $# -gt 0 ] || set -- $(for f in tests/fuzz/fuzz_*.c; do basename "$f" .c | sed 's/^fuzz_//'; done)
mkdir -p "$B/fuzz/found"
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
        "$program" -runs="$runs" -max_total_time="$seconds" -seed="$seed" -max_len=2048 -timeout=20 -rss_limit_mb=1024 -print_final_stats=1 -verbosity=0 \
            -artifact_prefix="$B/fuzz/found/$target-" "$corpus" >"$log" 2>&1; then
        echo "ok fuzz $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") executions," \
            "$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log") a second"
    else
        echo "FAIL fuzz $target: see $log"
        tail -n 30 "$log"
        failed=1
    fi
done
exit $failed
