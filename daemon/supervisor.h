// The supervisor: the process that systemd knows. It keeps the listening socket and the rights that
// eclipd was started with, forks the process that serves, and starts a new one when the GPU has
// failed or the old one has crashed: what a process has on a GPU does not survive its reset
// (docs/adr/0006). It opens no GPU and reads no client's bytes.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <deque>
#include <functional>

#include "ipc/result.h"
#include "ipc/unique_fd.h"

namespace eclip::daemon {

/// How a serving process ends. 0 and 1 are also eclipd's own exit statuses, with 2 for the command
/// line and the configuration.
enum class ServingEnd : int {
  stopped = 0,      ///< a signal said so
  failed = 1,       ///< for a reason that a new process would meet again
  gpu_failed = 3,   ///< served, until the GPU failed: a new process can serve again
  gpu_missing = 4,  ///< the GPU could not be opened, or the pool not be made
};

class Supervisor {
 public:
  struct Limits {
    /// More restarts than that within the period, and it gives up.
    unsigned restarts = 5;
    std::chrono::milliseconds restart_period{10'000};
    /// After a restart the GPU may be missing for so long: a reset takes its time.
    std::chrono::milliseconds gpu_absence{30'000};
    /// After SIGTERM the serving process has so long before it is killed.
    std::chrono::milliseconds stop{20'000};
  };
  /// In the serving process: serves, and calls `ready` once when clients are served. The process
  /// ends with what it returns.
  using Serve = std::function<ServingEnd(const std::function<void()>& ready)>;

  /// `announce_ready` is called in the supervisor when a serving process is ready for the first
  /// time. The calling process must have one thread only.
  Supervisor(Limits limits, Serve serve, std::function<void()> announce_ready);

  /// Until SIGTERM or SIGINT, or for as long as serving makes sense. eclipd's exit status, 0 or 1;
  /// why it gives up is logged, by the serving process or here.
  int run();

 private:
  struct Child {
    pid_t pid = -1;
    UniqueFd ready;  ///< readable once: a byte, or the end
  };
  using Clock = std::chrono::steady_clock;

  Result<Child> start();
  /// The child's wait status, once it has ended. Passes signals on meanwhile.
  Result<int> await_end(Child& child);
  void look_for_ready(Child& child);
  /// Whether the limits allow another process after one that ended so; waits where a wait helps.
  bool may_restart(int wait_status);
  void pause(std::chrono::milliseconds time);

  const Limits limits_;
  const Serve serve_;
  const std::function<void()> announce_ready_;
  UniqueFd signals_;
  bool announced_ = false;
  bool stopping_ = false;
  std::deque<Clock::time_point> restarts_;
  Clock::time_point missing_since_{};
  bool missing_ = false;
};

}  // namespace eclip::daemon
