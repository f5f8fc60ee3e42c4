// Counts KFD ioctls as the operating system's kernel sees them (bpf/kfd_ioctl.bpf.c).
#pragma once

#include <cstdint>
#include <memory>

#include "ipc/result.h"

struct kfd_ioctl_bpf;

namespace eclip::daemon {

/// Attached while it lives.
class KfdIoctlProbe {
 public:
  /// Errc::unsupported says what the kernel or the user's privileges lack.
  static Result<KfdIoctlProbe> attach();

  /// KFD ioctls of all processes since attach, 64-bit system calls only. Errors: the system's.
  [[nodiscard]] Result<std::uint64_t> total() const;

 private:
  struct Destroy {
    void operator()(kfd_ioctl_bpf* skeleton) const;
  };
  explicit KfdIoctlProbe(kfd_ioctl_bpf* skeleton) : skeleton_(skeleton) {}
  std::unique_ptr<kfd_ioctl_bpf, Destroy> skeleton_;
};

}  // namespace eclip::daemon
