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

const std::string client = KFDSIM_CLIENT;

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

/// How many memfds with pages of clients a page server has.
std::size_t page_files_of(pid_t server) {
  std::size_t count = 0;
  std::error_code error;
  for (const auto& entry :
       fs::directory_iterator("/proc/" + std::to_string(server) + "/fd", error)) {
    const std::string target = fs::read_symlink(entry.path(), error);
    if (target.starts_with("/memfd:kfdsim-pages")) ++count;
  }
  return count;
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
            "-c",           "trap '' TERM; " + client + " hold & echo $!; wait $!"};
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
  const pid_t holder = std::stoi(run.read_line());
  ASSERT_EQ(run.read_line(), "ready");
  const pid_t server = page_server_of(run);
  ASSERT_GT(server, 0);
  ::kill(server, SIGKILL);
  EXPECT_EQ(run.read_line(), "gone");
  EXPECT_EQ(run.wait(), 0) << "COMMAND's own";
  EXPECT_FALSE(exists(holder));
  EXPECT_FALSE(exists(server));
  EXPECT_TRUE(run.errors().starts_with("kfdsim: the process that serves pages has ended"))
      << run.errors();
}

TEST_F(KfdsimPageServer, EndsWithKilledKfdsim) {
  ChildProcess run(holding());
  const pid_t holder = std::stoi(run.read_line());
  ASSERT_EQ(run.read_line(), "ready");
  const pid_t server = page_server_of(run);
  ASSERT_GT(server, 0);
  ::kill(run.pid(), SIGKILL);
  EXPECT_EQ(run.read_line(), "gone");
  EXPECT_EQ(run.wait(), 128 + SIGKILL);
  EXPECT_TRUE(eventually([&] { return !exists(server) && !exists(holder); }));
}

TEST_F(KfdsimPageServer, BothKilledTogetherLeaveNobodyWaiting) {
  ChildProcess run(holding());
  const pid_t holder = std::stoi(run.read_line());
  ASSERT_EQ(run.read_line(), "ready");
  const pid_t server = page_server_of(run);
  ASSERT_GT(server, 0);
  ::kill(server, SIGKILL);
  ::kill(run.pid(), SIGKILL);
  EXPECT_EQ(run.read_line(), "gone");
  EXPECT_EQ(run.wait(), 128 + SIGKILL);
  EXPECT_TRUE(eventually([&] { return !exists(server) && !exists(holder); }));
}

TEST_F(KfdsimPageServer, SurvivesAKilledClient) {
  ChildProcess run({KFDSIM_PROGRAM, "run", "-q", "--mapping", "page-cache", "--", "/bin/sh", "-c",
                    client + " hold & echo $!; wait $!; " + client + " work 10"});
  const pid_t holder = std::stoi(run.read_line());
  ASSERT_EQ(run.read_line(), "ready");
  ::kill(holder, SIGKILL);
  EXPECT_EQ(run.read_line(), "worked");
  EXPECT_EQ(run.wait(), 0) << run.errors();
}

TEST_F(KfdsimPageServer, KeepsNothingOfClientsThatHaveEnded) {
  ChildProcess run({KFDSIM_PROGRAM, "run", "-q", "--mapping", "page-cache", "--", "/bin/sh", "-c",
                    "for i in 1 2 3 4 5 6 7 8; do " + client +
                        " work 5; done; "
                        "exec " +
                        client + " hold"});
  for (int i = 0; i < 8; ++i) ASSERT_EQ(run.read_line(), "worked");
  ASSERT_EQ(run.read_line(), "ready");
  const pid_t server = page_server_of(run);
  ASSERT_GT(server, 0);
  // Each client's end writes its pages back, into two files. The kernel may hold on to those of the
  // last ones for a while: a walk over its caches is enough for that.
  EXPECT_TRUE(eventually([&] { return page_files_of(server) <= 8; }))
      << page_files_of(server) << " files of 9 clients, of which one lives";
  ::kill(run.pid(), SIGTERM);
  EXPECT_EQ(run.wait(), 128 + SIGTERM);
}

TEST_F(KfdsimPageServer, LeavesTheTerminalsSignalsToTheCommand) {
  ChildProcess run(holding());
  const pid_t holder = std::stoi(run.read_line());
  ASSERT_EQ(run.read_line(), "ready");
  const pid_t server = page_server_of(run);
  ASSERT_GT(server, 0);
  const std::string status = contents("/proc/" + std::to_string(server) + "/status");
  const std::string field = "SigBlk:\t";
  const std::size_t at = status.find(field);
  ASSERT_NE(at, std::string::npos);
  const std::uint64_t blocked = std::stoull(status.substr(at + field.size(), 16), nullptr, 16);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
    EXPECT_NE(blocked >> (signal - 1) & 1U, 0U) << "signal " << signal;
  }
  ::kill(holder, SIGKILL);
  EXPECT_EQ(run.wait(), 128 + SIGKILL);
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
