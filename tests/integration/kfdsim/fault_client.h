// What kfdsim_client does to make the GPU fault.
#pragma once

#include <string>

namespace eclip::test {

/// Lets a packet reach for an address that is not mapped, in the way that `kind` names, and says
/// the address's page, the page that the driver's event tells, and what became of the process's
/// other queues. An exit status; 2 for an unknown kind.
int memory_fault(const std::string& kind);

}  // namespace eclip::test
