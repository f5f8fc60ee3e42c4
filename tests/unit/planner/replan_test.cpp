// A plan that follows another: what is taken over, and that it is as good a plan as any.
#include <gtest/gtest.h>

#include "daemon/planner/planner.h"
#include "tests/unit/planner/kernels.h"

namespace eclip::planner {
namespace {

PlannerOptions on_tree(const Plan* previous = nullptr) {
  PlannerOptions options;
  options.group_us = 50;
  options.pool = tree_masks(16, 4);
  options.previous = previous;
  return options;
}

Plan planned(const std::vector<Worker>& workers, const PlannerOptions& options) {
  auto plan = make_plan(small_gpu(), workers, options);
  if (!plan) throw std::runtime_error(plan.error().message());
  return std::move(*plan);
}

std::vector<Worker> workers_at(std::mt19937& random, std::size_t count) {
  std::vector<Worker> workers;
  for (std::size_t w = 0; w < count; ++w) {
    workers.push_back(random_worker(random, 20));
    workers.back().requests_per_s = 500;
  }
  return workers;
}

/// As good as a plan from the same workers may be, and its rows are what they say.
void expect_a_plan(const Plan& plan, const std::vector<Worker>& workers) {
  ASSERT_EQ(plan.rows.size(), (std::size_t{1} << workers.size()) - 1);
  for (const Candidate& candidate : plan.candidates)
    EXPECT_LE(plan.value, candidate.value * (1 + 1e-9)) << candidate.name;
  EXPECT_GE(plan.value, plan.lower_bound * (1 - 1e-9));
  for (WorkerSet active = 1; active <= plan.rows.size(); ++active)
    for (std::size_t w = 0; w < workers.size(); ++w) {
      const Row& row = plan.row(active);
      const bool is_active = (active >> w & 1U) != 0;
      EXPECT_EQ(row.streams[w].size(), is_active ? plan.groups[w].size() : 0);
      EXPECT_EQ(row.prediction.request_us[w] > 0, is_active);
      for (const std::uint32_t stream : row.streams[w]) EXPECT_LE(stream, plan.unmasked);
    }
}

TEST(Replan, RowsWithoutTheNewcomerAreTakenOver) {
  std::mt19937 random(31);
  for (int i = 0; i < 10; ++i) {
    std::vector<Worker> workers = workers_at(random, 3);
    const Plan before = planned(workers, on_tree());
    workers.push_back(random_worker(random, 20));
    // Without time nothing is searched: what is good comes from the plan before.
    PlannerOptions options = on_tree(&before);
    options.search.out_of_time = [] { return true; };
    const Plan plan = planned(workers, options);
    expect_a_plan(plan, workers);
    for (WorkerSet active = 1; active <= before.rows.size(); ++active) {
      EXPECT_LE(plan.row(active).value, before.row(active).value) << "case " << i;
      if (plan.row(active).value < before.row(active).value) continue;  // a policy with other homes
      for (std::size_t w = 0; w < 3; ++w)
        EXPECT_EQ(plan.row(active).streams[w], before.row(active).streams[w]);
    }
  }
}

TEST(Replan, IsAboutAsGoodAsAPlanFromNothing) {
  std::mt19937 random(32);
  for (int i = 0; i < 10; ++i) {
    std::vector<Worker> workers = workers_at(random, 3);
    const Plan before = planned(workers, on_tree());
    workers.push_back(random_worker(random, 20));
    const Plan after = planned(workers, on_tree(&before));
    expect_a_plan(after, workers);
    EXPECT_LE(after.value, 1.03 * planned(workers, on_tree()).value) << "case " << i;
  }
}

TEST(Replan, WorkersMayLeaveAndComeInAnotherOrder) {
  std::mt19937 random(33);
  const std::vector<Worker> four = workers_at(random, 4);
  const Plan before = planned(four, on_tree());
  const std::vector<Worker> two{four[3], four[1]};
  PlannerOptions options = on_tree(&before);
  options.search.out_of_time = [] { return true; };
  const Plan plan = planned(two, options);
  expect_a_plan(plan, two);
  const Row& kept = before.row(0b1010);
  EXPECT_LE(plan.row(0b11).value, kept.value);
  if (plan.row(0b11).value == kept.value) {
    EXPECT_EQ(plan.row(0b11).streams[0], kept.streams[3]);
    EXPECT_EQ(plan.row(0b11).prediction.request_us[1], kept.prediction.request_us[1]);
  }
}

TEST(Replan, OfTheSameWorkersAtOtherRatesSearchesForWhatIsLikelyNow) {
  std::mt19937 random(34);
  std::vector<Worker> workers = workers_at(random, 3);
  for (Worker& worker : workers) worker.requests_per_s = 1e-3;
  const Plan rare = planned(workers, on_tree());
  for (Worker& worker : workers) worker.requests_per_s = 0;
  const Plan plan = planned(workers, on_tree(&rare));
  expect_a_plan(plan, workers);
  EXPECT_LE(plan.row(7).value, rare.row(7).value);
  EXPECT_LE(plan.value, 1.01 * planned(workers, on_tree()).value);
}

TEST(Replan, WhateverTheTimeIsItIsAPlan) {
  std::mt19937 random(37);
  std::vector<Worker> workers = workers_at(random, 3);
  const Plan before = planned(workers, on_tree());
  workers.push_back(random_worker(random, 20));
  double last = std::numeric_limits<double>::infinity();
  for (const int looks : {0, 1, 3, 10, 30, 100, 300, 1000, 100000}) {
    for (const Plan* previous : {&before, static_cast<const Plan*>(nullptr)}) {
      PlannerOptions options = on_tree(previous);
      int left = looks;
      options.search.out_of_time = [&left] { return left-- <= 0; };
      const Plan plan = planned(workers, options);
      expect_a_plan(plan, workers);
      EXPECT_EQ(plan.complete, looks == 100000) << looks;
      if (previous == nullptr) continue;
      EXPECT_LE(plan.value, last * (1 + 1e-9)) << looks;
      last = plan.value;
    }
  }
}

TEST(Replan, OnAnotherPoolIsAPlanFromNothing) {
  std::mt19937 random(35);
  const std::vector<Worker> workers = workers_at(random, 3);
  const Plan before = planned(workers, on_tree());
  PlannerOptions options = on_tree(&before);
  options.pool = {cus(0, 4), cus(4, 12)};
  const Plan plan = planned(workers, options);
  options.previous = nullptr;
  const Plan from_nothing = planned(workers, options);
  for (WorkerSet active = 1; active <= plan.rows.size(); ++active)
    EXPECT_EQ(plan.row(active).streams, from_nothing.row(active).streams);
}

TEST(Replan, AChangedWorkerIsANewcomer) {
  std::mt19937 random(36);
  std::vector<Worker> workers = workers_at(random, 2);
  const Plan before = planned(workers, on_tree());
  workers[1].weight = 50;
  const Plan plan = planned(workers, on_tree(&before));
  expect_a_plan(plan, workers);
  EXPECT_DOUBLE_EQ(plan.row(3).value, planned(workers, on_tree()).row(3).value);
}

}  // namespace
}  // namespace eclip::planner
