// kfdsim as a program that a test starts.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/integration/kfdsim/kfdsim_refusal.h"

namespace eclip::test {

/// `kfdsim run` with these options, the mapping of this test run, and the command.
inline std::vector<std::string> with_kfdsim(const std::vector<std::string>& options,
                                            const std::vector<std::string>& command) {
  std::vector<std::string> all{KFDSIM_PROGRAM, "run", "--mapping", kfdsim_mapping()};
  all.insert(all.end(), options.begin(), options.end());
  all.emplace_back("--");
  all.insert(all.end(), command.begin(), command.end());
  return all;
}

/// The one line that a failed kfdsim may print.
inline void expect_one_line(const std::string& text, const std::string& part) {
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
  EXPECT_TRUE(text.starts_with("kfdsim: ")) << text;
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

}  // namespace eclip::test
