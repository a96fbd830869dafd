#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The heap beside the mallocs that are installed, in one run of sympool-bench whose samples alternate.  Ratios only:
#   a pair of 2 MiB and more costs at most what the best peer takes,
#   a touched pair of 64 MiB is at least 5 times faster than glibc's,
#   and no page fault happens in the steady state.
# Three tries, since others may run beside us; page faults are no matter of luck.
set -u
B=${B:-build}
command -v python3 >/dev/null 2>&1 || { echo "SKIP: python3 is missing"; exit 0; }

for try in 1 2 3; do
    "$B/sympool-bench" heap --json >"$B/log/heap_speed.json" || { echo "FAIL heap_speed: sympool-bench heap ended with status $?"; exit 1; }
    python3 - "$B/log/heap_speed.json" <<'EOF'
import json, sys
sections = {s["name"]: s for s in json.load(open(sys.argv[1]))["sections"]}
slow, faults = [], []
print("peers:", sections["heap"]["peers"])
for row in sections["heap"]["rows"]:
    what = f'{row["pages"]} pair of {row["size_bytes"]} bytes'
    peers = {p: row[p + "_ns"] for p in ("glibc", "jemalloc", "mimalloc", "tcmalloc") if row[p + "_ns"] is not None}
    best = min(peers, key=peers.get)
    if row["size_bytes"] >= 65536 and row["syp_faults"] > 0:
        faults.append(f'{what}: {row["syp_faults"]} page faults')
    if row["pages"] == "untouched" and row["size_bytes"] >= 2 << 20 and row["syp_ns"] > peers[best]:
        slow.append(f'{what}: {row["syp_ns"]:.1f} ns, {best} {peers[best]:.1f} ns')
    if row["pages"] == "touched" and row["size_bytes"] == 64 << 20 and 5 * row["syp_ns"] > peers["glibc"]:
        slow.append(f'{what}: {row["syp_ns"]:.0f} ns, glibc {peers["glibc"]:.0f} ns')
for line in slow + faults:
    print(line)
sys.exit(2 if faults else 1 if slow else 0)
EOF
    case $? in
    0) echo "ok heap_speed"; exit 0 ;;
    1) echo "try $try of 3 was too slow" ;;
    *) break ;;
    esac
done
echo "FAIL heap_speed"
exit 1
