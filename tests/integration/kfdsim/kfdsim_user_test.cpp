// kfdsim for users who are not root, and on machines that do not let them.
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "tests/integration/kfdsim/as_nobody.h"
#include "tests/integration/kfdsim/child_process.h"
#include "tests/integration/kfdsim/kfdsim_command.h"

namespace eclip::test {
namespace {

constexpr const char* rocminfo = "/usr/bin/rocminfo";

TEST_F(KfdsimUser, AnOrdinaryUserComputes) {
  ChildProcess run = in_private_namespace(
      as_nobody("0666", "-- /bin/sh -c 'id -u; id -g; " KFDSIM_CLIENT " work 25'"));
  const int status = run.wait();
  if (const auto reason = reason_to_skip(run, status); !reason.empty()) GTEST_SKIP() << reason;
  EXPECT_EQ(status, 0) << run.errors();
  EXPECT_EQ(run.output(), "65534\n65534\nworked\n");
  expect_one_line(run.errors(), " 25 packets");
}

TEST_F(KfdsimUser, AnOrdinaryUsersQueuesAreListed) {
  ChildProcess run = in_private_namespace(
      as_nobody("0666", "-q -- /bin/sh -c '" KFDSIM_CLIENT
                        " hold > /dev/null & f=/sys/class/kfd/kfd/proc/$!; "
                        "until test -e $f/queues/2; do sleep 0.05; done; cat $f/queues/2/gpuid; "
                        "kill -KILL $!; while test -e $f; do sleep 0.05; done; echo , gone'"));
  const int status = run.wait();
  if (const auto reason = reason_to_skip(run, status); !reason.empty()) GTEST_SKIP() << reason;
  EXPECT_EQ(status, 0) << run.errors();
  EXPECT_EQ(run.output(), "49374, gone\n");
}

TEST_F(KfdsimUser, AnOrdinaryUserGainsNoRights) {
  ChildProcess run =
      in_private_namespace(as_nobody("0666", "-q -- /bin/grep CapEff /proc/self/status"));
  const int status = run.wait();
  if (const auto reason = reason_to_skip(run, status); !reason.empty()) GTEST_SKIP() << reason;
  EXPECT_EQ(status, 0) << run.errors();
  EXPECT_EQ(run.output(), "CapEff:\t0000000000000000\n");
}

TEST_F(KfdsimUser, RocminfoWorksForAnOrdinaryUser) {
  if (::access(rocminfo, X_OK) != 0) GTEST_SKIP() << "rocminfo is not installed";
  ChildProcess run = in_private_namespace(as_nobody("0666", std::string("-q -- ") + rocminfo));
  const int status = run.wait();
  if (const auto reason = reason_to_skip(run, status); !reason.empty()) GTEST_SKIP() << reason;
  EXPECT_EQ(status, 0) << run.errors();
  EXPECT_NE(run.output().find("MI50 (simulated)"), std::string::npos) << run.output();
}

TEST_F(KfdsimUser, PassthroughIsRefusedToAnOrdinaryUser) {
  ChildProcess run = in_private_namespace(as_nobody("0666", "--mapping passthrough -- /bin/true"));
  const int status = run.wait();
  if (const auto reason = reason_to_skip(run, status); !reason.empty()) GTEST_SKIP() << reason;
  EXPECT_EQ(status, refused);
  expect_one_line(run.errors(), "passthrough");
}

TEST_F(KfdsimUser, DevFuseForRootOnlySaysSo) {
  ChildProcess run = in_private_namespace(as_nobody("0600", "-- /bin/true"));
  const int status = run.wait();
  if (const auto reason = reason_to_skip(run, status); !reason.empty()) GTEST_SKIP() << reason;
  EXPECT_EQ(status, refused);
  expect_one_line(run.errors(), "chmod 0666 /dev/fuse");
}

TEST_F(KfdsimUser, ForbiddenUserNamespacesSaySo) {
  // Forbidden in a user namespace only, whose limit counts for those inside.
  const std::string kfdsim = KFDSIM_PROGRAM;
  ChildProcess run({"/usr/bin/unshare", "--user", "--map-root-user", "/bin/sh", "-c",
                    "echo 0 > /proc/sys/user/max_user_namespaces || exit 77; "
                    "exec setpriv --bounding-set=-sys_admin " +
                        kfdsim + " run -- /bin/true"});
  const int status = run.wait();
  if (status != refused) GTEST_SKIP() << "cannot forbid user namespaces here: " << run.errors();
  expect_one_line(run.errors(), "sysctl user.max_user_namespaces");
  EXPECT_NE(run.errors().find("root"), std::string::npos);
}

TEST_F(KfdsimUser, WithoutDevFuseSaysSo) {
  // In a namespace of its own, so that the machine's /dev is not touched.
  ChildProcess run = in_private_namespace(
      "mount -t tmpfs none /dev || exit 77; exec " KFDSIM_PROGRAM " run -- /bin/true");
  const int status = run.wait();
  if (status == cannot_prepare) GTEST_SKIP() << "mounts are forbidden: " << run.errors();
  EXPECT_EQ(status, refused);
  expect_one_line(run.errors(), "modprobe fuse");
}

}  // namespace
}  // namespace eclip::test
