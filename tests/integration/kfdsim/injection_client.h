// What kfdsim_client does to find out which injected faults it meets.
#pragma once

#include <string>

namespace eclip::test {

/// Runs one of the commands below; an exit status, 2 for an unknown command.
///   ioctls N          N GET_CLOCK_COUNTERS: a letter for each, '.' or 'x'; "late" if they took 1 s
///   open              the errno of opening /dev/kfd
///   queues N          N queues with one packet each: a letter for each, '.' or 'h' when it hangs
///   progress N        N packets in each of two queues: how many are left when the second is done
///   start             when a packet started, in us of device time since kfdsim's start
///   sdma-start        the same of an SDMA queue
///   allocate KIND-MIB "ok" or "refused" for so much memory of kind vram or system
///   await-reset       says what a GPU reset does to it
int injection_client(const std::string& command, const std::string& argument);

}  // namespace eclip::test
