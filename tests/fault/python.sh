#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The library inside python3, loaded the way PyTorch's CUDAPluggableAllocator loads an allocator: ctypes.CDLL, the two
# entries by name.  Before, during and after a job; with forks, threads, and an exit with live blocks.  With numpy and
# torch, where they are installed: arrays over pool memory, and loading after torch has taken its thread-local storage.
#
# SYP_CHECK=long installs python3-numpy and python3-torch when they are missing (tools/deps.sh heavy).
# Run from the top of the repository; B = build folder.
set -u
B=${B:-build}
PYTHON=/usr/bin/python3 # Debian's modules belong to Debian's interpreter
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
trap 'exit 1' INT TERM
unset SYMPOOL_RANK SYMPOOL_WORLD_SIZE SYMPOOL_ADDR SYMPOOL_JOB SYMPOOL_LISTEN_FD
LIBRARY=$(cd "$B" && pwd)/libsympool.so.0
export LIBRARY PYTHONDONTWRITEBYTECODE=1 SYMPOOL_LOCAL_MEM_SIZE=268435456 # in_pool counts on it
bad=0

fail() { echo "FAIL $1: $2"; bad=1; }

# script NAME [COMMAND...]: run $T/NAME.py by the interpreter, under COMMAND.  It prints its own lines, the last one
# is "end" (one for each rank); nothing may be written to stderr.
script() {
    name=$1
    shift
    timeout -k 5 120 "$@" "$PYTHON" "$T/$name.py" >"$T/out" 2>"$T/err" </dev/null
    rc=$?
    grep -v '^end$' "$T/out"
    grep -q '^FAIL' "$T/out" && bad=1
    ends=1
    [ $# -gt 0 ] && ends=2
    if [ $rc -ne 0 ] || [ "$(grep -c '^end$' "$T/out")" != $ends ]; then
        fail "$name" "exit status $rc: $(tail -n 5 "$T/err")"
    elif [ -s "$T/err" ]; then fail "$name" "wrote: $(head -c 400 "$T/err")"
    else echo "ok ${name}_ends_cleanly"; fi
}

cat >"$T/common.py" <<'END_OF_PYTHON'
import ctypes, os, sys
from ctypes import c_char_p, c_double, c_int, c_size_t, c_uint64, c_void_p

EFORKED, OK = -60, 0
rank = os.environ.get("SYMPOOL_RANK", "")


def check(name, held, why=""):
    name += "_" + rank if rank else ""
    # one write: two ranks share the pipe
    os.write(1, ("ok %s\n" % name if held else "FAIL %s: %s\n" % (name, why or "not so")).encode())


def end():
    sys.stdout.flush()
    os.write(1, b"end\n")


def load():
    lib = ctypes.CDLL(os.environ["LIBRARY"], mode=os.RTLD_LOCAL | os.RTLD_NOW)
    lib.syp_torch_malloc.restype, lib.syp_torch_malloc.argtypes = c_void_p, (c_size_t, c_int, c_void_p)
    lib.syp_torch_free.restype, lib.syp_torch_free.argtypes = None, (c_void_p, c_size_t, c_int, c_void_p)
    lib.syp_malloc.restype, lib.syp_malloc.argtypes = c_void_p, (c_size_t,)
    lib.syp_free.restype, lib.syp_free.argtypes = None, (c_void_p,)
    lib.syp_pool_base.restype, lib.syp_pool_base.argtypes = c_void_p, (c_int,)
    lib.syp_error_text.restype = c_char_p
    lib.syp_allreduce.argtypes = (c_void_p, c_void_p, c_size_t, c_int, c_int, c_void_p, c_void_p)
    lib.syp_barrier.argtypes = (c_void_p, c_void_p)
    return lib


def text(lib):
    return lib.syp_error_text().decode()


def blocks(lib, name, seed=1, n=200):
    """Blocks of many sizes: aligned to 512, apart from each other, gone afterwards.  0 bytes is NULL."""
    live, wrong = [], ""
    for i in range(n):
        size = (seed * 7919 + i * i * 37) % 100000 + 1
        p = lib.syp_torch_malloc(size, i % 3, c_void_p(i % 2))
        if not p or p % 512:
            wrong = "%d bytes at %s: %s" % (size, p, text(lib))
            break
        ctypes.memset(p, i & 255, size)
        live.append((p, size, i))
    for p, size, i in live:
        if ctypes.string_at(p, size) != bytes([i & 255]) * size:
            wrong = "the content of block %d changed" % i
        lib.syp_torch_free(p, size, i % 3, c_void_p(i % 2))
    if lib.syp_torch_malloc(0, 0, None) is not None:
        wrong = "0 bytes is not NULL"
    if name:
        check(name, not wrong, wrong)
    return not wrong


def in_pool(lib, p):
    return 0 <= p - lib.syp_pool_base(lib.syp_rank()) < 256 << 20


def child_status(fn):
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = fn()
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]
END_OF_PYTHON

