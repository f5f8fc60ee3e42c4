// Rows chosen by simulated arrivals: better there or left as they are, and whole afterwards.
#include "daemon/planner/open_loop_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/planner/kernels.h"

namespace eclip::planner {
namespace {

using testing::HasSubstr;

/// Two that fill half of the GPU each, and so gain nothing from more CUs. Only the row of both
/// matters: alone they are as fast anywhere.
std::vector<Worker> halves(double requests_per_s) {
  std::vector<Worker> workers{worker_of("a", 10, filling_kernel(8, 100)),
                              worker_of("b", 10, filling_kernel(8, 100))};
  for (Worker& worker : workers) worker.requests_per_s = requests_per_s;
  return workers;
}

/// The GPU and its halves. Stream 3 has no mask.
Plan plan_of(const std::vector<Worker>& workers) {
  PlannerOptions options;
  options.pool = {cus(0, 16), cus(0, 8), cus(8, 8)};
  return make_plan(small_gpu(), workers, options).value();
}

/// What choose_rows would find if it were there: whole workers on these streams, in every row.
Plan with_rows(Plan plan, const std::vector<std::uint32_t>& streams) {
  for (WorkerSet active = 1; active <= plan.rows.size(); ++active)
    for (std::size_t w = 0; w < streams.size(); ++w)
      if (active >> w & 1U)
        plan.rows[active - 1].streams[w].assign(plan.groups[w].size(), streams[w]);
  return plan;
}

/// The streams of a row with one group for each worker.
std::vector<std::uint32_t> of_all(const Plan& plan) {
  std::vector<std::uint32_t> streams;
  for (const auto& worker : plan.rows.back().streams) streams.push_back(worker.at(0));
  return streams;
}

TEST(OpenLoopChoice, ARowThatIsWorseWithArrivalsAtRandomIsReplaced) {
  const std::vector<Worker> workers = halves(600);
  const Plan crowded = with_rows(plan_of(workers), {1, 1});
  const auto chosen = choose_rows(small_gpu(), workers, crowded, {});
  ASSERT_TRUE(chosen) << chosen.error().message();
  EXPECT_NE(of_all(*chosen), of_all(crowded));
  const Row& row = chosen->rows.back();
  EXPECT_TRUE(row.by_arrivals);
  EXPECT_NEAR(row.prediction.request_us[0], 1034, 10) << "as fast as alone";
  EXPECT_NEAR(row.simulated_us[1], 1034, 10);
  const OpenLoopOptions loop{.requests = 100, .seed = 5};
  EXPECT_LT(open_loop_value(small_gpu(), workers, *chosen, loop).value(),
            0.9 * open_loop_value(small_gpu(), workers, crowded, loop).value());
}

TEST(OpenLoopChoice, WhatIsAsGoodStays) {
  const std::vector<Worker> workers = halves(600);
  const Plan apart = with_rows(plan_of(workers), {1, 2});
  const auto chosen = choose_rows(small_gpu(), workers, apart, {});
  ASSERT_TRUE(chosen) << chosen.error().message();
  for (WorkerSet active = 1; active <= 3; ++active) {
    EXPECT_EQ(chosen->row(active).streams, apart.row(active).streams);
    EXPECT_FALSE(chosen->row(active).by_arrivals);
  }
}

TEST(OpenLoopChoice, OfRandomWorkersNoPlanGetsWorseAndEachIsWhole) {
  std::mt19937 random(21);
  int changed = 0;
  for (int i = 0; i < 5; ++i) {
    std::vector<Worker> workers{random_worker(random, 30), random_worker(random, 20),
                                random_worker(random, 10)};
    for (Worker& worker : workers) worker.requests_per_s = 0.3e6 / service_us(worker, 16);
    const auto plan = make_plan(small_gpu(), workers, {});
    ASSERT_TRUE(plan) << plan.error().message();
    const OpenLoopChoiceOptions options;
    const auto chosen = choose_rows(small_gpu(), workers, *plan, options);
    ASSERT_TRUE(chosen) << chosen.error().message();
    EXPECT_LE(open_loop_value(small_gpu(), workers, *chosen, options.loop).value(),
              open_loop_value(small_gpu(), workers, *plan, options.loop).value());
    double value = 0;
    for (WorkerSet active = 1; active <= 7; ++active) {
      const Row& row = chosen->row(active);
      value += share_of(chosen->activity, active) * row.value;
      EXPECT_GT(row.value, 0);
      EXPECT_EQ(row.by_arrivals, row.streams != plan->row(active).streams);
      changed += row.by_arrivals ? 1 : 0;
      for (std::size_t w = 0; w < 3; ++w) {
        EXPECT_EQ(row.streams[w].size(), active >> w & 1U ? plan->groups[w].size() : 0);
        EXPECT_EQ(row.prediction.request_us[w] > 0, (active >> w & 1U) != 0);
        EXPECT_EQ(row.prediction.alone_us[w] > 0, (active >> w & 1U) != 0);
        if (row.by_arrivals) {
          EXPECT_EQ(row.simulated_us[w] > 0, (active >> w & 1U) != 0);
        }
      }
    }
    EXPECT_NEAR(chosen->value, value, 1e-9);
  }
  EXPECT_GT(changed, 2) << "nothing was looked at";
}

TEST(OpenLoopChoice, ALatencyBoundThatThePlanKeepsIsKept) {
  // Worker a gains from the whole GPU, alone and with the other: by arrivals nobody is masked.
  std::vector<Worker> workers{worker_of("a", 10, filling_kernel(16, 100)),
                              worker_of("b", 10, filling_kernel(8, 100))};
  for (Worker& worker : workers) worker.requests_per_s = 200;
  const Plan at_home = with_rows(plan_of(workers), {1, 2});
  const auto free = choose_rows(small_gpu(), workers, at_home, {});
  ASSERT_TRUE(free) << free.error().message();
  ASSERT_TRUE(free->rows.back().by_arrivals);
  // With a bound for the other one, which has its half to itself in the plan, that is not possible.
  workers[1].latency_bound_us = 1100;
  const auto bound = choose_rows(small_gpu(), workers, at_home, {});
  ASSERT_TRUE(bound) << bound.error().message();
  EXPECT_EQ(of_all(*bound).at(1), 2U);
  EXPECT_TRUE(bound->violations.empty());
  EXPECT_GT(free->rows.back().prediction.request_us[1], 1100);
}

TEST(OpenLoopChoice, AWorkerThatIsLateAnywayIsNotMadeLater) {
  std::vector<Worker> workers{worker_of("a", 10, filling_kernel(16, 100)),
                              worker_of("b", 10, filling_kernel(8, 100))};
  for (Worker& worker : workers) worker.requests_per_s = 200;
  workers[1].latency_bound_us = 100;
  Plan at_home = with_rows(plan_of(workers), {1, 2});
  for (Violation& late : at_home.violations) late.request_us = 1040;
  const auto chosen = choose_rows(small_gpu(), workers, at_home, {});
  ASSERT_TRUE(chosen) << chosen.error().message();
  EXPECT_EQ(of_all(*chosen).at(1), 2U);
  ASSERT_FALSE(chosen->violations.empty());
  for (const Violation& late : chosen->violations) EXPECT_LE(late.request_us, 1041);
}

TEST(OpenLoopChoice, AHeavyWorkersLatencyCountsMore) {
  // On no masks a gains and b loses, on halves the other way round.
  std::vector<Worker> workers{worker_of("a", 10, filling_kernel(16, 100)),
                              worker_of("b", 10, filling_kernel(8, 100))};
  for (Worker& worker : workers) worker.requests_per_s = 200;
  const Plan at_home = with_rows(plan_of(workers), {1, 2});
  workers[1].weight = 100;
  const auto chosen = choose_rows(small_gpu(), workers, at_home, {});
  ASSERT_TRUE(chosen) << chosen.error().message();
  EXPECT_EQ(of_all(*chosen).at(1), 2U) << "without the weight it is not masked";
}

TEST(OpenLoopChoice, QueuesSayNothingOfEnergy) {
  const std::vector<Worker> workers = halves(600);
  const Plan crowded = with_rows(plan_of(workers), {1, 1});
  const auto chosen = choose_rows(small_gpu(), workers, crowded, {.objective = Objective::energy});
  ASSERT_TRUE(chosen) << chosen.error().message();
  EXPECT_EQ(of_all(*chosen), of_all(crowded));
}

TEST(OpenLoopChoice, AnyRateEnds) {
  for (const double rate : {std::numeric_limits<double>::denorm_min(), 1e-12, 1e-4, 1e6}) {
    std::vector<Worker> workers = halves(2000);
    workers[0].requests_per_s = rate;
    const Plan plan = plan_of(workers);
    const auto chosen = choose_rows(small_gpu(), workers, plan, {.most_rounds = 5});
    ASSERT_TRUE(chosen) << chosen.error().message();
    EXPECT_EQ(of_all(*chosen), of_all(plan)) << "too different to be simulated: " << rate;
    EXPECT_TRUE(chosen->complete);
  }
}

TEST(OpenLoopChoice, StoppedItIsNoPlan) {
  const std::vector<Worker> workers = halves(600);
  const auto chosen =
      choose_rows(small_gpu(), workers, plan_of(workers), {.stop = [] { return true; }});
  ASSERT_FALSE(chosen);
  EXPECT_EQ(chosen.error().code, Errc::timed_out);
}

TEST(OpenLoopChoice, OutOfTimeItIsThePlan) {
  const std::vector<Worker> workers = halves(600);
  const Plan crowded = with_rows(plan_of(workers), {1, 1});
  const auto chosen =
      choose_rows(small_gpu(), workers, crowded, {.out_of_time = [] { return true; }});
  ASSERT_TRUE(chosen) << chosen.error().message();
  EXPECT_FALSE(chosen->complete);
  EXPECT_EQ(of_all(*chosen), of_all(crowded));
}

TEST(OpenLoopChoice, AWorkerWithoutARateIsRefused) {
  std::vector<Worker> workers = halves(600);
  const Plan plan = plan_of(workers);
  workers[1].requests_per_s = 0;
  const auto chosen = choose_rows(small_gpu(), workers, plan, {});
  ASSERT_FALSE(chosen);
  EXPECT_EQ(chosen.error().code, Errc::invalid_argument);
  EXPECT_THAT(chosen.error().message(), HasSubstr("worker 'b' has no rate"));
}

TEST(OpenLoopChoice, AnUnknownWorkerHasRowsToo) {
  std::vector<Worker> workers = halves(100);
  workers[1] = Worker{.name = "?", .kernels = {}, .requests_per_s = 100, .unknown = true};
  const auto chosen = choose_rows(small_gpu(), workers, plan_of(workers), {});
  ASSERT_TRUE(chosen) << chosen.error().message();
  EXPECT_EQ(chosen->rows.back().streams[1].size(), 1U);
}

}  // namespace
}  // namespace eclip::planner
