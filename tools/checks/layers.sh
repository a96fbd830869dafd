#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The layer law, from the #include lines: pool/base <- pool <- bootstrap <- collectives <- allocator <- tools, tests.
# A folder includes only itself and folders to its left; anyone may include allocator/sympool.h. The tools know the
# public header and their own folder; besides, stat knows pool/stats_shared.h, and run pool/topo/topo.h. allocator/compat are
# libraries of their own: they know the public header, their own folder and pool/base/text.h. Every source file says its
# licence first.
cd "$(dirname "$0")/../.." || exit 1

find pool bootstrap collectives allocator tools tests -name '*.[ch]' | sort | xargs awk '
function fail(text) { print "FAIL layers: " FILENAME ":" FNR ": " text; failed = 1 }
# How far to the right a path lies; 0 = no folder of ours.
function layer(path) {
    if (path ~ /^pool\/base\//) return 1
    if (path ~ /^pool\//) return 2
    if (path ~ /^bootstrap\//) return 3
    if (path ~ /^collectives\//) return 4
    if (path ~ /^allocator\//) return 5
    if (path ~ /^tools\//) return 6
    if (path ~ /^tests\//) return 7
    return 0
}
function folder(path) { sub(/\/[^\/]*$/, "", path); return path }

FNR == 1 {
    files++
    if ($0 != "/* SPDX-License-Identifier: Apache-2.0 */") fail("the first line is not the SPDX line")
}
/^[ \t]*#[ \t]*include/ {
    includes++
    what = $0
    sub(/^[ \t]*#[ \t]*include[ \t]*/, "", what)
    form = substr(what, 1, 1)
    path = substr(what, 2)
    sub(/[">].*/, "", path)
    if (form == "<") {
        if (layer(path)) fail("<" path ">: our own headers are included in quotes")
        else if (FILENAME ~ /^allocator\/(sympool|compat\/shm)[.]h$/ && path != "stddef.h" && path != "stdint.h")
            fail("the public header includes <stddef.h> and <stdint.h> only, not <" path ">")
        next
    }
    if (form != "\"") { fail("an include this check cannot read: " $0); next }
    if (FILENAME == "allocator/sympool.h") { fail("the public header includes \"" path "\""); next }
    if (path == "allocator/sympool.h") next
    from = layer(FILENAME)
    to = layer(path)
    if (path ~ /(^|\/)\.\.?\// || to == 0) { fail("\"" path "\" is not written from the root of the repository"); next }
    if (FILENAME ~ /^allocator\/compat\// && path !~ /^(allocator\/compat\/.*|pool\/base\/text[.]h)$/)
        fail("a library on top of ours may not include \"" path "\"")
    if (from != 7 && path ~ /^allocator\/compat\// && FILENAME !~ /^allocator\/compat\//)
        fail("\"" path "\" belongs to a library on top of ours")
    if (from == 6) {
        if (folder(path) == folder(FILENAME)) next
        if (FILENAME ~ /^tools\/stat\// && path == "pool/stats_shared.h") next
        if (FILENAME ~ /^tools\/run\// && path == "pool/topo/topo.h") next
        fail("a tool may not include \"" path "\"")
        next
    }
    if (FILENAME ~ /^tests\/fuzz\// && path ~ /^tools\/stat\/.*[.]c$/) next # a target of the file itself
    if (to > from || to == 6) fail("\"" path "\" lies to the right of " folder(FILENAME))
}
END {
    if (!includes) { print "FAIL layers: no source file found"; failed = 1 }
    if (!failed) print "ok layers: " includes " includes in " files " files"
    exit failed
}'
