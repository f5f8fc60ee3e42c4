// How long a stream was busy, from the times of some of its packets.
#pragma once

#include <algorithm>
#include <cstdint>

namespace eclip::daemon {

/// Ticks are those of the GPU's clock counter. The sum of all that add() returns is never more than
/// the time between the first start and the last end.
class BusyTime {
 public:
  /// Ticks that the stream was busy up to the end of this packet and has not been told of before.
  /// `after_idle`: it was idle before the packet, which therefore counts from its own start.
  std::uint64_t add(std::uint64_t start, std::uint64_t end, bool after_idle) {
    const std::uint64_t from =
        after_idle || last_end_ == 0 ? std::max(start, last_end_) : last_end_;
    if (end <= from) return 0;
    last_end_ = end;
    return end - from;
  }

 private:
  std::uint64_t last_end_ = 0;  ///< 0: none yet
};

}  // namespace eclip::daemon
