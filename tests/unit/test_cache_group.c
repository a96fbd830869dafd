/* SPDX-License-Identifier: Apache-2.0 */
/* Which cache holds a rank's processors: of made-up machines, with a faked affinity and faked files of sysfs. */
#include "bootstrap/cache_group.h"

#include "pool/base/os.h"
#include "tests/support/check.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t affinity[16]; /* of this thread: processors 0 .. 1023 */
static const char *asked, *shared; /* the file that is there, and what it says; NULL = none */

static int fake_processors(uint64_t *mask, size_t words) {
    memset(mask, 0, words * sizeof *mask);
    memcpy(mask, affinity, sizeof affinity);
    return 1;
}

static int fake_open_read(const char *path) {
    if (!shared || strcmp(path, asked) != 0) return -ENOENT;
    int fd = memfd_create("cache", 0);
    CHECK(write(fd, shared, strlen(shared)) == (ssize_t)strlen(shared) && lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

static void run_on(int first, int last) {
    memset(affinity, 0, sizeof affinity);
    for (int i = first; i <= last; i++)
        affinity[i / 64] |= 1ull << i % 64;
}

/* Of a thread on processors first .. last, of which the first says so about its cache. */
static int32_t group(int first, int last, const char *says) {
    static char path[80];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index3/shared_cpu_list", first);
    run_on(first, last);
    asked = path;
    shared = says;
    struct os_ops table = os_linux;
    table.processors = fake_processors;
    table.open_read = fake_open_read;
    const struct os_ops *below = os_swap(&table);
    int32_t g = cache_group();
    os_swap(below);
    return g;
}

static void the_cache_that_holds_all_our_processors(void) {
    CHECK_EQ(group(0, 0, "0-7\n"), 0);
    CHECK_EQ(group(3, 7, "0-7\n"), 0);
    CHECK_EQ(group(9, 10, "8-15,72-79\n"), 8);
    CHECK_EQ(group(72, 79, "8-15,72-79\n"), 8);
    CHECK_EQ(group(1000, 1000, "992-1000\n"), 992);
    CHECK_EQ(group(5, 5, "5"), 5);
}

static void none_holds_them(void) {
    CHECK_EQ(group(3, 8, "0-7\n"), NO_CACHE_GROUP); /* free to move to another cache */
    CHECK_EQ(group(0, 127, "0-7,64-71\n"), NO_CACHE_GROUP);
    CHECK_EQ(group(0, 0, NULL), NO_CACHE_GROUP);
    CHECK_EQ(group(1, 0, "0-7\n"), NO_CACHE_GROUP);
}

static void what_is_no_list_tells_nothing(void) {
    static const char *const texts[] = {"", "\n", "x", "0-", "-7", "7-0", "0-7,", "0-7;", "0-7 8", "0-99999", "99999", "0--7", "0,,1", "4294967296-4294967297"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        CHECK_EQ(group(0, 0, texts[i]), NO_CACHE_GROUP);
}

/* Whatever this machine has. */
static void this_machine(void) {
    int32_t g = cache_group();
    CHECK(g >= NO_CACHE_GROUP && g < 8192);
    printf("  cache group %d ", g);
}

int main(void) {
    return check_main("cache_group", (struct check_test[]){{"the_cache_that_holds_all_our_processors", the_cache_that_holds_all_our_processors},
                                                           {"none_holds_them", none_holds_them},
                                                           {"what_is_no_list_tells_nothing", what_is_no_list_tells_nothing},
                                                           {"this_machine", this_machine},
                                                           {NULL, NULL}});
}
