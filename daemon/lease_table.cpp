#include "daemon/lease_table.h"

#include <algorithm>
#include <utility>

namespace eclip::daemon {

LeaseTable::LeaseTable(const std::vector<CuMask>& masks) {
  for (const auto& mask : masks)
    streams_.push_back(Stream{.mask = mask, .state = StreamState::free, .lease = {}, .worker = {}});
}

Result<LeaseId> LeaseTable::grant(WorkerId worker, std::optional<StreamId> wanted,
                                  std::uint32_t cu_count) {
  if (wanted && wanted->value >= streams_.size())
    return fail(Errc::invalid_argument, "the pool has no stream " + std::to_string(wanted->value) +
                                            "; it has 0-" + std::to_string(streams_.size() - 1));
  const auto in_use_overlap = [&](const Stream& stream) {
    std::uint32_t overlap = 0;
    for (const auto& other : streams_)
      if (other.state != StreamState::free) overlap += other.mask.overlap(stream.mask);
    return overlap;
  };
  Stream* best = nullptr;
  std::uint32_t largest = 0;
  for (auto& stream : streams_) {
    largest = std::max(largest, stream.mask.count());
    if (wanted ? &stream != &streams_[wanted->value] : stream.mask.count() < cu_count) continue;
    if (stream.state != StreamState::free) continue;
    if (best == nullptr || std::pair(stream.mask.count(), in_use_overlap(stream)) <
                               std::pair(best->mask.count(), in_use_overlap(*best)))
      best = &stream;
  }
  if (best == nullptr) {
    if (wanted)
      return fail(Errc::no_stream, "stream " + std::to_string(wanted->value) + " is in use");
    if (cu_count > largest)
      return fail(Errc::invalid_argument, "no stream of the pool has " + std::to_string(cu_count) +
                                              " CUs; the largest has " + std::to_string(largest));
    return fail(Errc::no_stream, "all streams with at least " + std::to_string(cu_count) +
                                     " CUs are in use; 'eclipctl lease list' shows by whom");
  }
  best->state = StreamState::leased;
  best->lease = LeaseId{++last_lease_};
  best->worker = worker;
  return best->lease;
}

Result<StreamId> LeaseTable::stream_of(LeaseId lease, WorkerId worker) const {
  for (std::uint32_t i = 0; i < streams_.size(); ++i) {
    const auto& stream = streams_[i];
    if (stream.state == StreamState::leased && stream.lease == lease && stream.worker == worker)
      return StreamId{i};
  }
  return fail(Errc::not_found, "this worker holds no lease " + std::to_string(lease.value));
}

void LeaseTable::begin_drain(StreamId stream) {
  streams_.at(stream.value).state = StreamState::draining;
}

void LeaseTable::finish_drain(StreamId stream) {
  auto& entry = streams_.at(stream.value);
  entry.state = StreamState::free;
  entry.lease = {};
  entry.worker = {};
}

}  // namespace eclip::daemon
