#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# sympool-run: what the ranks get, whose failure is whose, that nothing is left over and nothing is lost.
# Run from the top of the repository; B = build folder, SYMPOOL_RUN = another launcher to test.
set -u
B=${B:-build}
RUN=${SYMPOOL_RUN:-$B/sympool-run}
T=$(mktemp -d) || exit 1
bad=0
trap 'rm -rf "$T"' EXIT
unset SYMPOOL_RANK SYMPOOL_WORLD_SIZE SYMPOOL_ADDR SYMPOOL_JOB SYMPOOL_LISTEN_FD SYMPOOL_MODULE_DIR

ok() { echo "ok $1"; }
fail() { echo "FAIL $1: $2"; bad=1; }

# run ARGS: output in $T/out and $T/err, status in RC, seconds (rounded down) in TOOK.  No test may hang.
run() {
    began=$(date +%s)
    timeout -k 1 60 "$RUN" "$@" >"$T/out" 2>"$T/err" </dev/null
    RC=$?
    TOOK=$(($(date +%s) - began))
}
expect() { # NAME RC [PATTERN in stdout]
    if [ $RC -ne "$2" ]; then fail "$1" "exit status $RC, expected $2: $(head -c 400 "$T/out" "$T/err")"
    elif [ $# -gt 2 ] && ! grep -Eq -- "$3" "$T/out"; then fail "$1" "no \"$3\" in: $(head -c 400 "$T/out")"
    else ok "$1"; fi
}
expect_err() { if grep -Eq -- "$2" "$T/err"; then ok "$1"; else fail "$1" "no \"$2\" in: $(head -c 400 "$T/err")"; fi; }
expect_quiet() { if [ -s "$T/err" ]; then fail "$1" "$(head -c 400 "$T/err")"; else ok "$1"; fi; }
is() { if [ "$2" = "$3" ]; then ok "$1"; else fail "$1" "\"$2\", expected \"$3\""; fi; }
# Does the process run?  A zombie whose parent has not looked yet does not.
runs() { [ -r "/proc/$1/stat" ] && case $(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null) in Z | X | "") false ;; esac; }
wait_for() { # a command comes true within 10 s
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 500 ] || return 1
        sleep 0.02
    done
}
has_lines() { [ "$(cat "$1"* 2>/dev/null | wc -l)" -ge "$2" ]; }
none_run() { for p in $(cat "$@"); do if runs "$p"; then return 1; fi; done; }

command -v "$RUN" >/dev/null || { fail setup "no $RUN"; exit 1; }

# ------------------------------------------------------------------------------------------------- command line
run --help;              expect help 0 "^usage: sympool-run -n N"
run --version;           expect version 0 "^sympool-run \(sympool\) [0-9]+\.[0-9]+\.[0-9]+$"
run --nonsense;          expect unknown_option 2; expect_err unknown_option_usage "^usage: sympool-run"
run true;                expect no_count 2; expect_err no_count_text "how many ranks"
run -n 2;                expect no_program 2; expect_err no_program_text "which program"
for n in 0 -1 1025 2x "" 99999999999999999999; do run -n "$n" true; expect "count_'$n'" 2; done
for t in 0 x 5d -1 1e3 ""; do run -n 1 --timeout "$t" true; expect "timeout_'$t'" 2; done
for t in 90 500ms 1.5s .5m 2h; do run -n 1 --timeout "$t" true; expect "timeout_'$t'" 0; done
for s in x 1X -1 1GG 1Bi; do run -n 1 --local-mem-size "$s" true; expect "size_'$s'" 2; done
run -n 1 --bind socket true;  expect bad_bind 2
run -n 1 --tag=maybe true;    expect bad_tag 2
run -n 1 --stdin all true;    expect bad_stdin 2
run -n 1 --job 'a b' true;    expect bad_job 2
run -n 1 -x NAME true;        expect env_without_value 2
run -n 1 -x SYMPOOL_RANK=3 true; expect env_of_ours 2; expect_err env_of_ours_text "SYMPOOL_RANK: set by sympool-run"
run -n 2 no-such-program-x;   expect not_found 127; expect_err not_found_text "^sympool-run: no-such-program-x: No such file"
run -n 2 /etc/passwd;         expect not_executable 126; expect_err not_executable_text "^sympool-run: /etc/passwd: Permission denied"
run -n 1 -- sh -c 'printf "%s\n" "$1"' sh -n; expect own_options_end_at_program 0 "^\[0\] -n$"

