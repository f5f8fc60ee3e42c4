// A refined profile comes to what is observed, and stays bounded whatever that is.
#include "daemon/planner/refinement.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace eclip::planner {
namespace {

using Kernels = std::vector<std::shared_ptr<const model::Kernel>>;

std::shared_ptr<const model::Kernel> kernel_with(std::uint32_t workgroups, double work_us) {
  const std::vector<model::TimePoint> points{{8, work_us}, {60, work_us / 4}};
  return std::make_shared<const model::Kernel>(
      *model::Kernel::create({.workgroups = workgroups}, points));
}

/// Requests of 40 kernels of four classes.
Kernels request() {
  Kernels kernels;
  for (std::uint32_t i = 0; i < 40; ++i) kernels.push_back(kernel_with(100 + i % 4, 20 + i % 4));
  return kernels;
}

TEST(Refinement, WithoutObservationsItIsTheProfile) {
  const Kernels kernels = request();
  EXPECT_EQ(ProfileRefinement(kernels).refined(), kernels);
}

TEST(Refinement, ComesToWhatEachKernelTakes) {
  ProfileRefinement refinement(request());
  for (int i = 0; i < 200; ++i)
    ASSERT_TRUE(refinement.observe(1, 15, 1.5 * request()[1]->time_on_mask_us(15)));
  EXPECT_NEAR(refinement.factor(1, 15), 1.5, 0.001);
  EXPECT_NEAR(refinement.factor(5, 15), 1.5, 0.001) << "of the same class";
  EXPECT_EQ(refinement.factor(2, 15), 1) << "of another";
  const Kernels refined = refinement.refined();
  EXPECT_NEAR(refined[1]->time_on_mask_us(15) / request()[1]->time_on_mask_us(15), 1.5, 0.01);
  EXPECT_EQ(refined[5], refined[1]);
}

TEST(Refinement, GroupsOfKernelsTellTheirClassesApart) {
  const Kernels kernels = request();
  const std::array<double, 4> truth{1.4, 0.8, 1.0, 1.9};
  ProfileRefinement refinement(kernels);
  std::mt19937 random(7);
  for (int i = 0; i < 4000; ++i) {
    const std::size_t count = 1 + random() % 3;
    const std::size_t first = random() % (kernels.size() - count);
    double time_us = 0;
    for (std::size_t k = first; k < first + count; ++k)
      time_us += kernels[k]->time_on_mask_us(30) * truth[k % 4];
    ASSERT_TRUE(refinement.observe(first, count, 30, time_us));
  }
  for (std::size_t k = 0; k < 4; ++k)
    EXPECT_NEAR(refinement.factor(k, 30) / truth[k], 1, 0.02) << k;
}

TEST(Refinement, NoiseIsAveraged) {
  const Kernels kernels = request();
  ProfileRefinement refinement(kernels);
  std::mt19937 random(11);
  std::lognormal_distribution<double> noise(std::log(1.25), 0.1);
  for (int i = 0; i < 2000; ++i)
    refinement.observe(0, 60, kernels[0]->time_on_mask_us(60) * noise(random));
  EXPECT_NEAR(refinement.factor(0, 60), 1.25, 0.08);
}

TEST(Refinement, OneOutlierMovesItByALimitedStep) {
  const Kernels kernels = request();
  ProfileRefinement refinement(kernels);
  for (int i = 0; i < 100; ++i) refinement.observe(0, 60, kernels[0]->time_on_mask_us(60));
  refinement.observe(0, 60, kernels[0]->time_on_mask_us(60) * 1e6);
  EXPECT_GT(refinement.factor(0, 60), 1);
  EXPECT_LT(refinement.factor(0, 60), 1.05);
}

TEST(Refinement, BetweenObservedCountsItInterpolatesAndBeyondItHolds) {
  const Kernels kernels = request();
  ProfileRefinement refinement(kernels);
  for (int i = 0; i < 300; ++i) {
    refinement.observe(0, 10, kernels[0]->time_on_mask_us(10));
    refinement.observe(0, 40, kernels[0]->time_on_mask_us(40) * 2);
  }
  EXPECT_NEAR(refinement.factor(0, 5), 1, 0.01);
  EXPECT_NEAR(refinement.factor(0, 20), std::sqrt(2.0), 0.01);
  EXPECT_NEAR(refinement.factor(0, 60), 2, 0.01);
}

TEST(Refinement, WhatIsNoTimeIsRefused) {
  ProfileRefinement refinement(request());
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(refinement.observe(0, 15, 0));
  EXPECT_FALSE(refinement.observe(0, 15, -1));
  EXPECT_FALSE(refinement.observe(0, 15, nan));
  EXPECT_FALSE(refinement.observe(0, 15, std::numeric_limits<double>::infinity()));
  EXPECT_FALSE(refinement.observe(0, 0, 1));
  EXPECT_FALSE(refinement.observe(0, 100'000, 1));
  EXPECT_FALSE(refinement.observe(40, 15, 1));
  EXPECT_FALSE(refinement.observe(39, 2, 15, 1));
  EXPECT_FALSE(refinement.observe(0, 0, 15, 1));
  EXPECT_FALSE(refinement.observe(1, std::numeric_limits<std::size_t>::max(), 15, 1));
  EXPECT_EQ(refinement.refined()[0]->time_us(15), request()[0]->time_us(15));
}

TEST(Refinement, ANewCountTakesThePlaceOfTheOneObservedLongestAgo) {
  const Kernels kernels = request();
  ProfileRefinement refinement(kernels, {.max_cu_counts = 2});
  const auto observe = [&](std::uint32_t cus, double factor) {
    for (int i = 0; i < 300; ++i)
      refinement.observe(0, cus, kernels[0]->time_on_mask_us(cus) * factor);
  };
  observe(10, 4);
  observe(30, 1);
  observe(60, 1);
  EXPECT_NEAR(refinement.factor(0, 10), 1, 0.01) << "the nearest count that is left";
}

TEST(Refinement, KernelsBeyondTheLastClassShareIt) {
  const Kernels kernels = request();
  ProfileRefinement refinement(kernels, {.max_classes = 2});
  for (int i = 0; i < 300; ++i) refinement.observe(3, 60, kernels[3]->time_on_mask_us(60) * 1.5);
  EXPECT_NEAR(refinement.factor(2, 60), 1.5, 0.01);
  EXPECT_EQ(refinement.factor(0, 60), 1);
  const Kernels refined = refinement.refined();
  EXPECT_NEAR(refined[2]->time_us(60) / kernels[2]->time_us(60), 1.5, 0.01) << "its own curve";
  EXPECT_NEAR(refined[3]->time_us(60) / kernels[3]->time_us(60), 1.5, 0.01);
}

TEST(Refinement, ItStaysWithinItsLimitsWhateverIsObserved) {
  const Kernels kernels = request();
  ProfileRefinement refinement(kernels);
  std::mt19937 random(3);
  for (int i = 0; i < 20'000; ++i) {
    const std::size_t first = random() % 50;
    refinement.observe(first, random() % 50, static_cast<std::uint32_t>(random() % 1100),
                       std::exp(std::uniform_real_distribution<double>(-700, 700)(random)));
  }
  for (const auto& kernel : refinement.refined())
    for (std::uint32_t cus = 1; cus <= 1024; cus += 31)
      EXPECT_TRUE(std::isfinite(kernel->time_us(cus)) && kernel->time_us(cus) > 0);
}

}  // namespace
}  // namespace eclip::planner
