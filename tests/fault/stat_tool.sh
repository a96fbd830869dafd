#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The sympool tool against segments made by hand: what it shows, what it refuses, how it ends.
# Run from the top of the repository; B = build folder, CC = compiler, SYMPOOL_TOOL = another tool to test.
set -u
B=${B:-build}
TOOL=${SYMPOOL_TOOL:-$B/sympool}
CC=${CC:-gcc}
T=$(mktemp -d) || exit 1
PIDS=""
bad=0

ok() { echo "ok $1"; }
fail() { echo "FAIL $1: $2"; bad=1; }
end_standins() {
    # shellcheck disable=SC2086
    [ -z "$PIDS" ] || kill -9 $PIDS 2>/dev/null
    wait 2>/dev/null
    PIDS=""
}
trap 'end_standins; rm -rf "$T"' EXIT
trap 'exit 1' INT TERM

# start MODE JOB RANK WORLD: a stand-in; its pids (a forked child has one of its own) are added to PIDS, the last is in LAST.
start() {
    : >"$T/ready"
    "$T/standin" "$@" >"$T/ready" 2>/dev/null &
    n=0
    want=1
    [ "$1" = children ] && want=2
    while [ "$(grep -c ready "$T/ready")" -lt $want ]; do
        n=$((n + 1))
        [ $n -lt 500 ] || { fail start "no stand-in for $*"; exit 1; }
        sleep 0.01
    done
    LAST=$(awk 'END { print $2 }' "$T/ready")
    PIDS="$PIDS $(awk '{ printf "%s ", $2 }' "$T/ready")"
}

# tool ARGS: its output in $T/out and $T/err, its status in RC.  It must never hang.
tool() {
    timeout 20 "$TOOL" "$@" >"$T/out" 2>"$T/err"
    RC=$?
}

# expect NAME RC [PATTERN in stdout]: also fails on any crash
expect() {
    if [ $RC -ne "$2" ]; then fail "$1" "exit status $RC, expected $2: $(head -c 300 "$T/out" "$T/err")"
    elif [ $# -gt 2 ] && ! grep -Eq -- "$3" "$T/out"; then fail "$1" "no \"$3\" in: $(head -c 600 "$T/out")"
    else ok "$1"; fi
}
expect_err() {
    if grep -Eq -- "$2" "$T/err"; then ok "$1"; else fail "$1" "no \"$2\" in: $(head -c 300 "$T/err")"; fi
}
# json EXPRESSION: a Python expression over d is true
json() {
    if python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); sys.exit(0 if eval(sys.argv[2]) else 1)' "$T/out" "$2" 2>"$T/pyerr"
    then ok "$1"
    else fail "$1" "not true: $2 $(tail -1 "$T/pyerr")"; fi
}

command -v "$TOOL" >/dev/null || { fail setup "no $TOOL"; exit 1; }
if ! $CC -std=c11 -D_GNU_SOURCE -I. -O1 tests/fault/stat_standin.c -o "$T/standin"; then
    fail setup "the stand-in does not compile"
    exit 1
fi

# ------------------------------------------------------------------------------------------------ command line
tool --help;             expect help 0 "^usage: sympool"
tool --version;          expect version 0 "^sympool [0-9]+\.[0-9]+\.[0-9]+$"
tool --nonsense;         expect unknown_option 1; expect_err unknown_option_usage "usage: sympool"
tool dance;              expect unknown_command 1; expect_err unknown_command_text "unknown command: dance"
tool show;               expect show_without_job 1
tool show a b;           expect show_two_jobs 1
tool list x;             expect list_with_argument 1
tool show no-such-job-x; expect no_such_job 2; expect_err no_such_job_text "no-such-job-x: no such job"

# Another job may run on this host, so "nothing runs" is tested only when it is so.
tool
if ! grep -q JOB "$T/out"; then
    expect nothing_runs 0 "^no sympool jobs on this host$"
    tool --json
    json nothing_runs_json 'd["schema_version"] == 1 and d["jobs"] == []'
