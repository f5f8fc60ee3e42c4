#include "tools/kfdsim/sdma_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <type_traits>
#include <utility>
#include <vector>

#include "tools/kfdsim/gpu_context.h"

namespace eclip::kfdsim {
namespace {

// Copies through a buffer of this size where this process does not see the memory itself.
constexpr std::uint64_t bounce_bytes = 1 << 20;

bool copy_bytes(GpuMemory& memory, std::uint64_t from, std::uint64_t to, std::uint64_t bytes) {
  std::byte* const source = memory.direct(from, bytes);
  std::byte* const destination = memory.direct(to, bytes);
  if (source != nullptr && destination != nullptr) {
    std::copy_n(source, bytes, destination);
    return true;
  }
  if (source != nullptr) return memory.write(to, {source, bytes});
  if (destination != nullptr) return memory.read(from, {destination, bytes});
  std::vector<std::byte> bounce(std::min(bytes, bounce_bytes));
  for (std::uint64_t at = 0; at < bytes; at += bounce.size()) {
    const auto part = std::span(bounce).first(std::min<std::uint64_t>(bounce.size(), bytes - at));
    if (!memory.read(from + at, part) || !memory.write(to + at, part)) return false;
  }
  return true;
}

}  // namespace

QueueFault SdmaQueue::unreachable(std::uint64_t address, const char* what) const {
  return {true, address,
          fmt::format("SDMA packet at byte {} of its ring: {} at {:#x} is not mapped on the GPU",
                      read_ % ring_.bytes, what, address)};
}

std::variant<SdmaQueue::Step, QueueFault> SdmaQueue::step(std::uint64_t announced,
                                                          model::DeviceTime now) {
  GpuMemory& memory = context_.memory;
  if (ring_.bytes < sdma_max_words * sizeof(std::uint32_t)) {
    return QueueFault{false, 0, "its SDMA ring is too small for a packet"};
  }
  const std::uint64_t waiting = announced - read_;
  if (waiting > ring_.bytes) {
    return QueueFault{
        false, 0,
        fmt::format("its doorbell announces {} bytes, its SDMA ring has {}", waiting, ring_.bytes)};
  }
  const std::uint64_t at = read_ % ring_.bytes;
  std::array<std::uint32_t, sdma_max_words> words{};
  const auto given =
      std::as_writable_bytes(std::span(words)).first(std::min(waiting, sizeof words));
  // A packet may go on at the ring's start.
  const auto before_end = given.first(std::min(given.size(), ring_.bytes - at));
  if (!memory.read(ring_.base + at, before_end) ||
      !memory.read(ring_.base, given.subspan(before_end.size()))) {
    return unreachable(ring_.base + at, "its ring");
  }
  const auto decoded = decode_sdma_packet(words, waiting);
  if (const auto* fault = std::get_if<QueueFault>(&decoded)) {
    QueueFault named = *fault;
    named.text = fmt::format("SDMA packet at byte {} of its ring: {}", at, fault->text);
    return named;
  }
  const auto& packet = std::get<SdmaPacket>(decoded);
  auto outcome = execute(packet, now);
  const auto* step = std::get_if<Step>(&outcome);
  if (step == nullptr || *step == Step::waiting) return outcome;
  read_ += packet.bytes;
  if (!memory.store(ring_.read_pointer, read_)) {
    return unreachable(ring_.read_pointer, "its read pointer");
  }
  return outcome;
}

model::DeviceTime SdmaQueue::duration_of(const SdmaPacket& packet) const {
  std::uint64_t bytes = 0;
  if (const auto* copy = std::get_if<SdmaCopy>(&packet.body)) bytes = copy->bytes;
  if (const auto* fill = std::get_if<SdmaFill>(&packet.body)) bytes = fill->bytes;
  if (const auto* rect = std::get_if<SdmaCopyRect>(&packet.body)) {
    bytes = rect->width * rect->rows * rect->slices;
  }
  const std::chrono::duration<double, std::nano> time(static_cast<double>(bytes) /
                                                      gpu_.memory.sdma_gb_per_s);
  return std::chrono::ceil<model::DeviceTime>(time);
}

std::variant<SdmaQueue::Step, QueueFault> SdmaQueue::execute(const SdmaPacket& packet,
                                                             model::DeviceTime now) {
  GpuMemory& memory = context_.memory;
  return std::visit(
      [&](const auto& body) -> std::variant<Step, QueueFault> {
        using Body = std::decay_t<decltype(body)>;
        if constexpr (std::is_same_v<Body, SdmaNop>) {
          return Step::done;
        } else if constexpr (std::is_same_v<Body, SdmaFence>) {
          if (memory.write_as(body.address, body.value)) return Step::done;
          return unreachable(body.address, "the fence");
        } else if constexpr (std::is_same_v<Body, SdmaTrap>) {
          context_.events.interrupt(body.event_id, memory);
          return Step::done;
        } else if constexpr (std::is_same_v<Body, SdmaPoll>) {
          const auto value = memory.read_as<std::uint32_t>(body.address);
          if (!value) return unreachable(body.address, "the word that it polls");
          if (!body.holds(*value)) return Step::waiting;
          return Step::done;
        } else if constexpr (std::is_same_v<Body, SdmaAtomicAdd>) {
          if (memory.add(body.address, static_cast<std::int64_t>(body.addend))) return Step::done;
          return unreachable(body.address, "the word that it adds to");
        } else if constexpr (std::is_same_v<Body, SdmaTimestamp>) {
          if (memory.store(body.address, clock_.ticks(time_))) return Step::done;
          return unreachable(body.address, "the timestamp");
        } else {
          if (!move_ends_) {
            move_start_ = std::max(time_, engine_.free_at);
            move_ends_ = move_start_ + duration_of(packet);
            engine_.free_at = *move_ends_;
          }
          if (*move_ends_ > now) return Step::waiting;
          time_ = *move_ends_;
          move_ends_.reset();
          if (auto fault = move(body)) return std::move(*fault);
          return Step::moved;
        }
      },
      packet.body);
}

std::optional<QueueFault> SdmaQueue::move(const SdmaCopy& copy) {
  GpuMemory& memory = context_.memory;
  if (!memory.mapped(copy.source, copy.bytes)) return unreachable(copy.source, "a copy's source");
  if (!copy_bytes(memory, copy.source, copy.destination, copy.bytes)) {
    return unreachable(copy.destination, "a copy's destination");
  }
  return std::nullopt;
}

std::optional<QueueFault> SdmaQueue::move(const SdmaCopyRect& rect) {
  const auto row = [](const SdmaCopyRect::Side& side, std::uint64_t y, std::uint64_t z) {
    return side.first + y * side.pitch + z * side.slice;
  };
  for (std::uint64_t z = 0; z < rect.slices; ++z) {
    for (std::uint64_t y = 0; y < rect.rows; ++y) {
      const SdmaCopy one{row(rect.source, y, z), row(rect.destination, y, z), rect.width};
      if (auto fault = move(one)) return fault;
    }
  }
  return std::nullopt;
}

std::optional<QueueFault> SdmaQueue::move(const SdmaFill& fill) {
  GpuMemory& memory = context_.memory;
  std::vector<std::uint32_t> words(std::min(fill.bytes, bounce_bytes) / sizeof(std::uint32_t),
                                   fill.value);
  const auto bytes = std::as_bytes(std::span(words));
  for (std::uint64_t at = 0; at < fill.bytes; at += bytes.size()) {
    const auto part = bytes.first(std::min<std::uint64_t>(bytes.size(), fill.bytes - at));
    if (!memory.write(fill.destination + at, part)) {
      return unreachable(fill.destination + at, "a fill's destination");
    }
  }
  return std::nullopt;
}

}  // namespace eclip::kfdsim
