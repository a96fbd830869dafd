#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The library opened by dlopen in every way that programs have: twice, under another name, with RTLD_DEEPBIND, with RTLD_GLOBAL, closed again, after
# numpy and torch have taken their thread-local storage; and a copy of the file beside it, of which only one may attach.
# Run from the top of the repository; B = build folder.
set -u
B=${B:-build}
PYTHON=/usr/bin/python3 # Debian's modules belong to Debian's interpreter
T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
trap 'exit 1' INT TERM
for name in $(env | sed -n 's/^\(SYMPOOL_[A-Z_]*\)=.*/\1/p'); do unset "$name"; done
LIBRARY=$(cd "$B" && pwd)/libsympool.so.0
export LIBRARY T PYTHONDONTWRITEBYTECODE=1 SYMPOOL_LOCAL_MEM_SIZE=16777216
cp "$LIBRARY" "$T/libcopy.so"
ln -s "$LIBRARY" "$T/liblink.so"
bad=0

cat >"$T/common.py" <<'END_OF_PYTHON'
import ctypes, os
from _ctypes import dlclose
OK, EINVAL, ESTATE = 0, -1, -3
LIBRARY, COPY, LINK = os.environ["LIBRARY"], os.environ["T"] + "/libcopy.so", os.environ["T"] + "/liblink.so"

def check(name, held, why=""):
    os.write(1, ("ok %s\n" % name if held else "FAIL %s: %s\n" % (name, why or "not so")).encode())

def load(path, mode=os.RTLD_LOCAL):
    lib = ctypes.CDLL(path, mode=mode | os.RTLD_NOW)
    for f in ("syp_malloc", "syp_pool_base"):
        getattr(lib, f).restype = ctypes.c_void_p
    lib.syp_malloc.argtypes, lib.syp_free.argtypes = (ctypes.c_size_t,), (ctypes.c_void_p,)
    lib.syp_error_text.restype = ctypes.c_char_p
    return lib

def text(lib):
    return lib.syp_error_text().decode()

def works(lib):
    rc = lib.syp_init_env()
    x = (ctypes.c_double * 100)(*range(100))
    rc = rc or lib.syp_allreduce(x, x, ctypes.c_size_t(100), 1, 1, None, None)
    p = lib.syp_malloc(100000)
    ctypes.memset(p, 1, 100000)
    lib.syp_free(p)
    return rc == OK and x[99] == 99 and lib.syp_check() == OK and lib.syp_finalize() == OK
END_OF_PYTHON

# script NAME: its last line is "end"; nothing may be written to stderr
script() {
    timeout -k 5 120 "$PYTHON" "$T/$1.py" >"$T/out" 2>"$T/err" </dev/null
    rc=$?
    grep -v '^end$' "$T/out"
    grep -q '^FAIL' "$T/out" && bad=1
    if [ $rc -ne 0 ] || [ "$(tail -n 1 "$T/out")" != end ] || [ -s "$T/err" ]; then
        echo "FAIL $1: exit status $rc: $(tail -n 5 "$T/err")"
        bad=1
    fi
}

cat >"$T/ways.py" <<'END_OF_PYTHON'
from common import *
first = load(LIBRARY)
check("opened", works(first), text(first))
again = load(LIBRARY)
check("opened_twice_is_one", again._handle == first._handle and works(again))
link = load(LINK)
check("another_name_of_the_file_is_one", link._handle == first._handle and works(link))
early = first.syp_malloc(5000)
ctypes.memset(early, 7, 5000)
for lib in (link, again, first):
    dlclose(lib._handle)
check("dlclose_is_a_no_op", ctypes.string_at(early, 5000) == b"\7" * 5000 and works(first))
back = load(LIBRARY)
check("opened_again_it_knows_its_blocks", back._handle == first._handle)
back.syp_free(early)
os.write(1, b"end\n")
END_OF_PYTHON
script ways

for mode in RTLD_DEEPBIND RTLD_GLOBAL RTLD_NODELETE; do
    cat >"$T/mode.py" <<END_OF_PYTHON
from common import *
lib = load(LIBRARY, os.$mode)
check("opened_with_$mode", works(lib) and works(lib), text(lib))
dlclose(lib._handle)
check("closed_with_$mode", works(lib), text(lib))
os.write(1, b"end\n")
END_OF_PYTHON
    script mode
done

cat >"$T/copies.py" <<'END_OF_PYTHON'
from common import *
one, two = load(LIBRARY), load(COPY)
check("a_copy_is_another_library", one._handle != two._handle)
check("a_copy_alone_works", works(two) and works(one) and works(two), text(two))
p, q = one.syp_malloc(1000), two.syp_malloc(1000)
check("private_memory_of_both", p and q and p != q)
rc = one.syp_init_env()
check("the_first_attaches", rc == OK, text(one))
rc = two.syp_init_env()
check("the_copy_is_refused", rc == ESTATE and LIBRARY in text(two) and "copy" in text(two), "%d: %s" % (rc, text(two)))
check("and_is_as_before", two.syp_rank() == -1 and two.syp_malloc(100) is not None and one.syp_barrier(None, None) == OK)
check("the_first_leaves", one.syp_finalize() == OK)
rc = two.syp_init_env()
check("then_the_copy_attaches", rc == OK, text(two))
rc = one.syp_init_env()
check("and_the_first_is_refused", rc == ESTATE and "libcopy.so" in text(one), text(one))
pid = os.fork()
if pid == 0:
    os._exit(0 if works(one) else 1)  # the child has no job: one copy is a forked child, the other is free
