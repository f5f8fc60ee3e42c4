// A worker as the control thread sees it: its regions, memory, code and kernels. The device memory
// that its packets can reach lives exactly as long as this object.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "daemon/config.h"
#include "daemon/forwarder.h"
#include "daemon/gpu_device.h"
#include "ipc/messages.h"
#include "ipc/region.h"
#include "ipc/worker_regions.h"

namespace eclip::daemon {

/// Not moved once made: the forwarder points into its regions. Destroyed only after the forwarder
/// has detached it.
class Worker {
 public:
  /// Makes the worker's regions and makes its signals known to the GPU.
  static Result<std::unique_ptr<Worker>> create(WorkerId id, std::string name, GpuDevice& device,
                                                std::uint64_t epoch);

  [[nodiscard]] WorkerId id() const { return forwarded_->id; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const Region& state_region() const { return state_region_; }
  [[nodiscard]] const Region& request_region() const { return request_region_; }
  [[nodiscard]] const std::shared_ptr<ForwardedWorker>& forwarded() const { return forwarded_; }
  [[nodiscard]] std::uint64_t memory_bytes() const { return memory_bytes_; }
  [[nodiscard]] std::size_t memory_objects() const { return memory_.size() + code_.size(); }
  [[nodiscard]] std::size_t kernels() const { return kernels_; }
  [[nodiscard]] LeaseSlot& lease_slot(std::uint32_t slot) const {
    return state_region_.payload<WorkerState>().leases.at(slot);
  }
  /// Slots in the state `none`.
  [[nodiscard]] std::vector<std::uint32_t> free_lease_slots() const;

  /// New memory and, unless device-local, the memfd to send to the worker.
  struct Allocated {
    MemoryAllocated reply;
    UniqueFd fd;  ///< none for device-local memory
  };
  /// Errc::quota_exceeded, Errc::invalid_argument, Errc::device_failed.
  Result<Allocated> allocate(const MemoryAllocate& request, const Config& config,
                             GpuDevice& device);
  [[nodiscard]] bool has_memory(std::uint32_t handle) const { return memory_.contains(handle); }
  [[nodiscard]] WorkerObjects::Memory gpu_range(std::uint32_t handle) const;
  /// No packet may use it any more.
  void free(std::uint32_t handle);

  /// Copies a code image out of the worker's memfd into memory of its own. Errc::malformed,
  /// Errc::quota_exceeded, Errc::device_failed.
  Result<std::uint32_t> load_code(std::uint64_t bytes, int fd, const Config& config,
                                  GpuDevice& device);
  struct RegisteredKernel {
    std::uint32_t handle;
    WorkerObjects::Kernel kernel;
  };
  /// Checks the kernel descriptor at an offset of a code image. Errc::malformed, Errc::not_found,
  /// Errc::unsupported (a kernel that needs scratch memory), Errc::quota_exceeded.
  Result<RegisteredKernel> register_kernel(const KernelRegister& request, const Config& config);

  /// Its class, once it has asked to be scheduled (Schedule).
  std::optional<LatencyClass> scheduled_as;

 private:
  struct Memory {
    boost::interprocess::mapped_region mapping;
    GpuMemory gpu;  // last: released before its mapping
  };
  Worker(std::string name, Region state, Region request)
      : name_(std::move(name)),
        state_region_(std::move(state)),
        request_region_(std::move(request)) {}
  [[nodiscard]] Result<void> check_quota(std::uint64_t bytes, const Config& config) const;

  std::string name_;
  Region state_region_;
  Region request_region_;
  GpuMemory signals_;  // the state region, as the GPU sees it
  std::map<std::uint32_t, Memory> memory_;
  std::uint32_t last_memory_ = 0;
  std::uint64_t memory_bytes_ = 0;
  std::vector<GpuMemory> code_;  // handle h is code_[h - 1]
  std::uint32_t kernels_ = 0;
  std::shared_ptr<ForwardedWorker> forwarded_;
};

}  // namespace eclip::daemon
