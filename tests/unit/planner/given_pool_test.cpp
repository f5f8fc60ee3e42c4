// Plans over streams that there are already, and for workers without a profile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/planner/planner.h"
#include "tests/unit/planner/kernels.h"

namespace eclip::planner {
namespace {

using testing::HasSubstr;

std::vector<CuMask> small_tree() {
  return tree_masks(16, 4);
}

Result<Plan> plan_on(const std::vector<CuMask>& pool, const std::vector<Worker>& workers) {
  PlannerOptions options;
  options.group_us = 50;
  options.pool = pool;
  return make_plan(small_gpu(), workers, options);
}

Worker unknown_worker(double requests_per_s = 0) {
  return {.name = "new", .kernels = {}, .requests_per_s = requests_per_s, .unknown = true};
}

/// One to seven masks of any CUs.
std::vector<CuMask> random_masks(std::mt19937& random) {
  std::vector<CuMask> masks;
  const std::size_t count = 1 + random() % stream_budget;
  while (masks.size() < count) {
    CuMask mask(16);
    for (std::uint32_t cu = 0; cu < 16; ++cu)
      if (random() % 2 == 0) mask.insert(cu);
    if (!mask.empty()) masks.push_back(mask);
  }
  return masks;
}

TEST(GivenPool, RowsAreOverItsStreamsAndNeverLoseToASimplePolicy) {
  std::mt19937 random(21);
  for (int i = 0; i < 60; ++i) {
    std::vector<Worker> workers;
    for (std::size_t w = 0; w < 1U + static_cast<std::size_t>(i) % 5; ++w)
      workers.push_back(random() % 4 == 0 ? unknown_worker(100)
                                          : random_worker(random, 1 + random() % 30));
    const std::vector<CuMask> masks = i % 2 == 0 ? small_tree() : random_masks(random);
    PlannerOptions options;
    options.group_us = 50;
    options.search.objective = static_cast<Objective>(i % 3);
    options.pool = masks;
    if (i % 4 == 3) options.search.out_of_time = [] { return true; };
    const auto plan = make_plan(small_gpu(), workers, options);
    ASSERT_TRUE(plan) << plan.error().message();
    ASSERT_EQ(plan->pool.streams.size(), masks.size());
    for (std::size_t s = 0; s < masks.size(); ++s) EXPECT_EQ(plan->pool.streams[s].mask, masks[s]);
    EXPECT_EQ(plan->unmasked, masks.size());
    for (const std::uint32_t home : plan->pool.home) EXPECT_LT(home, masks.size());
    for (const Row& row : plan->rows)
      for (const auto& worker : row.streams)
        for (const std::uint32_t stream : worker) EXPECT_LE(stream, masks.size());
    ASSERT_EQ(plan->candidates.size(), 3U);
    for (const Candidate& candidate : plan->candidates)
      EXPECT_LE(plan->value, candidate.value * (1 + 1e-9)) << candidate.name << ", case " << i;
    EXPECT_GE(plan->value, plan->lower_bound * (1 - 1e-9)) << "case " << i;
  }
}

TEST(GivenPool, HomesOnATreeAreDisjointAndTheLargerOneIsForWhoGainsByIt) {
  const std::vector<Worker> workers{worker_of("small", 10, filling_kernel(2, 10)),
                                    worker_of("large", 10, filling_kernel(16, 10)),
                                    worker_of("small too", 10, filling_kernel(3, 10))};
  const auto plan = plan_on(small_tree(), workers);
  ASSERT_TRUE(plan) << plan.error().message();
  const auto& home = plan->pool.home;
  EXPECT_EQ(plan->pool.streams[home[1]].mask.count(), 8U);
  for (std::size_t a = 0; a < home.size(); ++a)
    for (std::size_t b = a + 1; b < home.size(); ++b)
      EXPECT_EQ(plan->pool.streams[home[a]].mask.overlap(plan->pool.streams[home[b]].mask), 0U);
}

TEST(GivenPool, MoreWorkersThanDisjointStreamsShareAsFewAsPossible) {
  const std::vector<Worker> workers(6, worker_of("a", 10, filling_kernel(4, 10)));
  const auto plan = plan_on(small_tree(), workers);
  ASSERT_TRUE(plan) << plan.error().message();
  const auto& home = plan->pool.home;
  std::size_t pairs = 0;
  for (std::size_t a = 0; a < home.size(); ++a)
    for (std::size_t b = a + 1; b < home.size(); ++b)
      pairs += plan->pool.streams[home[a]].mask.overlap(plan->pool.streams[home[b]].mask) > 0;
  EXPECT_EQ(pairs, 2U);
}

TEST(GivenPool, AWorkerAloneHasTheLargestStream) {
  const std::vector<Worker> workers{worker_of("a", 10, filling_kernel(16, 10)),
                                    worker_of("b", 10, filling_kernel(16, 10))};
  const auto plan = plan_on(small_tree(), workers);
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->row(1).streams[0].front(), 0U);
  EXPECT_EQ(plan->row(2).streams[1].front(), 0U);
}

TEST(GivenPool, AMaskThatCannotBeIsNamedWithTheRemedy) {
  const std::vector<Worker> workers{worker_of("a", 1, filling_kernel(16, 100))};
  const auto message = [&](const std::vector<CuMask>& masks, Errc code) {
    const auto plan = plan_on(masks, workers);
    if (plan) return std::string("a plan");
    EXPECT_EQ(plan.error().code, code);
    return plan.error().message();
  };
  EXPECT_THAT(message({}, Errc::invalid_argument), HasSubstr("no stream; give at least one"));
  EXPECT_THAT(message({cus(0, 8), CuMask::full(60)}, Errc::invalid_argument),
              HasSubstr("stream 1 of the given pool has a mask for 60 CUs; test has 16: make"));
  EXPECT_THAT(message({cus(0, 8), cus(0, 0)}, Errc::invalid_argument),
              HasSubstr("stream 1 of the given pool has no CU: a queue on it would hang; name"));
  EXPECT_THAT(message(std::vector<CuMask>(9, cus(0, 8)), Errc::budget_exceeded),
              HasSubstr("9 CU-masked streams; the budget of a GPU is 7: remove 2"));
}

TEST(GivenPool, EveryMaskReachesEveryXcc) {
  auto gpu = small_gpu();
  gpu.geometry.xccs = 2;
  const std::vector<Worker> workers{worker_of("a", 1, filling_kernel(16, 100))};
  CuMask even(16);
  for (std::uint32_t cu = 0; cu < 16; cu += 2) even.insert(cu);
  PlannerOptions options;
  options.pool = {cus(0, 2), even};
  const auto plan = make_plan(gpu, workers, options);
  ASSERT_FALSE(plan);
  EXPECT_THAT(plan.error().message(),
              HasSubstr("stream 1 of the given pool (0,2,4,6,8,10,12,14) has no CU on XCC 1 of 2"));
  EXPECT_THAT(plan.error().message(), HasSubstr("add a CU whose index modulo 2 is 1"));
  options.pool = {cus(0, 2)};
  EXPECT_TRUE(make_plan(gpu, workers, options));
  options.pool.reset();
  const auto free = make_plan(gpu, workers, options);
  ASSERT_FALSE(free);
  EXPECT_EQ(free.error().code, Errc::unsupported);
}

TEST(GivenPool, PoolAndQueuesWithoutAMaskFitIntoTheHardwaresSlots) {
  auto gpu = small_gpu();
  gpu.topology.num_cp_queues = 4;
  std::vector<Worker> workers(2, worker_of("a", 1, filling_kernel(16, 100)));
  PlannerOptions options;
  options.pool = {cus(0, 2), cus(2, 2)};
  EXPECT_TRUE(make_plan(gpu, workers, options));
  workers.push_back(workers.front());
  const auto plan = make_plan(gpu, workers, options);
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code, Errc::budget_exceeded);
  EXPECT_THAT(plan.error().message(), HasSubstr("need up to 5 queues, and test holds 4"));
}