check("a_child_may_use_the_other_copy", os.waitpid(pid, 0)[1] == 0)
check("the_copy_leaves", two.syp_finalize() == OK)
rc = one.syp_init(5, 2, ctypes.c_uint64(1 << 20), ctypes.c_uint64(0), None)
check("a_failed_init_claims_nothing", rc == EINVAL and works(two) and works(one), text(one))
one.syp_free(p)
two.syp_free(q)
os.write(1, b"end\n")
END_OF_PYTHON
script copies

# The archive inside a program, and the shared object beside it.
cat >"$T/both.c" <<'END_OF_C'
#include "allocator/sympool.h"
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv) {
    void *so = dlopen(argv[argc - 1], RTLD_NOW | RTLD_LOCAL);
    int (*init)(void) = so ? (int (*)(void))dlsym(so, "syp_init_env") : NULL;
    const char *(*why)(void) = so ? (const char *(*)(void))dlsym(so, "syp_error_text") : NULL;
    if (!init || !why || init == syp_init_env || syp_init_env() != SYP_OK) return 1;
    int rc = init();
    if (rc != SYP_ESTATE || !strstr(why(), "the program itself")) {
        printf("%d: %s\n", rc, why());
        return 2;
    }
    return syp_finalize() == SYP_OK && init() == SYP_OK && syp_init_env() == SYP_ESTATE ? 0 : 3;
}
END_OF_C
if ${CC:-gcc} -std=c11 -D_GNU_SOURCE -I. -o "$T/both" "$T/both.c" "$B/libsympool.a" -ldl -lpthread && "$T/both" "$LIBRARY" >"$T/out" 2>&1; then
    echo "ok archive_and_shared_object"
else
    echo "FAIL archive_and_shared_object: $(cat "$T/out")"
    bad=1
fi

# After libraries with much thread-local storage: there must still be room for ours.
for module in numpy torch; do
    if ! "$PYTHON" -c "import $module" >/dev/null 2>&1; then
        echo "SKIP: python3 has no $module: loading after it not tried"
        continue
    fi
    cat >"$T/after.py" <<END_OF_PYTHON
import $module
from common import *
lib = load(LIBRARY)
check("opened_after_$module", works(lib), text(lib))
copy = load(COPY)
check("copy_opened_after_$module", works(copy) and works(lib), text(copy))
os.write(1, b"end\n")
END_OF_PYTHON
    script after
done

# ------------------------------------------------------------------------------------------- multiprocessing
cat >"$T/worker.py" <<'END_OF_PYTHON'
import ctypes
EFORKED, ESTATE = -60, -3

def work(path, queue):
    """In a child of any kind: no part in the job, memory of its own."""
    lib = ctypes.CDLL(path)
    lib.syp_malloc.restype, lib.syp_malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    lib.syp_free.argtypes = (ctypes.c_void_p,)
    wrong = ""
    for i in range(50):
        p = lib.syp_malloc(100000 + i)
        if not p: wrong = "malloc"
        ctypes.memset(p, i, 100000)
        lib.syp_free(p)
    queue.put((lib.syp_barrier(None, None), lib.syp_rank(), lib.syp_check(), wrong))
END_OF_PYTHON
cat >"$T/multi.py" <<'END_OF_PYTHON'
import multiprocessing, sys
sys.path.insert(0, __file__.rsplit("/", 1)[0])
from worker import *
from common import *

if __name__ == "__main__":
    lib = load(LIBRARY)
    assert lib.syp_init_env() == OK, text(lib)
    p = lib.syp_malloc(300000)
    ctypes.memset(p, 5, 300000)
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        children = [context.Process(target=work, args=(LIBRARY, queue)) for i in range(3)]
        for c in children: c.start()
        answers = [queue.get(timeout=60) for c in children]
        for c in children: c.join()
        # a forked child of this rank; the others are programs of their own
        wanted = [(EFORKED, -1, EFORKED, "") if method == "fork" else (ESTATE, -1, OK, "")] * 3
        check("multiprocessing_" + method, answers == wanted and [c.exitcode for c in children] == [0] * 3, answers)
        check("rank_after_" + method, ctypes.string_at(p, 300000) == b"\5" * 300000 and lib.syp_check() == OK and lib.syp_barrier(None, None) == OK)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        check("pool_of_workers", pool.map(abs, range(-100, 0)) == list(range(100, 0, -1)))
    lib.syp_free(p)
    check("finalize", lib.syp_finalize() == OK, text(lib))
    os.write(1, b"end\n")
END_OF_PYTHON
script multi
exit $bad
