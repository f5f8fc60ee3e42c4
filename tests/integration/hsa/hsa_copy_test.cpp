// Copies and fills by the runtime's SDMA engines, and by its blit kernels (HSA_ENABLE_SDMA=0).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/integration/hsa/hsa_copies.h"

namespace eclip::test {
namespace {

enum class Engine { sdma, blit };

class HsaCopyBy : public HsaCopies, public ::testing::WithParamInterface<Engine> {
 protected:
  void SetUp() override {
    ::setenv("HSA_ENABLE_SDMA", GetParam() == Engine::sdma ? "1" : "0", 1);
    HsaCopies::SetUp();
  }
};

INSTANTIATE_TEST_SUITE_P(Engines, HsaCopyBy, ::testing::Values(Engine::sdma, Engine::blit),
                         [](const auto& engine) {
                           return engine.param == Engine::sdma ? "Sdma" : "Blit";
                         });

/// Copies `bytes` between all of these offsets: host to GPU, on the GPU, GPU to host. Each copy
/// must move its bytes and nothing around them.
void check_alignments(const HsaCopies& copies, std::size_t bytes) {
  constexpr std::size_t margin = 32;
  const std::size_t whole = bytes + 2 * margin;
  const HsaMemory host(copies.hsa(), copies.hsa().system, whole);
  const HsaMemory first(copies.hsa(), copies.hsa().vram, whole);
  const HsaMemory second(copies.hsa(), copies.hsa().vram, whole);
  const auto sent = random_bytes(whole, 1);
  for (const std::size_t from : {0, 1, 2, 3, 4, 8, 15}) {
    for (const std::size_t to : {0, 1, 2, 3, 4, 12, 16}) {
      copies.fill(first, 0x11111111);
      copies.fill(second, 0x22222222);
      std::copy(sent.begin(), sent.end(), host.span().begin());
      copies.host_to_gpu(first.at(to), host.at(from), bytes);
      copies.on_gpu(second.at(from), first.at(to), bytes);
      std::fill(host.span().begin(), host.span().end(), std::uint8_t{0x33});
      copies.gpu_to_host(host.at(to), second.at(from), bytes);

      std::vector<std::uint8_t> expected(whole, 0x33);
      std::copy_n(sent.begin() + static_cast<std::ptrdiff_t>(from), bytes,
                  expected.begin() + static_cast<std::ptrdiff_t>(to));
      ASSERT_TRUE(std::equal(expected.begin(), expected.end(), host.span().begin()))
          << bytes << " bytes from " << from << " to " << to;
      const auto around = copies.read(second);
      for (std::size_t i = 0; i < whole; ++i) {
        if (i >= from && i < from + bytes) continue;
        ASSERT_EQ(around[i], 0x22) << "byte " << i << " of " << bytes << " at " << from;
      }
    }
  }
}

TEST_P(HsaCopyBy, AllAlignmentsOfSmallCopies) {
  for (const std::size_t bytes : {1, 2, 3, 4, 7, 16, 61, 64}) check_alignments(*this, bytes);
}

TEST_P(HsaCopyBy, AllAlignmentsOfLargerCopies) {
  for (const std::size_t bytes : {4093, 4096, 70'001}) check_alignments(*this, bytes);
}

TEST_P(HsaCopyBy, LargeCopiesTakeSeveralPackets) {
  constexpr std::size_t bytes = (std::size_t{24} << 20) + 5;
  const HsaMemory host(hsa(), hsa().system, bytes);
  const HsaMemory first(hsa(), hsa().vram, bytes);
  const HsaMemory second(hsa(), hsa().vram, bytes);
  const auto sent = random_bytes(bytes, 2);
  std::copy(sent.begin(), sent.end(), host.span().begin());
  host_to_gpu(first.at(), host.at(), bytes);
  on_gpu(second.at(), first.at(), bytes);
  std::fill(host.span().begin(), host.span().end(), std::uint8_t{0});
  gpu_to_host(host.at(), second.at(), bytes);
  EXPECT_TRUE(std::equal(sent.begin(), sent.end(), host.span().begin()));
}

TEST_P(HsaCopyBy, LockedHostMemoryIsReadAndWritten) {
  constexpr std::size_t bytes = 300'001;
  auto sent = random_bytes(bytes, 3);
  std::vector<std::uint8_t> received(bytes);
  void* from = nullptr;
  void* to = nullptr;
  hsa_agent_t gpu = hsa().gpu;
  check(hsa_amd_memory_lock(sent.data(), bytes, &gpu, 1, &from));
  check(hsa_amd_memory_lock(received.data(), bytes, &gpu, 1, &to));
  const HsaMemory device(hsa(), hsa().vram, bytes);
  host_to_gpu(device.at(), from, bytes);
  gpu_to_host(to, device.at(), bytes);
  check(hsa_amd_memory_unlock(sent.data()));
  check(hsa_amd_memory_unlock(received.data()));
  EXPECT_EQ(sent, received);
}

TEST_P(HsaCopyBy, FillsWriteTheirWordsAndNothingElse) {
  constexpr std::size_t words = 70'000;
  const HsaMemory device(hsa(), hsa().vram, words * 4);
  for (const std::size_t first : {0, 1, 2, 3}) {
    for (const std::size_t count : {1, 2, 3, 4, 5, 15, 64, 255, 4097, 65'537}) {
      check(hsa_amd_memory_fill(device.at(), 0xAAAAAAAA, words));
      check(hsa_amd_memory_fill(device.at(first * 4), 0x12345678, count));
      const auto bytes = read(device);
      const auto* got = reinterpret_cast<const std::uint32_t*>(bytes.data());
      for (std::size_t i = 0; i < words; ++i) {
        const bool inside = i >= first && i < first + count;
        ASSERT_EQ(got[i], inside ? 0x12345678U : 0xAAAAAAAAU)
            << "word " << i << " of " << count << " from " << first;
      }
    }
  }
}

TEST_P(HsaCopyBy, CopiesWaitForSignalsWhateverOrderTheyComeIn) {
  constexpr std::size_t bytes = 1000;
  constexpr std::size_t copies = 6;
  const HsaMemory host(hsa(), hsa().system, bytes * copies);
  const HsaMemory device(hsa(), hsa().vram, bytes * copies);
  const auto sent = random_bytes(host.bytes(), 4);
  std::copy(sent.begin(), sent.end(), host.span().begin());
  fill(device, 0);
  std::vector<std::unique_ptr<HsaSignal>> gates;
  std::vector<std::unique_ptr<HsaSignal>> done;
  for (std::size_t i = 0; i < copies; ++i) {
    // Two of its own each, and the copy before.
    gates.push_back(std::make_unique<HsaSignal>());
    gates.push_back(std::make_unique<HsaSignal>());
    done.push_back(std::make_unique<HsaSignal>());
    std::vector<hsa_signal_t> dependencies{gates[2 * i]->get(), gates[2 * i + 1]->get()};
    if (i > 0) dependencies.push_back(done[i - 1]->get());
    start_copy(device.at(i * bytes), hsa().gpu, host.at(i * bytes), hsa().cpu, bytes, dependencies,
               *done[i]);
  }
  // A copy the other way is not held up, and sees that the others have not begun.
  EXPECT_EQ(read(device), std::vector<std::uint8_t>(device.bytes()));
  for (std::size_t i = gates.size(); i-- > 1;) gates[i]->set(0);
  EXPECT_EQ(done.back()->value(), 1);
  gates[0]->set(0);
  for (const auto& signal : done) ASSERT_TRUE(signal->wait());
  EXPECT_EQ(read(device), sent);
}

TEST_P(HsaCopyBy, CopiesAndKernelsWaitForOneAnother) {
  constexpr std::size_t rounds = 50;
  const HsaKernels mix(hsa(), {replay_kernel(20, 10, true)});
  const HsaQueue queue(hsa());
  const HsaMemory host(hsa(), hsa().system, 8);
  const HsaMemory input(hsa(), hsa().vram, 8);
  const HsaMemory output(hsa(), hsa().vram, 8);
  const HsaMemory argument(hsa(), hsa().system, sizeof(replay::MixKernarg));
  auto& mix_argument = *argument.as<replay::MixKernarg>();
  mix_argument = {reinterpret_cast<std::uint64_t>(output.at()), 9, 1, {}};
  mix_argument.inputs[0] = reinterpret_cast<std::uint64_t>(input.at());
  std::uint64_t expected = 7;
  *host.as<std::uint64_t>() = expected;
  std::vector<std::unique_ptr<HsaSignal>> signals;
  std::vector<hsa_signal_t> before;
  const auto next = [&]() -> const HsaSignal& {
    signals.push_back(std::make_unique<HsaSignal>());
    before = {signals.back()->get()};
    return *signals.back();
  };
  for (std::size_t i = 0; i < rounds; ++i) {
    auto dependencies = before;
    start_copy(input.at(), hsa().gpu, host.at(), hsa().cpu, 8, dependencies, next());
    queue.barrier(false, before, nullptr);
    queue.dispatch(mix.object(), &next(), argument.at());
    dependencies = before;
    start_copy(host.at(), hsa().cpu, output.at(), hsa().gpu, 8, dependencies, next());
    expected = replay::mix(9, {&expected, 1});
  }
  ASSERT_TRUE(signals.back()->wait());
  EXPECT_EQ(*host.as<std::uint64_t>(), expected);
}

TEST_P(HsaCopyBy, RingWrapsUnderThousandsOfSmallCopies) {
  constexpr std::size_t copies = 20'000;
  const HsaMemory host(hsa(), hsa().system, copies * 4);
  const HsaMemory device(hsa(), hsa().vram, copies * 4);
  const auto sent = random_bytes(host.bytes(), 5);
  std::copy(sent.begin(), sent.end(), host.span().begin());
  fill(device, 0);
  const HsaSignal done(copies);
  for (std::size_t i = 0; i < copies; ++i) {
    start_copy(device.at(i * 4), hsa().gpu, host.at(i * 4), hsa().cpu, 4, {}, done);
  }
  ASSERT_TRUE(done.wait());
  EXPECT_EQ(read(device), sent);
}

TEST_P(HsaCopyBy, ThreadsCopyBothWaysAtOnce) {
  constexpr std::size_t threads = 4;
  constexpr std::size_t rounds = 40;
  constexpr std::size_t bytes = 20'003;
  std::vector<int> right(threads);
  const auto work = [&](std::size_t index) {
    const HsaMemory host(hsa(), hsa().system, bytes);
    const HsaMemory device(hsa(), hsa().vram, bytes);
    for (std::size_t round = 0; round < rounds; ++round) {
      const auto sent = random_bytes(bytes, static_cast<std::uint32_t>(index * rounds + round));
      std::copy(sent.begin(), sent.end(), host.span().begin());
      host_to_gpu(device.at(), host.at(), bytes);
      std::fill(host.span().begin(), host.span().end(), std::uint8_t{0});
      gpu_to_host(host.at(), device.at(), bytes);
      if (std::equal(sent.begin(), sent.end(), host.span().begin())) ++right[index];
    }
  };
  std::vector<std::thread> all;
  for (std::size_t i = 0; i < threads; ++i) all.emplace_back(work, i);
  for (std::thread& thread : all) thread.join();
  EXPECT_EQ(right, std::vector<int>(threads, rounds));
}

TEST_P(HsaCopyBy, TimesAreTheBytesAtTheDescribedRate) {
  // data/gpus/mi50.toml: an SDMA engine and the host link move as much; on the GPU each byte is
  // read and written. A copy kernel has the fixed part of an estimate too (docs/kfdsim.md).
  constexpr double link_gb_per_s = 25.6;
  constexpr double vram_gb_per_s = 1024.0 / 2;
  constexpr std::size_t bytes = std::size_t{8} << 20;
  const double kernel_us = GetParam() == Engine::blit ? 2 : 0;
  const double link_us = static_cast<double>(bytes) / (link_gb_per_s * 1e3);
  const HsaMemory host(hsa(), hsa().system, bytes);
  const HsaMemory first(hsa(), hsa().vram, bytes);
  const HsaMemory second(hsa(), hsa().vram, bytes);
  fill(first, 0);
  const Timed up = timed_copy(first.at(), hsa().gpu, host.at(), hsa().cpu, bytes);
  EXPECT_NEAR(up.microseconds, link_us + kernel_us, tolerance_us(link_us));
  const Timed down = timed_copy(host.at(), hsa().cpu, first.at(), hsa().gpu, bytes);
  EXPECT_NEAR(down.microseconds, link_us + kernel_us, tolerance_us(link_us));
  EXPECT_GE(down.start, up.end);
  // The runtime copies on the GPU by kernels, always.
  const double on_gpu_us = static_cast<double>(bytes) / (vram_gb_per_s * 1e3) + 2;
  const Timed across = timed_copy(second.at(), hsa().gpu, first.at(), hsa().gpu, bytes);
  EXPECT_NEAR(across.microseconds, on_gpu_us, tolerance_us(on_gpu_us));
}

}  // namespace
}  // namespace eclip::test
