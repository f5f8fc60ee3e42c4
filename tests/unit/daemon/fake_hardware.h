// A packet processor made of plain memory, and a worker's regions, for whoever drives a Forwarder.
#pragma once

#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <vector>

#include "daemon/forwarder.h"
#include "ipc/futex.h"

namespace eclip::daemon {

inline constexpr std::size_t ring_packets = 256;

/// A hardware queue that completes packets when the test says so.
struct FakeQueue {
  std::vector<AqlPacket> slots = std::vector<AqlPacket>(ring_packets);
  std::uint64_t write_index = 0;
  std::uint64_t read_index = 0;
  std::uint64_t doorbell = UINT64_MAX;
  AqlRing ring{slots, write_index, read_index, doorbell};
  /// Raised by completions whose signals carry an event.
  std::shared_ptr<std::atomic<std::uint32_t>> interrupts =
      std::make_shared<std::atomic<std::uint32_t>>();

  [[nodiscard]] std::uint64_t rung() const {
    return __atomic_load_n(&doorbell, __ATOMIC_ACQUIRE) + 1;
  }
  /// Completes packet `number`, which ran from `start` to `end`: signals live at their host address
  /// here.
  void complete(std::uint64_t number, std::uint64_t start = 0, std::uint64_t end = 0) {
    SignalSlot* const signal = signal_of(number);
    if (signal == nullptr) return;
    __atomic_store_n(&signal->start_ts, start, __ATOMIC_RELAXED);
    __atomic_store_n(&signal->end_ts, end, __ATOMIC_RELAXED);
    signal->value.store(0);
    if (!interrupts_host(number)) return;
    interrupts->fetch_add(1);
    futex_wake_all(*interrupts);
  }
  /// Completes the next packet.
  void complete_one(std::uint64_t start = 0, std::uint64_t end = 0) {
    complete(read_index, start, end);
    __atomic_store_n(&read_index, read_index + 1, __ATOMIC_RELEASE);
  }
  /// The completion of packet `number`, which has a signal, does.
  [[nodiscard]] bool interrupts_host(std::uint64_t number) const {
    return __atomic_load_n(&signal_of(number)->event_mailbox_ptr, __ATOMIC_ACQUIRE) != 0;
  }
  [[nodiscard]] SignalSlot* signal_of(std::uint64_t number) const {
    std::uint64_t address = 0;
    std::memcpy(&address, &slots[number % ring_packets].body[13], sizeof address);
    return reinterpret_cast<SignalSlot*>(address);
  }
  [[nodiscard]] bool waits_for_others(std::uint64_t number) const {
    return (slots[number % ring_packets].header.load() >> HSA_PACKET_HEADER_BARRIER & 1) != 0;
  }
  void complete_all() {
    while (read_index < rung()) complete_one();
  }
};

/// A worker with its regions, and a writer into one lease's ring.
struct FakeWorker {
  std::unique_ptr<WorkerState> state = std::make_unique<WorkerState>();
  WorkerRequest request{};
  std::shared_ptr<ForwardedWorker> forwarded = std::make_shared<ForwardedWorker>();

  explicit FakeWorker(std::uint64_t id) {
    forwarded->id = WorkerId{id};
    forwarded->state = state.get();
    forwarded->request = &request;
    forwarded->objects.kernels = {
        {.object = id << 20, .kernarg_bytes = 0, .group_segment_bytes = 0}};
    forwarded->objects.signal_slots = state->signals.data();
    forwarded->objects.signals_gpu_address = reinterpret_cast<std::uint64_t>(state->signals.data());
  }
};

inline LeasePacket dispatch(SignalUse completion = {}) {
  LeasePacket packet{};
  packet.type = LeasePacketType::dispatch;
  packet.completion = completion;
  packet.dispatch.kernel = 1;
  packet.dispatch.grid_size = {64, 1, 1};
  packet.dispatch.workgroup_size = {64, 1, 1};
  return packet;
}

inline LeasePacket in_order(LeasePacket packet) {
  packet.flags = LeasePacket::flag_barrier;
  return packet;
}

inline LeasePacket wait_for(SignalUse dependency) {
  LeasePacket packet{};
  packet.type = LeasePacketType::barrier_and;
  packet.barrier.dependencies[0] = dependency;
  return packet;
}

}  // namespace eclip::daemon
