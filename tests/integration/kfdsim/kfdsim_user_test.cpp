// kfdsim for users who are not root, and on machines that do not let them.
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "tests/integration/kfdsim/child_process.h"
#include "tests/integration/kfdsim/kfdsim_command.h"

namespace eclip::test {
namespace {

constexpr int cannot_prepare = 77;
constexpr int refused = 125;
constexpr int cannot_execute = 126;
constexpr int not_found = 127;
constexpr const char* rocminfo = "/usr/bin/rocminfo";

/// Root lets user 65534 run kfdsim in a mount namespace in which /dev/fuse has these permissions:
/// the machine's own /dev is not touched.
std::string as_nobody(const std::string& fuse_mode, const std::string& kfdsim_arguments) {
  return "d=$(mktemp -d) && mount -t tmpfs none $d && mknod $d/fuse c 10 229 && chmod " +
         fuse_mode +
         " $d/fuse && mount --bind $d/fuse /dev/fuse && umount -l $d && rmdir $d || exit 77; "
         "cd / && exec setpriv --reuid=65534 --regid=65534 --clear-groups " KFDSIM_PROGRAM " run " +
         kfdsim_arguments;
}

class KfdsimUser : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "root is needed to become another user";
  }

  /// Runs the script in a private mount namespace.
  static ChildProcess in_private_namespace(const std::string& script) {
    return ChildProcess({"/usr/bin/unshare", "--mount", "/bin/sh", "-c", script});
  }
};

/// Why the machine lets no ordinary user run kfdsim; "" when it does.
std::string reason_to_skip(const ChildProcess& run, int status) {
  if (status == cannot_prepare) return "cannot prepare /dev/fuse: " + run.errors();
  if (status == cannot_execute || status == not_found) {
    return "another user may not run the build's programs";
  }
  const bool forbidden = run.errors().find("user namespaces") != std::string::npos;
  return status == refused && forbidden ? run.errors() : "";
}

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
