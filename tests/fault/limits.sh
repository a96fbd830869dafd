#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Limits of every kind around a program that uses the library: cgroups, ulimits, a full /dev/shm, no huge pages, few
# mappings left, a bare file system.  In every row the program lives to its end; what was refused names limit and request.
#
# SYP_CHECK=long also changes settings of the whole machine for a moment (vm.overcommit_memory, vm.nr_hugepages) and puts
# them back.  Run from the top of the repository; B = build folder.  Rows that need root or a tool say so and are skipped.
set -u
B=${B:-build}
CC=${CC:-gcc}
T=$(mktemp -d) || exit 1
LIBRARY=$(cd "$B" && pwd)
MIB=1048576
bad=0
undo=""
trap 'eval "$undo"; rm -rf "$T"' EXIT
trap 'exit 1' INT TERM
unset SYMPOOL_RANK SYMPOOL_WORLD_SIZE SYMPOOL_ADDR SYMPOOL_JOB SYMPOOL_LISTEN_FD
export SYMPOOL_JOIN_TIMEOUT=5s SYMPOOL_TIMEOUT=20s SYMPOOL_FINALIZE_TIMEOUT=5s LD_LIBRARY_PATH="$LIBRARY"

fail() { echo "FAIL $1: $2"; bad=1; }
skip() { echo "SKIP: $1: $2"; }

if ! $CC -std=c11 -D_GNU_SOURCE -I. -O1 tests/fault/limits_host.c -o "$T/host" -L"$B" -lsympool 2>"$T/err"; then
    fail build "$(cat "$T/err")"
    exit 1
fi
chmod 755 "$T" "$T/host"

# row NAME STATUS PATTERN COMMAND: the shell command runs with $host as the program.  STATUS: 0, 3 or "any" of them.  PATTERN
# (extended, in all that it wrote) may be empty.
row() {
    # through a pipe: a file size limit is for the library's files, not for what the program prints
    { host=$T/host timeout -k 5 100 sh -c "$4" 2>&1 </dev/null; echo $? >"$T/rc"; } | cat >"$T/out"
    rc=$(cat "$T/rc")
    case $2 in any) case $rc in 0 | 3) want=$rc ;; *) want=3 ;; esac ;; *) want=$2 ;; esac
    if [ $rc != $want ]; then fail "$1" "exit status $rc, expected $2: $(cut -c 1-400 "$T/out" | head -n 8)"
    elif ! grep -q ' alive, ' "$T/out"; then fail "$1" "no rank came to its end: $(head -n 5 "$T/out")"
    elif [ -n "$3" ] && ! grep -Eq "$3" "$T/out"; then fail "$1" "no \"$3\" in: $(cut -c 1-500 "$T/out" | head -n 8)"
    elif find /dev/shm -name 'sympool.*' 2>/dev/null | grep -q .; then fail "$1" "left $(ls /dev/shm)"
    else echo "ok $1"; fi
}

root=0
[ "$(id -u)" = 0 ] && root=1

# --------------------------------------------------------------------------------------------------------- memory cgroups

# A cgroup of that controller in $G, its files; empty when none may be made.  Version 1 or 2, whichever is here.
make_group() { # CONTROLLER
    G=""
    own=$(awk -F: -v c="$1" '{ n = split($2, l, ","); for (i = 1; i <= n; i++) if (l[i] == c) print $3 }' /proc/self/cgroup)
    mount=$(awk -v c="$1" '$(NF - 2) == "cgroup" && $NF ~ "(^|,)" c "(,|$)" { print $5; exit }' /proc/self/mountinfo)
    if [ -z "$own" ] || [ -z "$mount" ]; then
        own=$(sed -n 's/^0:://p' /proc/self/cgroup)
        mount=$(awk '$(NF - 2) == "cgroup2" { print $5; exit }' /proc/self/mountinfo)
        grep -qw "$1" "$mount${own%/}/cgroup.controllers" 2>/dev/null || return
        echo "+$1" >"$mount${own%/}/cgroup.subtree_control" 2>/dev/null
    fi
    if mkdir "$mount${own%/}/sympool-limits-$$" 2>/dev/null; then G=$mount${own%/}/sympool-limits-$$
    elif mkdir "$mount/sympool-limits-$$" 2>/dev/null; then G=$mount/sympool-limits-$$
    else return; fi
    undo="$undo rmdir '$G';"
}

