#include "ipc/plan_table.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

namespace eclip {
namespace {

/// A plan in which every word tells its epoch.
WorkerPlan plan_of(std::uint64_t epoch) {
  const auto mark = static_cast<std::uint8_t>(epoch % 7);
  WorkerPlan plan;
  plan.seat = mark;
  plan.workers = static_cast<std::uint32_t>(epoch);
  plan.kernel_count = static_cast<std::uint32_t>(epoch + 1000);
  plan.stream.emplace_back();  // nobody active
  plan.slowdown = {0, 1, static_cast<float>(epoch)};
  const std::size_t groups = 1 + epoch % PlanTable::max_groups;
  for (std::size_t g = 0; g < groups; ++g) {
    plan.first_kernel.push_back(static_cast<std::uint32_t>(g * (epoch + 1)));
    plan.shapes.push_back(static_cast<std::uint32_t>(g + epoch));
  }
  for (std::size_t set = 1; set < 4; ++set) plan.stream.emplace_back(groups, mark);
  for (std::size_t s = 0; s < PlanTable::max_streams; ++s)
    plan.alone_us.emplace_back(groups, static_cast<float>(100 * s + 1));
  return plan;
}

std::vector<std::uint32_t> first_kernels(const PlanReader::Groups& groups) {
  return {groups.first_kernel.begin(), groups.first_kernel.begin() + groups.count};
}

class PlanTableTest : public ::testing::Test {
 protected:
  void put(std::uint64_t epoch) {
    write_plan(*tables_, epoch, plan_of(epoch));
    in_force_.store(epoch, std::memory_order_release);
  }

  std::unique_ptr<PlanTables> tables_ = std::make_unique<PlanTables>();
  std::atomic<std::uint64_t> in_force_ = 0;
  PlanReader reader_{*tables_, in_force_};
};

TEST_F(PlanTableTest, WithoutAPlanThereIsNothingToRead) {
  EXPECT_EQ(reader_.epoch(), 0U);
  EXPECT_FALSE(reader_.groups(0));
  EXPECT_FALSE(reader_.stream(0, 1, 0));
}

TEST_F(PlanTableTest, GivesBackWhatWasWritten) {
  put(5);
  ASSERT_EQ(reader_.epoch(), 5U);
  const auto groups = reader_.groups(5);
  ASSERT_TRUE(groups);
  EXPECT_EQ(groups->seat, 5U);
  EXPECT_EQ(groups->workers, 5U);
  EXPECT_EQ(groups->kernel_count, 1005U);
  EXPECT_EQ(first_kernels(*groups), (std::vector<std::uint32_t>{0, 6, 12, 18, 24, 30}));
  EXPECT_EQ(groups->shapes[2], 7U);
  EXPECT_EQ(groups->of(0), 0U);
  EXPECT_EQ(groups->of(11), 1U);
  EXPECT_EQ(groups->of(12), 2U);
  EXPECT_EQ(groups->of(1000), 5U);
  EXPECT_EQ(groups->end(0), 6U);
  EXPECT_EQ(groups->end(5), UINT32_MAX);
  EXPECT_EQ(reader_.predicted_us(5, 2, 5, 3), 301 * 5);
  EXPECT_EQ(reader_.predicted_us(5, 2, 5, PlanTable::no_mask), 701 * 5);
  EXPECT_EQ(reader_.predicted_us(5, 3, 5, 3), 0) << "not known";
  EXPECT_EQ(reader_.predicted_us(4, 2, 5, 3), 0) << "another plan";
  EXPECT_EQ(reader_.predicted_us(5, 2, 5, 200), 0) << "no such stream";
  EXPECT_EQ(reader_.stream(5, 3, 5), 5);
  EXPECT_FALSE(reader_.stream(5, 3, 6)) << "no such group";
  EXPECT_FALSE(reader_.stream(5, 4, 0)) << "a set that is not planned";
  EXPECT_FALSE(reader_.stream(5, 0, 0)) << "nobody is active";
  EXPECT_FALSE(reader_.stream(5, 128, 0)) << "no such set";
  EXPECT_FALSE(reader_.stream(5, 1, UINT32_MAX));
}

TEST_F(PlanTableTest, ThePlanBeforeStaysUntilTheNextButOne) {
  put(5);
  put(6);
  EXPECT_TRUE(reader_.stream(5, 1, 0)) << "whoever reads it can finish";
  EXPECT_TRUE(reader_.stream(6, 1, 0));
  put(7);
  EXPECT_FALSE(reader_.stream(5, 1, 0));
  EXPECT_FALSE(reader_.groups(5));
}

TEST_F(PlanTableTest, AWorkerWithoutAPartInThePlanReadsNone) {
  put(5);
  in_force_.store(6);  // of which nobody wrote this worker's table
  EXPECT_FALSE(reader_.groups(reader_.epoch()));
  EXPECT_FALSE(reader_.stream(reader_.epoch(), 1, 0));
}

TEST_F(PlanTableTest, AReaderNeverSeesPartsOfTwoPlans) {
  constexpr std::uint64_t plans = 3000;
  std::atomic<bool> done = false;
  std::atomic<std::uint64_t> reads = 0;
  const auto read = [&] {
    while (!done.load()) {
      const std::uint64_t epoch = reader_.epoch();
      const auto groups = reader_.groups(epoch);
      if (!groups) continue;
      const WorkerPlan expected = plan_of(epoch);
      ASSERT_EQ(groups->seat, expected.seat);
      ASSERT_EQ(first_kernels(*groups), expected.first_kernel);
      const std::uint32_t last = groups->count - 1;
      const auto stream = reader_.stream(epoch, 2, last);
      ASSERT_EQ(stream.value_or(expected.seat), expected.stream[2][last]);
      reads.fetch_add(1);
    }
  };
  std::thread first(read);
  std::thread second(read);
  for (std::uint64_t epoch = 1; epoch <= plans || reads.load() < 100; ++epoch) put(epoch);
  done = true;
  first.join();
  second.join();
  EXPECT_GE(reads.load(), 100U);
}

}  // namespace
}  // namespace eclip
