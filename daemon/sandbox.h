// What the serving process gives up before it reads a client's first byte.
#pragma once

#include "ipc/result.h"

namespace eclip::daemon {

struct SandboxNeeds {
  bool bpf = false;  ///< maps are read: CAP_BPF stays, and bpf(2)
};

/// Sets NoNewPrivs and drops all capabilities, also from the bounding set where that is allowed.
/// Before the first thread starts: threads inherit it. The system's errors.
Result<void> drop_capabilities(const SandboxNeeds& needs);

/// Allows the system calls that serving needs to all threads, and no others: what could only be an
/// attacker's ends the process, the rest fails with EPERM and a line in the kernel's audit log.
/// After the GPU has been opened. A kernel without seccomp gets one warning. The system's errors.
Result<void> filter_system_calls(const SandboxNeeds& needs);

}  // namespace eclip::daemon
