#include "daemon/model/compute_units.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace eclip::model {
namespace {

constexpr double ns_per_us = 1000;
/// Fewer effective CUs than this are none: the rest of a subtraction, not a place for a workgroup.
constexpr double no_cus = 1e-6;

}  // namespace

void ComputeUnits::arrive(QueueId queue, Packet packet, CuGroups::MaskSlot mask) {
  groups_.acquire(mask);
  Residency kernel{.queue = queue, .packet = std::move(packet), .mask = mask};
  kernel.occupancy = occupancy_of(*kernel.packet.kernel, groups_.cus_in(mask), gpu_);
  kernel.last_wave = kernel.occupancy.last_work >= 1;
  kernel.remaining = kernel.last_wave ? 1 : 1 - kernel.occupancy.last_work;
  kernels_.push_back(std::move(kernel));
  changed_ = true;
}

void ComputeUnits::drop(QueueId queue) {
  std::erase_if(kernels_, [&](const Residency& kernel) {
    if (kernel.queue != queue) return false;
    groups_.release(kernel.mask);
    changed_ = true;
    return true;
  });
}

void ComputeUnits::move_waiting(QueueId queue, CuGroups::MaskSlot mask) {
  for (Residency& kernel : kernels_) {
    if (kernel.queue != queue || kernel.started) continue;
    groups_.acquire(mask);
    groups_.release(kernel.mask);
    kernel.mask = mask;
    kernel.occupancy = occupancy_of(*kernel.packet.kernel, groups_.cus_in(mask), gpu_);
    kernel.last_wave = kernel.occupancy.last_work >= 1;
    kernel.remaining = kernel.last_wave ? 1 : 1 - kernel.occupancy.last_work;
    changed_ = true;
  }
}

void ComputeUnits::pass_to(DeviceTime now, std::vector<Residency>& completed) {
  bool any_complete = false;
  for (Residency& kernel : kernels_) {
    if (kernel.phase_end > now) continue;
    changed_ = true;
    if (kernel.last_wave) {
      any_complete = true;
      continue;
    }
    kernel.last_wave = true;
    kernel.remaining = kernel.occupancy.last_work;
    kernel.updated = now;
    kernel.rate = 0;
    kernel.phase_end = DeviceTime::max();
  }
  if (!any_complete) return;
  std::erase_if(kernels_, [&](Residency& kernel) {
    if (kernel.phase_end > now) return false;
    groups_.release(kernel.mask);
    completed.push_back(std::move(kernel));
    return true;
  });
}

double ComputeUnits::take_cus(const Residency& kernel, double& busy_cus) {
  const double demand = kernel.last_wave ? kernel.occupancy.last_demand : kernel.occupancy.demand;
  const auto sizes = groups_.group_sizes();
  double effective_cus = 0;
  for (const std::uint32_t group : groups_.groups_of(kernel.mask)) {
    const double taken = std::min(demand, free_[group]);
    free_[group] -= taken;
    busy_cus += taken * sizes[group];
    effective_cus += taken / demand * sizes[group];
  }
  return effective_cus;
}

void ComputeUnits::set_rate(Residency& kernel, DeviceTime now, double rate) const {
  // An unchanged rate keeps the phase's end exactly where it is.
  if (rate == kernel.rate) return;
  kernel.remaining -= kernel.rate * static_cast<double>((now - kernel.updated).count());
  kernel.remaining = std::max(kernel.remaining, 0.0);
  kernel.updated = now;
  kernel.rate = rate;
  kernel.phase_end =
      rate > 0 ? now + DeviceTime(std::llround(kernel.remaining / rate)) : DeviceTime::max();
}

void ComputeUnits::share_out(DeviceTime now, std::vector<Residency*>& started) {
  if (!changed_) return;
  changed_ = false;
  free_.assign(groups_.group_sizes().size(), 1.0);
  double busy_cus = 0;
  std::size_t running = 0;
  for (Residency& kernel : kernels_) {
    kernel.effective_cus = take_cus(kernel, busy_cus);
    if (kernel.effective_cus < no_cus) kernel.effective_cus = 0;
    if (kernel.effective_cus > 0) ++running;
  }
  const double slowdown = running > 1 ? 1 + gpu_.timing.memory_contention : 1;
  double memory = 0;
  for (Residency& kernel : kernels_) {
    if (kernel.effective_cus <= 0) {
      set_rate(kernel, now, 0);
      continue;
    }
    const Kernel& curve = *kernel.packet.kernel;
    const double time_ns = curve.time_us(kernel.effective_cus) * ns_per_us * slowdown;
    set_rate(kernel, now, 1 / time_ns);
    memory +=
        kernel.occupancy.memory * curve.time_us(groups_.cus_in(kernel.mask)) * ns_per_us / time_ns;
    if (!kernel.started) {
      kernel.started = true;
      kernel.start = now;
      started.push_back(&kernel);
    }
  }
  watts_ = gpu_.power.idle_watts + gpu_.power.cu_active_watts * busy_cus +
           gpu_.power.memory_watts * std::min(memory, 1.0);
}

std::optional<DeviceTime> ComputeUnits::next_change() const {
  DeviceTime next = DeviceTime::max();
  for (const Residency& kernel : kernels_) next = std::min(next, kernel.phase_end);
  if (next == DeviceTime::max()) return std::nullopt;
  return next;
}

}  // namespace eclip::model
