// Finds processes that wait in the kernel and cannot be killed.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>

namespace eclip::soak {

class StuckWatch {
 public:
  explicit StuckWatch(std::chrono::milliseconds limit) : limit_(limit) {}

  /// Looks at the process's threads; true when one of them has been in state D, without having run
  /// in between, in all looks of the limit. Once for each thread.
  bool look(pid_t pid);

 private:
  using Clock = std::chrono::steady_clock;
  struct Waiting {
    Clock::time_point since;
    std::uint64_t switches = 0;  ///< how often it had gone to sleep
    bool told = false;
  };

  const std::chrono::milliseconds limit_;
  std::map<pid_t, Waiting> waiting_;  // threads in state D at their last look
};

}  // namespace eclip::soak
