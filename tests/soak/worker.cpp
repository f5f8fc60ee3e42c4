#include "tests/soak/worker.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <hip/hip_runtime_api.h>
#include <linux/kfd_ioctl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/integration/hip/kernels.h"

namespace eclip::soak {
namespace {

void check(hipError_t error, const char* what) {
  if (error != hipSuccess) {
    throw std::runtime_error(fmt::format("{}: {}", what, hipGetErrorString(error)));
  }
}

class DeviceWords {
 public:
  explicit DeviceWords(std::size_t count) : count_(count) {
    void* memory = nullptr;
    check(hipMalloc(&memory, count * sizeof(unsigned)), "hipMalloc");
    words_ = static_cast<unsigned*>(memory);
  }
  ~DeviceWords() { (void)hipFree(words_); }
  DeviceWords(const DeviceWords&) = delete;
  DeviceWords& operator=(const DeviceWords&) = delete;
  [[nodiscard]] unsigned* get() const { return words_; }
  [[nodiscard]] std::size_t bytes() const { return count_ * sizeof(unsigned); }

 private:
  std::size_t count_;
  unsigned* words_ = nullptr;
};

class Stream {
 public:
  explicit Stream(std::uint32_t mask_word) {
    if (mask_word == 0) {
      check(hipStreamCreateWithFlags(&stream_, hipStreamNonBlocking), "hipStreamCreate");
    } else {
      const std::array<std::uint32_t, 2> mask{mask_word, 0};
      check(hipExtStreamCreateWithCUMask(&stream_, 2, mask.data()), "hipExtStreamCreateWithCUMask");
    }
  }
  ~Stream() { (void)hipStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  [[nodiscard]] hipStream_t get() const { return stream_; }

 private:
  hipStream_t stream_ = nullptr;
};

/// One in so many operations is on up to 4 MiB.
constexpr std::size_t large_share = 8;

class Worker {
 public:
  explicit Worker(std::uint64_t seed) : random_(seed) {}

  /// `may_branch`: into threads and processes too. Only one thread of a process does, since HIP
  /// captures graphs of one thread at a time.
  void one_operation(bool may_branch) {
    const auto words = pick(1, large_share) == 1 ? pick(1, 1 << 20) : pick(1, 4096);
    switch (pick(0, may_branch ? 11 : 7)) {
      case 0:
        return copy_there_and_back(words);
      case 1:
        return fill(words);
      case 2:
        return compute(words, 0);
      case 3:
        return compute(words, static_cast<std::uint32_t>(pick(1, 0x7FFFFFFF)));
      case 4:
        return copy_rectangle(pick(1, 300), pick(1, 200));
      case 5:
        return use_pinned(words);
      case 6:
        return use_registered(words);
      case 7:
        return pass_on(words);
      case 8:
        return replay_graph(words);
      case 9:
        return in_threads();
      case 10:
        return fork_and_open();
      default:
        // It takes a hundred times as long as the others: HIP starts anew.
        return pick(1, 10) == 1 ? in_new_program() : fork_and_open();
    }
  }

 private:
  std::size_t pick(std::size_t from, std::size_t to) {
    return std::uniform_int_distribution<std::size_t>(from, to)(random_);
  }

  void expect(const std::vector<unsigned>& expected, const DeviceWords& device, const char* what) {
    std::vector<unsigned> seen(expected.size());
    check(hipMemcpy(seen.data(), device.get(), device.bytes(), hipMemcpyDeviceToHost), "hipMemcpy");
    const auto different = std::mismatch(expected.begin(), expected.end(), seen.begin());
    if (different.first == expected.end()) return;
    throw std::runtime_error(fmt::format("{}: word {} of {} is {:#x}, not {:#x}", what,
                                         different.first - expected.begin(), expected.size(),
                                         *different.second, *different.first));
  }

  std::vector<unsigned> random_words(std::size_t count) {
    std::vector<unsigned> words(count);
    for (unsigned& word : words) word = static_cast<unsigned>(random_());
    return words;
  }

  void copy_there_and_back(std::size_t words) {
    const auto sent = random_words(words);
    const DeviceWords device(words);
    check(hipMemcpy(device.get(), sent.data(), device.bytes(), hipMemcpyHostToDevice), "hipMemcpy");
    expect(sent, device, "copy");
  }

