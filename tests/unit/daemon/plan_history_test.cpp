#include "daemon/plan_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "ipc/read_file.h"
#include "tests/fake/temporary_directory.h"

namespace eclip::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class PlanHistoryTest : public ::testing::Test {
 protected:
  [[nodiscard]] Result<PlanHistory> open(std::size_t limit = PlanHistory::most_bytes) const {
    return PlanHistory::open(directory_.path(), "plans", limit);
  }
  [[nodiscard]] std::filesystem::path file(int number) const {
    return directory_.path() / ("plans." + std::to_string(number) + ".jsonl");
  }
  /// The one of the two in use.
  [[nodiscard]] std::filesystem::path file_in_use() const {
    return std::filesystem::file_size(file(0)) > 0 ? file(0) : file(1);
  }
  static PastPlan plan(std::uint64_t epoch, const std::string& reason = "why") {
    return {.epoch = epoch, .made_at = 1700000000, .reason = reason, .document = {{"n", epoch}}};
  }
  static std::vector<std::uint64_t> epochs(const PlanHistory& history) {
    std::vector<std::uint64_t> epochs;
    for (const PastPlan& past : history.plans()) epochs.push_back(past.epoch);
    return epochs;
  }

  test::TemporaryDirectory directory_;
};

TEST_F(PlanHistoryTest, GivesBackPlansAndThePinAfterARestart) {
  {
    auto history = open();
    ASSERT_TRUE(history) << history.error().message();
    EXPECT_EQ(history->next_epoch(), 1U);
    EXPECT_TRUE(history->add(plan(1)));
    EXPECT_TRUE(history->add(plan(2, "worker \x80 joined")));
    EXPECT_TRUE(history->pin(2));
  }
  auto history = open();
  ASSERT_TRUE(history) << history.error().message();
  EXPECT_THAT(epochs(*history), ElementsAre(1, 2));
  EXPECT_EQ(history->pinned(), 2U);
  EXPECT_EQ(history->next_epoch(), 3U);
  ASSERT_NE(history->find(1), nullptr);
  EXPECT_EQ(history->find(1)->reason, "why");
  EXPECT_EQ(history->find(1)->made_at, 1700000000);
  EXPECT_EQ(history->find(1)->document, nlohmann::json({{"n", 1}}));
  EXPECT_EQ(history->find(3), nullptr);
  EXPECT_TRUE(history->pin(std::nullopt));
  EXPECT_EQ(open()->pinned(), std::nullopt);
}

TEST_F(PlanHistoryTest, APlanOfTheSameEpochTakesThePlaceOfTheLast) {
  {
    auto history = open();
    EXPECT_TRUE(history->add(plan(1)));
    EXPECT_TRUE(history->add(plan(1, "judged")));
    EXPECT_THAT(epochs(*history), ElementsAre(1));
  }
  EXPECT_EQ(open()->find(1)->reason, "judged");
}

TEST_F(PlanHistoryTest, KeepsTheLastPlansAndThePinnedOne) {
  {
    auto history = open();
    for (std::uint64_t epoch = 1; epoch <= 3; ++epoch) EXPECT_TRUE(history->add(plan(epoch)));
    EXPECT_TRUE(history->pin(2));
    for (std::uint64_t epoch = 4; epoch <= 100; ++epoch) EXPECT_TRUE(history->add(plan(epoch)));
    EXPECT_EQ(history->plans().size(), PlanHistory::kept);
  }
  auto history = open();
  EXPECT_EQ(history->plans().size(), PlanHistory::kept);
  EXPECT_EQ(history->plans().front().epoch, 2U);
  EXPECT_EQ(history->plans().back().epoch, 100U);
  EXPECT_EQ(history->next_epoch(), 101U);
}

