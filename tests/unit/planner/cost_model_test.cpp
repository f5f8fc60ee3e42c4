// The formulas of the cost model in cases whose answer is known by hand.
#include <gtest/gtest.h>

#include <array>

#include "daemon/planner/cost_model.h"
#include "tests/unit/planner/kernels.h"

namespace eclip::planner {
namespace {

const CostOptions no_host{.request_overhead_us = 0};

Prediction predict_whole(const model::GpuDescription& gpu, const std::vector<Worker>& workers,
                         const std::vector<CuMask>& streams,
                         const std::vector<std::uint32_t>& stream_of_worker,
                         const CostOptions& options = no_host) {
  const CostTables tables(gpu, workers, streams);
  Assignment assignment;
  for (std::size_t w = 0; w < workers.size(); ++w)
    assignment.stream_of_kernel.emplace_back(workers[w].kernels.size(), stream_of_worker[w]);
  return predict(gpu, tables, assignment, options);
}

TEST(CostModel, AloneIsKernelsAndGaps) {
  const std::array streams{CuMask::full(16)};
  const auto prediction = predict_whole(small_gpu(), {worker_of("a", 10, filling_kernel(16, 100))},
                                        {CuMask::full(16)}, {0});
  EXPECT_DOUBLE_EQ(prediction.request_us[0], 10 * 100 + 9 * 1);
  EXPECT_DOUBLE_EQ(prediction.alone_us[0], prediction.request_us[0]);
}

TEST(CostModel, ASwitchCostsABarrierInsteadOfAGap) {
  const std::vector<Worker> workers{worker_of("a", 4, filling_kernel(8, 100))};
  const std::vector<CuMask> streams{cus(0, 8), cus(8, 8)};
  const CostTables tables(small_gpu(), workers, streams);
  const auto prediction =
      predict(small_gpu(), tables, {.stream_of_kernel = {{0, 1, 1, 0}}}, no_host);
  EXPECT_DOUBLE_EQ(prediction.request_us[0], 4 * 100 + 2 * 2 + 1);
}

TEST(CostModel, KernelsThatFillTheDeviceTakeTurns) {
  const std::vector<Worker> workers{worker_of("a", 50, filling_kernel(16, 100)),
                                    worker_of("b", 50, filling_kernel(16, 60))};
  const auto prediction = predict_whole(small_gpu(), workers, {CuMask::full(16)}, {0, 0});
  EXPECT_NEAR(prediction.request_us[0], 50 * 160, 0.03 * 50 * 160);
  EXPECT_NEAR(prediction.request_us[1], 50 * 160, 0.03 * 50 * 160);
}

TEST(CostModel, DisjointWorkersDoNotWait) {
  const std::vector<Worker> workers{worker_of("a", 50, filling_kernel(8, 100)),
                                    worker_of("b", 50, filling_kernel(8, 60))};
  const auto prediction = predict_whole(small_gpu(), workers, {cus(0, 8), cus(8, 8)}, {0, 1});
  EXPECT_DOUBLE_EQ(prediction.request_us[0], prediction.alone_us[0]);
  EXPECT_DOUBLE_EQ(prediction.request_us[1], prediction.alone_us[1]);
}

TEST(CostModel, ASmallKernelWaitsForALargeOneAndNotTheReverse) {
  const std::vector<Worker> workers{worker_of("small", 100, filling_kernel(1, 2)),
                                    worker_of("large", 10, filling_kernel(16, 400))};
  const auto prediction = predict_whole(small_gpu(), workers, {CuMask::full(16)}, {0, 0});
  EXPECT_GT(prediction.request_us[0], 10 * prediction.alone_us[0]);
  EXPECT_LT(prediction.request_us[1], 1.1 * prediction.alone_us[1]);
}

TEST(CostModel, AKernelWithOtherCusWaitsNoLongerThanItTakesThere) {
  // On eight free CUs the small kernel is as fast as on all, so nothing keeps it.
  const std::vector<Worker> workers{worker_of("small", 100, filling_kernel(4, 2)),
                                    worker_of("large", 10, filling_kernel(8, 400))};
  const auto prediction =
      predict_whole(small_gpu(), workers, {CuMask::full(16), cus(0, 8)}, {0, 1});
  EXPECT_LT(prediction.request_us[0], 1.2 * prediction.alone_us[0]);
}

TEST(CostModel, TheProportionalFormKnowsNoWaiting) {
  const std::vector<Worker> workers{worker_of("small", 100, filling_kernel(1, 2)),
                                    worker_of("large", 10, filling_kernel(16, 400))};
  CostOptions options = no_host;
  options.form = CostForm::proportional;
  const auto prediction = predict_whole(small_gpu(), workers, {CuMask::full(16)}, {0, 0}, options);
  EXPECT_LT(prediction.request_us[0], 2 * prediction.alone_us[0]);
}

TEST(CostModel, PastTheConnectionsSwitchingRequestsFollowEachOther) {
  const std::vector<Worker> workers{worker_of("a", 4, filling_kernel(8, 100)),
                                    worker_of("b", 4, filling_kernel(8, 100))};
  const std::vector<CuMask> streams{cus(0, 8), cus(8, 8)};
  const CostTables tables(small_gpu(), workers, streams);
  const Assignment assignment{.stream_of_kernel = {{0, 1, 1, 0}, {0, 1, 1, 0}}};
  CostOptions options = no_host;
  options.queues = 9;
  const auto prediction = predict(small_gpu(), tables, assignment, options);
  EXPECT_DOUBLE_EQ(prediction.request_us[0], prediction.alone_us[0] + prediction.alone_us[1]);
}

TEST(CostModel, EnergyIsIdlePowerAndBusyCus) {
  const auto prediction =
      predict_whole(small_gpu(), {worker_of("a", 1, filling_kernel(8, 100))}, {cus(0, 8)}, {0});
  EXPECT_NEAR(prediction.joules[0], 8 * 10 * 100e-6, 1e-12);
  EXPECT_NEAR(prediction.watts, 50 + 8 * 10, 1e-9);
}

TEST(CostModel, AnInactiveWorkerTakesNoTimeAndDelaysNobody) {
  const std::vector<Worker> workers{worker_of("a", 5, filling_kernel(16, 100)),
                                    worker_of("b", 5, filling_kernel(16, 100))};
  const std::vector<CuMask> streams{CuMask::full(16)};
  const CostTables tables(small_gpu(), workers, streams);
  const auto prediction = predict(
      small_gpu(), tables, {.stream_of_kernel = {std::vector<std::uint32_t>(5, 0), {}}}, no_host);
  EXPECT_DOUBLE_EQ(prediction.request_us[0], prediction.alone_us[0]);
  EXPECT_EQ(prediction.request_us[1], 0);
}

}  // namespace
}  // namespace eclip::planner
