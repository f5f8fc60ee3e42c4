// eclipd and the guard of the budget together, on the simulated GPU in a kernel that lets BPF
// programs refuse. The simulated driver has no functions in the kernel: system calls' results
// count.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <optional>

#include "bpf/budget_guard.h"
#include "tests/fake/eventually.h"
#include "tests/guest/kfd_client.h"
#include "tests/integration/eclipd/running_eclipd.h"
#include "tests/integration/kfdsim/gpu_client.h"

namespace eclip::test {
namespace {

using bpf::BudgetGuard;
using nlohmann::json;
using ::testing::HasSubstr;

constexpr const char* enforcing = "[budget]\npolicy = \"enforce\"";

class SimulatedEclipdGuard : public EclipdTest {
 protected:
  void SetUp() override {
    if (environment("ECLIP_GUEST_DRIVER") != "amdgpu")
      GTEST_SKIP() << "one boot is enough: the driver does not matter to the simulated GPU";
    EclipdTest::SetUp();
    ASSERT_TRUE(BudgetGuard::remove());
  }
  void TearDown() override { EXPECT_TRUE(BudgetGuard::remove()); }

  /// What a client that has no lease gets for a mask of its own queue: 0 or the error number.
  static int mask_without_lease() {
    const GpuQueue queue;
    errno = 0;
    return queue.use_cus(15) == HSAKMT_STATUS_SUCCESS ? 0 : errno;
  }
  /// Standard output of eclipctl.
  [[nodiscard]] std::string said(const std::vector<std::string>& arguments) const {
    std::vector<std::string> command{ECLIPCTL_PROGRAM, "--socket", socket()};
    command.insert(command.end(), arguments.begin(), arguments.end());
    ChildProcess process(command);
    process.wait();
    return process.output();
  }
};

TEST_F(SimulatedEclipdGuard, EclipdHasItsPoolAndOthersAreRefusedWhichItSays) {
  gpu_node();
  start(enforcing);
  EXPECT_TRUE(daemon().says("budget guard installed, policy enforce: BPF LSM refuses"));
  EXPECT_EQ(mask_without_lease(), EPERM);
  EXPECT_TRUE(
      daemon().says("a CU mask without a lease was refused, 1 times since it was last said"));
  EXPECT_THAT(said({"status"}), HasSubstr("budget guard     enforce; BPF LSM refuses"));
  const json budget = control({"budget"});
  EXPECT_EQ(budget.at("tier"), "guard");
  EXPECT_EQ(budget.at("masked_queues"), 7);
  EXPECT_EQ(budget.at("in_use"), 7);
  EXPECT_EQ(budget.at("refused"), 1);
  ASSERT_EQ(budget.at("denials").size(), 1U);
  EXPECT_EQ(budget.at("denials")[0].at("pid"), ::getpid());
  EXPECT_EQ(budget.at("denials")[0].at("ioctl"), "SET_CU_MASK");
  {
    // The pool serves as ever.
    Connection connection;
    const Lease lease = connection.lease_stream(0);
    EXPECT_EQ(control({"status"}).at("streams_leased"), 1);
  }
  // Another policy takes effect at once.
  EXPECT_THAT(said({"budget", "set", "audit"}), HasSubstr("policy is audit"));
  EXPECT_EQ(mask_without_lease(), 0);
  EXPECT_TRUE(daemon().says("was seen and let pass (audit)"));
  EXPECT_THAT(said({"budget", "set", "enforce"}), HasSubstr("policy is enforce"));
  EXPECT_EQ(mask_without_lease(), EPERM);
  // Removed it refuses nothing.
  EXPECT_THAT(said({"budget", "guard", "off"}), HasSubstr("is removed"));
  EXPECT_TRUE(daemon().says("the budget guard has been removed"));
  EXPECT_TRUE(eventually([] { return mask_without_lease() == 0; }));
  EXPECT_THAT(control({"budget"}).at("why_no_guard").get<std::string>(),
              HasSubstr("removed or replaced"));
}

TEST_F(SimulatedEclipdGuard, EnforcementOutlivesEclipdAndIsTakenOver) {
  gpu_node();
  start(enforcing);
  const pid_t serving = serving_pid();
  ::kill(serving, SIGKILL);
  EXPECT_TRUE(daemon().says("taken over, policy enforce"));
  EXPECT_TRUE(eventually([&] {
    return said({"budget", "--json"}).find("\"in_use\": 7") != std::string::npos;
  }));
  EXPECT_NE(serving_pid(), serving);
  kill_daemon();
  EXPECT_EQ(mask_without_lease(), EPERM);
  EXPECT_THAT(said({"budget"}), HasSubstr("is not running; the guard is"));
  start(enforcing);
  EXPECT_TRUE(daemon().says("budget guard taken over, policy enforce"));
  EXPECT_EQ(control({"budget"}).at("in_use"), 7);
}

}  // namespace
}  // namespace eclip::test
