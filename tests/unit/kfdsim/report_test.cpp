#include "tools/kfdsim/report.h"

#include <gtest/gtest.h>

namespace eclip::kfdsim {
namespace {

TEST(Report, TerminalDoesNotObeyAClientsName) {
  ::testing::internal::CaptureStderr();
  report("process 7 (\033[2Ja\nb\177): stopped");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "kfdsim: process 7 (?[2Ja?b?): stopped\n");
}

}  // namespace
}  // namespace eclip::kfdsim
