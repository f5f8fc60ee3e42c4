#include "daemon/sandbox.h"

#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <spdlog/spdlog.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <initializer_list>
#include <memory>
#include <type_traits>

namespace eclip::daemon {
namespace {

// clang-format off
constexpr std::array allowed{
    // memory, the workers' included
    SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mprotect), SCMP_SYS(mremap), SCMP_SYS(madvise),
    SCMP_SYS(brk), SCMP_SYS(mbind), SCMP_SYS(get_mempolicy), SCMP_SYS(set_mempolicy),
    SCMP_SYS(mincore), SCMP_SYS(mlock), SCMP_SYS(munlock), SCMP_SYS(membarrier),
    SCMP_SYS(memfd_create), SCMP_SYS(ftruncate), SCMP_SYS(fallocate),
    // descriptors; what can be opened is below
    SCMP_SYS(fcntl), SCMP_SYS(dup), SCMP_SYS(dup3), SCMP_SYS(close), SCMP_SYS(read),
    SCMP_SYS(pread64), SCMP_SYS(readv), SCMP_SYS(write), SCMP_SYS(pwrite64), SCMP_SYS(writev),
    SCMP_SYS(fdatasync),
    SCMP_SYS(lseek), SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(stat), SCMP_SYS(lstat),
    SCMP_SYS(statx), SCMP_SYS(fstatfs), SCMP_SYS(statfs), SCMP_SYS(access), SCMP_SYS(faccessat),
    SCMP_SYS(faccessat2), SCMP_SYS(getdents64), SCMP_SYS(readlink), SCMP_SYS(readlinkat),
    SCMP_SYS(getcwd), SCMP_SYS(flock), SCMP_SYS(fadvise64), SCMP_SYS(pipe2),
    // clients
    SCMP_SYS(accept4), SCMP_SYS(recvmsg), SCMP_SYS(recvfrom), SCMP_SYS(sendmsg), SCMP_SYS(sendto),
    SCMP_SYS(getsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername), SCMP_SYS(shutdown),
    SCMP_SYS(pidfd_open),
    // waiting
    SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_pwait2), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(eventfd2),
    SCMP_SYS(signalfd4), SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime),
    SCMP_SYS(timerfd_gettime), SCMP_SYS(futex), SCMP_SYS(futex_waitv), SCMP_SYS(nanosleep),
    SCMP_SYS(clock_nanosleep), SCMP_SYS(restart_syscall),
    // time
    SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(gettimeofday), SCMP_SYS(time),
    // threads, signals, itself
    SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity),
    SCMP_SYS(sched_setaffinity), SCMP_SYS(getcpu), SCMP_SYS(prctl), SCMP_SYS(arch_prctl),
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack), SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getppid),
    SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(capget),
    SCMP_SYS(getrandom), SCMP_SYS(uname), SCMP_SYS(sysinfo), SCMP_SYS(getrusage),
    SCMP_SYS(getrlimit), SCMP_SYS(prlimit64), SCMP_SYS(exit), SCMP_SYS(exit_group),
};

// Nothing that eclipd links has a reason for these.
constexpr std::array deadly{
    SCMP_SYS(execve), SCMP_SYS(execveat), SCMP_SYS(fork), SCMP_SYS(vfork),
    SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev), SCMP_SYS(pidfd_getfd),
    SCMP_SYS(mount), SCMP_SYS(umount2), SCMP_SYS(pivot_root), SCMP_SYS(chroot), SCMP_SYS(setns),
    SCMP_SYS(unshare), SCMP_SYS(init_module), SCMP_SYS(finit_module), SCMP_SYS(delete_module),
    SCMP_SYS(kexec_load), SCMP_SYS(reboot), SCMP_SYS(perf_event_open), SCMP_SYS(userfaultfd),
    SCMP_SYS(keyctl), SCMP_SYS(add_key), SCMP_SYS(open_by_handle_at), SCMP_SYS(setuid),
    SCMP_SYS(setgid), SCMP_SYS(setresuid), SCMP_SYS(setresgid), SCMP_SYS(connect), SCMP_SYS(bind),
    SCMP_SYS(listen),
};
// clang-format on

struct FreeFilter {
  void operator()(void* filter) const { ::seccomp_release(filter); }
};
struct FreeCapabilities {
  void operator()(std::remove_pointer_t<cap_t>* capabilities) const { ::cap_free(capabilities); }
};

/// Conditions on an argument: libseccomp's own macros are C99.
constexpr scmp_arg_cmp equals(unsigned argument, scmp_datum_t value) {
  return {.arg = argument, .op = SCMP_CMP_EQ, .datum_a = value, .datum_b = 0};
}
constexpr scmp_arg_cmp has_bits(unsigned argument, scmp_datum_t mask, scmp_datum_t value) {
  return {.arg = argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};
}

