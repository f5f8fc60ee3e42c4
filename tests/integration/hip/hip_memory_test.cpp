// Memory through unmodified HIP: every way in which bytes move is checked by their values.
#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "tests/integration/hip/hip_test.h"

namespace eclip::test {
namespace {

class HipCopy : public Hip, public ::testing::WithParamInterface<std::size_t> {};

// HIP copies small host buffers through staging memory, large ones by pinning them, and D2D copies
// by its blit kernels.
INSTANTIATE_TEST_SUITE_P(Sizes, HipCopy,
                         ::testing::Values(1, 3, 4, 63, 4095, 4096, 65537, 1 << 20, (16 << 20) + 5),
                         [](const auto& size) { return std::to_string(size.param); });

TEST_P(HipCopy, HostToDeviceAndBack) {
  const auto sent = pattern(GetParam(), 1);
  const auto device = device_array<std::uint8_t>(sent.size());
  ASSERT_TRUE(device);
  ASSERT_HIP(hipMemcpy(device.get(), sent.data(), sent.size(), hipMemcpyHostToDevice));
  std::vector<std::uint8_t> received(sent.size());
  ASSERT_HIP(hipMemcpy(received.data(), device.get(), sent.size(), hipMemcpyDeviceToHost));
  EXPECT_EQ(sent, received);
}

TEST_P(HipCopy, DeviceToDevice) {
  const auto sent = pattern(GetParam(), 2);
  const auto first = device_array<std::uint8_t>(sent.size());
  const auto second = device_array<std::uint8_t>(sent.size());
  ASSERT_TRUE(first && second);
  ASSERT_HIP(hipMemcpy(first.get(), sent.data(), sent.size(), hipMemcpyDefault));
  ASSERT_HIP(hipMemcpy(second.get(), first.get(), sent.size(), hipMemcpyDeviceToDevice));
  std::vector<std::uint8_t> received(sent.size());
  ASSERT_HIP(hipMemcpy(received.data(), second.get(), sent.size(), hipMemcpyDefault));
  EXPECT_EQ(sent, received);
}

TEST_P(HipCopy, OddOffsetsTouchNothingAround) {
  const std::size_t bytes = GetParam();
  const auto sent = pattern(bytes, 3);
  const auto device = device_array<std::uint8_t>(bytes + 16);
  const auto other = device_array<std::uint8_t>(bytes + 16);
  ASSERT_TRUE(device && other);
  ASSERT_HIP(hipMemset(device.get(), 0xAA, bytes + 16));
  ASSERT_HIP(hipMemset(other.get(), 0xBB, bytes + 16));
  ASSERT_HIP(hipMemcpy(device.get() + 5, sent.data(), bytes, hipMemcpyHostToDevice));
  ASSERT_HIP(hipMemcpy(other.get() + 2, device.get() + 5, bytes, hipMemcpyDeviceToDevice));
  std::vector<std::uint8_t> received(bytes + 16);
  ASSERT_HIP(hipMemcpy(received.data(), other.get(), received.size(), hipMemcpyDeviceToHost));
  std::vector<std::uint8_t> expected(bytes + 16, 0xBB);
  std::copy(sent.begin(), sent.end(), expected.begin() + 2);
  EXPECT_EQ(received, expected);
}

TEST_F(Hip, HostToHost) {
  const auto sent = pattern(100'000, 4);
  std::vector<std::uint8_t> received(sent.size());
  ASSERT_HIP(hipMemcpy(received.data(), sent.data(), sent.size(), hipMemcpyHostToHost));
  EXPECT_EQ(sent, received);
}

TEST_F(Hip, MemsetOfEveryWidth) {
  constexpr std::size_t count = 1025;
  const auto device = device_array<std::uint32_t>(count);
  ASSERT_TRUE(device);
  std::vector<std::uint32_t> received(count);
  const auto fetch = [&] {
    return hipMemcpy(received.data(), device.get(), count * 4, hipMemcpyDeviceToHost);
  };
  ASSERT_HIP(hipMemset(device.get(), 0x5C, count * 4));
  ASSERT_HIP(fetch());
  EXPECT_EQ(received, std::vector<std::uint32_t>(count, 0x5C5C5C5C));
  ASSERT_HIP(hipMemsetD16(device.get(), 0x1234, count * 2));
  ASSERT_HIP(fetch());
  EXPECT_EQ(received, std::vector<std::uint32_t>(count, 0x12341234));
  ASSERT_HIP(hipMemsetD32(device.get(), static_cast<int>(0x89ABCDEF), count));
  ASSERT_HIP(fetch());
  EXPECT_EQ(received, std::vector<std::uint32_t>(count, 0x89ABCDEF));
  // From the middle of a word on. (Where this ends within the next 8 bytes, HIP 5.2.3 computes a
  // negative size and writes past all memory.)
  ASSERT_HIP(hipMemset(reinterpret_cast<std::uint8_t*>(device.get()) + 2, 0, 11));
  ASSERT_HIP(fetch());
  EXPECT_EQ(received[0], 0x0000CDEFU);
  EXPECT_EQ(received[1], 0U);
  EXPECT_EQ(received[2], 0U);
  EXPECT_EQ(received[3], 0x89ABCD00U);
}

TEST_F(Hip, Copies2DBetweenPitches) {
  constexpr std::size_t width = 100;
  constexpr std::size_t height = 37;
  constexpr std::size_t host_pitch = 128;
  void* raw = nullptr;
  std::size_t pitch = 0;
  ASSERT_HIP(hipMallocPitch(&raw, &pitch, width, height));
  const DeviceArray<std::uint8_t> device(static_cast<std::uint8_t*>(raw));
  const auto packed = device_array<std::uint8_t>(width * height);
  ASSERT_TRUE(packed);
  ASSERT_GE(pitch, width);
  const auto sent = pattern(host_pitch * height, 5);
  ASSERT_HIP(hipMemset2D(device.get(), pitch, 7, width, height));
  ASSERT_HIP(hipMemcpy2D(device.get(), pitch, sent.data(), host_pitch, width, height,
                         hipMemcpyHostToDevice));
  ASSERT_HIP(hipMemcpy2D(packed.get(), width, device.get(), pitch, width, height,
                         hipMemcpyDeviceToDevice));
  std::vector<std::uint8_t> received(host_pitch * height, 0xEE);
  ASSERT_HIP(hipMemcpy2D(received.data(), host_pitch, packed.get(), width, width, height,
                         hipMemcpyDeviceToHost));
  for (std::size_t y = 0; y < height; ++y) {
    for (std::size_t x = 0; x < host_pitch; ++x) {
      const std::size_t at = y * host_pitch + x;
      ASSERT_EQ(received[at], x < width ? sent[at] : 0xEE) << "row " << y << ", column " << x;
    }
  }
}

TEST_F(Hip, Memset2DLeavesWhatIsBetweenRows) {
  constexpr std::size_t width = 33;
  constexpr std::size_t height = 5;
  constexpr std::size_t pitch = 64;
  const auto device = device_array<std::uint8_t>(pitch * height);
  ASSERT_TRUE(device);
  ASSERT_HIP(hipMemset(device.get(), 0x11, pitch * height));
  ASSERT_HIP(hipMemset2D(device.get(), pitch, 0x22, width, height));
  std::vector<std::uint8_t> received(pitch * height);
  ASSERT_HIP(hipMemcpy(received.data(), device.get(), received.size(), hipMemcpyDeviceToHost));
  for (std::size_t at = 0; at < received.size(); ++at) {
    ASSERT_EQ(received[at], at % pitch < width ? 0x22 : 0x11) << at;
  }
}

TEST_F(Hip, Copies3D) {
  const hipExtent extent{40, 6, 3};
  const auto sent = pattern(extent.width * extent.height * extent.depth, 6);
  hipPitchedPtr device{};
  ASSERT_HIP(hipMalloc3D(&device, extent));
  const DeviceArray<std::uint8_t> owner(static_cast<std::uint8_t*>(device.ptr));
  std::vector<std::uint8_t> received(sent.size());
  hipMemcpy3DParms to{};
  to.srcPtr = {const_cast<std::uint8_t*>(sent.data()), extent.width, extent.width, extent.height};
  to.dstPtr = device;
  to.extent = extent;
  to.kind = hipMemcpyHostToDevice;
  ASSERT_HIP(hipMemcpy3D(&to));
  hipMemcpy3DParms from{};
  from.srcPtr = device;
  from.dstPtr = {received.data(), extent.width, extent.width, extent.height};
  from.extent = extent;
  from.kind = hipMemcpyDeviceToHost;
  ASSERT_HIP(hipMemcpy3D(&from));
  EXPECT_EQ(sent, received);
}

TEST_F(Hip, PinnedMemoryAndAsynchronousCopies) {
  constexpr std::size_t bytes = 3 << 20;
  void* pinned = nullptr;
  ASSERT_HIP(hipHostMalloc(&pinned, bytes, hipHostMallocDefault));
  hipStream_t stream = nullptr;
  ASSERT_HIP(hipStreamCreateWithFlags(&stream, hipStreamNonBlocking));
  const auto device = device_array<std::uint8_t>(bytes);
  ASSERT_TRUE(device);
  const auto sent = pattern(bytes, 7);
  std::memcpy(pinned, sent.data(), bytes);
  ASSERT_HIP(hipMemcpyAsync(device.get(), pinned, bytes, hipMemcpyHostToDevice, stream));
  ASSERT_HIP(hipMemsetAsync(device.get(), 0, 1000, stream));
  ASSERT_HIP(hipMemcpyAsync(pinned, device.get(), bytes, hipMemcpyDeviceToHost, stream));
  ASSERT_HIP(hipStreamSynchronize(stream));
  std::vector<std::uint8_t> expected = sent;
  std::fill_n(expected.begin(), 1000, std::uint8_t{0});
  EXPECT_EQ(std::memcmp(pinned, expected.data(), bytes), 0);
  ASSERT_HIP(hipStreamDestroy(stream));
  ASSERT_HIP(hipHostFree(pinned));
}

TEST_F(Hip, RegisteredMemoryIsReachedByTheGpu) {
  auto sent = pattern(1 << 20, 8);
  std::vector<std::uint8_t> received(sent.size());
  ASSERT_HIP(hipHostRegister(sent.data(), sent.size(), hipHostRegisterDefault));
  ASSERT_HIP(hipHostRegister(received.data(), received.size(), hipHostRegisterDefault));
  const auto device = device_array<std::uint8_t>(sent.size());
  ASSERT_TRUE(device);
  ASSERT_HIP(
      hipMemcpyAsync(device.get(), sent.data(), sent.size(), hipMemcpyHostToDevice, nullptr));
  ASSERT_HIP(
      hipMemcpyAsync(received.data(), device.get(), sent.size(), hipMemcpyDeviceToHost, nullptr));
  ASSERT_HIP(hipDeviceSynchronize());
  EXPECT_EQ(sent, received);
  ASSERT_HIP(hipHostUnregister(sent.data()));
  ASSERT_HIP(hipHostUnregister(received.data()));
}

TEST_F(Hip, MemoryInfoFollowsAllocations) {
  std::size_t free_before = 0;
  std::size_t total = 0;
  ASSERT_HIP(hipMemGetInfo(&free_before, &total));
  EXPECT_GT(total, std::size_t{30} << 30);
  constexpr std::size_t bytes = 256 << 20;
  std::size_t free_during = 0;
  {
    const auto device = device_array<std::uint8_t>(bytes);
    ASSERT_TRUE(device);
    ASSERT_HIP(hipMemGetInfo(&free_during, &total));
  }
  EXPECT_LE(free_during + bytes, free_before);
}

TEST_F(Hip, MoreMemoryThanThereIsIsRefused) {
  void* memory = nullptr;
  EXPECT_EQ(hipMalloc(&memory, std::size_t{100} << 30), hipErrorOutOfMemory);
  const auto device = device_array<std::uint8_t>(4096);
  EXPECT_TRUE(device) << "after the refusal, memory that there is must be given";
}

}  // namespace
}  // namespace eclip::test
