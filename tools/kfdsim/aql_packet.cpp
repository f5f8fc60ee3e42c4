#include "tools/kfdsim/aql_packet.h"

#include <fmt/format.h>
#include <hsa/hsa.h>

#include <cstring>
#include <limits>

namespace eclip::kfdsim {
namespace {

constexpr std::uint8_t amd_format_pm4 = 1;

unsigned field(std::uint16_t header, unsigned position, unsigned width) {
  return (header >> position) & ((1U << width) - 1U);
}

unsigned type_of(std::uint16_t header) {
  return field(header, HSA_PACKET_HEADER_TYPE, HSA_PACKET_HEADER_WIDTH_TYPE);
}

QueueFault bad_packet(std::int64_t error, std::string text) {
  return {false, 0, std::move(text), error};
}

std::variant<AqlPacket, QueueFault> decode_dispatch(
    AqlPacket packet, std::span<const std::byte, packet_bytes> bytes) {
  hsa_kernel_dispatch_packet_t raw;
  std::memcpy(&raw, bytes.data(), sizeof raw);
  DispatchPacket dispatch;
  dispatch.workgroup_size = {raw.workgroup_size_x, raw.workgroup_size_y, raw.workgroup_size_z};
  dispatch.grid_size = {raw.grid_size_x, raw.grid_size_y, raw.grid_size_z};
  dispatch.group_segment_bytes = raw.group_segment_size;
  dispatch.kernel_object = raw.kernel_object;
  dispatch.kernarg_address = reinterpret_cast<std::uint64_t>(raw.kernarg_address);
  for (int i = 0; i < 3; ++i) {
    if (dispatch.workgroup_size.at(i) == 0 || dispatch.grid_size.at(i) == 0) {
      return bad_packet(queue_error::dimensions,
                        "a dispatch packet has an empty grid or workgroup");
    }
  }
  if (dispatch.kernel_object == 0) {
    return bad_packet(queue_error::code, "a dispatch packet names no kernel object");
  }
  packet.completion_signal = raw.completion_signal.handle;
  packet.body = dispatch;
  return packet;
}

}  // namespace

std::uint64_t DispatchPacket::workgroups() const {
  std::uint64_t count = 1;
  for (int i = 0; i < 3; ++i) {
    const std::uint64_t size = workgroup_size.at(i);
    if (__builtin_mul_overflow(count, (grid_size.at(i) + size - 1) / size, &count)) {
      return std::numeric_limits<std::uint64_t>::max();
    }
  }
  return count;
}

bool is_written(std::uint16_t header) {
  return type_of(header) != HSA_PACKET_TYPE_INVALID;
}

std::variant<AqlPacket, QueueFault> decode_packet(std::span<const std::byte, packet_bytes> bytes) {
  hsa_barrier_and_packet_t raw;  // a barrier-OR packet and the common fields are laid out alike
  static_assert(sizeof raw == packet_bytes);
  std::memcpy(&raw, bytes.data(), sizeof raw);
  AqlPacket packet;
  packet.barrier_bit =
      field(raw.header, HSA_PACKET_HEADER_BARRIER, HSA_PACKET_HEADER_WIDTH_BARRIER) != 0;
  packet.completion_signal = raw.completion_signal.handle;
  const unsigned type = type_of(raw.header);
  switch (type) {
    case HSA_PACKET_TYPE_KERNEL_DISPATCH:
      return decode_dispatch(packet, bytes);
    case HSA_PACKET_TYPE_BARRIER_AND:
    case HSA_PACKET_TYPE_BARRIER_OR: {
      BarrierPacket barrier;
      barrier.any = type == HSA_PACKET_TYPE_BARRIER_OR;
      for (std::size_t i = 0; i < barrier.dependencies.size(); ++i) {
        barrier.dependencies.at(i) = raw.dep_signal[i].handle;
      }
      packet.body = barrier;
      return packet;
    }
    case HSA_PACKET_TYPE_VENDOR_SPECIFIC: {
      const auto format = std::to_integer<std::uint8_t>(bytes[2]);
      if (format != amd_format_pm4) {
        return bad_packet(
            queue_error::vendor_format,
            fmt::format("vendor-specific packets of format {} are not simulated", format));
      }
      packet.body = CachePacket{};
      return packet;
    }
    default:
      return bad_packet(queue_error::packet_format,
                        fmt::format("packet type {} is not known on a GPU's queue", type));
  }
}

}  // namespace eclip::kfdsim
