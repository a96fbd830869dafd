#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Where ranks may find themselves: several jobs side by side, other users, few descriptors, namespaces, docker's seccomp filter, under a debugger or
# strace, stopped for a while; and all the ways in which a process ends while an operation is pending.
# Run from the top of the repository; B = build folder.
set -u
B=${B:-build}
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
trap 'exit 1' INT TERM
for name in $(env | sed -n 's/^\(SYMPOOL_[A-Z_]*\)=.*/\1/p'); do unset "$name"; done
export SYMPOOL_LOCAL_MEM_SIZE=16777216 SYMPOOL_META_SIZE=1048576 SYMPOOL_JOIN_TIMEOUT=20s SYMPOOL_TIMEOUT=30s
bad=0
ok() { echo "ok $1"; }
fail() { echo "FAIL $1: $2"; bad=1; }
is() { if [ "$2" = "$3" ]; then ok "$1"; else fail "$1" "\"$2\", expected \"$3\": $(cat "$T/out.${4:-none}".* 2>/dev/null | grep -v ': fine$' | head -c 600)"; fi; }

cp "$B/libsympool.so.0" "$T/"
chmod 755 "$T"
mkdir -m 777 "$T/free"
for p in env_rank seccomp; do
    ${CC:-gcc} -std=c11 -D_GNU_SOURCE -I. -O1 -Wall -Wextra -Werror -o "$T/$p" "tests/fault/$p.c" "$T/libsympool.so.0" \
        -Wl,-rpath,"$T" -Wl,--as-needed -lpthread -lseccomp || exit 1
done
RANK=$T/env_rank

# job N JOB PREFIX... -- ARGS: the ranks of a job by hand (a launcher would end all when one fails); output in $T/out.JOB.R
job() {
    n=$1 name=$2
    shift 2
    for r in $(seq 0 $((n - 1))); do
        SYMPOOL_RANK=$r SYMPOOL_WORLD_SIZE=$n SYMPOOL_JOB=$name timeout -k 2 100 "$@" >"$T/out.$name.$r" 2>&1 </dev/null &
    done
}
fine() { cat "$T/out.$1".* | grep -c ': fine$'; }

# --------------------------------------------------------------------------------------------- jobs side by side
# Equal ports at different addresses of the loopback network; equal names of different users; different names.
for host in 127.0.0.1 127.0.0.2; do
    SYMPOOL_ADDR=tcp://$host:39417 job 2 "port-$host" "$RANK" run 50 1
done
wait
is equal_ports_different_addresses "$(fine port-127.0.0.1) $(fine port-127.0.0.2)" "2 2"
for name in one two three; do job 2 "$name-$$" "$RANK" run 50 1; done
wait
is three_jobs_without_an_address "$(fine "one-$$") $(fine "two-$$") $(fine "three-$$")" "2 2 2"

nobody=""
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then nobody="setpriv --reuid=65534 --regid=65534 --clear-groups"; fi
if [ -n "$nobody" ]; then
    job 2 "same-$$" "$RANK" run 50 1
    mkdir "$T/other"
    for r in 0 1; do
        # shellcheck disable=SC2086
        SYMPOOL_RANK=$r SYMPOOL_WORLD_SIZE=2 SYMPOOL_JOB=same-$$ timeout 100 $nobody "$RANK" run 50 1 >"$T/other/out.$r" 2>&1 </dev/null &
    done
    wait
    is equal_names_of_different_users "$(fine "same-$$") $(cat "$T/other"/out.* | grep -c ': fine$')" "2 2"

    # 64 ranks as a user without rights, and with few descriptors
    # shellcheck disable=SC2016,SC2086
    (ulimit -n 256 && SYMPOOL_LOCAL_MEM_SIZE=4194304 job 64 "many-$$" $nobody "$RANK" run 3 0; wait)
    is ranks_64_unprivileged_256_descriptors "$(fine "many-$$")" 64 "many-$$"
    rm -f "$T"/out.many-*
else
    echo "SKIP: not root, or no setpriv: other users not tried"
fi

# ---------------------------------------------------------------------------------------------------- namespaces
# Ranks of one namespace are a job like any other.  Ranks in different ones meet, or are told why not, in bounded time.
# The job inside: two ranks started by one shell.
# shellcheck disable=SC2016
inside='for r in 0 1; do SYMPOOL_RANK=$r SYMPOOL_WORLD_SIZE=2 SYMPOOL_JOB=inside timeout 60 "$0" run 20 1 & done; wait'
for kind in --user "--user --map-root-user --pid --fork --mount-proc" "--user --map-root-user --net" "--user --map-root-user --ipc --uts" \
    "--user --map-root-user --pid --fork --ipc --net --uts --mount --mount-proc"; do
    label=$(echo "namespaces $kind" | tr -c 'a-z\n' '_' | tr -s _)
    # shellcheck disable=SC2086
    if ! unshare $kind true 2>/dev/null; then
        echo "SKIP: this system refuses unshare $kind"
        continue
    fi
    # shellcheck disable=SC2086
    unshare $kind sh -c "$inside" "$RANK" >"$T/out.ns" 2>&1
    is "$label" "$(grep -c ': fine$' "$T/out.ns")" 2
