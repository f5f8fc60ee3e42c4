// AQL packets as the packet processor reads them from a queue's ring.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>

namespace eclip::kfdsim {

inline constexpr std::size_t packet_bytes = 64;

/// What the packet processor writes to a queue's queue_inactive_signal when it stops the queue; the
/// ROCm runtime turns it into the status that the queue's error callback gets.
namespace queue_error {
inline constexpr std::int64_t dimensions = 2;       ///< INCOMPATIBLE_ARGUMENTS
inline constexpr std::int64_t group_memory = 4;     ///< INVALID_ALLOCATION
inline constexpr std::int64_t code = 8;             ///< INVALID_CODE_OBJECT
inline constexpr std::int64_t packet_format = 32;   ///< INVALID_PACKET_FORMAT
inline constexpr std::int64_t workgroup = 64;       ///< INVALID_ARGUMENT: too large
inline constexpr std::int64_t vendor_format = 256;  ///< INVALID_PACKET_FORMAT
}  // namespace queue_error

/// Why the GPU stops a queue: the packet makes no sense (`error`), or, for all queues of the
/// process, it could not reach `address`.
struct QueueFault {
  bool memory = false;
  std::uint64_t address = 0;
  std::string text;
  std::int64_t error = queue_error::packet_format;
};

struct DispatchPacket {
  std::array<std::uint32_t, 3> workgroup_size{};  ///< work items
  std::array<std::uint32_t, 3> grid_size{};       ///< work items
  std::uint32_t group_segment_bytes = 0;
  std::uint64_t kernel_object = 0;
  std::uint64_t kernarg_address = 0;

  [[nodiscard]] std::uint64_t workgroups() const;
};

struct BarrierPacket {
  bool any = false;                             ///< barrier-OR
  std::array<std::uint64_t, 5> dependencies{};  ///< GPU addresses of amd_signal_t, or 0
};

/// A packet whose effect is on caches only (AMD's PM4-in-AQL packet, which the ROCm runtime uses
/// after it has loaded code): nothing to do here, but it completes like any other.
struct CachePacket {};

struct AqlPacket {
  bool barrier_bit = false;
  std::uint64_t completion_signal = 0;
  std::variant<DispatchPacket, BarrierPacket, CachePacket> body;
};

/// Whether the producer has finished writing the packet with this header.
[[nodiscard]] bool is_written(std::uint16_t header);

/// The packet in `bytes`, or why it cannot be processed.
std::variant<AqlPacket, QueueFault> decode_packet(std::span<const std::byte, packet_bytes> bytes);

}  // namespace eclip::kfdsim
