// The KFD events of one client process, and the ioctls that wait for them.
#pragma once

#include <linux/kfd_ioctl.h>
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "tools/kfdsim/gpu_memory.h"

namespace eclip::kfdsim {

using WallTime = std::chrono::steady_clock::time_point;

/// Whether events of this type have a slot in the event page: clients and packets may set them.
[[nodiscard]] constexpr bool has_event_slot(std::uint32_t type) {
  return type == KFD_IOC_EVENT_SIGNAL || type == KFD_IOC_EVENT_DEBUG_EVENT;
}

/// A WAIT_EVENTS ioctl that has come to an end and must be answered.
struct FinishedWait {
  std::uint64_t request;  ///< the FUSE request
  int result;             ///< 0 or -errno
  kfd_ioctl_wait_events_args arguments;
};

/// Semantics of the KFD: setting an event wakes all who wait for it; an auto-reset event stays set
/// only when nobody was woken. Failures are errno values.
class EventTable {
 public:
  explicit EventTable(pid_t pid) : pid_(pid) {}

  /// ENOSPC past KFD_SIGNAL_EVENT_LIMIT. Fills event_id, event_slot_index and event_trigger_data.
  int create(kfd_ioctl_create_event_args& arguments);
  int destroy(std::uint32_t id);
  int set(std::uint32_t id);    ///< by the client; EINVAL for system events
  int reset(std::uint32_t id);  ///< by the client
  /// By the GPU; an unknown id is ignored, as a stray interrupt is. With id 0 (which the SDMA
  /// engines' traps give) it concerns all events whose slot in the event page has been written.
  void interrupt(std::uint32_t id, GpuMemory& memory);
  /// Where the client has the slots of signal events, KFD_SIGNAL_EVENT_LIMIT 64-bit words, by their
  /// GPU address; fills them as the KFD does.
  void set_page(std::uint64_t address, GpuMemory& memory);
  /// Sets all events for GPU memory faults, or for other failures of the hardware.
  void memory_fault(const kfd_hsa_memory_exception_data& data);
  void hardware_exception(const kfd_hsa_hw_exception_data& data);

  /// Begins a wait; it ends at once when the condition holds or the timeout is 0. `ids` are those
  /// at arguments.events_ptr. Returns an errno or 0; take_finished tells when it is over.
  int wait(std::uint64_t request, const kfd_ioctl_wait_events_args& arguments,
           std::span<const std::uint32_t> ids, WallTime now);
  /// A signal arrived in the waiting thread: the wait ends with EINTR and consumes no event.
  /// False when this table knows no such wait.
  bool interrupt_wait(std::uint64_t request);
  /// The waits that are over, timeouts included.
  std::vector<FinishedWait> take_finished(WallTime now);
  /// When the next wait times out.
  [[nodiscard]] std::optional<WallTime> next_timeout() const;
  /// Ends all waits with the given errno.
  void abandon_waits(int errno_value);

 private:
  struct Event {
    std::uint32_t type = 0;
    bool auto_reset = false;
    bool is_set = false;
    kfd_event_data data{};
  };
  struct Waiter {
    std::uint32_t id;
    bool activated;
  };
  struct Wait {
    std::uint64_t request = 0;
    kfd_ioctl_wait_events_args arguments{};
    std::vector<Waiter> events;
    std::optional<WallTime> deadline;
  };

  void acknowledge(std::uint32_t id, GpuMemory& memory) const;
  void signal(std::uint32_t id, Event& event);
  void finish_ready();
  void finish(const Wait& wait, std::uint32_t wait_result, int result);
  void deliver_data(const Wait& wait);

  pid_t pid_;
  std::uint64_t page_ = 0;  // GPU address; 0: none yet
  std::map<std::uint32_t, Event> events_;
  std::uint32_t signal_events_ = 0;
  std::list<Wait> waits_;
  std::vector<FinishedWait> finished_;
};

}  // namespace eclip::kfdsim
