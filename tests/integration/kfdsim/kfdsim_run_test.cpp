// kfdsim as a command: exit statuses, signals, the trace, and machines on which it cannot run.
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "tests/integration/kfdsim/child_process.h"
#include "tests/integration/kfdsim/gpu_client.h"
#include "tests/integration/kfdsim/kfdsim_command.h"
#include "tools/kfdsim/fuse_connection.h"
#include "tools/kfdsim/options.h"

namespace eclip::test {
namespace {

namespace fs = std::filesystem;

std::string mounts() {
  std::ifstream stream("/proc/self/mountinfo");
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::set<std::string> fuse_connections() {
  std::set<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/sys/fs/fuse/connections", error)) {
    names.insert(entry.path().filename());
  }
  return names;
}

class KfdsimRun : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string refusal = kfdsim_refusal();
    if (!refusal.empty()) GTEST_SKIP() << refusal;
    mounts_before_ = mounts();
    connections_before_ = fuse_connections();
  }
  void TearDown() override {
    if (IsSkipped()) return;
    EXPECT_EQ(mounts(), mounts_before_);
    // Those of tests that run beside this one come and go.
    EXPECT_TRUE(eventually([this] {
      const auto now = fuse_connections();
      return std::includes(connections_before_.begin(), connections_before_.end(), now.begin(),
                           now.end());
    }));
  }

 private:
  std::string mounts_before_;
  std::set<std::string> connections_before_;
};

TEST_F(KfdsimRun, ExitStatusIsTheCommands) {
  for (const auto& [script, status] :
       {std::pair{"exit 0", 0}, {"exit 42", 42}, {"kill -9 $$", 137}}) {
    ChildProcess run(with_kfdsim({"-q"}, {"/bin/sh", "-c", script}));
    EXPECT_EQ(run.wait(), status) << script;
    EXPECT_EQ(run.errors(), "");
  }
  ChildProcess missing(with_kfdsim({"-q"}, {"/no/such/program"}));
  EXPECT_EQ(missing.wait(), 127);
  ChildProcess directory(with_kfdsim({"-q"}, {"/"}));
  EXPECT_EQ(directory.wait(), 126);
}

TEST_F(KfdsimRun, CommandsArgumentsAreNotInterpreted) {
  ChildProcess run(with_kfdsim(
      {"-q"}, {"/bin/sh", "-c", "printf '%s|' \"$@\"", "sh", "", "[a,b]", "--", "--gpu", "it's"}));
  EXPECT_EQ(run.wait(), 0);
  EXPECT_EQ(run.output(), "|[a,b]|--|--gpu|it's|");
  ChildProcess none({KFDSIM_PROGRAM, "run"});
  EXPECT_EQ(none.wait(), 125);
  expect_one_line(none.errors(), "no command");
}

TEST_F(KfdsimRun, SummarySaysSimulated) {
  ChildProcess run(with_kfdsim({}, {KFDSIM_CLIENT, "work", "10"}));
  EXPECT_EQ(run.wait(), 0);
  expect_one_line(run.errors(), "simulated mi50");
  EXPECT_NE(run.errors().find(" 10 packets"), std::string::npos) << run.errors();
}

TEST_F(KfdsimRun, TermIsPassedOn) {
  ChildProcess run(with_kfdsim({"-q"}, {KFDSIM_CLIENT, "hold"}));
  ASSERT_EQ(run.read_line(), "ready");
  ::kill(run.pid(), SIGTERM);
  EXPECT_EQ(run.wait(), 128 + SIGTERM);
}

TEST_F(KfdsimRun, ProcessLeftBehindDoesNotKeepKfdsim) {
  const fs::path pipe = fs::temp_directory_path() / ("kfdsim-pipe-" + std::to_string(::getpid()));
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const std::string script = std::string(KFDSIM_CLIENT) + " hold > " + pipe.string() +
                             " & read line < " + pipe.string() + "; echo $line; echo $!; exit 3";
  ChildProcess run(with_kfdsim({"-q"}, {"/bin/sh", "-c", script}));
  EXPECT_EQ(run.read_line(), "ready");
  const std::string left = run.read_line();
  EXPECT_EQ(run.wait(), 3);
  ASSERT_FALSE(left.empty());
  // It notices that the GPU is gone and ends; its mount namespace goes with it.
  EXPECT_TRUE(eventually([&] { return !fs::exists("/proc/" + left); }));
  fs::remove(pipe);
}