# --------------------------------------------------------------------------------------------- without a job
cat >"$T/alone.py" <<'END_OF_PYTHON'
from common import *
import _ctypes, threading

lib = load()
blocks(lib, "before_attach")
check("not_attached", lib.syp_rank() == -1 and lib.syp_world_size() == 0)
results = []
threads = [threading.Thread(target=lambda s=s: results.append(blocks(lib, None, s, 300))) for s in range(8)]
for t in threads: t.start()
for t in threads: t.join()
check("threads", results == [True] * 8, results)
check("fork_without_a_job", child_status(lambda: 0 if blocks(lib, None) else 1) == 0)

again = load()
check("same_handle", again._handle == lib._handle)
kept = lib.syp_torch_malloc(5000, 0, None)
ctypes.memset(kept, 7, 5000)
_ctypes.dlclose(again._handle)
_ctypes.dlclose(lib._handle)
with open("/proc/self/maps") as maps:
    check("dlclose_unloads_nothing", "libsympool.so.0" in maps.read())
check("works_after_dlclose", ctypes.string_at(kept, 5000) == b"\7" * 5000 and blocks(lib, None))
third = load()
check("loaded_again_after_dlclose", third._handle == lib._handle and blocks(third, None))
lib.syp_torch_free(kept, 5000, 0, None)
end()
END_OF_PYTHON
script alone

cat >"$T/one_rank.py" <<'END_OF_PYTHON'
from common import *

lib = load()
early = lib.syp_torch_malloc(1000, 0, None)
rc = lib.syp_init_env()
check("job_of_one", rc == OK and lib.syp_world_size() == 1, text(lib))
live = [lib.syp_torch_malloc(3000 + i, 0, None) for i in range(100)]
check("blocks_in_the_pool", all(p and p % 512 == 0 and in_pool(lib, p) for p in live))
end()  # attached, with live blocks, and no finalize
END_OF_PYTHON
script one_rank

# -------------------------------------------------------------------------------------------------- two ranks
cat >"$T/two_ranks.py" <<'END_OF_PYTHON'
from common import *
import multiprocessing, threading

lib = load()
early = lib.syp_torch_malloc(4000, 0, None)
ctypes.memset(early, 9, 4000)
rc = lib.syp_init_env()
check("attach", rc == OK and lib.syp_world_size() == 2 and lib.syp_rank() == int(rank), text(lib))
blocks(lib, "attached")
live = lib.syp_torch_malloc(100000, 0, None)
ctypes.memset(live, 5, 100000)
check("in_the_pool", in_pool(lib, live) and not in_pool(lib, early))


def sum_of(x, n, what):
    me = lib.syp_rank()
    for i in range(n): x[i] = i + 1000 * me
    rc = lib.syp_allreduce(x, x, n, 1, 1, None, None)  # SYP_FLOAT64, SYP_SUM
    check(what, rc == OK and all(x[i] == 2 * i + 1000 for i in range(n)), text(lib))


sum_of((c_double * 5000)(), 5000, "allreduce_of_a_ctypes_array")
pool = lib.syp_malloc(8 * 5000)
sum_of((c_double * 5000).from_address(pool), 5000, "allreduce_in_the_pool")


def forked():
    x = (c_double * 4)()
    if lib.syp_barrier(None, None) != EFORKED or lib.syp_allreduce(x, x, 4, 1, 1, None, None) != EFORKED: return 1
    if lib.syp_finalize() != EFORKED or "forked child" not in text(lib): return 2
    if ctypes.string_at(live, 100000) != b"\5" * 100000: return 3
    lib.syp_torch_free(live, 100000, 0, None)  # does nothing
    return 0 if blocks(lib, None) else 4


