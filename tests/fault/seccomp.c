/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seccomp [--strict] PROGRAM [ARG...]: run a program under the filter that docker's default profile (github.com/moby/profiles,
 * seccomp/default.json, state of May 2026) gives a container with docker's default capabilities, on x86_64 and arm64: the calls named
 * here are allowed, three of them for some arguments only; clone3 is answered by ENOSYS, everything else by EPERM.  As in runc, names
 * that the installed libseccomp does not know are left out, and numbers above all those it knows, newer calls, are answered by ENOSYS.
 *
 * --strict: also refuse what some other profiles and older kernels lack: pidfd_open, membarrier, rseq.
 *
 * Status 77: the filter cannot be installed here; 78: it does not do what is said above; 127: no such program; else the program's.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char allowed[] =
    /* files and their attributes */
    "access chdir chmod chown chown32 creat faccessat faccessat2 fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 "
    "fchownat fgetxattr flistxattr fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 ftruncate ftruncate64 "
    "futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch lchown "
    "lchown32 lgetxattr link linkat listmount listxattr listxattrat llistxattr lremovexattr lsetxattr lstat lstat64 mkdir mkdirat "
    "mknod mknodat name_to_handle_at newfstatat open openat openat2 readlink readlinkat removexattr removexattrat rename renameat "
    "renameat2 rmdir setxattr setxattrat stat stat64 statfs statfs64 statmount statx symlink symlinkat truncate truncate64 umask "
    "unlink unlinkat utime utimensat utimensat_time64 utimes "
    /* open files */
    "cachestat close close_range copy_file_range dup dup2 dup3 eventfd eventfd2 fadvise64 fadvise64_64 fallocate fcntl fcntl64 "
    "fdatasync flock fsync io_cancel ioctl io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit _llseek "
    "lseek memfd_create memfd_secret pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile "
    "sendfile64 signalfd signalfd4 splice sync sync_file_range syncfs tee timerfd_create timerfd_gettime timerfd_gettime64 "
    "timerfd_settime timerfd_settime64 vmsplice write writev "
    /* waiting for files */
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old _newselect poll ppoll "
    "ppoll_time64 pselect6 pselect6_time64 select "
    /* sockets */
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg send "
    "sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair "
    /* memory */
    "brk madvise map_shadow_stack membarrier mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock "
    "munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages "
    /* System V and POSIX messages */
    "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl "
    "msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget "
    /* processes, threads, credentials */
    "capget capset execve execveat exit exit_group fork getcpu getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups "
    "getgroups32 getpgid getpgrp getpid getppid getpriority getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list "
    "getrusage getsid get_thread_area gettid getuid getuid32 ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset "
    "landlock_restrict_self pidfd_open pidfd_send_signal prctl prlimit64 riscv_hwprobe rseq sched_getaffinity sched_getattr "
    "sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval "
    "sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp setfsgid "
    "setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32 setresgid "
    "setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid set_thread_area set_tid_address setuid "
    "setuid32 tgkill times tkill ugetrlimit uretprobe vfork wait4 waitid waitpid "
    /* futexes */
    "futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake "
    /* signals */
    "pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait "
    "rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn "
    /* time */
    "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep "
    "clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete timer_getoverrun "
    "timer_gettime timer_gettime64 timer_settime timer_settime64 "
    /* the system */
    "getrandom sysinfo uname "
    /* with a kernel from 4.8 on, in which a filter is asked again after a tracer changed the call */
    "process_vm_readv process_vm_writev ptrace "
    /* with CAP_SYS_CHROOT, which containers have; what needs other capabilities (mbind, kcmp, unshare, ioperm, ...) is absent */
    "chroot "
#if defined(__x86_64__)
    "arch_prctl modify_ldt "
#elif defined(__aarch64__)
    "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls "
#endif
    ;
static const char refused_strictly[] = " pidfd_open membarrier rseq ";

static const struct {
    const char *name;
    struct scmp_arg_cmp argument;
} allowed_if[] = {
    /* neither AF_ALG (38) nor AF_VSOCK (40) */
    {"socket", {0, SCMP_CMP_LT, 38, 0}},
    {"socket", {0, SCMP_CMP_EQ, 39, 0}},
    {"socket", {0, SCMP_CMP_GT, 40, 0}},
    /* PER_LINUX, PER_LINUX32, either with UNAME26, and the question which it is */
    {"personality", {0, SCMP_CMP_EQ, 0, 0}},
    {"personality", {0, SCMP_CMP_EQ, 0x8, 0}},
    {"personality", {0, SCMP_CMP_EQ, 0x20000, 0}},
    {"personality", {0, SCMP_CMP_EQ, 0x20008, 0}},
    {"personality", {0, SCMP_CMP_EQ, 0xffffffff, 0}},
    /* no new namespace */
    {"clone",
     {0, SCMP_CMP_MASKED_EQ, CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET, 0}},
};

