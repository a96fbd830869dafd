#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# ThreadSanitizer must be able to see a race between ranks, or its silence over tests/ranks would mean nothing: a race
# planted in a test, and sources made wrong on purpose (one memory order weakened, one wait left out), must each be
# reported, and the same tests of the sources as they are must not.
#
# Quick: the two orders that carry all data between ranks.  SYP_CHECK=long: all of them.
# Not here, since ThreadSanitizer reports plain data only: orders between atomics alone (ring of symmetric calls,
# statistics, cause of an abort), and the store-then-look pair of sleeper and publisher.
#
# Run from the top of the repository; B = build folder, CC = compiler.
set -u
B=${B:-build}
CC=${CC:-gcc}
RUNS=5 # a schedule can hide a race
mkdir -p "$B"
T=$(mktemp -d "$(cd "$B" && pwd)/races.XXXXXX") || exit 1
trap 'rm -rf "$T"' EXIT
trap 'exit 1' INT TERM
unset MAKEFLAGS MFLAGS MAKELEVEL ONLY # those of the make that called us
JOBS=$(nproc 2>/dev/null || echo 1)
bad=0
patience=60 # seconds for a run

ok() { echo "ok $1"; }
fail() { echo "FAIL $1: $2"; bad=1; }

build() { # PROGRAM...
    for program in "$@"; do set -- "$@" "out/tests/$program"; shift; done
    (cd "$T/src" && make -j"$JOBS" CC="$CC" SAN=thread B=out "$@") >"$T/build" 2>&1
}

# run PROGRAM ARGS: status in RC, output in $T/out; it stops at the first report.
fixed="" # a prefix: some kernels place mappings where this ThreadSanitizer cannot be
run() {
    program=$1
    shift
    for try in 1 2; do
        # shellcheck disable=SC2086
        TSAN_OPTIONS="halt_on_error=1:exitcode=66" SYP_TEST_TIMEOUT=$patience \
            timeout -k 5 $((patience + 30)) $fixed "$T/src/out/tests/$program" "$@" >"$T/out" 2>&1 </dev/null
        RC=$?
        grep -q 'ThreadSanitizer: unexpected memory mapping' "$T/out" || return
        [ $try = 1 ] && fixed="setarch -R"
    done
}
reported() { [ "$RC" = 66 ] && grep -q 'WARNING: ThreadSanitizer: data race' "$T/out"; }

# must_report NAME PROGRAM ARGS
must_report() {
    name=$1
    shift
    n=0
    while [ $n -lt $RUNS ]; do
        n=$((n + 1))
        run "$@"
        if reported; then
            ok "$name (reported in run $n)"
            return
        fi
    done
    fail "$name" "$RUNS runs without a report; the last one: exit status $RC, $(tail -n 3 "$T/out" | tr '\n' ' ')"
}

# must_be_silent NAME PROGRAM
must_be_silent() {
    patience=600 # all of it, at the full count
    run "$2"
    patience=60
    if [ "$RC" = 0 ] && ! grep -q 'WARNING: ThreadSanitizer' "$T/out"; then ok "$1"
    else fail "$1" "exit status $RC: $(grep -m 1 -A 3 'WARNING: ThreadSanitizer' "$T/out" || tail -n 3 "$T/out")"; fi
}

# mutant NAME FILE SED PROGRAM TEST: build with the change, run that one test of the program, undo the change.
mutant() {
    file=$T/src/$2
    cp "$file" "$T/kept"
    sed "$3" "$T/kept" >"$file"
    if cmp -s "$file" "$T/kept"; then fail "$1" "the change does not apply to $2 any more"
    elif ! build "$4"; then fail "$1" "does not compile: $(tail -n 3 "$T/build")"
    else
        export ONLY="$5"
        must_report "$1" "$4"
        unset ONLY
    fi
    cp "$T/kept" "$file"
}

# -------------------------------------------------------------------------------------------------- the sources
mkdir "$T/src"
cp -Rp Makefile allocator pool bootstrap collectives tests "$T/src/"
COLL=ranks/test_coll
LOCK=unit/test_lock
ARENA=unit/test_arena
programs=$COLL
[ "${SYP_CHECK:-}" = long ] && programs="$COLL $LOCK $ARENA"
# shellcheck disable=SC2086
if ! build $programs; then
    fail build "$(tail -n 5 "$T/build")"
    exit 1
fi

must_report planted_race $COLL --planted-race
export ONLY=groups_of_ranks
must_be_silent unchanged $COLL
unset ONLY

mutant stamp_stored_relaxed collectives/post.h 's/store_release(&mail->stamp, ++/store_relaxed(\&mail->stamp, ++/' \
    $COLL groups_of_ranks
mutant stamp_loaded_relaxed collectives/request.h '/wait_reached/,/^}/s/load_acquire(/load_relaxed(/' \
    $COLL groups_of_ranks
[ "${SYP_CHECK:-}" = long ] || exit $bad

# ------------------------------------------------------------------------------------------------------ the rest
must_be_silent unchanged_lock $LOCK
must_be_silent unchanged_arena $ARENA
mutant one_mail_for_all_operations collectives/coll.h 's/mail\[c->sequence & 1\]/mail[0]/' $COLL groups_of_ranks
mutant root_does_not_wait_for_the_copies collectives/broadcast.c 's/is_root ? EVERYBODY : NOBODY/NOBODY/' $COLL sizes
mutant result_not_waited_for collectives/rounds.c \
    's/if (!request_these_at(r, r->moves->fetch ? EVERYBODY : whom_to_await(r), r->c->phase)) return REQUEST_BLOCKED;//' $COLL sizes
mutant halves_do_not_take_turns collectives/rounds.c 's/r->c->halves += r->round;//' $COLL sizes
mutant lock_dropped_relaxed pool/base/lock.c \
    's/swap_acq_rel(&l->word, 0)/atomic_exchange_explicit(\&l->word, 0, memory_order_relaxed)/' $LOCK mutual_exclusion
mutant lock_taken_relaxed pool/base/lock.c \
    's/cas_acquire(&l->word, &word, as)/atomic_compare_exchange_strong_explicit(\&l->word, \&word, as, memory_order_relaxed, memory_order_relaxed)/' \
    $LOCK mutual_exclusion
mutant chunk_linked_relaxed pool/base/arena.c \
    's/cas_acq_rel(&newest, &c, fresh)/atomic_compare_exchange_strong_explicit(\&newest, \&c, fresh, memory_order_relaxed, memory_order_relaxed)/' \
    $ARENA four_threads
exit $bad
