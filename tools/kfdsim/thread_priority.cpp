#include "tools/kfdsim/thread_priority.h"

#include <pthread.h>
#include <sched.h>

namespace eclip::kfdsim {

void prefer_this_thread() {
  sched_param lowest{};
  lowest.sched_priority = ::sched_get_priority_min(SCHED_RR);
  // RESET_ON_FORK: whatever this process starts is ordinary.
  ::pthread_setschedparam(::pthread_self(), SCHED_RR | SCHED_RESET_ON_FORK, &lowest);
}

}  // namespace eclip::kfdsim