/// The rules that look at arguments. 0, or libseccomp's negative error.
int add_conditional_rules(scmp_filter_ctx filter) {
  const auto allow = [filter](int call, std::initializer_list<scmp_arg_cmp> conditions) {
    return ::seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call,
                                    static_cast<unsigned>(conditions.size()), conditions.begin());
  };
  // Files only for reading: topology, hwmon, /proc.
  constexpr scmp_datum_t writing = O_ACCMODE | O_CREAT | O_TRUNC;
  int error = allow(SCMP_SYS(openat), {has_bits(2, writing, O_RDONLY)});
  if (error == 0) error = allow(SCMP_SYS(open), {has_bits(1, writing, O_RDONLY)});
  // The KFD's and the DRM's.
  for (const char type : {'K', 'd'})
    if (error == 0)
      error = allow(SCMP_SYS(ioctl), {has_bits(1, 0xff00, static_cast<scmp_datum_t>(type) << 8)});
  // The journal's.
  if (error == 0) error = allow(SCMP_SYS(socket), {equals(0, AF_UNIX)});
  // Threads, no processes. clone3 hides its flags: the C library takes clone when it is told that
  // there is none.
  if (error == 0) error = allow(SCMP_SYS(clone), {has_bits(0, CLONE_THREAD, CLONE_THREAD)});
  if (error == 0) error = ::seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
  if (error == 0)
    error = allow(SCMP_SYS(tgkill), {equals(0, static_cast<scmp_datum_t>(::getpid()))});
  return error;
}

}  // namespace

Result<void> drop_capabilities(const SandboxNeeds& needs) {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno(errno, "set NoNewPrivs");
  const auto needed = [&needs](cap_value_t capability) {
    return needs.bpf && capability == CAP_BPF;
  };
  // Without CAP_SETPCAP the bounding set stays as it is; nothing can be gained from it any more.
  for (cap_value_t capability = 0; ::cap_get_bound(capability) >= 0; ++capability)
    if (!needed(capability)) ::cap_drop_bound(capability);
  ::cap_reset_ambient();
  const std::unique_ptr<std::remove_pointer_t<cap_t>, FreeCapabilities> kept(::cap_init());
  if (constexpr cap_value_t bpf = CAP_BPF; needed(bpf) && ::cap_get_bound(bpf) == 1) {
    ::cap_set_flag(kept.get(), CAP_PERMITTED, 1, &bpf, CAP_SET);
    ::cap_set_flag(kept.get(), CAP_EFFECTIVE, 1, &bpf, CAP_SET);
  }
  if (::cap_set_proc(kept.get()) != 0) {
    if (!needs.bpf) return fail_errno(errno, "drop capabilities");
    return drop_capabilities({});  // it never had that one
  }
  return {};
}

Result<void> filter_system_calls(const SandboxNeeds& needs) {
  if (::prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0 && errno == EINVAL) {
    spdlog::warn("this kernel has no seccomp: eclipd serves without a filter of system calls");
    return {};
  }
  const std::unique_ptr<void, FreeFilter> filter(::seccomp_init(SCMP_ACT_ERRNO(EPERM)));
  if (!filter) return fail(Errc::unsupported, "libseccomp refuses to make a filter");
  int error = ::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_TSYNC, 1);
  // Kernels before 4.14 do not log; the filter is as good.
  ::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_LOG, 1);
  const auto add = [&](std::uint32_t action, int call) {
    if (error == 0) error = ::seccomp_rule_add(filter.get(), action, call, 0);
  };
  for (const int call : allowed) add(SCMP_ACT_ALLOW, call);
  for (const int call : deadly) add(SCMP_ACT_KILL_PROCESS, call);
  add(needs.bpf ? SCMP_ACT_ALLOW : SCMP_ACT_KILL_PROCESS, SCMP_SYS(bpf));
#if defined(ECLIP_SANITIZE_ADDRESS)
  // LeakSanitizer looks for leaks from a process of its own.
  for (const int call : {SCMP_SYS(ptrace), SCMP_SYS(wait4), SCMP_SYS(kill), SCMP_SYS(getdents)})
    add(SCMP_ACT_ALLOW, call);
  if (error == 0)
    error = ::seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                               has_bits(0, CLONE_UNTRACED, CLONE_UNTRACED));
#else
  add(SCMP_ACT_KILL_PROCESS, SCMP_SYS(ptrace));
#endif
  if (error == 0) error = add_conditional_rules(filter.get());
  if (error == 0) error = ::seccomp_load(filter.get());
  if (error != 0)
    return fail_errno(-error,
                      "install the filter of system calls (daemon.sandbox = false does "
                      "without it)");
  return {};
}

}  // namespace eclip::daemon