limit_group() { # BYTES
    if [ -e "$G/memory.max" ]; then echo "$1" >"$G/memory.max"; else echo "$1" >"$G/memory.limit_in_bytes"; fi
}
oom_kills() {
    sed -n 's/^oom_kill //p' "$G/memory.events" "$G/memory.oom_control" 2>/dev/null | head -n 1
}
inside='echo $$ >"$G/cgroup.procs" && exec "$host"'

make_group memory
if [ -z "$G" ]; then
    skip memory_cgroups "no memory cgroup can be made here (not root, or no controller)"
else
    export G
    limit_group $((256 * MIB))
    row four_ranks_of_one_cgroup_at_40_percent_in_turn 3 "memory cgroup $G: limit 256 MiB, in use [0-9]* [KM]iB .*requested 102 MiB" \
        "$inside 4 $((256 * MIB)) $((102 * MIB)) in_turn"
    [ "$(grep -c 'malloc: SYP_ENOMEM' "$T/out")" = 2 ] || fail two_of_the_four_fit "$(cat "$T/out")"
    row four_ranks_of_one_cgroup_at_40_percent_together 3 "memory cgroup $G: limit 256 MiB" "$inside 4 $((256 * MIB)) $((102 * MIB)) together"
    row allocation_that_fits_the_cgroup 0 "" "$inside 2 $((256 * MIB)) $((90 * MIB))"
    limit_group $((64 * MIB))
    row pool_of_256_MiB_in_64_MiB_used_below_the_limit 0 "" "$inside 1 $((256 * MIB)) $((30 * MIB))"
    row pool_of_256_MiB_in_64_MiB_used_beyond_the_limit 3 "limit 64 MiB.*requested 200 MiB" "$inside 1 $((256 * MIB)) $((200 * MIB))"
    row full_commit_beyond_the_limit 3 "init: SYP_ENOMEM.*memory cgroup" "SYMPOOL_COMMIT=full; export SYMPOOL_COMMIT; $inside 1 $((256 * MIB)) 1000"
    row margin_can_be_set 3 "kept free 40 MiB" "SYMPOOL_MEMORY_MARGIN=40M; export SYMPOOL_MEMORY_MARGIN; $inside 1 $((256 * MIB)) $((30 * MIB))"
    # What the check prevents.
    SYMPOOL_MEMORY_CHECK=off sh -c 'echo $$ >"$G/cgroup.procs" && exec "$0" 1 268435456 209715200' "$T/host" >"$T/out" 2>&1
    [ "$(oom_kills)" != 0 ] || fail without_the_check_it_is_an_oom_kill "$(cat "$T/out")"
    kills=$(oom_kills)
    row nobody_was_killed_with_the_check 3 "" "$inside 2 $((256 * MIB)) $((200 * MIB))"
    [ "$(oom_kills)" = "$kills" ] || fail nobody_was_killed_with_the_check "oom_kill went from $kills to $(oom_kills)"
fi

# --------------------------------------------------------------------------------------------------------- ulimits

run="\"\$host\" 2 $((64 * MIB)) $MIB"
row address_space_of_200_MB 3 'init: SYP_ENOMEM.*1 GiB each.*address space \(ulimit -v\) 200000 KiB' "ulimit -v 200000; \"\$host\" 2 1073741824 $MIB"
for size in 20000 40000 60000 100000 200000 400000; do
    row address_space_of_"$size"_KiB any "" "ulimit -v $size; $run"
