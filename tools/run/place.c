/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which processors each rank may use: a share of the launcher's own, chosen by the placement module (which knows cores,
 * caches and nodes), or by a plain split of the affinity mask when the module is not there.  With numa, the share grows
 * to whole nodes. Never more than the launcher itself may use.
 */
#include "tools/run/run.h"

#include "pool/topo/topo.h"

#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORD_BITS (8 * sizeof(unsigned long))

static int has(const struct cpus *set, size_t cpu) {
    return (int)(set->bits[cpu / WORD_BITS] >> (cpu % WORD_BITS) & 1ul);
}
static void add(struct cpus *set, size_t cpu) {
    set->bits[cpu / WORD_BITS] |= 1ul << (cpu % WORD_BITS);
}

static int count(const struct cpus *set) {
    int n = 0;
    for (size_t cpu = 0; cpu < PLACE_CPUS; cpu++)
        n += has(set, cpu);
    return n;
}

static int overlap(const struct cpus *a, const struct cpus *b) {
    for (size_t i = 0; i < sizeof a->bits / sizeof a->bits[0]; i++)
        if ((a->bits[i] & b->bits[i]) != 0) return 1;
    return 0;
}

/* "0-3,8" and a line end.  0, or -1 when it is anything else. */
static int parse_list(const char *s, struct cpus *out) {
    memset(out, 0, sizeof *out);
    while (*s != '\0' && *s != '\n') {
        char *end;
        if (!isdigit((unsigned char)*s)) return -1;
        unsigned long first = strtoul(s, &end, 10), last = first;
        if (*end == '-') {
            if (!isdigit((unsigned char)end[1])) return -1;
            last = strtoul(end + 1, &end, 10);
        }
        if (last < first || last >= PLACE_CPUS) return -1;
        for (; first <= last; first++)
            add(out, first);
        if (*end == ',')
            end++;
        else if (*end != '\0' && *end != '\n')
            return -1;
        s = end;
    }
    return 0;
}

void place_text(const struct cpus *set, char *text, size_t cap) {
    size_t len = 0;
    text[0] = '\0';
    for (size_t cpu = 0; cpu < PLACE_CPUS && len < cap; cpu++) {
        if (!has(set, cpu)) continue;
        size_t last = cpu;
        while (last + 1 < PLACE_CPUS && has(set, last + 1))
            last++;
        int wrote = last > cpu ? snprintf(text + len, cap - len, "%s%zu-%zu", len ? "," : "", cpu, last)
                               : snprintf(text + len, cap - len, "%s%zu", len ? "," : "", cpu);
        len += wrote > 0 ? (size_t)wrote : 0;
        cpu = last;
    }
}

/* The module, looked for where the library looks: SYMPOOL_MODULE_DIR, beside this program, its installed place. */
static const struct topo_ops *open_module(void) {
    char self[4096], path[3][4200];
    const char *dir = getenv("SYMPOOL_MODULE_DIR");
    int n = 0;
    if (dir != NULL && dir[0] != '\0') snprintf(path[n++], sizeof path[0], "%s/sympool-topo.so", dir);
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len > 0) {
        self[len] = '\0';
        *strrchr(self, '/') = '\0';
        snprintf(path[n++], sizeof path[0], "%s/modules/sympool-topo.so", self);
        snprintf(path[n++], sizeof path[0], "%s/../lib/sympool/sympool-topo.so", self);
    }
    for (int i = 0; i < n; i++) {
        void *module = dlopen(path[i], RTLD_NOW | RTLD_LOCAL);
        const struct topo_ops *ops = module != NULL ? dlsym(module, "sympool_topo") : NULL;
        if (ops != NULL && ops->abi == TOPO_ABI) return ops;
    }
    return NULL;
}

/* The r-th of n equal parts of the allowed processors, in numerical order; one processor each when there are too few.
 */
static void split_plainly(const struct cpus *allowed, int r, int n, struct cpus *out) {
    int m = count(allowed), i = 0;
    int first = m >= n ? r * m / n : r % m;
    int end = m >= n ? (r + 1) * m / n : first + 1;
    memset(out, 0, sizeof *out);
    for (size_t cpu = 0; cpu < PLACE_CPUS; cpu++) {
        if (!has(allowed, cpu)) continue;
        if (i >= first && i < end) add(out, cpu);
        i++;
    }
}

/* Add all allowed processors of the NUMA nodes that the set touches. */
static void grow_to_nodes(const struct cpus *allowed, struct cpus *set) {
    const struct cpus share = *set;
    DIR *dir = opendir("/sys/devices/system/node");
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        char path[320], line[4096] = "";
        struct cpus node;
        if (strncmp(e->d_name, "node", 4) != 0 || !isdigit((unsigned char)e->d_name[4])) continue;
        snprintf(path, sizeof path, "/sys/devices/system/node/%s/cpulist", e->d_name);
        FILE *f = fopen(path, "re");
        if (f == NULL) continue;
        if (fgets(line, sizeof line, f) != NULL && parse_list(line, &node) == 0 && overlap(&node, &share))
            for (size_t i = 0; i < sizeof node.bits / sizeof node.bits[0]; i++)
                set->bits[i] |= node.bits[i] & allowed->bits[i];
        fclose(f);
    }
    if (dir != NULL) closedir(dir);
}

static int ask_module(const struct topo_ops *ops, const struct cpus *allowed, int r, int n, struct cpus *out) {
    char list[4096];
    const char *why = NULL;
    if (ops == NULL || ops->processors(NULL, r, n, list, sizeof list, &why) != 0 || parse_list(list, out) != 0)
        return -1;
    for (size_t i = 0; i < sizeof out->bits / sizeof out->bits[0]; i++)
        out->bits[i] &= allowed->bits[i];
    return count(out) > 0 ? 0 : -1;
}

int place_ranks(const struct options *opt, struct placement *out) {
    struct cpus allowed = {{0}};
    *out = (struct placement){.how = "not bound"};
    if (opt->bind == BIND_NONE) return 0;
    if (sched_getaffinity(0, sizeof allowed, (cpu_set_t *)(void *)&allowed) < 0 || count(&allowed) == 0) return 0;
    if (opt->bind == BIND_AUTO && opt->n > count(&allowed)) return 0;
    out->ranks = calloc((size_t)opt->n, sizeof out->ranks[0]);
    if (out->ranks == NULL) {
        fputs("sympool-run: out of memory\n", stderr);
        return EXIT_ERROR;
    }
    const struct topo_ops *ops = open_module();
    out->bound = 1;
    out->how = "bound by the placement module";
    for (int r = 0; r < opt->n; r++) {
        if (ask_module(ops, &allowed, r, opt->n, &out->ranks[r]) != 0) {
            split_plainly(&allowed, r, opt->n, &out->ranks[r]);
            out->how = "bound by a plain split of the processors (no placement module)";
        }
        if (opt->bind == BIND_NUMA) grow_to_nodes(&allowed, &out->ranks[r]);
    }
    return 0;
}
