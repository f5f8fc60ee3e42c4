// How the GPU tells a sleeping forwarder that a packet has completed.
//
// A completion signal that carries the driver's event makes the packet processor interrupt the
// host, and the driver wake whoever waits on the event. That costs the host more than a look at a
// word in memory, so the forwarder lets signals carry it only while it sleeps.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "ipc/worker_regions.h"

namespace eclip::daemon {

struct CompletionInterrupt {
  /// The event, as amd_signal_t has it.
  std::uint64_t event_mailbox_ptr;
  std::uint32_t event_id;
  /// Raised, and woken as a futex, after one or more completions whose signals carried the event.
  std::shared_ptr<const std::atomic<std::uint32_t>> raised;
};

/// From now on the signal's completion interrupts the host; with null, nobody. A completion that
/// comes at the same time may still do as before: look at the signal afterwards.
inline void carry(SignalSlot& signal, const CompletionInterrupt* interrupt) {
  if (interrupt != nullptr) signal.event_id = interrupt->event_id;
  __atomic_store_n(&signal.event_mailbox_ptr,
                   interrupt != nullptr ? interrupt->event_mailbox_ptr : 0, __ATOMIC_RELEASE);
}

}  // namespace eclip::daemon
