// Faults injected by kfdsim's --fault, as its clients meet them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <sstream>
#include <string>
#include <vector>

#include "tests/integration/kfdsim/child_process.h"
#include "tests/integration/kfdsim/kfdsim_refusal.h"

namespace eclip::test {
namespace {

using ::testing::HasSubstr;

struct Outcome {
  int status = 0;
  std::vector<std::string> lines;
  std::string said;  ///< on standard error
};

/// Runs a shell script, in which $C is kfdsim_client, below kfdsim with the given options.
Outcome run(const std::vector<std::string>& options, const std::string& script) {
  std::vector<std::string> command{KFDSIM_PROGRAM, "run", "--mapping", kfdsim_mapping()};
  command.insert(command.end(), options.begin(), options.end());
  for (const char* part : {"--", "/bin/sh", "-c"}) command.emplace_back(part);
  command.push_back("C=" KFDSIM_CLIENT "; " + script);
  ChildProcess child(command);
  Outcome outcome;
  outcome.status = child.wait();
  std::istringstream lines(child.output());
  for (std::string line; std::getline(lines, line);) outcome.lines.push_back(line);
  outcome.said = child.errors();
  return outcome;
}

class KfdsimInjection : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string refusal = kfdsim_refusal();
    if (!refusal.empty()) GTEST_SKIP() << refusal;
  }
};

TEST_F(KfdsimInjection, ABadSpecificationIsRefused) {
  const auto outcome = run({"--fault", "ioctl:create_queue,error=EFOO"}, "true");
  EXPECT_EQ(outcome.status, 125);
  EXPECT_THAT(outcome.said, HasSubstr("--fault: ioctl:create_queue,error=EFOO: error=EFOO: give"));
}

TEST_F(KfdsimInjection, WithoutFaultsTheSummaryIsSilent) {
  EXPECT_EQ(run({"--seed", "4"}, "$C work 5").said.find("faults"), std::string::npos);
}

TEST_F(KfdsimInjection, AnIoctlFailsForEachProcessAtTheSameCall) {
  const auto outcome = run({"--fault", "ioctl:get_clock_counters,error=EIO,after=2,count=3"},
                           "$C ioctls 8; $C ioctls 8");
  EXPECT_EQ(outcome.lines, (std::vector<std::string>{"..xxx...", "..xxx..."}));
  EXPECT_THAT(outcome.said,
              HasSubstr("faults injected with seed 0: 6 x ioctl:get_clock_counters,error=EIO"));
}

// The error numbers with which the budget guard refuses.
TEST_F(KfdsimInjection, ARefusedMaskIsAnErrorToTheHsaRuntimeAndNothingWorse) {
  for (const char* error : {"EPERM", "EBUSY"}) {
    SCOPED_TRACE(error);
    const auto outcome =
        run({"--fault", std::string("ioctl:set_cu_mask,error=") + error}, HSA_CLIENT " mask");
    EXPECT_EQ(outcome.status, 0) << outcome.said;
    EXPECT_EQ(outcome.lines, (std::vector<std::string>{"not masked", "the queue works"}));
    // HSA_CU_MASK, which the runtime sets by itself, is then not in force; nothing says so.
    const auto all = run({"--fault", std::string("ioctl:set_cu_mask,error=") + error},
                         "HSA_CU_MASK=0:0-14 " HSA_CLIENT " mask");
    EXPECT_EQ(all.status, 0) << all.said;
    EXPECT_EQ(all.lines, (std::vector<std::string>{"not masked", "the queue works"}));
  }
  EXPECT_EQ(run({}, HSA_CLIENT " mask").lines.front(), "masked");
}

TEST_F(KfdsimInjection, SeedsDecideAndRepeat) {
  const auto pattern = [](const char* seed) {
    // Both processes at once: their calls mix in any order.
    return run({"--seed", seed, "--fault", "ioctl:get_clock_counters,error=EIO,probability=0.3"},
               "$C ioctls 300 & $C ioctls 300; wait")
        .lines;
  };
  const auto first = pattern("1");
  ASSERT_EQ(first.size(), 2U);
  EXPECT_EQ(first[0], first[1]);
  EXPECT_NE(first[0].find('x'), std::string::npos);
  EXPECT_NE(first[0].find('.'), std::string::npos);
  EXPECT_EQ(pattern("1"), first);
  EXPECT_NE(pattern("2"), first);
}