done

# across KIND WAY: rank 1 alone in namespaces of its own.  Both end in time, both fine or both with a reason.
across() {
    kind=$1 label=$2
    rm -f "$T"/out.across.*
    began=$(date +%s)
    SYMPOOL_JOIN_TIMEOUT=3s SYMPOOL_RANK=0 SYMPOOL_WORLD_SIZE=2 SYMPOOL_JOB=across-$$ timeout 60 "$RANK" run 5 1 >"$T/out.across.0" 2>&1 &
    # shellcheck disable=SC2086
    SYMPOOL_JOIN_TIMEOUT=3s SYMPOOL_RANK=1 SYMPOOL_WORLD_SIZE=2 SYMPOOL_JOB=across-$$ timeout 60 unshare $kind "$RANK" run 5 1 >"$T/out.across.1" 2>&1
    wait
    took=$(($(date +%s) - began))
    verdict="$(fine across) $(cat "$T"/out.across.* | grep -Ec 'another host|missing: [0-9]|no answer from rank')"
    if [ $took -gt 30 ]; then fail "$label" "took $took s"
    elif [ "$(fine across)" = 2 ]; then ok "${label}_works"
    elif [ "$(fine across)" = 0 ] && [ "${verdict#* }" -ge 2 ]; then ok "${label}_is_refused_with_a_reason"
    else fail "$label" "$(cat "$T"/out.across.* | head -c 700)"; fi
}
if unshare --user --map-root-user --net --pid --fork true 2>/dev/null; then
    across "--user --map-root-user" one_rank_in_a_user_namespace
    across "--user --map-root-user --pid --fork" one_rank_in_a_pid_namespace
    across "--user --map-root-user --ipc" one_rank_in_an_ipc_namespace
    across "--user --map-root-user --net" one_rank_in_a_net_namespace
fi

