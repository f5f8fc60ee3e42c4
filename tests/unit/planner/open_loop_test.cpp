// Requests that arrive at random: queueing as theory has it, and when a worker looks at the table.
#include "daemon/planner/open_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "tests/unit/planner/kernels.h"

namespace eclip::planner {
namespace {

using testing::ElementsAre;

const StreamTable first_stream = [](std::size_t, std::size_t, WorkerSet) { return 0U; };

OpenLoopOutcome run_loop(const std::vector<Worker>& workers, const std::vector<Groups>& groups,
                         const std::vector<CuMask>& streams, const StreamTable& table,
                         const OpenLoopOptions& options = {}) {
  auto outcome = run_open_loop(small_gpu(), workers, groups, streams, table, options);
  if (!outcome) throw std::runtime_error(outcome.error().message());
  return std::move(*outcome);
}

Worker at_rate(Worker worker, double requests_per_s) {
  worker.requests_per_s = requests_per_s;
  return worker;
}

TEST(OpenLoop, AQueueOfOneWorkerIsAsTheoryHasIt) {
  // Deterministic service of 1 ms at half of the rate: the mean is 1.5 ms (Pollaczek and
  // Khinchine).
  const std::vector<Worker> workers{at_rate(worker_of("a", 1, filling_kernel(16, 1000)), 500)};
  const auto outcome = run_loop(workers, {{0}}, {CuMask::full(16)}, first_stream,
                                {.requests = 20000, .request_overhead_us = 0});
  const auto& latency_us = outcome.latency_us[0];
  EXPECT_NEAR(std::accumulate(latency_us.begin(), latency_us.end(), 0.0) /
                  static_cast<double>(latency_us.size()),
              1500, 60);
  EXPECT_NEAR(static_cast<double>(latency_us.size()) / outcome.seconds, 500, 15);
}

TEST(OpenLoop, TheSameSeedIsTheSameAndAnotherIsNot) {
  const std::vector<Worker> workers{at_rate(worker_of("a", 10, filling_kernel(16, 100)), 300),
                                    at_rate(worker_of("b", 10, filling_kernel(8, 100)), 300)};
  const auto run_with = [&](std::uint64_t seed) {
    return run_loop(workers, {{0, 5}, {0}}, {CuMask::full(16)}, first_stream, {.seed = seed});
  };
  EXPECT_EQ(run_with(1).latency_us, run_with(1).latency_us);
  EXPECT_NE(run_with(1).latency_us, run_with(2).latency_us);
}

TEST(OpenLoop, EachGroupIsLookedUpOnceAndOneAhead) {
  const std::vector<Worker> workers{at_rate(worker_of("a", 8, filling_kernel(16, 100)), 10)};
  std::vector<std::size_t> asked;
  const StreamTable table = [&](std::size_t, std::size_t group, WorkerSet active) {
    EXPECT_EQ(active, 1U);
    asked.push_back(group);
    return 0U;
  };
  run_loop(workers, {{0, 2, 4, 6}}, {CuMask::full(16)}, table, {.requests = 2});
  EXPECT_THAT(asked, ElementsAre(0, 1, 2, 3, 0, 1, 2, 3));
}

TEST(OpenLoop, AWorkerSeesOthersAtItsNextGroups) {
  const std::vector<Worker> workers{at_rate(worker_of("long", 100, filling_kernel(8, 100)), 50),
                                    at_rate(worker_of("short", 1, filling_kernel(8, 100)), 1000)};
  Groups groups;
  for (std::uint32_t k = 0; k < 100; k += 5) groups.push_back(k);
  std::set<WorkerSet> seen;
  const StreamTable table = [&](std::size_t worker, std::size_t, WorkerSet active) {
    EXPECT_TRUE(active >> worker & 1U);
    if (worker == 0) seen.insert(active);
    return static_cast<std::uint32_t>(worker);
  };
  run_loop(workers, {groups, {0}}, {cus(0, 8), cus(8, 8)}, table, {.requests = 20});
  EXPECT_THAT(seen, ElementsAre(1U, 3U));
}

TEST(OpenLoop, GroupsOnOtherStreamsStillFollowOneAnother) {
  const std::vector<Worker> workers{at_rate(worker_of("a", 8, filling_kernel(8, 100)), 1)};
  const StreamTable alternating = [](std::size_t, std::size_t group, WorkerSet) {
    return static_cast<std::uint32_t>(group % 2);
  };
  const auto outcome =
      run_loop(workers, {{0, 2, 4, 6}}, {cus(0, 8), cus(8, 8)}, alternating, {.requests = 1});
  // Three switches of 2 us, four gaps of 1 us within groups.
  EXPECT_NEAR(outcome.latency_us[0][0], 8 * 100 + 3 * 2 + 4 * 1, 3);
}

TEST(OpenLoop, AWorkerWithoutARateIsAnError) {
  const std::vector<Worker> workers{worker_of("a", 1, filling_kernel(16, 100))};
  const std::vector<Groups> groups{{0}};
  const std::vector<CuMask> streams{CuMask::full(16)};
  const auto outcome = run_open_loop(small_gpu(), workers, groups, streams, first_stream, {});
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, Errc::invalid_argument);
}

}  // namespace
}  // namespace eclip::planner