# ------------------------------------------------------------------------------------------- what the ranks get
# shellcheck disable=SC2016
run -n 3 sh -c 'echo $SYMPOOL_RANK $SYMPOOL_WORLD_SIZE $SYMPOOL_LOCAL_RANK $SYMPOOL_LOCAL_SIZE $SYMPOOL_JOB $SYMPOOL_ADDR ${SYMPOOL_LISTEN_FD-none}'
expect rank0_environment 0 "^\[0\] 0 3 0 3 sh-[0-9]+ tcp://127\.0\.0\.1:[0-9]+ [0-9]+$"
expect rank2_environment 0 "^\[2\] 2 3 2 3 sh-[0-9]+ tcp://127\.0\.0\.1:[0-9]+ none$"
is one_address "$(awk '{ print $6, $7 }' "$T/out" | sort -u | wc -l)" 1
run -n 1 --job train:1 --local-mem-size 512M --meta-size 4KiB -x A='b=c d' -x E= sh -c \
    'echo "$SYMPOOL_JOB $SYMPOOL_LOCAL_MEM_SIZE $SYMPOOL_META_SIZE $A ${E-unset}"'
expect options_to_environment 0 "^\[0\] train:1-[0-9]+ 512M 4KiB b=c d $"
SYMPOOL_LISTEN_FD=99 run -n 1 --addr tcp://127.0.0.1:4711 sh -c 'echo "$SYMPOOL_ADDR ${SYMPOOL_LISTEN_FD-none}"'
expect address_given 0 "^\[0\] tcp://127.0.0.1:4711 none$"
printf '#!/bin/sh\necho $SYMPOOL_JOB\n' >"$T/odd name"
chmod +x "$T/odd name"
run -n 1 "$T/odd name"; expect job_name_is_clean 0 "^\[0\] odd_name-[0-9]+$"

# rank 0 accepts on the inherited socket what rank 1 connects to
cat >"$T/meet.py" <<'END'
import os, socket
host, port = os.environ["SYMPOOL_ADDR"][6:].rsplit(":", 1)
if os.environ["SYMPOOL_RANK"] == "0":
    fd = int(os.environ["SYMPOOL_LISTEN_FD"])
    s = socket.socket(fileno=fd)
    assert s.getsockname() == (host, int(port)) and s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    c, _ = s.accept()
    print("got", c.recv(9).decode())
else:
    socket.create_connection((host, int(port))).sendall(b"hello")
END
run -n 2 --timeout 30 python3 "$T/meet.py"; expect rendezvous_socket 0 "^\[0\] got hello$"

# descriptors: 0, 1, 2 and rank 0's socket; also when the launcher was started with more, or with less
# shellcheck disable=SC2016
fds='ls /proc/$$/fd; :'
run -n 2 sh -c "$fds; echo \$SYMPOOL_LISTEN_FD" 5</dev/null 9>/dev/null
listen=$(sed -n 's/^\[0\] //p' "$T/out" | tail -1)
is rank0_descriptors "$(sed -n 's/^\[0\] //p' "$T/out" | tr '\n' ' ')" "0 1 2 $listen $listen "
is rank1_descriptors "$(sed -n 's/^\[1\] //p' "$T/out" | tr '\n' ' ')" "0 1 2  "
run -n 1 --no-tag --addr 127.0.0.1:1 sh -c "$fds"
is plain_descriptors "$(tr '\n' ' ' <"$T/out")" "0 1 2 "
(exec 0<&- 1<&- 2<&-; timeout 20 "$RUN" -n 2 sh -c "echo x >$T/closed.\$SYMPOOL_RANK; exit 0")
is closed_stdio "$? $(cat "$T"/closed.? | wc -l)" "0 2"
# signals as usual, no limits changed
run -n 1 sh -c 'grep -E "^Sig(Blk|Ign)" /proc/self/status; ulimit -n'
is signals_and_limits "$(sed 's/^\[0\] //' "$T/out" | tr -s '\t\n' '  ')" "$(sh -c 'grep -E "^Sig(Blk|Ign)" /proc/self/status; ulimit -n' | tr -s '\t\n' '  ')"

