/* SPDX-License-Identifier: Apache-2.0 */
/* Limits on memory, from faked /proc and cgroup files: every shape of hierarchy, and files that are not there. */
#include "pool/base/headroom.h"

#include "pool/base/conf.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "tests/support/check.h"

#include <errno.h>
#include <stdlib.h>

#define MIB (1ull << 20)

/* ------------------------------------------------------------------------------------------------- fake files */

struct file {
    const char *path, *text; /* text NULL: may not be read */
};

static const struct file *files;
static size_t file_pos[64];
static unsigned n_opened;
static const struct os_ops *below_os;

static int fake_open_read(const char *path) {
    n_opened++;
    for (int i = 0; files[i].path; i++) {
        if (strcmp(files[i].path, path) != 0) continue;
        file_pos[i] = 0;
        return files[i].text ? 10000 + i : -EACCES;
    }
    return -ENOENT;
}

/* Three bytes less than asked for, so that lines are met in pieces. */
static int64_t fake_read(int fd, void *buf, size_t len) {
    const char *from = files[fd - 10000].text + file_pos[fd - 10000];
    size_t n = strlen(from);
    if (len > 7) len -= 3;
    if (n > len) n = len;
    memcpy(buf, from, n);
    file_pos[fd - 10000] += n;
    return (int64_t)n;
}

static int fake_close(int fd) {
    CHECK(fd >= 10000);
    return 0;
}

static int fake_pid_value = 100;
static int fake_pid(void) {
    return fake_pid_value;
}

static void fake_on(const struct file *list) {
    static struct os_ops table;
    table = os_linux;
    table.open_read = fake_open_read;
    table.read = fake_read;
    table.close = fake_close;
    table.pid = fake_pid;
    files = list;
    below_os = os_swap(&table);
    headroom_find();
}

static void fake_off(void) {
    os_swap(below_os);
}

