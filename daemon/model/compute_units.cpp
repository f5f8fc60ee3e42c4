#include "daemon/model/compute_units.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "daemon/model/packet_queue.h"

namespace eclip::model {
namespace {

constexpr double ns_per_us = 1000;
/// Fewer effective CUs than this are none: the rest of a subtraction, not a place for a workgroup.
constexpr double no_cus = 1e-6;

}  // namespace

void ComputeUnits::arrive(QueueId queue, PacketQueue& owner, Packet packet) {
  groups_.acquire(owner.mask);
  Residency& kernel = kernels_.emplace_back();
  kernel.queue = queue;
  kernel.owner = &owner;
  kernel.packet = std::move(packet);
  kernel.mask = owner.mask;
  place(kernel);
  changed_ = true;
}

void ComputeUnits::place(Residency& kernel) {
  kernel.occupancy = occupancies_.find(kernel.packet.kernel, groups_.cus_in(kernel.mask));
  kernel.last_wave = kernel.occupancy.last_work >= 1;
  kernel.remaining = kernel.last_wave ? 1 : 1 - kernel.occupancy.last_work;
  kernel.timed_cus = -1;
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
    place(kernel);
    changed_ = true;
  }
}

void ComputeUnits::pass_to(DeviceTime now, std::vector<Residency>& completed) {
  bool any_complete = false;
  if (next_change_ > now) return;
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

void ComputeUnits::take_slots(Residency& kernel) {
  const double slots = kernel.last_wave ? kernel.occupancy.last_slots : kernel.occupancy.slots;
  const auto sizes = groups_.group_sizes();
  kernel.effective_cus = 0;
  for (const std::uint32_t group : groups_.groups_of(kernel.mask)) {
    const double part = free_[group] >= slots ? 1 : free_[group] / slots;
    free_[group] -= part * slots;
    load_[group] += part * kernel.occupancy.load;
    held_.push_back(part * sizes[group]);
    kernel.effective_cus += held_.back();
  }
  if (kernel.effective_cus < no_cus) kernel.effective_cus = 0;
}

void ComputeUnits::set_alone_time(Residency& kernel, const double* held) const {
  double overload = 0;
  for (const std::uint32_t group : groups_.groups_of(kernel.mask))
    overload += *held++ * std::max(0.0, load_[group] - 1);
  overload /= kernel.effective_cus;
  if (kernel.timed_cus != kernel.effective_cus) {
    kernel.timed_cus = kernel.effective_cus;
    kernel.time_us = time_on(kernel, kernel.effective_cus);
  }
  kernel.alone_us = kernel.time_us * (1 + overload * (1 - gpu_.timing.overlap_gain));
  kernel.speed = kernel.occupancy.full_us / kernel.alone_us;
}

double ComputeUnits::time_on(const Residency& kernel, double cus) const {
  if (cus > groups_.cus_in(kernel.mask) - no_cus) return kernel.occupancy.full_us;
  const Kernel& curve = *kernel.packet.kernel;
  const double smooth_us = curve.time_us(cus) * kernel.occupancy.rounding;
  // The last round of workgroups is as long on fewer CUs, however few workgroups it has.
  if (cus < 1) return smooth_us;
  return std::max(smooth_us, curve.time_on_mask_us(static_cast<std::uint32_t>(cus)));
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
  load_.assign(groups_.group_sizes().size(), 0.0);
  held_.clear();
  for (Residency& kernel : kernels_) take_slots(kernel);
  double bandwidth = 0;
  const double* held = held_.data();
  for (Residency& kernel : kernels_) {
    kernel.speed = 0;
    if (kernel.effective_cus > 0) set_alone_time(kernel, held);
    held += groups_.groups_of(kernel.mask).size();
    bandwidth += kernel.occupancy.memory * kernel.speed;
  }
  next_change_ = DeviceTime::max();
  for (Residency& kernel : kernels_) {
    if (kernel.effective_cus <= 0) {
      set_rate(kernel, now, 0);
      continue;
    }
    const double own = kernel.occupancy.memory * kernel.speed;
    const double others = std::clamp(bandwidth - own, 0.0, 1.0);
    const double time_us = kernel.alone_us * (1 + gpu_.timing.memory_contention * others);
    set_rate(kernel, now, 1 / (time_us * ns_per_us));
    next_change_ = std::min(next_change_, kernel.phase_end);
    if (!kernel.started) {
      kernel.started = true;
      kernel.start = now;
      started.push_back(&kernel);
    }
  }
  update_power(bandwidth);
}

void ComputeUnits::update_power(double bandwidth) {
  double busy_cus = 0;
  for (const Residency& kernel : kernels_) {
    const double slots = kernel.last_wave ? kernel.occupancy.last_slots : kernel.occupancy.slots;
    busy_cus += slots * kernel.speed * groups_.cus_in(kernel.mask);
  }
  watts_ = gpu_.power.idle_watts + gpu_.power.cu_active_watts * busy_cus +
           gpu_.power.memory_watts * std::min(bandwidth, 1.0);
}

void ComputeUnits::pause(DeviceTime now) {
  for (Residency& kernel : kernels_) set_rate(kernel, now, 0);
  watts_ = gpu_.power.idle_watts;
  next_change_ = DeviceTime::max();
  changed_ = true;
}

}  // namespace eclip::model
