#include "tools/eclip-replay/work.h"

namespace eclip::replay {

Work work_of(const RequestRunner& runner) {
  Work work{.packets = runner.packets(), .switches = runner.switches()};
  for (const Lease& lease : runner.leases()) {
    const eclip_lease_state state = lease.describe();
    work.streams.push_back({state.stream, state.cu_count});
  }
  if (const MixChain* chain = runner.mix_chain())
    work.mix = MixOutcome{chain->value(), chain->expected()};
  return work;
}

}  // namespace eclip::replay