fi

# -------------------------------------------------------------------------------------------------- what it shows
start running t-$$-a 0 6; P0=$LAST
start done t-$$-a 1 6
start failed t-$$-a 2 6
start torn t-$$-a 3 6
start right t-$$-b:7 0 1
tool
expect list 0 "^JOB +RANK +PID +ALIVE +STATE +UP +POOL +SYMM +OPERATION$"
expect list_running 0 "^t-$$-a +0/6 +$P0 +yes +attached +[0-9.]+ m?s +4 MiB / 1 GiB +1 MiB +allreduce #1042 4 MiB running (1[2-9]|[2-9][0-9])\.[0-9] s, waits for rank 5$"
expect list_done 0 "^t-$$-a +1/6 .* barrier #7 done [0-9.]+ m?s ago$"
expect list_failed 0 "^t-$$-a +2/6 .* allreduce #9 512 B failed [0-9.]+ m?s ago \(SYP_EPEER\)$"
expect list_torn 0 "^t-$$-a +3/6 .* allreduce #7 64 B \(changing\)$"
expect list_no_operation 0 "^t-$$-b:7 +0/1 .* -$"
tool list; expect list_by_name 0 "^t-$$-a +3/6 "
COLUMNS=40 LANG=C tool; expect narrow 0 "^t-$$-a +3/6 "

tool show t-$$-a
expect show 0 "^job t-$$-a: 6 ranks, 4 on this host$"
expect show_rank 0 "^rank 0: pid $P0, attached, up [0-9.]+ m?s, host standin, backend host$"
expect show_gauge 0 "^  heap_used +3 MiB +gauge +live bytes in the local heap$"
expect show_counter_sums_shards 0 "^  allocs +46 +counter "
expect show_peak_is_largest 0 "^  heap_peak +7 MiB +peak "
expect show_time 0 "^  join_ns +1.5 ms +gauge "
expect show_world 0 "^  group world +6 ranks +allreduce #1042 4 MiB running .* waits for rank 5$"
expect show_group 0 "^  group ab +2 ranks +broadcast #3 100 B done "
tool show t-$$-a:0
expect show_latency_titles 0 "^  LATENCY +BYTES +COUNTED +ONE IN +P50 +P90 +P99 +MAX$"
expect show_latency 0 "^  allreduce +< 64 KiB +100 +64 +1.0 us +1.9 us +8.2 us +5.0 ms$"
expect show_latency_of_long_ones 0 "^  allreduce +>= 64 KiB +1 +1 +1.6 s +2.0 s +2.0 s +2.0 s$"
if grep -q "^  barrier  " "$T/out"; then fail latency_of_nothing "a line for it"; else ok latency_of_nothing; fi
tool show t-$$-a:2; expect show_one_rank 0 "^rank 2: "
if grep -q "^rank 0" "$T/out"; then fail show_only_one_rank "other ranks too"; else ok show_only_one_rank; fi
tool show t-$$-a:9;   expect no_such_rank 2; expect_err no_such_rank_text "t-$$-a has no rank 9"
tool show t-$$-b;     expect prefix 0 "^job t-$$-b:7: "
tool show t-$$-b:7;   expect colon_in_name 0 "^rank 0: "
tool show t-$$-b:7:0; expect colon_in_name_and_rank 0 "^rank 0: "
tool show t-$$-;      expect ambiguous_prefix 2; expect_err ambiguous_prefix_text "more than one job"

tool --json; expect json 0
json json_list '[r["operation"]["waits_for"] for j in d["jobs"] if j["job"] == "t-'$$'-a" for r in j["ranks"]][0] == 5'
json json_used 'all(r["pool_used"] == 4 << 20 and r["alive"] for j in d["jobs"] if j["job"] == "t-'$$'-a" for r in j["ranks"])'
tool show t-$$-a:2 --json
json json_show 'd["schema_version"] == 1 and [f["value"] for f in d["jobs"][0]["ranks"][0]["figures"] if f["name"] == "allocs"] == [46]'
json json_result 'd["jobs"][0]["ranks"][0]["groups"][0]["result"] == "SYP_EPEER"'

