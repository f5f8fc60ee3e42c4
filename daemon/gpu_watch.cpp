#include "daemon/gpu_watch.h"

#include <hsakmt.h>

#include <array>
#include <cstdio>
#include <string>
#include <utility>

#include "ipc/futex.h"

namespace eclip::daemon {
namespace {

Result<HsaEvent*> create_event(std::uint32_t node, HSA_EVENTTYPE type, bool manual_reset) {
  HsaEventDescriptor description{};
  description.EventType = type;
  description.NodeId = node;
  HsaEvent* event = nullptr;
  if (const auto status = hsaKmtCreateEvent(&description, manual_reset, false, &event);
      status != HSAKMT_STATUS_SUCCESS)
    return fail(Errc::device_failed, "create a driver event to watch the GPU: libhsakmt status " +
                                         std::to_string(status));
  return event;
}

bool is_set(HsaEvent* event) {
  return hsaKmtWaitOnEvent(event, 0) == HSAKMT_STATUS_SUCCESS;
}

}  // namespace

struct GpuWatch::Events {
  HsaEvent* stop = nullptr;
  HsaEvent* memory_fault = nullptr;
  HsaEvent* reset = nullptr;
  HsaEvent* completion = nullptr;

  [[nodiscard]] std::array<HsaEvent*, 4> all() const {
    return {stop, memory_fault, reset, completion};
  }
};

GpuWatch::GpuWatch(std::function<void(Error)> failed)
    : failed_(std::move(failed)), events_(std::make_unique<Events>()) {}

Result<std::unique_ptr<GpuWatch>> GpuWatch::start(std::uint32_t node,
                                                  std::function<void(Error)> failed) {
  std::unique_ptr<GpuWatch> watch(new GpuWatch(std::move(failed)));
  Events& events = *watch->events_;
  for (const auto& [event, type] : {std::pair{&events.stop, HSA_EVENTTYPE_SIGNAL},
                                    {&events.memory_fault, HSA_EVENTTYPE_MEMORY},
                                    {&events.reset, HSA_EVENTTYPE_HW_EXCEPTION},
                                    {&events.completion, HSA_EVENTTYPE_SIGNAL}}) {
    // All but completions stay set, so that each wait sees them.
    auto created = create_event(node, type, event != &events.completion);
    if (!created) return tl::unexpected(created.error());
    *event = *created;
  }
  watch->thread_ = std::thread([raw = watch.get()] { raw->wait(); });
  return watch;
}

GpuWatch::~GpuWatch() {
  stopping_.store(true);
  if (thread_.joinable()) {
    hsaKmtSetEvent(events_->stop);
    thread_.join();
  }
  for (HsaEvent* event : events_->all())
    if (event != nullptr) hsaKmtDestroyEvent(event);
}

CompletionInterrupt GpuWatch::completion_interrupt() const {
  return {.event_mailbox_ptr = events_->completion->EventData.HWData2,
          .event_id = events_->completion->EventId,
          .raised = completions_};
}

void GpuWatch::wait() {
  auto events = events_->all();
  while (true) {
    const auto status =
        hsaKmtWaitOnMultipleEvents(events.data(), events.size(), false, HSA_EVENTTIMEOUT_INFINITE);
    if (stopping_.load()) return;
    if (status != HSAKMT_STATUS_SUCCESS || is_set(events_->memory_fault) || is_set(events_->reset))
      return report_failure(status);
    completions_->fetch_add(1);
    futex_wake_all(*completions_);
  }
}

void GpuWatch::report_failure(int wait_status) {
  constexpr const char* consequence =
      "; all streams have stopped for good, a restart gives new ones";
  std::string what = "the GPU was reset or stopped a queue";
  if (wait_status != HSAKMT_STATUS_SUCCESS) {
    what = "the driver no longer tells of failures (libhsakmt status " +
           std::to_string(wait_status) + ")";
  } else if (is_set(events_->memory_fault)) {
    std::array<char, 32> address{};
    std::snprintf(address.data(), address.size(), "%#llx",
                  static_cast<unsigned long long>(
                      events_->memory_fault->EventData.EventData.MemoryAccessFault.VirtualAddress));
    what = std::string("a worker's kernel reached for memory at ") + address.data() +
           " that is not mapped on the GPU";
  }
  failed_(Error{make_error_code(Errc::device_failed), what + consequence});
}

}  // namespace eclip::daemon
