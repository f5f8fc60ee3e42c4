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

/// Why a queue stops: the GPU could not reach `address`, or the packet makes no sense.
struct QueueFault {
  bool memory = false;
  std::uint64_t address = 0;
  std::string text;
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