TEST_F(KfdsimInjection, ADelayedIoctlHoldsUpNobodyElse) {
  // One second of device time is two of the wall's here.
  const auto outcome =
      run({"--time-scale", "2", "--fault", "ioctl:get_clock_counters,delay=1s,error=EIO,count=1"},
          "$C ioctls 2 & $C work 50; wait");
  EXPECT_EQ(outcome.lines, (std::vector<std::string>{"worked", "x.", "late"}));
}

TEST_F(KfdsimInjection, AProcessInADelayedIoctlCanBeKilled) {
  // 16 is the number of ioctl(2).
  const auto outcome = run({"--fault", "ioctl:get_clock_counters,delay=1000s"},
                           "$C ioctls 1 & p=$!; until grep -q '^16 ' /proc/$p/syscall; do :; done; "
                           "kill -KILL $p; wait $p; echo $?");
  EXPECT_EQ(outcome.lines, std::vector<std::string>{"137"});
}

TEST_F(KfdsimInjection, AQueueHangsAfterItsPackets) {
  const auto outcome = run({"--fault", "hang-queue,queue=1,after=3"}, "$C progress 5");
  EXPECT_EQ(outcome.status, 0) << outcome.said;
  EXPECT_EQ(outcome.lines, std::vector<std::string>{"2 0"});
  EXPECT_THAT(outcome.said, HasSubstr("1 x hang-queue"));
}

TEST_F(KfdsimInjection, WhichQueuesHangIsTheSeeds) {
  const auto pattern = [](const char* seed) {
    return run({"--seed", seed, "--fault", "hang-queue,probability=0.5"}, "$C queues 8");
  };
  // A seed that spares the first queue: the one that the client's helper has.
  const auto first = pattern("5");
  ASSERT_EQ(first.lines.size(), 1U) << first.said;
  EXPECT_NE(first.lines[0].find('h'), std::string::npos);
  EXPECT_NE(first.lines[0].find('.'), std::string::npos);
  EXPECT_EQ(pattern("5").lines, first.lines);
  EXPECT_NE(pattern("9").lines, first.lines);
}

/// What a client prints with the fault and a seed.
std::vector<std::string> with_seed(const char* seed, const std::string& fault,
                                   const std::string& script) {
  return run({"--seed", seed, "--fault", fault}, script).lines;
}

TEST_F(KfdsimInjection, WhichPacketsStallTheProcessorIsTheSeeds) {
  const auto pattern = [](const char* seed) {
    return with_seed(seed, "stall-processor,probability=0.3,count=2,for=150ms", "$C gaps 12");
  };
  const auto first = pattern("1");
  ASSERT_EQ(first.size(), 1U);
  EXPECT_EQ(first[0].size(), 12U);
  EXPECT_EQ(std::count(first[0].begin(), first[0].end(), 's'), 2) << first[0];
  EXPECT_EQ(pattern("1"), first);
  EXPECT_NE(pattern("3"), first);
}

TEST_F(KfdsimInjection, WhichPacketResetsTheGpuIsTheSeeds) {
  const auto packets = [](const char* seed) {
    return with_seed(seed, "reset,probability=0.02", "$C packets-until-reset 500");
  };
  const auto first = packets("3");
  ASSERT_EQ(first.size(), 1U);
  EXPECT_LT(std::stoi(first[0]), 500) << "seed 3 resets within so many";
  EXPECT_EQ(packets("3"), first);
  EXPECT_NE(packets("7"), first);
}

TEST_F(KfdsimInjection, WhichAllocationsFailIsTheSeeds) {
  const auto pattern = [](const char* seed) {
    return with_seed(seed, "vram,probability=0.3", "$C allocations 40 & $C allocations 40; wait");
  };
  const auto first = pattern("1");
  ASSERT_EQ(first.size(), 2U);
  EXPECT_EQ(first[0], first[1]) << "each process counts its own";
  EXPECT_NE(first[0].find('x'), std::string::npos);
  EXPECT_NE(first[0].find('.'), std::string::npos);
  EXPECT_EQ(pattern("1"), first);
  EXPECT_NE(pattern("2"), first);
}