# --------------------------------------------------------------------------- the suite in a container, and without rights
# A container of docker: its filter (see seccomp.c) and its capabilities; with --strict a little less.  Without rights: a user without
# capabilities, first process of namespaces of its own.  Quick: a part of the suite; SYP_CHECK=long: all its programs and scripts, with
# their quick counts.  What looks at sources or models only (tools/checks, fuzz, models, mutants) would see no difference.
suite="unit/test_api unit/test_os unit/test_backend_host unit/test_lock unit/test_topo unit/test_launch_env unit/test_fdpass
unit/test_finalize_races ranks/test_attach ranks/test_peers ranks/test_symmetry ranks/test_rejoin fault/test_fork"
if [ "${SYP_CHECK:-}" = long ]; then
    suite=""
    for t in tests/unit/test_*.c tests/ranks/test_*.c tests/fault/test_*.c tests/ranks/*.sh tests/fault/*.sh; do
        case $t in
        tests/fault/environments.sh) continue ;;  # this one
        tests/fault/limits.sh) continue ;;        # makes cgroups and mounts
        tests/fault/refused_calls.sh) continue ;; # is about the calls that strace refuses
        tests/fault/races.sh) continue ;;         # is about ThreadSanitizer, whose personality(ADDR_NO_RANDOMIZE) docker refuses
        tests/fault/heap_speed.sh) continue ;;    # is about times beside other mallocs, without calls to the system
        esac
        t=${t#tests/}
        suite="$suite ${t%.c}"
    done
fi

# elsewhere PLACE COMMAND...: the suite, with COMMAND before each of its programs
elsewhere() {
    place=$1 tried=0 passed=0 refused=0
    shift
    for t in $suite; do
        program=$B/tests/$t
        case $t in *.sh) program="sh tests/$t" ;; esac
        tried=$((tried + 1))
        # shellcheck disable=SC2086
        if env -u SYP_CHECK -u SYMPOOL_LOCAL_MEM_SIZE -u SYMPOOL_META_SIZE -u SYMPOOL_JOIN_TIMEOUT -u SYMPOOL_TIMEOUT \
            B="$B" SYP_TEST_TIMEOUT=280 timeout -k 5 300 "$@" $program >"$T/out.suite" 2>&1 </dev/null; then
            ok "${place}_$t"
            passed=$((passed + 1))
        else
            fail "${place}_$t" "$(grep -aE '\.[ch]:[0-9]+:|^FAIL|[0-9] checks' "$T/out.suite" | cut -c 1-300 | head -n 5)"
        fi
        sed -n 's/.*SKIP: /  not there: /p' "$T/out.suite"
        refused=$((refused + $(grep -ac 'SKIP: ' "$T/out.suite")))
    done
    echo "$place: $passed of $tried programs passed, $refused of their tests cannot be made there"
}

container="$T/seccomp"
if [ "$(id -u)" = 0 ]; then
    container="setpriv --bounding-set=-all,+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,+setpcap"
    container="$container,+net_bind_service,+sys_chroot,+kill,+audit_write $T/seccomp"
fi
for strict in "" --strict; do
    # shellcheck disable=SC2086
    $container $strict true 2>"$T/err"
    case $? in
    0) ok "docker_filter$strict answers as docker's" ;;
    77)
        echo "SKIP: $(cat "$T/err")"
        continue
        ;;
    *)
        fail "docker_filter$strict" "$(cat "$T/err")"
        continue
        ;;
    esac
    # shellcheck disable=SC2086
    job 3 "filter$strict" $container $strict "$RANK" run 20 1
    wait
    is "job_under_docker_filter$strict" "$(fine "filter$strict")" 3 "filter$strict"
    # shellcheck disable=SC2086
    elsewhere "docker_filter$strict" $container $strict
done

# Another user's number outside as well, where that one may read the programs.
outside=""
[ -n "$nobody" ] && $nobody test -r "$B/tests/unit/test_api" && outside=$nobody
cat >"$T/alone" <<END
PATH=/usr/bin:/bin:/usr/sbin:/sbin
exec $outside unshare --user --pid --net --map-user=65534 --map-group=65534 --keep-caps --fork --kill-child --mount-proc \\
    sh -c 'ip link set lo up && exec setpriv --inh-caps=-all --ambient-caps=-all "\$0" "\$@"' "\$@"
END
if sh "$T/alone" true 2>"$T/err"; then
    is without_rights "$(sh "$T/alone" sh -c 'echo "$(id -u) $$ $(sed -n "s/^CapEff:.//p" /proc/self/status)"')" "65534 1 0000000000000000"
    elsewhere without_rights sh "$T/alone"
else
    echo "SKIP: this system refuses namespaces to a user without rights: $(head -n 1 "$T/err")"
fi

# ---------------------------------------------------------------------------------------- ends of a process (x HOW)
rounds=2
[ "${SYP_CHECK:-}" = long ] && rounds=30
for how in exit _exit abort exec thread_exit thread_exec return; do
    told=0 late=0 left=0
    for i in $(seq $rounds); do
        ( ulimit -c 0; job 4 "end-$how" "$RANK" end "$how"; wait )
        told=$((told + $(cat "$T/out.end-$how".* | grep -c 'SYP_EPEER peer 1 after')))
        late=$((late + $(cat "$T/out.end-$how".* | sed -n 's/.*after \([0-9]*\)\..*/\1/p' | awk '$1 >= 1' | wc -l)))
        pgrep -f "$RANK end" >/dev/null && left=$((left + 1))
        : "$i"
    done
    is "ends_by_${how}_and_all_are_told" "$told of $((3 * rounds)), $late late, $left left over" "$((3 * rounds)) of $((3 * rounds)), 0 late, 0 left over" "end-$how"
done

# --------------------------------------------------------------------------------- slow is not dead: stopped, traced
job 3 slow "$RANK" run 100 5
sleep 0.3
victim=$(pgrep -f "^$RANK run 100 5" | tail -n 1)
kill -STOP "$victim" && sleep 2 && kill -CONT "$victim"
wait
is stopped_for_2_s "$(fine slow)" 3 slow

if command -v gdb >/dev/null && gdb -q -batch -p $$ >/dev/null 2>&1; then
    job 3 gdb "$RANK" run 150 5
    sleep 0.3
    victim=$(pgrep -f "^$RANK run 150 5" | tail -n 1)
    gdb -q -batch -p "$victim" -ex "thread apply all bt" -ex detach >"$T/gdb" 2>&1
    wait
    is attached_by_gdb "$(fine gdb) $(grep -q keeper_run "$T/gdb" && echo stacks)" "3 stacks" gdb
else
    echo "SKIP: gdb cannot attach here"
fi
if command -v strace >/dev/null && strace -o "$T/strace" true 2>/dev/null; then
    for r in 0 1 2; do
        if [ $r = 2 ]; then set -- strace -f -o "$T/strace"; else set --; fi
        SYMPOOL_RANK=$r SYMPOOL_WORLD_SIZE=3 SYMPOOL_JOB=traced-$$ timeout 60 "$@" "$RANK" run 30 1 >"$T/out.traced.$r" 2>&1 &
    done
    wait
    is rank_under_strace "$(fine traced)" 3 traced
else
    echo "SKIP: strace cannot trace here"
fi
exit $bad
