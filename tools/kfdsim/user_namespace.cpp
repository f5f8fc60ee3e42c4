#include "tools/kfdsim/user_namespace.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <fstream>
#include <string_view>

#include "ipc/unique_fd.h"

namespace eclip::kfdsim {
namespace {

struct Switch {
  const char* file;
  const char* forbidding;  ///< its value that forbids
  const char* remedy;
};
constexpr std::array<Switch, 3> switches{{
    {"/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"},
    {"/proc/sys/kernel/unprivileged_userns_clone", "0",
     "sysctl kernel.unprivileged_userns_clone=1"},
    {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
     "sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
}};

Result<void> write_once(const char* file, std::string_view text) {
  const UniqueFd fd(::open(file, O_WRONLY | O_CLOEXEC));
  if (fd && ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size())) {
    return {};
  }
  return fail_errno(errno, fmt::format("cannot write {} in the user namespace", file));
}

}  // namespace

std::string user_namespace_remedy() {
  for (const Switch& one : switches) {
    std::string value;
    if (std::getline(std::ifstream(one.file), value) && value == one.forbidding) return one.remedy;
  }
  return {};
}

Result<void> enter_user_namespace() {
  const uid_t user = ::getuid();
  const gid_t group = ::getgid();
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
    const int error = errno;
    std::string remedy = user_namespace_remedy();
    if (remedy.empty()) {
      remedy = error == EINVAL ? "run a kernel with CONFIG_USER_NS=y"
                               : "check that no container or security policy forbids them";
    }
    return fail_errno(error, fmt::format("this user may not make user namespaces: run kfdsim as "
                                         "root (CAP_SYS_ADMIN), or: {}",
                                         remedy));
  }
  // Without the first, a user without privileges may not write the last.
  if (auto done = write_once("/proc/self/setgroups", "deny"); !done) return done;
  if (auto done = write_once("/proc/self/uid_map", fmt::format("{} {} 1", user, user)); !done) {
    return done;
  }
  return write_once("/proc/self/gid_map", fmt::format("{} {} 1", group, group));
}

}  // namespace eclip::kfdsim