TEST_F(KfdsimInjection, PacketsOfOtherProcessesDoNotCount) {
  // The second process works before the first one does, and beside it.
  const auto outcome = run({"--fault", "stall-processor,after=5,for=150ms"},
                           "$C hold > /dev/null & first=$!; "
                           "until test -e /sys/class/kfd/kfd/proc/$first/queues/2; do sleep 0.05; "
                           "done; $C gaps 12; kill -KILL $first");
  EXPECT_EQ(outcome.lines, std::vector<std::string>{"............"});
  EXPECT_EQ(run({"--fault", "stall-processor,after=5,process=2,for=150ms"}, "$C work 5; $C gaps 12")
                .lines,
            (std::vector<std::string>{"worked", ".....s......"}));
}

TEST_F(KfdsimInjection, AStalledProcessorStartsNothing) {
  const auto outcome =
      run({"--fault", "stall-processor,at=0s,for=400ms"}, "$C start & $C sdma-start; wait");
  ASSERT_EQ(outcome.lines.size(), 2U) << outcome.said;
  for (const std::string& start : outcome.lines) EXPECT_GE(std::stol(start), 400'000);
  EXPECT_THAT(outcome.said, HasSubstr("1 x stall-processor"));
}

TEST_F(KfdsimInjection, MemoryEndsWhereItShould) {
  EXPECT_EQ(run({"--fault", "vram,limit=64MiB"}, "$C allocate vram-63; $C allocate vram-65").lines,
            (std::vector<std::string>{"ok", "refused"}));
  EXPECT_EQ(run({"--fault", "vram,limit=64MiB"}, "$C allocate-two vram-40").lines,
            (std::vector<std::string>{"ok", "ok"}))
      << "each process has its own limit";
  const auto system = run({"--fault", "system-memory,limit=64MiB"},
                          "$C allocate system-32; $C allocate system-65; $C allocate vram-65");
  EXPECT_EQ(system.lines, (std::vector<std::string>{"ok", "refused", "ok"}));
  EXPECT_THAT(system.said, HasSubstr("1 x system-memory"));
}

TEST_F(KfdsimInjection, AResetEndsAllQueuesAndNewProcessesWork) {
  // Late enough for both clients to be there, with a sanitizer on a loaded machine too.
  const auto outcome =
      run({"--fault", "reset,at=3s"}, "$C await-reset & $C await-reset; wait; $C work 5");
  ASSERT_EQ(outcome.lines.size(), 5U) << outcome.said;
  EXPECT_EQ(outcome.lines[4], "worked");
  int told = 0;
  int lost = 0;
  for (const std::string& line : outcome.lines) {
    told += line == "type 0 cause 0 lost 1 gpu 49374" ? 1 : 0;
    lost += line == "packets 2 vram 0 system 4711" ? 1 : 0;
  }
  EXPECT_EQ(told, 2) << "whole GPU, hang, memory lost";
  EXPECT_EQ(lost, 2) << "no packet completed, VRAM is lost, system memory is not";
  EXPECT_THAT(outcome.said, HasSubstr("the GPU is reset"));
  EXPECT_THAT(outcome.said, HasSubstr("1 x reset,at=3s"));
}

TEST_F(KfdsimInjection, AResetAfterSoManyPacketsIsExact) {
  // The reset takes with it what is behind the third packet of the first queue.
  const auto outcome = run({"--fault", "reset,after=3"}, "timeout -s KILL 2 $C progress 5");
  EXPECT_EQ(outcome.lines, std::vector<std::string>{});
  EXPECT_THAT(outcome.said, HasSubstr(" 3 packets"));
}

TEST_F(KfdsimInjection, DuringAResetTheDeviceCannotBeOpened) {
  const auto outcome = run({"--fault", "reset,at=0s,for=1000s"}, "$C open");
  EXPECT_EQ(outcome.lines, std::vector<std::string>{std::to_string(EAGAIN)});
  EXPECT_EQ(run({"--fault", "reset,at=0s"}, "$C open").lines, std::vector<std::string>{"0"});
}

}  // namespace
}  // namespace eclip::test
