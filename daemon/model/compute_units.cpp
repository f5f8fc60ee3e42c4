#include "daemon/model/compute_units.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "daemon/model/packet_queue.h"

namespace eclip::model {
namespace {

constexpr double ns_per_us = 1000;
/// Fewer effective CUs than this are none: the rest of a subtraction, not a place for a workgroup.
constexpr double no_cus = 1e-6;
/// No share of the memory bandwidth: a rate is to be computed anew.
constexpr double out_of_date = -1;

}  // namespace

void ComputeUnits::arrive(QueueId queue, PacketQueue& owner, Packet packet) {
  groups_.acquire(owner.mask);
  Entry& entry = entries_.emplace_back();
  if (spare_.empty()) {
    entry.kernel = std::make_unique<Residency>();
  } else {
    entry.kernel = std::move(spare_.back());
    spare_.pop_back();
  }
  Residency& kernel = *entry.kernel;
  kernel.queue = queue;
  kernel.owner = &owner;
  kernel.packet = std::move(packet);
  kernel.started = false;
  kernel.rate = 0;
  entry.mask = owner.mask;
  place(entry);
  take_free(entry);
  changed_ = true;
}

void ComputeUnits::place(Entry& entry) {
  Residency& kernel = *entry.kernel;
  kernel.occupancy = occupancies_.find(kernel.packet.kernel, groups_.cus_in(entry.mask));
  kernel.last_wave = kernel.occupancy.last_work >= 1;
  kernel.remaining = kernel.last_wave ? 1 : 1 - kernel.occupancy.last_work;
  kernel.timed_cus = -1;
  kernel.held.assign(groups_.groups_of(entry.mask).size(), 0.0);
  entry.fresh = true;
}

void ComputeUnits::slots_changed(CuGroups::MaskSlot mask) {
  changed_ = true;
  // With a new partition all slots are dealt out anew.
  if (partition_ != groups_.partition_number()) return;
  for (const std::uint32_t group : groups_.groups_of(mask)) shares_[group].changed = Change::slots;
}

void ComputeUnits::drop(QueueId queue) {
  std::erase_if(entries_, [&](const Entry& entry) {
    if (entry.kernel->queue != queue) return false;
    slots_changed(entry.mask);
    groups_.release(entry.mask);
    return true;
  });
}

void ComputeUnits::move_waiting(QueueId queue, CuGroups::MaskSlot mask) {
  for (Entry& entry : entries_) {
    if (entry.kernel->queue != queue || entry.kernel->started) continue;
    slots_changed(entry.mask);
    slots_changed(mask);
    groups_.acquire(mask);
    groups_.release(entry.mask);
    entry.mask = mask;
    place(entry);
  }
}

void ComputeUnits::pass_to(DeviceTime now, std::vector<std::unique_ptr<Residency>>& completed) {
  std::move(completed.begin(), completed.end(), std::back_inserter(spare_));
  completed.clear();
  if (next_change_ > now) return;
  bool any_complete = false;
  for (Entry& entry : entries_) {
    if (entry.phase_end > now) continue;
    slots_changed(entry.mask);
    Residency& kernel = *entry.kernel;
    if (kernel.last_wave) {
      any_complete = true;
      continue;
    }
    kernel.last_wave = true;
    kernel.remaining = kernel.occupancy.last_work;
    kernel.updated = now;
    kernel.rate = 0;
    entry.fresh = true;
    entry.phase_end = DeviceTime::max();
  }
  if (!any_complete) return;
  std::erase_if(entries_, [&](Entry& entry) {
    if (entry.phase_end > now) return false;
    groups_.release(entry.mask);
    completed.push_back(std::move(entry.kernel));
    return true;
  });
}

void ComputeUnits::follow_groups() {
  if (partition_ == groups_.partition_number()) return;
  partition_ = groups_.partition_number();
  shares_.assign(groups_.group_sizes().size(), {1, 0, Change::slots});
  for (Entry& entry : entries_)
    entry.kernel->held.assign(groups_.groups_of(entry.mask).size(), 0.0);
}

void ComputeUnits::take_free(Entry& entry) {
  if (partition_ != groups_.partition_number()) return;
  Residency& kernel = *entry.kernel;
  const double slots = kernel.slots();
  std::size_t index = 0;
  for (const std::uint32_t group : groups_.groups_of(entry.mask)) {
    Group& share = shares_[group];
    double& held = kernel.held[index++];
    if (share.changed == Change::slots) continue;
    const double part = share.take(slots, kernel.occupancy.load);
    held = part * groups_.group_sizes()[group];
    // Others on the group are slower only where its load exceeds its throughput.
    if (part != 0 && share.load > 1) share.changed = Change::load;
  }
}

void ComputeUnits::take_slots(Entry& entry) {
  Residency& kernel = *entry.kernel;
  const double slots = kernel.slots();
  kernel.effective_cus = 0;
  auto held = kernel.held.begin();
  for (const std::uint32_t group : groups_.groups_of(entry.mask)) {
    Group& share = shares_[group];
    if (share.changed == Change::slots)
      *held = share.take(slots, kernel.occupancy.load) * groups_.group_sizes()[group];
    kernel.effective_cus += *held++;
  }
  if (kernel.effective_cus < no_cus) kernel.effective_cus = 0;
}

void ComputeUnits::find_touched() {
  for (Group& share : shares_) {
    if (share.changed != Change::slots) continue;
    share.free = 1;
    share.load = 0;
  }
  touched_.clear();
  for (Entry& entry : entries_) {
    const auto groups = groups_.groups_of(entry.mask);
    if (!entry.fresh && std::none_of(groups.begin(), groups.end(), [this](std::uint32_t group) {
          return shares_[group].changed != Change::none;
        }))
      continue;
    take_slots(entry);
    touched_.push_back(&entry);
  }
}

void ComputeUnits::set_alone_time(Entry& entry) const {
  Residency& kernel = *entry.kernel;
  double overload = 0;
  auto held = kernel.held.begin();
  for (const std::uint32_t group : groups_.groups_of(entry.mask))
    overload += *held++ * std::max(0.0, shares_[group].load - 1);
  overload /= kernel.effective_cus;
  if (kernel.timed_cus != kernel.effective_cus) {
    kernel.timed_cus = kernel.effective_cus;
    kernel.time_us = time_on(entry, kernel.effective_cus);
  }
  kernel.alone_us = kernel.time_us * (1 + overload * (1 - gpu_.timing.overlap_gain));
  const double speed = kernel.occupancy.full_us / kernel.alone_us;
  entry.bandwidth = kernel.occupancy.memory * speed;
  entry.busy_cus = kernel.slots() * speed * groups_.cus_in(entry.mask);
}

double ComputeUnits::time_on(const Entry& entry, double cus) const {
  const Residency& kernel = *entry.kernel;
  if (cus > groups_.cus_in(entry.mask) - no_cus) return kernel.occupancy.full_us;
  const Kernel& curve = *kernel.packet.kernel;
  const double smooth_us = curve.time_us(cus) * kernel.occupancy.rounding;
  // The last round of workgroups is as long on fewer CUs, however few workgroups it has.
  if (cus < 1) return smooth_us;
  return std::max(smooth_us, curve.time_on_mask_us(static_cast<std::uint32_t>(cus)));
}

void ComputeUnits::set_rate(Entry& entry, DeviceTime now, double rate) const {
  Residency& kernel = *entry.kernel;
  // An unchanged rate keeps the phase's end exactly where it is.
  if (rate == kernel.rate) return;
  kernel.remaining -= kernel.rate * static_cast<double>((now - kernel.updated).count());
  kernel.remaining = std::max(kernel.remaining, 0.0);
  kernel.updated = now;
  kernel.rate = rate;
  entry.phase_end =
      rate > 0 ? now + DeviceTime(std::llround(kernel.remaining / rate)) : DeviceTime::max();
}

void ComputeUnits::set_rates(DeviceTime now, double bandwidth) {
  for (Entry* entry : touched_) {
    entry->fresh = false;
    entry->contention = out_of_date;
    if (entry->kernel->effective_cus <= 0) set_rate(*entry, now, 0);
  }
  next_change_ = DeviceTime::max();
  for (Entry& entry : entries_) {
    if (entry.busy_cus <= 0) continue;  // it waits for its first CU
    const double others = std::clamp(bandwidth - entry.bandwidth, 0.0, 1.0);
    // Beyond the whole bandwidth, and without any, others make no difference.
    if (others != entry.contention) {
      entry.contention = others;
      const Residency& kernel = *entry.kernel;
      const double time_us = kernel.alone_us * (1 + gpu_.timing.memory_contention * others);
      set_rate(entry, now, 1 / (time_us * ns_per_us));
    }
    next_change_ = std::min(next_change_, entry.phase_end);
  }
}

void ComputeUnits::share_out(DeviceTime now, std::vector<Residency*>& started) {
  if (!changed_) return;
  changed_ = false;
  follow_groups();
  find_touched();
  for (Entry* entry : touched_) {
    entry->bandwidth = 0;
    entry->busy_cus = 0;
    Residency& kernel = *entry->kernel;
    if (kernel.effective_cus <= 0) continue;
    set_alone_time(*entry);
    if (kernel.started) continue;
    kernel.started = true;
    kernel.start = now;
    started.push_back(&kernel);
  }
  for (Group& share : shares_) share.changed = Change::none;
  double bandwidth = 0;
  double busy_cus = 0;
  for (const Entry& entry : entries_) {
    bandwidth += entry.bandwidth;
    busy_cus += entry.busy_cus;
  }
  set_rates(now, bandwidth);
  watts_ = gpu_.power.idle_watts + gpu_.power.cu_active_watts * busy_cus +
           gpu_.power.memory_watts * std::min(bandwidth, 1.0);
}

void ComputeUnits::pause(DeviceTime now) {
  for (Entry& entry : entries_) {
    set_rate(entry, now, 0);
    entry.contention = out_of_date;
  }
  watts_ = gpu_.power.idle_watts;
  next_change_ = DeviceTime::max();
  changed_ = true;
}

}  // namespace eclip::model