TEST_F(KfdsimRun, KilledKfdsimLeavesNothing) {
  // The shell ignores the SIGTERM that COMMAND gets, so that its child can tell what it sees.
  ChildProcess run(with_kfdsim(
      {}, {"/bin/sh", "-c", "trap '' TERM; " + std::string(KFDSIM_CLIENT) + " hold; :"}));
  ASSERT_EQ(run.read_line(), "ready");
  ::kill(run.pid(), SIGKILL);
  EXPECT_EQ(run.read_line(), "gone");
  EXPECT_EQ(run.wait(), 128 + SIGKILL);
}

TEST_F(KfdsimRun, KilledKfdsimEndsItsCommand) {
  ChildProcess run(with_kfdsim({}, {"/bin/sh", "-c", "echo $$; exec sleep 1000"}));
  const std::string command = run.read_line();
  ASSERT_FALSE(command.empty());
  ::kill(run.pid(), SIGKILL);
  EXPECT_TRUE(eventually([&] { return !fs::exists("/proc/" + command); }));
}

TEST_F(KfdsimRun, TimeScaleSlowsTheDevice) {
  const auto start = std::chrono::steady_clock::now();
  // 20 kernels of 20 us: 0.4 ms of device time and 0.2 s of wall time.
  ChildProcess run(with_kfdsim({"-q", "--time-scale", "500"}, {KFDSIM_CLIENT, "work", "20"}));
  EXPECT_EQ(run.wait(), 0);
  EXPECT_GT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(200));
}

class KfdsimTrace : public KfdsimRun {
 protected:
  std::size_t packets_in_trace() const {
    std::ifstream stream(path_);
    const auto trace = nlohmann::json::parse(stream);
    std::size_t packets = 0;
    for (const auto& event : trace.at("traceEvents")) {
      if (event.at("ph") != "X") continue;
      ++packets;
      EXPECT_EQ(event.at("args").at("mask"), "0-59");
      EXPECT_GE(event.at("dur").get<double>(), 0);
    }
    EXPECT_NE(trace.at("otherData").at("gpu").get<std::string>().find("simulated"),
              std::string::npos);
    return packets;
  }
  void TearDown() override {
    std::error_code error;
    fs::remove(path_, error);
    KfdsimRun::TearDown();
  }
  const fs::path path_ =
      fs::temp_directory_path() / ("kfdsim-trace-" + std::to_string(::getpid()) + ".json");
};

TEST_F(KfdsimTrace, HasOneEventForEachPacket) {
  ChildProcess run(with_kfdsim({"-q", "--trace", path_}, {KFDSIM_CLIENT, "work", "25"}));
  EXPECT_EQ(run.wait(), 0) << run.errors();
  EXPECT_EQ(packets_in_trace(), 25U);
}

TEST_F(KfdsimTrace, IsCompleteWhenTheCommandIsKilled) {
  ChildProcess run(with_kfdsim(
      {"-q", "--trace", path_},
      {"/bin/sh", "-c", std::string(KFDSIM_CLIENT) + " work 5; exec " KFDSIM_CLIENT " hold"}));
  ASSERT_EQ(run.read_line(), "worked");
  ASSERT_EQ(run.read_line(), "ready");
  ::kill(run.pid(), SIGINT);
  EXPECT_EQ(run.wait(), 128 + SIGINT);
  EXPECT_EQ(packets_in_trace(), 5U);
}

TEST_F(KfdsimRun, InsideAnotherOneIsRefused) {
  ChildProcess run(with_kfdsim({"-q"}, {KFDSIM_PROGRAM, "run", "--", "/bin/true"}));
  EXPECT_EQ(run.wait(), 125);
  expect_one_line(run.errors(), "already");
}

