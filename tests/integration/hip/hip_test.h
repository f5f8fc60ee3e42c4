// What the HIP tests share: they run inside kfdsim, on unmodified HIP.
#pragma once

#include <gtest/gtest.h>
#include <hip/hip_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

#include "tests/integration/hip/kernels.h"
#include "tests/integration/kfdsim/inside_fixture.h"

#define ASSERT_HIP(call)                                                            \
  do {                                                                              \
    const hipError_t hip_error = (call);                                            \
    ASSERT_EQ(hip_error, hipSuccess) << #call ": " << hipGetErrorString(hip_error); \
  } while (false)

namespace eclip::test {

class Hip : public InsideKfdsim {};

struct HipFree {
  void operator()(void* memory) const { EXPECT_EQ(hipFree(memory), hipSuccess); }
};
template <class T>
using DeviceArray = std::unique_ptr<T[], HipFree>;

/// Device memory for `count` elements; null when there is none.
template <class T>
DeviceArray<T> device_array(std::size_t count) {
  void* memory = nullptr;
  if (hipMalloc(&memory, count * sizeof(T)) != hipSuccess) return nullptr;
  return DeviceArray<T>(static_cast<T*>(memory));
}

/// Bytes that differ from those of other seeds.
inline std::vector<std::uint8_t> pattern(std::size_t bytes, std::uint32_t seed) {
  std::vector<std::uint8_t> values(bytes);
  std::uint32_t state = seed * 2654435761U + 1;
  for (std::uint8_t& value : values) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<std::uint8_t>(state >> 24);
  }
  return values;
}

/// first, first + 1, ...
inline std::vector<unsigned> counted(unsigned first, unsigned n) {
  std::vector<unsigned> values(n);
  std::iota(values.begin(), values.end(), first);
  return values;
}

/// What is in the device's array.
inline std::vector<unsigned> fetch(const DeviceArray<unsigned>& device, unsigned n) {
  std::vector<unsigned> values(n);
  EXPECT_EQ(hipMemcpy(values.data(), device.get(), n * sizeof(unsigned), hipMemcpyDeviceToHost),
            hipSuccess);
  return values;
}

class Stream {
 public:
  Stream() { EXPECT_EQ(hipStreamCreateWithFlags(&stream_, hipStreamNonBlocking), hipSuccess); }
  explicit Stream(const std::vector<std::uint32_t>& cu_mask) {
    EXPECT_EQ(hipExtStreamCreateWithCUMask(&stream_, static_cast<std::uint32_t>(cu_mask.size()),
                                           cu_mask.data()),
              hipSuccess);
  }
  ~Stream() { EXPECT_EQ(hipStreamDestroy(stream_), hipSuccess); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  [[nodiscard]] hipStream_t get() const { return stream_; }

 private:
  hipStream_t stream_ = nullptr;
};

class Event {
 public:
  Event() { EXPECT_EQ(hipEventCreate(&event_), hipSuccess); }
  ~Event() { EXPECT_EQ(hipEventDestroy(event_), hipSuccess); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  [[nodiscard]] hipEvent_t get() const { return event_; }

 private:
  hipEvent_t event_ = nullptr;
};

/// The time of one axpy of 1024 x 256 on a stream, measured with events. By axpy.json it is 8 ms on
/// 15 CUs, 4 ms on 30, 2 ms on 60.
inline float axpy_milliseconds(const Stream& stream) {
  constexpr int n = 1024 * 256;
  const auto x = device_array<float>(n);
  const auto y = device_array<float>(n);
  EXPECT_TRUE(x && y);
  const Event begin;
  const Event end;
  // The first launch loads code, which is in nobody's profile.
  launch_axpy(stream.get(), 1.0F, x.get(), y.get(), n);
  EXPECT_EQ(hipStreamSynchronize(stream.get()), hipSuccess);
  EXPECT_EQ(hipEventRecord(begin.get(), stream.get()), hipSuccess);
  constexpr int kernels = 5;
  for (int i = 0; i < kernels; ++i) {
    launch_axpy(stream.get(), 1.0F, x.get(), y.get(), n);
  }
  EXPECT_EQ(hipEventRecord(end.get(), stream.get()), hipSuccess);
  EXPECT_EQ(hipEventSynchronize(end.get()), hipSuccess);
  float milliseconds = 0;
  EXPECT_EQ(hipEventElapsedTime(&milliseconds, begin.get(), end.get()), hipSuccess);
  return milliseconds / kernels;
}

}  // namespace eclip::test
