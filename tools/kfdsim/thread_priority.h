// The scheduling of kfdsim's own threads.
#pragma once

namespace eclip::kfdsim {

/// Hardware does not wait for its turn on the CPU: without this, a loaded machine delays packets by
/// milliseconds. The threads sleep most of the time; where it is not allowed, all still works.
void prefer_this_thread();

}  // namespace eclip::kfdsim
