// The search against the optimum, on random small cases under the same cost model.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "tests/unit/planner/exact_plan.h"
#include "tests/unit/planner/kernels.h"

namespace eclip::planner {
namespace {

constexpr std::size_t cases = 200;

struct Case {
  std::vector<Worker> workers;
  std::vector<CuMask> streams;
  std::vector<Groups> groups;
  std::vector<std::uint32_t> allowed;
};

/// Two workers of two to four groups or three of two; the whole GPU and two to three leaves or
/// unions.
Case random_case(std::mt19937& random) {
  const auto any = [&](std::uint32_t from, std::uint32_t to) {
    return std::uniform_int_distribution<std::uint32_t>(from, to)(random);
  };
  Case made;
  const std::uint32_t workers = any(2, 3);
  for (std::uint32_t w = 0; w < workers; ++w) {
    const std::uint32_t groups = workers == 2 ? any(2, 4) : 2;
    made.workers.push_back(random_worker(random, 4 * groups));
    made.groups.emplace_back();
    for (std::uint32_t g = 0; g < groups; ++g) made.groups.back().push_back(4 * g);
  }
  const std::uint32_t middle = 4 * any(1, 3);
  made.streams = {CuMask::full(16), cus(0, middle), cus(middle, 16 - middle)};
  if (any(0, 1) == 1) made.streams.push_back(cus(4, 8));
  for (std::uint32_t s = 0; s < made.streams.size(); ++s) made.allowed.push_back(s);
  return made;
}

TEST(Exact, TheSearchIsCloseToTheOptimum) {
  const model::GpuDescription gpu = small_gpu();
  const CostOptions cost{.form = CostForm::additive, .request_overhead_us = 10};
  const SearchOptions options;
  std::mt19937 random(7);
  std::vector<double> gaps;
  for (std::size_t i = 0; i < cases; ++i) {
    const Case made = random_case(random);
    const CostTables tables(gpu, made.workers, made.streams);
    const RowSearch search(gpu, tables, made.groups, cost, options);
    std::vector<double> solo_us;
    for (std::size_t w = 0; w < made.workers.size(); ++w) solo_us.push_back(search.solo_us(w));
    const ExactPlan exact = exact_plan(gpu, tables, made.groups, solo_us, cost);
    ASSERT_TRUE(exact.proven) << "case " << i;
    // The program and the cost model agree on what its plan costs.
    ASSERT_NEAR(search.evaluate(exact.streams).value, exact.value, 1e-6 * exact.value)
        << "case " << i;

    const WorkerSet all = (WorkerSet{1} << made.workers.size()) - 1;
    std::vector<Row> starts;
    for (const std::uint32_t s : made.allowed)
      starts.push_back(
          search.evaluate(search.whole(all, std::vector<std::uint32_t>(made.workers.size(), s))));
    const Row found = search.search(starts, made.allowed);
    EXPECT_GE(found.value, exact.value * (1 - 1e-6)) << "case " << i;
    EXPECT_GE(exact.value, search.lower_bound(all, made.allowed) * (1 - 1e-6)) << "case " << i;
    gaps.push_back(found.value / exact.value - 1);
  }
  std::sort(gaps.begin(), gaps.end());
  std::printf("gap to the optimum, %%: median %.2f, 90th percentile %.2f, worst %.2f\n",
              100 * gaps[gaps.size() / 2], 100 * gaps[gaps.size() * 9 / 10], 100 * gaps.back());
  EXPECT_LE(gaps[gaps.size() / 2], 0.01);
  EXPECT_LE(gaps.back(), 0.05);
}

}  // namespace
}  // namespace eclip::planner
