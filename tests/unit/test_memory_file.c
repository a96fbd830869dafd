/* SPDX-License-Identifier: Apache-2.0 */
/* Memory files: memfd where it may be called, unlinked files of /dev/shm where not; and the file sizes that end a program. */
#include "pool/base/memory_file.h"

#include "pool/base/log.h"
#include "pool/base/os.h"
#include "pool/base/status.h"
#include "tests/support/check.h"
#include "tests/support/fake_os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define LEN (64u << 10)

static char lines[2048];
static int n_lines;

static void keep_line(void *arg, int level, const char *text) {
    (void)arg, (void)level;
    n_lines++;
    snprintf(lines, sizeof lines, "%s", text);
}

/* Probe while memfd_create gives this errno, 0 = works. */
static int probe(int error) {
    n_lines = 0;
    syp_log_set(keep_line, NULL);
    fake_os_on();
    if (error) fake_os_fail_op("memfd", 1, error);
    int by_name = memory_file_probe();
    CHECK_EQ(fake_os_open_fds(), 0);
    fake_os_off();
    syp_log_set(NULL, NULL);
    return by_name;
}

static int names_in_dev_shm(void) {
    DIR *d = opendir("/dev/shm");
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        n += strncmp(e->d_name, "sympool.", 8) == 0;
    if (d) closedir(d);
    return n;
}

static void only_a_refusal_of_the_call_leads_to_dev_shm(void) {
    static const struct {
        int error, by_name;
    } cases[] = {{0, 0}, {EMFILE, 0}, {ENOMEM, 0}, {ENOSYS, 1}, {0, 0}, {EPERM, 1}, {0, 0}, {EACCES, 1}, {EACCES, 1}, {0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_EQ(probe(cases[i].error), cases[i].by_name);
        int before_too = i > 0 && cases[i - 1].by_name;
        CHECK_EQ(n_lines, cases[i].by_name && !before_too);
        if (n_lines) CHECK_HAS(lines, "cannot be sealed");
    }
}

static void a_file_of_dev_shm_has_no_name_and_no_seals(void) {
    struct stat st;
    const char *call;
    CHECK_EQ(probe(ENOSYS), 1);
    CHECK_EQ(memory_file_open("x", 21, &call), -ENOSYS); /* hugetlb is memfd's */
    int fd = memory_file_open("x", 0, &call);
    if (!CHECK(fd >= 0)) return;
    CHECK_EQ(names_in_dev_shm(), 0);
    CHECK(fstat(fd, &st) == 0 && st.st_nlink == 0 && (st.st_mode & 07777) == 0600);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    CHECK_EQ(os->file_resize(fd, LEN), 0);
    CHECK_EQ(memory_file_seal(fd, SEALS), 0);
    CHECK(memory_file_unsealable(os->file_seals(fd)));
    CHECK(memory_file_is_ours(fd, LEN, SEALS));
    CHECK(!memory_file_is_ours(fd, LEN + 1, SEALS));
    err_set(SYP_ENOMEM, "so far");
    CHECK(memory_file_say_space(fd));
    CHECK_HAS(syp_error_text(), "so far; /dev/shm has ");
    CHECK_HAS(syp_error_text(), "--shm-size");
    close(fd);
    CHECK(!memory_file_is_ours(fd, LEN, SEALS));
    CHECK_EQ(probe(0), 0);
}

static void a_memfd_is_told_from_what_a_program_put_under_its_number(void) {
    int fd = memory_file_open("x", 0, NULL), plain = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && os->file_resize(fd, LEN) == 0);
    CHECK(!memory_file_is_ours(fd, LEN, SEALS)); /* not sealed yet */
    CHECK_EQ(memory_file_seal(fd, SEALS), 0);
    CHECK_EQ(memory_file_seal(fd, SEALS), -EPERM); /* sealed against seals: no file of /dev/shm */
    CHECK(memory_file_is_ours(fd, LEN, SEALS));
    CHECK(!memory_file_say_space(fd));
    CHECK(dup3(plain, fd, O_CLOEXEC) == fd);
    CHECK(!memory_file_is_ours(fd, LEN, SEALS));
    close(fd);
    close(plain);
}

static void every_call_of_the_fallback_may_fail(void) {
    static const char *const calls[] = {"shm_file", "file_seals"};
    CHECK_EQ(probe(EPERM), 1);
    for (size_t i = 0; i < 2; i++) {
        const char *call = "";
        fake_os_on();
        fake_os_fail_op(calls[i], 1, ENOENT);
        CHECK_EQ(memory_file_open("x", 0, &call), -ENOENT);
        CHECK_HAS(call, "/dev/shm");
        CHECK_EQ(fake_os_open_fds(), 0);
        fake_os_off();
    }
    CHECK_EQ(names_in_dev_shm(), 0);
    CHECK_EQ(probe(0), 0);
}

/* The kernel's answer to a file beyond RLIMIT_FSIZE is a signal that ends the program. */
static void file_size_limits_are_errors_and_no_signals(void) {
    char name[] = "/tmp/sympool-test-XXXXXX";
    int log = mkstemp(name), status = -1;
    unlink(name);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {LEN, LEN};
        char text[100] = "a line of the log";
        int bad = 0, fd = os->memfd("x", 0);
        signal(SIGXFSZ, SIG_DFL);
        setrlimit(RLIMIT_FSIZE, &limit);
        bad |= os->file_resize(fd, LEN) != 0;
        bad |= os->file_resize(fd, LEN + 1) != -EFBIG;
        lseek(log, LEN, SEEK_SET);
        bad |= os->write(log, text, sizeof text) != -EFBIG;
        sigset_t pending;
        sigpending(&pending);
        bad |= sigismember(&pending, SIGXFSZ);
        _exit(bad);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
    close(log);
}

int main(void) {
    return check_main(
        "memory_file",
        (struct check_test[]){
            {"only_a_refusal_of_the_call_leads_to_dev_shm", only_a_refusal_of_the_call_leads_to_dev_shm},
            {"a_file_of_dev_shm_has_no_name_and_no_seals", a_file_of_dev_shm_has_no_name_and_no_seals},
            {"a_memfd_is_told_from_what_a_program_put_under_its_number", a_memfd_is_told_from_what_a_program_put_under_its_number},
            {"every_call_of_the_fallback_may_fail", every_call_of_the_fallback_may_fail},
            {"file_size_limits_are_errors_and_no_signals", file_size_limits_are_errors_and_no_signals},
            {0}});
}
