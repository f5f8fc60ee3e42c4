#include "tools/kfdsim/kernel_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace eclip::kfdsim {
namespace {

// An unknown kernel's estimate (docs/kfdsim.md): a fixed part, and a part for each time that the
// grid fills all resident work items of the CUs that it got.
constexpr double estimate_fixed_us = 2;
constexpr double estimate_round_us = 1;
constexpr std::size_t max_estimates = 1024;

}  // namespace

std::variant<DispatchedKernel, QueueFault> KernelCache::find(const GpuMemory& memory,
                                                             const DispatchPacket& packet) {
  const std::uint64_t object = packet.kernel_object;
  if (!memory.mapped(object, replay::record_offset)) {
    return QueueFault{true, object,
                      fmt::format("kernel object {:#x} is not mapped on the GPU", object)};
  }
  const auto record = memory.read_as<replay::ReplayRecord>(object + replay::record_offset);
  if (!record || record->magic != replay::ReplayRecord::expected_magic) return estimate(packet);

  const bool mixes = (record->flags & replay::ReplayRecord::flag_mix) != 0;
  const auto cached = by_object_.find(object);
  if (cached != by_object_.end() &&
      std::memcmp(&cached->second.record, &*record, sizeof *record) == 0) {
    return DispatchedKernel{cached->second.kernel, true, mixes};
  }
  auto decoded = replay::decode_replay_record(*record);
  if (!decoded) {
    return QueueFault{false, object,
                      fmt::format("kernel object {:#x} has a bad replay record: {}", object,
                                  decoded.error().message()),
                      queue_error::code};
  }
  auto kernel = std::make_shared<const model::Kernel>(std::move(*decoded));
  by_object_[object] = Entry{*record, kernel};
  return DispatchedKernel{std::move(kernel), true, mixes};
}

std::variant<DispatchedKernel, QueueFault> KernelCache::estimate(const DispatchPacket& packet) {
  const auto& sizes = packet.workgroup_size;
  const std::uint64_t items = std::uint64_t{sizes[0]} * sizes[1] * sizes[2];
  const std::uint64_t workgroups = std::min<std::uint64_t>(packet.workgroups(), 1U << 30);
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
  const std::uint64_t key = (workgroups << 32U) | items;
  if (const auto known = estimates_.find(key); known != estimates_.end()) {
    return DispatchedKernel{known->second, false, false};
  }
  const auto time_us = [&](std::uint32_t cus) {
    const std::uint64_t resident =
        std::uint64_t{cus} * std::max<std::uint64_t>(1, gpu_.geometry.threads_per_cu / items);
    const std::uint64_t rounds = (workgroups + resident - 1) / resident;
    return estimate_fixed_us + estimate_round_us * static_cast<double>(rounds);
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
  if (estimates_.size() >= max_estimates) estimates_.clear();
  auto kernel = std::make_shared<const model::Kernel>(std::move(*created));
  estimates_.emplace(key, kernel);
  return DispatchedKernel{std::move(kernel), false, false};
}

}  // namespace eclip::kfdsim
