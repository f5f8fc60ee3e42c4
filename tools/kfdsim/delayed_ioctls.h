// Ioctls that an injected fault holds back.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "tools/kfdsim/fuse_connection.h"

namespace eclip::kfdsim {

class DelayedIoctls {
 public:
  using Time = std::chrono::steady_clock::time_point;

  struct Held {
    fuse_in_header header{};
    std::vector<std::byte> body;
    int error = 0;  ///< errno that it will get; 0: it is carried out
    [[nodiscard]] FuseRequest request() const { return {header, body}; }
  };

  void hold(const FuseRequest& request, int error, Time until) {
    held_.emplace(until, Held{request.header, {request.body.begin(), request.body.end()}, error});
  }
  /// When the next one is to be carried out.
  [[nodiscard]] std::optional<Time> next() const {
    if (held_.empty()) return std::nullopt;
    return held_.begin()->first;
  }
  /// Takes the one with this id, due or not; nullopt when it is not held.
  std::optional<Held> take(std::uint64_t unique) {
    for (auto place = held_.begin(); place != held_.end(); ++place) {
      if (place->second.header.unique != unique) continue;
      Held found = std::move(place->second);
      held_.erase(place);
      return found;
    }
    return std::nullopt;
  }
  /// Takes the next one that is due.
  std::optional<Held> take_due(Time now) {
    if (held_.empty() || held_.begin()->first > now) return std::nullopt;
    Held first = std::move(held_.begin()->second);
    held_.erase(held_.begin());
    return first;
  }

 private:
  std::multimap<Time, Held> held_;
};

}  // namespace eclip::kfdsim
