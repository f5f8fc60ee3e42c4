#include "tools/eclip-replay/work.h"

namespace eclip::replay {

Work work_of(const RequestRunner& runner) {
  Work work{.packets = runner.packets(), .switches = runner.switches()};
  work.streams = runner.streams();
  work.scheduler = runner.scheduler();
  if (const MixChain* chain = runner.mix_chain())
    work.mix = MixOutcome{chain->value(), chain->expected()};
  return work;
}

}  // namespace eclip::replay
