// The rights to mount for a user who is not root.
#pragma once

#include <string>

#include "ipc/result.h"

namespace eclip::kfdsim {

/// Moves the caller, which must have one thread, into a user namespace and a mount namespace of its
/// own, in which it may mount. In them it has the same user and group as before; so has what it
/// runs, without any more rights. Errc::access_denied, with the sysctl that forbids it.
Result<void> enter_user_namespace();

/// The switch of this machine that forbids user namespaces to ordinary users, and how to turn it;
/// "" when none is known to.
std::string user_namespace_remedy();

}  // namespace eclip::kfdsim