# ---------------------------------------------------------------------------------------------------- placement
allowed=$(awk '/^Cpus_allowed_list/ { print $2 }' /proc/self/status)
n_cpus=$(nproc)
export SYMPOOL_MODULE_DIR="$T/no-modules"
run -n 2 --bind none awk '/^Cpus_allowed_list/ { print $2 }' /proc/self/status; expect bind_none 0 "^\[1\] $allowed$"
run -n $((n_cpus + 1)) awk '/^Cpus_allowed_list/ { print $2 }' /proc/self/status; expect bind_default_many 0 "^\[0\] $allowed$"
unset SYMPOOL_MODULE_DIR
if [ "$n_cpus" -ge 2 ]; then
    for mode in --bind=core -v; do
        run -n "$n_cpus" $mode awk '/^Cpus_allowed_list/ { print $2 }' /proc/self/status
        is "bind_shares_$mode" "$(grep '^\[' "$T/out" | awk '{ print $2 }' | sort -u | wc -l)" "$n_cpus"
    done
    run -n 1 --bind core awk '/^Cpus_allowed_list/ { print $2 }' /proc/self/status; expect bind_one_rank 0 "^\[0\] $allowed$"
fi
run -n $((2 * n_cpus)) --bind core true; expect bind_core_many 0
run -n 2 --bind numa awk '/^Cpus_allowed_list/ { print $2 }' /proc/self/status; expect bind_numa 0 "^\[1\] [0-9]"

# ------------------------------------------------------------------------------------------------------- output
run -n 2 sh -c 'echo to-out; echo to-err >&2; printf unfinished'
expect tagged_stdout 0 "^\[1\] to-out$"
expect_err tagged_stderr "^\[1\] to-err$"
is unfinished_lines "$(grep -c '^\[[01]\] unfinished$' "$T/out")" 2
run -n 2 --no-tag echo bare; is no_tag "$(cat "$T/out")" "bare
bare"
run -n 2 --tag=none echo bare; is tag_none "$(wc -l <"$T/out")" 2
run -n 1 sh -c 'printf "a\n\nb\0c\n"'
is bytes_unchanged "$(od -An -c "$T/out" | tr -d ' \n')" '[0]a\n[0]\n[0]b\0c\n'

# 64 ranks, 20,000 lines each, in writes that end anywhere: every line whole, in order, none lost
run -n 64 sh -c 'seq -f "%.0f-abcdefghijklmnopqrstuvwxyz-$SYMPOOL_RANK" 1 20000'
expect much_output 0
is much_output_whole "$(awk -F '[][ -]+' '$3 != ++next_line[$2] || $4 != "abcdefghijklmnopqrstuvwxyz" || $5 != $2 || NF != 5 { bad++ }
    END { for (r in next_line) { n++; if (next_line[r] != 20000) bad++ } print n, bad + 0 }' "$T/out")" "64 0"
# stdout and stderr into one pipe that is read slowly
timeout 60 "$RUN" -n 8 sh -c 'seq -f "%.0f-abcdefghijklmnopqrstuvwxyz-o" 1 3000 & seq -f "%.0f-abcdefghijklmnopqrstuvwxyz-e" 1 3000 >&2; wait' 2>&1 </dev/null |
    { sleep 0.5; cat; } >"$T/out"
is one_slow_pipe "$(grep -Ec '^\[[0-7]\] [0-9]+-abcdefghijklmnopqrstuvwxyz-[oe]$' "$T/out") $(wc -l <"$T/out")" "48000 48000"
# one line longer than a pipe
run -n 2 sh -c 'head -c 300000 /dev/zero | tr "\0" x; echo'
is long_line "$(awk '{ print length($2) }' "$T/out" | sort -u | tr '\n' ' ')" "300000 "

