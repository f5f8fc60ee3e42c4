// The plans that have been in force, oldest first, and which one is pinned; in files, so that they
// outlive eclipd.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "ipc/result.h"
#include "ipc/unique_fd.h"

namespace eclip::daemon {

/// A plan that was put in force.
struct PastPlan {
  std::uint64_t epoch = 0;
  std::int64_t made_at = 0;  ///< Unix time, s
  std::string reason;        ///< why
  nlohmann::json document;   ///< eclip.plan/1
};

/// Two files, of which one is in use: lines of JSON that are only appended to. When it has grown
/// too long, what is still needed goes to the other one. Files are opened once: the serving process
/// may open none for writing later. Not thread-safe.
class PlanHistory {
 public:
  static constexpr std::size_t kept = 32;                 ///< plans; and the pinned one
  static constexpr std::size_t most_bytes = 16UL << 20U;  ///< of a file, before it is rewritten

  /// Without files: all is forgotten with the object.
  PlanHistory() = default;
  /// Reads DIRECTORY/NAME.0.jsonl and NAME.1.jsonl, which it makes if need be. A last line that was
  /// not written whole is dropped and said. Errc::malformed, with file and line, for any other that
  /// cannot be read; the system's errors.
  static Result<PlanHistory> open(const std::filesystem::path& directory, const std::string& name,
                                  std::size_t file_limit = most_bytes);

  [[nodiscard]] const std::deque<PastPlan>& plans() const { return plans_; }
  /// nullptr: not known, or too long ago.
  [[nodiscard]] const PastPlan* find(std::uint64_t epoch) const;
  [[nodiscard]] std::optional<std::uint64_t> pinned() const { return pinned_; }
  /// One more than that of any plan so far.
  [[nodiscard]] std::uint64_t next_epoch() const { return next_epoch_; }

  // The system's errors; what is in memory has changed all the same.
  /// A plan with the epoch of the last one takes its place.
  Result<void> add(PastPlan plan);
  Result<void> pin(std::optional<std::uint64_t> epoch);

 private:
  struct File {
    std::filesystem::path path;
    UniqueFd fd;
  };
  static Result<File> open_file(std::filesystem::path path);
  Result<void> read(const File& file, const std::string& text);
  Result<void> apply(const nlohmann::json& line);
  void keep(PastPlan plan);
  void forget_old();
  Result<void> append(const nlohmann::json& line);
  Result<void> rewrite();

  std::deque<PastPlan> plans_;
  std::optional<std::uint64_t> pinned_;
  std::uint64_t next_epoch_ = 1;
  std::optional<std::array<File, 2>> files_;
  std::size_t in_use_ = 0;
  std::size_t bytes_ = 0;            // of the file in use
  std::size_t rewritten_bytes_ = 0;  // when it had been written anew
  std::size_t file_limit_ = most_bytes;
  std::uint64_t generation_ = 0;
};

}  // namespace eclip::daemon
