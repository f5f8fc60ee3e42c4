#include "daemon/worker.h"

#include <fcntl.h>
#include <hsa/amd_hsa_signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace eclip::daemon {
namespace {

static_assert(sizeof(amd_signal_t) == 64);
static_assert(offsetof(amd_signal_t, value) == offsetof(SignalSlot, value));
static_assert(offsetof(amd_signal_t, event_mailbox_ptr) == offsetof(SignalSlot, event_mailbox_ptr));
static_assert(offsetof(amd_signal_t, start_ts) == offsetof(SignalSlot, start_ts));
static_assert(offsetof(amd_signal_t, end_ts) == offsetof(SignalSlot, end_ts));

constexpr std::uint64_t page_bytes = 4096;
constexpr std::uint64_t max_code_bytes = std::uint64_t{256} << 20;
constexpr std::uint64_t descriptor_bytes = 64;

std::uint64_t whole_pages(std::uint64_t bytes) {
  return (bytes + page_bytes - 1) / page_bytes * page_bytes;
}

/// The part of amdhsa's kernel descriptor that eclipd looks at.
struct KernelDescriptor {
  std::uint32_t group_segment_bytes;
  std::uint32_t private_segment_bytes;
  std::uint32_t kernarg_bytes;
  std::uint32_t reserved;
  std::int64_t entry_offset;  ///< from the descriptor
};
static_assert(offsetof(KernelDescriptor, entry_offset) == 16);

}  // namespace

Result<std::unique_ptr<Worker>> Worker::create(WorkerId id, std::string name, GpuDevice& device,
                                               std::uint64_t epoch) {
  auto state = Region::create("eclip-worker-state", RegionKind::worker_state, sizeof(WorkerState),
                              RegionWriter::daemon, epoch);
  if (!state) return tl::unexpected(state.error());
  auto request = Region::create("eclip-worker-request", RegionKind::worker_request,
                                sizeof(WorkerRequest), RegionWriter::both, epoch);
  if (!request) return tl::unexpected(request.error());
  std::unique_ptr<Worker> worker(
      new Worker(std::move(name), std::move(*state), std::move(*request)));

  const auto bytes = worker->state_region_.bytes();
  auto signals = device.register_host({bytes.data(), whole_pages(bytes.size())});
  if (!signals) return tl::unexpected(signals.error());
  worker->signals_ = std::move(*signals);

  auto& shared = worker->state_region_.payload<WorkerState>();
  for (auto& slot : shared.signals) slot.kind = AMD_SIGNAL_KIND_USER;
  auto forwarded = std::make_shared<ForwardedWorker>();
  forwarded->id = id;
  forwarded->state = &shared;
  forwarded->request = &worker->request_region_.payload<WorkerRequest>();
  forwarded->objects.signal_slots = shared.signals.data();
  forwarded->objects.signals_gpu_address =
      worker->signals_.gpu_address() + region_payload_offset + offsetof(WorkerState, signals);
  if (device.topology().local_memory_per_workgroup_bytes > 0)
    forwarded->objects.max_group_segment_bytes = device.topology().local_memory_per_workgroup_bytes;
  worker->forwarded_ = std::move(forwarded);
  return worker;
}

std::vector<std::uint32_t> Worker::free_lease_slots() const {
  std::vector<std::uint32_t> slots;
  for (std::uint32_t slot = 0; slot < max_leases_per_worker; ++slot)
    if (lease_slot(slot).state.load(std::memory_order_acquire) ==
        static_cast<std::uint32_t>(LeaseState::none))
      slots.push_back(slot);
  return slots;
}

Result<void> Worker::check_quota(std::uint64_t bytes, const Config& config) const {
  if (memory_objects() >= config.workers.max_memory_objects)
    return fail(Errc::quota_exceeded, "this worker has " + std::to_string(memory_objects()) +
                                          " memory objects, as many as it may "
                                          "(workers.max_memory_objects)");
  if (bytes > config.workers.max_memory_bytes - memory_bytes_)
    return fail(Errc::quota_exceeded, "this worker has " + std::to_string(memory_bytes_ >> 20) +
                                          " MiB and asks for " + std::to_string(bytes >> 20) +
                                          " more; it may have " +
                                          std::to_string(config.workers.max_memory_bytes >> 20) +
                                          " MiB (workers.max_memory_mib)");
  return {};
}