run -n 3 --output-dir "$T/files" sh -c 'echo out $SYMPOOL_RANK; echo err $SYMPOOL_RANK >&2'
expect output_dir 0
is output_dir_files "$(cat "$T"/files/rank.2.out "$T"/files/rank.0.err) $(ls "$T/files" | wc -l) $(wc -c <"$T/out")" "out 2
err 0 6 0"
run -n 1 --output-dir /proc/no true; expect output_dir_refused 1; expect_err output_dir_refused_text "output-dir /proc/no"

timeout 20 "$RUN" -n 4 yes 2>"$T/err" </dev/null | head -1 >"$T/out"
RC=0; expect reader_goes_away 0 "^\[[0-3]\] y$"; expect_quiet reader_goes_away_quietly
timeout 20 "$RUN" -n 1 echo x >/dev/full 2>"$T/err" </dev/null
RC=$?; expect full_disk 1; expect_err full_disk_text "writing to stdout: No space left"
# a reader that stopped reading must not keep us from the deadline
{ timeout 20 "$RUN" -n 2 --timeout 500ms yes 2>"$T/err" </dev/null; echo $? >"$T/rc"; } | { sleep 6; cat >/dev/null; } &
reader=$!
if wait_for test -s "$T/rc"; then is stopped_reader "$(cat "$T/rc") $(kill -0 $reader && echo early)" "124 early"; else fail stopped_reader hangs; fi
wait $reader

# -------------------------------------------------------------------------------------------------------- input
printf 'one\ntwo' | timeout 20 "$RUN" -n 2 cat >"$T/out" 2>"$T/err"
is stdin_to_rank0 "$(tr '\n' ,  <"$T/out")" "[0] one,[0] two,"
echo one | timeout 20 "$RUN" -n 2 --stdin none cat >"$T/out" 2>"$T/err"
is stdin_none "$(cat "$T/out")" ""
cat >"$T/terminal.py" <<'END'
import os, pty, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], [sys.argv[1], "-n", "2", "sh", "-c", "read a; echo rank $SYMPOOL_RANK read ${a:-nothing}"])
os.write(fd, b"typed\n")
text, end = b"", time.time() + 20
while time.time() < end:
    try:
        more = os.read(fd, 4096)
    except OSError:
        break
    if not more: break
    text += more
print(text.decode().replace("\r", ""), os.waitpid(pid, 0)[1])
END
timeout 30 python3 "$T/terminal.py" "$RUN" >"$T/out" 2>"$T/err"
RC=$?; expect terminal 0 "^\[0\] rank 0 read typed$"; expect terminal_others 0 "^\[1\] rank 1 read nothing$"

# ------------------------------------------------------------------------------------------------------- ending
run -n 4 sh -c 'echo $$ >'"$T"'/pid.$SYMPOOL_RANK; [ $SYMPOOL_RANK = 2 ] && exit 3; exec sleep 60'
expect first_failure 3
expect_err first_failure_text "^sympool-run: rank 2 \(pid $(cat "$T/pid.2")\) exited with status 3; ending the other 3 ranks$"
is one_line_only "$(wc -l <"$T/err")" 1
if none_run "$T"/pid.*; then ok others_ended; else fail others_ended "some run on"; fi
run -n 4 sh -c '[ $SYMPOOL_RANK = 1 ] && kill -9 $$; exec sleep 60'
expect killed 137; expect_err killed_text "^sympool-run: rank 1 \(pid [0-9]+\) was killed by signal 9 \(Killed\); ending the other 3 ranks$"
run -n 2 sh -c 'exit 5'; expect all_fail 5
run -n 2 sh -c 'exit 0'; expect all_well 0; expect_quiet all_well_quiet
run -n 3 sh -c '[ $SYMPOOL_RANK = 0 ] || sleep 0.3'; expect early_end_is_no_failure 0

