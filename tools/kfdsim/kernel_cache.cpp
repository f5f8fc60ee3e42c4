#include "tools/kfdsim/kernel_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

#include "tools/kfdsim/blit_kernels.h"
#include "tools/kfdsim/kernel_symbols.h"

namespace eclip::kfdsim {
namespace {

// A kernel's estimated time (docs/kfdsim.md): a fixed part, and a part for each time that the grid
// fills all resident work items of the CUs that it got.
constexpr double estimate_fixed_us = 2;
constexpr double estimate_round_us = 1;
constexpr std::uint64_t max_workgroups = 1ULL << 30;

// Both an HSA kernel descriptor and an amd_kernel_code_t have this distance from their start to the
// first instruction, 64 bits, at this place.
constexpr std::size_t entry_offset_at = 16;

/// Clients may make up ever new kernel objects: more than these are found out again.
template <class Map>
void make_room(Map& known) {
  constexpr std::size_t max_known = 16384;
  if (known.size() >= max_known) known.clear();
}

std::uint64_t work_items_of(const DispatchPacket& packet) {
  const auto& sizes = packet.workgroup_size;
  return std::uint64_t{sizes[0]} * sizes[1] * sizes[2];
}

}  // namespace

std::variant<DispatchedKernel, QueueFault> KernelCache::find(GpuMemory& memory,
                                                             const DispatchPacket& packet) {
  const std::uint64_t object = packet.kernel_object;
  if (!memory.mapped(object, replay::record_offset)) {
    return QueueFault{true, object,
                      fmt::format("kernel object {:#x} is not mapped on the GPU", object)};
  }
  const auto record = memory.read_as<replay::ReplayRecord>(object + replay::record_offset);
  if (record && record->magic == replay::ReplayRecord::expected_magic) {
    return find_replay(object, *record);
  }
  return find_code(memory, packet);
}

std::variant<DispatchedKernel, QueueFault> KernelCache::find_replay(
    std::uint64_t object, const replay::ReplayRecord& record) {
  const auto cached = replays_.find(object);
  if (cached != replays_.end() &&
      std::memcmp(&cached->second.record, &record, sizeof record) == 0) {
    return cached->second.dispatched;
  }
  auto decoded = replay::decode_replay_record(record);
  if (!decoded) {
    return QueueFault{false, object,
                      fmt::format("kernel object {:#x} has a bad replay record: {}", object,
                                  decoded.error().message()),
                      queue_error::code};
  }
  static const auto replay_name = std::make_shared<const std::string>("replay kernel");
  DispatchedKernel dispatched;
  dispatched.kernel = std::make_shared<const model::Kernel>(std::move(*decoded));
  dispatched.name = replay_name;
  dispatched.replay = true;
  dispatched.mixes = (record.flags & replay::ReplayRecord::flag_mix) != 0;
  make_room(replays_);
  replays_[object] = Replay{record, dispatched};
  return dispatched;
}

std::variant<DispatchedKernel, QueueFault> KernelCache::find_code(GpuMemory& memory,
                                                                  const DispatchPacket& packet) {
  const std::uint64_t object = packet.kernel_object;
  Code seen{};
  const auto unmapped = [](std::uint64_t address) {
    return QueueFault{true, address,
                      fmt::format("kernel code at {:#x} is not mapped on the GPU", address)};
  };
  if (!memory.read(object, seen.descriptor)) return unmapped(object);
  std::uint64_t entry_offset = 0;
  std::memcpy(&entry_offset, seen.descriptor.data() + entry_offset_at, sizeof entry_offset);
  // Shorter code than this at the end of a mapping is compared as zeros.
  if (!memory.mapped(object + entry_offset, sizeof(std::uint32_t))) {
    return unmapped(object + entry_offset);
  }
  memory.read(object + entry_offset, seen.first_instructions);

  auto known = codes_.find(object);
  const auto unchanged = [&](const Code& code) {
    if (code.descriptor != seen.descriptor || code.first_instructions != seen.first_instructions) {
      return false;
    }
    if (code.name_address == 0) return true;
    std::string name(code.name->size(), '\0');
    return memory.read(code.name_address, std::as_writable_bytes(std::span(name))) &&
           name == *code.name;
  };
  if (known == codes_.end() || !unchanged(known->second)) {
    make_room(codes_);
    ++identified_;
    known = codes_.insert_or_assign(object, identify(memory, object, seen)).first;
  }
  const Code& code = known->second;

  DispatchedKernel dispatched;
  dispatched.name = code.name;
  dispatched.shadow = code.shadow;
  dispatched.waits = *code.name == stream_wait_kernel;
  dispatched.kernel = known_.times.find(*code.name, packet.workgroups(), work_items_of(packet));
  if (dispatched.kernel != nullptr) return dispatched;
  dispatched.estimated = true;
  double fixed_us = estimate_fixed_us;
  double round_us = estimate_round_us;
  if (code.shadow != nullptr && code.shadow->transfer != nullptr) {
    const ShadowLaunch launch(memory, packet);
    const auto transfer = code.shadow->transfer(&launch.launch());
    if (!transfer) return unmapped(packet.kernarg_address);
    fixed_us += transfer_us(memory, *transfer);
    round_us = 0;
    dispatched.estimated = false;
  }
  auto estimated = estimate(packet, fixed_us, round_us);
  if (auto* fault = std::get_if<QueueFault>(&estimated)) return std::move(*fault);
  dispatched.kernel = std::get<std::shared_ptr<const model::Kernel>>(std::move(estimated));
  return dispatched;
}

KernelCache::Code KernelCache::identify(const GpuMemory& memory, std::uint64_t object,
                                        Code bytes) const {
  if (auto symbol = find_kernel_symbol(memory, object)) {
    bytes.name = std::make_shared<const std::string>(std::move(symbol->name));
    bytes.name_address = symbol->name_address;
  } else {
    std::uint64_t entry_offset = 0;
    std::memcpy(&entry_offset, bytes.descriptor.data() + entry_offset_at, sizeof entry_offset);
    const std::uint64_t entry = object + entry_offset;
    std::vector<std::byte> code(page_bytes - entry % page_bytes);
    memory.read(entry, code);
    const std::uint64_t hash = fingerprint(code);
    const auto shader = rocr_shader_name(hash);
    bytes.name = std::make_shared<const std::string>(
        shader ? std::string(*shader) : fmt::format("code without a symbol ({:#018x})", hash));
  }
  bytes.shadow = known_.shadows.find(*bytes.name);
  return bytes;
}

double KernelCache::transfer_us(const GpuMemory& memory, const Transfer& transfer) const {
  const bool is_local = memory.is_vram(transfer.destination) &&
                        (!transfer.source || memory.is_vram(*transfer.source));
  // In VRAM, a copy reads and writes each byte.
  const double gb_per_s = is_local ? gpu_.memory.vram_gb_per_s / (transfer.source ? 2 : 1)
                                   : gpu_.memory.host_link_gb_per_s;
  // The size is what a client's arguments say: more than it can address would overflow device time.
  constexpr std::uint64_t most = 1ULL << 47;
  return static_cast<double>(std::min(transfer.bytes, most)) / (gb_per_s * 1e3);
}

std::variant<std::shared_ptr<const model::Kernel>, QueueFault> KernelCache::estimate(
    const DispatchPacket& packet, double fixed_us, double round_us) {
  const std::uint64_t items = work_items_of(packet);
  const std::uint64_t workgroups = std::min(packet.workgroups(), max_workgroups);
  if (items > gpu_.geometry.threads_per_cu) {
    return QueueFault{false, 0, fmt::format("a workgroup of {} work items fits on no CU", items),
                      queue_error::workgroup};
  }
  if (packet.group_segment_bytes > gpu_.geometry.local_memory_per_cu) {
    return QueueFault{false, 0,
                      fmt::format("a workgroup's {} bytes of group memory fit on no CU",
                                  packet.group_segment_bytes),
                      queue_error::group_memory};
  }
  const auto time_us = [&](std::uint32_t cus) {
    const std::uint64_t resident =
        std::uint64_t{cus} * std::max<std::uint64_t>(1, gpu_.geometry.threads_per_cu / items);
    const std::uint64_t rounds = (workgroups + resident - 1) / resident;
    return fixed_us + round_us * static_cast<double>(rounds);
  };
  const std::uint32_t all = gpu_.geometry.cu_count();
  std::vector<model::TimePoint> points{{1, time_us(1)}};
  if (all > 1) points.push_back({all, time_us(all)});
  model::LaunchShape shape;
  shape.workgroups = static_cast<std::uint32_t>(workgroups);
  shape.workgroup_size = static_cast<std::uint32_t>(items);
  shape.local_memory_bytes = packet.group_segment_bytes;
  auto created = model::Kernel::create(shape, points);
  if (!created) return QueueFault{false, 0, created.error().message(), queue_error::code};
  return std::make_shared<const model::Kernel>(std::move(*created));
}

}  // namespace eclip::kfdsim
