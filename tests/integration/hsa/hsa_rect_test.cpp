// Rectangles by the SDMA engines (hsa_amd_memory_async_copy_rect).
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/integration/hsa/hsa_copies.h"

namespace eclip::test {
namespace {

using HsaRects = HsaCopies;

/// One side: a pitched block, and where in it the rectangle begins. x in bytes.
struct Side {
  std::size_t pitch;
  std::size_t slice;
  hsa_dim3_t offset;
  [[nodiscard]] std::size_t at(std::size_t x, std::size_t y, std::size_t z) const {
    return (offset.z + z) * slice + (offset.y + y) * pitch + offset.x + x;
  }
  [[nodiscard]] std::size_t bytes(const hsa_dim3_t& range) const {
    return at(range.x - 1, range.y - 1, range.z - 1) + 1;
  }
};

struct Rect {
  const char* what;
  Side from;
  Side to;
  hsa_dim3_t range;
};

/// The runtime chooses the elements' size, 1 to 16 bytes, by what all of the numbers divide by.
const std::vector<Rect> rects{
    {"whole rows of 16-byte elements",
     {256, 4096, {0, 0, 0}},
     {512, 8192, {0, 0, 0}},
     {256, 16, 2}},
    {"16-byte elements", {160, 1600, {16, 1, 0}}, {320, 6400, {32, 2, 1}}, {64, 7, 1}},
    {"8-byte elements", {72, 720, {8, 1, 1}}, {88, 1760, {24, 0, 0}}, {40, 9, 2}},
    {"4-byte elements", {100, 1300, {4, 2, 0}}, {52, 1040, {12, 1, 2}}, {36, 11, 3}},
    {"2-byte elements", {100, 1300, {2, 2, 0}}, {64, 1280, {6, 1, 2}}, {34, 11, 3}},
    {"1-byte elements", {100, 1300, {3, 0, 1}}, {60, 1200, {1, 3, 0}}, {37, 5, 4}},
    {"one byte", {4, 4, {3, 0, 0}}, {8, 8, {5, 0, 0}}, {1, 1, 1}},
    {"one column", {20, 2000, {7, 0, 0}}, {24, 2400, {2, 0, 0}}, {1, 90, 1}},
    {"rows wider than a packet's",
     {20'004, 60'012, {1, 0, 0}},
     {24'000, 72'000, {3, 0, 0}},
     {20'001, 3, 2}},
    {"more rows than a packet's",
     {8, 160'000, {1, 0, 0}},
     {12, 240'000, {2, 0, 0}},
     {5, 17'001, 1}},
    {"more layers than a packet's", {8, 16, {1, 0, 0}}, {12, 24, {2, 1, 0}}, {3, 1, 2100}},
    {"a large picture",
     {4096, 4096 * 1080, {0, 0, 0}},
     {3840, 3840 * 1080, {0, 0, 0}},
     {3840, 1080, 1}},
};

void check_rect(const HsaRects& copies, const Rect& rect, hsa_amd_copy_direction_t direction) {
  const Hsa& hsa = copies.hsa();
  const bool from_host = direction == hsaHostToDevice;
  const bool to_host = direction == hsaDeviceToHost;
  const HsaMemory from(hsa, from_host ? hsa.system : hsa.vram, rect.from.bytes(rect.range));
  const HsaMemory to(hsa, to_host ? hsa.system : hsa.vram, rect.to.bytes(rect.range));
  const HsaMemory host(hsa, hsa.system, std::max(from.bytes(), to.bytes()));
  const auto sent = random_bytes(from.bytes(), 8);
  std::copy(sent.begin(), sent.end(), host.span().begin());
  copies.host_to_gpu(from.at(), host.at(), from.bytes());
  auto expected = random_bytes(to.bytes(), 9);
  std::copy(expected.begin(), expected.end(), host.span().begin());
  copies.host_to_gpu(to.at(), host.at(), to.bytes());

  const hsa_pitched_ptr_t source{from.at(), rect.from.pitch, rect.from.slice};
  const hsa_pitched_ptr_t destination{to.at(), rect.to.pitch, rect.to.slice};
  const HsaSignal done;
  check(hsa_amd_memory_async_copy_rect(&destination, &rect.to.offset, &source, &rect.from.offset,
                                       &rect.range, hsa.gpu, direction, 0, nullptr, done.get()));
  ASSERT_TRUE(done.wait());

  for (std::size_t z = 0; z < rect.range.z; ++z) {
    for (std::size_t y = 0; y < rect.range.y; ++y) {
      for (std::size_t x = 0; x < rect.range.x; ++x) {
        expected[rect.to.at(x, y, z)] = sent[rect.from.at(x, y, z)];
      }
    }
  }
  const auto received = copies.read(to);
  const auto wrong = std::mismatch(received.begin(), received.end(), expected.begin());
  EXPECT_TRUE(wrong.first == received.end())
      << rect.what << ": byte " << wrong.first - received.begin() << " of " << received.size();
}

TEST_F(HsaRects, MoveFromHostToGpu) {
  for (const Rect& rect : rects) check_rect(*this, rect, hsaHostToDevice);
}

TEST_F(HsaRects, MoveFromGpuToHost) {
  for (const Rect& rect : rects) check_rect(*this, rect, hsaDeviceToHost);
}

TEST_F(HsaRects, MoveOnTheGpu) {
  for (const Rect& rect : rects) check_rect(*this, rect, hsaDeviceToDevice);
}

TEST_F(HsaRects, WaitForSignals) {
  const HsaMemory host(hsa(), hsa().system, 64);
  const HsaMemory device(hsa(), hsa().vram, 64);
  const auto sent = random_bytes(64, 10);
  std::copy(sent.begin(), sent.end(), host.span().begin());
  fill(device, 0);
  const hsa_pitched_ptr_t from{host.at(), 16, 64};
  const hsa_pitched_ptr_t to{device.at(), 16, 64};
  const hsa_dim3_t nowhere{0, 0, 0};
  const hsa_dim3_t all{16, 4, 1};
  const HsaSignal gate;
  const HsaSignal done;
  const hsa_signal_t dependency = gate.get();
  check(hsa_amd_memory_async_copy_rect(&to, &nowhere, &from, &nowhere, &all, hsa().gpu,
                                       hsaHostToDevice, 1, &dependency, done.get()));
  EXPECT_EQ(read(device), std::vector<std::uint8_t>(64));
  EXPECT_EQ(done.value(), 1);
  gate.set(0);
  ASSERT_TRUE(done.wait());
  EXPECT_EQ(read(device), sent);
}

}  // namespace
}  // namespace eclip::test