# Rank 1 is killed, rank 0 notices and gives up; both are there to be reaped, rank 0 first.  It was rank 1.
rm -f "$T"/pid.*
timeout -k 1 20 "$RUN" -n 2 sh -c 'trap "exit 1" USR1; echo $$ >'"$T"'/pid.$SYMPOOL_RANK; while :; do sleep 0.1; done' 2>"$T/err" >"$T/out" </dev/null &
keeper=$!
wait_for has_lines "$T/pid." 2
launcher=$(awk '{ print $4 }' "/proc/$(cat "$T/pid.0")/stat")
kill -STOP "$launcher"
kill -9 "$(cat "$T/pid.1")"; kill -USR1 "$(cat "$T/pid.0")"
wait_for none_run "$T/pid.0" "$T/pid.1"
kill -CONT "$launcher"
wait $keeper; RC=$?
expect cause_before_consequence 137; expect_err cause_before_consequence_text "rank 1 .* was killed by signal 9"

# deaf ranks, and stopped ones, are killed after the grace
run -n 3 sh -c 'trap "" TERM; [ $SYMPOOL_RANK = 0 ] && { sleep 0.5; exit 4; }; while :; do sleep 0.1; done'
expect deaf_ranks 4
if [ "$TOOK" -ge 1 ] && [ "$TOOK" -le 15 ]; then ok deaf_ranks_grace; else fail deaf_ranks_grace "$TOOK s"; fi
run -n 2 sh -c '[ $SYMPOOL_RANK = 0 ] && { sleep 0.3; exit 4; }; kill -STOP $$'; expect stopped_rank 4
run -n 2 --timeout 300ms sleep 60; expect timeout_ends 124; expect_err timeout_text "^sympool-run: the time limit of 0.3 s has passed; ending 2 ranks$"
if [ "$TOOK" -le 10 ]; then ok timeout_in_time; else fail timeout_in_time "$TOOK s"; fi
run -n 2 --timeout 300ms sh -c 'trap "exit 0" TERM; while :; do sleep 0.1; done'; expect timeout_with_good_end 124

# signals to the launcher reach the ranks; the exit status is the ranks' affair
for sig in INT TERM HUP USR1; do
    rm -f "$T"/pid.*
    # started in the background, sh ignores SIGINT for it
    env --default-signal=INT timeout -k 1 --foreground 20 "$RUN" -n 2 sh -c \
        'trap "echo got '$sig'; exit 0" '$sig'; echo $$ >'"$T"'/pid.$SYMPOOL_RANK; while :; do sleep 0.05; done' >"$T/out" 2>"$T/err" </dev/null &
    keeper=$!
    wait_for has_lines "$T/pid." 2
    kill -$sig "$(awk '{ print $4 }' "/proc/$(cat "$T/pid.0")/stat")"
    wait $keeper; RC=$?
    expect "forward_$sig" 0
    is "forward_${sig}_to_all" "$(sort "$T/out" | tr '\n' ' ')" "[0] got $sig [1] got $sig "
done
# by default they die of it; a second signal does not wait for deaf ones
for how in 'sleep 60' 'trap "" INT; while :; do sleep 0.1; done'; do
    rm -f "$T"/pid.*
    env --default-signal=INT timeout -k 1 --foreground 20 "$RUN" -n 2 sh -c 'echo $$ >'"$T"'/pid.$SYMPOOL_RANK; '"$how" >"$T/out" 2>"$T/err" </dev/null &
    keeper=$!
    wait_for has_lines "$T/pid." 2
    launcher=$(awk '{ print $4 }' "/proc/$(cat "$T/pid.0")/stat")
    kill -INT "$launcher"
    sleep 0.5
    kill -INT "$launcher" 2>/dev/null
    wait $keeper; RC=$?
    case $RC in 130 | 137 | 143) ok "interrupted '$how'" ;; *) fail "interrupted '$how'" "exit status $RC" ;; esac
    if none_run "$T"/pid.*; then ok "interrupted_ended '$how'"; else fail "interrupted_ended '$how'" "some run on"; fi
