/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seccomp PROGRAM [ARG...]: run a program under a filter like docker's default one without capabilities (moby/profiles, seccomp/default.json): what it does
 * not allow is refused with EPERM, clone3 with ENOSYS.  Written as the list of calls that a library like ours could make and a container refuses; the
 * rest is allowed, which docker does not do: its list of allowed calls holds everything else that glibc and this library call.
 *
 * --strict: also refuse what some other profiles and older kernels lack: pidfd_open, membarrier, rseq.
 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const int refused[] = {
    /* with CAP_SYS_NICE only */
    SYS_mbind, SYS_set_mempolicy, SYS_get_mempolicy,
#ifdef SYS_set_mempolicy_home_node
    SYS_set_mempolicy_home_node,
#endif
    /* with CAP_SYS_PTRACE only */
    SYS_pidfd_getfd, SYS_process_madvise, SYS_kcmp,
    /* with CAP_SYS_ADMIN, CAP_BPF or CAP_PERFMON only */
    SYS_perf_event_open, SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_bpf, SYS_sethostname, SYS_setdomainname, SYS_fanotify_init,
    SYS_quotactl, SYS_lookup_dcookie,
    /* never */
    SYS_move_pages, SYS_migrate_pages, SYS_userfaultfd, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_add_key, SYS_request_key, SYS_keyctl,
    SYS_swapon, SYS_swapoff, SYS_reboot, SYS_kexec_load, SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_acct, SYS_settimeofday, SYS_clock_settime,
    SYS_nfsservctl, SYS_vhangup};
static const int refused_strictly[] = {SYS_pidfd_open, SYS_membarrier, SYS_rseq};

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

static struct sock_filter filter[512];
static unsigned n;

static void add(struct sock_filter f) {
    filter[n++] = f;
}

static void refuse(int call, int error) {
    add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 1));
    add((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error));
}

int main(int argc, char **argv) {
    int strict = argc > 1 && strcmp(argv[1], "--strict") == 0;
    if (argc < 2 + strict) return 2;
    add((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)));
    add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0));
    add((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)); /* another architecture's numbers */
    add((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
    refuse(SYS_clone3, ENOSYS);
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        refuse(refused[i], EPERM);
    for (size_t i = 0; strict && i < sizeof refused_strictly / sizeof refused_strictly[0]; i++)
        refuse(refused_strictly[i], EPERM);
    add((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    struct sock_fprog program = {.len = (unsigned short)n, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        perror("seccomp");
        return 77;
    }
    if (syscall(SYS_kcmp, 0, 0, 0, 0, 0) != -1 || errno != EPERM) return 78; /* it is in force */
    execvp(argv[1 + strict], argv + 1 + strict);
    perror(argv[1 + strict]);
    return 127;
}
