// Plans: never worse than a simple policy, within the budget, and what happens with bad input.
#include "daemon/planner/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/model/profile.h"
#include "daemon/planner/closed_loop.h"
#include "tests/unit/planner/kernels.h"

namespace eclip::planner {
namespace {

using testing::HasSubstr;

std::vector<Worker> random_workers(std::mt19937& random) {
  std::uniform_int_distribution<std::size_t> workers(1, 5);
  std::uniform_int_distribution<std::size_t> kernels(1, 40);
  std::uniform_real_distribution<double> rate(0, 3000);
  std::vector<Worker> made;
  const std::size_t count = workers(random);
  for (std::size_t w = 0; w < count; ++w) {
    made.push_back(random_worker(random, kernels(random)));
    if (random() % 2 == 0) made.back().requests_per_s = rate(random);
  }
  return made;
}

void expect_valid(const Plan& plan, const std::vector<Worker>& workers) {
  ASSERT_EQ(plan.rows.size(), (std::size_t{1} << workers.size()) - 1);
  EXPECT_LE(plan.pool.streams.size(), stream_budget);
  for (WorkerSet active = 1; active <= plan.rows.size(); ++active) {
    const Row& row = plan.row(active);
    for (std::size_t w = 0; w < workers.size(); ++w) {
      EXPECT_EQ(row.streams[w].size(), active >> w & 1U ? plan.groups[w].size() : 0);
      for (const std::uint32_t stream : row.streams[w]) EXPECT_LE(stream, plan.unmasked);
    }
  }
}

TEST(Planner, NeverLosesToASimplePolicy) {
  std::mt19937 random(11);
  for (int i = 0; i < 60; ++i) {
    const std::vector<Worker> workers = random_workers(random);
    PlannerOptions options;
    options.group_us = 50;
    options.search.objective = static_cast<Objective>(i % 3);
    const auto plan = make_plan(small_gpu(), workers, options);
    ASSERT_TRUE(plan) << plan.error().message();
    expect_valid(*plan, workers);
    EXPECT_GE(plan->candidates.size(), 3U);
    for (const Candidate& candidate : plan->candidates)
      EXPECT_LE(plan->value, candidate.value * (1 + 1e-9)) << candidate.name << ", case " << i;
    EXPECT_GE(plan->value, plan->lower_bound * (1 - 1e-9)) << "case " << i;
  }
}

TEST(Planner, JudgedBySimulationItNeverLosesThere) {
  std::mt19937 random(14);
  for (int i = 0; i < 10; ++i) {
    const std::vector<Worker> workers{random_worker(random, 30), random_worker(random, 20),
                                      random_worker(random, 10)};
    PlannerOptions options;
    options.judge_by_simulation = true;
    const auto plan = make_plan(small_gpu(), workers, options);
    ASSERT_TRUE(plan) << plan.error().message();
    expect_valid(*plan, workers);
    const Row& row = plan->rows.back();
    ASSERT_GT(row.simulated_value, 0);
    for (const Candidate& candidate : plan->candidates)
      EXPECT_LE(row.simulated_value, candidate.all_active.simulated_value * (1 + 1e-9))
          << candidate.name << ", case " << i;
  }
}

TEST(Planner, OutOfTimeItStillNeverLoses) {
  std::mt19937 random(12);
  for (int i = 0; i < 60; ++i) {
    const std::vector<Worker> workers = random_workers(random);
    PlannerOptions options;
    options.search.out_of_time = [] { return true; };
    const auto plan = make_plan(small_gpu(), workers, options);
    ASSERT_TRUE(plan) << plan.error().message();
    EXPECT_FALSE(plan->complete);
    expect_valid(*plan, workers);
    for (const Candidate& candidate : plan->candidates)
      EXPECT_LE(plan->value, candidate.value * (1 + 1e-9)) << candidate.name << ", case " << i;
  }
}

TEST(Planner, TheSameWorkersGetTheSamePlan) {
  std::mt19937 random(13);
  const std::vector<Worker> workers{random_worker(random, 30), random_worker(random, 30)};
  const auto a = make_plan(small_gpu(), workers, {});
  const auto b = make_plan(small_gpu(), workers, {});
  ASSERT_TRUE(a && b);
  for (WorkerSet active = 1; active <= a->rows.size(); ++active)
    EXPECT_EQ(a->row(active).streams, b->row(active).streams);
}

TEST(Planner, AWorkerAloneIsAsFastAsOnTheWholeGpu) {
  const auto plan =
      make_plan(small_gpu(), std::vector<Worker>{worker_of("a", 10, filling_kernel(16, 100))}, {});
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_NEAR(plan->value, 1, 1e-9);
}

TEST(Planner, LargeAndSmallWorkersAreKeptApart) {
  // Without masks the small worker waits for the large one at every kernel.
  const std::vector<Worker> workers{worker_of("small", 200, filling_kernel(2, 5)),
                                    worker_of("large", 20, filling_kernel(16, 500))};
  const auto plan = make_plan(small_gpu(), workers, {});
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_GT(plan->candidates[0].value, 1.5 * plan->value);
  EXPECT_LT(plan->row(3).prediction.request_us[0], 1.2 * plan->solo_us[0]);
}

TEST(Planner, KernelsThatHideInOneAnotherAreNotMasked) {
  // Kernels that want every CU but hide in one another: half of the CUs each is twice as slow.
  auto gpu = small_gpu();
  gpu.timing.overlap_gain = 0.9;
  const model::LaunchShape shape{.workgroups = 16, .workgroup_size = 512};
  const std::vector<model::TimePoint> points{{1, 160}, {8, 20}, {16, 10}};
  const auto kernel = std::make_shared<const model::Kernel>(*model::Kernel::create(shape, points));
  const std::vector<Worker> workers{worker_of("a", 50, kernel), worker_of("b", 50, kernel)};
  PlannerOptions options;
  options.search.out_of_time = [] { return true; };
  const auto plan = make_plan(gpu, workers, options);
  ASSERT_TRUE(plan) << plan.error().message();
  const std::vector<std::uint32_t> unmasked{plan->unmasked};
  EXPECT_EQ(plan->row(3).streams, (GroupStreams{unmasked, unmasked}));
}

TEST(Planner, OneKernelIsARequest) {
  const auto plan =
      make_plan(small_gpu(), std::vector<Worker>{worker_of("one", 1, filling_kernel(16, 100))}, {});
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->groups[0], Groups{0});
}

TEST(Planner, AMillionKernelsAreARequestAndOneMoreIsAnError) {
  const auto kernel = filling_kernel(16, 10);
  const auto plan = make_plan(
      small_gpu(), std::vector<Worker>{worker_of("long", most_kernels, kernel)}, {.group_us = 1e6});
  ASSERT_TRUE(plan) << plan.error().message();
  const auto refused = make_plan(
      small_gpu(), std::vector<Worker>{worker_of("longer", most_kernels + 1, kernel)}, {});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), HasSubstr("profile a shorter request"));
}

