// eclipd on a GPU that fails (kfdsim's injected faults).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/integration/eclipd/running_eclipd.h"
#include "tests/integration/kfdsim/kfdsim_refusal.h"

namespace eclip::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

class EclipdDevice : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string refusal = kfdsim_refusal();
    if (!refusal.empty()) GTEST_SKIP() << refusal;
    const std::string config = (directory_.path() / "eclipd.toml").string();
    const std::string socket = (directory_.path() / "eclipd.sock").string();
    std::ofstream(config) << "daemon.socket = \"" << socket << "\"\nplanner.state_dir = \""
                          << directory_.path().string() << "\"\nforwarder.watchdog_s = 1\n";
    ready_ = (directory_.path() / "ready").string();
    script_ = "eclipd() { exec " ECLIPD_PROGRAM " --config " + config +
              " --ready-fd 3; }; "
              "replay() { " ECLIP_REPLAY_PROGRAM " --profile " ECLIP_DATA_DIR
              "/profiles/shufflenet_v2_x1_0-b8.h100.json --streams 30 \"$@\" >/dev/null; }; "
              "export ECLIP_SOCKET=" +
              socket + "; cd " + directory_.path().string() + "; mkfifo " + ready_ + "; ";
  }

  /// Runs a shell script, with eclipd and replay as commands, below kfdsim with a fault.
  void run(const std::string& fault, const std::string& script) {
    ChildProcess child(
        {KFDSIM_PROGRAM, "run", "-q", "--fault", fault, "--", "/bin/sh", "-c", script_ + script});
    child.wait();
    std::istringstream lines(child.output());
    for (std::string line; std::getline(lines, line);) lines_.push_back(line);
    said_ = child.errors();
  }
  /// Starts eclipd and waits until it serves, or has failed to.
  [[nodiscard]] std::string started() const {
    return "eclipd 3>" + ready_ + " & daemon=$!; read word <" + ready_ + "; ";
  }

  std::vector<std::string> lines_;
  std::string said_;

 private:
  TemporaryDirectory directory_;
  std::string ready_;
  std::string script_;
};

TEST_F(EclipdDevice, AfterAResetTheSameEclipdServesAgainAndNamesWhomItBlames) {
  // The second worker connects at once, while the pool is made anew: it waits in the backlog.
  run("reset,after=300",
      started() + "replay --requests 100000 --name culprit; echo worker $?; " +
          "before=$(date +%s%N); replay --requests 2; echo worker $?; " +
          "test $(( ($(date +%s%N) - before) / 1000000 )) -lt 10000 && echo in time; " +
          "kill $daemon; wait $daemon; echo eclipd $?");
  EXPECT_EQ(lines_, (std::vector<std::string>{"worker 1", "worker 0", "in time", "eclipd 0"}))
      << said_;
  EXPECT_THAT(said_, HasSubstr("the GPU was reset"));
  EXPECT_THAT(
      said_,
      ContainsRegex("worker 1 'culprit' \\(pid [0-9]+\\): (kernel [0-9]+|a barrier) of lease"));
  EXPECT_THAT(said_, HasSubstr("starting a new one"));
  EXPECT_THAT(said_, HasSubstr("eclipd is gone")) << "what the worker says";
}

TEST_F(EclipdDevice, AGpuThatCannotBeOpenedForAWhileAfterItsResetIsWaitedFor) {
  run("reset,after=300,for=1s", started() + "replay --requests 100000; echo worker $?; " +
                                    "until replay --requests 2; do :; done; echo served; " +
                                    "kill $daemon; wait $daemon; echo eclipd $?");
  EXPECT_EQ(lines_, (std::vector<std::string>{"worker 1", "served", "eclipd 0"})) << said_;
}

TEST_F(EclipdDevice, APoolThatCannotBeMadeIsSaidWithTheStream) {
  run("ioctl:create_queue,error=ENOMEM,after=3", started() + "wait $daemon; echo eclipd $?");
  EXPECT_EQ(lines_, std::vector<std::string>{"eclipd 1"}) << said_;
  EXPECT_THAT(said_, HasSubstr("create stream 3 of the pool"));
}

TEST_F(EclipdDevice, AStreamThatHangsIsNamedWithTheWorkerAndTheKernelThatItIsAt) {
  run("hang-queue,after=100",
      started() +
          "replay --requests 100000 --name culprit & worker=$!; "
          "for try in $(seq 150); do " ECLIPCTL_PROGRAM
          " stream list >list; grep -q stuck list && break; sleep 0.1; done; "
          "grep -c ' stuck ' list; grep -c 'has been at packet .* of worker 1 for' list; "
          "kill -9 $worker; kill $daemon; wait $daemon; echo eclipd $?");
  EXPECT_EQ(lines_, (std::vector<std::string>{"1", "1", "eclipd 0"})) << said_;
  EXPECT_THAT(said_, ContainsRegex("stream [12] has been at packet (99|100) of worker 1 "
                                   "'culprit' \\(pid [0-9]+\\) for [0-9.]+ s: (kernel "
                                   "[0-9]+|a barrier) of lease [0-9]+"));
  EXPECT_EQ(said_.find("has been at packet"), said_.rfind("has been at packet")) << "said once";
}

TEST_F(EclipdDevice, SlowMaskIoctlsDelayItsStartOnly) {
  run("ioctl:set_cu_mask,delay=50ms",
      started() +
          "replay --requests 2; echo worker $?; kill $daemon; wait $daemon; echo eclipd $?");
  EXPECT_EQ(lines_, (std::vector<std::string>{"worker 0", "eclipd 0"})) << said_;
}

}  // namespace
}  // namespace eclip::test
