// What KFD ioctls cost all processes, as the operating system's kernel sees it
// (bpf/kfd_ioctl.bpf.c).
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "bpf/maps.h"
#include "ipc/result.h"

struct kfd_ioctl_bpf;

namespace eclip::bpf {

/// One command of one process, since the probe was attached. Host time.
struct KfdIoctlCost {
  pid_t pid;             ///< 0: all processes that have ended, or were too many at a time
  std::uint32_t number;  ///< _IOC_NR of the command
  std::uint64_t count;
  std::uint64_t errors;
  std::uint64_t total_ns;
  std::uint64_t errors_ns;  ///< of these in calls that failed
  std::uint64_t max_ns;
  std::array<std::uint64_t, 32> buckets;  ///< [b]: took 2^b to 2^(b+1) - 1 ns
};

/// Attached while it lives.
class KfdIoctlProbe {
 public:
  /// Errc::unsupported says what the kernel or the user's privileges lack.
  static Result<KfdIoctlProbe> attach();

  /// Where it looks: at the driver's own function, or at every system call of the machine, which
  /// costs each of them some 0.1 us (docs/probes.md).
  enum class Place { driver, system_calls };
  [[nodiscard]] Place place() const { return place_; }

  // Errors: the system's.
  [[nodiscard]] Result<std::vector<KfdIoctlCost>> costs() const;
  /// Created since, as the processes' own memory tells.
  [[nodiscard]] Result<std::vector<KfdQueues>> queues() const;
  /// Calls and queues that it could not account: for want of memory, or of too many processes.
  [[nodiscard]] std::uint64_t unseen() const;
  /// KFD ioctls of all processes.
  [[nodiscard]] Result<std::uint64_t> total() const;

 private:
  struct Destroy {
    void operator()(kfd_ioctl_bpf* skeleton) const;
  };
  KfdIoctlProbe(kfd_ioctl_bpf* skeleton, Place place) : skeleton_(skeleton), place_(place) {}
  static Result<KfdIoctlProbe> attach(const KfdIdentity& kfd, Place place);
  std::unique_ptr<kfd_ioctl_bpf, Destroy> skeleton_;
  Place place_;
};

}  // namespace eclip::bpf