  void fill(std::size_t words) {
    const auto value = static_cast<unsigned>(random_());
    const DeviceWords device(words);
    check(hipMemsetD32(device.get(), static_cast<int>(value), words), "hipMemsetD32");
    expect(std::vector<unsigned>(words, value), device, "fill");
  }

  void compute(std::size_t words, std::uint32_t mask) {
    const auto first = static_cast<unsigned>(random_());
    const DeviceWords device(words);
    const Stream stream(mask);
    test::launch_iota(stream.get(), device.get(), first, static_cast<unsigned>(words));
    check(hipStreamSynchronize(stream.get()), "hipStreamSynchronize");
    std::vector<unsigned> expected(words);
    std::iota(expected.begin(), expected.end(), first);
    expect(expected, device, "kernel");
  }

  /// From stream to stream by events, through several buffers.
  void pass_on(std::size_t words) {
    const auto first = static_cast<unsigned>(random_());
    const DeviceWords a(words);
    const DeviceWords b(words);
    const Stream source(0);
    const Stream sink(0);
    hipEvent_t done = nullptr;
    check(hipEventCreateWithFlags(&done, hipEventDisableTiming), "hipEventCreate");
    test::launch_iota(source.get(), a.get(), first, static_cast<unsigned>(words));
    check(hipEventRecord(done, source.get()), "hipEventRecord");
    check(hipStreamWaitEvent(sink.get(), done, 0), "hipStreamWaitEvent");
    check(hipMemcpyAsync(b.get(), a.get(), a.bytes(), hipMemcpyDeviceToDevice, sink.get()),
          "hipMemcpyAsync");
    check(hipStreamSynchronize(sink.get()), "hipStreamSynchronize");
    check(hipEventDestroy(done), "hipEventDestroy");
    std::vector<unsigned> expected(words);
    std::iota(expected.begin(), expected.end(), first);
    expect(expected, b, "copy behind an event");
  }

  void copy_rectangle(std::size_t width, std::size_t height) {
    const std::size_t pitch = width + pick(0, 40);
    const std::size_t back_pitch = width + pick(0, 40);
    const auto sent = random_words((pitch * height + 3) / 4);
    const DeviceWords device((pitch * height + 3) / 4);
    check(
        hipMemcpy2D(device.get(), pitch, sent.data(), pitch, width, height, hipMemcpyHostToDevice),
        "hipMemcpy2D");
    std::vector<char> seen(back_pitch * height, 'x');
    check(hipMemcpy2D(seen.data(), back_pitch, device.get(), pitch, width, height,
                      hipMemcpyDeviceToHost),
          "hipMemcpy2D");
    const auto* bytes = reinterpret_cast<const char*>(sent.data());
    for (std::size_t y = 0; y < height; ++y) {
      for (std::size_t x = 0; x < back_pitch; ++x) {
        if (seen[y * back_pitch + x] == (x < width ? bytes[y * pitch + x] : 'x')) continue;
        throw std::runtime_error(
            fmt::format("rectangle of {} x {}: row {}, column {} is wrong", width, height, y, x));
      }
    }
  }

  /// There and back by way of `host`, which the GPU reaches itself.
  void bounce(unsigned* host, std::size_t words, const char* what) {
    const auto sent = random_words(words);
    const DeviceWords device(words);
    const Stream stream(0);
    std::copy(sent.begin(), sent.end(), host);
    check(hipMemcpyAsync(device.get(), host, device.bytes(), hipMemcpyHostToDevice, stream.get()),
          "hipMemcpyAsync");
    check(hipMemsetAsync(host, 0, device.bytes(), stream.get()), "hipMemsetAsync");
    check(hipMemcpyAsync(host, device.get(), device.bytes(), hipMemcpyDeviceToHost, stream.get()),
          "hipMemcpyAsync");
    check(hipStreamSynchronize(stream.get()), "hipStreamSynchronize");
    if (!std::equal(sent.begin(), sent.end(), host)) {
      throw std::runtime_error(fmt::format("{}: {} words came back wrong", what, words));
    }
  }

  void use_pinned(std::size_t words) {
    void* memory = nullptr;
    check(hipHostMalloc(&memory, words * sizeof(unsigned), hipHostMallocDefault), "hipHostMalloc");
    bounce(static_cast<unsigned*>(memory), words, "pinned memory");
    check(hipHostFree(memory), "hipHostFree");
  }