Result<Worker::Allocated> Worker::allocate(const MemoryAllocate& request, const Config& config,
                                           GpuDevice& device) {
  if (request.bytes == 0 || request.bytes > config.workers.max_memory_bytes)
    return fail(request.bytes == 0 ? Errc::invalid_argument : Errc::quota_exceeded,
                "an allocation of " + std::to_string(request.bytes) + " bytes; 1 to " +
                    std::to_string(config.workers.max_memory_bytes) + " are possible");
  if ((request.flags & ~MemoryAllocate::flag_device_local) != 0)
    return fail(Errc::invalid_argument,
                "unknown allocation flags " + std::to_string(request.flags));
  const std::uint64_t bytes = whole_pages(request.bytes);
  if (auto quota = check_quota(bytes, config); !quota) return tl::unexpected(quota.error());
  Memory memory;
  UniqueFd shared;
  if ((request.flags & MemoryAllocate::flag_device_local) != 0) {
    auto gpu = device.allocate_device_local(bytes);
    if (!gpu) return tl::unexpected(gpu.error());
    memory.gpu = std::move(*gpu);
  } else {
    auto fd = create_sealed_memfd("eclip-worker-memory", bytes);
    if (!fd) return tl::unexpected(fd.error());
    auto mapping = map_memfd(fd->get(), true, bytes);
    if (!mapping) return tl::unexpected(mapping.error());
    auto gpu = device.register_host({static_cast<std::byte*>(mapping->get_address()), bytes});
    if (!gpu) return tl::unexpected(gpu.error());
    memory = Memory{.mapping = std::move(*mapping), .gpu = std::move(*gpu)};
    shared = std::move(*fd);
  }
  const std::uint32_t handle = ++last_memory_;
  Allocated allocated{.reply = {.gpu_address = memory.gpu.gpu_address(),
                                .bytes = bytes,
                                .memory = handle,
                                .reserved = 0},
                      .fd = std::move(shared)};
  memory_bytes_ += bytes;
  memory_.emplace(handle, std::move(memory));
  return allocated;
}

WorkerObjects::Memory Worker::gpu_range(std::uint32_t handle) const {
  const auto& gpu = memory_.at(handle).gpu;
  return {.gpu_address = gpu.gpu_address(), .bytes = gpu.bytes()};
}

void Worker::free(std::uint32_t handle) {
  const auto found = memory_.find(handle);
  if (found == memory_.end()) return;
  memory_bytes_ -= found->second.gpu.bytes();
  memory_.erase(found);
}

Result<std::uint32_t> Worker::load_code(std::uint64_t bytes, int fd, const Config& config,
                                        GpuDevice& device) {
  if (bytes < descriptor_bytes || bytes > max_code_bytes)
    return fail(Errc::invalid_argument, "a code image of " + std::to_string(bytes) + " bytes; " +
                                            std::to_string(descriptor_bytes) + " to " +
                                            std::to_string(max_code_bytes) + " are possible");
  if (auto quota = check_quota(whole_pages(bytes), config); !quota)
    return tl::unexpected(quota.error());
  auto memory = device.allocate_system(bytes);
  if (!memory) return tl::unexpected(memory.error());
  if (auto read = read_memfd(fd, {memory->host(), bytes}, "a code image"); !read)
    return tl::unexpected(read.error());
  memory_bytes_ += memory->bytes();
  code_.push_back(std::move(*memory));
  return static_cast<std::uint32_t>(code_.size());
}

Result<Worker::RegisteredKernel> Worker::register_kernel(const KernelRegister& request,
                                                         const Config& config) {
  if (request.code == 0 || request.code > code_.size())
    return fail(Errc::not_found,
                "code handle " + std::to_string(request.code) + " was never given out");
  if (kernels_ >= config.workers.max_kernels)
    return fail(Errc::quota_exceeded, "this worker has registered " + std::to_string(kernels_) +
                                          " kernels, as many as it may (workers.max_kernels)");
  const GpuMemory& code = code_[request.code - 1];
  const std::string where = "kernel object at offset " + std::to_string(request.offset);
  if (request.offset % descriptor_bytes != 0 || request.offset > code.bytes() - descriptor_bytes)
    return fail(Errc::malformed, where + " is not a multiple of 64 inside the image of " +
                                     std::to_string(code.bytes()) + " bytes");
  KernelDescriptor descriptor{};
  std::memcpy(&descriptor, code.host() + request.offset, sizeof descriptor);
  const std::int64_t before = static_cast<std::int64_t>(request.offset);
  const std::int64_t after = static_cast<std::int64_t>(code.bytes() - request.offset);
  if (descriptor.entry_offset < -before || descriptor.entry_offset >= after)
    return fail(Errc::malformed, where + " has its entry point outside the image");
  if (descriptor.private_segment_bytes != 0)
    return fail(Errc::unsupported, where + " needs scratch memory (" +
                                       std::to_string(descriptor.private_segment_bytes) +
                                       " bytes a work item), which hosted leases do not have");
  return RegisteredKernel{.handle = ++kernels_,
                          .kernel = {.object = code.gpu_address() + request.offset,
                                     .kernarg_bytes = request.kernarg_bytes,
                                     .group_segment_bytes = descriptor.group_segment_bytes}};
}

}  // namespace eclip::daemon
