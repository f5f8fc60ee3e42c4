// The probe of KFD ioctls on a real character device, where it can look at the driver's own
// function.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "bpf/kfd_ioctl_probe.h"
#include "tests/fake/eventually.h"
#include "tests/guest/kfd_client.h"

namespace eclip::test {
namespace {

using bpf::KfdIoctlProbe;

class ProbeTest : public testing::Test {
 protected:
  void SetUp() override {
    auto probe = KfdIoctlProbe::attach();
    ASSERT_TRUE(probe) << probe.error().message();
    probe_.emplace(std::move(*probe));
  }
  void TearDown() override { EXPECT_EQ(probe_->unseen(), 0U); }

  KfdIoctlProbe& probe() { return *probe_; }
  /// Of a process, by number; of all that have ended: pid 0.
  std::map<std::uint32_t, bpf::KfdIoctlCost> costs(pid_t pid) {
    std::map<std::uint32_t, bpf::KfdIoctlCost> of_process;
    const auto all = probe_->costs();
    EXPECT_TRUE(all) << all.error().message();
    for (const auto& cost : *all)
      if (cost.pid == pid) of_process.emplace(cost.number, cost);
    return of_process;
  }

 private:
  std::optional<KfdIoctlProbe> probe_;
};

TEST_F(ProbeTest, LooksWhereTheDriversFunctionsCanBeAttachedTo) {
  EXPECT_EQ(probe().place(), environment("ECLIP_GUEST_DRIVER") == "stand-in-without-btf"
                                 ? KfdIoctlProbe::Place::system_calls
                                 : KfdIoctlProbe::Place::driver);
}

TEST_F(ProbeTest, CountsCallsByNumberHoweverTheyAreMade) {
  constexpr std::uint32_t get_version = 0x01;
  constexpr std::uint32_t set_cu_mask = 0x1a;
  Client client([] {
    const Kfd kfd;
    auto* const version = new (low_memory()) kfd_ioctl_get_version_args{};
    for (int i = 0; i < 3; ++i) kfd.call(AMDKFD_IOC_GET_VERSION, version);
    call_by_int80(kfd, AMDKFD_IOC_GET_VERSION, version);
    kfd.call(_IOC(_IOC_READ, 'Z', get_version, sizeof *version), version);
    kfd.mask(500);
    ::getppid();  // no ioctl
    ::kill(::getpid(), SIGSTOP);
    return 0;
  });
  client.go();
  ASSERT_TRUE(client.stops());
  auto counted = costs(client.pid());
  ASSERT_EQ(counted.size(), 2U);
  EXPECT_EQ(counted[get_version].count, 5U);
  EXPECT_EQ(counted[get_version].errors, 0U);
  EXPECT_GT(counted[get_version].total_ns, 0U);
  EXPECT_EQ(counted[set_cu_mask].count, 1U);
  EXPECT_EQ(counted[set_cu_mask].errors, 1U);
  client.go_on();
  EXPECT_EQ(client.wait(), 0);
  EXPECT_TRUE(eventually([&] { return costs(client.pid()).empty(); }));
  EXPECT_EQ(costs(0)[get_version].count, 5U);
}

class ProbeWithStandIn : public ProbeTest {
 protected:
  void SetUp() override {
    if (!is_stand_in()) GTEST_SKIP() << "without a GPU the real driver has no queues";
    ProbeTest::SetUp();
  }
  void TearDown() override {
    if (is_stand_in()) ProbeTest::TearDown();
  }
};

TEST_F(ProbeWithStandIn, FollowsTheQueuesOfAProcess) {
  Client client([] {
    const Kfd kfd;
    std::array<std::uint32_t, 3> queues{};
    for (auto& queue : queues)
      if (kfd.create_queue(&queue, 77) != 0) return 1;
    if (kfd.mask(queues[0]) != 0 || kfd.mask(queues[1]) != 0) return 2;
    if (kfd.destroy(queues[1]) != 0) return 3;
    ::kill(::getpid(), SIGSTOP);
    ::execl("/bin/sleep", "sleep", "60", nullptr);
    return 4;
  });
  client.go();
  ASSERT_TRUE(client.stops());
  const auto queues = probe().queues();
  ASSERT_TRUE(queues);
  ASSERT_EQ(queues->size(), 1U);
  EXPECT_EQ(queues->front().pid, client.pid());
  EXPECT_EQ(queues->front().gpu_id, 77U);
  EXPECT_EQ(queues->front().alive, 2U);
  EXPECT_EQ(queues->front().masked, 1U);
  client.go_on();
  EXPECT_TRUE(eventually([this] { return probe().queues()->empty(); }));
}

}  // namespace
}  // namespace eclip::test
