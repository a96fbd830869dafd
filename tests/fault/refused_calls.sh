#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Every system call that attach, allocation, collectives and finalize make is refused in turn (strace fault injection), in
# all ranks and in one of two: the outcome is success by a fallback, or an error with a text on that rank; never a crash, a
# hang, an open descriptor, or something left in /dev/shm.
#
# Quick: two occurrences of each call and error, chosen from SEED.  SYP_CHECK=long: every occurrence.
# Run from the top of the repository; B = build folder.  ONLY=substring of "call:error" limits what is run.
set -u
B=${B:-build}
CC=${CC:-gcc}
T=$(mktemp -d) || exit 1
bad=0
runs=0
refused=0
trap 'rm -rf "$T"' EXIT
trap 'exit 1' INT TERM
unset SYMPOOL_RANK SYMPOOL_WORLD_SIZE SYMPOOL_ADDR SYMPOOL_JOB SYMPOOL_LISTEN_FD
export SYMPOOL_JOIN_TIMEOUT=4s SYMPOOL_TIMEOUT=4s SYMPOOL_FINALIZE_TIMEOUT=2s SYMPOOL_LOG=off
SEED=${SEED:-$(date +%s)}
echo "seed $SEED"

fail() { echo "FAIL $1: $2"; bad=1; }

if ! strace -f -o "$T/trace" -e trace=memfd_create -e inject=memfd_create:error=ENOSYS true 2>"$T/err"; then
    echo "SKIP: strace cannot inject errors here: $(head -n 1 "$T/err")"
    exit 0
fi
# Static: no loader whose calls would be refused as well.
if ! $CC -std=c11 -D_GNU_SOURCE -I. -O1 -static tests/fault/limits_host.c -o "$T/host" "$B/libsympool.a" -lm 2>"$T/err"; then
    fail build "$(cat "$T/err")"
    exit 1
fi

# judge NAME RC...: also what is left behind
judge() {
    name=$1
    shift
    runs=$((runs + 1))
    worst=0
    grep -q 'while loading shared libraries' "$T/out" && return # the start of the program was refused, not the library
    for rc in "$@"; do
        case $rc in
        0) ;;
        3) refused=$((refused + 1)) ;;
        *) worst=$rc ;;
        esac
    done
    if [ $worst != 0 ]; then fail "$name" "exit status $*: $(grep -hv 'alive, 0' "$T"/out* | cut -c 1-300 | head -n 4)"
    elif [ -n "$(find /dev/shm -name 'sympool.*' -newer "$T/host" 2>/dev/null)" ]; then fail "$name" "left $(ls /dev/shm)"; fi
}

# inject CALL:ERROR[:when=N]: in both ranks
inject() {
    timeout -k 2 80 strace -f --seccomp-bpf -o "$T/trace" -e trace="${1%%:*}" -e inject="${1%%:*}:error=${1#*:}" \
        "$T/host" 2 16777216 1000000 >"$T/out" 2>&1
    judge "all ranks, $1" $?
}

# inject_one RANK CALL:ERROR[:when=N]: in that rank; the other is told in time
inject_one() {
    export SYMPOOL_JOB="refused-$$-$runs"
    SYMPOOL_RANK=$((1 - $1)) timeout -k 2 30 "$T/host" 2 16777216 1000000 >"$T/out.free" 2>&1 &
    SYMPOOL_RANK=$1 timeout -k 2 30 strace -f --seccomp-bpf -o "$T/trace" -e trace="${2%%:*}" -e inject="${2%%:*}:error=${2#*:}" \
        "$T/host" 2 16777216 1000000 >"$T/out" 2>&1
    rc=$?
    wait $!
    judge "rank $1 alone, $2" $rc $?
    unset SYMPOOL_JOB
    rm -f "$T/out.free"
}

# Calls, with the errors each may give.  A refused close is not carried out, and EINVAL for F_GET_SEALS says that the file is
# somebody else's, which is left alone: there descriptors are not counted.  No futex: a wake-up that is refused does not exist.
table="socket:EMFILE,ENOBUFS bind:EACCES listen:EADDRINUSE connect:EINTR,EAGAIN,ECONNREFUSED,ENOBUFS
accept4:EINTR,EAGAIN,ECONNABORTED,EMFILE,ENOBUFS sendmsg:EINTR,EAGAIN,ENOBUFS,EPIPE recvmsg:EINTR,EAGAIN,ECONNRESET
ppoll:EINTR,ENOMEM getsockopt:ENOBUFS setsockopt:ENOMEM getsockname:ENOBUFS
memfd_create:ENOSYS,EPERM,EMFILE,ENOMEM ftruncate:EINTR,EFBIG,ENOSPC fallocate:EINTR,ENOSPC,ENOSYS,EOPNOTSUPP,EPERM
fcntl:EPERM,EINVAL mmap:ENOMEM,EPERM mprotect:ENOMEM madvise:EINVAL,ENOSYS,EPERM mbind:EPERM,ENOSYS
openat:EMFILE,ENOENT,EACCES read:EINTR,EIO newfstatat:EACCES getrandom:ENOSYS,EINTR prlimit64:EPERM
clone3:EAGAIN,EPERM,ENOSYS set_robust_list:ENOSYS sched_getaffinity:EPERM clock_nanosleep:EINTR
rt_sigprocmask:EINVAL readlink:ENOENT kill:EPERM uname:EFAULT sched_yield:ENOSYS pidfd_open:ENOSYS close:EINTR,EIO munmap:ENOMEM"

# How often a rank makes each call.
"$T/host" 2 16777216 1000000 >/dev/null && strace -f -o "$T/count" "$T/host" 2 16777216 1000000 >/dev/null 2>&1
times_called() {
    awk -v call="$1" '$2 ~ "^"call"\\(" { n[$1]++ } END { for (p in n) if (n[p] > most) most = n[p]; print most + 0 }' "$T/count"
}

for entry in $table; do
    call=${entry%%:*}
    most=$(times_called "$call")
    [ "$most" -gt 0 ] || continue
    for error in $(echo "${entry#*:}" | tr ',' ' '); do
        case $call:$error in *"${ONLY:-}"*) ;; *) continue ;; esac
        unset LIMITS_LEAK
        case $call:$error in close:* | fcntl:EINVAL) export LIMITS_LEAK=1 ;; esac
        if [ "${SYP_CHECK:-}" = long ]; then
            chosen=$(seq 1 "$most")
        else
            SEED=$(((SEED * 1103515245 + 12345) % 2147483648))
            chosen="$((SEED / 65536 % most + 1))"
        fi
        for n in $chosen; do
            inject "$call:$error:when=$n"
            [ "${SYP_CHECK:-}" = long ] && inject_one 0 "$call:$error:when=$n"
            inject_one $((n % 2)) "$call:$error:when=$n"
        done
    done
done
[ $bad = 0 ] && echo "ok every_refused_call_is_survived: $runs runs, $refused of them ended in an error with a text"
exit $bad
