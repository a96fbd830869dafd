# SPDX-License-Identifier: Apache-2.0
"""
The misuse matrix, from the public header: python3 misuse_gen.py sympool.h > table.c

One entry for each SYP_API function: how to call it with each argument good or bad, and which codes its comment documents.  Arguments are made by
type (MAKERS); a function with a type that is not known here is an error, so that a new one cannot be left out.  What cannot be read from the header
is in the few lists below.
"""
import re
import sys

# C type -> maker of misuse_main.c, called with the kind of value wanted (enum kind)
MAKERS = {
    "int": "make_int", "unsigned": "make_unsigned", "size_t": "make_size", "uint64_t": "make_size", "int64_t": "make_int64",
    "const char *": "make_text", "void *": "make_pointer", "const void *": "make_pointer",
    "syp_comm *": "make_comm", "const syp_comm *": "make_comm", "syp_comm **": "make_comm_out",
    "const int *": "make_ranks", "const size_t *": "make_list", "int *": "make_ints", "uint64_t *": "make_words", "const uint64_t *": "make_words",
    "const void *const *": "make_const_buffers", "void *const *": "make_buffers",
    "syp_dtype": "make_dtype", "syp_op": "make_op", "syp_pool_id": "make_id",
    "const syp_config *": "make_config", "const syp_call *": "make_call", "const syp_scope_attr *": "make_attr",
    "syp_error *": "make_error", "syp_location *": "make_location", "syp_pool_info *": "make_info",
    "syp_request *": "make_request", "syp_request **": "make_request_out",
    "int (*)(void *arg, const syp_block *block)": "make_visit", "void (*)(void *arg, int level, const char *text)": "make_sink",
}
# Memory that is read and written as documented: no wild addresses.
BUFFERS = {(form + name, p) for form in ("syp_", "syp_i") for p in ("send", "recv", "buf") for name in (
    "broadcast", "allreduce", "reduce", "reduce_scatter", "reduce_scatterv", "allgather", "allgatherv", "allgather_rows", "gather", "scatter",
    "alltoall", "alltoallv")} | {("syp_put", "src"), ("syp_get", "dst"), ("syp_put_signal", "src")}
# Values that are good for one argument only, as C expressions.
GOOD = {("syp_init", "n_ranks"): "1", ("syp_init", "local_mem_size"): "1 << 20", ("syp_init", "meta_size"): "1 << 16",
        ("syp_comm_create", "n"): "1", ("syp_init", "ip_port"): "NULL", ("syp_rejoin", "n_ranks"): "0", ("syp_comm_failed", "n"): "2",
        ("syp_comm_split_strided", "n"): "1", ("syp_alltoall", "recv"): "other_buffer()", ("syp_alltoallv", "recv"): "other_buffer()",
        ("syp_allgather_rows", "recv"): "other_buffer()", ("syp_alltoallv", "send_offs"): "no_offsets()", ("syp_alltoallv", "recv_offs"): "no_offsets()",
        ("syp_allgather_rows", "rows"): "2", ("syp_allgather_rows", "recv_stride"): "64",
        ("syp_comm_shrink", "flags"): "0", ("syp_symm_free", "p"): "good_symmetric()",
        ("syp_signal_set", "signal"): "good_symmetric()", ("syp_signal_add", "signal"): "good_symmetric()",
        ("syp_put_signal", "signal"): "good_symmetric()", ("syp_signal_wait", "signal"): "good_symmetric()",
        ("syp_signal_wait", "cmp"): "SYP_GE", ("syp_signal_wait", "value"): "0", ("syp_send", "n"): "1", ("syp_recv", "n"): "1",
        ("syp_sendrecv", "n_send"): "1", ("syp_sendrecv", "n_recv"): "1"}
# What texts call a parameter, when not by its name.
SAID = {"n_ranks": "ranks", "ip_port": "address"}
# int results that are no status, with what they are when not attached.
FIGURES = {"syp_rank": -1, "syp_world_size": 0, "syp_has": 0, "syp_version": None}
# Legal in a process that is not attached.
ANYWHERE = {"syp_last_error", "syp_init", "syp_init_config", "syp_init_env", "syp_owner", "syp_walk", "syp_check"}
# May return SYP_OK, or a number, on a broken group.
ON_BROKEN = {"syp_comm_destroy", "syp_comm_rank", "syp_comm_size", "syp_comm_abort", "syp_comm_buffers_safe", "syp_comm_agree", "syp_comm_failed",
             "syp_comm_shrink", "syp_cancel", "syp_rejoin", "syp_last_error", "syp_init", "syp_init_config", "syp_init_env", "syp_put", "syp_get",
             "syp_signal_set", "syp_signal_add", "syp_put_signal", "syp_signal_wait"}
# Wait for somebody else, who is not there.
WAITS = {"syp_channel_wait", "syp_send", "syp_recv"}
# Pointer results that no failure makes NULL, or that a forked child gets, too.
PRIVATE_ALLOCATION = {"syp_malloc", "syp_calloc", "syp_aligned_alloc", "syp_realloc", "syp_torch_malloc"}


