#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The example in shm.h: against the installed library, through pkg-config, started the ways its users start ranks; and the library opened by
# dlopen, as a Python process does it.
set -u
B=${B:-build}
CC=${CC:-gcc}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
for name in $(env | sed -n 's/^\(SYMPOOL_[A-Z_]*\)=.*/\1/p'); do unset "$name"; done
failed=0
check() { # NAME COMMAND...
    name=$1
    shift
    if "$@" >"$dir/out" 2>&1; then
        echo "ok $name"
    else
        echo "FAIL $name"
        cat "$dir/out"
        failed=1
    fi
}

sed -n '/^ \*     #include <shm.h>/,/^ \*     }$/s/^ \*     \{0,1\}//p' allocator/compat/shm.h >"$dir/example.c"
# Its port is a name; this run's own, so that two runs beside each other are two jobs.
sed -i "s/29500/29500-$$/" "$dir/example.c"
check "the header has an example" grep -q 'shm_initialize(size' "$dir/example.c"
check install make install PREFIX="$dir/inst" B="$B"
PKG_CONFIG_PATH=$dir/inst/lib/pkgconfig
export PKG_CONFIG_PATH
flags=$(pkg-config --cflags --libs sympool-shm-compat) || failed=1
# shellcheck disable=SC2086
check "compile with pkg-config" $CC -Wall -Wextra -Werror "$dir/example.c" -o "$dir/example" $flags -Wl,-rpath,"$dir/inst/lib"

torchrun_like() { # N: the variables that torchrun sets
    for r in $(seq 0 $(($1 - 1))); do
        env RANK="$r" WORLD_SIZE="$1" LOCAL_RANK="$r" LOCAL_WORLD_SIZE="$1" MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 \
            timeout 60 "$dir/example" >"$dir/rank.$r" 2>&1 &
    done
    wait
    cat "$dir"/rank.*
    rm -f "$dir"/rank.*
}
sums() { # LOG N SUM
    [ "$(grep -c "sum $3, last of the gathered $3\$" "$1")" = "$2" ] && [ "$(wc -l <"$1")" = "$2" ]
}
check "4 ranks" torchrun_like 4
cp "$dir/out" "$dir/four"
check "every rank has the sum and all parts" sums "$dir/four" 4 6
check "under sympool-run" "$dir/inst/bin/sympool-run" -n 3 sh -c "WORLD_SIZE=3 RANK=\$SYMPOOL_RANK exec $dir/example"
cp "$dir/out" "$dir/three"
check "every rank has the sum there" sh -c "[ \$(grep -c 'sum 3, last of the gathered 3' '$dir/three') = 3 ]"

cat >"$dir/opened.py" <<'PY'
import ctypes, os, sys
shim = ctypes.CDLL(sys.argv[1] + "/libsympool-shm-compat.so.0")
children = []
for rank in range(2):
    if (pid := os.fork()) == 0:
        x = (ctypes.c_float * 1000)(*[rank + 1.0] * 1000)
        ok = shim.shm_initialize(2, rank, b"127.0.0.1", b"opened-" + str(os.getppid()).encode()) == 0
        ok = ok and shim.all_reduce_outer_loop(x, ctypes.c_size_t(1000), ctypes.c_size_t(4000), 2) == 0
        os._exit(0 if ok and list(x) == [3.0] * 1000 else 1)
    children.append(pid)
sys.exit(any(os.waitpid(pid, 0)[1] for pid in children))
PY
check "opened by Python" python3 "$dir/opened.py" "$dir/inst/lib"
exit $failed