TEST(UnknownWorkers, AloneHaveTheTreeAndLeavesOfEqualSize) {
  for (std::size_t count = 1; count <= 4; ++count) {
    const std::vector<Worker> workers(count, unknown_worker());
    const auto plan = make_plan(small_gpu(), workers, {});
    ASSERT_TRUE(plan) << plan.error().message();
    EXPECT_EQ(plan->pool.name, "tree");
    EXPECT_EQ(plan->pool.streams.size(), 7U);
    const std::uint32_t cus = count == 1 ? 16 : count == 2 ? 8 : 4;
    for (const std::uint32_t home : plan->pool.home)
      EXPECT_GE(plan->pool.streams[home].mask.count(), cus) << count;
    EXPECT_EQ(plan->groups, std::vector<Groups>(count, Groups{0}));
    EXPECT_DOUBLE_EQ(plan->solo_us[0], unknown_request_us + CostOptions{}.request_overhead_us);
  }
}

TEST(UnknownWorkers, MoreThanTheTreeHasQuartersHaveLeavesAsEqualAsEnginesAllow) {
  const std::vector<Worker> workers(6, unknown_worker(50));
  const auto plan = make_plan(small_gpu(), workers, {});
  ASSERT_TRUE(plan) << plan.error().message();
  for (const std::uint32_t home : plan->pool.home)
    EXPECT_THAT(plan->pool.streams[home].mask.count(), testing::AnyOf(2, 4));
}

