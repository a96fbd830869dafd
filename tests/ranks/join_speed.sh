#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The join is about as fast as starting the processes: slowest syp_init of 8 and of 64 ranks, as a ratio to fork + exec of as many
# /bin/true in the same run.  Peers on the same kind of machine: Open MPI 556 and 2,791 ms, gloo's store 183 ms for 8.
set -u
B=${B:-build}
# ranks most: 10 ms and 300 ms on a machine that starts 8 in 5 ms and 64 in 32 ms
limits="8:3 64:10"
failed=0
out=$("$B/sympool-bench" init) || { echo "FAIL join_speed: sympool-bench init ended with status $?"; exit 1; }
echo "$out"
for limit in $limits; do
    ranks=${limit%:*} most=${limit#*:}
    ratio=$(echo "$out" | awk -v n="$ranks" '$1 == n { print $(NF - 1) }')
    if [ -n "$ratio" ] && awk -v r="$ratio" -v m="$most" 'BEGIN { exit !(r > 0 && r <= m) }'; then
        echo "ok join of $ranks ranks: $ratio times fork + exec (at most $most)"
    else
        echo "FAIL join of $ranks ranks: ratio \"$ratio\" to fork + exec, at most $most"
        failed=1
    fi
done
exit $failed