TEST(Planner, NoWorkerIsAnError) {
  const auto plan = make_plan(small_gpu(), {}, {});
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code, Errc::invalid_argument);
}

TEST(Planner, AWorkerWithoutKernelsIsNamed) {
  const std::vector<Worker> workers{worker_of("full", 1, filling_kernel(16, 100)),
                                    {.name = "empty", .kernels = {}}};
  const auto plan = make_plan(small_gpu(), workers, {});
  ASSERT_FALSE(plan);
  EXPECT_THAT(plan.error().message(), HasSubstr("worker 1 ('empty') has no kernels"));
}

TEST(Planner, ARateMustBeANumber) {
  std::vector<Worker> workers{worker_of("a", 1, filling_kernel(16, 100))};
  for (const double rate :
       {-1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    workers[0].requests_per_s = rate;
    const auto plan = make_plan(small_gpu(), workers, {});
    ASSERT_FALSE(plan) << rate;
    EXPECT_EQ(plan.error().code, Errc::invalid_argument);
  }
}

TEST(Planner, AWorkerThatIsHardlyEverActiveStillHasAPlan) {
  std::vector<Worker> workers{worker_of("a", 1, filling_kernel(16, 100))};
  workers[0].requests_per_s = std::numeric_limits<double>::denorm_min();
  const auto plan = make_plan(small_gpu(), workers, {});
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_NEAR(plan->value, 1, 1e-9);
}

TEST(Planner, LikelySetsAreThoseOfTheActiveTimeHoweverShortItIs) {
  std::vector<Worker> workers{worker_of("a", 10, filling_kernel(8, 100)),
                              worker_of("b", 10, filling_kernel(8, 100))};
  for (Worker& worker : workers) worker.requests_per_s = 2;  // 0.2 % of the time
  PlannerOptions options;
  options.judge_by_simulation = true;
  const auto plan = make_plan(small_gpu(), workers, options);
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_GT(plan->row(1).simulated_value, 0);
  EXPECT_GT(plan->row(2).simulated_value, 0);
}

TEST(Planner, MoreWorkersThanStreamsHaveNoPlan) {
  const std::vector<Worker> workers(8, worker_of("a", 1, filling_kernel(16, 100)));
  const auto plan = make_plan(small_gpu(), workers, {});
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code, Errc::budget_exceeded);
  EXPECT_THAT(plan.error().message(), HasSubstr("plan for fewer workers"));
}

