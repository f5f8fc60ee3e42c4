#include "daemon/gpu_watch.h"

#include <hsakmt.h>

#include <array>
#include <cstdio>
#include <string>
#include <utility>

namespace eclip::daemon {
namespace {

Result<HsaEvent*> create_event(std::uint32_t node, HSA_EVENTTYPE type) {
  HsaEventDescriptor description{};
  description.EventType = type;
  description.NodeId = node;
  HsaEvent* event = nullptr;
  // Stays set, so that each wait sees it.
  constexpr bool manual_reset = true;
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
};

GpuWatch::GpuWatch(std::function<void(Error)> failed)
    : failed_(std::move(failed)), events_(std::make_unique<Events>()) {}

Result<std::unique_ptr<GpuWatch>> GpuWatch::start(std::uint32_t node,
                                                  std::function<void(Error)> failed) {
  std::unique_ptr<GpuWatch> watch(new GpuWatch(std::move(failed)));
  for (const auto& [event, type] : {std::pair{&watch->events_->stop, HSA_EVENTTYPE_SIGNAL},
                                    {&watch->events_->memory_fault, HSA_EVENTTYPE_MEMORY},
                                    {&watch->events_->reset, HSA_EVENTTYPE_HW_EXCEPTION}}) {
    auto created = create_event(node, type);
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
  for (HsaEvent* event : {events_->stop, events_->memory_fault, events_->reset})
    if (event != nullptr) hsaKmtDestroyEvent(event);
}

void GpuWatch::wait() {
  std::array<HsaEvent*, 3> events{events_->stop, events_->memory_fault, events_->reset};
  const auto status =
      hsaKmtWaitOnMultipleEvents(events.data(), events.size(), false, HSA_EVENTTIMEOUT_INFINITE);
  if (stopping_.load()) return;
  constexpr const char* consequence =
      "; all streams have stopped for good, a restart gives new ones";
  std::string what = "the GPU was reset or stopped a queue";
  if (status != HSAKMT_STATUS_SUCCESS) {
    what =
        "the driver no longer tells of failures (libhsakmt status " + std::to_string(status) + ")";
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
