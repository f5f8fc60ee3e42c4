#include "tests/fake/fake_device.h"

#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>

#include "ipc/futex.h"
#include "ipc/worker_regions.h"

namespace eclip::test {
namespace {

using daemon::AqlPacket;
using daemon::AqlRing;
using daemon::GpuMemory;

constexpr std::uint64_t page_bytes = 4096;
constexpr std::uint64_t descriptor_bytes = 64;
constexpr std::uint64_t signal_bytes = 64;  // of an amd_signal_t

std::uint64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

class FakeDevice::Queue final : public daemon::HardwareQueue {
 public:
  Queue(FakeDevice& device, std::uint32_t packet_count)
      : device_(device), slots_(new AqlPacket[packet_count]), count_(packet_count) {
    for (std::uint32_t i = 0; i < count_; ++i) slots_[i].header.store(daemon::aql_invalid_header);
    ring_.emplace(std::span<AqlPacket>(slots_.get(), count_), write_index_, read_index_, doorbell_);
  }
  ~Queue() override {
    const std::lock_guard lock(device_.mutex_);
    ++device_.queue_ioctls_;
    std::erase(device_.queues_, this);
  }
  std::uint64_t run() {
    const std::uint64_t end = __atomic_load_n(&doorbell_, __ATOMIC_ACQUIRE) + 1;
    const std::uint64_t begin = read_index_;
    while (read_index_ < end) {
      AqlPacket& slot = slots_[read_index_ % count_];
      device_.complete(slot);
      slot.header.store(daemon::aql_invalid_header, std::memory_order_relaxed);
      __atomic_store_n(&read_index_, read_index_ + 1, __ATOMIC_RELEASE);
    }
    return end - begin;
  }