# ----------------------------------------------------------------------------------- stopped, forked, dead, foreign
kill -STOP "$P0"
tool; expect stopped 0 "^t-$$-a +0/6 +$P0 +yes +stopped "
tool show t-$$-a:0; expect stopped_show 0 "^rank 0: pid $P0, stopped, up .*, attached, host"
tool show t-$$-a:0 --json; json stopped_json 'd["jobs"][0]["ranks"][0]["stopped"] and d["jobs"][0]["ranks"][0]["process_state"] == "T"'
json stopped_latencies '[(l["operation"], l["least_bytes"], l["below_bytes"], l["counted_one_in"], l["count"], l["max_s"]) for l in d["jobs"][0]["ranks"][0]["latencies"]] == [("allreduce", 0, 65536, 64, 100, 0.005), ("allreduce", 65536, None, 1, 1, 2)]'
json stopped_percentiles '[l[k] for l in d["jobs"][0]["ranks"][0]["latencies"][:1] for k in ("p50_s", "p90_s", "p99_s")] == [1.024e-6, 1.934e-6, 8.192e-6]'
json stopped_buckets '[(b["below_s"], b["count"]) for b in d["jobs"][0]["ranks"][0]["latencies"][0]["buckets"]] == [(1.024e-6, 50), (2.048e-6, 45), (8.192e-6, 4), (8.388608e-3, 1)]'
kill -CONT "$P0"
end_standins

start children t-$$-c 0 1
tool; expect forked_child 0 "^t-$$-c +0/1 "
if [ "$(grep -c "^t-$$-c " "$T/out")" -eq 1 ]; then ok forked_child_once; else fail forked_child_once "$(cat "$T/out")"; fi
start orphan t-$$-d 0 1
tool; expect dead_rank 0 "^t-$$-d +0/1 +[0-9]+ +no +dead "
start reused t-$$-e 0 1
tool; expect reused_pid 0 "^t-$$-e +0/1 +[0-9]+ +no +dead "
end_standins

start older t-$$-o 0 1
tool show t-$$-o; expect older_library 0 "^  heap_used +3 MiB "
if grep -q LATENCY "$T/out"; then fail older_library_has_no_latencies "$(cat "$T/out")"; else ok older_library_has_no_latencies; fi
end_standins

start escape t-$$-f 0 1
tool; expect escape_in_name 0 "^esc\?\[31m\?x+ +0/1 "
if [ "$(tr -d '[:print:]\n' <"$T/out" | wc -c)" -eq 0 ]; then ok printable_only; else fail printable_only "control characters printed"; fi
end_standins

if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    start right t-$$-g 0 1
    # the tool may lie in a folder that others cannot enter
    cp "$TOOL" "$T/tool" && chmod 755 "$T" "$T/tool"
    timeout 20 setpriv --reuid 65534 --regid 65534 --clear-groups "$T/tool" --all >"$T/out" 2>"$T/err"
    RC=$?
    if grep -q "t-$$-g" "$T/out"; then fail other_user "shown to somebody else"; else expect other_user 0; fi
    expect_err other_user_count "^sympool: [0-9]+ process(es)? not readable$"
    timeout 20 setpriv --reuid 65534 --regid 65534 --clear-groups "$T/tool" >"$T/out" 2>"$T/err"
    RC=$?
    if [ -s "$T/err" ]; then fail other_user_silent "$(cat "$T/err")"; else expect other_user_silent 0; fi
    end_standins
fi

# ------------------------------------------------------------------------------------------------------ damaged
start right t-$$-h 0 1
good=$PIDS
for mode in magic version head_size entries_off entries_wrap entries_odd n_entries entry_size ops_off n_ops hists_off n_hists hist_size hist_count n_shards stride n_slots slot rank \
    truncated tiny empty; do
    PIDS=""
    start $mode t-$$-x 0 1
    tool
    expect "refused_$mode" 3 "^t-$$-h +0/1 +[0-9]+ +yes "
    expect_err "refused_${mode}_text" "^sympool: process $LAST, descriptor [0-9]+: [a-z]"
    kill -9 "$LAST"
