// The faults that a user asks for with --fault; docs/kfdsim.md has the syntax.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "daemon/model/device.h"
#include "ipc/result.h"

namespace eclip::kfdsim {

using model::DeviceTime;

/// Calls of an ioctl that fail, or are carried out late.
struct IoctlFault {
  std::optional<std::uint8_t> number;  ///< none: any command
  int error = 0;                       ///< errno; 0: the call is carried out
  DeviceTime delay{};
  double probability = 1;
  std::uint64_t after = 0;             ///< calls of a process that are spared first
  std::optional<std::uint64_t> count;  ///< most that happen to one process
};

/// AQL queues that take no more packets.
struct HangFault {
  std::optional<std::uint64_t> queue;  ///< of a process, counted from 1; none: any
  std::uint64_t after = 0;             ///< packets that it takes first
  double probability = 1;              ///< for each queue
};

/// When something happens to the whole GPU.
struct Trigger {
  /// By the device's clock; otherwise with a packet that one process completes.
  std::optional<DeviceTime> at;
  std::uint64_t process = 1;  ///< in the order in which they first open /dev/kfd, from 1
  std::uint64_t after = 1;    ///< the first of its packets that may do it, from 1
  double probability = 1;     ///< for each packet
  std::uint64_t count = 1;    ///< most that happen
};

/// No packet processor does anything for a while; kernels that run go on.
struct StallFault {
  Trigger trigger;
  DeviceTime duration{};
};

/// Each process gets less memory than there is.
struct MemoryLimit {
  bool vram = false;  ///< otherwise system memory
  std::optional<std::uint64_t> limit_bytes;
  double probability = 0;  ///< with which an allocation fails all the same
};

/// The driver resets the GPU.
struct ResetFault {
  Trigger trigger;
  DeviceTime duration{};  ///< for which /dev/kfd cannot be opened
};

struct FaultSpec {
  std::string text;  ///< as the user wrote it
  std::variant<IoctlFault, HangFault, StallFault, MemoryLimit, ResetFault> fault;
};

/// Errc::invalid_argument with the part that is wrong and what is accepted there.
Result<FaultSpec> parse_fault_spec(std::string_view text);

}  // namespace eclip::kfdsim
