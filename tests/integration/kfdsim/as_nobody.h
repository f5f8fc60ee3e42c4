// kfdsim as a user who is not root runs it, started by root.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "tests/integration/kfdsim/child_process.h"

namespace eclip::test {

inline constexpr int cannot_prepare = 77;
inline constexpr int refused = 125;
inline constexpr int cannot_execute = 126;
inline constexpr int not_found = 127;

/// Root lets user 65534 run kfdsim in a mount namespace in which /dev/fuse has these permissions:
/// the machine's own /dev is not touched.
inline std::string as_nobody(const std::string& fuse_mode, const std::string& kfdsim_arguments) {
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
inline std::string reason_to_skip(const ChildProcess& run, int status) {
  if (status == cannot_prepare) return "cannot prepare /dev/fuse: " + run.errors();
  if (status == cannot_execute || status == not_found) {
    return "another user may not run the build's programs";
  }
  const bool forbidden = run.errors().find("user namespaces") != std::string::npos;
  return status == refused && forbidden ? run.errors() : "";
}

}  // namespace eclip::test
