// Kernels, streams, events, graphs through unmodified HIP.
#include <algorithm>
#include <atomic>
#include <numeric>
#include <string>
#include <thread>

#include "tests/integration/hip/hip_test.h"
#include "tests/integration/hip/kernels.h"

namespace eclip::test {
namespace {

TEST_F(Hip, DeviceIsTheSimulatedMi50) {
  int count = 0;
  ASSERT_HIP(hipGetDeviceCount(&count));
  ASSERT_EQ(count, 1);
  hipDeviceProp_t properties{};
  ASSERT_HIP(hipGetDeviceProperties(&properties, 0));
  EXPECT_NE(std::string(properties.name).find("simulated"), std::string::npos);
  EXPECT_EQ(properties.multiProcessorCount, 60);
  EXPECT_EQ(std::string(properties.gcnArchName).rfind("gfx906", 0), 0U);
}

TEST_F(Hip, ShadowedKernelComputes) {
  constexpr int n = 100'000;
  std::vector<float> x(n);
  std::iota(x.begin(), x.end(), 0.0F);
  std::vector<float> y(n, 1.0F);
  const auto dx = device_array<float>(n);
  const auto dy = device_array<float>(n);
  ASSERT_TRUE(dx && dy);
  ASSERT_HIP(hipMemcpy(dx.get(), x.data(), n * sizeof(float), hipMemcpyHostToDevice));
  ASSERT_HIP(hipMemcpy(dy.get(), y.data(), n * sizeof(float), hipMemcpyHostToDevice));
  launch_axpy(nullptr, 2.0F, dx.get(), dy.get(), n);
  ASSERT_HIP(hipGetLastError());
  ASSERT_HIP(hipMemcpy(y.data(), dy.get(), n * sizeof(float), hipMemcpyDeviceToHost));
  for (int i = 0; i < n; ++i) ASSERT_EQ(y[i], 2.0F * static_cast<float>(i) + 1.0F) << i;
}

TEST_F(Hip, KernelWithoutAShadowCompletesAndComputesNothing) {
  const auto device = device_array<unsigned>(64);
  ASSERT_TRUE(device);
  ASSERT_HIP(hipMemset(device.get(), 0, 64 * sizeof(unsigned)));
  launch_unshadowed(nullptr, device.get());
  ASSERT_HIP(hipDeviceSynchronize());
  EXPECT_EQ(fetch(device, 64), std::vector<unsigned>(64, 0));
}

TEST_F(Hip, StreamsKeepTheirOrder) {
  constexpr unsigned streams = 12;  // more than HIP has hardware queues
  constexpr unsigned rounds = 20;
  constexpr unsigned n = 1000;
  std::vector<std::unique_ptr<Stream>> all;
  std::vector<DeviceArray<unsigned>> arrays;
  for (unsigned i = 0; i < streams; ++i) {
    all.push_back(std::make_unique<Stream>());
    arrays.push_back(device_array<unsigned>(n));
    ASSERT_TRUE(arrays.back());
  }
  for (unsigned round = 0; round < rounds; ++round) {
    for (unsigned i = 0; i < streams; ++i) {
      launch_iota(all[i]->get(), arrays[i].get(), round * 1000 + i, n);
    }
  }
  ASSERT_HIP(hipDeviceSynchronize());
  for (unsigned i = 0; i < streams; ++i) {
    EXPECT_EQ(fetch(arrays[i], n), counted((rounds - 1) * 1000 + i, n)) << "stream " << i;
  }
}

TEST_F(Hip, EventsOrderStreams) {
  constexpr unsigned n = 256;
  const Stream first;
  const Stream second;
  const Event done;
  const auto a = device_array<unsigned>(n);
  const auto b = device_array<unsigned>(n);
  ASSERT_TRUE(a && b);
  for (unsigned round = 1; round <= 50; ++round) {
    launch_iota(first.get(), a.get(), round, n);
    ASSERT_HIP(hipEventRecord(done.get(), first.get()));
    ASSERT_HIP(hipStreamWaitEvent(second.get(), done.get(), 0));
    ASSERT_HIP(hipMemcpyAsync(b.get(), a.get(), n * sizeof(unsigned), hipMemcpyDeviceToDevice,
                              second.get()));
    ASSERT_HIP(hipStreamSynchronize(second.get()));
    ASSERT_EQ(fetch(b, n), counted(round, n));
  }
}

TEST_F(Hip, ElapsedTimeIsTheProfilesOnTheStreamsMask) {
  // The host's own latency before the first kernel is in the elapsed time too, so it is only
  // bounded from below; on this scale above is far.
  const float whole = axpy_milliseconds(Stream());
  EXPECT_GE(whole, 1.99F);
  EXPECT_LT(whole, 4.0F);
  const float quarter = axpy_milliseconds(Stream({0x7FFF}));
  EXPECT_GE(quarter, 7.99F);
  EXPECT_LT(quarter, 12.0F);
}

TEST_F(Hip, CuMaskOfAStreamIsReadBack) {
  const Stream stream({0x11111111, 0x01111111});
  std::vector<std::uint32_t> mask(2);
  ASSERT_HIP(hipExtStreamGetCUMask(stream.get(), 2, mask.data()));
  EXPECT_EQ(mask, (std::vector<std::uint32_t>{0x11111111, 0x01111111}));
  const auto device = device_array<unsigned>(100);
  ASSERT_TRUE(device);
  launch_iota(stream.get(), device.get(), 5, 100);
  ASSERT_HIP(hipStreamSynchronize(stream.get()));
  EXPECT_EQ(fetch(device, 100), counted(5, 100));
}

TEST_F(Hip, GraphsReplay) {
  constexpr unsigned n = 512;
  const Stream stream;
  const auto a = device_array<unsigned>(n);
  const auto b = device_array<unsigned>(n);
  ASSERT_TRUE(a && b);
  hipGraph_t graph = nullptr;
  ASSERT_HIP(hipStreamBeginCapture(stream.get(), hipStreamCaptureModeGlobal));
  launch_iota(stream.get(), a.get(), 77, n);
  ASSERT_HIP(hipMemcpyAsync(b.get(), a.get(), n * sizeof(unsigned), hipMemcpyDeviceToDevice,
                            stream.get()));
  ASSERT_HIP(hipStreamEndCapture(stream.get(), &graph));
  hipGraphExec_t executable = nullptr;
  ASSERT_HIP(hipGraphInstantiate(&executable, graph, nullptr, nullptr, 0));
  for (int round = 0; round < 3; ++round) {
    ASSERT_HIP(hipMemset(b.get(), 0, n * sizeof(unsigned)));
    ASSERT_HIP(hipGraphLaunch(executable, stream.get()));
    ASSERT_HIP(hipStreamSynchronize(stream.get()));
    EXPECT_EQ(fetch(b, n), counted(77, n));
  }
  ASSERT_HIP(hipGraphExecDestroy(executable));
  ASSERT_HIP(hipGraphDestroy(graph));
}

TEST_F(Hip, CallbacksRunInStreamOrder) {
  constexpr unsigned n = 64;
  const Stream stream;
  unsigned* pinned = nullptr;
  ASSERT_HIP(hipHostMalloc(reinterpret_cast<void**>(&pinned), n * sizeof(unsigned), 0));
  std::fill_n(pinned, n, 0U);
  struct Seen {
    const unsigned* memory;
    std::atomic<unsigned> value{0};
  } seen{pinned};
  launch_iota(stream.get(), pinned, 9, n);
  ASSERT_HIP(hipStreamAddCallback(
      stream.get(),
      [](hipStream_t, hipError_t, void* data) {
        auto* record = static_cast<Seen*>(data);
        record->value = record->memory[1];
      },
      &seen, 0));
  ASSERT_HIP(hipStreamSynchronize(stream.get()));
  EXPECT_EQ(seen.value, 10U);
  ASSERT_HIP(hipHostFree(pinned));
}

TEST_F(Hip, ThreadsWithStreamsOfTheirOwn) {
  constexpr unsigned n = 2000;
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (unsigned id = 0; id < 4; ++id) {
    threads.emplace_back([id, &right] {
      const Stream stream;
      const auto device = device_array<unsigned>(n);
      std::vector<unsigned> values(n);
      for (unsigned round = 0; round < 25; ++round) {
        launch_iota(stream.get(), device.get(), id * 100 + round, n);
        EXPECT_EQ(hipMemcpyAsync(values.data(), device.get(), n * sizeof(unsigned),
                                 hipMemcpyDeviceToHost, stream.get()),
                  hipSuccess);
        EXPECT_EQ(hipStreamSynchronize(stream.get()), hipSuccess);
        if (values == counted(id * 100 + round, n)) ++right;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 100);
}

TEST_F(Hip, StreamValuesAreWrittenAndWaitedFor) {
  const Stream stream;
  std::uint32_t* word = nullptr;
  ASSERT_HIP(hipExtMallocWithFlags(reinterpret_cast<void**>(&word), 8, hipMallocSignalMemory));
  ASSERT_HIP(hipStreamWriteValue32(stream.get(), word, 41, 0));
  ASSERT_HIP(hipStreamSynchronize(stream.get()));
  EXPECT_EQ(*word, 41U);
  ASSERT_HIP(hipFree(word));
}

TEST_F(Hip, AStreamWaitsForAValueInMemory) {
  const Stream waiting;
  const Stream writing;
  const auto words = device_array<std::uint64_t>(1);
  ASSERT_TRUE(words);
  ASSERT_HIP(hipMemset(words.get(), 0, sizeof(std::uint64_t)));
  ASSERT_HIP(hipDeviceSynchronize());
  constexpr std::uint32_t all_bits = 0xFFFFFFFF;
  ASSERT_HIP(hipStreamWaitValue32(waiting.get(), words.get(), 78, hipStreamWaitValueEq, all_bits));
  // Another value, and copies of the other stream that complete meanwhile: the wait goes on.
  ASSERT_HIP(hipStreamWriteValue32(writing.get(), words.get(), 77, 0));
  ASSERT_HIP(hipStreamSynchronize(writing.get()));
  EXPECT_EQ(hipStreamQuery(waiting.get()), hipErrorNotReady);
  ASSERT_HIP(hipStreamWriteValue32(writing.get(), words.get(), 78, 0));
  ASSERT_HIP(hipStreamSynchronize(waiting.get()));
}

}  // namespace
}  // namespace eclip::test