done
PIDS=$good
tool show t-$$-h; expect show_beside_nothing_damaged 0
start magic t-$$-x 0 1
tool show t-$$-h; expect show_beside_damaged 3 "^job t-$$-h: "
tool --json; expect json_beside_damaged 3
json json_names_damaged "[u[\"pid\"] for u in d[\"unreadable\"]] == [$LAST] and len(d[\"jobs\"]) >= 1"
end_standins

start fuzz t-$$-z 0 400
tool;        case $RC in 0 | 3) ok fuzz ;; *) fail fuzz "exit status $RC" ;; esac
tool --json; case $RC in 0 | 3) json fuzz_json 'd["schema_version"] == 1' ;; *) fail fuzz_json "exit status $RC" ;; esac
end_standins

# --------------------------------------------------------------------------------------------- changing meanwhile
start hammer t-$$-k 0 1
i=0 torn=0 whole=0 wrong=""
while [ $i -lt 15 ]; do
    i=$((i + 1))
    tool show t-$$-k --json
    case $(python3 -c 'import json,sys
o = json.load(open(sys.argv[1]))["jobs"][0]["ranks"][0]["groups"][0]
print("torn" if o["torn"] else "whole" if o["bytes"] == 8 * o["sequence"] else "wrong %s" % o)' "$T/out" 2>&1) in
    torn) torn=$((torn + 1)) ;;
    whole) whole=$((whole + 1)) ;;
    *) wrong="$(cat "$T/out" "$T/err" | head -c 300)" ;;
    esac
done
if [ -z "$wrong" ] && [ $whole -gt 0 ]; then ok "consistent_snapshots"; else fail consistent_snapshots "$whole whole, $torn torn, wrong: $wrong"; fi
end_standins

start breathe t-$$-m 0 1
i=0 crashed=""
while [ $i -lt 40 ]; do
    i=$((i + 1))
    tool
    case $RC in 0 | 3) ;; *) crashed="exit status $RC" ;; esac
done
if [ -z "$crashed" ]; then ok shrinking_segment; else fail shrinking_segment "$crashed"; fi
end_standins

# -------------------------------------------------------------------------------------------------------- output
start right t-$$-n 0 1
timeout 20 "$TOOL" show t-$$-n >/dev/full 2>"$T/err"
RC=$?
: >"$T/out"
expect full_disk 1
expect_err full_disk_text "writing to stdout: No space left on device"
(sleep 0.2; timeout 20 "$TOOL" show t-$$-n 2>"$T/err") | :
if [ -s "$T/err" ]; then fail closed_pipe "$(cat "$T/err")"; else ok closed_pipe; fi
# shellcheck disable=SC2016
(trap '' PIPE; sleep 0.2; timeout 20 "$TOOL" --json 2>"$T/err") | :
if [ -s "$T/err" ]; then fail closed_pipe_ignored "$(cat "$T/err")"; else ok closed_pipe_ignored; fi
if command -v strace >/dev/null && strace -o "$T/trace" true 2>/dev/null; then
    strace -f -e trace=mmap,kill,tgkill,ptrace,futex,openat -o "$T/trace" "$TOOL" >/dev/null 2>&1
    if grep -Eq "MAP_SHARED.*PROT_WRITE|PROT_WRITE.*MAP_SHARED|kill\(|ptrace\(" "$T/trace"; then fail reads_only "$(grep -E 'MAP_SHARED|kill|ptrace' "$T/trace" | head -3)"
    elif grep -q "PROT_READ, MAP_SHARED" "$T/trace"; then ok reads_only
    else fail reads_only "no segment was mapped"; fi
fi
end_standins
exit $bad
