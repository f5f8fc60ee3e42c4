// Co-location in virtual time: the workers' own scheduler and plan tables over the device model.
#include "tools/eclip-bench/colocate.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tools/eclip-bench/colocate_judgement.h"
#include "tools/eclip-bench/colocate_report.h"

namespace eclip::bench {
namespace {

using nlohmann::json;

/// Quantiles are interpolated.
constexpr double rounded = 1 + 1e-9;

/// A run that CI can afford: a mix on two GPUs at two loads, all policies.
ColocateOptions small_run(unsigned jobs) {
  ColocateOptions options;
  options.data = ECLIP_DATA_DIR;
  for (const char* name : {"mi50", "h100"})
    options.gpus.push_back(
        *model::load_gpu_description(options.data / "gpus" / (std::string(name) + ".toml")));
  options.mixes = {"v+s@1"};
  options.loads = {closed_loop, 0.6};
  options.seeds = 2;
  options.requests = 6;
  options.jobs = jobs;
  return options;
}

const Colocation& small_colocation() {
  static const Colocation colocation = [] {
    auto run = colocate(small_run(2));
    if (!run) throw std::runtime_error(run.error().message());
    return std::move(*run);
  }();
  return colocation;
}

TEST(Colocate, RunsEveryCell) {
  const Colocation& colocation = small_colocation();
  EXPECT_EQ(colocation.mixes.size(), 2U);
  EXPECT_EQ(colocation.cells.size(), 2U * 2 * all_policies.size());
  for (const MixInfo& mix : colocation.mixes)
    for (const LoadShare load : {closed_loop, 0.6})
      for (const Policy policy : all_policies)
        EXPECT_NE(colocation.find(mix.gpu, mix.mix, load, policy), nullptr)
            << mix.gpu << mix.mix << load << name_of(policy);
}

TEST(Colocate, ServesEveryRequestInOrder) {
  for (const Cell& cell : small_colocation().cells) {
    SCOPED_TRACE(cell.gpu + " " + cell.mix + " " + name_of(cell.policy));
    EXPECT_EQ(cell.disorder, 0U);
    EXPECT_EQ(cell.completed, cell.arrived);
    EXPECT_GT(cell.kernels, 0U);
    for (const WorkerFigures& worker : cell.workers) {
      EXPECT_GE(worker.completed, 2U * 6);
      EXPECT_GT(worker.p50_us.median, 0);
      EXPECT_LE(worker.p50_us.median, worker.p95_us.median * rounded);
      EXPECT_LE(worker.p95_us.median, worker.p99_us.median * rounded);
      EXPECT_LE(worker.p95_us.least, worker.p95_us.median);
      EXPECT_LE(worker.p95_us.median, worker.p95_us.most);
      EXPECT_GT(worker.relative_rate.median, 0);
    }
    EXPECT_GT(cell.stp.median, 0);
    EXPECT_LE(cell.stp.median, 1.01 * static_cast<double>(cell.workers.size()));
    EXPECT_GT(cell.fairness.median, 0);
    EXPECT_LE(cell.fairness.median, 1 + 1e-9);
    EXPECT_GT(cell.joules_per_request.median, 0);
  }
}

TEST(Colocate, ServesTheSameRequestsUnderEveryPolicy) {
  const Colocation& colocation = small_colocation();
  for (const Cell& cell : colocation.cells) {
    if (cell.load == closed_loop) continue;
    const Cell* unmasked = colocation.find(cell.gpu, cell.mix, cell.load, Policy::unmasked);
    for (std::size_t w = 0; w < cell.workers.size(); ++w)
      EXPECT_EQ(cell.workers[w].completed, unmasked->workers[w].completed) << name_of(cell.policy);
  }
}

TEST(Colocate, GoesThroughTheSchedulerWhereItSays) {
  std::uint64_t switches = 0;
  for (const Cell& cell : small_colocation().cells) {
    SCOPED_TRACE(cell.gpu + " " + cell.mix + " " + name_of(cell.policy));
    SendCounts sum;
    for (const WorkerFigures& worker : cell.workers) {
      sum.scheduled += worker.counts.scheduled;
      sum.bypassed += worker.counts.bypassed;
      sum.switches += worker.counts.switches;
      sum.ioctls += worker.counts.ioctls;
    }
    switch (cell.policy) {
      case Policy::mask_ioctl:
        EXPECT_EQ(sum.scheduled, 0U);
        EXPECT_EQ(sum.switches, 0U);
        EXPECT_GT(sum.ioctls, 0U);
        break;
      case Policy::switching:
        EXPECT_EQ(sum.scheduled, 0U);
        EXPECT_EQ(sum.ioctls, 0U);
        EXPECT_GT(sum.switches, 0U);
        break;
      default:
        // Each kernel, those of requests that were cut off by the end, too; none was unknown.
        EXPECT_GE(sum.scheduled, cell.kernels);
        EXPECT_EQ(sum.bypassed, 0U);
        EXPECT_EQ(sum.ioctls, 0U);
        if (cell.policy == Policy::eclip) switches += sum.switches;
    }
  }
  EXPECT_GT(switches, 0U);
}

TEST(Colocate, IsDeterministicWhateverTheThreads) {
  auto options = small_run(1);
  options.gpus.pop_back();
  options.mixes = {"v+s@1"};
  const auto once = colocate(options);
  options.jobs = 3;
  const auto again = colocate(options);
  ASSERT_TRUE(once && again);
  EXPECT_EQ(colocate_json(*once, options), colocate_json(*again, options));
}

TEST(Colocate, SeedsAreDifferentRuns) {
  const Cell* cell = small_colocation().find("mi50", "v+s@1", 0.6, Policy::eclip);
  ASSERT_NE(cell, nullptr);
  ASSERT_EQ(cell->p95_us_by_seed.size(), 2U);
  EXPECT_NE(cell->p95_us_by_seed[0], cell->p95_us_by_seed[1]);
}

TEST(Colocate, NobodyBeatsAGpuForEachWorker) {
  const Colocation& colocation = small_colocation();
  for (const Cell& cell : colocation.cells) {
    const Cell* apart = colocation.find(cell.gpu, cell.mix, cell.load, Policy::own_gpu);
    EXPECT_GE(mean_relative_p95(cell, *apart), 0.99) << cell.mix << name_of(cell.policy);
  }
}

TEST(Colocate, PrintsJsonThatSaysItIsSimulated) {
  const ColocateOptions options = small_run(1);
  const json root = json::parse(colocate_json(small_colocation(), options));
  EXPECT_EQ(root.at("schema"), "eclip.colocate/1");
  EXPECT_EQ(root.at("simulated"), true);
  EXPECT_EQ(root.at("cells").size(), small_colocation().cells.size());
  for (const json& cell : root.at("cells")) {
    EXPECT_EQ(cell.at("kernels_out_of_order"), 0);
    EXPECT_EQ(cell.at("requests_arrived"), cell.at("requests_completed"));
  }
  EXPECT_EQ(root.at("targets").size(), targets_of(small_colocation()).size());
  EXPECT_NE(colocate_text(small_colocation(), options, true).find("simulated"), std::string::npos);
}

TEST(Colocate, NamesAMixThatThereIsNot) {
  auto options = small_run(1);
  options.mixes = {"z@8"};
  const auto run = colocate(options);
  ASSERT_FALSE(run);
  EXPECT_NE(run.error().message().find("no mix 'z@8'; give one of"), std::string::npos);
}

TEST(Colocate, TracesOneCellOnly) {
  auto options = small_run(1);
  options.trace = testing::TempDir() + "colocate-trace.json";
  EXPECT_FALSE(colocate(options));
  options.gpus.pop_back();
  options.mixes = {"v+s@1"};
  options.loads = {0.6};
  options.policies = {Policy::eclip};
  ASSERT_TRUE(colocate(options));
  std::ifstream stream(options.trace);
  const json trace = json::parse(stream);
  EXPECT_GT(trace.at("traceEvents").size(), 100U);
  std::filesystem::remove(options.trace);
}

}  // namespace
}  // namespace eclip::bench
