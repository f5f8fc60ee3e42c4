// The budget's guard and the probe of ioctls, as the configuration asks for them.
#pragma once

#include "bpf/budget_guard.h"
#include "bpf/kfd_ioctl_probe.h"
#include "daemon/config.h"

namespace eclip::daemon {

struct Probes {
  // The error: why there is none.
  Result<bpf::BudgetGuard> guard = fail(Errc::unsupported, "no budget guard was asked for");
  Result<bpf::KfdIoctlProbe> ioctls = fail(
      Errc::unsupported,
      "eclipd does not measure KFD ioctls; set probes.measure_ioctls = true in its configuration "
      "and restart it");
};

/// Installs, takes over and attaches, and says in the log what there is and what is missing. With
/// all the rights that eclipd was started with: the kernel shows a driver's types to CAP_SYS_ADMIN
/// only. Before there are threads: the guard is tried out by a child.
Probes attach_probes(const Config& config);

}  // namespace eclip::daemon
