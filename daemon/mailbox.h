// Work that one thread hands to another.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace eclip::daemon {

/// A queue of calls. Any thread posts; one thread runs them, in order.
class Mailbox {
 public:
  /// `wake` is called after each post, on the poster's thread.
  explicit Mailbox(std::function<void()> wake) : wake_(std::move(wake)) {}

  void post(std::function<void()> work) {
    {
      const std::lock_guard lock(mutex_);
      work_.push_back(std::move(work));
    }
    wake_();
  }

  /// Runs what has been posted so far.
  void run_all() {
    std::vector<std::function<void()>> work;
    {
      const std::lock_guard lock(mutex_);
      work.swap(work_);
    }
    for (auto& call : work) call();
  }

 private:
  std::function<void()> wake_;
  std::mutex mutex_;
  std::vector<std::function<void()>> work_;
};

}  // namespace eclip::daemon
