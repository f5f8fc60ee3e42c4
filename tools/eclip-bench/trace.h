// What ran where and when, for chrome://tracing and Perfetto.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "daemon/model/device.h"

namespace eclip::bench {

/// The first `most_events` packets and changes of the active set of one run.
class Trace {
 public:
  static constexpr std::size_t most_events = 400'000;

  explicit Trace(std::vector<std::string> worker_names) : names_(std::move(worker_names)) {}

  /// `kernel`: its place in the request, from 1; 0: a barrier packet.
  void ran(std::size_t worker, std::uint32_t stream, std::uint32_t kernel, model::DeviceTime start,
           model::DeviceTime end);
  void active_set(std::uint32_t workers, model::DeviceTime at);
  /// The Trace Event Format: a process for each stream, in it a thread for each worker.
  [[nodiscard]] std::string json() const;

 private:
  struct Ran {
    std::uint32_t worker;
    std::uint32_t stream;
    std::uint32_t kernel;
    model::DeviceTime start;
    model::DeviceTime end;
  };
  struct Active {
    std::uint32_t workers;
    model::DeviceTime at;
  };
  std::vector<std::string> names_;
  std::vector<Ran> ran_;
  std::vector<Active> active_;
};

}  // namespace eclip::bench
