#include "tests/integration/kfdsim/gpu_client.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

// libhsakmt keeps some small blocks to the end of the process; its leaks are not ours. The name is
// the leak checker's.
// NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" __attribute__((visibility("default"))) const char* __lsan_default_suppressions();
const char* __lsan_default_suppressions() {
  return "leak:libhsakmt";
}
// NOLINTEND(bugprone-reserved-identifier)

namespace eclip::test {
namespace {

void require(HSAKMT_STATUS status, const char* what) {
  if (status == HSAKMT_STATUS_SUCCESS) return;
  throw std::runtime_error(std::string(what) + " failed with status " + std::to_string(status));
}

std::byte* map_pages(std::size_t bytes, bool shared) {
  if (!shared) {
    return static_cast<std::byte*>(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
  }
  const int fd = ::memfd_create("test", MFD_ALLOW_SEALING | MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
    throw std::runtime_error("memfd failed");
  }
  ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
  void* pages = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  return static_cast<std::byte*>(pages);
}

/// A GPU address in the form that the C interfaces want.
void* gpu_pointer(std::uint64_t address) {
  return reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr)
}

std::uint16_t header_of(unsigned type, bool barrier_bit) {
  constexpr unsigned system_scope = 2;
  return static_cast<std::uint16_t>(type << HSA_PACKET_HEADER_TYPE |
                                    static_cast<unsigned>(barrier_bit)
                                        << HSA_PACKET_HEADER_BARRIER |
                                    system_scope << HSA_PACKET_HEADER_SCACQUIRE_FENCE_SCOPE |
                                    system_scope << HSA_PACKET_HEADER_SCRELEASE_FENCE_SCOPE);
}

}  // namespace

HSAuint32 gpu_node() {
  static const HSAuint32 node = [] {
    require(hsaKmtOpenKFD(), "hsaKmtOpenKFD");
    HsaSystemProperties system{};
    require(hsaKmtAcquireSystemProperties(&system), "hsaKmtAcquireSystemProperties");
    for (HSAuint32 i = 0; i < system.NumNodes; ++i) {
      HsaNodeProperties properties{};
      require(hsaKmtGetNodeProperties(i, &properties), "hsaKmtGetNodeProperties");
      if (properties.NumFComputeCores != 0) return i;
    }
    throw std::runtime_error("no GPU in the topology");
  }();
  return node;
}

GpuBuffer::GpuBuffer(Kind kind, std::size_t bytes, bool shared_pages)
    : kind_(kind), bytes_((bytes + 4095) / 4096 * 4096) {
  const HSAuint32 node = gpu_node();
  HsaMemFlags flags{};
  flags.ui32.HostAccess = 1;
  flags.ui32.ExecuteAccess = 1;
  flags.ui32.NonPaged = kind == Kind::paged ? 0 : 1;
  void* memory = nullptr;
  if (kind == Kind::registered) {
    memory = map_pages(bytes_, shared_pages);
    require(hsaKmtRegisterMemory(memory, bytes_), "hsaKmtRegisterMemory");
  } else {
    const HSAuint32 home = kind == Kind::vram ? node : 0;
    require(hsaKmtAllocMemory(home, bytes_, flags, &memory), "hsaKmtAllocMemory");
  }
  HSAuint64 other = 0;
  require(hsaKmtMapMemoryToGPU(memory, bytes_, &other), "hsaKmtMapMemoryToGPU");
  cpu_ = static_cast<std::byte*>(memory);
  gpu_ = other != 0 ? other : reinterpret_cast<std::uint64_t>(memory);
}

GpuBuffer::~GpuBuffer() {
  hsaKmtUnmapMemoryToGPU(cpu_);
  if (kind_ == Kind::registered) {
    hsaKmtDeregisterMemory(cpu_);
    ::munmap(cpu_, bytes_);
  } else {
    hsaKmtFreeMemory(cpu_, bytes_);
  }
}

GpuSignal::GpuSignal(std::int64_t value, GpuBuffer::Kind kind, bool shared_pages)
    : memory_(kind, sizeof(amd_signal_t), shared_pages) {
  raw().kind = AMD_SIGNAL_KIND_USER;
  set(value);
}

std::int64_t GpuSignal::value() const {
  return __atomic_load_n(&raw().value, __ATOMIC_ACQUIRE);
}

void GpuSignal::set(std::int64_t value) {
  __atomic_store_n(&raw().value, value, __ATOMIC_RELEASE);
}

bool GpuSignal::wait() const {
  return eventually([this] { return value() <= 0; });
}

double GpuSignal::device_us() const {
  constexpr double ticks_per_us = 25;  // gpu_counter_khz of the mi50
  return static_cast<double>(raw().end_ts - raw().start_ts) / ticks_per_us;
}

GpuQueue::GpuQueue(std::uint32_t packets, GpuBuffer::Kind ring)
    : ring_(ring, packets * 64ULL), pointers_(GpuBuffer::Kind::system, 4096), capacity_(packets) {
  for (std::uint32_t i = 0; i < packets; ++i) {
    *ring_.as<std::uint16_t>(i * 64ULL) = HSA_PACKET_TYPE_INVALID;
  }
  resource_.QueueWptrValue = pointers_.gpu();
  resource_.QueueRptrValue = pointers_.gpu() + 64;
  require(hsaKmtCreateQueue(gpu_node(), HSA_QUEUE_COMPUTE_AQL, 100, HSA_QUEUE_PRIORITY_NORMAL,
                            gpu_pointer(ring_.gpu()), packets * 64ULL, nullptr, &resource_),
          "hsaKmtCreateQueue");
}

GpuQueue::~GpuQueue() {
  hsaKmtDestroyQueue(resource_.QueueId);
}

HSAKMT_STATUS GpuQueue::set_cu_mask(std::span<std::uint32_t> words) const {
  return hsaKmtSetQueueCUMask(resource_.QueueId, static_cast<HSAuint32>(words.size() * 32),
                              words.data());
}

HSAKMT_STATUS GpuQueue::use_cus(std::uint32_t cus) const {
  std::array<std::uint32_t, 2> words{};
  for (std::uint32_t cu = 0; cu < cus; ++cu) words.at(cu / 32) |= 1U << (cu % 32);
  return set_cu_mask(words);
}

std::uint64_t GpuQueue::read_index() const {
  return __atomic_load_n(pointers_.as<std::uint64_t>(64), __ATOMIC_ACQUIRE);
}

std::uint64_t GpuQueue::unmap_ring() {
  require(hsaKmtUnmapMemoryToGPU(ring_.cpu()), "hsaKmtUnmapMemoryToGPU");
  return ring_.gpu();
}

void GpuQueue::announce_next() const {
  __atomic_store_n(resource_.Queue_DoorBell_aql, write_index_, __ATOMIC_RELEASE);
}

void GpuQueue::submit(const void* packet, std::uint16_t header) {
  if (!eventually([this] { return write_index_ - read_index() < capacity_; })) {
    throw std::runtime_error("the queue stays full");
  }
  std::byte* place = ring_.cpu() + write_index_ % capacity_ * 64;
  std::memcpy(place + 2, static_cast<const std::byte*>(packet) + 2, 62);
  __atomic_store_n(reinterpret_cast<std::uint16_t*>(place), header, __ATOMIC_RELEASE);
  __atomic_store_n(resource_.Queue_DoorBell_aql, write_index_, __ATOMIC_RELEASE);
  ++write_index_;
  __atomic_store_n(pointers_.as<std::uint64_t>(), write_index_, __ATOMIC_RELEASE);
}

void GpuQueue::dispatch(std::uint64_t kernel_object, const GpuSignal* signal, std::uint64_t kernarg,
                        bool barrier_bit) {
  hsa_kernel_dispatch_packet_t packet{};
  packet.setup = 1;
  packet.workgroup_size_x = 256;
  packet.workgroup_size_y = 1;
  packet.workgroup_size_z = 1;
  packet.grid_size_x = 256 * 1200;
  packet.grid_size_y = 1;
  packet.grid_size_z = 1;
  packet.kernel_object = kernel_object;
  packet.kernarg_address = gpu_pointer(kernarg);
  if (signal != nullptr) packet.completion_signal.handle = signal->handle();
  submit(&packet, header_of(HSA_PACKET_TYPE_KERNEL_DISPATCH, barrier_bit));
}

void GpuQueue::barrier(bool any, std::span<const std::uint64_t> dependencies,
                       const GpuSignal* signal, bool barrier_bit) {
  hsa_barrier_and_packet_t packet{};
  for (std::size_t i = 0; i < dependencies.size(); ++i) {
    packet.dep_signal[i].handle = dependencies[i];
  }
  if (signal != nullptr) packet.completion_signal.handle = signal->handle();
  submit(&packet,
         header_of(any ? HSA_PACKET_TYPE_BARRIER_OR : HSA_PACKET_TYPE_BARRIER_AND, barrier_bit));
}

LoadedKernels::LoadedKernels(std::span<const replay::ReplayKernel> kernels) {
  auto image = replay::build_replay_image(kernels);
  if (!image) throw std::runtime_error(image.error().message());
  memory_ = std::make_unique<GpuBuffer>(GpuBuffer::Kind::system, image->bytes.size());
  std::memcpy(memory_->cpu(), image->bytes.data(), image->bytes.size());
  offsets_ = image->kernel_offsets;
}

replay::ReplayKernel kernel_of(double us_on_15_cus, double us_on_60_cus, bool mixes) {
  replay::ReplayKernel kernel;
  kernel.shape.workgroups = 1200;
  kernel.shape.workgroup_size = 256;
  kernel.points = {{15, us_on_15_cus}, {60, us_on_60_cus}};
  kernel.mixes = mixes;
  return kernel;
}

std::optional<std::uint64_t> ioctl_count(pid_t pid, const std::string& column) {
  std::ifstream table("/dev/kfdsim/fs/ioctls");
  std::string line;
  std::getline(table, line);
  std::istringstream names(line);
  int wanted = -1;
  std::string word;
  for (int i = 0; names >> word; ++i) {
    if (word == column) wanted = i;
  }
  while (wanted >= 0 && std::getline(table, line)) {
    std::istringstream values(line);
    std::vector<std::string> row;
    while (values >> word) row.push_back(word);
    if (row.at(0) == std::to_string(pid))
      return std::stoull(row.at(static_cast<std::size_t>(wanted)));
  }
  return std::nullopt;
}

}  // namespace eclip::test