done
row data_of_20_MB_leaves_the_pool_usable 0 "" "ulimit -d 20000; $run"
row data_of_12_MB any "" "ulimit -d 12000; $run"
row stack_of_64_KiB any "" "ulimit -s 64; $run"
row no_locked_memory 0 "" "ulimit -l 0; $run"
row file_size_of_50_KiB_is_no_signal 3 'of 64 MiB: ftruncate: EFBIG.*file size \(ulimit -f\) 50 KiB' "ulimit -f 100; $run"
row file_size_0 3 'EFBIG' "ulimit -f 0; $run"
row log_file_beyond_the_file_size_is_no_signal 3 "" "ulimit -f 0; SYMPOOL_LOG=debug SYMPOOL_LOG_FILE=$T/log.%p $run"
for n in 16 14 12 11 10 9 8 7 6 5 4; do
    row "open_files_$n" any "" "ulimit -n $n; $run"
done
row open_files_8_is_named 3 'EMFILE.*open files \(ulimit -n\) 8' "ulimit -n 8; $run"
row no_core_dumps_no_realtime any "" "ulimit -c 0; ulimit -r 0; $run"
if [ $root = 1 ] && command -v setpriv >/dev/null && command -v prlimit >/dev/null; then
    row processes_of_a_user 3 'keeper thread: EAGAIN.*processes \(ulimit -u\) 3' "exec setpriv --reuid=54321 --clear-groups prlimit --nproc=3 $run"
else skip processes_of_a_user "needs root, setpriv and prlimit"; fi
make_group pids
if [ -z "$G" ]; then
    skip pids_cgroup "no pids cgroup can be made here"
else
    export G
    echo 3 >"$G/pids.max"
    row keeper_cannot_start_under_pids_max 3 'keeper thread: EAGAIN.*pids.max' "$inside 2 $((64 * MIB)) $MIB"
fi
for n in 0 2 4 6 8 10 12 16 20 24 28 32 40 60; do
    row "mappings_left_$n" any "" "LIMITS_MAPS=$n $run"
done
row mappings_are_named 3 "vm.max_map_count\) $(cat /proc/sys/vm/max_map_count)" "LIMITS_MAPS=6 $run"

# --------------------------------------------------------------------------------------------------------- large pages

row no_huge_pages_falls_back_with_one_line 0 "using base pages.*nr_hugepages" "SYMPOOL_HUGE=1G \"\$host\" 1 2147483648 $MIB"
[ "$(grep -c 'using base pages' "$T/out")" = 1 ] || fail one_line "$(cat "$T/out")"
row no_huge_pages_required 3 "SYMPOOL_HUGE_REQUIRED" "SYMPOOL_HUGE=1G SYMPOOL_HUGE_REQUIRED=on \"\$host\" 1 2147483648 $MIB"

# --------------------------------------------------------------------------------------------------------- refused calls

strace_inject() { # CALL ERROR: prefix of a command; every such call fails
    echo "strace -f -o $T/trace -e trace=$1 -e inject=$1:error=$2"
}
if strace -o "$T/trace" -e trace=memfd_create -e inject=memfd_create:error=ENOSYS true 2>"$T/err"; then
    for error in ENOSYS EPERM; do
        row "memfd_create_$error" 0 "memfd_create: $error.*/dev/shm" "$(strace_inject memfd_create $error) $run"
        row "fallocate_$error" any "" "$(strace_inject fallocate $error) $run"
        row "madvise_$error" 0 "" "$(strace_inject madvise $error) $run"
        row "mbind_and_move_pages_$error" 0 "" "$(strace_inject mbind,move_pages $error) $run"
        row "pidfd_open_$error" 0 "" "$(strace_inject pidfd_open $error) $run"
        row "memfd_create_and_fallocate_$error" any "" "$(strace_inject memfd_create,fallocate $error) $run"
    done
    # One rank without memfd among others: its peers take what it says it has.
    row one_rank_without_memfd 0 "cannot be sealed" "SYMPOOL_JOB=one-$$; export SYMPOOL_JOB
        SYMPOOL_RANK=1 \$host 2 $((64 * MIB)) $MIB & SYMPOOL_RANK=0 $(strace_inject memfd_create EPERM) \$host 2 $((64 * MIB)) $MIB; rc=\$?; wait \$! && exit \$rc"
    if [ $root = 1 ] && unshare -m true 2>/dev/null; then
        row a_full_dev_shm_is_an_error 3 'ENOSPC.*/dev/shm has 8 MiB, .* free.*--shm-size' "exec unshare -m sh -c 'mount -t tmpfs -o size=8m none /dev/shm && exec $(strace_inject memfd_create EPERM) $T/host 2 $((64 * MIB)) $((32 * MIB))'"
        row a_tiny_dev_shm_is_an_error 3 'ENOSPC.*/dev/shm has 64 KiB' "exec unshare -m sh -c 'mount -t tmpfs -o size=64k none /dev/shm && exec $(strace_inject memfd_create EPERM) $T/host 2 $((64 * MIB)) $MIB'"
        row neither_memfd_nor_dev_shm 3 'create a file in /dev/shm: ENOENT' "exec unshare -m sh -c 'mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec $(strace_inject memfd_create EPERM) $T/host 2 $((64 * MIB)) $MIB'"
    fi
