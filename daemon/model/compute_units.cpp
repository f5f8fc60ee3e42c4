#include "daemon/model/compute_units.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <utility>

#include "daemon/model/packet_queue.h"

namespace eclip::model {
namespace {

constexpr double ns_per_us = 1000;
/// Fewer effective CUs than this are none: the rest of a subtraction, not a place for a workgroup.
constexpr double no_cus = 1e-6;
/// No share of the memory bandwidth: a rate is to be computed anew.
constexpr double out_of_date = -1;

/// llround, of what is not negative, without a call: every event does it for many kernels.
DeviceTime rounded(double ns) {
  const auto whole = static_cast<DeviceTime::rep>(ns);
  return DeviceTime(ns - static_cast<double>(whole) < 0.5 ? whole : whole + 1);
}

/// From `now` on the kernel does so much work per nanosecond. Each event does it for many kernels.
[[gnu::always_inline]] inline void set_rate(Residency& kernel, DeviceTime now, double rate) {
  // An unchanged rate keeps the phase's end exactly where it is.
  if (rate == kernel.rate) return;
  kernel.remaining -= kernel.rate * static_cast<double>((now - kernel.updated).count());
  kernel.remaining = std::max(kernel.remaining, 0.0);
  kernel.updated = now;
  kernel.rate = rate;
  kernel.phase_end = rate > 0 ? now + rounded(kernel.remaining / rate) : never;
}

constexpr auto arrived_before = [](const Residency* left, const Residency* right) {
  return left->arrival < right->arrival;
};

}  // namespace

void ComputeUnits::arrive(QueueId queue, PacketQueue& owner, Packet packet) {
  groups_.acquire(owner.mask);
  if (spare_.empty()) {
    memory_.push_back(std::make_unique<Residency>());
    spare_.push_back(memory_.back().get());
  }
  Residency& kernel = *spare_.back();
  spare_.pop_back();
  kernels_.push_back(&kernel);
  kernel.queue = queue;
  kernel.owner = &owner;
  kernel.packet = std::move(packet);
  kernel.arrival = ++arrivals_;
  kernel.mask = owner.mask;
  place(kernel);
}

void ComputeUnits::place(Residency& kernel) {
  kernel.started = false;
  kernel.occupancy = occupancies_.find(kernel.packet.kernel, groups_.cus_in(kernel.mask));
  kernel.last_wave = kernel.occupancy.last_work >= 1;
  kernel.remaining = kernel.last_wave ? 1 : 1 - kernel.occupancy.last_work;
  kernel.rate = 0;
  kernel.phase_end = never;
  kernel.effective_cus = 0;
  kernel.timed_cus = -1;
  if (partition_ == groups_.partition_number())
    join_lines(kernel);
  else
    changed_ = true;  // all kernels join the lines of the new partition
}

void ComputeUnits::join_lines(Residency& kernel) {
  const auto groups = groups_.groups_of(kernel.mask);
  kernel.held.assign(groups.size(), 0.0);
  for (std::size_t index = 0; index < groups.size(); ++index)
    if (lines_[groups[index]].join(kernel, index)) to_deal_.push_back(groups[index]);
}

void ComputeUnits::leave_lines(const Residency& kernel) {
  // Lines of an old partition go as a whole.
  if (partition_ != groups_.partition_number()) return;
  for (const std::uint32_t group : groups_.groups_of(kernel.mask))
    if (lines_[group].leave(kernel)) to_deal_.push_back(group);
}

void ComputeUnits::slots_changed(const Residency& kernel) {
  if (partition_ != groups_.partition_number()) return;
  for (const std::uint32_t group : groups_.groups_of(kernel.mask))
    if (lines_[group].changed(kernel)) to_deal_.push_back(group);
}

void ComputeUnits::follow_groups() {
  if (partition_ == groups_.partition_number()) return;
  partition_ = groups_.partition_number();
  lines_.assign(groups_.group_sizes().size(), {});
  for (Residency* kernel : kernels_) join_lines(*kernel);
  to_deal_.clear();
  for (std::uint32_t group = 0; group < lines_.size(); ++group) {
    lines_[group].deal_all();
    to_deal_.push_back(group);
  }
}

void ComputeUnits::remove(const Residency& kernel) {
  leave_lines(kernel);
  groups_.release(kernel.mask);
  kernels_.erase(std::lower_bound(kernels_.begin(), kernels_.end(), &kernel, arrived_before));
}

void ComputeUnits::drop(QueueId queue) {
  std::erase_if(running_, [queue](const Residency* kernel) { return kernel->queue == queue; });
  std::erase_if(kernels_, [&](Residency* kernel) {
    if (kernel->queue != queue) return false;
    leave_lines(*kernel);
    groups_.release(kernel->mask);
    kernel->packet = {};
    spare_.push_back(kernel);
    changed_ = true;
    return true;
  });
}

void ComputeUnits::move_waiting(QueueId queue, CuGroups::MaskSlot mask) {
  for (Residency* kernel : kernels_) {
    if (kernel->queue != queue || kernel->started) continue;
    leave_lines(*kernel);
    groups_.acquire(mask);
    groups_.release(std::exchange(kernel->mask, mask));
    place(*kernel);
  }
}

void ComputeUnits::pass_to(DeviceTime now, std::vector<Residency*>& completed) {
  spare_.insert(spare_.end(), completed.begin(), completed.end());
  completed.clear();
  if (next_change_ > now) return;
  changed_ = true;
  auto kept = running_.begin();
  for (Residency* kernel : running_) {
    *kept = kernel;
    if (kernel->phase_end <= now && kernel->last_wave) {
      remove(*kernel);
      completed.push_back(kernel);
      continue;
    }
    ++kept;
    if (kernel->phase_end > now) continue;
    kernel->last_wave = true;
    kernel->remaining = kernel->occupancy.last_work;
    kernel->updated = now;
    kernel->rate = 0;
    kernel->phase_end = never;
    slots_changed(*kernel);
  }
  running_.erase(kept, running_.end());
}

void ComputeUnits::set_alone_time(Residency& kernel) const {
  double overload = 0;
  const double own_load = kernel.occupancy.load;
  const auto sizes = groups_.group_sizes();
  auto held = kernel.held.begin();
  for (const std::uint32_t group : groups_.groups_of(kernel.mask)) {
    const double load = lines_[group].load();
    const double own = *held / sizes[group] * own_load;
    // Workgroups meet others by chance before a CU's throughput is exceeded.
    overload += *held++ * std::max(std::max(0.0, load - 1), own * (load - own));
  }
  overload /= kernel.effective_cus;
  if (kernel.timed_cus != kernel.effective_cus) {
    kernel.timed_cus = kernel.effective_cus;
    kernel.time_us = time_on(kernel, kernel.effective_cus);
  }
  kernel.alone_us = kernel.time_us * (1 + overload * (1 - gpu_.timing.overlap_gain));
  const double speed = kernel.occupancy.full_us / kernel.alone_us;
  kernel.bandwidth = kernel.occupancy.memory * speed;
  kernel.busy_cus = kernel.slots() * speed * groups_.cus_in(kernel.mask);
}

double ComputeUnits::time_on(const Residency& kernel, double cus) const {
  if (cus > groups_.cus_in(kernel.mask) - no_cus) return kernel.occupancy.full_us;
  const Kernel& curve = *kernel.packet.kernel;
  const double smooth_us = curve.time_us(cus) * kernel.occupancy.rounding;
  // The last round of workgroups is as long on fewer CUs, however few workgroups it has.
  if (cus < 1) return smooth_us;
  return std::max(smooth_us, curve.time_on_mask_us(static_cast<std::uint32_t>(cus)));
}

void ComputeUnits::set_rates(DeviceTime now, double bandwidth) {
  // Not the members themselves, which a store to a kernel might change for all the compiler knows.
  DeviceTime next = never;
  const double contention = gpu_.timing.memory_contention;
  for (Residency* kernel : running_) {
    const double others = std::clamp(bandwidth - kernel->bandwidth, 0.0, 1.0);
    // Beyond the whole bandwidth, and without any, others make no difference.
    if (others != kernel->contention) {
      kernel->contention = others;
      const double time_us = kernel->alone_us * (1 + contention * others);
      set_rate(*kernel, now, 1 / (time_us * ns_per_us));
    }
    next = std::min(next, kernel->phase_end);
  }
  next_change_ = next;
}

void ComputeUnits::share_out(DeviceTime now, std::vector<Residency*>& started) {
  if (!changed_ && to_deal_.empty()) return;
  follow_groups();
  changed_ = false;
  touched_.clear();
  for (const std::uint32_t group : to_deal_)
    lines_[group].deal(groups_.group_sizes()[group], touched_);
  to_deal_.clear();
  std::sort(touched_.begin(), touched_.end(), arrived_before);
  for (Residency* kernel : touched_) {
    kernel->touched = false;
    kernel->contention = out_of_date;
    set_running(*kernel, now);
    if (kernel->effective_cus <= 0) continue;
    set_alone_time(*kernel);
    if (std::exchange(kernel->started, true)) continue;
    kernel->start = now;
    started.push_back(kernel);
  }
  double bandwidth = 0;
  double busy_cus = 0;
  for (const Residency* kernel : running_) {
    bandwidth += kernel->bandwidth;
    busy_cus += kernel->busy_cus;
  }
  set_rates(now, bandwidth);
  watts_ = gpu_.power.idle_watts + gpu_.power.cu_active_watts * busy_cus +
           gpu_.power.memory_watts * std::min(bandwidth, 1.0);
}

void ComputeUnits::set_running(Residency& kernel, DeviceTime now) {
  const bool ran = kernel.effective_cus > 0;
  kernel.effective_cus = std::accumulate(kernel.held.begin(), kernel.held.end(), 0.0);
  if (kernel.effective_cus < no_cus) kernel.effective_cus = 0;
  const bool runs = kernel.effective_cus > 0;
  if (runs == ran) return;
  const auto place = std::lower_bound(running_.begin(), running_.end(), &kernel, arrived_before);
  if (runs) {
    running_.insert(place, &kernel);
  } else {
    set_rate(kernel, now, 0);
    running_.erase(place);
  }
}

void ComputeUnits::pause(DeviceTime now) {
  for (Residency* kernel : running_) {
    set_rate(*kernel, now, 0);
    kernel->contention = out_of_date;
  }
  watts_ = gpu_.power.idle_watts;
  next_change_ = never;
  changed_ = true;
}

}  // namespace eclip::model
