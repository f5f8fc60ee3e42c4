#include "daemon/gpu_watch.h"

#include <hsakmt.h>

#include <array>
#include <string>

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

Result<std::unique_ptr<GpuWatch>> GpuWatch::start(std::uint32_t node,
                                                  std::function<void(Error)> failed) {
  std::unique_ptr<GpuWatch> watch(new GpuWatch(std::move(failed)));
  for (const auto& [event, type] : {std::pair{&watch->stop_, HSA_EVENTTYPE_SIGNAL},
                                    {&watch->memory_fault_, HSA_EVENTTYPE_MEMORY},
                                    {&watch->reset_, HSA_EVENTTYPE_HW_EXCEPTION}}) {
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
    hsaKmtSetEvent(stop_);
    thread_.join();
  }
  for (HsaEvent* event : {stop_, memory_fault_, reset_})
    if (event != nullptr) hsaKmtDestroyEvent(event);
}

void GpuWatch::wait() {
  std::array<HsaEvent*, 3> events{stop_, memory_fault_, reset_};
  const auto status =
      hsaKmtWaitOnMultipleEvents(events.data(), events.size(), false, HSA_EVENTTIMEOUT_INFINITE);
  if (stopping_.load()) return;
  constexpr const char* consequence =
      "; all streams have stopped for good, a restart gives new ones";
  std::string what = "the GPU was reset or stopped a queue";
  if (status != HSAKMT_STATUS_SUCCESS) {
    what =
        "the driver no longer tells of failures (libhsakmt status " + std::to_string(status) + ")";
  } else if (is_set(memory_fault_)) {
    std::array<char, 32> address{};
    std::snprintf(address.data(), address.size(), "%#llx",
                  static_cast<unsigned long long>(
                      memory_fault_->EventData.EventData.MemoryAccessFault.VirtualAddress));
    what = std::string("a worker's kernel reached for memory at ") + address.data() +
           " that is not mapped on the GPU";
  }
  failed_(Error{make_error_code(Errc::device_failed), what + consequence});
}

}  // namespace eclip::daemon
