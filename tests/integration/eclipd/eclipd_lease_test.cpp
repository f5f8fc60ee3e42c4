// Leases and packets from a worker's side.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/integration/eclipd/running_eclipd.h"

namespace eclip::test {
namespace {

using std::chrono::seconds;

template <class Call>
int error_of(Call call) {
  try {
    call();
  } catch (const ApiError& error) {
    return error.code().value();
  }
  return 0;
}

class EclipdLease : public EclipdTest {
 protected:
  void SetUp() override {
    EclipdTest::SetUp();
    if (!IsSkipped()) start();
  }
};

TEST_F(EclipdLease, AStreamHasOneHolderAndComesBackOnRelease) {
  Connection anna;
  Connection ben;
  {
    const Lease lease = anna.lease_stream(0);
    EXPECT_EQ(error_of([&] { const Lease second = ben.lease_stream(0); }), EBUSY);
    EXPECT_EQ(control({"lease", "list"}).size(), 1U);
    EXPECT_EQ(stream_states()[0], "leased");
  }
  EXPECT_TRUE(all_streams_become_free());
  const Lease lease = ben.lease_stream(0);
  EXPECT_EQ(lease.describe().cu_count, 60U);
}

TEST_F(EclipdLease, SevenLeasesCanBeHeldAndAnEighthIsBusy) {
  Connection connection;
  std::vector<Lease> leases;
  for (int i = 0; i < 7; ++i) leases.push_back(connection.lease_any(1));
  EXPECT_EQ(error_of([&] { const Lease eighth = connection.lease_any(1); }), EBUSY);
  EXPECT_EQ(error_of([&] { const Lease huge = connection.lease_any(61); }), EINVAL);
}

TEST_F(EclipdLease, AKernelRunsAndItsDeviceTimeIsWhatItsProfileSays) {
  Connection connection;
  Lease lease = connection.lease_stream(3);
  const Signal signal = connection.create_signal();
  MixKernel kernel(connection, 500);
  Token token{};
  ASSERT_TRUE(lease.try_submit(kernel.next(7, ECLIP_PACKET_SIGNAL, signal.id()), &token));
  ASSERT_TRUE(connection.wait(token, seconds(20)));
  EXPECT_EQ(kernel.value(), kernel.expected());
  const auto times = connection.times(token);
  // Clock ticks are 40 ns.
  EXPECT_NEAR(static_cast<double>((times.end - times.start).count()), 500e3, 100);
}

TEST_F(EclipdLease, AChainAcrossTwoStreamsIsAsSerialExecutionByCompletionSignalsAndBarriers) {
  Connection connection;
  std::array<Lease, 2> leases{connection.lease_stream(1), connection.lease_stream(2)};
  std::array<Signal, 8> signals{connection.create_signal(), connection.create_signal(),
                                connection.create_signal(), connection.create_signal(),
                                connection.create_signal(), connection.create_signal(),
                                connection.create_signal(), connection.create_signal()};
  std::array<Token, 8> uses{};
  MixKernel kernel(connection, 20);
  Token last{};
  for (std::uint32_t i = 0; i < 400; ++i) {
    Lease& lease = leases[i % 2];
    if (last.generation != 0) {
      eclip_barrier barrier{};
      barrier.kind = ECLIP_BARRIER_AND;
      barrier.dependency_count = 1;
      barrier.dependencies[0] = last;
      ASSERT_TRUE(lease.try_submit(barrier));
    }
    // A signal is used again eight kernels later, when its packet has completed.
    Token& use = uses[i % uses.size()];
    if (use.generation != 0) {
      ASSERT_TRUE(connection.wait(use, seconds(20)));
    }
    ASSERT_TRUE(lease.try_submit(kernel.next(i, ECLIP_PACKET_BARRIER | ECLIP_PACKET_SIGNAL,
                                             signals[i % signals.size()].id()),
                                 &use));
    last = use;
  }
  ASSERT_TRUE(connection.wait(last, seconds(20)));
  EXPECT_EQ(kernel.value(), kernel.expected());
}

TEST_F(EclipdLease, AFullRingSaysSoAndNothingIsLost) {
  Connection connection;
  Lease lease = connection.lease_stream(4);
  const Signal signal = connection.create_signal();
  MixKernel kernel(connection, 300);
  eclip_dispatch dispatch{};
  std::uint32_t submitted = 0;
  // The hardware queue takes 4096 packets, the lease ring 1024 more.
  bool full = false;
  while (!full && submitted < 10'000) {
    dispatch = kernel.next(submitted, ECLIP_PACKET_BARRIER, 0);
    full = !lease.try_submit(dispatch);
    if (!full) ++submitted;
  }
  EXPECT_TRUE(full);
  EXPECT_GE(submitted, 1024U);
}

TEST_F(EclipdLease, MemoryComesZeroedIsCountedAndGoesBack) {
  Connection connection;
  const auto memory_of_client = [&] {
    return control({"client", "list"}).at(0).at("memory_bytes").get<std::uint64_t>();
  };
  {
    const Memory host = connection.allocate(10'000);
    EXPECT_EQ(host.bytes(), 12'288U);
    const auto* bytes = host.host<std::uint8_t>();
    EXPECT_TRUE(std::all_of(bytes, bytes + host.bytes(), [](auto byte) { return byte == 0; }));
    const Memory device = connection.allocate(1 << 20, ECLIP_MEMORY_DEVICE_LOCAL);
    EXPECT_EQ(device.host<void>(), nullptr);
    EXPECT_NE(device.gpu_address(), 0U);
    EXPECT_EQ(memory_of_client(), 12'288U + (1 << 20));
  }
  EXPECT_EQ(memory_of_client(), 0U);
  EXPECT_EQ(error_of([&] { connection.allocate(0); }), EINVAL);
  EXPECT_EQ(error_of([&] { connection.allocate(std::uint64_t{1} << 60); }), EDQUOT);
}

TEST_F(EclipdLease, AKernelObjectOutsideItsImageIsRefused) {
  Connection connection;
  const std::vector<std::byte> image(256);
  const auto code = connection.load_code(image.data(), image.size());
  EXPECT_EQ(error_of([&] { connection.register_kernel(code, 32, 0); }), EINVAL);
  EXPECT_EQ(error_of([&] { connection.register_kernel(code, 1 << 20, 0); }), EPROTO);
  EXPECT_EQ(error_of([&] { connection.register_kernel(code + 1, 0, 0); }), ENOENT);
}

TEST_F(EclipdLease, AReplayedModelThatSwitchesAtEveryKernelComputesTheSerialValue) {
  const auto worker =
      replay({"--requests", "3", "--streams", "15,30", "--switch-every", "1", "--mix"});
  ASSERT_EQ(worker->wait(), 0) << worker->errors();
  const auto report = nlohmann::json::parse(worker->output());
  EXPECT_TRUE(report.at("mix").at("matches"));
  EXPECT_GT(report.at("switches"), 500);
}

}  // namespace
}  // namespace eclip::test
