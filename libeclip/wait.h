// Waiting for one use of a signal.
#pragma once

#include "libeclip/context.h"

namespace eclip {

/// As eclip_wait, for a use that was begun.
int wait_for(eclip_context* context, SignalUse use, std::uint64_t timeout_ns);

}  // namespace eclip
