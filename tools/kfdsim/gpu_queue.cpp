#include "tools/kfdsim/gpu_queue.h"

#include <fmt/format.h>
#include <hsa/hsa.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <utility>

#include "tools/kfdsim/gpu_context.h"

namespace eclip::kfdsim {
namespace {

// What a doorbell reads before its first ring: with this value, one more packet is none.
constexpr std::uint64_t never_rung = ~0ULL;

// A ring can have gigabytes of packets; it is refilled long before so many have run.
constexpr std::uint64_t max_in_flight = 16384;

// An SDMA queue's doorbell counts bytes.
constexpr std::uint64_t nothing_written(QueueType type) {
  return type == QueueType::sdma ? 0 : never_rung;
}

std::atomic_ref<std::uint64_t> doorbell_of(const GpuContext& context, std::uint32_t index) {
  std::byte* place = context.backing.at(BackingMemory::doorbell_offset + index * 8ULL);
  return std::atomic_ref<std::uint64_t>(*reinterpret_cast<std::uint64_t*>(place));
}

}  // namespace

GpuQueue::GpuQueue(GpuContext& queue_context, std::uint32_t queue_id, std::uint32_t doorbell_index,
                   QueueType queue_type, RingSettings settings)
    : context(queue_context),
      id(queue_id),
      doorbell(doorbell_index),
      type(queue_type),
      ring(settings),
      last_doorbell_(nothing_written(queue_type)) {
  doorbell_of(context, doorbell).store(nothing_written(queue_type));
}

std::uint64_t GpuQueue::read_doorbell() const {
  return doorbell_of(context, doorbell).load(std::memory_order_acquire);
}

bool GpuQueue::doorbell_moved() {
  const std::uint64_t value = read_doorbell();
  return std::exchange(last_doorbell_, value) != value;
}

std::variant<std::optional<FetchedPacket>, QueueFault> GpuQueue::fetch() {
  // Producers of one queue may ring out of order: the largest value counts.
  announced_ = std::max(announced_, read_doorbell() + 1);
  const std::uint64_t capacity = ring.bytes / packet_bytes;
  if (next_ >= announced_ || in_flight.size() >= std::min(capacity, max_in_flight)) {
    return std::optional<FetchedPacket>{};
  }
  hung = hang && next_ >= hang->after;
  if (hung) return std::optional<FetchedPacket>{};
  const std::uint64_t address = ring.base + next_ % capacity * packet_bytes;
  const auto not_mapped = [&] {
    return QueueFault{true, address, fmt::format("its ring at {:#x} is not mapped", address)};
  };
  // The header is written last, so it must be read first.
  const auto first_word = context.memory.load(address);
  if (!first_word) return not_mapped();
  if (!is_written(static_cast<std::uint16_t>(*first_word))) return std::optional<FetchedPacket>{};
  std::array<std::byte, packet_bytes> bytes{};
  if (!context.memory.read(address, bytes)) return not_mapped();

  auto decoded = decode_packet(bytes);
  if (auto* fault = std::get_if<QueueFault>(&decoded)) {
    fault->text = fmt::format("packet {}: {}", next_, fault->text);
    return std::move(*fault);
  }
  context.memory.write_as<std::uint16_t>(address, HSA_PACKET_TYPE_INVALID);
  return FetchedPacket{next_++, std::get<AqlPacket>(std::move(decoded))};
}

bool GpuQueue::publish_taken(std::uint64_t index) {
  return context.memory.store(ring.read_pointer, index + 1);
}

}  // namespace eclip::kfdsim
