// Which stream is whose. Pure bookkeeping: no clock, thread or device.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "ipc/cu_mask.h"
#include "ipc/result.h"
#include "ipc/strong_id.h"

namespace eclip::daemon {

/// The streams of one GPU's pool and their leases.
///
///   free --grant--> leased --begin_drain--> draining --finish_drain--> free
class LeaseTable {
 public:
  enum class StreamState : std::uint8_t { free, leased, draining };
  struct Stream {
    CuMask mask;
    StreamState state = StreamState::free;
    LeaseId lease;    ///< unless free
    WorkerId worker;  ///< unless free
  };

  explicit LeaseTable(const std::vector<CuMask>& masks);

  /// Grants a free stream: `wanted`, or else the smallest with at least `cu_count` CUs, and of
  /// equal ones that which shares the fewest CUs with streams in use. Errc::no_stream when all that
  /// fit are in use, Errc::invalid_argument when none could ever fit.
  Result<LeaseId> grant(WorkerId worker, std::optional<StreamId> wanted, std::uint32_t cu_count);

  /// The stream of a lease of this worker, unless it is draining. Errc::not_found.
  Result<StreamId> stream_of(LeaseId lease, WorkerId worker) const;
  void begin_drain(StreamId stream);
  void finish_drain(StreamId stream);

  [[nodiscard]] const std::vector<Stream>& streams() const { return streams_; }

 private:
  std::vector<Stream> streams_;
  std::uint64_t last_lease_ = 0;
};

}  // namespace eclip::daemon
