#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sympool-bench coll: its outputs are well-formed and complete, wrong results end it, peers that are absent or fail are named, and
# so is every option it does not understand.  Tiny runs: nothing here judges a time.
# Run from the top of the repository; B = build folder.
set -u
B=${B:-build}
CC=${CC:-gcc}
BENCH=$B/sympool-bench
T=$(mktemp -d) || exit 1
bad=0
trap 'rm -rf "$T"' EXIT
command -v python3 >/dev/null 2>&1 || { echo "SKIP: python3 is missing"; exit 0; }
small="--samples 2 --budget 1 --peers none"

ok() { echo "ok $1"; }
fail() { echo "FAIL $1: $2"; bad=1; }
# run PROGRAM ARGS: output in $T/out and $T/err, status in RC
run() {
    timeout -k 1 240 "$@" >"$T/out" 2>"$T/err" </dev/null
    RC=$?
}
expect() { # NAME RC [PATTERN in both outputs]
    if [ $RC -ne "$2" ]; then fail "$1" "exit status $RC, expected $2: $(tail -c 400 "$T/out" "$T/err")"
    elif [ $# -gt 2 ] && ! cat "$T/out" "$T/err" | grep -Eq -- "$3"; then fail "$1" "no \"$3\" in: $(tail -c 400 "$T/out" "$T/err")"
    else ok "$1"; fi
}

# ------------------------------------------------------------------------------------------------- what it writes
# shellcheck disable=SC2086  # the options are words
run "$BENCH" coll --op allreduce,broadcast,barrier --ranks 2,3 --max 16 $small --json --csv "$T/a.csv" --svg "$T/a.svg"
expect "a tiny run" 0
python3 - "$T" >"$T/verdict" 2>&1 <<'EOS'
import csv, itertools, json, os, sys, xml.etree.ElementTree as tree
folder, = sys.argv[1:]
cores = len(os.sched_getaffinity(0))
report = json.load(open(folder + "/out"))
sections = {s["name"]: s for s in report["sections"]}
assert list(sections) == ["coll-2", "coll-3"], list(sections)
rows = [r for s in sections.values() for r in s["rows"] if r["operation"] != "machine"]
found = {(r["operation"], r["ranks"], r["mode"], r["size_bytes"], r["buffers"]) for r in rows}
wanted = set()
for ranks in (2, 3):
    modes = ("hot", "fresh", "loop") if ranks <= cores else ("hot", "fresh")
    wanted |= set(itertools.product(("allreduce", "broadcast"), (ranks,), modes, (8, 16), ("pool", "outside")))
    wanted |= set(itertools.product(("barrier",), (ranks,), modes, (0,), ("-",)))
assert found == wanted, found ^ wanted
for r in rows:
    assert r["impl"] == "sympool" and 1 <= r["samples"] <= 2 and r["count"] >= 1, r
    assert r["median_ns"] is None or 0 <= r["low_ns"] <= r["median_ns"] <= r["p99_ns"], r # null: lost in the noise
    assert r["limit_ns"] > 0 and r["line_ns"] > 0, r
    assert (r["yield_ns"] is None) == (r["ranks"] <= cores) and r["of_best"] is None, r
for s in sections.values():
    assert len([r for r in s["rows"] if r["operation"] == "machine"]) == 1
lines = list(csv.DictReader(open(folder + "/a.csv")))
assert len(lines) == len(rows), (len(lines), len(rows))
assert all(None not in line and None not in line.values() for line in lines), "a line with too many or too few fields"
assert [float(line["median_ns"]) if line["median_ns"] else None for line in lines] == [r["median_ns"] for r in rows]
svg = tree.parse(folder + "/a.svg").getroot()
names = [t.text for t in svg.iter("{http://www.w3.org/2000/svg}text")]
curves = len(list(svg.iter("{http://www.w3.org/2000/svg}polyline")))
for op in ("allreduce", "broadcast"):
    for ranks in (2, 3):
        assert f"{op}, {ranks} ranks, fresh" in names, names
assert curves == 2 * 3 * len({w[:3] for w in wanted if w[3]}), curves # two panels with two curves and the limit for each
assert "time, \u00b5s" in names and "bandwidth, GB/s" in names and "sympool, pool" in names, names
EOS
if [ $? = 0 ]; then ok "JSON, CSV and SVG are well-formed and have every operation, number of ranks, mode and size"
else fail "JSON, CSV and SVG" "$(tail -n 3 "$T/verdict")"; fi

# shellcheck disable=SC2086
run "$BENCH" coll --op allreduce --ranks 2 --min 16 --max 32 --step 2 --mode fresh --buffers pool --type fp64 $small
expect "tables for people" 0 '^allreduce, fp64, 2 ranks, fresh'
if [ "$(grep -Ec '^ +(16|32) ' "$T/out")" = 2 ] && ! grep -q 'outside  ' "$T/out"; then ok "with the sizes and buffers asked for"
else fail "with the sizes and buffers asked for" "$(tail -n 8 "$T/out")"; fi
# shellcheck disable=SC2086
run "$BENCH" coll --op allreduce --ranks 2 --min 16 --max 16 --mode hot --buffers pool $small --osu
expect "as the OSU benchmarks print" 0 '^16 +[0-9]+\.[0-9]{3}$'
if grep -Ev '^(#.*|[0-9]+ +[0-9]+\.[0-9]+|)$' "$T/out" >"$T/other"; then fail "and nothing else" "$(head -n 3 "$T/other")"
else ok "and nothing else"; fi

# ------------------------------------------------------------------------------------------------- what goes wrong
# shellcheck disable=SC2086
run "$BENCH" coll --op barrier --ranks 2 $small --csv "$T/no/such/folder.csv"
expect "a file that cannot be written" 1 'no/such/folder.csv'

# A fake library call: the all-reduce with one bit of the result turned, from the first call on, or later.
cat >"$T/liar.c" <<'EOS'
#define _GNU_SOURCE
#include <dlfcn.h>
#include "allocator/sympool.h"
int syp_allreduce(const void *send, void *recv, size_t count, syp_dtype type, syp_op op, syp_comm *comm, const syp_call *call) {
    static int (*real)(const void *, void *, size_t, syp_dtype, syp_op, syp_comm *, const syp_call *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "syp_allreduce");
    int status = real(send, recv, count, type, op, comm, call);
    static int calls;
    if (syp_rank() == 1 && ++calls > HONEST) ((unsigned char *)recv)[4 * count - 2] ^= 1;
    return status;
}
EOS
for honest in 0 30; do
    if $CC -shared -fPIC -I. -DHONEST=$honest -o "$T/liar.so" "$T/liar.c" -ldl; then
        # shellcheck disable=SC2086
        run env LD_PRELOAD="$T/liar.so" "$BENCH" coll --op allreduce --ranks 2 --max 64 --buffers pool $small
        [ $honest = 0 ] && how="element .* is wrong" || how="the result is wrong"
        expect "a wrong result ends it (after $honest right ones)" 1 "rank 1 of 2: allreduce of 8 bytes of fp32: $how"
    else
        fail "a wrong result" "the fake does not compile"
    fi
done

# A copy of the program, with no peers' workers beside it but those put there.
mkdir "$T/alone"
cp "$BENCH" "$B/libsympool.so.0" "$T/alone"
printf '#!/bin/sh\necho "this fake cannot start" >&2\nexit 3\n' >"$T/alone/sympool-bench-gloo"
chmod +x "$T/alone/sympool-bench-gloo"
run "$T/alone/sympool-bench" coll --op allreduce --ranks 2 --max 8 --samples 2 --budget 1 --peers openmpi,gloo,vllm
expect "the run goes on without peers" 0 '^allreduce, fp32, 2 ranks, hot'
expect "a peer that is absent is named" 0 'openmpi NOT MEASURED: sympool-bench-openmpi is not there'
expect "a peer that fails is named, with its last words" 0 'gloo NOT MEASURED: did not start: this fake cannot start'

refused() { # WORD ARGS: status 2, and the word is in the message
    word=$1
    shift
    run "$BENCH" coll "$@"
    expect "refused: $*" 2 "$word"
}
refused --frob --frob
refused allredcue --op allreduce,allredcue
refused "--ranks" --ranks
refused "1" --ranks 1
refused "65" --ranks 2,65
refused "2x" --ranks 2x
refused "4" --min 4
refused "1G" --max 1G
refused "min" --min 64 --max 32
refused "3" --step 3
refused "fp8" --type fp8
refused "one at a time" --type fp32,fp64
refused "warm" --mode warm
refused "heap" --buffers heap
refused "lam" --peers lam
refused "none" --peers none,vllm
refused "0" --samples 0
refused "1e3" --budget 1e3
refused "json" --json --osu
run "$BENCH" coll --help
expect "help" 0 '--op LIST'
run "$BENCH" tango
expect "no such measurement" 2 'tango'
run man -l --warnings tools/bench/sympool-bench.1
if [ $RC = 0 ] && [ ! -s "$T/err" ]; then ok "the manual page"; else fail "the manual page" "$(head -n 3 "$T/err")"; fi
for option in $("$BENCH" coll --help | grep -o '^  --[a-z]*'); do
    grep -q "\\\\-\\\\-${option#--}" tools/bench/sympool-bench.1 || fail "the manual page" "$option is not in it"
done
exit $bad
