// What the operating system and the driver tell of processes.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "bpf/maps.h"

namespace eclip::daemon {

/// A process's own figures; "" and 0 when it is gone.
struct ProcessFacts {
  std::string command;  ///< /proc/PID/comm, printable
  uid_t uid = 0;
};
ProcessFacts facts_of(pid_t pid);

/// The compute queues of all processes as the driver lists them in sysfs, whoever saw them being
/// created; masks are not in it (`masked` is 0). Empty where the driver keeps no list.
std::vector<bpf::KfdQueues> queues_of_the_driver();

}  // namespace eclip::daemon
