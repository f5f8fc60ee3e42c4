#include "tests/integration/kfdsim/injection_client.h"

#include <fcntl.h>
#include <linux/kfd_ioctl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "tests/integration/kfdsim/child_process.h"
#include "tests/integration/kfdsim/gpu_client.h"

namespace eclip::test {
namespace {

void say(const std::string& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

int open_kfd() {
  return ::open("/dev/kfd", O_RDWR | O_CLOEXEC);
}

int ioctls(int count) {
  const int kfd = open_kfd();
  if (kfd < 0) return EXIT_FAILURE;
  const auto start = std::chrono::steady_clock::now();
  std::string pattern;
  for (int i = 0; i < count; ++i) {
    kfd_ioctl_get_clock_counters_args arguments{};
    pattern += ::ioctl(kfd, AMDKFD_IOC_GET_CLOCK_COUNTERS, &arguments) == 0 ? '.' : 'x';
  }
  say(pattern);
  if (std::chrono::steady_clock::now() - start >= std::chrono::seconds(1)) say("late");
  return EXIT_SUCCESS;
}

int say_open() {
  const int kfd = open_kfd();
  say(std::to_string(kfd >= 0 ? 0 : errno));
  return EXIT_SUCCESS;
}

/// Whether another process's packets complete; then the GPU has looked at this one's doorbells too.
bool others_work() {
  ChildProcess other({"/proc/self/exe", "work", "20"});
  return other.wait() == EXIT_SUCCESS;
}

int queues(int count) {
  std::vector<std::unique_ptr<GpuQueue>> all;
  std::vector<std::unique_ptr<GpuSignal>> signals;
  for (int i = 0; i < count; ++i) {
    all.push_back(std::make_unique<GpuQueue>());
    signals.push_back(std::make_unique<GpuSignal>());
    all.back()->barrier(false, {}, signals.back().get());
  }
  if (!others_work()) return EXIT_FAILURE;
  std::string pattern;
  for (const auto& signal : signals) pattern += signal->value() == 0 ? '.' : 'h';
  say(pattern);
  return EXIT_SUCCESS;
}

int progress(int count) {
  GpuQueue first;
  GpuQueue second;
  const GpuSignal first_left(count);
  const GpuSignal second_left(count);
  for (int i = 0; i < count; ++i) first.barrier(false, {}, &first_left);
  for (int i = 0; i < count; ++i) second.barrier(false, {}, &second_left);
  if (!second_left.wait()) return EXIT_FAILURE;
  say(std::to_string(first_left.value()) + " " + std::to_string(second_left.value()));
  return EXIT_SUCCESS;
}

int start_time() {
  constexpr std::uint64_t ticks_per_us = 25;  // gpu_counter_khz of the mi50
  const GpuSignal done;
  GpuQueue queue;
  queue.barrier(false, {}, &done);
  if (!done.wait()) return EXIT_FAILURE;
  say(std::to_string(done.raw().start_ts / ticks_per_us));
  return EXIT_SUCCESS;
}

/// As start_time, of a timestamp packet in an SDMA queue.
int sdma_time() {
  constexpr std::uint64_t ticks_per_us = 25;
  constexpr std::uint32_t global_timestamp = 2U << 8 | 13;
  const GpuBuffer ring(GpuBuffer::Kind::system, 4096);
  const GpuBuffer result(GpuBuffer::Kind::system, 4096);
  HsaQueueResource queue{};
  if (hsaKmtCreateQueue(gpu_node(), HSA_QUEUE_SDMA, 100, HSA_QUEUE_PRIORITY_NORMAL, ring.cpu(),
                        4096, nullptr, &queue) != HSAKMT_STATUS_SUCCESS) {
    return EXIT_FAILURE;
  }
  auto* words = ring.as<std::uint32_t>();
  words[0] = global_timestamp;
  words[1] = static_cast<std::uint32_t>(result.gpu());
  words[2] = static_cast<std::uint32_t>(result.gpu() >> 32);
  __atomic_store_n(queue.Queue_DoorBell_aql, 3 * sizeof(std::uint32_t), __ATOMIC_RELEASE);
  const auto* ticks = result.as<std::uint64_t>();
  if (!eventually([&] { return __atomic_load_n(ticks, __ATOMIC_ACQUIRE) != 0; })) {
    return EXIT_FAILURE;
  }
  say(std::to_string(*ticks / ticks_per_us));
  hsaKmtDestroyQueue(queue.QueueId);
  return EXIT_SUCCESS;
}

/// Barrier packets in one queue; 's' for each before which the GPU has stood still for 100 ms.
int gaps(int count) {
  constexpr std::uint64_t ticks_per_us = 25;
  constexpr std::uint64_t gap_us = 100'000;
  std::vector<std::unique_ptr<GpuSignal>> signals;
  GpuQueue queue;
  for (int i = 0; i < count; ++i) {
    signals.push_back(std::make_unique<GpuSignal>());
    queue.barrier(false, {}, signals.back().get());
  }
  std::string pattern;
  std::uint64_t last = 0;
  for (const auto& signal : signals) {
    if (!signal->wait()) return EXIT_FAILURE;
    const std::uint64_t end = signal->raw().end_ts / ticks_per_us;
    pattern += last != 0 && end - last >= gap_us ? 's' : '.';
    last = end;
  }
  say(pattern);
  return EXIT_SUCCESS;
}

/// Allocates and frees MiB of VRAM so many times.
int allocations(int count) {
  HsaMemFlags flags{};
  flags.ui32.NonPaged = 1;
  std::string pattern;
  for (int i = 0; i < count; ++i) {
    void* memory = nullptr;
    const auto status = hsaKmtAllocMemory(gpu_node(), 1U << 20, flags, &memory);
    pattern += status == HSAKMT_STATUS_SUCCESS ? '.' : 'x';
    if (status == HSAKMT_STATUS_SUCCESS) hsaKmtFreeMemory(memory, 1U << 20);
  }
  say(pattern);
  return EXIT_SUCCESS;
}

int allocate(const std::string& argument) {
  const HSAuint32 node = gpu_node();
  const std::size_t hyphen = argument.find('-');
  const bool vram = argument.substr(0, hyphen) == "vram";
  HsaMemFlags flags{};
  flags.ui32.NonPaged = 1;
  flags.ui32.HostAccess = vram ? 0 : 1;
  void* memory = nullptr;
  const auto status = hsaKmtAllocMemory(
      vram ? node : 0, std::stoull(argument.substr(hyphen + 1)) << 20, flags, &memory);
  say(status == HSAKMT_STATUS_SUCCESS ? "ok" : "refused");
  return EXIT_SUCCESS;
}

/// Allocates as `allocate`, and while it has that, lets another process do the same.
int allocate_two(const std::string& argument) {
  if (allocate(argument) != EXIT_SUCCESS) return EXIT_FAILURE;
  ChildProcess other({"/proc/self/exe", "allocate", argument});
  if (other.wait() != EXIT_SUCCESS) return EXIT_FAILURE;
  say(other.read_line());
  return EXIT_SUCCESS;
}

/// Makes an event for failures of the hardware; the driver's id. libhsakmt tells of memory faults
/// only, so this asks the driver itself.
std::uint32_t hardware_event(int kfd) {
  kfd_ioctl_create_event_args arguments{};
  arguments.event_type = KFD_IOC_EVENT_HW_EXCEPTION;
  if (::ioctl(kfd, AMDKFD_IOC_CREATE_EVENT, &arguments) != 0) return 0;
  return arguments.event_id;
}

bool wait_for(int kfd, kfd_event_data& event, std::uint32_t milliseconds = 20'000) {
  kfd_ioctl_wait_events_args arguments{};
  arguments.events_ptr = reinterpret_cast<std::uint64_t>(&event);
  arguments.num_events = 1;
  arguments.timeout = milliseconds;
  return ::ioctl(kfd, AMDKFD_IOC_WAIT_EVENTS, &arguments) == 0 &&
         arguments.wait_result == KFD_IOC_WAIT_RESULT_COMPLETE;
}

/// Barrier packets in one queue; how many of them were complete when the GPU was reset, or all
/// were.
int packets_until_reset(int count) {
  gpu_node();
  const int kfd = open_kfd();
  kfd_event_data event{};
  event.event_id = hardware_event(kfd);
  const GpuSignal left(count);
  GpuQueue queue(1024);
  for (int i = 0; i < count; ++i) queue.barrier(false, {}, &left);
  const bool over =
      eventually([&] { return left.value() == 0 || wait_for(kfd, event, /*milliseconds=*/10); });
  say(std::to_string(count - left.value()));
  ::close(kfd);
  return over ? EXIT_SUCCESS : EXIT_FAILURE;
}

int await_reset() {
  constexpr std::uint64_t written = 4711;
  gpu_node();
  const int kfd = open_kfd();
  kfd_event_data event{};
  event.event_id = hardware_event(kfd);
  const auto kernel = kernel_of(4e6, 4e6);
  const LoadedKernels loaded({&kernel, 1});
  const GpuBuffer vram(GpuBuffer::Kind::vram, 4096);
  const GpuBuffer system(GpuBuffer::Kind::system, 4096);
  *vram.as<std::uint64_t>() = written;
  *system.as<std::uint64_t>() = written;
  const GpuSignal never(2);
  auto queue = std::make_unique<GpuQueue>();
  queue->dispatch(loaded.object(0), &never);
  if (!wait_for(kfd, event)) return EXIT_FAILURE;
  const kfd_hsa_hw_exception_data& told = event.hw_exception_data;
  std::printf("type %u cause %u lost %u gpu %u\n", told.reset_type, told.reset_cause,
              told.memory_lost, told.gpu_id);
  GpuQueue later;
  later.barrier(false, {}, &never);
  queue.reset();
  if (!others_work()) return EXIT_FAILURE;
  std::printf("packets %ld vram %lu system %lu\n", static_cast<long>(never.value()),
              static_cast<unsigned long>(*vram.as<std::uint64_t>()),
              static_cast<unsigned long>(*system.as<std::uint64_t>()));
  ::close(kfd);
  return EXIT_SUCCESS;
}

}  // namespace

int injection_client(const std::string& command, const std::string& argument) {
  if (command == "ioctls") return ioctls(std::stoi(argument));
  if (command == "open") return say_open();
  if (command == "queues") return queues(std::stoi(argument));
  if (command == "progress") return progress(std::stoi(argument));
  if (command == "start") return start_time();
  if (command == "sdma-start") return sdma_time();
  if (command == "gaps") return gaps(std::stoi(argument));
  if (command == "allocations") return allocations(std::stoi(argument));
  if (command == "packets-until-reset") return packets_until_reset(std::stoi(argument));
  if (command == "allocate") return allocate(argument);
  if (command == "allocate-two") return allocate_two(argument);
  if (command == "await-reset") return await_reset();
  return 2;
}

}  // namespace eclip::test