else
    skip refused_calls "strace cannot inject errors here: $(head -n 1 "$T/err")"
fi

# --------------------------------------------------------------------------------------------------------- bare systems

if [ $root = 1 ] && unshare -m true 2>/dev/null; then
    row read_only_root_without_home 0 "" "unset HOME; exec unshare -m sh -c 'mount -o remount,bind,ro / && ! touch /x 2>/dev/null && exec $run'"
    row no_proc any "" "exec unshare -m sh -c 'umount -l /proc && exec $run'"
    row no_proc_and_no_memfd_create any "" "exec unshare -m sh -c 'exec $(strace_inject memfd_create EPERM) sh -c \"umount -l /proc && exec $T/host 2 $((64 * MIB)) $MIB\"'"
    row no_sys 0 "" "exec unshare -m sh -c 'umount -l /sys && exec $run'"
    row no_dev_shm 0 "" "exec unshare -m sh -c 'mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec $run'"
    row empty_environment 0 "" "exec env -i LD_LIBRARY_PATH=$LIBRARY $T/host 2 $((64 * MIB)) $MIB"
else
    skip bare_systems "needs root and mount namespaces"
fi

# --------------------------------------------------------------------------------------------------------- the whole machine

setting() { # FILE VALUE: until the end of the test
    undo="$undo echo $(cat "$1") >'$1';"
    echo "$2" >"$1"
}
if [ "${SYP_CHECK:-}" = long ] && [ $root = 1 ] && [ -w /proc/sys/vm/overcommit_memory ]; then
    setting /proc/sys/vm/nr_hugepages 4
    row four_huge_pages_of_eight 0 "using base pages" "SYMPOOL_HUGE=2M \"\$host\" 1 $((16 * MIB)) $MIB"
    row four_huge_pages_of_eight_required 3 "SYMPOOL_HUGE_REQUIRED" "SYMPOOL_HUGE=2M SYMPOOL_HUGE_REQUIRED=on \"\$host\" 1 $((16 * MIB)) $MIB"
    row four_huge_pages_of_four 0 "" "SYMPOOL_HUGE=2M SYMPOOL_HUGE_REQUIRED=on \"\$host\" 1 $((8 * MIB)) $MIB"
    setting /proc/sys/vm/overcommit_ratio 90
    setting /proc/sys/vm/overcommit_memory 2
    row no_overcommit_large_pool 0 "" "\"\$host\" 2 68719476736 $MIB"
    row no_overcommit_allocation_beyond_the_machine 3 "malloc: SYP_ENOMEM" "SYMPOOL_MEMORY_CHECK=off \"\$host\" 1 1099511627776 549755813888"
    eval "$undo"
    undo=""
elif [ "${SYP_CHECK:-}" = long ]; then
    skip settings_of_the_machine "vm.overcommit_memory and vm.nr_hugepages may not be changed here"
fi
exit $bad
