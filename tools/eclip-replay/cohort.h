// Workers on one machine that start together and keep up the load until all of them have measured:
// otherwise the last ones would be measured on an idle GPU.
#pragma once

#include <array>
#include <atomic>
#include <boost/interprocess/mapped_region.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "ipc/result.h"
#include "ipc/unique_fd.h"
#include "tools/eclip-replay/options.h"

namespace eclip::replay {

/// What a cohort's file holds. All members map it.
struct CohortBoard {
  static constexpr std::uint64_t expected_magic = 0x31305452484f4345;  // "ECOHRT01"
  static constexpr std::size_t max_members = 64;

  std::uint64_t magic;
  std::uint32_t count;                ///< workers that belong to the cohort
  std::atomic<std::uint32_t> joined;  ///< writers: members, under the file's lock; a futex
  struct Member {
    std::uint32_t pid;
    std::atomic<std::uint32_t> finished;  ///< 1: has measured all it wanted. Writer: the member
    std::atomic<std::uint64_t> requests;  ///< so far, to show progress. Writer: the member
  };
  std::array<Member, max_members> members;
};
static_assert(sizeof(CohortBoard::Member) == 16);
static_assert(offsetof(CohortBoard, members) == 16);

/// One worker's membership. That a member lives is shown by its lock on a byte of the file, which
/// the kernel drops when it ends, however it ends.
class Cohort {
 public:
  /// Joins or founds the cohort. A file left by dead workers is started anew. Errc::already_in_use
  /// when it is complete, Errc::invalid_argument when it is another count's or no cohort's.
  static Result<Cohort> join(const CohortChoice& choice);

  /// Waits until all have joined. False when `stop` was set first. Errc::timed_out, Errc::gone when
  /// a member died.
  Result<bool> wait_for_all(std::chrono::nanoseconds timeout, const std::atomic<bool>& stop) const;

  void count_request();
  void finish();
  /// Whether all have finished. Errc::gone when one ended before, Errc::timed_out when one that has
  /// not finished completed no request for `timeout`.
  Result<bool> all_finished(std::chrono::nanoseconds timeout);

 private:
  using Clock = std::chrono::steady_clock;
  struct LastProgress {
    std::uint64_t requests = 0;
    Clock::time_point at = Clock::now();
  };

  Cohort(UniqueFd fd, boost::interprocess::mapped_region mapping, std::string path)
      : fd_(std::move(fd)), mapping_(std::move(mapping)), path_(std::move(path)) {}

  [[nodiscard]] CohortBoard& board() const {
    return *static_cast<CohortBoard*>(mapping_.get_address());
  }
  /// Takes a place; the file's lock is held.
  Result<void> enter(std::uint32_t count);
  [[nodiscard]] Result<void> check_alive(std::size_t member) const;

  UniqueFd fd_;
  boost::interprocess::mapped_region mapping_;
  std::string path_;
  std::size_t self_ = 0;
  std::array<LastProgress, CohortBoard::max_members> progress_{};
};

}  // namespace eclip::replay
