// A cgroup whose processes cannot open the KFD.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "bpf/device_gate.h"
#include "tests/guest/kfd_client.h"

namespace eclip::test {
namespace {

using bpf::DeviceGate;
using ::testing::HasSubstr;

constexpr const char* gated = "/sys/fs/cgroup/gated";

class GateTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(::mkdir(gated, 0755) == 0 || errno == EEXIST);
    const auto installed = DeviceGate::install({.cgroup = gated});
    ASSERT_TRUE(installed) << installed.error().message();
  }
  void TearDown() override { EXPECT_TRUE(DeviceGate::remove()); }
  static bool enters_cgroup() {
    std::ofstream file(std::string(gated) + "/cgroup.procs");
    file << ::getpid() << std::flush;
    return file.good();
  }
  static int open_kfd() {
    const int fd = ::open("/dev/kfd", O_RDWR | O_CLOEXEC);
    return fd >= 0 ? 0 : errno;
  }
};

TEST_F(GateTest, KeepsTheCgroupFromOpeningAndNobodyElse) {
  EXPECT_EQ(open_kfd(), 0);
  EXPECT_EQ(in_child([] { return enters_cgroup() ? open_kfd() : 99; }), EPERM);
  EXPECT_EQ(in_child([] {
              if (!enters_cgroup()) return 99;
              return ::open("/dev/null", O_RDWR) >= 0 ? 0 : errno;
            }),
            0);
  const auto state = DeviceGate::state();
  ASSERT_TRUE(state);
  EXPECT_EQ(state->refused, 1U);
  EXPECT_STREQ(state->cgroup, gated);
}

TEST_F(GateTest, WhatIsOpenStaysOpen) {
  EXPECT_EQ(in_child([] {
              const Kfd kfd;
              if (!enters_cgroup()) return 99;
              kfd_ioctl_get_version_args version{};
              return kfd.call(AMDKFD_IOC_GET_VERSION, &version);
            }),
            0);
}

TEST_F(GateTest, RemovedItRefusesNothing) {
  const auto removed = DeviceGate::remove();
  ASSERT_TRUE(removed);
  EXPECT_TRUE(*removed);
  EXPECT_EQ(in_child([] { return enters_cgroup() ? open_kfd() : 99; }), 0);
  EXPECT_EQ(DeviceGate::state().error().code, Errc::not_found);
}

TEST_F(GateTest, WhatIsNoCgroupIsSaid) {
  const auto installed = DeviceGate::install({.cgroup = "/tmp"});
  ASSERT_FALSE(installed);
  EXPECT_THAT(installed.error().message(), HasSubstr("no cgroup of version 2"));
}

}  // namespace
}  // namespace eclip::test
