#include "daemon/kfd_device.h"

#include <amdgpu.h>
#include <amdgpu_drm.h>
#include <fcntl.h>
#include <hsa/amd_hsa_queue.h>
#include <hsakmt.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "ipc/unique_fd.h"

namespace eclip::daemon {
namespace {

constexpr std::uint64_t page_bytes = 4096;

std::atomic<std::uint64_t> queue_ioctl_count{0};

tl::unexpected<Error> fail_thunk(const std::string& what, HSAKMT_STATUS status) {
  return fail(Errc::device_failed, what + ": libhsakmt status " + std::to_string(status));
}

/// The clock counter's frequency is known to the DRM driver only.
Result<std::uint64_t> read_counter_hz(std::uint32_t render_minor) {
  const std::string path = "/dev/dri/renderD" + std::to_string(render_minor);
  const UniqueFd render(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!render) return fail_errno(errno, "open " + path);
  std::uint32_t major = 0;
  std::uint32_t minor = 0;
  amdgpu_device_handle device = nullptr;
  if (const int error = amdgpu_device_initialize(render.get(), &major, &minor, &device); error != 0)
    return fail_errno(-error, "initialise libdrm_amdgpu on " + path);
  amdgpu_gpu_info info{};
  const int error = amdgpu_query_gpu_info(device, &info);
  amdgpu_device_deinitialize(device);
  if (error != 0) return fail_errno(-error, "query the GPU on " + path);
  if (info.gpu_counter_freq == 0)
    return fail(Errc::device_failed, path + " reports no clock counter frequency");
  return std::uint64_t{info.gpu_counter_freq} * 1000;
}

Result<void> set_mask(HSA_QUEUEID queue, const CuMask& mask) {
  std::vector<std::uint32_t> words(mask.words().begin(), mask.words().end());
  queue_ioctl_count.fetch_add(1, std::memory_order_relaxed);
  if (const auto status =
          hsaKmtSetQueueCUMask(queue, static_cast<std::uint32_t>(words.size() * 32), words.data());
      status != HSAKMT_STATUS_SUCCESS)
    return fail_thunk("set CU mask " + mask.to_string(), status);
  return {};
}

/// A queue of the KFD's.
struct KfdQueue final : HardwareQueue {
  ~KfdQueue() override {
    if (!created) return;
    queue_ioctl_count.fetch_add(1, std::memory_order_relaxed);
    hsaKmtDestroyQueue(id);
  }
  using HardwareQueue::ring_;

