// A cgroup whose processes cannot open the KFD (bpf/gate.bpf.c): for kernels where the budget guard
// can refuse nothing. Pinned, as the guard is.
#pragma once

#include <filesystem>

#include "bpf/guard.h"
#include "ipc/result.h"

namespace eclip::bpf {

class DeviceGate {
 public:
  static constexpr const char* directory = "/sys/fs/bpf/eclip-gate";

  struct Options {
    std::filesystem::path cgroup;  ///< of version 2; its children are gated too
    bool gate_drm_devices = false;
  };
  /// Replaces a gate that is there. Errc::invalid_argument: no cgroup, or /dev/kfd is no device;
  /// Errc::unsupported: the kernel refuses the program. Others: the system's.
  static Result<void> install(const Options& options);
  /// Whether there was one.
  static Result<bool> remove();
  /// Errc::not_found when there is none. Others: the system's.
  static Result<gate_state> state();
};

}  // namespace eclip::bpf
