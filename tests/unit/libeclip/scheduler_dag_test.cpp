// The scheduler keeps every dependency of random programs, whatever the GPU, eclipd and the plan do
// (scheduler_vm.h); and what keeps them is needed: without it, values differ.
//
// ECLIP_DAG_SEED=n runs one case of Dag.* only, ECLIP_DAG_KERNELS=n so many kernels in each.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>

#include "tests/unit/libeclip/scheduler_vm.h"

namespace eclip::test {

// For the names of tests.
void PrintTo(Mutation mutation, std::ostream* out);
void PrintTo(Mutation mutation, std::ostream* out) {
  *out << name_of(mutation);
}

namespace {

#if defined(ECLIP_SANITIZED)
constexpr std::uint64_t kernels_of_each = 10'000;
constexpr std::uint64_t mutants_of_each = 10;
#else
constexpr std::uint64_t kernels_of_each = 300'000;
constexpr std::uint64_t mutants_of_each = 300;
#endif

std::uint64_t number_of(const char* variable, std::uint64_t otherwise) {
  const char* const text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

/// Cases of 1000 kernels and many small ones.
DagCase case_of(std::uint64_t seed) {
  return {.seed = seed, .kernels = seed % 4 == 0 ? 1000U : 200U, .dense = seed % 5 == 0};
}

void prove(std::uint64_t first_seed) {
  if (const std::uint64_t seed = number_of("ECLIP_DAG_SEED", 0); seed != 0) {
    EXPECT_EQ(run_dag(case_of(seed)).failure, "");
    return;
  }
  const std::uint64_t kernels = number_of("ECLIP_DAG_KERNELS", kernels_of_each);
  DagResult sum;
  std::uint64_t seed = first_seed;
  for (; sum.kernels < kernels; ++seed) {
    const DagResult result = run_dag(case_of(seed));
    ASSERT_EQ(result.failure, "") << "again with ECLIP_DAG_SEED=" << seed;
    sum.kernels += result.kernels;
    sum.moves += result.moves;
    sum.scheduled += result.scheduled;
    for (std::size_t i = 0; i < sum.bypassed.size(); ++i) sum.bypassed[i] += result.bypassed[i];
    sum.killed += result.killed;
    sum.calls += result.calls;
  }
  std::cout << "seeds " << first_seed << " to " << seed - 1 << ": " << sum.kernels << " kernels, "
            << sum.scheduled << " by the plan, " << sum.moves << " moves, " << sum.calls
            << " functions, " << sum.killed << " workers killed;";
  for (std::size_t i = 0; i < sum.bypassed.size(); ++i)
    std::cout << " " << name_of(static_cast<BypassReason>(i)) << " " << sum.bypassed[i];
  std::cout << "\n";
  // It is no proof if hardly anything happens.
  EXPECT_GT(sum.moves, kernels / 50);
  EXPECT_GT(sum.calls, kernels / 500);
  // The short runs of the sanitized builds may be without.
  if (kernels >= 100'000) {
    EXPECT_GT(sum.killed, 0U);
  }
  EXPECT_GT(sum.scheduled, kernels / 4);
}

TEST(Dag, ValuesAreThoseOfSerialExecution1) {
  prove(1'000'000);
}
TEST(Dag, ValuesAreThoseOfSerialExecution2) {
  prove(2'000'000);
}
TEST(Dag, ValuesAreThoseOfSerialExecution3) {
  prove(3'000'000);
}
TEST(Dag, ValuesAreThoseOfSerialExecution4) {
  prove(4'000'000);
}

class DagMutation : public ::testing::TestWithParam<Mutation> {};

TEST_P(DagMutation, IsCaught) {
  const Mutation mutation = GetParam();
  std::uint64_t made = 0;
  std::uint64_t mattered = 0;
  std::uint64_t told = 0;
  std::uint64_t caught = 0;
  for (std::uint64_t seed = 1; made < mutants_of_each && seed < 20 * mutants_of_each; ++seed) {
    DagCase dag{.seed = seed, .kernels = 100, .dense = true};
    const DagResult control = run_dag(dag);
    ASSERT_EQ(control.failure, "");
    const auto candidates = control.candidates[static_cast<std::size_t>(mutation)];
    if (candidates == 0) continue;
    dag.mutation = mutation;
    dag.mutate_at = seed * 7919 % candidates;
    const DagResult result = run_dag(dag);
    ++made;
    if (result.order_differs) ++mattered;
    if (!result.order_differs && result.told_too_early) ++told;
    if (result.final_values_differ) ++caught;
    EXPECT_TRUE(result.order_differs || !result.final_values_differ) << seed;
  }
  std::cout << name_of(mutation) << ": of " << made << " mutants " << mattered
            << " changed the order, of which " << caught << " changed the values; of " << told
            << " others only the host was told too early\n";
  EXPECT_GT(caught, 0U);
  EXPECT_GE(10 * caught, 9 * mattered);
}

INSTANTIATE_TEST_SUITE_P(Each, DagMutation,
                         ::testing::Values(Mutation::barrier_packet, Mutation::dependency,
                                           Mutation::dispatch_bit, Mutation::marker_bit,
                                           Mutation::marker_packet),
                         [](const auto& mutant) {
                           std::string name = name_of(mutant.param);
                           std::erase_if(name, [](char c) { return c == ' ' || c == '\''; });
                           return name;
                         });

}  // namespace
}  // namespace eclip::test
