// Runs the program's tests inside `kfdsim run`: the process replaces itself once. Where kfdsim
// cannot run, the tests run outside, and their fixture skips them with the reason.
// ECLIP_KFDSIM_MAPPING is kfdsim's --mapping.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "tests/integration/kfdsim/kfdsim_refusal.h"

// The test program's own options of kfdsim: string literals with commas between.
#ifndef KFDSIM_OPTIONS
#define KFDSIM_OPTIONS "--gpu", "mi50"
#endif

namespace {

bool only_lists(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]).starts_with("--gtest_list_tests")) return true;
  }
  return false;
}

/// 77, which CTest shows as skipped, when all tests were.
int run_tests(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const int failed = RUN_ALL_TESTS();
  const ::testing::UnitTest& tests = *::testing::UnitTest::GetInstance();
  const bool all_skipped =
      tests.skipped_test_count() > 0 && tests.skipped_test_count() == tests.test_to_run_count();
  return failed == 0 && all_skipped ? 77 : failed;
}

}  // namespace

int main(int argc, char** argv) {
  if (!only_lists(argc, argv) && std::getenv("ECLIP_INSIDE_KFDSIM") == nullptr) {
    const std::string refusal = eclip::test::kfdsim_refusal();
    if (!refusal.empty()) {
      ::setenv("ECLIP_KFDSIM_REFUSAL", refusal.c_str(), 1);
      return run_tests(argc, argv);
    }
    ::setenv("ECLIP_INSIDE_KFDSIM", "1", 1);
    const std::string mapping = eclip::test::kfdsim_mapping();
    std::vector<char*> arguments;
    for (const char* own :
         {KFDSIM_PROGRAM, "run", KFDSIM_OPTIONS, "--mapping", mapping.c_str(), "--"}) {
      arguments.push_back(const_cast<char*>(own));
    }
    arguments.insert(arguments.end(), argv, argv + argc + 1);
    ::execv(arguments[0], arguments.data());
    std::perror(KFDSIM_PROGRAM);
    return EXIT_FAILURE;
  }
  return run_tests(argc, argv);
}