static int newest; /* the highest number that has a rule */

static int rule(scmp_filter_ctx filter, uint32_t action, const char *name, unsigned n, const struct scmp_arg_cmp *argument) {
    int call = seccomp_syscall_resolve_name(name);
    if (call == __NR_SCMP_ERROR) return 0;
    if (call > newest) newest = call;
    return seccomp_rule_add_array(filter, action, call, n, argument);
}

static int allow(scmp_filter_ctx filter, int strict) {
    int rc = rule(filter, SCMP_ACT_ERRNO(ENOSYS), "clone3", 0, NULL);
    for (size_t i = 0; i < sizeof allowed_if / sizeof allowed_if[0]; i++)
        rc |= rule(filter, SCMP_ACT_ALLOW, allowed_if[i].name, 1, &allowed_if[i].argument);
    char names[sizeof allowed], *rest = names, spaced[64];
    memcpy(names, allowed, sizeof names);
    for (char *name; (name = strtok_r(rest, " ", &rest));) {
        snprintf(spaced, sizeof spaced, " %s ", name);
        if (!strict || !strstr(refused_strictly, spaced)) rc |= rule(filter, SCMP_ACT_ALLOW, name, 0, NULL);
    }
    return rc;
}

/* A filter of its own, asked first, since libseccomp takes no number without a name.  From 512 on x32 has numbers of its own. */
static int refuse_newer(void) {
    struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                                 BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, (unsigned)newest, 0, 2),
                                 BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 512, 1, 0),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) ? -errno : 0;
}

static int install(int strict) {
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!filter) return -ENOMEM;
    int rc = 0;
#if defined(__x86_64__)
    rc |= seccomp_arch_add(filter, SCMP_ARCH_X86) | seccomp_arch_add(filter, SCMP_ARCH_X32);
#elif defined(__aarch64__)
    rc |= seccomp_arch_add(filter, SCMP_ARCH_ARM);
#endif
    rc |= allow(filter, strict);
    rc |= seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree instead of 300 comparisons, as runc does */
    if (!rc) rc = seccomp_load(filter);
    seccomp_release(filter);
    return rc ? rc : refuse_newer();
}

/* The error of a call; 0 = none.  Chosen so that a call that is let through changes nothing. */
#define TRY(...) (errno = 0, (void)syscall(__VA_ARGS__), errno)

/* The call that is not answered as promised; NULL = none. */
static const char *wrong(int strict) {
    if (TRY(SYS_kcmp, 0, 0, 0, 0, 0) != EPERM || TRY(SYS_mbind, NULL, 0, 0, NULL, 0, 0) != EPERM) return "kcmp or mbind";
    if (TRY(SYS_io_uring_setup, 0, NULL) != EPERM || TRY(SYS_userfaultfd, -1) != EPERM) return "io_uring_setup or userfaultfd";
    if (TRY(SYS_clone3, NULL, 0) != ENOSYS) return "clone3";
    if (TRY(SYS_clone, CLONE_NEWUSER | CLONE_FS, NULL) != EPERM) return "clone into a namespace";
    if (TRY(SYS_personality, 0xffffffff) != 0 || TRY(SYS_personality, 0x0040000) != EPERM) return "personality";
    if (TRY(SYS_socket, AF_VSOCK, -1, 0) != EPERM || TRY(SYS_socket, AF_ALG, -1, 0) != EPERM) return "socket of AF_VSOCK or AF_ALG";
    if (TRY(SYS_socket, AF_KCM, -1, 0) == EPERM || TRY(SYS_socket, AF_UNIX, -1, 0) == EPERM) return "socket of other families";
    if (TRY(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0) != 0) return "process_vm_readv";
    if (TRY(newest + 1, NULL, 0) != ENOSYS) return "a number newer than the profile";
    int error = TRY(SYS_pidfd_open, getpid(), -1), barrier = TRY(SYS_membarrier, 0, 0, 0), rseq = TRY(SYS_rseq, NULL, 0, -1, 0);
    if ((error == EPERM) != strict || (barrier == EPERM) != strict || (rseq == EPERM) != strict) return "pidfd_open, membarrier or rseq";
    return NULL;
}

int main(int argc, char **argv) {
    int strict = argc > 1 && strcmp(argv[1], "--strict") == 0;
    if (argc < 2 + strict) return 2;
    int rc = install(strict);
    if (rc) {
        fprintf(stderr, "seccomp: the filter cannot be installed: %s\n", strerror(-rc));
        return 77;
    }
    const char *what = wrong(strict);
    if (what) {
        fprintf(stderr, "seccomp: the filter does not do what docker's does: %s\n", what);
        return 78;
    }
    execvp(argv[1 + strict], argv + 1 + strict);
    perror(argv[1 + strict]);
    return 127;
}