  void use_registered(std::size_t words) {
    std::vector<unsigned> memory(words);
    check(hipHostRegister(memory.data(), words * sizeof(unsigned), hipHostRegisterDefault),
          "hipHostRegister");
    bounce(memory.data(), words, "registered memory");
    check(hipHostUnregister(memory.data()), "hipHostUnregister");
  }

  void replay_graph(std::size_t words) {
    const auto first = static_cast<unsigned>(random_());
    const DeviceWords a(words);
    const DeviceWords b(words);
    const Stream stream(0);
    hipGraph_t graph = nullptr;
    check(hipStreamBeginCapture(stream.get(), hipStreamCaptureModeGlobal), "hipStreamBeginCapture");
    test::launch_iota(stream.get(), a.get(), first, static_cast<unsigned>(words));
    check(hipMemcpyAsync(b.get(), a.get(), a.bytes(), hipMemcpyDeviceToDevice, stream.get()),
          "hipMemcpyAsync");
    check(hipStreamEndCapture(stream.get(), &graph), "hipStreamEndCapture");
    hipGraphExec_t executable = nullptr;
    check(hipGraphInstantiate(&executable, graph, nullptr, nullptr, 0), "hipGraphInstantiate");
    std::vector<unsigned> expected(words);
    std::iota(expected.begin(), expected.end(), first);
    for (int round = 0; round < 2; ++round) {
      check(hipMemsetD32(b.get(), 0, words), "hipMemsetD32");
      check(hipGraphLaunch(executable, stream.get()), "hipGraphLaunch");
      check(hipStreamSynchronize(stream.get()), "hipStreamSynchronize");
      expect(expected, b, "graph");
    }
    check(hipGraphExecDestroy(executable), "hipGraphExecDestroy");
    check(hipGraphDestroy(graph), "hipGraphDestroy");
  }

  void in_threads() {
    std::vector<std::thread> threads;
    std::vector<std::exception_ptr> failures(pick(2, 4));
    for (std::exception_ptr& failure : failures) {
      threads.emplace_back([&failure, seed = random_()] {
        try {
          Worker worker(seed);
          for (int i = 0; i < 3; ++i) worker.one_operation(false);
        } catch (...) {
          failure = std::current_exception();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::exception_ptr& failure : failures) {
      if (failure) std::rethrow_exception(failure);
    }
  }

  /// A child has what its parent had open and mapped; it uses the GPU by an open of its own. HIP
  /// does not survive a fork.
  void fork_and_open() {
    const pid_t child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      const int kfd = ::open("/dev/kfd", O_RDWR | O_CLOEXEC);
      kfd_ioctl_get_version_args version{};
      const bool works = kfd >= 0 && ::ioctl(kfd, AMDKFD_IOC_GET_VERSION, &version) == 0;
      ::_exit(works ? 0 : 1);
    }
    wait_for(child, "a forked child");
  }

  void in_new_program() {
    const std::string seed = std::to_string(random_());
    const pid_t child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::execl("/proc/self/exe", "kfdsim_soak", "--once", seed.c_str(), static_cast<char*>(nullptr));
      ::_exit(1);
    }
    wait_for(child, "a program that a worker starts");
  }

  static void wait_for(pid_t child, const char* who) {
    int status = -1;
    if (::waitpid(child, &status, 0) == child && status == 0) return;
    throw std::runtime_error(fmt::format("{} ended with wait status {:#x}", who, status));
  }

  std::mt19937_64 random_;
};

}  // namespace

int work(std::uint64_t seed, Tally& tally, const std::atomic<bool>& stop) {
  Worker worker(seed);
  while (!stop) {
    try {
      worker.one_operation(true);
      ++tally.operations;
    } catch (const std::runtime_error& error) {
      ++tally.wrong;
      fmt::print(stderr, "soak worker with seed {}: {}\n", seed, error.what());
      return 1;
    }
  }
  return 0;
}

int work_once(std::uint64_t seed) {
  try {
    Worker(seed).one_operation(false);
    return 0;
  } catch (const std::runtime_error& error) {
    fmt::print(stderr, "soak program with seed {}: {}\n", seed, error.what());
    return 1;
  }
}

}  // namespace eclip::soak
