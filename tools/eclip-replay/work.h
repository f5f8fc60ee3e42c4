// What a worker has submitted and seen, for the report.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "tools/eclip-replay/request_runner.h"

namespace eclip::replay {

struct MixOutcome {
  std::uint64_t value;
  std::uint64_t expected;
  [[nodiscard]] bool matches() const { return value == expected; }
};

/// How a worker that attaches again fared.
struct SessionRecord {
  std::uint64_t done = 0;
  std::uint64_t failed = 0;  ///< eclipd ended under them
  std::uint64_t without_eclipd = 0;
  std::uint64_t reattachments = 0;
  std::vector<std::int64_t> losses_ns;  ///< host CLOCK_MONOTONIC, when the end was noticed
};

struct Work {
  using Stream = RequestRunner::Stream;
  std::uint64_t packets = 0;
  std::uint64_t switches = 0;
  std::vector<Stream> streams;
  std::optional<eclip_scheduler_state> scheduler;  ///< with --streams plan
  std::optional<MixOutcome> mix;
  std::optional<SessionRecord> session;  ///< with Options::reattach
};

[[nodiscard]] Work work_of(const RequestRunner& runner);

}  // namespace eclip::replay
