// Requests that outlive eclipd: what --reattach does.
#pragma once

#include <chrono>
#include <cstdint>
#include <eclip/session.hpp>
#include <vector>

#include "tools/eclip-replay/options.h"
#include "tools/eclip-replay/request_runner.h"
#include "tools/eclip-replay/work.h"

namespace eclip::replay {

class ReattachingRunner {
 public:
  /// Attaches. All must outlive this. Throws ApiError, ENOTCONN too.
  ReattachingRunner(const Options& options, const Program& program,
                    const eclip_connect_options& connect);

  /// One request; true when it was done. Without eclipd it takes `time_without_eclipd`, as a
  /// program that can do without would be slower then. Throws ApiError when eclipd stays away for
  /// Options::timeout.
  bool run(RequestRunner::Clock::time_point next);

  [[nodiscard]] Work work();
  /// Of the last connection.
  [[nodiscard]] const eclip_gpu& gpu() const { return gpu_; }
  [[nodiscard]] double device_time_rate();

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds time_without_eclipd{10};

  /// What was acknowledged, that is, seen complete, must be in the worker's memory, then and when
  /// eclipd has gone.
  void acknowledge(const RequestRunner& runner);
  void give_up(const RequestRunner& runner);

  const Options& options_;
  Work before_;  // of the attachments that were given up
  MixMark acknowledged_;
  std::optional<MixOutcome> mix_;
  eclip_gpu gpu_{};
  Clock::time_point last_attached_ = Clock::now();
  Session<RequestRunner> session_;
};

}  // namespace eclip::replay
