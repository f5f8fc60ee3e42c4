// How eclipd starts, refuses to start, and stops.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>

#include <fstream>
#include <iomanip>
#include <sstream>

#include "tests/integration/eclipd/running_eclipd.h"

namespace eclip::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class EclipdStart : public EclipdTest {
 protected:
  /// Starts an eclipd that should not come up; its exit status and what it said.
  std::pair<int, std::string> fails_with(const std::string& tables) {
    ChildProcess eclipd({ECLIPD_PROGRAM, "--config", write_config(tables)});
    const int status = eclipd.wait();
    return {status, eclipd.errors()};
  }
};

TEST_F(EclipdStart, CreatesTheTreePoolOnceAndReportsIt) {
  start();
  const auto streams = control({"stream", "list"});
  ASSERT_EQ(streams.size(), 7U);
  EXPECT_EQ(streams[0].at("cu_count"), 60);
  EXPECT_EQ(streams[3].at("cu_count"), 15);
  const auto status = control({"status"});
  EXPECT_EQ(status.at("queue_ioctls_since_ready"), 0);
  EXPECT_THAT(status.at("gpu").at("name").get<std::string>(), HasSubstr("simulated"));
  EXPECT_EQ(stop_daemon(), 0);
  EXPECT_FALSE(std::filesystem::exists(socket()));
}

/// A field of /proc/PID/status.
std::string status_of(pid_t pid, const std::string& field) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(field + ":")) return line.substr(line.find('\t') + 1);
  return "no such field";
}

TEST_F(EclipdStart, TheServingProcessHasNoCapabilitiesAndAFilterOfSystemCalls) {
  start();
  const pid_t pid = serving_pid();
  EXPECT_NE(pid, daemon().pid());
  for (const auto* set : {"CapInh", "CapPrm", "CapEff", "CapAmb"})
    EXPECT_EQ(status_of(pid, set), "0000000000000000") << set;
  EXPECT_EQ(status_of(pid, "NoNewPrivs"), "1");
  EXPECT_EQ(status_of(pid, "Seccomp"), "2");
  for (const auto& thread :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
    const auto id = static_cast<pid_t>(std::stol(thread.path().filename().string()));
    EXPECT_EQ(status_of(id, "Seccomp"), "2") << "thread " << id;
    EXPECT_EQ(status_of(id, "CapEff"), "0000000000000000") << "thread " << id;
  }
}

TEST_F(EclipdStart, ToReadWhatProbesCountItKeepsOneCapability) {
  start("probes.measure_ioctls = true");
  if (control({"status"}).at("kfd_ioctls").is_null())
    GTEST_SKIP() << "this kernel refuses the probe";
  std::ostringstream bpf_alone;
  bpf_alone << std::hex << std::setw(16) << std::setfill('0') << (1ULL << CAP_BPF);
  EXPECT_EQ(status_of(serving_pid(), "CapEff"), bpf_alone.str());
  EXPECT_EQ(status_of(serving_pid(), "CapPrm"), bpf_alone.str());
}

TEST_F(EclipdStart, TheSandboxCanBeSwitchedOff) {
  start("daemon.sandbox = false");
  EXPECT_EQ(status_of(serving_pid(), "Seccomp"), "0");
}

TEST_F(EclipdStart, EightStreamsAreRefused) {
  const auto [status, text] =
      fails_with(R"(pool.streams = ["0:0","0:1","0:2","0:3","0:4","0:5","0:6","0:7"])");
  EXPECT_EQ(status, 2);
  EXPECT_THAT(text, AllOf(HasSubstr("8 CU-masked streams"), HasSubstr("budget of a GPU is 7")));
}

TEST_F(EclipdStart, AMaskOutsideTheGpuIsRefusedBeforeAnyQueueIsMade) {
  const auto [status, text] = fails_with(R"(pool.streams = ["0:0-29", "0:30-60"])");
  EXPECT_EQ(status, 1);
  EXPECT_THAT(text, AllOf(HasSubstr("pool.streams[1]"), HasSubstr("CUs 0-59")));
}

TEST_F(EclipdStart, AnEmptyMaskIsRefused) {
  const auto [status, text] = fails_with(R"(pool.streams = ["0:0x0"])");
  EXPECT_EQ(status, 1);
  EXPECT_THAT(text, HasSubstr("has no CU"));
}

TEST_F(EclipdStart, ANodeThatIsNoGpuIsRefusedWithTheOnesThatAre) {
  const auto [status, text] = fails_with("gpu.node = 0");
  EXPECT_EQ(status, 1);
  EXPECT_THAT(text, HasSubstr("one of: 1"));
}

TEST_F(EclipdStart, AnUnknownKeyIsRefused) {
  const auto [status, text] = fails_with("[pool]\nstream = []");
  EXPECT_EQ(status, 2);
  EXPECT_THAT(text, HasSubstr("unknown key pool.stream"));
}

TEST_F(EclipdStart, ASocketInUseIsReportedAndItsOwnerUndisturbed) {
  start();
  const auto [status, text] = fails_with("");
  EXPECT_EQ(status, 1);
  EXPECT_THAT(text, AllOf(HasSubstr("another eclipd listens on"), HasSubstr("stop it first")));
  EXPECT_EQ(control({"status"}).at("workers"), 0);
}

TEST_F(EclipdStart, ASecondDaemonForTheSameGpuIsRefusedWhateverItsSocket) {
  start();
  const TemporaryDirectory other;
  const auto config = other.path() / "other.toml";
  std::ofstream(config) << "daemon.socket = \"" << (other.path() / "eclipd.sock").string()
                        << "\"\n";
  ChildProcess second({ECLIPD_PROGRAM, "--config", config.string()});
  EXPECT_EQ(second.wait(), 1);
  EXPECT_THAT(second.errors(), HasSubstr("another eclipd serves the GPU at node 1"));
}

TEST_F(EclipdStart, AFileThatIsNoSocketIsLeftAlone) {
  std::ofstream(socket()) << "precious";
  const auto [status, text] = fails_with("");
  EXPECT_EQ(status, 1);
  EXPECT_THAT(text, HasSubstr("no socket"));
  EXPECT_TRUE(std::filesystem::is_regular_file(socket()));
}

TEST_F(EclipdStart, ASocketFileLeftByADeadDaemonIsReplaced) {
  start();
  ::kill(daemon().pid(), SIGKILL);
  daemon().wait();
  EXPECT_TRUE(std::filesystem::exists(socket()));
  start();
  EXPECT_EQ(control({"status"}).at("workers"), 0);
}

TEST_F(EclipdStart, EclipctlSaysThatNoDaemonRuns) {
  ChildProcess eclipctl({ECLIPCTL_PROGRAM, "--socket", socket(), "status"});
  EXPECT_EQ(eclipctl.wait(), 3);
  EXPECT_THAT(eclipctl.errors(), AllOf(HasSubstr("eclipd is not running"), HasSubstr(socket())));
}

}  // namespace
}  // namespace eclip::test