TEST_F(KfdsimRun, BadOptionsAreNamed) {
  ChildProcess gpu(with_kfdsim({"--gpu", "mi9999"}, {"/bin/true"}));
  EXPECT_EQ(gpu.wait(), 125);
  expect_one_line(gpu.errors(), "mi50");
  for (const char* scale : {"0", "-1", "nan", "inf", "1e-300", "1e300"}) {
    ChildProcess run(with_kfdsim({"--time-scale", scale}, {"/bin/true"}));
    EXPECT_EQ(run.wait(), 125);
    expect_one_line(run.errors(), "--time-scale");
  }
  ChildProcess trace(with_kfdsim({"--trace", "/no/such/directory/trace"}, {"/bin/true"}));
  EXPECT_EQ(trace.wait(), 125);
  expect_one_line(trace.errors(), "/no/such/directory/trace");
  for (const auto& [option, named] :
       {std::pair{"--profile", "directory"}, {"--gpu", "directory"}}) {
    ChildProcess run(with_kfdsim({option, "/tmp/"}, {"/bin/true"}));
    EXPECT_EQ(run.wait(), 125);
    expect_one_line(run.errors(), named);
  }
  ChildProcess without_driver(with_kfdsim({"--gpu", "h100"}, {"/bin/true"}));
  EXPECT_EQ(without_driver.wait(), 125);
  expect_one_line(without_driver.errors(), "amdgpu");
  ChildProcess seed(with_kfdsim({"--seed", "-1"}, {"/bin/true"}));
  EXPECT_EQ(seed.wait(), 125);
  expect_one_line(seed.errors(), "--seed");
}

TEST_F(KfdsimRun, SharedMemoryFilesOfKilledProgramsGoWithTheNamespace) {
  ChildProcess run(
      with_kfdsim({"-q"}, {"/bin/sh", "-c", "ls -A /dev/shm; : > /dev/shm/kfdsim-test"}));
  EXPECT_EQ(run.wait(), 0) << run.errors();
  EXPECT_EQ(run.output(), "");
  EXPECT_FALSE(std::filesystem::exists("/dev/shm/kfdsim-test"));
}

TEST_F(KfdsimRun, EveryCpuHasACache) {
  ChildProcess run(with_kfdsim(
      {"-q"},
      {"/bin/sh", "-c",
       "for cpu in /sys/devices/system/node/node0/cpu[0-9]*; do cat $cpu/cache/index0/level; "
       "done | sort -u"}));
  EXPECT_EQ(run.wait(), 0) << run.errors();
  EXPECT_EQ(run.output(), "1\n");
}

TEST(KfdsimChecks, KernelWithoutPassthroughIsRefusedWithTheRemedy) {
  fuse_init_in old{};
  old.major = 7;
  old.minor = 38;
  old.flags = FUSE_INIT_EXT;
  const auto refused = kfdsim::check_passthrough_offered(old);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message().find("CONFIG_FUSE_PASSTHROUGH"), std::string::npos);
  old.flags2 = kfdsim::passthrough_flag2;
  EXPECT_TRUE(kfdsim::check_passthrough_offered(old));
}

TEST(KfdsimChecks, MissingDeviceIsNamed) {
  const auto missing = kfdsim::FuseConnection::open_device("/no/such/fuse");
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message().find("/no/such/fuse"), std::string::npos);
}

TEST(KfdsimChecks, GpuThatIsNotThereListsThoseThatAre) {
  const auto missing = kfdsim::find_gpu("nothing", {ECLIP_DATA_DIR});
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message().find("mi50"), std::string::npos);
  EXPECT_EQ(missing.error().message().find("h100"), std::string::npos) << "it has no KFD";
  EXPECT_TRUE(kfdsim::find_gpu("mi50", {ECLIP_DATA_DIR}));
}

}  // namespace
}  // namespace eclip::test
