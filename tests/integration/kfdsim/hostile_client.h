// A process that tries to reach what belongs to another one.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace eclip::test {

/// What the victim tells its attacker: more than an attacker would know.
struct Victim {
  pid_t pid;
  std::uint64_t signal;          ///< GPU address of a completion signal
  std::uint64_t memory_offset;   ///< of its memory, in the file behind the render node
  std::uint32_t expects_writes;  ///< the attacker's kernel writes over the signal; 0: completes it
};

/// Sends the victim's description and its descriptors of /dev/kfd and of the render node.
bool send_victim(int socket, const Victim& victim, int kfd, int render);

/// Receives them and tries everything. Says a line for each thing that it should not be able to do,
/// then "done". An exit status.
int hostile_client(int socket);

}  // namespace eclip::test