/* How much may be committed just so, by trying. */
static uint64_t most(void) {
    uint64_t low = 0, high = 1ull << 50;
    if (headroom_check(high, NULL) == SYP_OK) return UINT64_MAX;
    while (low < high) {
        uint64_t middle = low + (high - low + 1) / 2;
        if (headroom_check(middle, NULL) == SYP_OK)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

#define MARGIN (16 * MIB)
#define V1_MOUNT "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
#define V2_MOUNT "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
#define OTHER_MOUNTS                                                                                                   \
    "23 1 8:1 / / rw - ext4 /dev/root rw\n32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n"

/* ----------------------------------------------------------------------------------------------------- tests */

static void the_smallest_ancestor_of_v2_limits(void) {
    static const struct file list[] = {{"/proc/self/cgroup", "0::/user/job/step\n"},
                                       {"/proc/self/mountinfo", OTHER_MOUNTS V2_MOUNT},
                                       {"/sys/fs/cgroup/user/job/step/memory.max", "max\n"},
                                       {"/sys/fs/cgroup/user/job/step/memory.current", "1048576\n"},
                                       {"/sys/fs/cgroup/user/job/memory.max", "209715200\n"},
                                       {"/sys/fs/cgroup/user/job/memory.current", "104857600\n"},
                                       {"/sys/fs/cgroup/user/job/memory.stat", "anon 1\nfile 9999\n"},
                                       {"/sys/fs/cgroup/user/memory.max", "1073741824\n"},
                                       {"/sys/fs/cgroup/user/memory.current", "104857600\n"},
                                       {NULL, NULL}};
    uint64_t left;
    fake_on(list);
    CHECK_EQ(most(), 100 * MIB - MARGIN);
    CHECK_EQ(headroom_check(10 * MIB, &left), SYP_OK);
    CHECK_EQ(left, 90 * MIB - MARGIN);
    CHECK_EQ(headroom_check(90 * MIB, NULL), SYP_ENOMEM);
    CHECK_HAS(syp_error_text(), "memory cgroup /sys/fs/cgroup/user/job:");
    CHECK_HAS(syp_error_text(), "limit 200 MiB, in use 100 MiB");
    CHECK_HAS(syp_error_text(), "requested 90 MiB");
    CHECK_HAS(syp_error_text(), "memory.max");
    CHECK_HAS(syp_error_text(), "SYMPOOL_MEMORY_CHECK");
    fake_off();
}

static void v1_and_the_cache_that_can_be_dropped(void) {
    static const struct file list[] = {
        {"/proc/self/cgroup", "5:cpu,cpuacct:/\n4:hugetlb,memory:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n"},
        {"/proc/self/mountinfo", OTHER_MOUNTS "35 31 0:32 / /cg/mem\\040ory rw - cgroup cgroup rw,hugetlb,memory\n"},
        {"/cg/mem ory/docker/abc/memory.limit_in_bytes", "67108864\n"},
        {"/cg/mem ory/docker/abc/memory.usage_in_bytes", "62914560\n"},
        {"/cg/mem ory/docker/abc/memory.stat",
         "cache 1\ninactive_file 7\nactive_file 7\ntotal_cache 5\ntotal_inactive_file 31457280\ntotal_active_file 10485760\n"},
        {"/cg/mem ory/memory.limit_in_bytes", "9223372036854771712\n"},
        {"/cg/mem ory/memory.usage_in_bytes", "629145600\n"},
        {NULL, NULL}};
    fake_on(list);
    CHECK_EQ(most(), 44 * MIB - MARGIN);
    CHECK_EQ(headroom_check(29 * MIB, NULL), SYP_ENOMEM);
    CHECK_HAS(syp_error_text(), "/cg/mem ory/docker/abc: limit 64 MiB, in use 60 MiB (40 MiB of it droppable cache)");
    CHECK_HAS(syp_error_text(), "memory.limit_in_bytes");
    fake_off();
}

static void hybrid_hierarchies_both_limit(void) {
    static struct file list[] = {{"/proc/self/cgroup", "4:memory:/a\n0::/b\n"},
                                 {"/proc/self/mountinfo", V1_MOUNT "42 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n"},
                                 {"/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "104857600\n"},
                                 {"/sys/fs/cgroup/memory/a/memory.usage_in_bytes", "0\n"},
                                 {"/sys/fs/cgroup/unified/b/memory.max", "52428800\n"},
                                 {"/sys/fs/cgroup/unified/b/memory.current", "0\n"},
                                 {NULL, NULL}};
    fake_on(list);
    CHECK_EQ(most(), 50 * MIB - MARGIN);
    list[4].text = "max\n";
    CHECK_EQ(most(), 100 * MIB - MARGIN);
    list[2].text = NULL; /* may not be read: no limit known */
    CHECK_EQ(most(), UINT64_MAX);
    fake_off();
}

/* What a process sees of its place: in namespaces, through bind mounts, from outside. */
static void namespaced_paths(void) {
    static const struct {
        const char *cgroup, *mounts, *limited; /* directory that is looked at, NULL = none can be seen */
    } cases[] = {
        {"0::/\n", V2_MOUNT, "/sys/fs/cgroup"},
        {"4:memory:/docker/abc\n", "35 31 0:32 /docker/abc /m rw - cgroup cgroup rw,memory\n", "/m"},
        {"4:memory:/docker/abc/in\n", "35 31 0:32 /docker/abc /m rw - cgroup cgroup rw,memory\n", "/m/in"},
        {"4:memory:/docker/abcd\n", "35 31 0:32 /docker/abc /m rw - cgroup cgroup rw,memory\n", NULL},
        {"0::/\n", "41 31 0:38 /.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup"},
        {"0::/../other\n", V2_MOUNT, NULL},
        {"0::/a\n", OTHER_MOUNTS, NULL},
        {"4:cpu:/a\n", V1_MOUNT, NULL},
        {"0::/x/y\n", "41 31 0:38 /x/y /deep rw - cgroup2 c rw\n41 31 0:38 / /top rw - cgroup2 c rw\n", "/top/x/y"},
        {"0::/x/y\n", "41 31 0:38 / /top rw - cgroup2 c rw\n41 31 0:38 /x/y /deep rw - cgroup2 c rw\n", "/top/x"},
        {"garbage\n\n::\n0:\n", "garbage\n\n - \na b c d e f - cgroup2 x y\n", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char max[128] = "/-", usage[128] = "/-";
        struct file list[] = {{"/proc/self/cgroup", cases[i].cgroup},
                              {"/proc/self/mountinfo", cases[i].mounts},
                              {max, "52428800\n"},
                              {usage, "0\n"},
                              {NULL, NULL}};
        if (cases[i].limited) {
            snprintf(max, sizeof max, "%s/%s", cases[i].limited, strstr(cases[i].mounts, "cgroup2") ? "memory.max" : "memory.limit_in_bytes");
            snprintf(usage, sizeof usage, "%s/%s", cases[i].limited,
                     strstr(cases[i].mounts, "cgroup2") ? "memory.current" : "memory.usage_in_bytes");
        }
        fake_on(list);
        uint64_t got = most();
        if (!CHECK(got == (cases[i].limited ? 50 * MIB - MARGIN : UINT64_MAX))) fprintf(stderr, "case %zu: %llu\n", i, (unsigned long long)got);
        fake_off();
    }
}

/* The list of layers of a container's root may be longer than any buffer. */
static void a_long_line_of_mounts_is_passed_over(void) {
    static char mounts[20000];
    const struct file list[] = {{"/proc/self/cgroup", "0::/a\n"},
                                {"/proc/self/mountinfo", mounts},
                                {"/sys/fs/cgroup/a/memory.max", "52428800"},
                                {"/sys/fs/cgroup/a/memory.current", "0"},
                                {NULL, NULL}};
    for (size_t len = 4000; len < 9000; len += 7) {
        memset(mounts, 'x', len);
        snprintf(mounts + len, sizeof mounts - len, "\n%s", V2_MOUNT);
        fake_on(list);
        CHECK_EQ(most(), 50 * MIB - MARGIN);
        fake_off();
    }
}

static void usage_beyond_the_limit_refuses_all(void) {
    static const struct file list[] = {{"/proc/self/cgroup", "0::/a\n"},
                                       {"/proc/self/mountinfo", V2_MOUNT},
                                       {"/sys/fs/cgroup/a/memory.max", "52428800\n"},
                                       {"/sys/fs/cgroup/a/memory.current", "62428800\n"},
                                       {NULL, NULL}};
    fake_on(list);
    CHECK_EQ(headroom_check(1, NULL), SYP_ENOMEM);
    CHECK_EQ(headroom_check(UINT64_MAX, NULL), SYP_ENOMEM);
    fake_off();
}

static void the_machine_limits_too(void) {
    static const struct file list[] = {
        {"/proc/meminfo", "MemTotal:        1024000 kB\nMemFree: 5 kB\nMemAvailable:     512000 kB\nBuffers: 7 kB\n"}, {NULL, NULL}};
    fake_on(list);
    CHECK_EQ(most(), 500 * MIB - MARGIN);
    CHECK_EQ(headroom_check(600 * MIB, NULL), SYP_ENOMEM);
    CHECK_HAS(syp_error_text(), "this machine: memory 1000 MiB, available 500 MiB, requested 600 MiB");
    fake_off();
}

static void nothing_known_limits_nothing(void) {
    static const struct file none[] = {{NULL, NULL}};
    static const struct file old[] = {{"/proc/meminfo", "MemTotal: 1024000 kB\n"}, {NULL, NULL}}; /* before Linux 3.14 */
    fake_on(none);
    CHECK_EQ(most(), UINT64_MAX);
    fake_off();
    fake_on(old);
    CHECK_EQ(most(), UINT64_MAX);
    fake_off();
}

static void off_reads_nothing_and_margin_counts(void) {
    static const struct file list[] = {{"/proc/meminfo", "MemTotal: 1024000 kB\nMemAvailable: 512000 kB\n"}, {NULL, NULL}};
    setenv("SYMPOOL_MEMORY_CHECK", "off", 1);
    conf_reset();
    fake_on(list);
    n_opened = 0;
    CHECK_EQ(most(), UINT64_MAX);
    CHECK_EQ(n_opened, 0);
    fake_off();
    unsetenv("SYMPOOL_MEMORY_CHECK");
    setenv("SYMPOOL_MEMORY_MARGIN", "100M", 1);
    conf_reset();
    fake_on(list);
    CHECK_EQ(most(), 400 * MIB);
    fake_off();
    unsetenv("SYMPOOL_MEMORY_MARGIN");
    conf_reset();
}

/* Paths are found once, and again in a child. */
static void a_forked_child_looks_again(void) {
    static struct file list[] = {{"/proc/self/cgroup", "0::/a\n"},
                                 {"/proc/self/mountinfo", V2_MOUNT},
                                 {"/sys/fs/cgroup/a/memory.max", "104857600"},
                                 {"/sys/fs/cgroup/a/memory.current", "0"},
                                 {"/sys/fs/cgroup/b/memory.max", "52428800"},
                                 {"/sys/fs/cgroup/b/memory.current", "0"},
                                 {NULL, NULL}};
    fake_on(list);
    list[0].text = "0::/b\n";
    CHECK_EQ(most(), 100 * MIB - MARGIN);
    fake_pid_value++;
    CHECK_EQ(most(), 50 * MIB - MARGIN);
    list[0].text = "0::/a\n";
    CHECK_EQ(most(), 50 * MIB - MARGIN);
    fake_off();
}

int main(void) {
    return check_main("headroom", (struct check_test[]){
                                      {"the_smallest_ancestor_of_v2_limits", the_smallest_ancestor_of_v2_limits},
                                      {"v1_and_the_cache_that_can_be_dropped", v1_and_the_cache_that_can_be_dropped},
                                      {"hybrid_hierarchies_both_limit", hybrid_hierarchies_both_limit},
                                      {"namespaced_paths", namespaced_paths},
                                      {"a_long_line_of_mounts_is_passed_over", a_long_line_of_mounts_is_passed_over},
                                      {"usage_beyond_the_limit_refuses_all", usage_beyond_the_limit_refuses_all},
                                      {"the_machine_limits_too", the_machine_limits_too},
                                      {"nothing_known_limits_nothing", nothing_known_limits_nothing},
                                      {"off_reads_nothing_and_margin_counts", off_reads_nothing_and_margin_counts},
                                      {"a_forked_child_looks_again", a_forked_child_looks_again},
                                      {0}});
}
