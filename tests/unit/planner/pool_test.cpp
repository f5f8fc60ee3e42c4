// Pools: budget, disjoint leaves, whole shader engines, unions.
#include <gtest/gtest.h>

#include "daemon/planner/pool.h"
#include "tests/unit/planner/kernels.h"

namespace eclip::planner {
namespace {

Pool sized_pool(std::size_t workers, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Worker> made;
  for (std::size_t w = 0; w < workers; ++w) made.push_back(random_worker(random, 20));
  const std::vector<double> activity(workers, 0.5);
  const auto gpu = small_gpu();
  return pool_of_leaves(gpu, "disjoint", sized_leaves(gpu, made, activity), made, activity);
}

TEST(Pool, KeepsTheBudgetAndEveryMaskReachesACu) {
  for (std::size_t workers = 1; workers <= 7; ++workers) {
    const Pool pool = sized_pool(workers, 3);
    EXPECT_LE(pool.streams.size(), stream_budget) << workers;
    ASSERT_EQ(pool.home.size(), workers);
    for (const PoolStream& stream : pool.streams) EXPECT_FALSE(stream.mask.empty()) << workers;
  }
}

TEST(Pool, HomeLeavesAreDisjoint) {
  for (std::size_t workers = 2; workers <= 7; ++workers) {
    const Pool pool = sized_pool(workers, 4);
    for (std::size_t a = 0; a < workers; ++a)
      for (std::size_t b = a + 1; b < workers; ++b)
        EXPECT_EQ(pool.streams[pool.home[a]].mask.overlap(pool.streams[pool.home[b]].mask), 0U);
  }
}

TEST(Pool, ALeafIsHalfOfAShaderEngineOrWholeOnes) {
  const auto gpu = small_gpu();
  const std::vector<Worker> workers(3, worker_of("a", 1, filling_kernel(16, 10)));
  const std::vector<double> activity(3, 0.5);
  const LeafSizes sizes{{1, 2, 4}};
  const Pool pool = pool_of_leaves(gpu, "pool", sizes, workers, activity);
  for (std::size_t w = 0; w < workers.size(); ++w) {
    const CuMask& leaf = pool.streams[pool.home[w]].mask;
    EXPECT_EQ(leaf.count(), 2 * sizes.halves[w]);
    std::vector<std::uint32_t> cus_of_engine(gpu.geometry.shader_engines, 0);
    for (std::uint32_t cu = 0; cu < gpu.geometry.cu_count(); ++cu)
      if (leaf.contains(cu)) ++cus_of_engine[gpu.shader_engine_of(cu)];
    for (const std::uint32_t count : cus_of_engine)
      EXPECT_TRUE(count == 0 || count == (sizes.halves[w] == 1 ? 2U : 4U)) << "worker " << w;
  }
}

TEST(Pool, ThreeWorkersHaveAllSevenUnions) {
  const Pool pool = sized_pool(3, 6);
  EXPECT_EQ(pool.pruned_unions, 0U);
  WorkerSet seen = 0;
  for (const PoolStream& stream : pool.streams) seen |= WorkerSet{1} << stream.leaves;
  EXPECT_EQ(seen, 0xFEU);  // every set from 1 to 7
}

TEST(Pool, FourWorkersHaveTheirLeavesAndTheBestUnions) {
  const Pool pool = sized_pool(4, 7);
  EXPECT_EQ(pool.streams.size(), stream_budget);
  EXPECT_GT(pool.pruned_unions, 0U);
}

TEST(Pool, TheWorkerThatGainsMoreGetsMoreCus) {
  const auto gpu = small_gpu();
  const std::vector<Worker> workers{worker_of("small", 10, filling_kernel(2, 10)),
                                    worker_of("large", 10, filling_kernel(16, 10))};
  const LeafSizes sizes = sized_leaves(gpu, workers, std::vector<double>{0.9, 0.9});
  EXPECT_EQ(sizes.halves[0], 1U);
  EXPECT_GE(sizes.halves[1], 6U);
}

TEST(Pool, AnIdleLeafGoesToTheWorkerThatGainsByIt) {
  const auto gpu = small_gpu();
  const std::vector<Worker> workers{worker_of("small", 10, filling_kernel(2, 10)),
                                    worker_of("large", 10, filling_kernel(16, 10)),
                                    worker_of("idle", 10, filling_kernel(16, 10))};
  const auto shares =
      share_idle_leaves(gpu, {{1, 2, 4}}, workers, std::vector<double>{0.5, 0.5, 0.5}, 0b011);
  EXPECT_EQ(shares[0], 0b001U);
  EXPECT_EQ(shares[1], 0b110U);
  EXPECT_EQ(shares[2], 0U);
}

}  // namespace
}  // namespace eclip::planner