TEST(Planner, MoreWorkersThanHalvesOfShaderEnginesHaveNoPlan) {
  auto gpu = small_gpu();
  gpu.geometry.shader_engines = 1;
  const std::vector<Worker> workers(3, worker_of("a", 1, filling_kernel(4, 100)));
  const auto plan = make_plan(gpu, workers, {});
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code, Errc::budget_exceeded);
}

TEST(Groups, AreLongEnoughAndCoverTheRequest) {
  const Worker worker = worker_of("a", 100, filling_kernel(16, 100));
  const Groups groups = cut_into_groups(worker, 16, 450);
  ASSERT_EQ(groups.size(), 20U);
  for (std::size_t g = 0; g < groups.size(); ++g) EXPECT_EQ(groups[g], 5 * g);
  EXPECT_EQ(cut_into_groups(worker_of("short", 8, filling_kernel(16, 100)), 16, 450), Groups{0});
}

TEST(Groups, KernelsThatStayTogetherAreInOneGroup) {
  Worker worker = worker_of("a", 100, filling_kernel(16, 100));
  worker.stay_together = {{3, 12}, {90, 99}};
  const Groups groups = cut_into_groups(worker, 16, 450);
  EXPECT_GT(groups.size(), 10U);
  for (const std::uint32_t first : groups) {
    EXPECT_FALSE(first > 3 && first <= 12) << first;
    EXPECT_LE(first, 90U);
  }
  worker.uniform = true;
  EXPECT_EQ(cut_into_groups(worker, 16, 450), Groups{0});
}

TEST(Groups, AUniformWorkerNeverSwitches) {
  std::mt19937 random(15);
  std::vector<Worker> workers{random_worker(random, 40), random_worker(random, 40)};
  PlannerOptions options;
  options.group_us = 20;
  const auto free = make_plan(small_gpu(), workers, options);
  ASSERT_TRUE(free) << free.error().message();
  EXPECT_GT(free->groups[0].size(), 1U);
  workers[0].uniform = true;
  workers[1].stay_together = {{0, 39}};
  const auto plan = make_plan(small_gpu(), workers, options);
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->groups, (std::vector<Groups>{{0}, {0}}));
  EXPECT_EQ(plan->row(3).streams[0].size(), 1U);
  for (const Candidate& candidate : plan->candidates)
    EXPECT_LE(plan->value, candidate.value * (1 + 1e-9)) << candidate.name;
  workers[1].stay_together = {{0, 40}};
  const auto refused = make_plan(small_gpu(), workers, options);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), HasSubstr("give a range within its 40 kernels"));
}

TEST(Classes, CostWhatTheirKernelsCost) {
  const std::filesystem::path data = ECLIP_DATA_DIR;
  const auto gpu = model::load_gpu_description(data / "gpus/h100.toml");
  ASSERT_TRUE(gpu) << gpu.error().message();
  std::vector<Worker> workers;
  for (const char* name : {"densenet201-b32", "shufflenet_v2_x1_0-b32", "vgg19-b8"}) {
    const auto profile =
        model::load_profile(data / "profiles" / (std::string(name) + ".h100.json"));
    ASSERT_TRUE(profile) << profile.error().message();
    workers.push_back(profiled_worker(*profile, name));
  }
  const std::vector<CuMask> streams{CuMask::full(132)};
  Assignment assignment;
  for (const Worker& worker : workers)
    assignment.stream_of_kernel.emplace_back(worker.kernels.size(), 0);
  const CostTables kernels(*gpu, workers, streams, Resolution::kernels);
  const CostTables classes(*gpu, workers, streams, Resolution::classes);
  EXPECT_LT(classes.classes(0), 100U);
  const auto exact = predict(*gpu, kernels, assignment, {});
  const auto coarse = predict(*gpu, classes, assignment, {});
  for (std::size_t w = 0; w < workers.size(); ++w)
    EXPECT_NEAR(coarse.request_us[w], exact.request_us[w], 0.01 * exact.request_us[w]);
}

}  // namespace
}  // namespace eclip::planner
