#include "tools/kfdsim/events.h"

#include <algorithm>
#include <cerrno>

#include "tools/kfdsim/user_memory.h"

namespace eclip::kfdsim {
namespace {

constexpr std::uint64_t unsignaled_slot = ~0ULL;
constexpr std::uint32_t infinite_timeout = 0xffffffff;
// The KFD numbers events that have no slot in the event page from here on.
constexpr std::uint32_t first_system_event = 1U << 31;

}  // namespace

int EventTable::create(kfd_ioctl_create_event_args& arguments) {
  std::uint32_t id = 1;
  if (has_event_slot(arguments.event_type)) {
    if (signal_events_ + 1 >= KFD_SIGNAL_EVENT_LIMIT) return ENOSPC;
    while (events_.contains(id)) ++id;
    ++signal_events_;
  } else {
    id = first_system_event;
    while (events_.contains(id)) ++id;
  }
  Event event;
  event.type = arguments.event_type;
  event.auto_reset = arguments.auto_reset != 0;
  events_.emplace(id, event);
  arguments.event_id = id;
  arguments.event_trigger_data = id;
  if (has_event_slot(event.type)) arguments.event_slot_index = id;
  return 0;
}

int EventTable::destroy(std::uint32_t id) {
  const auto found = events_.find(id);
  if (found == events_.end()) return EINVAL;
  if (has_event_slot(found->second.type)) --signal_events_;
  events_.erase(found);
  for (auto wait = waits_.begin(); wait != waits_.end();) {
    const bool concerned = std::any_of(wait->events.begin(), wait->events.end(),
                                       [id](const Waiter& waiter) { return waiter.id == id; });
    if (concerned) finish(*wait, KFD_IOC_WAIT_RESULT_FAIL, -EIO);
    wait = concerned ? waits_.erase(wait) : std::next(wait);
  }
  return 0;
}

int EventTable::set(std::uint32_t id) {
  const auto found = events_.find(id);
  if (found == events_.end() || !has_event_slot(found->second.type)) return EINVAL;
  signal(id, found->second);
  return 0;
}

int EventTable::reset(std::uint32_t id) {
  const auto found = events_.find(id);
  if (found == events_.end() || !has_event_slot(found->second.type)) return EINVAL;
  found->second.is_set = false;
  return 0;
}

void EventTable::interrupt(std::uint32_t id, GpuMemory& memory) {
  if (id != 0 || page_ == 0) {
    if (set(id) == 0) acknowledge(id, memory);
    return;
  }
  for (auto& [event_id, event] : events_) {
    if (!has_event_slot(event.type)) continue;
    const std::uint64_t slot = page_ + event_id * sizeof(std::uint64_t);
    const auto value = memory.load(slot);
    if (!value || *value == unsignaled_slot) continue;
    acknowledge(event_id, memory);
    signal(event_id, event);
  }
}

void EventTable::acknowledge(std::uint32_t id, GpuMemory& memory) const {
  if (page_ != 0) memory.store(page_ + id * sizeof(std::uint64_t), unsignaled_slot);
}

void EventTable::set_page(std::uint64_t address, GpuMemory& memory) {
  page_ = address;
  const std::vector<std::uint64_t> slots(KFD_SIGNAL_EVENT_LIMIT, unsignaled_slot);
  memory.write(page_, std::as_bytes(std::span(slots)));
}

void EventTable::memory_fault(const kfd_hsa_memory_exception_data& data) {
  for (auto& [id, event] : events_) {
    if (event.type != KFD_IOC_EVENT_MEMORY) continue;
    event.data.memory_exception_data = data;
    signal(id, event);
  }
}

void EventTable::hardware_exception(const kfd_hsa_hw_exception_data& data) {
  for (auto& [id, event] : events_) {
    if (event.type != KFD_IOC_EVENT_HW_EXCEPTION) continue;
    event.data.hw_exception_data = data;
    signal(id, event);
  }
}

void EventTable::signal(std::uint32_t id, Event& event) {
  bool woken = false;
  for (Wait& wait : waits_) {
    for (Waiter& waiter : wait.events) {
      if (waiter.id != id) continue;
      waiter.activated = true;
      woken = true;
    }
  }
  event.is_set = !event.auto_reset || !woken;
  finish_ready();
}

int EventTable::wait(std::uint64_t request, const kfd_ioctl_wait_events_args& arguments,
                     std::span<const std::uint32_t> ids, WallTime now) {
  for (const std::uint32_t id : ids) {
    if (!events_.contains(id)) return EINVAL;
  }
  Wait wait;
  wait.request = request;
  wait.arguments = arguments;
  if (arguments.timeout != infinite_timeout) {
    wait.deadline = now + std::chrono::milliseconds(arguments.timeout);
  }
  for (const std::uint32_t id : ids) {
    Event& event = events_.at(id);
    wait.events.push_back({id, event.is_set});
    if (event.auto_reset) event.is_set = false;
  }
  waits_.push_back(std::move(wait));
  finish_ready();
  return 0;
}

void EventTable::finish_ready() {
  const auto activated = [](const Waiter& waiter) { return waiter.activated; };
  for (auto wait = waits_.begin(); wait != waits_.end();) {
    const auto& events = wait->events;
    const bool ready = wait->arguments.wait_for_all != 0
                           ? std::all_of(events.begin(), events.end(), activated)
                           : std::any_of(events.begin(), events.end(), activated);
    if (ready) {
      deliver_data(*wait);
      finish(*wait, KFD_IOC_WAIT_RESULT_COMPLETE, 0);
    }
    wait = ready ? waits_.erase(wait) : std::next(wait);
  }
}

void EventTable::deliver_data(const Wait& wait) {
  for (std::size_t i = 0; i < wait.events.size(); ++i) {
    const Waiter& waiter = wait.events[i];
    const Event& event = events_.at(waiter.id);
    if (!waiter.activated || has_event_slot(event.type)) continue;
    // The union of the exception data is what the driver fills; the rest stays the client's.
    write_process(pid_, wait.arguments.events_ptr + i * sizeof(kfd_event_data),
                  std::as_bytes(std::span<const kfd_hsa_memory_exception_data, 1>(
                      &event.data.memory_exception_data, 1)));
  }
}

void EventTable::finish(const Wait& wait, std::uint32_t wait_result, int result) {
  FinishedWait finished{wait.request, result, wait.arguments};
  finished.arguments.wait_result = wait_result;
  finished_.push_back(finished);
}

bool EventTable::interrupt_wait(std::uint64_t request) {
  const auto found = std::find_if(waits_.begin(), waits_.end(),
                                  [request](const Wait& wait) { return wait.request == request; });
  if (found == waits_.end()) return false;
  for (const Waiter& waiter : found->events) {
    if (waiter.activated) events_.at(waiter.id).is_set = true;
  }
  finish(*found, KFD_IOC_WAIT_RESULT_TIMEOUT, -EINTR);
  waits_.erase(found);
  return true;
}

std::vector<FinishedWait> EventTable::take_finished(WallTime now) {
  for (auto wait = waits_.begin(); wait != waits_.end();) {
    const bool over = wait->deadline && *wait->deadline <= now;
    if (over) finish(*wait, KFD_IOC_WAIT_RESULT_TIMEOUT, 0);
    wait = over ? waits_.erase(wait) : std::next(wait);
  }
  std::vector<FinishedWait> finished;
  finished.swap(finished_);
  return finished;
}

std::optional<WallTime> EventTable::next_timeout() const {
  std::optional<WallTime> next;
  for (const Wait& wait : waits_) {
    if (wait.deadline && (!next || *wait.deadline < *next)) next = wait.deadline;
  }
  return next;
}

void EventTable::abandon_waits(int errno_value) {
  for (const Wait& wait : waits_) finish(wait, KFD_IOC_WAIT_RESULT_FAIL, -errno_value);
  waits_.clear();
}

}  // namespace eclip::kfdsim