TEST(UnknownWorkers, AreKeptFromSmallOnesThatAreKnown) {
  const std::vector<Worker> workers{worker_of("small", 200, filling_kernel(2, 5)),
                                    unknown_worker()};
  const auto plan = make_plan(small_gpu(), workers, {});
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_LT(plan->row(3).prediction.request_us[0], 1.2 * plan->solo_us[0]);
  EXPECT_GE(plan->pool.streams[plan->pool.home[1]].mask.count(), 8U);
}

TEST(UnknownWorkers, HaveNoKernels) {
  std::vector<Worker> workers{worker_of("both", 1, filling_kernel(16, 100))};
  workers[0].unknown = true;
  const auto plan = make_plan(small_gpu(), workers, {});
  ASSERT_FALSE(plan);
  EXPECT_THAT(plan.error().message(), HasSubstr("leave out one of the two"));
}

TEST(Weights, AHeavierWorkerIsSlowedDownLess) {
  std::vector<Worker> workers(2, worker_of("a", 20, filling_kernel(16, 100)));
  for (Worker& worker : workers) worker.requests_per_s = 300;
  workers[1].weight = 20;
  const auto plan = make_plan(small_gpu(), workers, {});
  ASSERT_TRUE(plan) << plan.error().message();
  const auto& times = plan->row(3).prediction.request_us;
  EXPECT_LT(times[1], 0.7 * times[0]);
}

TEST(Weights, MustBeNumbersAbove0) {
  std::vector<Worker> workers{worker_of("a", 1, filling_kernel(16, 100))};
  workers[0].weight = 0;
  const auto plan = make_plan(small_gpu(), workers, {});
  ASSERT_FALSE(plan);
  EXPECT_THAT(plan.error().message(), HasSubstr("worker 0 ('a') has the weight"));
}

TEST(LatencyBounds, AreKeptAtTheCostOfOthers) {
  std::vector<Worker> workers(2, worker_of("a", 20, filling_kernel(16, 100)));
  const auto without = make_plan(small_gpu(), workers, {});
  ASSERT_TRUE(without) << without.error().message();
  EXPECT_TRUE(without->violations.empty());
  const double slower_us =
      std::max(without->row(3).prediction.request_us[0], without->row(3).prediction.request_us[1]);
  workers[0].latency_bound_us = 0.85 * slower_us;
  workers[1].latency_bound_us = 10 * slower_us;
  const auto with = make_plan(small_gpu(), workers, {});
  ASSERT_TRUE(with) << with.error().message();
  EXPECT_TRUE(with->violations.empty());
  EXPECT_LE(with->row(3).prediction.request_us[0], workers[0].latency_bound_us);
}

TEST(LatencyBounds, ThatNoPlanKeepsAreReported) {
  std::vector<Worker> workers(2, worker_of("a", 20, filling_kernel(16, 100)));
  workers[0].latency_bound_us = 100;
  const auto plan = make_plan(small_gpu(), workers, {});
  ASSERT_TRUE(plan) << plan.error().message();
  ASSERT_EQ(plan->violations.size(), 2U);
  EXPECT_EQ(plan->violations[0].active, 1U);
  EXPECT_EQ(plan->violations[1].active, 3U);
  EXPECT_EQ(plan->violations[1].worker, 0U);
  EXPECT_EQ(plan->violations[1].request_us, plan->row(3).prediction.request_us[0]);
  // As close as can be: worker 0 as if it were nearly alone.
  EXPECT_LT(plan->violations[1].request_us, 1.5 * plan->solo_us[0]);
  workers[0].latency_bound_us = -1;
  EXPECT_FALSE(make_plan(small_gpu(), workers, {}));
}

}  // namespace
}  // namespace eclip::planner