  GpuMemory packets;
  GpuMemory control;  // amd_queue_t
  HSA_QUEUEID id = 0;
  bool created = false;
};

}  // namespace

Result<std::unique_ptr<KfdDevice>> KfdDevice::open(std::optional<std::uint32_t> node) {
  if (const auto status = hsaKmtOpenKFD(); status != HSAKMT_STATUS_SUCCESS)
    return fail(Errc::device_failed,
                "open /dev/kfd: libhsakmt status " + std::to_string(status) +
                    ". Is the amdgpu driver loaded and may this user open /dev/kfd? "
                    "Without an AMD GPU, run eclipd under 'kfdsim run --'");
  std::unique_ptr<KfdDevice> device(new KfdDevice);
  auto topology = read_topology(node);
  if (!topology) return tl::unexpected(topology.error());
  device->topology_ = std::move(*topology);
  auto lock = lock_gpu(device->topology_);
  if (!lock) return tl::unexpected(lock.error());
  device->lock_ = std::move(*lock);
  const auto counter_hz = read_counter_hz(device->topology_.render_minor);
  if (!counter_hz) return tl::unexpected(counter_hz.error());
  device->counter_hz_ = *counter_hz;
  return device;
}

KfdDevice::~KfdDevice() {
  watch_.reset();  // while the KFD is open
  hsaKmtReleaseSystemProperties();
  hsaKmtCloseKFD();
}

Result<GpuMemory> KfdDevice::allocate(std::uint64_t bytes, GpuMemory::Kind kind) {
  const bool local = kind == GpuMemory::Kind::device_local;
  const std::string what = (local ? "allocate device memory, " : "allocate system memory, ") +
                           std::to_string(bytes) + " bytes";
  HsaMemFlags flags{};
  flags.ui32.NonPaged = 1;
  flags.ui32.HostAccess = local ? 0 : 1;
  flags.ui32.ExecuteAccess = local ? 0 : 1;
  flags.ui32.CachePolicy = HSA_CACHING_CACHED;
  flags.ui32.CoarseGrain = local ? 1 : 0;
  flags.ui32.NoSubstitute = local ? 1 : 0;
  GpuMemory::Place place{.kind = kind, .bytes = (bytes + page_bytes - 1) / page_bytes * page_bytes};
  void* address = nullptr;
  // System memory belongs to node 0, the CPU's.
  const std::uint32_t home = local ? topology_.node.value : 0;
  if (const auto status = hsaKmtAllocMemory(home, place.bytes, flags, &address);
      status != HSAKMT_STATUS_SUCCESS)
    return fail_thunk(what, status);
  place.handle = address;
  HSAuint64 alternate = 0;
  HsaMemMapFlags map_flags{};
  std::uint32_t node = topology_.node.value;
  if (const auto status =
          hsaKmtMapMemoryToGPUNodes(address, place.bytes, &alternate, map_flags, 1, &node);
      status != HSAKMT_STATUS_SUCCESS) {
    release(place);
    return fail_thunk(what + ", for the GPU", status);
  }
  place.gpu_address = alternate != 0 ? alternate : reinterpret_cast<std::uint64_t>(address);
  if (!local) {
    place.host = static_cast<std::byte*>(address);
    std::memset(place.host, 0, place.bytes);
  }
  return GpuMemory(*this, place);
}

Result<GpuMemory> KfdDevice::allocate_system(std::uint64_t bytes) {
  return allocate(bytes, GpuMemory::Kind::system);
}

Result<GpuMemory> KfdDevice::allocate_device_local(std::uint64_t bytes) {
  return allocate(bytes, GpuMemory::Kind::device_local);
}

Result<GpuMemory> KfdDevice::register_host(std::span<std::byte> memory) {
  const std::string what = "register " + std::to_string(memory.size()) + " bytes with the GPU";
  HsaMemFlags flags{};
  flags.ui32.CoarseGrain = 0;  // the host reads while the GPU writes
  flags.ui32.HostAccess = 1;
  if (const auto status = hsaKmtRegisterMemoryWithFlags(memory.data(), memory.size(), flags);
      status != HSAKMT_STATUS_SUCCESS)
    return fail_thunk(what, status);
  GpuMemory::Place place{.kind = GpuMemory::Kind::registered,
                         .handle = memory.data(),
                         .host = memory.data(),
                         .bytes = memory.size()};
  HSAuint64 alternate = 0;
  if (const auto status = hsaKmtMapMemoryToGPU(memory.data(), memory.size(), &alternate);
      status != HSAKMT_STATUS_SUCCESS) {
    release(place);
    return fail_thunk(what, status);
  }
  place.gpu_address = alternate != 0 ? alternate : reinterpret_cast<std::uint64_t>(memory.data());
  return GpuMemory(*this, place);
}

Result<std::unique_ptr<HardwareQueue>> KfdDevice::create_queue(std::uint32_t packet_count,
                                                               const std::optional<CuMask>& mask) {
  auto queue = std::make_unique<KfdQueue>();
  auto packets = allocate_system(packet_count * sizeof(AqlPacket));
  if (!packets) return tl::unexpected(packets.error());
  queue->packets = std::move(*packets);
  auto control = allocate_system(sizeof(amd_queue_t));
  if (!control) return tl::unexpected(control.error());
  queue->control = std::move(*control);

  // Packet processor and debugger find the rest of the queue from its read pointer.
  auto* amd_queue = new (queue->control.host()) amd_queue_t{};
  amd_queue->hsa_queue.type = HSA_QUEUE_TYPE_SINGLE;
  amd_queue->hsa_queue.features = HSA_QUEUE_FEATURE_KERNEL_DISPATCH;
  amd_queue->hsa_queue.base_address = queue->packets.host();
  amd_queue->hsa_queue.size = packet_count;
  amd_queue->read_dispatch_id_field_base_byte_offset = offsetof(amd_queue_t, read_dispatch_id);
  amd_queue->queue_properties = AMD_QUEUE_PROPERTIES_IS_PTR64 |  //
                                AMD_QUEUE_PROPERTIES_ENABLE_PROFILING;
  const std::span<AqlPacket> slots(reinterpret_cast<AqlPacket*>(queue->packets.host()),
                                   packet_count);
  for (auto& slot : slots) slot.header.store(aql_invalid_header, std::memory_order_relaxed);

  HsaQueueResource resource{};
  resource.Queue_read_ptr_aql =
      const_cast<HSAuint64*>(reinterpret_cast<volatile HSAuint64*>(&amd_queue->read_dispatch_id));
  resource.Queue_write_ptr_aql =
      const_cast<HSAuint64*>(reinterpret_cast<volatile HSAuint64*>(&amd_queue->write_dispatch_id));
  queue_ioctl_count.fetch_add(1, std::memory_order_relaxed);
  if (const auto status = hsaKmtCreateQueue(topology_.node.value, HSA_QUEUE_COMPUTE_AQL, 100,
                                            HSA_QUEUE_PRIORITY_NORMAL, queue->packets.host(),
                                            queue->packets.bytes(), nullptr, &resource);
      status != HSAKMT_STATUS_SUCCESS)
    return fail_thunk("create a hardware queue", status);
  queue->id = resource.QueueId;
  queue->created = true;
  if (mask)
    if (auto set = set_mask(queue->id, *mask); !set) return tl::unexpected(set.error());
  queue->ring_.emplace(slots, amd_queue->write_dispatch_id, amd_queue->read_dispatch_id,
                       *resource.Queue_DoorBell_aql);
  return queue;
}

Result<ClockSample> KfdDevice::sample_clock() {
  HsaClockCounters counters{};
  if (const auto status = hsaKmtGetClockCounters(topology_.node.value, &counters);
      status != HSAKMT_STATUS_SUCCESS)
    return fail_thunk("read the GPU's clock", status);
  return ClockSample{.gpu_ticks = counters.GPUClockCounter,
                     .host = std::chrono::nanoseconds(counters.CPUClockCounter)};
}

std::uint64_t KfdDevice::queue_ioctls() const {
  return queue_ioctl_count.load(std::memory_order_relaxed);
}

Result<CompletionInterrupt> KfdDevice::watch(std::function<void(Error)> failed) {
  auto watch = GpuWatch::start(topology_.node.value, std::move(failed));
  if (!watch) return tl::unexpected(watch.error());
  watch_ = std::move(*watch);
  return watch_->completion_interrupt();
}

void KfdDevice::release(const GpuMemory::Place& place) {
  // A failure here leaves the memory to the driver, which frees it with the process.
  hsaKmtUnmapMemoryToGPU(place.handle);
  if (place.kind == GpuMemory::Kind::registered)
    hsaKmtDeregisterMemory(place.handle);
  else
    hsaKmtFreeMemory(place.handle, place.bytes);
}

}  // namespace eclip::daemon
