// Decides when the faults of --fault happen. Which calls and queues they hit depends on the seed
// and on counters of each process alone, not on the clock or on the order of threads: the same
// command with the same seed meets the same faults.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tools/kfdsim/fault_spec.h"

namespace eclip::kfdsim {

/// What one process has done so far, as far as faults count it.
struct FaultHistory {
  std::array<std::uint64_t, 256> calls{};  ///< by command number
  std::uint64_t queues = 0;                ///< AQL queues created
  std::vector<std::uint64_t> happened;     ///< by fault
};

/// Not thread safe; the Simulator's lock guards it.
class FaultInjector {
 public:
  explicit FaultInjector(std::vector<FaultSpec> faults = {}, std::uint64_t seed = 0);

  [[nodiscard]] std::uint64_t seed() const { return seed_; }

  struct IoctlOutcome {
    int error = 0;  ///< errno instead of the call; 0: it is carried out
    DeviceTime delay{};
  };
  /// Counts a call and says what happens to it.
  IoctlOutcome ioctl(FaultHistory& process, std::uint8_t number);

  struct Hang {
    std::uint64_t after;  ///< packets
    std::size_t fault;    ///< for count()
  };
  /// Counts a new AQL queue; when and why it hangs, if it does.
  std::optional<Hang> queue_created(FaultHistory& process);

  /// The least of what there is and what the faults leave.
  [[nodiscard]] std::uint64_t limited(std::uint64_t bytes, bool vram) const;
  /// An allocation failed for lack of memory.
  void allocation_failed(bool vram);

  struct Timed {
    DeviceTime at{};
    DeviceTime duration{};
    bool resets = false;  ///< otherwise it stalls
  };
  /// When the next fault is due by the device's clock.
  [[nodiscard]] std::optional<DeviceTime> next_due() const;
  /// Takes the next fault that is due at `now`, if one is.
  std::optional<Timed> take_due(DeviceTime now);
  /// When the GPU has completed so many packets: a reset that is due by now, if one is. Each
  /// happens once.
  std::optional<Timed> packet_completed(std::uint64_t packets, DeviceTime now);

  /// A fault happened that another than this class has carried out.
  void count(std::size_t fault) { ++happened_.at(fault); }
  /// What has happened, for the summary; "" when no fault was asked for.
  [[nodiscard]] std::string summary() const;

 private:
  struct Entry {
    Timed timed;
    std::size_t fault;
  };
  [[nodiscard]] bool chosen(std::size_t fault, double probability, std::uint64_t which,
                            std::uint64_t n) const;

  std::vector<FaultSpec> faults_;
  std::uint64_t seed_;
  std::vector<std::uint64_t> happened_;  // by fault
  std::vector<Entry> due_;               // by time, the latest first
  std::vector<std::size_t> counted_;     // resets that wait for a number of packets
};

}  // namespace eclip::kfdsim