def comments_and_functions(text):
    """(name, result, [(type, name)], comment) in order; a comment without a function of its own goes to all until the next section."""
    functions, shared, last = [], "", ""
    for m in re.finditer(r"/\*(?P<c>.*?)\*/|^SYP_API\s+(?P<f>[^;]*);|^(?P<o>(?:typedef|enum|#define)\b)", text, re.S | re.M):
        if m["c"] is not None:
            if m["c"].strip().startswith("----"):
                shared = ""
            elif "Common to all" in m["c"]:
                shared = m["c"]
            else:
                last = m["c"]
            continue
        if m["o"]:
            continue
        decl = " ".join(m["f"].split())
        head, params = re.match(r"(.*?\bsyp_\w+)\s*\((.*)\)$", decl).groups()
        result, name = re.match(r"(.*?)(syp_\w+)$", head).groups()
        functions.append((name, result.strip(), parameters(name, params), last + shared))
    return functions


def split_commas(params):
    depth, at, out = 0, 0, []
    for i, c in enumerate(params):
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            out.append(params[at:i])
            at = i + 1
    return [p.strip() for p in out + [params[at:]]]


def parameters(function, params):
    if params == "void":
        return []
    out = []
    for p in split_commas(params):
        m = re.match(r"(.*\(\*)(\w+)(\)\(.*\))$", p)
        kind, name = (m[1] + m[3], m[2]) if m else re.match(r"(.*?)(\w+)$", p).groups()
        kind = kind.strip()
        if kind not in MAKERS:
            sys.exit("misuse_gen: %s: no maker for the type \"%s\" of %s; add one to MAKERS and misuse_main.c" % (function, kind, name))
        out.append((kind, name))
    return out


def documented(functions):
    """Codes named in each comment, and in those of the functions it says it is like."""
    own = {f[0]: set(re.findall(r"SYP_E[A-Z]+\b", f[3])) for f in functions}
    for name, _, _, comment in functions:
        if "result as of the blocking form" in comment:
            own[name] |= own["syp_allreduce"]
    like = {f[0]: set(re.findall(r"(?:[Aa]s|as for|As for|as by|As in|as in|see)\s+(syp_\w+)", f[3])) & set(own) for f in functions}
    for _ in range(4):
        for name in own:
            for other in like[name]:
                own[name] |= own[other]
    return own


def result_kind(name, result):
    if result == "void":
        return "RETURNS_NOTHING"
    if result == "void *":
        return "RETURNS_MEMORY"
    if result == "const char *":
        return "RETURNS_TEXT"
    if result == "int64_t":
        return "RETURNS_AMOUNT"
    if result == "size_t":
        return "RETURNS_SIZE"
    if result == "int":
        return "RETURNS_FIGURE" if name in FIGURES else "RETURNS_STATUS"
    sys.exit("misuse_gen: %s: unknown result type \"%s\"" % (name, result))


def main():
    with open(sys.argv[1]) as header:
        functions = comments_and_functions(header.read())
    codes = documented(functions)
    print("/* Made by misuse_gen.py. */\n#include \"tests/fault/misuse.h\"\n")
    for name, result, params, _ in functions:
        print("static long call_%s(const enum kind *k) {" % name)
        print("    (void)k;")
        args = []
        for i, (kind, p) in enumerate(params):
            maker = "make_buffer" if (name, p) in BUFFERS else MAKERS[kind]
            value = "%s(k[%d])" % (maker, i)
            if (name, p) in GOOD:
                value = "k[%d] == GOOD ? (%s)(%s) : %s" % (i, kind, GOOD[name, p], value)
            args.append(value)
        call = "%s(%s)" % (name, ", ".join(args))
        if result == "void":
            print("    %s;\n    return 0;\n}\n" % call)
        else:
            print("    return (long)%s;\n}\n" % call)
    print("const struct entry entries[] = {")
    for name, result, params, _ in functions:
        known = " ".join(sorted(codes[name]))
        flags = [flag for flag, members in (("ANYWHERE", ANYWHERE), ("ON_BROKEN", ON_BROKEN), ("PRIVATE_ALLOCATION", PRIVATE_ALLOCATION),
                                             ("WAITS", WAITS))
                 if name in members]
        print("    {\"%s\", call_%s, %s, %d, {%s}, {%s}, \"%s \", %s, %d}," % (
            name, name, result_kind(name, result), len(params), ", ".join("\"%s\"" % p for _, p in params) or "NULL",
            ", ".join("\"%s\"" % SAID.get(p, p) for _, p in params) or "NULL", known,
            " | ".join(flags) or "0", FIGURES.get(name) or 0))
    print("};\nconst int n_entries = sizeof entries / sizeof entries[0];")
    if len(functions) != len(re.findall(r"^SYP_API\b", open(sys.argv[1]).read(), re.M)):
        sys.exit("misuse_gen: not every SYP_API line was understood")


main()