TEST_F(PlanHistoryTest, FilesDoNotGrowWithoutLimit) {
  constexpr std::size_t limit = 8000;
  auto history = open(limit);
  for (std::uint64_t epoch = 1; epoch <= 1000; ++epoch) {
    ASSERT_TRUE(history->add(plan(epoch)));
    ASSERT_LE(std::filesystem::file_size(file(0)) + std::filesystem::file_size(file(1)), limit);
  }
  EXPECT_EQ(epochs(*open()), epochs(*history));
}

TEST_F(PlanHistoryTest, ALineThatWasNotWrittenWholeIsDropped) {
  EXPECT_TRUE(open()->add(plan(1)));
  std::ofstream(file_in_use(), std::ios::app) << R"({"plan":{"epoch":2,"made)";
  auto history = open();
  ASSERT_TRUE(history) << history.error().message();
  EXPECT_THAT(epochs(*history), ElementsAre(1));
  EXPECT_TRUE(history->add(plan(2)));
  EXPECT_THAT(epochs(*open()), ElementsAre(1, 2));
}

TEST_F(PlanHistoryTest, AnEndWhileTheNewFileIsWrittenLosesNothing) {
  EXPECT_TRUE(open()->add(plan(1)));
  const auto old = file_in_use();
  const auto other = old == file(0) ? file(1) : file(0);
  std::ofstream(other) << R"({"generation":99,"schema":"eclip.plans/1"})"
                       << "\n{\"pl";
  auto history = open();
  ASSERT_TRUE(history) << history.error().message();
  EXPECT_THAT(epochs(*history), ElementsAre(1));
}

TEST_F(PlanHistoryTest, OfTwoWholeFilesTheNewerOneCounts) {
  // As when the disk has not been told that the older one is empty.
  EXPECT_TRUE(open()->add(plan(1)));
  const auto old = file_in_use();
  const auto content = read_file(old).value();
  EXPECT_TRUE(open()->add(plan(2)));
  ASSERT_NE(file_in_use(), old);
  std::ofstream(old) << content;
  EXPECT_THAT(epochs(*open()), ElementsAre(1, 2));
}

TEST_F(PlanHistoryTest, WhatItCannotReadIsLeftAloneAndNamed) {
  for (const char* line : {"nonsense", "[]", R"({"pin":"2"})", R"({"plan":{"epoch":-1}})",
                           R"({"plan":{"epoch":1,"made_at":0,"reason":"r"}})", R"({})"}) {
    const std::string content = R"({"generation":1,"schema":"eclip.plans/1"})"
                                "\n" +
                                std::string(line) + "\n";
    std::ofstream(file(0)) << content;
    std::ofstream(file(1)) << "";
    const auto history = open();
    ASSERT_FALSE(history) << line;
    EXPECT_EQ(history.error().code, Errc::malformed);
    EXPECT_THAT(history.error().message(), HasSubstr("plans.0.jsonl:2"));
    EXPECT_THAT(history.error().message(), HasSubstr("move the file away"));
    EXPECT_EQ(read_file(file(0)).value(), content);
  }
  std::ofstream(file(0)) << "#!/bin/sh\n";
  const auto history = open();
  ASSERT_FALSE(history);
  EXPECT_THAT(history.error().message(), HasSubstr("plans.0.jsonl:1"));
  EXPECT_EQ(read_file(file(0)).value(), "#!/bin/sh\n");
}

TEST_F(PlanHistoryTest, AFileThatCannotBeMadeIsNamed) {
  std::filesystem::create_directories(file(1));
  const auto history = open();
  ASSERT_FALSE(history);
  EXPECT_THAT(history.error().message(), HasSubstr("plans.1.jsonl"));
}

TEST(PlanHistoryInMemory, WorksWithoutFiles) {
  PlanHistory history;
  EXPECT_TRUE(history.add({.epoch = 1, .document = {}}));
  EXPECT_TRUE(history.pin(1));
  EXPECT_EQ(history.pinned(), 1U);
  EXPECT_EQ(history.next_epoch(), 2U);
}

}  // namespace
}  // namespace eclip::daemon
