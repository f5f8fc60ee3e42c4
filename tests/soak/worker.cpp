#include "tests/soak/worker.h"

#include <fmt/format.h>
#include <hip/hip_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
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

class Worker {
 public:
  explicit Worker(std::uint64_t seed) : random_(seed) {}

  void one_operation() {
    const auto words = pick(1, 1) == 1 ? pick(1, 4096) : pick(1, 1 << 20);
    switch (pick(0, 4)) {
      case 0:
        return copy_there_and_back(words);
      case 1:
        return fill(words);
      case 2:
        return compute(words, 0);
      case 3:
        return compute(words, static_cast<std::uint32_t>(pick(1, 0x7FFFFFFF)));
      default:
        return pass_on(words);
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

  std::mt19937_64 random_;
};

}  // namespace

int work(std::uint64_t seed, Tally& tally, const std::atomic<bool>& stop) {
  Worker worker(seed);
  while (!stop) {
    try {
      worker.one_operation();
      ++tally.operations;
    } catch (const std::runtime_error& error) {
      ++tally.wrong;
      fmt::print(stderr, "soak worker with seed {}: {}\n", seed, error.what());
      return 1;
    }
  }
  return 0;
}

}  // namespace eclip::soak