done
# SIGTSTP stops the job with the launcher, SIGCONT continues it
is_stopped() { [ "$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null)" = T ]; }
not_stopped() { ! is_stopped "$1"; }
rm -f "$T"/pid.*
"$RUN" -n 1 --timeout 20 sh -c 'echo $$ >'"$T"'/pid.0; while [ ! -e '"$T"'/go ]; do sleep 0.05; done' >"$T/out" 2>"$T/err" </dev/null &
launcher=$!
wait_for has_lines "$T/pid." 1
kill -TSTP $launcher
if wait_for is_stopped $launcher && wait_for is_stopped "$(cat "$T/pid.0")"; then ok stop_job; else fail stop_job "not stopped"; fi
kill -CONT $launcher
if wait_for not_stopped $launcher && wait_for not_stopped "$(cat "$T/pid.0")"; then ok continue_job; else fail continue_job "still stopped"; fi
: >"$T/go"
wait $launcher
is stopped_and_continued $? 0
# nohup: what is ignored stays ignored
rm -f "$T"/pid.*
(trap '' HUP; exec "$RUN" -n 1 --timeout 20 sh -c 'echo $$ >'"$T"'/pid.0; sleep 0.5; echo survived') >"$T/out" 2>"$T/err" </dev/null &
keeper=$!
wait_for has_lines "$T/pid." 1
kill -HUP "$(awk '{ print $4 }' "/proc/$(cat "$T/pid.0")/stat")"
wait $keeper; RC=$?
expect ignored_hup 0 "survived"

# the launcher's own SIGKILL: ranks, their children, and the guard end with it
rm -f "$T"/pid.*
"$RUN" -n 3 sh -c 'sleep 60 & echo $! >'"$T"'/pid.c$SYMPOOL_RANK; sh -c "sleep 60; :" & echo $! >'"$T"'/pid.d$SYMPOOL_RANK; echo $$ >'"$T"'/pid.$SYMPOOL_RANK; wait' \
    >/dev/null 2>&1 </dev/null &
launcher=$!
wait_for has_lines "$T/pid." 9
cat "/proc/$launcher/task/$launcher/children" >"$T/children" 2>/dev/null
for z in $(cat "$T/children"); do runs "$z" || fail zombie "child $z of the launcher"; done
kill -9 $launcher
wait $launcher 2>/dev/null
if wait_for none_run "$T"/pid.* "$T/children"; then ok killed_launcher; else fail killed_launcher "left: $(cat "$T"/pid.* | tr '\n' ' ')"; fi

# what ranks leave in the background may finish its work, but not outlive the job
run -n 2 sh -c '(sleep 0.3; echo late) & exit 0'
is background_output "$RC $(grep -c late "$T/out")" "0 2"
rm -f "$T"/pid.*
run -n 2 sh -c 'sleep 60 & echo $! >'"$T"'/pid.$SYMPOOL_RANK; exit 0'
expect background_left 0
if none_run "$T"/pid.*; then ok background_ended; else fail background_ended "some run on"; fi
# a rank with a session of its own is ended all the same
if command -v setsid >/dev/null; then
    rm -f "$T"/pid.*
    run -n 2 --timeout 500ms setsid sh -c 'echo $$ >'"$T"'/pid.$SYMPOOL_RANK; sleep 60'
    expect own_session 124
    if none_run "$T"/pid.*; then ok own_session_ended; else fail own_session_ended "some run on"; fi
fi

# a launcher inside a rank, and a launch with a tight limit of descriptors
run -n 2 "$RUN" -n 2 sh -c 'echo $SYMPOOL_RANK ${SYMPOOL_LISTEN_FD-none}'
is nested "$RC $(grep -c '^\[[01]\] \[1\] 1 none$' "$T/out")" "0 2"
(ulimit -Sn 32; timeout 30 "$RUN" -n 40 sh -c 'ulimit -Sn' </dev/null >"$T/out" 2>"$T/err")
is descriptor_limit "$? $(grep -c '\] 32$' "$T/out")" "0 40"
exit $bad
