// What the probe of KFD ioctls says, against what the simulated driver counts itself.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <map>

#include "ipc/unique_fd.h"
#include "tests/integration/eclipd/running_eclipd.h"
#include "tests/integration/kfdsim/gpu_client.h"

namespace eclip::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class EclipdIoctls : public EclipdTest {
 protected:
  /// False when this kernel refuses the probe; eclipd's log says why.
  [[nodiscard]] bool measures() {
    start("probes.measure_ioctls = true");
    return !control({"status"}).at("kfd_ioctls").is_null();
  }
  [[nodiscard]] json process(pid_t pid) const {
    const auto lines = top();
    for (const auto& each : lines)
      if (each.at("pid") == pid) return each;
    return nullptr;
  }
  [[nodiscard]] json top() const {
    return control({"ioctl", "top", "--count", "1", "--interval", "0.1"});
  }
  /// Counts by command.
  [[nodiscard]] std::map<std::string, std::uint64_t> counts(
      const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments{"ioctl", "show"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    std::map<std::string, std::uint64_t> counts;
    const auto shown = control(arguments);
    for (const auto& command : shown.at("commands")) {
      const auto count = command.at("count").get<std::uint64_t>();
      counts[command.at("command")] = count;
      std::uint64_t in_buckets = 0;
      for (const auto& bucket : command.at("log2_ns_buckets"))
        in_buckets += bucket.get<std::uint64_t>();
      // The record of a call is not written at one stroke.
      EXPECT_NEAR(static_cast<double>(in_buckets), static_cast<double>(count), 2);
    }
    return counts;
  }
};

#define NEEDS_PROBE() \
  if (!measures()) GTEST_SKIP() << "this kernel refuses the probe; eclipd says why"

TEST_F(EclipdIoctls, AreCountedByCommandAsTheDriverCountsThem) {
  NEEDS_PROBE();
  using Column = std::pair<const char*, const char*>;
  constexpr std::array<Column, 2> columns{
      {{"alloc_memory", "ALLOC_MEMORY_OF_GPU"}, {"map_memory", "MAP_MEMORY_TO_GPU"}}};
  const auto driver = [&](const char* column) { return ioctl_count(0, column).value(); };
  auto probed_before = counts();
  std::map<std::string, std::uint64_t> driver_before;
  for (const auto& [column, name] : columns) driver_before[column] = driver(column);
  for (int i = 0; i < 10; ++i) {
    Connection connection;
    const Memory memory = connection.allocate(4096);
  }
  ASSERT_TRUE(all_streams_become_free());
  auto probed = counts();
  for (const auto& [column, name] : columns) {
    EXPECT_GE(driver(column), driver_before[column] + 10) << column;
    EXPECT_EQ(probed[name] - probed_before[name], driver(column) - driver_before[column]) << name;
  }
}

TEST_F(EclipdIoctls, OfThePoolAreEclipdsOwnWithItsMaskedQueues) {
  NEEDS_PROBE();
  const json eclipd = process(serving_pid());
  ASSERT_FALSE(eclipd.is_null());
  EXPECT_EQ(eclipd.at("role"), "eclipd");
  EXPECT_EQ(eclipd.at("queues"), 14) << "seven without a mask for scheduled workers";
  EXPECT_EQ(eclipd.at("masked_queues"), 7);
  const auto own = counts({"--pid", std::to_string(serving_pid())});
  EXPECT_EQ(own.at("CREATE_QUEUE"), 14U);
  EXPECT_EQ(own.at("SET_CU_MASK"), 7U);
}

TEST_F(EclipdIoctls, OfOtherProcessesShowTheirQueuesUntilTheyEnd) {
  NEEDS_PROBE();
  gpu_node();
  const pid_t self = ::getpid();
  {
    const GpuQueue plain;
    const GpuQueue masked;
    ASSERT_EQ(masked.use_cus(15), HSAKMT_STATUS_SUCCESS);
    const UniqueFd kfd(::open("/dev/kfd", O_RDWR | O_CLOEXEC));
    EXPECT_EQ(::ioctl(kfd.get(), _IO('K', 0xee)), -1) << "no such command";
    const json shown = process(self);
    ASSERT_FALSE(shown.is_null());
    EXPECT_EQ(shown.at("role"), "other");
    EXPECT_EQ(shown.at("queues"), 2);
    EXPECT_EQ(shown.at("masked_queues"), 1);
    EXPECT_EQ(shown.at("errors"), 1);
  }
  EXPECT_EQ(counts({"--pid", std::to_string(self)}).at("0x3f"), 1U) << "that one";
  EXPECT_EQ(process(self).at("queues"), 0);
  EXPECT_EQ(process(self).at("masked_queues"), 0);
  const std::uint64_t created = counts().at("CREATE_QUEUE");
  ChildProcess other({KFDSIM_CLIENT, "work", "1"});
  ASSERT_EQ(other.wait(), 0) << other.errors();
  EXPECT_TRUE(process(other.pid()).is_null()) << "it has ended";
  EXPECT_GT(counts().at("CREATE_QUEUE"), created) << "its calls are still counted";
  EXPECT_TRUE(counts({"--pid", std::to_string(other.pid())}).empty());
}

TEST_F(EclipdIoctls, ThatWereAvoidedAreDispatchesTimesTheMeanOfAMaskChange) {
  NEEDS_PROBE();
  {
    Connection connection;
    Lease lease = connection.lease_stream(0);
    const Signal signal = connection.create_signal();
    MixKernel kernel(connection, 1);
    Token token{};
    ASSERT_TRUE(lease.try_submit(kernel.next(1, ECLIP_PACKET_SIGNAL, signal.id()), &token));
    ASSERT_TRUE(connection.wait(token, std::chrono::seconds(20)));
  }
  const json avoided = control({"ioctl", "show"}).at("avoided");
  EXPECT_EQ(avoided.at("dispatches"), 1);
  EXPECT_GT(avoided.at("mask_change_mean_ns").get<double>(), 0);
  EXPECT_NEAR(avoided.at("seconds").get<double>(),
              avoided.at("mask_change_mean_ns").get<double>() / 1e9, 1e-12);
}

TEST_F(EclipdIoctls, TheBudgetCountsMasksOfOthersAndSaysWhenTheyAreTooMany) {
  NEEDS_PROBE();
  gpu_node();
  json budget = control({"budget"});
  EXPECT_EQ(budget.at("budget"), 7);
  EXPECT_EQ(budget.at("masked_queues"), 7);
  EXPECT_EQ(budget.at("hardware_slots"), 24);
  EXPECT_EQ(budget.at("vmids"), 8);
  EXPECT_EQ(budget.at("tier"), "tracepoints");
  {
    const GpuQueue plain;
    const GpuQueue masked;
    ASSERT_EQ(masked.use_cus(15), HSAKMT_STATUS_SUCCESS);
    budget = control({"budget"});
    EXPECT_EQ(budget.at("queues"), 16);
    EXPECT_EQ(budget.at("masked_queues"), 8);
    EXPECT_EQ(budget.at("pool_streams"), 7);
    ASSERT_EQ(budget.at("holders").size(), 2U);
    ChildProcess text({ECLIPCTL_PROGRAM, "--socket", socket(), "budget"});
    EXPECT_EQ(text.wait(), 0);
    EXPECT_THAT(text.output(), HasSubstr("8 of 7 streams: 7 eclipd's, 1 of others - OVER BUDGET"));
    EXPECT_TRUE(
        daemon().says("has 1 CU-masked queues that are not eclipd's on this GPU; with the "
                      "pool that is 8 of a budget of 7"));
  }
  EXPECT_EQ(control({"budget"}).at("masked_queues"), 7);
  EXPECT_TRUE(daemon().says("has 0 CU-masked queues on this GPU now, 1 before"));
}

TEST_F(EclipdIoctls, QueuesFromBeforeEclipdsStartAreInTheBudgetAsTheDriverListsThem) {
  gpu_node();
  const GpuQueue older;
  NEEDS_PROBE();
  json budget = control({"budget"});
  EXPECT_EQ(budget.at("queues"), 15);
  EXPECT_EQ(budget.at("processes"), 2);
  ASSERT_EQ(budget.at("holders").size(), 2U);
  for (const auto& holder : budget.at("holders"))
    EXPECT_EQ(holder.at("queues_from_before"), holder.at("pid") == ::getpid() ? 1 : 0);
  const GpuQueue newer;
  ASSERT_EQ(newer.use_cus(15), HSAKMT_STATUS_SUCCESS);
  ChildProcess text({ECLIPCTL_PROGRAM, "--socket", socket(), "budget"});
  EXPECT_EQ(text.wait(), 0);
  EXPECT_THAT(text.output(), HasSubstr("1 queues are older than what counts here"));
  EXPECT_THAT(text.output(), HasSubstr("1 to 2"));
}

TEST_F(EclipdIoctls, WithoutTheProbeTheBudgetKnowsEclipdsOwnQueuesOnly) {
  start();
  const json budget = control({"budget"});
  EXPECT_EQ(budget.at("masked_queues"), 7);
  EXPECT_TRUE(budget.at("tier").is_null());
  EXPECT_EQ(budget.at("policy"), "off");
  EXPECT_THAT(budget.at("why_no_guard").get<std::string>(), HasSubstr("probes.measure_ioctls"));
  EXPECT_TRUE(budget.at("holders").empty());
}

TEST_F(EclipdIoctls, APolicyThatTheKernelCannotEnforceIsSaidAndTheBudgetIsCountedAllTheSame) {
  start("[budget]\npolicy = \"enforce\"\n");
  const json budget = control({"budget"});
  if (budget.at("tier") == "guard") {
    ChildProcess({ECLIPCTL_PROGRAM, "budget", "guard", "off"}).wait();
    GTEST_SKIP() << "this kernel lets BPF programs refuse ioctls; tests/guest is for such ones";
  }
  EXPECT_TRUE(daemon().says("CU masks are not held to the budget: "));
  if (budget.at("tier").is_null()) GTEST_SKIP() << "this kernel refuses the probe too";
  EXPECT_EQ(budget.at("policy"), "enforce");
  EXPECT_THAT(budget.at("tier_says").get<std::string>(), HasSubstr("none is refused"));
  EXPECT_THAT(budget.at("why_no_guard").get<std::string>(), ::testing::Not(::testing::IsEmpty()));
  EXPECT_EQ(budget.at("masked_queues"), 7);
  ChildProcess status({ECLIPCTL_PROGRAM, "--socket", socket(), "status"});
  EXPECT_EQ(status.wait(), 0);
  EXPECT_THAT(status.output(), HasSubstr("budget guard     tracepoints: "));
}

TEST_F(EclipdIoctls, WithoutAGuardItsCommandsSayWhatIsMissing) {
  start();
  ChildProcess set({ECLIPCTL_PROGRAM, "--socket", socket(), "budget", "set", "enforce"});
  EXPECT_EQ(set.wait(), 1);
  EXPECT_THAT(set.errors(), HasSubstr("there is no budget guard in /sys/fs/bpf/eclip"));
  ChildProcess wrong({ECLIPCTL_PROGRAM, "--socket", socket(), "budget", "set", "strict"});
  EXPECT_EQ(wrong.wait(), 2);
  ChildProcess off({ECLIPCTL_PROGRAM, "--socket", socket(), "budget", "guard", "off"});
  EXPECT_EQ(off.wait(), 0);
  EXPECT_THAT(off.output(), HasSubstr("there was no budget guard"));
}

TEST_F(EclipdIoctls, AreNotMeasuredUnlessAskedFor) {
  start();
  ChildProcess shown({ECLIPCTL_PROGRAM, "--socket", socket(), "ioctl", "show"});
  EXPECT_EQ(shown.wait(), 1);
  EXPECT_THAT(shown.errors(), HasSubstr("set probes.measure_ioctls = true"));
}

}  // namespace
}  // namespace eclip::test
