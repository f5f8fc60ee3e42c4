// A user of the simulated GPU that tests start in other processes: kfdsim_client COMMAND [NUMBER].
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "tests/integration/kfdsim/fault_client.h"
#include "tests/integration/kfdsim/gpu_client.h"
#include "tests/integration/kfdsim/hostile_client.h"
#include "tests/integration/kfdsim/injection_client.h"

namespace {

using namespace eclip::test;

void say(const std::string& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

/// Runs a mixing chain on one queue and checks its value.
int work(int kernels) {
  const auto kernel = kernel_of(30, 20, true);
  const LoadedKernels loaded({&kernel, 1});
  const GpuBuffer words(GpuBuffer::Kind::vram, 4096);
  const GpuBuffer kernargs(GpuBuffer::Kind::system, 4096);
  auto* value = words.as<std::uint64_t>();
  *value = 7;
  auto* arguments = kernargs.as<eclip::replay::MixKernarg>();
  *arguments = {words.gpu(), 1, 1, {}};
  arguments->inputs[0] = words.gpu();
  std::uint64_t expected = 7;
  const GpuSignal done(kernels);
  GpuQueue queue;
  for (int i = 0; i < kernels; ++i) {
    queue.dispatch(loaded.object(0), &done, kernargs.gpu());
    expected = eclip::replay::mix(1, {&expected, 1});
  }
  if (!done.wait() || *value != expected) return EXIT_FAILURE;
  say("worked");
  return EXIT_SUCCESS;
}

/// Leaves a process behind that has inherited the open devices, for a minute at most.
void leave_heir() {
  gpu_node();
  if (::fork() != 0) return;
  ::close(STDOUT_FILENO);
  ::close(STDERR_FILENO);
  ::alarm(60);
  ::pause();
}

/// Occupies the whole GPU for a minute with kernels of three queues, until it is killed or the GPU
/// is gone.
int hold() {
  constexpr double longest_us = 4e6;  // a replay record's limit, nearly
  constexpr int repeats = 15;
  const auto kernel = kernel_of(longest_us, longest_us);
  const LoadedKernels loaded({&kernel, 1});
  std::vector<std::unique_ptr<GpuQueue>> queues;
  for (int i = 0; i < 3; ++i) {
    queues.push_back(std::make_unique<GpuQueue>());
    for (int k = 0; k < repeats; ++k) queues.back()->dispatch(loaded.object(0), nullptr);
  }
  if (!eventually([&] { return queues[0]->read_index() != 0; })) return EXIT_FAILURE;
  say("ready");
  const bool gone = eventually([] {
    HsaClockCounters counters{};
    return hsaKmtGetClockCounters(gpu_node(), &counters) != HSAKMT_STATUS_SUCCESS;
  });
  say(gone ? "gone" : "still there");
  ::_exit(gone ? EXIT_SUCCESS : EXIT_FAILURE);
}

/// Takes so many GiB of VRAM and kills itself.
int allocate_and_die(std::uint64_t gib) {
  HsaMemFlags flags{};
  flags.ui32.NonPaged = 1;
  void* memory = nullptr;
  if (hsaKmtAllocMemory(gpu_node(), gib << 30, flags, &memory) != HSAKMT_STATUS_SUCCESS) {
    return EXIT_FAILURE;
  }
  return ::raise(SIGKILL);
}

/// Opens the GPU on its own, maps page `offset` of the given device and says what is there; then
/// writes over it.
int peek(const char* device, std::uint64_t offset) {
  const int fd = ::open(device, O_RDWR | O_CLOEXEC);
  if (fd < 0) return EXIT_FAILURE;
  void* page =
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
  if (page == MAP_FAILED) return EXIT_FAILURE;
  auto* words = static_cast<volatile std::uint64_t*>(page);
  say(std::to_string(words[0]));
  for (int i = 0; i < 512; ++i) words[i] = 1'000'000;
  return EXIT_SUCCESS;
}

using Clock = std::chrono::steady_clock;

double us_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

template <class Action>
double median_us(int repeats, Action action) {
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    const auto start = Clock::now();
    action();
    times.push_back(us_since(start));
  }
  std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
  return times.at(static_cast<std::size_t>(repeats) / 2);
}

/// KiB of `field` in /proc/meminfo.
std::uint64_t meminfo_kib(const std::string& field) {
  std::ifstream stream("/proc/meminfo");
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with(field + ":")) return std::stoull(line.substr(field.size() + 1));
  }
  return 0;
}

/// What the simulator costs in host time and memory, for docs/kfdsim.md.
int measure() {
  constexpr std::size_t bytes = 64UL << 20;
  const auto print = [](const char* what, double value, const char* unit) {
    std::printf("%-40s %10.1f %s\n", what, value, unit);
  };
  HsaClockCounters counters{};
  print("ioctl, median", median_us(5000, [&] { hsaKmtGetClockCounters(gpu_node(), &counters); }),
        "us");
  GpuQueue queue;
  GpuSignal signal;
  const auto round_trip = [&] {
    signal.set(1);
    queue.barrier(false, {}, &signal);
    while (signal.value() != 0) ::sched_yield();
  };
  round_trip();
  print("doorbell to signal, median", median_us(5000, round_trip), "us");
  const std::uint64_t cached = meminfo_kib("Cached");
  std::unique_ptr<GpuBuffer> buffer;
  const auto write_to_each_page = [&] {
    for (std::size_t i = 0; i < bytes; i += 4096) *buffer->as<std::uint64_t>(i) += 1;
  };
  const auto print_time = [&](const char* what, const auto& action) {
    const auto start = Clock::now();
    action();
    print(what, us_since(start) / 1000, "ms");
  };
  print_time("64 MiB: allocate",
             [&] { buffer = std::make_unique<GpuBuffer>(GpuBuffer::Kind::system, bytes); });
  print_time("first write to each of its pages", write_to_each_page);
  print_time("second write", write_to_each_page);
  ::msync(buffer->cpu(), bytes, MS_SYNC);
  print("memory in use for it, once written back",
        static_cast<double>(meminfo_kib("Cached") - cached) / 1024, "MiB");
  print_time("third write, after that", write_to_each_page);
  print_time("free it", [&] { buffer.reset(); });
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  const std::string argument = argc > 2 ? argv[2] : "0";
  if (command == "work") return work(std::stoi(argument));
  if (command == "hold") return hold();
  if (command == "hold-with-heir") {
    leave_heir();
    return hold();
  }
  if (command == "allocate-and-die") return allocate_and_die(std::stoull(argument));
  if (command == "measure") return measure();
  if (command == "peek-kfd") return peek("/dev/kfd", std::stoull(argument));
  if (command == "peek-render") return peek("/dev/dri/renderD128", std::stoull(argument));
  if (command == "memory-fault") return memory_fault(argument);
  if (command == "hostile") return hostile_client(std::stoi(argument));
  if (const int status = injection_client(command, argument); status != 2) return status;
  std::fprintf(stderr,
               "kfdsim_client work N | hold | hold-with-heir | allocate-and-die GIB | measure | "
               "peek-kfd OFFSET | "
               "peek-render OFFSET | memory-fault KIND | hostile SOCKET, or a command of "
               "injection_client.h\n");
  return 2;
}
