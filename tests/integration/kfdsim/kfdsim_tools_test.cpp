// Debian's own ROCm tools on the simulated GPU.
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "tests/integration/kfdsim/child_process.h"
#include "tests/integration/kfdsim/kfdsim_command.h"

namespace eclip::test {
namespace {

class KfdsimTools : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string refusal = kfdsim_refusal();
    if (!refusal.empty()) GTEST_SKIP() << refusal;
  }

  /// What the tool prints; "" where it is not installed.
  static std::string output_of(const std::vector<std::string>& command, int expected_status) {
    if (::access(command.front().c_str(), X_OK) != 0) return {};
    ChildProcess run(with_kfdsim({"-q"}, command));
    EXPECT_EQ(run.wait(), expected_status) << run.errors();
    return run.output();
  }
};

TEST_F(KfdsimTools, RocminfoNamesTheGpuAndItsUnits) {
  const std::string output = output_of({"/usr/bin/rocminfo"}, 0);
  if (output.empty()) GTEST_SKIP() << "rocminfo is not installed";
  EXPECT_NE(output.find("gfx906"), std::string::npos) << output;
  EXPECT_NE(output.find("(simulated)"), std::string::npos) << output;
  EXPECT_NE(output.find("Compute Unit:            60"), std::string::npos) << output;
}

TEST_F(KfdsimTools, RocmSmiReadsPowerMemoryAndBus) {
  // It ends with 2 when something that it asks for is not there: the sensors of newer GPUs.
  const std::string output = output_of({"/usr/bin/rocm-smi", "--showpower", "--showmeminfo", "vram",
                                        "--showbus", "--showproductname"},
                                       2);
  if (output.empty()) GTEST_SKIP() << "rocm-smi is not installed";
  EXPECT_NE(output.find("Average Graphics Package Power (W): 20.0"), std::string::npos) << output;
  EXPECT_NE(output.find("VRAM Total Memory (B): 34342961152"), std::string::npos) << output;
  EXPECT_NE(output.find("PCI Bus: 0000:03:00.0"), std::string::npos) << output;
  EXPECT_NE(output.find("(simulated)"), std::string::npos) << output;
}

TEST_F(KfdsimTools, RocmSmiListsTheProcessesOnTheGpu) {
  const std::string smi = "/usr/bin/rocm-smi";
  if (::access(smi.c_str(), X_OK) != 0) GTEST_SKIP() << "rocm-smi is not installed";
  const std::string output = output_of(
      {"/bin/sh", "-c",
       KFDSIM_CLIENT " hold > /dev/null & "
                     "until test -e /sys/class/kfd/kfd/proc/$!/queues/2; do sleep 0.05; done; " +
           smi + " --showpids --showpidgpus; echo status $?; kill -KILL $!"},
      0);
  // Of one GPU, the VRAM behind three queues and no copy. CUs in use are not told.
  EXPECT_NE(output.find("\tkfdsim_client\t1     \t12288    \t0        \t"), std::string::npos)
      << output;
  EXPECT_NE(output.find("is using 1 DRM device(s)"), std::string::npos) << output;
  EXPECT_NE(output.find("status 0"), std::string::npos) << output;
}

}  // namespace
}  // namespace eclip::test
