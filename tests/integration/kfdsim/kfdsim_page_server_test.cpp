// Death of each of the three processes that share pages through the page cache: nobody hangs.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/integration/kfdsim/child_process.h"
#include "tests/integration/kfdsim/gpu_client.h"
#include "tests/integration/kfdsim/kfdsim_command.h"
#include "tools/kfdsim/backing_memory.h"

namespace eclip::test {
namespace {

namespace fs = std::filesystem;

std::string contents(const std::string& file) {
  std::ifstream stream(file);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::vector<pid_t> children_of(pid_t pid) {
  const std::string id = std::to_string(pid);
  std::ifstream stream("/proc/" + id + "/task/" + id + "/children");
  return {std::istream_iterator<pid_t>(stream), {}};
}

bool exists(pid_t pid) {
  return fs::exists("/proc/" + std::to_string(pid));
}

class KfdsimPageServer : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string refusal = kfdsim_refusal();
    if (!refusal.empty()) GTEST_SKIP() << refusal;
  }

  /// A client that holds the GPU and says what it sees. The shell ignores the SIGTERM that COMMAND
  /// gets, so that the client can.
  static std::vector<std::string> holding() {
    return {KFDSIM_PROGRAM, "run",
            "--mapping",    "page-cache",
            "--",           "/bin/sh",
            "-c",           "trap '' TERM; " KFDSIM_CLIENT " hold & echo $!; wait $!"};
  }
  static pid_t page_server_of(const ChildProcess& kfdsim) {
    for (const pid_t child : children_of(kfdsim.pid())) {
      if (contents("/proc/" + std::to_string(child) + "/comm") == "kfdsim-pages\n") return child;
    }
    return -1;
  }
};

TEST_F(KfdsimPageServer, KilledItTakesTheGpuAway) {
  ChildProcess run(holding());
  const pid_t client = std::stoi(run.read_line());
  ASSERT_EQ(run.read_line(), "ready");
  const pid_t server = page_server_of(run);
  ASSERT_GT(server, 0);
  ::kill(server, SIGKILL);
  EXPECT_EQ(run.read_line(), "gone");
  EXPECT_EQ(run.wait(), 0) << "COMMAND's own";
  EXPECT_FALSE(exists(client));
  EXPECT_FALSE(exists(server));
  EXPECT_TRUE(run.errors().starts_with("kfdsim: the process that serves pages has ended"))
      << run.errors();
}

TEST_F(KfdsimPageServer, EndsWithKilledKfdsim) {
  ChildProcess run(holding());
  const pid_t client = std::stoi(run.read_line());
  ASSERT_EQ(run.read_line(), "ready");
  const pid_t server = page_server_of(run);
  ASSERT_GT(server, 0);
  ::kill(run.pid(), SIGKILL);
  EXPECT_EQ(run.read_line(), "gone");
  EXPECT_EQ(run.wait(), 128 + SIGKILL);
  EXPECT_TRUE(eventually([&] { return !exists(server) && !exists(client); }));
}

TEST_F(KfdsimPageServer, BothKilledTogetherLeaveNobodyWaiting) {
  ChildProcess run(holding());
  const pid_t client = std::stoi(run.read_line());
  ASSERT_EQ(run.read_line(), "ready");
  const pid_t server = page_server_of(run);
  ASSERT_GT(server, 0);
  ::kill(server, SIGKILL);
  ::kill(run.pid(), SIGKILL);
  EXPECT_EQ(run.read_line(), "gone");
  EXPECT_EQ(run.wait(), 128 + SIGKILL);
  EXPECT_TRUE(eventually([&] { return !exists(server) && !exists(client); }));
}

TEST_F(KfdsimPageServer, SurvivesAKilledClient) {
  ChildProcess run({KFDSIM_PROGRAM, "run", "-q", "--mapping", "page-cache", "--", "/bin/sh", "-c",
                    KFDSIM_CLIENT " hold & echo $!; wait $!; " KFDSIM_CLIENT " work 10"});
  const pid_t client = std::stoi(run.read_line());
  ASSERT_EQ(run.read_line(), "ready");
  ::kill(client, SIGKILL);
  EXPECT_EQ(run.read_line(), "worked");
  EXPECT_EQ(run.wait(), 0) << run.errors();
}

TEST_F(KfdsimPageServer, IgnoresTheTerminalsSignals) {
  ChildProcess run({KFDSIM_PROGRAM, "run", "-q", "--mapping", "page-cache", "--", "/bin/sh", "-c",
                    "read line; " KFDSIM_CLIENT " work 10"});
  pid_t server = -1;
  ASSERT_TRUE(eventually([&] { return (server = page_server_of(run)) > 0; }));
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::kill(server, signal);
  EXPECT_EQ(run.read_line(), "worked");
  EXPECT_EQ(run.wait(), 0) << run.errors();
}

TEST(KfdsimChecks, PagesLostWithThePageServerAreZeros) {
  const auto touch_lost_page = [] {
    kfdsim::survive_lost_pages();
    const int file = ::memfd_create("test", 0);
    [[maybe_unused]] const int sized = ::ftruncate(file, 8192);
    auto* bytes = static_cast<volatile char*>(
        ::mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
    bytes[0] = 1;
    bytes[5000] = 2;
    // As when the page server ends: the second page can not be had any more.
    [[maybe_unused]] const int shrunk = ::ftruncate(file, 4096);
    ::_exit(bytes[0] == 1 && bytes[5000] == 0 ? 42 : 1);
  };
  EXPECT_EXIT(touch_lost_page(), ::testing::ExitedWithCode(42), "");
}

}  // namespace
}  // namespace eclip::test
