#include "daemon/stream_turns.h"

#include <algorithm>
#include <tuple>

namespace eclip::daemon {

StreamTurns::Record& StreamTurns::record(LeaseId lease) {
  const auto found = std::find_if(records_.begin(), records_.end(),
                                  [lease](const Record& each) { return each.lease == lease; });
  return found != records_.end() ? *found : records_.emplace_back(Record{.lease = lease});
}

LeaseId StreamTurns::choose(std::span<const Waiting> waiting) {
  ++choices_;
  using Rank =
      std::tuple<std::uint32_t, std::uint32_t, std::uint64_t, std::uint64_t, std::uint64_t>;
  std::optional<Rank> best;
  LeaseId chosen = waiting.front().lease;
  for (const Waiting& each : waiting) {
    Record& known = record(each.lease);
    if (known.waits_since == 0) known.waits_since = choices_;
    // Smaller is earlier.
    const Rank rank{UINT32_MAX - (known.passes >= max_passes ? known.passes : 0),
                    each.latency_class == LatencyClass::latency ? 0 : 1,
                    each.deadline_ns == 0 ? UINT64_MAX : each.deadline_ns, known.waits_since,
                    known.last_turn};
    if (best && *best <= rank) continue;
    best = rank;
    chosen = each.lease;
  }
  return chosen;
}

bool StreamTurns::pushed(LeaseId lease, bool group_end) {
  const bool begins = owner_ != lease;
  if (begins) since_group_end_ = 0;
  owner_ = lease;
  at_group_end_ = group_end;
  since_group_end_ = group_end ? 0 : since_group_end_ + 1;
  return begins;
}

void StreamTurns::passed_over(std::span<const Waiting> waiting, LeaseId chosen) {
  for (const Waiting& each : waiting)
    if (each.lease != chosen) ++record(each.lease).passes;
  Record& known = record(chosen);
  known.passes = 0;
  known.waits_since = 0;
  known.last_turn = choices_;
}

void StreamTurns::forget(LeaseId lease) {
  std::erase_if(records_, [lease](const Record& each) { return each.lease == lease; });
  if (owner_ == lease) owner_.reset();
}

}  // namespace eclip::daemon
