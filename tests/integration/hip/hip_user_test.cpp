// HIP as a user who is not root has it.
#include <gtest/gtest.h>

#include <string>

#include "tests/integration/kfdsim/as_nobody.h"

namespace eclip::test {
namespace {

TEST_F(KfdsimUser, HipWorksForAnOrdinaryUser) {
  // One process for all of them: HIP's start takes the most time.
  constexpr const char* tests =
      "Sizes/HipCopy.*/65537:Hip.Copies2D*:Hip.Pinned*:Hip.Registered*:Hip.Shadowed*:"
      "Hip.EventsOrder*:Hip.CuMaskOfAStream*:Hip.Graphs*:Hip.Threads*";
  ChildProcess run = in_private_namespace(
      "export ECLIP_INSIDE_KFDSIM=1; " +
      as_nobody("0666", std::string("-q --shadow " HIP_TEST_SHADOWS " -- " HIP_TEST_PROGRAM
                                    " --gtest_filter='") +
                            tests + "'"));
  const int status = run.wait();
  if (const auto reason = reason_to_skip(run, status); !reason.empty()) GTEST_SKIP() << reason;
  EXPECT_EQ(status, 0) << run.output() << run.errors();
  EXPECT_NE(run.output().find("[  PASSED  ] 11 tests."), std::string::npos) << run.output();
}

}  // namespace
}  // namespace eclip::test