status = child_status(forked)
check("forked_child", status == 0, "wait status %#x" % status)
check("parent_keeps_its_block", ctypes.string_at(live, 100000) == b"\5" * 100000 and lib.syp_check() == OK, text(lib))


def work(queue, seed):
    good = blocks(lib, None, seed) and lib.syp_barrier(None, None) == EFORKED
    queue.put(good)


context = multiprocessing.get_context("fork")
queue = context.Queue()
children = [context.Process(target=work, args=(queue, seed)) for seed in (3, 4)]
for c in children: c.start()
good = [queue.get(timeout=60) for c in children]
for c in children: c.join()
check("multiprocessing", good == [True, True] and [c.exitcode for c in children] == [0, 0], good)

results = []
threads = [threading.Thread(target=lambda s=s: results.append(blocks(lib, None, s, 300))) for s in range(8)]
for t in threads: t.start()
rc = [lib.syp_barrier(None, None) for i in range(50)]
for t in threads: t.join()
check("threads_during_barriers", results == [True] * 8 and rc == [OK] * 50, text(lib))

rc = lib.syp_finalize()
check("finalize", rc == OK and lib.syp_rank() == -1, text(lib))
check("live_blocks_stay", ctypes.string_at(live, 100000) == b"\5" * 100000 and ctypes.string_at(early, 4000) == b"\11" * 4000)
blocks(lib, "after_finalize")
lib.syp_torch_free(live, 100000, 0, None)
end()  # early and pool are live
END_OF_PYTHON
script two_ranks "$B/sympool-run" -n 2 --no-tag

# ---------------------------------------------------------------------------------------------- numpy and torch
if [ "${SYP_CHECK:-}" = long ]; then
    sh tools/deps.sh heavy || fail heavy_packages "tools/deps.sh heavy: exit status $?"
fi
importable() { "$PYTHON" -c "import $1" >/dev/null 2>&1; }

cat >"$T/numpy_array.py" <<'END_OF_PYTHON'
from common import *
import numpy

lib = load()
rc = lib.syp_init_env()
p = lib.syp_torch_malloc(8 * 100000, 0, None)
x = numpy.frombuffer((c_double * 100000).from_address(p), dtype=numpy.float64)
x[:] = numpy.arange(100000) + int(rank)
rc = rc or lib.syp_allreduce(p, p, 100000, 1, 1, None, None)
check("numpy_array_in_the_pool", rc == OK and in_pool(lib, p) and (x == 2 * numpy.arange(100000.0) + 1).all(), text(lib))
rc = lib.syp_finalize()
check("numpy_array_after_finalize", rc == OK and x[99999] == 2 * 99999 + 1, text(lib))
end()
END_OF_PYTHON
if importable numpy; then script numpy_array "$B/sympool-run" -n 2 --no-tag
else echo "SKIP: python3 has no numpy: arrays over pool memory not tried"; fi

cat >"$T/after_torch.py" <<'END_OF_PYTHON'
import torch
from common import *

check("torch_tensor", float(torch.ones(1000, 1000).sum()) == 1e6)
try:
    lib = load()  # its thread-local storage must still find room
except OSError as e:
    check("load_after_torch", False, e)
    sys.exit(1)
blocks(lib, "load_after_torch")
rc = lib.syp_init_env()
x = torch.full((300000,), float(lib.syp_rank() + 1), dtype=torch.float64)
rc = rc or lib.syp_allreduce(x.data_ptr(), x.data_ptr(), 300000, 1, 1, None, None)
check("allreduce_of_a_tensor", rc == OK and bool((x == 3).all()), text(lib))
p = lib.syp_torch_malloc(8 * 1000, 0, None)
y = torch.frombuffer((c_double * 1000).from_address(p), dtype=torch.float64)
y.fill_(float(lib.syp_rank()))
rc = lib.syp_allreduce(p, p, 1000, 1, 3, None, None)  # SYP_MAX
check("tensor_in_the_pool", rc == OK and in_pool(lib, p) and bool((y == 1).all()), text(lib))
check("finalize_with_torch", lib.syp_finalize() == OK and float(y.sum()) == 1000, text(lib))
end()
END_OF_PYTHON
if importable torch; then script after_torch "$B/sympool-run" -n 2 --no-tag
else echo "SKIP: python3 has no torch: loading after torch not tried"; fi
exit $bad