 private:
  FakeDevice& device_;
  std::unique_ptr<AqlPacket[]> slots_;
  std::uint32_t count_;
  std::uint64_t write_index_ = 0;
  std::uint64_t read_index_ = 0;
  std::uint64_t doorbell_ = UINT64_MAX;
};

FakeDevice::FakeDevice() {
  topology_ = {.node = GpuId{1},
               .name = "fake",
               .cu_count = 60,
               .shader_engines = 4,
               .hardware_queue_slots = 24,
               .local_memory_per_workgroup_bytes = 65536,
               .render_minor = 999};
  counter_hz_ = 1'000'000'000;
}

FakeDevice::~FakeDevice() = default;

Result<GpuMemory> FakeDevice::add(GpuMemory::Place place) {
  if (place.kind != GpuMemory::Kind::device_local)
    place.gpu_address = reinterpret_cast<std::uint64_t>(place.host);
  place.handle = this;
  const std::lock_guard lock(mutex_);
  ranges_.emplace(place.gpu_address, place.bytes);
  return GpuMemory(*this, place);
}

Result<GpuMemory> FakeDevice::allocate_system(std::uint64_t bytes) {
  bytes = (bytes + page_bytes - 1) / page_bytes * page_bytes;
  auto* host =
      static_cast<std::byte*>(::operator new (bytes, std::align_val_t{page_bytes}, std::nothrow));
  if (host == nullptr) return eclip::fail(Errc::device_failed, "no memory");
  std::memset(host, 0, bytes);
  return add({.kind = GpuMemory::Kind::system, .host = host, .bytes = bytes});
}

Result<GpuMemory> FakeDevice::allocate_device_local(std::uint64_t bytes) {
  bytes = (bytes + page_bytes - 1) / page_bytes * page_bytes;
  const std::uint64_t address = next_local_;
  next_local_ += bytes + page_bytes;
  return add({.kind = GpuMemory::Kind::device_local, .gpu_address = address, .bytes = bytes});
}

Result<GpuMemory> FakeDevice::register_host(std::span<std::byte> memory) {
  return add({.kind = GpuMemory::Kind::registered, .host = memory.data(), .bytes = memory.size()});
}

void FakeDevice::release(const GpuMemory::Place& place) {
  {
    const std::lock_guard lock(mutex_);
    ranges_.erase(place.gpu_address);
  }
  if (place.kind == GpuMemory::Kind::system)
    ::operator delete (place.host, std::align_val_t{page_bytes});
}

Result<std::unique_ptr<daemon::HardwareQueue>> FakeDevice::create_queue(
    std::uint32_t packet_count, const std::optional<CuMask>& mask) {
  auto queue = std::make_unique<Queue>(*this, packet_count);
  const std::lock_guard lock(mutex_);
  queue_ioctls_ += mask ? 2 : 1;
  queues_.push_back(queue.get());
  return queue;
}

Result<daemon::ClockSample> FakeDevice::sample_clock() {
  const std::uint64_t now = now_ns();
  return daemon::ClockSample{.gpu_ticks = now, .host = std::chrono::nanoseconds(now)};
}

Result<daemon::CompletionInterrupt> FakeDevice::watch(std::function<void(Error)> failed) {
  failed_ = std::move(failed);
  return daemon::CompletionInterrupt{
      .event_mailbox_ptr = reinterpret_cast<std::uint64_t>(&mailbox_),
      .event_id = 1,
      .raised = interrupts_};
}

void FakeDevice::fail(const std::string& what) {
  failed_(Error{make_error_code(Errc::device_failed), what});
}

std::uint64_t FakeDevice::run_queues() {
  const std::lock_guard lock(mutex_);
  std::uint64_t count = 0;
  for (Queue* queue : queues_) count += queue->run();
  return count;
}

std::size_t FakeDevice::memory_objects() const {
  const std::lock_guard lock(mutex_);
  return ranges_.size();
}

void FakeDevice::check(const char* what, std::uint64_t address, std::uint64_t bytes) const {
  auto after = ranges_.upper_bound(address);
  if (after != ranges_.begin()) {
    const auto& [begin, size] = *--after;
    if (address - begin <= size && bytes <= size - (address - begin)) return;
  }
  if (on_bad_packet)
    on_bad_packet(std::string(what) + " of " + std::to_string(bytes) + " bytes at " +
                  std::to_string(address) + " is no memory of the GPU's");
}

void FakeDevice::complete(const AqlPacket& packet) {
  daemon::AqlImage image{};
  std::memcpy(&image, static_cast<const void*>(&packet), sizeof image);
  const auto type = (image.barrier.header >> HSA_PACKET_HEADER_TYPE) & 0xff;
  std::uint64_t signal = 0;
  if (type == HSA_PACKET_TYPE_KERNEL_DISPATCH) {
    signal = image.dispatch.completion_signal.handle;
    check("a kernel object", image.dispatch.kernel_object, descriptor_bytes);
    if (image.dispatch.kernarg_address != nullptr)
      check("a kernarg segment", reinterpret_cast<std::uint64_t>(image.dispatch.kernarg_address),
            1);
  } else if (type == HSA_PACKET_TYPE_BARRIER_AND || type == HSA_PACKET_TYPE_BARRIER_OR) {
    signal = image.barrier.completion_signal.handle;
    for (const auto& dependency : image.barrier.dep_signal)
      if (dependency.handle != 0) check("a dependency", dependency.handle, signal_bytes);
  } else if (on_bad_packet) {
    on_bad_packet("a packet of type " + std::to_string(type));
  }
  if (signal == 0) return;
  check("a completion signal", signal, signal_bytes);
  auto& slot = *reinterpret_cast<SignalSlot*>(signal);
  slot.start_ts = now_ns();
  slot.end_ts = slot.start_ts + 1;
  slot.value.store(0);
  if (__atomic_load_n(&slot.event_mailbox_ptr, __ATOMIC_ACQUIRE) == 0) return;
  interrupts_->fetch_add(1);
  futex_wake_all(*interrupts_);
}

}  // namespace eclip::test
