# SPDX-License-Identifier: Apache-2.0
"""How the traces were recorded:

    OPENBLAS_NUM_THREADS=1 valgrind --trace-malloc=yes python3 train.py 2>&1 | python3 record.py 4096 | head -n 12000 > numpy-train.trace

with CPython 3.11, NumPy 1.24 and valgrind 3.19, and the same for serve.py.  Blocks of 4 KiB and more; one event a line:
+BYTES is the next allocation (numbered from 0), -NUMBER frees that one.  What is live at the end stays live.
"""
import re
import sys

least = int(sys.argv[1])
number = {}  # address -> number of the live block there
count = 0


def add(address, size):
    global count
    if address and size >= least:
        number[address] = count
        count += 1
        print(f"+{size}")


def remove(address):
    if address in number:
        print(f"-{number.pop(address)}")


for line in sys.stdin:
    line = re.sub(r"realloc\(0x0,\d+\)", "", line)  # the malloc it becomes is on the same line
    m = re.match(r"--\d+-- (\w+)\((.*)\)(?: = 0x([0-9A-F]+))?", line)
    if not m:
        continue
    call, arguments, result = m.groups()
    values = [int(a, 16) if a.startswith("0x") else int(a) for a in arguments.split(",")]
    address = int(result, 16) if result else 0
    if call == "free":
        remove(values[0])
    elif call == "malloc":
        add(address, values[0])
    elif call == "calloc":
        add(address, values[0] * values[1])
    elif call == "realloc":  # a new block, then the old one goes
        old = number.pop(values[0], None)
        add(address, values[1])
        if old is not None:
            print(f"-{old}")
