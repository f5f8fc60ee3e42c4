// Decides when the faults of --fault happen. Which calls, queues, allocations and packets they hit
// depends on the seed and on counters of one process alone, not on the clock or on other processes:
// the same command with the same seed meets the same faults. Faults at a time are the exception.
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
  std::array<std::uint64_t, 256> calls{};      ///< by command number
  std::uint64_t queues = 0;                    ///< AQL queues created
  std::array<std::uint64_t, 2> allocations{};  ///< of system memory, of VRAM
  std::vector<std::uint64_t> happened;         ///< by fault
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

  /// The least of what there is and what the faults leave to each process.
  [[nodiscard]] std::uint64_t limited(std::uint64_t bytes, bool vram) const;
  /// Counts an allocation and says whether it fails.
  bool allocation_fails(FaultHistory& process, bool vram);
  /// An allocation failed for lack of memory.
  void memory_ended(bool vram);

  struct Timed {
    DeviceTime at{};
    DeviceTime duration{};
    bool resets = false;  ///< otherwise it stalls
  };
  /// When the next fault is due by the device's clock.
  [[nodiscard]] std::optional<DeviceTime> next_due() const;
  /// Takes the next fault that is due at `now`, if one is.
  std::optional<Timed> take_due(DeviceTime now);

  /// What a packet brings about; for how long.
  struct PacketOutcome {
    std::optional<DeviceTime> stall;
    std::optional<DeviceTime> reset;
  };
  /// The `process`-th process has completed its `packet`-th packet, both from 1.
  PacketOutcome packet_completed(std::uint64_t process, std::uint64_t packet);

  /// A fault happened that another than this class has carried out.
  void count(std::size_t fault) { ++happened_.at(fault); }
  /// What has happened, for the summary; "" when no fault was asked for.
  [[nodiscard]] std::string summary() const;

 private:
  struct Entry {
    Timed timed;
    std::size_t fault;
  };
  /// Whether the packet is one that does it; counts it then.
  bool triggered(std::size_t fault, const Trigger& trigger, std::uint64_t process,
                 std::uint64_t packet);
  [[nodiscard]] bool chosen(std::size_t fault, double probability, std::uint64_t which,
                            std::uint64_t n) const;

  std::vector<FaultSpec> faults_;
  std::uint64_t seed_;
  std::vector<std::uint64_t> happened_;  // by fault
  std::vector<Entry> due_;               // by time, the latest first
  std::vector<std::size_t> by_packets_;  // faults that packets bring about
};

}  // namespace eclip::kfdsim
